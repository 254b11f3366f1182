//! Whole exchanges between a client and a server, and answers that are not the server's.

use std::sync::Arc;

use causeway_protocol::certificate::CertificateId;
use causeway_protocol::cms::{self, ContentCipher, write_bag};
use causeway_protocol::pkix::{Accept, Certificate, Csr, Digest, Extension, KeyUsage, Name, der, oid};
use causeway_protocol::scep::{
    Answer, Asked, CaCertificates, Caps, CertRep, Enrollment, FailInfo, MessageType, Outcome, Replier,
    RequestWriter, ScepError, Suite, TransactionId, Unverified, write_next_ca,
};

use super::world::{Authority, CA, IMPOSTOR, RA, authority, client, device, random, request, transient};

fn suite(caps: &str) -> Suite {
    Caps::parse(caps.as_bytes()).negotiate()
}

/// A client that asks for the device's request with a key of its own.
fn enrollment(suite: Suite, with_ra: bool) -> Enrollment {
    let key = client();
    let certificate = transient(&key, "CN=alice,O=Acme");
    let transaction = TransactionId::new("order 17");
    Enrollment::new(suite, authority(with_ra), request(&device()), Arc::new(key), certificate, transaction)
}

/// What a server does with a request that it likes.
fn serve(who: &Authority, message: &[u8], issue: impl FnOnce(&Csr) -> Certificate) -> Vec<u8> {
    let request = Unverified::read(message).unwrap().verify(Accept::LEGACY).unwrap();
    let opened = request.open(&who.key, &who.certificate).unwrap();
    let Asked::Certificate(csr) = &opened.asked else { panic!("{:?} asks for no certificate", opened.asked) };
    csr.verify(Accept::MODERN).unwrap();
    let issued = issue(csr);
    let bag = write_bag(&[issued.raw(), CA.certificate.raw()], &[]);
    let replier = Replier { signer: who.signer() };
    replier.success(&request, &bag, opened.cipher, &random(200)).unwrap()
}

fn issue(csr: &Csr) -> Certificate {
    CA.issue(csr.public_key(), "CN=alice,O=Acme", 42, Vec::new())
}

fn issued(outcome: Result<Outcome, ScepError>) -> Certificate {
    match outcome {
        Ok(Outcome::Issued { certificate, others }) => {
            assert_eq!(others, std::slice::from_ref(&CA.certificate));
            certificate
        }
        other => panic!("{other:?} instead of a certificate"),
    }
}

#[test]
fn a_certificate_is_issued_whatever_the_server_can() {
    for caps in
        ["SCEPStandard", "AES\nSHA-512\n", "POSTPKIOperation\nRenewal\nSHA-512\nSHA-256\nSHA-1\nDES3", ""]
    {
        for with_ra in [false, true] {
            let who = if with_ra { &*RA } else { &*CA };
            let mut enrollment = enrollment(suite(caps), with_ra);
            let message = enrollment.request(&random(1)).unwrap();
            let answer = serve(who, &message, |csr| {
                assert_eq!(csr.challenge().unwrap().expose(), "0123456789ABCDEF");
                issue(csr)
            });
            let certificate = issued(enrollment.answer(&answer));
            assert!(certificate.public_key().same_as(device().public_key()), "{caps:?}");
        }
    }
}

