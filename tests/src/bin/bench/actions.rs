//! Durable actions: ordered through the API, committed by the cloud, committed by the agent, done, reported, committed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::BoxFuture;
use serde_json::json;

use crate::Options;
use crate::process::Program;
use crate::stage::{Stage, directory_of};
use crate::table::{Table, percentile};

/// Actions ordered per second, and for how long.
const RATE_PER_SEC: u32 = 1_000;
const FOR: Duration = Duration::from_secs(10);
/// Longest action.
const WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let mock = Program::start("mock-ldap", &[]).await?;
    let mut stage = Stage::start("").await?;
    stage.tenant.configure("user_auth", true, &json!({})).await?;
    stage.add_agent(&directory_of(&mock)?).await?;
    stage.module_ok("user_auth").await?;
    let total = (RATE_PER_SEC as usize * FOR.as_secs() as usize) / options.shrink;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE_PER_SEC);
    let started = Instant::now();
    let mut running = Vec::with_capacity(total);
    for _ in 0..total {
        tick.tick().await;
        let tenant = stage.tenant.clone();
        running.push(tokio::spawn(async move {
            let ordered = Instant::now();
            // The module knows no such action, which is a terminal status like any other and costs no directory.
            let id = tenant.order("user_auth", "bench_nothing", &json!({}), &json!({})).await?;
            let action = tenant.finished(&id, WITHIN).await?;
            ensure!(action["status"] == "failure" && action["error"]["code"] == "unknown_action", "{action}");
            Ok(ordered.elapsed().as_secs_f64() * 1_000.0)
        }));
    }
    let mut latencies = Vec::with_capacity(total);
    for action in running {
        latencies.push(action.await?.context("an action")?);
    }
    let rate = total as f64 / started.elapsed().as_secs_f64();
    let mut table = Table::default();
    table.alone("durable actions ended", "1/s", vec![rate], format!("{RATE_PER_SEC}"));
    table.alone(
        "from the order to the terminal status: median",
        "ms",
        vec![percentile(&latencies, 50.0)],
        "-",
    );
    table.alone(
        "from the order to the terminal status: p99",
        "ms",
        vec![percentile(&latencies, 99.0)],
        "at most 50",
    );
    table.note(
        "each is one POST and one waiting GET; committed to disk by the cloud twice and by the agent twice",
    );
    Ok(table)
}
