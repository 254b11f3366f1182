//! What differs between directory products, as data (`personalities.toml`), and how a product is recognised.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use causeway_protocol::auth::AuthOutcome;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::discover::RootDse;
use super::filter::Filter;
use super::guid::IdCodec;

/// How one product spells things.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Personality {
    /// Name of the table; set after reading.
    #[serde(skip)]
    pub name: String,
    /// The attribute that never changes.
    pub id: IdAttribute,
    /// Finds people's accounts.
    pub user_filter: String,
    /// Finds groups.
    pub group_filter: String,
    /// Finds organisational units and containers.
    pub ou_filter: String,
    /// Finds all of them, changed or deleted.
    pub change_filter: String,
    /// Object classes of people ...
    pub user_classes: Vec<String>,
    /// ... unless they are one of these too.
    #[serde(default)]
    pub not_user_classes: Vec<String>,
    /// Object classes of groups.
    pub group_classes: Vec<String>,
    /// Object classes of units and containers.
    pub ou_classes: Vec<String>,
    /// Login name, first one set wins.
    pub login: Vec<String>,
    /// userPrincipalName, where there is one.
    #[serde(default)]
    pub upn: Option<String>,
    /// Name for people, first one set wins.
    pub display_name: Vec<String>,
    /// Given name.
    pub given_name: String,
    /// Family name.
    pub surname: String,
    /// Mail address.
    pub mail: String,
    /// Further addresses as `smtp:address`, where there are any.
    #[serde(default)]
    pub proxy_addresses: Option<String>,
    /// Name of a group, first one set wins.
    pub group_name: Vec<String>,
    /// Name of a unit, first one set wins.
    pub ou_name: Vec<String>,
    /// Where members are listed.
    pub members: Vec<MemberAttribute>,
    /// Where a user's primary group is, by relative id.
    #[serde(default)]
    pub primary_group: Option<String>,
    /// Security identifier, for relative ids.
    #[serde(default)]
    pub sid: Option<String>,
    /// groupType of Active Directory.
    #[serde(default)]
    pub group_type: Option<String>,
    /// What makes an account disabled.
    #[serde(default)]
    pub disabled: Option<DisabledRule>,
    /// Whether lists of members follow a member that is renamed or deleted, without the group counting as changed (the
    /// linked attributes of Active Directory). Elsewhere names go stale, unless an overlay repairs them.
    #[serde(default)]
    pub members_follow: bool,
    /// Ways to learn of changes, best first.
    pub strategies: Vec<Strategy>,
    /// Whether a syncrepl cookie may be used with another filter than it was made with.
    #[serde(default)]
    pub syncrepl_any_filter: bool,
    /// Whether content synchronisation, once it has a cookie, tells ids and no more: entries come without the attributes
    /// that were asked for, what leaves the filter is not told, and the end claims a present phase that never was
    /// (389-ds, measured).
    #[serde(default)]
    pub syncrepl_ids_only: bool,
    /// Whether binds carry the password policy control (draft-behera-10).
    #[serde(default)]
    pub password_policy: bool,
    /// Where the lockout policy is, on the domain head.
    #[serde(default)]
    pub lockout: Option<LockoutAttributes>,
    /// What refused binds mean, first match wins.
    pub bind_errors: Vec<BindRule>,
}

/// The attribute that never changes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdAttribute {
    /// Its name.
    pub attribute: String,
    /// Its spelling.
    pub codec: IdCodec,
}

/// An attribute that lists members.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberAttribute {
    /// Its name.
    pub attribute: String,
    /// What its values are.
    pub names: MemberNames,
}

/// What member values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberNames {
    /// Distinguished names.
    Dn,
    /// Logins (RFC 2307 memberUid).
    Login,
}

/// What makes an account disabled: a bit of a number, or a value.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisabledRule {
    /// The attribute.
    pub attribute: String,
    /// All these bits set.
    #[serde(default)]
    pub bit: Option<u32>,
    /// This value, ignoring case.
    #[serde(default)]
    pub value: Option<String>,
}

/// Attributes of the domain's lockout policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockoutAttributes {
    /// Failures that lock; 0 for never.
    pub threshold: String,
    /// Window in which they count, as a negative number of 100 ns.
    pub window: String,
}

