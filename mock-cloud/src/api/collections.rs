//! What is collected, by whom, and how far it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Problem;
use super::extract::{Listing, PageQuery, Params, Scope, limit, number_after};
use super::problem::Problems;
use crate::state::Cloud;
use crate::store::{LeaseView, Source, UploadView};

/// Sources with their epoch, what the cloud has of them, and the progress of the collection that runs or ran last
#[utoipa::path(get, path = "/tenants/{tenant}/sources", tag = "collection", params(("tenant" = String, Path)),
    responses((status = 200, body = Listing<Source>), Problems))]
pub(super) async fn sources(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
) -> Result<Json<Listing<Source>>, Problem> {
    Ok(Json(Listing::whole(cloud.store.sources(&tenant.id).await?)))
}

/// Uploads, newest first
#[utoipa::path(get, path = "/tenants/{tenant}/uploads", tag = "collection",
    params(("tenant" = String, Path), PageQuery),
    responses((status = 200, body = Listing<UploadView>), Problems))]
pub(super) async fn uploads(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(page): Params<PageQuery>,
) -> Result<Json<Listing<UploadView>>, Problem> {
    let before = number_after(page.after.as_deref())?;
    Ok(Json(cloud.store.upload_views(&tenant.id, limit(page.limit)?, before).await?.into()))
}

/// Leases: which agent collects what, under which fence
#[utoipa::path(get, path = "/tenants/{tenant}/leases", tag = "collection", params(("tenant" = String, Path)),
    responses((status = 200, body = Listing<LeaseView>), Problems))]
pub(super) async fn leases(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
) -> Result<Json<Listing<LeaseView>>, Problem> {
    Ok(Json(Listing::whole(cloud.store.lease_views(&tenant.id, cloud.now_ms()).await?)))
}
