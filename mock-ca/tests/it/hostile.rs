//! Input nobody should send.

use aws_lc_rs::rand::SecureRandom as _;
use causeway_protocol::Secret;
use causeway_protocol::cms::{self, ContentCipher, KeyTransport, Recipient, SealRandom, SignerKey};
use causeway_protocol::pkix::{CsrDraft, Digest, Name, der, oid};
use causeway_protocol::scep::{Answer, CertRep, ScepError};
use futures_util::StreamExt as _;
use http::StatusCode;

use crate::client::{Device, Response, Server, books, issued, post, random, refused, start};

/// A message whose every part can be wrong.
struct Forged<'a> {
    device: &'a Device,
    kind: &'a str,
    plain: &'a [u8],
    cipher: ContentCipher,
    digest: Digest,
}

impl Forged<'_> {
    fn envelope(&self, server: &Server) -> Vec<u8> {
        // Random: a cipher refuses keys whose parts are equal.
        let mut bytes = [0; 48];
        aws_lc_rs::rand::SystemRandom::new().fill(&mut bytes).unwrap();
        let to = Recipient::Certificate(server.authority.recipient().unwrap());
        cms::seal(self.plain, to, self.cipher, KeyTransport::Pkcs1, &SealRandom::new(bytes)).unwrap()
    }

    fn message(&self, envelope: &[u8]) -> Vec<u8> {
        let attributes = [
            (oid::SCEP_MESSAGE_TYPE, der::printable(self.kind)),
            (oid::SCEP_TRANSACTION_ID, der::printable(&self.device.name)),
            (oid::SCEP_SENDER_NONCE, der::octets(&[5; 16])),
        ];
        let signer = SignerKey { certificate: &self.device.certificate, key: &self.device.key };
        cms::sign(signer, self.digest, oid::CMS_DATA, Some(envelope), &attributes, &[]).unwrap()
    }

    async fn send(&self, server: &Server) -> Response {
        post(&server.url, self.message(&self.envelope(server))).await
    }
}

fn plain<'a>(device: &'a Device, csr: &'a [u8]) -> Forged<'a> {
    Forged { device, kind: "19", plain: csr, cipher: ContentCipher::Aes128, digest: Digest::Sha256 }
}

#[tokio::test]
async fn message_types_that_do_not_exist_reach_nobody() {
    let (mock, _) = start("rfc8894", |_| {}).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(&server.challenge));
    for kind in ["18", "3", "0", "23", "019", "19 ", ""] {
        let answer = Forged { kind, ..plain(&device, &csr) }.send(&server).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "type {kind:?}");
    }
    assert!(books(&mock).await.is_empty());
}

/// Whatever is wrong inside the envelope, the answer is the same: badMessageCheck, of one length, nothing else in it.
#[tokio::test]
async fn padding_tells_nothing() {
    let (mock, _) = start("ndes", |_| {}).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(&server.challenge));
    let forged = Forged { cipher: ContentCipher::TripleDes, ..plain(&device, &csr) };
    let good = forged.envelope(&server);
    // The encrypted content key: 256 bytes after its header.
    let key_at = good.windows(4).position(|window| window == [0x04, 0x82, 0x01, 0x00]).unwrap() + 4;
    let spoilt = |at: usize, with: u8| {
        let mut envelope = good.clone();
        envelope[at] ^= with;
        envelope
    };
    // Every byte of the key's block in three ways, blocks of one value, and every byte of the end of the content.
    let mut bad: Vec<Vec<u8>> =
        (0..256).flat_map(|at| [0x01, 0x80, 0xff].map(|with| spoilt(key_at + at, with))).collect();
    bad.extend((0..=255).step_by(8).map(|byte| {
        let mut envelope = good.clone();
        envelope[key_at..key_at + 256].fill(byte);
        envelope
    }));
    bad.extend((1..=200).map(|from_end| spoilt(good.len() - from_end, 0x10)));
    assert_eq!(bad.len(), 1_000);
    let (forged, server_url) = (&forged, server.url.as_str());
    let answers = futures_util::stream::iter(&bad)
        .map(|envelope| async move { post(server_url, forged.message(envelope)).await })
        .buffer_unordered(8);
    let lengths: Vec<usize> = answers
        .map(|answer| {
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(refused(device.read(&server, &answer)), "badMessageCheck");
            answer.body.len()
        })
        .collect()
        .await;
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
    let nonsense = Forged { plain: b"no request at all", ..plain(&device, &csr) }.send(&server).await;
    assert_eq!(nonsense.body.len(), lengths[0], "as for contents that make no sense");
    assert!(books(&mock).await.is_empty());
}

