//! Distinguished names: parsing, comparison keys and escaping (RFC 4514), and the alternative forms a base DN may
//! have on Active Directory (MS-ADTS 3.1.1.3.1.2.4): `<GUID=..>`, `<SID=..>`, `<WKGUID=..,dn>`.

use crate::dit::limits;
use crate::dit::matching::Folding;

/// A name as received: a path, or one of the identifiers Active Directory accepts instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Name {
    Path(Dn),
    Guid([u8; 16]),
    Sid(Vec<u8>),
    WellKnown { guid: [u8; 16], of: Dn },
}

/// A distinguished name, leaf first. Empty for the root.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dn {
    pub rdns: Vec<Rdn>,
}

/// One relative name: usually one attribute and value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rdn {
    pub parts: Vec<Ava>,
}

/// Attribute type as written, and the unescaped value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ava {
    pub attribute: String,
    pub value: Vec<u8>,
}

/// What is wrong with a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DnError {
    #[error("name has more than {max} bytes", max = limits::DN_SIZE_MAX_BYTES)]
    TooLong,
    #[error("attribute type is missing or not a name at byte {0}")]
    BadType(usize),
    #[error("value is malformed at byte {0}")]
    BadValue(usize),
    #[error("identifier in angle brackets is malformed")]
    BadIdentifier,
}

impl Name {
    /// Parses what a client may send as a base or object name.
    pub fn parse(text: &[u8]) -> Result<Self, DnError> {
        let trimmed = text.trim_ascii();
        let Some(inner) = trimmed.strip_prefix(b"<") else { return Dn::parse(text).map(Self::Path) };
        let end = inner.iter().position(|&byte| byte == b'>').ok_or(DnError::BadIdentifier)?;
        let inner = std::str::from_utf8(&inner[..end]).map_err(|_| DnError::BadIdentifier)?;
        let (kind, rest) = inner.split_once('=').ok_or(DnError::BadIdentifier)?;
        match kind.to_ascii_uppercase().as_str() {
            "GUID" => parse_guid(rest).map(Self::Guid).ok_or(DnError::BadIdentifier),
            "SID" => parse_sid(rest).map(Self::Sid).ok_or(DnError::BadIdentifier),
            "WKGUID" => {
                let (guid, of) = rest.split_once(',').ok_or(DnError::BadIdentifier)?;
                let bytes = from_hex(guid).ok_or(DnError::BadIdentifier)?;
                let guid = bytes.try_into().map_err(|_| DnError::BadIdentifier)?;
                Ok(Self::WellKnown { guid, of: Dn::parse(of.as_bytes())? })
            }
            _ => Err(DnError::BadIdentifier),
        }
    }
}

impl Dn {
    /// Parses RFC 4514 text. Blanks around separators and `;` between names are accepted (RFC 2253 section 4).
    pub fn parse(text: &[u8]) -> Result<Self, DnError> {
        if text.len() > limits::DN_SIZE_MAX_BYTES {
            return Err(DnError::TooLong);
        }
        let mut cursor = Cursor { text, at: 0 };
        let mut rdns = Vec::new();
        cursor.skip_blanks();
        if cursor.peek().is_none() {
            return Ok(Self { rdns });
        }
        loop {
            let mut parts = vec![cursor.ava()?];
            while cursor.peek() == Some(b'+') {
                cursor.at += 1;
                parts.push(cursor.ava()?);
            }
            rdns.push(Rdn { parts });
            match cursor.peek() {
                None => return Ok(Self { rdns }),
                Some(b',' | b';') => cursor.at += 1,
                Some(_) => return Err(DnError::BadValue(cursor.at)),
            }
        }
    }

    pub fn is_root(&self) -> bool {
        self.rdns.is_empty()
    }

    /// The name one level up; the root's parent is the root.
    pub fn parent(&self) -> Self {
        Self { rdns: self.rdns.get(1..).unwrap_or_default().to_vec() }
    }

    /// Text that compares equal for equal names.
    pub(crate) fn key(&self, folding: Folding) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for (index, rdn) in self.rdns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&rdn.key(folding));
        }
        out
    }
}

impl std::fmt::Display for Dn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, rdn) in self.rdns.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{rdn}")?;
        }
        Ok(())
    }
}

impl Rdn {
    pub fn new(attribute: &str, value: &[u8]) -> Self {
        Self { parts: vec![Ava { attribute: attribute.to_owned(), value: value.to_vec() }] }
    }

    /// Parses exactly one relative name.
    pub fn parse(text: &[u8]) -> Result<Self, DnError> {
        let mut dn = Dn::parse(text)?;
        if dn.rdns.len() == 1 { Ok(dn.rdns.remove(0)) } else { Err(DnError::BadValue(0)) }
    }

