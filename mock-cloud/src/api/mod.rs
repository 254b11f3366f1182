//! REST API under `/api/v1`: bearer token, OpenAPI document, problem documents, paged lists.

mod actions;
mod agents;
mod alerts;
mod authenticate;
mod collections;
mod compliance;
mod devices;
mod directory;
mod enrolled;
mod events;
mod extract;
mod modules;
mod problem;
mod tenants;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::limits::API_BODY_MAX_BYTES;
use crate::state::Cloud;

pub(crate) use actions::refused;
pub(crate) use agents::{AgentView, revoke_agent, view as agent_view, views as agent_views};
pub(crate) use authenticate::{Verdict, check as check_password};
pub(crate) use compliance::{confirm_held, put_rule};
pub(crate) use events::{last_seen as last_seen_event, live as live_events};
pub(crate) use extract::check_word;
pub(crate) use modules::{ModuleView, change as change_module, check_settings, views as module_views};
pub use problem::Problem;
pub(crate) use tenants::{create_tenant, new_key};

/// Path of the API on the public port.
pub const BASE: &str = "/api/v1";

#[derive(OpenApi)]
#[openapi(
    info(title = "Causeway cloud", description = "Tenants, their agents, and what agents do and know.",
         version = env!("CARGO_PKG_VERSION"), license(name = "Apache-2.0 OR MIT")),
    security(("bearer" = [])),
    modifiers(&Bearer),
    components(schemas(Problem)),
    tags(
        (name = "tenants", description = "Customers, enrolment keys, the audit log"),
        (name = "agents", description = "Agents, their health and desired config"),
        (name = "work", description = "Actions and password checks"),
        (name = "directory", description = "People, groups and units as uploaded"),
        (name = "phones", description = "Phones in mailboxes, their policies, enrolled phones and the compliance rule"),
        (name = "collection", description = "Sources, uploads and leases"),
        (name = "watching", description = "Alerts and live events"),
    )
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// All routes, with the document that describes them.
pub fn router(cloud: Arc<Cloud>) -> Router {
    let (routes, mut document) = routes().split_for_parts();
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (format!("{BASE}{path}"), item)).collect();
    let json: Arc<str> = document.to_json().expect("an OpenAPI document is plain JSON").into();
    let guarded = routes
        .fallback(|request: Request| async move { Problem::not_found("route", request.uri().path()) })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(DefaultBodyLimit::max(API_BODY_MAX_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&cloud), require_token))
        .with_state(cloud);
    let document = get(move || {
        let json = json.to_string();
        async move { ([(header::CONTENT_TYPE, "application/json")], json) }
    });
    Router::new().route(&format!("{BASE}/openapi.json"), document).nest(BASE, guarded)
}

fn routes() -> OpenApiRouter<Arc<Cloud>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::show))
        .routes(routes!(tenants::create_key))
        .routes(routes!(tenants::audit))
        .routes(routes!(tenants::verify_audit))
        .routes(routes!(agents::list))
        .routes(routes!(agents::show))
        .routes(routes!(agents::revoke))
        .routes(routes!(modules::list))
        .routes(routes!(modules::show, modules::put))
        .routes(routes!(actions::list, actions::create))
        .routes(routes!(actions::show))
        .routes(routes!(authenticate::authenticate))
        .routes(routes!(directory::users))
        .routes(routes!(directory::user))
        .routes(routes!(directory::groups))
        .routes(routes!(directory::group))
        .routes(routes!(directory::group_members))
        .routes(routes!(directory::ous))
        .routes(routes!(devices::list))
        .routes(routes!(devices::show))
        .routes(routes!(devices::policies))
        .routes(routes!(devices::policy))
        .routes(routes!(devices::organizations))
        .routes(routes!(enrolled::list, enrolled::enrol))
        .routes(routes!(enrolled::change, enrolled::remove))
        .routes(routes!(compliance::show, compliance::put))
        .routes(routes!(compliance::confirm))
        .routes(routes!(compliance::findings))
        .routes(routes!(directory::certificates))
        .routes(routes!(collections::sources))
        .routes(routes!(collections::uploads))
        .routes(routes!(collections::leases))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::ack))
        .routes(routes!(events::events))
}

async fn require_token(State(cloud): State<Arc<Cloud>>, request: Request, next: Next) -> Response {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    match token {
        Some(token) if cloud.access.allows(token) => next.run(request).await,
        _ => Problem::unauthorized().into_response(),
    }
}
