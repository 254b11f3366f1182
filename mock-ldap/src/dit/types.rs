//! The vocabulary in which a session talks to the directory: requests in, entries, failures and identities out.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::dit::encode::CompiledSelection;
use crate::filter::Filter;

/// Number of one object, the same on every server of a domain. Order of creation, so parents usually come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryId(pub u32);

/// An LDAP result code (RFC 4511 4.1.9). A number and not an enum: servers send codes nobody registered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ResultCode(pub u32);

impl ResultCode {
    pub const SUCCESS: Self = Self(0);
    pub const OPERATIONS_ERROR: Self = Self(1);
    pub const PROTOCOL_ERROR: Self = Self(2);
    pub const TIME_LIMIT_EXCEEDED: Self = Self(3);
    pub const SIZE_LIMIT_EXCEEDED: Self = Self(4);
    pub const COMPARE_FALSE: Self = Self(5);
    pub const COMPARE_TRUE: Self = Self(6);
    pub const AUTH_METHOD_NOT_SUPPORTED: Self = Self(7);
    pub const STRONGER_AUTH_REQUIRED: Self = Self(8);
    pub const REFERRAL: Self = Self(10);
    pub const ADMIN_LIMIT_EXCEEDED: Self = Self(11);
    pub const UNAVAILABLE_CRITICAL_EXTENSION: Self = Self(12);
    pub const CONFIDENTIALITY_REQUIRED: Self = Self(13);
    pub const SASL_BIND_IN_PROGRESS: Self = Self(14);
    pub const NO_SUCH_ATTRIBUTE: Self = Self(16);
    pub const UNDEFINED_ATTRIBUTE_TYPE: Self = Self(17);
    pub const INAPPROPRIATE_MATCHING: Self = Self(18);
    pub const CONSTRAINT_VIOLATION: Self = Self(19);
    pub const ATTRIBUTE_OR_VALUE_EXISTS: Self = Self(20);
    pub const INVALID_ATTRIBUTE_SYNTAX: Self = Self(21);
    pub const NO_SUCH_OBJECT: Self = Self(32);
    pub const INVALID_DN_SYNTAX: Self = Self(34);
    pub const INAPPROPRIATE_AUTHENTICATION: Self = Self(48);
    pub const INVALID_CREDENTIALS: Self = Self(49);
    pub const INSUFFICIENT_ACCESS_RIGHTS: Self = Self(50);
    pub const BUSY: Self = Self(51);
    pub const UNAVAILABLE: Self = Self(52);
    pub const UNWILLING_TO_PERFORM: Self = Self(53);
    pub const NAMING_VIOLATION: Self = Self(64);
    pub const OBJECT_CLASS_VIOLATION: Self = Self(65);
    pub const NOT_ALLOWED_ON_NON_LEAF: Self = Self(66);
    pub const NOT_ALLOWED_ON_RDN: Self = Self(67);
    pub const ENTRY_ALREADY_EXISTS: Self = Self(68);
    pub const OBJECT_CLASS_MODS_PROHIBITED: Self = Self(69);
    pub const AFFECTS_MULTIPLE_DSAS: Self = Self(71);
    pub const OTHER: Self = Self(80);
    /// e-syncRefreshRequired, RFC 4533 2.1.
    pub const SYNC_REFRESH_REQUIRED: Self = Self(4096);
}

/// What a server answers when it does not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct LdapFailure {
    pub code: ResultCode,
    pub matched_dn: String,
    pub message: String,
    pub referrals: Vec<String>,
    /// What the password policy response control says beside this code, for servers that have one.
    pub policy: PolicyWord,
}

impl LdapFailure {
    pub fn new(code: ResultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            matched_dn: String::new(),
            message: message.into(),
            referrals: Vec::new(),
            policy: PolicyWord::default(),
        }
    }

    pub fn matched(mut self, dn: impl Into<String>) -> Self {
        self.matched_dn = dn.into();
        self
    }
}

/// Content of the password policy response control (draft-behera-10 6.2) and of the older Netscape controls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyWord {
    /// 0 passwordExpired, 1 accountLocked, 2 changeAfterReset, ... 8 passwordInHistory.
    pub error: Option<u8>,
    pub time_before_expiration_secs: Option<u32>,
    pub grace_remaining: Option<u32>,
}

/// Who a connection is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Identity {
    #[default]
    Anonymous,
    /// An object of the directory.
    Entry { id: EntryId, dn: String },
    /// The administrator that is configured and has no entry (`rootdn`, `cn=Directory Manager`).
    Manager { dn: String },
}

impl Identity {
    /// The DN for logs and for the authorization identity; empty for anonymous.
    pub fn dn(&self) -> &str {
        match self {
            Self::Anonymous => "",
            Self::Entry { dn, .. } | Self::Manager { dn } => dn,
        }
    }
}

