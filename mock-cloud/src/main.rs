//! `mock-cloud`: the management cloud as a program.

use std::path::PathBuf;

use anyhow::Context as _;
use causeway_mock_cloud::{Config, MockCloud};
use causeway_mock_kit::cli::{CommonArgs, load_config, run_mock};
use clap::Parser;

/// The management cloud in one process: channel, API and portal.
///
/// Prints one JSON line with its addresses and credentials once everything is bound.
#[derive(Parser)]
#[command(name = "mock-cloud", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Directory for state and certificate authority; without it they go with the process
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    run_mock(async move {
        let mut config: Config = load_config(args.common.config.as_deref())?;
        config.common.apply(&args.common);
        config.data_dir = args.data_dir.or(config.data_dir);
        MockCloud::start(config).await.context("start mock-cloud")
    })
    .await
}
