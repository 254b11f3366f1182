//! Certificates of devices: the inventory, and the requests they come of.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use causeway_protocol::certificate::RevocationReason;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::extract::{Body, Item, Listing, Params, Scope, limit, number_after};
use super::problem::{Conflicts, Problems};
use crate::certificates;
use crate::state::Cloud;
use crate::store::{CertificateRequest, CertificateSearch, DeviceCertificate, RequestFilter, RequestStep};

/// Searching, filtering and paging of certificates.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CertificateQuery {
    /// Part of a subject, an owner, a serial number or a fingerprint, any case
    q: Option<String>,
    /// Only in this status: `issued`, `active`, `renewing`, `superseded`, `unused`, `revoking`, `revoked`,
    /// `not_revocable`, `expired`
    status: Option<String>,
    /// Only of this enrolled device
    device: Option<String>,
    /// Only by this profile
    profile: Option<String>,
    /// Only those that end before this moment, Unix milliseconds
    ends_before_ms: Option<i64>,
    /// Rows on the page, 1 to 1,000; 100 when missing
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before
    after: Option<String>,
}

/// Filtering and paging of requests.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RequestQuery {
    /// Only at this stage
    stage: Option<String>,
    /// Only those under way, or only those that are over
    open: Option<bool>,
    /// Only of this enrolled device
    device: Option<String>,
    /// Only by this profile
    profile: Option<String>,
    /// Rows on the page, 1 to 1,000; 100 when missing
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before
    after: Option<String>,
}

/// Why a certificate shall end.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevocationOrder {
    /// `unspecified`, `key_compromise`, `superseded` or `cessation_of_operation`; `unspecified` when missing
    #[serde(default = "unspecified")]
    #[schema(value_type = String)]
    reason: RevocationReason,
}

fn unspecified() -> RevocationReason {
    RevocationReason::Unspecified
}

/// A request and how it went so far.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequestDetail {
    /// The request's own fields
    #[serde(flatten)]
    request: CertificateRequest,
    /// What happened, in order
    timeline: Vec<RequestStep>,
}

/// Certificates at a glance.
#[derive(Serialize, ToSchema)]
pub(crate) struct CertificateSummary {
    /// How many are in each status
    statuses: BTreeMap<String, u64>,
    /// Unix milliseconds of the last look at everything: what was due then has been begun
    looked_ms: i64,
    /// The cloud's time
    now_ms: i64,
}

/// Certificates, those that end first at the beginning
#[utoipa::path(get, path = "/tenants/{tenant}/certificates", tag = "certificates",
    params(("tenant" = String, Path), CertificateQuery),
    responses((status = 200, body = Listing<DeviceCertificate>), Problems))]
pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<CertificateQuery>,
) -> Result<Json<Listing<DeviceCertificate>>, Problem> {
    let search = CertificateSearch {
        q: query.q,
        status: query.status,
        device: query.device,
        profile: query.profile,
        ends_before_ms: query.ends_before_ms,
        limit: limit(query.limit)?,
        after: query.after.as_deref().map(place).transpose()?,
    };
    Ok(Json(cloud.store.certificates(&tenant.id, search, cloud.now_ms()).await?.into()))
}

/// Where a page ended: the end of the last certificate and its number.
fn place(after: &str) -> Result<(i64, i64), Problem> {
    let parts = after.split_once('.').and_then(|(end, n)| Some((end.parse().ok()?, n.parse().ok()?)));
    parts.ok_or_else(|| Problem::invalid("query.after", "after is not the `next` of a page of this list"))
}

/// One certificate
#[utoipa::path(get, path = "/tenants/{tenant}/certificates/{certificate}", tag = "certificates",
    params(("tenant" = String, Path), ("certificate" = String, Path, description = "SHA-256 of the DER, hexadecimal")),
    responses((status = 200, body = DeviceCertificate), Problems))]
pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(sha256): Item,
) -> Result<Json<DeviceCertificate>, Problem> {
    found(&cloud, &tenant.id, &sha256).await.map(Json)
}

async fn found(cloud: &Cloud, tenant: &str, sha256: &str) -> Result<DeviceCertificate, Problem> {
    let found = cloud.store.certificate(tenant, sha256, cloud.now_ms()).await?;
    found.ok_or_else(|| Problem::not_found("certificate", sha256))
}

