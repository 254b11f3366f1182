//! From Exchange's objects to records. Enums keep the server's word, in snake case; numbers are never decoded.

use causeway_protocol::clixml::{Object, Value};
use causeway_protocol::mobile::{DevicePolicyRecord, DeviceRecord, MailOrganizationRecord, access};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use uuid::Uuid;

use super::limits;
use super::state::digest;
use crate::exchange::ServerFacts;

/// `system` of every record.
pub(super) const SYSTEM: &str = "exchange";

/// The container of partnerships in a mailbox's object.
const CONTAINER: &str = "ExchangeActiveSyncDevices";

/// A phone as a listing shows it.
#[derive(Clone, Debug)]
pub(super) struct Phone {
    pub(super) key: Uuid,
    /// Without mailbox, owner and statistics.
    pub(super) record: DeviceRecord,
    /// What its mailbox is called: canonical name (or alias, in Exchange Online) and distinguished name.
    pub(super) owner: Vec<String>,
}

/// A mailbox that may have phones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mailbox {
    pub(super) guid: String,
    pub(super) address: Option<String>,
    pub(super) user: Option<String>,
    pub(super) policy: Option<String>,
    pub(super) server: Option<String>,
    pub(super) database: Option<String>,
    /// What phones call it; see [`Phone::owner`].
    pub(super) names: Vec<String>,
}

/// Whether a phone may synchronise where there is only a list of allowed ones: an empty one keeps nobody out.
pub(super) fn may_by_list(allowed: &[String], device_id: &str) -> bool {
    allowed.is_empty() || allowed.iter().any(|id| id.eq_ignore_ascii_case(device_id))
}

/// Who may and who may not, by device id, in one mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) allowed: Vec<String>,
    pub(super) blocked: Vec<String>,
}

impl Lists {
    /// Whether anything has been decided about a phone.
    pub(super) fn names(&self, device_id: &str) -> bool {
        self.allowed.iter().chain(&self.blocked).any(|id| id == device_id)
    }
}

/// What statistics add to a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Statistics {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_sync: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_sync: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_attempt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy_status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wipe_status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wipe_acknowledged: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) folders: Option<u32>,
}

/// Where the wipes of a phone stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wipes {
    pub(super) status: Option<String>,
    pub(super) full: WipeTimes,
    pub(super) account_only: WipeTimes,
}

/// When a wipe was asked for, told and confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WipeTimes {
    pub(super) requested: Option<String>,
    pub(super) sent: Option<String>,
    pub(super) acknowledged: Option<String>,
}

impl Phone {
    /// Reads a phone; `None` when the object has no id, which no phone lacks.
    pub(super) fn read(object: &Object) -> Option<Self> {
        let text = |name: &str| text(object, name);
        let device_id = text("DeviceId")?;
        let identity = text("Identity").unwrap_or_default();
        let owner = owner_of(&identity, text("DistinguishedName").as_deref());
        let key = text("Guid").and_then(|guid| Uuid::parse_str(&guid).ok());
        // Exchange 2007 keeps partnerships in the mailbox, without a Guid of their own.
        let key = key.unwrap_or_else(|| {
            let home = owner.first().map_or(identity.as_str(), String::as_str);
            Uuid::from_bytes(digest(format!("{}\0{device_id}", home.to_lowercase()).as_bytes()))
        });
        let record = DeviceRecord {
            system: SYSTEM.to_owned(),
            device_id,
            display_name: text("UserDisplayName").map(|name| last_name(&name)),
            friendly_name: text("FriendlyName").or_else(|| text("DeviceFriendlyName")),
            model: text("DeviceModel"),
            device_type: text("DeviceType"),
            os: text("DeviceOS"),
            imei: text("DeviceImei"),
            phone_number: text("DeviceTelephoneNumber").or_else(|| text("DevicePhoneNumber")),
            operator: text("DeviceMobileOperator"),
            user_agent: text("DeviceUserAgent"),
            client_type: text("ClientType"),
            client_version: text("ClientVersion").or_else(|| text("DeviceActiveSyncVersion")),
            access_state: text("DeviceAccessState")
                .map_or_else(|| access::UNKNOWN.to_owned(), |word| snake(&word)),
            access_reason: text("DeviceAccessStateReason").map(|word| snake(&word)),
            access_rule: text("DeviceAccessControlRule"),
            first_sync: instant(object, "FirstSyncTime"),
            identity,
            ..DeviceRecord::default()
        };
        Some(Self { key, record, owner })
    }

