//! What comes of an order: a certificate that its request can use, or a reason why not.

use causeway_protocol::action::ErrorReport;
use causeway_protocol::certificate::Issued;
use causeway_protocol::health::{Notice, Severity};
use serde::Deserialize as _;
use serde_json::Value;

use super::reading::{self, Terms};
use super::reconcile::{DAY_MS, say_once};
use super::{ISSUE, MODULE, orders, request_changed};
use crate::limits::AUTHORITY_ENDS_SOON;
use crate::state::Cloud;
use crate::store::{ActionRow, CertificateRequest, IssuedRequest, StoreError};

/// Code of the alert about authorities that end.
const AUTHORITY_ENDING: &str = "authority_ending";

/// What an order has brought.
enum Brought {
    /// The certificate of its request.
    Certificate(Box<Certified>),
    /// Nothing its request can use.
    Wrong(Box<CertificateRequest>, ErrorReport),
    /// Nobody knows of its request.
    Nothing,
}

/// A certificate that is the one a request wants.
pub(crate) struct Certified {
    /// What to record.
    pub(crate) issued: IssuedRequest,
    /// What alerts call its authority.
    authority: String,
    /// When the authority ends, and its own name.
    authority_ends: Option<(i64, String)>,
}

async fn brought(
    cloud: &Cloud,
    tenant: &str,
    action: &ActionRow,
    result: &Value,
) -> Result<Brought, StoreError> {
    let Some(id) = orders::request_in(&action.params) else { return Ok(Brought::Nothing) };
    let found = cloud.store.request_with_profile(tenant, id).await?;
    let Some((request, parts, profile)) = found else { return Ok(Brought::Nothing) };
    let profile = profile.map(|row| row.profile);
    let ordered_from = action.target.get("authority").and_then(Value::as_str);
    let Some(authority) = ordered_from.or(profile.as_ref().map(|profile| profile.authority.as_str())) else {
        let remedy = "Look at the authority's ledger for a certificate nobody has, and revoke it there";
        let error = ErrorReport::new("unknown_profile", "the profile was removed meanwhile", remedy);
        return Ok(Brought::Wrong(Box::new(request), error));
    };
    let terms = Terms {
        authority,
        csr_key: parts.csr_key.as_deref(),
        // By a profile that is gone nothing is renewed.
        renew_days: profile.as_ref().map_or(0, |profile| profile.renew_days),
    };
    let read = Issued::deserialize(result)
        .map_err(|_| "the answer is none".to_owned())
        .and_then(|issued| reading::read(&issued, id, &terms).map(|read| (issued, read)));
    let (issued, read) = match read {
        Ok(both) => both,
        Err(detail) => {
            let remedy =
                "Look at the authority's ledger for a certificate nobody has, and at the agent's log";
            let error = ErrorReport::new("wrong_certificate", detail, remedy);
            return Ok(Brought::Wrong(Box::new(request), error));
        }
    };
    let steps: Vec<String> =
        issued.timing_ms.iter().map(|(step, ms)| format!("{} {ms} ms", step.replace('_', " "))).collect();
    let issued = IssuedRequest {
        id: request.id,
        certificate: read.certificate,
        identity: read.identity,
        detail: steps.join(", "),
    };
    let (authority, authority_ends) = (authority.to_owned(), read.authority_ends);
    Ok(Brought::Certificate(Box::new(Certified { issued, authority, authority_ends })))
}

/// Reads what an order is about to end with: the certificate to record with its end, when it is the one that is wanted.
///
/// # Errors
/// When the store fails.
pub(crate) async fn certified(
    cloud: &Cloud,
    action: &ActionRow,
    result: &Value,
) -> Result<Option<Certified>, StoreError> {
    if action.module != MODULE || action.action != ISSUE {
        return Ok(None);
    }
    Ok(match brought(cloud, &action.tenant, action, result).await? {
        Brought::Certificate(certified) => Some(*certified),
        // Its request is settled at the next look.
        Brought::Wrong(..) | Brought::Nothing => None,
    })
}

/// Records what an order has ended with, which should be a certificate.
///
/// # Errors
/// When the store fails.
pub(super) async fn issued(
    cloud: &Cloud,
    tenant: &str,
    action: &ActionRow,
    result: &Value,
) -> Result<(), StoreError> {
    match brought(cloud, tenant, action, result).await? {
        Brought::Certificate(certified) => {
            let issued = certified.issued.clone();
            let request = cloud.store.request_issued(tenant, issued, cloud.now_ms()).await?;
            recorded(cloud, tenant, *certified, request).await
        }
        Brought::Wrong(request, error) => failed(cloud, tenant, &request, error).await,
        Brought::Nothing => Ok(()),
    }
}

/// A certificate is recorded: tells those who wait, with its request as it stands now.
///
/// # Errors
/// When the store fails.
pub(crate) async fn recorded(
    cloud: &Cloud,
    tenant: &str,
    certified: Certified,
    request: Option<CertificateRequest>,
) -> Result<(), StoreError> {
    let sha256 = certified.issued.certificate.sha256;
    let is_its_own = request.as_ref().is_some_and(|it| it.certificate.as_ref() == Some(&sha256));
    if let Some(request) = request {
        request_changed(cloud, tenant, &request);
    }
    if let Some((end_ms, name)) = certified.authority_ends {
        let soon_ms = i64::try_from(AUTHORITY_ENDS_SOON.as_millis()).unwrap_or(i64::MAX);
        let left_ms = end_ms - cloud.now_ms();
        let notice = Notice {
            code: AUTHORITY_ENDING.to_owned(),
            severity: Severity::Warning,
            subject: certified.authority,
            detail: format!(
                "the authority {name} ends in {} days; certificates cannot outlive it",
                left_ms / DAY_MS
            ),
            remedy: "Renew the authority's certificate, and see that devices and servers trust the new one"
                .to_owned(),
            resolved: left_ms > soon_ms,
        };
        say_once(cloud, tenant, notice).await?;
    }
    if !is_its_own {
        // Nobody waits for it, so it is to be revoked.
        cloud.certificates.touch(tenant);
    }
    Ok(())
}

/// Records that an order has come to nothing.
///
/// # Errors
/// When the store fails.
pub(super) async fn failed(
    cloud: &Cloud,
    tenant: &str,
    request: &CertificateRequest,
    error: ErrorReport,
) -> Result<(), StoreError> {
    let now_ms = cloud.now_ms();
    let retry_ms = if orders::wants_new_challenge(&error)
        && !cloud
            .store
            .failure_before(tenant, request)
            .await?
            .as_ref()
            .is_some_and(orders::wants_new_challenge)
    {
        now_ms
    } else {
        orders::retry_ms(request.attempt, now_ms)
    };
    let changed = cloud.store.request_failed(tenant, &request.id, error, retry_ms, now_ms).await?;
    if let Some(request) = changed {
        request_changed(cloud, tenant, &request);
    }
    Ok(())
}
