//! What a scenario says about certificates: the authority, the devices, and what is done to both.

use serde::Deserialize;
use serde_json::Value;

use super::step::Count;
use crate::device::WhenSilent;

/// The certificate authority of a scenario. The people are those of the directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaSpec {
    /// Product, as `mock-ca --personality`.
    pub personality: String,
    /// How agents reach it: a kind of `[ca.NAME]` in their files (`scep`, `certsrv`, `wstep`, `mpki`, `entrust_gateway` ...).
    pub kind: String,
    /// How requests prove that they may be made: `none`, `static` or `ndes`.
    pub challenge: String,
    /// Addresses of the front end, in the order agents try them; each can be cut by its name.
    pub servers: Vec<String>,
    /// Settings of mock-ca's own file, merged over its defaults.
    pub settings: toml::Table,
    /// Further settings in the agents' own files (`[ca.main]`).
    pub agent: serde_json::Map<String, Value>,
    /// Fields of the profile `identity`, over those of a working one.
    pub profile: serde_json::Map<String, Value>,
}

impl Default for CaSpec {
    fn default() -> Self {
        Self {
            personality: "rfc8894".into(),
            kind: "scep".into(),
            challenge: "static".into(),
            servers: vec!["ca1".into()],
            settings: toml::Table::new(),
            agent: serde_json::Map::new(),
            profile: serde_json::Map::new(),
        }
    }
}

/// Something a managed device does about its certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityStep {
    /// What the story calls the device.
    pub name: String,
    /// What it does.
    pub act: IdentityAct,
    /// How far its request must be then: `installed`, `failed`, `awaiting_approval`, `refused` ... By default what the act is
    /// about.
    #[serde(default)]
    pub stage: Option<String>,
    /// The code of a failure.
    #[serde(default)]
    pub code: Option<String>,
    /// Part of what a failure says.
    #[serde(default)]
    pub detail: Option<String>,
    /// How long that may take.
    #[serde(default = "half_a_minute")]
    pub within_secs: u64,
}

/// What a managed device can do, and what can be done to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityAct {
    /// Its owner enrols it with the company's password: a login of the company.
    Enrol(String),
    /// The phone of a story about mail, by its name, is enrolled by an administrator.
    EnrolPhone(String),
    /// Gets a certificate and installs it.
    Get,
    /// Begins to get one and goes on.
    Begin,
    /// Waits for what was begun and installs it.
    Finish,
    /// Waits until the cloud wants a new certificate in the place of the one it has, and gets that.
    Renew,
    /// Asks for a certificate under names that are not its own.
    Forge(ForgeSpec),
    /// Shows its certificate to a server that lets in whoever has one of the company's, and asks CRL and OCSP: `true` when it
    /// must be let in, or a table that says more.
    Show(ShowSpec),
    /// Lets OpenSSL verify its certificate, where there is an OpenSSL.
    OpensslVerify,
    /// An administrator says that it was wiped.
    Wipe,
    /// An administrator ends its management.
    Unenrol,
    /// An administrator revokes what it has.
    Revoke,
    /// An administrator presses the button that renews what it has.
    RenewButton,
}

/// How a server judges a device.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(from = "ShowForm")]
pub struct ShowSpec {
    /// Whether the device must be let in.
    pub welcome: bool,
    /// What the server does when the OCSP responder is silent.
    pub when_silent: WhenSilent,
}

/// The two ways to write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum ShowForm {
    Welcome(bool),
    Table(ShowTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowTable {
    welcome: bool,
    #[serde(default)]
    when_silent: WhenSilent,
}

impl From<ShowForm> for ShowSpec {
    fn from(form: ShowForm) -> Self {
        match form {
            ShowForm::Welcome(welcome) => Self { welcome, when_silent: WhenSilent::default() },
            ShowForm::Table(ShowTable { welcome, when_silent }) => Self { welcome, when_silent },
        }
    }
}

/// What a forged signing request says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForgeSpec {
    /// Another subject.
    pub subject: Option<String>,
    /// Further alternative names.
    pub alternative_names: Vec<String>,
    /// Another challenge.
    pub challenge: Option<String>,
}

/// A call of the authority's admin API, for what its administrators or its world do. `${request:N}` in the path is the id of
/// the n-th request that waits, counted from 1; `${certificate:NAME}` is the serial number of what a device holds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaStep {
    /// Method.
    #[serde(default = "post")]
    pub method: String,
    /// Path, for example `/world/rollover`.
    pub path: String,
    /// Body.
    #[serde(default)]
    pub body: Value,
}

/// What the authority's books must say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerExpectation {
    /// Part of the subject; every certificate by default.
    #[serde(default)]
    pub name: String,
    /// Only those that this generation of the authority signed; the first one is 0.
    #[serde(default)]
    pub generation: Option<u32>,
    /// How many.
    pub issued: Count,
    /// How many of them are revoked.
    #[serde(default)]
    pub revoked: Option<Count>,
}

/// Years in the life of many devices.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct YearsStep {
    /// How many devices; each is enrolled and gets its certificate first.
    pub devices: usize,
    /// Simulated days.
    pub days: u64,
    /// Days that pass at once.
    #[serde(default = "one")]
    pub step_days: u64,
    /// The authority is away from this day on ...
    #[serde(default)]
    pub outage_from: Option<u64>,
    /// ... for so many days.
    #[serde(default)]
    pub outage_days: u64,
    /// Every n-th device is switched off for the second half; 0 for none.
    #[serde(default)]
    pub off_every: usize,
}

fn post() -> String {
    "POST".into()
}
fn one() -> u64 {
    1
}
fn half_a_minute() -> u64 {
    30
}
