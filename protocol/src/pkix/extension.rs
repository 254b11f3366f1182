//! Extensions of certificates and requests (RFC 5280 section 4.2), and those of Microsoft that enrolment needs.

use super::ber::{
    BIT_STRING, BMP_STRING, BOOLEAN, INTEGER, Node, OCTET_STRING, SEQUENCE, context, context_primitive,
};
use super::der;
use super::error::PkixError;
use super::name::string;
use super::oid::{self, Oid};
use super::san::{AlternativeName, sid_of};
use crate::limits::{ALTERNATIVE_NAMES_MAX, EXTENSIONS_MAX};

/// One extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its type.
    pub oid: Oid,
    /// Whether who does not know it must refuse the certificate.
    pub critical: bool,
    /// The encoding of its value.
    pub value: Vec<u8>,
}

impl Extension {
    /// An extension that may be ignored.
    pub fn new(oid: Oid, value: Vec<u8>) -> Self {
        Self { oid, critical: false, value }
    }

    /// The same, critical.
    pub fn critical(mut self) -> Self {
        self.critical = true;
        self
    }

    /// keyUsage, critical as RFC 5280 wants it.
    pub fn key_usage(usage: KeyUsage) -> Self {
        let bits: Vec<u8> = (0..9).filter(|bit| usage.0 & 1 << bit != 0).collect();
        Self::new(oid::KEY_USAGE, der::named_bits(&bits)).critical()
    }

    /// extKeyUsage.
    pub fn extended_key_usage(purposes: &[Oid]) -> Self {
        let purposes: Vec<u8> = purposes.iter().flat_map(|purpose| der::oid(*purpose)).collect();
        Self::new(oid::EXTENDED_KEY_USAGE, der::element(SEQUENCE, &purposes))
    }

    /// basicConstraints, critical.
    pub fn basic_constraints(constraints: BasicConstraints) -> Self {
        let ca = if constraints.ca { der::yes() } else { Vec::new() };
        let path = constraints.path_length.map(der::small).unwrap_or_default();
        Self::new(oid::BASIC_CONSTRAINTS, der::sequence(&[&ca, &path])).critical()
    }

    /// subjectAltName.
    pub fn alternative_names(names: &[AlternativeName]) -> Self {
        let names: Vec<u8> = names.iter().flat_map(AlternativeName::to_der).collect();
        Self::new(oid::SUBJECT_ALT_NAME, der::element(SEQUENCE, &names))
    }

    /// subjectKeyIdentifier.
    pub fn subject_key_id(id: &[u8]) -> Self {
        Self::new(oid::SUBJECT_KEY_ID, der::octets(id))
    }

    /// authorityKeyIdentifier with the key identifier only.
    pub fn authority_key_id(id: &[u8]) -> Self {
        Self::new(oid::AUTHORITY_KEY_ID, der::sequence(&[&der::implicit(0, id)]))
    }

    /// cRLDistributionPoints: one point with these addresses.
    pub fn crl_distribution_points(urls: &[&str]) -> Self {
        let names: Vec<u8> = urls.iter().flat_map(|url| der::implicit(6, url.as_bytes())).collect();
        let point = der::sequence(&[&der::explicit(0, &der::explicit(0, &names))]);
        Self::new(oid::CRL_DISTRIBUTION_POINTS, der::sequence(&[&point]))
    }

    /// authorityInfoAccess: where OCSP answers and where the issuer's certificate is.
    pub fn authority_info_access(ocsp: Option<&str>, issuer: Option<&str>) -> Self {
        let access =
            |method, url: &str| der::sequence(&[&der::oid(method), &der::implicit(6, url.as_bytes())]);
        let ocsp = ocsp.map(|url| access(oid::OCSP, url)).unwrap_or_default();
        let issuer = issuer.map(|url| access(oid::CA_ISSUERS, url)).unwrap_or_default();
        Self::new(oid::AUTHORITY_INFO_ACCESS, der::sequence(&[&ocsp, &issuer]))
    }

    /// Microsoft's template, by name (version 1) or by identifier (version 2).
    pub fn template(template: &Template) -> Self {
        match template {
            Template::Name(name) => {
                let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
                Self::new(oid::MS_TEMPLATE_NAME, der::element(BMP_STRING, &units))
            }
            Template::Id { id, major, minor } => {
                let value = der::sequence(&[&der::oid(*id), &der::small(*major), &der::small(*minor)]);
                Self::new(oid::MS_TEMPLATE, value)
            }
        }
    }

    /// Microsoft's security identifier (KB5014754), as online templates have it.
    pub fn sid(sid: &str) -> Self {
        let name = AlternativeName::Other { kind: oid::MS_SID_OBJECT, value: der::octets(sid.as_bytes()) };
        Self::new(oid::MS_SID, der::sequence(&[&name.to_der()]))
    }

    /// Its encoding.
    pub fn to_der(&self) -> Vec<u8> {
        let critical = if self.critical { der::yes() } else { Vec::new() };
        der::sequence(&[&der::oid(self.oid), &critical, &der::octets(&self.value)])
    }
}

