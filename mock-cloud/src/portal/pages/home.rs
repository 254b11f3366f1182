//! One tenant at a glance.

use askama::Template;
use axum::extract::State;

use super::super::Portal;
use super::super::shell::{InTenant, PageResult, Shell, page};
use super::super::words::{Line, count};
use super::actions::{ActionLine, action_lines};
use super::agents::{AgentCard, agent_cards};
use super::people::{SourceCard, source_cards};
use crate::limits::PAGE_DEFAULT;
use crate::store::ActionFilter;

/// Rows of each short list.
const SHORT: usize = 6;

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage {
    shell: Shell,
    online: usize,
    agents_total: u64,
    people: String,
    groups: String,
    /// `None` while no mail system is collected.
    phones: Option<String>,
    pending: String,
    agents: Vec<AgentCard>,
    sources: Vec<SourceCard>,
    actions: Vec<ActionLine>,
    lines: Vec<Line>,
    last_seq: i64,
}

pub(in super::super) async fn show(State(portal): State<Portal>, seen: InTenant) -> PageResult {
    let shell = seen.shell(&portal, "home").await?;
    let (store, tenant) = (&portal.cloud.store, seen.tenant.id.as_str());
    let counts = store.tenant_counts(tenant).await?;
    let agents = agent_cards(&portal.cloud, tenant, PAGE_DEFAULT, None, shell.now_ms).await?.items;
    let actions = store.actions(tenant, ActionFilter::default(), SHORT, None).await?.items;
    let events = store.events_latest(tenant, SHORT + 2).await?;
    page(&HomePage {
        online: agents.iter().filter(|agent| agent.view.online).count(),
        agents_total: counts.agents,
        people: count(counts.users),
        groups: count(counts.groups),
        phones: (counts.devices > 0).then(|| count(counts.devices)),
        pending: count(counts.actions_pending),
        agents: agents.into_iter().filter(|agent| !agent.view.revoked).take(SHORT).collect(),
        sources: source_cards(&portal.cloud, tenant, shell.now_ms).await?,
        actions: action_lines(&portal.cloud, tenant, actions, shell.now_ms).await?,
        last_seq: events.first().map_or(0, |event| event.seq),
        lines: events.iter().map(Line::of).collect(),
        shell,
    })
}
