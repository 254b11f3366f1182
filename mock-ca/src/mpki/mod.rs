//! Symantec Managed PKI 8 (DigiCert PKI Platform 8): three SOAP services and their REST twin, for whoever shows the
//! certificate of a registration authority. No contract of the vendor's is public, so every answer says in a header that
//! it is inferred.

mod rest;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router, middleware};
use bytes::Bytes;
use causeway_mock_kit::fault::Fault;
use causeway_protocol::enrol::mpki::{
    self, Enroll, Enrolled, Entry, Field, Found, Operation, Profile, Request, Search, Target, UpdateStatus,
    Updated,
};
use causeway_protocol::enrol::soap::{self, Blame, Version};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bag;
use crate::core::{
    Authority, Csr, Decision, Denial, Issued, Reason, RevokeError, Serial, Submission, Transaction,
};
use crate::limits::{FORM_MAX_BYTES, LISTED_MAX, SEARCH_PAGE};
use crate::ra::Ra;
use crate::serve::{Connection, answer, fault, html};
use crate::server::Shared;

const FRONT: &str = "mpki";
const FIDELITY: HeaderName = HeaderName::from_static("x-causeway-fidelity");

/// Settings of the service.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MpkiConfig {
    /// Default: `Mobile device` on the template `MobileDevice`, `Mobile user` on `User`.
    pub profiles: Vec<MpkiProfile>,
    /// Seats the company has paid for. Default 1000.
    pub seats_max: usize,
    /// Key of the REST twin. Default `mpki-api-key`.
    pub api_key: String,
}

/// A profile, and the template of the authority it issues from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MpkiProfile {
    pub oid: String,
    pub name: String,
    pub template: String,
    /// Fields an enrolment must bring.
    #[serde(default)]
    pub mandatory: Vec<String>,
    /// Fields it may bring.
    #[serde(default)]
    pub optional: Vec<String>,
}

impl Default for MpkiConfig {
    fn default() -> Self {
        let profile = |number: u32, name: &str, template: &str, mandatory: &[&str]| MpkiProfile {
            oid: format!("2.16.840.1.113733.1.16.1.3.1.4.1.{number}"),
            name: name.to_owned(),
            template: template.to_owned(),
            mandatory: mandatory.iter().map(|field| (*field).to_owned()).collect(),
            optional: vec!["country".to_owned()],
        };
        Self {
            profiles: vec![
                profile(4001, "Mobile device", "MobileDevice", &["seat_id", "common_name"]),
                profile(4002, "Mobile user", "User", &["seat_id", "common_name", "mail_email"]),
            ],
            seats_max: 1_000,
            api_key: "mpki-api-key".to_owned(),
        }
    }
}

impl std::fmt::Debug for MpkiConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MpkiConfig")
            .field("profiles", &self.profiles)
            .field("seats_max", &self.seats_max)
            .finish_non_exhaustive()
    }
}

/// Why the service refuses. Codes are ours: the vendor's are not public.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the certificate of the registration authority has expired")]
    ExpiredRa,
    #[error("there is no profile {0}")]
    UnknownProfile(String),
    #[error("all seats of the account are taken")]
    SeatLimit,
    #[error("{0} is missing")]
    MissingField(String),
    #[error("the seat has no certificate to renew")]
    NothingToRenew,
    #[error("{0}")]
    Denied(Denial),
    #[error("this service decides at once, and the profile's template wants an approval")]
    Approval,
}

impl Refusal {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::ExpiredRa => "RA_CERTIFICATE_EXPIRED",
            Self::UnknownProfile(_) => "PROFILE_NOT_FOUND",
            Self::SeatLimit => "SEAT_LIMIT_EXCEEDED",
            Self::MissingField(_) => "MISSING_ATTRIBUTE",
            Self::NothingToRenew => "RENEWAL_NOT_ALLOWED",
            Self::Denied(_) => "REQUEST_DENIED",
            Self::Approval => "APPROVAL_REQUIRED",
        }
    }
}

