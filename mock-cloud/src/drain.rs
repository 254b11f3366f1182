//! Emptying a node: its agents are sent to another address before it goes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use causeway_mock_kit::admin::AdminError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::channel;
use crate::limits::{DRAIN_OVER_MAX, HOST_MAX_BYTES};
use crate::state::Cloud;

/// What `POST /world/drain` takes.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    /// Where agents shall go, as `host` or `host:port`. They follow only to hosts their own settings allow.
    pub to: String,
    /// Milliseconds over which they are spread; at most an hour. Default 0: all at once.
    #[serde(default)]
    pub over_ms: u64,
}

/// What it answers.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
pub(crate) struct Drained {
    /// Agents that are told.
    pub agents: usize,
}

pub(crate) fn routes(cloud: Arc<Cloud>) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(drain)).with_state(cloud)
}

/// Sends every connected agent to another address (`see-other-host`, RFC 6120 section 4.9.3.19).
#[utoipa::path(
    post, path = "/world/drain", request_body = Drain, responses((status = 200, body = Drained))
)]
async fn drain(
    State(cloud): State<Arc<Cloud>>,
    Json(order): Json<Drain>,
) -> Result<Json<Drained>, AdminError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if order.to.is_empty() || order.to.len() > HOST_MAX_BYTES || !order.to.chars().all(plain) {
        return Err(AdminError::invalid("/to", "write it as host or host:port"));
    }
    let over = Duration::from_millis(order.over_ms);
    if over > DRAIN_OVER_MAX {
        return Err(AdminError::invalid("/over_ms", format!("at most {}", DRAIN_OVER_MAX.as_millis())));
    }
    Ok(Json(Drained { agents: channel::drain(&cloud, &order.to, over) }))
}
