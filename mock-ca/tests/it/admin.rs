//! The admin API, and what the authority publishes.

use causeway_mock_kit::admin::undescribed;
use http::{Method, StatusCode};
use serde_json::json;

use crate::client::{Device, Line, Server, admin, get, issued, start};

#[tokio::test]
async fn certificates_are_listed_revoked_and_resumed() {
    let (mock, _) = start("ndes", |_| {}).await;
    let server = Server::look(&mock).await;
    for (name, key) in [("phone-1", 0), ("phone-2", 1)] {
        let device = Device::new(name, key);
        issued(device.enrol(&server, &device.csr_with(Some(&server.challenge), &["dns:a.example"])).await);
    }
    let all = admin(&mock, Method::GET, "/world/certificates", json!(null)).await;
    assert_eq!((all["issued"].as_u64(), all["certificates"].as_array().unwrap().len()), (Some(2), 2));
    let one = admin(&mock, Method::GET, "/world/certificates?name=phone-1", json!(null)).await;
    let one = &one["certificates"][0];
    assert_eq!(
        (&one["subject"], &one["alternative_names"]),
        (&json!("CN=phone-1"), &json!(["dns:a.example"]))
    );
    let path = format!("/world/certificates/{}", one["serial"].as_str().unwrap());
    let held =
        admin(&mock, Method::POST, &format!("{path}/revoke"), json!({ "reason": "certificate_hold" })).await;
    assert_eq!(held["revocation"]["reason"], "certificate_hold");
    let free = admin(&mock, Method::POST, &format!("{path}/resume"), json!(null)).await;
    assert_eq!(free["revocation"], json!(null));
    admin(&mock, Method::POST, &format!("{path}/revoke"), json!({})).await;
    let url = format!("{}{path}/revoke", mock.url("admin"));
    let headers = [("content-type", "application/json")];
    let again = Line::to(&url).await.send(Method::POST, &url, &headers, "{}").await.unwrap();
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert_eq!(
        get(&format!("{}/world/certificates/00ff", mock.url("admin"))).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn challenges_are_made_and_not_shown() {
    let (mock, _) = start("ndes", |_| {}).await;
    let server = Server::look(&mock).await;
    let made =
        admin(&mock, Method::POST, "/world/challenges", json!({ "name": "phone-1", "minutes": 5 })).await;
    let challenge = made["challenge"].as_str().unwrap().to_owned();
    let list = admin(&mock, Method::GET, "/world/challenges", json!(null)).await;
    assert_eq!(list[0]["name"], "phone-1");
    assert!(!list.to_string().contains(&challenge));
    let device = Device::new("phone-1", 0);
    issued(device.enrol(&server, &device.csr(Some(&challenge))).await);
    assert_eq!(admin(&mock, Method::GET, "/world/challenges", json!(null)).await, json!([]));
}

#[tokio::test]
async fn the_world_is_described_changed_and_reset() {
    let (mock, _) = start("ndes", |_| {}).await;
    let world = admin(&mock, Method::GET, "/world", json!(null)).await;
    assert_eq!((&world["personality"], &world["strict_sid"]), (&json!("ndes"), &json!(false)));
    let server = Server::look(&mock).await;
    admin(&mock, Method::PUT, "/world", json!({ "strict_sid": true, "seed": 5 })).await;
    let world = admin(&mock, Method::GET, "/world", json!(null)).await;
    assert_eq!((&world["strict_sid"], &world["seed"]), (&json!(true), &json!(5)));
    assert_ne!(
        Server::look(&mock).await.authority.ca(),
        server.authority.ca(),
        "another seed, another authority"
    );
    let url = format!("{}/world", mock.url("admin"));
    let headers = [("content-type", "application/json")];
    let wrong = Line::to(&url).await.send(Method::PUT, &url, &headers, r#"{"strict":true}"#).await.unwrap();
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    for wrong in [r#"{"users":100000000}"#, r#"{"domain":"x y,z="}"#] {
        let answer = Line::to(&url).await.send(Method::PUT, &url, &headers, wrong).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let request = get(&format!("{}/world/requests/zz", mock.url("admin"))).await;
    assert_eq!(
        (request.status, request.content_type()),
        (StatusCode::BAD_REQUEST, "application/problem+json")
    );
    admin(&mock, Method::POST, "/reset", json!(null)).await;
    let document = get(&format!("{}/openapi.json", mock.url("admin"))).await.json();
    assert_eq!(undescribed(&document), [""; 0]);
    for path in [
        "/world/certificates/{serial}/revoke",
        "/world/requests/{id}/approve",
        "/world/rollover",
        "/world/ra",
    ] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

#[tokio::test]
async fn lists_and_issuers_are_published() {
    let (mock, _) = start("ndes", |_| {}).await;
    let crl = get(mock.url("crl")).await;
    assert_eq!((crl.status, crl.content_type()), (StatusCode::OK, "application/pkix-crl"));
    let issuer = get(&format!("{}/0.cer", mock.url("crl"))).await;
    let own = mock.authority().await.hierarchy().current().authority.certificate.raw().to_vec();
    assert_eq!(issuer.body, own);
    let root = get(&format!("{}/root.cer", mock.url("crl"))).await;
    assert_eq!(root.body, mock.authority().await.hierarchy().root.certificate.raw());
    let list = get(&format!("{}/root.crl", mock.url("crl"))).await;
    assert_eq!((list.status, list.content_type()), (StatusCode::OK, "application/pkix-crl"));
    for missing in ["1.crl", "x.crl", "0.pem", "0"] {
        assert_eq!(
            get(&format!("{}/{missing}", mock.url("crl"))).await.status,
            StatusCode::NOT_FOUND,
            "{missing}"
        );
    }
}
