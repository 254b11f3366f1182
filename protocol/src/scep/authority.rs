//! Certificates of an authority: GetCACert and GetNextCACert (RFC 8894 sections 4.2 and 4.7).

use super::error::ScepError;
use crate::cms::{self, Bag, CmsError, SignedData, SignerKey};
use crate::pkix::ber::{Node, OBJECT_IDENTIFIER, SEQUENCE};
use crate::pkix::{Accept, Certificate, Digest, KeyUsage, PkixError, PublicKeyKind, oid};

/// Signatures on certificates of the authority itself: what they are worth is decided by pinning, not by their digest.
const ANY_DIGEST: Accept = Accept { sha1: true, ..Accept::MODERN };

/// An authority's certificates: the one that issues, its registration authorities, and who stands above it.
#[derive(Clone, Debug)]
pub struct CaCertificates {
    chain: Vec<Certificate>,
    registration: Vec<Certificate>,
}

impl CaCertificates {
    /// Reads the answer to GetCACert: one certificate, or a bag.
    ///
    /// Whether this is the authority meant is the caller's: compare [`CaCertificates::ca`] with what was pinned.
    ///
    /// # Errors
    /// [`ScepError::NoAuthority`] also where a registration authority is none of this authority.
    pub fn read(body: &[u8]) -> Result<Self, ScepError> {
        let not_scep = |error: PkixError| ScepError::NotScep(CmsError::from(error));
        let (node, _) = Node::read("answer of the authority", body).map_err(not_scep)?;
        let mut fields = node.open("answer of the authority", SEQUENCE).map_err(not_scep)?;
        if fields.node().map_err(not_scep)?.tag() != OBJECT_IDENTIFIER {
            return Self::of(vec![Certificate::read(node.raw()).map_err(not_scep)?]);
        }
        Self::of(Bag::read(body).map_err(ScepError::NotScep)?.certificates)
    }

    /// Reads the answer to GetNextCACert: the next authority's certificates, signed by the current one.
    pub fn read_next(body: &[u8], current: &Self, accept: Accept) -> Result<Self, ScepError> {
        let signed = SignedData::read(body).map_err(ScepError::outer)?;
        let signer = signed.signer().map_err(ScepError::outer)?;
        let ca = current.ca();
        if !signer.id.names(ca) {
            return Err(ScepError::AnotherSigner);
        }
        signed.verify(signer, ca.public_key(), accept).map_err(ScepError::outer)?;
        let content = signed.content.as_deref().ok_or(ScepError::NoAuthority { why: "there is none" })?;
        Self::of(Bag::read(content).map_err(ScepError::NotScep)?.certificates)
    }

    /// Sorts certificates by what they are.
    pub fn of(certificates: Vec<Certificate>) -> Result<Self, ScepError> {
        let (authorities, registration): (Vec<_>, Vec<_>) =
            certificates.into_iter().partition(Certificate::is_ca);
        let issuing = issuing(&authorities, &registration)
            .ok_or(ScepError::NoAuthority { why: "none of them is an authority's" })?;
        if !registration.iter().all(|certificate| certificate.issued_by(&issuing, ANY_DIGEST)) {
            return Err(ScepError::NoAuthority { why: "the registration authority is not this authority's" });
        }
        Ok(Self { chain: upwards(issuing, &authorities), registration })
    }

    /// The certificate that issues.
    pub fn ca(&self) -> &Certificate {
        // `of` puts at least one in.
        &self.chain[0]
    }

    /// The issuing certificate and those above it that came along.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// Registration authorities.
    pub fn registration(&self) -> &[Certificate] {
        &self.registration
    }

    /// Whom requests are encrypted to: a registration authority that may decrypt, else the authority itself. Encrypting to
    /// the authority where there is a registration authority is the classic failure with NDES.
    ///
    /// # Errors
    /// [`ScepError::NoAuthority`] where nobody has an RSA key that may decrypt.
    pub fn recipient(&self) -> Result<&Certificate, ScepError> {
        let decrypts = KeyUsage::KEY_ENCIPHERMENT.and(KeyUsage::DATA_ENCIPHERMENT);
        let is_rsa =
            |certificate: &&Certificate| matches!(certificate.public_key().kind(), PublicKeyKind::Rsa { .. });
        if !self.registration.is_empty() {
            return self
                .registration
                .iter()
                .filter(is_rsa)
                .find(|certificate| certificate.allows(decrypts))
                .ok_or(ScepError::NoAuthority { why: "no registration authority can decrypt" });
        }
        // Authorities whose key usage does not allow it and that decrypt nevertheless are common.
        Some(self.ca()).filter(is_rsa).ok_or(ScepError::NoAuthority { why: "its key cannot decrypt" })
    }

    /// Who may sign answers: the authority and its registration authorities that may sign.
    pub fn signers(&self) -> impl Iterator<Item = &Certificate> {
        let signs = KeyUsage::DIGITAL_SIGNATURE.and(KeyUsage::NON_REPUDIATION);
        let registration = self.registration.iter().filter(move |certificate| certificate.allows(signs));
        std::iter::once(self.ca()).chain(registration)
    }

    /// All certificates, the issuing one first.
    pub fn all(&self) -> impl Iterator<Item = &Certificate> {
        self.chain.iter().chain(&self.registration)
    }
}

/// The answer to GetNextCACert: a bag ([`cms::write_bag`]) signed by the current authority.
pub fn write_next_ca(bag: &[u8], signer: SignerKey<'_>, digest: Digest) -> Result<Vec<u8>, ScepError> {
    cms::sign(signer, digest, oid::CMS_DATA, Some(bag), &[], &[]).map_err(ScepError::Write)
}

/// The authority that registration authorities belong to, or the one that is above no other.
fn issuing(authorities: &[Certificate], registration: &[Certificate]) -> Option<Certificate> {
    let found = match registration.first() {
        Some(first) => authorities.iter().find(|ca| first.issued_by(ca, ANY_DIGEST)),
        None => authorities.iter().find(|ca| {
            authorities.iter().all(|other| other == *ca || other.issuer_raw() != ca.subject_raw())
        }),
    };
    // Without a match, `of` says what is wrong with the registration authority.
    found.or(authorities.first()).cloned()
}

fn upwards(issuing: Certificate, authorities: &[Certificate]) -> Vec<Certificate> {
    let mut chain = vec![issuing];
    while let Some(last) = chain.last().filter(|last| !last.names_itself()) {
        let above = authorities.iter().find(|ca| last.issued_by(ca, ANY_DIGEST) && !chain.contains(ca));
        let Some(above) = above.cloned() else { break };
        chain.push(above);
    }
    chain
}
