//! Every file of `scenarios/cases` as a test with its own name. A failed one prints the line that plays it again, and
//! leaves its report in `target/scenarios/<name>/report.html`.
//!
//! And the ways out through real proxies, `proxies::<source>::<scheme>::<purpose>`: an agent process in a network that
//! leads nowhere else. And what an administrator does at a terminal, because this program can be the agent too.

mod console;
mod installation;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod proxies;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use causeway_scenarios::device::NO_OPENSSL;
use causeway_scenarios::progress::Progress;
use causeway_scenarios::run::{Stage, play_all};
use causeway_scenarios::spec::{self, Case};
use causeway_scenarios::world::AgentProgram;
use causeway_tests::skips::skip;
use clap::Parser;
use libtest_mimic::{Arguments, Failed, Trial};

/// What this program is when a scenario starts it as an agent.
#[derive(Parser)]
enum Role {
    /// Be the agent
    Agent(Box<causeway_agent::cli::Arguments>),
    /// Be the rest of the company's network
    #[cfg(target_os = "linux")]
    Company(proxies::Company),
}

fn main() -> ExitCode {
    if let Some("agent" | "company") = std::env::args().nth(1).as_deref() {
        let played = match Role::parse() {
            Role::Agent(arguments) => runtime().block_on(causeway_agent::cli::execute(*arguments)),
            #[cfg(target_os = "linux")]
            Role::Company(company) => runtime().block_on(company.run()).map(|()| ExitCode::SUCCESS),
        };
        return played.unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        });
    }
    let cases = spec::built_in().expect("the built-in scenarios are readable");
    let mut trials: Vec<Trial> =
        cases.into_iter().map(|case| Trial::test(case.id.clone(), move || as_test(play(case)))).collect();
    #[cfg(target_os = "linux")]
    trials.extend(
        proxies::cells()
            .into_iter()
            .map(|cell| Trial::test(cell.name(), move || as_test(runtime().block_on(cell.play())))),
    );
    trials.extend(
        installation::TRIALS
            .iter()
            .map(|(name, body)| Trial::test(*name, move || as_test(runtime().block_on(body())))),
    );
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn as_test(result: Result<()>) -> Result<(), Failed> {
    result.map_err(|error| Failed::from(format!("{error:#}")))
}

fn play(case: Case) -> Result<()> {
    causeway_scenarios::quiet_logs();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/scenarios").join(&case.id);
    let stage = Stage { agent: AgentProgram::this_program()?, seed: None, audience: None };
    let run = runtime().block_on(play_all(&[case], &stage, &Progress::on_terminal()));
    run.write(&folder)?;
    let scenario = run.scenarios.first().context("one case was played")?;
    match scenario.failure() {
        Some(failure) => bail!("{failure}\nplay it again: {}\nreport: {}", scenario.replay, folder.display()),
        None => {
            if scenario.steps.iter().any(|step| step.detail == NO_OPENSSL) {
                skip("openssl", "a certificate was not judged; install it");
            }
            Ok(())
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the runtime starts")
}
