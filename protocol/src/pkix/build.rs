//! Making signing requests and certificates.

use super::algorithm::Digest;
use super::ber::SEQUENCE;
use super::der;
use super::error::PkixError;
use super::extension::{Extension, Extensions, Template};
use super::key::{Key, PublicKey};
use super::name::Name;
use super::oid;
use super::san::AlternativeName;
use super::time;
use crate::Secret;

/// A signing request to be made.
#[derive(Clone, Default)]
pub struct CsrDraft {
    /// Subject to ask for.
    pub subject: Name,
    /// Alternative names to ask for.
    pub alternative_names: Vec<AlternativeName>,
    /// Challenge password, if the authority wants one.
    pub challenge: Option<Secret>,
    /// Microsoft's template, if the authority has any.
    pub template: Option<Template>,
    /// Security identifier for Microsoft's extension. For the URI, put [`AlternativeName::sid_uri`] among the names.
    pub sid: Option<String>,
    /// Further extensions to ask for.
    pub extensions: Vec<Extension>,
}

impl CsrDraft {
    /// Signs the request with the key to be certified; DER.
    ///
    /// # Errors
    /// What [`Name::check`] finds in the subject, and what [`Key::sign`] refuses.
    pub fn sign(&self, key: &Key, digest: Digest) -> Result<Vec<u8>, PkixError> {
        self.subject.check()?;
        let attributes = der::set_of(self.attributes());
        let body = der::sequence(&[
            &der::small(0),
            &self.subject.to_der(),
            key.public_key().spki(),
            // [0] IMPLICIT SET OF: the same contents under another tag.
            &[&[super::ber::context(0)], &attributes[1..]].concat(),
        ]);
        signed(&body, key, digest)
    }

    fn attributes(&self) -> Vec<Vec<u8>> {
        let mut attributes = Vec::new();
        if let Some(challenge) = &self.challenge {
            let text = challenge.expose();
            // PrintableString where it can be: that is what every server reads.
            let printable = text.bytes().all(super::name::is_printable);
            let value = if printable { der::printable(text) } else { der::utf8(text) };
            attributes.push(attribute(oid::CHALLENGE_PASSWORD, value));
        }
        let mut extensions = self.extensions.clone();
        if !self.alternative_names.is_empty() {
            extensions.push(Extension::alternative_names(&self.alternative_names));
        }
        extensions.extend(self.template.as_ref().map(Extension::template));
        extensions.extend(self.sid.as_deref().map(Extension::sid));
        if !extensions.is_empty() {
            attributes.push(attribute(oid::EXTENSION_REQUEST, Extensions(extensions).to_der()));
        }
        attributes
    }
}

/// A certificate to be made.
#[derive(Clone, Debug)]
pub struct CertificateDraft {
    /// Serial number, big-endian, without sign. RFC 5280 section 4.1.2.2 allows 20 bytes with the top bit clear.
    pub serial: Vec<u8>,
    /// Issuer, DER: the subject of the issuer's certificate as it stands there.
    pub issuer: Vec<u8>,
    /// Subject, DER.
    pub subject: Vec<u8>,
    /// Begin of validity, milliseconds since 1970 UTC.
    pub not_before_ms: i64,
    /// End of validity, milliseconds since 1970 UTC.
    pub not_after_ms: i64,
    /// The key it is about.
    pub public_key: PublicKey,
    /// Extensions, in this order.
    pub extensions: Vec<Extension>,
}

impl CertificateDraft {
    /// Signs the certificate with the issuer's key; DER.
    pub fn sign(&self, key: &Key, digest: Digest) -> Result<Vec<u8>, PkixError> {
        let algorithm = key.signature_algorithm(digest).identifier();
        let validity = der::sequence(&[&time::write(self.not_before_ms), &time::write(self.not_after_ms)]);
        let extensions = if self.extensions.is_empty() {
            Vec::new()
        } else {
            let all: Vec<u8> = self.extensions.iter().flat_map(Extension::to_der).collect();
            der::explicit(3, &der::element(SEQUENCE, &all))
        };
        // Version 3 is written as 2 (RFC 5280 section 4.1.2.1).
        let version = der::explicit(0, &der::small(2));
        let body = der::sequence(&[
            &version,
            &der::unsigned(&self.serial),
            &algorithm,
            &self.issuer,
            &validity,
            &self.subject,
            self.public_key.spki(),
            &extensions,
        ]);
        signed(&body, key, digest)
    }
}

/// The certificate a SCEP client signs its messages with before it has one (RFC 8894 section 2.3): of its own key, with
/// the subject it asks for.
pub fn self_signed(
    key: &Key,
    subject: Vec<u8>,
    serial: &[u8; 16],
    not_before_ms: i64,
    not_after_ms: i64,
) -> Result<Vec<u8>, PkixError> {
    let mut serial = serial.to_vec();
    serial[0] &= 0x7f;
    CertificateDraft {
        serial,
        issuer: subject.clone(),
        subject,
        not_before_ms,
        not_after_ms,
        public_key: key.public_key().clone(),
        extensions: Vec::new(),
    }
    .sign(key, Digest::Sha256)
}

fn attribute(kind: oid::Oid, value: Vec<u8>) -> Vec<u8> {
    der::sequence(&[&der::oid(kind), &der::set_of(vec![value])])
}

/// A body, how it was signed, and the signature: certificates, requests and CRLs alike (RFC 5280 section 4.1.1).
pub fn signed(body: &[u8], key: &Key, digest: Digest) -> Result<Vec<u8>, PkixError> {
    let signature = key.sign(digest, body)?;
    Ok(der::sequence(&[body, &signature.algorithm.identifier(), &der::bits(&signature.bytes)]))
}
