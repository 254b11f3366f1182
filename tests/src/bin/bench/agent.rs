//! The agent at rest: how large its program is, how much memory it holds with both modules configured, and
//! how soon after its start it is online.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use serde_json::json;

use crate::Options;
use crate::process::{Program, delivered_agent, packages, rss_mib};
use crate::stage::{Stage, directory_of};
use crate::table::Table;

/// Longest first sync of the default company.
const SYNC_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let program = delivered_agent()?;
    let size = mib(std::fs::metadata(&program)?.len());
    let mock = Program::start("mock-ldap", &[]).await?;
    let mut stage = Stage::start("").await?;
    for module in ["user_auth", "user_visibility"] {
        stage.tenant.configure(module, true, &json!({})).await?;
    }
    let agent = stage.add_agent_of(&program, &directory_of(&mock)?).await?;
    let pid = agent.pid().context("the agent has ended")?;
    stage.module_ok("user_auth").await?;
    stage
        .wait("uploads", SYNC_WITHIN, |list| {
            list["items"].as_array().into_iter().flatten().any(|upload| upload["state"] == "committed")
        })
        .await?;
    let resident = rss_mib(pid)?;
    let mut online_ms = Vec::new();
    for _ in 0..options.rounds {
        let agent = stage.agents().first_mut().context("just put there")?;
        agent.stop().await?;
        let started = Instant::now();
        agent.start().await?;
        online_ms.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    let mut table = Table::default();
    table.alone("causeway-agent as delivered for Linux", "MiB", vec![size], "at most 8");
    for (name, bytes) in packages()? {
        let limit = match () {
            () if name.ends_with(".exe") => "at most 8",
            () if name.ends_with(".msi") => "at most 5",
            () if name.contains("causeway-agent") && name.ends_with("linux-x86_64") => "at most 8",
            () => continue,
        };
        table.alone(format!("{name}, packed by xtask dist"), "MiB", vec![mib(bytes)], limit);
    }
    table.alone("resident memory after the first sync of 250 people", "MiB", vec![resident], "at most 15");
    table.alone("start to online, enrolled, with both modules", "ms", online_ms, "at most 250");
    Ok(table)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
