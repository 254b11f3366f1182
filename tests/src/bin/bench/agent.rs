//! The agent at rest: how large its program is, and how much memory it holds with both modules configured.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use serde_json::json;

use crate::Options;
use crate::process::{Program, beside, rss_mib};
use crate::stage::{Stage, directory_of};
use crate::table::Table;

/// Longest first sync of the default company.
const SYNC_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(_: &Options) -> Result<Table> {
    let size = std::fs::metadata(beside("causeway-agent")?)?.len() as f64 / (1024.0 * 1024.0);
    let mock = Program::start("mock-ldap", &[]).await?;
    let mut stage = Stage::start("").await?;
    for module in ["user_auth", "user_visibility"] {
        stage.tenant.configure(module, true, &json!({})).await?;
    }
    let pid = stage.add_agent(&directory_of(&mock)?).await?.pid().context("the agent has ended")?;
    stage.module_ok("user_auth").await?;
    stage
        .wait("uploads", SYNC_WITHIN, |list| {
            list["items"].as_array().into_iter().flatten().any(|upload| upload["state"] == "committed")
        })
        .await?;
    let mut table = Table::default();
    table.alone("causeway-agent, release build", "MiB", vec![size], "at most 8");
    table.alone(
        "resident memory after the first sync of 250 people",
        "MiB",
        vec![rss_mib(pid)?],
        "at most 15",
    );
    Ok(table)
}
