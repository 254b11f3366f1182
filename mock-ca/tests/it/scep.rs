//! SCEP in its ordinary life.

use std::time::Duration;

use causeway_mock_ca::core::{RaMode, Reason, Tiers};
use causeway_protocol::certificate::KeyKind;
use causeway_protocol::cms::ContentCipher;
use causeway_protocol::pkix::{Accept, Certificate};
use causeway_protocol::scep::{Answer, CaCertificates, Caps, encode_get};
use http::{Method, StatusCode};
use serde_json::json;

use crate::client::{Device, Server, admin, books, get, issued, random, refused, start};

#[tokio::test]
async fn every_personality_issues() {
    for (personality, certificates, cipher) in [
        ("ndes", 4, ContentCipher::TripleDes),
        ("rfc8894", 1, ContentCipher::Aes128),
        ("legacy", 1, ContentCipher::TripleDes),
    ] {
        let (mock, _) = start(personality, |_| {}).await;
        let server = Server::look(&mock).await;
        assert_eq!(server.authority.all().count(), certificates, "{personality}");
        assert_eq!(server.suite.cipher, cipher, "{personality}");
        let device = Device::new("phone-1", 0);
        let csr = device
            .csr_with(Some(&server.challenge), &["upn:asmith@acme.example", "dns:phone-1.acme.example"]);
        let certificate = issued(device.enrol(&server, &csr).await);
        assert_eq!(certificate.subject().to_string(), "CN=phone-1");
        assert!(certificate.public_key().same_as(device.key.public_key()));
        assert!(certificate.issued_by(server.authority.ca(), Accept::MODERN));
        let names = certificate.extensions().alternative_names().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["upn:asmith@acme.example", "dns:phone-1.acme.example"]);
        assert_eq!(books(&mock).await["CN=phone-1"].certificate, certificate.raw());
    }
}

/// Every way the authority and its RA can be set up, with a key on a curve for one.
#[tokio::test]
async fn every_hierarchy_issues() {
    for (tiers, ra, key, count) in [
        (Tiers::One, RaMode::None, KeyKind::Rsa2048, 1),
        (Tiers::Two, RaMode::None, KeyKind::Rsa2048, 2),
        (Tiers::One, RaMode::Single, KeyKind::Rsa2048, 2),
        (Tiers::Two, RaMode::Pair, KeyKind::P256, 4),
    ] {
        let (mock, _) = start("rfc8894", |config| {
            config.authority.tiers = Some(tiers);
            config.authority.ra = Some(ra);
            config.authority.key = key;
        })
        .await;
        let server = Server::look(&mock).await;
        assert_eq!(server.authority.all().count(), count, "{tiers:?} {ra:?}");
        let device = Device::new("phone-1", 0);
        let certificate = issued(device.enrol(&server, &device.csr(Some(&server.challenge))).await);
        assert!(certificate.issued_by(server.authority.ca(), Accept::MODERN), "{tiers:?} {ra:?} {key:?}");
    }
}

#[tokio::test]
async fn any_of_its_paths_and_both_methods() {
    let (mock, _) = start("rfc8894", |config| config.scep.capabilities_crlf = true).await;
    let base = mock.url("scep").replace("/certsrv/mscep/mscep.dll", "");
    for path in [
        "/certsrv/mscep/mscep.dll",
        "/CertSrv/mscep/mscep.dll/pkiclient.exe",
        "/cgi-bin/pkiclient.exe",
        "/scep",
        "/scep/",
    ] {
        let caps = get(&format!("{base}{path}?operation=GetCACaps&message=0")).await;
        assert_eq!(caps.status, StatusCode::OK, "{path}");
        assert!(Caps::parse(&caps.body).aes && caps.body.windows(2).any(|end| end == b"\r\n"), "{path}");
    }
    assert_eq!(get(&format!("{base}/other?operation=GetCACaps")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&format!("{base}/scep?operation=Nothing")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(get(&format!("{base}/scep")).await.status, StatusCode::BAD_REQUEST);
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(&server.challenge));
    let message = device.writer(server.suite, &server.authority).certificate(&csr, false, &random()).unwrap();
    // As strongSwan sends it: base64 in lines of 64, the breaks percent-encoded.
    let lines: Vec<String> = base64_lines(&message);
    let wrapped = lines.join("%0A").replace('+', "%2B").replace('=', "%3D");
    let bare = encode_get(&message);
    assert!(bare.len() > 2_048, "longer than an untuned IIS takes: {}", bare.len());
    for text in [wrapped, bare] {
        let answer = get(&format!("{}&message={text}", server.url)).await;
        issued(device.read(&server, &answer));
    }
    assert_eq!(books(&mock).await.len(), 1);
}

fn base64_lines(bytes: &[u8]) -> Vec<String> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    text.as_bytes().chunks(64).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
}