    /// Fills in what versions do not say that know no more than a list of allowed phones.
    pub(super) fn judge_by_list(&mut self, allowed: &[String]) {
        if self.record.access_state == access::UNKNOWN {
            let may = may_by_list(allowed, &self.record.device_id);
            self.record.access_state = if may { access::ALLOWED } else { access::BLOCKED }.to_owned();
            let reason = if allowed.is_empty() { "global" } else { "individual" };
            self.record.access_reason = Some(reason.to_owned());
        }
    }

    /// The record with its mailbox and owner.
    pub(super) fn of(mut self, mailbox: Option<&Mailbox>) -> DeviceRecord {
        match mailbox {
            Some(mailbox) => {
                self.record.mailbox.clone_from(&mailbox.guid);
                self.record.address.clone_from(&mailbox.address);
                self.record.user.clone_from(&mailbox.user);
                self.record.policy.clone_from(&mailbox.policy);
            }
            None => self.record.mailbox = self.owner.into_iter().next().unwrap_or_default(),
        }
        self.record
    }
}

impl Mailbox {
    /// Reads a mailbox (`Get-CASMailbox` or `Get-Mailbox`).
    pub(super) fn read(object: &Object) -> Option<Self> {
        let text = |name: &str| text(object, name);
        let names = [text("Identity"), text("DistinguishedName")];
        Some(Self {
            guid: text("Guid")?.to_lowercase(),
            address: text("PrimarySmtpAddress"),
            user: text("SamAccountName").or_else(|| text("Name")),
            policy: text("ActiveSyncMailboxPolicy").map(|policy| last_name(&policy)),
            server: text("ServerName").or_else(|| text("ServerLegacyDN")),
            database: text("Database").map(|database| last_name(&database)),
            names: names.into_iter().flatten().map(|name| name.to_lowercase()).collect(),
        })
    }

    /// Whether a phone's owner is this mailbox.
    pub(super) fn owns(&self, phone: &Phone) -> bool {
        phone.owner.iter().any(|owner| self.names.iter().any(|name| *name == owner.to_lowercase()))
    }
}

impl Lists {
    /// Reads the lists of a mailbox.
    pub(super) fn read(object: &Object) -> Self {
        let ids = |name: &str| {
            let items = object.get(name).map(Value::items).unwrap_or_default();
            items
                .iter()
                .filter_map(|id| id.text().map(|id| id.into_owned()))
                .filter(|id| !id.is_empty())
                .collect()
        };
        Self { allowed: ids("ActiveSyncAllowedDeviceIDs"), blocked: ids("ActiveSyncBlockedDeviceIDs") }
    }
}

impl Statistics {
    /// Reads statistics.
    pub(super) fn read(object: &Object) -> Self {
        let wipes = Wipes::read(object);
        Self {
            first_sync: instant(object, "FirstSyncTime"),
            last_sync: instant(object, "LastSuccessSync"),
            last_attempt: instant(object, "LastSyncAttemptTime"),
            policy: text(object, "DevicePolicyApplied").map(|policy| last_name(&policy)),
            policy_status: text(object, "DevicePolicyApplicationStatus").map(|word| snake(&word)),
            wipe_acknowledged: wipes.full.acknowledged.clone().or(wipes.account_only.acknowledged.clone()),
            wipe_status: wipes.status,
            folders: text(object, "NumberOfFoldersSynced").and_then(|count| count.parse().ok()),
        }
    }

    /// Puts them into a record.
    pub(super) fn fill(&self, record: &mut DeviceRecord) {
        let set = |field: &mut Option<String>, value: &Option<String>| {
            if value.is_some() {
                field.clone_from(value);
            }
        };
        set(&mut record.first_sync, &self.first_sync);
        set(&mut record.policy, &self.policy);
        record.last_sync.clone_from(&self.last_sync);
        record.last_attempt.clone_from(&self.last_attempt);
        record.policy_status.clone_from(&self.policy_status);
        record.wipe_status.clone_from(&self.wipe_status);
        record.wipe_acknowledged.clone_from(&self.wipe_acknowledged);
        record.folders = self.folders;
    }

    /// The last sign of life, if the phone's program reports any synchronisation at all.
    pub(super) fn last_seen(&self) -> Option<&str> {
        let sync = self.last_sync.as_deref()?;
        Some(self.last_attempt.as_deref().map_or(sync, |attempt| attempt.max(sync)))
    }
}

impl Wipes {
    /// Reads where the wipes of a phone stand.
    pub(super) fn read(object: &Object) -> Self {
        let times = |prefix: &str| WipeTimes {
            requested: instant(object, &format!("{prefix}RequestTime")),
            sent: instant(object, &format!("{prefix}SentTime")),
            acknowledged: instant(object, &format!("{prefix}AckTime")),
        };
        Self {
            status: text(object, "Status").map(|word| snake(&word)),
            full: times("DeviceWipe"),
            account_only: times("AccountOnlyDeviceWipe"),
        }
    }
}

