//! CA Gateway: names come from the body, the request only brings the key.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_mock_kit::fault::Fault;
use causeway_protocol::enrol::gateway::{
    Act, Action, Authorities, Authority as AuthorityView, Certificate, ChainLink, Enroll, Enrolled,
    Enrollment, Event, Events, Failed, NameRequirement, OneAuthority, OneCertificate, OneProfile, Problem,
    Profile, Profiles, PutRevoke, Typed, VariableRequirement,
};
use causeway_protocol::enrol::{base64_text, pem};
use causeway_protocol::pkix::{AlternativeName, Name, der};
use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{GatewayProfile, RevokeBy};
use crate::bag;
use crate::core::{Authority, Csr, Decision, Issued, Reason, RevokeError, Serial, Submission};
use crate::limits::{FORM_MAX_BYTES, LISTED_MAX, SEARCH_PAGE};
use crate::ra::Ra;
use crate::serve::{Connection, answer, fault};
use crate::server::Shared;

const FRONT: &str = "entrust_gateway";
/// Kinds of alternative names it takes. That of user principal names is not verified.
const NAME_KINDS: [(&str, &str); 5] = [
    ("rfc822Name", "email"),
    ("dNSName", "dns"),
    ("uniformResourceIdentifier", "uri"),
    ("iPAddress", "ip"),
    ("userPrincipalName", "upn"),
];

type Refused = Box<Response>;

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    const AUTHORITY: &str = "/cagw/v1/certificate-authorities/{ca}";
    let at = |path: &str| format!("{AUTHORITY}{path}");
    Router::new()
        .route("/cagw/v1/certificate-authorities", get(authorities))
        .route(AUTHORITY, get(authority))
        .route(&at("/profiles"), get(profiles))
        .route(&at("/profiles/{profile}"), get(profile))
        .route(&at("/enrollments"), post(enroll))
        .route(&at("/enrollments/{id}"), get(enrollment))
        .route(&at("/certificates/{serial}"), get(certificate))
        .route(&at("/certificates/{serial}/actions"), post(act))
        .route(&at("/certificates/{serial}/revoke"), put(revoke))
        .route(&at("/certificate-events"), get(events))
        .layer(DefaultBodyLimit::max(FORM_MAX_BYTES))
        .with_state(Arc::clone(shared))
}

/// A call that was let in.
struct Call {
    shared: Arc<Shared>,
    authority: Arc<Authority>,
    operation: &'static str,
    subject: String,
    ra: String,
    twist: Option<Fault>,
}

impl Call {
    async fn arrive(
        shared: Arc<Shared>,
        connection: &Connection,
        ca: Option<&str>,
        operation: &'static str,
        subject: &str,
    ) -> Result<Self, Refused> {
        let ra = match Ra::of(connection, shared.cx.clock.now_ms()) {
            Some(ra) if !ra.is_expired => ra.name,
            _ => {
                return Err(refuse(
                    StatusCode::FORBIDDEN,
                    "forbidden",
                    "the client certificate is not accepted",
                ));
            }
        };
        let twist = fault(&shared, FRONT, operation, subject).await.map_err(Box::new)?;
        if ca.is_some_and(|ca| ca != shared.world().config.entrust.authority_id) {
            return Err(refuse(
                StatusCode::NOT_FOUND,
                "invalid-ca",
                "there is no such certificate authority",
            ));
        }
        let authority = shared.authority().await;
        Ok(Self { shared, authority, operation, subject: subject.to_owned(), ra, twist })
    }

    /// Notes what came of it, and answers.
    async fn done(self, outcome: Result<(StatusCode, serde_json::Value), Refused>) -> Response {
        let status = match &outcome {
            Ok((status, _)) => *status,
            Err(refused) => refused.status(),
        };
        let detail = json!({ "ra": self.ra });
        self.shared.cx.journal.record(FRONT, self.operation, &self.subject, status.as_str(), detail);
        // The connection may break when everything is done, and nobody learns of it.
        if let Err(instead) =
            fault(&self.shared, FRONT, &format!("{}_done", self.operation), &self.subject).await
        {
            return instead;
        }
        match outcome {
            Ok((status, body)) => {
                let mut bytes = serde_json::to_vec(&body).expect("a value always becomes JSON");
                if matches!(&self.twist, Some(Fault::Malformed { kind }) if kind == "half") {
                    bytes.truncate(bytes.len() / 2);
                }
                answer(status, "application/json", bytes)
            }
            Err(refused) => *refused,
        }
    }
}

