//! `status`: how the running agent is, from the file it writes. No socket is needed for it.

use std::process::ExitCode;

use anyhow::Context;
use causeway_protocol::health::{ModuleHealth, ModuleState};
use clap::Args;
use serde_json::{Value, json};

use super::{DataDir, say};
use crate::clock::Clock;
use crate::health::{self, Status};
use crate::identity::{Identity, Validity};
use crate::platform::PlatformSealer;

/// Arguments of `status`.
#[derive(Args)]
pub struct StatusCommand {
    /// Print JSON
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
        let identity = Identity::load(data_dir, &PlatformSealer).ok();
        let validity = identity.and_then(|identity| identity.validity().ok());
        let now_ms = Clock::system().now_ms();
        let seen = Seen { runs: health::runs(data_dir, &status, now_ms), status, validity, now_ms };
        if self.json {
            say::line(format_args!("{:#}", seen.to_json()))?;
        } else {
            say::text(seen.to_text())?;
        }
        Ok(if seen.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The file, and what else belongs to the picture.
struct Seen {
    status: Status,
    validity: Option<Validity>,
    now_ms: i64,
    runs: bool,
}

impl Seen {
    fn is_well(&self) -> bool {
        let failed = self.status.modules.iter().any(|module| module.state == ModuleState::Failed);
        self.runs && self.status.online && !failed
    }

    /// How the last process ended; nothing while it runs.
    fn ending(&self) -> Option<String> {
        if self.runs {
            return None;
        }
        Some(match self.status.stopped_ms {
            Some(at) => format!("it was stopped {} ago", ago(self.now_ms - at)),
            None => format!(
                "it ended without a word (a crash, a kill, or the power went), last seen {} ago",
                ago(self.now_ms - self.status.written_ms)
            ),
        })
    }

    fn to_json(&self) -> Value {
        let mut json = json!(self.status);
        json["running"] = self.runs.into();
        json["ended"] = self.ending().into();
        json["certificate_valid_until_ms"] = self.validity.map(|validity| validity.until_ms).into();
        json["last_sync_ms"] = self
            .status
            .modules
            .iter()
            .filter_map(|module| Some((module.module.clone(), json!(last_sync(module)?))))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json
    }

    fn to_text(&self) -> String {
        let status = &self.status;
        let mut lines = vec![match self.ending() {
            None => format!(
                "agent        running for {}, version {}, process {}",
                ago(self.now_ms - status.started_ms),
                status.version,
                status.pid
            ),
            Some(ending) => {
                format!("agent        not running: {ending}; start it with causeway-agent service start")
            }
        }];
        lines.push(format!("instance     {} of tenant {}", status.instance, status.tenant));
        let since = status.online_since_ms.map(|at| format!(" for {}", ago(self.now_ms - at)));
        let way = status.way.as_ref().map(|way| format!(", {way}"));
        lines.push(format!(
            "cloud        {}: {}{}{}",
            status.cloud,
            status.channel,
            since.unwrap_or_default(),
            way.unwrap_or_default()
        ));
        if let Some(at) = status.health_told_ms {
            lines.push(format!("last report  {} ago", ago(self.now_ms - at)));
        }
        if let Some(validity) = self.validity {
            let days = (validity.until_ms - self.now_ms) / 86_400_000;
            lines.push(format!("certificate  valid for {days} days, renewed by itself"));
        }
        lines.push(format!(
            "work         {} requests in work, {} reports waiting for the cloud",
            status.requests_in_work, status.outbox
        ));
        lines.push(format!("memory       {} MB", status.rss_bytes / 1_000_000));
        if let Some(trouble) = &status.storage_trouble {
            lines.push(format!("storage      {trouble}"));
        }
        for module in &status.modules {
            lines.push(self.module(module));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn module(&self, module: &ModuleHealth) -> String {
        let state = match module.state {
            ModuleState::Idle => "idle",
            ModuleState::Ok => "ok",
            ModuleState::Degraded => "degraded",
            ModuleState::Failed => "failed",
        };
        let synced = last_sync(module).map(|at| format!(", last sync {} ago", ago(self.now_ms - at)));
        let restarts = match module.restarts {
            0 => String::new(),
            restarts => format!(", {restarts} restarts"),
        };
        format!(
            "{:<16} {state}: {} (revision {}{}{restarts})",
            module.module,
            module.detail,
            module.revision,
            synced.unwrap_or_default()
        )
    }
}

fn last_sync(module: &ModuleHealth) -> Option<i64> {
    module.figures.get("last_run_ms").copied()
}

/// A span for people: its two largest units are enough.
fn ago(ms: i64) -> String {
    let secs = ms.max(0) / 1000;
    match secs {
        0..60 => format!("{secs} s"),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} days {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::redb::RedbStorage;

    fn seen(status: Status) -> Seen {
        let (dir, now_ms) = (tempfile::tempdir().unwrap(), 1_000_000_000);
        Seen { runs: health::runs(dir.path(), &status, now_ms), status, validity: None, now_ms }
    }

    #[test]
    fn an_agent_whose_state_file_is_free_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let opened = RedbStorage::open(dir.path(), "m").unwrap();
        let status = Status { written_ms: 1_000, ..Status::default() };
        assert!(health::runs(dir.path(), &status, 1_500));
        assert!(!health::runs(dir.path(), &Status { stopped_ms: Some(1), ..status.clone() }, 1_500));
        drop(opened.storage);
        opened.thread.join().unwrap();
        assert!(!health::runs(dir.path(), &status, 1_500), "it was seen half a second ago, and is gone");
    }

    #[test]
    fn an_agent_that_ended_says_how() {
        let stopped = Status {
            written_ms: 999_999_000,
            stopped_ms: Some(999_999_000),
            online: true,
            ..Status::default()
        };
        let text = seen(stopped.clone()).to_text();
        assert!(text.contains("not running: it was stopped 1 s ago"), "{text}");
        let killed = Status { written_ms: 999_000_000, stopped_ms: None, ..stopped.clone() };
        let text = seen(killed.clone()).to_text();
        assert!(text.contains("ended without a word"), "{text}");
        assert_eq!(seen(killed).to_json()["running"], false);
        let running = Status { stopped_ms: None, ..stopped };
        assert!(seen(running.clone()).is_well());
        assert_eq!(seen(running).to_json()["ended"], Value::Null);
    }
}
