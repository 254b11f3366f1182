//! Responses: appended to the connection's write buffer.

use bytes::{BufMut as _, BytesMut};

use super::tag;
use crate::ber;

/// A control of ours: OID and encoded value. Response controls are never critical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseControl {
    pub oid: &'static str,
    pub value: Option<Vec<u8>>,
}

/// LDAPResult, RFC 4511 section 4.1.9.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    pub code: u32,
    pub matched_dn: &'a [u8],
    pub message: &'a [u8],
    pub referrals: &'a [String],
}

impl Outcome<'_> {
    pub const SUCCESS: Outcome<'static> = Outcome { code: 0, matched_dn: b"", message: b"", referrals: &[] };
}

/// Appends one message; `operation` writes the protocolOp.
pub fn put_message(
    out: &mut BytesMut,
    id: i32,
    controls: &[ResponseControl],
    operation: impl FnOnce(&mut BytesMut),
) {
    let open = ber::begin(out, ber::SEQUENCE);
    ber::put_integer(out, ber::INTEGER, i64::from(id));
    operation(out);
    put_controls(out, controls);
    ber::end(out, open);
}

/// Appends a message that carries an LDAPResult; `rest` writes the fields that follow it in the operation.
pub fn put_result(
    out: &mut BytesMut,
    id: i32,
    tag: u8,
    outcome: Outcome<'_>,
    controls: &[ResponseControl],
    rest: impl FnOnce(&mut BytesMut),
) {
    put_message(out, id, controls, |out| {
        ber::constructed(out, tag, |out| {
            ber::put_integer(out, ber::ENUMERATED, i64::from(outcome.code));
            ber::put_octets(out, outcome.matched_dn);
            ber::put_octets(out, outcome.message);
            if !outcome.referrals.is_empty() {
                ber::constructed(out, 0xa3, |out| {
                    outcome.referrals.iter().for_each(|uri| ber::put_octets(out, uri.as_bytes()));
                });
            }
            rest(out);
        });
    });
}

/// Appends a SearchResultEntry whose body (LDAPDN and attributes) `body` writes. Nothing is appended when `body`
/// returns false.
pub fn put_entry(
    out: &mut BytesMut,
    id: i32,
    controls: &[ResponseControl],
    body: impl FnOnce(&mut BytesMut) -> bool,
) -> bool {
    let start = out.len();
    let message = ber::begin(out, ber::SEQUENCE);
    ber::put_integer(out, ber::INTEGER, i64::from(id));
    let entry = ber::begin(out, tag::SEARCH_RESULT_ENTRY);
    if !body(out) {
        out.truncate(start);
        return false;
    }
    ber::end(out, entry);
    put_controls(out, controls);
    ber::end(out, message);
    true
}

/// Appends a SearchResultReference.
pub fn put_reference(out: &mut BytesMut, id: i32, controls: &[ResponseControl], uri: &str) {
    put_message(out, id, controls, |out| {
        ber::constructed(out, tag::SEARCH_RESULT_REFERENCE, |out| ber::put_octets(out, uri.as_bytes()));
    });
}

/// Appends an IntermediateResponse, RFC 4511 section 4.13.
pub fn put_intermediate(out: &mut BytesMut, id: i32, name: &str, value: &[u8]) {
    put_message(out, id, &[], |out| {
        ber::constructed(out, tag::INTERMEDIATE_RESPONSE, |out| {
            ber::primitive(out, 0x80, name.as_bytes());
            ber::primitive(out, 0x81, value);
        });
    });
}

/// OID of the notice of disconnection, RFC 4511 section 4.4.1.
pub const NOTICE_OF_DISCONNECTION: &str = "1.3.6.1.4.1.1466.20036";

/// Appends the unsolicited notice after which the connection is closed.
pub fn put_notice_of_disconnection(out: &mut BytesMut, code: u32, message: &str) {
    let outcome = Outcome { code, message: message.as_bytes(), ..Outcome::SUCCESS };
    put_result(out, 0, tag::EXTENDED_RESPONSE, outcome, &[], |out| {
        ber::primitive(out, 0x8a, NOTICE_OF_DISCONNECTION.as_bytes());
    });
}

fn put_controls(out: &mut BytesMut, controls: &[ResponseControl]) {
    if controls.is_empty() {
        return;
    }
    ber::constructed(out, 0xa0, |out| {
        for control in controls {
            ber::constructed(out, ber::SEQUENCE, |out| {
                ber::put_octets(out, control.oid.as_bytes());
                if let Some(value) = &control.value {
                    ber::put_octets(out, value);
                }
            });
        }
    });
}

/// Copies an entry body kept elsewhere.
pub fn copy_body(body: &[u8]) -> impl FnOnce(&mut BytesMut) -> bool + '_ {
    move |out| {
        out.put_slice(body);
        true
    }
}
