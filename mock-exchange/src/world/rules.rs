//! Settings of the organisation, device access rules and autoblock thresholds.

use std::sync::Arc;

use super::device::Device;
use crate::config::DefaultAccess;

/// "Mobile Mailbox Settings".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrganisationSettings {
    pub default_access: DefaultAccess,
    pub user_mail_insert: String,
    pub ota_notification_mail_insert: String,
    pub admin_mail_recipients: Vec<String>,
    pub allow_access_for_unsupported_platform: bool,
    pub is_rms_remote_enabled: bool,
    pub changed_ms: i64,
}

/// A device access rule. Query strings match exactly, whatever the case; there are no wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    pub guid: [u8; 16],
    pub name: Arc<str>,
    pub query: String,
    pub characteristic: Characteristic,
    pub level: DefaultAccess,
    pub changed_ms: i64,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Characteristic {
    DeviceType,
    DeviceModel,
    DeviceOs,
    UserAgent,
    XmsWlHeader,
}

impl Characteristic {
    pub const ALL: [Self; 5] =
        [Self::DeviceType, Self::DeviceModel, Self::DeviceOs, Self::UserAgent, Self::XmsWlHeader];

    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceType => "DeviceType",
            Self::DeviceModel => "DeviceModel",
            Self::DeviceOs => "DeviceOS",
            Self::UserAgent => "UserAgent",
            Self::XmsWlHeader => "XMSWLHeader",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }
}

impl AccessRule {
    /// Whether it speaks of this phone.
    pub fn matches(&self, device: &Device) -> bool {
        let information = &device.information;
        let value = match self.characteristic {
            Characteristic::DeviceType => Some(&*device.device_type),
            Characteristic::DeviceModel => information.model.as_deref(),
            Characteristic::DeviceOs => information.os.as_deref(),
            Characteristic::UserAgent => Some(&*device.user_agent),
            // A header of one vendor's phones that no generated phone sends.
            Characteristic::XmsWlHeader => None,
        };
        value.is_some_and(|value| value.eq_ignore_ascii_case(&self.query))
    }
}

/// `ActiveSyncDeviceAutoblockThreshold`: how often phones may misbehave before the server blocks them for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoblockThreshold {
    pub behaviour: &'static str,
    /// 0 switches it off.
    pub limit: u32,
    pub incidence_minutes: u32,
    pub block_minutes: u32,
    pub mail_insert: String,
}

/// The behaviours that exist, switched off as in a fresh organisation.
pub(super) fn thresholds() -> Vec<AutoblockThreshold> {
    [
        "UserAgentsChanges",
        "RecentCommands",
        "Watsons",
        "OutOfBudgets",
        "SyncCommands",
        "EnableNotificationEmail",
    ]
    .into_iter()
    .map(|behaviour| AutoblockThreshold {
        behaviour,
        limit: 0,
        incidence_minutes: 0,
        block_minutes: 0,
        mail_insert: String::new(),
    })
    .collect()
}
