//! The admin API: what all mocks have, and the routes only a certificate authority needs.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_kit::admin::{AdminError, AdminWorld, Json, Path, Query};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::Config;
use crate::core::{
    Authority, ChallengeView, DecideError, Generation, Issued, Reason, RequestView, RevokeError, Serial,
    Template,
};
use crate::server::Shared;

/// Entries one call lists when nobody says how many.
const LISTED: usize = 100;

/// The world a `PUT /world` describes; absent fields stay as they are.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct WorldDocument {
    personality: Option<String>,
    domain: Option<String>,
    seed: Option<u64>,
    users: Option<usize>,
    strict_sid: Option<bool>,
    challenge_required: Option<bool>,
    default_template: Option<String>,
    templates: Option<Vec<Template>>,
    language: Option<String>,
}

/// Which certificates to list.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default, deny_unknown_fields)]
struct CertificateQuery {
    /// Part of the subject or of an alternative name.
    name: Option<String>,
    template: Option<String>,
    /// At most so many.
    limit: Option<usize>,
}

/// Which requests to list.
#[derive(Deserialize, IntoParams, Default)]
#[serde(default, deny_unknown_fields)]
struct RequestQuery {
    /// `pending`, `issued` or `denied`.
    state: Option<String>,
    /// At most so many.
    limit: Option<usize>,
}

/// Why a certificate ends.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(default, deny_unknown_fields)]
struct Ending {
    reason: Reason,
}

/// A challenge to make.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct NewChallenge {
    /// The common name a request must have; any when absent.
    name: Option<String>,
    minutes: u32,
    /// Stays after use.
    permanent: bool,
}

impl Default for NewChallenge {
    fn default() -> Self {
        Self { name: None, minutes: 60, permanent: false }
    }
}

/// A challenge that was made.
#[derive(Serialize, ToSchema)]
struct MadeChallenge {
    challenge: String,
    until_ms: Option<i64>,
}

/// What to do with the challenges NDES keeps in memory.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum ChallengeChange {
    /// The application pool restarts: they are forgotten.
    Restart,
    /// They expire.
    Expire,
}

/// When the next generation takes over.
#[derive(Serialize, Deserialize, ToSchema, Default)]
#[serde(default, deny_unknown_fields)]
struct Rollover {
    /// Milliseconds of the mock's clock from now. 0 takes over at once.
    in_ms: u64,
}

/// What to do with the RA's certificates.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum RaChange {
    /// They are expired from now on.
    Expire,
    /// They are issued anew, for the same keys.
    Renew,
}

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let cx = shared.cx.clone();
    let extra = OpenApiRouter::new()
        .routes(routes!(list_certificates))
        .routes(routes!(read_certificate))
        .routes(routes!(revoke_certificate))
        .routes(routes!(resume_certificate))
        .routes(routes!(list_requests))
        .routes(routes!(read_request))
        .routes(routes!(approve_request))
        .routes(routes!(deny_request))
        .routes(routes!(list_challenges, make_challenge, change_challenges))
        .routes(routes!(read_authorities))
        .routes(routes!(roll_over))
        .routes(routes!(change_ra))
        .with_state(Arc::clone(&shared));
    causeway_mock_kit::admin::router(cx, Arc::new(Adapter(shared)), extra)
}

/// Certificates, newest first.
#[utoipa::path(get, path = "/world/certificates", params(CertificateQuery), responses((status = 200, body = Value)))]
async fn list_certificates(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<CertificateQuery>,
) -> Json<Value> {
    let authority = shared.authority().await;
    let found = authority.certificates(query.limit.unwrap_or(LISTED), |issued| {
        let of_template =
            query.template.as_deref().is_none_or(|name| issued.template.eq_ignore_ascii_case(name));
        of_template && query.name.as_deref().is_none_or(|name| is_named(issued, name))
    });
    let list: Vec<Value> = found.iter().map(|issued| document(&authority, issued, false)).collect();
    Json(json!({ "certificates": list, "issued": authority.issued_count() }))
}

fn is_named(issued: &Issued, name: &str) -> bool {
    issued.subject.contains(name) || issued.alternative_names.iter().any(|other| other.contains(name))
}

/// One certificate, with its DER.
#[utoipa::path(get, path = "/world/certificates/{serial}", responses((status = 200, body = Value)))]
async fn read_certificate(
    State(shared): State<Arc<Shared>>,
    Path(serial): Path<String>,
) -> Result<Json<Value>, AdminError> {
    let authority = shared.authority().await;
    let issued = Serial::from_hex(&serial).and_then(|serial| authority.certificate(&serial));
    issued
        .map(|issued| Json(document(&authority, &issued, true)))
        .ok_or_else(|| AdminError::not_found(format!("there is no certificate {serial:?}")))
}

