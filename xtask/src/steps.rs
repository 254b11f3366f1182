//! The steps of `cargo xtask test`, in order. A new one is one line in a table.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::process::Counts;
use crate::session::Session;
use crate::{check, peers, windows};

/// One step. The first that fails ends the run.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Session) -> anyhow::Result<()>,
    /// What to do when it fails.
    pub(crate) advice: &'static str,
}

const fn step(name: &'static str, run: fn(&mut Session) -> anyhow::Result<()>, advice: &'static str) -> Step {
    Step { name, run, advice }
}

/// What needs no build comes first: it fails in seconds.
pub(crate) const CHECK: &[Step] = &[
    step("format", |s| s.stream(&mut s.cargo(&["fmt", "--all", "--check"])), "run `cargo fmt --all`"),
    step("dependencies", check::dependencies::run, "see the table of allowed edges in ARCHITECTURE.md"),
    step("sources", check::sources::run, "the rule and its reason are in the message"),
    step("policy", check::policy::run, "see deny.toml; an exception needs a reason and a date"),
    step("clippy", check::clippy, "fix the code; a lint is not silenced without a reason beside it"),
    step("clippy-windows", windows::clippy, "code behind cfg(windows) is seen by this step only"),
];

pub(crate) const TEST: &[Step] = &[
    step(
        "peers",
        peers::for_tests,
        "`cargo xtask peers status` tells what is there; logs are in target/peers",
    ),
    step(
        "windows",
        windows::for_tests,
        "the agent for Windows is built here and run under Wine by the tests",
    ),
    step("tests", run_tests, "the failing tests are listed above; run one with `cargo nextest run NAME`"),
    step("doctests", run_doctests, "run `cargo test --workspace --doc`"),
];

/// Runs the tables one after the other, prints the closing line, and says how it went.
pub(crate) fn run(mut session: Session, tables: &[&[Step]], only: &[String]) -> anyhow::Result<ExitCode> {
    let all: Vec<&Step> = tables.iter().flat_map(|table| table.iter()).collect();
    for name in only {
        let known = || all.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
        ensure!(all.iter().any(|step| step.name == name), "no step {name:?}; known: {}", known());
    }
    let skip_log = session.skip_log()?;
    std::fs::write(&skip_log, "").with_context(|| format!("write {}", skip_log.display()))?;

    let mut timings = Vec::new();
    let mut failed = None;
    for step in all.into_iter().filter(|step| only.is_empty() || only.iter().any(|name| name == step.name)) {
        println!("== {}", step.name);
        let started = Instant::now();
        let result = (step.run)(&mut session);
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ok = result.is_ok();
        println!(
            "== {}: {} in {:.1} s",
            step.name,
            if ok { "ok" } else { "FAILED" },
            elapsed_ms as f64 / 1000.0
        );
        timings.push(Timing { step: step.name, ok, elapsed_ms });
        write_timings(&session, &timings)?;
        if let Err(error) = result {
            failed = Some((step, error));
            break;
        }
    }
    // Servers go before the closing line, which must stay the last one.
    session.served = None;
    let ran_tests = timings.iter().any(|timing| timing.step == "tests");
    close(&mut session, failed, ran_tests)
}

/// One line of `target/xtask/steps.json`.
#[derive(Serialize)]
struct Timing {
    step: &'static str,
    ok: bool,
    elapsed_ms: u64,
}

fn write_timings(session: &Session, timings: &[Timing]) -> anyhow::Result<()> {
    let path = session.own_dir()?.join("steps.json");
    std::fs::write(&path, serde_json::to_vec_pretty(timings)?)
        .with_context(|| format!("write {}", path.display()))
}

fn close(
    session: &mut Session,
    failed: Option<(&Step, anyhow::Error)>,
    ran_tests: bool,
) -> anyhow::Result<ExitCode> {
    let skip_log = session.skip_log()?;
    let told = std::fs::read_to_string(&skip_log).with_context(|| format!("read {}", skip_log.display()))?;
    let by_tests: Vec<&str> = told.lines().collect();
    // A runner counts a test that could test nothing as passed; one test may miss several peers.
    let tests: BTreeSet<&str> = by_tests.iter().filter_map(|line| line.split(": ").next()).collect();
    session.counts.passed = session.counts.passed.saturating_sub(tests.len() as u64);
    session.counts.skipped += (tests.len() + session.skips.len()) as u64;
    for skip in by_tests.into_iter().map(str::to_owned).chain(session.skips.drain(..)) {
        println!("skipped: {skip}");
    }
    let code = match failed {
        None => ExitCode::SUCCESS,
        Some((step, error)) => {
            // A step that is no test fails too, and the line must show it.
            session.counts.failed = session.counts.failed.max(1);
            println!("{}: {error:#}\n   -> {}", step.name, step.advice);
            ExitCode::FAILURE
        }
    };
    let counts = session.counts;
    // Checks are no tests; a line of zeros would say that the tests had gone missing.
    if counts != Counts::default() || ran_tests {
        println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    }
    Ok(code)
}

/// Read by proptest: where its random inputs begin.
const PROPTEST_SEED: &str = "PROPTEST_RNG_SEED";

fn run_tests(session: &mut Session) -> anyhow::Result<()> {
    let nextest = crate::process::succeeds(&mut session.cargo(&["nextest", "--version"]));
    let arguments: &[&str] = if nextest {
        &["nextest", "run", "--workspace"]
    } else {
        &["test", "--workspace", "--lib", "--bins", "--tests"]
    };
    let mut command = session.cargo(arguments);
    if std::env::var_os(PROPTEST_SEED).is_none() {
        // The same inputs each time: whether a change is sound must not depend on luck. Plain `cargo test` draws new ones.
        command.env(PROPTEST_SEED, "20261123");
    }
    session.run_tests(&mut command)
}

fn run_doctests(session: &mut Session) -> anyhow::Result<()> {
    let mut command = session.cargo(&["test", "--workspace", "--doc"]);
    session.run_tests(&mut command)
}
