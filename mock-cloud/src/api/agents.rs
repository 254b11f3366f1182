//! Agents: who they are, how they are, and the end of one.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use causeway_protocol::health::ModuleHealth;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Problem;
use super::extract::{Item, Listing, PageQuery, Params, Scope, limit};
use super::problem::Problems;
use crate::events::kinds;
use crate::pki::AgentIdentity;
use crate::state::Cloud;
use crate::store::{AgentRow, Page};

/// An agent.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AgentView {
    /// Its instance id
    pub(crate) id: String,
    /// Host name, for people
    pub(crate) host: String,
    /// Whether its session counts now
    pub(crate) online: bool,
    /// Whether it was revoked; it cannot come back
    pub(crate) revoked: bool,
    /// Version of the agent, empty before its first session
    pub(crate) version: String,
    /// Operating system and architecture
    pub(crate) os: String,
    /// Grows with every session
    pub(crate) session_epoch: u64,
    /// Unix milliseconds of its last sign of life, 0 for none
    pub(crate) last_seen_ms: i64,
    /// Unix milliseconds of its enrolment
    pub(crate) enrolled_ms: i64,
    /// Unix milliseconds of its certificate's end
    pub(crate) certificate_expires_ms: i64,
    /// Requests and actions that wait for its answer
    pub(crate) outstanding: u32,
    /// Reports that wait in its outbox
    pub(crate) outbox: u64,
    /// Resident memory in bytes, 0 where unknown
    pub(crate) rss_bytes: u64,
    /// Unix milliseconds of its last health report, 0 for none
    pub(crate) health_ms: i64,
    /// Health per module
    #[schema(value_type = Vec<Object>)]
    pub(crate) modules: Vec<ModuleHealth>,
    /// Revision that runs, by module
    #[schema(value_type = Object)]
    pub(crate) revisions: Value,
}

impl AgentView {
    /// Puts together what is stored and what the session knows.
    pub(crate) fn new(
        cloud: &Cloud,
        tenant: &str,
        row: AgentRow,
        revisions: &HashMap<String, serde_json::Map<String, Value>>,
    ) -> Self {
        let presence = cloud.sessions.presence(tenant, &row.instance);
        let stored = revisions.get(&row.instance).cloned().unwrap_or_default();
        let running = presence.as_ref().map(|presence| serde_json::json!(presence.running));
        let health = presence.as_ref().and_then(|presence| presence.health.clone()).unwrap_or(row.health);
        Self {
            online: presence.is_some(),
            revoked: row.revoked_ms.is_some(),
            session_epoch: presence.as_ref().map_or(row.session_epoch, |presence| presence.session_epoch),
            last_seen_ms: presence.as_ref().map_or(row.last_seen_ms, |presence| presence.last_seen_ms),
            outstanding: presence.as_ref().map_or(0, |presence| presence.outstanding),
            revisions: running.unwrap_or(Value::Object(stored)),
            outbox: health.outbox,
            rss_bytes: health.rss_bytes,
            modules: health.modules,
            id: row.instance,
            host: row.host,
            version: row.version,
            os: row.os,
            enrolled_ms: row.enrolled_ms,
            certificate_expires_ms: row.certificate_expires_ms,
            health_ms: row.health_ms,
        }
    }
}

/// One page of agents.
///
/// # Errors
/// When the store fails.
pub(crate) async fn views(
    cloud: &Cloud,
    tenant: &str,
    limit: usize,
    after: Option<String>,
) -> Result<Page<AgentView>, Problem> {
    let revisions = revisions(cloud, tenant).await?;
    let page = cloud.store.agents(tenant, limit, after).await?;
    let view = |row| AgentView::new(cloud, tenant, row, &revisions);
    Ok(Page { items: page.items.into_iter().map(view).collect(), next: page.next })
}

/// One agent.
///
/// # Errors
/// When the store fails.
pub(crate) async fn view(cloud: &Cloud, tenant: &str, row: AgentRow) -> Result<AgentView, Problem> {
    Ok(AgentView::new(cloud, tenant, row, &revisions(cloud, tenant).await?))
}

/// Revision that ran last, by agent and module.
async fn revisions(
    cloud: &Cloud,
    tenant: &str,
) -> Result<HashMap<String, serde_json::Map<String, Value>>, Problem> {
    let mut by_agent: HashMap<String, serde_json::Map<String, Value>> = HashMap::new();
    for (module, rows) in cloud.store.applied_configs(tenant).await? {
        for row in rows {
            by_agent.entry(row.instance).or_default().insert(module.clone(), row.running.into());
        }
    }
    Ok(by_agent)
}

/// Agents by instance id
#[utoipa::path(get, path = "/tenants/{tenant}/agents", tag = "agents",
    params(("tenant" = String, Path), PageQuery),
    responses((status = 200, body = Listing<AgentView>), Problems))]
pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(page): Params<PageQuery>,
) -> Result<Json<Listing<AgentView>>, Problem> {
    Ok(Json(views(&cloud, &tenant.id, limit(page.limit)?, page.after).await?.into()))
}

/// One agent with the health of its modules
#[utoipa::path(get, path = "/tenants/{tenant}/agents/{agent}", tag = "agents",
    params(("tenant" = String, Path), ("agent" = String, Path)),
    responses((status = 200, body = AgentView), Problems))]
pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(agent): Item,
) -> Result<Json<AgentView>, Problem> {
    let row =
        cloud.store.agent(&tenant.id, &agent).await?.ok_or_else(|| Problem::not_found("agent", &agent))?;
    Ok(Json(view(&cloud, &tenant.id, row).await?))
}

/// Revoke an agent for ever: its session ends within ten seconds and its certificate is refused from then on
#[utoipa::path(post, path = "/tenants/{tenant}/agents/{agent}/revoke", tag = "agents",
    params(("tenant" = String, Path), ("agent" = String, Path)), responses((status = 204), Problems))]
pub(super) async fn revoke(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(agent): Item,
) -> Result<StatusCode, Problem> {
    revoke_agent(&cloud, &tenant.id, &agent, "api").await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes and announces it; repeating it is harmless.
///
/// # Errors
/// No such agent, or a store that fails.
pub(crate) async fn revoke_agent(
    cloud: &Cloud,
    tenant: &str,
    agent: &str,
    actor: &str,
) -> Result<(), Problem> {
    match cloud.store.revoke_agent(tenant, agent, actor, cloud.now_ms()).await? {
        None => Err(Problem::not_found("agent", agent)),
        Some(false) => Ok(()),
        Some(true) => {
            let identity = AgentIdentity { tenant: tenant.to_owned(), instance: agent.to_owned() };
            crate::channel::evict(cloud, &[identity].into());
            cloud.events.emit(tenant, kinds::AGENT_REVOKED, serde_json::json!({ "agent": agent }));
            Ok(())
        }
    }
}
