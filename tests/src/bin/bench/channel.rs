//! The channel server beside Prosody and ejabberd: the same client pings each.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use causeway_mock_cloud::{Config, MockCloud};
use causeway_tests::containers::{Address, Ejabberd, Prosody};
use causeway_tests::tls;
use causeway_tests::xmpp_client::{Account, XmppClient};
use futures_util::future::{BoxFuture, try_join_all};

use crate::Options;
use crate::table::Table;

/// Sessions that ping at the same time.
const SESSIONS: usize = 4;
/// Pings of one session in one round.
const PINGS: u64 = 20_000;
/// Unanswered pings of one session.
const OUTSTANDING: u64 = 32;
/// The console account's password; this cloud lives only as long as the benchmark.
const PASSWORD: &str = "bench-console-password";

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let pings = PINGS / options.shrink as u64;
    let mut config = Config::default();
    config.channel.console_password = Some(PASSWORD.to_owned());
    let domain = config.domain.clone();
    let cloud = MockCloud::start(config).await?;
    let ours = Account {
        address: cloud.urls()["api"].trim_start_matches("https://").trim_end_matches('/').to_owned(),
        server_name: domain.clone(),
        domain,
        user: "console".to_owned(),
        password: PASSWORD.to_owned(),
        tls: Arc::new(tls::trusting_only(&std::fs::read_to_string(cloud.ca_pem())?)?),
    };
    let prosody = Prosody::start().await?.context("the Prosody container is needed")?;
    let ejabberd = Ejabberd::start().await?.context("the ejabberd container is needed")?;
    let (at_prosody, at_ejabberd) = (account(&prosody)?, account(&ejabberd)?);
    let (mut rates, mut prosody_rates, mut ejabberd_rates) = (vec![], vec![], vec![]);
    for _ in 0..options.rounds {
        rates.push(rate(&ours, pings).await.context("mock-cloud")?);
        prosody_rates.push(rate(&at_prosody, pings / 4).await.context("Prosody")?);
        ejabberd_rates.push(rate(&at_ejabberd, pings / 4).await.context("ejabberd")?);
    }
    let mut table = Table::default();
    let what = format!("ping iqs, {SESSIONS} sessions, {OUTSTANDING} outstanding");
    table.against(&what, "iq/s", rates.clone(), ("Prosody", prosody_rates), "at least 2 x");
    table.against(&what, "iq/s", rates, ("ejabberd", ejabberd_rates), "at least 2 x");
    table.note(format!(
        "peers: {} and {}, in containers, over published loopback ports; all with TLS",
        prosody.image, ejabberd.image
    ));
    table.note("client and server share the two processors; our server runs inside the client's process");
    Ok(table)
}

pub(crate) fn account(address: &Address) -> Result<Account> {
    let (user, domain) = address.login.split_once('@').unwrap_or((&address.login, &address.base_dn));
    Ok(Account {
        address: format!("{}:{}", address.host, address.port("xmpps")),
        server_name: address.host.clone(),
        domain: domain.to_owned(),
        user: user.to_owned(),
        password: address.password.clone(),
        tls: Arc::new(tls::trusting_only(&address.ca_pem)?),
    })
}

async fn rate(account: &Account, pings: u64) -> Result<f64> {
    let mut clients = try_join_all((0..SESSIONS).map(|_| XmppClient::login(account))).await?;
    let started = Instant::now();
    let tasks = clients
        .drain(..)
        .map(|mut client| tokio::spawn(async move { client.pings(pings, OUTSTANDING).await }));
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(SESSIONS as f64 * pings as f64 / started.elapsed().as_secs_f64())
}