/// Revokes a certificate.
#[utoipa::path(
    post, path = "/world/certificates/{serial}/revoke", request_body = Ending, responses((status = 200, body = Value))
)]
async fn revoke_certificate(
    State(shared): State<Arc<Shared>>,
    Path(serial): Path<String>,
    Json(ending): Json<Ending>,
) -> Result<Json<Value>, AdminError> {
    let authority = shared.authority().await;
    authority.revoke(&serial_of(&serial)?, ending.reason).map_err(refused)?;
    read_certificate(State(shared), Path(serial)).await
}

/// Takes back a hold.
#[utoipa::path(post, path = "/world/certificates/{serial}/resume", responses((status = 200, body = Value)))]
async fn resume_certificate(
    State(shared): State<Arc<Shared>>,
    Path(serial): Path<String>,
) -> Result<Json<Value>, AdminError> {
    shared.authority().await.resume(&serial_of(&serial)?).map_err(refused)?;
    read_certificate(State(shared), Path(serial)).await
}

/// Requests, newest first.
#[utoipa::path(get, path = "/world/requests", params(RequestQuery), responses((status = 200, body = Value)))]
async fn list_requests(State(shared): State<Arc<Shared>>, Query(query): Query<RequestQuery>) -> Json<Value> {
    let authority = shared.authority().await;
    let found = authority.requests(query.limit.unwrap_or(LISTED), |request| {
        query.state.as_deref().is_none_or(|state| request.view().state == state)
    });
    let list: Vec<RequestView> = found.iter().map(crate::core::Request::view).collect();
    Json(json!({ "requests": list }))
}

/// One request.
#[utoipa::path(get, path = "/world/requests/{id}", responses((status = 200, body = RequestView)))]
async fn read_request(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u32>,
) -> Result<Json<RequestView>, AdminError> {
    let found = shared.authority().await.request(id);
    found.map(|request| Json(request.view())).ok_or_else(|| undecidable(DecideError::Unknown))
}

/// Approves a request that waits; the certificate is issued at once.
#[utoipa::path(post, path = "/world/requests/{id}/approve", responses((status = 200, body = RequestView)))]
async fn approve_request(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u32>,
) -> Result<Json<RequestView>, AdminError> {
    shared.work(move |authority| authority.approve(id)).await.map_err(undecidable)?;
    read_request(State(shared), Path(id)).await
}

/// Refuses a request that waits.
#[utoipa::path(post, path = "/world/requests/{id}/deny", responses((status = 200, body = RequestView)))]
async fn deny_request(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u32>,
) -> Result<Json<RequestView>, AdminError> {
    shared.authority().await.deny(id).map_err(undecidable)?;
    read_request(State(shared), Path(id)).await
}

/// Challenges that are good, without themselves.
#[utoipa::path(get, path = "/world/challenges", responses((status = 200, body = Vec<ChallengeView>)))]
async fn list_challenges(State(shared): State<Arc<Shared>>) -> Json<Vec<ChallengeView>> {
    Json(shared.world().challenges.list(shared.cx.clock.now_ms()))
}

/// Makes a challenge outside NDES's cache, for one common name if it says so.
#[utoipa::path(
    post, path = "/world/challenges", request_body = NewChallenge, responses((status = 200, body = MadeChallenge))
)]
async fn make_challenge(
    State(shared): State<Arc<Shared>>,
    Json(new): Json<NewChallenge>,
) -> Result<Json<MadeChallenge>, AdminError> {
    let world = shared.world();
    let made = world.challenges.make(shared.cx.clock.now_ms(), new.minutes, new.name, new.permanent);
    let made = made.ok_or_else(|| AdminError::conflict("there are too many challenges"))?;
    Ok(Json(MadeChallenge { challenge: made.password.expose().to_owned(), until_ms: made.until_ms }))
}

/// Restarts NDES's application pool, or lets its challenges expire.
#[utoipa::path(
    put, path = "/world/challenges", request_body = ChallengeChange, responses((status = 200, body = Vec<ChallengeView>))
)]
async fn change_challenges(
    State(shared): State<Arc<Shared>>,
    Json(change): Json<ChallengeChange>,
) -> Json<Vec<ChallengeView>> {
    let world = shared.world();
    match change {
        ChallengeChange::Restart => drop(world.challenges.restart()),
        ChallengeChange::Expire => world.challenges.expire(shared.cx.clock.now_ms()),
    }
    list_challenges(State(shared)).await
}

/// The root, the generations of the issuing authority and their RA.
#[utoipa::path(get, path = "/world/authorities", responses((status = 200, body = Value)))]
async fn read_authorities(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let authority = shared.authority().await;
    Json(authorities(&authority))
}

/// Makes the next generation of the authority, which takes over at once or later; until then GetNextCACert shows it.
#[utoipa::path(post, path = "/world/rollover", request_body = Rollover, responses((status = 200, body = Value)))]
async fn roll_over(State(shared): State<Arc<Shared>>, Json(rollover): Json<Rollover>) -> Json<Value> {
    let at_ms = shared.cx.clock.now_ms().saturating_add_unsigned(rollover.in_ms);
    shared
        .work(move |authority| {
            authority.prepare_rollover(at_ms);
            // Asking carries out what is due.
            authority.hierarchy();
        })
        .await;
    read_authorities(State(shared)).await
}