/// What a key may be used for (RFC 5280 section 4.2.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyUsage(u16);

impl KeyUsage {
    /// Signatures other than on certificates.
    pub const DIGITAL_SIGNATURE: Self = Self(1);
    /// Signatures that must not be denied.
    pub const NON_REPUDIATION: Self = Self(1 << 1);
    /// Encrypting keys.
    pub const KEY_ENCIPHERMENT: Self = Self(1 << 2);
    /// Encrypting other bytes.
    pub const DATA_ENCIPHERMENT: Self = Self(1 << 3);
    /// Agreeing on keys.
    pub const KEY_AGREEMENT: Self = Self(1 << 4);
    /// Signing certificates.
    pub const CERT_SIGN: Self = Self(1 << 5);
    /// Signing lists of revoked ones.
    pub const CRL_SIGN: Self = Self(1 << 6);

    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether at least one of `other` is in it.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Whether a certificate is an authority's, and how many authorities may follow (RFC 5280 section 4.2.1.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BasicConstraints {
    /// It is an authority's.
    pub ca: bool,
    /// At most so many authorities between it and an end.
    pub path_length: Option<u32>,
}

/// Microsoft's template of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// Version 1: by name.
    Name(String),
    /// Version 2: by identifier.
    Id {
        /// Identifier of the template.
        id: Oid,
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
}

/// All extensions, in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions(pub Vec<Extension>);

impl Extensions {
    /// Reads `Extensions`, BER. One that is there twice is refused (RFC 5280 section 4.2): readers differ in which they
    /// take.
    pub fn read(bytes: &[u8]) -> Result<Self, PkixError> {
        Self::from_node(&Node::only("extensions", bytes)?)
    }

    pub(crate) fn from_node(node: &Node<'_>) -> Result<Self, PkixError> {
        const WHAT: &str = "extensions";
        let mut all: Vec<Extension> = Vec::new();
        for extension in node.open(WHAT, SEQUENCE)? {
            let mut fields = extension?.open(WHAT, SEQUENCE)?;
            let oid = fields.node()?.oid(WHAT)?;
            let critical = fields.optional(BOOLEAN)?.is_some_and(|critical| critical.body() != [0]);
            let value = fields.node()?;
            if value.tag() & !0x20 != OCTET_STRING {
                return Err(PkixError::malformed(WHAT, "a value is no OCTET STRING"));
            }
            if all.iter().any(|other| other.oid == oid) {
                return Err(PkixError::malformed(WHAT, "one is there twice"));
            }
            if all.len() == EXTENSIONS_MAX {
                return Err(PkixError::TooMuch { what: WHAT, limit: EXTENSIONS_MAX });
            }
            all.push(Extension { oid, critical, value: value.octets(WHAT)?.into_owned() });
        }
        Ok(Self(all))
    }

    /// The one of a type.
    pub fn get(&self, oid: Oid) -> Option<&Extension> {
        self.0.iter().find(|extension| extension.oid == oid)
    }

    /// keyUsage; `None` where every use is allowed.
    pub fn key_usage(&self) -> Result<Option<KeyUsage>, PkixError> {
        const WHAT: &str = "key usage";
        let Some(node) = self.value(WHAT, oid::KEY_USAGE)? else { return Ok(None) };
        let [_unused, bits @ ..] = node.body() else {
            return Err(PkixError::malformed(WHAT, "it ends too early"));
        };
        if node.tag() != BIT_STRING {
            return Err(PkixError::malformed(WHAT, "another type stands in its place"));
        }
        let set = |bit: usize| bits.get(bit / 8).is_some_and(|byte| byte & (0x80 >> (bit % 8)) != 0);
        Ok(Some(KeyUsage((0..9).filter(|bit| set(*bit)).fold(0, |usage, bit| usage | 1 << bit))))
    }

    /// extKeyUsage; empty where every purpose is allowed.
    pub fn extended_key_usage(&self) -> Result<Vec<Oid>, PkixError> {
        const WHAT: &str = "extended key usage";
        let Some(node) = self.value(WHAT, oid::EXTENDED_KEY_USAGE)? else { return Ok(Vec::new()) };
        node.open(WHAT, SEQUENCE)?.take(EXTENSIONS_MAX).map(|purpose| purpose?.oid(WHAT)).collect()
    }

    /// basicConstraints; what is not there is no authority.
    pub fn basic_constraints(&self) -> Result<BasicConstraints, PkixError> {
        const WHAT: &str = "basic constraints";
        let Some(node) = self.value(WHAT, oid::BASIC_CONSTRAINTS)? else {
            return Ok(BasicConstraints::default());
        };
        let mut fields = node.open(WHAT, SEQUENCE)?;
        let ca = fields.optional(BOOLEAN)?.is_some_and(|ca| ca.body() != [0]);
        let path_length = fields.optional(INTEGER)?.map(|path| path.small(WHAT)).transpose()?;
        Ok(BasicConstraints { ca, path_length })
    }