async fn authorities(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Response {
    let call = match Call::arrive(shared, &connection, None, "authorities", "").await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let list = Authorities {
        kind: "CAsResponse".to_owned(),
        certificate_authorities: vec![view(&call.shared, &call.authority, "")],
    };
    call.done(ok(&list)).await
}

async fn authority(
    State(shared): State<Arc<Shared>>,
    Path(ca): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Response {
    let call = match Call::arrive(shared, &connection, Some(&ca), "authority", &ca).await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let fields = query.get("$fields").map(String::as_str).unwrap_or_default();
    let one = OneAuthority { kind: "CAResponse".to_owned(), ca: view(&call.shared, &call.authority, fields) };
    call.done(ok(&one)).await
}

/// The authority; its certificates only when fields ask for them.
fn view(shared: &Shared, authority: &Authority, fields: &str) -> AuthorityView {
    let hierarchy = authority.hierarchy();
    let chain = hierarchy.chain(hierarchy.current());
    let certificate =
        |der: &[u8]| Certificate { certificate_data: STANDARD.encode(der), ..Certificate::default() };
    AuthorityView {
        id: shared.world().config.entrust.authority_id.clone(),
        name: authority.config().name.clone(),
        status: "ACTIVE".to_owned(),
        certificate: fields.contains("ca.certificate").then(|| certificate(chain[0])),
        chain: match fields.contains("ca.chain") {
            true => chain[1..].iter().map(|der| certificate(der)).collect(),
            false => Vec::new(),
        },
    }
}

async fn profiles(
    State(shared): State<Arc<Shared>>,
    Path(ca): Path<String>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Response {
    let call = match Call::arrive(shared, &connection, Some(&ca), "profiles", "").await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let profiles = call.shared.world().config.entrust.profiles.iter().map(profile_view).collect();
    call.done(ok(&Profiles { kind: "ProfilesResponse".to_owned(), profiles })).await
}

async fn profile(
    State(shared): State<Arc<Shared>>,
    Path((ca, id)): Path<(String, String)>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Response {
    let call = match Call::arrive(shared, &connection, Some(&ca), "profile", &id).await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let world = call.shared.world();
    let found = world.config.entrust.profiles.iter().find(|profile| profile.id == id);
    let outcome = match found {
        Some(profile) => {
            ok(&OneProfile { kind: "ProfileResponse".to_owned(), profile: profile_view(profile) })
        }
        None => Err(refuse(StatusCode::NOT_FOUND, "invalid-profile", "there is no such profile")),
    };
    call.done(outcome).await
}

fn profile_view(profile: &GatewayProfile) -> Profile {
    let variable = |name: &String| VariableRequirement { name: name.clone(), required: true };
    let kind = |(kind, _): &(&str, &str)| NameRequirement { kind: (*kind).to_owned(), required: false };
    Profile {
        id: profile.id.clone(),
        name: profile.id.clone(),
        subject_variable_requirements: profile.subject_variables.iter().map(variable).collect(),
        subject_alt_name_requirements: NAME_KINDS.iter().map(kind).collect(),
    }
}

async fn enroll(
    State(shared): State<Arc<Shared>>,
    Path(ca): Path<String>,
    Extension(connection): Extension<Arc<Connection>>,
    body: Bytes,
) -> Response {
    let enroll: Enroll = match read_body(&body) {
        Ok(enroll) => enroll,
        Err(refused) => return *refused,
    };
    let call = match Call::arrive(shared, &connection, Some(&ca), "enroll", &enroll.profile_id).await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let outcome = submit(&call, &enroll);
    call.done(outcome).await
}

fn submit(call: &Call, enroll: &Enroll) -> Result<(StatusCode, serde_json::Value), Refused> {
    let bad = |code: &str, message: &str| refuse(StatusCode::BAD_REQUEST, code, message);
    let world = call.shared.world();
    let profile = world.config.entrust.profiles.iter().find(|profile| profile.id == enroll.profile_id);
    let profile = profile.ok_or_else(|| bad("invalid-profile", "there is no such profile"))?;
    let format = enroll.required_format.format.as_str();
    if !["PEM", "X509"].contains(&format) {
        return Err(bad("unsupported-format", "this gateway makes no keys: the format is PEM or X509"));
    }
    let csr = enroll.csr.as_deref().ok_or_else(|| bad("missing-csr", "there is no CSR"))?;
    let csr = base64_text(csr, "csr").map_err(|error| bad("invalid-csr", &error.to_string()))?;
    let subject = subject(profile, enroll)?;
    let names = alternative_names(&enroll.subject_alt_names)?;
    let submission = Submission {
        front: FRONT,
        csr: &csr,
        requester: &call.ra,
        template: Some(&profile.template),
        subject: Some(subject),
        alternative_names: Some(names),
        ..Submission::default()
    };
    match call.authority.submit(&submission, |_: &Csr| Ok(())) {
        Decision::Issued(issued) => ok(&enrolled(call, &issued, format, enroll.include_ca)),
        Decision::Pending(id) => {
            let enrollment =
                Enrollment { id: id.to_string(), status: "PENDING".to_owned(), ..Enrollment::default() };
            Ok((StatusCode::CREATED, value(&Enrolled { kind: "EnrollmentResponse".to_owned(), enrollment })))
        }
        Decision::Denied(denial, _) => Err(bad("request-denied", &denial.to_string())),
    }
}

/// The subject, as the profile wants it.
fn subject(profile: &GatewayProfile, enroll: &Enroll) -> Result<Vec<u8>, Refused> {
    let bad = |message: &str| refuse(StatusCode::BAD_REQUEST, "invalid-subject", message);
    let text = if profile.subject_variables.is_empty() {
        let details = enroll.optional_certificate_request_details.as_ref();
        details.and_then(|details| details.subject_dn.clone()).ok_or_else(|| bad("there is no subjectDn"))?
    } else {
        let mut parts = Vec::new();
        for name in &profile.subject_variables {
            let mut given =
                enroll.subject_variables.iter().filter(|given| given.kind.eq_ignore_ascii_case(name));
            let value = given.next().ok_or_else(|| bad(&format!("the variable {name} is missing")))?;
            let escaped: String = value
                .value
                .chars()
                .flat_map(|letter| match letter {
                    ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' | '#' => vec!['\\', letter],
                    _ => vec![letter],
                })
                .collect();
            parts.push(format!("{name}={escaped}"));
        }
        parts.join(",")
    };
    Name::parse(&text).map(|name| name.to_der()).map_err(|error| bad(&error.to_string()))
}

/// Names of the body as GeneralNames.
fn alternative_names(given: &[Typed]) -> Result<Vec<u8>, Refused> {
    let one = |name: &Typed| {
        let kind = NAME_KINDS.iter().find(|(kind, _)| *kind == name.kind).map(|(_, kind)| *kind);
        let kind = kind.ok_or_else(|| "the kind of alternative name is not supported".to_owned())?;
        let name =
            AlternativeName::parse(&format!("{kind}:{}", name.value)).map_err(|error| error.to_string())?;
        Ok(name.to_der())
    };
    let encoded: Result<Vec<Vec<u8>>, String> = given.iter().map(one).collect();
    let encoded = encoded.map_err(|message| refuse(StatusCode::BAD_REQUEST, "invalid-san", &message))?;
    Ok(der::sequence(&encoded.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

fn enrolled(call: &Call, issued: &Issued, format: &str, include_ca: bool) -> Enrolled {
    let certificate = match &call.twist {
        Some(Fault::Malformed { kind }) if kind == "another_key" => bag::anothers(&call.authority),
        _ => issued.certificate.clone(),
    };
    let chain = if include_ca { bag::chain(&call.authority, issued) } else { Vec::new() };
    Enrolled {
        kind: "EnrollmentResponse".to_owned(),
        enrollment: Enrollment {
            id: issued.request.to_string(),
            status: "ACCEPTED".to_owned(),
            body: Some(match format {
                "PEM" => pem("CERTIFICATE", &certificate),
                _ => STANDARD.encode(&certificate),
            }),
            serial_number: Some(issued.serial.to_string()),
            chain: chain.iter().map(|der| ChainLink { certificate_data: STANDARD.encode(der) }).collect(),
            reason: None,
        },
    }
}

async fn enrollment(
    State(shared): State<Arc<Shared>>,
    Path((ca, id)): Path<(String, String)>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Response {
    let call = match Call::arrive(shared, &connection, Some(&ca), "enrollment", &id).await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let own = id.parse().ok().filter(|id| call.authority.request(*id).is_some_and(|one| one.front == FRONT));
    let waiting = |status: &str, reason: Option<String>| {
        let enrollment =
            Enrollment { id: id.clone(), status: status.to_owned(), reason, ..Enrollment::default() };
        ok(&Enrolled { kind: "EnrollmentResponse".to_owned(), enrollment })
    };
    let outcome = match own.and_then(|id| call.authority.decision(id)) {
        Some(Decision::Issued(issued)) => ok(&enrolled(&call, &issued, "PEM", true)),
        Some(Decision::Pending(_)) => waiting("PENDING", None),
        Some(Decision::Denied(denial, _)) => waiting("REJECTED", Some(denial.to_string())),
        None => Err(refuse(StatusCode::NOT_FOUND, "invalid-enrollment", "there is no such enrollment")),
    };
    call.done(outcome).await
}

async fn certificate(
    State(shared): State<Arc<Shared>>,
    Path((ca, serial)): Path<(String, String)>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Response {
    let call = match Call::arrive(shared, &connection, Some(&ca), "certificate", &serial).await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let found = Serial::from_hex(&serial).and_then(|serial| call.authority.certificate(&serial));
    let outcome = match found {
        Some(issued) => ok(&OneCertificate {
            kind: "CertificateResponse".to_owned(),
            certificate: Certificate {
                certificate_data: STANDARD.encode(&issued.certificate),
                serial_number: Some(issued.serial.to_string()),
                status: Some(status(&call.authority, &issued).to_owned()),
            },
        }),
        None => Err(unknown_certificate()),
    };
    call.done(outcome).await
}

fn status(authority: &Authority, issued: &Issued) -> &'static str {
    match authority.revocation(&issued.serial) {
        Some(how) if how.reason == Reason::CertificateHold => "HELD",
        Some(_) => "REVOKED",
        None if issued.not_after_ms <= authority.now_ms() => "EXPIRED",
        None => "ACTIVE",
    }
}

async fn act(
    State(shared): State<Arc<Shared>>,
    Path((ca, serial)): Path<(String, String)>,
    Extension(connection): Extension<Arc<Connection>>,
    body: Bytes,
) -> Response {
    let call = match Call::arrive(shared, &connection, Some(&ca), "act", &serial).await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let outcome = read_body(&body).and_then(|Act { action }| carry_out(&call, &serial, action));
    call.done(outcome).await
}

fn carry_out(call: &Call, serial: &str, action: Action) -> Result<(StatusCode, serde_json::Value), Refused> {
    let bad = |code: &str, message: &str| refuse(StatusCode::BAD_REQUEST, code, message);
    allowed(call, RevokeBy::Actions)?;
    let serial = Serial::from_hex(serial).ok_or_else(unknown_certificate)?;
    let again = action.succeed_if_already_in_requested_state.unwrap_or(true);
    let done = match action.kind.as_str() {
        "RevokeAction" => {
            let reason = reason_of(action.reason.as_deref().unwrap_or("unspecified"))?;
            call.authority.revoke(&serial, reason).map(|_| ())
        }
        "HoldAction" => call.authority.revoke(&serial, Reason::CertificateHold).map(|_| ()),
        "UnholdAction" => call.authority.resume(&serial),
        _ => return Err(bad("invalid-action", "the action is none that is known")),
    };
    match done {
        Ok(()) => {}
        Err(RevokeError::Already) if again => {}
        Err(RevokeError::Unknown) => return Err(unknown_certificate()),
        Err(error) => return Err(bad("invalid-state", &error.to_string())),
    }
    let action = Action { status: Some("COMPLETED".to_owned()), ..action };
    Ok((StatusCode::OK, json!({ "type": "ActionResponse", "action": value(&action) })))
}

async fn revoke(
    State(shared): State<Arc<Shared>>,
    Path((ca, serial)): Path<(String, String)>,
    Extension(connection): Extension<Arc<Connection>>,
    body: Bytes,
) -> Response {
    let call = match Call::arrive(shared, &connection, Some(&ca), "revoke", &serial).await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let outcome = read_body(&body).and_then(|PutRevoke { reason }| {
        allowed(&call, RevokeBy::Put)?;
        let serial = Serial::from_hex(&serial).ok_or_else(unknown_certificate)?;
        match call.authority.revoke(&serial, reason_of(&reason)?) {
            Ok(_) | Err(RevokeError::Already) => Ok((StatusCode::OK, json!({ "type": "RevokeResponse" }))),
            Err(_) => Err(unknown_certificate()),
        }
    });
    call.done(outcome).await
}

fn allowed(call: &Call, way: RevokeBy) -> Result<(), Refused> {
    match call.shared.world().config.entrust.revoke_by.contains(&way) {
        true => Ok(()),
        false => Err(refuse(StatusCode::NOT_FOUND, "not-found", "there is no such resource")),
    }
}

fn reason_of(text: &str) -> Result<Reason, Refused> {
    Ok(match text {
        "unspecified" => Reason::Unspecified,
        "keyCompromise" => Reason::KeyCompromise,
        "superseded" => Reason::Superseded,
        "cessationOfOperation" => Reason::CessationOfOperation,
        "affiliationChanged" => Reason::AffiliationChanged,
        "privilegeWithdrawn" => Reason::PrivilegeWithdrawn,
        _ => {
            return Err(refuse(
                StatusCode::BAD_REQUEST,
                "invalid-reason",
                "the reason is none that is known",
            ));
        }
    })
}

async fn events(
    State(shared): State<Arc<Shared>>,
    Path(ca): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    Extension(connection): Extension<Arc<Connection>>,
) -> Response {
    let call = match Call::arrive(shared, &connection, Some(&ca), "events", "").await {
        Ok(call) => call,
        Err(refused) => return *refused,
    };
    let outcome = page(&call, &query);
    call.done(outcome).await
}

/// Issued certificates since a time, oldest first. Revocations are left out.
fn page(call: &Call, query: &HashMap<String, String>) -> Result<(StatusCode, serde_json::Value), Refused> {
    let bad = |message: &str| refuse(StatusCode::BAD_REQUEST, "invalid-query", message);
    let since = query.get("startDate").ok_or_else(|| bad("startDate is missing"))?;
    let since = OffsetDateTime::parse(since, &Rfc3339).map_err(|_| bad("startDate is no time"))?;
    let since_ms = since.unix_timestamp() * 1_000;
    let number = |name: &str, default: usize| match query.get(name) {
        Some(text) => text.parse().map_err(|_| bad("a number is none")),
        None => Ok(default),
    };
    let size = number("preferredPageSize", SEARCH_PAGE)?.clamp(1, SEARCH_PAGE);
    let start = number("nextPageIndex", 0)?;
    let mut all = call.authority.certificates(LISTED_MAX, |issued| issued.issued_ms >= since_ms);
    all.reverse();
    let event = |issued: &Arc<Issued>| Event {
        kind: "CertificateIssuedEvent".to_owned(),
        serial_number: issued.serial.to_string(),
        certificate: Some(STANDARD.encode(&issued.certificate)),
    };
    let events: Vec<Event> = all.iter().skip(start).take(size).map(event).collect();
    let end = start.saturating_add(events.len());
    let more_pages = end < all.len();
    ok(&Events {
        kind: "CertificateEventsResponse".to_owned(),
        events,
        more_pages,
        next_page_index: more_pages.then_some(end as u64),
    })
}

fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, "invalid-body", &error.to_string()))
}

fn unknown_certificate() -> Refused {
    refuse(StatusCode::NOT_FOUND, "invalid-certificate", "no certificate has this serial number")
}

fn ok(body: &impl Serialize) -> Result<(StatusCode, serde_json::Value), Refused> {
    Ok((StatusCode::OK, value(body)))
}

fn value(body: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(body).expect("text and numbers always become JSON")
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Refused {
    let failed = Failed { error: Problem { code: code.to_owned(), message: message.to_owned() } };
    let bytes = serde_json::to_vec(&failed).expect("text always becomes JSON");
    Box::new(answer(status, "application/json", bytes))
}
