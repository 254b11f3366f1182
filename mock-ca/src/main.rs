//! `mock-ca`: the authority as a program. See the README for its flags.

use causeway_mock_ca::{Config, MockCa};
use causeway_mock_kit::cli::{CommonArgs, run_mock};
use clap::Parser;

/// A certificate authority for tests and demos
#[derive(Parser)]
#[command(name = "mock-ca", version)]
struct Flags {
    #[command(flatten)]
    common: CommonArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    run_mock(async {
        let config = Config::from_args(&flags.common)?;
        Ok(MockCa::start(config).await?)
    })
    .await
}
