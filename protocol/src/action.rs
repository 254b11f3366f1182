//! Actions: work the cloud orders, an agent carries out, and one terminal status ends.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An order from the cloud to one agent.
///
/// The same `id` may arrive more than once (a cut link, another attempt); it names the same work, and an agent that
/// has finished it answers with the recorded outcome instead of doing it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Unique for ever within the tenant; chosen by the cloud.
    pub id: String,
    /// Stable kind of the module that must act, for example `user_visibility`.
    pub module: String,
    /// What to do: a lower snake case verb of the field, for example `sync_now`.
    pub action: String,
    /// What to do it to; its shape belongs to the module.
    #[serde(default)]
    pub target: Value,
    /// How to do it; its shape belongs to the module.
    #[serde(default)]
    pub params: Value,
    /// Milliseconds from receipt until the action is over, whatever happened.
    pub ttl_ms: u64,
    /// 1 for the first dispatch, counted up on each further one.
    pub attempt: u32,
    /// The fencing number under which the agent may act, where the action belongs to a leased resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

impl Action {
    /// Whether two deliveries of one id ask for the same thing. Attempt, fence and remaining time may differ.
    pub fn same_work(&self, other: &Self) -> bool {
        self.id == other.id
            && self.module == other.module
            && self.action == other.action
            && self.target == other.target
            && self.params == other.params
    }
}

/// Where an action stands. `Success` and `Failure` are terminal: nothing follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not finished: queued, running, or waiting for something outside (a device, an approval).
    Pending,
    /// Done, and read back from the system where the system allows it.
    Success,
    /// Not done, for the reason given.
    Failure,
}

impl Status {
    /// Whether nothing can follow.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending)
    }

    /// The word on the wire and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// What an agent reports about an action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The action's id.
    pub id: String,
    /// Where it stands.
    pub status: Status,
    /// What came of it; its shape belongs to the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    /// While pending: milliseconds until the agent looks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_check_ms: Option<u64>,
    /// The fence under which the work was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
}

impl Report {
    /// A success with its result.
    pub fn success(id: impl Into<String>, result: Value) -> Self {
        Self {
            id: id.into(),
            status: Status::Success,
            result: Some(result),
            error: None,
            next_check_ms: None,
            fence: None,
        }
    }

    /// A failure with its reason.
    pub fn failure(id: impl Into<String>, error: ErrorReport) -> Self {
        Self {
            id: id.into(),
            status: Status::Failure,
            result: None,
            error: Some(error),
            next_check_ms: None,
            fence: None,
        }
    }

    /// A sign of life of work that goes on.
    pub fn pending(id: impl Into<String>, result: Option<Value>, next_check_ms: Option<u64>) -> Self {
        Self { id: id.into(), status: Status::Pending, result, error: None, next_check_ms, fence: None }
    }
}

/// An error as the cloud, the portal and the administrator see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorReport {
    /// One of a bounded set of lower snake case words, stable for ever; see [`codes`] for those every module shares.
    pub code: String,
    /// What happened, naming the culprit.
    pub detail: String,
    /// What a person can do about it.
    pub remedy: String,
}

impl ErrorReport {
    /// Puts the three parts together.
    pub fn new(code: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: code.to_owned(), detail: detail.into(), remedy: remedy.into() }
    }
}

/// Error codes that do not belong to one module.
pub mod codes {
    /// No module of that kind runs on the agent.
    pub const UNKNOWN_MODULE: &str = "unknown_module";
    /// The module has no such action or request.
    pub const UNKNOWN_ACTION: &str = "unknown_action";
    /// Target or parameters do not fit the action.
    pub const BAD_PARAMETERS: &str = "bad_parameters";
    /// The deadline passed before the work was done.
    pub const DEADLINE_PASSED: &str = "deadline_passed";
    /// The agent that had the work is gone and repeating it is not safe.
    pub const UNKNOWN_OUTCOME: &str = "unknown_outcome";
    /// The id was used before, for other work.
    pub const DUPLICATE_ID: &str = "duplicate_id";
    /// The work was done under a lease that has since passed to another agent.
    pub const STALE_FENCE: &str = "stale_fence";
    /// The customer's local settings forbid it.
    pub const FORBIDDEN_LOCALLY: &str = "forbidden_locally";
    /// A guard stopped it; a person must confirm.
    pub const HELD_BY_GUARD: &str = "held_by_guard";
    /// No agent of the tenant is online.
    pub const NO_AGENT: &str = "no_agent";
    /// The agent has as much work as it takes.
    pub const OVERLOADED: &str = "overloaded";
    /// The module failed in a way nobody foresaw (a panic).
    pub const INTERNAL: &str = "internal";
}
