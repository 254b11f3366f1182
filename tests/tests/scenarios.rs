//! Every file of `scenarios/cases` as a test with its own name. A failed one prints the line that plays it again, and
//! leaves its report in `target/scenarios/<name>/report.html`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use causeway_scenarios::progress::Progress;
use causeway_scenarios::run::{Stage, play_all};
use causeway_scenarios::spec::{self, Case};
use causeway_scenarios::world::AgentProgram;
use clap::Parser;
use libtest_mimic::{Arguments, Failed, Trial};

/// What this program is when a scenario starts it as an agent.
#[derive(Parser)]
enum Role {
    /// Be the agent
    Agent(causeway_agent::cli::Arguments),
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("agent") {
        let Role::Agent(arguments) = Role::parse();
        return runtime().block_on(causeway_agent::cli::execute(arguments)).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        });
    }
    let cases = spec::built_in().expect("the built-in scenarios are readable");
    let trials = cases.into_iter().map(|case| {
        Trial::test(case.id.clone(), move || play(case).map_err(|error| Failed::from(format!("{error:#}"))))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
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
        None => Ok(()),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the runtime starts")
}
