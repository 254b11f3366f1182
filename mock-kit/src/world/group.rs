//! Groups of the generated company.

use serde::Serialize;

/// A group.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name, unescaped and unique in the company.
    pub name: String,
    /// What it is for.
    pub kind: GroupKind,
    /// Where it can be used (MS-ADTS 6.1.4.x groupType).
    pub scope: GroupScope,
    /// Its members; may lead back to the group itself.
    pub members: Vec<Member>,
    /// Index of the unit it is in.
    pub ou: usize,
    /// Object GUID.
    pub guid: [u8; 16],
    /// Relative identifier, unique in the company.
    pub rid: u32,
    /// What it is for, in words.
    pub description: String,
    /// Mail address of a distribution group.
    pub mail: Option<String>,
    /// Unix milliseconds.
    pub created_ms: i64,
}

/// What a group is for.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// Grants rights.
    Security,
    /// Spreads mail.
    Distribution,
}

/// Where a group can be used.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum GroupScope {
    /// In every trusting domain, members from its own.
    Global,
    /// In its own domain, members from anywhere.
    DomainLocal,
    /// Everywhere in the forest.
    Universal,
}

/// A member of a group.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Member {
    /// Index into the people.
    Person(u32),
    /// Index into the groups.
    Group(u32),
}
