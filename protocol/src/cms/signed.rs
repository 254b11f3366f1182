//! Reading and verifying SignedData (RFC 5652 section 5).

use super::content_info;
use super::error::CmsError;
use crate::limits::{CMS_ATTRIBUTES_MAX, CMS_CERTIFICATES_MAX, CMS_CRLS_MAX, CMS_SIGNERS_MAX};
use crate::pkix::ber::{INTEGER, Node, OCTET_STRING, SEQUENCE, SET, context, context_primitive, trim_zeros};
use crate::pkix::{Accept, Certificate, Digest, Oid, PkixError, PublicKey, SignatureAlgorithm, der, oid};

const WHAT: &str = "signed message";

/// A signed message, not verified yet.
#[derive(Clone, Debug)]
pub struct SignedData {
    /// Type of the content.
    pub content_type: Oid,
    /// The content, in one piece; none in bags and in messages whose signature is detached.
    pub content: Option<Vec<u8>>,
    /// Certificates that came along, in the order they came. What is no X.509 certificate is left out.
    pub certificates: Vec<Certificate>,
    /// CRLs that came along, as received.
    pub crls: Vec<Vec<u8>>,
    /// Signers.
    pub signers: Vec<Signer>,
}

/// Who signed: the name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerId {
    /// By issuer and serial number.
    Issuer {
        /// Issuer as received.
        issuer: Vec<u8>,
        /// Serial number without leading zeros.
        serial: Vec<u8>,
    },
    /// By subjectKeyIdentifier.
    Key(Vec<u8>),
}

impl SignerId {
    /// Whether this is the certificate meant.
    pub fn names(&self, certificate: &Certificate) -> bool {
        match self {
            Self::Issuer { issuer, serial } => {
                issuer == certificate.issuer_raw() && serial == trim_zeros(certificate.serial_raw())
            }
            Self::Key(id) => match certificate.extensions().subject_key_id() {
                Ok(Some(own)) => own == *id,
                _ => certificate.public_key().key_id() == *id,
            },
        }
    }

    /// Reads issuerAndSerialNumber or `[0]` with a key identifier.
    pub(crate) fn read(node: &Node<'_>) -> Result<Self, PkixError> {
        const WHAT: &str = "identifier of a certificate";
        if node.tag() & !0x20 == context_primitive(0) {
            return Ok(Self::Key(node.octets(WHAT)?.into_owned()));
        }
        let mut fields = node.open(WHAT, SEQUENCE)?;
        let issuer = fields.expect(SEQUENCE)?.raw().to_vec();
        let serial = trim_zeros(fields.expect(INTEGER)?.body()).to_vec();
        Ok(Self::Issuer { issuer, serial })
    }
}

/// One signer of a message.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Which certificate's key signed.
    pub id: SignerId,
    digest: Oid,
    algorithm: Oid,
    algorithm_raw: Vec<u8>,
    attributes_raw: Option<Vec<u8>>,
    attributes: Vec<(Oid, Vec<u8>)>,
    signature: Vec<u8>,
}

impl SignedData {
    /// Reads a ContentInfo with SignedData.
    pub fn read(bytes: &[u8]) -> Result<Self, CmsError> {
        let mut fields = content_info(WHAT, bytes, oid::SIGNED_DATA)?;
        let _version = fields.expect(INTEGER)?;
        let _digests = fields.expect(SET)?;
        let mut content = fields.sequence()?;
        let content_type = content.node()?.oid(WHAT)?;
        let content = match content.optional(context(0))? {
            // PKCS#7 allowed any type in it (RFC 5652 section 5.2.1); what it holds is the content then.
            Some(wrapped) => {
                let inner = wrapped.inside(WHAT)?.node()?;
                let octets = inner.tag() & !0x20 == OCTET_STRING;
                Some(if octets { inner.octets(WHAT)?.into_owned() } else { inner.body().to_vec() })
            }
            None => None,
        };
        let certificates = match fields.optional(context(0))? {
            Some(set) => certificates(&set)?,
            None => Vec::new(),
        };
        let mut crls = Vec::new();
        if let Some(set) = fields.optional(context(1))? {
            for crl in set.inside(WHAT)? {
                limit("CRLs of the message", crls.len(), CMS_CRLS_MAX)?;
                crls.push(crl?.raw().to_vec());
            }
        }
        let mut signers = Vec::new();
        for signer in fields.expect(SET)?.inside(WHAT)? {
            limit("signers of the message", signers.len(), CMS_SIGNERS_MAX)?;
            signers.push(Signer::read(&signer?)?);
        }
        Ok(Self { content_type, content, certificates, crls, signers })
    }

