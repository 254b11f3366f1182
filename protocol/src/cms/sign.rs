//! Writing SignedData (RFC 5652 section 5).

use super::error::CmsError;
use super::wrap;
use crate::pkix::ber::context;
use crate::pkix::{Certificate, Digest, Key, Oid, SignatureAlgorithm, der, oid};

/// Who signs.
#[derive(Clone, Copy, Debug)]
pub struct SignerKey<'a> {
    /// The certificate that names the signer; it goes along first.
    pub certificate: &'a Certificate,
    /// Its private key.
    pub key: &'a Key,
}

/// Signs content of a type. `None` as content writes none and signs the digest of nothing, as SCEP's answers without
/// one do (RFC 8894 section 3.3.2.2). To contentType and messageDigest come `attributes`: type and encoded value.
pub fn sign(
    signer: SignerKey<'_>,
    digest: Digest,
    content_type: Oid,
    content: Option<&[u8]>,
    attributes: &[(Oid, Vec<u8>)],
    more_certificates: &[&[u8]],
) -> Result<Vec<u8>, CmsError> {
    let hash = digest.of(content.unwrap_or_default());
    let own =
        [(oid::CONTENT_TYPE, der::oid(content_type)), (oid::MESSAGE_DIGEST, der::octets(hash.as_ref()))];
    let attributes = der::set_of(
        own.iter()
            .chain(attributes)
            .map(|(kind, value)| der::sequence(&[&der::oid(*kind), &der::set_of(vec![value.clone()])]))
            .collect(),
    );
    let signature = signer.key.sign(digest, &attributes)?;
    let algorithm = match signature.algorithm {
        // Not the OID that names the digest too: strongSwan refuses that one.
        SignatureAlgorithm::Rsa(_) => der::sequence(&[&der::oid(oid::RSA_ENCRYPTION), &der::null()]),
        other => other.identifier(),
    };
    // An elliptic curve key signs with SHA-256 whatever was asked for, so that must be what is named.
    let named = signature.algorithm.digest();
    if named != digest {
        return Err(CmsError::Key { what: "signing with this digest" });
    }
    let signer_info = der::sequence(&[
        &der::small(1),
        &issuer_and_serial(signer.certificate),
        &digest.identifier(),
        &[&[context(0)], &attributes[1..]].concat(),
        &algorithm,
        &der::octets(&signature.bytes),
    ]);
    let content = content.map(|content| der::explicit(0, &der::octets(content))).unwrap_or_default();
    let certificates =
        der::element(context(0), &[&[signer.certificate.raw()], more_certificates].concat().concat());
    Ok(wrap(
        oid::SIGNED_DATA,
        &der::sequence(&[
            &der::small(1),
            &der::set_of(vec![digest.identifier()]),
            &der::sequence(&[&der::oid(content_type), &content]),
            &certificates,
            &der::set_of(vec![signer_info]),
        ]),
    ))
}

/// issuerAndSerialNumber with the very bytes of the certificate: some programs compare them.
pub(crate) fn issuer_and_serial(certificate: &Certificate) -> Vec<u8> {
    let serial = der::element(crate::pkix::ber::INTEGER, certificate.serial_raw());
    der::sequence(&[certificate.issuer_raw(), &serial])
}
