//! Steps around an agent's link: what stands on it, where it leads, what the agent says of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use causeway_mock_kit::pki::TestCa;
use causeway_mock_kit::proxy::Middlebox;

use crate::spec::{AgentSays, DrainStep, MiddleboxKind, MiddleboxStep};
use crate::world::World;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The page a captive portal sends to.
const SIGN_IN_PAGE: &str = "http://sign-in.hotel.example/";

/// Who signs for the inspecting box.
const INSPECTOR: &str = "Acme Web Filter";

pub(super) fn describe(step: &MiddleboxStep) -> String {
    let what = match step.kind {
        MiddleboxKind::None => "Clear the path",
        MiddleboxKind::ResetsUnknownAlpn => "Let nothing but HTTP through on the path",
        MiddleboxKind::RefusesUnknownAlpn => "Refuse everything but HTTP on the path",
        MiddleboxKind::CaptivePortal => "Put a sign-in page on the path",
        MiddleboxKind::Inspects => "Put TLS inspection on the path",
    };
    format!("{what} of {}", step.agent)
}

pub(super) fn middlebox(kind: MiddleboxKind) -> Result<Option<Middlebox>> {
    Ok(match kind {
        MiddleboxKind::None => None,
        MiddleboxKind::ResetsUnknownAlpn => Some(Middlebox::ResetsUnknownAlpn),
        MiddleboxKind::RefusesUnknownAlpn => Some(Middlebox::RefusesUnknownAlpn),
        MiddleboxKind::CaptivePortal => Some(Middlebox::CaptivePortal { location: SIGN_IN_PAGE.to_owned() }),
        MiddleboxKind::Inspects => {
            let ca = TestCa::new(INSPECTOR).context("make the inspecting box's authority")?;
            let tls = ca.server_config(&["127.0.0.1"], &[b"http/1.1"]).context("make its certificate")?;
            Some(Middlebox::Inspects { tls, location: None })
        }
    })
}

pub(super) async fn drain(step: &DrainStep, world: &mut World) -> Result<String> {
    let told = world.drain(Duration::from_millis(step.over_ms)).await?;
    let deadline = Instant::now() + Duration::from_secs(step.within_secs);
    loop {
        let there = world.at_second_address();
        if there == step.agents {
            return Ok(format!("{told} told, {there} followed"));
        }
        if Instant::now() >= deadline {
            bail!("{there} agents are at the other address, not {}; {told} were told", step.agents);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub(super) async fn agent_says(step: &AgentSays, world: &mut World) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(step.within_secs);
    loop {
        let says = world.agent_says(&step.agent).await?;
        if says.contains(&step.text) {
            return Ok(says);
        }
        if Instant::now() >= deadline {
            bail!("{} says {says:?}", step.agent);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
