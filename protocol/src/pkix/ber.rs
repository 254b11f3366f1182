//! A tolerant reader of BER (X.690): every form real peers send, within limits, without copying.
//!
//! Indefinite lengths, constructed strings, long forms of short lengths and INTEGERs with superfluous or missing leading
//! zeros are taken. Tag numbers above 30 are refused; nothing in X.509 or CMS has them.

use std::borrow::Cow;

use super::error::PkixError;
use super::oid::Oid;
use crate::limits::{BER_DEPTH_MAX, BER_MAX_BYTES};

/// Universal BOOLEAN.
pub const BOOLEAN: u8 = 0x01;
/// Universal INTEGER.
pub const INTEGER: u8 = 0x02;
/// Universal BIT STRING.
pub const BIT_STRING: u8 = 0x03;
/// Universal OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// Universal NULL.
pub const NULL: u8 = 0x05;
/// Universal OBJECT IDENTIFIER.
pub const OBJECT_IDENTIFIER: u8 = 0x06;
/// Universal ENUMERATED.
pub const ENUMERATED: u8 = 0x0a;
/// Universal UTF8String.
pub const UTF8_STRING: u8 = 0x0c;
/// Universal PrintableString.
pub const PRINTABLE_STRING: u8 = 0x13;
/// Universal IA5String.
pub const IA5_STRING: u8 = 0x16;
/// Universal UTCTime.
pub const UTC_TIME: u8 = 0x17;
/// Universal GeneralizedTime.
pub const GENERALIZED_TIME: u8 = 0x18;
/// Universal BMPString.
pub const BMP_STRING: u8 = 0x1e;
/// Universal SEQUENCE, constructed.
pub const SEQUENCE: u8 = 0x30;
/// Universal SET, constructed.
pub const SET: u8 = 0x31;

const CONSTRUCTED: u8 = 0x20;

/// The tag of context-specific `[number]` around other elements.
pub const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// The tag of context-specific `[number]` around bytes.
pub const fn context_primitive(number: u8) -> u8 {
    0x80 | number
}

/// One element: tag, length and contents.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    tag: u8,
    raw: &'a [u8],
    body: &'a [u8],
    depth: usize,
}

impl<'a> Node<'a> {
    /// Reads the element at the beginning; the second value is what follows it.
    pub fn read(what: &'static str, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PkixError> {
        if bytes.len() > BER_MAX_BYTES {
            return Err(PkixError::TooMuch { what, limit: BER_MAX_BYTES });
        }
        node(what, bytes, 0)
    }

    /// Reads the one element that the bytes are.
    pub fn only(what: &'static str, bytes: &'a [u8]) -> Result<Self, PkixError> {
        let (node, rest) = Self::read(what, bytes)?;
        if !rest.is_empty() {
            return Err(PkixError::malformed(what, "something follows it"));
        }
        Ok(node)
    }

    /// Identifier octet.
    pub fn tag(&self) -> u8 {
        self.tag
    }

    /// The whole element as received.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Its contents, without the end mark of an indefinite length.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Whether it has elements inside.
    pub fn is_constructed(&self) -> bool {
        self.tag & CONSTRUCTED != 0
    }

    /// A reader over the elements inside; the tag must be `tag`.
    pub fn open(&self, what: &'static str, tag: u8) -> Result<Reader<'a>, PkixError> {
        if self.tag != tag {
            return Err(PkixError::malformed(what, "another type stands in its place"));
        }
        self.inside(what)
    }

    /// A reader over the elements inside, whatever the tag.
    pub fn inside(&self, what: &'static str) -> Result<Reader<'a>, PkixError> {
        if !self.is_constructed() {
            return Err(PkixError::malformed(what, "it has no elements"));
        }
        Ok(Reader { what, rest: self.body, depth: self.depth + 1 })
    }

    /// Contents of a string in one piece or in many (X.690 section 8.7.3).
    pub fn octets(&self, what: &'static str) -> Result<Cow<'a, [u8]>, PkixError> {
        if !self.is_constructed() {
            return Ok(Cow::Borrowed(self.body));
        }
        let mut whole = Vec::with_capacity(self.body.len());
        for piece in self.inside(what)? {
            whole.extend_from_slice(&piece?.octets(what)?);
        }
        Ok(Cow::Owned(whole))
    }

    /// Contents of a BIT STRING that is a whole number of bytes (every one in X.509 but key usage is).
    pub fn bits(&self, what: &'static str) -> Result<Cow<'a, [u8]>, PkixError> {
        let piece = |node: &Node<'a>| match node.body.split_first() {
            Some((0, bytes)) if node.tag & !CONSTRUCTED == BIT_STRING => Ok(bytes),
            _ => Err(PkixError::malformed(what, "no BIT STRING of whole bytes")),
        };
        if !self.is_constructed() {
            return piece(self).map(Cow::Borrowed);
        }
        let mut whole = Vec::with_capacity(self.body.len());
        for node in self.inside(what)? {
            whole.extend_from_slice(piece(&node?)?);
        }
        Ok(Cow::Owned(whole))
    }

    /// An OBJECT IDENTIFIER.
    pub fn oid(&self, what: &'static str) -> Result<Oid, PkixError> {
        if self.tag != OBJECT_IDENTIFIER {
            return Err(PkixError::malformed(what, "no object identifier stands in its place"));
        }
        Oid::from_bytes(self.body).ok_or(PkixError::malformed(what, "its object identifier is damaged"))
    }

    /// A small non-negative INTEGER, however many zeros precede it.
    pub fn small(&self, what: &'static str) -> Result<u32, PkixError> {
        let digits = trim_zeros(self.body);
        if self.tag != INTEGER || self.body.is_empty() || digits.len() > 4 {
            return Err(PkixError::malformed(what, "no small number stands in its place"));
        }
        Ok(digits.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }
}

/// The same number without leading zeros.
pub fn trim_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

/// Elements one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Reader<'a> {
    /// The next element, which must be there.
    pub fn node(&mut self) -> Result<Node<'a>, PkixError> {
        if self.rest.is_empty() {
            return Err(PkixError::malformed(self.what, "it ends too early"));
        }
        let (node, rest) = node(self.what, self.rest, self.depth)?;
        self.rest = rest;
        Ok(node)
    }

    /// The next element, which must have this tag.
    pub fn expect(&mut self, tag: u8) -> Result<Node<'a>, PkixError> {
        let node = self.node()?;
        if node.tag != tag {
            return Err(PkixError::malformed(self.what, "another type stands in its place"));
        }
        Ok(node)
    }

    /// The next element if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Node<'a>>, PkixError> {
        if self.rest.first() == Some(&tag) { self.node().map(Some) } else { Ok(None) }
    }