#[test]
fn approval_is_waited_for_and_refusal_has_a_reason() {
    let mut enrollment = enrollment(suite("SCEPStandard"), true);
    let replier = Replier { signer: RA.signer() };
    let first = enrollment.request(&random(1)).unwrap();
    let first = Unverified::read(&first).unwrap().verify(Accept::MODERN).unwrap();
    let pending = replier.pending(first.header(), [1; 16]).unwrap();
    assert!(matches!(enrollment.answer(&pending), Ok(Outcome::Pending)));

    let poll = enrollment.poll(&random(2)).unwrap();
    let poll = Unverified::read(&poll).unwrap().verify(Accept::MODERN).unwrap();
    assert_eq!(poll.header().kind, MessageType::CertPoll);
    assert_eq!(poll.header().transaction, first.header().transaction);
    let Asked::Poll { issuer, subject } = poll.open(&RA.key, &RA.certificate).unwrap().asked else {
        panic!("no poll")
    };
    assert_eq!(&issuer, CA.certificate.subject());
    assert_eq!(subject, Name::parse("CN=alice,O=Acme").unwrap());
    // The answer to the request is none to the poll.
    assert_eq!(enrollment.answer(&pending).unwrap_err(), ScepError::AnotherNonce);
    for fail in [
        FailInfo::BadAlg,
        FailInfo::BadMessageCheck,
        FailInfo::BadRequest,
        FailInfo::BadTime,
        FailInfo::BadCertId,
    ] {
        let no = replier.failure(poll.header(), fail, Some("it was denied"), [2; 16]).unwrap();
        let Ok(Outcome::Failed { fail: told, text }) = enrollment.answer(&no) else {
            panic!("{fail:?} got lost")
        };
        assert_eq!((told, text.as_deref()), (Some(fail), Some("it was denied")));
    }
    let bag = write_bag(&[issue(&request(&device())).raw(), CA.certificate.raw()], &[]);
    let yes = replier.success(&poll, &bag, ContentCipher::Aes128, &random(3)).unwrap();
    assert_eq!(issued(enrollment.answer(&yes)).serial(), "2a");
}

#[test]
fn renewal_is_signed_with_the_old_certificate() {
    let key = client();
    let old = CA.issue(key.public_key(), "CN=alice,O=Acme", 9, Vec::new());
    let transaction = TransactionId::for_key(key.public_key());
    let begin = |caps| {
        Enrollment::new(
            suite(caps),
            authority(false),
            request(&client()),
            Arc::new(client()),
            old.clone(),
            transaction.clone(),
        )
        .renewing()
    };
    let message = begin("SCEPStandard\nRenewal").request(&random(1)).unwrap();
    let message = Unverified::read(&message).unwrap();
    assert_eq!(message.header().kind, MessageType::RenewalReq);
    assert_eq!(message.verify(Accept::MODERN).unwrap().signer(), &old);
    let message = begin("SCEPStandard").request(&random(1)).unwrap();
    assert_eq!(Unverified::read(&message).unwrap().header().kind, MessageType::PkcsReq);
}

#[test]
fn certificates_and_lists_can_be_asked_for() {
    let key = client();
    let certificate = transient(&key, "CN=alice");
    let authority = authority(true);
    let transaction = TransactionId::new("1");
    let writer = RequestWriter {
        suite: suite("SCEPStandard"),
        recipient: authority.recipient().unwrap(),
        signer: cms::SignerKey { certificate: &certificate, key: &key },
        transaction: &transaction,
    };
    let wanted = CertificateId { issuer: CA.certificate.subject().to_string(), serial: "a5".to_owned() };
    let issuer = CA.certificate.subject_raw();
    for (message, of_list) in [
        (writer.issued(issuer, &[0xa5], &random(1)).unwrap(), false),
        (writer.crl(issuer, &[0, 0xa5], &random(2)).unwrap(), true),
    ] {
        let request = Unverified::read(&message).unwrap().verify(Accept::MODERN).unwrap();
        let (issuer, serial) = match request.open(&RA.key, &RA.certificate).unwrap().asked {
            Asked::Issued { issuer, serial } if !of_list => (issuer, serial),
            Asked::Crl { issuer, serial } if of_list => (issuer, serial),
            other => panic!("{other:?}"),
        };
        assert_eq!(CertificateId { issuer: issuer.to_string(), serial }, wanted);
        let crl = der::sequence(&[&der::small(7)]);
        let replier = Replier { signer: RA.signer() };
        let answer =
            replier.success(&request, &write_bag(&[], &[&crl]), ContentCipher::Aes128, &random(3)).unwrap();
        let answer = CertRep::read(&answer).unwrap();
        let Answer::Success(bag) = answer.open(&authority, &key, &certificate, Accept::MODERN).unwrap()
        else {
            panic!("no success")
        };
        assert_eq!(bag.crls, [crl]);
    }
}

