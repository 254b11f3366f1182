//! Keys and certificates the tests share, and bytes that are random enough for them.

use std::sync::LazyLock;

use causeway_protocol::Secret;
use causeway_protocol::certificate::KeyKind;
use causeway_protocol::cms::{SealRandom, SignerKey};
use causeway_protocol::pkix::{
    AlternativeName, BasicConstraints, Certificate, CertificateDraft, Csr, CsrDraft, Digest, Extension, Key,
    KeyUsage, Name, PublicKey, self_signed,
};
use causeway_protocol::scep::{CaCertificates, ScepRandom};

/// 2026-01-01, milliseconds.
pub(crate) const FROM: i64 = 1_767_225_600_000;
/// A year later.
pub(crate) const TO: i64 = FROM + 365 * 86_400_000;

/// The authority the recorded requests are encrypted to.
pub(crate) static CA: LazyLock<Authority> = LazyLock::new(|| {
    let pem = include_str!("../corpus/scep/recipient-ca.pem");
    let certificate = &causeway_protocol::pkix::pem::read("CERTIFICATE", pem)[0];
    Authority {
        certificate: Certificate::read(certificate).unwrap(),
        key: Key::from_pkcs8(include_bytes!("../corpus/scep/recipient-ca.key.der")).unwrap(),
    }
});
/// A registration authority below it.
pub(crate) static RA: LazyLock<Authority> = LazyLock::new(|| {
    let key = Key::generate(KeyKind::Rsa2048).unwrap();
    let usage = KeyUsage::DIGITAL_SIGNATURE.and(KeyUsage::KEY_ENCIPHERMENT);
    let certificate = CA.issue(key.public_key(), "CN=RA", 7, vec![Extension::key_usage(usage)]);
    Authority { certificate, key }
});
/// Somebody else's authority of the same name.
pub(crate) static IMPOSTOR: LazyLock<Authority> = LazyLock::new(|| {
    let key = Key::generate(KeyKind::Rsa2048).unwrap();
    let draft = CertificateDraft {
        serial: CA.certificate.serial_raw().to_vec(),
        issuer: CA.certificate.subject_raw().to_vec(),
        subject: CA.certificate.subject_raw().to_vec(),
        not_before_ms: FROM,
        not_after_ms: TO,
        public_key: key.public_key().clone(),
        extensions: vec![Extension::basic_constraints(BasicConstraints { ca: true, path_length: None })],
    };
    let certificate = Certificate::read(&draft.sign(&key, Digest::Sha256).unwrap()).unwrap();
    Authority { certificate, key }
});
/// Key of a client.
pub(crate) static CLIENT: LazyLock<Vec<u8>> =
    LazyLock::new(|| Key::generate(KeyKind::Rsa2048).unwrap().pkcs8().to_vec());
/// Key of a device that asks through an agent.
pub(crate) static DEVICE: LazyLock<Vec<u8>> =
    LazyLock::new(|| Key::generate(KeyKind::P256).unwrap().pkcs8().to_vec());

/// An authority's certificate and key.
pub(crate) struct Authority {
    pub(crate) certificate: Certificate,
    pub(crate) key: Key,
}

impl Authority {
    /// Issues a certificate.
    pub(crate) fn issue(
        &self,
        public_key: &PublicKey,
        subject: &str,
        serial: u8,
        extensions: Vec<Extension>,
    ) -> Certificate {
        let draft = CertificateDraft {
            serial: vec![serial],
            issuer: self.certificate.subject_raw().to_vec(),
            subject: Name::parse(subject).unwrap().to_der(),
            not_before_ms: FROM,
            not_after_ms: TO,
            public_key: public_key.clone(),
            extensions,
        };
        Certificate::read(&draft.sign(&self.key, Digest::Sha256).unwrap()).unwrap()
    }

    pub(crate) fn signer(&self) -> SignerKey<'_> {
        SignerKey { certificate: &self.certificate, key: &self.key }
    }
}

pub(crate) fn client() -> Key {
    Key::from_pkcs8(&CLIENT).unwrap()
}

pub(crate) fn device() -> Key {
    Key::from_pkcs8(&DEVICE).unwrap()
}

/// The certificate a client signs with before it has one.
pub(crate) fn transient(key: &Key, subject: &str) -> Certificate {
    let subject = Name::parse(subject).unwrap().to_der();
    Certificate::read(&self_signed(key, subject, &[0x91; 16], FROM, TO).unwrap()).unwrap()
}

/// An ordinary request.
pub(crate) fn request(key: &Key) -> Csr {
    let draft = CsrDraft {
        subject: Name::parse("CN=alice,O=Acme").unwrap(),
        alternative_names: vec![AlternativeName::Upn("alice@acme.example".to_owned())],
        challenge: Some(Secret::new("0123456789ABCDEF")),
        ..CsrDraft::default()
    };
    Csr::read(&draft.sign(key, Digest::Sha256).unwrap()).unwrap()
}

/// What GetCACert says without and with a registration authority.
pub(crate) fn authority(with_ra: bool) -> CaCertificates {
    let ra = with_ra.then(|| RA.certificate.clone());
    CaCertificates::of(std::iter::once(CA.certificate.clone()).chain(ra).collect()).unwrap()
}

pub(crate) fn seal_random(seed: u8) -> SealRandom {
    SealRandom::new(std::array::from_fn(|at| seed.wrapping_add(at as u8).wrapping_mul(31)))
}

pub(crate) fn random(seed: u8) -> ScepRandom {
    ScepRandom::new(std::array::from_fn(|at| seed.wrapping_add(at as u8).wrapping_mul(37)))
}
