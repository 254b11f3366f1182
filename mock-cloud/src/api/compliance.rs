//! The compliance rule: when phones are blocked without a person.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::extract::{Body, Listing, Params, Scope, limit};
use super::problem::Problems;
use crate::limits::EXEMPT_MAX;
use crate::state::Cloud;
use crate::store::{ComplianceRule, Finding};

/// The rule and how far it is.
#[derive(Serialize, ToSchema)]
pub(crate) struct RuleView {
    /// The rule
    rule: ComplianceRule,
    /// Unix milliseconds of its last change, 0 when there never was one
    changed_ms: i64,
    /// Unix milliseconds of the last look at all phones, 0 for never
    evaluated_ms: i64,
    /// Blocks held until a person confirms them
    held: u64,
}

/// What a confirmation let through.
#[derive(Serialize, ToSchema)]
pub(crate) struct Confirmed {
    /// Blocks that are ordered now, if there are not more of them by then
    blocks: u64,
}

/// Which findings.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FindingQuery {
    /// Only `compliant`, `not_compliant`, `not_enrolled` or `exempt`
    finding: Option<String>,
    /// Only phones the rule wants something of that it has not ordered: what a dry run would do
    wanted: bool,
    /// Rows on the page, 1 to 1,000; 100 when missing
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before
    after: Option<String>,
}

/// The compliance rule
#[utoipa::path(get, path = "/tenants/{tenant}/compliance", tag = "phones", params(("tenant" = String, Path)),
    responses((status = 200, body = RuleView), Problems))]
pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
) -> Result<Json<RuleView>, Problem> {
    view(&cloud, &tenant.id).await
}

/// Replace the compliance rule. Missing fields take their defaults; what is switched on begins as a dry run
#[utoipa::path(put, path = "/tenants/{tenant}/compliance", tag = "phones", params(("tenant" = String, Path)),
    request_body = ComplianceRule, responses((status = 200, body = RuleView), Problems))]
pub(super) async fn put(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Body(rule): Body<ComplianceRule>,
) -> Result<Json<RuleView>, Problem> {
    put_rule(&cloud, &tenant.id, rule, "api").await?;
    view(&cloud, &tenant.id).await
}

/// Let the blocks through that the guard holds
#[utoipa::path(post, path = "/tenants/{tenant}/compliance/confirm", tag = "phones",
    params(("tenant" = String, Path)), responses((status = 200, body = Confirmed), Problems))]
pub(super) async fn confirm(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
) -> Result<Json<Confirmed>, Problem> {
    Ok(Json(Confirmed { blocks: confirm_held(&cloud, &tenant.id, "api").await? }))
}

/// What the rule says of each phone
#[utoipa::path(get, path = "/tenants/{tenant}/compliance/findings", tag = "phones",
    params(("tenant" = String, Path), FindingQuery),
    responses((status = 200, body = Listing<Finding>), Problems))]
pub(super) async fn findings(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<FindingQuery>,
) -> Result<Json<Listing<Finding>>, Problem> {
    let limit = limit(query.limit)?;
    let page = cloud.store.findings(&tenant.id, query.finding, query.wanted, limit, query.after).await?;
    Ok(Json(page.into()))
}

async fn view(cloud: &Cloud, tenant: &str) -> Result<Json<RuleView>, Problem> {
    let row = cloud.store.compliance_rule(tenant).await?;
    Ok(Json(row.map_or_else(
        || RuleView { rule: ComplianceRule::default(), changed_ms: 0, evaluated_ms: 0, held: 0 },
        |row| RuleView {
            rule: row.rule,
            changed_ms: row.changed_ms,
            evaluated_ms: row.evaluated_ms,
            held: row.held,
        },
    )))
}

/// Checks and keeps a rule, and looks at the phones again.
///
/// # Errors
/// When the rule makes no sense or the store fails.
pub(crate) async fn put_rule(
    cloud: &Cloud,
    tenant: &str,
    rule: ComplianceRule,
    actor: &str,
) -> Result<(), Problem> {
    check_rule(&rule)?;
    cloud.store.set_compliance_rule(tenant, rule, actor, cloud.now_ms()).await?;
    cloud.compliance.touch(tenant);
    Ok(())
}

/// Lets held blocks through; how many.
///
/// # Errors
/// When the store fails.
pub(crate) async fn confirm_held(cloud: &Cloud, tenant: &str, actor: &str) -> Result<u64, Problem> {
    let blocks = cloud.store.confirm_compliance(tenant, actor, cloud.now_ms()).await?;
    cloud.compliance.touch(tenant);
    Ok(blocks)
}

fn check_rule(rule: &ComplianceRule) -> Result<(), Problem> {
    const YEAR_SECS: u64 = 365 * 24 * 3_600;
    if rule.exempt.len() + rule.exempt_client_types.len() > EXEMPT_MAX {
        return Err(Problem::invalid("exempt", format!("at most {EXEMPT_MAX} names")));
    }
    if rule.exempt.iter().chain(&rule.exempt_client_types).any(|name| name.trim().is_empty()) {
        return Err(Problem::invalid("exempt", "names cannot be empty"));
    }
    if rule.grace_secs > YEAR_SECS {
        return Err(Problem::invalid("grace_secs", "at most a year"));
    }
    if !(1..=YEAR_SECS).contains(&rule.blocks_window_secs) {
        return Err(Problem::invalid("blocks_window_secs", "between a second and a year"));
    }
    Ok(())
}