    /// The one signer, where exactly one is expected.
    pub fn signer(&self) -> Result<&Signer, CmsError> {
        match self.signers.as_slice() {
            [signer] => Ok(signer),
            [] => Err(CmsError::NotSigned),
            _ => Err(CmsError::Malformed(PkixError::TooMuch { what: "signers of the message", limit: 1 })),
        }
    }

    /// The certificate of a signer, among those that came along.
    pub fn certificate_of(&self, signer: &Signer) -> Option<&Certificate> {
        self.certificates.iter().find(|certificate| signer.id.names(certificate))
    }

    /// Verifies one signer's signature with a key. Whose key that is, and whether it may sign this, is the caller's.
    pub fn verify(&self, signer: &Signer, key: &PublicKey, accept: Accept) -> Result<(), CmsError> {
        signer.verify(self.content_type, self.content.as_deref().unwrap_or_default(), key, accept)
    }
}

impl Signer {
    fn read(node: &Node<'_>) -> Result<Self, CmsError> {
        let mut fields = node.open(WHAT, SEQUENCE)?;
        let _version = fields.expect(INTEGER)?;
        let id = SignerId::read(&fields.node()?)?;
        let digest = fields.sequence()?.node()?.oid(WHAT)?;
        let mut attributes_raw = None;
        let mut attributes = Vec::new();
        if let Some(set) = fields.optional(context(0))? {
            for attribute in set.inside(WHAT)? {
                limit("signed attributes", attributes.len(), CMS_ATTRIBUTES_MAX)?;
                let mut pair = attribute?.open(WHAT, SEQUENCE)?;
                let kind = pair.node()?.oid(WHAT)?;
                let mut values = pair.expect(SET)?.inside(WHAT)?;
                let value = values.node()?.raw().to_vec();
                // Twice the same, or with two values: readers would differ in which they take.
                if !values.is_empty() || attributes.iter().any(|(known, _)| *known == kind) {
                    return Err(PkixError::malformed("signed attributes", "one has two values").into());
                }
                attributes.push((kind, value));
            }
            attributes_raw = Some(set.raw().to_vec());
        }
        let algorithm_node = fields.expect(SEQUENCE)?;
        let algorithm = algorithm_node.open(WHAT, SEQUENCE)?.node()?.oid(WHAT)?;
        let signature = fields.node()?;
        if signature.tag() & !0x20 != OCTET_STRING {
            return Err(PkixError::malformed(WHAT, "its signature is no OCTET STRING").into());
        }
        Ok(Self {
            id,
            digest,
            algorithm,
            algorithm_raw: algorithm_node.raw().to_vec(),
            attributes_raw,
            attributes,
            signature: signature.octets(WHAT)?.into_owned(),
        })
    }

    /// The encoding of a signed attribute's value. Believe it only after [`SignedData::verify`].
    pub fn attribute(&self, kind: Oid) -> Option<&[u8]> {
        self.attributes.iter().find(|(known, _)| *known == kind).map(|(_, value)| value.as_slice())
    }