/// SOAP and REST.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = rest::router();
    for path in [mpki::POLICY_PATH, mpki::ENROLLMENT_PATH, mpki::MANAGEMENT_PATH] {
        router = router.route(path, post(service));
    }
    router
        .layer(DefaultBodyLimit::max(FORM_MAX_BYTES))
        .layer(middleware::map_response(|mut response: Response| async {
            response.headers_mut().insert(FIDELITY, HeaderValue::from_static("inferred"));
            response
        }))
        .with_state(Arc::clone(shared))
}

async fn service(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Arc<Connection>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(ra) = Ra::of(&connection, shared.cx.clock.now_ms()) else {
        return html(StatusCode::FORBIDDEN, "403 - a certificate of a registration authority is needed");
    };
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !given.to_ascii_lowercase().starts_with("text/xml") {
        return html(StatusCode::UNSUPPORTED_MEDIA_TYPE, "415 - the content type is not text/xml");
    }
    let request = match soap::read(&body) {
        Ok(message) if message.version == Version::V11 => Request::read(&message).map(|read| (read, message)),
        _ => return refused(StatusCode::INTERNAL_SERVER_ERROR, "INVALID_REQUEST", "no SOAP 1.1 envelope"),
    };
    let request = match request {
        Ok((request, message))
            if request.path() == uri.path() && *message.body.namespace == *request.namespace() =>
        {
            request
        }
        Ok(_) => {
            let text = "the operation is not this service's";
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "INVALID_REQUEST", text);
        }
        Err(error) => {
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "INVALID_REQUEST", &error.to_string());
        }
    };
    let (operation, subject) = named(&request);
    let twist = match fault(&shared, FRONT, operation, &subject).await {
        Ok(twist) => twist,
        Err(instead) => return instead,
    };
    let authority = shared.authority().await;
    let done = match refused_by_rule(twist.as_ref(), &ra) {
        Some(refusal) => Err(refusal),
        None => carry_out(&shared, &authority, request, twist.as_ref()),
    };
    let (outcome, response) = match done {
        Ok(text) => {
            ("200".to_owned(), answer(StatusCode::OK, Version::V11.content_type(), text.into_bytes()))
        }
        Err(refusal) => (
            refusal.code().to_owned(),
            refused(StatusCode::INTERNAL_SERVER_ERROR, refusal.code(), &refusal.to_string()),
        ),
    };
    shared.cx.journal.record(FRONT, operation, &subject, &outcome, json!({ "ra": ra.name }));
    // The connection may break when everything is done, and nobody learns of it.
    match fault(&shared, FRONT, &format!("{operation}_done"), &subject).await {
        Err(instead) => instead,
        Ok(_) => response,
    }
}

/// Refusals that a fault rule asks for by their word, and the one the certificate itself asks for.
pub(crate) fn refused_by_rule(twist: Option<&Fault>, ra: &Ra) -> Option<Refusal> {
    match twist {
        Some(Fault::Custom { word, .. }) => match word.as_str() {
            "expired_ra" => Some(Refusal::ExpiredRa),
            "unknown_profile" => Some(Refusal::UnknownProfile("any".to_owned())),
            "seat_limit" => Some(Refusal::SeatLimit),
            _ => None,
        },
        _ if ra.is_expired => Some(Refusal::ExpiredRa),
        _ => None,
    }
}

fn named(request: &Request) -> (&'static str, String) {
    match request {
        Request::GetPolicies { .. } => ("get_policies", String::new()),
        Request::Enroll(enroll) => ("enroll", enroll.field("seat_id").unwrap_or_default().to_owned()),
        Request::UpdateStatus(update) => (
            "update_status",
            match &update.target {
                Target::Serial(text) | Target::Seat(text) => text.clone(),
            },
        ),
        Request::Search(search) => {
            ("search", search.seat.clone().or(search.serial.clone()).unwrap_or_default())
        }
    }
}

