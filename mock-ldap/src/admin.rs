//! The admin API: what all mocks have, and the routes only a directory needs.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use causeway_mock_kit::KitContext;
use causeway_mock_kit::admin::{AdminError, AdminWorld, Json, Path};
use causeway_mock_kit::world::Company;
use causeway_protocol::Chain;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{Policies, Replication, ServerConfig};
use crate::dit::AccountPolicy;
use crate::server::{Inner, World, apply_ldif};

/// People listed in the world document; the directory itself is read over LDAP.
const PEOPLE_LISTED_MAX: usize = 250;

/// The world a `PUT /world` describes; absent fields stay as they are.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct WorldDocument {
    personality: Option<String>,
    domain: Option<String>,
    seed: Option<u64>,
    users: Option<usize>,
    servers: Option<Vec<ServerConfig>>,
    policies: Option<Policies>,
    accounts: Option<AccountPolicy>,
    /// LDIF applied to the generated world.
    ldif: Option<String>,
}

/// The lag of one server.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Lag {
    /// Milliseconds of the mock's clock after which a change made elsewhere arrives; absent: only when told.
    #[serde(default)]
    pub lag_ms: Option<u64>,
}

/// What `POST /world/ldif` takes.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct LdifText {
    /// Content or change records, applied with the rights of the manager.
    pub ldif: String,
}

/// What `PUT /world/servers/{name}/state` takes.
#[derive(Serialize, Deserialize, ToSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct ServerState {
    /// What the rootDSE says in isSynchronized.
    pub synchronized: bool,
}

pub(crate) fn router(cx: KitContext, inner: Arc<Inner>) -> Router {
    let extra = OpenApiRouter::new()
        .routes(routes!(read_policies, write_policies))
        .routes(routes!(replicate))
        .routes(routes!(set_lag))
        .routes(routes!(set_state))
        .routes(routes!(restore))
        .routes(routes!(add_ldif))
        .with_state(Arc::clone(&inner));
    causeway_mock_kit::admin::router(cx, Arc::new(Adapter(inner)), extra)
}

/// The policies in force, as set; absent values are the personality's.
#[utoipa::path(get, path = "/world/policies", responses((status = 200, body = Policies)))]
async fn read_policies(State(inner): State<Arc<Inner>>) -> Json<Policies> {
    Json(inner.world().config.policies)
}

/// Puts other policies in force, for open connections too.
#[utoipa::path(put, path = "/world/policies", request_body = Policies, responses((status = 200, body = Policies)))]
async fn write_policies(State(inner): State<Arc<Inner>>, Json(policies): Json<Policies>) -> Json<Policies> {
    inner.set_policies(policies.clone());
    Json(policies)
}

/// Delivers every change to every server now.
#[utoipa::path(post, path = "/world/replicate", responses((status = 200, body = Value)))]
async fn replicate(State(inner): State<Arc<Inner>>) -> Json<Value> {
    inner.shared.directory.load().replicate_now();
    Json(servers(&inner))
}

/// Sets how long changes take to reach a server.
#[utoipa::path(put, path = "/world/servers/{name}/lag", request_body = Lag, responses((status = 200, body = Lag)))]
async fn set_lag(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<String>,
    Json(lag): Json<Lag>,
) -> Result<Json<Lag>, AdminError> {
    let known = inner.shared.directory.load().set_lag(&name, lag.lag_ms.map(Duration::from_millis));
    known.then_some(Json(lag)).ok_or_else(|| no_server(&name))
}

/// Makes a server say that it is, or is not, synchronized.
#[utoipa::path(
    put, path = "/world/servers/{name}/state", request_body = ServerState, responses((status = 200, body = ServerState))
)]
async fn set_state(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<String>,
    Json(state): Json<ServerState>,
) -> Result<Json<ServerState>, AdminError> {
    let server = inner.shared.directory.load().server(&name).ok_or_else(|| no_server(&name))?;
    server.set_synchronized(state.synchronized);
    Ok(Json(state))
}

