//! LDAP messages (RFC 4511 section 4.1.1): requests are decoded into borrowed slices, because names, passwords and
//! values may hold any bytes; responses are appended to the connection's write buffer.

mod encode;

use thiserror::Error;

use crate::ber::{self, BerError, Reader};
use crate::dit::Scope;
use crate::filter::Filter;
pub use encode::{
    NOTICE_OF_DISCONNECTION, Outcome, ResponseControl, copy_body, put_entry, put_intermediate, put_message,
    put_notice_of_disconnection, put_reference, put_result,
};

use crate::limits::{CONTROLS_MAX, FILTER_ELEMENTS_MAX, SELECTION_ATTRIBUTES_MAX};

/// Tags of the protocol operations, RFC 4511 appendix B.
pub mod tag {
    pub const BIND_REQUEST: u8 = 0x60;
    pub const BIND_RESPONSE: u8 = 0x61;
    pub const UNBIND_REQUEST: u8 = 0x42;
    pub const SEARCH_REQUEST: u8 = 0x63;
    pub const SEARCH_RESULT_ENTRY: u8 = 0x64;
    pub const SEARCH_RESULT_DONE: u8 = 0x65;
    pub const SEARCH_RESULT_REFERENCE: u8 = 0x73;
    pub const MODIFY_REQUEST: u8 = 0x66;
    pub const MODIFY_RESPONSE: u8 = 0x67;
    pub const ADD_REQUEST: u8 = 0x68;
    pub const ADD_RESPONSE: u8 = 0x69;
    pub const DELETE_REQUEST: u8 = 0x4a;
    pub const DELETE_RESPONSE: u8 = 0x6b;
    pub const MODIFY_DN_REQUEST: u8 = 0x6c;
    pub const MODIFY_DN_RESPONSE: u8 = 0x6d;
    pub const COMPARE_REQUEST: u8 = 0x6e;
    pub const COMPARE_RESPONSE: u8 = 0x6f;
    pub const ABANDON_REQUEST: u8 = 0x50;
    pub const EXTENDED_REQUEST: u8 = 0x77;
    pub const EXTENDED_RESPONSE: u8 = 0x78;
    pub const INTERMEDIATE_RESPONSE: u8 = 0x79;
}

/// Why a request cannot be understood. The answer to each is a notice of disconnection (RFC 4511 section 4.1.1), but for
/// [`MessageError::OutOfRange`]: the request is whole, so it gets its own answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    #[error("malformed message")]
    Ber(#[from] BerError),
    #[error("message id {id} is outside 0..2147483647")]
    MessageId { id: i64 },
    #[error("unknown operation tag {tag:#04x}")]
    UnknownOperation { tag: u8 },
    #[error("unknown authentication choice {tag:#04x}")]
    UnknownAuthentication { tag: u8 },
    #[error("{what} over the limit of {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error("value {value} is not defined for {what}")]
    OutOfRange { what: &'static str, value: i64 },
}

/// One request. `'a` are the received bytes.
#[derive(Debug)]
pub struct Request<'a> {
    pub id: i32,
    pub operation: Operation<'a>,
    pub controls: Vec<RequestControl<'a>>,
}

/// A control as received; its value is decoded in [`crate::controls`].
#[derive(Debug, Clone, Copy)]
pub struct RequestControl<'a> {
    pub oid: &'a [u8],
    pub critical: bool,
    pub value: Option<&'a [u8]>,
}

