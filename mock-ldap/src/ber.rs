//! The subset of BER that LDAP uses (RFC 4511 section 5.1): definite lengths, primitive strings, one-byte tags.
//!
//! The reader borrows from the received bytes and never allocates. Lengths that are longer than needed are accepted,
//! because Windows clients always send four length bytes.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use crate::limits::BER_DEPTH_MAX;

pub const BOOLEAN: u8 = 0x01;
pub const INTEGER: u8 = 0x02;
pub const OCTET_STRING: u8 = 0x04;
pub const NULL: u8 = 0x05;
pub const ENUMERATED: u8 = 0x0a;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;

/// What is wrong with received bytes. All variants are the sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BerError {
    #[error("element ends before its length says")]
    Truncated,
    #[error("indefinite length")]
    IndefiniteLength,
    #[error("length of {bytes} bytes is not representable")]
    LengthTooLong { bytes: u8 },
    #[error("message of {size_bytes} bytes is over the limit of {limit_bytes}")]
    TooLarge { size_bytes: usize, limit_bytes: usize },
    #[error("nesting deeper than {limit}")]
    TooDeep { limit: usize },
    #[error("tag {found:#04x} where {expected:#04x} belongs")]
    UnexpectedTag { expected: u8, found: u8 },
    #[error("tag number in the multi-byte form")]
    HighTagNumber,
    #[error("integer of {bytes} bytes")]
    BadInteger { bytes: usize },
    #[error("boolean that is not one byte")]
    BadBoolean,
}

/// A cursor over the content of one element.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, depth: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element, without moving.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element: tag and content.
    pub fn element(&mut self) -> Result<(u8, &'a [u8]), BerError> {
        let header = header(self.rest)?.ok_or(BerError::Truncated)?;
        let end = header.size.checked_add(header.content).ok_or(BerError::Truncated)?;
        let content = self.rest.get(header.size..end).ok_or(BerError::Truncated)?;
        self.rest = &self.rest[end..];
        Ok((header.tag, content))
    }

    /// The content of the next element, which must carry `tag`.
    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8], BerError> {
        match self.peek() {
            None => Err(BerError::Truncated),
            Some(found) if found != tag => Err(BerError::UnexpectedTag { expected: tag, found }),
            Some(_) => Ok(self.element()?.1),
        }
    }

    /// The content of the next element if it carries `tag`; the cursor stays otherwise.
    pub fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, BerError> {
        if self.peek() == Some(tag) { Ok(Some(self.element()?.1)) } else { Ok(None) }
    }

    /// A cursor over the content of the next element, one level deeper.
    pub fn nested(&mut self, tag: u8) -> Result<Reader<'a>, BerError> {
        if self.depth + 1 > BER_DEPTH_MAX {
            return Err(BerError::TooDeep { limit: BER_DEPTH_MAX });
        }
        Ok(Reader { rest: self.expect(tag)?, depth: self.depth + 1 })
    }

    pub fn octets(&mut self) -> Result<&'a [u8], BerError> {
        self.expect(OCTET_STRING)
    }

    pub fn integer(&mut self) -> Result<i64, BerError> {
        parse_integer(self.expect(INTEGER)?)
    }

    pub fn enumerated(&mut self) -> Result<i64, BerError> {
        parse_integer(self.expect(ENUMERATED)?)
    }

    pub fn boolean(&mut self) -> Result<bool, BerError> {
        parse_boolean(self.expect(BOOLEAN)?)
    }
}

/// Two's complement, at most eight bytes.
pub fn parse_integer(content: &[u8]) -> Result<i64, BerError> {
    if content.is_empty() || content.len() > 8 {
        return Err(BerError::BadInteger { bytes: content.len() });
    }
    let sign = if content[0] & 0x80 == 0 { 0 } else { -1 };
    Ok(content.iter().fold(sign, |value: i64, byte| (value << 8) | i64::from(*byte)))
}

/// Any non-zero byte is true, as BER allows (RFC 4511 5.1 asks for 0xFF, not every client obeys).
pub fn parse_boolean(content: &[u8]) -> Result<bool, BerError> {
    match content {
        [byte] => Ok(*byte != 0),
        _ => Err(BerError::BadBoolean),
    }
}

/// Length in bytes of the whole message that begins `received`, or `None` while its header is incomplete.
/// Fails as soon as the bytes seen cannot become an LDAP message of at most `limit_bytes`.
pub fn message_length(received: &[u8], limit_bytes: usize) -> Result<Option<usize>, BerError> {
    if let Some(&found) = received.first()
        && found != SEQUENCE
    {
        return Err(BerError::UnexpectedTag { expected: SEQUENCE, found });
    }
    let Some(header) = header(received)? else { return Ok(None) };
    let size_bytes = header.size.saturating_add(header.content);
    if size_bytes > limit_bytes {
        return Err(BerError::TooLarge { size_bytes, limit_bytes });
    }
    Ok(Some(size_bytes))
}

struct Header {
    tag: u8,
    /// Bytes of tag and length.
    size: usize,
    /// Bytes of content.
    content: usize,
}

