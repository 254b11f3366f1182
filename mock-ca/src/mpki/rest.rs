//! The REST twin: the same profiles, seats and certificates.

#![expect(clippy::result_large_err, reason = "a refusal is the answer itself, made once for a request")]

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use bytes::Bytes;
use causeway_protocol::enrol::mpki::Enroll;
use causeway_protocol::enrol::mpki_rest::{API_KEY, Certificate, Create, Problem, Problems, Revoke};
use causeway_protocol::enrol::{base64_text, pem};
use http::StatusCode;
use http::header::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Refusal, issue, own_serial, refused_by_rule, status};
use crate::core::{Authority, Issued, Reason};
use crate::ra::Ra;
use crate::serve::{Connection, answer, fault};
use crate::server::Shared;

const FRONT: &str = "mpki";

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/mpki/api/v1/certificate", post(create))
        .route("/mpki/api/v1/certificate/{serial}", get(read))
        .route("/mpki/api/v1/certificate/{serial}/revoke", put(revoke))
        .route("/mpki/api/v1/certificate/{serial}/renew", post(renew))
        .route("/mpki/api/v1/profile", get(profiles))
}

/// Lets a call in, or not.
async fn arrive(
    shared: &Shared,
    connection: &Connection,
    headers: &HeaderMap,
    operation: &str,
    subject: &str,
) -> Result<(), Response> {
    let Some(ra) = Ra::of(connection, shared.cx.clock.now_ms()) else {
        let text = "a certificate of a registration authority is needed";
        return Err(refused(StatusCode::FORBIDDEN, "access_denied", text, None));
    };
    let key = headers.get(API_KEY).map(|value| value.as_bytes()).unwrap_or_default();
    let world = shared.world();
    let expected = world.config.mpki.api_key.as_bytes();
    if aws_lc_rs::constant_time::verify_slices_are_equal(key, expected).is_err() {
        return Err(refused(StatusCode::UNAUTHORIZED, "invalid_api_key", "the API key is not valid", None));
    }
    let twist = fault(shared, FRONT, operation, subject).await?;
    match refused_by_rule(twist.as_ref(), &ra) {
        Some(refusal) => Err(refused_with(&refusal)),
        None => Ok(()),
    }
}

async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let create: Create = match read_body(&body) {
        Ok(create) => create,
        Err(refused) => return refused,
    };
    if let Err(refused) = arrive(&shared, &connection, &headers, "rest_create", &create.seat.seat_id).await {
        return refused;
    }
    let authority = shared.authority().await;
    let done = enroll(&create, false).and_then(|enroll| {
        issue(&shared.world().config.mpki, &authority, &enroll).map_err(|refusal| refused_with(&refusal))
    });
    match done {
        Ok(issued) => {
            note(&shared, "rest_create", &create.seat.seat_id, "201");
            json_answer(StatusCode::CREATED, &view(&authority, &issued))
        }
        Err(refused) => {
            note(&shared, "rest_create", &create.seat.seat_id, refused.status().as_str());
            refused
        }
    }
}

async fn renew(
    State(shared): State<Arc<Shared>>,
    Path(serial): Path<String>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut create: Create = match read_body(&body) {
        Ok(create) => create,
        Err(refused) => return refused,
    };
    if let Err(refused) = arrive(&shared, &connection, &headers, "rest_renew", &serial).await {
        return refused;
    }
    let authority = shared.authority().await;
    let Some(old) = own_serial(&authority, &serial).and_then(|serial| authority.certificate(&serial)) else {
        return unknown();
    };
    // A renewal is the seat's, whatever the body says.
    create.seat.seat_id.clone_from(&old.requester);
    let done = enroll(&create, true).and_then(|enroll| {
        issue(&shared.world().config.mpki, &authority, &enroll).map_err(|refusal| refused_with(&refusal))
    });
    note(&shared, "rest_renew", &serial, if done.is_ok() { "201" } else { "refused" });
    match done {
        Ok(issued) => json_answer(StatusCode::CREATED, &view(&authority, &issued)),
        Err(refused) => refused,
    }
}

