//! The admin API over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use causeway_mock_kit::admin::{self, AdminError, AdminWorld, Json, Path, Query};
use causeway_mock_kit::fault::{Fault, Point};
use causeway_mock_kit::{Clock, KitContext, listen};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::call;

struct Shelf(Mutex<Value>);

impl AdminWorld for Shelf {
    fn world(&self) -> BoxFuture<'_, Value> {
        async { self.0.lock().unwrap().clone() }.boxed()
    }
    fn replace_world(&self, world: Value) -> BoxFuture<'_, Result<(), AdminError>> {
        async move {
            if !world.is_object() {
                return Err(AdminError::invalid("/", "a world is an object"));
            }
            *self.0.lock().unwrap() = world;
            Ok(())
        }
        .boxed()
    }
    fn reset(&self) -> BoxFuture<'_, Result<(), AdminError>> {
        async {
            *self.0.lock().unwrap() = json!({ "books": 1 });
            Ok(())
        }
        .boxed()
    }
    fn health(&self) -> Value {
        json!({ "shelves": 1 })
    }
}

/// A route of the mock's own
#[utoipa::path(post, path = "/world/books", tag = "world", request_body = Book,
    responses((status = 201), (status = 409, description = "It stands here already")))]
async fn add_book(Json(_book): Json<Book>) -> StatusCode {
    StatusCode::CREATED
}

#[derive(serde::Deserialize, utoipa::ToSchema)]
struct Book {
    #[serde(rename = "title")]
    _title: String,
}

/// Another
#[utoipa::path(get, path = "/world/books/{number}", tag = "world", params(Pages), responses((status = 200)))]
async fn show_book(Path(_number): Path<u32>, Query(_pages): Query<Pages>) -> StatusCode {
    StatusCode::OK
}

#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct Pages {
    #[serde(rename = "pages")]
    _pages: Option<u32>,
}

async fn start() -> (KitContext, SocketAddr) {
    let cx = KitContext::new("mock-shelf", Clock::stepped(1_000));
    let listener = listen::bind("mock-shelf", "admin", [127, 0, 0, 1].into(), 0).await.unwrap();
    let address = listener.local_addr().unwrap();
    let world = Arc::new(Shelf(Mutex::new(json!({ "books": 1 }))));
    let router = admin::router(
        cx.clone(),
        world,
        OpenApiRouter::new().routes(routes!(add_book)).routes(routes!(show_book)),
    );
    tokio::spawn(admin::serve_admin(listener, router, cx.stop.clone()));
    (cx, address)
}

#[tokio::test]
async fn the_openapi_document_lists_every_route_and_every_listed_route_answers() {
    let (_cx, address) = start().await;
    let document = call(address, "GET", "/openapi.json", "").await.json;
    assert_eq!(document["info"]["title"], "mock-shelf admin API");
    let mut listed = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "put", "post", "delete"].contains(&key.as_str()))
        {
            listed.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    listed.sort();
    assert_eq!(
        listed,
        [
            "DELETE /faults",
            "DELETE /faults/{id}",
            "DELETE /journal",
            "GET /clock",
            "GET /faults",
            "GET /health",
            "GET /journal",
            "GET /world",
            "GET /world/books/{number}",
            "POST /clock/advance",
            "POST /faults",
            "POST /reset",
            "POST /world/books",
            "PUT /world",
        ]
    );
    for route in &listed {
        let (method, path) = route.split_once(' ').unwrap();
        let answer = call(address, method, &path.replace("{id}", "1").replace("{number}", "1"), "{}").await;
        assert!(![405, 501].contains(&answer.status), "{route} answered {answer:?}");
        assert!(answer.status != 404 || path == "/faults/{id}", "{route} answered {answer:?}");
    }
    let schemas = &document["components"]["schemas"];
    for schema in ["Rule", "Match", "Fault", "Entry", "JournalPage", "Problem", "Installed"] {
        assert!(schemas[schema].is_object(), "schema {schema} is missing");
    }
    assert_eq!(schemas["Entry"]["properties"]["detail"]["type"], json!(["object", "null"]));
}

