//! BER for LDAP (X.690, definite lengths only, as RFC 4511 section 5.1 demands).
//!
//! The reader never recurses: callers descend level by level into what they know, so nesting in an answer costs
//! nothing and cannot exhaust the stack. Non-minimal lengths are accepted, because Windows always sends them.

use thiserror::Error;

/// Tags of RFC 4511, and the universal ones it uses.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const OCTETS: u8 = 0x04;
    pub(crate) const ENUMERATED: u8 = 0x0a;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;
    /// `[n]`, primitive.
    pub(crate) const fn context(n: u8) -> u8 {
        0x80 | n
    }
    /// `[n]`, constructed.
    pub(crate) const fn context_constructed(n: u8) -> u8 {
        0xa0 | n
    }
    /// `[APPLICATION n]`, constructed.
    pub(crate) const fn application(n: u8) -> u8 {
        0x60 | n
    }
    /// `[APPLICATION n]`, primitive.
    pub(crate) const fn application_primitive(n: u8) -> u8 {
        0x40 | n
    }
}

/// What is wrong with an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum BerError {
    #[error("an element ends before its length says")]
    Truncated,
    #[error("an element of indefinite length")]
    Indefinite,
    #[error("a length of more than four bytes")]
    LengthTooLong,
    #[error("tag {got:#04x} where {wanted:#04x} belongs")]
    UnexpectedTag { wanted: u8, got: u8 },
    #[error("an integer of {0} bytes")]
    BadInteger(usize),
}

/// A cursor over the elements of one level.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element, without taking it.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Takes the next element: its tag and content.
    pub(crate) fn next(&mut self) -> Result<(u8, &'a [u8]), BerError> {
        let (header, length) = header(self.rest)?.ok_or(BerError::Truncated)?;
        let end = header.checked_add(length).ok_or(BerError::LengthTooLong)?;
        let content = self.rest.get(header..end).ok_or(BerError::Truncated)?;
        let tag = self.rest[0];
        self.rest = &self.rest[end..];
        Ok((tag, content))
    }

    /// Takes the next element, which must have this tag.
    pub(crate) fn expect(&mut self, wanted: u8) -> Result<&'a [u8], BerError> {
        match self.next()? {
            (got, content) if got == wanted => Ok(content),
            (got, _) => Err(BerError::UnexpectedTag { wanted, got }),
        }
    }

    /// Takes the next element if it has this tag.
    pub(crate) fn optional(&mut self, wanted: u8) -> Result<Option<&'a [u8]>, BerError> {
        if self.peek() == Some(wanted) { self.expect(wanted).map(Some) } else { Ok(None) }
    }

    pub(crate) fn octets(&mut self) -> Result<&'a [u8], BerError> {
        self.expect(tag::OCTETS)
    }

    pub(crate) fn integer(&mut self) -> Result<i64, BerError> {
        integer(self.expect(tag::INTEGER)?)
    }

    pub(crate) fn enumerated(&mut self) -> Result<i64, BerError> {
        integer(self.expect(tag::ENUMERATED)?)
    }
}

/// Reads the header of the element `bytes` start with: its own size and the size of the content. `None` when it has
/// not arrived in full.
pub(crate) fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, BerError> {
    let Some(&first) = bytes.get(1) else { return Ok(None) };
    match first {
        0x80 => Err(BerError::Indefinite),
        0..0x80 => Ok(Some((2, usize::from(first)))),
        _ => {
            let count = usize::from(first & 0x7f);
            // LDAP messages of 4 GiB and more do not exist; leading zeros beyond four bytes have never been seen.
            if count > 4 {
                return Err(BerError::LengthTooLong);
            }
            let Some(octets) = bytes.get(2..2 + count) else { return Ok(None) };
            let length = octets.iter().fold(0_usize, |sum, &octet| (sum << 8) | usize::from(octet));
            Ok(Some((2 + count, length)))
        }
    }
}

