//! Alternative names (RFC 5280 section 4.2.1.6) as `kind:value`, the way profiles write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ber::{Node, context, context_primitive};
use super::error::PkixError;
use super::name::{Name, string};
use super::oid::{self, Oid};
use super::{algorithm::hex, der};

/// What stands before the security identifier in a URI that binds a certificate to an account (KB5014754).
pub const SID_URI_PREFIX: &str = "tag:microsoft.com,2022-09-14:sid:";

/// One alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlternativeName {
    /// `upn:`: user principal name, an otherName of Microsoft's.
    Upn(String),
    /// `email:`: rfc822Name.
    Email(String),
    /// `dns:`: dNSName.
    Dns(String),
    /// `uri:`: uniformResourceIdentifier.
    Uri(String),
    /// `ip:`: iPAddress.
    Ip(IpAddr),
    /// `dir:`: directoryName, RFC 4514.
    Directory(Name),
    /// `other:`: another otherName.
    Other {
        /// Its type.
        kind: Oid,
        /// The encoding of its value, without the `[0]` around it.
        value: Vec<u8>,
    },
    /// `raw:`: a form nobody uses, as received.
    Raw(Vec<u8>),
}

impl AlternativeName {
    /// The URI that carries a security identifier.
    pub fn sid_uri(sid: &str) -> Self {
        Self::Uri(format!("{SID_URI_PREFIX}{sid}"))
    }

    /// The security identifier, if it is such a URI.
    pub fn sid(&self) -> Option<&str> {
        match self {
            Self::Uri(uri) => uri.strip_prefix(SID_URI_PREFIX),
            _ => None,
        }
    }

    /// Reads `kind:value`, checking what can be checked: addresses have an at sign, what must be ASCII is, nothing is
    /// empty and nothing has a control character.
    pub fn parse(text: &str) -> Result<Self, PkixError> {
        let bad =
            |why| PkixError::BadValue { kind: text.split(':').next().unwrap_or_default().to_owned(), why };
        let (kind, value) = text.split_once(':').ok_or_else(|| bad("a kind and a colon are missing"))?;
        if value.is_empty() {
            return Err(bad("it is empty"));
        }
        if value.chars().any(char::is_control) {
            return Err(PkixError::ControlCharacter { what: "alternative name" });
        }
        let ascii =
            || if value.is_ascii() { Ok(value.to_owned()) } else { Err(bad("only ASCII is allowed")) };
        let address = |value: String| match value.split_once('@') {
            Some((user, host)) if !user.is_empty() && !host.is_empty() => Ok(value),
            _ => Err(bad("it has no user and host around an at sign")),
        };
        Ok(match kind {
            "upn" => Self::Upn(address(value.to_owned())?),
            "email" => Self::Email(address(ascii()?)?),
            "dns" if value.contains(|character: char| character.is_whitespace()) => {
                return Err(bad("a host name has no blanks"));
            }
            "dns" => Self::Dns(ascii()?),
            "uri" => Self::Uri(ascii()?),
            "ip" => Self::Ip(value.parse().map_err(|_| bad("it is no address"))?),
            "dir" => Self::Directory(Name::parse(value)?),
            _ => return Err(bad("the kind is not known")),
        })
    }

    /// Reads one GeneralName.
    pub(crate) fn from_node(node: &Node<'_>) -> Result<Self, PkixError> {
        const WHAT: &str = "alternative name";
        let text = || node.octets(WHAT).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        // A constructed string has the constructed bit too.
        Ok(match node.tag() & !0x20 {
            0x80 if node.is_constructed() => return other_name(node),
            0x81 => Self::Email(text()?),
            0x82 => Self::Dns(text()?),
            0x86 => Self::Uri(text()?),
            0x87 => match node.octets(WHAT)?.as_ref() {
                bytes if let Ok(four) = <[u8; 4]>::try_from(bytes) => Self::Ip(Ipv4Addr::from(four).into()),
                bytes if let Ok(many) = <[u8; 16]>::try_from(bytes) => Self::Ip(Ipv6Addr::from(many).into()),
                _ => Self::Raw(node.raw().to_vec()),
            },
            0x84 => Self::Directory(Name::from_node(&node.inside(WHAT)?.node()?)?),
            _ => Self::Raw(node.raw().to_vec()),
        })
    }

    /// Its encoding as a GeneralName.
    pub fn to_der(&self) -> Vec<u8> {
        match self {
            Self::Upn(upn) => other(oid::MS_UPN, &der::utf8(upn)),
            Self::Email(email) => der::implicit(1, email.as_bytes()),
            Self::Dns(dns) => der::implicit(2, dns.as_bytes()),
            Self::Uri(uri) => der::implicit(6, uri.as_bytes()),
            Self::Ip(IpAddr::V4(ip)) => der::implicit(7, &ip.octets()),
            Self::Ip(IpAddr::V6(ip)) => der::implicit(7, &ip.octets()),
            Self::Directory(name) => der::explicit(4, &name.to_der()),
            Self::Other { kind, value } => other(*kind, value),
            Self::Raw(raw) => raw.clone(),
        }
    }

    pub(crate) fn has_control_character(&self) -> bool {
        match self {
            Self::Upn(text) | Self::Email(text) | Self::Dns(text) | Self::Uri(text) => {
                text.chars().any(char::is_control)
            }
            Self::Directory(name) => name.check_characters("alternative name").is_err(),
            Self::Ip(_) | Self::Other { .. } | Self::Raw(_) => false,
        }
    }
}

fn other(kind: Oid, value: &[u8]) -> Vec<u8> {
    der::joined(context(0), &[&der::oid(kind), &der::explicit(0, value)])
}

fn other_name(node: &Node<'_>) -> Result<AlternativeName, PkixError> {
    const WHAT: &str = "alternative name";
    let mut fields = node.inside(WHAT)?;
    let kind = fields.node()?.oid(WHAT)?;
    let wrapped = fields.node()?;
    if wrapped.tag() & !0x20 != context_primitive(0) {
        return Err(PkixError::malformed(WHAT, "another type stands in its place"));
    }
    let value = wrapped.inside(WHAT)?.node()?;
    if kind == oid::MS_UPN
        && let Some(upn) = string(&value)?
    {
        return Ok(AlternativeName::Upn(upn));
    }
    Ok(AlternativeName::Other { kind, value: value.raw().to_vec() })
}

impl fmt::Display for AlternativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upn(upn) => write!(f, "upn:{upn}"),
            Self::Email(email) => write!(f, "email:{email}"),
            Self::Dns(dns) => write!(f, "dns:{dns}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Ip(ip) => write!(f, "ip:{ip}"),
            Self::Directory(name) => write!(f, "dir:{name}"),
            Self::Other { kind, value } => write!(f, "other:{kind}:{}", hex(value)),
            Self::Raw(raw) => write!(f, "raw:{}", hex(raw)),
        }
    }
}

/// The security identifier as text, if a value of [`oid::MS_SID_OBJECT`] is one.
pub(crate) fn sid_of(name: &AlternativeName) -> Option<String> {
    let AlternativeName::Other { kind: oid::MS_SID_OBJECT, value } = name else { return None };
    let octets = Node::only("security identifier", value).ok()?;
    String::from_utf8(octets.octets("security identifier").ok()?.into_owned()).ok()
}
