//! Alerts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::extract::{Item, Listing, Params, Scope, limit, number_after};
use super::problem::Problems;
use crate::state::Cloud;
use crate::store::Alert;

/// State of an alert.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AlertState {
    Open,
    Closed,
}

/// Which alerts.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AlertQuery {
    /// Only open or only closed ones
    #[param(inline)]
    state: Option<AlertState>,
    /// Rows on the page, 1 to 1,000; 100 when missing
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before
    after: Option<String>,
}

/// Alerts, newest first
#[utoipa::path(get, path = "/tenants/{tenant}/alerts", tag = "watching",
    params(("tenant" = String, Path), AlertQuery),
    responses((status = 200, body = Listing<Alert>), Problems))]
pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<AlertQuery>,
) -> Result<Json<Listing<Alert>>, Problem> {
    let before = number_after(query.after.as_deref())?;
    let open = query.state.map(|state| state == AlertState::Open);
    Ok(Json(cloud.store.alerts(&tenant.id, open, limit(query.limit)?, before).await?.into()))
}

/// Take notice of an alert; it stays open until the matter is over
#[utoipa::path(post, path = "/tenants/{tenant}/alerts/{alert}/ack", tag = "watching",
    params(("tenant" = String, Path), ("alert" = i64, Path)),
    responses((status = 200, body = Alert), Problems))]
pub(super) async fn ack(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(alert): Item,
) -> Result<Json<Alert>, Problem> {
    let missing = || Problem::not_found("alert", &alert);
    let id: i64 = alert.parse().map_err(|_| missing())?;
    let found = cloud.store.ack_alert(&tenant.id, id, "api", cloud.now_ms()).await?;
    found.map(Json).ok_or_else(missing)
}