/// Reads the content of an INTEGER or ENUMERATED.
pub(crate) fn integer(content: &[u8]) -> Result<i64, BerError> {
    if content.is_empty() || content.len() > 8 {
        return Err(BerError::BadInteger(content.len()));
    }
    let start = if content[0] & 0x80 == 0 { 0 } else { -1 };
    Ok(content.iter().fold(start, |sum, &octet| (sum << 8) | i64::from(octet)))
}

/// Writes elements. Lengths are written in the shortest form when an element is closed.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::with_capacity(256) }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes a primitive element.
    pub(crate) fn primitive(&mut self, tag: u8, content: &[u8]) {
        self.bytes.push(tag);
        let (length, size) = length_octets(content.len());
        self.bytes.extend_from_slice(&length[..size]);
        self.bytes.extend_from_slice(content);
    }

    /// Writes a constructed element around what `body` writes.
    pub(crate) fn constructed(&mut self, tag: u8, body: impl FnOnce(&mut Self)) {
        self.bytes.push(tag);
        let start = self.bytes.len();
        body(self);
        let (length, size) = length_octets(self.bytes.len() - start);
        self.bytes.splice(start..start, length[..size].iter().copied());
    }

    pub(crate) fn octets(&mut self, content: &[u8]) {
        self.primitive(tag::OCTETS, content);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.primitive(tag::BOOLEAN, &[if value { 0xff } else { 0 }]);
    }

    pub(crate) fn integer(&mut self, value: i64) {
        self.number(tag::INTEGER, value);
    }

    pub(crate) fn enumerated(&mut self, value: i64) {
        self.number(tag::ENUMERATED, value);
    }

    fn number(&mut self, tag: u8, value: i64) {
        let octets = value.to_be_bytes();
        // Shortest two's complement form: drop leading octets that only repeat the sign bit of the next one.
        let mut start = 0;
        while start < 7 {
            let redundant = match octets[start] {
                0x00 => octets[start + 1] & 0x80 == 0,
                0xff => octets[start + 1] & 0x80 != 0,
                _ => false,
            };
            if !redundant {
                break;
            }
            start += 1;
        }
        self.primitive(tag, &octets[start..]);
    }

    /// Appends elements that are encoded already.
    pub(crate) fn raw(&mut self, encoded: &[u8]) {
        self.bytes.extend_from_slice(encoded);
    }
}

fn length_octets(length: usize) -> ([u8; 5], usize) {
    let mut octets = [0; 5];
    if length < 0x80 {
        octets[0] = length as u8;
        return (octets, 1);
    }
    let big_endian = (length as u32).to_be_bytes();
    let skip = big_endian.iter().take_while(|&&octet| octet == 0).count();
    let count = 4 - skip;
    octets[0] = 0x80 | count as u8;
    octets[1..=count].copy_from_slice(&big_endian[skip..]);
    (octets, count + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_survive(value: i64) {
            let mut writer = Writer::new();
            writer.integer(value);
            let bytes = writer.into_bytes();
            prop_assert_eq!(Reader::new(&bytes).integer(), Ok(value));
        }

        #[test]
        fn octets_survive_at_any_length(content in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let mut writer = Writer::new();
            writer.constructed(tag::SEQUENCE, |inner| inner.octets(&content));
            let bytes = writer.into_bytes();
            let mut outer = Reader::new(&bytes);
            let mut inner = Reader::new(outer.expect(tag::SEQUENCE).unwrap());
            prop_assert_eq!(inner.octets(), Ok(&content[..]));
            prop_assert!(outer.is_empty() && inner.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            while reader.next().is_ok() {}
        }
    }

    #[test]
    fn a_length_in_four_bytes_is_accepted_as_windows_sends_it() {
        let mut reader = Reader::new(&[0x04, 0x84, 0, 0, 0, 1, b'x']);
        assert_eq!(reader.octets(), Ok(&b"x"[..]));
    }

    #[test]
    fn an_indefinite_length_is_refused() {
        assert_eq!(Reader::new(&[0x30, 0x80, 0, 0]).next(), Err(BerError::Indefinite));
    }
}
