//! A cloud in memory, a module that does as it is told, and an agent made of them.

pub(crate) mod cloud;
pub(crate) mod module;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use causeway_agent::clock::Clock;
use causeway_agent::config::{FILE_NAME, SettingsFile};
use causeway_agent::identity::{Identity, PendingKey};
use causeway_agent::random::RandomSource;
use causeway_agent::secrets::{FileModeSealer, SecretStore};
use causeway_agent::storage::Storage;
use causeway_agent::storage::memory::MemoryStorage;
use causeway_agent::{Agent, AgentConfig, RunningAgent};
use causeway_protocol::channel::payload::Certificate;
use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};
use tempfile::TempDir;

use self::cloud::{Lobby, MemoryConnect};
use self::module::Probe;

/// The longest any wait takes; with a paused clock it passes at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const INSTANCE: &str = "5f0c1f4e-8a4e-4b1c-9a57-0d6e0e4f2b11";
pub(crate) const DOMAIN: &str = "cloud.causeway.test";

/// An agent that has never been enrolled by anyone, but has the papers.
pub(crate) fn identity() -> Identity {
    let issuer = Issuer::new(CertificateParams::default(), KeyPair::generate().unwrap());
    let pending = PendingKey::generate().unwrap();
    let request = CertificateSigningRequestParams::from_pem(&pending.request_pem().unwrap()).unwrap();
    let certificate = Certificate {
        chain_pem: request.signed_by(&issuer).unwrap().pem(),
        instance: INSTANCE.to_owned(),
        tenant: "acme".to_owned(),
        jid: format!("{INSTANCE}@{DOMAIN}"),
    };
    pending.certified(certificate).unwrap()
}

/// Everything a test holds while an agent runs in it.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) lobby: Lobby,
    pub(crate) connect: Arc<MemoryConnect>,
    pub(crate) storage: MemoryStorage,
    pub(crate) probe: Probe,
    pub(crate) settings: String,
    seed: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (connect, lobby) = MemoryConnect::new();
        Self {
            dir: tempfile::tempdir().unwrap(),
            lobby,
            connect: Arc::new(connect),
            storage: MemoryStorage::new(),
            probe: Probe::new(),
            settings: String::new(),
            seed: 7,
        }
    }

    /// Starts an agent; a second call is a second process with the same files.
    pub(crate) async fn start(&mut self) -> RunningAgent {
        self.start_with(Arc::new(self.storage.clone())).await
    }

    pub(crate) async fn start_with(&mut self, storage: Arc<dyn Storage>) -> RunningAgent {
        self.seed += 1;
        let mut config = config(self.dir.path(), &self.settings);
        config.factories = vec![self.probe.factory()];
        config.connect = Some(self.connect.clone());
        config.storage = Some(storage);
        config.clock = Clock::simulated(1_800_000_000_000);
        config.random = RandomSource::seeded(self.seed);
        Agent::start(config).await.unwrap()
    }
}

pub(crate) fn config(dir: &Path, settings: &str) -> AgentConfig {
    let text = format!("[cloud]\nurl = \"https://{DOMAIN}:443\"\nca_file = \"ca.pem\"\n{settings}");
    let ca = CertificateParams::new(Vec::new()).unwrap().self_signed(&KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    AgentConfig {
        data_dir: dir.to_owned(),
        settings: SettingsFile::parse(dir.join(FILE_NAME), text).unwrap(),
        identity: identity(),
        secrets: SecretStore::default(),
        sealer: Arc::new(FileModeSealer),
        factories: Vec::new(),
        dial: None,
        connect: None,
        storage: None,
        clock: Clock::system(),
        random: RandomSource::seeded(1),
    }
}

/// Waits for a condition over a value, bounded, and reports the last value.
pub(crate) async fn eventually<T: std::fmt::Debug, F: Future<Output = T>>(
    what: &str,
    mut look: impl FnMut() -> F,
    good: impl Fn(&T) -> bool,
) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let value = look().await;
        if good(&value) {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: last seen {value:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Bounds a future.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}
