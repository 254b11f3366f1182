//! The admin API over HTTP.

use causeway_mock_exchange::{Config, MockExchange};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixture::ALICE;

async fn start() -> MockExchange {
    let mut config = Config::default();
    config.common.users = 30;
    config.partnerships = Some(20);
    MockExchange::start(config).await.unwrap()
}

/// One HTTP/1.1 exchange.
async fn http(mock: &MockExchange, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let address = mock.address("admin");
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.expect("the admin port");
    stream.write_all(head.as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    let text = String::from_utf8(answer).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn phones_and_mailboxes_are_shown_and_no_password() {
    let mock = start().await;
    let (status, list) = http(&mock, "GET", "/world/devices?limit=5", None).await;
    assert_eq!((status, list["devices"].as_array().map(Vec::len)), (200, Some(5)), "{list}");
    let guid = list["devices"][0]["guid"].as_str().unwrap();
    assert_eq!(http(&mock, "GET", &format!("/world/devices/{guid}"), None).await.1["guid"], guid);
    assert_eq!(http(&mock, "GET", "/world/devices/nothing", None).await.0, 404);
    let (_, none) = http(&mock, "GET", "/world/devices?state=quarantined", None).await;
    assert_eq!(none["devices"], json!([]));
    let (_, mailbox) = http(&mock, "GET", "/world/mailboxes/asmith@acme.example", None).await;
    assert_eq!(mailbox["login"], ALICE);
    let (_, world) = http(&mock, "GET", "/world", None).await;
    assert_eq!((&world["personality"], &world["devices"]), (&json!("exchange2019"), &json!(20)));
    let password = mock.service_account().password;
    assert!(!format!("{world}{mailbox}{list}").contains(&password));
    let (_, document) = http(&mock, "GET", "/openapi.json", None).await;
    assert_eq!(causeway_mock_kit::admin::undescribed(&document), [""; 0]);
    for path in ["/world/devices", "/world/mailboxes/{user}", "/world/cmdlets", "/world/app/certificates"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

#[tokio::test]
async fn a_mailbox_is_changed_from_outside() {
    let mock = start().await;
    let change = json!({ "password": "New-Secret-1", "active_sync_enabled": false });
    let (status, mailbox) = http(&mock, "PUT", "/world/mailboxes/asmith", Some(change)).await;
    assert_eq!((status, &mailbox["active_sync_enabled"]), (200, &json!(false)));
    assert!(mock.world().sign_in(ALICE, "New-Secret-1").is_ok());
    http(&mock, "PUT", "/world/mailboxes/asmith", Some(json!({ "refuse": "disabled" }))).await;
    assert!(mock.world().sign_in(ALICE, "New-Secret-1").is_err());
    http(&mock, "PUT", "/world/mailboxes/asmith", Some(json!({ "refuse": "none" }))).await;
    assert!(mock.world().sign_in(ALICE, "New-Secret-1").is_ok());
    let (status, mail) =
        http(&mock, "POST", "/world/mailboxes/asmith/mail", Some(json!({ "subject": "Hi" }))).await;
    assert_eq!(status, 200, "{mail}");
    let id = mock.world().mailbox(ALICE).unwrap();
    assert_eq!(mock.world().messages(id, "5").last().unwrap().subject, "Hi");
}

#[tokio::test]
async fn a_cmdlet_runs_with_all_rights() {
    let mock = start().await;
    let run = |name: &str, parameters: Value| json!({ "name": name, "parameters": parameters });
    let set = run("Set-ActiveSyncOrganizationSettings", json!({ "DefaultAccessLevel": "Quarantine" }));
    let (status, outcome) = http(&mock, "POST", "/world/cmdlets", Some(set)).await;
    assert_eq!((status, &outcome["errors"]), (200, &json!([])), "{outcome}");
    let held = http(&mock, "GET", "/world/devices?state=quarantined", None).await.1;
    assert_eq!(held["devices"].as_array().map(Vec::len), Some(20));
    let (_, outcome) = http(&mock, "POST", "/world/cmdlets", Some(run("Get-Nothing", json!({})))).await;
    assert_eq!(outcome["errors"][0]["reason"], "CommandNotFoundException");
    assert_eq!(http(&mock, "POST", "/reset", None).await.0 / 100, 2);
    let held = http(&mock, "GET", "/world/devices?state=quarantined", None).await.1;
    assert_eq!(held["devices"], json!([]), "as it was at the start");
}

#[tokio::test]
async fn another_world_replaces_the_present_one() {
    let mock = start().await;
    let (status, _) =
        http(&mock, "PUT", "/world", Some(json!({ "personality": "exchange2010", "partnerships": 3 }))).await;
    assert_eq!(status / 100, 2);
    let (_, health) = http(&mock, "GET", "/health", None).await;
    assert_eq!((&health["personality"], &health["devices"]), (&json!("exchange2010"), &json!(3)), "{health}");
    for wrong in [
        json!({ "personality": "exchange5" }),
        json!({ "persona": 1 }),
        json!({ "users": 100_000_000 }),
        json!({ "domain": "acme..example" }),
        json!({ "domain_controllers": [] }),
        json!({ "domain_controllers": [{ "name": "dc1" }, { "name": "dc1" }] }),
        json!({ "servers": ["mail1", "mail1"] }),
        json!({ "partnerships": 250_001 }),
    ] {
        assert_eq!(http(&mock, "PUT", "/world", Some(wrong.clone())).await.0, 400, "{wrong}");
    }
    assert_eq!(http(&mock, "GET", "/world", None).await.1["personality"], "exchange2010", "all or nothing");
}

#[tokio::test]
async fn budgets_roles_and_certificates() {
    let mock = start().await;
    let (_, mut policy) = http(&mock, "GET", "/world/throttling", None).await;
    policy["max_concurrency"] = json!(1);
    assert_eq!(http(&mock, "PUT", "/world/throttling", Some(policy)).await.0, 200);
    assert_eq!(mock.world().throttling().max_concurrency, 1);
    let roles = json!({ "roles": ["View-Only Organization Management"] });
    assert_eq!(http(&mock, "PUT", "/world/accounts/svc-causeway/roles", Some(roles.clone())).await.0, 200);
    assert_eq!(http(&mock, "PUT", "/world/accounts/nobody/roles", Some(roles)).await.0, 404);
    let account = mock.world().admit("svc-causeway").unwrap();
    assert!(
        mock.world().grants(&account, "Get-MobileDevice", None)
            && !mock.world().grants(&account, "Clear-MobileDevice", None)
    );
    assert_eq!(http(&mock, "POST", "/world/app/certificates", Some(json!({ "pem": "x" }))).await.0, 400);
    assert_eq!(http(&mock, "PUT", "/world/controllers/dc9/lag", Some(json!({ "lag_ms": 1 }))).await.0, 404);
    assert_eq!(http(&mock, "PUT", "/world/controllers/dc1/lag", Some(json!({ "lag_ms": 1 }))).await.0, 200);
}
