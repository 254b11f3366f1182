//! People: the list with search and paging, one person with groups, and what is collected.

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::Value;

use super::super::Portal;
use super::super::forms::Query;
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, When, count, counted, initials};
use super::next_query;
use crate::limits::PORTAL_PAGE;
use crate::state::Cloud;
use crate::store::{Cursor, Membership, Search, SourceCounts, User};

/// Something collected, ready to show.
pub(in super::super) struct SourceCard {
    pub(in super::super) source: String,
    pub(in super::super) epoch: String,
    pub(in super::super) committed: Option<When>,
    pub(in super::super) running: bool,
    pub(in super::super) phase: String,
    pub(in super::super) holds: String,
    pub(in super::super) done: u64,
    pub(in super::super) total: Option<u64>,
    pub(in super::super) progress_text: String,
    pub(in super::super) tone: Tone,
    pub(in super::super) state: &'static str,
}

/// What is collected for a tenant.
///
/// # Errors
/// When the store fails.
pub(in super::super) async fn source_cards(
    cloud: &Cloud,
    tenant: &str,
    now_ms: i64,
) -> Result<Vec<SourceCard>, PortalError> {
    let sources = cloud.store.sources(tenant).await?;
    Ok(sources
        .into_iter()
        .map(|source| {
            let progress = source.progress.unwrap_or_default();
            let number = |name: &str| progress.get(name).and_then(Value::as_u64);
            let finished = progress.get("finished").and_then(Value::as_bool).unwrap_or(true);
            let (done, total) = (number("done").unwrap_or(0), number("total"));
            let of = total.map(|total| format!(" of {}", count(total))).unwrap_or_default();
            let (tone, state) = match (finished, source.epoch) {
                (false, _) => (Tone::Busy, "Collecting"),
                (true, 0) => (Tone::Calm, "Nothing yet"),
                (true, _) => (Tone::Good, "Up to date"),
            };
            let held = source.counts;
            SourceCard {
                holds: holds(&held),
                epoch: count(source.epoch),
                committed: When::at(source.committed_ms, now_ms),
                running: !finished,
                phase: progress.get("phase").and_then(Value::as_str).unwrap_or_default().to_owned(),
                done,
                total,
                progress_text: format!("{}{of} objects", count(done)),
                tone,
                state,
                source: source.source,
            }
        })
        .collect())
}

/// What a source has, in words: people or phones, as it is one or the other.
fn holds(held: &SourceCounts) -> String {
    let mail = [held.devices, held.device_policies, held.mail_organizations];
    if mail.iter().any(|n| *n > 0) {
        return [
            counted(held.devices, "phone", "phones"),
            counted(held.device_policies, "policy", "policies"),
            counted(held.mail_organizations, "organisation", "organisations"),
        ]
        .join(" · ");
    }
    [
        counted(held.users, "person", "people"),
        counted(held.groups, "group", "groups"),
        counted(held.ous, "unit", "units"),
        counted(held.members, "membership", "memberships"),
    ]
    .join(" · ")
}

/// Searching and paging of the portal's lists.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct ListQuery {
    pub(in super::super) q: String,
    ou: Option<String>,
    pub(in super::super) after: Option<String>,
}

impl ListQuery {
    /// For the store.
    pub(in super::super) fn search(&self) -> Search {
        let after = self.after.as_deref().and_then(Cursor::parse);
        let ou = self.ou.clone().filter(|ou| !ou.is_empty());
        Search { q: Some(self.q.clone()), ou, limit: PORTAL_PAGE, after }
    }

    /// Whether this is not the first page.
    pub(in super::super) fn is_further(&self) -> bool {
        self.after.is_some()
    }
}

/// One row of the list.
struct Row {
    user: User,
    name: String,
    initials: String,
}

impl Row {
    fn new(user: User) -> Self {
        let name = user.display_name.clone().filter(|name| !name.trim().is_empty());
        let name = name.unwrap_or_else(|| user.login.clone());
        Self { initials: initials(&name), name, user }
    }
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    shell: Shell,
    rows: Vec<Row>,
    q: String,
    ou: String,
    further: bool,
    next: Option<String>,
    total: String,
    sources: Vec<SourceCard>,
}

#[derive(Template)]
#[template(path = "person.html")]
struct PersonPage {
    shell: Shell,
    row: Row,
    direct: Vec<Membership>,
    inherited: Vec<Membership>,
}

pub(in super::super) async fn list(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<ListQuery>,
) -> PageResult {
    let shell = seen.shell(&portal, "people").await?;
    let tenant = seen.tenant.id.as_str();
    let found = portal.cloud.store.users(tenant, query.search()).await?;
    let total = portal.cloud.store.tenant_counts(tenant).await?.users;
    let ou = query.ou.clone().unwrap_or_default();
    let next = next_query(&query.q, found.next.as_deref())
        .map(|next| if ou.is_empty() { next } else { format!("{next}&ou={ou}") });
    page(&PeoplePage {
        sources: source_cards(&portal.cloud, tenant, shell.now_ms).await?,
        rows: found.items.into_iter().map(Row::new).collect(),
        further: query.is_further(),
        q: query.q,
        ou,
        next,
        total: count(total),
        shell,
    })
}

pub(in super::super) async fn show(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, user)): Path<(String, String)>,
) -> PageResult {
    let found = portal.cloud.store.user(&seen.tenant.id, &user).await?;
    let (user, groups) = found.ok_or_else(|| PortalError::NotFound { what: "person".to_owned() })?;
    let (direct, inherited) = groups.into_iter().partition(|group| group.direct);
    page(&PersonPage { shell: seen.shell(&portal, "people").await?, row: Row::new(user), direct, inherited })
}
