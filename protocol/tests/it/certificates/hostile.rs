//! Bytes from somebody who means harm: refused or read, never a panic, and never an answer that tells more than another.

use causeway_protocol::cms::{
    Bag, CmsError, ContentCipher, EnvelopedData, KeyTransport, Recipient, SignedData, SignerKey, seal, sign,
    write_bag,
};
use causeway_protocol::limits::{BER_MAX_BYTES, CMS_CERTIFICATES_MAX};
use causeway_protocol::pkix::ber::{self, Node};
use causeway_protocol::pkix::{
    Accept, AlternativeName, Certificate, Csr, CsrDraft, Digest, Extension, Extensions, Key, Name, Oid,
    PkixError, der, oid,
};
use causeway_protocol::scep::{
    CaCertificates, Caps, CertRep, FailInfo, Replier, ScepError, Unverified, decode_get,
};
use proptest::prelude::*;

use super::corpus::RECORDED;
use super::world::{CA, RA, client, device, request, seal_random, transient};

fn read_all(bytes: &[u8]) {
    // The results do not matter here, only that there are some.
    let _ = Certificate::read(bytes);
    let _ = Csr::read(bytes);
    let _ = Name::read(bytes);
    let _ = Extensions::read(bytes).map(|extensions| {
        let _ = extensions.alternative_names();
        let _ = extensions.sid();
        let _ = extensions.template();
        let _ = extensions.key_usage();
        let _ = extensions.crl_urls();
    });
    let _ = SignedData::read(bytes);
    let _ = EnvelopedData::read(bytes, Accept::ANYTHING);
    let _ = Bag::read(bytes);
    let _ = CaCertificates::read(bytes);
    let _ = CertRep::read(bytes);
    let _ = Caps::parse(bytes);
    if let Ok(message) = Unverified::read(bytes) {
        let _ = message.verify(Accept::ANYTHING).map(|request| request.open(&CA.key, &CA.certificate));
    }
}