/// A bind that succeeded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    pub identity: Identity,
    /// Error 2 with success: only a password change is allowed on this connection.
    pub policy: PolicyWord,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scope {
    #[default]
    Base,
    OneLevel,
    Subtree,
    /// OpenLDAP's and 389-ds's `children` (value 3).
    Subordinate,
}

/// Which port was asked: the whole directory, or the partial attribute set of the Global Catalog.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum View {
    #[default]
    Domain,
    GlobalCatalog,
}

/// One search request as the directory needs it.
#[derive(Clone, Copy, Debug)]
pub struct SearchPlan<'a> {
    pub base: &'a [u8],
    pub scope: Scope,
    pub filter: &'a Filter,
    pub view: View,
    pub who: &'a Identity,
    /// SHOW_DELETED (417) or SHOW_RECYCLED (2064).
    pub show_deleted: bool,
    /// DOMAIN_SCOPE (1339): no continuation references.
    pub domain_scope: bool,
    /// SEARCH_OPTIONS (1340) flag 2: an empty base means every naming context.
    pub phantom_root: bool,
    /// Attribute scoped query (1504): answer the objects this attribute of the base object names.
    pub attribute_scope: Option<&'a str>,
    /// Stop after this many matches and say so; `usize::MAX` for no limit.
    pub count_max: usize,
}

/// What a search found, as numbers: the entries are encoded later, page by page.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// Parents before their children.
    pub ids: Vec<EntryId>,
    /// Continuation references (RFC 4511 4.5.3), as URL bodies without scheme: `host/DN`.
    pub references: Vec<String>,
    /// More than `count_max` entries matched.
    pub truncated: bool,
    /// Change number of the state that was searched.
    pub change_number: u64,
}

/// EXTENDED_DN (529): how the GUID and SID are written in front of each DN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExtendedDn {
    Hex,
    Text,
}

/// What of an entry is wanted. Build once per request and use for every entry: the names are resolved at first use.
#[derive(Debug, Default)]
pub struct Selection {
    /// As received: names with options, `*`, `+`, `1.1`, `@class`. Empty means all user attributes.
    pub attributes: Vec<String>,
    pub types_only: bool,
    pub extended_dn: Option<ExtendedDn>,
    pub view: View,
    /// Longer value lists are cut into ranges; 0 for servers that never do.
    pub values_max: usize,
    /// RANGE_RETRIEVAL_NOERR (1948).
    pub range_no_error: bool,
    /// Base-scope search: attributes such as tokenGroups are computed only then.
    pub base_scope: bool,
    pub who: Identity,
    pub(crate) compiled: OnceLock<CompiledSelection>,
}

impl Selection {
    pub fn new(attributes: Vec<String>) -> Self {
        Self { attributes, ..Self::default() }
    }
}

/// What a change does to one attribute (RFC 4511 4.6, RFC 4525).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModOp {
    Add,
    Delete,
    Replace,
    Increment,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Modification {
    pub op: ModOp,
    pub attribute: String,
    pub values: Vec<Vec<u8>>,
}

/// One write. DNs are bytes as received.
#[derive(Clone, PartialEq, Eq)]
pub enum WriteOp {
    Add { dn: Vec<u8>, attributes: Vec<(String, Vec<Vec<u8>>)> },
    Delete { dn: Vec<u8>, tree: bool },
    Modify { dn: Vec<u8>, changes: Vec<Modification>, permissive: bool },
    ModifyDn { dn: Vec<u8>, new_rdn: Vec<u8>, delete_old: bool, new_superior: Option<Vec<u8>> },
}

/// A write that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteDone {
    pub id: EntryId,
    pub change_number: u64,
    pub policy: PolicyWord,
}

/// DirSync request (MS-ADTS 3.1.1.3.4.1.3).
#[derive(Clone, Copy, Debug)]
pub struct DirSyncRequest<'a> {
    pub who: &'a Identity,
    pub base: &'a [u8],
    pub scope: Scope,
    pub filter: &'a Filter,
    pub selection: &'a Selection,
    /// The INTEGER of the control as it came; INCREMENTAL_VALUES is -2147483648 on the wire.
    pub flags: i64,
    /// A hint in the protocol; here also a bound on the page.
    pub bytes_max: usize,
    pub cookie: &'a [u8],
}

#[derive(Clone, Debug, Default)]
pub struct DirSyncPage {
    /// Encoded bodies (LDAPDN + PartialAttributeList in one SEQUENCE's content, as `encode_entry` writes them).
    pub entries: Vec<Bytes>,
    pub more: bool,
    pub cookie: Vec<u8>,
}