#[test]
fn answers_of_others_are_refused() {
    let mut enrollment = enrollment(suite("SCEPStandard"), false);
    let message = enrollment.request(&random(1)).unwrap();
    let request = Unverified::read(&message).unwrap().verify(Accept::MODERN).unwrap();
    let bag = |certificate: &Certificate| write_bag(&[certificate.raw(), CA.certificate.raw()], &[]);
    let good = bag(&issue(&super::world::request(&device())));
    let success = |who: &Authority, bag: &[u8]| {
        let replier = Replier { signer: who.signer() };
        replier.success(&request, bag, ContentCipher::Aes128, &random(7)).unwrap()
    };
    let refused = |answer: &[u8]| enrollment.answer(answer).unwrap_err();

    assert_eq!(refused(&success(&IMPOSTOR, &good)), ScepError::BadSignature, "same name, other key");
    assert_eq!(refused(&success(&RA, &good)), ScepError::AnotherSigner, "not in the authority's answer");
    let mut header = request.header().clone();
    header.transaction = TransactionId::new("order 18");
    let replier = Replier { signer: CA.signer() };
    assert_eq!(refused(&replier.pending(&header, [0; 16]).unwrap()), ScepError::AnotherTransaction);
    let mut header = request.header().clone();
    header.sender_nonce[0] ^= 1;
    assert_eq!(refused(&replier.pending(&header, [0; 16]).unwrap()), ScepError::AnotherNonce);
    let other_key = bag(&CA.issue(client().public_key(), "CN=alice,O=Acme", 1, Vec::new()));
    assert_eq!(refused(&success(&CA, &other_key)), ScepError::AnotherKey);
    assert_eq!(refused(&success(&CA, &write_bag(&[], &[]))), ScepError::AnotherKey);
    let foreign = bag(&IMPOSTOR.issue(device().public_key(), "CN=alice,O=Acme", 1, Vec::new()));
    assert!(matches!(refused(&success(&CA, &foreign)), ScepError::NoAuthority { .. }));
    for nonsense in [&b""[..], b"<html><body>Server Error</body></html>", b"0\x80", CA.certificate.raw()] {
        assert!(matches!(refused(nonsense), ScepError::NotScep(_)), "{nonsense:?}");
    }
    assert!(matches!(refused(&message), ScepError::MessageType { .. }), "a request is no answer");
    assert!(issued(enrollment.answer(&success(&CA, &good))).serial() == "2a", "the good one is still taken");
}

#[test]
fn the_certificate_is_found_wherever_it_is_in_the_bag() {
    let mut enrollment = enrollment(suite("SCEPStandard"), false);
    let message = enrollment.request(&random(1)).unwrap();
    let request = Unverified::read(&message).unwrap().verify(Accept::MODERN).unwrap();
    let other = CA.issue(client().public_key(), "CN=bob", 3, Vec::new());
    let own = issue(&super::world::request(&device()));
    let bag = write_bag(&[CA.certificate.raw(), other.raw(), own.raw()], &[]);
    let replier = Replier { signer: CA.signer() };
    let answer = replier.success(&request, &bag, ContentCipher::Aes256, &random(7)).unwrap();
    let Ok(Outcome::Issued { certificate, others }) = enrollment.answer(&answer) else {
        panic!("not issued")
    };
    assert_eq!((certificate, others), (own, vec![CA.certificate.clone(), other]));
}