    /// The digest it names.
    ///
    /// # Errors
    /// [`CmsError::Algorithm`] where it is not known or too old.
    pub fn digest(&self, accept: Accept) -> Result<Digest, CmsError> {
        Ok(Digest::from_oid(self.digest, accept)?)
    }

    fn verify(
        &self,
        content_type: Oid,
        content: &[u8],
        key: &PublicKey,
        accept: Accept,
    ) -> Result<(), CmsError> {
        let digest = self.digest(accept)?;
        let algorithm = self.algorithm(digest)?;
        let check = |message: &[u8]| {
            key.verify("message", algorithm, message, &self.signature, accept).map_err(CmsError::from)
        };
        let Some(raw) = &self.attributes_raw else { return check(content) };
        self.check_attributes(content_type, digest.of(content).as_ref())?;
        // Signed is the SET, not the [0] it travels under (RFC 5652 section 5.4). First as sent, for those who sign what
        // they send; then in DER, for those who sign one and send the other.
        let mut as_sent = raw.clone();
        as_sent[0] = SET;
        match check(&as_sent) {
            Err(CmsError::BadSignature) => check(&self.sorted_attributes()?),
            verdict => verdict,
        }
    }

    /// contentType and messageDigest (RFC 5652 section 11) must be there and fit the content.
    fn check_attributes(&self, content_type: Oid, digest: &[u8]) -> Result<(), CmsError> {
        let stated = self.attribute(oid::CONTENT_TYPE).ok_or(CmsError::BadSignature)?;
        if Node::only(WHAT, stated)?.oid(WHAT)? != content_type {
            return Err(CmsError::BadSignature);
        }
        let stated = self.attribute(oid::MESSAGE_DIGEST).ok_or(CmsError::BadSignature)?;
        if Node::only(WHAT, stated)?.octets(WHAT)?.as_ref() != digest {
            return Err(CmsError::BadSignature);
        }
        Ok(())
    }

    fn sorted_attributes(&self) -> Result<Vec<u8>, CmsError> {
        let raw = self.attributes_raw.as_deref().unwrap_or_default();
        let attributes = Node::only(WHAT, raw)?.inside(WHAT)?;
        let parts =
            attributes.map(|attribute| Ok(attribute?.raw().to_vec())).collect::<Result<_, PkixError>>()?;
        Ok(der::set_of(parts))
    }

    /// `rsaEncryption` leaves the digest to its own field; the others repeat it, and must not contradict it.
    fn algorithm(&self, digest: Digest) -> Result<SignatureAlgorithm, CmsError> {
        if self.algorithm == oid::RSA_ENCRYPTION {
            return Ok(SignatureAlgorithm::Rsa(digest));
        }
        // id-ecPublicKey is what some write where ecdsa-with-SHA2 belongs.
        if self.algorithm == oid::EC_PUBLIC_KEY {
            return Ok(SignatureAlgorithm::Ecdsa(digest));
        }
        let algorithm = SignatureAlgorithm::read(&Node::only(WHAT, &self.algorithm_raw)?)?;
        if algorithm.digest() != digest {
            return Err(CmsError::Algorithm { what: "signature", oid: self.algorithm.to_string() });
        }
        Ok(algorithm)
    }
}

/// Certificates of `CertificateSet` (RFC 5652 section 10.2.3); other choices in it are tagged and left out.
fn certificates(set: &Node<'_>) -> Result<Vec<Certificate>, CmsError> {
    let mut all = Vec::new();
    for (count, node) in set.inside(WHAT)?.enumerate() {
        limit("certificates of the message", count, CMS_CERTIFICATES_MAX)?;
        let node = node?;
        if node.tag() == SEQUENCE {
            all.push(Certificate::from_node(&node)?);
        }
    }
    Ok(all)
}

fn limit(what: &'static str, have: usize, limit: usize) -> Result<(), PkixError> {
    if have < limit { Ok(()) } else { Err(PkixError::TooMuch { what, limit }) }
}
