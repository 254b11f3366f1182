//! SCEP's HTTP (RFC 8894 section 4.1), read as tolerantly as servers in the field read it: no content type is checked, and
//! the message of a GET may be percent-encoded or not, wrapped, and in either alphabet of base64.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use causeway_mock_kit::fault::Fault;
use causeway_protocol::scep::{Unverified, decode_get};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use super::ca;
use super::capabilities::Capabilities;
use super::machine::{Machine, Reply};
use crate::limits::{REQUEST_LINE_MAX_BYTES, SCEP_MESSAGE_MAX_BYTES};
use crate::ndes::SERVER_ERROR;
use crate::serve::{CloseInstead, Connection, answer, fault, html};
use crate::server::Shared;
use causeway_protocol::Chain;

/// Paths the operations are served at, lower case; clients use any of them.
const PATHS: [&str; 6] = [
    "/certsrv/mscep/mscep.dll",
    "/certsrv/mscep/mscep.dll/pkiclient.exe",
    "/certsrv/mscep",
    "/cgi-bin/pkiclient.exe",
    "/scep",
    "/scep/pkiclient.exe",
];

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new().fallback(serve).with_state(Arc::clone(shared))
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request<Body>,
) -> Response {
    let path = request.uri().path().to_ascii_lowercase();
    if !PATHS.contains(&path.trim_end_matches('/')) {
        return StatusCode::NOT_FOUND.into_response();
    }
    if request.uri().path_and_query().is_some_and(|line| line.as_str().len() > REQUEST_LINE_MAX_BYTES) {
        return StatusCode::URI_TOO_LONG.into_response();
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let operation = parameter(&query, "operation").unwrap_or_default().to_ascii_lowercase();
    let authority = shared.authority().await;
    if !authority.hierarchy().current().ra_is_good(authority.now_ms()) {
        note(&shared, &operation, "", "500 registration authority");
        return html(StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR);
    }
    match (operation.as_str(), request.method()) {
        ("getcacaps", &Method::GET) => capabilities(&shared).await,
        ("getcacert", &Method::GET) => certificates(&shared).await,
        ("getnextcacert", &Method::GET) => next_certificates(&shared).await,
        ("pkioperation", &Method::GET) => match parameter(&query, "message").map(decode_get) {
            Some(Ok(bytes)) => pki_operation(&shared, &connection, bytes).await,
            _ => refuse(&shared, &operation, StatusCode::BAD_REQUEST),
        },
        ("pkioperation", &Method::POST) => {
            match Limited::new(request.into_body(), SCEP_MESSAGE_MAX_BYTES).collect().await {
                Ok(body) => pki_operation(&shared, &connection, body.to_bytes().to_vec()).await,
                Err(_) => refuse(&shared, &operation, StatusCode::PAYLOAD_TOO_LARGE),
            }
        }
        ("getcacaps" | "getcacert" | "getnextcacert" | "pkioperation", _) => {
            refuse(&shared, &operation, StatusCode::METHOD_NOT_ALLOWED)
        }
        _ => refuse(&shared, &operation, StatusCode::BAD_REQUEST),
    }
}

async fn capabilities(shared: &Arc<Shared>) -> Response {
    let struck = match fault(shared, "scep", "GetCACaps", "").await {
        Ok(struck) => struck,
        Err(instead) => return instead,
    };
    let world = shared.world();
    let aes = !is_word(struck.as_ref(), "no_aes");
    let text = Capabilities::of(&world).text(world.config.scep.capabilities_crlf, aes);
    note(shared, "GetCACaps", "", "200");
    answer(StatusCode::OK, "text/plain", text.into_bytes())
}

async fn certificates(shared: &Arc<Shared>) -> Response {
    let struck = match fault(shared, "scep", "GetCACert", "").await {
        Ok(struck) => struck,
        Err(instead) => return instead,
    };
    let wrong_ra = is_word(struck.as_ref(), "wrong_ra");
    let (kind, bytes) = shared.work(move |authority| ca::certificates(authority, wrong_ra)).await;
    note(shared, "GetCACert", "", "200");
    answer(StatusCode::OK, kind, bytes)
}

async fn next_certificates(shared: &Arc<Shared>) -> Response {
    if let Err(instead) = fault(shared, "scep", "GetNextCACert", "").await {
        return instead;
    }
    match shared.work(ca::next_certificates).await {
        Some(bytes) => {
            note(shared, "GetNextCACert", "", "200");
            answer(StatusCode::OK, "application/x-x509-next-ca-cert", bytes)
        }
        None => refuse(shared, "GetNextCACert", StatusCode::NOT_FOUND),
    }
}

async fn pki_operation(shared: &Arc<Shared>, connection: &Connection, bytes: Vec<u8>) -> Response {
    let message = match Unverified::read(&bytes) {
        Ok(message) => message,
        // Without a type that exists, a transaction and a nonce there is nothing SCEP could answer to.
        Err(error) => {
            shared.cx.journal.record("scep", "PKIOperation", "", "400", json!({ "why": error.to_string() }));
            return html(StatusCode::BAD_REQUEST, "Bad Request");
        }
    };
    let subject = message.header().transaction.to_string();
    let struck = match fault(shared, "scep", "PKIOperation", &subject).await {
        Ok(struck) => struck,
        Err(instead) => return instead,
    };
    let (world, peer) = (shared.world(), connection.peer.ip().to_string());
    if is_word(struck.as_ref(), "app_pool_restart") {
        world.challenges.restart();
    }
    let lost = is_word(struck.as_ref(), "lost_reply");
    let half = matches!(&struck, Some(Fault::Malformed { kind }) if kind == "half");
    let worked = shared
        .work(move |authority| Machine::new(authority, &world, struck.as_ref(), &peer).answer(&message))
        .await;
    let Reply { mut bytes, operation, outcome, detail } = match worked {
        Ok(reply) => reply,
        Err(error) => {
            let why = Chain(&error).to_string();
            shared.cx.journal.record("scep", "PKIOperation", &subject, "500", json!({ "why": why }));
            return html(StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR);
        }
    };
    shared.cx.journal.record("scep", operation, &subject, &outcome, detail);
    // Everything is done and stands in the books; a rule for this moment keeps the client from hearing of it.
    if let Err(instead) = fault(shared, "scep", "PKIOperation_done", &subject).await {
        return instead;
    }
    if half {
        bytes.truncate(bytes.len() / 2);
    }
    let mut response = answer(StatusCode::OK, "application/x-pki-message", bytes);
    if lost {
        response.extensions_mut().insert(CloseInstead);
    }
    response
}

/// Whether a rule asks for this word of ours.
fn is_word(fault: Option<&Fault>, word: &str) -> bool {
    matches!(fault, Some(Fault::Custom { word: own, .. }) if own == word)
}

fn refuse(shared: &Shared, operation: &str, status: StatusCode) -> Response {
    note(shared, operation, "", status.as_str());
    html(status, status.canonical_reason().unwrap_or("error"))
}

fn note(shared: &Shared, operation: &str, subject: &str, outcome: &str) {
    shared.cx.journal.record("scep", operation, subject, outcome, json!(null));
}

/// One parameter of a query as it stands there. Its name may be in any case.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}