fn carry_out(
    shared: &Shared,
    authority: &Authority,
    request: Request,
    twist: Option<&Fault>,
) -> Result<String, Refusal> {
    let config = &shared.world().config.mpki;
    match request {
        Request::GetPolicies { .. } => Ok(mpki::write_policies(&profiles(config))),
        Request::Enroll(enroll) => {
            let issued = issue(config, authority, &enroll)?;
            let bag = match twist {
                Some(Fault::Malformed { kind }) if kind == "another_key" => {
                    bag::of(&[&bag::anothers(authority)])
                }
                Some(Fault::Malformed { kind }) if kind == "half" => issued.certificate.clone(),
                _ => bag::with_chain(authority, &issued),
            };
            Ok(Enrolled { transaction: enroll.transaction, bag }.write())
        }
        Request::UpdateStatus(update) => Ok(update_status(authority, &update).write(&update.transaction)),
        Request::Search(search) => Ok(find(config, authority, &search).write(&search.transaction)),
    }
}

fn profiles(config: &MpkiConfig) -> Vec<Profile> {
    let fields = |names: &[String], mandatory| {
        names.iter().map(move |name| Field { name: name.clone(), mandatory }).collect::<Vec<_>>()
    };
    let profile = |profile: &MpkiProfile| Profile {
        oid: profile.oid.clone(),
        name: profile.name.clone(),
        fields: [fields(&profile.mandatory, true), fields(&profile.optional, false)].concat(),
    };
    config.profiles.iter().map(profile).collect()
}

/// Issues. A repeated transaction with the same request gets the same certificate.
pub(crate) fn issue(
    config: &MpkiConfig,
    authority: &Authority,
    enroll: &Enroll,
) -> Result<Arc<Issued>, Refusal> {
    let profile = config.profiles.iter().find(|profile| profile.oid == enroll.profile);
    let profile = profile.ok_or_else(|| Refusal::UnknownProfile(enroll.profile.clone()))?;
    let given = |name: &str| enroll.field(name).is_some_and(|value| !value.is_empty());
    if let Some(field) = profile.mandatory.iter().find(|field| !given(field)) {
        return Err(Refusal::MissingField(field.clone()));
    }
    let seat = enroll.field("seat_id").filter(|seat| !seat.is_empty());
    let seat = seat.ok_or_else(|| Refusal::MissingField("seat_id".to_owned()))?;
    let mut seats: BTreeSet<String> =
        valid(authority, LISTED_MAX, |_| true).map(|issued| issued.requester.clone()).collect();
    if enroll.renew && !valid(authority, 1, |issued| issued.requester == seat).any(|_| true) {
        return Err(Refusal::NothingToRenew);
    }
    seats.insert(seat.to_owned());
    if seats.len() > config.seats_max {
        return Err(Refusal::SeatLimit);
    }
    let submission = Submission {
        front: FRONT,
        csr: &enroll.csr,
        requester: seat,
        template: Some(&profile.template),
        transaction: Some(Transaction { id: enroll.transaction.clone().into_bytes(), asker: [0; 32] }),
        ..Submission::default()
    };
    match authority.submit(&submission, |_: &Csr| Ok(())) {
        Decision::Issued(issued) => Ok(issued),
        Decision::Denied(denial, _) => Err(Refusal::Denied(denial)),
        Decision::Pending(id) => {
            // It would be issued behind the back of a client that was refused.
            let _ = authority.deny(id);
            Err(Refusal::Approval)
        }
    }
}

/// Certificates of this service that are good.
fn valid<'a>(
    authority: &'a Authority,
    limit: usize,
    pick: impl Fn(&Issued) -> bool + 'a,
) -> impl Iterator<Item = Arc<Issued>> + 'a {
    let now_ms = authority.now_ms();
    let all = authority.certificates(LISTED_MAX, move |issued| issued.front == FRONT && pick(issued));
    all.into_iter()
        .filter(move |issued| issued.not_after_ms > now_ms && authority.revocation(&issued.serial).is_none())
        .take(limit)
}

