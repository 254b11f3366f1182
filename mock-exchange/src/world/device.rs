//! Partnerships: one phone in one mailbox.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::AccessReason;
use super::mailbox::MailboxId;
use super::wipe::{Wipe, WipeKind};

/// Names a partnership as long as the world lives; never used again after a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartnershipId(pub(super) u32);

/// What the directory knows of a phone.
#[derive(Clone, Debug)]
pub struct Device {
    pub guid: [u8; 16],
    pub mailbox: MailboxId,
    /// ActiveSync DeviceId as the phone writes it.
    pub id: Box<str>,
    /// ActiveSync DeviceType, free text of the phone.
    pub device_type: Arc<str>,
    pub user_agent: Arc<str>,
    pub client: ClientType,
    /// ActiveSync protocol version, for example 161.
    pub version: u16,
    pub information: DeviceInformation,
    pub first_sync_ms: i64,
    pub changed_ms: i64,
    /// Blocked by the server itself because of how the phone behaves, until then.
    pub autoblock: Option<Autoblock>,
}

/// What a phone says of itself in Provision or Settings (MS-ASCMD 2.2.3.50).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceInformation {
    pub model: Option<Arc<str>>,
    pub imei: Option<Box<str>>,
    pub friendly_name: Option<Arc<str>>,
    pub os: Option<Arc<str>>,
    pub os_language: Option<Arc<str>>,
    pub phone_number: Option<Box<str>>,
    pub operator: Option<Arc<str>>,
    pub user_agent: Option<Arc<str>>,
}

impl DeviceInformation {
    /// Whether the phone has said anything yet.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A block the server put on a phone by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autoblock {
    pub reason: AccessReason,
    pub until_ms: i64,
}

/// The program that fetches mail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum ClientType {
    /// ActiveSync.
    #[default]
    #[serde(rename = "EAS")]
    Eas,
    #[serde(rename = "MOWA")]
    Mowa,
    #[serde(rename = "REST")]
    Rest,
    Outlook,
}

impl ClientType {
    pub fn name(self) -> &'static str {
        match self {
            Self::Eas => "EAS",
            Self::Mowa => "MOWA",
            Self::Rest => "REST",
            Self::Outlook => "Outlook",
        }
    }

    /// The number of the enum on the wire (unverified beyond EAS and MOWA).
    pub fn number(self) -> i32 {
        match self {
            Self::Eas => 0,
            Self::Mowa => 1,
            Self::Rest => 2,
            Self::Outlook => 3,
        }
    }
}

/// What the mailbox knows of a phone's visits; not in the directory, so the same whichever controller is asked.
#[derive(Clone, Debug, Default)]
pub struct Contact {
    pub last_attempt_ms: Option<i64>,
    pub last_success_ms: Option<i64>,
    pub last_policy_ms: Option<i64>,
    pub ping_heartbeat_secs: Option<u32>,
    pub folders: u16,
    pub wipe: Option<Wipe>,
    /// The key a provisioned phone shows.
    pub policy_key: Option<u32>,
    /// The key of a policy it has been given and not confirmed.
    pub offered_key: Option<u32>,
    /// The policy in force on the phone and its revision at that time.
    pub applied: Option<(u32, u32)>,
    /// What `offered_key` stands for.
    pub offered: Option<(u32, u32)>,
    pub application: PolicyApplication,
    /// Whether its folders show mail or only the notice that it is held.
    pub held_view: bool,
}

/// `DevicePolicyApplicationStatus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyApplication {
    #[default]
    Unknown,
    NotApplied,
    PartiallyApplied,
    AppliedInFull,
    ExternallyManaged,
}

impl PolicyApplication {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::NotApplied => "NotApplied",
            Self::PartiallyApplied => "PartiallyApplied",
            Self::AppliedInFull => "AppliedInFull",
            Self::ExternallyManaged => "ExternallyManaged",
        }
    }

    /// The number of the enum on the wire (unverified).
    pub fn number(self) -> i32 {
        match self {
            Self::Unknown => 0,
            Self::NotApplied => 1,
            Self::AppliedInFull => 2,
            Self::PartiallyApplied => 3,
            Self::ExternallyManaged => 4,
        }
    }

    /// From the Status with which a phone confirms a policy (MS-ASPROV 2.2.2.54.2).
    pub fn of_status(status: u32) -> Self {
        match status {
            1 => Self::AppliedInFull,
            2 => Self::PartiallyApplied,
            4 => Self::ExternallyManaged,
            _ => Self::NotApplied,
        }
    }
}

impl Contact {
    /// `Status` of the statistics.
    pub fn status(&self) -> &'static str {
        match &self.wipe {
            None => "DeviceOk",
            Some(Wipe { kind: WipeKind::Full, acknowledged_ms: None, .. }) => "DeviceWipePending",
            Some(Wipe { kind: WipeKind::Full, .. }) => "DeviceWipeSucceeded",
            Some(Wipe { kind: WipeKind::AccountOnly, acknowledged_ms: None, .. }) => {
                "AccountOnlyDeviceWipePending"
            }
            Some(Wipe { kind: WipeKind::AccountOnly, .. }) => "AccountOnlyDeviceWipeSucceeded",
        }
    }

    /// Its number (Adaxes SDK).
    pub fn status_number(&self) -> i32 {
        match &self.wipe {
            None => 1,
            Some(Wipe { kind: WipeKind::Full, acknowledged_ms: None, .. }) => 2,
            Some(Wipe { kind: WipeKind::Full, .. }) => 3,
            Some(Wipe { kind: WipeKind::AccountOnly, acknowledged_ms: None, .. }) => 4,
            Some(Wipe { kind: WipeKind::AccountOnly, .. }) => 5,
        }
    }
}

/// One partnership.
#[derive(Clone, Debug)]
pub(super) struct Partnership {
    pub(super) device: super::versioned::Versioned<Device>,
    pub(super) contact: Contact,
}
