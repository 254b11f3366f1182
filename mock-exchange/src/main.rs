//! `mock-exchange`: the organisation as a program. See the README for its flags.

use causeway_mock_exchange::{Config, MockExchange};
use causeway_mock_kit::cli::{CommonArgs, run_mock};
use clap::Parser;

/// An Exchange organisation for tests and demos
#[derive(Parser)]
#[command(name = "mock-exchange", version)]
struct Flags {
    #[command(flatten)]
    common: CommonArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    run_mock(async {
        let config = Config::from_args(&flags.common)?;
        Ok(MockExchange::start(config).await?)
    })
    .await
}