fn good(which: usize) -> Vec<u8> {
    match which % 8 {
        at @ 0..4 => RECORDED[at].1.to_vec(),
        4 => CA.certificate.raw().to_vec(),
        5 => request(&client()).raw().to_vec(),
        6 => write_bag(&[CA.certificate.raw(), RA.certificate.raw()], &[]),
        _ => sign(CA.signer(), Digest::Sha256, oid::CMS_DATA, Some(b"x"), &[], &[]).unwrap(),
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        read_all(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let _ = decode_get(&text);
        let _ = Name::parse(&text);
        let _ = AlternativeName::parse(&text);
        let _ = Oid::parse(&text);
    }

    #[test]
    fn damaged_messages_are_read_or_refused(
        which in 0usize..8,
        at in any::<prop::sample::Index>(),
        end in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        damage in 0u8..4,
    ) {
        let mut bytes = good(which);
        let at = at.index(bytes.len());
        match damage {
            0 => bytes[at] = byte,
            1 => bytes.truncate(at),
            2 => bytes.insert(at, byte),
            _ => {
                let end = end.index(bytes.len());
                bytes.drain(at.min(end)..at.max(end));
            }
        }
        read_all(&bytes);
    }
}

/// Makes requests whose RSA block is not what it should be, signed by somebody with every right to sign.
struct Forger {
    key: Key,
    certificate: Certificate,
    envelope: Vec<u8>,
    block_at: usize,
}

const BLOCK_BYTES: usize = 256;

impl Forger {
    fn new() -> Self {
        let key = client();
        let certificate = transient(&key, "CN=alice");
        let envelope = Self::envelope(request(&key).raw(), ContentCipher::Aes128);
        let block_at = Self::block_at(&envelope);
        Self { key, certificate, envelope, block_at }
    }

    fn envelope(content: &[u8], cipher: ContentCipher) -> Vec<u8> {
        seal(content, Recipient::Certificate(&CA.certificate), cipher, KeyTransport::Pkcs1, &seal_random(4))
            .unwrap()
    }

    /// The block is the only OCTET STRING of its length.
    fn block_at(envelope: &[u8]) -> usize {
        let header = [ber::OCTET_STRING, 0x82, 1, 0];
        envelope.windows(header.len()).position(|window| window == header).unwrap() + header.len()
    }

    fn message(&self, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut changed = self.envelope.clone();
        change(&mut changed[self.block_at..self.block_at + BLOCK_BYTES]);
        let attributes = [
            (oid::SCEP_MESSAGE_TYPE, der::printable("19")),
            (oid::SCEP_TRANSACTION_ID, der::printable("1")),
            (oid::SCEP_SENDER_NONCE, der::octets(&[7; 16])),
        ];
        let signer = SignerKey { certificate: &self.certificate, key: &self.key };
        sign(signer, Digest::Sha256, oid::CMS_DATA, Some(&changed), &attributes, &[]).unwrap()
    }
}

#[test]
fn a_thousand_wrong_paddings_get_one_answer() {
    let forger = Forger::new();
    open(&forger.message(|_| ())).unwrap();
    let replier = Replier { signer: CA.signer() };
    let mut answers = std::collections::BTreeSet::new();
    for at in 0..1000usize {
        // Every byte is wrong in its turn; the first is left alone, so that the block stays below the modulus.
        let message = forger.message(|block| block[1 + at % 255] ^= 1 << (at / 255));
        let error = open(&message).unwrap_err();
        assert_eq!(error, ScepError::Unreadable, "message {at}");
        let header = Unverified::read(&message).unwrap().header().clone();
        answers.insert(replier.failure(&header, error.fail_info(), None, [1; 16]).unwrap());
    }
    assert_eq!(answers.len(), 1, "every answer is the same, byte for byte");
}

#[test]
fn other_damage_of_the_envelope_gets_that_answer_too() {
    let forger = Forger::new();
    let above_the_modulus = forger.message(|block| block.fill(0xff));
    assert_eq!(open(&above_the_modulus).unwrap_err(), ScepError::Unreadable);
    // Encrypted as it should be, but a key for another cipher.
    let other = Forger::envelope(b"whatever", ContentCipher::Aes256);
    let at = Forger::block_at(&other);
    let wrong_length = forger.message(|block| block.copy_from_slice(&other[at..at + BLOCK_BYTES]));
    assert_eq!(open(&wrong_length).unwrap_err(), ScepError::Unreadable);
    assert_eq!(ScepError::Unreadable.fail_info(), FailInfo::BadMessageCheck);
}

fn open(message: &[u8]) -> Result<(), ScepError> {
    let request = Unverified::read(message)?.verify(Accept::MODERN)?;
    request.open(&CA.key, &CA.certificate).map(|_| ())
}

#[test]
fn contents_are_not_reached_past_a_bad_signature() {
    let mut message = Forger::new().message(|_| ());
    let last = message.len() - 1;
    message[last] ^= 1;
    let refused = open(&message).unwrap_err();
    assert_eq!((refused.fail_info(), refused), (FailInfo::BadMessageCheck, ScepError::BadSignature));
}

#[test]
fn a_request_with_a_megabyte_of_extensions_is_refused() {
    let draft = CsrDraft {
        subject: Name::parse("CN=a").unwrap(),
        extensions: vec![Extension::new(oid::MS_TEMPLATE_NAME, der::octets(&vec![0; 1 << 20]))],
        ..CsrDraft::default()
    };
    let csr = draft.sign(&device(), Digest::Sha256).unwrap();
    assert_eq!(
        Csr::read(&csr).unwrap_err(),
        PkixError::TooMuch { what: "signing request", limit: BER_MAX_BYTES }
    );
    let many = (0..100).map(|at| Extension::new(Oid::new(&[1, 3, at]), der::null())).collect();
    let draft = CsrDraft { subject: draft.subject, extensions: many, ..CsrDraft::default() };
    let csr = draft.sign(&device(), Digest::Sha256).unwrap();
    assert!(matches!(Csr::read(&csr), Err(PkixError::TooMuch { what: "extensions", .. })));
}

#[test]
fn a_request_that_was_changed_does_not_verify() {
    let good = request(&client());
    let mut bytes = good.raw().to_vec();
    let at = bytes.windows(5).position(|window| window == b"alice").unwrap();
    bytes[at] = b'A';
    let changed = Csr::read(&bytes).unwrap();
    assert_eq!(changed.verify(Accept::MODERN), Err(PkixError::BadSignature { what: "signing request" }));
    good.verify(Accept::MODERN).unwrap();
}

#[test]
fn a_name_with_a_nul_is_refused() {
    let patched = |from: &[u8], to: &[u8], mut bytes: Vec<u8>| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        Csr::read(&bytes).map(|_| ())
    };
    let csr = request(&client()).raw().to_vec();
    let subject = patched(b"alice", b"al\0ce", csr.clone());
    assert_eq!(subject, Err(PkixError::ControlCharacter { what: "subject" }));
    let alternative = patched(b"alice@acme", b"alice\0acme", csr);
    assert_eq!(alternative, Err(PkixError::ControlCharacter { what: "alternative name" }));
}

