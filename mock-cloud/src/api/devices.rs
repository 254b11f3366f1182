//! Phones in mailboxes, their policies and mail systems.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::extract::{Item, Listing, PageQuery, Params, Scope, cursor_after, limit};
use super::problem::Problems;
use crate::mobile::{Merge, merge_of};
use crate::state::Cloud;
use crate::store::{Device, DevicePolicy, DeviceSearch, Finding, MailOrganization, Search};

/// Searching, filtering and paging of phones.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeviceQuery {
    /// Part of an owner's name or address, a model, an id or a number, any case
    q: Option<String>,
    /// Only in this access state: `allowed`, `blocked`, `quarantined`, `device_discovery`, `unknown`
    state: Option<String>,
    /// Only with this policy, by name
    policy: Option<String>,
    /// Rows on the page, 1 to 1,000; 100 when missing
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before
    after: Option<String>,
}

/// Searching and paging of policies and mail systems.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PolicyQuery {
    /// Part of a name, any case
    q: Option<String>,
    /// Rows on the page, 1 to 1,000; 100 when missing
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before
    after: Option<String>,
}

/// A phone with what device management knows of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceDetail {
    /// The phone's own fields
    #[serde(flatten)]
    device: Device,
    /// Which enrolled phone it is, and why
    merge: Merge,
    /// What the compliance rule says of it; null while there is no rule or it has not looked yet
    compliance: Option<Finding>,
}

/// Phones by the names of their owners
#[utoipa::path(get, path = "/tenants/{tenant}/devices", tag = "phones",
    params(("tenant" = String, Path), DeviceQuery),
    responses((status = 200, body = Listing<Device>), Problems))]
pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<DeviceQuery>,
) -> Result<Json<Listing<Device>>, Problem> {
    let after = cursor_after(query.after.as_deref())?;
    let search = DeviceSearch {
        q: query.q,
        state: query.state,
        policy: query.policy,
        limit: limit(query.limit)?,
        after,
    };
    Ok(Json(cloud.store.devices(&tenant.id, search).await?.into()))
}

/// One phone, the enrolled phone it is, and what the compliance rule says of it
#[utoipa::path(get, path = "/tenants/{tenant}/devices/{device}", tag = "phones",
    params(("tenant" = String, Path), ("device" = String, Path, description = "Stable id of the partnership")),
    responses((status = 200, body = DeviceDetail), Problems))]
pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
) -> Result<Json<DeviceDetail>, Problem> {
    let found = cloud.store.device(&tenant.id, &id).await?;
    let device = found.ok_or_else(|| Problem::not_found("device", &id))?;
    let merge = merge_of(&cloud, &tenant.id, &device).await?;
    let compliance = cloud.store.finding(&tenant.id, &id).await?;
    Ok(Json(DeviceDetail { device, merge, compliance }))
}

/// Policies for phones by name
#[utoipa::path(get, path = "/tenants/{tenant}/policies", tag = "phones",
    params(("tenant" = String, Path), PolicyQuery),
    responses((status = 200, body = Listing<DevicePolicy>), Problems))]
pub(super) async fn policies(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<PolicyQuery>,
) -> Result<Json<Listing<DevicePolicy>>, Problem> {
    let after = cursor_after(query.after.as_deref())?;
    let search = Search { q: query.q, ou: None, limit: limit(query.limit)?, after };
    Ok(Json(cloud.store.device_policies(&tenant.id, search).await?.into()))
}

/// One policy
#[utoipa::path(get, path = "/tenants/{tenant}/policies/{policy}", tag = "phones",
    params(("tenant" = String, Path), ("policy" = String, Path, description = "Stable id")),
    responses((status = 200, body = DevicePolicy), Problems))]
pub(super) async fn policy(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
) -> Result<Json<DevicePolicy>, Problem> {
    let found = cloud.store.device_policy(&tenant.id, &id).await?;
    found.map(Json).ok_or_else(|| Problem::not_found("policy", &id))
}

/// Mail systems by name
#[utoipa::path(get, path = "/tenants/{tenant}/mail-organizations", tag = "phones",
    params(("tenant" = String, Path), PageQuery),
    responses((status = 200, body = Listing<MailOrganization>), Problems))]
pub(super) async fn organizations(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(page): Params<PageQuery>,
) -> Result<Json<Listing<MailOrganization>>, Problem> {
    let after = cursor_after(page.after.as_deref())?;
    let search = Search { q: None, ou: None, limit: limit(page.limit)?, after };
    Ok(Json(cloud.store.mail_organizations(&tenant.id, search).await?.into()))
}
