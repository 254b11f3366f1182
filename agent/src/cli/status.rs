//! `status`: how the running agent is, from the file it writes. No socket is needed for it.

use std::process::ExitCode;

use anyhow::Context;
use causeway_protocol::health::ModuleState;
use clap::Args;

use super::DataDir;
use crate::clock::Clock;
use crate::health::{self, Status};
use crate::limits::STATUS_FILE_EVERY;

/// Arguments of `status`.
#[derive(Args)]
pub struct StatusCommand {
    /// Print the status file as it is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl StatusCommand {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let data_dir = &self.data_dir.data_dir;
        let status = health::read_file(data_dir).with_context(|| {
            format!("{} holds no status; the agent has not run with this data directory", data_dir.display())
        })?;
        let age_ms = Clock::system().now_ms() - status.written_ms;
        let running = age_ms < 3 * i64::try_from(STATUS_FILE_EVERY.as_millis()).unwrap_or(i64::MAX);
        if self.json {
            let mut json = serde_json::to_value(&status)?;
            json["running"] = running.into();
            println!("{json:#}");
        } else {
            print(&status, running, age_ms / 1000);
        }
        let well = running && status.online && status.modules.iter().all(|m| m.state != ModuleState::Failed);
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn print(status: &Status, running: bool, age_secs: i64) {
    let state = if running { "running" } else { "not running" };
    println!("agent      {state}, version {}, process {}, seen {age_secs} s ago", status.version, status.pid);
    println!("instance   {} of tenant {}", status.instance, status.tenant);
    println!("cloud      {}: {}", status.cloud, status.channel);
    println!(
        "work       {} requests, {} reports waiting for the cloud",
        status.requests_in_work, status.outbox
    );
    println!("memory     {} MB", status.rss_bytes / 1_000_000);
    if let Some(trouble) = &status.storage_trouble {
        println!("storage    {trouble}");
    }
    for module in &status.modules {
        let state = match module.state {
            ModuleState::Idle => "idle",
            ModuleState::Ok => "ok",
            ModuleState::Degraded => "degraded",
            ModuleState::Failed => "failed",
        };
        println!("{:<16} {state}: {} (revision {})", module.module, module.detail, module.revision);
    }
}