#[tokio::test]
async fn old_algorithms_need_the_old_words() {
    // 3DES is read where it is announced, or with the legacy switch.
    for (words, legacy, taken) in
        [(vec!["DES3"], false, true), (vec!["AES"], false, false), (vec!["AES"], true, true)]
    {
        let (mock, _) = start("rfc8894", |config| {
            config.scep.capabilities = Some(words.iter().map(|word| (*word).to_owned()).collect());
            config.scep.legacy = Some(legacy);
        })
        .await;
        let server = Server::look(&mock).await;
        let device = Device::new("phone-1", 0);
        let csr = device.csr(Some(&server.challenge));
        let answer = Forged { cipher: ContentCipher::TripleDes, ..plain(&device, &csr) }.send(&server).await;
        let reply = CertRep::read(&answer.body).unwrap();
        let accept = causeway_protocol::pkix::Accept::ANYTHING;
        let answer = reply.open(&server.authority, &device.key, &device.certificate, accept);
        match answer {
            Ok(Answer::Success(_)) => assert!(taken, "{words:?} legacy {legacy}"),
            other => {
                assert!(!taken, "{words:?} legacy {legacy}: {other:?}");
                assert_eq!(refused(other), "badAlg");
            }
        }
    }
}

/// Requests recorded from clients in the field: DES and SHA-1, which only the legacy switch lets through. Their keys are
/// not at hand, so what can be seen is how far they get: with the switch to the envelope (it is for another authority),
/// without it not beyond their algorithms.
#[tokio::test]
async fn recorded_requests_of_old_clients() {
    let des = include_bytes!("corpus/scepclient-2.1.0-pkcsreq-des.der");
    for (personality, fail) in [("rfc8894", "badAlg"), ("legacy", "badMessageCheck")] {
        let (mock, _) = start(personality, |config| {
            if personality == "rfc8894" {
                config.scep.capabilities = Some(vec!["AES".to_owned(), "SHA-256".to_owned()]);
            }
        })
        .await;
        let answer = post(&format!("{}?operation=PKIOperation", mock.url("scep")), des.as_slice()).await;
        let entries = mock.journal().after(0);
        let last = entries.last().unwrap();
        assert_eq!(
            (answer.status, last.outcome.as_str()),
            (StatusCode::OK, format!("FAILURE {fail}").as_str()),
            "{last}"
        );
    }
}

#[tokio::test]
async fn requests_nobody_gets_a_certificate_for() {
    let (mock, _) = start("rfc8894", |config| {
        config.authority.templates[0].denied_names = vec!["administrator@*".to_owned()];
    })
    .await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let good = device.csr(Some(&server.challenge));
    let mut forged = good.clone();
    let at = forged.windows(7).position(|window| window == b"phone-1").unwrap();
    forged[at] = b'P';
    let mut nul = good.clone();
    nul[at + 5] = 0;
    let privileged = device.csr_with(Some(&server.challenge), &["upn:Administrator@acme.example"]);
    let short = {
        let draft = CsrDraft {
            subject: Name::parse("CN=phone-1").unwrap(),
            challenge: Some(Secret::new("wrong")),
            ..CsrDraft::default()
        };
        draft.sign(&device.key, Digest::Sha256).unwrap()
    };
    for (what, csr, fail) in [
        ("a signature that does not verify", &forged, "badMessageCheck"),
        ("a NUL in the name", &nul, "badRequest"),
        ("a privileged name", &privileged, "badRequest"),
        ("a wrong challenge", &short, "badRequest"),
    ] {
        let answer = plain(&device, csr).send(&server).await;
        assert_eq!(refused(device.read(&server, &answer)), fail, "{what}");
    }
    assert!(books(&mock).await.is_empty());
}

#[tokio::test]
async fn a_megabyte_is_too_much() {
    let (mock, _) = start("rfc8894", |_| {}).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let large = causeway_protocol::pkix::Extension::new(
        causeway_protocol::pkix::Oid::new(&[1, 3, 6, 1, 4, 1, 99_999, 1]),
        der::octets(&vec![0x41; 1_000_000]),
    );
    let draft = CsrDraft {
        subject: Name::parse("CN=phone-1").unwrap(),
        challenge: Some(Secret::new(server.challenge.clone())),
        extensions: vec![large],
        ..CsrDraft::default()
    };
    let csr = draft.sign(&device.key, Digest::Sha256).unwrap();
    let answer = plain(&device, &csr).send(&server).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let draft = CsrDraft {
        extensions: vec![causeway_protocol::pkix::Extension::new(
            causeway_protocol::pkix::Oid::new(&[1, 3, 6, 1, 4, 1, 99_999, 1]),
            der::octets(&vec![0x41; 100_000]),
        )],
        ..draft
    };
    let csr = draft.sign(&device.key, Digest::Sha256).unwrap();
    let answer = plain(&device, &csr).send(&server).await;
    assert_eq!(refused(device.read(&server, &answer)), "badRequest", "a tenth of it is still too much");
    assert!(books(&mock).await.is_empty());
}