/// A client that did not hear the answer asks again with the same request in a new message.
#[tokio::test]
async fn a_request_sent_again_gets_the_same_certificate() {
    let (mock, _) = start("ndes", |_| {}).await;
    let server = Server::look(&mock).await;
    let challenge = mock.world().challenges.hand_out(crate::client::START_MS).unwrap();
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(challenge.password.expose()));
    let first = issued(device.enrol(&server, &csr).await);
    let again = issued(device.enrol(&server, &csr).await);
    let polled = issued(device.poll(&server).await);
    assert_eq!((first.serial(), first.serial()), (again.serial(), polled.serial()));
    assert_eq!(books(&mock).await.len(), 1);
    let other = Device { transaction: device.transaction.clone(), ..Device::new("phone-1", 1) };
    assert_eq!(refused(other.poll(&server).await), "badCertId", "another key asks for it");
    let csr = other.csr(Some(&server.challenge));
    assert_eq!(refused(other.enrol(&server, &csr).await), "badRequest", "another key takes the transaction");
    assert_eq!(
        issued(device.enrol(&server, &csr_again(&device, &csr, challenge.password.expose())).await).serial(),
        first.serial()
    );
}

fn csr_again(device: &Device, _other: &[u8], challenge: &str) -> Vec<u8> {
    // RSA signatures of PKCS#1 v1.5 are the same every time, and so is the request.
    device.csr(Some(challenge))
}

#[tokio::test]
async fn approval_over_the_admin_api() {
    let (mock, _) =
        start("ndes", |config| config.authority.default_template = "ApprovedDevice".to_owned()).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let answer = device.enrol(&server, &device.csr(Some(&server.challenge))).await;
    assert!(matches!(answer, Ok(Answer::Pending)), "{answer:?}");
    assert!(matches!(device.poll(&server).await, Ok(Answer::Pending)));
    let waiting = admin(&mock, Method::GET, "/world/requests?state=pending", json!(null)).await;
    let id = &waiting["requests"][0]["id"];
    admin(&mock, Method::POST, &format!("/world/requests/{id}/approve"), json!(null)).await;
    issued(device.poll(&server).await);
    let second = Device::new("phone-2", 1);
    assert!(matches!(second.enrol(&server, &second.csr(Some(&server.challenge))).await, Ok(Answer::Pending)));
    admin(&mock, Method::POST, "/world/requests/2/deny", json!(null)).await;
    assert_eq!(refused(second.poll(&server).await), "badRequest");
    let nobody = Device::new("phone-3", 1);
    assert_eq!(refused(nobody.poll(&server).await), "badCertId");
}

#[tokio::test]
async fn a_certificate_renews_itself_within_its_window() {
    let (mock, clock) = start("ndes", |config| config.authority.templates[0].renewal_days = 30).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let first = issued(device.enrol(&server, &device.csr(Some(&server.challenge))).await);
    let renewing = |serial: &str| Device {
        certificate: first.clone(),
        transaction: causeway_protocol::scep::TransactionId::new(serial),
        ..Device::new("phone-1", 0)
    };
    assert_eq!(refused(renew(&renewing("early"), &server).await), "badRequest");
    clock.advance(Duration::from_hours(24 * 710));
    let second = issued(renew(&renewing("in time"), &server).await);
    assert!(second.not_after_ms() > first.not_after_ms());
    mock.authority().await.revoke(&books(&mock).await["CN=phone-1"].serial, Reason::KeyCompromise).unwrap();
    let stolen = Device { certificate: second.clone(), ..renewing("stolen") };
    assert_eq!(refused(renew(&stolen, &server).await), "badRequest");
    let foreign = Device::new("phone-1", 0);
    assert_eq!(refused(renew(&foreign, &server).await), "badRequest", "it was not issued here");
}

