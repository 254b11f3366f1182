//! Values of the controls we send and read.

use bytes::Bytes;

use super::ber::{BerError, Reader, Writer, tag};
use super::message::Control;

/// Paged results (RFC 2696).
pub const PAGED: &str = "1.2.840.113556.1.4.319";
/// Show deleted objects (MS-ADTS 3.1.1.3.4.1.14).
pub const SHOW_DELETED: &str = "1.2.840.113556.1.4.417";
/// DirSync (MS-ADTS 3.1.1.3.4.1.3).
pub const DIRSYNC: &str = "1.2.840.113556.1.4.841";
/// Do not generate referrals (MS-ADTS 3.1.1.3.4.1.4).
pub const DOMAIN_SCOPE: &str = "1.2.840.113556.1.4.1339";
/// Content synchronisation request, state and done (RFC 4533 2.2 to 2.4), and its intermediate message (2.5).
pub const SYNC_REQUEST: &str = "1.3.6.1.4.1.4203.1.9.1.1";
pub const SYNC_STATE: &str = "1.3.6.1.4.1.4203.1.9.1.2";
pub const SYNC_DONE: &str = "1.3.6.1.4.1.4203.1.9.1.3";
pub const SYNC_INFO: &str = "1.3.6.1.4.1.4203.1.9.1.4";
/// Password policy request and response (draft-behera-ldap-password-policy-10 6).
pub const PASSWORD_POLICY: &str = "1.3.6.1.4.1.42.2.27.8.5.1";
/// Netscape's older word for "password expired".
pub const PASSWORD_EXPIRED: &str = "2.16.840.1.113730.3.4.4";

/// Asks for a page.
pub fn paged(size: u32, cookie: &[u8], critical: bool) -> Control {
    let mut out = Writer::new();
    out.constructed(tag::SEQUENCE, |value| {
        value.integer(i64::from(size));
        value.octets(cookie);
    });
    Control::with(PAGED, critical, out.into_bytes())
}

/// The cookie of a page; empty after the last one.
pub(crate) fn paged_cookie(value: &Bytes) -> Result<Bytes, BerError> {
    let mut outer = Reader::new(value);
    let mut inner = Reader::new(outer.expect(tag::SEQUENCE)?);
    inner.integer()?;
    Ok(value.slice_ref(inner.octets()?))
}

/// Results trimmed to the caller's rights; needs no special right.
pub const DIRSYNC_OBJECT_SECURITY: i32 = 1;
/// Linked values one by one. A bit of an unsigned field that travels as a signed integer.
pub const DIRSYNC_INCREMENTAL_VALUES: i32 = i32::MIN;

/// Asks for changes since `cookie`.
pub fn dirsync(flags: i32, bytes_max: i32, cookie: &[u8]) -> Control {
    let mut out = Writer::new();
    out.constructed(tag::SEQUENCE, |value| {
        value.integer(i64::from(flags));
        value.integer(i64::from(bytes_max));
        value.octets(cookie);
    });
    Control::with(DIRSYNC, true, out.into_bytes())
}

/// Whether there is more, and the next cookie.
pub(crate) fn dirsync_answer(value: &Bytes) -> Result<(bool, Bytes), BerError> {
    let mut outer = Reader::new(value);
    let mut inner = Reader::new(outer.expect(tag::SEQUENCE)?);
    let more = inner.integer()? != 0;
    inner.integer()?;
    Ok((more, value.slice_ref(inner.octets()?)))
}

/// Asks for a refresh, without staying.
pub fn sync_request(cookie: Option<&[u8]>) -> Control {
    let mut out = Writer::new();
    out.constructed(tag::SEQUENCE, |value| {
        value.enumerated(1);
        if let Some(cookie) = cookie {
            value.octets(cookie);
        }
    });
    Control::with(SYNC_REQUEST, true, out.into_bytes())
}

/// State of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    Present,
    Add,
    Modify,
    Delete,
}

/// Reads state, entryUUID and cookie.
pub(crate) fn sync_state(value: &Bytes) -> Result<(SyncState, [u8; 16]), BerError> {
    let mut outer = Reader::new(value);
    let mut inner = Reader::new(outer.expect(tag::SEQUENCE)?);
    let state = match inner.enumerated()? {
        0 => SyncState::Present,
        1 => SyncState::Add,
        2 => SyncState::Modify,
        3 => SyncState::Delete,
        _ => return Err(BerError::BadInteger(1)),
    };
    let id = inner.octets()?;
    Ok((state, id.try_into().map_err(|_| BerError::BadInteger(id.len()))?))
}

