//! Digests and signature algorithms, and which old ones are taken.

use aws_lc_rs::digest;
use aws_lc_rs::signature as provider;

use super::ber::{Node, SEQUENCE, context};
use super::der;
use super::error::PkixError;
use super::key::PublicKeyKind;
use super::oid::{self, Oid};

/// Old algorithms that a peer may still use. Nothing here ever makes us send MD5 or single DES.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// SHA-1 in signatures and as a message digest.
    pub sha1: bool,
    /// Triple DES.
    pub triple_des: bool,
    /// Single DES, which RFC 8894 section 2.9 forbids and micromdm's scepclient 2.1.0 sends nevertheless. Reading only.
    pub des: bool,
}

impl Accept {
    /// SHA-2 and AES only.
    pub const MODERN: Self = Self { sha1: false, triple_des: false, des: false };
    /// What RFC 8894 allows for servers without capabilities: also SHA-1 and triple DES.
    pub const LEGACY: Self = Self { sha1: true, triple_des: true, des: false };
    /// Everything that can be read.
    pub const ANYTHING: Self = Self { sha1: true, triple_des: true, des: true };
}

/// A digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// SHA-1; verified where [`Accept::sha1`] says so, never made.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Digest {
    /// The digest over bytes.
    pub fn of(self, bytes: &[u8]) -> digest::Digest {
        digest::digest(self.provider(), bytes)
    }

    /// The digest over bytes in lower case hexadecimal.
    pub fn hex_of(self, bytes: &[u8]) -> String {
        hex(self.of(bytes).as_ref())
    }

    /// Its object identifier.
    pub fn oid(self) -> Oid {
        match self {
            Self::Sha1 => oid::SHA1,
            Self::Sha256 => oid::SHA256,
            Self::Sha384 => oid::SHA384,
            Self::Sha512 => oid::SHA512,
        }
    }

    /// The digest an identifier names: its own, or, as some clients write it, that of a signature.
    pub fn from_oid(oid: Oid, accept: Accept) -> Result<Self, PkixError> {
        let digest = match oid {
            oid::SHA1 | oid::SHA1_WITH_RSA => Self::Sha1,
            oid::SHA256 | oid::SHA256_WITH_RSA => Self::Sha256,
            oid::SHA384 | oid::SHA384_WITH_RSA => Self::Sha384,
            oid::SHA512 | oid::SHA512_WITH_RSA => Self::Sha512,
            _ => return Err(PkixError::Algorithm { what: "digest", oid: oid.to_string() }),
        };
        digest.allowed(accept)
    }

    /// Its AlgorithmIdentifier, with the NULL that RSA programs expect (RFC 5754 section 2 takes both).
    pub fn identifier(self) -> Vec<u8> {
        der::sequence(&[&der::oid(self.oid()), &der::null()])
    }

    pub(crate) fn allowed(self, accept: Accept) -> Result<Self, PkixError> {
        if self == Self::Sha1 && !accept.sha1 {
            return Err(PkixError::Algorithm { what: "digest", oid: "SHA-1".to_owned() });
        }
        Ok(self)
    }

    fn provider(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// How a signature was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RSA PKCS#1 v1.5.
    Rsa(Digest),
    /// RSA-PSS with the same digest in the mask (RFC 4055).
    RsaPss(Digest),
    /// ECDSA.
    Ecdsa(Digest),
}

impl SignatureAlgorithm {
    /// Reads an AlgorithmIdentifier.
    pub fn read(node: &Node<'_>) -> Result<Self, PkixError> {
        let mut fields = node.open("signature algorithm", SEQUENCE)?;
        let oid = fields.node()?.oid("signature algorithm")?;
        Ok(match oid {
            oid::SHA1_WITH_RSA | oid::OIW_SHA1_WITH_RSA => Self::Rsa(Digest::Sha1),
            oid::SHA256_WITH_RSA => Self::Rsa(Digest::Sha256),
            oid::SHA384_WITH_RSA => Self::Rsa(Digest::Sha384),
            oid::SHA512_WITH_RSA => Self::Rsa(Digest::Sha512),
            oid::ECDSA_SHA1 => Self::Ecdsa(Digest::Sha1),
            oid::ECDSA_SHA256 => Self::Ecdsa(Digest::Sha256),
            oid::ECDSA_SHA384 => Self::Ecdsa(Digest::Sha384),
            oid::ECDSA_SHA512 => Self::Ecdsa(Digest::Sha512),
            oid::RSASSA_PSS => Self::RsaPss(pss_digest(fields.optional(SEQUENCE)?)?),
            _ => return Err(PkixError::Algorithm { what: "signature algorithm", oid: oid.to_string() }),
        })
    }

    /// The digest in it.
    pub fn digest(self) -> Digest {
        match self {
            Self::Rsa(digest) | Self::RsaPss(digest) | Self::Ecdsa(digest) => digest,
        }
    }

