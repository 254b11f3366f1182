//! Agents and their health.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;

use super::super::Portal;
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, When, bytes, count, module_state, short_id};
use super::{TokenOnly, next_query};
use crate::api::{AgentView, agent_view, agent_views};
use crate::limits::PORTAL_PAGE;
use crate::state::Cloud;
use crate::store::Page;

/// An agent, ready to show.
pub(in super::super) struct AgentCard {
    pub(in super::super) view: AgentView,
    pub(in super::super) tone: Tone,
    pub(in super::super) state: &'static str,
    pub(in super::super) seen: Option<When>,
    pub(in super::super) modules: Vec<ModuleLine>,
}

/// A module's health, ready to show.
pub(in super::super) struct ModuleLine {
    pub(in super::super) module: String,
    pub(in super::super) tone: Tone,
    pub(in super::super) state: &'static str,
    pub(in super::super) detail: String,
    pub(in super::super) revision: u64,
    pub(in super::super) restarts: u32,
    pub(in super::super) figures: Vec<(String, String)>,
}

impl AgentCard {
    fn new(view: AgentView, now_ms: i64) -> Self {
        let (tone, state) = match (view.revoked, view.online, view.last_seen_ms) {
            (true, ..) => (Tone::Bad, "Revoked"),
            (_, true, _) => (Tone::Good, "Online"),
            (_, _, 0) => (Tone::Calm, "Never seen"),
            _ => (Tone::Bad, "Offline"),
        };
        let modules = view.modules.iter().map(|module| {
            let (tone, state) = module_state(module.state);
            // What an agent said before it went away is no statement about now.
            let (tone, state) = if view.online { (tone, state) } else { (Tone::Calm, "Unknown") };
            let figure =
                |(name, value): (&String, &i64)| (name.replace('_', " "), count(value.unsigned_abs()));
            ModuleLine {
                module: module.module.clone(),
                tone,
                state,
                detail: module.detail.clone(),
                revision: module.revision,
                restarts: module.restarts,
                figures: module.figures.iter().map(figure).collect(),
            }
        });
        Self { tone, state, seen: When::at(view.last_seen_ms, now_ms), modules: modules.collect(), view }
    }

    /// Tells it from others on a host of the same name.
    pub(in super::super) fn short(&self) -> &str {
        short_id(&self.view.id)
    }

    /// Resident memory.
    fn memory(&self) -> String {
        bytes(self.view.rss_bytes)
    }
}

/// One page of agents.
///
/// # Errors
/// When the store fails.
pub(in super::super) async fn agent_cards(
    cloud: &Cloud,
    tenant: &str,
    limit: usize,
    after: Option<String>,
    now_ms: i64,
) -> Result<Page<AgentCard>, PortalError> {
    let page = agent_views(cloud, tenant, limit, after).await?;
    let items = page.items.into_iter().map(|view| AgentCard::new(view, now_ms)).collect();
    Ok(Page { items, next: page.next })
}

#[derive(Template)]
#[template(path = "agents.html")]
struct AgentsPage {
    shell: Shell,
    agents: Vec<AgentCard>,
    next: Option<String>,
    /// A key just made, shown once.
    key: Option<String>,
    cloud_url: String,
}

#[derive(Template)]
#[template(path = "agent.html")]
struct AgentPage {
    shell: Shell,
    agent: AgentCard,
    enrolled: Option<When>,
    started: Option<When>,
    certificate: Option<When>,
    health_at: Option<When>,
}

/// Which page of the list.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct AfterQuery {
    after: Option<String>,
}

pub(in super::super) async fn list(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<AfterQuery>,
) -> PageResult {
    render_list(&portal, &seen, query.after, None).await
}

/// Makes an enrolment key and shows it, once.
pub(in super::super) async fn make_key(
    State(portal): State<Portal>,
    seen: InTenant,
    Form(form): Form<TokenOnly>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    let actor = seen.visitor.actor();
    let (key, _expires_ms) = crate::api::new_key(&portal.cloud, &seen.tenant.id, &actor).await?;
    render_list(&portal, &seen, None, Some(key)).await
}

async fn render_list(
    portal: &Portal,
    seen: &InTenant,
    after: Option<String>,
    key: Option<String>,
) -> PageResult {
    let shell = seen.shell(portal, "agents").await?;
    let found = agent_cards(&portal.cloud, &seen.tenant.id, PORTAL_PAGE, after, shell.now_ms).await?;
    let next = next_query("", found.next.as_deref());
    let cloud_url = portal.cloud.public_url();
    page(&AgentsPage { shell, agents: found.items, next, key, cloud_url })
}

pub(in super::super) async fn show(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, agent)): Path<(String, String)>,
) -> PageResult {
    let shell = seen.shell(&portal, "agents").await?;
    let found = portal.cloud.store.agent(&seen.tenant.id, &agent).await?;
    let row = found.ok_or_else(|| PortalError::NotFound { what: "agent".to_owned() })?;
    let started = When::at(row.started_ms, shell.now_ms);
    let view = agent_view(&portal.cloud, &seen.tenant.id, row).await?;
    page(&AgentPage {
        enrolled: When::at(view.enrolled_ms, shell.now_ms),
        certificate: When::at(view.certificate_expires_ms, shell.now_ms),
        health_at: When::at(view.health_ms, shell.now_ms),
        started,
        agent: AgentCard::new(view, shell.now_ms),
        shell,
    })
}

pub(in super::super) async fn revoke(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, agent)): Path<(String, String)>,
    Form(form): Form<TokenOnly>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    crate::api::revoke_agent(&portal.cloud, &seen.tenant.id, &agent, &seen.visitor.actor()).await?;
    Ok(Redirect::to(&format!("/t/{}/agents/{agent}", seen.tenant.id)).into_response())
}
