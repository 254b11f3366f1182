//! Keys of the authority and who speaks for it.
//!
//! An RSA key takes a tenth of a second to make, so nothing at the start waits for one: keys are made in the background
//! while the ports are already bound, and a request that comes earlier waits for them. None is written to a file. Within
//! one process a key belongs to its name (seed, role, generation): a mock that is started again with the same seed has
//! the same keys at once, one with another seed has others.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RsaKeyPair,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::der;
use crate::limits::KEPT_KEYS_MAX;

/// Kind and size of a key of the authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    #[default]
    Rsa2048,
    Rsa3072,
    Rsa4096,
    P256,
}

impl KeyKind {
    pub fn is_rsa(self) -> bool {
        self != Self::P256
    }
}

/// Digest of a signature. SHA-1 is not among them: the library verifies such signatures and makes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

/// A private key that signs, and opens envelopes when it is RSA.
pub struct Key {
    pair: Pair,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
}

enum Pair {
    Rsa { sign: RsaKeyPair, open: Box<Pkcs1PrivateDecryptingKey> },
    P256(EcdsaKeyPair),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("rsa", &self.is_rsa()).finish_non_exhaustive()
    }
}

impl Key {
    /// Makes a new one.
    pub fn generate(kind: KeyKind) -> Self {
        let size = match kind {
            KeyKind::Rsa2048 => KeySize::Rsa2048,
            KeyKind::Rsa3072 => KeySize::Rsa3072,
            KeyKind::Rsa4096 => KeySize::Rsa4096,
            KeyKind::P256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                    .expect("the generator has randomness");
                let spki = p256_spki(pair.public_key().as_ref());
                return Self { pair: Pair::P256(pair), spki };
            }
        };
        let private = PrivateDecryptingKey::generate(size).expect("the generator has randomness");
        let pkcs8: Pkcs8V1Der<'_> = private.as_der().expect("a generated key encodes");
        let sign = RsaKeyPair::from_pkcs8(pkcs8.as_ref()).expect("a generated key parses");
        let spki = rsa_spki(sign.public_key().as_ref());
        let open = Pkcs1PrivateDecryptingKey::new(private).expect("the size is allowed");
        Self { pair: Pair::Rsa { sign, open: Box::new(open) }, spki }
    }

    pub fn is_rsa(&self) -> bool {
        matches!(self.pair, Pair::Rsa { .. })
    }

    /// A signature over `message`. ECDSA is always with SHA-256.
    pub fn sign(&self, digest: Digest, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa { sign, .. } => {
                let padding = match digest {
                    Digest::Sha256 => &RSA_PKCS1_SHA256,
                    Digest::Sha384 => &RSA_PKCS1_SHA384,
                    Digest::Sha512 => &RSA_PKCS1_SHA512,
                };
                let mut signature = vec![0; sign.public_modulus_len()];
                sign.sign(padding, &SystemRandom::new(), message, &mut signature)
                    .expect("the buffer is as long as the modulus");
                signature
            }
            Pair::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .expect("the generator has randomness")
                .as_ref()
                .to_vec(),
        }
    }

    /// The `AlgorithmIdentifier` of certificates this key signs: sha256WithRSAEncryption or ecdsa-with-SHA256.
    pub fn signature_algorithm(&self) -> Vec<u8> {
        match self.pair {
            Pair::Rsa { .. } => {
                der::sequence(&[&der::oid(&[1, 2, 840, 113_549, 1, 1, 11]), &der::element(der::NULL, &[])])
            }
            Pair::P256(_) => der::sequence(&[&der::oid(&[1, 2, 840, 10_045, 4, 3, 2])]),
        }
    }

    /// RSA PKCS#1 v1.5 decryption; `None` for every way it can fail.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let Pair::Rsa { open, .. } = &self.pair else { return None };
        let mut plain = vec![0; open.min_output_size()];
        let length = open.decrypt(sealed, &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    /// SHA-1 over the public key's bits: the key identifier of RFC 5280 section 4.2.1.2 (1).
    pub fn id(&self) -> [u8; 20] {
        key_id(&self.spki)
    }
}

/// SHA-1 over the bits of a SubjectPublicKeyInfo.
pub fn key_id(spki: &[u8]) -> [u8; 20] {
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, super::read::key_bits(spki));
    digest.as_ref().try_into().expect("SHA-1 has 20 bytes")
}

/// `SubjectPublicKeyInfo` around an RSAPublicKey (RFC 3279 section 2.3.1).
fn rsa_spki(public: &[u8]) -> Vec<u8> {
    let algorithm =
        der::sequence(&[&der::oid(&[1, 2, 840, 113_549, 1, 1, 1]), &der::element(der::NULL, &[])]);
    der::sequence(&[&algorithm, &der::bits(public)])
}

/// `SubjectPublicKeyInfo` around a point of P-256 (RFC 5480 section 2.1.1).
fn p256_spki(point: &[u8]) -> Vec<u8> {
    let curve = der::oid(&[1, 2, 840, 10_045, 3, 1, 7]);
    let algorithm = der::sequence(&[&der::oid(&[1, 2, 840, 10_045, 2, 1]), &curve]);
    der::sequence(&[&algorithm, &der::bits(point)])
}

/// What names a kept key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyName {
    pub(super) seed: u64,
    /// `root`, `issuing`, `ra-signing`, `ra-encryption`...
    pub(super) role: &'static str,
    pub(super) generation: u32,
    pub(super) kind: KeyKind,
}

/// A key that is made once, by whoever asks first; the others wait for it.
type Slot = Arc<OnceLock<Arc<Key>>>;

/// The process's keys, oldest first.
static KEPT: LazyLock<Mutex<VecDeque<(KeyName, Slot)>>> = LazyLock::new(Mutex::default);

/// The key of this name. Blocks while it is made.
pub(super) fn kept(name: &KeyName) -> Arc<Key> {
    let slot = {
        // Every change is one push or pop.
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.iter().find(|(known, _)| known == name) {
            Some((_, slot)) => Arc::clone(slot),
            None => {
                if kept.len() >= KEPT_KEYS_MAX {
                    kept.pop_front();
                }
                let slot = Slot::default();
                kept.push_back((name.clone(), Arc::clone(&slot)));
                slot
            }
        }
    };
    Arc::clone(slot.get_or_init(|| Arc::new(Key::generate(name.kind))))
}
