//! Names as text: RFC 4514 (`CN=a,O=b`, the most specific part first), and the form with slashes that templates have
//! (`/O=b/CN=a`, from the root downwards).

use std::fmt;

use super::ber::Node;
use super::error::PkixError;
use super::name::{Attribute, Name, string};
use super::oid::{self, Oid};

/// Keywords, the one written first. `SN` is the serial number and `S` the surname, as in the templates of the product
/// this one takes over from; LDAP's `sn` would be the surname, which is why neither is written.
const KEYWORDS: &[(&str, Oid)] = &[
    ("CN", oid::CN),
    ("C", oid::COUNTRY),
    ("L", oid::LOCALITY),
    ("ST", oid::STATE),
    ("STREET", oid::STREET),
    ("O", oid::ORGANIZATION),
    ("OU", oid::ORGANIZATIONAL_UNIT),
    ("DC", oid::DOMAIN_COMPONENT),
    ("UID", oid::USER_ID),
    ("emailAddress", oid::EMAIL_ADDRESS),
    ("givenName", oid::GIVEN_NAME),
    ("surname", oid::SURNAME),
    ("initials", oid::INITIALS),
    ("serialNumber", oid::SERIAL_NUMBER),
    ("title", oid::TITLE),
    ("description", oid::DESCRIPTION),
    ("dnQualifier", oid::DN_QUALIFIER),
    ("E", oid::EMAIL_ADDRESS),
    ("EMAIL", oid::EMAIL_ADDRESS),
    ("G", oid::GIVEN_NAME),
    ("GN", oid::GIVEN_NAME),
    ("S", oid::SURNAME),
    ("I", oid::INITIALS),
    ("SN", oid::SERIAL_NUMBER),
    ("T", oid::TITLE),
    ("D", oid::DESCRIPTION),
];

/// How a type is written: its keyword, or its dotted numbers.
pub(crate) fn keyword(kind: Oid) -> String {
    KEYWORDS
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or_else(|| kind.to_string(), |(keyword, _)| (*keyword).to_owned())
}

impl Name {
    /// Reads either form; what begins with a slash is the one with slashes. In that form `\/` stands for a slash, and
    /// `+` is a character like any other. Lengths are not checked ([`Name::check`]).
    pub fn parse(text: &str) -> Result<Self, PkixError> {
        match text.strip_prefix('/') {
            Some(_) => slashes(text),
            None => rfc4514(text),
        }
    }
}

fn slashes(text: &str) -> Result<Name, PkixError> {
    let mut input = Input { text, at: 1 };
    let mut rdns = Vec::new();
    loop {
        let kind = input.kind()?;
        rdns.push(vec![input.value(kind, &['/'])?]);
        if input.next().is_none() {
            return Ok(Name { rdns });
        }
    }
}

fn rfc4514(text: &str) -> Result<Name, PkixError> {
    let mut input = Input { text, at: 0 };
    let mut rdns = Vec::new();
    if text.trim().is_empty() {
        return Ok(Name { rdns });
    }
    let mut rdn = Vec::new();
    loop {
        let kind = input.kind()?;
        rdn.push(input.value(kind, &[',', ';', '+'])?);
        let separator = input.next();
        if separator != Some('+') {
            rdns.push(std::mem::take(&mut rdn));
        }
        if separator.is_none() {
            rdns.reverse();
            return Ok(Name { rdns });
        }
    }
}

struct Input<'a> {
    text: &'a str,
    at: usize,
}

impl Input<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn wrong<T>(&self, why: &'static str) -> Result<T, PkixError> {
        Err(PkixError::BadName { at: self.at, why })
    }

    fn kind(&mut self) -> Result<Oid, PkixError> {
        let Some(length) = self.rest().find('=') else {
            return self.wrong("a type and an equals sign are missing");
        };
        let word = self.rest()[..length].trim();
        let word = word.strip_prefix("OID.").or(word.strip_prefix("oid.")).unwrap_or(word);
        let kind = KEYWORDS
            .iter()
            .find(|(keyword, _)| keyword.eq_ignore_ascii_case(word))
            .map(|(_, kind)| *kind)
            .or_else(|| Oid::parse(word));
        let Some(kind) = kind else { return self.wrong("the type is not known") };
        self.at += length + 1;
        Ok(kind)
    }

    /// The value up to a separator, which stays. Spaces around it go, unless it is escaped.
    fn value(&mut self, kind: Oid, separators: &[char]) -> Result<Attribute, PkixError> {
        // Spaces and no other white space: RFC 4514 section 3 knows nothing else, and a name may begin with it.
        let blanks = self.rest().len() - self.rest().trim_start_matches(' ').len();
        self.at += blanks;
        if self.rest().starts_with('#') {
            return self.opaque(kind, separators);
        }
        let mut bytes = Vec::new();
        // Where the text ends when blanks at its end are left out.
        let mut end = 0;
        while let Some(character) = self.rest().chars().next() {
            if separators.contains(&character) {
                break;
            }
            self.at += character.len_utf8();
            if character == '\\' {
                bytes.extend_from_slice(&self.escaped()?);
                end = bytes.len();
                continue;
            }
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            if character != ' ' {
                end = bytes.len();
            }
        }
        bytes.truncate(end);
        match String::from_utf8(bytes) {
            Ok(value) => Ok(Attribute::new(kind, value)),
            Err(_) => self.wrong("the escaped bytes are no UTF-8"),
        }
    }

    /// What follows a backslash: two digits, or the character itself.
    fn escaped(&mut self) -> Result<Vec<u8>, PkixError> {
        let pair = self.rest().get(..2).filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(byte) = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            self.at += 2;
            return Ok(vec![byte]);
        }
        match self.next() {
            Some(character) => Ok(character.encode_utf8(&mut [0; 4]).as_bytes().to_vec()),
            None => self.wrong("a backslash ends it"),
        }
    }

    /// `#` and the encoding in hexadecimal (RFC 4514 section 2.4); a string in it is read as one.
    fn opaque(&mut self, kind: Oid, separators: &[char]) -> Result<Attribute, PkixError> {
        let length =
            self.rest().find(|character| separators.contains(&character)).unwrap_or(self.rest().len());
        let digits = self.rest()[1..length].trim().to_owned();
        if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
            return self.wrong("no hexadecimal value");
        }
        let bytes = (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
        let Ok(bytes) = bytes.collect::<Result<Vec<_>, _>>() else {
            return self.wrong("no hexadecimal value");
        };
        let node = Node::only("name", &bytes)?;
        self.at += length;
        Ok(match string(&node)? {
            Some(text) => Attribute::new(kind, text),
            None => Attribute { kind, value: format!("#{digits}").to_lowercase(), opaque: Some(bytes) },
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, rdn) in self.rdns.iter().rev().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            for (at, attribute) in rdn.iter().enumerate() {
                let plus = if at > 0 { "+" } else { "" };
                write!(f, "{plus}{}=", keyword(attribute.kind))?;
                match attribute.opaque {
                    Some(_) => f.write_str(&attribute.value)?,
                    None => write_value(f, &attribute.value)?,
                }
            }
        }
        Ok(())
    }
}

/// Escapes what RFC 4514 section 2.4 wants escaped, and control characters as bytes, so that none reaches a log.
fn write_value(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => write!(f, "\\{character}")?,
            '#' if at == 0 => f.write_str("\\#")?,
            ' ' if at == 0 || at == last => f.write_str("\\ ")?,
            character if character.is_control() => {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    write!(f, "\\{byte:02X}")?;
                }
            }
            character => write!(f, "{character}")?,
        }
    }
    Ok(())
}
