//! Values of the controls this server knows: request values are decoded, response values encoded.

use bytes::BytesMut;

use crate::ber::{self, BerError, Reader};
use crate::dit::SyncState;
use crate::limits::SORT_KEYS_MAX;
use crate::message::{RequestControl, ResponseControl};

/// Control and message OIDs. Names for 1.2.840.113556.1.4.* are those of MS-ADTS 3.1.1.3.4.1.
pub mod oid {
    pub const PAGED: &str = "1.2.840.113556.1.4.319";
    pub const SHOW_DELETED: &str = "1.2.840.113556.1.4.417";
    pub const SORT_REQUEST: &str = "1.2.840.113556.1.4.473";
    pub const SORT_RESPONSE: &str = "1.2.840.113556.1.4.474";
    pub const NOTIFICATION: &str = "1.2.840.113556.1.4.528";
    pub const EXTENDED_DN: &str = "1.2.840.113556.1.4.529";
    pub const SD_FLAGS: &str = "1.2.840.113556.1.4.801";
    pub const TREE_DELETE: &str = "1.2.840.113556.1.4.805";
    pub const DIRSYNC: &str = "1.2.840.113556.1.4.841";
    pub const DOMAIN_SCOPE: &str = "1.2.840.113556.1.4.1339";
    pub const SEARCH_OPTIONS: &str = "1.2.840.113556.1.4.1340";
    pub const PERMISSIVE_MODIFY: &str = "1.2.840.113556.1.4.1413";
    pub const ASQ: &str = "1.2.840.113556.1.4.1504";
    pub const RANGE_NO_ERROR: &str = "1.2.840.113556.1.4.1948";
    pub const SHOW_RECYCLED: &str = "1.2.840.113556.1.4.2064";
    pub const MANAGE_DSA_IT: &str = "2.16.840.1.113730.3.4.2";
    pub const PERSISTENT_SEARCH: &str = "2.16.840.1.113730.3.4.3";
    pub const ENTRY_CHANGE: &str = "2.16.840.1.113730.3.4.7";
    pub const VLV_REQUEST: &str = "2.16.840.1.113730.3.4.9";
    pub const VLV_RESPONSE: &str = "2.16.840.1.113730.3.4.10";
    pub const SYNC_REQUEST: &str = "1.3.6.1.4.1.4203.1.9.1.1";
    pub const SYNC_STATE: &str = "1.3.6.1.4.1.4203.1.9.1.2";
    pub const SYNC_DONE: &str = "1.3.6.1.4.1.4203.1.9.1.3";
    pub const SYNC_INFO: &str = "1.3.6.1.4.1.4203.1.9.1.4";
    pub const PASSWORD_POLICY: &str = "1.3.6.1.4.1.42.2.27.8.5.1";
}

/// Everything the controls of one request say. Unknown controls that are critical are kept by OID: their presence
/// fails the operation (RFC 4511 section 4.1.11).
#[derive(Debug, Default)]
pub struct Controls<'a> {
    pub paged: Option<Paged<'a>>,
    pub sort: Option<Vec<SortKey>>,
    /// The sort control was critical: an order that cannot be made fails the search (RFC 2891 section 2).
    pub sort_critical: bool,
    pub vlv: Option<Vlv<'a>>,
    pub dirsync: Option<DirSync<'a>>,
    pub sync: Option<SyncRequest<'a>>,
    pub persistent: Option<PersistentSearch>,
    /// SD_FLAGS; descriptors are not simulated, the control is accepted.
    pub sd_flags: Option<i64>,
    /// EXTENDED_DN: `Some(false)` hexadecimal, `Some(true)` string form.
    pub extended_dn: Option<bool>,
    pub asq: Option<String>,
    pub notification: bool,
    pub show_deleted: bool,
    pub show_recycled: bool,
    pub domain_scope: bool,
    pub phantom_root: bool,
    pub tree_delete: bool,
    pub permissive_modify: bool,
    pub range_no_error: bool,
    pub manage_dsa_it: bool,
    pub password_policy: bool,
    pub unknown_critical: Option<String>,
}

/// RFC 2696 section 2.
#[derive(Debug, Clone, Copy)]
pub struct Paged<'a> {
    /// Entries wanted; 0 with a cookie gives the result set up.
    pub size: u32,
    pub cookie: &'a [u8],
}

/// RFC 2891 section 1.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    pub attribute: String,
    pub rule: Option<String>,
    pub reverse: bool,
}

/// draft-ietf-ldapext-ldapv3-vlv-09 section 6.1.
#[derive(Debug, Clone, Copy)]
pub struct Vlv<'a> {
    pub before: u32,
    pub after: u32,
    pub target: VlvTarget<'a>,
}

