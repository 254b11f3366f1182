//! Records: what a directory or a mail system looks like to the cloud. One JSON object a line (NDJSON) inside an upload batch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What happened to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// It exists and looks like this.
    Upsert,
    /// It is gone (or out of scope).
    Delete,
}

/// What kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An organisational unit or container.
    Ou,
    /// A person's account.
    User,
    /// A group.
    Group,
    /// One direct membership: `key` is the group, `member` the user or group in it.
    Member,
    /// A phone in a mailbox.
    Device,
    /// A policy for phones.
    DevicePolicy,
    /// A mail system.
    MailOrganization,
}

impl Kind {
    /// Every kind there is, in the order of the enum.
    pub const ALL: [Self; 7] = [
        Self::Ou,
        Self::User,
        Self::Group,
        Self::Member,
        Self::Device,
        Self::DevicePolicy,
        Self::MailOrganization,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ou => "ou",
            Self::User => "user",
            Self::Group => "group",
            Self::Member => "member",
            Self::Device => "device",
            Self::DevicePolicy => "device_policy",
            Self::MailOrganization => "mail_organization",
        }
    }
}

/// One line of a batch. Within one upload a (kind, key, member) appears at most once, so batches may be applied in
/// any order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What happened.
    pub op: Op,
    /// To what kind of object.
    pub kind: Kind,
    /// The system's stable id (objectGUID, entryUUID, nsUniqueId, the Guid of a mobile device ...) as text; never a DN.
    pub key: String,
    /// For [`Kind::Member`]: the member's stable id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// The object, for an upsert of anything but a membership: [`OuRecord`], [`UserRecord`], [`GroupRecord`]
    /// or one of [`crate::mobile`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v: Option<Box<RawValue>>,
}

/// An organisational unit or container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OuRecord {
    /// Name within the parent.
    pub name: String,
    /// Where it is.
    pub dn: String,
    /// Stable id of the parent, if the parent is in scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// A person's account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserRecord {
    /// Login name (sAMAccountName, uid, cn ...).
    pub login: String,
    /// Where it is.
    pub dn: String,
    /// Stable id of the unit it is in, if that is in scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Whether the account can be used; false for disabled accounts.
    pub enabled: bool,
    /// userPrincipalName, where the directory has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upn: Option<String>,
    /// Name for people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Given name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_name: Option<String>,
    /// Family name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surname: Option<String>,
    /// Mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// Further attributes that the customer allowed, by directory name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Vec<String>>,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupRecord {
    /// Name.
    pub name: String,
    /// Where it is.
    pub dn: String,
    /// Stable id of the unit it is in, if that is in scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Mail address of a distribution list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// Whether it grants rights (security group) or only receives mail.
    pub security: bool,
}