#[tokio::test]
async fn the_openapi_document_describes_every_response() {
    let (_cx, address) = start().await;
    let document = call(address, "GET", "/openapi.json", "").await.json;
    assert_eq!(admin::undescribed(&document), [""; 0]);
    let responses = &document["paths"]["/world/books"]["post"]["responses"];
    assert_eq!(responses["201"]["description"], "Created");
    assert_eq!(responses["409"]["description"], "It stands here already", "better words stay");
    let refused = &responses["default"]["content"]["application/problem+json"]["schema"]["$ref"];
    assert_eq!(refused, "#/components/schemas/Problem");
    let without =
        json!({ "paths": { "/x": { "get": { "responses": { "200": {}, "204": { "description": "" } } } } } });
    assert_eq!(admin::undescribed(&without), ["get /x 200", "get /x 204"]);
}

#[tokio::test]
async fn what_a_mock_s_own_routes_cannot_read_is_a_problem_too() {
    let (_cx, address) = start().await;
    assert_eq!(
        call(address, "POST", "/world/books", r#"{"title":"Emma"}"#).await.status,
        201,
        "no type needed"
    );
    assert_eq!(call(address, "GET", "/world/books/7?pages=3", "").await.status, 200);
    for (method, path, body, pointer) in [
        ("POST", "/world/books", "{bad", "line 1 column 2"),
        ("POST", "/world/books", r#"{"name":"Emma"}"#, "line 1 column 15"),
        ("POST", "/world/books", "", "line 1 column 0"),
        ("POST", "/world/books", r#" ["Emma"]"#, "/"),
        ("POST", "/clock/advance", "[5]", "/"),
        ("GET", "/world/books/zz", "", "path"),
        ("GET", "/world/books/7?page=3", "", "query"),
        ("DELETE", "/faults/zz", "", "path"),
    ] {
        let answer = call(address, method, path, body).await;
        assert_eq!(
            (answer.status, answer.content_type.as_str()),
            (400, "application/problem+json"),
            "{path} {body}"
        );
        assert_eq!(answer.json["pointer"], pointer, "{path} {body}: {answer:?}");
    }
    let large = format!("{{\"title\":\"{}\"}}", "x".repeat(3 << 20));
    assert_eq!(
        call(address, "POST", "/world/books", &large).await.status,
        201,
        "the admin API's own limit holds"
    );
}

#[tokio::test]
async fn pages_of_the_web_reach_no_admin_api_on_loopback() {
    let (_cx, address) = start().await;
    let ask = async |address: SocketAddr, line: &str, headers: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let text = format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: 0\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        answer
    };
    let here = format!("Host: {address}\r\n");
    let foreign = "Origin: https://evil.example\r\n";
    for (line, headers) in [
        ("POST /reset", format!("Host: evil.example\r\n{foreign}")),
        ("POST /reset", format!("{here}{foreign}")),
        ("POST /reset", "Host: evil.example\r\n".to_owned()),
        ("GET /journal", "Host: evil.example\r\n".to_owned()),
        ("GET /nowhere", "Host: evil.example\r\n".to_owned()),
        ("PUT /world", format!("{here}Origin: null\r\n")),
    ] {
        let answer = ask(address, line, &headers).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{line} {headers}: {answer}");
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    }
    let port = address.port();
    for headers in
        [&here, &format!("{here}Origin: http://{address}\r\n"), &format!("Host: localhost:{port}\r\n")]
    {
        let answer = ask(address, "POST /reset", headers).await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "{headers}: {answer}");
    }
}

#[tokio::test]
async fn world_health_and_reset() {
    let (cx, address) = start().await;
    let health = call(address, "GET", "/health", "").await;
    assert_eq!(
        (health.status, &health.json["service"], &health.json["shelves"]),
        (200, &json!("mock-shelf"), &json!(1))
    );
    assert_eq!(call(address, "PUT", "/world", r#"{"books":9}"#).await.status, 204);
    assert_eq!(call(address, "GET", "/world", "").await.json, json!({ "books": 9 }));
    let refused = call(address, "PUT", "/world", "[]").await;
    assert_eq!((refused.status, refused.content_type.as_str()), (400, "application/problem+json"));
    assert_eq!(refused.json["detail"], "a list is given where an object is expected");
    cx.journal.record("ldap", "bind", "x", "success", Value::Null);
    call(address, "POST", "/faults", r#"{"fault":{"close":{}}}"#).await;
    assert_eq!(call(address, "POST", "/reset", "").await.status, 204);
    assert_eq!(call(address, "GET", "/world", "").await.json, json!({ "books": 1 }));
    assert!(cx.faults.list().is_empty() && cx.journal.after(0).is_empty());
}

#[tokio::test]
async fn faults_are_added_listed_obeyed_and_removed() {
    let (cx, address) = start().await;
    let rule = r#"{"on":{"operation":"bind","subject":"asmith"},"times":1,"fault":{"status":{"code":51,"message":"busy"}}}"#;
    let added = call(address, "POST", "/faults", rule).await;
    assert_eq!(added.status, 201);
    let id = added.json["id"].as_u64().unwrap();
    let point = Point { front: "ldap", operation: "bind", subject: "CN=ASmith,DC=acme" };
    assert_eq!(cx.faults.protocol_fault(&point), Some(Fault::status(51, "busy")));
    let listed = call(address, "GET", "/faults", "").await.json;
    assert_eq!((&listed[0]["hits"], &listed[0]["rule"]["times"]), (&json!(1), &json!(1)));
    assert_eq!(call(address, "DELETE", &format!("/faults/{id}"), "").await.status, 204);
    assert_eq!(call(address, "DELETE", &format!("/faults/{id}"), "").await.status, 404);
    let broken = call(address, "POST", "/faults", "{\"fault\":{\"latency\":{\"ms\":\"x\"}}}").await;
    assert_eq!(broken.status, 400);
    assert!(broken.json["pointer"].as_str().unwrap().starts_with("line 1 column"), "{broken:?}");
    call(address, "POST", "/faults", rule).await;
    assert_eq!(call(address, "DELETE", "/faults", "").await.status, 204);
    assert!(cx.faults.list().is_empty());
}

#[tokio::test]
async fn the_journal_can_be_waited_for() {
    let (cx, address) = start().await;
    let waiting =
        tokio::spawn(async move { call(address, "GET", "/journal?after=1&wait_ms=20000", "").await });
    cx.journal.record("ldap", "bind", "first", "success", Value::Null);
    let second = cx.journal.record("ldap", "bind", "second", "success", json!({ "tls": true }));
    let page = waiting.await.unwrap().json;
    assert_eq!((&page["last_seq"], &page["dropped"]), (&json!(second), &json!(0)));
    assert_eq!(page["entries"][0]["subject"], "second");
    assert_eq!(page["entries"][0]["at_ms"], 1_000);
    let empty = call(address, "GET", "/journal?after=99", "").await.json;
    assert_eq!(empty["entries"], json!([]));
    let wrong = call(address, "GET", "/journal?aftr=1", "").await;
    assert_eq!((wrong.status, wrong.content_type.as_str()), (400, "application/problem+json"));
    assert_eq!(call(address, "DELETE", "/journal", "").await.status, 204);
    assert!(cx.journal.after(0).is_empty());
}

#[tokio::test]
async fn the_clock_is_shown_and_stepped() {
    let (cx, address) = start().await;
    assert_eq!(call(address, "GET", "/clock", "").await.json, json!({ "now_ms": 1_000, "automatic": false }));
    let sleeper = cx.clock.clone();
    let sleeper = tokio::spawn(async move { sleeper.sleep_until_ms(61_000).await });
    assert_eq!(call(address, "POST", "/clock/advance", r#"{"ms":60000}"#).await.json["now_ms"], 61_000);
    sleeper.await.unwrap();
    assert_eq!(call(address, "POST", "/clock/advance", "{}").await.status, 400);
    let far = call(address, "POST", "/clock/advance", r#"{"ms":9223372036854775807}"#).await;
    assert_eq!((far.status, &far.json["pointer"]), (400, &json!("/ms")), "{far:?}");
    assert_eq!(call(address, "GET", "/clock", "").await.json["now_ms"], 61_000);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let (_cx, address) = start().await;
    let missing = call(address, "GET", "/nowhere", "").await;
    assert_eq!((missing.status, missing.content_type.as_str()), (404, "application/problem+json"));
    let wrong = call(address, "PATCH", "/world", "").await;
    assert_eq!((wrong.status, wrong.content_type.as_str()), (405, "application/problem+json"));
}

#[tokio::test]
async fn stopping_ends_a_long_poll() {
    let (cx, address) = start().await;
    let mut poll = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /journal?wait_ms=30000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut poll, request).await.unwrap();
    // An answer to a later connection shows that the poll was accepted before.
    call(address, "GET", "/health", "").await;
    cx.stop.cancel();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(
        Duration::from_secs(1),
        tokio::io::AsyncReadExt::read_to_end(&mut poll, &mut rest),
    );
    ended.await.expect("the poll outlives the mock").ok();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}
