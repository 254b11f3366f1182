//! Search filters (RFC 4511 4.5.1.7): the tree as it comes off the wire, and its text form (RFC 4515).

use crate::dit::limits::FILTER_DEPTH_MAX;
use crate::dn::hex_digit;

/// An attribute description: type in lower case, plus options as received.
pub type AttrDesc = String;

/// One filter. Values are bytes, never text: objectGUID searches carry any byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Equality {
        attr: AttrDesc,
        value: Vec<u8>,
    },
    Substrings {
        attr: AttrDesc,
        initial: Option<Vec<u8>>,
        any: Vec<Vec<u8>>,
        final_: Option<Vec<u8>>,
    },
    GreaterOrEqual {
        attr: AttrDesc,
        value: Vec<u8>,
    },
    LessOrEqual {
        attr: AttrDesc,
        value: Vec<u8>,
    },
    Present(AttrDesc),
    Approx {
        attr: AttrDesc,
        value: Vec<u8>,
    },
    Extensible {
        rule: Option<String>,
        attr: Option<AttrDesc>,
        value: Vec<u8>,
        dn_attributes: bool,
    },
    /// One nobody can evaluate: an unknown choice, or substrings without pieces or in an order there cannot be. Neither
    /// true nor false of any entry (RFC 4511 section 4.5.1.7); it has no text form.
    Undefined,
}

/// Why a filter text could not be read, with the byte position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    #[error("filter is nested deeper than {max}", max = FILTER_DEPTH_MAX)]
    TooDeep,
    #[error("filter ends too early")]
    Truncated,
    #[error("unexpected character at byte {0}")]
    Unexpected(usize),
    #[error("value has a malformed escape at byte {0}")]
    BadEscape(usize),
}

impl Filter {
    /// `(objectClass=*)`: every entry.
    pub fn everything() -> Self {
        Self::Present("objectclass".to_owned())
    }

    /// Reads the text form. The outermost parentheses may be missing, as in most tools.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let trimmed = text.trim();
        let wrapped;
        let text = if trimmed.starts_with('(') {
            trimmed
        } else {
            wrapped = format!("({trimmed})");
            &wrapped
        };
        let mut parser = Parser { text: text.as_bytes(), at: 0 };
        let filter = parser.filter(0)?;
        if parser.at == parser.text.len() { Ok(filter) } else { Err(FilterError::Unexpected(parser.at)) }
    }
}

impl std::str::FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |f: &mut std::fmt::Formatter<'_>, sign: char, parts: &[Self]| {
            write!(f, "({sign}")?;
            parts.iter().try_for_each(|part| write!(f, "{part}"))?;
            f.write_str(")")
        };
        match self {
            Self::And(parts) => list(f, '&', parts),
            Self::Or(parts) => list(f, '|', parts),
            Self::Not(part) => write!(f, "(!{part})"),
            Self::Equality { attr, value } => write!(f, "({attr}={})", escape(value)),
            Self::GreaterOrEqual { attr, value } => write!(f, "({attr}>={})", escape(value)),
            Self::LessOrEqual { attr, value } => write!(f, "({attr}<={})", escape(value)),
            Self::Approx { attr, value } => write!(f, "({attr}~={})", escape(value)),
            Self::Present(attr) => write!(f, "({attr}=*)"),
            Self::Substrings { attr, initial, any, final_ } => {
                write!(f, "({attr}={}*", initial.as_deref().map(escape).unwrap_or_default())?;
                any.iter().try_for_each(|part| write!(f, "{}*", escape(part)))?;
                write!(f, "{})", final_.as_deref().map(escape).unwrap_or_default())
            }
            Self::Extensible { rule, attr, value, dn_attributes } => {
                write!(f, "({}", attr.as_deref().unwrap_or_default())?;
                if *dn_attributes {
                    f.write_str(":dn")?;
                }
                rule.iter().try_for_each(|rule| write!(f, ":{rule}"))?;
                write!(f, ":={})", escape(value))
            }
            Self::Undefined => f.write_str("(?)"),
        }
    }
}

