//! The API keeps what its document promises: every route is documented, every error is a problem document.

use std::collections::BTreeSet;

use causeway_mock_kit::admin::undescribed;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::World;
use crate::support::http::Api;

/// The routes of the contract; more may exist.
const CONTRACT: [(&str, &str); 22] = [
    ("post", "/tenants"),
    ("post", "/tenants/{tenant}/enrollment-keys"),
    ("get", "/tenants/{tenant}/agents"),
    ("put", "/tenants/{tenant}/modules/{module}"),
    ("get", "/tenants/{tenant}/modules/{module}"),
    ("post", "/tenants/{tenant}/actions"),
    ("get", "/tenants/{tenant}/actions/{action}"),
    ("post", "/tenants/{tenant}/authenticate"),
    ("get", "/tenants/{tenant}/users"),
    ("get", "/tenants/{tenant}/groups"),
    ("get", "/tenants/{tenant}/ous"),
    ("get", "/tenants/{tenant}/devices"),
    ("get", "/tenants/{tenant}/policies"),
    ("get", "/tenants/{tenant}/certificates"),
    ("put", "/tenants/{tenant}/certificate-profiles/{profile}"),
    ("get", "/device/profiles"),
    ("get", "/tenants/{tenant}/uploads"),
    ("get", "/tenants/{tenant}/alerts"),
    ("get", "/tenants/{tenant}/events"),
    ("get", "/tenants/{tenant}/leases"),
    ("get", "/tenants/{tenant}/sources"),
    ("get", "/tenants/{tenant}/audit/verify"),
];

async fn document(world: &World) -> Value {
    Api(world).send(Method::GET, "/openapi.json", String::new(), &[]).await.ok()
}

#[tokio::test]
async fn the_document_names_every_route_of_the_contract() {
    let world = World::start().await;
    let document = document(&world).await;
    for (method, path) in CONTRACT {
        let operation = &document["paths"][format!("/api/v1{path}")][method];
        assert!(
            operation.is_object(),
            "{method} {path} is not documented: {:?}",
            document["paths"].as_object().map(|paths| paths.keys().collect::<Vec<_>>())
        );
    }
    assert_eq!(document["security"], json!([{"bearer": []}]));
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}

#[tokio::test]
async fn every_response_of_both_documents_is_described() {
    let world = World::start().await;
    let document = document(&world).await;
    assert_eq!(undescribed(&document), [""; 0]);
    let at = world.mock.urls()["admin"].trim_start_matches("http://");
    let mut tcp = tokio::net::TcpStream::connect(at).await.unwrap();
    let head = format!("GET /openapi.json HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    let (_, document) = answer.split_once("\r\n\r\n").unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    assert!(document["paths"]["/world/drain"].is_object());
    assert_eq!(undescribed(&document), [""; 0]);
}

#[tokio::test]
async fn every_documented_route_wants_a_token_and_knows_its_tenant() {
    let world = World::start().await;
    let document = document(&world).await;
    let mut looked_at = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap();
        for (method, operation) in item.as_object().unwrap() {
            let called = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let real = path.replace("{tenant}", "nobody").replace(['{', '}'], "");
            let refused = Api(&world).send(called.clone(), &real, "{}".to_owned(), &[]).await;
            if path == "/device/enroll" {
                // A device without a token asks for one here, with a person's password.
                refused.problem(400, "invalid_request");
            } else {
                assert_eq!(refused.header("www-authenticate"), "Bearer", "{method} {path}");
                refused.problem(401, "unauthorized");
            }
            let responses = operation["responses"].as_object().unwrap();
            for status in ["400", "401", "404", "500"] {
                let kind = &responses[status]["content"]["application/problem+json"];
                assert!(kind.is_object(), "{method} {path} does not document {status}");
            }
            if path.contains("{tenant}") {
                let body = Some("{}".to_owned()).filter(|_| called != Method::GET);
                let unknown = Api(&world).call(called, &real, body).await;
                unknown.problem(404, "not_found");
            }
            looked_at += 1;
        }
    }
    assert!(looked_at >= CONTRACT.len(), "only {looked_at} operations are documented");
}

