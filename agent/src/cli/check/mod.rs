//! `check`: the doctor. Areas are independent and run side by side; within an area things are tried in the order a
//! person would try them, and what stands on something broken is not tried. Adding a check: declare it in its area's
//! table, return it from the area's function, run `CAUSEWAY_UPDATE_DOCS=1 cargo test -p causeway-agent page_of_checks`.

mod bench;
mod cloud;
mod directories;
mod identity;
pub(super) mod installation;
mod modules;
mod network;
mod registry;
mod running;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use futures_util::future::join_all;
use tokio::time::timeout;

use self::bench::Bench;
use self::registry::{AREAS, Area};
use super::{DataDir, say};
use crate::checks::{CheckResult, Verdict};
use crate::config::SettingsFile;
use crate::limits::CHECK_AREA_WITHIN;
use crate::modules::FACTORIES;
use crate::secrets::SecretStore;

/// Arguments of `check`.
#[derive(Args)]
pub struct CheckCommand {
    /// Only this area (see --list) or this module
    what: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// With `check network`: try the way to this address too
    #[arg(long, requires = "what")]
    url: Option<String>,
    /// Print the names of all checks and what each looks at, and try nothing
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl CheckCommand {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        if self.list {
            say::text(list(self.json))?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.url.is_some() && self.what.as_deref() != Some("network") {
            anyhow::bail!("--url belongs to `check network`");
        }
        let report = examine(&self.data_dir.data_dir, self.what.as_deref(), self.url).await?;
        if self.json {
            say::line(format_args!("{:#}", report.to_json()))?;
        } else {
            say::text(report.to_text())?;
        }
        Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// What the doctor found, by area.
pub struct Report(Vec<(&'static Area, Vec<CheckResult>)>);

impl Report {
    /// Whether anything does not work.
    pub fn failed(&self) -> bool {
        self.results().any(|result| result.verdict() == Verdict::Fail)
    }

    /// Every result, in the order of the areas.
    pub fn results(&self) -> impl Iterator<Item = &CheckResult> {
        self.0.iter().flat_map(|(_, results)| results)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.results().filter(|result| result.verdict() == verdict).count()
    }

    /// As `check --json` prints it. What was not tried is listed apart: it neither works nor fails.
    pub fn to_json(&self) -> serde_json::Value {
        let of = |skipped: bool| -> Vec<serde_json::Value> {
            let wanted = self
                .0
                .iter()
                .flat_map(|(area, results)| results.iter().map(move |result| (area, result)))
                .filter(|(_, result)| (result.verdict() == Verdict::Skipped) == skipped);
            wanted
                .map(|(area, result)| {
                    let mut json = result.to_json();
                    json["area"] = area.name.into();
                    json
                })
                .collect()
        };
        serde_json::json!({
            "ok": !self.failed(),
            "counts": {
                "ok": self.count(Verdict::Ok),
                "warn": self.count(Verdict::Warn),
                "fail": self.count(Verdict::Fail),
                "skipped": self.count(Verdict::Skipped),
            },
            "checks": of(false),
            "skipped": of(true),
        })
    }

    /// As `check` prints it.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (area, results) in self.0.iter().filter(|(_, results)| !results.is_empty()) {
            text.push_str(area.title);
            text.push('\n');
            for result in results {
                text.push_str(&line(result));
            }
            text.push('\n');
        }
        let counts = [Verdict::Fail, Verdict::Warn, Verdict::Ok].map(|verdict| self.count(verdict));
        let [failed, warned, well] = counts;
        text.push_str(&format!("{failed} failed, {warned} with a warning, {well} ok"));
        match self.count(Verdict::Skipped) {
            0 => {}
            skipped => text.push_str(&format!(", {skipped} not tried")),
        }
        text.push('\n');
        text
    }
}

fn line(result: &CheckResult) -> String {
    let verdict = match result.verdict() {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
        Verdict::Skipped => "skip",
    };
    let of = if result.subject().is_empty() { String::new() } else { format!(" of {}", result.subject()) };
    let detail = result.detail().replace('\n', "\n        ");
    let mut text = format!("  {verdict}  {}{of}: {detail}\n", result.name());
    if !result.remedy().is_empty() {
        text.push_str(&format!("        remedy: {}\n", result.remedy().replace('\n', "\n        ")));
    }
    text
}

fn list(json: bool) -> String {
    if json {
        let rows: Vec<serde_json::Value> = AREAS
            .iter()
            .flat_map(|area| area.checks().map(move |check| (area, check)))
            .map(|(area, check)| {
                serde_json::json!({
                    "name": check.name,
                    "area": area.name,
                    "looks_at": check.looks_at,
                    "remedy": check.remedy,
                })
            })
            .collect();
        return format!("{:#}\n", serde_json::Value::Array(rows));
    }
    let mut text = String::new();
    for area in AREAS {
        text.push_str(&format!("{} ({})\n", area.title, area.name));
        for check in area.checks() {
            text.push_str(&format!("  {:<34} {}\n", check.name, check.looks_at));
        }
    }
    text
}

/// Tries everything, or one area, or what one module stands on.
///
/// # Errors
/// Only when there is no such area or module; everything else is a result.
pub async fn check(data_dir: &Path, only: Option<&str>) -> anyhow::Result<Report> {
    examine(data_dir, only, None).await
}

/// The same, with another address for the network's area.
async fn examine(data_dir: &Path, only: Option<&str>, url: Option<String>) -> anyhow::Result<Report> {
    let module = only.filter(|only| FACTORIES.iter().any(|factory| factory.kind() == *only));
    let area = only.filter(|only| AREAS.iter().any(|area| area.name == *only));
    if let Some(only) = only
        && module.is_none()
        && area.is_none()
    {
        let kinds = FACTORIES.iter().map(|factory| factory.kind()).collect::<Vec<_>>().join(", ");
        let areas = AREAS.iter().map(|area| area.name).collect::<Vec<_>>().join(", ");
        anyhow::bail!(
            "there is no module or area {only}; this agent has the modules {kinds} and the areas {areas}"
        );
    }
    let mut bench = Bench::new(data_dir, module);
    bench.url = url;
    let wanted = AREAS.iter().filter(|one| match (area, module) {
        (Some(area), _) => one.name == area,
        (None, Some(_)) => one.with_one_module,
        (None, None) => true,
    });
    let tried = join_all(wanted.map(|area| run(area, &bench))).await;
    let mut results: Vec<(&'static Area, Vec<CheckResult>)> = tried;
    // Settings that cannot be read are said whatever was asked for: nothing can be tried without them.
    if let Some(broken) = bench.broken_settings()
        && !results.iter().any(|(area, _)| area.name == installation::NAME)
    {
        results.insert(0, (&AREAS[0], vec![broken]));
    }
    Ok(Report(results))
}

/// Tries some areas with settings that are not kept yet.
pub(super) async fn trial(
    data_dir: &Path,
    settings: &SettingsFile,
    secrets: &SecretStore,
    areas: &[&str],
) -> Report {
    let bench = Bench::of(data_dir, Ok(settings.clone()), Ok(secrets.clone()), None);
    let wanted = AREAS.iter().filter(|area| areas.contains(&area.name));
    Report(join_all(wanted.map(|area| run(area, &bench))).await)
}

/// Tries one module with settings that are not kept yet, and what it stands on besides directories.
pub(super) async fn trial_of_module(
    data_dir: &Path,
    settings: &SettingsFile,
    secrets: &SecretStore,
    module: &str,
) -> Report {
    let bench = Bench::of(data_dir, Ok(settings.clone()), Ok(secrets.clone()), Some(module));
    let wanted = AREAS.iter().filter(|area| area.name == "modules");
    Report(join_all(wanted.map(|area| run(area, &bench))).await)
}

async fn run(area: &'static Area, bench: &Bench) -> (&'static Area, Vec<CheckResult>) {
    let results = match timeout(CHECK_AREA_WITHIN, (area.run)(bench)).await {
        Ok(results) => results,
        Err(_) => vec![CheckResult::fail(
            &registry::IN_TIME,
            format!("the checks of {} did not end within {} s", area.name, CHECK_AREA_WITHIN.as_secs()),
            "",
        )],
    };
    (area, results)
}