/// Somebody who recorded a message sends it again: the certificate is the old one, and only its owner can open the answer.
#[tokio::test]
async fn a_replayed_message_yields_nothing_new() {
    let (mock, _) = start("ndes", |_| {}).await;
    let server = Server::look(&mock).await;
    let challenge = mock.world().challenges.hand_out(crate::client::START_MS).unwrap();
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(challenge.password.expose()));
    let message = device.writer(server.suite, &server.authority).certificate(&csr, false, &random()).unwrap();
    let first = issued(device.read(&server, &post(&server.url, message.clone()).await));
    let replayed = post(&server.url, message).await;
    let thief = Device::new("thief", 1);
    let reply = CertRep::read(&replayed.body).unwrap();
    let opened = reply.open(&server.authority, &thief.key, &thief.certificate, server.suite.accept);
    assert!(matches!(opened, Err(ScepError::Unreadable)), "{opened:?}");
    assert_eq!(issued(device.read(&server, &replayed)).serial(), first.serial());
    assert_eq!(books(&mock).await.len(), 1);
}

/// A challenge made for one name is worth nothing for another, and is not used up by the attempt.
#[tokio::test]
async fn the_challenge_of_another_device() {
    let (mock, _) = start("ndes", |_| {}).await;
    let server = Server::look(&mock).await;
    let made =
        mock.world().challenges.make(crate::client::START_MS, 5, Some("phone-1".to_owned()), false).unwrap();
    let thief = Device::new("phone-2", 1);
    assert_eq!(refused(thief.enrol(&server, &thief.csr(Some(made.password.expose()))).await), "badRequest");
    let owner = Device::new("phone-1", 0);
    issued(owner.enrol(&server, &owner.csr(Some(made.password.expose()))).await);
}

#[tokio::test]
async fn bytes_that_are_no_message() {
    let (mock, _) = start("rfc8894", |_| {}).await;
    let server = Server::look(&mock).await;
    let deep: Vec<u8> = (0..20_000).flat_map(|_| [0x30, 0x80]).collect();
    let bodies: [&[u8]; 6] =
        [b"", b"<html></html>", &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0; 1_000], &deep];
    for body in bodies {
        let answer = post(&server.url, body.to_vec()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{:?}", &body[..body.len().min(8)]);
    }
    let long = format!("{}&message={}", server.url, "A".repeat(20_000));
    assert_eq!(crate::client::get(&long).await.status, StatusCode::URI_TOO_LONG);
}

/// Passwords and challenges are in no journal, no list and no description of the world.
#[tokio::test]
async fn no_secret_is_written_down() {
    use base64::Engine as _;
    let (mock, _) = start("ndes", |config| config.challenge.fixed = Some("CANARY-FIXED".to_owned())).await;
    let server = Server::look(&mock).await;
    let (user, password) = mock.service_account();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let url = mock.url("ndes_admin");
    let headers = [("authorization", format!("Basic {basic}"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let page = crate::client::Line::to(url).await.send(http::Method::GET, url, &headers, "").await.unwrap();
    let shown: String = page.body.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    let (_, rest) = shown.split_once("password is: <B> ").unwrap();
    let one_time = rest[..16].to_owned();
    let device = Device::new("phone-1", 0);
    issued(device.enrol(&server, &device.csr(Some("CANARY-FIXED"))).await);
    let other = Device::new("phone-2", 1);
    refused(other.enrol(&server, &other.csr(Some("CANARY-WRONG"))).await);
    let mut written = format!("{:?} {:?}", mock.journal().after(0), mock.world().config);
    for path in [
        "/journal",
        "/world",
        "/world/requests",
        "/world/certificates",
        "/world/challenges",
        "/faults",
        "/health",
    ] {
        let seen = crate::client::admin(&mock, http::Method::GET, path, serde_json::Value::Null).await;
        written.push_str(&seen.to_string());
    }
    assert!(written.contains("PKCSReq") && written.contains("phone-1"), "{written}");
    for secret in ["CANARY-FIXED", "CANARY-WRONG", &one_time, &password, &basic] {
        assert!(!written.contains(secret), "{secret} in {written}");
    }
}