#[derive(Debug)]
pub enum Operation<'a> {
    Bind { version: i64, name: &'a [u8], authentication: Authentication<'a> },
    Unbind,
    Search(SearchRequest<'a>),
    Modify { dn: &'a [u8], changes: Vec<Change<'a>> },
    Add { dn: &'a [u8], attributes: Vec<(&'a [u8], Vec<&'a [u8]>)> },
    Delete { dn: &'a [u8] },
    ModifyDn { dn: &'a [u8], new_rdn: &'a [u8], delete_old: bool, new_superior: Option<&'a [u8]> },
    Compare { dn: &'a [u8], attribute: &'a [u8], value: &'a [u8] },
    Abandon { id: i64 },
    Extended { name: &'a [u8], value: Option<&'a [u8]> },
}

impl Operation<'_> {
    /// The word used in the journal and in fault rules.
    pub fn word(&self) -> &'static str {
        match self {
            Operation::Bind { .. } => "bind",
            Operation::Unbind => "unbind",
            Operation::Search(_) => "search",
            Operation::Modify { .. } => "modify",
            Operation::Add { .. } => "add",
            Operation::Delete { .. } => "delete",
            Operation::ModifyDn { .. } => "modify_dn",
            Operation::Compare { .. } => "compare",
            Operation::Abandon { .. } => "abandon",
            Operation::Extended { .. } => "extended",
        }
    }

    /// The name the operation is about, for the journal and fault rules: a DN, a bind name, a base, an OID.
    pub fn subject(&self) -> String {
        let bytes: &[u8] = match self {
            Operation::Bind { name, .. } => name,
            Operation::Search(search) => search.base,
            Operation::Modify { dn, .. } | Operation::Add { dn, .. } | Operation::Delete { dn } => dn,
            Operation::ModifyDn { dn, .. } | Operation::Compare { dn, .. } => dn,
            Operation::Extended { name, .. } => name,
            Operation::Abandon { id } => return id.to_string(),
            Operation::Unbind => b"",
        };
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// The tag of the final response, or `None` for operations that have none.
    pub fn response_tag(&self) -> Option<u8> {
        Some(match self {
            Operation::Bind { .. } => tag::BIND_RESPONSE,
            Operation::Search(_) => tag::SEARCH_RESULT_DONE,
            Operation::Modify { .. } => tag::MODIFY_RESPONSE,
            Operation::Add { .. } => tag::ADD_RESPONSE,
            Operation::Delete { .. } => tag::DELETE_RESPONSE,
            Operation::ModifyDn { .. } => tag::MODIFY_DN_RESPONSE,
            Operation::Compare { .. } => tag::COMPARE_RESPONSE,
            Operation::Extended { .. } => tag::EXTENDED_RESPONSE,
            Operation::Unbind | Operation::Abandon { .. } => return None,
        })
    }
}

/// AuthenticationChoice, RFC 4511 section 4.2, and the Sicily choices of MS-ADTS 5.1.1.1.3. Has no useful `Debug`: it carries passwords.
pub enum Authentication<'a> {
    Simple(&'a [u8]),
    Sasl { mechanism: &'a [u8], credentials: Option<&'a [u8]> },
    SicilyDiscovery,
    SicilyNegotiate(&'a [u8]),
    SicilyResponse(&'a [u8]),
}

impl std::fmt::Debug for Authentication<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Authentication::Simple(_) => "Simple",
            Authentication::Sasl { .. } => "Sasl",
            Authentication::SicilyDiscovery => "SicilyDiscovery",
            Authentication::SicilyNegotiate(_) => "SicilyNegotiate",
            Authentication::SicilyResponse(_) => "SicilyResponse",
        })
    }
}

#[derive(Debug)]
pub struct SearchRequest<'a> {
    pub base: &'a [u8],
    pub scope: Scope,
    /// derefAliases 0..3; kept for the plan, the worlds hold no aliases.
    pub deref: u8,
    /// Entries; 0 = no limit asked.
    pub size_limit: u32,
    /// Seconds; 0 = no limit asked.
    pub time_limit_secs: u32,
    pub types_only: bool,
    pub filter: Filter,
    pub attributes: Vec<&'a [u8]>,
    /// The encoded request from base to attributes: equal bytes mean an identical query, which a paged search
    /// must repeat (RFC 2696 section 3).
    pub encoded: &'a [u8],
}

#[derive(Debug)]
pub struct Change<'a> {
    /// 0 add, 1 delete, 2 replace, 3 increment (RFC 4525).
    pub kind: u8,
    pub attribute: &'a [u8],
    pub values: Vec<&'a [u8]>,
}

/// Decodes one whole message, as cut by [`ber::message_length`].
pub fn decode(message: &[u8]) -> Result<Request<'_>, MessageError> {
    let mut body = Reader::new(message).nested(ber::SEQUENCE)?;
    let id = body.integer()?;
    let id = i32::try_from(id).ok().filter(|id| *id >= 0).ok_or(MessageError::MessageId { id })?;
    let operation = decode_operation(&mut body)?;
    let controls = match body.peek() {
        Some(0xa0) => decode_controls(body.nested(0xa0)?)?,
        _ => Vec::new(),
    };
    Ok(Request { id, operation, controls })
}

/// The message id of a message that may be broken further on.
pub fn peek_id(message: &[u8]) -> Option<i32> {
    let mut body = Reader::new(message).nested(ber::SEQUENCE).ok()?;
    body.integer().ok().and_then(|id| i32::try_from(id).ok())
}