async fn renew(device: &Device, server: &Server) -> Result<Answer, causeway_protocol::scep::ScepError> {
    let message = device
        .writer(server.suite, &server.authority)
        .certificate(&device.csr(None), true, &random())
        .unwrap();
    device.read(server, &crate::client::post(&server.url, message).await)
}

#[tokio::test]
async fn certificates_and_lists_are_found_by_their_number() {
    let (mock, _) = start("rfc8894", |_| {}).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let own = issued(device.enrol(&server, &device.csr(Some(&server.challenge))).await);
    let writer = device.writer(server.suite, &server.authority);
    let ask = writer.issued(own.issuer_raw(), own.serial_raw(), &random()).unwrap();
    let found = device.read(&server, &crate::client::post(&server.url, ask).await);
    assert_eq!(issued(found).raw(), own.raw());
    let ask = writer.issued(own.issuer_raw(), &[1, 2, 3], &random()).unwrap();
    assert_eq!(refused(device.read(&server, &crate::client::post(&server.url, ask).await)), "badCertId");
    let ask = writer.crl(own.issuer_raw(), own.serial_raw(), &random()).unwrap();
    match device.read(&server, &crate::client::post(&server.url, ask).await) {
        Ok(Answer::Success(bag)) => assert_eq!((bag.crls.len(), bag.certificates.len()), (1, 0)),
        other => panic!("no list: {other:?}"),
    }
}

#[tokio::test]
async fn the_next_authority_is_announced_and_takes_over() {
    let (mock, clock) = start("rfc8894", |_| {}).await;
    let server = Server::look(&mock).await;
    let next = format!("{}?operation=GetNextCACert", mock.url("scep"));
    assert_eq!(get(&next).await.status, StatusCode::NOT_FOUND);
    admin(&mock, Method::POST, "/world/rollover", json!({ "in_ms": 86_400_000 })).await;
    let announced = get(&next).await;
    assert_eq!(announced.content_type(), "application/x-x509-next-ca-cert");
    let announced = CaCertificates::read_next(&announced.body, &server.authority, Accept::MODERN).unwrap();
    assert_eq!(Server::look(&mock).await.authority.ca(), server.authority.ca(), "not yet");
    clock.advance(Duration::from_hours(24));
    let after = Server::look(&mock).await;
    assert_eq!(after.authority.ca(), announced.ca());
    // A client that looked before the rollover: its message is still read, the answer comes from the new authority.
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(&server.challenge));
    let message = device.writer(server.suite, &server.authority).certificate(&csr, false, &random()).unwrap();
    let certificate = issued(device.read(&after, &crate::client::post(&server.url, message).await));
    assert!(Certificate::issued_by(&certificate, after.authority.ca(), Accept::MODERN));
}

#[tokio::test]
async fn an_expired_ra_is_a_page_without_a_reason() {
    let (mock, clock) = start("ndes", |_| {}).await;
    let caps = format!("{}?operation=GetCACaps", mock.url("scep"));
    assert_eq!(get(&caps).await.status, StatusCode::OK);
    admin(&mock, Method::PUT, "/world/ra", json!("expire")).await;
    let broken = get(&caps).await;
    assert_eq!((broken.status, broken.content_type()), (StatusCode::INTERNAL_SERVER_ERROR, "text/html"));
    admin(&mock, Method::PUT, "/world/ra", json!("renew")).await;
    assert_eq!(get(&caps).await.status, StatusCode::OK);
    clock.advance(Duration::from_hours(24 * 731));
    assert_eq!(get(&caps).await.status, StatusCode::INTERNAL_SERVER_ERROR, "two years later by itself");
}
