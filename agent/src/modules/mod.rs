//! What a module is. One folder per module, one line in [`FACTORIES`].
//!
//! A module gets everything through [`ModuleContext`] and [`ModuleSettings`]; it reads no global, opens no socket, and
//! holds no credential longer than it needs it. `act`, `answer` and `check` may be called while `run` runs; a module
//! shares state between them in its own fields.

pub mod certificates;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod error_codes;
pub mod exchange;
mod output;
#[cfg(test)]
pub(crate) mod testing;
pub mod user_auth;
pub mod user_visibility;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::action::{Action, ErrorReport};
use causeway_protocol::channel::payload::Request;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use crate::checks::{Check, CheckResult, Verdict};
use crate::clock::Clock;
use crate::config::Limits;
use crate::dial::Dial;
use crate::directory::{Directory, Net, doctor};
use crate::link::CloudLink;
use crate::random::RandomSource;
use crate::secrets::SecretStore;
use crate::status::StatusCell;
use crate::storage::Storage;
use crate::vault::Vault;
use crate::wake::Wake;

/// Every module this build knows.
pub static FACTORIES: &[&dyn ModuleFactory] =
    &[&user_auth::Factory, &user_visibility::Factory, &exchange::Factory, &certificates::Factory];

/// The factory of a kind.
pub fn factory(kind: &str) -> Option<&'static dyn ModuleFactory> {
    FACTORIES.iter().copied().find(|factory| factory.kind() == kind)
}

/// One integration at work.
pub trait Module: Send + Sync + 'static {
    /// Works until `cx.stop` fires, then returns within [`crate::limits::DRAIN_WITHIN`]. A module without work of its
    /// own just waits for the stop. An error or panic restarts this module only.
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>>;

    /// Carries out an action. May be called again with the same id (after a restart, or after `Pending`), and must
    /// then lead to the same end. The caller enforces the deadline by dropping the future.
    fn act(&self, cx: ModuleContext, action: Action) -> BoxFuture<'_, Outcome>;

    /// Whether it commits what it needs to find the action's work again before anything of it leaves the agent. Then the
    /// work begins while the disk still takes the action itself, and success is told while the disk takes that: a crash
    /// in between leads to the same end as any other.
    fn keeps(&self, _action: &Action) -> bool {
        false
    }

    /// Answers a request. Never stored, never repeated; the caller enforces the deadline by dropping the future.
    fn answer(&self, cx: ModuleContext, request: Request) -> BoxFuture<'_, Result<Value, ErrorReport>>;

    /// The directories it talks to. The doctor tries each once, before [`Module::check`], whatever number of modules
    /// shares it: every further try with a wrong password brings the service account closer to its lockout.
    fn directories(&self) -> Vec<Arc<Directory>> {
        Vec::new()
    }

    /// The doctor: what the module needs besides its directories.
    fn check(&self, cx: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>>;
}

/// Makes modules of one kind.
pub trait ModuleFactory: Sync {
    /// Stable name, never changed.
    fn kind(&self) -> &'static str;

    /// Documented example of the desired config's settings, as the conformance suite builds from it.
    fn example(&self) -> Value;

    /// The settings in force when nobody says anything, by the keys of the desired config.
    fn defaults(&self) -> Value {
        Value::Null
    }

    /// Documented example of the local part, `[modules.<kind>]` and the tables it names: `[directory.*]`,
    /// `[exchange.*]`, `[ca.*]`.
    fn example_local(&self) -> LocalExample {
        LocalExample::default()
    }

