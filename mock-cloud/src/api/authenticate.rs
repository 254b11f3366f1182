//! Password checks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use causeway_protocol::Secret;
use causeway_protocol::auth::{AuthOutcome, AuthRequest, AuthUser};
use causeway_protocol::limits::{PASSWORD_MAX_BYTES, USERNAME_MAX_BYTES};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use super::extract::{Body, Scope};
use super::problem::Problems;
use crate::dispatch;
use crate::state::Cloud;

/// What the person typed. No `Debug`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attempt {
    /// A login, a mail address, a UPN or `DOMAIN\login`
    username: String,
    /// The password
    #[schema(value_type = String, format = Password)]
    password: Secret,
}

/// The verdict.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Verdict {
    /// `ok`, `bad_credentials`, `password_expired`, `must_change`, `locked`, `disabled`, `account_expired`,
    /// `restricted`, or `unavailable` when there is no verdict
    #[schema(value_type = String)]
    pub(crate) outcome: AuthOutcome,
    /// Who it is, when the password was right: `{id, login, dn, mail?, display_name?}`
    #[schema(value_type = Option<Object>)]
    pub(crate) user: Option<AuthUser>,
    /// The agent that asked the directory
    pub(crate) agent: Option<String>,
    /// The directory server that gave the verdict
    pub(crate) server: Option<String>,
    /// Why there is no verdict
    pub(crate) detail: Option<String>,
    /// Milliseconds it took
    pub(crate) elapsed_ms: u64,
}

/// Check a password against the customer's directory; answers within four seconds
#[utoipa::path(post, path = "/tenants/{tenant}/authenticate", tag = "work", params(("tenant" = String, Path)),
    request_body = Attempt, responses((status = 200, body = Verdict), Problems))]
pub(super) async fn authenticate(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Body(attempt): Body<Attempt>,
) -> Result<Json<Verdict>, Problem> {
    let request = AuthRequest { username: attempt.username, password: attempt.password };
    Ok(Json(check(&cloud, &tenant.id, request).await?))
}

/// Asks an agent and counts the verdict.
///
/// # Errors
/// A name or password no directory would take.
pub(crate) async fn check(
    cloud: &Arc<Cloud>,
    tenant: &str,
    request: AuthRequest,
) -> Result<Verdict, Problem> {
    if request.username.len() > USERNAME_MAX_BYTES {
        return Err(Problem::invalid("username", format!("longer than {USERNAME_MAX_BYTES} bytes")));
    }
    if request.password.expose().len() > PASSWORD_MAX_BYTES {
        return Err(Problem::invalid("password", format!("longer than {PASSWORD_MAX_BYTES} bytes")));
    }
    let answer = dispatch::authenticate(cloud, tenant, request).await;
    cloud.verdicts.count(tenant, answer.reply.outcome);
    Ok(Verdict {
        outcome: answer.reply.outcome,
        user: answer.reply.user,
        agent: answer.agent,
        server: answer.reply.server,
        detail: answer.reply.detail,
        elapsed_ms: answer.elapsed_ms,
    })
}