/// Content synchronization request (RFC 4533).
#[derive(Clone, Copy, Debug)]
pub struct SyncRequest<'a> {
    pub who: &'a Identity,
    pub base: &'a [u8],
    pub scope: Scope,
    pub filter: &'a Filter,
    pub cookie: Option<&'a [u8]>,
    /// The persist stage: the cookie is the session's own, so deletions are always explicit.
    pub persist: bool,
    /// reloadHint: rather a full refresh than e-syncRefreshRequired.
    pub reload: bool,
}

/// State of one entry in the Sync State control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncState {
    Present = 0,
    Add = 1,
    Modify = 2,
    Delete = 3,
}

/// How the refresh tells which entries are gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyncPhase {
    /// Everything not named in this batch is gone: `present` lists the unchanged entries.
    Present { present: Vec<[u8; 16]> },
    /// Exactly these are gone.
    Delete { deleted: Vec<[u8; 16]> },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncBatch {
    /// Entries to send, parents first, with their state and UUID.
    pub entries: Vec<(EntryId, SyncState, [u8; 16])>,
    pub phase: SyncPhase,
    /// Cookie that covers this batch.
    pub cookie: Vec<u8>,
    pub change_number: u64,
    /// Changes since a cookie as 389-ds reads them from its changelog: entries come with their user attributes whatever
    /// was asked for, and the end claims a present phase although there was none.
    pub from_changelog: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    Add,
    Delete,
    Modify,
    ModifyDn,
}

/// One change for persistent searches and notifications.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub number: u64,
    pub id: EntryId,
    pub kind: ChangeKind,
    /// DN after the change; before it for a deletion on servers without tombstones.
    pub dn: String,
    pub previous_dn: Option<String>,
    pub uuid: [u8; 16],
    /// The entry, as it is now (as it was, for a deletion), lies in scope and matches the filter.
    pub matches: bool,
}

/// What happened after a change number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    pub changes: Vec<Change>,
    /// Ask with this number next time.
    pub last: u64,
    /// The log no longer reaches back to the number asked: something may have been missed.
    pub gap: bool,
}

/// What a directory is built from.
#[derive(Clone, Debug)]
pub struct DirectorySpec {
    pub personality: crate::personality::Personality,
    pub servers: Vec<ServerSpec>,
    pub accounts: AccountPolicy,
    pub seed: u64,
    /// Whether people have mailboxes on Exchange.
    pub exchange: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerSpec {
    /// Short host name: `dc1`.
    pub name: String,
    /// How long a change made elsewhere takes to arrive here. Zero: at once. `None`: only when told.
    pub lag_ms: Option<u64>,
}

/// What an empty password in a simple bind with a name means (RFC 4513 5.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyPassword {
    /// invalidCredentials.
    Reject,
    /// Success, as anonymous: the trap that lets everyone in.
    Anonymous,
    /// unwillingToPerform, OpenLDAP's default.
    Unwilling,
}

/// Password and lockout rules of the domain.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountPolicy {
    /// Wrong passwords until the account is locked; 0 never locks. Default 5.
    pub lockout_threshold: u32,
    /// How long a lock lasts; 0 until an administrator opens it. Default 1800.
    pub lockout_duration_secs: u64,
    /// After this long without a failure the count starts again. Default 1800.
    pub lockout_window_secs: u64,
    /// Age at which a password expires; 0 never. Default 90 days.
    pub password_age_max_secs: u64,
    /// Default 7.
    pub password_length_min: u32,
    /// How long the password before the last change still opens the account. Default 0; AD ships with 3600.
    pub old_password_grace_secs: u64,
    /// Failures seen on another server are counted on the first one too (the PDC emulator). Default false.
    pub forward_failures: bool,
    /// Unset: the personality decides.
    pub empty_password: Option<EmptyPassword>,
    /// The service account holds DS-Replication-Get-Changes. Default true.
    pub service_may_replicate: bool,
    /// The service account may list CN=Deleted Objects. Default true.
    pub service_sees_deleted: bool,
    /// The service account may change the directory, so that tests can. Default true; a real one may not.
    pub service_may_write: bool,
}

impl Default for AccountPolicy {
    fn default() -> Self {
        Self {
            lockout_threshold: 5,
            lockout_duration_secs: 1800,
            lockout_window_secs: 1800,
            password_age_max_secs: 90 * 86_400,
            password_length_min: 7,
            old_password_grace_secs: 0,
            forward_failures: false,
            empty_password: None,
            service_may_replicate: true,
            service_sees_deleted: true,
            service_may_write: true,
        }
    }
}

/// What a client needs to sign in as the service account.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ServiceLogin {
    pub dn: String,
    pub upn: String,
    /// `ACME\svc-causeway`; the DN where the personality has no such form.
    pub user: String,
    pub password: String,
}