    /// Checks settings and makes the module. Opens nothing.
    ///
    /// # Errors
    /// Names the offending key and says what to do.
    fn build(&self, settings: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError>;
}

/// The local half of a factory's example.
#[derive(Clone, Debug, Default)]
pub struct LocalExample {
    /// `[modules.<kind>]`
    pub module: Value,
    /// `[directory.<name>]`
    pub directories: BTreeMap<String, Value>,
    /// `[exchange.<name>]`
    pub exchanges: BTreeMap<String, Value>,
    /// `[ca.<name>]`
    pub authorities: BTreeMap<String, Value>,
    /// Names of secrets that must exist.
    pub secrets: Vec<String>,
}

/// Everything a module is told to do.
#[derive(Clone, Default)]
pub struct ModuleSettings {
    /// From the cloud. Never holds a credential; holds addresses only where `limits.allow_cloud_endpoints` says so.
    pub desired: Value,
    /// `[modules.<kind>]` of agent.toml; `Null` when absent. Wins over `desired`.
    pub local: Value,
    /// `[directory.<name>]` of agent.toml, shared by modules that name them.
    pub directories: BTreeMap<String, Value>,
    /// `[exchange.<name>]` of agent.toml.
    pub exchanges: BTreeMap<String, Value>,
    /// `[ca.<name>]` of agent.toml.
    pub authorities: BTreeMap<String, Value>,
    /// What the customer forbids.
    pub limits: Limits,
    /// Local secrets by name.
    pub secrets: SecretStore,
    /// Encrypts what a module must store and nobody else may read.
    pub vault: Vault,
}

impl ModuleSettings {
    /// Reads one document into a type; errors name the key below `at`. `Null` reads as an empty table.
    ///
    /// # Errors
    /// When a key is unknown, missing or of the wrong type.
    pub fn read<T: DeserializeOwned>(at: &str, value: &Value) -> Result<T, ConfigError> {
        let empty = Value::Object(serde_json::Map::new());
        let value = if value.is_null() { &empty } else { value };
        serde_path_to_error::deserialize(value).map_err(|error| {
            let inner = error.path().to_string();
            let path = if inner == "." { at.to_owned() } else { format!("{at}.{inner}") };
            let said = error.inner().to_string();
            let advice = match crate::config::nearest(&said) {
                Some(known) => format!("write {known}, or remove the key"),
                None => "correct or remove the key".to_owned(),
            };
            ConfigError::new(path, crate::config::without_value(&said), advice)
        })
    }
}

/// Settings that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: {problem}")]
pub struct ConfigError {
    /// Path of the key, for example `modules.user_auth.directory`.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub advice: String,
}

impl ConfigError {
    /// Puts the three parts together.
    pub fn new(path: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into(), advice: advice.into() }
    }
}

/// What a module works with. Cheap to clone.
#[derive(Clone)]
pub struct ModuleContext {
    /// Opens streams.
    pub dial: Arc<dyn Dial>,
    /// The module's own part of the agent's storage.
    pub storage: Arc<dyn Storage>,
    /// The cloud.
    pub cloud: Arc<dyn CloudLink>,
    /// Time.
    pub clock: Clock,
    /// Fires when the module must end.
    pub stop: CancellationToken,
    /// How the module is, for the health report.
    pub status: StatusCell,
    /// Chance, for jitter.
    pub random: RandomSource,
    /// Tries everything of this module that waits again, at once.
    pub wake: Wake,
}

/// How an action went.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done.
    Success(Value),
    /// Not done.
    Failure(ErrorReport),
    /// Goes on outside; `act` is called again after `next_check`, until the deadline.
    Pending {
        /// What is known so far.
        result: Value,
        /// When to look again.
        next_check: Duration,
    },
}

/// Whether trying again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Yes, after a while.
    After,
    /// No.
    Permanent,
    /// Only after a person has changed something.
    NeedsAdmin,
}

/// Why a module stopped by itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .report.detail)]
pub struct ModuleError {
    /// Code, detail and remedy, as the cloud sees them.
    pub report: ErrorReport,
    /// Whether the supervisor should start it again.
    pub retry: Retry,
}

/// Everything a module stands on, tried once: its directories, then what it does with them.
pub async fn check_with_directories(module: &dyn Module, cx: ModuleContext) -> Vec<CheckResult> {
    let (mut results, mut usable) = (Vec::new(), true);
    for directory in module.directories() {
        let found = doctor::run(&directory, &Net::from(&cx)).await;
        usable &= doctor::usable(&found);
        results.extend(found);
    }
    if usable {
        results.extend(module.check(cx).await);
    }
    results
}

/// The desired settings with those of agent.toml over them: the same keys, and the local ones win.
pub(crate) fn merged(settings: &ModuleSettings) -> Value {
    match (&settings.desired, &settings.local) {
        (Value::Object(desired), Value::Object(local)) => {
            let mut merged = desired.clone();
            merged.extend(local.iter().map(|(key, value)| (key.clone(), value.clone())));
            Value::Object(merged)
        }
        (desired, Value::Null) => desired.clone(),
        (_, local) => local.clone(),
    }
}

/// The local half of an example for modules that use a directory.
pub(crate) fn example_directory() -> LocalExample {
    let directory = serde_json::json!({
        "servers": ["ldaps://dc1.acme.example", "ldaps://dc2.acme.example"],
        "bind_dn": "svc-causeway@acme.example",
    });
    LocalExample {
        module: Value::Null,
        directories: BTreeMap::from([("default".to_owned(), directory)]),
        secrets: vec!["directory.default".to_owned()],
        ..LocalExample::default()
    }
}
