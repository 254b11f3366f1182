//! Distinguished names (RFC 5280 section 4.1.2.4): their parts, their encoding, what is allowed in them. How they are
//! written as text stands in `name_text`.

use super::algorithm::hex;
use super::ber::{BMP_STRING, IA5_STRING, Node, PRINTABLE_STRING, Reader, SEQUENCE, SET, UTF8_STRING};
use super::der;
use super::error::PkixError;
use super::oid::{self, Oid};
use crate::limits::NAME_ATTRIBUTES_MAX;

/// Teletex, read as Latin-1 as everybody does.
const T61_STRING: u8 = 0x14;
const NUMERIC_STRING: u8 = 0x12;
const VISIBLE_STRING: u8 = 0x1a;
const UNIVERSAL_STRING: u8 = 0x1c;

/// A distinguished name: relative names from the root downwards, as they are encoded; text goes the other way
/// (RFC 4514).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Name {
    /// Relative distinguished names, each of one attribute or, rarely, several.
    pub rdns: Vec<Vec<Attribute>>,
}

/// One attribute of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attribute {
    /// Its type.
    pub kind: Oid,
    /// Its value. Where that is no string, `#` and its encoding in hexadecimal (RFC 4514 section 2.4).
    pub value: String,
    /// The encoding of a value that is no string.
    pub(crate) opaque: Option<Vec<u8>>,
}

impl Attribute {
    /// An attribute with a string for value.
    pub fn new(kind: Oid, value: impl Into<String>) -> Self {
        Self { kind, value: value.into(), opaque: None }
    }
}

impl Name {
    /// A name of single attributes, from the root downwards.
    pub fn of(attributes: impl IntoIterator<Item = (Oid, String)>) -> Self {
        let rdns = attributes.into_iter().map(|(kind, value)| vec![Attribute::new(kind, value)]).collect();
        Self { rdns }
    }

    /// Reads a Name, BER.
    pub fn read(bytes: &[u8]) -> Result<Self, PkixError> {
        Self::from_node(&Node::only("name", bytes)?)
    }

    pub(crate) fn from_node(node: &Node<'_>) -> Result<Self, PkixError> {
        let mut count = 0;
        let mut rdns = Vec::new();
        for rdn in node.open("name", SEQUENCE)? {
            let mut attributes = Vec::with_capacity(1);
            for attribute in rdn?.open("name", SET)? {
                count += 1;
                if count > NAME_ATTRIBUTES_MAX {
                    return Err(PkixError::TooMuch { what: "name", limit: NAME_ATTRIBUTES_MAX });
                }
                attributes.push(attribute_from(attribute?.open("name", SEQUENCE)?)?);
            }
            rdns.push(attributes);
        }
        Ok(Self { rdns })
    }

    /// Whether it has no parts.
    pub fn is_empty(&self) -> bool {
        self.rdns.is_empty()
    }

    /// All attributes, from the root downwards.
    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.rdns.iter().flatten()
    }

    /// The last value of a type, the most specific one.
    pub fn value(&self, kind: Oid) -> Option<&str> {
        self.attributes().filter(|attribute| attribute.kind == kind).last().map(|found| found.value.as_str())
    }

    /// Whether the two name the same (RFC 5280 section 7.1): case and amount of white space do not matter.
    pub fn same_as(&self, other: &Self) -> bool {
        self.rdns.len() == other.rdns.len()
            && self.rdns.iter().zip(&other.rdns).all(|(ours, theirs)| {
                ours.len() == theirs.len()
                    && ours.iter().all(|one| theirs.iter().any(|other| same(one, other)))
            })
    }

    /// Whether an authority may be asked for it: lengths of X.520, letters of countries, no control characters, nothing
    /// empty.
    pub fn check(&self) -> Result<(), PkixError> {
        if self.attributes().count() > NAME_ATTRIBUTES_MAX {
            return Err(PkixError::TooMuch { what: "name", limit: NAME_ATTRIBUTES_MAX });
        }
        self.check_characters("subject")?;
        self.attributes().try_for_each(check)
    }

    pub(crate) fn check_characters(&self, what: &'static str) -> Result<(), PkixError> {
        if self.attributes().any(|attribute| attribute.value.chars().any(char::is_control)) {
            return Err(PkixError::ControlCharacter { what });
        }
        Ok(())
    }

    /// Its encoding, DER: UTF8String, except where RFC 5280 appendix A wants another type.
    pub fn to_der(&self) -> Vec<u8> {
        let rdns: Vec<_> = self
            .rdns
            .iter()
            .map(|rdn| {
                der::set_of(
                    rdn.iter()
                        .map(|attribute| der::sequence(&[&der::oid(attribute.kind), &encoded(attribute)]))
                        .collect(),
                )
            })
            .collect();
        der::element(SEQUENCE, &rdns.concat())
    }
}

