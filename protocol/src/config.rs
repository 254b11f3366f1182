//! Desired config: what the cloud wants a module to do, numbered so that older news never wins.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One module's desired config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredConfig {
    /// Stable kind of the module.
    pub module: String,
    /// Counts up with every change in this tenant and module. An agent ignores what is not newer than what it runs.
    pub revision: u64,
    /// Whether the module runs at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The module's settings; the agent's module defines and validates them. Never holds a credential.
    #[serde(default)]
    pub settings: Value,
}

fn yes() -> bool {
    true
}

/// What an agent says after it tried a revision. A failing revision leaves the previous one running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppliedConfig {
    /// Stable kind of the module.
    pub module: String,
    /// The revision that was tried.
    pub revision: u64,
    /// The revision that runs now, 0 for none.
    pub running: u64,
    /// Why the tried one does not run, with the path of the offending key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::action::ErrorReport>,
}