#[tokio::test]
async fn what_does_not_fit_is_named() {
    let world = World::start().await;
    let api = Api(&world);
    let tenant = format!("/tenants/{}", world.tenant);
    let path_of = |problem: Value| problem["path"].as_str().unwrap_or_default().to_owned();

    let problem =
        api.post("/tenants", json!({"name": "x", "colour": "red"})).await.problem(400, "invalid_request");
    assert_eq!(path_of(problem), "colour");
    let problem =
        api.post("/tenants", json!({"name": {"deep": "canary-4711"}})).await.problem(400, "invalid_request");
    assert!(!problem.to_string().contains("canary-4711"), "the value is not repeated: {problem}");
    assert_eq!(path_of(problem), "name");
    let order = json!({"module": "user_visibility", "action": "Sync Now"});
    let problem = api.post(&format!("{tenant}/actions"), order).await.problem(400, "invalid_request");
    assert_eq!(path_of(problem), "action");
    let secret = json!({"settings": {"ldap": [{"bind_password": "hunter2"}]}});
    let problem =
        api.put(&format!("{tenant}/modules/user_auth"), secret).await.problem(400, "invalid_request");
    assert_eq!(path_of(problem.clone()), "settings.ldap[0].bind_password");
    assert!(!problem.to_string().contains("hunter2"));
    for (query, path) in [
        ("limit=0", "query.limit"),
        ("limit=5000", "query.limit"),
        ("limit=x", "query.limit"),
        ("page=2", "query.page"),
        ("after=!", "query.after"),
    ] {
        let problem = api.get(&format!("{tenant}/users?{query}")).await.problem(400, "invalid_request");
        assert_eq!(path_of(problem), path, "{query}");
    }
    api.call(Method::POST, "/tenants", Some("{\"name\":".to_owned())).await.problem(400, "invalid_request");
    api.call(Method::POST, "/tenants", Some(format!("\"{}\"", "x".repeat(300_000))))
        .await
        .problem(413, "too_large");
    let keys = format!("{tenant}/enrollment-keys");
    api.call(Method::POST, &keys, Some("x".repeat(300_000))).await.problem(413, "too_large");
    api.call(Method::DELETE, &tenant, None).await.problem(405, "method_not_allowed");
    api.get("/no/such/thing").await.problem(404, "not_found");
}

#[tokio::test]
async fn an_array_is_not_an_object() {
    let world = World::start().await;
    let api = Api(&world);
    let tenant = format!("/tenants/{}", world.tenant);
    let rule = json!({"enabled": true, "grace_secs": 3_600});
    api.put(&format!("{tenant}/compliance"), rule).await.ok();
    let before = api.of_tenant("/compliance").await["rule"].take();
    for (method, path, body) in [
        (Method::PUT, format!("{tenant}/compliance"), "[]"),
        (Method::POST, "/tenants".to_owned(), "[\"Array Inc\"]"),
        (Method::POST, format!("{tenant}/authenticate"), " [\"asmith\", \"wrong\"]"),
        (Method::POST, format!("{tenant}/enrollment-keys"), "[]"),
        (Method::POST, format!("{tenant}/enrollment-keys"), "null"),
    ] {
        let problem = api.call(method, &path, Some(body.to_owned())).await.problem(400, "invalid_request");
        assert_eq!(problem["path"], "body", "{path}: {problem}");
        assert!(!problem.to_string().contains("wrong\""), "{problem}");
    }
    assert_eq!(api.of_tenant("/compliance").await["rule"], before, "the rule is still on");
    for body in [None, Some("{}".to_owned())] {
        api.call(Method::POST, &format!("{tenant}/enrollment-keys"), body).await.ok();
    }
    // What an action is about belongs to its module.
    let order = json!({"module": "user_auth", "action": "check_now", "target": ["a"], "params": 1});
    let id = api.post(&format!("{tenant}/actions"), order).await.ok()["id"].as_str().unwrap().to_owned();
    let shown = api.of_tenant(&format!("/actions/{id}")).await;
    assert_eq!((&shown["target"], &shown["params"]), (&json!(["a"]), &json!(1)));
}

