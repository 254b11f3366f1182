//! Agents and their health.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::{Form, Query};
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, When, bytes, count, duration, module_state, short_id};
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
    pub(in super::super) figures: Vec<Figure>,
}

/// A figure of a module, ready to show.
pub(in super::super) struct Figure {
    pub(in super::super) name: String,
    pub(in super::super) text: String,
    /// The moment, when it is one.
    pub(in super::super) at: Option<When>,
}

impl Figure {
    /// Figures are named as fields of the API are: what ends in `_took_ms` is a span, any other `_ms` a moment.
    fn new(name: &str, value: i64, now_ms: i64) -> Self {
        let (name, text, at) = match (name.strip_suffix("_took_ms"), name.strip_suffix("_ms")) {
            (Some(what), _) => (format!("{what} took"), duration(value), None),
            (_, Some(what)) => (what.to_owned(), "never".to_owned(), When::at(value, now_ms)),
            _ => {
                let sign = if value < 0 { "-" } else { "" };
                (name.to_owned(), format!("{sign}{}", count(value.unsigned_abs())), None)
            }
        };
        Self { name: name.replace('_', " "), text, at }
    }
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
            let figure = |(name, value): (&String, &i64)| Figure::new(name, *value, now_ms);
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

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn figures_are_moments_spans_or_numbers() {
        let now_ms = 1_795_451_246_503;
        let shown = |name: &str, value: i64| {
            let figure = Figure::new(name, value, now_ms);
            (figure.name, figure.at.map_or(figure.text, |at| at.relative))
        };
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(shown("last_run_ms", 1_795_451_186_503), pair("last run", "1 min ago"));
        assert_eq!(shown("last_run_ms", 0), pair("last run", "never"));
        assert_eq!(shown("last_run_took_ms", 2_460), pair("last run took", "2.4 s"));
        assert_eq!(shown("servers_well", 1_234), pair("servers well", "1,234"));
        assert_eq!(shown("drift", -1_234), pair("drift", "-1,234"));
    }
}
