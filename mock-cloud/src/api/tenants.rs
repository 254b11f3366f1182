//! Tenants, enrolment keys, the audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use super::extract::{Body, Listing, OptionalBody, PageQuery, Params, Scope, limit, number_after};
use super::problem::{Conflicts, Problems};
use crate::limits::{ENROLLMENT_KEY_TTL, NAME_MAX_BYTES};
use crate::state::Cloud;
use crate::store::{AuditRow, AuditVerdict, Tenant, TenantCounts};

/// A tenant to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    /// Name for people, 1 to 200 bytes; the id is made from it
    name: String,
}

/// A created tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewTenantId {
    /// Names the tenant in every path
    id: String,
}

/// A tenant with its figures.
#[derive(Serialize, ToSchema)]
pub(crate) struct TenantView {
    /// Names the tenant in every path
    id: String,
    /// Name for people
    name: String,
    /// Unix milliseconds of its creation
    created_ms: i64,
    /// How much there is of everything
    counts: TenantCounts,
    /// Agents online now
    agents_online: u64,
}

/// Nothing to say; the body may be missing.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NewKey {}

/// An enrolment key. It is shown here once and kept nowhere.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyView {
    /// For `causeway-agent enroll --key`; works once
    key: String,
    /// Unix milliseconds of its end
    expires_ms: i64,
}

/// Tenants by id
#[utoipa::path(get, path = "/tenants", tag = "tenants", params(PageQuery),
    responses((status = 200, body = Listing<Tenant>), Problems))]
pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Listing<Tenant>>, Problem> {
    Ok(Json(cloud.store.tenants(limit(page.limit)?, page.after).await?.into()))
}

/// Create a tenant
#[utoipa::path(post, path = "/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 201, body = NewTenantId), Problems, Conflicts))]
pub(super) async fn create(
    State(cloud): State<Arc<Cloud>>,
    Body(new): Body<NewTenant>,
) -> Result<(StatusCode, Json<NewTenantId>), Problem> {
    let id = create_tenant(&cloud, &new.name, "api").await?;
    Ok((StatusCode::CREATED, Json(NewTenantId { id })))
}

/// Creates a tenant whose id is made from its name, with a number behind it where the id is taken.
///
/// # Errors
/// An unusable name, or a store that fails.
pub(crate) async fn create_tenant(cloud: &Cloud, name: &str, actor: &str) -> Result<String, Problem> {
    let name = name.trim();
    if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
        let detail = format!("1 to {NAME_MAX_BYTES} bytes without control characters");
        return Err(Problem::invalid("name", detail));
    }
    let slug = slug(name);
    for n in 1_u32.. {
        let id = if n == 1 { slug.clone() } else { format!("{slug}-{n}") };
        let tenant = Tenant { id: id.clone(), name: name.to_owned(), created_ms: cloud.now_ms() };
        if cloud.store.create_tenant(tenant, actor.to_owned()).await? {
            return Ok(id);
        }
    }
    Err(Problem::conflict("name_taken", "every id made from this name is taken"))
}

fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().take(40) {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "tenant".to_owned() } else { slug.to_owned() }
}

/// One tenant with its figures
#[utoipa::path(get, path = "/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path)),
    responses((status = 200, body = TenantView), Problems))]
pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
) -> Result<Json<TenantView>, Problem> {
    let counts = cloud.store.tenant_counts(&tenant.id).await?;
    let agents_online = cloud.sessions.online(&tenant.id).len() as u64;
    let Tenant { id, name, created_ms } = tenant;
    Ok(Json(TenantView { id, name, created_ms, counts, agents_online }))
}

/// Make an enrolment key: one agent may enrol with it, once
#[utoipa::path(post, path = "/tenants/{tenant}/enrollment-keys", tag = "tenants",
    params(("tenant" = String, Path)), request_body(content = Option<NewKey>),
    responses((status = 201, body = KeyView), Problems))]
pub(super) async fn create_key(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    OptionalBody(NewKey {}): OptionalBody<NewKey>,
) -> Result<(StatusCode, Json<KeyView>), Problem> {
    let (key, expires_ms) = new_key(&cloud, &tenant.id, "api").await?;
    Ok((StatusCode::CREATED, Json(KeyView { key, expires_ms })))
}

/// Makes an enrolment key; the text is for showing once.
///
/// # Errors
/// When the store fails.
pub(crate) async fn new_key(cloud: &Cloud, tenant: &str, actor: &str) -> Result<(String, i64), Problem> {
    let ttl_ms = i64::try_from(ENROLLMENT_KEY_TTL.as_millis()).unwrap_or(i64::MAX / 2);
    let expires_ms = cloud.now_ms() + ttl_ms;
    let key = crate::enrollment::create_key(cloud, tenant, expires_ms, actor).await?;
    Ok((key.expose().to_owned(), expires_ms))
}

/// Who did what, newest first
#[utoipa::path(get, path = "/tenants/{tenant}/audit", tag = "tenants",
    params(("tenant" = String, Path), PageQuery),
    responses((status = 200, body = Listing<AuditRow>), Problems))]
pub(super) async fn audit(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(page): Params<PageQuery>,
) -> Result<Json<Listing<AuditRow>>, Problem> {
    let before = number_after(page.after.as_deref())?;
    Ok(Json(cloud.store.audit_rows(&tenant.id, limit(page.limit)?, before).await?.into()))
}

/// Walk the whole audit log and check its hash chain
#[utoipa::path(get, path = "/tenants/{tenant}/audit/verify", tag = "tenants",
    params(("tenant" = String, Path)), responses((status = 200, body = AuditVerdict), Problems))]
pub(super) async fn verify_audit(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
) -> Result<Json<AuditVerdict>, Problem> {
    Ok(Json(cloud.store.verify_audit(&tenant.id).await?))
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn ids_are_made_of_safe_letters() {
        assert_eq!(slug("ACME Example, Inc."), "acme-example-inc");
        assert_eq!(slug("  (O'Brien) & Söhne "), "o-brien-s-hne");
        assert_eq!(slug("株式会社"), "tenant");
    }
}
