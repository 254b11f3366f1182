//! A cloud behind a stable address, enrolled agents, and a module that lends its context to the test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use causeway_agent::cli::{self, Arguments};
use causeway_agent::link::{LeaseGuard, LinkError, UploadSink};
use causeway_agent::modules::{
    CheckResult, ConfigError, Module, ModuleContext, ModuleError, ModuleFactory, ModuleSettings, Outcome,
};
use causeway_agent::{Agent, AgentConfig, RunningAgent};
use causeway_mock_cloud::{Config, MockCloud};
use causeway_mock_kit::proxy::TcpProxy;
use causeway_protocol::action::{Action, ErrorReport};
use causeway_protocol::channel::payload::Request;
use causeway_protocol::health::ModuleState;
use causeway_protocol::record::{Kind, Op, Record, UserRecord};
use causeway_protocol::upload::{Mode, UploadRequest};
use causeway_scenarios::cloud_api::Tenant;
use causeway_scenarios::http::Client;
use causeway_tests::tls::trusting_only;
use clap::Parser;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, watch};

/// The longest any wait takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A cloud and the link to it.
pub(crate) struct World {
    pub(crate) cloud: Option<MockCloud>,
    /// What agents dial; survives a restart of the cloud.
    pub(crate) link: TcpProxy,
    pub(crate) tenant: Tenant,
    config: Config,
    dir: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: Some(dir.path().join("cloud")), ..Config::default() };
        config.channel.health_every_secs = 1;
        change(&mut config);
        let cloud = MockCloud::start(config.clone()).await.unwrap();
        let link = TcpProxy::start(address(&cloud)).await.unwrap();
        let tenant = Tenant::create(client(&cloud), "acme").await.unwrap();
        Self { cloud: Some(cloud), link, tenant, config, dir }
    }

    pub(crate) fn cloud(&self) -> &MockCloud {
        self.cloud.as_ref().expect("the cloud runs")
    }

    /// Ends the cloud and starts it again on the same data.
    pub(crate) async fn restart_cloud(&mut self) {
        drop(self.cloud.take());
        self.link.cut();
        let cloud = eventually(
            "a new cloud on the old data",
            || async { Quiet(MockCloud::start(self.config.clone()).await.ok()) },
            |cloud| cloud.0.is_some(),
        )
        .await
        .0
        .expect("waited for");
        self.link.retarget(address(&cloud));
        self.tenant = self.tenant.through(client(&cloud));
        self.cloud = Some(cloud);
    }

    /// Enrols with the program's own command; returns the data directory.
    pub(crate) async fn enrol(&self, name: &str, more: &[&str]) -> PathBuf {
        let dir = self.dir.path().join(name);
        let key = self.tenant.enrollment_key().await.unwrap();
        let url = format!("https://{}", self.link.address());
        let ca = self.cloud().ca_pem().to_str().unwrap().to_owned();
        let base = ["causeway-agent", "enroll", "--cloud", &url, "--key", &key, "--ca", &ca, "--data-dir"];
        let words = base.into_iter().chain([dir.to_str().unwrap()]).chain(more.iter().copied());
        cli::execute(Arguments::parse_from(words)).await.unwrap();
        dir
    }

    /// Enrols and starts, without waiting for the session.
    pub(crate) async fn agent(&self, name: &str, probe: &Probe) -> RunningAgent {
        let dir = self.enrol(name, &[]).await;
        start(&dir, probe).await
    }

    /// Enrols, starts, and waits until the module runs.
    pub(crate) async fn ready_agent(&self, name: &str, probe: &Probe) -> RunningAgent {
        self.tenant.configure(probe.kind(), true, &json!({})).await.unwrap();
        let agent = self.agent(name, probe).await;
        assert!(agent.wait_online(PATIENCE).await, "{:?}", agent.status());
        eventually(
            "the module in the cloud's eyes",
            || async { self.tenant.get("agents").await.unwrap() },
            |agents| {
                agents["items"].as_array().unwrap().iter().any(|agent| {
                    agent["modules"][0]["detail"] == probe.0.name && agent["modules"][0]["state"] == "ok"
                })
            },
        )
        .await;
        agent
    }

    pub(crate) async fn count(&self, list: &str) -> usize {
        self.tenant.all(list).await.unwrap().len()
    }
}

