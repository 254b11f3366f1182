//! Actions: order, look, wait.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use causeway_protocol::action::{ErrorReport, Status};
use causeway_protocol::limits::BODY_MAX_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::extract::{Body, Item, Listing, Params, Scope, check_word, limit, number_after};
use super::problem::Problems;
use crate::dispatch::{self, DispatchError};
use crate::limits::{ACTION_TTL_DEFAULT, ACTION_TTL_MAX, BATCH_MAX, KEY_MAX_BYTES, WAIT_MAX};
use crate::state::Cloud;
use crate::store::{ActionFilter, ActionRow, NewAction, TimelineRow};

/// An order.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    /// Kind of the module that must act, for example `user_visibility`
    module: String,
    /// What to do: a lower snake case verb, for example `sync_now`
    action: String,
    /// What to do it to; its shape belongs to the module
    #[serde(default)]
    target: Value,
    /// How to do it; its shape belongs to the module. `sync_now` takes `{"allow_mass_delete": true}` to confirm
    /// deletions that the guard has held, and `{"dry_run": true}`
    #[serde(default)]
    params: Value,
    /// The same key with the same order gives the same id; with another order it is refused. 1 to 200 bytes without control
    /// characters
    #[serde(default)]
    idempotency_key: Option<String>,
    /// Milliseconds until it is over, whatever happened; an hour when missing, at most 30 days
    #[serde(default)]
    ttl_ms: Option<u64>,
}

/// An accepted order.
#[derive(Serialize, ToSchema)]
pub(crate) struct OrderId {
    /// Names the action for ever
    id: String,
}

/// The same order for many targets.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderForMany {
    /// Kind of the module that must act
    module: String,
    /// What to do
    action: String,
    /// What to do it to, 1 to 1,000 times; each becomes an action of its own
    targets: Vec<Value>,
    /// How to do it
    #[serde(default)]
    params: Value,
    /// The same key with the same targets in the same order gives the same ids; with others, fewer or more it is refused
    #[serde(default)]
    idempotency_key: Option<String>,
    /// Milliseconds until it is over, whatever happened; an hour when missing, at most 30 days
    #[serde(default)]
    ttl_ms: Option<u64>,
}

/// Accepted orders.
#[derive(Serialize, ToSchema)]
pub(crate) struct OrderIds {
    /// In the order of the targets
    ids: Vec<String>,
}

/// A line of the timeline.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct StepView {
    /// Unix milliseconds
    pub(crate) at_ms: i64,
    /// `queued`, `dispatched`, `accepted`, `running`, `success`, `failure`, `duplicate_result` ...
    pub(crate) event: String,
    /// Instance id of the agent concerned
    pub(crate) agent: Option<String>,
    /// A few words for people
    pub(crate) detail: String,
}

/// An action.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ActionView {
    /// Names the action for ever
    pub(crate) id: String,
    /// Kind of the module
    pub(crate) module: String,
    /// What to do
    pub(crate) action: String,
    /// What to do it to
    pub(crate) target: Value,
    /// How to do it
    pub(crate) params: Value,
    /// `pending`, `success` or `failure`; the last two never change again
    #[schema(value_type = String)]
    pub(crate) status: Status,
    /// What came of it
    pub(crate) result: Option<Value>,
    /// Why it failed: `{code, detail, remedy}`
    #[schema(value_type = Option<Object>)]
    pub(crate) error: Option<ErrorReport>,
    /// Instance id of the agent that has it or had it last
    pub(crate) agent: Option<String>,
    /// Dispatches so far
    pub(crate) attempts: u32,
    /// Unix milliseconds of the order
    pub(crate) created_ms: i64,
    /// Unix milliseconds after which it is over
    pub(crate) deadline_ms: i64,
    /// Unix milliseconds of its end
    pub(crate) finished_ms: Option<i64>,
    /// What happened, oldest first; empty in lists
    pub(crate) timeline: Vec<StepView>,
}

/// Puts an action together for the caller.
pub(crate) fn view(row: ActionRow, timeline: Vec<TimelineRow>) -> ActionView {
    let step = |TimelineRow { at_ms, event, agent, detail }| StepView { at_ms, event, agent, detail };
    ActionView {
        id: row.id,
        module: row.module,
        action: row.action,
        target: row.target,
        params: row.params,
        status: row.status,
        result: row.result,
        error: row.error,
        agent: row.agent,
        attempts: row.attempts,
        created_ms: row.created_ms,
        deadline_ms: row.deadline_ms,
        finished_ms: row.finished_ms,
        timeline: timeline.into_iter().map(step).collect(),
    }
}

/// Which actions.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ActionQuery {
    /// Only `pending`, `success` or `failure`
    #[param(value_type = Option<String>)]
    status: Option<Status>,
    /// Only of this module
    module: Option<String>,
    /// Only last given to this agent
    agent: Option<String>,
    /// Only about the phone with this id
    key: Option<String>,
    /// Rows on the page, 1 to 1,000; 100 when missing
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before
    after: Option<String>,
}

/// How long to wait.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// Milliseconds to wait for the end of the action, at most 60,000; the answer comes as soon as it has ended
    wait_ms: u64,
}

/// Actions, newest first
#[utoipa::path(get, path = "/tenants/{tenant}/actions", tag = "work",
    params(("tenant" = String, Path), ActionQuery),
    responses((status = 200, body = Listing<ActionView>), Problems))]
pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<ActionQuery>,
) -> Result<Json<Listing<ActionView>>, Problem> {
    let before = number_after(query.after.as_deref())?;
    let filter =
        ActionFilter { status: query.status, module: query.module, agent: query.agent, key: query.key };
    let page = cloud.store.actions(&tenant.id, filter, limit(query.limit)?, before).await?;
    Ok(Json(Listing::of(page, |row| view(row, Vec::new()))))
}

/// Order an action; it is on the disk when this answers
#[utoipa::path(post, path = "/tenants/{tenant}/actions", tag = "work", params(("tenant" = String, Path)),
    request_body = Order,
    responses((status = 202, body = OrderId), Problems,
              (status = 409, body = Problem, content_type = "application/problem+json",
               description = "The idempotency key was used for another order")))]
pub(super) async fn create(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Body(order): Body<Order>,
) -> Result<(StatusCode, HeaderMap, Json<OrderId>), Problem> {
    let id = dispatch::submit(&cloud, &tenant.id, read(order, "api")?).await.map_err(refused)?;
    let mut headers = HeaderMap::new();
    let location = format!("{}/tenants/{}/actions/{id}", super::BASE, tenant.id);
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    Ok((StatusCode::ACCEPTED, headers, Json(OrderId { id })))
}

/// Order the same for many targets; all of it is on the disk when this answers, or nothing
#[utoipa::path(post, path = "/tenants/{tenant}/actions/batch", tag = "work", params(("tenant" = String, Path)),
    request_body = OrderForMany,
    responses((status = 202, body = OrderIds), Problems,
              (status = 409, body = Problem, content_type = "application/problem+json",
               description = "The idempotency key was used for another order")))]
pub(super) async fn create_many(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Body(many): Body<OrderForMany>,
) -> Result<(StatusCode, Json<OrderIds>), Problem> {
    let OrderForMany { module, action, targets, params, idempotency_key, ttl_ms } = many;
    if targets.is_empty() || targets.len() > BATCH_MAX {
        return Err(Problem::invalid("targets", format!("1 to {BATCH_MAX}")));
    }
    check_key(idempotency_key.as_deref())?;
    let order = |target: Value| {
        let (module, action, params) = (module.clone(), action.clone(), params.clone());
        read(Order { module, action, target, params, idempotency_key: None, ttl_ms }, "api")
    };
    let new = targets.into_iter().map(order).collect::<Result<Vec<_>, _>>()?;
    let ids = dispatch::submit_many(&cloud, &tenant.id, idempotency_key, new).await.map_err(refused)?;
    Ok((StatusCode::ACCEPTED, Json(OrderIds { ids })))
}

/// Checks an order.
fn read(order: Order, actor: &str) -> Result<NewAction, Problem> {
    check_word("module", &order.module)?;
    check_word("action", &order.action)?;
    if order.target.to_string().len() + order.params.to_string().len() > BODY_MAX_BYTES / 2 {
        return Err(Problem::invalid(
            "params",
            format!("with target larger than {} bytes", BODY_MAX_BYTES / 2),
        ));
    }
    check_key(order.idempotency_key.as_deref())?;
    let ttl = order.ttl_ms.map_or(ACTION_TTL_DEFAULT, Duration::from_millis);
    if ttl.is_zero() || ttl > ACTION_TTL_MAX {
        return Err(Problem::invalid("ttl_ms", format!("between 1 and {}", ACTION_TTL_MAX.as_millis())));
    }
    Ok(NewAction {
        module: order.module,
        action: order.action,
        target: order.target,
        params: order.params,
        idempotency_key: order.idempotency_key,
        ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
        actor: actor.to_owned(),
        reason: String::new(),
    })
}

/// The store joins keys and numbers by a control character.
fn check_key(key: Option<&str>) -> Result<(), Problem> {
    match key {
        Some(key) if key.is_empty() || key.len() > KEY_MAX_BYTES || key.chars().any(char::is_control) => {
            let detail = format!("1 to {KEY_MAX_BYTES} bytes without control characters");
            Err(Problem::invalid("idempotency_key", detail))
        }
        _ => Ok(()),
    }
}

/// Why dispatch did not take it, for the caller.
pub(crate) fn refused(error: DispatchError) -> Problem {
    match error {
        DispatchError::KeyReused { id } => Problem::conflict(
            "idempotency_key_reused",
            format!("this idempotency key belongs to action {id}, which is another order"),
        ),
        other => Problem::internal(&other),
    }
}

/// One action with its timeline, at once or when it has ended
#[utoipa::path(get, path = "/tenants/{tenant}/actions/{action}", tag = "work",
    params(("tenant" = String, Path), ("action" = String, Path), WaitQuery),
    responses((status = 200, body = ActionView), Problems))]
pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(action): Item,
    Params(query): Params<WaitQuery>,
) -> Result<Json<ActionView>, Problem> {
    let wait = Duration::from_millis(query.wait_ms).min(WAIT_MAX);
    let until = tokio::time::Instant::now() + wait;
    let watch = cloud.actions_changed.watch(&action);
    loop {
        let changed = watch.next_change();
        let found = cloud.store.action(&tenant.id, &action).await?;
        let (row, timeline) = found.ok_or_else(|| Problem::not_found("action", &action))?;
        let over = row.status.is_terminal() || wait.is_zero();
        if over || tokio::time::timeout_at(until, changed).await.is_err() {
            return Ok(Json(view(row, timeline)));
        }
    }
}
