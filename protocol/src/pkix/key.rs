//! Keys: public ones as they stand in certificates, private ones as PKCS#8, and what is done with them.

use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeyPair as RsaKey, KeySize, OaepAlgorithm, OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey,
    PrivateDecryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512,
};
use aws_lc_rs::{encoding, hmac};
use zeroize::Zeroizing;

use super::algorithm::{Accept, Digest, SignatureAlgorithm};
use super::ber::{INTEGER, Node, SEQUENCE, trim_zeros};
use super::der;
use super::error::PkixError;
use super::oid::{self, Oid};
use crate::certificate::KeyKind;

/// What kind of key stands in a SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublicKeyKind {
    /// RSA.
    Rsa {
        /// Length of the modulus in bits.
        bits: usize,
    },
    /// The curve P-256.
    P256,
    /// The curve P-384.
    P384,
    /// The curve P-521.
    P521,
    /// Another one, which is carried along but verifies nothing.
    Other(Oid),
}

/// A public key (SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7) as received.
#[derive(Clone, Debug)]
pub struct PublicKey {
    spki: Vec<u8>,
    kind: PublicKeyKind,
    bits: Vec<u8>,
}

impl PublicKey {
    /// Reads SubjectPublicKeyInfo, DER.
    pub fn read(spki: &[u8]) -> Result<Self, PkixError> {
        Self::from_node(&Node::only("public key", spki)?)
    }

    pub(crate) fn from_node(node: &Node<'_>) -> Result<Self, PkixError> {
        const WHAT: &str = "public key";
        let mut fields = node.open(WHAT, SEQUENCE)?;
        let mut algorithm = fields.sequence()?;
        let family = algorithm.node()?.oid(WHAT)?;
        let bits = fields.node()?.bits(WHAT)?.into_owned();
        let kind = match family {
            oid::RSA_ENCRYPTION => {
                let key = Node::only(WHAT, &bits)?;
                let modulus = trim_zeros(key.open(WHAT, SEQUENCE)?.expect(INTEGER)?.body());
                let unused = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
                PublicKeyKind::Rsa { bits: modulus.len() * 8 - unused }
            }
            oid::EC_PUBLIC_KEY => match algorithm.node()?.oid(WHAT) {
                Ok(oid::P256) => PublicKeyKind::P256,
                Ok(oid::P384) => PublicKeyKind::P384,
                Ok(oid::P521) => PublicKeyKind::P521,
                _ => PublicKeyKind::Other(family),
            },
            _ => PublicKeyKind::Other(family),
        };
        Ok(Self { spki: node.raw().to_vec(), kind, bits })
    }

    /// SubjectPublicKeyInfo as received.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Kind and size.
    pub fn kind(&self) -> PublicKeyKind {
        self.kind
    }

    /// Contents of the BIT STRING: RSAPublicKey (RFC 8017) or the point.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Whether it is the same key, however the two are written: some write RSA without the NULL.
    pub fn same_as(&self, other: &Self) -> bool {
        self.kind == other.kind && self.bits == other.bits
    }

    /// The identifier certificates give it: SHA-1 over the key's bits (RFC 5280 section 4.2.1.2, method 1).
    pub fn key_id(&self) -> Vec<u8> {
        Digest::Sha1.of(&self.bits).as_ref().to_vec()
    }

    /// SHA-256 over SubjectPublicKeyInfo, lower case hexadecimal.
    pub fn sha256(&self) -> String {
        Digest::Sha256.hex_of(&self.spki)
    }

    /// Verifies a signature over a message.
    ///
    /// # Errors
    /// [`PkixError::Algorithm`] where the algorithm is too old or of another kind of key, [`PkixError::BadSignature`]
    /// naming `what` where it does not verify. RSA keys below 2,048 bits verify nothing, except with SHA-1.
    pub fn verify(
        &self,
        what: &'static str,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
        accept: Accept,
    ) -> Result<(), PkixError> {
        algorithm.digest().allowed(accept)?;
        let verifier = algorithm.verifier(self.kind).ok_or_else(|| PkixError::Algorithm {
            what: "signature algorithm",
            oid: format!("{algorithm:?} with {:?}", self.kind),
        })?;
        verifier.verify_sig(&self.bits, message, signature).map_err(|_| PkixError::BadSignature { what })
    }
}

/// A signature and how it was made.
#[derive(Clone, Debug)]
pub struct Signature {
    /// For the field `signatureAlgorithm`.
    pub algorithm: SignatureAlgorithm,
    /// The signature.
    pub bytes: Vec<u8>,
}

/// A private key: RSA with 2,048 to 8,192 bits, or P-256. No `Debug` of what it is, overwritten when dropped.
pub struct Key {
    pair: Pair,
    public: PublicKey,
    pkcs8: Zeroizing<Vec<u8>>,
    decrypting: OnceLock<Option<PrivateDecryptingKey>>,
}

enum Pair {
    Rsa(RsaKey),
    P256(EcdsaKeyPair),
}

