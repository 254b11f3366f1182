//! Steps that use the cloud: actions and password checks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use serde_json::Value;

use super::mismatch;
use crate::spec::{ActionStep, AuthenticateStep};
use crate::world::World;

/// Pause between two tries of a check that may take a while to come true.
const TRY_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn act(step: &ActionStep, world: &mut World) -> Result<String> {
    let tenant = world.tenant();
    let orders =
        (0..step.count).map(|_| tenant.order(&step.module, &step.action, &step.target, &step.params));
    let ids = try_join_all(orders).await.context("order the action")?;
    if let Some(name) = &step.remember {
        world.remember_actions(name, &ids);
    }
    if step.status == "pending" {
        return Ok(format!("{} ordered", ids.len()));
    }
    let tenant = world.tenant();
    let within = Duration::from_secs(step.within_secs);
    let ended = try_join_all(ids.iter().map(|id| tenant.finished(id, within))).await?;
    for action in &ended {
        check_action(step, action)?;
    }
    Ok(summary(&ended))
}

fn check_action(step: &ActionStep, action: &Value) -> Result<()> {
    let status = action["status"].as_str().unwrap_or_default();
    if status != step.status {
        bail!("the action ended with {status}, not {}: {}", step.status, action["error"]);
    }
    if let Some(code) = &step.code
        && action["error"]["code"] != **code
    {
        bail!("the action failed with {}, not {code}", action["error"]);
    }
    match mismatch(&action["result"], &step.result) {
        Some(problem) => bail!("the result's {problem}"),
        None => Ok(()),
    }
}

fn summary(ended: &[Value]) -> String {
    match ended {
        [action] => {
            let what =
                if action["error"].is_object() { &action["error"]["detail"] } else { &action["result"] };
            let text = what.as_str().map_or_else(|| what.to_string(), str::to_owned);
            text.chars().take(160).collect()
        }
        many => {
            let mut by_status = BTreeMap::<&str, usize>::new();
            for action in many {
                *by_status.entry(action["status"].as_str().unwrap_or("?")).or_default() += 1;
            }
            by_status.iter().map(|(status, count)| format!("{count} {status}")).collect::<Vec<_>>().join(", ")
        }
    }
}

pub(super) async fn authenticate(step: &AuthenticateStep, world: &mut World) -> Result<String> {
    let person = world.person(&step.user)?;
    let password = match &step.password {
        Some(text) => world.ldap.expand(text)?,
        None => person.password,
    };
    let deadline = Instant::now() + Duration::from_secs(step.within_secs);
    loop {
        let tries = (0..step.count).map(|_| world.tenant().authenticate(&person.username, &password));
        let verdicts = try_join_all(tries).await?;
        let wrong = verdicts.iter().find(|verdict| verdict["outcome"] != *step.outcome);
        match wrong {
            None => {
                let slowest = verdicts.iter().filter_map(|verdict| verdict["elapsed_ms"].as_u64()).max();
                return Ok(format!(
                    "{} x {} in at most {} ms",
                    step.count,
                    step.outcome,
                    slowest.unwrap_or(0)
                ));
            }
            Some(verdict) if Instant::now() >= deadline => {
                bail!("the verdict for {} is {verdict}, not {}", person.username, step.outcome)
            }
            Some(_) => tokio::time::sleep(TRY_EVERY).await,
        }
    }
}
