//! REST API under `/api/v1`: bearer token, OpenAPI document, problem documents, paged lists.

mod actions;
mod agents;
mod alerts;
mod authenticate;
mod certificate_profiles;
mod certificates;
mod collections;
mod compliance;
mod device;
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
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::limits::API_BODY_MAX_BYTES;
use crate::state::Cloud;
use crate::unread;

pub(crate) use actions::refused;
pub(crate) use agents::{AgentView, revoke_agent, view as agent_view, views as agent_views};
pub(crate) use authenticate::{Verdict, check as check_password};
pub(crate) use certificate_profiles::{NewProfile, put_profile};
pub(crate) use compliance::{confirm_held, put_rule};
pub(crate) use device::problem as certificate_problem;
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
        (name = "certificates", description = "Certificates of devices: profiles, requests, the inventory"),
        (name = "device", description = "What a device calls itself, with its own token: enrolling, and getting certificates"),
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
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token a device was given when it was enrolled"))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("device", SecurityScheme::Http(scheme));
    }
}

/// All routes, with the document that describes them.
pub fn router(cloud: Arc<Cloud>) -> Router {
    let (routes, mut document) = routes().split_for_parts();
    let (devices, of_devices) = device_routes().split_for_parts();
    document.merge(of_devices);
    complete(&mut document);
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (format!("{BASE}{path}"), item)).collect();
    causeway_mock_kit::admin::describe_responses(&mut document);
    let json: Arc<str> = document.to_json().expect("an OpenAPI document is plain JSON").into();
    let guarded = routes
        .fallback(|request: Request| async move { Problem::not_found("route", request.uri().path()) })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn_with_state(Arc::clone(&cloud), require_token))
        // Devices show tokens of their own.
        .merge(devices)
        .layer(DefaultBodyLimit::max(API_BODY_MAX_BYTES))
        .layer(middleware::from_fn(unread::throw_away))
        .with_state(cloud);
    let document = get(move || {
        let json = json.to_string();
        async move { ([(header::CONTENT_TYPE, "application/json")], json) }
    });
    Router::new().route(&format!("{BASE}/openapi.json"), document).nest(BASE, guarded)
}

/// Says of every operation what follows from its path and its kind: a name of its own, as many are called `list` or
/// `show`, and that whatever takes a body refuses one that is too large.
fn complete(document: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            if let Some(name) = &mut operation.operation_id {
                *name = format!("{}_{name}", group(path));
            }
            if operation.request_body.is_some() {
                let (status, response) = problem::too_large();
                operation.responses.responses.insert(status, response);
            }
        }
    }
}

/// What a path is about: `agents` of `/tenants/{tenant}/agents/{agent}`.
fn group(path: &str) -> String {
    let mut words = path.split('/').filter(|word| !word.is_empty() && !word.starts_with('{'));
    let first = words.next().unwrap_or_default();
    let group = if first == "tenants" { words.next().unwrap_or(first) } else { first };
    group.replace('-', "_")
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
        .routes(routes!(actions::create_many))
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
        .routes(routes!(enrolled::wipe))
        .routes(routes!(enrolled::token))
        .routes(routes!(certificates::list))
        .routes(routes!(certificates::show))
        .routes(routes!(certificates::chain))
        .routes(routes!(certificates::renew))
        .routes(routes!(certificates::revoke))
        .routes(routes!(certificates::requests))
        .routes(routes!(certificates::request))
        .routes(routes!(certificates::summary))
        .routes(routes!(certificate_profiles::list))
        .routes(routes!(certificate_profiles::show, certificate_profiles::put, certificate_profiles::remove))
        .routes(routes!(collections::sources))
        .routes(routes!(collections::uploads))
        .routes(routes!(collections::leases))
        .routes(routes!(alerts::list))
        .routes(routes!(alerts::ack))
        .routes(routes!(events::events))
}

fn device_routes() -> OpenApiRouter<Arc<Cloud>> {
    OpenApiRouter::new()
        .routes(routes!(device::enroll))
        .routes(routes!(device::profiles))
        .routes(routes!(device::want))
        .routes(routes!(device::show))
        .routes(routes!(device::challenge))
        .routes(routes!(device::csr))
        .routes(routes!(device::key))
        .routes(routes!(device::installed))
}

async fn require_token(State(cloud): State<Arc<Cloud>>, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        Some(token) if cloud.access.allows(token) => next.run(request).await,
        _ => Problem::unauthorized().into_response(),
    }
}

/// The bearer token of a request (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