/// Reads a policy: its key and the record.
pub(super) fn policy(object: &Object) -> Option<(String, DevicePolicyRecord)> {
    let name =
        text(object, "Name").or_else(|| text(object, "Identity").map(|identity| last_name(&identity)))?;
    let key = text(object, "Guid").map_or_else(|| name.clone(), |guid| guid.to_lowercase());
    let is_default = ["IsDefault", "IsDefaultPolicy"]
        .iter()
        .any(|it| object.get(it).and_then(Value::as_bool) == Some(true));
    let settings = settings(object);
    Some((key, DevicePolicyRecord { system: SYSTEM.to_owned(), name, is_default, settings }))
}

/// Reads the organisation's settings. `version` is what its servers say.
pub(super) fn organization(
    settings_of: Option<&Object>,
    name: String,
    version: String,
) -> MailOrganizationRecord {
    MailOrganizationRecord {
        system: SYSTEM.to_owned(),
        name,
        version,
        default_access: settings_of.and_then(default_access),
        settings: settings_of.map(settings).unwrap_or_default(),
    }
}

/// What happens to a phone nobody has decided about.
pub(super) fn default_access(object: &Object) -> Option<String> {
    Some(match snake(&text(object, "DefaultAccessLevel")?).as_str() {
        "allow" => access::ALLOWED.to_owned(),
        "block" => access::BLOCKED.to_owned(),
        "quarantine" => access::QUARANTINED.to_owned(),
        other => other.to_owned(),
    })
}

/// The year a server's version stands for.
pub(super) fn version(display: &str, server: &ServerFacts, title: &str) -> String {
    if server.online {
        return "online".to_owned();
    }
    for (prefix, year) in [
        ("Version 8.", "2007"),
        ("Version 14.", "2010"),
        ("Version 15.0 ", "2013"),
        ("Version 15.1 ", "2016"),
        ("Version 15.2 ", "2019"),
    ] {
        if display.starts_with(prefix) {
            return year.to_owned();
        }
    }
    title.trim_start_matches("Exchange ").to_owned()
}

/// Properties that say nothing about what a policy or an organisation is set to, or that differ with every answer.
const NOT_SETTINGS: &[&str] = &[
    "Identity",
    "Guid",
    "Id",
    "Name",
    "AdminDisplayName",
    "DistinguishedName",
    "ExchangeVersion",
    "ObjectCategory",
    "ObjectClass",
    "ObjectState",
    "OrganizationId",
    "OrganizationalUnitRoot",
    "OriginatingServer",
    "IsValid",
    "WhenChanged",
    "WhenChangedUTC",
    "WhenCreated",
    "WhenCreatedUTC",
    "SerializationData",
    "ExchangeObjectId",
];

fn settings(object: &Object) -> std::collections::BTreeMap<String, String> {
    let mut settings = causeway_protocol::cmdlet::properties(object);
    settings.retain(|name, value| {
        !NOT_SETTINGS.iter().any(|known| known.eq_ignore_ascii_case(name))
            && value.len() <= limits::VALUE_MAX_BYTES
    });
    settings
}

/// The owner's names in a partnership's identity and distinguished name.
fn owner_of(identity: &str, dn: Option<&str>) -> Vec<String> {
    let mut names = Vec::new();
    for separator in ['/', '\\'] {
        let marker = format!("{separator}{CONTAINER}{separator}");
        if let Some((owner, _)) = identity.rsplit_once(marker.as_str()) {
            names.push(owner.to_owned());
        }
    }
    if let Some((_, owner)) = dn.and_then(|dn| dn.split_once(&format!(",CN={CONTAINER},"))) {
        names.push(owner.to_owned());
    }
    names
}

/// A property as text.
pub(super) fn text(object: &Object, name: &str) -> Option<String> {
    object.text(name).map(|text| text.into_owned())
}

/// The last part of a canonical name (`acme.example/Berlin/Bob`).
pub(super) fn last_name(text: &str) -> String {
    // A slash within a name is written `\/`.
    let mut start = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'/' && (at == 0 || bytes[at - 1] != b'\\') {
            start = at + 1;
        }
    }
    text[start..].replace("\\/", "/")
}

/// `DeviceWipePending` to `device_wipe_pending`.
pub(super) fn snake(word: &str) -> String {
    let mut out = String::with_capacity(word.len() + 4);
    let mut before_is_lower = false;
    for c in word.chars() {
        if c.is_ascii_uppercase() && before_is_lower {
            out.push('_');
        }
        before_is_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c.is_whitespace() { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

/// A time in RFC 3339, UTC, whole seconds; what is no time is dropped, as is .NET's year one.
fn instant(object: &Object, name: &str) -> Option<String> {
    rfc3339(&text(object, name)?)
}

fn rfc3339(text: &str) -> Option<String> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339))
        .ok()?
        .to_offset(time::UtcOffset::UTC);
    if parsed.year() <= 1601 {
        return None;
    }
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    parsed.format(&format).ok()
}

