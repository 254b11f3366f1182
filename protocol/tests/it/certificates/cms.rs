//! Signed and encrypted messages in every algorithm, and in every shape strangers send.

use causeway_protocol::cms::{
    Bag, CmsError, ContentCipher, EnvelopedData, KeyTransport, Recipient, SignedData, SignerKey, seal, sign,
    write_bag,
};
use causeway_protocol::pkix::ber::{self, context};
use causeway_protocol::pkix::{Accept, Certificate, Digest, Extension, Key, Oid, der, oid};

use super::world::{Authority, CA, client, device, seal_random, transient};

const CIPHERS: [ContentCipher; 4] =
    [ContentCipher::Aes128, ContentCipher::Aes192, ContentCipher::Aes256, ContentCipher::TripleDes];

#[test]
fn what_is_sealed_is_opened_by_its_recipient_only() {
    let transports = [
        KeyTransport::Pkcs1,
        KeyTransport::Oaep(Digest::Sha1),
        KeyTransport::Oaep(Digest::Sha256),
        KeyTransport::Oaep(Digest::Sha512),
    ];
    let (rsa, curve) = (client(), device());
    let certificates = [transient(&rsa, "CN=rsa"), transient(&curve, "CN=curve")];
    for (key, certificate) in [&rsa, &curve].into_iter().zip(&certificates) {
        for (at, cipher) in CIPHERS.into_iter().enumerate() {
            let (way, content) = (transports[at], vec![at as u8; 15 + at]);
            for (to, own) in [
                (Recipient::Certificate(certificate), Some(certificate)),
                (Recipient::Key(key.public_key()), None),
                (Recipient::Key(key.public_key()), Some(certificate)),
            ] {
                let sealed = seal(&content, to, cipher, way, &seal_random(at as u8)).unwrap();
                let read = EnvelopedData::read(&sealed, Accept::LEGACY).unwrap();
                assert_eq!(read.cipher(), cipher);
                assert_eq!(*read.open(key, own).unwrap(), content, "{cipher:?} {way:?}");
                for other in [&CA.key, &rsa, &curve] {
                    if !other.public_key().same_as(key.public_key()) {
                        // A wrong key gives noise, and noise now and then has an end that looks like padding.
                        let noise = read.open(other, own).ok().filter(|noise| **noise == content);
                        assert!(noise.is_none(), "{cipher:?} {way:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn old_ciphers_need_the_switch_and_single_des_is_never_written() {
    let to = Recipient::Certificate(&CA.certificate);
    let sealed = seal(b"x", to, ContentCipher::TripleDes, KeyTransport::Pkcs1, &seal_random(1)).unwrap();
    assert!(matches!(EnvelopedData::read(&sealed, Accept::MODERN), Err(CmsError::Algorithm { .. })));
    let refused = seal(b"x", to, ContentCipher::Des, KeyTransport::Pkcs1, &seal_random(1));
    assert!(matches!(refused, Err(CmsError::Algorithm { .. })));
}

#[test]
fn signatures_verify_and_nothing_else_does() {
    let curve = device();
    let curve = Authority { certificate: transient(&curve, "CN=curve"), key: curve };
    let cases =
        [(&*CA, Digest::Sha256), (&*CA, Digest::Sha384), (&*CA, Digest::Sha512), (&curve, Digest::Sha256)];
    for (who, digest) in cases {
        let message = sign(who.signer(), digest, oid::CMS_DATA, Some(b"content"), &[], &[]).unwrap();
        let read = SignedData::read(&message).unwrap();
        let signer = read.signer().unwrap();
        assert_eq!(read.content.as_deref(), Some(&b"content"[..]));
        assert_eq!(read.certificate_of(signer), Some(&who.certificate));
        read.verify(signer, who.key.public_key(), Accept::MODERN).unwrap();
        let other = client();
        assert!(read.verify(signer, other.public_key(), Accept::MODERN).is_err());
        let mut changed = read.clone();
        changed.content = Some(b"contenT".to_vec());
        let refused = changed.verify(signer, who.key.public_key(), Accept::MODERN);
        assert_eq!(refused, Err(CmsError::BadSignature));
        let mut retyped = read.clone();
        retyped.content_type = oid::SIGNED_DATA;
        assert_eq!(retyped.verify(signer, who.key.public_key(), Accept::MODERN), Err(CmsError::BadSignature));
    }
}

#[test]
fn we_never_sign_with_sha1_or_a_digest_the_key_does_not_make() {
    assert!(sign(CA.signer(), Digest::Sha1, oid::CMS_DATA, None, &[], &[]).is_err());
    let curve = device();
    let certificate = transient(&curve, "CN=curve");
    let signer = SignerKey { certificate: &certificate, key: &curve };
    assert!(sign(signer, Digest::Sha512, oid::CMS_DATA, None, &[], &[]).is_err());
}

#[test]
fn a_message_names_its_signature_rsa_encryption() {
    let message = sign(CA.signer(), Digest::Sha256, oid::CMS_DATA, Some(b"x"), &[], &[]).unwrap();
    // The combined name stands in the certificate only: in what it signs, and beside its signature.
    let combined = der::oid(oid::SHA256_WITH_RSA);
    let found = message.windows(combined.len()).filter(|window| *window == combined).count();
    assert_eq!(found, 2);
}

/// A SignedData composed by hand, so that every part can be wrong.
struct Sloppy {
    signature_name: Oid,
    signed_as: Vec<Vec<u8>>,
    sent_as: Vec<Vec<u8>>,
    indefinite: bool,
    by_key: bool,
}

impl Sloppy {
    fn new() -> Self {
        let attribute = |kind, value: Vec<u8>| der::sequence(&[&der::oid(kind), &der::set_of(vec![value])]);
        let digest = Digest::Sha256.of(b"content");
        let attributes = vec![
            attribute(oid::MESSAGE_DIGEST, der::octets(digest.as_ref())),
            attribute(oid::CONTENT_TYPE, der::oid(oid::CMS_DATA)),
        ];
        let signature_name = oid::RSA_ENCRYPTION;
        Self {
            signature_name,
            signed_as: attributes.clone(),
            sent_as: attributes,
            indefinite: false,
            by_key: false,
        }
    }

    fn element(&self, tag: u8, body: &[u8]) -> Vec<u8> {
        if self.indefinite { [&[tag, 0x80], body, &[0, 0]].concat() } else { der::element(tag, body) }
    }

    fn write(&self) -> Vec<u8> {
        let signed = der::element(ber::SET, &self.signed_as.concat());
        let signature = CA.key.sign(Digest::Sha256, &signed).unwrap().bytes;
        let id = if self.by_key {
            der::implicit(0, &CA.certificate.extensions().subject_key_id().unwrap().unwrap())
        } else {
            let serial = der::element(ber::INTEGER, CA.certificate.serial_raw());
            der::sequence(&[CA.certificate.issuer_raw(), &serial])
        };
        let signer = [
            der::small(1),
            id,
            der::sequence(&[&der::oid(oid::SHA256)]),
            der::element(context(0), &self.sent_as.concat()),
            der::sequence(&[&der::oid(self.signature_name), &der::null()]),
            der::octets(&signature),
        ]
        .concat();
        // The content in two pieces, if lengths are not known in advance.
        let pieces = [der::octets(b"con"), der::octets(b"tent")].concat();
        let octets = if self.indefinite { self.element(0x24, &pieces) } else { der::octets(b"content") };
        let content = [der::oid(oid::CMS_DATA), self.element(context(0), &octets)].concat();
        let body = [
            der::small(1),
            self.element(ber::SET, &der::sequence(&[&der::oid(oid::SHA256)])),
            self.element(ber::SEQUENCE, &content),
            self.element(context(0), CA.certificate.raw()),
            self.element(ber::SET, &self.element(ber::SEQUENCE, &signer)),
        ]
        .concat();
        let signed = self.element(context(0), &self.element(ber::SEQUENCE, &body));
        self.element(ber::SEQUENCE, &[der::oid(oid::SIGNED_DATA), signed].concat())
    }

    fn verify(&self) -> Result<Vec<u8>, CmsError> {
        let read = SignedData::read(&self.write())?;
        let signer = read.signer()?;
        assert!(read.certificate_of(signer).is_some());
        read.verify(signer, CA.key.public_key(), Accept::MODERN)?;
        Ok(read.content.unwrap())
    }
}

#[test]
fn every_shape_of_a_signed_message_is_read() {
    let plain = Sloppy::new();
    let mut sorted = plain.signed_as.clone();
    sorted.sort();
    assert_ne!(sorted, plain.signed_as, "as sent they are not in order");
    let shapes = [
        ("signed as sent, out of order", Sloppy::new()),
        ("signed in order, sent out of order", Sloppy { signed_as: sorted, ..Sloppy::new() }),
        ("combined name", Sloppy { signature_name: oid::SHA256_WITH_RSA, ..Sloppy::new() }),
        ("indefinite lengths", Sloppy { indefinite: true, ..Sloppy::new() }),
        ("signer by key identifier", Sloppy { by_key: true, ..Sloppy::new() }),
    ];
    for (name, shape) in shapes {
        assert_eq!(shape.verify().as_deref(), Ok(&b"content"[..]), "{name}");
    }
}

#[test]
fn signed_attributes_that_contradict_are_refused() {
    let twice = [Sloppy::new().sent_as, Sloppy::new().sent_as].concat();
    let repeated = Sloppy { signed_as: twice.clone(), sent_as: twice, ..Sloppy::new() };
    assert!(matches!(repeated.verify(), Err(CmsError::Malformed(_))));
    let without_type = Sloppy::new().sent_as[..1].to_vec();
    let untyped = Sloppy { signed_as: without_type.clone(), sent_as: without_type, ..Sloppy::new() };
    assert_eq!(untyped.verify(), Err(CmsError::BadSignature));
    let other_digest = Sloppy { signature_name: oid::SHA512_WITH_RSA, ..Sloppy::new() };
    assert!(matches!(other_digest.verify(), Err(CmsError::Algorithm { .. })));
}

#[test]
fn a_recipient_is_found_among_several_and_without_its_name() {
    let own = client();
    let certificate = transient(&own, "CN=own");
    let elsewhere = transient(&own, "CN=the one fetched last year");
    let info = |to: &Certificate| {
        let sealed = seal(
            b"content",
            Recipient::Certificate(to),
            ContentCipher::Aes128,
            KeyTransport::Pkcs1,
            &seal_random(5),
        );
        parts(&sealed.unwrap())
    };
    let (ours, rest) = info(&certificate);
    let (theirs, _) = info(&CA.certificate);
    let (old_name, _) = info(&elsewhere);
    for recipients in [vec![&theirs, &ours], vec![&theirs, &old_name], vec![&old_name]] {
        let set = der::element(ber::SET, &recipients.into_iter().flatten().copied().collect::<Vec<_>>());
        let body = der::sequence(&[&der::small(0), &set, &rest]);
        let message = der::sequence(&[&der::oid(oid::ENVELOPED_DATA), &der::explicit(0, &body)]);
        let read = EnvelopedData::read(&message, Accept::MODERN).unwrap();
        assert_eq!(**read.open(&own, Some(&certificate)).unwrap(), b"content"[..]);
    }
}

/// The one RecipientInfo and the EncryptedContentInfo of a message of ours.
fn parts(sealed: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let node = ber::Node::only("test", sealed).unwrap();
    let mut outer = node.inside("test").unwrap();
    outer.node().unwrap();
    let mut fields = outer.node().unwrap().inside("test").unwrap().sequence().unwrap();
    fields.node().unwrap();
    let recipients = fields.node().unwrap().body().to_vec();
    (recipients, fields.node().unwrap().raw().to_vec())
}

#[test]
fn ciphertext_in_pieces_is_put_together() {
    let sealed = seal(
        &[7; 40],
        Recipient::Certificate(&CA.certificate),
        ContentCipher::Aes256,
        KeyTransport::Pkcs1,
        &seal_random(9),
    );
    let (recipient, content) = parts(&sealed.unwrap());
    let node = ber::Node::only("test", &content).unwrap();
    let mut fields = node.inside("test").unwrap();
    let (kind, cipher, text) = (fields.node().unwrap(), fields.node().unwrap(), fields.node().unwrap());
    let one = der::octets(text.body());
    let many: Vec<u8> = text.body().chunks(7).flat_map(der::octets).collect();
    let endless = [&[context(0), 0x80], many.as_slice(), &[0, 0]].concat();
    for text in [der::element(context(0), &one), der::element(context(0), &many), endless] {
        let content = der::sequence(&[kind.raw(), cipher.raw(), &text]);
        let body = der::sequence(&[&der::small(0), &der::element(ber::SET, &recipient), &content]);
        let message = der::sequence(&[&der::oid(oid::ENVELOPED_DATA), &der::explicit(0, &body)]);
        let read = EnvelopedData::read(&message, Accept::MODERN).unwrap();
        assert_eq!(*read.open(&CA.key, Some(&CA.certificate)).unwrap(), [7; 40]);
    }
}

#[test]
fn a_bag_keeps_its_order() {
    let keys = [client(), device()];
    let certificates: Vec<_> = (0..6)
        .map(|at| {
            CA.issue(keys[at % 2].public_key(), &format!("CN=c{at}"), 9 - at as u8, Vec::<Extension>::new())
        })
        .collect();
    let raw: Vec<_> = certificates.iter().map(Certificate::raw).collect();
    let crl = der::sequence(&[&der::small(1)]);
    let bag = Bag::read(&write_bag(&raw, &[&crl])).unwrap();
    assert_eq!(bag.certificates, certificates);
    assert_eq!(bag.crls, [crl]);
    assert!(Bag::read(&write_bag(&[], &[])).unwrap().certificates.is_empty());
    let nobody = SignedData::read(&write_bag(&raw, &[])).unwrap();
    assert_eq!(nobody.signer().unwrap_err(), CmsError::NotSigned);
}

#[test]
fn something_behind_a_message_is_refused_unless_it_is_a_line_end() {
    let bag = write_bag(&[CA.certificate.raw()], &[]);
    assert!(Bag::read(&[&bag, &b"\r\n"[..]].concat()).is_ok());
    assert!(Bag::read(&[&bag, &b"<html>"[..]].concat()).is_err());
}

#[test]
fn a_key_that_cannot_decrypt_says_so() {
    let named = Recipient::Certificate(&CA.certificate);
    let sealed = seal(b"x", named, ContentCipher::Aes128, KeyTransport::Pkcs1, &seal_random(2)).unwrap();
    let read = EnvelopedData::read(&sealed, Accept::MODERN).unwrap();
    let curve: Key = device();
    assert!(read.open(&curve, None).is_err_and(|error| error == CmsError::Undecryptable));
}
