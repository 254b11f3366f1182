//! `mock-ldap`: the directory as a program. See the README for its flags.

use causeway_mock_kit::cli::{CommonArgs, run_mock};
use causeway_mock_ldap::{Config, MockLdap};
use clap::Parser;

/// A directory server for tests and demos
#[derive(Parser)]
#[command(name = "mock-ldap", version)]
struct Flags {
    #[command(flatten)]
    common: CommonArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    run_mock(async {
        let config = Config::from_args(&flags.common)?;
        Ok(MockLdap::start(config).await?)
    })
    .await
}
