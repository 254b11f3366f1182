//! How the running agent is, by its own account: the status file it writes.

use causeway_protocol::health::ModuleState;

use super::bench::Bench;
use crate::checks::{CheckResult, declare_checks};
use crate::health::{self, Status};
use crate::limits::{OUTBOX_BACKLOG, RSS_WARNING_BYTES, SYNC_AGE_WARNING};

declare_checks! {
    ONLINE = "agent.online":
        "whether the running agent has a session with the cloud",
        "see the checks of network and cloud";
    OUTBOX = "agent.outbox":
        "whether reports pile up that the cloud does not have",
        "see agent.online; if the agent is online, tell the cloud's operator";
    STORAGE = "agent.storage":
        "whether the running agent can write its state",
        "make room on the disk that holds the data directory, and look at its permissions";
    MEMORY = "agent.memory":
        "how much memory the running agent uses",
        "restart the agent, and send a support bundle";
    MODULES = "agent.module":
        "how each module is, by its own account",
        "see the module's detail, and run causeway-agent check MODULE";
    RESTARTS = "agent.restarts":
        "whether modules had to be restarted",
        "send a support bundle; a module that fails again and again rests for ten minutes";
    LAST_SYNC = "agent.last_sync":
        "how long ago directories were last compared with the cloud",
        "look at the module's detail; another agent may hold the lease, then this one waits its turn";
}

pub(super) async fn run(bench: &Bench) -> Vec<CheckResult> {
    let Ok(status) = health::read_file(&bench.data_dir) else { return Vec::new() };
    if !bench.runs {
        return vec![CheckResult::skipped(&ONLINE, "no agent runs")];
    }
    judge(&status, bench.clock.now_ms())
}

fn judge(status: &Status, now_ms: i64) -> Vec<CheckResult> {
    let mut results = vec![
        if status.online {
            CheckResult::ok(&ONLINE, &status.channel)
        } else {
            CheckResult::fail(&ONLINE, &status.channel, "")
        },
        if status.outbox > OUTBOX_BACKLOG {
            CheckResult::warn(&OUTBOX, format!("{} reports wait", status.outbox), "")
        } else {
            CheckResult::ok(&OUTBOX, format!("{} reports wait", status.outbox))
        },
        match &status.storage_trouble {
            Some(trouble) => CheckResult::fail(&STORAGE, trouble, ""),
            None => CheckResult::ok(&STORAGE, "works"),
        },
        if status.rss_bytes > RSS_WARNING_BYTES {
            CheckResult::warn(&MEMORY, format!("{} MB", status.rss_bytes / 1_000_000), "")
        } else {
            CheckResult::ok(&MEMORY, format!("{} MB", status.rss_bytes / 1_000_000))
        },
    ];
    for module in &status.modules {
        let name = module.module.as_str();
        results.push(
            match module.state {
                ModuleState::Ok | ModuleState::Idle => CheckResult::ok(&MODULES, &module.detail),
                ModuleState::Degraded => CheckResult::warn(&MODULES, &module.detail, ""),
                ModuleState::Failed => CheckResult::fail(&MODULES, &module.detail, ""),
            }
            .of(name),
        );
        results.push(
            match module.restarts {
                0 => CheckResult::ok(&RESTARTS, "none"),
                restarts => CheckResult::warn(&RESTARTS, restarts.to_string(), ""),
            }
            .of(name),
        );
        if let Some(last_ms) = module.figures.get("last_run_ms") {
            let age_secs = (now_ms - last_ms) / 1000;
            let old = u64::try_from(age_secs).unwrap_or(0) > SYNC_AGE_WARNING.as_secs();
            let detail = format!("{age_secs} s ago");
            results.push(
                if old {
                    CheckResult::warn(&LAST_SYNC, detail, "")
                } else {
                    CheckResult::ok(&LAST_SYNC, detail)
                }
                .of(name),
            );
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use causeway_protocol::health::ModuleHealth;

    use super::*;
    use crate::checks::Verdict;

    #[test]
    fn every_trouble_of_a_running_agent_is_named() {
        let module = ModuleHealth {
            module: "user_visibility".into(),
            state: ModuleState::Failed,
            detail: "no server".into(),
            revision: 1,
            restarts: 2,
            figures: BTreeMap::from([("last_run_ms".to_owned(), 0)]),
        };
        let mut status = Status {
            channel: "offline".into(),
            outbox: OUTBOX_BACKLOG + 1,
            storage_trouble: Some("full".into()),
            rss_bytes: RSS_WARNING_BYTES + 1,
            modules: vec![module],
            ..Status::default()
        };
        let now_ms = 7 * 86_400_000;
        let verdicts = |status: &Status| -> BTreeMap<&str, Verdict> {
            judge(status, now_ms).iter().map(|result| (result.name(), result.verdict())).collect()
        };
        let all = verdicts(&status);
        assert_eq!(all.len(), CHECKS.len());
        assert!(all.values().all(|verdict| *verdict != Verdict::Ok), "{all:?}");
        (status.online, status.outbox, status.storage_trouble, status.rss_bytes) = (true, 0, None, 1);
        status.modules.clear();
        assert!(verdicts(&status).values().all(|verdict| *verdict == Verdict::Ok));
    }
}
