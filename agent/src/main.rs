//! `causeway-agent`: arguments, runtime, exit code. Everything else is in the library.

use std::io::Write;
use std::process::ExitCode;

use causeway_agent::cli::{self, Arguments};
use causeway_agent::platform;
use clap::Parser;

fn main() -> ExitCode {
    platform::forbid_core_dumps();
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cli::worker_threads())
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return failed(&format!("start the runtime: {error}"));
        }
    };
    match runtime.block_on(cli::execute(arguments)) {
        Ok(code) => code,
        Err(error) => failed(&format!("{error:#}")),
    }
}

/// Where standard error is gone, the exit code has to say it.
fn failed(why: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "causeway-agent: {why}");
    ExitCode::FAILURE
}
