//! A small writer of DER (X.690 section 10).

use super::ber::{
    BIT_STRING, BOOLEAN, IA5_STRING, INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING, PRINTABLE_STRING,
    SEQUENCE, SET, UTF8_STRING, context, context_primitive, trim_zeros,
};
use super::oid::Oid;

/// An element: tag, shortest length, contents.
pub fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(contents.len() + 6);
    header(&mut out, tag, contents.len());
    out.extend_from_slice(contents);
    out
}

/// SEQUENCE of elements that are encoded already.
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    joined(SEQUENCE, parts)
}

/// An element with any tag around elements that are encoded already.
pub fn joined(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    header(&mut out, tag, length);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// SET OF: the elements in ascending order (X.690 section 11.6).
pub fn set_of(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    parts.sort();
    element(SET, &parts.concat())
}

/// `[number]` around elements.
pub fn explicit(number: u8, contents: &[u8]) -> Vec<u8> {
    element(context(number), contents)
}

/// `[number] IMPLICIT` instead of the tag of a string.
pub fn implicit(number: u8, contents: &[u8]) -> Vec<u8> {
    element(context_primitive(number), contents)
}

/// OBJECT IDENTIFIER.
pub fn oid(oid: Oid) -> Vec<u8> {
    element(OBJECT_IDENTIFIER, oid.as_bytes())
}

/// A small INTEGER.
pub fn small(number: u32) -> Vec<u8> {
    unsigned(&number.to_be_bytes())
}

/// A non-negative INTEGER from its big-endian bytes.
pub fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let digits = trim_zeros(bytes);
    match digits.first() {
        None => element(INTEGER, &[0]),
        Some(first) if *first < 0x80 => element(INTEGER, digits),
        Some(_) => joined(INTEGER, &[&[0], digits]),
    }
}

/// OCTET STRING.
pub fn octets(bytes: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, bytes)
}

/// BIT STRING of whole bytes.
pub fn bits(bytes: &[u8]) -> Vec<u8> {
    joined(BIT_STRING, &[&[0], bytes])
}

/// BIT STRING of named bits (X.690 section 11.2.2): bit 0 is the highest of the first byte, zeros at the end are left out.
pub fn named_bits(set: &[u8]) -> Vec<u8> {
    let mut bytes = [0u8; 32];
    for bit in set {
        bytes[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let unused = used.checked_sub(1).map_or(0, |last| bytes[last].trailing_zeros() as u8);
    joined(BIT_STRING, &[&[unused], &bytes[..used]])
}

/// NULL.
pub fn null() -> Vec<u8> {
    element(NULL, &[])
}

/// BOOLEAN TRUE; FALSE is a default in every place of X.509 and left out.
pub fn yes() -> Vec<u8> {
    element(BOOLEAN, &[0xff])
}

/// PrintableString; the caller knows that the characters are allowed.
pub fn printable(text: &str) -> Vec<u8> {
    element(PRINTABLE_STRING, text.as_bytes())
}

/// UTF8String.
pub fn utf8(text: &str) -> Vec<u8> {
    element(UTF8_STRING, text.as_bytes())
}

/// IA5String; the caller knows that the text is ASCII.
pub fn ia5(text: &str) -> Vec<u8> {
    element(IA5_STRING, text.as_bytes())
}

fn header(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
        return;
    }
    let digits = length.to_be_bytes();
    let digits = trim_zeros(&digits);
    out.push(0x80 | digits.len() as u8);
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_superfluous_zero_and_keep_their_sign() {
        assert_eq!(small(0), [2, 1, 0]);
        assert_eq!(small(127), [2, 1, 127]);
        assert_eq!(small(128), [2, 2, 0, 128]);
        assert_eq!(unsigned(&[0, 0, 0xff, 1]), [2, 3, 0, 0xff, 1]);
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        assert_eq!(element(4, &[0; 127])[..2], [4, 127]);
        assert_eq!(element(4, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(element(4, &[0; 256])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn named_bits_end_with_a_one() {
        // digitalSignature and keyEncipherment, as every certificate of a web server has them.
        assert_eq!(named_bits(&[0, 2]), [3, 2, 5, 0xa0]);
        assert_eq!(named_bits(&[8]), [3, 3, 7, 0, 0x80]);
        assert_eq!(named_bits(&[]), [3, 1, 0]);
    }

    #[test]
    fn sets_are_sorted() {
        assert_eq!(set_of(vec![vec![4, 1, 2], vec![4, 1, 1]]), [0x31, 6, 4, 1, 1, 4, 1, 2]);
    }
}
