//! People, groups, units and what else agents collect.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::extract::{Item, Listing, PageQuery, Params, Scope, cursor_after, limit, number_after};
use super::problem::Problems;
use crate::state::Cloud;
use crate::store::{Group, Member, Membership, Ou, Search, User};

/// Searching and paging.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchQuery {
    /// Part of a name, login or mail address, any case
    q: Option<String>,
    /// Only directly in this unit (for units: below it), by stable id
    ou: Option<String>,
    /// Rows on the page, 1 to 1,000; 100 when missing
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before
    after: Option<String>,
}

impl SearchQuery {
    fn search(self) -> Result<Search, Problem> {
        let after = cursor_after(self.after.as_deref())?;
        Ok(Search { q: self.q, ou: self.ou, limit: limit(self.limit)?, after })
    }
}

/// A user with every group it is in, directly or through groups in groups.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserDetail {
    /// The user's own fields
    #[serde(flatten)]
    user: User,
    /// Effective groups, nearest first
    groups: Vec<Membership>,
}

/// A group with the groups it is in.
#[derive(Serialize, ToSchema)]
pub(crate) struct GroupDetail {
    /// The group's own fields
    #[serde(flatten)]
    group: Group,
    /// Groups it is in, directly or through groups in groups, nearest first
    groups: Vec<Membership>,
    /// Direct members, the first page; go on with `/members?after=`
    direct_members: Listing<Member>,
}

/// Users by name
#[utoipa::path(get, path = "/tenants/{tenant}/users", tag = "directory",
    params(("tenant" = String, Path), SearchQuery),
    responses((status = 200, body = Listing<User>), Problems))]
pub(super) async fn users(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<SearchQuery>,
) -> Result<Json<Listing<User>>, Problem> {
    Ok(Json(cloud.store.users(&tenant.id, query.search()?).await?.into()))
}

/// One user with its effective groups
#[utoipa::path(get, path = "/tenants/{tenant}/users/{user}", tag = "directory",
    params(("tenant" = String, Path), ("user" = String, Path, description = "Stable id")),
    responses((status = 200, body = UserDetail), Problems))]
pub(super) async fn user(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(user): Item,
) -> Result<Json<UserDetail>, Problem> {
    let found = cloud.store.user(&tenant.id, &user).await?;
    let (user, groups) = found.ok_or_else(|| Problem::not_found("user", &user))?;
    Ok(Json(UserDetail { user, groups }))
}

/// Groups by name
#[utoipa::path(get, path = "/tenants/{tenant}/groups", tag = "directory",
    params(("tenant" = String, Path), SearchQuery),
    responses((status = 200, body = Listing<Group>), Problems))]
pub(super) async fn groups(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<SearchQuery>,
) -> Result<Json<Listing<Group>>, Problem> {
    Ok(Json(cloud.store.groups(&tenant.id, query.search()?).await?.into()))
}

/// One group, the groups it is in and its first members
#[utoipa::path(get, path = "/tenants/{tenant}/groups/{group}", tag = "directory",
    params(("tenant" = String, Path), ("group" = String, Path, description = "Stable id")),
    responses((status = 200, body = GroupDetail), Problems))]
pub(super) async fn group(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
) -> Result<Json<GroupDetail>, Problem> {
    let missing = || Problem::not_found("group", &id);
    let group = cloud.store.group(&tenant.id, &id).await?.ok_or_else(missing)?;
    let groups = cloud.store.group_parents(&tenant.id, &id).await?;
    let members =
        cloud.store.group_members(&tenant.id, &id, limit(None)?, None).await?.ok_or_else(missing)?;
    Ok(Json(GroupDetail { group, groups, direct_members: members.into() }))
}

/// Direct members of a group
#[utoipa::path(get, path = "/tenants/{tenant}/groups/{group}/members", tag = "directory",
    params(("tenant" = String, Path), ("group" = String, Path, description = "Stable id"), PageQuery),
    responses((status = 200, body = Listing<Member>), Problems))]
pub(super) async fn group_members(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
    Params(page): Params<PageQuery>,
) -> Result<Json<Listing<Member>>, Problem> {
    let after = number_after(page.after.as_deref())?;
    let members = cloud.store.group_members(&tenant.id, &id, limit(page.limit)?, after).await?;
    Ok(Json(members.ok_or_else(|| Problem::not_found("group", &id))?.into()))
}

/// Organisational units and containers by name
#[utoipa::path(get, path = "/tenants/{tenant}/ous", tag = "directory",
    params(("tenant" = String, Path), SearchQuery),
    responses((status = 200, body = Listing<Ou>), Problems))]
pub(super) async fn ous(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<SearchQuery>,
) -> Result<Json<Listing<Ou>>, Problem> {
    Ok(Json(cloud.store.ous(&tenant.id, query.search()?).await?.into()))
}