#[test]
fn certificates_of_an_authority_are_told_apart() {
    let alone = CaCertificates::read(CA.certificate.raw()).unwrap();
    assert_eq!((alone.ca(), alone.recipient().unwrap()), (&CA.certificate, &CA.certificate));
    for order in [[&RA.certificate, &CA.certificate], [&CA.certificate, &RA.certificate]] {
        let bag = write_bag(&order.map(Certificate::raw), &[]);
        let both = CaCertificates::read(&bag).unwrap();
        assert_eq!((both.ca(), both.recipient().unwrap()), (&CA.certificate, &RA.certificate));
        assert_eq!(both.signers().count(), 2);
    }
    // NDES has one certificate for each purpose.
    let only =
        |usage, serial| CA.issue(client().public_key(), "CN=NDES", serial, vec![Extension::key_usage(usage)]);
    let signs = only(KeyUsage::DIGITAL_SIGNATURE, 1);
    let decrypts = only(KeyUsage::KEY_ENCIPHERMENT, 2);
    let ndes = CaCertificates::of(vec![signs.clone(), decrypts.clone(), CA.certificate.clone()]).unwrap();
    assert_eq!(ndes.recipient().unwrap(), &decrypts);
    assert_eq!(ndes.signers().collect::<Vec<_>>(), [&CA.certificate, &signs]);

    let foreign = IMPOSTOR.issue(client().public_key(), "CN=RA", 5, Vec::new());
    let no = |certificates| CaCertificates::of(certificates).unwrap_err();
    assert!(matches!(no(vec![CA.certificate.clone(), foreign]), ScepError::NoAuthority { .. }));
    assert!(matches!(no(vec![RA.certificate.clone()]), ScepError::NoAuthority { .. }));
    assert!(matches!(no(vec![]), ScepError::NoAuthority { .. }));
    for nonsense in [&b""[..], b"<html>", b"-----BEGIN CERTIFICATE-----"] {
        assert!(CaCertificates::read(nonsense).is_err());
    }
}

#[test]
fn the_next_authority_is_believed_when_the_current_one_signs_for_it() {
    let bag = write_bag(&[IMPOSTOR.certificate.raw()], &[]);
    let current = authority(true);
    let next = write_next_ca(&bag, CA.signer(), Digest::Sha256).unwrap();
    let read = CaCertificates::read_next(&next, &current, Accept::MODERN).unwrap();
    assert_eq!(read.ca(), &IMPOSTOR.certificate);
    let by_itself = write_next_ca(&bag, IMPOSTOR.signer(), Digest::Sha256).unwrap();
    assert!(CaCertificates::read_next(&by_itself, &current, Accept::MODERN).is_err());
    assert!(CaCertificates::read_next(&bag, &current, Accept::MODERN).is_err(), "signed by nobody");
}

#[test]
fn types_that_do_not_exist_are_refused_first() {
    // Everything about this message is good but its type.
    for (code, taken) in
        [("19", true), ("18", false), ("3", false), ("0", false), ("019", false), ("", false)]
    {
        let key = client();
        let certificate = transient(&key, "CN=alice");
        let attributes = [
            (oid::SCEP_MESSAGE_TYPE, der::printable(code)),
            (oid::SCEP_TRANSACTION_ID, der::printable("1")),
            (oid::SCEP_SENDER_NONCE, der::octets(&[7; 16])),
        ];
        let signer = cms::SignerKey { certificate: &certificate, key: &key };
        let message =
            cms::sign(signer, Digest::Sha256, oid::CMS_DATA, Some(b"whatever"), &attributes, &[]).unwrap();
        let read = Unverified::read(&message).map(|message| message.header().kind);
        if taken {
            assert_eq!(read, Ok(MessageType::PkcsReq));
        } else {
            assert_eq!(read, Err(ScepError::MessageType { found: code.to_owned() }));
        }
    }
}

#[test]
fn a_signer_with_an_elliptic_curve_is_told_that_it_cannot() {
    let key = device();
    let certificate = transient(&key, "CN=alice");
    let authority = authority(false);
    let transaction = TransactionId::new("1");
    let writer = RequestWriter {
        suite: suite("SCEPStandard"),
        recipient: authority.recipient().unwrap(),
        signer: cms::SignerKey { certificate: &certificate, key: &key },
        transaction: &transaction,
    };
    let message = writer.certificate(request(&key).raw(), false, &random(1)).unwrap();
    let refused = Unverified::read(&message).unwrap().verify(Accept::ANYTHING).unwrap_err();
    assert_eq!(refused.fail_info(), FailInfo::BadAlg, "{refused:?}");
}