/// The journal's word for a search or a modification whose numbers are out of range, and the tag of its answer.
pub fn peek_numbered(message: &[u8]) -> Option<(&'static str, u8)> {
    let mut body = Reader::new(message).nested(ber::SEQUENCE).ok()?;
    body.integer().ok()?;
    match body.peek()? {
        tag::SEARCH_REQUEST => Some(("search", tag::SEARCH_RESULT_DONE)),
        tag::MODIFY_REQUEST => Some(("modify", tag::MODIFY_RESPONSE)),
        _ => None,
    }
}

fn decode_operation<'a>(body: &mut Reader<'a>) -> Result<Operation<'a>, MessageError> {
    let found = body.peek().ok_or(BerError::Truncated)?;
    Ok(match found {
        tag::BIND_REQUEST => decode_bind(body.nested(found)?)?,
        tag::UNBIND_REQUEST => {
            body.expect(found)?;
            Operation::Unbind
        }
        tag::SEARCH_REQUEST => Operation::Search(decode_search(body)?),
        tag::MODIFY_REQUEST => decode_modify(body.nested(found)?)?,
        tag::ADD_REQUEST => decode_add(body.nested(found)?)?,
        tag::DELETE_REQUEST => Operation::Delete { dn: body.expect(found)? },
        tag::MODIFY_DN_REQUEST => {
            let mut inner = body.nested(found)?;
            Operation::ModifyDn {
                dn: inner.octets()?,
                new_rdn: inner.octets()?,
                delete_old: inner.boolean()?,
                new_superior: inner.optional(0x80)?,
            }
        }
        tag::COMPARE_REQUEST => {
            let mut inner = body.nested(found)?;
            let dn = inner.octets()?;
            let mut assertion = inner.nested(ber::SEQUENCE)?;
            Operation::Compare { dn, attribute: assertion.octets()?, value: assertion.octets()? }
        }
        tag::ABANDON_REQUEST => Operation::Abandon { id: ber::parse_integer(body.expect(found)?)? },
        tag::EXTENDED_REQUEST => {
            let mut inner = body.nested(found)?;
            Operation::Extended { name: inner.expect(0x80)?, value: inner.optional(0x81)? }
        }
        tag => return Err(MessageError::UnknownOperation { tag }),
    })
}

fn decode_bind(mut inner: Reader<'_>) -> Result<Operation<'_>, MessageError> {
    let version = inner.integer()?;
    let name = inner.octets()?;
    let choice = inner.peek().ok_or(BerError::Truncated)?;
    let authentication = match choice {
        0x80 => Authentication::Simple(inner.expect(choice)?),
        0xa3 => {
            let mut sasl = inner.nested(choice)?;
            Authentication::Sasl { mechanism: sasl.octets()?, credentials: sasl.optional(ber::OCTET_STRING)? }
        }
        0x89 => {
            inner.expect(choice)?;
            Authentication::SicilyDiscovery
        }
        0x8a => Authentication::SicilyNegotiate(inner.expect(choice)?),
        0x8b => Authentication::SicilyResponse(inner.expect(choice)?),
        tag => return Err(MessageError::UnknownAuthentication { tag }),
    };
    Ok(Operation::Bind { version, name, authentication })
}

fn decode_search<'a>(body: &mut Reader<'a>) -> Result<SearchRequest<'a>, MessageError> {
    let mut lookahead = *body;
    let encoded = lookahead.expect(tag::SEARCH_REQUEST)?;
    let mut inner = body.nested(tag::SEARCH_REQUEST)?;
    let base = inner.octets()?;
    let scope = match inner.enumerated()? {
        0 => Scope::Base,
        1 => Scope::OneLevel,
        2 => Scope::Subtree,
        3 => Scope::Subordinate,
        value => return Err(MessageError::OutOfRange { what: "scope", value }),
    };
    let deref = bounded(inner.enumerated()?, "derefAliases", 3)? as u8;
    let size_limit = bounded(inner.integer()?, "sizeLimit", i64::from(i32::MAX))? as u32;
    let time_limit_secs = bounded(inner.integer()?, "timeLimit", i64::from(i32::MAX))? as u32;
    let types_only = inner.boolean()?;
    let filter = decode_filter(&mut inner, &mut FILTER_ELEMENTS_MAX.clone())?;
    let mut names = inner.nested(ber::SEQUENCE)?;
    let mut attributes = Vec::new();
    while !names.is_empty() {
        if attributes.len() == SELECTION_ATTRIBUTES_MAX {
            return Err(MessageError::TooMany { what: "attribute names", limit: SELECTION_ATTRIBUTES_MAX });
        }
        attributes.push(names.octets()?);
    }
    Ok(SearchRequest {
        base,
        scope,
        deref,
        size_limit,
        time_limit_secs,
        types_only,
        filter,
        attributes,
        encoded,
    })
}

