//! Settings of user_visibility. The desired config and the local table have the same keys; the local one wins.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::directory::filter::Filter;
use crate::directory::personality::Strategy;
use crate::modules::{ConfigError, ModuleSettings};

const PATH: &str = "modules.user_visibility";

/// What is collected, and when.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Which `[directory.<name>]` to read. Default `default`.
    pub(super) directory: String,
    /// Subtrees that are visible. Default: the directory's base.
    pub(super) bases: Vec<String>,
    /// Subtrees within them that are not.
    pub(super) excluded_bases: Vec<String>,
    /// Further condition on users, as an LDAP filter.
    pub(super) user_filter: Option<String>,
    /// Further condition on groups, as an LDAP filter.
    pub(super) group_filter: Option<String>,
    /// Whether groups and memberships are collected. Default true.
    pub(super) groups: bool,
    /// Attributes of users that travel besides the standard ones. Default none.
    pub(super) attributes: Vec<String>,
    /// How to learn of changes. Default: the best the server offers.
    pub(super) strategy: Option<Strategy>,
    /// Seconds between two looks for changes, 5 to 86400. Default 300.
    pub(super) delta_every_secs: u64,
    /// Seconds between two comparisons of all ids, 60 to 2592000. Default 86400.
    pub(super) reconcile_every_secs: u64,
    /// Seconds between two comparisons of everything, 3600 to 31536000. Default 604800.
    pub(super) scan_every_secs: u64,
    /// When deletions are held back.
    pub(super) guard: GuardSettings,
}

/// When deletions are held back: above the larger of the two.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GuardSettings {
    /// Objects. Default 500, the threshold of Microsoft's own directory synchronisation.
    pub(super) deletions_max: u64,
    /// Share of all known objects, in percent, 0 to 100. Default 5.
    pub(super) percent_max: u64,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { deletions_max: 500, percent_max: 5 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: "default".to_owned(),
            bases: Vec::new(),
            excluded_bases: Vec::new(),
            user_filter: None,
            group_filter: None,
            groups: true,
            attributes: Vec::new(),
            strategy: None,
            delta_every_secs: 300,
            reconcile_every_secs: 86_400,
            scan_every_secs: 604_800,
            guard: GuardSettings::default(),
        }
    }
}

impl Settings {
    /// Reads and checks.
    ///
    /// # Errors
    /// Names the offending key.
    pub(super) fn read(settings: &ModuleSettings) -> Result<Self, ConfigError> {
        let read: Self = ModuleSettings::read(PATH, &super::super::merged(settings))?;
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: String, advice: &str| {
            Err(ConfigError::new(format!("{PATH}.{key}"), problem, advice))
        };
        for (key, filter) in [("user_filter", &self.user_filter), ("group_filter", &self.group_filter)] {
            if let Some(text) = filter
                && let Err(error) = Filter::parse(text)
            {
                return wrong(key, error.to_string(), "correct the filter (RFC 4515)");
            }
        }
        for (key, value, range) in [
            ("delta_every_secs", self.delta_every_secs, 5..=86_400),
            ("reconcile_every_secs", self.reconcile_every_secs, 60..=2_592_000),
            ("scan_every_secs", self.scan_every_secs, 3_600..=31_536_000),
            ("guard.percent_max", self.guard.percent_max, 0..=100),
        ] {
            if !range.contains(&value) {
                let advice = format!("choose {} to {}", range.start(), range.end());
                return wrong(key, format!("{value} is out of range"), &advice);
            }
        }
        for (n, name) in self.attributes.iter().enumerate() {
            let plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'.';
            if name.is_empty() || !name.bytes().all(plain) {
                return wrong(
                    &format!("attributes[{n}]"),
                    format!("{name:?} is no attribute name"),
                    "correct it",
                );
            }
            // The cloud must not be able to read what authenticates people, whatever it asks for.
            if SECRET_ATTRIBUTES.iter().any(|secret| secret.eq_ignore_ascii_case(name)) {
                return wrong(&format!("attributes[{n}]"), format!("{name} holds a secret"), "remove it");
            }
        }
        Ok(())
    }

    /// The leased resource.
    pub(super) fn resource(&self) -> String {
        format!("user_visibility/{}", self.directory)
    }

    /// The documented example.
    pub(super) fn example() -> Value {
        json!({
            "directory": "default",
            "bases": ["OU=Berlin,DC=acme,DC=example"],
            "excluded_bases": ["OU=Service Accounts,OU=Berlin,DC=acme,DC=example"],
            "user_filter": "(!(userAccountControl:1.2.840.113556.1.4.803:=2))",
            "groups": true,
            "attributes": ["department", "title"],
            "delta_every_secs": 300,
            "reconcile_every_secs": 86_400,
            "scan_every_secs": 604_800,
            "guard": { "deletions_max": 500, "percent_max": 5 },
        })
    }
}

/// Attributes that never travel.
const SECRET_ATTRIBUTES: &[&str] = &[
    "userPassword",
    "unicodePwd",
    "dBCSPwd",
    "ntPwdHistory",
    "lmPwdHistory",
    "supplementalCredentials",
    "sambaNTPassword",
    "sambaLMPassword",
    "krbPrincipalKey",
    "pwdHistory",
    "passwordHistory",
    "ms-Mcs-AdmPwd",
    "msLAPS-Password",
    "msLAPS-EncryptedPassword",
    "HTTPPassword",
    "nspmPassword",
    "authPassword",
];
