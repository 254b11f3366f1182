//! Every directory that agent.toml defines, or those of the one module asked for. Tried once, whatever number of modules
//! uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;

use super::bench::Bench;
use crate::checks::{CheckResult, declare_checks};
use crate::directory::{Directory, Net, doctor};
use crate::modules::{ModuleContext, ModuleSettings, factory};

declare_checks! {
    SETTINGS = "directory.settings":
        "whether each [directory.NAME] can be used",
        "correct the key named in the detail";
}

/// Results by directory.
pub(super) type Found = BTreeMap<String, Vec<CheckResult>>;

pub(super) async fn run(bench: &Bench) -> Vec<CheckResult> {
    bench.directories().await.values().flatten().cloned().collect()
}

/// Tries them.
pub(super) async fn examine(bench: &Bench) -> Found {
    let (Some(file), Ok(dial)) = (bench.file(), bench.dial.as_ref()) else { return Found::new() };
    let Some(settings) = bench.module_settings("") else { return Found::new() };
    let names: BTreeSet<String> = match &bench.only {
        Some(kind) => of_module(bench, kind),
        None => file.settings.directory.keys().cloned().collect(),
    };
    let cx = bench.context(dial);
    let tried = names.into_iter().map(|name| {
        let (settings, cx) = (&settings, &cx);
        async move {
            let found = one(&name, settings, cx).await;
            (name, found)
        }
    });
    join_all(tried).await.into_iter().collect()
}

async fn one(name: &str, settings: &ModuleSettings, cx: &ModuleContext) -> Vec<CheckResult> {
    let directory = match Directory::new(name, settings) {
        Ok(directory) => Arc::new(directory),
        Err(error) => {
            return vec![CheckResult::fail(&SETTINGS, error.to_string(), error.advice).of(name)];
        }
    };
    let mut results = vec![CheckResult::ok(&SETTINGS, "accepted").of(name)];
    results.extend(doctor::run(&directory, &Net::from(cx)).await);
    results
}

/// The directories a module names. A module that cannot be built says so itself.
fn of_module(bench: &Bench, kind: &str) -> BTreeSet<String> {
    let built = bench.module_settings(kind).and_then(|settings| factory(kind)?.build(&settings).ok());
    built
        .map(|module| module.directories().iter().map(|directory| directory.name().to_owned()).collect())
        .unwrap_or_default()
}
