//! Ciphers of content and the ways its key travels.

use aws_lc_rs::cipher::{
    self, AES_128, AES_192, AES_256, Algorithm, DecryptionContext, EncryptionContext,
    PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512, OaepAlgorithm,
};
use zeroize::Zeroizing;

use super::error::CmsError;
use crate::pkix::ber::{Node, OCTET_STRING, SEQUENCE, context};
use crate::pkix::{Accept, Digest, Oid, der, oid};

/// Cipher of the content, in CBC mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentCipher {
    /// AES with 128 bits, which every SCEP server must know (RFC 8894 section 2.9).
    Aes128,
    /// AES with 192 bits.
    Aes192,
    /// AES with 256 bits.
    Aes256,
    /// Triple DES, for servers that offer nothing else.
    TripleDes,
    /// Single DES: read where [`Accept::des`] says so, never written.
    Des,
}

impl ContentCipher {
    /// Its object identifier.
    pub fn oid(self) -> Oid {
        match self {
            Self::Aes128 => oid::AES128_CBC,
            Self::Aes192 => oid::AES192_CBC,
            Self::Aes256 => oid::AES256_CBC,
            Self::TripleDes => oid::DES_EDE3_CBC,
            Self::Des => oid::DES_CBC,
        }
    }

    /// Reads contentEncryptionAlgorithm: the cipher and its initialisation vector.
    pub(crate) fn read(node: &Node<'_>, accept: Accept) -> Result<(Self, Vec<u8>), CmsError> {
        const WHAT: &str = "cipher of the content";
        let mut fields = node.open(WHAT, SEQUENCE)?;
        let found = fields.node()?.oid(WHAT)?;
        let cipher = match found {
            oid::AES128_CBC => Self::Aes128,
            oid::AES192_CBC => Self::Aes192,
            oid::AES256_CBC => Self::Aes256,
            oid::DES_EDE3_CBC if accept.triple_des => Self::TripleDes,
            oid::DES_CBC if accept.des => Self::Des,
            _ => return Err(CmsError::Algorithm { what: "cipher", oid: found.to_string() }),
        };
        let iv = fields.expect(OCTET_STRING)?.body().to_vec();
        if iv.len() != cipher.provider().block_len() {
            return Err(CmsError::Malformed(crate::pkix::PkixError::Malformed {
                what: WHAT,
                why: "its initialisation vector has another length",
            }));
        }
        Ok((cipher, iv))
    }

    /// Length of its key in bytes.
    pub(crate) fn key_length(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 => 32,
            Self::Des => 8,
        }
    }

    /// The beginning of enough bytes that is its initialisation vector.
    pub(crate) fn iv(self, enough: &[u8; 16]) -> &[u8] {
        &enough[..self.provider().block_len()]
    }

    /// Its AlgorithmIdentifier.
    pub(crate) fn identifier(self, iv: &[u8]) -> Vec<u8> {
        der::sequence(&[&der::oid(self.oid()), &der::octets(iv)])
    }

    pub(crate) fn encrypt(self, key: &[u8], iv: &[u8], plain: &[u8]) -> Result<Vec<u8>, CmsError> {
        const FAILED: CmsError = CmsError::Key { what: "encrypting content" };
        if self == Self::Des {
            return Err(CmsError::Algorithm { what: "cipher", oid: self.oid().to_string() });
        }
        let key = UnboundCipherKey::new(self.provider(), key).map_err(|_| FAILED)?;
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).map_err(|_| FAILED)?;
        let context = match <[u8; 16]>::try_from(iv) {
            Ok(iv) => EncryptionContext::Iv128(FixedLength::from(iv)),
            Err(_) => EncryptionContext::Iv64(FixedLength::try_from(iv).map_err(|_| FAILED)?),
        };
        let mut text = Vec::with_capacity(plain.len() + 16);
        text.extend_from_slice(plain);
        key.less_safe_encrypt(&mut text, context).map_err(|_| FAILED)?;
        Ok(text)
    }

    pub(crate) fn decrypt(self, key: &[u8], iv: &[u8], text: &[u8]) -> Result<Zeroizing<Vec<u8>>, CmsError> {
        const FAILED: CmsError = CmsError::Undecryptable;
        let key = UnboundCipherKey::new(self.provider(), key).map_err(|_| FAILED)?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| FAILED)?;
        let context = match <[u8; 16]>::try_from(iv) {
            Ok(iv) => DecryptionContext::Iv128(FixedLength::from(iv)),
            Err(_) => DecryptionContext::Iv64(FixedLength::try_from(iv).map_err(|_| FAILED)?),
        };
        let mut plain = Zeroizing::new(text.to_vec());
        let length = key.decrypt(&mut plain, context).map_err(|_| FAILED)?.len();
        plain.truncate(length);
        Ok(plain)
    }

    #[allow(
        deprecated,
        reason = "what old clients send is decrypted behind a switch, and nothing else uses it"
    )]
    fn provider(self) -> &'static Algorithm {
        match self {
            Self::Aes128 => &AES_128,
            Self::Aes192 => &AES_192,
            Self::Aes256 => &AES_256,
            Self::TripleDes => &cipher::DES_EDE3_FOR_LEGACY_USE_ONLY,
            Self::Des => &cipher::DES_FOR_LEGACY_USE_ONLY,
        }
    }
}

