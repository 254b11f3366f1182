//! An entry of a search result, read in place.
//!
//! The structure is checked once, when the entry arrives; after that, looking at attributes costs no allocation and
//! cannot fail. Attribute types may occur more than once (DirSync sends `member;range=1-1` twice) and every value is
//! octets: whether it is text is for the reader to know, not for the bytes to suggest.

use std::borrow::Cow;

use bytes::Bytes;

use super::ber::{BerError, Reader, tag};

/// One entry. Cheap to move; holds the bytes it arrived in.
#[derive(Clone)]
pub struct Entry {
    body: Bytes,
    dn: Span,
    attributes: Vec<AttributeSpan>,
}

#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy)]
struct AttributeSpan {
    description: Span,
    values: Span,
}

/// One attribute description with its values.
#[derive(Clone, Copy)]
pub struct Attribute<'a> {
    description: &'a str,
    values: &'a [u8],
}

impl Entry {
    /// Reads the content of a SearchResultEntry (RFC 4511 4.5.2).
    pub(crate) fn decode(body: Bytes) -> Result<Self, BerError> {
        let span = |part: &[u8]| {
            let start = part.as_ptr() as usize - body.as_ptr() as usize;
            Span { start: start as u32, end: (start + part.len()) as u32 }
        };
        let mut reader = Reader::new(&body);
        let dn = span(reader.octets()?);
        let mut list = Reader::new(reader.expect(tag::SEQUENCE)?);
        let mut attributes = Vec::with_capacity(16);
        while !list.is_empty() {
            let mut attribute = Reader::new(list.expect(tag::SEQUENCE)?);
            let description = attribute.octets()?;
            // Attribute descriptions are ASCII (RFC 4512 2.5); one that is not cannot be one we asked for.
            let values = attribute.expect(tag::SET)?;
            let mut check = Reader::new(values);
            while !check.is_empty() {
                check.octets()?;
            }
            if std::str::from_utf8(description).is_ok() {
                attributes.push(AttributeSpan { description: span(description), values: span(values) });
            }
        }
        Ok(Self { dn, attributes, body })
    }

    /// The distinguished name. A name that is not UTF-8 violates RFC 4514; its bad octets are replaced.
    pub fn dn(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes(self.dn))
    }

    /// Every attribute, in the server's order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'_>> {
        self.attributes.iter().map(|span| self.at(span))
    }

    fn at(&self, span: &AttributeSpan) -> Attribute<'_> {
        Attribute {
            description: std::str::from_utf8(self.bytes(span.description)).unwrap_or_default(),
            values: self.bytes(span.values),
        }
    }

    /// The attribute of this type without options other than those given in `description`.
    pub fn attribute(&self, description: &str) -> Option<Attribute<'_>> {
        let wanted = description.as_bytes();
        let span =
            self.attributes.iter().find(|span| self.bytes(span.description).eq_ignore_ascii_case(wanted))?;
        Some(self.at(span))
    }

    /// First value of an attribute.
    pub fn first(&self, description: &str) -> Option<&[u8]> {
        self.attribute(description)?.values().next()
    }

    /// First value of an attribute as text.
    pub fn text(&self, description: &str) -> Option<Cow<'_, str>> {
        self.first(description).map(String::from_utf8_lossy)
    }

    /// All values of an attribute as text; empty when there are none.
    pub fn texts(&self, description: &str) -> Vec<String> {
        self.attribute(description)
            .map(|attribute| {
                attribute.values().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
            })
            .unwrap_or_default()
    }

    /// Whether `objectClass` (or another attribute of names) holds `value`, ignoring case.
    pub fn has(&self, description: &str, value: &str) -> bool {
        self.attribute(description).is_some_and(|attribute| {
            attribute.values().any(|held| held.eq_ignore_ascii_case(value.as_bytes()))
        })
    }

    /// Bytes the entry occupies.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    fn bytes(&self, span: Span) -> &[u8] {
        &self.body[span.start as usize..span.end as usize]
    }
}

impl std::fmt::Debug for Entry {
    /// The name only: values may be personal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("dn", &self.dn()).finish_non_exhaustive()
    }
}

impl<'a> Attribute<'a> {
    /// Type and options as the server wrote them.
    pub fn description(&self) -> &'a str {
        self.description
    }

    /// The type, without options.
    pub fn base(&self) -> &'a str {
        self.description.split(';').next().unwrap_or_default()
    }

    /// The values, in the server's order.
    pub fn values(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.values);
        std::iter::from_fn(move || reader.octets().ok())
    }

    /// The `range=` option (MS-ADTS 3.1.1.3.1.3.3): first index, and last index or `None` for the last chunk.
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        let option = self.description.split(';').skip(1).find_map(|option| {
            let (name, range) = option.split_once('=')?;
            name.eq_ignore_ascii_case("range").then_some(range)
        })?;
        let (low, high) = option.split_once('-')?;
        let high = if high == "*" { None } else { Some(high.parse().ok()?) };
        Some((low.parse().ok()?, high))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::directory::ber::Writer;

    /// An entry as a server would send it.
    pub(crate) fn entry(dn: &str, attributes: &[(&str, &[&[u8]])]) -> Entry {
        let mut writer = Writer::new();
        writer.octets(dn.as_bytes());
        writer.constructed(tag::SEQUENCE, |list| {
            for (description, values) in attributes {
                list.constructed(tag::SEQUENCE, |attribute| {
                    attribute.octets(description.as_bytes());
                    attribute.constructed(tag::SET, |set| values.iter().for_each(|value| set.octets(value)));
                });
            }
        });
        Entry::decode(Bytes::from(writer.into_bytes())).unwrap()
    }

    #[test]
    fn repeated_types_are_kept_apart() {
        let entry = entry(
            "CN=Staff,DC=acme",
            &[
                ("member;range=1-1", &[b"CN=A"]),
                ("member;range=1-1", &[b"CN=B"]),
                ("member;range=0-0", &[b"CN=C"]),
            ],
        );
        let seen: Vec<_> = entry.attributes().map(|a| (a.base(), a.range(), a.values().count())).collect();
        assert_eq!(
            seen,
            [
                ("member", Some((1, Some(1))), 1),
                ("member", Some((1, Some(1))), 1),
                ("member", Some((0, Some(0))), 1)
            ]
        );
    }

    #[test]
    fn octets_that_happen_to_be_text_stay_octets() {
        let entry = entry("CN=A", &[("objectGUID", &[b"0123456789abcdef"]), ("cn", &[b"\xff\xfe"])]);
        assert_eq!(entry.first("OBJECTGUID"), Some(&b"0123456789abcdef"[..]));
        assert_eq!(entry.text("cn").as_deref(), Some("\u{fffd}\u{fffd}"));
    }

    #[test]
    fn the_last_range_has_no_end() {
        let entry = entry("CN=A", &[("Member;Range=3000-*;binary", &[])]);
        assert_eq!(entry.attributes().next().and_then(|a| a.range()), Some((3000, None)));
    }

    #[test]
    fn a_value_that_is_no_octet_string_is_refused() {
        let mut writer = Writer::new();
        writer.octets(b"CN=A");
        writer.constructed(tag::SEQUENCE, |list| {
            list.constructed(tag::SEQUENCE, |attribute| {
                attribute.octets(b"cn");
                attribute.constructed(tag::SET, |set| set.integer(1));
            });
        });
        assert!(Entry::decode(Bytes::from(writer.into_bytes())).is_err());
    }
}