fn bounded(value: i64, what: &'static str, max: i64) -> Result<i64, MessageError> {
    if (0..=max).contains(&value) { Ok(value) } else { Err(MessageError::OutOfRange { what, value }) }
}

/// Decodes one filter (RFC 4511 section 4.5.1.7). The nesting limit is the reader's, `budget` counts elements.
fn decode_filter(reader: &mut Reader<'_>, budget: &mut usize) -> Result<Filter, MessageError> {
    *budget = budget
        .checked_sub(1)
        .ok_or(MessageError::TooMany { what: "filter elements", limit: FILTER_ELEMENTS_MAX })?;
    let choice = reader.peek().ok_or(BerError::Truncated)?;
    Ok(match choice {
        0xa0 => Filter::And(decode_filters(reader.nested(choice)?, budget)?),
        0xa1 => Filter::Or(decode_filters(reader.nested(choice)?, budget)?),
        0xa2 => Filter::Not(Box::new(decode_filter(&mut reader.nested(choice)?, budget)?)),
        0xa3 => {
            let (attr, value) = assertion(reader.nested(choice)?)?;
            Filter::Equality { attr, value }
        }
        0xa4 => decode_substrings(reader.nested(choice)?, budget)?,
        0xa5 => {
            let (attr, value) = assertion(reader.nested(choice)?)?;
            Filter::GreaterOrEqual { attr, value }
        }
        0xa6 => {
            let (attr, value) = assertion(reader.nested(choice)?)?;
            Filter::LessOrEqual { attr, value }
        }
        0x87 => Filter::Present(description(reader.expect(choice)?)),
        0xa8 => {
            let (attr, value) = assertion(reader.nested(choice)?)?;
            Filter::Approx { attr, value }
        }
        0xa9 => decode_extensible(reader.nested(choice)?)?,
        other => {
            reader.expect(other)?;
            Filter::Undefined
        }
    })
}

fn decode_filters(mut reader: Reader<'_>, budget: &mut usize) -> Result<Vec<Filter>, MessageError> {
    let mut filters = Vec::new();
    while !reader.is_empty() {
        filters.push(decode_filter(&mut reader, budget)?);
    }
    Ok(filters)
}

fn assertion(mut reader: Reader<'_>) -> Result<(String, Vec<u8>), MessageError> {
    Ok((description(reader.octets()?), reader.octets()?.to_vec()))
}

/// Attribute descriptions are case-insensitive ASCII; anything else names no attribute and stays unknown.
fn description(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_ascii_lowercase()
}

fn decode_substrings(mut reader: Reader<'_>, budget: &mut usize) -> Result<Filter, MessageError> {
    let attr = description(reader.octets()?);
    let mut pieces = reader.nested(ber::SEQUENCE)?;
    let (mut initial, mut any, mut final_) = (None, Vec::new(), None);
    let mut sensible = !pieces.is_empty();
    while let Some(piece) = pieces.peek() {
        *budget = budget
            .checked_sub(1)
            .ok_or(MessageError::TooMany { what: "filter elements", limit: FILTER_ELEMENTS_MAX })?;
        let value = pieces.expect(piece)?.to_vec();
        // The beginning comes first and the end last, each at most once (RFC 4511 section 4.5.1.7.2).
        sensible &= final_.is_none() && (piece != 0x80 || initial.is_none() && any.is_empty());
        match piece {
            0x80 => initial = Some(value),
            0x81 => any.push(value),
            0x82 => final_ = Some(value),
            _ => sensible = false,
        }
    }
    Ok(if sensible { Filter::Substrings { attr, initial, any, final_ } } else { Filter::Undefined })
}

fn decode_extensible(mut reader: Reader<'_>) -> Result<Filter, MessageError> {
    let rule = reader.optional(0x81)?.map(description);
    let attr = reader.optional(0x82)?.map(description);
    let value = reader.expect(0x83)?.to_vec();
    let dn_attributes = reader.optional(0x84)?.map(ber::parse_boolean).transpose()?.unwrap_or(false);
    Ok(Filter::Extensible { rule, attr, value, dn_attributes })
}

