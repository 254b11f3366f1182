//! Whether a phone gets mail: the order of decisions of Exchange 2010 and later.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::device::{Device, PolicyApplication};
use super::mailbox::CasSettings;
use super::policy::Policy;
use super::rules::{AccessRule, OrganisationSettings};

/// `DeviceAccessState`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessState {
    Unknown,
    #[default]
    Allowed,
    Blocked,
    Quarantined,
    DeviceDiscovery,
}

impl AccessState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Allowed => "Allowed",
            Self::Blocked => "Blocked",
            Self::Quarantined => "Quarantined",
            Self::DeviceDiscovery => "DeviceDiscovery",
        }
    }

    pub fn number(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::Allowed => 1,
            Self::Blocked => 2,
            Self::Quarantined => 3,
            Self::DeviceDiscovery => 4,
        }
    }
}

/// `DeviceAccessStateReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessReason {
    Unknown,
    Global,
    Individual,
    DeviceRule,
    Upgrade,
    Policy,
    UserAgentsChanges,
    RecentCommands,
    Watsons,
    OutOfBudgets,
    SyncCommands,
    EnableNotificationEmail,
}

impl AccessReason {
    const NAMES: [(Self, &'static str); 12] = [
        (Self::Unknown, "Unknown"),
        (Self::Global, "Global"),
        (Self::Individual, "Individual"),
        (Self::DeviceRule, "DeviceRule"),
        (Self::Upgrade, "Upgrade"),
        (Self::Policy, "Policy"),
        (Self::UserAgentsChanges, "UserAgentsChanges"),
        (Self::RecentCommands, "RecentCommands"),
        (Self::Watsons, "Watsons"),
        (Self::OutOfBudgets, "OutOfBudgets"),
        (Self::SyncCommands, "SyncCommands"),
        (Self::EnableNotificationEmail, "EnableNotificationEmail"),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    pub fn number(self) -> i32 {
        self as i32
    }

    /// From its name, whatever the case.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(reason, _)| *reason)
    }
}

/// The outcome, and what decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub state: AccessState,
    pub reason: AccessReason,
    /// Name of the device access rule that decided.
    pub rule: Option<Arc<str>>,
}

impl Decision {
    fn of(state: AccessState, reason: AccessReason) -> Self {
        Self { state, reason, rule: None }
    }
}

/// Everything the decision depends on, as one domain controller knows it.
pub(super) struct Case<'a> {
    pub(super) device: &'a Device,
    pub(super) application: PolicyApplication,
    pub(super) mailbox: &'a CasSettings,
    pub(super) policy: Option<&'a Policy>,
    pub(super) rules: &'a [&'a AccessRule],
    pub(super) settings: &'a OrganisationSettings,
    /// Exchange 2007 has neither rules nor a default level.
    pub(super) quarantine_exists: bool,
    pub(super) discovery_ms: i64,
    pub(super) now_ms: i64,
}

/// Decides in the documented order: policy, personal block, personal allow, rules that block, quarantine and allow, the
/// organisation's default. A block by the server itself comes before the personal lists (unverified), the wait for the
/// phone's details before the rules.
pub(super) fn decide(case: &Case<'_>) -> Decision {
    let Case { device, mailbox, .. } = case;
    if let Some(policy) = case.policy
        && case.application == PolicyApplication::NotApplied
        && !policy.is_on("AllowNonProvisionableDevices")
    {
        return Decision::of(AccessState::Blocked, AccessReason::Policy);
    }
    if let Some(block) = &device.autoblock
        && block.until_ms > case.now_ms
    {
        return Decision::of(AccessState::Blocked, block.reason);
    }
    if listed(&mailbox.blocked, &device.id) {
        return Decision::of(AccessState::Blocked, AccessReason::Individual);
    }
    if listed(&mailbox.allowed, &device.id) {
        return Decision::of(AccessState::Allowed, AccessReason::Individual);
    }
    if !case.quarantine_exists {
        // Exchange 2007: who has a list of allowed phones allows no other.
        let state = if mailbox.allowed.is_empty() { AccessState::Allowed } else { AccessState::Blocked };
        return Decision::of(state, AccessReason::Global);
    }
    if device.information.is_empty() && case.now_ms < device.first_sync_ms.saturating_add(case.discovery_ms) {
        return Decision::of(AccessState::DeviceDiscovery, AccessReason::Unknown);
    }
    for state in [AccessState::Blocked, AccessState::Quarantined, AccessState::Allowed] {
        if let Some(rule) = case.rules.iter().find(|rule| rule.level.state() == state && rule.matches(device))
        {
            return Decision { state, reason: AccessReason::DeviceRule, rule: Some(Arc::clone(&rule.name)) };
        }
    }
    Decision::of(case.settings.default_access.state(), AccessReason::Global)
}

fn listed(ids: &[Box<str>], id: &str) -> bool {
    ids.iter().any(|listed| listed.eq_ignore_ascii_case(id))
}
