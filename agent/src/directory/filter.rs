//! Search filters. Built from parts, never from concatenated text, so what a person typed cannot become syntax; text is
//! read only where an administrator configures a filter (RFC 4515).

use thiserror::Error;

use super::ber::{Writer, tag};
use super::guid::hex_octet;

/// A filter, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Vec<u8>);

impl Filter {
    /// The encoding, ready to be part of a search.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.0
    }

    /// `(attribute=value)`; the value is octets and needs no escaping.
    pub fn equals(attribute: &str, value: impl AsRef<[u8]>) -> Self {
        Self::assertion(3, attribute, value.as_ref())
    }

    /// `(attribute>=value)`
    pub fn at_least(attribute: &str, value: impl AsRef<[u8]>) -> Self {
        Self::assertion(5, attribute, value.as_ref())
    }

    /// `(attribute<=value)`
    pub fn at_most(attribute: &str, value: impl AsRef<[u8]>) -> Self {
        Self::assertion(6, attribute, value.as_ref())
    }

    /// `(attribute=*)`
    pub fn present(attribute: &str) -> Self {
        let mut out = Writer::new();
        out.primitive(tag::context(7), attribute.as_bytes());
        Self(out.into_bytes())
    }

    /// All of them. Of one filter, that filter.
    pub fn all(filters: impl IntoIterator<Item = Self>) -> Self {
        Self::set(0, filters)
    }

    /// Any of them. Of one filter, that filter.
    pub fn any(filters: impl IntoIterator<Item = Self>) -> Self {
        Self::set(1, filters)
    }

    /// Not this one.
    pub fn negate(filter: &Self) -> Self {
        let mut out = Writer::new();
        out.constructed(tag::context_constructed(2), |inner| inner.raw(&filter.0));
        Self(out.into_bytes())
    }

    /// Reads the text of RFC 4515.
    ///
    /// # Errors
    /// Says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        parser.skip_spaces();
        let filter = parser.filter()?;
        parser.skip_spaces();
        if parser.at < text.len() {
            return Err(parser.error("the filter ends here, but the text goes on"));
        }
        Ok(filter)
    }

    fn assertion(kind: u8, attribute: &str, value: &[u8]) -> Self {
        let mut out = Writer::new();
        out.constructed(tag::context_constructed(kind), |inner| {
            inner.octets(attribute.as_bytes());
            inner.octets(value);
        });
        Self(out.into_bytes())
    }

    fn set(kind: u8, filters: impl IntoIterator<Item = Self>) -> Self {
        let mut filters: Vec<Self> = filters.into_iter().collect();
        if filters.len() == 1 {
            return filters.remove(0);
        }
        let mut out = Writer::new();
        out.constructed(tag::context_constructed(kind), |inner| {
            filters.iter().for_each(|filter| inner.raw(&filter.0));
        });
        Self(out.into_bytes())
    }
}

/// What is wrong with the text of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem} (character {position})")]
pub struct FilterError {
    /// What is wrong.
    pub problem: &'static str,
    /// Where, counted from 1.
    pub position: usize,
}

/// Nesting allowed in the text of a filter: more than any person writes, less than servers refuse.
const DEPTH_MAX: usize = 50;

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, problem: &'static str) -> FilterError {
        let position = self.text[..self.at.min(self.text.len())].chars().count() + 1;
        FilterError { problem, position }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|octet| octet.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8, problem: &'static str) -> Result<(), FilterError> {
        if self.peek() != Some(wanted) {
            return Err(self.error(problem));
        }
        self.at += 1;
        Ok(())
    }

    fn filter(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("nested too deeply"));
        }
        self.take(b'(', "an opening parenthesis is missing")?;
        let filter = match self.peek() {
            Some(b'&') => Filter(self.set(0)?),
            Some(b'|') => Filter(self.set(1)?),
            Some(b'!') => {
                self.at += 1;
                self.skip_spaces();
                Filter::negate(&self.filter()?)
            }
            _ => self.item()?,
        };
        self.skip_spaces();
        self.take(b')', "a closing parenthesis is missing")?;
        self.depth -= 1;
        Ok(filter)
    }

    fn set(&mut self, kind: u8) -> Result<Vec<u8>, FilterError> {
        self.at += 1;
        let mut parts = Vec::new();
        self.skip_spaces();
        while self.peek() == Some(b'(') {
            parts.push(self.filter()?);
            self.skip_spaces();
        }
        let mut out = Writer::new();
        out.constructed(tag::context_constructed(kind), |inner| {
            parts.iter().for_each(|part| inner.raw(&part.0));
        });
        Ok(out.into_bytes())
    }

    fn item(&mut self) -> Result<Filter, FilterError> {
        let start = self.at;
        while self.peek().is_some_and(|octet| !matches!(octet, b'=' | b'(' | b')')) {
            self.at += 1;
        }
        if self.peek() != Some(b'=') {
            return Err(self.error("an equals sign is missing"));
        }
        let before = self.text[start..self.at].trim();
        self.at += 1;
        let (name, operator) = match before.as_bytes().last() {
            Some(b'>' | b'<' | b'~' | b':') => {
                (&before[..before.len() - 1], before.as_bytes()[before.len() - 1])
            }
            _ => (before, b'='),
        };
        if operator != b':' && !is_description(name) {
            self.at = start;
            return Err(self.error("an attribute name is missing or wrong"));
        }
        let parts = self.values()?;
        let single = |parts: Vec<Vec<u8>>, parser: &Self| {
            let [value] = <[Vec<u8>; 1]>::try_from(parts)
                .map_err(|_| parser.error("an asterisk has no meaning here; write it as \\2a"))?;
            Ok(value)
        };
        Ok(match operator {
            b'>' => Filter::at_least(name, single(parts, self)?),
            b'<' => Filter::at_most(name, single(parts, self)?),
            b'~' => Filter::assertion(8, name, &single(parts, self)?),
            b':' => self.extensible(name, &single(parts, self)?)?,
            _ if parts.len() == 1 => Filter::equals(name, &parts[0]),
            _ if parts.len() == 2 && parts.iter().all(Vec::is_empty) => Filter::present(name),
            _ => substrings(name, &parts),
        })
    }

    /// Reads the value up to the closing parenthesis, split at asterisks, escapes resolved.
    fn values(&mut self) -> Result<Vec<Vec<u8>>, FilterError> {
        let mut parts = vec![Vec::new()];
        loop {
            let Some(octet) = self.peek() else { return Err(self.error("a closing parenthesis is missing")) };
            match octet {
                b')' => return Ok(parts),
                b'(' => return Err(self.error("an opening parenthesis in a value must be written as \\28")),
                b'*' => parts.push(Vec::new()),
                b'\\' => {
                    let pair = self.text.as_bytes()[self.at + 1..].first_chunk();
                    let value = pair
                        .and_then(|pair| hex_octet(*pair))
                        .ok_or_else(|| self.error("a backslash must be followed by two hex digits"))?;
                    parts.last_mut().expect("there is always a last part").push(value);
                    self.at += 2;
                }
                plain => parts.last_mut().expect("there is always a last part").push(plain),
            }
            self.at += 1;
        }
    }

    fn extensible(&self, before: &str, value: &[u8]) -> Result<Filter, FilterError> {
        let mut pieces = before.split(':');
        let name = pieces.next().unwrap_or_default();
        let mut rule = None;
        let mut dn_attributes = false;
        for piece in pieces {
            if piece.eq_ignore_ascii_case("dn") {
                dn_attributes = true;
            } else if rule.is_none() && !piece.is_empty() {
                rule = Some(piece);
            } else {
                return Err(self.error("this matching rule assertion cannot be read"));
            }
        }
        if name.is_empty() && rule.is_none() {
            return Err(self.error("a matching rule or an attribute name is missing"));
        }
        let mut out = Writer::new();
        out.constructed(tag::context_constructed(9), |inner| {
            if let Some(rule) = rule {
                inner.primitive(tag::context(1), rule.as_bytes());
            }
            if !name.is_empty() {
                inner.primitive(tag::context(2), name.as_bytes());
            }
            inner.primitive(tag::context(3), value);
            if dn_attributes {
                inner.primitive(tag::context(4), &[0xff]);
            }
        });
        Ok(Filter(out.into_bytes()))
    }
}

