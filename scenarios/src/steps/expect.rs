//! Steps that look: at the cloud, and at what a mock received.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::mismatch;
use crate::spec::{Count, ExpectStep, JournalStep, UserExpectation};
use crate::world::World;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until everything the step names holds at once; the error says what did not at the last look.
pub(super) async fn hold(step: &ExpectStep, world: &mut World) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(step.within_secs);
    loop {
        // A cloud that is away for a moment is a reason to look again, not to fail.
        let problem = match look(step, world).await {
            Ok(seen) => return Ok(seen.join(", ")),
            Err(problem) => problem,
        };
        if Instant::now() >= deadline {
            return Err(problem.context(format!("not within {} s", step.within_secs)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(step: &ExpectStep, world: &World) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    if let Some(wanted) = step.agents_online {
        let online = online_agents(world).await?.len();
        if online != wanted {
            bail!("{online} agents are online, not {wanted}");
        }
        seen.push(format!("{online} agents online"));
    }
    if let Some(wanted) = step.renewals {
        let renewals = world.renewals()?;
        if renewals < wanted {
            bail!("{renewals} certificates were renewed, not {wanted}");
        }
        seen.push(format!("{renewals} certificates renewed"));
    }
    if let Some(wanted) = &step.users {
        seen.push(count(world, "users", wanted).await?);
    }
    if let Some(wanted) = &step.groups {
        seen.push(count(world, "groups", wanted).await?);
    }
    if let Some(wanted) = &step.user {
        seen.push(user(world, wanted).await?);
    }
    if let Some(login) = &step.no_user
        && find_user(world, login).await?.is_some()
    {
        bail!("the cloud still knows {login}");
    }
    super::mail::look(step, world, &mut seen).await?;
    super::ca::look(step, world, &mut seen).await?;
    alerts(step, world, &mut seen).await?;
    module_states(step, world).await?;
    if let Some(name) = &step.actions {
        seen.push(actions(world, name).await?);
    }
    if let Some(agent) = &step.lease_holder {
        let holder = world.lease_holder().await?.context("nobody holds the lease")?;
        if *agent != holder {
            bail!("{holder} holds the lease, not {agent}");
        }
        seen.push(format!("{holder} holds the lease"));
    }
    if step.in_step == Some(true) {
        seen.push(world.in_step().await?);
    }
    Ok(seen)
}

async fn online_agents(world: &World) -> Result<Vec<Value>> {
    let mut agents = world.tenant().all("agents").await?;
    agents.retain(|agent| agent["online"] == true);
    Ok(agents)
}

async fn count(world: &World, list: &str, wanted: &Count) -> Result<String> {
    let got = world.tenant().all(list).await?.len() as u64;
    let (fits, wanted) = match wanted {
        Count::All => {
            let all = world.ldap.count(list).await?;
            (got == all, format!("{all} as in the directory"))
        }
        Count::Exactly(n) => (got == *n, n.to_string()),
        Count::AtLeast(n) => (got >= *n, format!("{n} or more")),
    };
    if !fits {
        bail!("the cloud has {got} {list}, not {wanted}");
    }
    Ok(format!("{got} {list}"))
}

async fn find_user(world: &World, login: &str) -> Result<Option<Value>> {
    let found = world.tenant().all(&format!("users?q={login}")).await?;
    Ok(found.into_iter().find(|user| user["login"] == login))
}

async fn user(world: &World, wanted: &UserExpectation) -> Result<String> {
    let found = find_user(world, &wanted.login).await?;
    let listed = found.with_context(|| format!("the cloud does not know {}", wanted.login))?;
    let id = listed["id"].as_str().context("the user has no id")?;
    let user = world.tenant().get(&format!("users/{id}")).await?;
    if let Some(problem) = mismatch(&user, &wanted.fields) {
        bail!("of {}, {problem}", wanted.login);
    }
    let groups: Vec<&str> =
        user["groups"].as_array().into_iter().flatten().filter_map(|group| group["name"].as_str()).collect();
    for group in &wanted.member_of {
        if !groups.contains(&group.as_str()) {
            bail!("{} is not in {group:?}, only in {groups:?}", wanted.login);
        }
    }
    for group in &wanted.not_member_of {
        if groups.contains(&group.as_str()) {
            bail!("{} is still in {group:?}", wanted.login);
        }
    }
    Ok(format!("{} is as expected, in {} groups", wanted.login, groups.len()))
}

async fn alerts(step: &ExpectStep, world: &World, seen: &mut Vec<String>) -> Result<()> {
    if step.alert.is_none() && step.no_alert.is_none() {
        return Ok(());
    }
    let open = world.tenant().all("alerts?state=open").await?;
    if let Some(code) = &step.alert {
        let Some(alert) = open.iter().find(|alert| alert["code"] == **code) else {
            let codes: Vec<&Value> = open.iter().map(|alert| &alert["code"]).collect();
            bail!("no open alert {code}; open are {codes:?}");
        };
        let detail = alert["detail"].as_str().unwrap_or_default();
        if let Some(words) = step.alert_says.as_ref().filter(|words| !detail.contains(*words)) {
            bail!("alert {code} says {detail:?}, not {words:?}");
        }
        seen.push(detail.to_owned());
    }
    if let Some(code) = &step.no_alert
        && let Some(alert) = open.iter().find(|alert| alert["code"] == **code)
    {
        bail!("alert {code} is open: {}", alert["detail"]);
    }
    Ok(())
}

async fn module_states(step: &ExpectStep, world: &World) -> Result<()> {
    let Some(wanted) = &step.module_state else { return Ok(()) };
    for agent in online_agents(world).await? {
        for (module, state) in wanted {
            let found = agent["modules"].as_array().into_iter().flatten().find(|m| m["module"] == **module);
            let found = found.with_context(|| format!("agent {} reports no {module}", agent["id"]))?;
            if found["state"] != **state {
                bail!("{module} of agent {} is {}: {}", agent["id"], found["state"], found["detail"]);
            }
        }
    }
    Ok(())
}

async fn actions(world: &World, name: &str) -> Result<String> {
    let ids = world.remembered_actions(name)?;
    for id in ids {
        let action = world.tenant().action(id).await?;
        if action["status"] != "success" {
            bail!("action {id} stands at {}: {}", action["status"], action["error"]);
        }
        let timeline = action["timeline"].as_array().into_iter().flatten();
        let terminal =
            timeline.filter(|entry| matches!(entry["event"].as_str(), Some("success" | "failure"))).count();
        if terminal != 1 {
            bail!("action {id} has {terminal} terminal statuses: {}", action["timeline"]);
        }
    }
    Ok(format!("{} actions, each ended once, with success", ids.len()))
}

/// Counts what a mock received since the last look.
pub(super) async fn journal(step: &JournalStep, world: &mut World) -> Result<String> {
    let part =
        |text: &str, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| text.contains(wanted));
    let deadline = Instant::now() + Duration::from_secs(step.within_secs);
    let mut entries = Vec::new();
    loop {
        entries.extend(world.journal_since_last_look(&step.target)?);
        let fits = entries.iter().filter(|entry| {
            entry.operation == step.operation
                && part(&entry.subject, &step.subject)
                && part(&entry.front, &step.front)
                && part(&entry.outcome, &step.outcome)
        });
        let count = fits.count();
        let is_enough = count >= step.at_least.unwrap_or(0);
        if is_enough && count <= step.at_most.unwrap_or(usize::MAX) {
            return Ok(format!("{count} times"));
        }
        if is_enough || Instant::now() >= deadline {
            let last: Vec<String> = entries
                .iter()
                .rev()
                .take(8)
                .map(|entry| {
                    format!("{} {} {} -> {}", entry.front, entry.operation, entry.subject, entry.outcome)
                })
                .collect();
            bail!(
                "{} received {count} such operations; the last it received: {}",
                step.target,
                last.join("; ")
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
