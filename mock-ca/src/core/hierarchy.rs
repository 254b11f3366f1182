//! Who signs: a root, the issuing authority in its generations, and the registration authority (RA) that speaks SCEP
//! for it (RFC 8894 section 2.1).

use std::sync::Arc;

use causeway_protocol::certificate::KeyKind;
use causeway_protocol::pkix::{Certificate, Digest, Key, Name, der};
use serde::{Deserialize, Serialize};

use super::certificate::{self, Body, Extensions, Serial};
use super::keys::{self, KeyName};
use super::template::KeyUsage;
use super::{AuthorityConfig, Links, Signer};

const DAY_MS: i64 = 86_400_000;
/// Certificates begin this much earlier than now, as AD CS does it for clocks that are slow.
pub(super) const BACKDATED_MS: i64 = 10 * 60_000;

/// How many authorities stand above a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tiers {
    /// The issuing authority is the root.
    One,
    /// A root above the issuing authority.
    #[default]
    Two,
}

/// Who opens SCEP requests and signs their answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RaMode {
    /// The authority itself; it must have an RSA key.
    None,
    /// One certificate for both.
    Single,
    /// One that signs, one that is encrypted to: what NDES has.
    #[default]
    Pair,
}

/// A key with its certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    pub key: Arc<Key>,
    pub certificate: Certificate,
    pub serial: Serial,
    /// The issuer's name, DER.
    pub issuer: Vec<u8>,
    /// Subject, DER.
    pub name: Vec<u8>,
    pub not_before_ms: i64,
    pub not_after_ms: i64,
}

/// The issuing authority with one key, and its RA.
#[derive(Clone, Debug)]
pub struct Generation {
    pub number: u32,
    pub authority: Identity,
    /// Signs answers.
    pub ra_signing: Identity,
    /// Requests are encrypted to it.
    pub ra_encryption: Identity,
    /// Whether the two are certificates of their own.
    pub ra: RaMode,
}

/// Everything there is at one moment. Replaced as a whole.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// The self-signed end; with one tier it is the issuing authority of the current generation.
    pub root: Identity,
    /// Every generation there was and is, oldest first; never empty.
    pub generations: Vec<Arc<Generation>>,
    /// The next generation and when it takes over (milliseconds since 1970).
    pub next: Option<(Arc<Generation>, i64)>,
}

impl Hierarchy {
    /// The generation that issues now.
    pub fn current(&self) -> &Arc<Generation> {
        self.generations.last().expect("a hierarchy begins with a generation")
    }

    /// Everybody who answers for certificates: a root of its own, and every generation.
    pub(super) fn signers(&self) -> impl Iterator<Item = (Signer, &Identity)> {
        let own = !self.generations.iter().any(|one| one.authority.serial == self.root.serial);
        let generations = self.generations.iter().map(|one| (Signer::Generation(one.number), &one.authority));
        own.then_some((Signer::Root, &self.root)).into_iter().chain(generations)
    }

    /// One of them.
    pub fn signer(&self, signer: Signer) -> Option<&Identity> {
        self.signers().find(|(one, _)| *one == signer).map(|(_, identity)| identity)
    }

    /// Whether `signer` has signed a certificate of the hierarchy itself, which is in no book: the root those of issuing
    /// authorities, these the ones of their RA.
    pub(super) fn has_signed(&self, signer: Signer, serial: &Serial) -> bool {
        let next = self.next.as_ref().map(|(next, _)| next);
        self.generations.iter().chain(next).any(|one| match signer {
            Signer::Root => one.authority.serial == *serial && one.authority.issuer == self.root.name,
            Signer::Generation(number) => {
                let ra = [&one.ra_signing, &one.ra_encryption];
                one.number == number && ra.iter().any(|ra| ra.serial == *serial)
            }
        })
    }

    /// Certificates from `generation` upwards, DER.
    pub fn chain<'a>(&'a self, generation: &'a Generation) -> Vec<&'a [u8]> {
        let mut chain = vec![generation.authority.certificate.raw()];
        if generation.authority.serial != self.root.serial && generation.authority.issuer == self.root.name {
            chain.push(self.root.certificate.raw());
        }
        chain
    }
}

