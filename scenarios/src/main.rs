//! `causeway`: the demo, the scenarios, and every mock behind one program.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use causeway_mock_ca::MockCa;
use causeway_mock_cloud::MockCloud;
use causeway_mock_exchange::MockExchange;
use causeway_mock_kit::cli::{CommonArgs, load_config, run_mock};
use causeway_mock_ldap::MockLdap;
use causeway_scenarios::demo;
use causeway_scenarios::progress::Progress;
use causeway_scenarios::run::{Stage, play_all, play_and_keep};
use causeway_scenarios::spec::{self, Case};
use causeway_scenarios::world::AgentProgram;
use clap::{Parser, Subcommand};

/// Causeway: what stands behind a company's firewall, connected to a management cloud
#[derive(Parser)]
#[command(name = "causeway", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot a living company in a sandbox, play its story, and stay up for a look around
    Demo {
        /// Address of the portal
        #[arg(long, default_value = "127.0.0.1:8443")]
        listen: SocketAddr,
        /// People in the company
        #[arg(long, default_value_t = 250)]
        users: usize,
        /// Seed of the company
        #[arg(long, default_value_t = 7)]
        seed: u64,
        /// Play the story, print a summary and exit
        #[arg(long)]
        once: bool,
    },
    /// Play scenarios: all of them, or those named
    Run {
        /// Names as in `causeway list`, or files
        scenario: Vec<String>,
        /// Seed instead of the scenario's own
        #[arg(long)]
        seed: Option<u64>,
        /// Folder for junit.xml, report.html and report.json
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// Play a scenario's steps and leave its world up
    Serve {
        /// A name as in `causeway list`, or a file
        scenario: String,
    },
    /// Show the scenarios and what each covers
    List,
    /// Run one mock, as its own program would
    Mock {
        #[command(subcommand)]
        mock: Mock,
    },
    /// Be the agent, as `causeway-agent` would (the demo and the scenarios start their agents this way)
    Agent(causeway_agent::cli::Arguments),
}

#[derive(Subcommand)]
enum Mock {
    /// The directory server
    Ldap(CommonArgs),
    /// The mail system
    Exchange(CommonArgs),
    /// The certificate authority
    Ca(CommonArgs),
    /// The management cloud
    Cloud {
        #[command(flatten)]
        common: CommonArgs,
        /// Directory for state and certificate authority; without it they go with the process
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Agent(arguments) => agent(arguments),
        Command::Mock { mock } => finish(block_on(run_one(mock))),
        Command::List => finish(list()),
        Command::Demo { listen, users, seed, once } => {
            finish(story(demo::demo(demo::Options { listen, users, seed, once })))
        }
        Command::Run { scenario, seed, report } => finish(story(run(&scenario, seed, report.as_deref()))),
        Command::Serve { scenario } => finish(story(serve(&scenario))),
    }
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causeway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(future: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(future)
}

fn agent(arguments: causeway_agent::cli::Arguments) -> ExitCode {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(causeway_agent::cli::worker_threads()).enable_all();
    let code = runtime
        .build()
        .context("start the runtime")
        .and_then(|it| it.block_on(causeway_agent::cli::execute(arguments)));
    code.unwrap_or_else(|error| finish(Err(error)))
}

async fn run_one(mock: Mock) -> Result<()> {
    match mock {
        Mock::Ldap(common) => {
            run_mock(async { Ok(MockLdap::start(causeway_mock_ldap::Config::from_args(&common)?).await?) })
                .await
        }
        Mock::Exchange(common) => {
            run_mock(async {
                let config = causeway_mock_exchange::Config::from_args(&common)?;
                Ok(MockExchange::start(config).await?)
            })
            .await
        }
        Mock::Ca(common) => {
            run_mock(async { Ok(MockCa::start(causeway_mock_ca::Config::from_args(&common)?).await?) }).await
        }
        Mock::Cloud { common, data_dir } => {
            run_mock(async {
                let mut config: causeway_mock_cloud::Config = load_config(common.config.as_deref())?;
                config.common.apply(&common);
                config.data_dir = data_dir.or(config.data_dir);
                Ok(MockCloud::start(config).await?)
            })
            .await
        }
    }
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for Case { id, scenario } in spec::built_in()? {
        writeln!(out, "{id:<28} {}\n{:<28} covers {}", scenario.name, "", scenario.covers.join(", "))?;
    }
    Ok(())
}

/// The mocks' logs stay out of a story.
fn story(future: impl Future<Output = Result<()>>) -> Result<()> {
    causeway_scenarios::quiet_logs();
    block_on(future)
}

async fn run(names: &[String], seed: Option<u64>, report: Option<&Path>) -> Result<()> {
    let cases = match names {
        [] => spec::built_in()?,
        names => names.iter().map(|name| spec::find(name)).collect::<Result<_, _>>()?,
    };
    let stage = Stage { agent: AgentProgram::this_program()?, seed, audience: None };
    let run = play_all(&cases, &stage, &Progress::on_terminal()).await;
    if let Some(folder) = report {
        run.write(folder)?;
        eprintln!("\nreport: {}", folder.join("report.html").display());
    }
    let failed = run.scenarios.iter().filter(|scenario| !scenario.passed()).count();
    println!("{} passed, {failed} failed", run.scenarios.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} scenarios failed", run.scenarios.len());
    }
    Ok(())
}

async fn serve(name: &str) -> Result<()> {
    let case = spec::find(name)?;
    let stage = Stage { agent: AgentProgram::this_program()?, seed: None, audience: None };
    let (report, world) = play_and_keep(&case, &stage, &Progress::on_terminal()).await;
    let Some(world) = world else { bail!("the world of {} did not stand", report.id) };
    demo::stay_up(world).await
}
