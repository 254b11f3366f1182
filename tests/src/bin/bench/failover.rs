//! Two agents under load; the serving one is killed. How long until verdicts flow again, and was any of them wrong?

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_mock_kit::world::{Company, CompanySpec};
use causeway_scenarios::http::Client;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::Options;
use crate::process::Program;
use crate::stage::{Stage, directory_of};
use crate::table::{Table, percentile};

/// Kills.
const RUNS: usize = 10;
/// Password checks begun per second.
const RATE_PER_SEC: u32 = 300;
/// Load before and after the kill.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(6);
/// Checks of one run: each is another person, so that two binds for one attempt can be seen.
const CHECKS: usize = RATE_PER_SEC as usize * 8;

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

/// One check: when it began, relative to the kill (negative before), and its verdict.
struct Check {
    begun: f64,
    outcome: String,
}

async fn measure(options: &Options) -> Result<Table> {
    let (mut gaps, mut wrong, mut double, mut unavailable, mut shares) = (vec![], 0.0, 0.0, vec![], vec![]);
    for _ in 0..(RUNS / options.shrink).max(1) {
        let run = one_kill().await?;
        gaps.push(run.gap);
        wrong += run.wrong;
        double += run.double;
        unavailable.push(run.unavailable);
        shares.push(run.share_percent);
    }
    let mut table = Table::default();
    table.alone("from kill -9 to the last check without a verdict", "s", gaps.clone(), "-");
    table.alone("the same, p99 of the runs", "s", vec![percentile(&gaps, 99.0)], "at most 3");
    table.alone("checks answered `unavailable` per run", "", unavailable, "-");
    table.alone("share of the checks that the killed agent had carried", "%", shares, "at least 50");
    table.alone("wrong verdicts, all runs", "", vec![wrong], "0");
    table.alone("attempts with a second bind, all runs", "", vec![double], "0");
    table.note(format!(
        "{RATE_PER_SEC} checks/s begin on a clock, each for another person; of two agents the one that \
         has answered more of them is killed"
    ));
    Ok(table)
}

struct Outcome {
    gap: f64,
    wrong: f64,
    double: f64,
    unavailable: f64,
    share_percent: f64,
}

async fn one_kill() -> Result<Outcome> {
    let users = (CHECKS + CHECKS / 4).to_string();
    let mock = Program::start("mock-ldap", &["--users", &users]).await?;
    let mut stage = Stage::start("").await?;
    stage.tenant.configure("user_auth", true, &json!({})).await?;
    let directory = directory_of(&mock)?;
    for _ in 0..2 {
        stage.add_agent(&directory).await?;
    }
    stage.module_ok("user_auth").await?;
    let company = Company::generate(&CompanySpec { users: users.parse()?, ..CompanySpec::default() });
    let people: Arc<Vec<(String, String)>> = Arc::new(
        company
            .people
            .iter()
            .filter(|p| p.is_active())
            .map(|p| (p.login.to_string(), p.password()))
            .collect(),
    );

    let (sender, mut checks) = mpsc::channel(CHECKS);
    let kill_at = Instant::now() + BEFORE;
    let carried = Carried::default();
    let load = tokio::spawn(load(stage.tenant.clone(), people, kill_at, sender, carried.clone()));
    tokio::time::sleep_until(kill_at.into()).await;
    let (busiest, share_percent) = busiest(&mut stage, &carried)?;
    stage.agents()[busiest].kill().await?;
    load.await??;
    let mut seen = Vec::new();
    while let Some(check) = checks.recv().await {
        seen.push(check);
    }
    let failed = |check: &&Check| check.outcome != "ok";
    let unavailable = seen.iter().filter(|check| check.outcome == "unavailable").count();
    let wrong = seen.iter().filter(failed).count() - unavailable;
    // The gap ends when the last check that found no verdict had begun; later ones all got theirs.
    let gap = seen.iter().filter(failed).map(|check| check.begun.max(0.0)).fold(0.0, f64::max);
    Ok(Outcome {
        gap,
        wrong: wrong as f64,
        double: double_binds(&mock).await? as f64,
        unavailable: unavailable as f64,
        share_percent,
    })
}

/// Checks answered so far, by agent.
type Carried = Arc<Mutex<BTreeMap<String, u32>>>;

/// The agent that has answered more checks so far, and its share.
fn busiest(stage: &mut Stage, carried: &Carried) -> Result<(usize, f64)> {
    let carried = carried.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut counts = Vec::new();
    for agent in stage.agents() {
        let status =
            causeway_agent::health::read_file(agent.data_dir()).context("read the agent's status")?;
        counts.push(carried.get(status.instance.as_str()).copied().unwrap_or(0));
    }
    let total: u32 = counts.iter().sum();
    ensure!(total > 0, "no agent has answered before the kill: {carried:?}");
    let busiest = (0..counts.len()).max_by_key(|n| counts[*n]).unwrap_or_default();
    Ok((busiest, f64::from(counts[busiest]) * 100.0 / f64::from(total)))
}

async fn load(
    tenant: causeway_scenarios::cloud_api::Tenant,
    people: Arc<Vec<(String, String)>>,
    kill_at: Instant,
    sender: mpsc::Sender<Check>,
    carried: Carried,
) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE_PER_SEC);
    let until = kill_at + AFTER;
    let signed = move |at: Instant| match at.checked_duration_since(kill_at) {
        Some(after) => after.as_secs_f64(),
        None => -(kill_at - at).as_secs_f64(),
    };
    for n in 0..CHECKS.min(people.len()) {
        tick.tick().await;
        if Instant::now() > until {
            break;
        }
        let (tenant, people, sender) = (tenant.clone(), people.clone(), sender.clone());
        let carried = carried.clone();
        tokio::spawn(async move {
            let (login, password) = &people[n];
            let begun = signed(Instant::now());
            let outcome = match tenant.authenticate(login, password).await {
                Ok(verdict) => {
                    if let Some(agent) = verdict["agent"].as_str() {
                        let mut carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
                        *carried.entry(agent.to_owned()).or_default() += 1;
                    }
                    verdict["outcome"].as_str().unwrap_or("malformed").to_owned()
                }
                Err(error) => format!("{error:#}"),
            };
            // The receiver takes as many as there are checks.
            let _ = sender.send(Check { begun, outcome }).await;
        });
    }
    Ok(())
}

/// People for whom the directory saw more than one bind.
async fn double_binds(mock: &Program) -> Result<usize> {
    let admin = Client::new(mock.text("/urls/admin")?, None, None)?;
    let journal = admin.get("/journal?after=0").await?.ok()?;
    let entries = journal["entries"].as_array().context("no entries in the journal")?;
    // A journal that forgot binds, or never saw one, proves nothing.
    ensure!(journal["dropped"] == 0, "the journal dropped {} entries", journal["dropped"]);
    let account = mock.text("/accounts/admin/dn")?;
    let mut seen = std::collections::HashMap::<&str, usize>::new();
    for entry in entries.iter().filter(|entry| entry["operation"] == "bind") {
        let who = entry.get("subject").and_then(Value::as_str).unwrap_or_default();
        if !who.eq_ignore_ascii_case(account) {
            *seen.entry(who).or_default() += 1;
        }
    }
    ensure!(!seen.is_empty(), "the directory saw nobody sign in");
    Ok(seen.values().filter(|count| **count > 1).count())
}