fn address(cloud: &MockCloud) -> std::net::SocketAddr {
    cloud.url("api").trim_start_matches("https://").parse().unwrap()
}

fn client(cloud: &MockCloud) -> Client {
    let tls = trusting_only(&std::fs::read_to_string(cloud.ca_pem()).unwrap()).unwrap();
    Client::new(cloud.url("api"), Some(Arc::new(tls)), Some(cloud.token().to_owned())).unwrap()
}

/// Starts an agent on its files.
pub(crate) async fn start(dir: &Path, probe: &Probe) -> RunningAgent {
    let mut config = AgentConfig::load(dir).unwrap();
    config.factories = vec![probe.factory()];
    Agent::start(config).await.unwrap()
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
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Something that may have started and has no `Debug`.
pub(crate) struct Quiet<T>(pub(crate) Option<T>);

impl<T> std::fmt::Debug for Quiet<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "started" } else { "not started" })
    }
}

/// Bounds a future.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// A module that counts, waits when told, and lends its context to the test.
#[derive(Clone)]
pub(crate) struct Probe(Arc<Shared>);

struct Shared {
    kind: &'static str,
    name: String,
    acted: Mutex<Vec<String>>,
    asked: AtomicUsize,
    gate: Semaphore,
    context: watch::Sender<Option<ModuleContext>>,
}

impl Probe {
    pub(crate) fn new(kind: &'static str, name: &str) -> Self {
        Self(Arc::new(Shared {
            kind,
            name: name.to_owned(),
            acted: Mutex::default(),
            asked: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            context: watch::Sender::new(None),
        }))
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.0.kind
    }

    pub(crate) fn factory(&self) -> &'static dyn ModuleFactory {
        Box::leak(Box::new(Factory(self.clone())))
    }

    pub(crate) fn acted(&self) -> Vec<String> {
        self.0.acted.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn release(&self, n: usize) {
        self.0.gate.add_permits(n);
    }

    /// What the running module works with.
    pub(crate) async fn context(&self) -> ModuleContext {
        let mut context = self.0.context.subscribe();
        let found = soon("the module", context.wait_for(Option::is_some)).await.unwrap();
        found.clone().expect("waited for")
    }

    pub(crate) async fn lease(&self) -> LeaseGuard {
        soon("the lease", self.context().await.cloud.lease(SOURCE)).await.unwrap()
    }

    pub(crate) async fn upload(
        &self,
        fence: u64,
        mode: Mode,
        base_epoch: Option<u64>,
    ) -> Result<Box<dyn UploadSink>, LinkError> {
        let request =
            UploadRequest { source: SOURCE.into(), mode, base_epoch, fence, allow_mass_delete: false };
        self.context().await.cloud.begin_upload(request).await
    }
}

pub(crate) const SOURCE: &str = "user_visibility/default";

/// A user of that number; every second one is large, so that batches end by size too.
pub(crate) fn user(n: usize) -> Record {
    let user = UserRecord {
        login: format!("user{n}"),
        dn: format!("cn=user{n},dc=acme"),
        enabled: true,
        display_name: Some("x".repeat(if n.is_multiple_of(2) { 700 } else { 10 })),
        ..UserRecord::default()
    };
    let value = serde_json::value::to_raw_value(&user).unwrap();
    Record { op: Op::Upsert, kind: Kind::User, key: format!("{n:08}"), member: None, v: Some(value) }
}

struct Factory(Probe);

impl ModuleFactory for Factory {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn example(&self) -> Value {
        json!({})
    }

    fn build(&self, _: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError> {
        Ok(Arc::new(self.0.clone()))
    }
}

impl Module for Probe {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move {
            cx.status.set(ModuleState::Ok, self.0.name.clone());
            let stop = cx.stop.clone();
            self.0.context.send_replace(Some(cx));
            stop.cancelled().await;
            self.0.context.send_replace(None);
            Ok(())
        })
    }

    fn act(&self, _: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            self.0.acted.lock().unwrap().push(action.id.clone());
            if action.action == "wait" {
                self.0.gate.acquire().await.expect("open").forget();
            }
            Outcome::Success(json!({ "by": self.0.name, "params": action.params }))
        })
    }

    fn answer(&self, _: ModuleContext, _: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async move {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            Ok(json!({ "outcome": "ok" }))
        })
    }

    fn check(&self, _: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async { Vec::new() })
    }
}