impl Key {
    /// Reads PKCS#8 (RFC 5208), DER, not encrypted.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, PkixError> {
        let pair = match RsaKey::from_pkcs8(pkcs8) {
            Ok(pair) => Pair::Rsa(pair),
            Err(_) => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
                .map(Pair::P256)
                .map_err(|_| PkixError::BadKey { what: "private key" })?,
        };
        Self::new(pair, Zeroizing::new(pkcs8.to_vec()))
    }

    /// Makes a new one with the provider's randomness. RSA takes from 50 ms (2,048 bits) to seconds (4,096).
    pub fn generate(kind: KeyKind) -> Result<Self, PkixError> {
        let failed = |_| PkixError::BadKey { what: "new private key" };
        let size = match kind {
            KeyKind::Rsa2048 => KeySize::Rsa2048,
            KeyKind::Rsa3072 => KeySize::Rsa3072,
            KeyKind::Rsa4096 => KeySize::Rsa4096,
            KeyKind::P256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
                let pkcs8 = pair.to_pkcs8v1().map_err(failed)?;
                return Self::new(Pair::P256(pair), Zeroizing::new(pkcs8.as_ref().to_vec()));
            }
        };
        let pair = RsaKey::generate(size).map_err(failed)?;
        let pkcs8: encoding::Pkcs8V1Der<'static> = pair.as_der().map_err(failed)?;
        let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
        Self::new(Pair::Rsa(pair), pkcs8)
    }

    fn new(pair: Pair, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, PkixError> {
        let spki = match &pair {
            // The provider gives RSAPublicKey; in certificates it stands with NULL parameters (RFC 3279 section 2.3.1).
            Pair::Rsa(pair) => {
                let algorithm = der::sequence(&[&der::oid(oid::RSA_ENCRYPTION), &der::null()]);
                der::sequence(&[&algorithm, &der::bits(pair.public_key().as_ref())])
            }
            Pair::P256(pair) => {
                let algorithm = der::sequence(&[&der::oid(oid::EC_PUBLIC_KEY), &der::oid(oid::P256)]);
                der::sequence(&[&algorithm, &der::bits(pair.public_key().as_ref())])
            }
        };
        Ok(Self { pair, public: PublicKey::read(&spki)?, pkcs8, decrypting: OnceLock::new() })
    }

    /// PKCS#8, DER, not encrypted. Never write it anywhere as it is.
    pub fn pkcs8(&self) -> &Zeroizing<Vec<u8>> {
        &self.pkcs8
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Whether it is RSA, which SCEP needs for signing and decrypting.
    pub fn is_rsa(&self) -> bool {
        matches!(self.pair, Pair::Rsa(_))
    }

    /// What [`Key::sign`] will have used.
    pub fn signature_algorithm(&self, digest: Digest) -> SignatureAlgorithm {
        match self.pair {
            Pair::Rsa(_) => SignatureAlgorithm::Rsa(digest),
            Pair::P256(_) => SignatureAlgorithm::Ecdsa(Digest::Sha256),
        }
    }

    /// Signs a message: RSA PKCS#1 v1.5 with the digest asked for, ECDSA always with SHA-256.
    ///
    /// # Errors
    /// [`PkixError::Algorithm`] for RSA with SHA-1: the provider does not make such signatures any more.
    pub fn sign(&self, digest: Digest, message: &[u8]) -> Result<Signature, PkixError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding = match digest {
                    Digest::Sha1 => {
                        return Err(PkixError::Algorithm { what: "digest", oid: "SHA-1".to_owned() });
                    }
                    Digest::Sha256 => &RSA_PKCS1_SHA256,
                    Digest::Sha384 => &RSA_PKCS1_SHA384,
                    Digest::Sha512 => &RSA_PKCS1_SHA512,
                };
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut bytes)
                    .map_err(|_| PkixError::BadKey { what: "signing key" })?;
                Ok(Signature { algorithm: self.signature_algorithm(digest), bytes })
            }
            Pair::P256(pair) => {
                let signature =
                    pair.sign(&random, message).map_err(|_| PkixError::BadKey { what: "signing key" })?;
                let bytes = signature.as_ref().to_vec();
                Ok(Signature { algorithm: self.signature_algorithm(digest), bytes })
            }
        }
    }

    /// The RSA key for decrypting; none for elliptic curves.
    pub(crate) fn decrypting(&self) -> Option<&PrivateDecryptingKey> {
        self.decrypting
            .get_or_init(|| match self.pair {
                Pair::Rsa(_) => PrivateDecryptingKey::from_pkcs8(&self.pkcs8).ok(),
                Pair::P256(_) => None,
            })
            .as_ref()
    }

    /// Opens a block of RSA PKCS#1 v1.5. `None` covers everything that can be wrong with it.
    pub(crate) fn decrypt_pkcs1(&self, block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let key = Pkcs1PrivateDecryptingKey::new(self.decrypting()?.clone()).ok()?;
        let mut plain = Zeroizing::new(vec![0; key.min_output_size()]);
        let length = key.decrypt(block, &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    /// Opens a block of RSA-OAEP without label. `None` covers everything that can be wrong with it.
    pub(crate) fn decrypt_oaep(
        &self,
        way: &'static OaepAlgorithm,
        block: &[u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let key = OaepPrivateDecryptingKey::new(self.decrypting()?.clone()).ok()?;
        let mut plain = Zeroizing::new(vec![0; key.min_output_size()]);
        let length = key.decrypt(way, block, &mut plain, None).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    /// What takes the place of a content key that could not be decrypted: bytes that only the holder of the private key
    /// can foretell, always the same for the same block, so that asking twice tells nothing either.
    pub(crate) fn substitute(&self, block: &[u8]) -> Zeroizing<[u8; 32]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.pkcs8);
        let mut substitute = Zeroizing::new([0; 32]);
        substitute.copy_from_slice(hmac::sign(&key, block).as_ref());
        substitute
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kind", &self.public.kind).finish_non_exhaustive()
    }
}
