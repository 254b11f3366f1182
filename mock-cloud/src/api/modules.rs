//! Desired config per module.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use causeway_protocol::limits::BODY_MAX_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Problem;
use super::extract::{Body, Item, Listing, Scope, check_word};
use super::problem::Problems;
use crate::events::kinds;
use crate::state::Cloud;
use crate::store::AppliedRow;

/// What a module shall do.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewConfig {
    /// Whether the module runs at all; true when missing
    #[serde(default = "yes")]
    enabled: bool,
    /// The module's own settings. Never a credential: those stay with the agent
    #[schema(value_type = Object)]
    settings: serde_json::Map<String, Value>,
}

fn yes() -> bool {
    true
}

/// The revision a change made.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewRevision {
    /// The module
    module: String,
    /// The same as before when nothing changed
    revision: u64,
}

/// What one agent made of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AppliedView {
    /// Instance id
    pub(crate) agent: String,
    /// Host name, for people
    pub(crate) host: String,
    /// The revision it tried last
    pub(crate) revision: u64,
    /// The revision that runs, 0 for none
    pub(crate) running: u64,
    /// Why the tried one does not run: `{code, detail, remedy}`
    #[schema(value_type = Option<Object>)]
    pub(crate) error: Option<causeway_protocol::action::ErrorReport>,
}

impl AppliedView {
    /// Tells the agent from others on a host of the same name.
    pub(crate) fn short(&self) -> &str {
        self.agent.get(..6).unwrap_or(&self.agent)
    }
}

/// Desired config of a module and what each agent made of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ModuleView {
    /// The module
    pub(crate) module: String,
    /// Counts up with every change
    pub(crate) revision: u64,
    /// Whether it runs at all
    pub(crate) enabled: bool,
    /// Its settings
    #[schema(value_type = Object)]
    pub(crate) settings: Value,
    /// What each agent runs
    pub(crate) agents: Vec<AppliedView>,
}

/// Every module's desired config
#[utoipa::path(get, path = "/tenants/{tenant}/modules", tag = "agents", params(("tenant" = String, Path)),
    responses((status = 200, body = Listing<ModuleView>), Problems))]
pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
) -> Result<Json<Listing<ModuleView>>, Problem> {
    Ok(Json(Listing::whole(views(&cloud, &tenant.id).await?)))
}

/// All modules of a tenant.
///
/// # Errors
/// When the store fails.
pub(crate) async fn views(cloud: &Cloud, tenant: &str) -> Result<Vec<ModuleView>, Problem> {
    let mut applied = cloud.store.applied_configs(tenant).await?;
    let agents = cloud.store.agents(tenant, crate::limits::PAGE_MAX, None).await?;
    let hosts: HashMap<String, String> = agents
        .items
        .into_iter()
        .filter(|agent| agent.revoked_ms.is_none())
        .map(|agent| (agent.instance, agent.host))
        .collect();
    let view = |row: AppliedRow| {
        let host = hosts.get(&row.instance)?.clone();
        let AppliedRow { instance: agent, revision, running, error } = row;
        Some(AppliedView { agent, host, revision, running, error })
    };
    Ok(cloud
        .store
        .configs(tenant)
        .await?
        .into_iter()
        .map(|config| ModuleView {
            agents: applied.remove(&config.module).unwrap_or_default().into_iter().filter_map(view).collect(),
            module: config.module,
            revision: config.revision,
            enabled: config.enabled,
            settings: config.settings,
        })
        .collect())
}

/// Desired config of one module and what each agent made of it
#[utoipa::path(get, path = "/tenants/{tenant}/modules/{module}", tag = "agents",
    params(("tenant" = String, Path), ("module" = String, Path)),
    responses((status = 200, body = ModuleView), Problems))]
pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(module): Item,
) -> Result<Json<ModuleView>, Problem> {
    let mut views = views(&cloud, &tenant.id).await?;
    let place = views.iter().position(|view| view.module == module);
    place.map(|place| Json(views.swap_remove(place))).ok_or_else(|| Problem::not_found("module", &module))
}

/// Change a module's desired config; agents that are online get it at once
#[utoipa::path(put, path = "/tenants/{tenant}/modules/{module}", tag = "agents",
    params(("tenant" = String, Path), ("module" = String, Path)), request_body = NewConfig,
    responses((status = 200, body = NewRevision), Problems))]
pub(super) async fn put(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(module): Item,
    Body(new): Body<NewConfig>,
) -> Result<Json<NewRevision>, Problem> {
    check_word("path.module", &module)?;
    let settings = Value::Object(new.settings);
    let revision = change(&cloud, &tenant.id, &module, new.enabled, settings, "api").await?;
    Ok(Json(NewRevision { module, revision }))
}

/// Stores a config, announces it, and sends it to the agents.
///
/// # Errors
/// Settings that cannot be, or a store that fails.
pub(crate) async fn change(
    cloud: &Arc<Cloud>,
    tenant: &str,
    module: &str,
    enabled: bool,
    settings: Value,
    actor: &str,
) -> Result<u64, Problem> {
    check_settings("settings", &settings)?;
    let before = cloud.store.config(tenant, module).await?.map_or(0, |config| config.revision);
    let revision = cloud.store.put_config(tenant, module, enabled, settings, actor, cloud.now_ms()).await?;
    if revision != before {
        let body = serde_json::json!({ "module": module, "revision": revision, "enabled": enabled });
        cloud.events.emit(tenant, kinds::CONFIG_CHANGED, body);
        crate::dispatch::push_config(cloud, tenant, module).await;
    }
    Ok(revision)
}

/// Settings fit one stanza and hold no credential.
///
/// # Errors
/// Names the key.
pub(crate) fn check_settings(path: &str, settings: &Value) -> Result<(), Problem> {
    if settings.to_string().len() > BODY_MAX_BYTES {
        return Err(Problem::invalid(path, format!("larger than {BODY_MAX_BYTES} bytes")));
    }
    match credential_key(path, settings) {
        Some(key) => Err(Problem::invalid(
            key,
            "credentials never pass through the cloud; give it to the agent with `causeway-agent configure \
             --secret-from-stdin`",
        )),
        None => Ok(()),
    }
}

fn credential_key(path: &str, value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => map.iter().find_map(|(key, value)| {
            let here = format!("{path}.{key}");
            let lower = key.to_lowercase();
            let is_credential = ["password", "secret", "private_key", "passphrase"]
                .iter()
                .any(|word| lower == *word || lower.ends_with(&format!("_{word}")));
            if is_credential && !value.is_null() { Some(here) } else { credential_key(&here, value) }
        }),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(n, item)| credential_key(&format!("{path}[{n}]"), item))
        }
        _ => None,
    }
}