#[derive(Debug, Clone, Copy)]
pub enum VlvTarget<'a> {
    /// `offset` counts from 1 within a list the client believes to hold `count` entries (0 = it does not know).
    Offset {
        offset: u32,
        count: u32,
    },
    GreaterOrEqual(&'a [u8]),
}

/// MS-ADTS 3.1.1.3.4.1.3.
#[derive(Debug, Clone, Copy)]
pub struct DirSync<'a> {
    /// Bit field as it came; INCREMENTAL_VALUES arrives as a negative INTEGER.
    pub flags: i64,
    pub max_bytes: u32,
    pub cookie: &'a [u8],
}

/// RFC 4533 section 2.2.
#[derive(Debug, Clone, Copy)]
pub struct SyncRequest<'a> {
    pub persist: bool,
    pub cookie: Option<&'a [u8]>,
    pub reload_hint: bool,
}

/// draft-ietf-ldapext-psearch-03 section 3.
#[derive(Debug, Clone, Copy)]
pub struct PersistentSearch {
    /// Bits: 1 add, 2 delete, 4 modify, 8 modDN.
    pub change_types: u8,
    pub changes_only: bool,
    pub return_ecs: bool,
}

/// Decodes the controls whose OID `supported` accepts; others are ignored or, when critical, remembered.
pub fn decode<'a>(
    received: &[RequestControl<'a>],
    supported: impl Fn(&str) -> bool,
) -> Result<Controls<'a>, BerError> {
    let mut controls = Controls::default();
    for control in received {
        let oid = String::from_utf8_lossy(control.oid);
        let known = supported(&oid) && apply(&mut controls, &oid, control.value)?;
        controls.sort_critical |= control.critical && oid == oid::SORT_REQUEST;
        if !known && control.critical && controls.unknown_critical.is_none() {
            controls.unknown_critical = Some(oid.into_owned());
        }
    }
    Ok(controls)
}

/// Takes over one control; false when this program does not implement it.
fn apply<'a>(controls: &mut Controls<'a>, oid: &str, value: Option<&'a [u8]>) -> Result<bool, BerError> {
    match oid {
        oid::PAGED => controls.paged = Some(paged(sequence(value)?)?),
        oid::SORT_REQUEST => controls.sort = Some(sort_keys(sequence(value)?)?),
        oid::VLV_REQUEST => controls.vlv = Some(vlv(sequence(value)?)?),
        oid::DIRSYNC => controls.dirsync = Some(dirsync(sequence(value)?)?),
        oid::SYNC_REQUEST => controls.sync = Some(sync_request(sequence(value)?)?),
        oid::PERSISTENT_SEARCH => controls.persistent = Some(persistent(sequence(value)?)?),
        oid::SD_FLAGS => controls.sd_flags = Some(sequence(value)?.integer()?),
        oid::EXTENDED_DN => controls.extended_dn = Some(extended_dn(value)?),
        oid::ASQ => {
            controls.asq = Some(String::from_utf8_lossy(sequence(value)?.octets()?).to_ascii_lowercase());
        }
        oid::SEARCH_OPTIONS => {
            let flags = sequence(value)?.integer()?;
            controls.domain_scope |= flags & 1 != 0;
            controls.phantom_root |= flags & 2 != 0;
        }
        oid::NOTIFICATION => controls.notification = true,
        oid::SHOW_DELETED => controls.show_deleted = true,
        oid::SHOW_RECYCLED => (controls.show_deleted, controls.show_recycled) = (true, true),
        oid::DOMAIN_SCOPE => controls.domain_scope = true,
        oid::TREE_DELETE => controls.tree_delete = true,
        oid::PERMISSIVE_MODIFY => controls.permissive_modify = true,
        oid::RANGE_NO_ERROR => controls.range_no_error = true,
        oid::MANAGE_DSA_IT => controls.manage_dsa_it = true,
        oid::PASSWORD_POLICY => controls.password_policy = true,
        _ => return Ok(false),
    }
    Ok(true)
}

fn sequence(value: Option<&[u8]>) -> Result<Reader<'_>, BerError> {
    Reader::new(value.ok_or(BerError::Truncated)?).nested(ber::SEQUENCE)
}

fn count(value: i64) -> Result<u32, BerError> {
    u32::try_from(value).map_err(|_| BerError::BadInteger { bytes: 8 })
}

