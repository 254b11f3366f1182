//! What a scenario says about mail: the organisation, phones that speak to it, and what is done to them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::step::Count;

/// The mail system of a scenario. The people are those of the directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExchangeSpec {
    /// Version, as `mock-exchange --personality`.
    pub personality: String,
    /// How agents reach it: `powershell` (https), `powershell_http` (sealed messages over http) or `rest` (Exchange Online).
    pub transport: String,
    /// Ways to sign in, as agents' settings name them.
    pub auth: Vec<String>,
    /// Addresses of the front end, in the order agents try them; each can be cut by its name.
    pub servers: Vec<String>,
    /// Settings of mock-exchange's own file, merged over its defaults.
    pub settings: toml::Table,
    /// Further settings in the agents' own files (`[exchange.default]`).
    pub agent: serde_json::Map<String, Value>,
}

impl Default for ExchangeSpec {
    fn default() -> Self {
        Self {
            personality: "exchange2019".into(),
            transport: "powershell".into(),
            auth: vec!["negotiate".into(), "basic".into()],
            servers: vec!["mail1".into()],
            settings: toml::Table::new(),
            agent: serde_json::Map::new(),
        }
    }
}

/// Something a simulated phone does, and how it fares.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhoneStep {
    /// What the story calls it.
    pub name: String,
    /// What it does first.
    #[serde(default)]
    pub act: PhoneAct,
    /// How it must fare then: `synced`, `held`, `blocked`, `wiped`, `account_wiped`, `sign_in_refused` ...; it asks the
    /// server again until it does.
    #[serde(default)]
    pub standing: Option<String>,
    /// JSON pointers into what the phone knows and the values they must have.
    #[serde(default)]
    pub fields: BTreeMap<String, Value>,
    /// A word it must have in the log of what it experienced, so often or more.
    #[serde(default)]
    pub experienced: BTreeMap<String, usize>,
    /// Messages it must have, at least.
    #[serde(default)]
    pub messages: Option<u64>,
    /// How long that may take.
    #[serde(default = "half_a_minute")]
    pub within_secs: u64,
}

/// What a phone can do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhoneAct {
    /// Its owner sets it up: what the mock's admin API takes to make a phone, at least `user`.
    SetUp(Value),
    /// Fetch what is new.
    #[default]
    Sync,
    /// Switch it off.
    Off,
    /// Switch it on.
    On,
    /// Its owner sets the account up again, as after a wipe.
    SetUpAgain,
    /// Its owner types another password.
    Password(String),
    /// Nothing; only look.
    Look,
}

/// An order about a phone, given in the cloud.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceStep {
    /// The phone, as the story calls it; `*` for every phone the cloud has.
    pub phone: String,
    /// The verb: `approve_device`, `block_device`, `wipe_device` ...
    pub action: String,
    /// Its parameters.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// Who gives it.
    #[serde(default)]
    pub through: Through,
    /// The status to wait for, `pending` to go on at once.
    #[serde(default = "success")]
    pub status: String,
    /// The error code of a failure.
    #[serde(default)]
    pub code: Option<String>,
    /// JSON pointers into the result and the values they must have; for `pending` it is waited for.
    #[serde(default)]
    pub result: BTreeMap<String, Value>,
    /// How long it may take.
    #[serde(default = "half_a_minute")]
    pub within_secs: u64,
    /// Remember the id under this name, for `expect = { actions = NAME }`.
    #[serde(default)]
    pub remember: Option<String>,
}

/// Who gives an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Through {
    /// A program, through the API.
    #[default]
    Api,
    /// A person, with the form on the phone's page.
    Portal,
}

/// A phone as the cloud must show it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceExpectation {
    /// The phone, as the story calls it.
    pub phone: String,
    /// JSON pointers and values.
    #[serde(default)]
    pub fields: BTreeMap<String, Value>,
}

/// How many phones the cloud must have, by access state; `all` for all states together.
pub type DeviceCounts = BTreeMap<String, Count>;

/// A phone that device management knows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolStep {
    /// The phone, as the story calls it: its user and ActiveSync id are those that are enrolled.
    pub phone: String,
    /// Whether it is compliant.
    #[serde(default = "yes")]
    pub compliant: bool,
}

/// A call of the mail system's admin API, for what its administrators or its world do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailStep {
    /// Method.
    #[serde(default = "post")]
    pub method: String,
    /// Path, for example `/world/replicate`.
    pub path: String,
    /// Body.
    #[serde(default)]
    pub body: Value,
}

/// Another password of an account, set by the company's administrators.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailPasswordStep {
    /// Login.
    pub user: String,
    /// The new password.
    pub password: String,
}

/// A secret typed into an agent's own configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretStep {
    /// Which agent.
    pub agent: String,
    /// What it is for: `exchange` or `directory`.
    pub table: String,
    /// The secret; `${password:LOGIN}` may be used.
    pub value: String,
}

fn yes() -> bool {
    true
}
fn success() -> String {
    "success".into()
}
fn post() -> String {
    "POST".into()
}
fn half_a_minute() -> u64 {
    30
}