fn header(bytes: &[u8]) -> Result<Option<Header>, BerError> {
    let Some(&tag) = bytes.first() else { return Ok(None) };
    if tag & 0x1f == 0x1f {
        return Err(BerError::HighTagNumber);
    }
    let Some(&first) = bytes.get(1) else { return Ok(None) };
    match first {
        0..=0x7f => Ok(Some(Header { tag, size: 2, content: usize::from(first) })),
        0x80 => Err(BerError::IndefiniteLength),
        0x81..=0x88 => {
            let count = usize::from(first & 0x7f);
            let Some(length) = bytes.get(2..2 + count) else { return Ok(None) };
            let content = length.iter().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
            let content =
                usize::try_from(content).map_err(|_| BerError::LengthTooLong { bytes: first & 0x7f })?;
            Ok(Some(Header { tag, size: 2 + count, content }))
        }
        _ => Err(BerError::LengthTooLong { bytes: first & 0x7f }),
    }
}

/// Where a constructed element began, to be closed with [`end`].
#[derive(Debug)]
#[must_use]
pub struct Open(usize);

/// Opens a constructed element. Its length takes four bytes, as Active Directory writes it, so that nothing has to
/// move when it is closed.
pub fn begin(out: &mut BytesMut, tag: u8) -> Open {
    out.put_slice(&[tag, 0x84, 0, 0, 0, 0]);
    Open(out.len())
}

/// Closes the element opened by [`begin`].
pub fn end(out: &mut BytesMut, open: Open) {
    let length = u32::try_from(out.len() - open.0).expect("an answer is far below 4 GiB");
    out[open.0 - 4..open.0].copy_from_slice(&length.to_be_bytes());
}

/// Writes a constructed element whose content `content` writes.
pub fn constructed(out: &mut BytesMut, tag: u8, content: impl FnOnce(&mut BytesMut)) {
    let open = begin(out, tag);
    content(out);
    end(out, open);
}

/// Writes a primitive element with the shortest length.
pub fn primitive(out: &mut BytesMut, tag: u8, content: &[u8]) {
    out.put_u8(tag);
    put_length(out, content.len());
    out.put_slice(content);
}

pub fn put_octets(out: &mut BytesMut, content: &[u8]) {
    primitive(out, OCTET_STRING, content);
}

pub fn put_boolean(out: &mut BytesMut, tag: u8, value: bool) {
    primitive(out, tag, &[if value { 0xff } else { 0 }]);
}

/// Writes an INTEGER or ENUMERATED in its shortest form.
pub fn put_integer(out: &mut BytesMut, tag: u8, value: i64) {
    let bytes = value.to_be_bytes();
    let redundant = |at: usize| {
        (bytes[at] == 0 && bytes[at + 1] & 0x80 == 0) || (bytes[at] == 0xff && bytes[at + 1] & 0x80 != 0)
    };
    let start = (0..7).find(|at| !redundant(*at)).unwrap_or(7);
    primitive(out, tag, &bytes[start..]);
}

fn put_length(out: &mut BytesMut, length: usize) {
    if length < 0x80 {
        out.put_u8(length as u8);
        return;
    }
    let bytes = (length as u64).to_be_bytes();
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(7);
    out.put_u8(0x80 | (8 - start) as u8);
    out.put_slice(&bytes[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_keep_their_value_and_are_shortest() {
        for value in [0, 1, 127, 128, 255, 256, -1, -128, -129, i64::MIN, i64::MAX, 2147483647, -2147483648] {
            let mut out = BytesMut::new();
            put_integer(&mut out, INTEGER, value);
            assert_eq!(Reader::new(&out).integer(), Ok(value));
        }
        let mut out = BytesMut::new();
        put_integer(&mut out, INTEGER, 128);
        assert_eq!(&out[..], [2, 2, 0, 128]);
    }

    #[test]
    fn windows_style_lengths_are_accepted() {
        let mut reader = Reader::new(&[0x30, 0x84, 0, 0, 0, 3, 0x02, 0x01, 5]);
        assert_eq!(reader.nested(SEQUENCE).and_then(|mut inner| inner.integer()), Ok(5));
    }

    #[test]
    fn hostile_headers_are_refused() {
        assert_eq!(message_length(&[0x30, 0x80], 100), Err(BerError::IndefiniteLength));
        assert_eq!(message_length(&[0x30, 0x89], 100), Err(BerError::LengthTooLong { bytes: 9 }));
        assert_eq!(
            message_length(&[0x31], 100),
            Err(BerError::UnexpectedTag { expected: 0x30, found: 0x31 })
        );
        let huge = [0x30, 0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(message_length(&huge, 100), Err(BerError::TooLarge { .. })));
        assert_eq!(message_length(&[0x30, 0x82, 1], 1000), Ok(None));
        assert_eq!(Reader::new(&[0x04, 0x05, b'a']).octets(), Err(BerError::Truncated));
        assert_eq!(Reader::new(&[0x1f, 0x05, 0]).element(), Err(BerError::HighTagNumber));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = vec![0x05, 0];
        for _ in 0..(BER_DEPTH_MAX + 1) {
            let mut outer = BytesMut::new();
            constructed(&mut outer, SEQUENCE, |out| out.put_slice(&bytes));
            bytes = outer.to_vec();
        }
        let mut reader = Reader::new(&bytes);
        let failure = loop {
            match reader.nested(SEQUENCE) {
                Ok(inner) => reader = inner,
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure, BerError::TooDeep { limit: BER_DEPTH_MAX });
    }
}