/// How the content's key is encrypted to an RSA key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyTransport {
    /// PKCS#1 v1.5: the only one in SCEP.
    Pkcs1,
    /// OAEP with one digest for both of its uses (RFC 4055 section 4.1).
    Oaep(Digest),
}

impl KeyTransport {
    pub(crate) fn read(node: &Node<'_>) -> Result<Self, CmsError> {
        const WHAT: &str = "key transport";
        let mut fields = node.open(WHAT, SEQUENCE)?;
        let found = fields.node()?.oid(WHAT)?;
        match found {
            oid::RSA_ENCRYPTION => Ok(Self::Pkcs1),
            oid::RSAES_OAEP => Ok(Self::Oaep(oaep_digest(fields.optional(SEQUENCE)?)?)),
            _ => Err(CmsError::Algorithm { what: WHAT, oid: found.to_string() }),
        }
    }

    pub(crate) fn identifier(self) -> Vec<u8> {
        match self {
            Self::Pkcs1 => der::sequence(&[&der::oid(oid::RSA_ENCRYPTION), &der::null()]),
            Self::Oaep(digest) => {
                let mask = der::sequence(&[&der::oid(oid::MGF1), &digest.identifier()]);
                let parameters =
                    der::sequence(&[&der::explicit(0, &digest.identifier()), &der::explicit(1, &mask)]);
                der::sequence(&[&der::oid(oid::RSAES_OAEP), &parameters])
            }
        }
    }

    pub(crate) fn oaep(digest: Digest) -> &'static OaepAlgorithm {
        match digest {
            // As a mask in OAEP, SHA-1 has no known weakness; it is what parameters left out mean.
            Digest::Sha1 => &OAEP_SHA1_MGF1SHA1,
            Digest::Sha256 => &OAEP_SHA256_MGF1SHA256,
            Digest::Sha384 => &OAEP_SHA384_MGF1SHA384,
            Digest::Sha512 => &OAEP_SHA512_MGF1SHA512,
        }
    }
}

/// RSAES-OAEP-params (RFC 4055 section 4.1): both digests must be the same, and there must be no label.
fn oaep_digest(parameters: Option<Node<'_>>) -> Result<Digest, CmsError> {
    const WHAT: &str = "parameters of RSA-OAEP";
    const SHA1: Accept = Accept { sha1: true, ..Accept::MODERN };
    let Some(parameters) = parameters else { return Ok(Digest::Sha1) };
    let mut fields = parameters.inside(WHAT)?;
    let mut hash = Digest::Sha1;
    let mut mask = Digest::Sha1;
    if let Some(node) = fields.optional(context(0))? {
        hash = Digest::from_oid(node.inside(WHAT)?.sequence()?.node()?.oid(WHAT)?, SHA1)?;
    }
    if let Some(node) = fields.optional(context(1))? {
        let mut function = node.inside(WHAT)?.sequence()?;
        let _mgf1 = function.node()?;
        mask = Digest::from_oid(function.sequence()?.node()?.oid(WHAT)?, SHA1)?;
    }
    if hash != mask || !fields.is_empty() {
        return Err(CmsError::Algorithm { what: "key transport", oid: "RSA-OAEP of a rare kind".to_owned() });
    }
    Ok(hash)
}
