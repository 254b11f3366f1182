//! Settings of the module. The desired config and the local table have the same keys; the local one wins.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::limits;
use crate::modules::{ConfigError, ModuleSettings};

const PATH: &str = "modules.exchange";

/// What is collected, what is done by itself, and what is held back.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Which `[exchange.<name>]` to talk to. Default `default`.
    pub(super) organization: String,
    /// Whether phones are collected. Default true.
    pub(super) devices: bool,
    /// Whether statistics (last synchronisation, wipes) are read, one cmdlet a phone. Default true.
    pub(super) statistics: bool,
    /// Whether policies are collected. Default true.
    pub(super) policies: bool,
    /// Which part of the organisation this agent collects. Default: all of it.
    pub(super) scope: Scope,
    /// Seconds between two listings, which find what is new, changed and gone; 10 to 86400. Default 300.
    pub(super) delta_every_secs: u64,
    /// Seconds between two readings of all statistics, 3600 to 31536000. Default 604800.
    pub(super) full_every_secs: u64,
    /// Seconds after which a phone's statistics are read again although nothing else has changed, 300 to 2592000.
    /// Default 86400.
    pub(super) statistics_every_secs: u64,
    /// Seconds a phone must be gone from the listings before its deletion travels, 0 to 604800. Default 0.
    pub(super) deletion_hold_secs: u64,
    /// When deletions are held back.
    pub(super) guard: GuardSettings,
    /// When wipes, blocks and removals are held back.
    pub(super) mass_actions: MassSettings,
    /// Seconds between the first looks at a phone that must act (a wipe), 1 to 3600; later ones are rarer. Default 30.
    pub(super) phone_check_secs: u64,
    /// Keeps the organisation's default at quarantine: when it is not, every phone there is is allowed first, then the
    /// default is switched. Default false.
    pub(super) auto_quarantine: bool,
    /// Approves a phone that waits when it is in `enrolled`. Default false.
    pub(super) auto_approve_enrolled: bool,
    /// Phones the cloud knows.
    pub(super) enrolled: Vec<Enrolled>,
    /// Phones that may synchronise from their first contact on.
    pub(super) preauthorise: Vec<Preauthorised>,
    /// Removal of partnerships that nobody uses any more.
    pub(super) idle_removal: IdleRemoval,
    /// Actions this agent refuses, by name. Default none.
    pub(super) actions_forbidden: BTreeSet<String>,
    /// On premises: which `[directory.<name>]` is a global catalog that knows where mailboxes are, for a scope of databases or
    /// servers. Default: Exchange is asked.
    pub(super) directory: Option<String>,
    /// On premises: the domain controller that actions write to and read back from, as Exchange writes it
    /// (`dc1.acme.example`). Default: whichever the server takes, so that what was written may be seen only after the
    /// directory has replicated.
    pub(super) domain_controller: Option<String>,
}

/// A part of the organisation. Empty lists say nothing; a phone must be in one of each list that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Scope {
    /// Names the part towards the cloud; needed when anything else is given. Agents with different parts have
    /// different names.
    pub(super) name: String,
    /// Domains: of the mailbox's address, or the Active Directory domain it is in.
    pub(super) domains: Vec<String>,
    /// Organisational units as Exchange writes them (`acme.example/Berlin`), with everything below.
    pub(super) organizational_units: Vec<String>,
    /// Mailbox databases by name.
    pub(super) databases: Vec<String>,
    /// Mailbox servers by host name, with or without domain.
    pub(super) servers: Vec<String>,
}

/// When deletions are held back: above the larger of the two.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GuardSettings {
    /// Phones. Default 500.
    pub(super) deletions_max: u64,
    /// Share of all known phones, in percent, 0 to 100. Default 5.
    pub(super) percent_max: u64,
}

/// How many wipes, blocks and removals pass without a person.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MassSettings {
    /// Actions, 1 to 10000. Default 50.
    pub(super) actions_max: u32,
    /// Within how many seconds, 60 to 604800. Default 3600.
    pub(super) within_secs: u64,
}

/// A phone the cloud knows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enrolled {
    /// ActiveSync device id.
    pub(super) device_id: String,
    /// The mailbox it may be approved in: address or Guid. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mailbox: Option<String>,
}

/// A phone that may synchronise before anybody has seen it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preauthorised {
    /// Address or Guid.
    pub(super) mailbox: String,
    /// ActiveSync device id.
    pub(super) device_id: String,
}

/// Removal of partnerships that nobody uses any more.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct IdleRemoval {
    /// Default false.
    pub(super) enabled: bool,
    /// Days since the last sign of life, 7 to 3650. Default 180. A phone whose program reports no synchronisation is
    /// never idle.
    pub(super) after_days: u32,
    /// Most removals after one listing, 1 to 1000. Default 20.
    pub(super) removals_max: u32,
    /// Only says what would be removed. Default true.
    pub(super) dry_run: bool,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { deletions_max: 500, percent_max: 5 }
    }
}

impl Default for MassSettings {
    fn default() -> Self {
        Self { actions_max: 50, within_secs: 3_600 }
    }
}

impl Default for IdleRemoval {
    fn default() -> Self {
        Self { enabled: false, after_days: 180, removals_max: 20, dry_run: true }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            organization: "default".to_owned(),
            devices: true,
            statistics: true,
            policies: true,
            scope: Scope::default(),
            delta_every_secs: 300,
            full_every_secs: 604_800,
            statistics_every_secs: 86_400,
            deletion_hold_secs: 0,
            guard: GuardSettings::default(),
            mass_actions: MassSettings::default(),
            phone_check_secs: 30,
            auto_quarantine: false,
            auto_approve_enrolled: false,
            enrolled: Vec::new(),
            preauthorise: Vec::new(),
            idle_removal: IdleRemoval::default(),
            actions_forbidden: BTreeSet::new(),
            directory: None,
            domain_controller: None,
        }
    }
}