    /// Comparison key: types and values folded, parts of a multi-valued name in one order. The separators are
    /// control bytes, so that no value can imitate a longer name.
    pub(crate) fn key(&self, folding: Folding) -> Vec<u8> {
        let part = |ava: &Ava| {
            let mut key = ava.attribute.to_ascii_lowercase().into_bytes();
            key.push(b'=');
            folding.fold_into(&ava.value, &mut key);
            key
        };
        if let [only] = self.parts.as_slice() {
            return part(only);
        }
        let mut parts: Vec<Vec<u8>> = self.parts.iter().map(part).collect();
        parts.sort();
        parts.join(&0x01)
    }
}

impl std::fmt::Display for Rdn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, ava) in self.parts.iter().enumerate() {
            if index > 0 {
                f.write_str("+")?;
            }
            write!(f, "{}={}", ava.attribute, escape_value(&ava.value))?;
        }
        Ok(())
    }
}

/// Escapes a value for use in a name (RFC 4514 2.4). Bytes that are not UTF-8 become `\hh`.
pub fn escape_value(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len() + 4);
    let last = value.len().saturating_sub(1);
    let mut at = 0;
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                ' ' if at == 0 || at == last => out.push_str("\\ "),
                '#' if at == 0 => out.push_str("\\#"),
                ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => out.extend(['\\', character]),
                control if (control as u32) < 0x20 => out.push_str(&format!("\\{:02X}", control as u32)),
                plain => out.push(plain),
            }
            at += character.len_utf8();
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\{byte:02X}"));
            at += 1;
        }
    }
    out
}

/// A GUID in any form clients write: 32 hex digits (wire order), or dashed text (mixed endian), with or without braces.
pub fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let text = text.trim().trim_start_matches('{').trim_end_matches('}');
    if text.len() == 32 {
        return from_hex(text)?.try_into().ok();
    }
    uuid::Uuid::try_parse(text).ok().filter(|_| text.len() == 36).map(|uuid| uuid.to_bytes_le())
}

/// A SID as `S-1-5-..` or as hex digits of its bytes.
pub fn parse_sid(text: &str) -> Option<Vec<u8>> {
    let Some(rest) = text.strip_prefix("S-").or_else(|| text.strip_prefix("s-")) else {
        return from_hex(text);
    };
    let mut numbers = rest.split('-');
    let revision: u8 = numbers.next()?.parse().ok()?;
    let authority: u64 = numbers.next()?.parse().ok()?;
    let parts: Vec<u32> = numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let mut sid = vec![revision, u8::try_from(parts.len()).ok().filter(|&count| count <= 15)?];
    sid.extend_from_slice(&authority.to_be_bytes()[2..]);
    parts.iter().for_each(|part| sid.extend_from_slice(&part.to_le_bytes()));
    Some(sid)
}

/// The `S-1-..` text of a binary SID; `None` when the bytes are no SID.
pub fn sid_text(sid: &[u8]) -> Option<String> {
    let count = usize::from(*sid.get(1)?);
    if sid.len() != 8 + 4 * count {
        return None;
    }
    let authority = sid[2..8].iter().fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte));
    let mut text = format!("S-{}-{authority}", sid[0]);
    for part in sid[8..].chunks_exact(4) {
        text.push_str(&format!("-{}", u32::from_le_bytes([part[0], part[1], part[2], part[3]])));
    }
    Some(text)
}

/// Bytes of an even number of hex digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some((hex_digit(pair[0])? << 4) | hex_digit(pair[1])?)).collect()
}