fn decode_modify(mut inner: Reader<'_>) -> Result<Operation<'_>, MessageError> {
    let dn = inner.octets()?;
    let mut list = inner.nested(ber::SEQUENCE)?;
    let mut changes = Vec::new();
    while !list.is_empty() {
        let mut change = list.nested(ber::SEQUENCE)?;
        let kind = bounded(change.enumerated()?, "modify operation", 3)? as u8;
        let (attribute, values) = partial_attribute(change.nested(ber::SEQUENCE)?)?;
        changes.push(Change { kind, attribute, values });
    }
    Ok(Operation::Modify { dn, changes })
}

fn decode_add(mut inner: Reader<'_>) -> Result<Operation<'_>, MessageError> {
    let dn = inner.octets()?;
    let mut list = inner.nested(ber::SEQUENCE)?;
    let mut attributes = Vec::new();
    while !list.is_empty() {
        attributes.push(partial_attribute(list.nested(ber::SEQUENCE)?)?);
    }
    Ok(Operation::Add { dn, attributes })
}

fn partial_attribute(mut reader: Reader<'_>) -> Result<(&[u8], Vec<&[u8]>), MessageError> {
    let name = reader.octets()?;
    let mut set = reader.nested(ber::SET)?;
    let mut values = Vec::new();
    while !set.is_empty() {
        values.push(set.octets()?);
    }
    Ok((name, values))
}

fn decode_controls(mut list: Reader<'_>) -> Result<Vec<RequestControl<'_>>, MessageError> {
    let mut controls = Vec::new();
    while !list.is_empty() {
        if controls.len() == CONTROLS_MAX {
            return Err(MessageError::TooMany { what: "controls", limit: CONTROLS_MAX });
        }
        let mut control = list.nested(ber::SEQUENCE)?;
        let oid = control.octets()?;
        let critical = control.optional(ber::BOOLEAN)?.map(ber::parse_boolean).transpose()?.unwrap_or(false);
        controls.push(RequestControl { oid, critical, value: control.optional(ber::OCTET_STRING)? });
    }
    Ok(controls)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut as _, BytesMut};

    use super::*;

    fn search_with_filter(filter: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_message(&mut out, 7, &[], |out| {
            ber::constructed(out, tag::SEARCH_REQUEST, |out| {
                ber::put_octets(out, b"DC=acme,DC=example");
                ber::put_integer(out, ber::ENUMERATED, 2);
                ber::put_integer(out, ber::ENUMERATED, 0);
                ber::put_integer(out, ber::INTEGER, 0);
                ber::put_integer(out, ber::INTEGER, 0);
                ber::put_boolean(out, ber::BOOLEAN, false);
                out.put_slice(filter);
                ber::constructed(out, ber::SEQUENCE, |_| {});
            });
        });
        out.to_vec()
    }

    #[test]
    fn binary_assertion_values_survive() {
        let mut filter = BytesMut::new();
        ber::constructed(&mut filter, 0xa3, |out| {
            ber::put_octets(out, b"objectGUID");
            ber::put_octets(out, &[0x0e, 0xe4, 0xff, 0x00]);
        });
        let bytes = search_with_filter(&filter);
        let request = decode(&bytes).expect("a valid search");
        let Operation::Search(search) = request.operation else { panic!("not a search") };
        assert!(
            matches!(search.filter, Filter::Equality { attr, value } if attr == "objectguid" && value == [0x0e, 0xe4, 0xff, 0])
        );
    }

    #[test]
    fn deep_filters_are_refused_before_they_recurse_far() {
        let mut filter = vec![0x87, 1, b'a'];
        for _ in 0..10_000 {
            let mut outer = BytesMut::new();
            ber::constructed(&mut outer, 0xa2, |out| out.put_slice(&filter));
            filter = outer.to_vec();
        }
        assert!(matches!(
            decode(&search_with_filter(&filter)),
            Err(MessageError::Ber(BerError::TooDeep { .. }))
        ));
    }

    #[test]
    fn negative_ids_and_empty_messages_are_refused() {
        assert!(matches!(decode(&[0x30, 0]), Err(MessageError::Ber(BerError::Truncated))));
        assert_eq!(
            decode(&[0x30, 5, 2, 1, 0xff, 0x42, 0]).map(|_| ()),
            Err(MessageError::MessageId { id: -1 })
        );
        assert_eq!(
            decode(&[0x30, 5, 2, 1, 1, 0x5e, 0]).map(|_| ()),
            Err(MessageError::UnknownOperation { tag: 0x5e })
        );
    }

    #[test]
    fn passwords_stay_out_of_debug() {
        let request = decode(&[0x30, 0x0d, 2, 1, 1, 0x60, 8, 2, 1, 3, 4, 0, 0x80, 1, b'Z']).expect("a bind");
        assert!(!format!("{request:?}").contains('Z'), "{request:?}");
    }
}