/// Escapes an assertion value (RFC 4515 section 3); what is not UTF-8 or not printable becomes `\hh`.
pub fn escape(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            if matches!(character, '*' | '(' | ')' | '\\') || character.is_control() {
                let mut buffer = [0; 4];
                character
                    .encode_utf8(&mut buffer)
                    .bytes()
                    .for_each(|byte| out.push_str(&format!("\\{byte:02x}")));
            } else {
                out.push(character);
            }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\{byte:02x}")));
    }
    out
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Result<u8, FilterError> {
        self.text.get(self.at).copied().ok_or(FilterError::Truncated)
    }

    fn expect(&mut self, byte: u8) -> Result<(), FilterError> {
        if self.peek()? != byte {
            return Err(FilterError::Unexpected(self.at));
        }
        self.at += 1;
        Ok(())
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth > FILTER_DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        self.expect(b'(')?;
        let filter = match self.peek()? {
            b'&' => Filter::And(self.list(depth)?),
            b'|' => Filter::Or(self.list(depth)?),
            b'!' => {
                self.at += 1;
                Filter::Not(Box::new(self.filter(depth + 1)?))
            }
            _ => self.item()?,
        };
        self.expect(b')')?;
        Ok(filter)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Filter>, FilterError> {
        self.at += 1;
        let mut parts = Vec::new();
        while self.peek()? == b'(' {
            parts.push(self.filter(depth + 1)?);
        }
        Ok(parts)
    }

    fn item(&mut self) -> Result<Filter, FilterError> {
        let attr = self.name()?;
        let sign = self.peek()?;
        if sign == b':' {
            return self.extensible(attr);
        }
        if attr.is_empty() {
            return Err(FilterError::Unexpected(self.at));
        }
        self.at += 1;
        if matches!(sign, b'>' | b'<' | b'~') {
            self.expect(b'=')?;
            let value = self.value(false)?.remove(0);
            return Ok(match sign {
                b'>' => Filter::GreaterOrEqual { attr, value },
                b'<' => Filter::LessOrEqual { attr, value },
                _ => Filter::Approx { attr, value },
            });
        }
        if sign != b'=' {
            return Err(FilterError::Unexpected(self.at - 1));
        }
        let mut parts = self.value(true)?;
        if parts.len() == 1 {
            return Ok(Filter::Equality { attr, value: parts.remove(0) });
        }
        if parts.iter().all(Vec::is_empty) {
            return Ok(Filter::Present(attr));
        }
        let some = |part: Vec<u8>| (!part.is_empty()).then_some(part);
        let final_ = parts.pop().and_then(some);
        let initial = some(parts.remove(0));
        let any = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Ok(Filter::Substrings { attr, initial, any, final_ })
    }

    fn extensible(&mut self, attr: String) -> Result<Filter, FilterError> {
        let (mut dn_attributes, mut rule) = (false, None);
        while self.peek()? == b':' {
            self.at += 1;
            if self.peek()? == b'=' {
                break;
            }
            let word = self.name()?;
            match word.as_str() {
                "" => return Err(FilterError::Unexpected(self.at)),
                "dn" if !dn_attributes && rule.is_none() => dn_attributes = true,
                _ if rule.is_none() => rule = Some(word),
                _ => return Err(FilterError::Unexpected(self.at)),
            }
        }
        self.expect(b'=')?;
        let value = self.value(false)?.remove(0);
        let attr = Some(attr).filter(|attr| !attr.is_empty());
        if attr.is_none() && rule.is_none() {
            return Err(FilterError::Unexpected(self.at));
        }
        Ok(Filter::Extensible { rule, attr, value, dn_attributes })
    }

    fn name(&mut self) -> Result<String, FilterError> {
        let start = self.at;
        while matches!(self.peek()?, byte if byte.is_ascii_alphanumeric() || b"-._;".contains(&byte)) {
            self.at += 1;
        }
        Ok(String::from_utf8_lossy(&self.text[start..self.at]).to_ascii_lowercase())
    }

    /// The value up to the closing parenthesis, split at asterisks when those mean something.
    fn value(&mut self, stars: bool) -> Result<Vec<Vec<u8>>, FilterError> {
        let mut parts = vec![Vec::new()];
        loop {
            let byte = self.peek()?;
            let escaped = match byte {
                b')' => return Ok(parts),
                b'(' => return Err(FilterError::Unexpected(self.at)),
                b'*' if stars => {
                    parts.push(Vec::new());
                    self.at += 1;
                    continue;
                }
                b'\\' => {
                    let digits = self.text.get(self.at + 1..self.at + 3).ok_or(FilterError::Truncated)?;
                    let bad = FilterError::BadEscape(self.at);
                    let byte = (hex_digit(digits[0]).ok_or(bad)? << 4) | hex_digit(digits[1]).ok_or(bad)?;
                    self.at += 2;
                    byte
                }
                plain => plain,
            };
            self.at += 1;
            if let Some(last) = parts.last_mut() {
                last.push(escaped);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn examples_of_rfc_4515_come_back() {
        for text in [
            "(cn=Babs Jensen)",
            "(!(cn=Tim Howes))",
            "(&(objectclass=Person)(|(sn=Jensen)(cn=Babs J*)))",
            "(o=univ*of*mich*)",
            "(seealso=)",
            "(cn:caseexactmatch:=Fred Flintstone)",
            "(cn:=Betty Rubble)",
            "(sn:dn:2.4.6.8.10:=Barney Rubble)",
            "(o:dn:=Ace Industry)",
            "(:1.2.3:=Wilma Flintstone)",
            "(o=Parens R Us \\28for all your parenthetical needs\\29)",
            "(cn=*\\2a*)",
            "(bin=\\00\\00\\00\\04)",
            "(&)",
            "(|)",
        ] {
            assert_eq!(Filter::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Filter::parse("mail=*"), Ok(Filter::Present("mail".to_owned())));
    }

    #[test]
    fn mistakes_are_found_where_they_are() {
        assert_eq!(Filter::parse("(cn=a"), Err(FilterError::Truncated));
        assert_eq!(Filter::parse("(cn=a)(sn=b)"), Err(FilterError::Unexpected(6)));
        assert_eq!(Filter::parse("(cn=\\zz)"), Err(FilterError::BadEscape(4)));
        assert_eq!(Filter::parse("(=a)"), Err(FilterError::Unexpected(1)));
        let deep = "(!".repeat(10_000) + "(a=b)" + &")".repeat(10_000);
        assert_eq!(Filter::parse(&deep), Err(FilterError::TooDeep));
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..12)
    }

    fn filters() -> impl Strategy<Value = Filter> {
        let attr = "[a-z][a-z0-9-]{0,8}(;[a-z]{1,4})?";
        let leaf = prop_oneof![
            (attr, value()).prop_map(|(attr, value)| Filter::Equality { attr, value }),
            (attr, value()).prop_map(|(attr, value)| Filter::GreaterOrEqual { attr, value }),
            (attr, value()).prop_map(|(attr, value)| Filter::LessOrEqual { attr, value }),
            (attr, value()).prop_map(|(attr, value)| Filter::Approx { attr, value }),
            attr.prop_map(Filter::Present),
            (attr, proptest::option::of(value()), proptest::collection::vec(value(), 0..3), value())
                .prop_map(|(attr, initial, any, last)| Filter::Substrings {
                    attr,
                    initial,
                    any,
                    final_: Some(last)
                }),
            (proptest::option::of("[0-9]{1,3}(\\.[0-9]{1,3}){1,3}"), attr, value(), any::<bool>()).prop_map(
                |(rule, attr, value, dn_attributes)| Filter::Extensible {
                    rule,
                    attr: Some(attr),
                    value,
                    dn_attributes
                }
            ),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::And),
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::Or),
                inner.prop_map(|part| Filter::Not(Box::new(part))),
            ]
        })
    }

    proptest! {
        #[test]
        fn text_form_comes_back(filter in filters()) {
            let text = filter.to_string();
            prop_assert_eq!(Filter::parse(&text).map_err(|error| format!("{text}: {error}")), Ok(filter));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,60}") {
            let _ = Filter::parse(&text);
        }
    }
}
