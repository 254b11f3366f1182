//! What an authority publishes: CRLs, issuers' certificates, and answers over OCSP (RFC 6960 appendix A).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_kit::fault::Fault;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use crate::core::{Authority, OcspRefusal, OcspTwist, Signer};
use crate::limits::OCSP_MAX_BYTES;
use crate::serve::{answer, fault};
use crate::server::Shared;

/// `/crl` is the current generation's CRL, `/crl/{n}.crl` and `/crl/{n}.cer` those of each, `root` in place of the number
/// those of the root.
pub(crate) fn crl_router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/crl", get(current_crl))
        .route("/crl/{file}", get(file))
        .with_state(Arc::clone(shared))
}

/// OCSP by POST, and by GET with the request in the path.
pub(crate) fn ocsp_router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/ocsp", axum::routing::post(ocsp_post))
        .route("/ocsp/{*request}", get(ocsp_get))
        .with_state(Arc::clone(shared))
}

async fn current_crl(State(shared): State<Arc<Shared>>) -> Response {
    let authority = shared.authority().await;
    let number = authority.hierarchy().current().number;
    publish(&shared, &format!("{number}.crl")).await
}

async fn file(State(shared): State<Arc<Shared>>, Path(file): Path<String>) -> Response {
    publish(&shared, &file).await
}

async fn publish(shared: &Arc<Shared>, file: &str) -> Response {
    if let Err(instead) = fault(shared, "crl", "get", file).await {
        return instead;
    }
    let authority = shared.authority().await;
    let found = read_file(&authority, file);
    let outcome = if found.is_some() { "200" } else { "404" };
    shared.cx.journal.record("crl", "get", file, outcome, serde_json::Value::Null);
    match found {
        Some((kind, bytes)) => answer(StatusCode::OK, kind, bytes),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn read_file(authority: &Authority, file: &str) -> Option<(&'static str, Vec<u8>)> {
    let (name, kind) = file.split_once('.')?;
    let signer: Signer = name.parse().ok()?;
    match kind {
        "crl" => Some(("application/pkix-crl", authority.crl(signer)?)),
        "cer" => {
            let hierarchy = authority.hierarchy();
            Some(("application/pkix-cert", hierarchy.signer(signer)?.certificate.raw().to_vec()))
        }
        _ => None,
    }
}

async fn ocsp_post(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    match Limited::new(request.into_body(), OCSP_MAX_BYTES).collect().await {
        Ok(body) => ocsp(&shared, &body.to_bytes()).await,
        Err(_) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
    }
}

async fn ocsp_get(State(shared): State<Arc<Shared>>, Path(request): Path<String>) -> Response {
    // Base64 has slashes, and some clients do not escape them: the path was taken whole.
    let bytes = STANDARD.decode(request.trim().as_bytes()).unwrap_or_default();
    ocsp(&shared, &bytes).await
}

async fn ocsp(shared: &Arc<Shared>, request: &[u8]) -> Response {
    let word = match fault(shared, "ocsp", "ask", "").await {
        Ok(Some(Fault::Custom { word, .. })) => word,
        Ok(_) => String::new(),
        Err(instead) => return instead,
    };
    let twist = match word.as_str() {
        "unknown" => Some(OcspTwist::Forgotten),
        "another_reply" => Some(OcspTwist::Stranger),
        _ => None,
    };
    let asked = request.to_vec();
    let answered = match word.as_str() {
        "try_later" => Err(OcspRefusal::TryLater),
        _ => shared.work(move |authority| authority.ocsp(&asked, twist)).await,
    };
    let (outcome, bytes) = match answered {
        Ok(bytes) => ("successful", bytes),
        Err(refusal) => ("refused", refusal.response()),
    };
    shared.cx.journal.record("ocsp", "ask", "", outcome, json!({ "request_bytes": request.len() }));
    answer(StatusCode::OK, "application/ocsp-response", bytes)
}
