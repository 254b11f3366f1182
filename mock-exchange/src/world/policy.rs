//! Device policies: every setting with its kind and default, and the policies made of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::profile::Version;

/// One setting of a policy.
#[derive(Debug)]
pub struct Setting {
    /// As `*-MobileDeviceMailboxPolicy` spells it; settings are stored under this name.
    pub name: &'static str,
    /// As `*-ActiveSyncMailboxPolicy` spells it.
    pub old_name: &'static str,
    /// The first version that has it.
    pub since: Version,
    pub kind: SettingKind,
}

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// With its default.
    Switch(bool),
    /// A number between bounds, or none.
    OptionalNumber(u32, u32),
    /// A number between bounds, with its default.
    Number(u32, u32, u32),
    /// A number between bounds, or `Unlimited`, which is the default.
    Limit(u32, u32),
    /// A time span, or `Unlimited`, which is the default.
    Span,
    /// One of several words, the first being the default.
    Word(&'static [&'static str]),
    /// A list of texts.
    List,
}

/// A value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyValue {
    Switch(bool),
    /// Number, span, word or `Unlimited`; empty for none.
    Text(String),
    List(Vec<String>),
}

const fn setting(name: &'static str, old_name: &'static str, since: Version, kind: SettingKind) -> Setting {
    Setting { name, old_name, since, kind }
}

const fn same(name: &'static str, kind: SettingKind) -> Setting {
    Setting { name, old_name: name, since: Version::E2007, kind }
}

use SettingKind::{Limit, List, Number, OptionalNumber, Span, Switch, Word};
use Version::{E2007, E2010, E2013};

/// Every setting of a policy (documentation of New-MobileDeviceMailboxPolicy and New-ActiveSyncMailboxPolicy).
pub static SETTINGS: &[Setting] = &[
    setting("PasswordEnabled", "DevicePasswordEnabled", E2007, Switch(false)),
    setting("AlphanumericPasswordRequired", "AlphanumericDevicePasswordRequired", E2007, Switch(false)),
    same("PasswordRecoveryEnabled", Switch(false)),
    setting("RequireDeviceEncryption", "RequireDeviceEncryption", E2007, Switch(false)),
    same("RequireStorageCardEncryption", Switch(false)),
    same("AttachmentsEnabled", Switch(true)),
    setting("MinPasswordLength", "MinDevicePasswordLength", E2007, OptionalNumber(1, 16)),
    setting("MaxInactivityTimeLock", "MaxInactivityTimeDeviceLock", E2007, Span),
    setting("MaxPasswordFailedAttempts", "MaxDevicePasswordFailedAttempts", E2007, Limit(4, 16)),
    same("MaxAttachmentSize", Limit(0, 2_147_482_624)),
    setting("AllowSimplePassword", "AllowSimpleDevicePassword", E2007, Switch(true)),
    setting("PasswordExpiration", "DevicePasswordExpiration", E2007, Span),
    setting("PasswordHistory", "DevicePasswordHistory", E2007, Number(0, 50, 0)),
    setting("MinPasswordComplexCharacters", "MinDevicePasswordComplexCharacters", E2007, Number(1, 4, 1)),
    same("AllowNonProvisionableDevices", Switch(false)),
    same("DevicePolicyRefreshInterval", Span),
    same("AllowStorageCard", Switch(true)),
    same("AllowCamera", Switch(true)),
    same("AllowUnsignedApplications", Switch(true)),
    same("AllowUnsignedInstallationPackages", Switch(true)),
    same("AllowWiFi", Switch(true)),
    same("AllowTextMessaging", Switch(true)),
    same("AllowPOPIMAPEmail", Switch(true)),
    same("AllowBluetooth", Word(&["Allow", "HandsfreeOnly", "Disable"])),
    same("AllowIrDA", Switch(true)),
    same("RequireManualSyncWhenRoaming", Switch(false)),
    same("AllowDesktopSync", Switch(true)),
    same("MaxCalendarAgeFilter", Word(&["All", "TwoWeeks", "OneMonth", "ThreeMonths", "SixMonths"])),
    same("AllowHTMLEmail", Switch(true)),
    same("MaxEmailAgeFilter", Word(&["All", "OneDay", "ThreeDays", "OneWeek", "TwoWeeks", "OneMonth"])),
    same("MaxEmailBodyTruncationSize", Limit(0, 2_147_483_647)),
    same("MaxEmailHTMLBodyTruncationSize", Limit(0, 2_147_483_647)),
    same("RequireSignedSMIMEMessages", Switch(false)),
    same("RequireEncryptedSMIMEMessages", Switch(false)),
    same("AllowSMIMESoftCerts", Switch(true)),
    same(
        "AllowSMIMEEncryptionAlgorithmNegotiation",
        Word(&["AllowAnyAlgorithmNegotiation", "BlockNegotiation", "OnlyStrongAlgorithmNegotiation"]),
    ),
    same("AllowBrowser", Switch(true)),
    same("AllowConsumerEmail", Switch(true)),
    same("AllowRemoteDesktop", Switch(true)),
    same("AllowInternetSharing", Switch(true)),
    same("UNCAccessEnabled", Switch(true)),
    same("WSSAccessEnabled", Switch(true)),
    same("UnapprovedInROMApplicationList", List),
    same("ApprovedApplicationList", List),
    setting("AllowMobileOTAUpdate", "AllowMobileOTAUpdate", E2010, Switch(true)),
    setting(
        "MobileOTAUpdateMode",
        "MobileOTAUpdateMode",
        E2010,
        Word(&["MinorVersionUpdates", "MajorVersionUpdates", "BetaVersionUpdates"]),
    ),
    setting("IrmEnabled", "IrmEnabled", E2010, Switch(true)),
    setting("AllowApplePushNotifications", "AllowApplePushNotifications", E2013, Switch(true)),
    setting("AllowGooglePushNotifications", "AllowGooglePushNotifications", E2013, Switch(true)),
    setting("AllowMicrosoftPushNotifications", "AllowMicrosoftPushNotifications", E2013, Switch(true)),
];

