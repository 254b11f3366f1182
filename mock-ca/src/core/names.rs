//! Distinguished names of authorities, from the text settings give.

use super::der;

/// Attribute types by their short names (RFC 4519), and how their values are written.
const TYPES: [(&str, &[u32], u8); 9] = [
    ("CN", &[2, 5, 4, 3], der::UTF8_STRING),
    ("C", &[2, 5, 4, 6], der::PRINTABLE_STRING),
    ("L", &[2, 5, 4, 7], der::UTF8_STRING),
    ("ST", &[2, 5, 4, 8], der::UTF8_STRING),
    ("O", &[2, 5, 4, 10], der::UTF8_STRING),
    ("OU", &[2, 5, 4, 11], der::UTF8_STRING),
    ("DC", &[0, 9, 2342, 19_200_300, 100, 1, 25], der::IA5_STRING),
    ("UID", &[0, 9, 2342, 19_200_300, 100, 1, 1], der::UTF8_STRING),
    ("E", &[1, 2, 840, 113_549, 1, 9, 1], der::IA5_STRING),
];

/// Reads `CN=Acme Issuing CA, DC=acme, DC=example`, leaf first as people write it; `None` says that a part is not of
/// the form type=value, or of an unknown type. A comma cannot be part of a value.
pub fn parse(text: &str) -> Option<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = text
        .split(',')
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            let (name, value) = (name.trim(), value.trim());
            let (_, oid, tag) = TYPES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
            (!value.is_empty()).then(|| attribute(oid, *tag, value))
        })
        .collect::<Option<_>>()?;
    // In a certificate the root of the tree comes first.
    parts.reverse();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Some(der::sequence(&parts))
}

/// As [`parse`], for text that was checked when the settings were read.
pub(super) fn of_text(text: &str) -> Vec<u8> {
    parse(text).expect("names of authorities are checked with the settings")
}

/// Everything after the first part.
pub(super) fn without_first(text: &str) -> &str {
    text.split_once(',').map_or("", |(_, rest)| rest.trim())
}

fn attribute(oid: &[u32], tag: u8, value: &str) -> Vec<u8> {
    let pair = der::sequence(&[&der::oid(oid), &der::element(tag, &[value.as_bytes()])]);
    der::element(der::SET, &[&pair])
}
