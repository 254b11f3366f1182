//! A cloud in this process and an agent's half of the channel, written for the tests alone: it shares the wire types
//! with the cloud and none of its decisions.

pub(crate) mod agent;
pub(crate) mod authority;
pub(crate) mod company;
pub(crate) mod http;
pub(crate) mod upload;
pub(crate) mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use causeway_mock_cloud::store::{ActionRow, NewAction, Tenant, TimelineRow};
use causeway_mock_cloud::{Cloud, Config, MockCloud, dispatch, enrollment};
use serde_json::Value;

/// Patience of every wait. Long enough for two cores under load, short enough to end a broken test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A cloud with one tenant.
pub(crate) struct World {
    pub(crate) mock: MockCloud,
    pub(crate) tenant: String,
}

impl World {
    /// Starts with short deadlines, so that tests of them are quick.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// As [`World::start`], with changed settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.channel.gone_after_ms = 200;
        config.channel.clone_probe_ms = 1_000;
        change(&mut config);
        let mock = MockCloud::start(config).await.expect("the cloud starts");
        let tenant = uuid::Uuid::new_v4().to_string();
        let row = Tenant { id: tenant.clone(), name: "Acme".to_owned(), created_ms: 0 };
        mock.cloud().store.create_tenant(row, "test".to_owned()).await.expect("a tenant is created");
        Self { mock, tenant }
    }

    /// Starts on a directory that may hold an earlier cloud's state, whose tenant it takes over.
    pub(crate) async fn on(
        dir: &std::path::Path,
        tenant: Option<&str>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        match tenant {
            None => {
                Self::with(|config| {
                    config.data_dir = Some(dir.to_owned());
                    change(config);
                })
                .await
            }
            Some(tenant) => {
                let mut config = Config { data_dir: Some(dir.to_owned()), ..Config::default() };
                config.channel.gone_after_ms = 200;
                change(&mut config);
                let mock = MockCloud::start(config).await.expect("the cloud starts again");
                Self { mock, tenant: tenant.to_owned() }
            }
        }
    }

    pub(crate) fn cloud(&self) -> &Arc<Cloud> {
        self.mock.cloud()
    }

    /// Address of the public port.
    pub(crate) fn address(&self) -> SocketAddr {
        let url = self.mock.urls()["api"].clone();
        url.trim_start_matches("https://").trim_end_matches('/').parse().expect("the URL is an address")
    }

    /// A fresh enrolment key, split into its two halves.
    pub(crate) async fn key(&self) -> (String, String) {
        let expires_ms = self.cloud().now_ms() + 3_600_000;
        let key = enrollment::create_key(self.cloud(), &self.tenant, expires_ms, "test").await.unwrap();
        let text = key.expose().to_owned();
        let mut parts = text.splitn(3, '-');
        assert_eq!(parts.next(), Some("cw1"));
        (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned())
    }

    /// Desired config of a module that agents shall run.
    pub(crate) async fn configure(&self, module: &str) -> u64 {
        let cloud = self.cloud();
        let settings = serde_json::json!({});
        let revision = cloud
            .store
            .put_config(&self.tenant, module, true, settings, "test", cloud.now_ms())
            .await
            .unwrap();
        dispatch::push_config(cloud, &self.tenant, module).await;
        revision
    }

    /// Orders an action.
    pub(crate) async fn order(&self, module: &str, action: &str, ttl_ms: u64) -> String {
        let new = NewAction {
            module: module.to_owned(),
            action: action.to_owned(),
            target: Value::Null,
            params: Value::Null,
            idempotency_key: None,
            ttl_ms,
            actor: "test".to_owned(),
            reason: String::new(),
        };
        dispatch::submit(self.cloud(), &self.tenant, new).await.unwrap()
    }

    /// An action once `done` says so.
    pub(crate) async fn action(
        &self,
        id: &str,
        what: &str,
        done: impl Fn(&ActionRow, &[TimelineRow]) -> bool,
    ) -> (ActionRow, Vec<TimelineRow>) {
        let watch = self.cloud().actions_changed.watch(id);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let changed = watch.next_change();
            let (row, timeline) =
                self.cloud().store.action(&self.tenant, id).await.unwrap().expect("the action exists");
            if done(&row, &timeline) {
                return (row, timeline);
            }
            // Not every step announces itself, so look again now and then.
            let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
            assert!(tokio::time::Instant::now() < deadline, "waited for {what}; last: {row:?} {timeline:?}");
        }
    }

    /// Waits for a journal entry.
    pub(crate) async fn journal(&self, operation: &str, outcome: &str) -> causeway_mock_kit::journal::Entry {
        self.mock
            .journal()
            .wait(0, PATIENCE, |entry| entry.operation == operation && entry.outcome == outcome)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Waits until `look` gives something.
pub(crate) async fn until<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