/// Every `$ref` below a value.
fn references<'a>(value: &'a Value, named: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            named.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, named));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, named)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_says_what_may_be_asked_and_answered() {
    let world = World::start().await;
    let document = document(&world).await;
    let (mut limits, mut names) = (0, BTreeSet::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} is the name of two operations");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if parameter["name"] == "limit" {
                    let schema = &parameter["schema"];
                    let bounds = (&schema["minimum"], &schema["maximum"]);
                    assert_eq!(bounds, (&json!(1), &json!(1_000)), "{method} {path}");
                    limits += 1;
                }
            }
            let says_too_large = operation["responses"].get("413").is_some();
            assert_eq!(operation.get("requestBody").is_some(), says_too_large, "{method} {path}");
        }
    }
    assert!(limits >= 10, "only {limits} operations have pages");
    let at = |method: &str, path: &str| &document["paths"][format!("/api/v1{path}")][method]["responses"];
    for (method, path, statuses) in [
        ("post", "/device/enroll", &["403", "413", "503"][..]),
        ("post", "/device/requests", &["409", "503"]),
        ("post", "/device/requests/{request}/challenge", &["409", "502", "503"]),
        ("post", "/device/requests/{request}/csr", &["409", "413"]),
        ("post", "/device/requests/{request}/key", &["409", "413"]),
        ("post", "/device/requests/{request}/installed", &["409"]),
        ("put", "/tenants/{tenant}/certificate-profiles/{profile}", &["409"]),
        ("get", "/tenants/{tenant}/events", &["503"]),
    ] {
        for status in statuses {
            let kind = &at(method, path)[status]["content"]["application/problem+json"];
            assert!(kind.is_object(), "{method} {path} does not document {status}");
        }
    }
    let mut named = Vec::new();
    references(&document, &mut named);
    assert!(named.len() > 100, "{named:?}");
    for name in named {
        let place = name.strip_prefix('#').expect("everything is in the document");
        assert!(document.pointer(place).is_some(), "{name} is nowhere");
    }
    let fields = &document["components"]["schemas"]["ActionView"]["properties"];
    for field in ["target", "params"] {
        assert!(fields[field].is_object(), "{field} is documented");
        assert_eq!(
            fields[field].get("type"),
            None,
            "{field} of an action may be anything, as its module wants it"
        );
    }
}

#[tokio::test]
async fn a_password_that_is_too_long_is_refused_and_not_repeated() {
    let world = World::start().await;
    let long = "secret-canary".repeat(100);
    let body = json!({"username": "asmith", "password": long});
    let answer = Api(&world).post(&format!("/tenants/{}/authenticate", world.tenant), body).await;
    assert!(!answer.text.contains("secret-canary"));
    answer.problem(400, "invalid_request");
    let body = json!({"username": "asmith", "password": 12345});
    let answer = Api(&world).post(&format!("/tenants/{}/authenticate", world.tenant), body).await;
    assert!(!answer.text.contains("12345"), "{}", answer.text);
    answer.problem(400, "invalid_request");
}

