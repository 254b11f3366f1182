//! Records of mail systems: phones, their policies and the organisation's settings, as an upload carries them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whether a phone gets mail. The words of Exchange in snake case; what no version of ours knows is kept as it came.
pub mod access {
    /// Gets mail.
    pub const ALLOWED: &str = "allowed";
    /// Gets none.
    pub const BLOCKED: &str = "blocked";
    /// Waits for a person.
    pub const QUARANTINED: &str = "quarantined";
    /// Waits until the server knows what it is.
    pub const DISCOVERY: &str = "device_discovery";
    /// The server does not say.
    pub const UNKNOWN: &str = "unknown";
}

/// One phone in one mailbox, record kind `device`. The record's key is the server's stable id (on Exchange the `Guid`
/// of the mobile device). One phone is here once for each mailbox and each program on it that fetches mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceRecord {
    /// The kind of mail system, for example `exchange`.
    pub system: String,
    /// What the phone calls itself towards the server (ActiveSync DeviceId).
    pub device_id: String,
    /// The server's name for the partnership, for people.
    pub identity: String,
    /// Stable id of the mailbox.
    pub mailbox: String,
    /// The mailbox's primary address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Login name or UPN of its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The owner's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What the owner calls the phone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub friendly_name: Option<String>,
    /// Model as the phone says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Free text of the phone: `iPhone`, `Android`, `SAMSUNGSMS921B`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// Operating system and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// IMEI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imei: Option<String>,
    /// Telephone number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<String>,
    /// Mobile operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// ActiveSync user agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The program's protocol family: `EAS`, `REST`, `Outlook`, `MOWA`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_type: Option<String>,
    /// Protocol version the phone speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// One of [`access`], or another word of the server.
    pub access_state: String,
    /// Why, in the server's word: `global`, `individual`, `device_rule`, `policy` ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_reason: Option<String>,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_rule: Option<String>,
    /// First contact, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_sync: Option<String>,
    /// Last synchronisation that succeeded, RFC 3339 in UTC. Absent does not mean stale: some programs report none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sync: Option<String>,
    /// Last attempt, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<String>,
    /// Name of the policy in force on the phone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How far the phone has applied it: `applied_in_full`, `partially_applied`, `not_applied` ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_status: Option<String>,
    /// Where a wipe stands: `device_ok`, `device_wipe_pending`, `device_wipe_succeeded`, `account_only_device_wipe_pending` ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wipe_status: Option<String>,
    /// When the phone confirmed a wipe, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wipe_acknowledged: Option<String>,
    /// Folders it keeps in step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folders: Option<u32>,
}

/// A policy for phones, record kind `device_policy`. The record's key is the server's stable id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DevicePolicyRecord {
    /// The kind of mail system.
    pub system: String,
    /// Name.
    pub name: String,
    /// Whether mailboxes without a policy of their own get this one.
    pub is_default: bool,
    /// Everything it says, by the server's names.
    pub settings: BTreeMap<String, String>,
}

/// The mail system itself, record kind `mail_organization`; one for each source. The record's key is its stable id or
/// its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailOrganizationRecord {
    /// The kind of mail system.
    pub system: String,
    /// Name.
    pub name: String,
    /// Product version, for example `2016` or `online`.
    pub version: String,
    /// What happens to a phone nobody has decided about, one of [`access`]; absent where the version has no such setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_access: Option<String>,
    /// Further settings by the server's names.
    pub settings: BTreeMap<String, String>,
}

/// Which phone an action is about: the target of `block_device`, `approve_device`, `remove_device`, `wipe_device`,
/// `assign_policy` and `sync_device`. An agent acts only when everything given here is true of one and the same phone.
///
/// Parameters: `wipe_device` takes `scope` (a [`WipeScope`]), `assign_policy` takes `policy` (a policy's name), and a
/// person confirms what the agent's guard has held with `confirm: true`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceTarget {
    /// The key of its [`DeviceRecord`].
    pub key: String,
    /// Its [`DeviceRecord::device_id`], as a cross-check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Its [`DeviceRecord::mailbox`], as a cross-check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<String>,
}

/// How much a wipe takes; parameter `scope` of `wipe_device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WipeScope {
    /// The whole phone.
    Full,
    /// Only the account with its mail: what is least missed if the wrong phone is hit.
    #[default]
    AccountOnly,
    /// Takes back a wipe the phone has not been told yet.
    Cancel,
}