impl Setting {
    /// The setting of this name, new or old, whatever the case.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| {
            setting.name.eq_ignore_ascii_case(name) || setting.old_name.eq_ignore_ascii_case(name)
        })
    }

    pub fn default(&self) -> PolicyValue {
        match self.kind {
            Switch(on) => PolicyValue::Switch(on),
            OptionalNumber(..) => PolicyValue::Text(String::new()),
            Number(_, _, number) => PolicyValue::Text(number.to_string()),
            Limit(..) | Span => PolicyValue::Text("Unlimited".to_owned()),
            Word(words) => PolicyValue::Text(words.first().copied().unwrap_or_default().to_owned()),
            List => PolicyValue::List(Vec::new()),
        }
    }
}

/// Names a policy as long as the world lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub(super) u32);

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub guid: [u8; 16],
    pub name: Arc<str>,
    pub is_default: bool,
    /// Only what differs from the default of the setting.
    values: BTreeMap<&'static str, PolicyValue>,
    /// Counts changes of values; a phone with an older one must be provisioned again.
    pub revision: u32,
    pub created_ms: i64,
    pub changed_ms: i64,
}

impl Policy {
    pub(super) fn new(guid: [u8; 16], name: &str, now_ms: i64) -> Self {
        Self {
            guid,
            name: name.into(),
            is_default: false,
            values: BTreeMap::new(),
            revision: 1,
            created_ms: now_ms,
            changed_ms: now_ms,
        }
    }

    /// A value, the default where nothing else was said.
    pub fn value(&self, setting: &Setting) -> PolicyValue {
        self.values.get(setting.name).cloned().unwrap_or_else(|| setting.default())
    }

    /// Whether a switch is on, by the newer name. False for settings that are no switches.
    pub fn is_on(&self, name: &str) -> bool {
        Setting::named(name).is_some_and(|setting| self.value(setting) == PolicyValue::Switch(true))
    }

    /// A number, by the newer name; `None` when unset or `Unlimited`.
    pub fn number(&self, name: &str) -> Option<u32> {
        match self.value(Setting::named(name)?) {
            PolicyValue::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// A span in seconds, by the newer name; `None` when `Unlimited`.
    pub fn seconds(&self, name: &str) -> Option<u64> {
        match self.value(Setting::named(name)?) {
            PolicyValue::Text(text) => parse_span(&text),
            _ => None,
        }
    }

    /// A word, by the newer name.
    pub fn word(&self, name: &str) -> Option<String> {
        match self.value(Setting::named(name)?) {
            PolicyValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list, by the newer name.
    pub fn list(&self, name: &str) -> Vec<String> {
        match Setting::named(name).map(|setting| self.value(setting)) {
            Some(PolicyValue::List(list)) => list,
            _ => Vec::new(),
        }
    }

    /// Puts a value in. True when that changes what phones must obey.
    pub fn set(&mut self, setting: &'static Setting, value: PolicyValue) -> bool {
        let changes = self.value(setting) != value;
        if changes {
            self.values.insert(setting.name, value);
        }
        changes
    }
}

/// `[d.]hh:mm:ss[.fffffff]` as seconds.
pub fn parse_span(text: &str) -> Option<u64> {
    let (days, clock) = match text.split_once('.') {
        Some((days, clock)) if clock.contains(':') => (days.parse::<u64>().ok()?, clock),
        _ => (0, text),
    };
    let clock = clock.split('.').next()?;
    let mut parts = clock.split(':');
    let mut part = |below: u64| parts.next()?.parse::<u64>().ok().filter(|number| *number < below);
    let (hours, minutes, seconds) = (part(24)?, part(60)?, part(60)?);
    parts.next().is_none().then_some(())?;
    days.checked_mul(86_400)?.checked_add(hours * 3_600 + minutes * 60 + seconds)
}

/// Seconds as .NET writes a `TimeSpan`.
pub fn span_text(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    if days == 0 { clock } else { format!("{days}.{clock}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written_as_dotnet_does() {
        for (text, seconds) in [("00:15:00", 900), ("1.00:00:00", 86_400), ("23:59:59", 86_399)] {
            assert_eq!(parse_span(text), Some(seconds));
            assert_eq!(span_text(seconds), text);
        }
        for wrong in ["", "15", "24:00:00", "00:60:00", "1:2", "1.1.1:1:1", "00:00:00:00"] {
            assert_eq!(parse_span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_value_set_to_what_it_is_changes_nothing() {
        let mut policy = Policy::new([0; 16], "Default", 0);
        let setting = Setting::named("deviceEncryption").is_none();
        assert!(setting, "only whole names count");
        let camera = Setting::named("allowcamera").unwrap();
        assert!(!policy.set(camera, PolicyValue::Switch(true)));
        assert!(policy.set(camera, PolicyValue::Switch(false)));
        assert!(!policy.is_on("AllowCamera"));
        assert_eq!(policy.number("MinPasswordLength"), None);
        assert_eq!(Setting::named("DevicePasswordEnabled").unwrap().name, "PasswordEnabled");
    }
}
