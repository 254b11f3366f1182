//! The admin API over HTTP: world, policies, faults, journal, and its document.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::Search;
use crate::world::{BASE, World};

/// One HTTP/1.1 exchange.
async fn http(world: &World, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let address = world.mock.address("admin");
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
async fn the_world_tells_its_people_but_no_password() {
    let world = World::ad().await;
    let (status, document) = http(&world, "GET", "/world", None).await;
    assert_eq!(status, 200);
    assert_eq!(document["personality"], "active_directory");
    assert_eq!(document["people"][0]["login"], "asmith");
    let password = world.mock.world().person("asmith").unwrap().password();
    assert!(!document.to_string().contains(&password));
}

#[tokio::test]
async fn another_world_replaces_the_present_one() {
    let world = World::ad().await;
    let (status, _) =
        http(&world, "PUT", "/world", Some(json!({ "personality": "openldap", "users": 20 }))).await;
    assert!((200..300).contains(&status), "{status}");
    let mut client = world.connect().await;
    let found = client.search(&Search::new("", BASE, "(objectClass=*)").attributes(&["*", "+"])).await;
    assert!(found.entries[0].all("objectClass").iter().any(|class| class == b"OpenLDAProotDSE"), "{found:?}");
    let gc = crate::client::Client::connect(world.mock.address("gc")).await.read_to_end().await;
    assert!(gc.is_empty(), "OpenLDAP has no Global Catalog");
    let bad = json!({ "users": 30, "ldif": "dn: uid=x,ou=nowhere,dc=acme,dc=example\nobjectClass: inetOrgPerson\n" });
    let (status, problem) = http(&world, "PUT", "/world", Some(bad)).await;
    assert_eq!(status, 400, "{problem}");
    assert_eq!(http(&world, "GET", "/world", None).await.1["users"], 20, "all or nothing");
    let (status, problem) = http(&world, "PUT", "/world", Some(json!({ "personalty": "openldap" }))).await;
    assert_eq!(status, 400, "{problem}");
    assert!(problem.to_string().contains("personalty"), "{problem}");
    for wrong in [
        json!({ "personality": "nosuch" }),
        json!({ "users": 100_000_000 }),
        json!({ "domain": ".." }),
        json!({ "domain": "" }),
        json!({ "domain": "x y,z=\u{0}" }),
        json!({ "servers": [{ "name": "dc1" }, { "name": "DC1" }] }),
        json!({ "servers": [{ "name": "dc 1" }] }),
    ] {
        assert_eq!(http(&world, "PUT", "/world", Some(wrong.clone())).await.0, 400, "{wrong}");
    }
    assert_eq!(http(&world, "GET", "/world", None).await.1["domain"], "acme.example");
}

#[tokio::test]
async fn policies_faults_and_entries_are_set_at_run_time() {
    let world = World::ad().await;
    let (status, _) = http(&world, "PUT", "/world/policies", Some(json!({ "page_size_max": 5 }))).await;
    assert_eq!(status, 200);
    let found = world.admin().await.search(&Search::new(&world.base, 2, "(objectClass=user)")).await;
    assert_eq!((found.entries.len(), found.done.code), (5, 4));
    let rule = json!({ "on": { "operation": "bind" }, "fault": { "status": { "code": "busy" } } });
    let (status, _) = http(&world, "POST", "/faults", Some(rule)).await;
    assert!((200..300).contains(&status), "{status}");
    assert_eq!(world.connect().await.bind("x@acme.example", "y").await.code, 51);
    let (status, _) = http(&world, "DELETE", "/faults", None).await;
    assert!((200..300).contains(&status), "{status}");
    let ldif = "dn: OU=Extra,DC=acme,DC=example\nobjectClass: organizationalUnit\n";
    let (status, applied) = http(&world, "POST", "/world/ldif", Some(json!({ "ldif": ldif }))).await;
    assert_eq!((status, applied), (200, json!({ "applied": 1 })));
    let (status, problem) = http(&world, "POST", "/world/ldif", Some(json!({ "ldif": ldif }))).await;
    assert_eq!(status, 400, "there already: {problem}");
    let (status, _) = http(&world, "PUT", "/world/servers/dc9/lag", Some(json!({ "lag_ms": 5 }))).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_document_names_every_route() {
    let world = World::ad().await;
    let (status, document) = http(&world, "GET", "/openapi.json", None).await;
    assert_eq!(status, 200);
    assert_eq!(causeway_mock_kit::admin::undescribed(&document), [""; 0]);
    for path in [
        "/health",
        "/reset",
        "/world",
        "/journal",
        "/faults",
        "/clock/advance",
        "/world/policies",
        "/world/replicate",
        "/world/servers/{name}/lag",
        "/world/servers/{name}/state",
        "/world/servers/{name}/restore",
        "/world/ldif",
    ] {
        assert!(document["paths"].get(path).is_some(), "{path} is missing");
    }
}

#[tokio::test]
async fn the_journal_tells_operations_without_secrets() {
    let world = World::ad().await;
    let (dn, password) = world.person("asmith").await;
    world.connect().await.bind(&dn, &password).await;
    world.connect().await.bind(&dn, "Wrong-Secret-1").await;
    let search = Search::new(&world.base, 2, "(userPassword=Probe-Secret-2)");
    world.admin().await.search(&search).await;
    let (status, page) = http(&world, "GET", "/journal?after=0", None).await;
    assert_eq!(status, 200);
    let text = page.to_string();
    for secret in [password.as_str(), "Wrong-Secret-1", "Probe-Secret-2"] {
        assert!(!text.contains(secret), "{secret} in the journal");
    }
    assert!(text.contains("invalidCredentials data 52e"), "{text}");
}