    /// Opens the next element, a SEQUENCE.
    pub fn sequence(&mut self) -> Result<Reader<'a>, PkixError> {
        self.expect(SEQUENCE)?.inside(self.what)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Node<'a>, PkixError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = self.node();
        if next.is_err() {
            self.rest = &[];
        }
        Some(next)
    }
}

fn node<'a>(what: &'static str, bytes: &'a [u8], depth: usize) -> Result<(Node<'a>, &'a [u8]), PkixError> {
    if depth > BER_DEPTH_MAX {
        return Err(PkixError::TooMuch { what, limit: BER_DEPTH_MAX });
    }
    let [tag, first, after @ ..] = bytes else {
        return Err(PkixError::malformed(what, "it ends too early"));
    };
    if tag & 0x1f == 0x1f {
        return Err(PkixError::malformed(what, "a tag number above 30"));
    }
    if *first == 0x80 {
        return indefinite(what, *tag, bytes, depth);
    }
    let (length, after) = if *first < 0x80 {
        (usize::from(*first), after)
    } else {
        let count = usize::from(first & 0x7f);
        if count > 4 || after.len() < count {
            return Err(PkixError::malformed(what, "its length is not possible"));
        }
        let (digits, after) = after.split_at(count);
        (digits.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), after)
    };
    if after.len() < length {
        return Err(PkixError::malformed(what, "it ends too early"));
    }
    let (body, rest) = after.split_at(length);
    Ok((Node { tag: *tag, raw: &bytes[..bytes.len() - rest.len()], body, depth }, rest))
}

/// An element whose end is marked by two zeros (X.690 section 8.1.3.6): found by walking over what is inside.
fn indefinite<'a>(
    what: &'static str,
    tag: u8,
    bytes: &'a [u8],
    depth: usize,
) -> Result<(Node<'a>, &'a [u8]), PkixError> {
    if tag & CONSTRUCTED == 0 {
        return Err(PkixError::malformed(what, "its length is not possible"));
    }
    let mut rest = &bytes[2..];
    loop {
        match rest {
            [0, 0, after @ ..] => {
                let raw = &bytes[..bytes.len() - after.len()];
                return Ok((Node { tag, raw, body: &raw[2..raw.len() - 2], depth }, after));
            }
            _ => rest = node(what, rest, depth + 1)?.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_indefinite_length_in_pieces_is_read_as_one_string() {
        let bytes = [0x24, 0x80, 0x04, 2, 1, 2, 0x24, 3, 0x04, 1, 3, 0, 0, 9];
        let (node, rest) = Node::read("test", &bytes).unwrap();
        assert_eq!(rest, [9]);
        assert_eq!(node.octets("test").unwrap().as_ref(), [1, 2, 3]);
        assert_eq!(node.raw(), &bytes[..13]);
    }

    #[test]
    fn a_long_form_of_a_short_length_is_taken() {
        let node = Node::only("test", &[0x04, 0x83, 0, 0, 1, 7]).unwrap();
        assert_eq!(node.body(), [7]);
    }

    #[test]
    fn nesting_ends_at_its_limit() {
        let nested = |levels: usize| {
            let mut bytes = Vec::new();
            for _ in 0..levels {
                bytes.extend_from_slice(&[0x30, 0x80]);
            }
            bytes.resize(bytes.len() + 2 * levels, 0);
            bytes
        };
        assert!(Node::only("test", &nested(BER_DEPTH_MAX + 1)).is_ok());
        let refused = Node::only("test", &nested(BER_DEPTH_MAX + 2)).unwrap_err();
        assert_eq!(refused, PkixError::TooMuch { what: "test", limit: BER_DEPTH_MAX });
    }

    #[test]
    fn impossible_bytes_are_refused() {
        for bad in [
            &[0x04][..],
            &[0x04, 0x80],
            &[0x04, 0x85, 0, 0, 0, 0, 0],
            &[0x1f, 1, 0],
            &[0x04, 2, 0],
            &[0x30, 0x80, 0x04, 0],
        ] {
            assert!(Node::only("test", bad).is_err(), "{bad:?}");
        }
        let big = vec![0; BER_MAX_BYTES + 1];
        assert_eq!(
            Node::read("test", &big).unwrap_err(),
            PkixError::TooMuch { what: "test", limit: BER_MAX_BYTES }
        );
    }
}
