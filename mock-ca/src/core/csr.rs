//! A signing request (PKCS#10, RFC 2986), read from the bytes the client signed.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use causeway_protocol::Secret;

use super::read::{self, Node};
use super::{Denial, der};
use crate::limits::{
    ALTERNATIVE_NAMES_MAX, CSR_ATTRIBUTES_MAX, CSR_MAX_BYTES, EXTENSIONS_MAX, NAME_PARTS_MAX,
};

/// What an alternative name is (RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    Email(String),
    Dns(String),
    Uri(String),
    /// User principal name: Microsoft's otherName 1.3.6.1.4.1.311.20.2.3.
    Upn(String),
    /// Address, as it stands there.
    Ip(Vec<u8>),
    /// Anything else: its context tag.
    Other(u8),
}

impl AlternativeName {
    /// `kind:value`, as profiles of the cloud write it.
    pub fn text(&self) -> String {
        match self {
            Self::Email(value) => format!("email:{value}"),
            Self::Dns(value) => format!("dns:{value}"),
            Self::Uri(value) => format!("uri:{value}"),
            Self::Upn(value) => format!("upn:{value}"),
            Self::Ip(bytes) => match <[u8; 4]>::try_from(bytes.as_slice()) {
                Ok(four) => format!("ip:{}", std::net::Ipv4Addr::from(four)),
                Err(_) => match <[u8; 16]>::try_from(bytes.as_slice()) {
                    Ok(sixteen) => format!("ip:{}", std::net::Ipv6Addr::from(sixteen)),
                    Err(_) => "ip:?".to_owned(),
                },
            },
            Self::Other(tag) => format!("other:{tag}"),
        }
    }
}

/// One requested extension.
#[derive(Clone, Debug)]
pub struct Extension {
    /// Body of the object identifier.
    pub oid: Vec<u8>,
    /// The whole `Extension`, DER.
    pub raw: Vec<u8>,
    /// Inside the OCTET STRING.
    pub value: Vec<u8>,
}

/// What kind of key a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKey {
    Rsa { bits: u32 },
    P256,
    Other,
}

/// A request that has been read and whose signature is right.
pub struct Csr {
    /// Name, DER.
    pub subject: Vec<u8>,
    /// Parts of the name in their order: short name or dotted identifier, value.
    pub parts: Vec<(String, String)>,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    pub key: SubjectKey,
    pub challenge: Option<Secret>,
    pub extensions: Vec<Extension>,
    pub alternative_names: Vec<AlternativeName>,
    /// Microsoft's template name (extension 1.3.6.1.4.1.311.20.2), or its identifier (…21.7) in dots.
    pub template: Option<String>,
    /// Requested key usage, first bit lowest; 0 when none is asked for.
    pub key_usage: u16,
}

/// Bodies of object identifiers.
const CHALLENGE_PASSWORD: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 7];
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
/// Microsoft's older identifier of the same.
const MS_EXTENSION_REQUEST: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 14];
pub(super) const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 17];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const UPN: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 20, 2, 3];
const TEMPLATE_NAME: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 20, 2];
const TEMPLATE_OID: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 21, 7];
/// `szOID_NTDS_CA_SECURITY_EXT`: the SID of the account a certificate belongs to (KB5014754).
pub(super) const SECURITY_EXTENSION: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 25, 2];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