impl Scope {
    /// Whether everything is in it.
    pub(super) fn is_all(&self) -> bool {
        self.domains.is_empty()
            && self.organizational_units.is_empty()
            && self.databases.is_empty()
            && self.servers.is_empty()
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
        for (key, value, range) in [
            ("delta_every_secs", self.delta_every_secs, 10..=86_400),
            ("full_every_secs", self.full_every_secs, 3_600..=31_536_000),
            ("statistics_every_secs", self.statistics_every_secs, 300..=2_592_000),
            ("deletion_hold_secs", self.deletion_hold_secs, 0..=604_800),
            ("guard.percent_max", self.guard.percent_max, 0..=100),
            ("mass_actions.actions_max", self.mass_actions.actions_max.into(), 1..=10_000),
            ("mass_actions.within_secs", self.mass_actions.within_secs, 60..=604_800),
            ("phone_check_secs", self.phone_check_secs, 1..=3_600),
            ("idle_removal.after_days", self.idle_removal.after_days.into(), 7..=3_650),
            ("idle_removal.removals_max", self.idle_removal.removals_max.into(), 1..=1_000),
        ] {
            if !range.contains(&value) {
                let advice = format!("choose {} to {}", range.start(), range.end());
                return wrong(key, format!("{value} is out of range"), &advice);
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !self.scope.name.chars().all(plain) || self.scope.name.len() > 64 {
            return wrong(
                "scope.name",
                format!("{:?} is no name", self.scope.name),
                "use letters and digits",
            );
        }
        if !self.scope.is_all() && self.scope.name.is_empty() {
            return wrong("scope.name", "a part of the organisation has no name".to_owned(), "name it");
        }
        if let Some(host) = self.domain_controller.as_deref().filter(|host| !is_host(host)) {
            let advice = "use the name of a domain controller, such as dc1.acme.example";
            return wrong("domain_controller", format!("{host:?} is no host name"), advice);
        }
        if self.enrolled.len() > limits::ENROLLED_MAX {
            return wrong("enrolled", format!("more than {}", limits::ENROLLED_MAX), "name fewer phones");
        }
        let ids = self.enrolled.iter().map(|phone| ("enrolled", &phone.device_id));
        for (key, id) in ids.chain(self.preauthorise.iter().map(|phone| ("preauthorise", &phone.device_id))) {
            if !is_device_id(id) {
                return wrong(
                    key,
                    format!("{id:?} is no device id"),
                    "use the id the phone gives ActiveSync",
                );
            }
        }
        Ok(())
    }

    /// The leased resource. Holds the part of the organisation, so that agents with different parts work side by side.
    pub(super) fn resource(&self) -> String {
        match self.scope.name.as_str() {
            "" => format!("exchange/{}", self.organization),
            name => format!("exchange/{}/{name}", self.organization),
        }
    }

    /// The documented example.
    pub(super) fn example() -> Value {
        json!({
            "organization": "default",
            "scope": { "name": "berlin", "organizational_units": ["acme.example/Berlin"] },
            "delta_every_secs": 300,
            "full_every_secs": 604_800,
            "statistics_every_secs": 86_400,
            "deletion_hold_secs": 0,
            "guard": { "deletions_max": 500, "percent_max": 5 },
            "mass_actions": { "actions_max": 50, "within_secs": 3_600 },
            "auto_quarantine": false,
            "auto_approve_enrolled": true,
            "enrolled": [{ "device_id": "ApplF9FK40ABCDEF", "mailbox": "bob@acme.example" }],
            "preauthorise": [{ "mailbox": "ann@acme.example", "device_id": "SEC1234567890" }],
            "idle_removal": { "enabled": true, "after_days": 180, "removals_max": 20, "dry_run": true },
        })
    }
}

/// Whether a text can be a host's name (RFC 1123 §2.1).
fn is_host(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    !text.is_empty() && text.len() <= 253 && text.chars().all(plain)
}

/// Whether a text can be the id of a phone nobody has seen: letters, digits and hyphens. An id with quotes or wildcards
/// could mean another phone to a server, so nobody is allowed by one.
pub(super) fn is_device_id(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !text.is_empty() && text.len() <= limits::DEVICE_ID_MAX && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(desired: Value) -> Result<Settings, ConfigError> {
        Settings::read(&ModuleSettings { desired, ..ModuleSettings::default() })
    }

    #[test]
    fn the_example_is_accepted_and_names_its_resource() {
        assert_eq!(read(Settings::example()).unwrap().resource(), "exchange/default/berlin");
        assert_eq!(read(json!({})).unwrap().resource(), "exchange/default");
    }

    #[test]
    fn mistakes_are_named() {
        for (desired, path) in [
            (json!({"delta_every_secs": 1}), "delta_every_secs"),
            (json!({"scope": {"databases": ["DB1"]}}), "scope.name"),
            (json!({"scope": {"name": "a/b"}}), "scope.name"),
            (json!({"domain_controller": "dc1 -Confirm"}), "domain_controller"),
            (json!({"preauthorise": [{"mailbox": "a@b", "device_id": "*"}]}), "preauthorise"),
            (json!({"enrolled": [{"device_id": "a' -or 'b"}]}), "enrolled"),
            (json!({"mass_actions": {"actions_max": 0}}), "mass_actions.actions_max"),
        ] {
            let error = read(desired.clone()).unwrap_err();
            assert_eq!(error.path, format!("modules.exchange.{path}"), "{desired}");
        }
    }
}
