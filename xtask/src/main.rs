//! One command for everything CI does: `cargo xtask test`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod dist;
mod peers;
mod process;
mod session;
mod steps;
mod wait;
mod windows;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "One command for everything CI does")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up what is needed and run everything, exactly as CI does
    Test {
        /// Run only these steps, by name
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// The steps that look at the sources and run no test
    Check {
        /// Run only these steps, by name
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Real servers and third-party clients for tests: install, start, stop, look
    Peers {
        #[command(subcommand)]
        command: Option<peers::Command>,
    },
    /// Build the container images that are missing
    Images,
    /// Build, pack and sign everything that is delivered
    Dist(dist::Arguments),
    /// Play seeds of the deterministic simulation; `--seed N` alone replays one and shows what happened
    Sim {
        /// `--seeds N`, `--seed FIRST`, `--jobs N`; `--help` shows them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Benchmarks, each beside its peer in the same run; all of them without a name
    Bench {
        /// Names and options; `--help` shows them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let mut session = session::Session::new()?;
    match command {
        Command::Test { only } => steps::run(session, &[steps::CHECK, steps::TEST], &only),
        Command::Check { only } => steps::run(session, &[steps::CHECK], &only),
        Command::Peers { command } => {
            peers::run(&session, command.unwrap_or(peers::Command::Status)).map(|()| ExitCode::SUCCESS)
        }
        Command::Images => peers::images::build_all(&session).map(|_| ExitCode::SUCCESS),
        Command::Dist(arguments) => dist::run(&mut session, &arguments).map(|()| ExitCode::SUCCESS),
        Command::Sim { options } => {
            let mut sim = session.cargo(&[
                "run",
                "--release",
                "-p",
                "causeway-tests",
                "--features",
                "sim",
                "--bin",
                "sim",
                "--",
            ]);
            session.stream(sim.args(options)).map(|()| ExitCode::SUCCESS)
        }
        Command::Bench { names } => {
            // The benchmarks start these as processes of their own, from the folder they are in themselves.
            let packages = [
                "causeway-agent",
                "causeway-mock-ca",
                "causeway-mock-ldap",
                "causeway-mock-exchange",
                "causeway-mock-cloud",
            ];
            let programs = packages.iter().flat_map(|package| ["-p", *package]);
            session.stream(session.cargo(&["build", "--release", "--bins"]).args(programs))?;
            if names.is_empty() || names.iter().any(|name| name == "agent") {
                dist::agent_for_linux(&session)?;
            }
            let mut bench = session.cargo(&[
                "run",
                "--release",
                "-p",
                "causeway-tests",
                "--features",
                "bench",
                "--bin",
                "bench",
                "--",
            ]);
            session.stream(bench.args(names)).map(|()| ExitCode::SUCCESS)
        }
    }
}
