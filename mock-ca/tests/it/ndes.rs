//! NDES's page of challenges.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_mock_ca::ndes::Encoding;
use http::{Method, StatusCode};
use serde_json::json;

use crate::client::{Device, Line, Response, Server, admin, issued, refused, start};

async fn page(mock: &causeway_mock_ca::MockCa, user: &str, password: &str) -> Response {
    let basic = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let url = mock.url("ndes_admin");
    Line::to(url)
        .await
        .send(Method::GET, url, &[("authorization", &basic)], Bytes::new())
        .await
        .expect("an answer")
}

async fn own_page(mock: &causeway_mock_ca::MockCa) -> String {
    let (user, password) = mock.service_account();
    let answer = page(mock, &user, &password).await;
    assert_eq!((answer.status, answer.content_type()), (StatusCode::OK, "text/html"));
    text(&answer.body)
}

/// UTF-16, little-endian.
fn text(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|letter| letter.expect("UTF-16")).collect()
}

fn challenge(page: &str) -> &str {
    let (_, rest) =
        page.split_once("The enrollment challenge password is: <B> ").unwrap_or_else(|| panic!("{page}"));
    rest.split_once(" </B>").unwrap().0
}

#[tokio::test]
async fn five_challenges_then_none_until_one_is_used_or_expires() {
    let (mock, clock) = start("ndes", |_| {}).await;
    let first = own_page(&mock).await;
    assert!(first.contains("will expire within 60 minutes"), "{first}");
    let first = challenge(&first).to_owned();
    assert!(first.len() == 16 && first.bytes().all(|digit| digit.is_ascii_hexdigit()), "{first}");
    for _ in 0..4 {
        own_page(&mock).await;
    }
    assert!(own_page(&mock).await.contains("The password cache is full."));
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    issued(device.enrol(&server, &device.csr(Some(&first))).await);
    let thief = Device::new("phone-2", 1);
    assert_eq!(refused(thief.enrol(&server, &thief.csr(Some(&first))).await), "badRequest");
    let late = challenge(&own_page(&mock).await).to_owned();
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(refused(thief.enrol(&server, &thief.csr(Some(&late))).await), "badRequest");
    own_page(&mock).await;
}

#[tokio::test]
async fn a_restart_of_its_pool_forgets_challenges() {
    let (mock, _) = start("ndes", |_| {}).await;
    let lost = challenge(&own_page(&mock).await).to_owned();
    admin(&mock, Method::PUT, "/world/challenges", json!("restart")).await;
    let server = Server::look(&mock).await;
    let device = Device::new("phone-1", 0);
    assert_eq!(refused(device.enrol(&server, &device.csr(Some(&lost))).await), "badRequest");
}

#[tokio::test]
async fn a_single_password_is_good_again_and_again() {
    let (mock, _) = start("ndes", |config| config.challenge.single = true).await;
    let one = own_page(&mock).await;
    assert!(one.contains("multiple times"), "{one}");
    assert_eq!(challenge(&one), challenge(&own_page(&mock).await));
    let server = Server::look(&mock).await;
    for (name, key) in [("phone-1", 0), ("phone-2", 1)] {
        let device = Device::new(name, key);
        issued(device.enrol(&server, &device.csr(Some(challenge(&one)))).await);
    }
}

#[tokio::test]
async fn only_accounts_that_may_enrol_get_one() {
    let (mock, _) = start("ndes", |_| {}).await;
    let company = mock.world().company.clone();
    let person = company.people.iter().find(|person| person.is_active()).unwrap();
    let shown = page(&mock, &person.login, &person.password()).await;
    assert!(text(&shown.body).contains("sufficient permission to enroll with SCEP"));
    let url = mock.url("ndes_admin");
    let nobody = crate::client::get(url).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    let offers: Vec<&str> =
        nobody.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(offers, ["Negotiate", "NTLM", "Basic realm=\"pki1.acme.example\""]);
    for (user, password) in [(&*person.login, "wrong"), (&*person.login, ""), ("nobody", "x")] {
        assert_eq!(page(&mock, user, password).await.status, StatusCode::UNAUTHORIZED, "{user}");
    }
    assert_eq!(mock.world().challenges.list(crate::client::START_MS).len(), 0);
}

#[tokio::test]
async fn the_page_in_other_encodings_and_languages() {
    let languages = ["de", "fr", "es", "it", "pt", "nl", "ja", "pl", "zh"];
    for (at, language) in languages.into_iter().enumerate() {
        let (mock, _) = start("ndes", |config| {
            config.ndes.language = language.to_owned();
            config.ndes.encoding = [Encoding::Utf8, Encoding::Utf16, Encoding::Utf16Bom][at % 3];
        })
        .await;
        let (user, password) = mock.service_account();
        let body = page(&mock, &user, &password).await.body;
        let shown = match at % 3 {
            0 => String::from_utf8(body.to_vec()).unwrap(),
            1 => text(&body),
            _ => text(body.strip_prefix(&[0xff, 0xfe]).expect("a byte order mark")),
        };
        assert!(!shown.contains("enrollment challenge password"), "{language}: {shown}");
        let bold: Vec<&str> =
            shown.split("<B> ").skip(1).map(|rest| rest.split(" </B>").next().unwrap()).collect();
        assert_eq!(bold.len(), 2, "{language}: thumbprint and challenge in {shown}");
        assert!(bold[1].len() == 16 && bold[1].bytes().all(|digit| digit.is_ascii_hexdigit()), "{language}");
    }
    let mut config = causeway_mock_ca::Config::default();
    config.ndes.language = "tlh".to_owned();
    let error = causeway_mock_ca::MockCa::start(config).await.err().expect("no such language").to_string();
    assert!(error.contains("tlh") && error.contains("pl"), "{error}");
}
