//! The agent's two modules, set upon an arm, with a cloud in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use causeway_agent::clock::Clock;
use causeway_agent::dial::Dialer;
use causeway_agent::dial::proxy::Ways;
use causeway_agent::dial::resolve::Names;
use causeway_agent::modules::user_auth::UserAuth;
use causeway_agent::modules::user_visibility::UserVisibility;
use causeway_agent::modules::{Module, ModuleContext, ModuleSettings, Outcome};
use causeway_agent::random::RandomSource;
use causeway_agent::secrets::SecretStore;
use causeway_agent::status::StatusCell;
use causeway_agent::storage::memory::MemoryStorage;
use causeway_agent::wake::Wake;
use causeway_protocol::Secret;
use causeway_protocol::action::{Action, ErrorReport};
use causeway_protocol::auth::{AuthReply, AuthRequest};
use causeway_tests::memory_cloud::MemoryCloud;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::arm::Arm;

/// A run of a collection on a shared server under load.
const SYNC_WITHIN: Duration = Duration::from_secs(60);

/// What the cloud gives a password check.
const AUTH_TTL: Duration = Duration::from_secs(4);

/// `[directory.default]` for an arm: LDAPS, the test's subtree.
pub(crate) fn directory(arm: &Arm) -> Value {
    json!({ "servers": [arm.ldaps_url], "bind_dn": arm.login, "ca_file": arm.ca_file })
}

/// Settings of a module on an arm.
pub(crate) fn settings(arm: &Arm, desired: Value, directory: Value) -> ModuleSettings {
    let password = Secret::new(arm.password.clone());
    ModuleSettings {
        desired,
        directories: BTreeMap::from([("default".to_owned(), directory)]),
        secrets: SecretStore::new([("directory.default".to_owned(), password)]),
        ..ModuleSettings::default()
    }
}

/// What a module works with: real sockets, memory for everything else.
pub(crate) fn context(cloud: &MemoryCloud) -> Result<ModuleContext> {
    let names = Names::new(&[], RandomSource::system()).context("read the system's resolver settings")?;
    Ok(ModuleContext {
        dial: Arc::new(Dialer::new(names, Ways::none())),
        storage: Arc::new(MemoryStorage::new()),
        cloud: Arc::new(cloud.clone()),
        clock: Clock::system(),
        stop: CancellationToken::new(),
        status: StatusCell::default(),
        random: RandomSource::seeded(7),
        wake: Wake::default(),
    })
}

/// user_auth on an arm, looking people up in the test's subtree only.
pub(crate) struct Checker {
    pub module: UserAuth,
    pub cx: ModuleContext,
}

impl Checker {
    pub(crate) fn new(arm: &Arm) -> Result<Self> {
        let mut directory = directory(arm);
        directory["base_dn"] = json!(arm.root);
        Self::with(arm, json!({}), directory)
    }

    pub(crate) fn with(arm: &Arm, desired: Value, directory: Value) -> Result<Self> {
        let module = UserAuth::new(&settings(arm, desired, directory))?;
        Ok(Self { module, cx: context(&MemoryCloud::default())? })
    }

    pub(crate) async fn check(&self, username: &str, password: &str) -> AuthReply {
        let request =
            AuthRequest { username: username.to_owned(), password: Secret::new(password.to_owned()) };
        self.module.authenticate(&self.cx, request, AUTH_TTL).await
    }
}

/// user_visibility at work on an arm, over the test's subtree. Ends when dropped.
pub(crate) struct Collector {
    pub cloud: MemoryCloud,
    module: Arc<UserVisibility>,
    cx: ModuleContext,
}

impl Collector {
    /// Starts it; `more` goes over the desired settings.
    pub(crate) fn start(arm: &Arm, more: Value) -> Result<Self> {
        Self::start_on(arm, more, directory(arm))
    }

    pub(crate) fn start_on(arm: &Arm, more: Value, directory: Value) -> Result<Self> {
        // Nothing happens by itself within a test; the guard has tests of its own.
        let mut desired = json!({
            "bases": [arm.root],
            "delta_every_secs": 86_400,
            "guard": { "deletions_max": 1_000, "percent_max": 100 },
        });
        if let (Some(all), Value::Object(more)) = (desired.as_object_mut(), more) {
            all.extend(more);
        }
        let cloud = MemoryCloud::default();
        let cx = context(&cloud)?;
        let module = Arc::new(UserVisibility::new(&settings(arm, desired, directory))?);
        tokio::spawn(module.clone().run(cx.clone()));
        Ok(Self { cloud, module, cx })
    }

    /// Orders `sync_now` and gives what it says.
    pub(crate) async fn sync(&self) -> Result<Value> {
        self.act("sync_now", json!({})).await?.map_err(|error| anyhow::anyhow!("{error:?}"))
    }

    /// Orders an action; the inner error is the module's own.
    pub(crate) async fn act(&self, name: &str, params: Value) -> Result<Result<Value, ErrorReport>> {
        let action = Action {
            id: format!("{name}-1"),
            module: "user_visibility".to_owned(),
            action: name.to_owned(),
            target: Value::Null,
            params,
            ttl_ms: 60_000,
            attempt: 1,
            fence: None,
        };
        let acted = tokio::time::timeout(SYNC_WITHIN, self.module.act(self.cx.clone(), action)).await;
        match acted.with_context(|| format!("{name} is not over after {SYNC_WITHIN:?}"))? {
            Outcome::Success(result) => Ok(Ok(result)),
            Outcome::Failure(error) => Ok(Err(error)),
            Outcome::Pending { result, .. } => bail!("{name} is pending: {result}"),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.cx.stop.cancel();
    }
}