pub(crate) fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn ava(&mut self) -> Result<Ava, DnError> {
        self.skip_blanks();
        let start = self.at;
        while matches!(self.peek(), Some(byte) if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_')
        {
            self.at += 1;
        }
        let attribute = String::from_utf8_lossy(&self.text[start..self.at]).into_owned();
        let attribute = match attribute.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("oid.") => attribute[4..].to_owned(),
            _ => attribute,
        };
        self.skip_blanks();
        if attribute.is_empty() || self.peek() != Some(b'=') {
            return Err(DnError::BadType(start));
        }
        self.at += 1;
        self.skip_blanks();
        let value = match self.peek() {
            Some(b'#') => self.hex_value()?,
            Some(b'"') => self.quoted_value()?,
            _ => self.string_value()?,
        };
        Ok(Ava { attribute, value })
    }

    /// `#` and the BER of the value (RFC 4514 2.4); the octets of a primitive value are taken.
    fn hex_value(&mut self) -> Result<Vec<u8>, DnError> {
        let start = self.at;
        self.at += 1;
        while matches!(self.peek(), Some(byte) if byte.is_ascii_hexdigit()) {
            self.at += 1;
        }
        let digits =
            std::str::from_utf8(&self.text[start + 1..self.at]).map_err(|_| DnError::BadValue(start))?;
        let bytes = from_hex(digits).ok_or(DnError::BadValue(start))?;
        self.skip_blanks();
        match bytes.as_slice() {
            [_, length, value @ ..] if usize::from(*length) == value.len() => Ok(value.to_vec()),
            _ => Err(DnError::BadValue(start)),
        }
    }

    fn quoted_value(&mut self) -> Result<Vec<u8>, DnError> {
        let start = self.at;
        self.at += 1;
        let mut value = Vec::new();
        loop {
            match self.peek().ok_or(DnError::BadValue(start))? {
                b'"' => break,
                b'\\' => value.push(self.escape()?),
                byte => {
                    value.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        self.skip_blanks();
        Ok(value)
    }

    fn string_value(&mut self) -> Result<Vec<u8>, DnError> {
        let mut value = Vec::new();
        // Length up to the last byte that a trailing blank may not take away.
        let mut solid = 0;
        while let Some(byte) = self.peek() {
            match byte {
                b',' | b'+' | b';' => break,
                b'\\' => {
                    value.push(self.escape()?);
                    solid = value.len();
                }
                b'"' => return Err(DnError::BadValue(self.at)),
                _ => {
                    value.push(byte);
                    self.at += 1;
                    if byte != b' ' {
                        solid = value.len();
                    }
                }
            }
        }
        value.truncate(solid);
        Ok(value)
    }

    fn escape(&mut self) -> Result<u8, DnError> {
        let at = self.at;
        let first = *self.text.get(at + 1).ok_or(DnError::BadValue(at))?;
        let second = self.text.get(at + 2).copied().and_then(hex_digit);
        if let (Some(high), Some(low)) = (hex_digit(first), second) {
            self.at += 3;
            return Ok((high << 4) | low);
        }
        self.at += 2;
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hard_names_keep_their_values() {
        let dn =
            Dn::parse(br#"CN=O'Brien\, "Bob" \(x\)\0ADEL:1+uid=a ,  OU = Big  Team;DC=acme"#).unwrap_err();
        assert!(matches!(dn, DnError::BadValue(_)), "an unescaped quote inside a value is an error");
        let dn = Dn::parse(b"CN=Miller\\, Ann \\  ,OU = Big  Team;DC=acme").unwrap();
        assert_eq!(dn.rdns[0].parts[0].value, b"Miller, Ann  ");
        assert_eq!(dn.rdns[1].parts[0].value, b"Big  Team");
        assert_eq!(dn.to_string(), "CN=Miller\\, Ann \\ ,OU=Big  Team,DC=acme");
    }

    #[test]
    fn names_that_differ_in_case_and_blanks_have_one_key() {
        let one = Dn::parse(b"cn=JANE  Doe, ou=x").unwrap().key(Folding::Accents);
        let two = Dn::parse("CN=Jän\u{e9} doe,OU=X".as_bytes()).unwrap().key(Folding::Accents);
        assert_eq!(one, two);
        let folded = Dn::parse("CN=Jän\u{e9} doe,OU=X".as_bytes()).unwrap().key(Folding::Case);
        assert_ne!(one, folded);
    }

    #[test]
    fn identifiers_in_angle_brackets() {
        let guid =
            [0x0e, 0xe4, 0x7e, 0xd7, 0x2d, 0xd1, 0x57, 0x47, 0x97, 0xaf, 0x79, 0x63, 0xd9, 0xb5, 0x63, 0xa5];
        for text in ["<GUID=d77ee40e-d12d-4757-97af-7963d9b563a5>", "<guid=0ee47ed72dd1574797af7963d9b563a5>"]
        {
            assert_eq!(Name::parse(text.as_bytes()), Ok(Name::Guid(guid)), "{text}");
        }
        let sid = parse_sid("S-1-5-21-2243304557-2060330101-2658866844-1132").unwrap();
        assert_eq!(to_hex(&sid), "0105000000000005150000006d1cb6857524ce7a9c167b9e6c040000");
        assert_eq!(sid_text(&sid).as_deref(), Some("S-1-5-21-2243304557-2060330101-2658866844-1132"));
    }

    proptest! {
        #[test]
        fn any_value_survives_a_name(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = format!("CN={},DC=acme", escape_value(&value));
            let dn = Dn::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(&dn.rdns[0].parts[0].value, &value);
        }

        #[test]
        fn arbitrary_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Name::parse(&text);
        }
    }
}
