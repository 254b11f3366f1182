//! `cargo xtask bench [NAME ...]`: every figure beside its peer, from one run, alternating, over several rounds.
//!
//! Prints a table and writes `target/bench/<name>.json`. Figures are for reading; nothing here judges them.

mod actions;
mod agent;
mod auth;
mod certificate;
mod channel;
mod clixml;
mod cuts;
mod delta;
mod exchange;
mod exchange_server;
mod failover;
mod herd;
mod ldap_server;
mod pac;
mod process;
mod scep_issue;
mod sessions;
mod stage;
mod sync;
mod table;

use std::time::Duration;

use anyhow::{Result, bail};

use table::Table;

/// A benchmark: its name, what it shows, and how to run it.
struct Bench {
    name: &'static str,
    shows: &'static str,
    run: fn(&Options) -> futures_util::future::BoxFuture<'_, Result<Table>>,
}

/// What every benchmark is told.
pub(crate) struct Options {
    /// Rounds of each side.
    pub(crate) rounds: usize,
    /// Divides the sizes, for a quick look; 1 is the real thing.
    pub(crate) shrink: usize,
}

const BENCHES: &[Bench] = &[
    Bench { name: "ldap_server", shows: "mock-ldap beside slapd: scans and binds", run: ldap_server::run },
    Bench { name: "channel", shows: "mock-cloud's channel beside Prosody and ejabberd", run: channel::run },
    Bench { name: "auth", shows: "password checks the whole way beside direct binds", run: auth::run },
    Bench { name: "sync", shows: "full sync of 100,000 people beside ldapsearch", run: sync::run },
    Bench { name: "delta", shows: "1,000 changes in 100,000 beside the full sync", run: delta::run },
    Bench { name: "actions", shows: "durable actions, 1,000 a second", run: actions::run },
    Bench { name: "sessions", shows: "10,000 idle TLS sessions beside ejabberd's", run: sessions::run },
    Bench { name: "agent", shows: "the agent's size and idle memory", run: agent::run },
    Bench {
        name: "pac",
        shows: "proxy scripts: one answer beside pacparser; hostile ones stopped",
        run: pac::run,
    },
    Bench {
        name: "clixml",
        shows: "device objects: our decoder beside pypsrp's; memory of a long answer",
        run: clixml::run,
    },
    Bench {
        name: "exchange_server",
        shows: "mock-exchange serving every phone beside our client reading them",
        run: exchange_server::run,
    },
    Bench {
        name: "exchange_scan",
        shows: "full scan of 100,000 partnerships beside its cmdlets' own time",
        run: exchange::scan,
    },
    Bench {
        name: "exchange_delta",
        shows: "1 % of the partnerships changed beside the full upload",
        run: exchange::delta,
    },
    Bench {
        name: "exchange_actions",
        shows: "actions on phones while a scan runs beside actions without one",
        run: exchange::actions,
    },
    Bench {
        name: "exchange_throttled",
        shows: "a simulated day against a throttled organisation beside a hasty client",
        run: exchange::throttled,
    },
    Bench {
        name: "scep_issue",
        shows: "mock-ca issuing over SCEP beside the cost of its cryptography",
        run: scep_issue::run,
    },
    Bench { name: "ca_ready", shows: "how soon mock-ca is ready", run: scep_issue::ready },
    Bench {
        name: "certificate_relay",
        shows: "certificates through cloud and agent beside a SCEP client at mock-ca",
        run: certificate::relay,
    },
    Bench {
        name: "certificate_renewals",
        shows: "10,000 renewals while NDES keeps five one-time passwords",
        run: certificate::renewals,
    },
    Bench {
        name: "certificate_years",
        shows: "1,000 devices over 400 days with an outage of the authority",
        run: certificate::years,
    },
    Bench { name: "failover", shows: "kill -9 of the serving agent under load", run: failover::run },
    Bench { name: "cuts", shows: "links cut 1,000 times while actions run", run: cuts::run },
    Bench { name: "herd", shows: "10,000 agents and a cloud that is restarted", run: herd::run },
];

fn main() -> Result<()> {
    let mut options = Options { rounds: 5, shrink: 1 };
    let mut names = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => options.rounds = arguments.next().unwrap_or_default().parse()?,
            "--shrink" => options.shrink = arguments.next().unwrap_or_default().parse()?,
            "--help" | "-h" => return usage(),
            name => names.push(name.to_owned()),
        }
    }
    if let Some(unknown) = names.iter().find(|name| !BENCHES.iter().any(|bench| bench.name == **name)) {
        usage()?;
        bail!("no benchmark is called {unknown:?}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for bench in
        BENCHES.iter().filter(|bench| names.is_empty() || names.iter().any(|name| name == bench.name))
    {
        println!("\n{}: {}", bench.name, bench.shows);
        let table = runtime.block_on((bench.run)(&options))?;
        println!("{table}");
        table.write(bench.name)?;
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(())
}

fn usage() -> Result<()> {
    println!("cargo xtask bench [NAME ...] [--rounds N] [--shrink N]\n");
    for bench in BENCHES {
        println!("  {:<20} {}", bench.name, bench.shows);
    }
    Ok(())
}
