//! The command line. Each command is a function that could be called by a test.

pub mod check;
pub mod configure;
mod draft;
pub mod edit;
pub mod enroll;
pub mod run;
pub(crate) mod say;
pub mod service;
pub mod show_config;
pub mod status;
pub mod support_bundle;
mod tables;
mod wizard;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The Causeway agent: connects what stands behind the firewall to the management cloud through one outbound
/// connection.
#[derive(Parser)]
#[command(name = "causeway-agent", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join a tenant with a one-time enrolment key
    Enroll(enroll::Enroll),
    /// Change local settings and secrets: by flags, from a file of answers, or by questions
    Configure(configure::Configure),
    /// Run until stopped
    Run(run::Run),
    /// Show how the running agent is
    Status(status::StatusCommand),
    /// Try everything the agent needs and say what is wrong
    Check(check::CheckCommand),
    /// Show the settings in force and where each value comes from
    ShowConfig(show_config::ShowConfig),
    /// Write a file for support, without secrets
    SupportBundle(support_bundle::SupportBundle),
    /// Install or control the system service
    #[command(subcommand)]
    Service(service::Service),
}

/// The option every command has.
#[derive(Args, Clone, Debug)]
pub struct DataDir {
    /// Where the agent keeps its files
    #[arg(long, default_value_os_t = default_data_dir())]
    pub data_dir: PathBuf,
}

fn default_data_dir() -> PathBuf {
    if cfg!(windows) {
        let base = std::env::var_os("ProgramData").unwrap_or_else(|| "C:\\ProgramData".into());
        PathBuf::from(base).join("Causeway")
    } else {
        PathBuf::from("/var/lib/causeway-agent")
    }
}

/// Threads of the runtime: the agent shares its machine with others.
pub fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(crate::limits::WORKER_THREADS_MAX)
}

/// Runs a command.
///
/// # Errors
/// Anything the command could not do; the text is for the person at the terminal.
pub async fn execute(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Enroll(command) => command.execute().await,
        Command::Configure(command) => command.execute().await,
        Command::Run(command) => command.execute().await,
        Command::Status(command) => command.execute(),
        Command::Check(command) => command.execute().await,
        Command::ShowConfig(command) => command.execute(),
        Command::SupportBundle(command) => command.execute().await,
        Command::Service(command) => command.execute().await,
    }
}