fn is_description(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-.;_=".contains(&octet))
}

fn substrings(name: &str, parts: &[Vec<u8>]) -> Filter {
    let mut out = Writer::new();
    out.constructed(tag::context_constructed(4), |inner| {
        inner.octets(name.as_bytes());
        inner.constructed(tag::SEQUENCE, |list| {
            let last = parts.len() - 1;
            for (n, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_empty()) {
                let kind = if n == 0 {
                    0
                } else if n == last {
                    2
                } else {
                    1
                };
                list.primitive(tag::context(kind), part);
            }
        });
    });
    Filter(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_and_parts_give_the_same_bytes() {
        let parts = Filter::all([
            Filter::equals("objectClass", "user"),
            Filter::any([Filter::equals("cn", "a*b("), Filter::present("mail")]),
            Filter::negate(&Filter::at_least("uSNChanged", "7")),
        ]);
        let text = "(&(objectClass=user)(|(cn=a\\2ab\\28)(mail=*))(!(uSNChanged>=7)))";
        assert_eq!(Filter::parse(text), Ok(parts));
    }

    #[test]
    fn the_encoding_is_that_of_rfc_4511() {
        // Composed by hand from RFC 4511 section 4.5.1.
        let expected = [
            0xa0, 0x25, 0xa3, 0x0b, 4, 2, b'c', b'n', 4, 5, b'a', b'l', b'i', b'c', b'e', 0xa4, 0x16, 4, 2,
            b's', b'n', 0x30, 0x10, 0x80, 2, b's', b'm', 0x81, 1, b'i', 0x82, 7, b't', b'h', b'-', b'1',
            b'2', b'3', b'4',
        ];
        assert_eq!(Filter::parse("(&(cn=alice)(sn=sm*i*th-1234))").unwrap().encoded(), expected);
    }

    #[test]
    fn bit_rules_of_active_directory_are_read() {
        let filter = Filter::parse("(userAccountControl:1.2.840.113556.1.4.803:=2)").unwrap();
        assert_eq!(filter.encoded()[0], 0xa9);
        assert!(filter.encoded().windows(22).any(|w| w == b"1.2.840.113556.1.4.803"));
    }

    #[test]
    fn errors_name_the_place() {
        for (text, position) in [
            ("(cn=a", 6),
            ("cn=a", 1),
            ("(&(cn=a)(=b))", 10),
            ("(cn=a)x", 7),
            ("(cn=\\zz)", 5),
            ("(cn=(a))", 5),
        ] {
            assert_eq!(Filter::parse(text).unwrap_err().position, position, "{text}");
        }
        assert!(Filter::parse(&"(!".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = Filter::parse(&text);
        }

        #[test]
        fn hostile_values_stay_values(value in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let filter = Filter::equals("uid", &value);
            let mut outer = super::super::ber::Reader::new(filter.encoded());
            let mut inner = super::super::ber::Reader::new(outer.expect(0xa3).unwrap());
            prop_assert_eq!(inner.octets(), Ok(&b"uid"[..]));
            prop_assert_eq!(inner.octets(), Ok(&value[..]));
            prop_assert!(inner.is_empty() && outer.is_empty());
        }
    }
}