/// Reads cookie and refreshDeletes.
pub(crate) fn sync_done(value: &Bytes) -> Result<(Option<Bytes>, bool), BerError> {
    let mut outer = Reader::new(value);
    let mut inner = Reader::new(outer.expect(tag::SEQUENCE)?);
    let cookie = inner.optional(tag::OCTETS)?.map(|cookie| value.slice_ref(cookie));
    let deletes = boolean(&mut inner, false)?;
    Ok((cookie, deletes))
}

/// A Sync Info message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SyncInfo {
    NewCookie(Bytes),
    /// The delete phase is over (`done`: so is the refresh).
    RefreshDelete {
        cookie: Option<Bytes>,
        done: bool,
    },
    /// The present phase is over.
    RefreshPresent {
        cookie: Option<Bytes>,
        done: bool,
    },
    /// These are present, or deleted.
    IdSet {
        cookie: Option<Bytes>,
        deletes: bool,
        ids: Vec<[u8; 16]>,
    },
}

pub(crate) fn sync_info(value: &Bytes) -> Result<SyncInfo, BerError> {
    let mut outer = Reader::new(value);
    let (kind, content) = outer.next()?;
    const NEW_COOKIE: u8 = tag::context(0);
    const REFRESH_DELETE: u8 = tag::context_constructed(1);
    const REFRESH_PRESENT: u8 = tag::context_constructed(2);
    const ID_SET: u8 = tag::context_constructed(3);
    let mut inner = Reader::new(content);
    if kind == NEW_COOKIE {
        return Ok(SyncInfo::NewCookie(value.slice_ref(content)));
    }
    let cookie = inner.optional(tag::OCTETS)?.map(|cookie| value.slice_ref(cookie));
    match kind {
        REFRESH_DELETE => Ok(SyncInfo::RefreshDelete { cookie, done: boolean(&mut inner, true)? }),
        REFRESH_PRESENT => Ok(SyncInfo::RefreshPresent { cookie, done: boolean(&mut inner, true)? }),
        ID_SET => {
            let deletes = boolean(&mut inner, false)?;
            let mut set = Reader::new(inner.expect(tag::SET)?);
            let mut ids = Vec::new();
            while !set.is_empty() {
                let id = set.octets()?;
                ids.push(id.try_into().map_err(|_| BerError::BadInteger(id.len()))?);
            }
            Ok(SyncInfo::IdSet { cookie, deletes, ids })
        }
        got => Err(BerError::UnexpectedTag { wanted: ID_SET, got }),
    }
}

fn boolean(reader: &mut Reader<'_>, default: bool) -> Result<bool, BerError> {
    Ok(reader.optional(tag::BOOLEAN)?.map_or(default, |flag| flag.first().is_some_and(|&octet| octet != 0)))
}

/// The error of a password policy response: 0 passwordExpired, 1 accountLocked, 2 changeAfterReset ...
pub(crate) fn password_policy_error(value: &Bytes) -> Result<Option<i64>, BerError> {
    let mut outer = Reader::new(value);
    let mut inner = Reader::new(outer.expect(tag::SEQUENCE)?);
    inner.optional(tag::context_constructed(0))?;
    inner.optional(tag::context(1))?.map(super::ber::integer).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incremental_values_is_minus_two_to_the_31st_on_the_wire() {
        let value = dirsync(DIRSYNC_INCREMENTAL_VALUES | DIRSYNC_OBJECT_SECURITY, 0, b"").value.unwrap();
        assert_eq!(&value[..], [0x30, 11, 2, 4, 0x80, 0, 0, 1, 2, 1, 0, 4, 0]);
    }

    #[test]
    fn a_policy_answer_with_warning_and_error_is_read() {
        let value = Bytes::from_static(&[0x30, 8, 0xa0, 3, 0x81, 1, 2, 0x81, 1, 2]);
        assert_eq!(password_policy_error(&value), Ok(Some(2)));
        assert_eq!(password_policy_error(&Bytes::from_static(&[0x30, 0])), Ok(None));
    }

    #[test]
    fn an_id_set_is_read() {
        let mut out = Writer::new();
        out.constructed(tag::context_constructed(3), |info| {
            info.octets(b"c");
            info.boolean(true);
            info.constructed(tag::SET, |set| set.octets(&[7; 16]));
        });
        let info = sync_info(&Bytes::from(out.into_bytes())).unwrap();
        assert_eq!(
            info,
            SyncInfo::IdSet { cookie: Some(Bytes::from_static(b"c")), deletes: true, ids: vec![[7; 16]] }
        );
    }
}
