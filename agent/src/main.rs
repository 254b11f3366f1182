//! `causeway-agent`: arguments, runtime, exit code. Everything else is in the library.

use std::process::ExitCode;

use causeway_agent::cli::{self, Arguments};
use clap::Parser;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cli::worker_threads())
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("causeway-agent: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(cli::execute(arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("causeway-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
