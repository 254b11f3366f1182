//! The routes all mocks share.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, OpenApi as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{AdminError, AdminWorld, Json, Path, Problem, Query};
use crate::KitContext;
use crate::fault::{FaultId, Installed, Rule};
use crate::journal::Entry;
use crate::limits::JOURNAL_WAIT_MAX;

/// What `GET /journal` returns.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct JournalPage {
    /// Entries with a number above `after`, oldest first.
    pub entries: Vec<Entry>,
    /// Number of the newest entry there is.
    pub last_seq: u64,
    /// Entries lost since the start because the journal was full.
    pub dropped: u64,
}

/// What `POST /faults` returns.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct NewFault {
    /// Number of the new rule.
    pub id: FaultId,
}

/// What `POST /clock/advance` takes.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Advance {
    /// Milliseconds to move the clock forward.
    pub ms: u64,
}

/// The mock's clock.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub struct ClockView {
    /// Unix milliseconds.
    pub now_ms: i64,
    /// True when time flows by itself.
    pub automatic: bool,
}

#[derive(Deserialize, IntoParams, Default)]
#[serde(default, deny_unknown_fields)]
struct JournalQuery {
    /// Only entries with a higher number.
    after: u64,
    /// Milliseconds to wait for such an entry when there is none yet; at most 30000.
    wait_ms: u64,
}

#[derive(Clone)]
struct Api {
    cx: KitContext,
    world: Arc<dyn AdminWorld>,
}

#[derive(utoipa::OpenApi)]
struct Document;

pub(super) fn routes(cx: KitContext, world: Arc<dyn AdminWorld>) -> OpenApiRouter {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(health))
        .routes(routes!(reset))
        .routes(routes!(get_world, put_world))
        .routes(routes!(get_journal, clear_journal))
        .routes(routes!(list_faults, add_fault, clear_faults))
        .routes(routes!(remove_fault))
        .routes(routes!(get_clock))
        .routes(routes!(advance_clock))
        .with_state(Api { cx, world })
}

/// Is the mock up
#[utoipa::path(get, path = "/health", tag = "mock", responses((status = 200, body = Object)))]
async fn health(State(api): State<Api>) -> Json<Value> {
    let mut health = json!({
        "status": "ok",
        "service": api.cx.service,
        "version": env!("CARGO_PKG_VERSION"),
    });
    if let (Value::Object(all), Value::Object(own)) = (&mut health, api.world.health()) {
        all.extend(own);
    }
    Json(health)
}

/// Back to the start: the first world, no faults, an empty journal
#[utoipa::path(post, path = "/reset", tag = "mock",
    responses((status = 204), (status = 500, body = Problem, content_type = "application/problem+json")))]
async fn reset(State(api): State<Api>) -> Result<StatusCode, AdminError> {
    api.world.reset().await?;
    api.cx.faults.clear();
    api.cx.journal.clear();
    Ok(StatusCode::NO_CONTENT)
}

/// The whole world
#[utoipa::path(get, path = "/world", tag = "world", responses((status = 200, body = Object)))]
async fn get_world(State(api): State<Api>) -> Json<Value> {
    Json(api.world.world().await)
}

/// Replace the whole world, all or nothing
#[utoipa::path(put, path = "/world", tag = "world", request_body = Object,
    responses((status = 204), (status = 400, body = Problem, content_type = "application/problem+json")))]
async fn put_world(State(api): State<Api>, Json(world): Json<Value>) -> Result<StatusCode, AdminError> {
    api.world.replace_world(world).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the mock received, optionally waiting for something new
#[utoipa::path(get, path = "/journal", tag = "journal", params(JournalQuery),
    responses((status = 200, body = JournalPage), (status = 400, body = Problem, content_type = "application/problem+json")))]
async fn get_journal(State(api): State<Api>, Query(query): Query<JournalQuery>) -> Json<JournalPage> {
    let wait = Duration::from_millis(query.wait_ms).min(JOURNAL_WAIT_MAX);
    if !wait.is_zero() {
        // Running out of time is not an error here: the page is then empty.
        let _ = api.cx.journal.wait(query.after, wait, |_| true).await;
    }
    let journal = &api.cx.journal;
    Json(JournalPage {
        entries: journal.after(query.after),
        last_seq: journal.last_seq(),
        dropped: journal.dropped(),
    })
}

/// Forget what was received
#[utoipa::path(delete, path = "/journal", tag = "journal", responses((status = 204)))]
async fn clear_journal(State(api): State<Api>) -> StatusCode {
    api.cx.journal.clear();
    StatusCode::NO_CONTENT
}

/// The fault rules in order, with their counts
#[utoipa::path(get, path = "/faults", tag = "faults", responses((status = 200, body = Vec<Installed>)))]
async fn list_faults(State(api): State<Api>) -> Json<Vec<Installed>> {
    Json(api.cx.faults.list())
}

/// Install a fault rule after the existing ones
#[utoipa::path(post, path = "/faults", tag = "faults", request_body = Rule,
    responses((status = 201, body = NewFault), (status = 400, body = Problem, content_type = "application/problem+json"),
              (status = 409, body = Problem, content_type = "application/problem+json")))]
async fn add_fault(
    State(api): State<Api>,
    Json(rule): Json<Rule>,
) -> Result<(StatusCode, Json<NewFault>), AdminError> {
    let id = api.cx.faults.try_add(rule).map_err(|error| AdminError::conflict(error.to_string()))?;
    Ok((StatusCode::CREATED, Json(NewFault { id })))
}

/// Remove every fault rule
#[utoipa::path(delete, path = "/faults", tag = "faults", responses((status = 204)))]
async fn clear_faults(State(api): State<Api>) -> StatusCode {
    api.cx.faults.clear();
    StatusCode::NO_CONTENT
}

/// Remove one fault rule
#[utoipa::path(delete, path = "/faults/{id}", tag = "faults", params(("id" = u64, Path, description = "Number of the rule")),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn remove_fault(State(api): State<Api>, Path(number): Path<u64>) -> Result<StatusCode, AdminError> {
    if api.cx.faults.remove(FaultId(number)) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(AdminError::not_found(format!("there is no fault rule {number}")))
    }
}

/// The mock's clock
#[utoipa::path(get, path = "/clock", tag = "clock", responses((status = 200, body = ClockView)))]
async fn get_clock(State(api): State<Api>) -> Json<ClockView> {
    Json(clock_view(&api))
}

/// Move the mock's clock forward
#[utoipa::path(post, path = "/clock/advance", tag = "clock", request_body = Advance,
    responses((status = 200, body = ClockView), (status = 400, body = Problem, content_type = "application/problem+json")))]
async fn advance_clock(
    State(api): State<Api>,
    Json(advance): Json<Advance>,
) -> Result<Json<ClockView>, AdminError> {
    let by = Duration::from_millis(advance.ms);
    api.cx.clock.try_advance(by).map_err(|error| AdminError::invalid("/ms", error.to_string()))?;
    Ok(Json(clock_view(&api)))
}

fn clock_view(api: &Api) -> ClockView {
    ClockView { now_ms: api.cx.clock.now_ms(), automatic: api.cx.clock.is_automatic() }
}