/// Gives a server a new invocation id, as a restore from backup does: cursors of the old one are void.
#[utoipa::path(post, path = "/world/servers/{name}/restore", responses((status = 200, body = Value)))]
async fn restore(
    State(inner): State<Arc<Inner>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, AdminError> {
    let server = inner.shared.directory.load().server(&name).ok_or_else(|| no_server(&name))?;
    server.set_invocation_id(*uuid::Uuid::new_v4().as_bytes());
    Ok(Json(servers(&inner)))
}

/// Applies LDIF records to the first server, up to the first that is refused.
#[utoipa::path(post, path = "/world/ldif", request_body = LdifText, responses((status = 200, body = Value)))]
async fn add_ldif(
    State(inner): State<Arc<Inner>>,
    Json(text): Json<LdifText>,
) -> Result<Json<Value>, AdminError> {
    let directory = inner.shared.directory.load_full();
    let applied = apply_ldif(&directory, &text.ldif)
        .map_err(|error| AdminError::invalid("/ldif", Chain(&error).to_string()))?;
    Ok(Json(json!({ "applied": applied })))
}

fn no_server(name: &str) -> AdminError {
    AdminError::not_found(format!("there is no server {name:?}"))
}

struct Adapter(Arc<Inner>);

impl AdminWorld for Adapter {
    fn world(&self) -> BoxFuture<'_, Value> {
        Box::pin(async { describe(&self.0) })
    }

    fn replace_world(&self, world: Value) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async move {
            let document: WorldDocument =
                serde_json::from_value(world).map_err(|error| AdminError::invalid("", error.to_string()))?;
            let ldif = document.ldif.clone();
            self.0
                .replace(changed(self.0.world(), document)?, ldif.as_deref())
                .map_err(|error| AdminError::invalid("", Chain(&error).to_string()))?;
            Ok(())
        })
    }

    fn reset(&self) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async {
            self.0.reset().map_err(|error| AdminError::Failed { detail: Chain(&error).to_string() })
        })
    }

    fn health(&self) -> Value {
        let directory = self.0.shared.directory.load();
        json!({ "personality": directory.personality().name, "servers": servers(&self.0) })
    }
}

fn changed(mut world: World, document: WorldDocument) -> Result<World, AdminError> {
    let config = &mut world.config;
    let common = &mut config.common;
    if let Some(personality) = document.personality {
        config.personality = personality;
    }
    common.domain = document.domain.unwrap_or_else(|| common.domain.clone());
    common.seed = document.seed.unwrap_or(common.seed);
    common.users = document.users.unwrap_or(common.users);
    config.servers = document.servers.unwrap_or_else(|| config.servers.clone());
    config.policies = document.policies.unwrap_or_else(|| config.policies.clone());
    config.accounts = document.accounts.unwrap_or_else(|| config.accounts.clone());
    let company = config.common.company().map_err(|error| AdminError::invalid("", error.to_string()))?;
    world.people = Arc::new(Company::generate(&company));
    Ok(world)
}

fn describe(inner: &Inner) -> Value {
    let World { config, people } = inner.world();
    let listed: Vec<Value> = people
        .people
        .iter()
        .take(PEOPLE_LISTED_MAX)
        .map(|person| {
            json!({
                "login": person.login,
                "display_name": person.display_name,
                "mail": person.mail,
                "department": person.department,
                "state": format!("{:?}", person.state),
            })
        })
        .collect();
    json!({
        "personality": config.personality,
        "domain": config.common.domain,
        "seed": config.common.seed,
        "users": config.common.users,
        "groups": people.groups.len(),
        "servers": servers(inner),
        "policies": config.policies,
        "accounts": config.accounts,
        "people": listed,
    })
}

fn servers(inner: &Inner) -> Value {
    let directory = inner.shared.directory.load();
    let config = inner.world().config;
    directory
        .servers()
        .iter()
        .map(|server| {
            let configured = config.servers.iter().find(|configured| configured.name == server.name());
            json!({
                "name": server.name(),
                "highest_usn": server.highest_usn(),
                "invocation_id": uuid::Uuid::from_bytes_le(server.invocation_id()),
                "replication": configured.map_or(Replication::LagMs(0), |configured| configured.replication),
            })
        })
        .collect()
}
