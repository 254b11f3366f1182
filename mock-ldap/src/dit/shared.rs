//! What all servers of one directory have in common: schema, names, policy, clock, and the sources of new numbers.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use causeway_mock_kit::Clock;
use causeway_mock_kit::world::mix_two;

use super::csn::Csn;
use super::matching::Folding;
use super::schema::{AttrId, Schema};
use super::types::{AccountPolicy, EntryId};
use crate::personality::Personality;

/// Names that follow from the company and the personality.
#[derive(Clone, Debug, Default)]
pub(crate) struct Naming {
    /// `acme.example`
    pub(crate) domain: String,
    /// `ACME`
    pub(crate) netbios: String,
    /// Suffix that holds the people.
    pub(crate) base: String,
    /// Active Directory's other naming contexts; empty elsewhere.
    pub(crate) configuration: String,
    pub(crate) schema: String,
    /// Subschema subentry.
    pub(crate) subschema: String,
    /// Administrator without entry; empty when there is none.
    pub(crate) manager: String,
    pub(crate) organisation: String,
}

/// Objects the code has to find again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Landmarks {
    pub(crate) base: Option<EntryId>,
    pub(crate) service: Option<EntryId>,
    /// Members of these may do everything.
    pub(crate) admin_groups: Vec<EntryId>,
    pub(crate) administrator: Option<EntryId>,
    /// (GUID of MS-ADTS 6.1.1.4, the container).
    pub(crate) well_known: Vec<([u8; 16], EntryId)>,
    pub(crate) deleted_objects: Option<EntryId>,
    pub(crate) lost_and_found: Option<EntryId>,
    /// NTDS Settings object of each server, in order.
    pub(crate) dsa: Vec<EntryId>,
    /// The people: first number, and how many follow it.
    pub(crate) people: (u32, u32),
}

/// One source of changes: a server between two restores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    pub(crate) invocation: [u8; 16],
    pub(crate) server: usize,
    pub(crate) retired: bool,
}

pub(crate) struct Shared {
    pub(crate) personality: Personality,
    pub(crate) schema: Arc<Schema>,
    pub(crate) folding: Folding,
    pub(crate) clock: Clock,
    pub(crate) naming: Naming,
    pub(crate) known: Known,
    pub(crate) landmarks: Landmarks,
    pub(crate) accounts: RwLock<AccountPolicy>,
    pub(crate) may_replicate: AtomicBool,
    pub(crate) origins: RwLock<Vec<Origin>>,
    pub(crate) domain_sid: Vec<u8>,
    pub(crate) passwords: super::account::InitialPasswords,
    pub(crate) seed: u64,
    pub(crate) server_names: Vec<String>,
    pub(crate) next_id: AtomicU32,
    pub(crate) next_rid: AtomicU32,
    pub(crate) next_uuid: AtomicU64,
    pub(crate) last_stamp: Mutex<(i64, u32)>,
}

impl Shared {
    pub(crate) fn accounts(&self) -> AccountPolicy {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn origins(&self) -> Vec<Origin> {
        self.origins.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A stamp later than every one before.
    pub(crate) fn stamp(&self, origin: u16) -> Csn {
        let mut last = self.last_stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now_ms();
        *last = if now > last.0 { (now, 0) } else { (last.0, last.1 + 1) };
        Csn { at_ms: last.0, count: last.1, origin }
    }

    /// Milliseconds and count of the latest stamp given out.
    pub(crate) fn newest_stamp(&self) -> (i64, u32) {
        *self.last_stamp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new_id(&self) -> EntryId {
        EntryId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn new_uuid(&self) -> [u8; 16] {
        uuid_from(self.seed, self.next_uuid.fetch_add(1, Ordering::Relaxed))
    }

    /// A new security identifier of the domain.
    pub(crate) fn new_sid(&self) -> Vec<u8> {
        self.sid(self.next_rid.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn sid(&self, rid: u32) -> Vec<u8> {
        sid_in_domain(&self.domain_sid, rid)
    }

    pub(crate) fn text(&self, reason: &str, values: &[(&str, &str)]) -> String {
        self.personality.text(reason, values)
    }

    /// `dc1.acme.example`
    pub(crate) fn host_name(&self, server: usize) -> String {
        format!("{}.{}", self.server_names.get(server).map_or("", String::as_str), self.naming.domain)
    }
}

/// Version 4 layout (RFC 9562 5.4) from a seed and a count, so that a run repeats itself.
pub(crate) fn uuid_from(seed: u64, count: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix_two(seed ^ 0x0b1e, count).to_be_bytes());
    bytes[8..].copy_from_slice(&mix_two(seed ^ 0xd1d5, count).to_be_bytes());
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

pub(crate) use causeway_mock_kit::world::domain_sid;

pub(crate) fn sid_in_domain(domain: &[u8], rid: u32) -> Vec<u8> {
    let mut sid = domain.to_vec();
    sid[1] += 1;
    sid.extend_from_slice(&rid.to_le_bytes());
    sid
}

macro_rules! known {
    ($($field:ident = $name:literal),* $(,)?) => {
        /// Attributes the code names, resolved once; `None` where the personality has no such attribute.
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Known { $(pub(crate) $field: Option<AttrId>),* }
        impl Known {
            pub(crate) fn resolve(schema: &Schema) -> Self {
                Self { $($field: schema.find($name)),* }
            }
        }
    };
}

known! {
    object_class = "objectClass", cn = "cn", uid = "uid", mail = "mail", display_name = "displayName",
    member = "member", user_password = "userPassword", unicode_pwd = "unicodePwd",
    object_sid = "objectSid", sam_account_name = "sAMAccountName", user_principal_name = "userPrincipalName",
    user_account_control = "userAccountControl", primary_group = "primaryGroupID", group_type = "groupType",
    pwd_last_set = "pwdLastSet", account_expires = "accountExpires", lockout_time = "lockoutTime",
    logon_hours = "logonHours", last_logon_timestamp = "lastLogonTimestamp", last_known_parent = "lastKnownParent",
    instance_type = "instanceType", service_principal_name = "servicePrincipalName", name = "name",
    object_guid = "objectGUID", is_deleted = "isDeleted",
    invocation_id = "invocationId", tombstone_lifetime = "tombstoneLifetime", object_category = "objectCategory",
    pwd_changed = "pwdChangedTime", pwd_locked = "pwdAccountLockedTime", pwd_reset = "pwdReset",
    pwd_end = "pwdEndTime", ns_account_lock = "nsAccountLock", account_unlock = "accountUnlockTime",
    password_expiration = "passwordExpirationTime", login_disabled = "loginDisabled",
    login_expiration = "loginExpirationTime", login_time_map = "loginAllowedTimeMap",
    intruder_reset = "loginIntruderResetTime", full_name = "FullName", short_name = "ShortName",
    parent_guid = "parentGUID", given_name = "givenName", sn = "sn", alt_security = "altSecurityIdentities",
    sam_account_type = "sAMAccountType",
}