    /// Its AlgorithmIdentifier. That of RSA-PSS has no parameters: it is read, nothing of ours makes it.
    pub fn identifier(self) -> Vec<u8> {
        let oid = match self {
            Self::Rsa(Digest::Sha1) => oid::SHA1_WITH_RSA,
            Self::Rsa(Digest::Sha256) => oid::SHA256_WITH_RSA,
            Self::Rsa(Digest::Sha384) => oid::SHA384_WITH_RSA,
            Self::Rsa(Digest::Sha512) => oid::SHA512_WITH_RSA,
            Self::Ecdsa(Digest::Sha1) => oid::ECDSA_SHA1,
            Self::Ecdsa(Digest::Sha256) => oid::ECDSA_SHA256,
            Self::Ecdsa(Digest::Sha384) => oid::ECDSA_SHA384,
            Self::Ecdsa(Digest::Sha512) => oid::ECDSA_SHA512,
            Self::RsaPss(_) => oid::RSASSA_PSS,
        };
        match self {
            // RFC 4055 section 5 wants NULL, RFC 5758 section 3.2 wants nothing.
            Self::Rsa(_) => der::sequence(&[&der::oid(oid), &der::null()]),
            Self::Ecdsa(_) | Self::RsaPss(_) => der::sequence(&[&der::oid(oid)]),
        }
    }

    /// The provider's verifier for a kind of key; `None` where the two do not belong together.
    pub(crate) fn verifier(self, key: PublicKeyKind) -> Option<&'static dyn provider::VerificationAlgorithm> {
        use Digest::{Sha1, Sha256, Sha384, Sha512};
        Some(match (self, key) {
            (Self::Rsa(Sha1), PublicKeyKind::Rsa { .. }) => {
                &provider::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY
            }
            (Self::Rsa(Sha256), PublicKeyKind::Rsa { .. }) => &provider::RSA_PKCS1_2048_8192_SHA256,
            (Self::Rsa(Sha384), PublicKeyKind::Rsa { .. }) => &provider::RSA_PKCS1_2048_8192_SHA384,
            (Self::Rsa(Sha512), PublicKeyKind::Rsa { .. }) => &provider::RSA_PKCS1_2048_8192_SHA512,
            (Self::RsaPss(Sha256), PublicKeyKind::Rsa { .. }) => &provider::RSA_PSS_2048_8192_SHA256,
            (Self::RsaPss(Sha384), PublicKeyKind::Rsa { .. }) => &provider::RSA_PSS_2048_8192_SHA384,
            (Self::RsaPss(Sha512), PublicKeyKind::Rsa { .. }) => &provider::RSA_PSS_2048_8192_SHA512,
            (Self::Ecdsa(Sha1), PublicKeyKind::P256) => &provider::ECDSA_P256_SHA1_ASN1,
            (Self::Ecdsa(Sha256), PublicKeyKind::P256) => &provider::ECDSA_P256_SHA256_ASN1,
            (Self::Ecdsa(Sha384), PublicKeyKind::P256) => &provider::ECDSA_P256_SHA384_ASN1,
            (Self::Ecdsa(Sha512), PublicKeyKind::P256) => &provider::ECDSA_P256_SHA512_ASN1,
            (Self::Ecdsa(Sha256), PublicKeyKind::P384) => &provider::ECDSA_P384_SHA256_ASN1,
            (Self::Ecdsa(Sha384), PublicKeyKind::P384) => &provider::ECDSA_P384_SHA384_ASN1,
            (Self::Ecdsa(Sha512), PublicKeyKind::P384) => &provider::ECDSA_P384_SHA512_ASN1,
            (Self::Ecdsa(Sha256), PublicKeyKind::P521) => &provider::ECDSA_P521_SHA256_ASN1,
            (Self::Ecdsa(Sha384), PublicKeyKind::P521) => &provider::ECDSA_P521_SHA384_ASN1,
            (Self::Ecdsa(Sha512), PublicKeyKind::P521) => &provider::ECDSA_P521_SHA512_ASN1,
            _ => return None,
        })
    }
}

/// RSASSA-PSS-params (RFC 4055 section 3.1): only the digest matters, the provider checks the rest by verifying.
fn pss_digest(parameters: Option<Node<'_>>) -> Result<Digest, PkixError> {
    const WHAT: &str = "parameters of RSA-PSS";
    let Some(parameters) = parameters else { return Ok(Digest::Sha1) };
    let Some(hash) = parameters.inside(WHAT)?.optional(context(0))? else { return Ok(Digest::Sha1) };
    let oid = hash.inside(WHAT)?.sequence()?.node()?.oid(WHAT)?;
    Digest::from_oid(oid, Accept { sha1: true, ..Accept::MODERN })
}

/// Lower case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