impl Generation {
    /// The certificates of GetCACert: those of the RA first, then the chain.
    pub fn ra_certificates(&self) -> Vec<&[u8]> {
        match self.ra {
            RaMode::None => Vec::new(),
            RaMode::Single => vec![self.ra_signing.certificate.raw()],
            RaMode::Pair => vec![self.ra_signing.certificate.raw(), self.ra_encryption.certificate.raw()],
        }
    }

    /// Whether its RA's certificates are good at this time; with none, the authority's.
    pub fn ra_is_good(&self, now_ms: i64) -> bool {
        [&self.ra_signing, &self.ra_encryption]
            .iter()
            .all(|one| one.not_after_ms > now_ms && one.not_before_ms <= now_ms)
    }
}

/// What makes authorities: settings and where things are published.
pub(super) struct Maker<'a> {
    pub(super) config: &'a AuthorityConfig,
    pub(super) seed: u64,
    pub(super) links: &'a Links,
    pub(super) now_ms: i64,
}

impl Maker<'_> {
    /// A hierarchy with its first generation. Blocks while keys are made.
    pub(super) fn hierarchy(&self) -> Hierarchy {
        self.make_keys(0);
        let root = match self.config.tiers() {
            Tiers::One => None,
            Tiers::Two => Some(self.self_signed("root", 0, &self.config.root_name, self.config.root_days)),
        };
        let first = self.generation(root.as_ref(), 0);
        let root = root.unwrap_or_else(|| first.authority.clone());
        Hierarchy { root, generations: vec![Arc::new(first)], next: None }
    }

    /// A generation under `root`, or one that signs itself.
    pub(super) fn generation(&self, root: Option<&Identity>, number: u32) -> Generation {
        let (name, days) = (&self.config.name, self.config.authority_days);
        let authority = match root {
            None => self.self_signed("issuing", number, name, days),
            Some(root) => {
                let key = self.key("issuing", number, self.config.key);
                let mut extensions = Extensions::default();
                // Digital signature and encipherment besides: in CA mode SCEP uses this key for both (RFC 8894 section 2.1.2).
                extensions.authority(Some(0), &self.authority_usage());
                extensions.links(self.links, Signer::Root);
                self.issue(root, 0, key, &name_of(name), days, extensions)
            }
        };
        self.with_ra(authority, number, self.config.ra_days)
    }

    /// A generation with new certificates for its RA, good for so many days; none of them is good when `days` is negative.
    pub(super) fn with_ra(&self, authority: Identity, number: u32, days: i32) -> Generation {
        let (ra_signing, ra_encryption) = match self.config.ra() {
            RaMode::None => (authority.clone(), authority.clone()),
            RaMode::Single => {
                let usage = [KeyUsage::DigitalSignature, KeyUsage::KeyEncipherment];
                let both = self.ra(&authority, "ra", number, &usage, days);
                (both.clone(), both)
            }
            RaMode::Pair => (
                self.ra(&authority, "ra-signing", number, &[KeyUsage::DigitalSignature], days),
                self.ra(&authority, "ra-encryption", number, &[KeyUsage::KeyEncipherment], days),
            ),
        };
        Generation { number, authority, ra_signing, ra_encryption, ra: self.config.ra() }
    }

    fn ra(
        &self,
        authority: &Identity,
        role: &'static str,
        number: u32,
        usage: &[KeyUsage],
        days: i32,
    ) -> Identity {
        let key = self.key(role, number, self.ra_key());
        let mut extensions = Extensions::default();
        extensions.no_authority();
        extensions.usage(usage, &["enrolment_agent"]);
        extensions.links(self.links, Signer::Generation(number));
        let name = name_of(&format!("CN={}, {}", self.config.ra_name, without_first(&self.config.name)));
        self.issue(authority, number, key, &name, days, extensions)
    }

    fn self_signed(&self, role: &'static str, number: u32, name: &str, days: i32) -> Identity {
        let key = self.key(role, number, self.config.key);
        let mut extensions = Extensions::default();
        extensions.authority(None, &self.authority_usage());
        let name = name_of(name);
        let (serial, not_before_ms, not_after_ms) =
            (Serial::random(), self.now_ms - BACKDATED_MS, self.now_ms + i64::from(days) * DAY_MS);
        let key_id = key.public_key().key_id();
        extensions.key_ids(&key_id, &key_id);
        let body = Body {
            serial,
            issuer: &name,
            subject: &name,
            spki: key.public_key().spki(),
            not_before_ms,
            not_after_ms,
        };
        let certificate = own(certificate::sign(&body, &extensions, &key));
        Identity { key, certificate, serial, issuer: name.clone(), name, not_before_ms, not_after_ms }
    }

    fn issue(
        &self,
        by: &Identity,
        _number: u32,
        key: Arc<Key>,
        name: &[u8],
        days: i32,
        mut extensions: Extensions,
    ) -> Identity {
        let not_before_ms = (self.now_ms + i64::from(days.min(0)) * 2 * DAY_MS - BACKDATED_MS).max(0);
        let not_after_ms = (self.now_ms + i64::from(days) * DAY_MS).min(by.not_after_ms);
        let serial = Serial::random();
        extensions.key_ids(&key.public_key().key_id(), &by.key.public_key().key_id());
        let body = Body {
            serial,
            issuer: &by.name,
            subject: name,
            spki: key.public_key().spki(),
            not_before_ms,
            not_after_ms,
        };
        let certificate = own(certificate::sign(&body, &extensions, &by.key));
        Identity {
            key,
            certificate,
            serial,
            issuer: by.name.clone(),
            name: name.to_vec(),
            not_before_ms,
            not_after_ms,
        }
    }

    /// Makes the keys of a generation side by side; one after the other they would take as long as all together.
    pub(super) fn make_keys(&self, generation: u32) {
        let mut roles = vec![("issuing", self.config.key)];
        if self.config.tiers() == Tiers::Two && generation == 0 {
            roles.push(("root", self.config.key));
        }
        match self.config.ra() {
            RaMode::None => {}
            RaMode::Single => roles.push(("ra", self.ra_key())),
            RaMode::Pair => roles.extend([("ra-signing", self.ra_key()), ("ra-encryption", self.ra_key())]),
        }
        let name = |(role, kind)| KeyName { seed: self.seed, role, generation, kind };
        keys::make_all(&roles.into_iter().map(name).collect::<Vec<_>>());
    }

    /// The messages of SCEP are RSA, whatever the authority signs with.
    fn ra_key(&self) -> KeyKind {
        if self.config.key == KeyKind::P256 { KeyKind::Rsa2048 } else { self.config.key }
    }

    fn key(&self, role: &'static str, generation: u32, kind: KeyKind) -> Arc<Key> {
        keys::kept(&KeyName { seed: self.seed, role, generation, kind })
    }

    fn authority_usage(&self) -> Vec<KeyUsage> {
        let mut usage = vec![KeyUsage::DigitalSignature, KeyUsage::KeyCertSign, KeyUsage::CrlSign];
        if self.config.key != KeyKind::P256 {
            usage.push(KeyUsage::KeyEncipherment);
        }
        usage
    }
}

/// A name of the settings, DER.
fn name_of(text: &str) -> Vec<u8> {
    Name::parse(text).expect("names of authorities are checked with the settings").to_der()
}

/// Everything after the first part.
fn without_first(text: &str) -> &str {
    text.split_once(',').map_or("", |(_, rest)| rest.trim())
}

fn own(certificate: Vec<u8>) -> Certificate {
    Certificate::read(&certificate).expect("a certificate of our own can be read")
}

/// `content` with `AlgorithmIdentifier` and signature, as certificates, CRLs and OCSP answers carry them.
pub(super) fn signed(content: &[u8], key: &Key) -> Vec<u8> {
    let (algorithm, signature) = signature(content, key);
    der::sequence(&[content, &algorithm, &signature])
}

/// `AlgorithmIdentifier` and BIT STRING.
pub(super) fn signature(content: &[u8], key: &Key) -> (Vec<u8>, Vec<u8>) {
    let signature = key.sign(Digest::Sha256, content).expect("an authority's key signs with SHA-256");
    (signature.algorithm.identifier(), der::bits(&signature.bytes))
}
