//! Failures on demand, in the words of the protocols.

use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::cms::ContentCipher;
use causeway_protocol::scep::{Answer, Caps, ScepError};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Device, Line, Server, admin, books, get, issued, post, random, refused, start};

fn custom(operation: &str, word: &str) -> Rule {
    let fault = Fault::Custom { word: word.to_owned(), args: Value::Null };
    Rule::new(fault).on_operation(operation)
}

#[tokio::test]
async fn a_server_that_forgets_aes() {
    let (mock, _) = start("rfc8894", |_| {}).await;
    let _rule = mock.faults().guard(custom("GetCACaps", "no_aes"));
    let caps = get(&format!("{}?operation=GetCACaps", mock.url("scep"))).await;
    let suite = Caps::parse(&caps.body).negotiate();
    assert_eq!(suite.cipher, ContentCipher::TripleDes);
}

/// A client with certificates of an RA that is no longer there: its message cannot be opened, and that is all it hears.
#[tokio::test]
async fn a_wrong_ra() {
    let (mock, _) = start("ndes", |_| {}).await;
    let right = Server::look(&mock).await;
    let rule = mock.faults().guard(custom("GetCACert", "wrong_ra"));
    let wrong = Server::look(&mock).await;
    drop(rule);
    assert_ne!(right.authority.recipient().unwrap(), wrong.authority.recipient().unwrap());
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(&right.challenge));
    let message = device.writer(wrong.suite, &wrong.authority).certificate(&csr, false, &random()).unwrap();
    let answer = post(&right.url, message).await;
    assert_eq!(refused(device.read(&right, &answer)), "badMessageCheck");
    assert!(books(&mock).await.is_empty());
}

#[tokio::test]
async fn answers_that_are_none() {
    let (mock, _) = start("ndes", |_| {}).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(&server.challenge));
    let message = device.writer(server.suite, &server.authority).certificate(&csr, false, &random()).unwrap();
    let send = async |fault: Fault| {
        let _rule = mock.faults().guard(Rule::new(fault).on_operation("PKIOperation"));
        let headers = [("content-type", "application/x-pki-message")];
        Line::to(&server.url).await.send(Method::POST, &server.url, &headers, message.clone()).await
    };
    let malformed = |kind: &str| Fault::Malformed { kind: kind.to_owned() };
    let page = send(malformed("html")).await.unwrap();
    assert!(page.status == StatusCode::OK && page.body.starts_with(b"<html>"));
    let empty = send(malformed("empty")).await.unwrap();
    assert!(empty.status == StatusCode::OK && empty.body.is_empty());
    let busy = send(Fault::status(503, "")).await.unwrap();
    assert!(busy.status == StatusCode::SERVICE_UNAVAILABLE && busy.body.is_empty());
    assert!(send(Fault::Close {}).await.is_none());
    assert!(books(&mock).await.is_empty(), "nothing was done so far");
    let half = send(malformed("half")).await.unwrap();
    assert!(matches!(causeway_protocol::scep::CertRep::read(&half.body), Err(ScepError::NotScep(_))));
    let lost = Fault::Custom { word: "lost_reply".to_owned(), args: Value::Null };
    assert!(send(lost).await.is_none());
    assert_eq!(books(&mock).await.len(), 1, "it was issued, and only once");
    issued(device.read(&server, &post(&server.url, message.clone()).await));
}

#[tokio::test]
async fn answers_of_somebody_else_and_certificates_for_somebody_else() {
    let (mock, _) = start("ndes", |_| {}).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(&server.challenge));
    let rule = mock.faults().guard(custom("PKIOperation", "another_reply"));
    let answer = device.enrol(&server, &csr).await;
    assert!(matches!(answer, Err(ScepError::AnotherSigner | ScepError::BadSignature)), "{answer:?}");
    drop(rule);
    let _rule = mock.faults().guard(custom("PKIOperation", "another_key"));
    let stranger = issued(device.enrol(&server, &csr).await);
    assert!(!stranger.public_key().same_as(device.key.public_key()));
}

#[tokio::test]
async fn challenges_that_fail_and_requests_that_wait() {
    let (mock, _) = start("ndes", |_| {}).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    let csr = device.csr(Some(&server.challenge));
    let rule = mock.faults().guard(custom("PKIOperation", "expired_challenge"));
    assert_eq!(refused(device.enrol(&server, &csr).await), "badRequest");
    drop(rule);
    let rule = mock.faults().guard(custom("PKIOperation", "pending"));
    assert!(matches!(device.enrol(&server, &csr).await, Ok(Answer::Pending)));
    drop(rule);
    assert!(matches!(device.enrol(&server, &csr).await, Ok(Answer::Pending)), "it still waits");
    admin(&mock, Method::POST, "/world/requests/1/approve", json!(null)).await;
    issued(device.enrol(&server, &csr).await);
    let handed = mock.world().challenges.hand_out(crate::client::START_MS).unwrap();
    let _rule = mock.faults().guard(custom("PKIOperation", "app_pool_restart"));
    let other = Device::new("phone-2", 1);
    assert_eq!(refused(other.enrol(&server, &other.csr(Some(handed.password.expose()))).await), "badRequest");
}

#[tokio::test]
async fn a_page_of_challenges_that_is_full_or_forbidden() {
    use base64::Engine as _;
    let (mock, _) =
        start("ndes", |config| config.ndes.encoding = causeway_mock_ca::ndes::Encoding::Utf8).await;
    let (user, password) = mock.service_account();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    for (word, text) in [("cache_full", "password cache is full"), ("no_permission", "sufficient permission")]
    {
        let _rule = mock.faults().guard(custom("challenge", word));
        let url = mock.url("ndes_admin");
        let headers = [("authorization", format!("Basic {basic}"))];
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let page = Line::to(url).await.send(Method::GET, url, &headers, "").await.unwrap();
        assert!(String::from_utf8_lossy(&page.body).contains(text), "{word}: {:?}", page.body);
    }
}
