//! Groups: the list, one group with members and the groups it is in.

use askama::Template;
use axum::extract::{Path, State};

use super::super::Portal;
use super::super::forms::Query;
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{count, initials};
use super::next_query;
use super::people::ListQuery;
use crate::limits::PORTAL_PAGE;
use crate::store::{Group, Member, Membership};

struct Row {
    group: Group,
    size: String,
}

impl Row {
    fn new(group: Group) -> Self {
        Self { size: count(group.members), group }
    }
}

struct MemberRow {
    member: Member,
    initials: String,
}

#[derive(Template)]
#[template(path = "groups.html")]
struct GroupsPage {
    shell: Shell,
    rows: Vec<Row>,
    q: String,
    further: bool,
    next: Option<String>,
    total: String,
}

#[derive(Template)]
#[template(path = "group.html")]
struct GroupPage {
    shell: Shell,
    row: Row,
    members: Vec<MemberRow>,
    parents: Vec<Membership>,
    further: bool,
    next: Option<String>,
}

pub(in super::super) async fn list(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<ListQuery>,
) -> PageResult {
    let found = portal.cloud.store.groups(&seen.tenant.id, query.search()).await?;
    let total = portal.cloud.store.tenant_counts(&seen.tenant.id).await?.groups;
    page(&GroupsPage {
        shell: seen.shell(&portal, "groups").await?,
        rows: found.items.into_iter().map(Row::new).collect(),
        next: next_query(&query.q, found.next.as_deref()),
        further: query.is_further(),
        q: query.q,
        total: count(total),
    })
}

pub(in super::super) async fn show(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, id)): Path<(String, String)>,
    Query(query): Query<ListQuery>,
) -> PageResult {
    let (store, tenant) = (&portal.cloud.store, seen.tenant.id.as_str());
    let missing = || PortalError::NotFound { what: "group".to_owned() };
    let group = store.group(tenant, &id).await?.ok_or_else(missing)?;
    let after = query.after.as_deref().and_then(|after| after.parse().ok());
    let members = store.group_members(tenant, &id, PORTAL_PAGE, after).await?.ok_or_else(missing)?;
    page(&GroupPage {
        shell: seen.shell(&portal, "groups").await?,
        parents: store.group_parents(tenant, &id).await?,
        next: next_query("", members.next.as_deref()),
        members: members
            .items
            .into_iter()
            .map(|member| MemberRow { initials: initials(&member.name), member })
            .collect(),
        further: query.is_further(),
        row: Row::new(group),
    })
}