/// Lets the RA's certificates expire, or renews them.
#[utoipa::path(put, path = "/world/ra", request_body = RaChange, responses((status = 200, body = Value)))]
async fn change_ra(State(shared): State<Arc<Shared>>, Json(change): Json<RaChange>) -> Json<Value> {
    shared
        .work(move |authority| match change {
            RaChange::Expire => authority.renew_ra(-1),
            RaChange::Renew => authority.renew_ra(authority.config().ra_days),
        })
        .await;
    read_authorities(State(shared)).await
}

fn serial_of(text: &str) -> Result<Serial, AdminError> {
    Serial::from_hex(text).ok_or_else(|| AdminError::not_found(format!("there is no certificate {text:?}")))
}

fn refused(error: RevokeError) -> AdminError {
    match error {
        RevokeError::Unknown => AdminError::not_found(error.to_string()),
        _ => AdminError::conflict(error.to_string()),
    }
}

fn undecidable(error: DecideError) -> AdminError {
    match error {
        DecideError::Unknown => AdminError::not_found(error.to_string()),
        DecideError::Decided => AdminError::conflict(error.to_string()),
    }
}

fn document(authority: &Authority, issued: &Issued, whole: bool) -> Value {
    let mut document = json!({
        "serial": issued.serial.to_string(),
        "request": issued.request,
        "subject": issued.subject,
        "alternative_names": issued.alternative_names,
        "template": issued.template,
        "requester": issued.requester,
        "front": issued.front,
        "generation": issued.generation,
        "issued_ms": issued.issued_ms,
        "not_before_ms": issued.not_before_ms,
        "not_after_ms": issued.not_after_ms,
        "revocation": authority.revocation(&issued.serial),
    });
    if whole {
        document["certificate"] = STANDARD.encode(&issued.certificate).into();
    }
    document
}

fn authorities(authority: &Authority) -> Value {
    let hierarchy = authority.hierarchy();
    let show = |one: &Generation| {
        json!({
            "generation": one.number,
            "certificate": STANDARD.encode(one.authority.certificate.raw()),
            "not_after_ms": one.authority.not_after_ms,
            "ra": one.ra_certificates().iter().map(|one| STANDARD.encode(one)).collect::<Vec<_>>(),
            "ra_not_after_ms": one.ra_signing.not_after_ms.min(one.ra_encryption.not_after_ms),
        })
    };
    json!({
        "root": STANDARD.encode(hierarchy.root.certificate.raw()),
        "generations": hierarchy.generations.iter().map(|one| show(one)).collect::<Vec<_>>(),
        "next": hierarchy.next.as_ref().map(|(one, at_ms)| json!({ "authority": show(one), "at_ms": at_ms })),
    })
}

struct Adapter(Arc<Shared>);

impl AdminWorld for Adapter {
    fn world(&self) -> BoxFuture<'_, Value> {
        Box::pin(async { describe(&self.0).await })
    }

    fn replace_world(&self, world: Value) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async move {
            let document: WorldDocument =
                serde_json::from_value(world).map_err(|error| AdminError::invalid("", error.to_string()))?;
            let config = changed(self.0.world().config.clone(), document);
            self.0
                .replace(config)
                .map_err(|error| AdminError::invalid("", causeway_protocol::Chain(&error).to_string()))
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async {
            self.0
                .replace(self.0.world().config.clone())
                .map_err(|error| AdminError::Failed { detail: causeway_protocol::Chain(&error).to_string() })
        })
    }

    fn health(&self) -> Value {
        let world = self.0.world();
        json!({ "personality": world.profile.name, "people": world.company.people.len() })
    }
}

fn changed(mut config: Config, document: WorldDocument) -> Config {
    let common = &mut config.common;
    common.domain = document.domain.unwrap_or_else(|| common.domain.clone());
    common.seed = document.seed.unwrap_or(common.seed);
    common.users = document.users.unwrap_or(common.users);
    config.personality = document.personality.unwrap_or(config.personality);
    let authority = &mut config.authority;
    authority.strict_sid = document.strict_sid.unwrap_or(authority.strict_sid);
    authority.default_template =
        document.default_template.unwrap_or_else(|| authority.default_template.clone());
    authority.templates = document.templates.unwrap_or_else(|| authority.templates.clone());
    config.challenge.required = document.challenge_required.unwrap_or(config.challenge.required);
    config.ndes.language = document.language.unwrap_or(config.ndes.language);
    config
}

async fn describe(shared: &Shared) -> Value {
    let world = shared.world();
    let authority = world.authority().await;
    json!({
        "personality": world.profile.name,
        "domain": world.company.domain,
        "seed": world.company.seed,
        "users": world.config.common.users,
        "strict_sid": authority.config().strict_sid,
        "challenge_required": world.config.challenge.required,
        "default_template": authority.config().default_template,
        "templates": authority.config().templates,
        "language": world.config.ndes.language,
        "name": authority.config().name,
        "issued": authority.issued_count(),
        "authorities": authorities(&authority),
    })
}
