//! Each module by itself: whether it may run, whether its settings work, and what it checks of its own.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::bench::Bench;
use crate::checks::{CheckResult, declare_checks};
use crate::directory::doctor;
use crate::limits::MODULE_CHECK_WITHIN;
use crate::modules::factory;

declare_checks! {
    CONFIGURED = "modules.configured":
        "whether any module is switched on by the cloud or set up here",
        "switch a module on in the cloud's portal, or set it up with causeway-agent configure";
    PERMITTED = "modules.permitted":
        "whether [limits] modules_forbidden lets the module run",
        "take the module off limits.modules_forbidden in agent.toml, or switch it off in the cloud";
    SETTINGS = "modules.settings":
        "whether the module accepts its settings, local and from the cloud",
        "correct the key named in the detail";
    DIRECTORY = "modules.directory":
        "whether the directory the module uses is well; if not, nothing more is tried",
        "see the checks of the directory";
    IN_TIME = "modules.in_time":
        "whether the module's own checks end in time",
        "look at the servers the module talks to";
}

pub(super) async fn run(bench: &Bench) -> Vec<CheckResult> {
    let Some(file) = bench.file() else { return Vec::new() };
    let kinds = bench.kinds();
    if kinds.is_empty() {
        return vec![CheckResult::warn(&CONFIGURED, "no module is switched on or set up here", "")];
    }
    let mut results = vec![CheckResult::ok(&CONFIGURED, kinds.join(", "))];
    let forbidden: BTreeSet<&str> =
        file.settings.limits.modules_forbidden.iter().map(String::as_str).collect();
    let mut allowed = Vec::new();
    for kind in kinds {
        let wanted = bench.desired.get(kind).is_some_and(|config| config.enabled);
        match (forbidden.contains(kind), wanted) {
            (true, true) => results.push(
                CheckResult::warn(&PERMITTED, "the cloud wants it, agent.toml forbids it", "").of(kind),
            ),
            (true, false) => {
                results.push(
                    CheckResult::ok(&PERMITTED, "forbidden by agent.toml, not wanted by the cloud").of(kind),
                );
            }
            (false, _) => {
                results.push(CheckResult::ok(&PERMITTED, "may run").of(kind));
                allowed.push(kind);
            }
        }
    }
    for found in join_all(allowed.into_iter().map(|kind| module(bench, kind))).await {
        results.extend(found);
    }
    results
}

async fn module(bench: &Bench, kind: &'static str) -> Vec<CheckResult> {
    let (Some(factory), Some(settings), Ok(dial)) =
        (factory(kind), bench.module_settings(kind), bench.dial.as_ref())
    else {
        return Vec::new();
    };
    let module = match factory.build(&settings) {
        Ok(module) => module,
        Err(error) => {
            return vec![CheckResult::fail(&SETTINGS, error.to_string(), error.advice).of(kind)];
        }
    };
    let mut results = vec![CheckResult::ok(&SETTINGS, "accepted").of(kind)];
    // The same wrong password must not be tried again for every module.
    let found = bench.directories().await;
    for directory in module.directories() {
        let name = directory.name();
        if !found.get(name).is_some_and(|results| doctor::usable(results)) {
            let because = format!("no server of directory {name} can be worked with");
            results.push(CheckResult::skipped(&DIRECTORY, because).of(kind));
            return results;
        }
        results.push(CheckResult::ok(&DIRECTORY, name).of(kind));
    }
    match timeout(MODULE_CHECK_WITHIN, module.check(bench.context(dial))).await {
        Ok(found) => results.extend(found),
        Err(_) => {
            let detail = format!("did not end within {} s", MODULE_CHECK_WITHIN.as_secs());
            results.push(CheckResult::fail(&IN_TIME, detail, "").of(kind));
        }
    }
    results
}
