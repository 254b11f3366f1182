//! What an agent says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The first message of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's version (semver).
    pub version: String,
    /// Operating system and architecture, for example `linux x86_64`.
    pub os: String,
    /// Host name, for people.
    pub host: String,
    /// Changes with every start of the process; two at once with one instance id are a clone.
    pub boot_id: String,
    /// Unix milliseconds of the process start.
    pub started_ms: i64,
    /// Module kinds this build knows.
    pub modules: Vec<String>,
    /// The revision of each module's config that runs now.
    pub revisions: BTreeMap<String, u64>,
    /// Requests it takes at once.
    pub capacity: u32,
    /// Reports waiting in the outbox.
    pub outbox: u64,
}

/// The cloud's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The cloud's Unix time in milliseconds, for display and diagnosis only.
    pub time_ms: i64,
    /// Grows with every session of this instance.
    pub session_epoch: u64,
    /// Seconds between two health reports.
    pub health_every_secs: u32,
    /// The tenant's name, for people.
    pub tenant: String,
}

/// How a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleState {
    /// No config yet, or switched off.
    Idle,
    /// Works.
    Ok,
    /// Works in part, or waits for something to come back.
    Degraded,
    /// Does not work; someone must act.
    Failed,
}

/// One module's part of a health report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleHealth {
    /// Stable kind.
    pub module: String,
    /// How it is.
    pub state: ModuleState,
    /// One sentence for people: what it does or what is wrong.
    pub detail: String,
    /// Revision that runs, 0 for none.
    pub revision: u64,
    /// Restarts since the process began.
    pub restarts: u32,
    /// Figures worth showing, by name.
    #[serde(default)]
    pub figures: BTreeMap<String, i64>,
}

/// A health report, sent periodically and on change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Per module.
    pub modules: Vec<ModuleHealth>,
    /// Reports waiting in the outbox.
    pub outbox: u64,
    /// Requests in work now.
    pub requests_in_work: u32,
    /// Resident memory in bytes, 0 where unknown.
    pub rss_bytes: u64,
}

/// How a collection goes while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The leased resource, for example `user_visibility/default`.
    pub resource: String,
    /// What is being done, one or two words.
    pub phase: String,
    /// Objects seen so far.
    pub done: u64,
    /// Objects expected, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Whether this run is over.
    pub finished: bool,
    /// Records that travelled so far, by `kind.op`.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
}

/// How bad a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something works only in part.
    Warning,
    /// A person must act.
    Critical,
}

/// Something a person should know; becomes an alert in the cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Bounded lower snake case word; one open alert per (agent, code, subject).
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a module, server or resource.
    pub subject: String,
    /// What happened.
    pub detail: String,
    /// What to do.
    pub remedy: String,
    /// True when the matter is over and its alert can close.
    #[serde(default)]
    pub resolved: bool,
}