fn update_status(authority: &Authority, update: &UpdateStatus) -> Updated {
    let serials: Vec<Serial> = match &update.target {
        Target::Serial(text) => own_serial(authority, text).into_iter().collect(),
        Target::Seat(seat) => authority
            .certificates(LISTED_MAX, |issued| issued.front == FRONT && issued.requester == *seat)
            .iter()
            .map(|issued| issued.serial)
            .collect(),
    };
    let reason = update.reason.unwrap_or(mpki::Reason::Unspecified);
    let (mut count, mut failed) = (0, None);
    for serial in &serials {
        let done = match update.operation {
            Operation::Revoke => authority.revoke(serial, reason_of(reason)).map(|_| ()),
            Operation::Suspend => authority.revoke(serial, Reason::CertificateHold).map(|_| ()),
            Operation::Resume => authority.resume(serial),
        };
        match done {
            Ok(()) => count += 1,
            Err(error) => failed = Some(error),
        }
    }
    match failed.or(serials.is_empty().then_some(RevokeError::Unknown)) {
        Some(error) if count == 0 => Updated { code: -1, message: error.to_string(), count },
        _ => Updated { code: 0, message: "SUCCESS".to_owned(), count },
    }
}

/// A serial number, if this service has issued under it.
pub(crate) fn own_serial(authority: &Authority, text: &str) -> Option<Serial> {
    let serial = Serial::from_hex(text)?;
    authority.certificate(&serial).filter(|issued| issued.front == FRONT).map(|issued| issued.serial)
}

fn reason_of(reason: mpki::Reason) -> Reason {
    match reason {
        mpki::Reason::Unspecified => Reason::Unspecified,
        mpki::Reason::KeyCompromise => Reason::KeyCompromise,
        mpki::Reason::CaCompromise => Reason::CaCompromise,
        mpki::Reason::AffiliationChanged => Reason::AffiliationChanged,
        mpki::Reason::CessationOfOperation => Reason::CessationOfOperation,
        mpki::Reason::PrivilegeWithdrawn => Reason::PrivilegeWithdrawn,
        mpki::Reason::AaCompromise => Reason::AaCompromise,
        mpki::Reason::Superseded => Reason::Superseded,
    }
}

fn find(config: &MpkiConfig, authority: &Authority, search: &Search) -> Found {
    let serial = search.serial.as_deref().map(Serial::from_hex);
    let profile_of = |issued: &Issued| {
        let found = config.profiles.iter().find(|profile| profile.template == issued.template);
        found.map(|profile| profile.oid.clone()).unwrap_or_default()
    };
    let all = authority.certificates(LISTED_MAX, |issued| {
        issued.front == FRONT
            && search.seat.as_ref().is_none_or(|seat| *seat == issued.requester)
            && search.profile.as_ref().is_none_or(|profile| *profile == profile_of(issued))
            && serial.is_none_or(|serial| serial == Some(issued.serial))
    });
    let entry = |issued: &Arc<Issued>| Entry {
        certificate: issued.certificate.clone(),
        seat: issued.requester.clone(),
        profile: profile_of(issued),
        status: status(authority, issued).to_owned(),
        serial: issued.serial.to_string(),
    };
    let certificates: Vec<Entry> = all.iter().skip(search.start).take(SEARCH_PAGE).map(entry).collect();
    Found { more: search.start.saturating_add(certificates.len()) < all.len(), certificates }
}

pub(crate) fn status(authority: &Authority, issued: &Issued) -> &'static str {
    match authority.revocation(&issued.serial) {
        Some(how) if how.reason == Reason::CertificateHold => "SUSPENDED",
        Some(_) => "REVOKED",
        None if issued.not_after_ms <= authority.now_ms() => "EXPIRED",
        None => "VALID",
    }
}

fn refused(status: StatusCode, code: &str, text: &str) -> Response {
    let text = mpki::write_fault(Blame::Sender, code, text);
    answer(status, Version::V11.content_type(), text.into_bytes())
}