/// The same enrolment as SOAP would bring.
fn enroll(create: &Create, renew: bool) -> Result<Enroll, Response> {
    let csr = base64_text(&create.csr, "csr")
        .map_err(|error| refused(StatusCode::BAD_REQUEST, "invalid_csr", &error.to_string(), Some("csr")))?;
    let attributes = &create.attributes;
    let fields = [
        ("seat_id", Some(&create.seat.seat_id)),
        ("common_name", attributes.common_name.as_ref()),
        ("mail_email", attributes.email.as_ref().or(create.seat.email.as_ref())),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone())));
    Ok(Enroll {
        profile: create.profile.id.clone(),
        // The REST twin has no ids of exchanges, so a repeated call makes a second certificate.
        transaction: uuid::Uuid::new_v4().to_string(),
        renew,
        csr,
        fields: fields.collect(),
    })
}

async fn read(
    State(shared): State<Arc<Shared>>,
    Path(serial): Path<String>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = arrive(&shared, &connection, &headers, "rest_read", &serial).await {
        return refused;
    }
    let authority = shared.authority().await;
    match own_serial(&authority, &serial).and_then(|serial| authority.certificate(&serial)) {
        Some(issued) => json_answer(StatusCode::OK, &view(&authority, &issued)),
        None => unknown(),
    }
}

async fn revoke(
    State(shared): State<Arc<Shared>>,
    Path(serial): Path<String>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let revoke: Revoke = match read_body(&body) {
        Ok(revoke) => revoke,
        Err(refused) => return refused,
    };
    if let Err(refused) = arrive(&shared, &connection, &headers, "rest_revoke", &serial).await {
        return refused;
    }
    let reason = match revoke.revocation_reason.as_str() {
        "unspecified" => Reason::Unspecified,
        "key_compromise" => Reason::KeyCompromise,
        "superseded" => Reason::Superseded,
        "cessation_of_operation" => Reason::CessationOfOperation,
        "affiliation_changed" => Reason::AffiliationChanged,
        _ => {
            let text = "the reason is none that is known";
            return refused(StatusCode::BAD_REQUEST, "invalid_reason", text, Some("revocation_reason"));
        }
    };
    let authority = shared.authority().await;
    let Some(own) = own_serial(&authority, &serial) else { return unknown() };
    note(&shared, "rest_revoke", &serial, "204");
    match authority.revoke(&own, reason) {
        Ok(_) => answer(StatusCode::NO_CONTENT, "application/json", Vec::new()),
        Err(error) => refused(StatusCode::BAD_REQUEST, "already_revoked", &error.to_string(), None),
    }
}

async fn profiles(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = arrive(&shared, &connection, &headers, "rest_profiles", "").await {
        return refused;
    }
    let world = shared.world();
    let profiles = world.config.mpki.profiles.iter();
    let profiles: Vec<_> =
        profiles.map(|profile| json!({ "id": profile.oid, "name": profile.name })).collect();
    json_answer(StatusCode::OK, &json!({ "profiles": profiles }))
}

fn view(authority: &Authority, issued: &Issued) -> Certificate {
    Certificate {
        serial_number: issued.serial.to_string(),
        delivery_format: "x509".to_owned(),
        certificate: pem("CERTIFICATE", &issued.certificate),
        status: status(authority, issued).to_owned(),
    }
}

fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Response> {
    serde_json::from_slice(body)
        .map_err(|error| refused(StatusCode::BAD_REQUEST, "invalid_body", &error.to_string(), None))
}

fn unknown() -> Response {
    refused(StatusCode::NOT_FOUND, "not_found", "no certificate has this serial number", None)
}

fn refused_with(refusal: &Refusal) -> Response {
    refused(StatusCode::BAD_REQUEST, &refusal.code().to_ascii_lowercase(), &refusal.to_string(), None)
}

fn refused(status: StatusCode, code: &str, message: &str, field: Option<&str>) -> Response {
    let problem =
        Problem { code: code.to_owned(), message: message.to_owned(), field: field.map(str::to_owned) };
    json_answer(status, &Problems { errors: vec![problem] })
}

fn json_answer(status: StatusCode, body: &impl Serialize) -> Response {
    answer(status, "application/json", serde_json::to_vec(body).expect("text always becomes JSON"))
}

fn note(shared: &Shared, operation: &str, subject: &str, outcome: &str) {
    shared.cx.journal.record(FRONT, operation, subject, outcome, json!({}));
}