#[test]
fn a_bag_of_a_thousand_certificates_is_refused() {
    // Small enough to be read: it is the number that is too high.
    let tiny = CA.issue(device().public_key(), "CN=a", 1, Vec::new());
    let some = vec![tiny.raw(); CMS_CERTIFICATES_MAX];
    assert_eq!(Bag::read(&write_bag(&some, &[])).unwrap().certificates.len(), CMS_CERTIFICATES_MAX);
    let too_many = vec![tiny.raw(); CMS_CERTIFICATES_MAX + 1];
    let limit = PkixError::TooMuch { what: "certificates of the message", limit: CMS_CERTIFICATES_MAX };
    assert_eq!(Bag::read(&write_bag(&too_many, &[])).unwrap_err(), CmsError::Malformed(limit));
    let thousand = vec![tiny.raw(); 1000];
    assert!(matches!(
        Bag::read(&write_bag(&thousand, &[])),
        Err(CmsError::Malformed(PkixError::TooMuch { .. }))
    ));
}

#[test]
fn what_is_there_twice_is_refused() {
    let extension = Extension::new(oid::MS_TEMPLATE_NAME, der::utf8("x")).to_der();
    let twice = der::sequence(&[&extension, &extension]);
    assert!(matches!(Extensions::read(&twice), Err(PkixError::Malformed { .. })));
    let draft = CsrDraft { subject: Name::parse("CN=a").unwrap(), ..CsrDraft::default() };
    let csr = draft.sign(&device(), Digest::Sha256).unwrap();
    let node = Node::only("test", &csr).unwrap();
    let mut body = node.inside("test").unwrap().sequence().unwrap();
    let (version, subject, key) = (body.node().unwrap(), body.node().unwrap(), body.node().unwrap());
    let challenge = |text: &str| {
        der::sequence(&[&der::oid(oid::CHALLENGE_PASSWORD), &der::set_of(vec![der::utf8(text)])])
    };
    let attributes = der::joined(ber::context(0), &[&challenge("one"), &challenge("two")]);
    let body = der::sequence(&[version.raw(), subject.raw(), key.raw(), &attributes]);
    let algorithm = der::sequence(&[&der::oid(oid::ECDSA_SHA256)]);
    let csr = der::sequence(&[&body, &algorithm, &der::bits(&[0])]);
    assert!(matches!(Csr::read(&csr), Err(PkixError::Malformed { why: "it has two challenges", .. })));
}

#[test]
fn deep_nesting_is_refused_wherever_it_is() {
    let mut deep = der::null();
    for _ in 0..200 {
        deep = der::sequence(&[&deep]);
    }
    let mut endless = [0x30, 0x80].repeat(5000);
    endless.extend_from_slice(&[0; 10_000]);
    for bytes in [deep, endless] {
        read_all(&bytes);
        assert!(Certificate::read(&bytes).is_err());
    }
}
