//! Writing EnvelopedData (RFC 5652 section 6).

use aws_lc_rs::rsa::{OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use zeroize::Zeroizing;

use super::agreement;
use super::algorithm::{ContentCipher, KeyTransport};
use super::error::CmsError;
use super::sign::issuer_and_serial;
use super::wrap;
use crate::pkix::{Certificate, PublicKey, PublicKeyKind, der, oid};

/// Whom content is encrypted to.
#[derive(Clone, Copy, Debug)]
pub enum Recipient<'a> {
    /// The holder of a certificate, named by issuer and serial number with the very bytes of the certificate.
    Certificate(&'a Certificate),
    /// The holder of a key without a certificate, named by the key's identifier ([`PublicKey::key_id`]).
    Key(&'a PublicKey),
}

/// Random bytes for one message: its content key and its initialisation vector. Never use them twice.
pub struct SealRandom {
    key: Zeroizing<[u8; 32]>,
    iv: [u8; 16],
}

impl SealRandom {
    /// From 48 bytes of a cryptographic source.
    pub fn new(bytes: [u8; 48]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let mut random = Self { key: Zeroizing::new([0; 32]), iv: [0; 16] };
        random.key.copy_from_slice(&bytes[..32]);
        random.iv.copy_from_slice(&bytes[32..]);
        random
    }
}

/// Encrypts content to one recipient: RSA by `transport`, P-256 by key agreement, whatever `transport` is.
///
/// # Errors
/// [`CmsError::Key`] for other kinds of keys, [`CmsError::Algorithm`] for single DES.
pub fn seal(
    content: &[u8],
    to: Recipient<'_>,
    cipher: ContentCipher,
    transport: KeyTransport,
    random: &SealRandom,
) -> Result<Vec<u8>, CmsError> {
    let content_key = &random.key[..cipher.key_length()];
    let iv = cipher.iv(&random.iv);
    let public_key = match to {
        Recipient::Certificate(certificate) => certificate.public_key(),
        Recipient::Key(key) => key,
    };
    let (version, recipient) = match public_key.kind() {
        PublicKeyKind::Rsa { .. } => by_transport(content_key, to, public_key, transport)?,
        PublicKeyKind::P256 => (2, by_agreement(content_key, to, public_key)?),
        _ => return Err(CmsError::Key { what: "encrypting to it" }),
    };
    let text = cipher.encrypt(content_key, iv, content)?;
    let content =
        der::sequence(&[&der::oid(oid::CMS_DATA), &cipher.identifier(iv), &der::implicit(0, &text)]);
    Ok(wrap(
        oid::ENVELOPED_DATA,
        &der::sequence(&[&der::small(version), &der::set_of(vec![recipient]), &content]),
    ))
}

/// KeyTransRecipientInfo, and the version of the message it asks for (RFC 5652 section 6.1).
fn by_transport(
    content_key: &[u8],
    to: Recipient<'_>,
    public_key: &PublicKey,
    transport: KeyTransport,
) -> Result<(u32, Vec<u8>), CmsError> {
    const FAILED: CmsError = CmsError::Key { what: "encrypting to it" };
    let key = PublicEncryptingKey::from_der(&canonical_rsa(public_key)).map_err(|_| FAILED)?;
    let mut block = vec![0; key.key_size_bytes()];
    match transport {
        KeyTransport::Pkcs1 => {
            let key = Pkcs1PublicEncryptingKey::new(key).map_err(|_| FAILED)?;
            key.encrypt(content_key, &mut block).map_err(|_| FAILED)?;
        }
        KeyTransport::Oaep(digest) => {
            let key = OaepPublicEncryptingKey::new(key).map_err(|_| FAILED)?;
            key.encrypt(KeyTransport::oaep(digest), content_key, &mut block, None).map_err(|_| FAILED)?;
        }
    }
    let (version, id) = match to {
        Recipient::Certificate(certificate) => (0, issuer_and_serial(certificate)),
        Recipient::Key(key) => (2, der::implicit(0, &key.key_id())),
    };
    let info = der::sequence(&[&der::small(version), &id, &transport.identifier(), &der::octets(&block)]);
    Ok((version, info))
}

fn by_agreement(content_key: &[u8], to: Recipient<'_>, public_key: &PublicKey) -> Result<Vec<u8>, CmsError> {
    let id = match to {
        Recipient::Certificate(certificate) => issuer_and_serial(certificate),
        Recipient::Key(key) => agreement::key_identifier(&key.key_id()),
    };
    agreement::seal(content_key, public_key, &id)
}

/// SubjectPublicKeyInfo as the provider wants it: some write theirs without the NULL.
fn canonical_rsa(key: &PublicKey) -> Vec<u8> {
    let algorithm = der::sequence(&[&der::oid(oid::RSA_ENCRYPTION), &der::null()]);
    der::sequence(&[&algorithm, &der::bits(key.bits())])
}