/// Short names of attribute types (RFC 4519), by the body of their identifiers.
const SHORT_NAMES: [(&[u8], &str); 13] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "SERIALNUMBER"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "T"),
    (&[0x55, 4, 42], "G"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

impl Csr {
    /// Reads a request and checks that it is signed with its own key.
    ///
    /// # Errors
    /// [`Denial::TooLarge`], [`Denial::Unreadable`] or [`Denial::BadSignature`].
    pub fn read(bytes: &[u8]) -> Result<Self, Denial> {
        if bytes.len() > CSR_MAX_BYTES {
            return Err(Denial::TooLarge);
        }
        if !read::is_shallow(bytes) {
            return Err(Denial::Unreadable);
        }
        let parts = read::whole(bytes).and_then(|node| node.children(3)).ok_or(Denial::Unreadable)?;
        let [info, algorithm, signature] = parts.as_slice() else { return Err(Denial::Unreadable) };
        let fields = info.children(4).ok_or(Denial::Unreadable)?;
        let [_version, subject, spki, rest @ ..] = fields.as_slice() else { return Err(Denial::Unreadable) };
        let signature = signature.bit_bytes().ok_or(Denial::Unreadable)?;
        let mut csr = Self {
            subject: subject.raw.to_vec(),
            parts: name_parts(subject).ok_or(Denial::Unreadable)?,
            spki: spki.raw.to_vec(),
            key: subject_key(spki).ok_or(Denial::Unreadable)?,
            challenge: None,
            extensions: Vec::new(),
            alternative_names: Vec::new(),
            template: None,
            key_usage: 0,
        };
        // The bytes as they came: some clients do not sort their attributes, and a new encoding would be another text.
        if !verify(algorithm, spki.raw, info.raw, signature) {
            return Err(Denial::BadSignature);
        }
        if let Some(attributes) = rest.first() {
            csr.read_attributes(attributes).ok_or(Denial::Unreadable)?;
        }
        Ok(csr)
    }

    /// Subject as RFC 4514 writes it: the last part first.
    pub fn subject_text(&self) -> String {
        text_of_parts(&self.parts)
    }

    /// The last common name.
    pub fn common_name(&self) -> &str {
        self.parts.iter().rev().find(|(name, _)| name == "CN").map_or("", |(_, value)| value.as_str())
    }

    /// The user principal name, if it asks for one.
    pub fn upn(&self) -> Option<&str> {
        self.alternative_names.iter().find_map(|name| match name {
            AlternativeName::Upn(upn) => Some(upn.as_str()),
            _ => None,
        })
    }

    fn read_attributes(&mut self, attributes: &Node<'_>) -> Option<()> {
        for attribute in attributes.children(CSR_ATTRIBUTES_MAX)? {
            let parts = attribute.children(2)?;
            let [oid, values] = parts.as_slice() else { return None };
            let value = values.children(8)?.into_iter().next();
            match (oid.body, value) {
                (CHALLENGE_PASSWORD, Some(value)) => self.challenge = Some(Secret::new(text(&value)?)),
                (EXTENSION_REQUEST | MS_EXTENSION_REQUEST, Some(list)) => self.read_extensions(&list)?,
                _ => {}
            }
        }
        Some(())
    }

    fn read_extensions(&mut self, list: &Node<'_>) -> Option<()> {
        for extension in list.children(EXTENSIONS_MAX)? {
            let parts = extension.children(3)?;
            let (oid, value) = (parts.first()?, parts.last()?);
            if value.tag != der::OCTET_STRING || self.extensions.iter().any(|known| known.oid == oid.body) {
                return None;
            }
            match oid.body {
                ALTERNATIVE_NAME => self.alternative_names = alternative_names(value.body)?,
                KEY_USAGE => self.key_usage = key_usage(value.body)?,
                TEMPLATE_NAME => self.template = Some(text(&read::whole(value.body)?)?),
                TEMPLATE_OID => {
                    let first = read::whole(value.body)?.children(3)?.into_iter().next()?;
                    self.template = Some(dotted(first.body));
                }
                _ => {}
            }
            self.extensions.push(Extension {
                oid: oid.body.to_vec(),
                raw: extension.raw.to_vec(),
                value: value.body.to_vec(),
            });
        }
        Some(())
    }
}

/// Reads a GeneralNames, DER.
pub fn alternative_names(value: &[u8]) -> Option<Vec<AlternativeName>> {
    let ascii = |node: &Node<'_>| {
        std::str::from_utf8(node.body).ok().filter(|text| text.is_ascii()).map(str::to_owned)
    };
    let one = |node: &Node<'_>| {
        Some(match node.tag {
            0x81 => AlternativeName::Email(ascii(node)?),
            0x82 => AlternativeName::Dns(ascii(node)?),
            0x86 => AlternativeName::Uri(ascii(node)?),
            0x87 => AlternativeName::Ip(node.body.to_vec()),
            0xa0 => {
                let parts = node.children(2)?;
                let [oid, value] = parts.as_slice() else { return None };
                match oid.body {
                    UPN => AlternativeName::Upn(text(&value.inner()?)?),
                    _ => AlternativeName::Other(0),
                }
            }
            tag => AlternativeName::Other(tag & 0x1f),
        })
    };
    read::whole(value)?.children(ALTERNATIVE_NAMES_MAX)?.iter().map(one).collect()
}

