//! Sessions against the mock: sign-in, sealing, failover, redirects, limits, and what a hostile server sends.

mod kerberos;
mod kinds;
mod servers;
mod sign_in;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use causeway_mock_exchange::config::{AccountConfig, ChannelBinding};
use causeway_mock_exchange::{Config, MockExchange};
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_mock_kit::proxy::TcpProxy;
use causeway_protocol::Secret;
use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::remote::OnPremises;
use super::{Backend, Exchange, ExchangeError, Organisation, Session, Urgency, doctor};
use crate::checks::Verdict;
use crate::clock::Clock;
use crate::directory::Net;
use crate::modules::ModuleSettings;
use crate::modules::testing::LoopbackDial;
use crate::random::RandomSource;
use crate::secrets::SecretStore;

/// One cmdlet on a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Phones of a mock.
const PHONES: usize = 25;

async fn mock(change: impl FnOnce(&mut Config)) -> MockExchange {
    let mut config = Config::default();
    config.common.users = 20;
    config.partnerships = Some(PHONES);
    change(&mut config);
    MockExchange::start(config).await.unwrap()
}

/// `[exchange.default]` and what belongs to it.
struct Site {
    exchange: Value,
    secrets: SecretStore,
    folder: TempDir,
}

impl Site {
    /// These front ends of mocks, in this order.
    fn new(servers: &[(&MockExchange, &str)], auth: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let pems = servers.iter().map(|(mock, _)| std::fs::read_to_string(mock.ca().pem_path()).unwrap());
        std::fs::write(&ca_file, pems.collect::<String>()).unwrap();
        let urls: Vec<String> = servers.iter().map(|(mock, front)| mock.url(front).to_owned()).collect();
        let login = servers[0].0.service_account();
        let exchange = json!({
            "servers": urls, "accounts": [{ "user": login.user }], "auth": auth, "ca_file": ca_file,
        });
        let secret = Secret::new(login.password);
        let secrets = SecretStore::new([("exchange.default".to_owned(), secret)]);
        Self { exchange, secrets, folder }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.exchange[key] = value;
        self
    }

    fn password(mut self, password: &str) -> Self {
        self.secrets = SecretStore::new([("exchange.default".to_owned(), Secret::new(password))]);
        self
    }

    fn settings(&self) -> ModuleSettings {
        ModuleSettings {
            exchanges: BTreeMap::from([("default".to_owned(), self.exchange.clone())]),
            secrets: self.secrets.clone(),
            ..ModuleSettings::default()
        }
    }

    fn organisation(&self) -> Organisation {
        Organisation::new("default", &self.settings()).unwrap()
    }
}

fn net() -> Net {
    Net { dial: Arc::new(LoopbackDial::default()), clock: Clock::system() }
}

async fn open(organisation: &Organisation) -> Result<Box<dyn Session>, ExchangeError> {
    timeout(WITHIN, organisation.open(net(), Urgency::Background)).await.expect("a session in time")
}

async fn run(session: &mut dyn Session, cmdlet: Cmdlet) -> Result<(Vec<Object>, Completed), ExchangeError> {
    let (objects, mut taken) = mpsc::channel(2);
    let take = async {
        let mut all = Vec::new();
        while let Some(object) = taken.recv().await {
            all.push(object);
        }
        all
    };
    let both = async { tokio::join!(session.run(&cmdlet, objects), take) };
    let (completed, all) = timeout(WITHIN, both).await.expect("a cmdlet in time");
    Ok((all, completed?))
}

fn devices() -> Cmdlet {
    Cmdlet::new("Get-MobileDevice").with("ResultSize", "Unlimited")
}

fn ids(objects: &[Object]) -> BTreeSet<String> {
    objects.iter().map(|object| object.text("Guid").expect("a Guid").into_owned()).collect()
}

/// Waits until the mock has so many shells.
async fn shells(mock: &MockExchange, wanted: usize) {
    let until = Instant::now() + WITHIN;
    while mock.shells() != wanted {
        assert!(Instant::now() < until, "{} shells, {wanted} wanted", mock.shells());
        sleep(Duration::from_millis(20)).await;
    }
}

fn word(word: &str, args: Value) -> Rule {
    Rule::new(Fault::Custom { word: word.to_owned(), args })
}

fn malformed(kind: &str) -> Fault {
    Fault::Malformed { kind: kind.to_owned() }
}

/// A whole session: objects, a cmdlet that is not there, the end.
async fn whole(mock: &MockExchange, site: &Site) {
    let mut session = open(&site.organisation()).await.unwrap();
    let (objects, completed) = run(&mut *session, devices()).await.unwrap();
    assert_eq!((objects.len(), ids(&objects).len()), (PHONES, PHONES));
    assert_eq!(completed, Completed::default());
    let (_, completed) = run(&mut *session, Cmdlet::new("Get-Nothing")).await.unwrap();
    assert_eq!(completed.failure.unwrap().reason, "CommandNotFoundException");
    session.close().await;
    assert_eq!(mock.shells(), 0);
}