#[tokio::test]
async fn the_same_order_under_one_key_is_one_action() {
    let world = World::start().await;
    let api = Api(&world);
    let path = format!("/tenants/{}/actions", world.tenant);
    let order = json!({"module": "user_visibility", "action": "sync_now", "params": {"a": 1, "b": 2}, "idempotency_key": "k"});
    let first = api.post(&path, order.clone()).await;
    assert_eq!(first.status, 202);
    let location = first.header("location").to_owned();
    let id = first.ok()["id"].as_str().unwrap().to_owned();
    assert_eq!(location, format!("/api/v1{path}/{id}"));
    let again = json!({"idempotency_key": "k", "params": {"b": 2, "a": 1}, "action": "sync_now", "module": "user_visibility"});
    assert_eq!(api.post(&path, again).await.ok()["id"], id.as_str());
    let other = json!({"module": "user_visibility", "action": "sync_now", "params": {"a": 2}, "idempotency_key": "k"});
    api.post(&path, other).await.problem(409, "idempotency_key_reused");
    assert_eq!(api.get(&path).await.ok()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn waiting_ends_with_the_action() {
    let world = World::start().await;
    let api = Api(&world);
    let path = format!("/tenants/{}/actions", world.tenant);
    let order = json!({"module": "user_visibility", "action": "sync_now", "ttl_ms": 400});
    let id = api.post(&path, order).await.ok()["id"].as_str().unwrap().to_owned();
    assert_eq!(api.get(&format!("{path}/{id}")).await.ok()["status"], "pending");
    let started = std::time::Instant::now();
    let ended = api.get(&format!("{path}/{id}?wait_ms=60000")).await.ok();
    assert!(started.elapsed() < crate::support::PATIENCE, "the answer came when the action ended");
    assert_eq!(ended["status"], "failure", "{ended}");
    assert_eq!(ended["error"]["code"], "deadline_passed", "{ended}");
    let steps: Vec<&str> =
        ended["timeline"].as_array().unwrap().iter().map(|step| step["event"].as_str().unwrap()).collect();
    assert_eq!((steps[0], *steps.last().unwrap()), ("queued", "failure"), "{steps:?}");
}

#[tokio::test]
async fn config_keeps_its_revision_when_nothing_changes() {
    let world = World::start().await;
    let api = Api(&world);
    let path = format!("/tenants/{}/modules/user_visibility", world.tenant);
    api.get(&path).await.problem(404, "not_found");
    let config = json!({"enabled": true, "settings": {"delta_every_secs": 60}});
    assert_eq!(
        api.put(&path, config.clone()).await.ok(),
        json!({"module": "user_visibility", "revision": 1})
    );
    assert_eq!(api.put(&path, config).await.ok()["revision"], 1);
    assert_eq!(api.put(&path, json!({"enabled": false, "settings": {}})).await.ok()["revision"], 2);
    let shown = api.get(&path).await.ok();
    assert_eq!(
        (&shown["enabled"], &shown["settings"], &shown["agents"]),
        (&json!(false), &json!({}), &json!([]))
    );
}

#[tokio::test]
async fn a_feed_goes_on_where_it_was_left() {
    let world = World::start().await;
    let path = format!("/tenants/{}/events", world.tenant);
    let api = Api(&world);
    let mut feed = api.events(&path, &[]).await;
    for n in 0..3 {
        world.cloud().events.emit(&world.tenant, "progress", json!({"n": n}));
        world.cloud().events.emit("another-tenant", "progress", json!({"n": 99}));
    }
    let mut numbers = Vec::new();
    for n in 0..3 {
        let event = feed.next().await;
        assert_eq!((&event["kind"], &event["body"]["n"]), (&json!("progress"), &json!(n)), "{event}");
        numbers.push(event["seq"].as_i64().unwrap());
    }
    assert!(numbers.is_sorted());
    drop(feed);
    world.cloud().events.emit(&world.tenant, "progress", json!({"n": 3}));
    let mut resumed = api.events(&path, &[("last-event-id", &numbers[1].to_string())]).await;
    for n in 2..4 {
        assert_eq!(resumed.next().await["body"]["n"], n, "neither lost nor repeated");
    }
    let bad = api
        .send(
            Method::GET,
            &path,
            String::new(),
            &[("authorization", &format!("Bearer {}", world.mock.token())), ("last-event-id", "x")],
        )
        .await;
    bad.problem(400, "invalid_request");
}