    /// subjectAltName.
    pub fn alternative_names(&self) -> Result<Vec<AlternativeName>, PkixError> {
        self.general_names("alternative names", oid::SUBJECT_ALT_NAME)
    }

    /// subjectKeyIdentifier.
    pub fn subject_key_id(&self) -> Result<Option<Vec<u8>>, PkixError> {
        let node = self.value("subject key identifier", oid::SUBJECT_KEY_ID)?;
        node.map(|node| Ok(node.octets("subject key identifier")?.into_owned())).transpose()
    }

    /// The key identifier in authorityKeyIdentifier.
    pub fn authority_key_id(&self) -> Result<Option<Vec<u8>>, PkixError> {
        const WHAT: &str = "authority key identifier";
        let Some(node) = self.value(WHAT, oid::AUTHORITY_KEY_ID)? else { return Ok(None) };
        let id = node.open(WHAT, SEQUENCE)?.optional(context_primitive(0))?;
        Ok(id.map(|id| id.body().to_vec()))
    }

    /// Addresses of lists of revoked certificates.
    pub fn crl_urls(&self) -> Result<Vec<String>, PkixError> {
        const WHAT: &str = "CRL distribution points";
        let Some(node) = self.value(WHAT, oid::CRL_DISTRIBUTION_POINTS)? else { return Ok(Vec::new()) };
        let mut urls = Vec::new();
        for point in node.open(WHAT, SEQUENCE)?.take(EXTENSIONS_MAX) {
            let Some(point) = point?.open(WHAT, SEQUENCE)?.optional(context(0))? else { continue };
            let Some(names) = point.inside(WHAT)?.optional(context(0))? else { continue };
            for name in names.inside(WHAT)?.take(EXTENSIONS_MAX) {
                if let AlternativeName::Uri(url) = AlternativeName::from_node(&name?)? {
                    urls.push(url);
                }
            }
        }
        Ok(urls)
    }

    /// URLs of OCSP responders.
    pub fn ocsp_urls(&self) -> Result<Vec<String>, PkixError> {
        const WHAT: &str = "authority information access";
        let Some(node) = self.value(WHAT, oid::AUTHORITY_INFO_ACCESS)? else { return Ok(Vec::new()) };
        let mut urls = Vec::new();
        for access in node.open(WHAT, SEQUENCE)?.take(EXTENSIONS_MAX) {
            let mut fields = access?.open(WHAT, SEQUENCE)?;
            let method = fields.node()?.oid(WHAT)?;
            if method == oid::OCSP
                && let AlternativeName::Uri(url) = AlternativeName::from_node(&fields.node()?)?
            {
                urls.push(url);
            }
        }
        Ok(urls)
    }

    /// Microsoft's template; version 2 wins where both are there.
    pub fn template(&self) -> Result<Option<Template>, PkixError> {
        const WHAT: &str = "template";
        if let Some(node) = self.value(WHAT, oid::MS_TEMPLATE)? {
            let mut fields = node.open(WHAT, SEQUENCE)?;
            let id = fields.node()?.oid(WHAT)?;
            let mut version = || fields.optional(INTEGER)?.map_or(Ok(0), |number| number.small(WHAT));
            let (major, minor) = (version()?, version()?);
            return Ok(Some(Template::Id { id, major, minor }));
        }
        Ok(self.template_name()?.map(Template::Name))
    }

    /// Microsoft's template of version 1, whether or not one of version 2 is there too.
    pub fn template_name(&self) -> Result<Option<String>, PkixError> {
        const WHAT: &str = "template";
        let Some(node) = self.value(WHAT, oid::MS_TEMPLATE_NAME)? else { return Ok(None) };
        string(&node)?.ok_or(PkixError::malformed(WHAT, "its name is no text")).map(Some)
    }

    /// The security identifier: of Microsoft's extension, or of the URI among the alternative names.
    pub fn sid(&self) -> Result<Option<String>, PkixError> {
        let names = self.general_names("security identifier", oid::MS_SID)?;
        if let Some(sid) = names.iter().find_map(sid_of) {
            return Ok(Some(sid));
        }
        let names = self.alternative_names()?;
        Ok(names.iter().find_map(AlternativeName::sid).map(str::to_owned))
    }

    /// The encoding of all.
    pub fn to_der(&self) -> Vec<u8> {
        let all: Vec<u8> = self.0.iter().flat_map(Extension::to_der).collect();
        der::element(SEQUENCE, &all)
    }

    fn value(&self, what: &'static str, oid: Oid) -> Result<Option<Node<'_>>, PkixError> {
        self.get(oid).map(|extension| Node::only(what, &extension.value)).transpose()
    }

    fn general_names(&self, what: &'static str, oid: Oid) -> Result<Vec<AlternativeName>, PkixError> {
        let Some(node) = self.value(what, oid)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for name in node.open(what, SEQUENCE)? {
            if names.len() == ALTERNATIVE_NAMES_MAX {
                return Err(PkixError::TooMuch { what, limit: ALTERNATIVE_NAMES_MAX });
            }
            names.push(AlternativeName::from_node(&name?)?);
        }
        Ok(names)
    }
}
