//! The admin API: what all mocks have, and the routes only an Exchange organisation needs.

use std::sync::Arc;

use axum::Router;
use causeway_mock_kit::KitContext;
use causeway_mock_kit::admin::{AdminError, AdminWorld};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;

use crate::phone::{self, Phones};
use crate::server::Shared;

pub(crate) fn router(cx: KitContext, shared: Arc<Shared>, phones: Arc<Phones>) -> Router {
    let extra = OpenApiRouter::new().merge(phone::routes(Arc::clone(&phones)));
    causeway_mock_kit::admin::router(cx, Arc::new(Adapter(shared, phones)), extra)
}

struct Adapter(Arc<Shared>, Arc<Phones>);

impl AdminWorld for Adapter {
    fn world(&self) -> BoxFuture<'_, Value> {
        Box::pin(async { json!({ "personality": self.0.config().personality }) })
    }

    fn replace_world(&self, _world: Value) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async { Err(AdminError::NotOffered { detail: "use POST /reset".to_owned() }) })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async {
            let config = self.0.config();
            self.1.clear();
            self.0
                .replace(config)
                .map_err(|error| AdminError::Failed { detail: crate::Chain(&error).to_string() })
        })
    }

    fn health(&self) -> Value {
        json!({ "personality": self.0.config().personality })
    }
}
