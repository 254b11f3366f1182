//! Mailboxes and the people who own them.

use super::policy::PolicyId;
use super::versioned::Versioned;

/// A mailbox: the position of its owner among the people of the company.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxId(pub(super) u32);

/// What client access knows of a mailbox (`CASMailbox`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CasSettings {
    pub active_sync_enabled: bool,
    pub owa_enabled: bool,
    pub pop_enabled: bool,
    pub imap_enabled: bool,
    pub mapi_enabled: bool,
    pub ews_enabled: bool,
    pub owa_for_devices_enabled: bool,
    pub active_sync_debug_logging: bool,
    /// Absent: the organisation's default policy.
    pub policy: Option<PolicyId>,
    pub allowed: Vec<Box<str>>,
    pub blocked: Vec<Box<str>>,
    pub changed_ms: i64,
}

/// One mailbox.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    pub(super) cas: Versioned<CasSettings>,
    /// Index into the databases of the organisation.
    pub(super) database: u16,
    /// Its partnerships, in the order they came.
    pub(super) partnerships: Vec<super::device::PartnershipId>,
    /// Where it has gone, for a mailbox that has moved: the URL of its ActiveSync.
    pub(super) moved_to: Option<Box<str>>,
}