/// What a refused bind means.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindRule {
    /// This result code; any when absent.
    #[serde(default)]
    pub code: Option<u32>,
    /// This text in the diagnostic message, ignoring case; any when absent.
    #[serde(default)]
    pub contains: Option<String>,
    /// What it means.
    pub outcome: AuthOutcome,
}

/// A way to learn of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// DirSync control of Active Directory.
    Dirsync,
    /// Polling uSNChanged of one domain controller.
    Usn,
    /// Content synchronisation (RFC 4533), refreshOnly.
    Syncrepl,
    /// Retro changelog below `cn=changelog`.
    Changelog,
    /// Reading everything and comparing hashes.
    Scan,
}

impl Strategy {
    /// The word in settings and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dirsync => "dirsync",
            Self::Usn => "usn",
            Self::Syncrepl => "syncrepl",
            Self::Changelog => "changelog",
            Self::Scan => "scan",
        }
    }
}

static TABLE: LazyLock<BTreeMap<String, Value>> =
    LazyLock::new(|| toml::from_str(include_str!("personalities.toml")).expect("the table is TOML; tested"));

impl Personality {
    /// The personality of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::with(name, &BTreeMap::new())
    }

    /// The personality of that name, with fields replaced.
    pub fn with(name: &str, overrides: &BTreeMap<String, Value>) -> Option<Self> {
        let mut fields = TABLE.get(name)?.clone();
        let table = fields.as_object_mut().expect("every personality is a table; tested");
        table.extend(overrides.iter().map(|(key, value)| (key.clone(), value.clone())));
        let mut read: Self = serde_json::from_value(fields).ok()?;
        read.name = name.to_owned();
        Some(read)
    }

    /// Whether overrides fit.
    pub(super) fn check_overrides(overrides: &BTreeMap<String, Value>) -> Result<(), String> {
        let mut fields = TABLE["active_directory"].clone();
        let table = fields.as_object_mut().expect("every personality is a table; tested");
        table.extend(overrides.iter().map(|(key, value)| (key.clone(), value.clone())));
        let read: Self = serde_json::from_value(fields).map_err(|error| error.to_string())?;
        for text in [&read.user_filter, &read.group_filter, &read.ou_filter, &read.change_filter] {
            Filter::parse(text).map_err(|error| format!("{text}: {error}"))?;
        }
        Ok(())
    }

    /// Recognises the product. What it can do is asked of the rootDSE, never inferred from the name.
    pub fn detect(root: &RootDse) -> &'static str {
        /// Capabilities of AD DS and AD LDS (MS-ADTS 3.1.1.3.4.3).
        const ACTIVE_DIRECTORY: &str = "1.2.840.113556.1.4.800";
        const LIGHTWEIGHT: &str = "1.2.840.113556.1.4.1851";
        let vendor = root.vendor.to_ascii_lowercase();
        let is = |word: &str| vendor.contains(word);
        if root.capabilities.iter().any(|oid| oid == ACTIVE_DIRECTORY || oid == LIGHTWEIGHT) || is("samba") {
            "active_directory"
        } else if root.object_classes.iter().any(|class| class.eq_ignore_ascii_case("OpenLDAProotDSE")) {
            "openldap"
        } else if is("389 project") || is("red hat") || is("oracle") || is("sun microsystems") || is("fedora")
        {
            "ds389"
        } else if is("novell") || is("netiq") || is("opentext") {
            "edirectory"
        } else if is("lotus") || is("hcl") || is("ibm") {
            "domino"
        } else {
            "openldap"
        }
    }

    /// A filter of the table.
    pub fn filter(text: &str) -> Filter {
        Filter::parse(text).expect("filters are checked when settings are read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_personality_reads_and_its_filters_parse() {
        assert_eq!(TABLE.len(), 5);
        for name in TABLE.keys() {
            let read = Personality::named(name).unwrap_or_else(|| panic!("{name} does not read"));
            for text in [&read.user_filter, &read.group_filter, &read.ou_filter, &read.change_filter] {
                Filter::parse(text).unwrap_or_else(|error| panic!("{name}: {text}: {error}"));
            }
            assert_eq!(read.strategies.last(), Some(&Strategy::Scan), "{name} always has a way");
        }
    }

    #[test]
    fn tombstones_still_match_the_change_filter() {
        let filter = Personality::named("active_directory").unwrap().change_filter;
        assert!(!filter.contains("objectCategory") && !filter.contains("sAMAccountType"));
    }
}