/// Unix milliseconds of such a time.
pub(super) fn unix_ms(text: &str) -> Option<i64> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(parsed.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(properties: &[(&str, Value)]) -> Object {
        let adapted = properties.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        Object { adapted, ..Object::default() }
    }

    #[test]
    fn words_and_names() {
        assert_eq!(snake("DeviceWipePending"), "device_wipe_pending");
        assert_eq!(snake("Allowed"), "allowed");
        assert_eq!(snake("AppliedInFull"), "applied_in_full");
        assert_eq!(last_name("acme.example/Berlin/Bob \\/ Ann"), "Bob / Ann");
        assert_eq!(last_name("Default"), "Default");
        assert_eq!(rfc3339("2026-11-23T07:00:00.1234567+01:00").unwrap(), "2026-11-23T06:00:00Z");
        assert_eq!(rfc3339("2026-11-23T06:00:00").unwrap(), "2026-11-23T06:00:00Z");
        assert_eq!(rfc3339("0001-01-01T00:00:00Z"), None);
        assert_eq!(rfc3339("yesterday"), None);
        assert_eq!(unix_ms("1970-01-01T00:00:01Z"), Some(1_000));
    }

    #[test]
    fn owners_are_found_on_premises_and_online() {
        let owner = owner_of("acme.example/Users/Bob/ExchangeActiveSyncDevices/iPhone§Appl1", None);
        assert_eq!(owner, ["acme.example/Users/Bob"]);
        let owner = owner_of("bob\\ExchangeActiveSyncDevices\\REST§Outlook§12", None);
        assert_eq!(owner, ["bob"]);
        let dn = "CN=iPhone§Appl1,CN=ExchangeActiveSyncDevices,CN=Bob\\, Jr,OU=Users,DC=acme";
        assert_eq!(owner_of("x", Some(dn)), ["CN=Bob\\, Jr,OU=Users,DC=acme"]);
    }

    #[test]
    fn enums_read_alike_as_objects_and_as_text() {
        let state = Value::enumeration("x.DeviceAccessState", "Quarantined", 3);
        for state in [state, Value::from("Quarantined")] {
            let phone = Phone::read(&object(&[
                ("DeviceId", "Appl1".into()),
                ("Guid", Value::Guid("11111111-2222-3333-4444-555555555555".to_owned())),
                ("Identity", "acme.example/Bob/ExchangeActiveSyncDevices/iPhone§Appl1".into()),
                ("UserDisplayName", "acme.example/Bob".into()),
                ("DeviceAccessState", state),
                ("DeviceImei", "".into()),
            ]))
            .unwrap();
            assert_eq!(phone.record.access_state, access::QUARANTINED);
            assert_eq!(phone.record.imei, None);
            assert_eq!(phone.record.display_name.as_deref(), Some("Bob"));
            assert_eq!(phone.key.to_string(), "11111111-2222-3333-4444-555555555555");
        }
        assert!(Phone::read(&object(&[("Guid", "x".into())])).is_none());
    }

    #[test]
    fn a_phone_without_guid_has_a_key_of_its_own() {
        let phone = |id: &str| {
            let identity = format!("acme.example/Bob/ExchangeActiveSyncDevices/iPhone§{id}");
            Phone::read(&object(&[("DeviceId", id.into()), ("Identity", identity.into())])).unwrap().key
        };
        assert_eq!(phone("A1"), phone("A1"));
        assert_ne!(phone("A1"), phone("A2"));
    }

    #[test]
    fn lists_of_one_and_none_are_lists() {
        let both = object(&[
            ("ActiveSyncAllowedDeviceIDs", Value::list(vec!["A".into(), "B".into()])),
            ("ActiveSyncBlockedDeviceIDs", "C".into()),
        ]);
        let lists = Lists::read(&both);
        assert_eq!(
            (lists.allowed, lists.blocked),
            (vec!["A".to_owned(), "B".to_owned()], vec!["C".to_owned()])
        );
        assert_eq!(Lists::read(&object(&[("ActiveSyncAllowedDeviceIDs", Value::Null)])), Lists::default());
    }

    #[test]
    fn a_phone_that_reports_no_synchronisation_is_never_idle() {
        let statistics =
            Statistics { last_attempt: Some("2020-01-01T00:00:00Z".to_owned()), ..Statistics::default() };
        assert_eq!(statistics.last_seen(), None);
    }
}