fn attribute_from(mut fields: Reader<'_>) -> Result<Attribute, PkixError> {
    let kind = fields.node()?.oid("name")?;
    let value = fields.node()?;
    Ok(match string(&value)? {
        Some(text) => Attribute::new(kind, text),
        None => {
            Attribute { kind, value: format!("#{}", hex(value.raw())), opaque: Some(value.raw().to_vec()) }
        }
    })
}

/// The text of any string type; `None` where it is no string. What is damaged is replaced, because a certificate with it
/// exists nevertheless.
pub(crate) fn string(node: &Node<'_>) -> Result<Option<String>, PkixError> {
    let bytes = node.octets("text")?;
    Ok(Some(match node.tag() & !0x20 {
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING | NUMERIC_STRING | VISIBLE_STRING => {
            String::from_utf8_lossy(&bytes).into_owned()
        }
        T61_STRING => bytes.iter().map(|byte| char::from(*byte)).collect(),
        BMP_STRING => {
            let units =
                bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        UNIVERSAL_STRING => bytes
            .chunks_exact(4)
            .map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
            .map(|code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
        _ => return Ok(None),
    }))
}

fn encoded(attribute: &Attribute) -> Vec<u8> {
    if let Some(opaque) = &attribute.opaque {
        return opaque.clone();
    }
    let text = attribute.value.as_str();
    match attribute.kind {
        oid::COUNTRY | oid::SERIAL_NUMBER | oid::DN_QUALIFIER if text.bytes().all(is_printable) => {
            der::printable(text)
        }
        oid::EMAIL_ADDRESS | oid::DOMAIN_COMPONENT if text.is_ascii() => der::ia5(text),
        _ => der::utf8(text),
    }
}

/// The characters of PrintableString (X.680 section 41.4).
pub(crate) fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

fn same(one: &Attribute, other: &Attribute) -> bool {
    let folded = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    one.kind == other.kind
        && (one.value == other.value
            || (one.opaque.is_none() && other.opaque.is_none() && folded(&one.value) == folded(&other.value)))
}

/// Upper bounds of RFC 5280 appendix A.1, in characters.
fn check(attribute: &Attribute) -> Result<(), PkixError> {
    let bad = |why| Err(PkixError::BadValue { kind: super::name_text::keyword(attribute.kind), why });
    let text = attribute.value.as_str();
    if text.is_empty() {
        return bad("it is empty");
    }
    let longest = match attribute.kind {
        oid::COUNTRY => {
            let letters = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
            return if letters { Ok(()) } else { bad("a country has two letters") };
        }
        oid::CN
        | oid::ORGANIZATION
        | oid::ORGANIZATIONAL_UNIT
        | oid::TITLE
        | oid::SERIAL_NUMBER
        | oid::GIVEN_NAME
        | oid::SURNAME
        | oid::INITIALS => 64,
        oid::LOCALITY | oid::STATE | oid::STREET => 128,
        oid::DOMAIN_COMPONENT => 63,
        oid::EMAIL_ADDRESS => 255,
        _ => 1024,
    };
    match attribute.kind {
        oid::EMAIL_ADDRESS | oid::DOMAIN_COMPONENT if !text.is_ascii() => bad("only ASCII is allowed"),
        oid::SERIAL_NUMBER | oid::DN_QUALIFIER if !text.bytes().all(is_printable) => {
            bad("only printable characters are allowed")
        }
        _ if text.chars().count() > longest => bad("it is too long"),
        _ => Ok(()),
    }
}