/// A certificate and the authorities above it, PEM
#[utoipa::path(get, path = "/tenants/{tenant}/certificates/{certificate}/chain", tag = "certificates",
    params(("tenant" = String, Path), ("certificate" = String, Path)),
    responses((status = 200, body = String, content_type = "application/pem-certificate-chain"), Problems))]
pub(super) async fn chain(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(sha256): Item,
) -> Result<Response, Problem> {
    let found = cloud.store.certificate_chain(&tenant.id, &sha256).await?;
    let (der, chain) = found.ok_or_else(|| Problem::not_found("certificate", &sha256))?;
    let kind = [(header::CONTENT_TYPE, "application/pem-certificate-chain")];
    Ok((kind, certificates::pem_of(&der, &chain)).into_response())
}

/// Renew a certificate now: the device is told, and gets a new one in its place
#[utoipa::path(post, path = "/tenants/{tenant}/certificates/{certificate}/renew", tag = "certificates",
    params(("tenant" = String, Path), ("certificate" = String, Path)),
    responses((status = 202, body = CertificateRequest), Problems, Conflicts))]
pub(super) async fn renew(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(sha256): Item,
) -> Result<(StatusCode, Json<CertificateRequest>), Problem> {
    let certificate = found(&cloud, &tenant.id, &sha256).await?;
    let request = certificates::renew(&cloud, &tenant.id, certificate, "api").await;
    Ok((StatusCode::ACCEPTED, Json(request.map_err(super::device::problem)?)))
}

/// Revoke a certificate at its authority
#[utoipa::path(post, path = "/tenants/{tenant}/certificates/{certificate}/revoke", tag = "certificates",
    params(("tenant" = String, Path), ("certificate" = String, Path)), request_body = RevocationOrder,
    responses((status = 202, body = DeviceCertificate), Problems))]
pub(super) async fn revoke(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(sha256): Item,
    Body(order): Body<RevocationOrder>,
) -> Result<(StatusCode, Json<DeviceCertificate>), Problem> {
    found(&cloud, &tenant.id, &sha256).await?;
    cloud.store.revoke_certificate(&tenant.id, &sha256, order.reason, "api", cloud.now_ms()).await?;
    cloud.certificates.touch(&tenant.id);
    Ok((StatusCode::ACCEPTED, Json(found(&cloud, &tenant.id, &sha256).await?)))
}

/// Requests for certificates, newest first
#[utoipa::path(get, path = "/tenants/{tenant}/certificate-requests", tag = "certificates",
    params(("tenant" = String, Path), RequestQuery),
    responses((status = 200, body = Listing<CertificateRequest>), Problems))]
pub(super) async fn requests(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<RequestQuery>,
) -> Result<Json<Listing<CertificateRequest>>, Problem> {
    let before = number_after(query.after.as_deref())?;
    let filter =
        RequestFilter { stage: query.stage, open: query.open, device: query.device, profile: query.profile };
    let page = cloud.store.certificate_requests(&tenant.id, filter, limit(query.limit)?, before).await?;
    Ok(Json(page.into()))
}

/// One request with its timeline
#[utoipa::path(get, path = "/tenants/{tenant}/certificate-requests/{request}", tag = "certificates",
    params(("tenant" = String, Path), ("request" = String, Path)),
    responses((status = 200, body = RequestDetail), Problems))]
pub(super) async fn request(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Item(id): Item,
) -> Result<Json<RequestDetail>, Problem> {
    let found = cloud.store.certificate_request(&tenant.id, &id).await?;
    let (request, timeline) = found.ok_or_else(|| Problem::not_found("certificate request", &id))?;
    Ok(Json(RequestDetail { request, timeline }))
}

/// How many certificates are in each status, and when everything was last looked at
#[utoipa::path(get, path = "/tenants/{tenant}/certificate-summary", tag = "certificates",
    params(("tenant" = String, Path)), responses((status = 200, body = CertificateSummary), Problems))]
pub(super) async fn summary(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
) -> Result<Json<CertificateSummary>, Problem> {
    let now_ms = cloud.now_ms();
    let statuses = cloud.store.certificate_statuses(&tenant.id, now_ms).await?;
    Ok(Json(CertificateSummary { statuses, looked_ms: cloud.certificates.looked_ms(&tenant.id), now_ms }))
}