/// Parts of a name, DER, in their order.
pub fn parts_of_name(name: &[u8]) -> Option<Vec<(String, String)>> {
    name_parts(&read::whole(name)?)
}

/// Parts of a name as RFC 4514 writes them: the last one first.
pub fn text_of_parts(parts: &[(String, String)]) -> String {
    let parts: Vec<String> =
        parts.iter().rev().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    parts.join(",")
}

fn name_parts(name: &Node<'_>) -> Option<Vec<(String, String)>> {
    if name.tag != der::SEQUENCE {
        return None;
    }
    let mut parts = Vec::new();
    for set in name.children(NAME_PARTS_MAX)? {
        for pair in set.children(NAME_PARTS_MAX)? {
            let pair = pair.children(2)?;
            let [oid, value] = pair.as_slice() else { return None };
            let short =
                SHORT_NAMES.iter().find(|(body, _)| *body == oid.body).map(|(_, name)| (*name).to_owned());
            parts.push((short.unwrap_or_else(|| dotted(oid.body)), text(value)?));
        }
    }
    Some(parts)
}

/// A string of any of the types names and passwords come in.
fn text(node: &Node<'_>) -> Option<String> {
    match node.tag {
        // BMPString
        0x1e => {
            let units = node.body.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            (node.body.len() % 2 == 0).then(|| char::decode_utf16(units).collect::<Result<_, _>>().ok())?
        }
        // TeletexString: Latin 1, as everybody fills it.
        0x14 => Some(node.body.iter().map(|byte| char::from(*byte)).collect()),
        _ => std::str::from_utf8(node.body).ok().map(str::to_owned),
    }
}

/// An object identifier's body in dots.
fn dotted(body: &[u8]) -> String {
    let (mut arcs, mut arc) = (Vec::new(), 0u64);
    for byte in body {
        arc = arc << 7 & 0xffff_ffff | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            match arcs.is_empty() {
                true => {
                    let first = (arc / 40).min(2);
                    arcs.extend([first, arc - first * 40]);
                }
                false => arcs.push(arc),
            }
            arc = 0;
        }
    }
    arcs.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

fn key_usage(value: &[u8]) -> Option<u16> {
    let bits = read::whole(value)?;
    let bytes = bits.body.get(1..)?;
    let first = bytes.first().map_or(0, |byte| byte.reverse_bits());
    let second = bytes.get(1).map_or(0, |byte| byte.reverse_bits());
    Some(u16::from(first) | u16::from(second) << 8)
}

fn subject_key(spki: &Node<'_>) -> Option<SubjectKey> {
    let parts = spki.children(2)?;
    let [algorithm, bits] = parts.as_slice() else { return None };
    let algorithm = algorithm.children(2)?;
    let (kind, parameters) = (algorithm.first()?.body, algorithm.get(1).map(|node| node.body));
    Some(match (kind, parameters) {
        (RSA, _) => {
            let modulus = read::whole(bits.bit_bytes()?)?.children(2)?.into_iter().next()?.body;
            let start = modulus.iter().position(|byte| *byte != 0)?;
            let length = u32::try_from(modulus.len() - start).ok()?;
            SubjectKey::Rsa { bits: length * 8 - modulus[start].leading_zeros() }
        }
        (EC, Some(P256)) => SubjectKey::P256,
        _ => SubjectKey::Other,
    })
}

/// Checks a signature by its `AlgorithmIdentifier`.
fn verify(algorithm: &Node<'_>, spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some(oid) = algorithm.children(2).and_then(|parts| parts.first().map(|node| node.body)) else {
        return false;
    };
    let algorithm: &'static dyn VerificationAlgorithm = match oid {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5] => &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11] => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] => &RSA_PKCS1_2048_8192_SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => &ECDSA_P256_SHA256_ASN1,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => &ECDSA_P256_SHA384_ASN1,
        _ => return false,
    };
    UnparsedPublicKey::new(algorithm, read::key_bits(spki)).verify(message, signature).is_ok()
}

/// A value in a name as RFC 4514 section 2.4 writes it.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, letter) in value.chars().enumerate() {
        match letter {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', letter]),
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            '\0' => out.push_str("\\00"),
            letter => out.push(letter),
        }
    }
    out
}