fn paged(mut value: Reader<'_>) -> Result<Paged<'_>, BerError> {
    Ok(Paged { size: count(value.integer()?)?, cookie: value.octets()? })
}

fn sort_keys(mut value: Reader<'_>) -> Result<Vec<SortKey>, BerError> {
    let mut keys = Vec::new();
    while !value.is_empty() {
        if keys.len() == SORT_KEYS_MAX {
            return Err(BerError::TooDeep { limit: SORT_KEYS_MAX });
        }
        let mut key = value.nested(ber::SEQUENCE)?;
        keys.push(SortKey {
            attribute: String::from_utf8_lossy(key.octets()?).to_ascii_lowercase(),
            rule: key.optional(0x80)?.map(|rule| String::from_utf8_lossy(rule).into_owned()),
            reverse: key.optional(0x81)?.map(ber::parse_boolean).transpose()?.unwrap_or(false),
        });
    }
    Ok(keys)
}

fn vlv(mut value: Reader<'_>) -> Result<Vlv<'_>, BerError> {
    let (before, after) = (count(value.integer()?)?, count(value.integer()?)?);
    let target = match value.peek().ok_or(BerError::Truncated)? {
        0xa0 => {
            let mut offset = value.nested(0xa0)?;
            VlvTarget::Offset { offset: count(offset.integer()?)?, count: count(offset.integer()?)? }
        }
        _ => VlvTarget::GreaterOrEqual(value.expect(0x81)?),
    };
    Ok(Vlv { before, after, target })
}

fn dirsync(mut value: Reader<'_>) -> Result<DirSync<'_>, BerError> {
    let flags = value.integer()?;
    let max_bytes = value.integer()?.clamp(0, i64::from(u32::MAX)) as u32;
    Ok(DirSync { flags, max_bytes, cookie: value.octets()? })
}

fn sync_request(mut value: Reader<'_>) -> Result<SyncRequest<'_>, BerError> {
    let persist = value.enumerated()? == 3;
    let cookie = value.optional(ber::OCTET_STRING)?;
    let reload_hint = value.optional(ber::BOOLEAN)?.map(ber::parse_boolean).transpose()?.unwrap_or(false);
    Ok(SyncRequest { persist, cookie, reload_hint })
}

fn persistent(mut value: Reader<'_>) -> Result<PersistentSearch, BerError> {
    Ok(PersistentSearch {
        change_types: value.integer()? as u8,
        changes_only: value.boolean()?,
        return_ecs: value.boolean()?,
    })
}

fn extended_dn(value: Option<&[u8]>) -> Result<bool, BerError> {
    match value {
        None | Some([]) => Ok(false),
        Some(_) => Ok(sequence(value)?.integer()? == 1),
    }
}

fn response(oid: &'static str, content: impl FnOnce(&mut BytesMut)) -> ResponseControl {
    let mut value = BytesMut::new();
    ber::constructed(&mut value, ber::SEQUENCE, content);
    ResponseControl { oid, value: Some(value.to_vec()) }
}

/// RFC 2696: `estimate` is the total the server guesses, 0 when it does not; an empty cookie ends the set.
pub fn paged_response(estimate: u32, cookie: &[u8]) -> ResponseControl {
    response(oid::PAGED, |out| {
        ber::put_integer(out, ber::INTEGER, i64::from(estimate));
        ber::put_octets(out, cookie);
    })
}

/// RFC 2891 section 1.2: `failed` names the attribute that could not be sorted by.
pub fn sort_response(code: u32, failed: Option<&str>) -> ResponseControl {
    response(oid::SORT_RESPONSE, |out| {
        ber::put_integer(out, ber::ENUMERATED, i64::from(code));
        if let Some(attribute) = failed {
            ber::primitive(out, 0x80, attribute.as_bytes());
        }
    })
}

/// draft-ietf-ldapext-ldapv3-vlv-09 section 6.2.
pub fn vlv_response(position: u32, content_count: u32, code: u32) -> ResponseControl {
    response(oid::VLV_RESPONSE, |out| {
        ber::put_integer(out, ber::INTEGER, i64::from(position));
        ber::put_integer(out, ber::INTEGER, i64::from(content_count));
        ber::put_integer(out, ber::ENUMERATED, i64::from(code));
    })
}

/// The first INTEGER of the answer says whether more is waiting, the second is unused.
pub fn dirsync_response(more: bool, cookie: &[u8]) -> ResponseControl {
    response(oid::DIRSYNC, |out| {
        ber::put_integer(out, ber::INTEGER, i64::from(more));
        ber::put_integer(out, ber::INTEGER, 0);
        ber::put_octets(out, cookie);
    })
}

/// The answer to an attribute-scoped query: `code` is 0 or why the source attribute could not be followed.
pub fn asq_response(code: u32) -> ResponseControl {
    response(oid::ASQ, |out| ber::put_integer(out, ber::ENUMERATED, i64::from(code)))
}

/// Sync State Control, RFC 4533 section 2.3.
pub fn sync_state(state: SyncState, entry_uuid: &[u8; 16], cookie: Option<&[u8]>) -> ResponseControl {
    response(oid::SYNC_STATE, |out| {
        ber::put_integer(out, ber::ENUMERATED, state as i64);
        ber::put_octets(out, entry_uuid);
        if let Some(cookie) = cookie {
            ber::put_octets(out, cookie);
        }
    })
}

/// Sync Done Control, RFC 4533 section 2.4.
pub fn sync_done(cookie: &[u8], refresh_deletes: bool) -> ResponseControl {
    response(oid::SYNC_DONE, |out| {
        ber::put_octets(out, cookie);
        if refresh_deletes {
            ber::put_boolean(out, ber::BOOLEAN, true);
        }
    })
}

/// Sync Info Message values, RFC 4533 section 2.5.
pub mod sync_info {
    use super::{BytesMut, ber};

    pub fn new_cookie(cookie: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        ber::primitive(&mut out, 0x80, cookie);
        out.to_vec()
    }

    /// Ends the delete phase (`deletes`) or the present phase of a refresh that goes on to persist.
    pub fn refresh_done(deletes: bool, cookie: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        // refreshDone is TRUE by default and therefore left out (RFC 4511 section 5.1).
        ber::constructed(&mut out, if deletes { 0xa1 } else { 0xa2 }, |out| ber::put_octets(out, cookie));
        out.to_vec()
    }

    /// A set of ids that are unchanged (`deletes` false) or gone (`deletes` true).
    pub fn id_set(deletes: bool, ids: &[[u8; 16]]) -> Vec<u8> {
        let mut out = BytesMut::new();
        ber::constructed(&mut out, 0xa3, |out| {
            if deletes {
                ber::put_boolean(out, ber::BOOLEAN, true);
            }
            ber::constructed(out, ber::SET, |out| ids.iter().for_each(|id| ber::put_octets(out, id)));
        });
        out.to_vec()
    }
}

/// Entry Change Notification, draft-ietf-ldapext-psearch-03 section 5. `kind`: 1 add, 2 delete, 4 modify, 8 modDN.
pub fn entry_change(kind: u8, previous_dn: Option<&str>, change_number: Option<u64>) -> ResponseControl {
    response(oid::ENTRY_CHANGE, |out| {
        ber::put_integer(out, ber::ENUMERATED, i64::from(kind));
        if let Some(dn) = previous_dn.filter(|_| kind == 8) {
            ber::put_octets(out, dn.as_bytes());
        }
        if let Some(number) = change_number {
            ber::put_integer(out, ber::INTEGER, number as i64);
        }
    })
}

/// Password policy response, draft-behera-ldap-password-policy-10 section 6.2.
pub fn password_policy(warning: Option<PolicyWarning>, error: Option<u8>) -> ResponseControl {
    response(oid::PASSWORD_POLICY, |out| {
        if let Some(warning) = warning {
            ber::constructed(out, 0xa0, |out| match warning {
                PolicyWarning::SecondsToExpiry(secs) => ber::put_integer(out, 0x80, i64::from(secs)),
                PolicyWarning::GraceLogins(left) => ber::put_integer(out, 0x81, i64::from(left)),
            });
        }
        if let Some(error) = error {
            ber::put_integer(out, 0x81, i64::from(error));
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyWarning {
    SecondsToExpiry(u32),
    GraceLogins(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirsync_flags_arrive_negative() {
        let mut value = BytesMut::new();
        ber::constructed(&mut value, ber::SEQUENCE, |out| {
            ber::put_integer(out, ber::INTEGER, -2147483648);
            ber::put_integer(out, ber::INTEGER, 1000);
            ber::put_octets(out, b"");
        });
        let received = [RequestControl { oid: oid::DIRSYNC.as_bytes(), critical: true, value: Some(&value) }];
        let dirsync = decode(&received, |_| true).expect("decodes").dirsync.expect("present");
        assert_eq!((dirsync.flags, dirsync.max_bytes, dirsync.cookie), (-2147483648, 1000, &b""[..]));
    }

    #[test]
    fn unknown_critical_controls_are_remembered_and_others_ignored() {
        let odd = RequestControl { oid: b"1.2.3.4", critical: true, value: None };
        let ignored = RequestControl { oid: b"1.2.3.5", critical: false, value: None };
        let controls = decode(&[ignored, odd], |_| false).expect("decodes");
        assert_eq!(controls.unknown_critical.as_deref(), Some("1.2.3.4"));
        assert!(decode(&[ignored], |_| false).expect("decodes").unknown_critical.is_none());
    }

    #[test]
    fn a_control_the_personality_lacks_counts_as_unknown() {
        let paged = RequestControl { oid: oid::PAGED.as_bytes(), critical: true, value: None };
        let controls = decode(&[paged], |_| false).expect("decodes");
        assert_eq!(controls.unknown_critical.as_deref(), Some(oid::PAGED));
        assert!(decode(&[paged], |_| true).is_err(), "a paged control without a value is malformed");
    }
}
