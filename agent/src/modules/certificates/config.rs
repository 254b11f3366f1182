//! Settings of the module. The desired config and the local table have the same keys; the local one wins.

use std::collections::BTreeSet;

use causeway_protocol::certificate::{KeyKind, KeyMode, Profile};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{limits, template};
use crate::modules::{ConfigError, ModuleSettings, merged};

const PATH: &str = "modules.certificates";

/// What may be asked for.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Profiles of the tenant.
    pub(super) profiles: Vec<Profile>,
    /// Which `[directory.<name>]` says what the cloud does not know of a person. Default `default`, if there is one.
    pub(super) directory: String,
    /// Names nobody gets a certificate for: common names, user ids, user principal names and mail addresses, or the part
    /// of these before the at sign; `*` stands for anything. Case does not matter. Default: the accounts that administer
    /// a directory or a machine.
    pub(super) privileged_names: Vec<String>,
    /// Authorities this agent must not talk to, by name. Default none.
    pub(super) authorities_forbidden: BTreeSet<String>,
    /// Seconds between two looks at the authorities and the ends of their certificates, 300 to 604800. Default 21600.
    pub(super) watch_every_secs: u64,
    /// Days before the end of an authority's certificate at which to warn, 1 to 365. Default 30.
    pub(super) warn_days: u32,
}

/// Accounts that administer a directory (Active Directory's own names in English; others are for the customer to add) or
/// a machine.
const PRIVILEGED: &[&str] = &[
    "administrator",
    "admin",
    "administrators",
    "domain admins",
    "enterprise admins",
    "schema admins",
    "krbtgt*",
    "guest",
    "root",
    "msol_*",
    "aad_*",
    "*$",
];

impl Default for Settings {
    fn default() -> Self {
        Self {
            profiles: Vec::new(),
            directory: "default".to_owned(),
            privileged_names: PRIVILEGED.iter().map(|name| (*name).to_owned()).collect(),
            authorities_forbidden: BTreeSet::new(),
            watch_every_secs: 21_600,
            warn_days: 30,
        }
    }
}

impl Settings {
    pub(super) fn read(settings: &ModuleSettings) -> Result<Self, ConfigError> {
        // Each half is read alone first, so that an error says whose it is.
        ModuleSettings::read::<Self>(PATH, &settings.desired)?;
        ModuleSettings::read::<Self>(PATH, &settings.local)?;
        let read: Self = ModuleSettings::read(PATH, &merged(settings))?;
        read.check()?;
        Ok(read)
    }

    pub(super) fn profile(&self, id: &str) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }

    pub(super) fn example() -> Value {
        json!({
            "profiles": [{
                "id": "vpn",
                "version": 1,
                "authority": "default",
                "key_mode": KeyMode::Agent,
                "key": KeyKind::Rsa2048,
                "subject": "/CN=%uname%/emailAddress=%email%",
                "alternative_names": ["upn:%upn%", "uri:tag:microsoft.com,2022-09-14:sid:%sid%"],
                "missing_variable": "fail",
                "renew_days": 14,
            }],
            "privileged_names": ["administrator", "krbtgt*", "*$"],
            "watch_every_secs": 21_600,
            "warn_days": 30,
        })
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: String, problem: String, advice: &str| {
            Err(ConfigError::new(format!("{PATH}.{key}"), problem, advice))
        };
        if self.profiles.len() > limits::PROFILES_MAX {
            let problem = format!("{} profiles are given", self.profiles.len());
            return wrong("profiles".into(), problem, "remove those nobody uses");
        }
        let mut ids = BTreeSet::new();
        for (n, profile) in self.profiles.iter().enumerate() {
            let key = |key: &str| format!("profiles[{n}].{key}");
            if profile.id.is_empty() || !ids.insert(&profile.id) {
                let problem = format!("{:?} is empty or there twice", profile.id);
                return wrong(key("id"), problem, "give each profile an id of its own");
            }
            if !(1..=365).contains(&profile.renew_days) {
                let problem = format!("{} is out of range", profile.renew_days);
                return wrong(key("renew_days"), problem, "choose 1 to 365");
            }
            if let Err((part, problem)) = template::check(profile) {
                let advice = "write /CN=%uname%/... and upn:%upn%; see docs/certificates.md";
                return wrong(key(part), problem, advice);
            }
        }
        for (key, value, low, high) in [
            ("watch_every_secs", self.watch_every_secs, 300, 604_800),
            ("warn_days", self.warn_days.into(), 1, 365),
        ] {
            if !(low..=high).contains(&value) {
                let (problem, advice) =
                    (format!("{value} is out of range"), format!("choose {low} to {high}"));
                return wrong(key.into(), problem, &advice);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(desired: Value) -> Result<Settings, ConfigError> {
        Settings::read(&ModuleSettings { desired, ..ModuleSettings::default() })
    }

    #[test]
    fn a_profile_that_cannot_work_is_named() {
        read(Settings::example()).unwrap();
        for (change, path) in [
            (json!({ "subject": "CN" }), "profiles[0].subject"),
            (json!({ "subject": "/%uname%=x" }), "profiles[0].subject"),
            (json!({ "subject": "/CN=%u name%" }), "profiles[0].subject"),
            (json!({ "alternative_names": ["%uname%:x"] }), "profiles[0].alternative_names"),
            (json!({ "alternative_names": ["dir:CN=%uname%"] }), "profiles[0].alternative_names"),
            (json!({ "alternative_names": ["fax:%uname%"] }), "profiles[0].alternative_names"),
            (json!({ "renew_days": 0 }), "profiles[0].renew_days"),
            (json!({ "id": "" }), "profiles[0].id"),
        ] {
            let mut desired = Settings::example();
            let profile = desired["profiles"][0].as_object_mut().unwrap();
            profile.extend(change.as_object().unwrap().clone());
            let error = read(desired).unwrap_err();
            assert_eq!(error.path, format!("modules.certificates.{path}"), "{error}");
        }
    }
}
