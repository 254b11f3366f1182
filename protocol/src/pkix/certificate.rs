//! Certificates (RFC 5280 section 4.1) as received.

use std::sync::Arc;

use super::algorithm::{Accept, Digest, SignatureAlgorithm, hex};
use super::ber::{BIT_STRING, INTEGER, Node, SEQUENCE, context, trim_zeros};
use super::error::PkixError;
use super::extension::{Extensions, KeyUsage};
use super::key::PublicKey;
use super::name::Name;
use super::time;
use crate::certificate::CertificateId;

const WHAT: &str = "certificate";

/// A certificate. Copies are cheap.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    raw: Vec<u8>,
    signed: Vec<u8>,
    algorithm: Result<SignatureAlgorithm, PkixError>,
    signature: Vec<u8>,
    serial: Vec<u8>,
    issuer_raw: Vec<u8>,
    issuer: Name,
    subject_raw: Vec<u8>,
    subject: Name,
    not_before_ms: i64,
    not_after_ms: i64,
    public_key: PublicKey,
    extensions: Extensions,
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.raw == other.0.raw
    }
}

impl Eq for Certificate {}

impl Certificate {
    /// Reads a certificate, BER. Its signature is not looked at.
    pub fn read(bytes: &[u8]) -> Result<Self, PkixError> {
        Self::from_node(&Node::only(WHAT, bytes)?)
    }

    pub(crate) fn from_node(node: &Node<'_>) -> Result<Self, PkixError> {
        let mut outer = node.open(WHAT, SEQUENCE)?;
        let signed = outer.expect(SEQUENCE)?;
        let algorithm = SignatureAlgorithm::read(&outer.expect(SEQUENCE)?);
        let signature = outer.node()?;
        if signature.tag() & !0x20 != BIT_STRING {
            return Err(PkixError::malformed(WHAT, "it has no signature"));
        }
        let mut fields = signed.inside(WHAT)?;
        let _version = fields.optional(context(0))?;
        let serial = fields.expect(INTEGER)?;
        let _algorithm = fields.expect(SEQUENCE)?;
        let issuer = fields.expect(SEQUENCE)?;
        let mut validity = fields.sequence()?;
        let subject = fields.expect(SEQUENCE)?;
        let public_key = PublicKey::from_node(&fields.expect(SEQUENCE)?)?;
        let mut extensions = Extensions::default();
        for optional in fields {
            let optional = optional?;
            if optional.tag() == context(3) {
                extensions = Extensions::from_node(&optional.inside(WHAT)?.node()?)?;
            }
        }
        Ok(Self(Arc::new(Parts {
            raw: node.raw().to_vec(),
            signed: signed.raw().to_vec(),
            algorithm,
            signature: signature.bits(WHAT)?.into_owned(),
            serial: serial.body().to_vec(),
            issuer_raw: issuer.raw().to_vec(),
            issuer: Name::from_node(&issuer)?,
            subject_raw: subject.raw().to_vec(),
            subject: Name::from_node(&subject)?,
            not_before_ms: time::read(&validity.node()?)?,
            not_after_ms: time::read(&validity.node()?)?,
            public_key,
            extensions,
        })))
    }

    /// The whole certificate as received.
    pub fn raw(&self) -> &[u8] {
        &self.0.raw
    }

    /// Issuer.
    pub fn issuer(&self) -> &Name {
        &self.0.issuer
    }

    /// Issuer as received.
    pub fn issuer_raw(&self) -> &[u8] {
        &self.0.issuer_raw
    }

    /// Subject.
    pub fn subject(&self) -> &Name {
        &self.0.subject
    }

    /// Subject as received.
    pub fn subject_raw(&self) -> &[u8] {
        &self.0.subject_raw
    }

    /// Contents of the serial number's INTEGER as received, leading zeros and all.
    pub fn serial_raw(&self) -> &[u8] {
        &self.0.serial
    }

    /// Serial number in lower case hexadecimal, without leading zeros.
    pub fn serial(&self) -> String {
        let digits = hex(trim_zeros(&self.0.serial));
        let digits = digits.trim_start_matches('0');
        if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
    }

    /// Issuer and serial number, the way cloud and agent name certificates.
    pub fn id(&self) -> CertificateId {
        CertificateId { issuer: self.issuer().to_string(), serial: self.serial() }
    }

    /// Begin of validity, milliseconds since 1970 UTC.
    pub fn not_before_ms(&self) -> i64 {
        self.0.not_before_ms
    }

    /// End of validity, milliseconds since 1970 UTC.
    pub fn not_after_ms(&self) -> i64 {
        self.0.not_after_ms
    }

    /// The key it is about.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }

    /// Its extensions.
    pub fn extensions(&self) -> &Extensions {
        &self.0.extensions
    }

    /// How it was signed; an error where that is not known here.
    pub fn signature_algorithm(&self) -> Result<SignatureAlgorithm, PkixError> {
        self.0.algorithm.clone()
    }

    /// Whether it is an authority's: basicConstraints say so, or it has no extensions at all and signs itself, as the
    /// certificates of version 1 do that old authorities have.
    pub fn is_ca(&self) -> bool {
        match self.0.extensions.basic_constraints() {
            Ok(constraints) => constraints.ca || (self.0.extensions.0.is_empty() && self.names_itself()),
            Err(_) => false,
        }
    }

    /// Whether issuer and subject are the same.
    pub fn names_itself(&self) -> bool {
        self.0.issuer_raw == self.0.subject_raw
    }

    /// Whether its key may be used for one of these; without the extension it may be used for everything. An extension
    /// that cannot be read allows nothing.
    pub fn allows(&self, usage: KeyUsage) -> bool {
        match self.0.extensions.key_usage() {
            Ok(allowed) => allowed.is_none_or(|allowed| allowed.has(usage)),
            Err(_) => false,
        }
    }

    /// SHA-256 over the whole, lower case hexadecimal.
    pub fn sha256(&self) -> String {
        Digest::Sha256.hex_of(&self.0.raw)
    }

    /// SHA-1 over the whole, which Windows calls the thumbprint, lower case hexadecimal.
    pub fn sha1(&self) -> String {
        Digest::Sha1.hex_of(&self.0.raw)
    }

    /// Verifies its signature with a key.
    pub fn verify(&self, issuer: &PublicKey, accept: Accept) -> Result<(), PkixError> {
        issuer.verify(WHAT, self.signature_algorithm()?, &self.0.signed, &self.0.signature, accept)
    }

    /// Whether the issuer's name, its being an authority and its signature all fit. Dates, constraints of paths and
    /// revocation are the caller's.
    pub fn issued_by(&self, issuer: &Self, accept: Accept) -> bool {
        let named = self.0.issuer_raw == issuer.0.subject_raw || self.issuer().same_as(issuer.subject());
        named
            && issuer.is_ca()
            && issuer.allows(KeyUsage::CERT_SIGN)
            && self.verify(issuer.public_key(), accept).is_ok()
    }
}
