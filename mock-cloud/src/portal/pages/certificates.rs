//! Certificates of devices: the inventory by expiry, and one certificate with what can be done about it.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Redirect};
use causeway_protocol::certificate::RevocationReason;
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::{Form, Query};
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, When, certificate_status, count, initials, revocation_reason};
use super::certificate_requests::{RequestRow, StepDot, request_rows, step_dots};
use super::{next_query, query_value};
use crate::api::certificate_problem;
use crate::certificates::{self, pem_of, subject_words};
use crate::limits::PORTAL_PAGE;
use crate::store::{CertificateSearch, DeviceCertificate, EnrolledDevice, RequestFilter};

/// Requests shown on the page of a certificate's device and profile.
const SHOWN: usize = 6;

/// A certificate in a list.
pub(in super::super) struct CertificateRow {
    pub(in super::super) sha256: String,
    pub(in super::super) owner: String,
    pub(in super::super) initials: String,
    pub(in super::super) subject: String,
    pub(in super::super) profile: String,
    pub(in super::super) tone: Tone,
    pub(in super::super) status: String,
    pub(in super::super) ends: Option<When>,
    /// Whether its end is past.
    pub(in super::super) over: bool,
}

impl CertificateRow {
    /// Ready to show.
    pub(in super::super) fn new(certificate: DeviceCertificate, now_ms: i64) -> Self {
        let (tone, status) = certificate_status(&certificate.status);
        Self {
            initials: initials(certificate.user.rsplit('\\').next().unwrap_or_default()),
            subject: subject_words(&certificate.subject),
            ends: When::at(certificate.not_after_ms, now_ms),
            over: certificate.not_after_ms <= now_ms,
            owner: certificate.user,
            profile: certificate.profile,
            sha256: certificate.sha256,
            tone,
            status,
        }
    }
}

/// A status that can be chosen, with how many certificates have it.
struct Chip {
    word: String,
    label: String,
    tone: Tone,
    certificates: String,
    is_chosen: bool,
}

/// Which certificates.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct CertificatesQuery {
    q: String,
    status: String,
    device: String,
    profile: String,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "certificates.html")]
struct CertificatesPage {
    shell: Shell,
    tab: &'static str,
    rows: Vec<CertificateRow>,
    chips: Vec<Chip>,
    q: String,
    status: String,
    device: String,
    profile: String,
    /// What is kept of the query when a status is chosen.
    kept: String,
    further: bool,
    next: Option<String>,
    total: String,
    has_profiles: bool,
}

#[derive(Template)]
#[template(path = "certificate.html")]
struct CertificatePage {
    shell: Shell,
    certificate: DeviceCertificate,
    title: String,
    tone: Tone,
    status: String,
    fingerprint: String,
    begins: Option<When>,
    ends: Option<When>,
    installed: Option<When>,
    renews: Option<When>,
    /// Whether it can be renewed and revoked.
    in_use: bool,
    can_revoke: bool,
    revocation: Option<RevocationLine>,
    device: Option<EnrolledDevice>,
    authorities: Vec<String>,
    dots: Vec<StepDot>,
    requests: Vec<RequestRow>,
}

/// A revocation, ready to show.
struct RevocationLine {
    reason: &'static str,
    asked: Option<When>,
    revoked: Option<When>,
    note: String,
    action: Option<String>,
}

/// What a person wants done about a certificate.
#[derive(Deserialize)]
pub(in super::super) struct CertificateForm {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    reason: Option<RevocationReason>,
}

pub(in super::super) async fn list(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<CertificatesQuery>,
) -> PageResult {
    let shell = seen.shell(&portal, "certificates").await?;
    let (store, tenant, now_ms) = (&portal.cloud.store, seen.tenant.id.as_str(), shell.now_ms);
    let filter = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let place = |after: &String| {
        let (end, n) = after.split_once('.')?;
        Some((end.parse().ok()?, n.parse().ok()?))
    };
    let search = CertificateSearch {
        q: filter(&query.q),
        status: filter(&query.status),
        device: filter(&query.device),
        profile: filter(&query.profile),
        ends_before_ms: None,
        limit: PORTAL_PAGE,
        after: query.after.as_ref().and_then(place),
    };
    let found = store.certificates(tenant, search, now_ms).await?;
    let statuses = store.certificate_statuses(tenant, now_ms).await?;
    let has_profiles = !store.certificate_profiles(tenant).await?.is_empty();
    let total: u64 = statuses.values().sum();
    let mut kept = String::new();
    for (name, value) in [("q", &query.q), ("device", &query.device), ("profile", &query.profile)] {
        if !value.is_empty() {
            kept += &format!("&{name}={}", query_value(value));
        }
    }
    let next = next_query("", found.next.as_deref())
        .map(|next| format!("{next}{kept}&status={}", query_value(&query.status)));
    page(&CertificatesPage {
        rows: found.items.into_iter().map(|it| CertificateRow::new(it, now_ms)).collect(),
        chips: chips(&statuses, total, &query.status),
        tab: "inventory",
        further: query.after.is_some(),
        total: count(total),
        q: query.q,
        status: query.status,
        device: query.device,
        profile: query.profile,
        kept,
        next,
        has_profiles,
        shell,
    })
}

/// All, then what is in use, then whatever else there is.
fn chips(statuses: &std::collections::BTreeMap<String, u64>, total: u64, chosen: &str) -> Vec<Chip> {
    const KNOWN: [&str; 3] = ["active", "renewing", "revoked"];
    let others = statuses.keys().map(String::as_str).filter(|word| !KNOWN.contains(word));
    let all = Chip {
        word: String::new(),
        label: "All".to_owned(),
        tone: Tone::Calm,
        certificates: count(total),
        is_chosen: chosen.is_empty(),
    };
    let of = |word: &str| {
        let (tone, label) = certificate_status(word);
        let certificates = count(statuses.get(word).copied().unwrap_or(0));
        Chip { word: word.to_owned(), label, tone, certificates, is_chosen: chosen == word }
    };
    std::iter::once(all).chain(KNOWN.into_iter().chain(others).map(of)).collect()
}

pub(in super::super) async fn show(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, sha256)): Path<(String, String)>,
) -> PageResult {
    let shell = seen.shell(&portal, "certificates").await?;
    let (store, tenant, now_ms) = (&portal.cloud.store, seen.tenant.id.as_str(), shell.now_ms);
    let certificate = found(&portal, &seen, &sha256).await?;
    let chain = store.certificate_chain(tenant, &sha256).await?;
    let (_, above) = chain.unwrap_or_default();
    let own = store.certificate_request(tenant, &certificate.request).await?;
    let filter = RequestFilter {
        device: Some(certificate.device.clone()),
        profile: Some(certificate.profile.clone()),
        ..RequestFilter::default()
    };
    let requests = store.certificate_requests(tenant, filter, SHOWN, None).await?.items;
    let (tone, status) = certificate_status(&certificate.status);
    let revocation = certificate.revocation.as_ref().map(|it| RevocationLine {
        reason: revocation_reason(it.reason),
        asked: When::at(it.asked_ms, now_ms),
        revoked: it.revoked_ms.and_then(|ms| When::at(ms, now_ms)),
        note: it.note.clone(),
        action: it.action.clone(),
    });
    let over = certificate.not_after_ms <= now_ms;
    page(&CertificatePage {
        title: subject_words(&certificate.subject),
        fingerprint: spaced(&certificate.sha256),
        begins: When::at(certificate.not_before_ms, now_ms),
        ends: When::at(certificate.not_after_ms, now_ms),
        installed: certificate.installed_ms.and_then(|ms| When::at(ms, now_ms)),
        renews: Some(certificate.renew_at_ms)
            .filter(|ms| *ms != i64::MAX && revocation.is_none() && certificate.replaced_by.is_none())
            .and_then(|ms| When::at(ms, now_ms)),
        in_use: certificate.replaced_by.is_none() && revocation.is_none(),
        can_revoke: revocation.is_none() && !over,
        device: store.enrolled_device(tenant, &certificate.device).await?,
        authorities: certificates::names_of(&above),
        dots: own.map(|(_, steps)| step_dots(steps, now_ms)).unwrap_or_default(),
        requests: request_rows(requests, now_ms),
        revocation,
        certificate,
        tone,
        status,
        shell,
    })
}

/// The certificate and the authorities above it, as a file.
pub(in super::super) async fn chain(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, sha256)): Path<(String, String)>,
) -> PageResult {
    let certificate = found(&portal, &seen, &sha256).await?;
    let found = portal.cloud.store.certificate_chain(&seen.tenant.id, &sha256).await?;
    let (der, above) = found.ok_or_else(missing)?;
    let name =
        format!("attachment; filename=\"{}.pem\"", &certificate.sha256[..16.min(certificate.sha256.len())]);
    let headers =
        [(header::CONTENT_TYPE, "application/x-pem-file".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, pem_of(&der, &above)).into_response())
}

pub(in super::super) async fn renew(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, sha256)): Path<(String, String)>,
    Form(form): Form<CertificateForm>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    let certificate = found(&portal, &seen, &sha256).await?;
    let actor = seen.visitor.actor();
    let request = certificates::renew(&portal.cloud, &seen.tenant.id, certificate, &actor).await;
    let request = request.map_err(|error| PortalError::from(certificate_problem(error)))?;
    Ok(Redirect::to(&format!("/t/{}/certificate-requests/{}", seen.tenant.id, request.id)).into_response())
}

pub(in super::super) async fn revoke(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, sha256)): Path<(String, String)>,
    Form(form): Form<CertificateForm>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    found(&portal, &seen, &sha256).await?;
    let reason = form.reason.unwrap_or(RevocationReason::Unspecified);
    let (cloud, tenant) = (&portal.cloud, seen.tenant.id.as_str());
    cloud.store.revoke_certificate(tenant, &sha256, reason, &seen.visitor.actor(), cloud.now_ms()).await?;
    cloud.certificates.touch(tenant);
    Ok(Redirect::to(&format!("/t/{tenant}/certificates/{}", query_value(&sha256))).into_response())
}

async fn found(portal: &Portal, seen: &InTenant, sha256: &str) -> Result<DeviceCertificate, PortalError> {
    let now_ms = portal.cloud.now_ms();
    let found = portal.cloud.store.certificate(&seen.tenant.id, sha256, now_ms).await?;
    found.ok_or_else(missing)
}

fn missing() -> PortalError {
    PortalError::NotFound { what: "certificate".to_owned() }
}

/// A fingerprint in groups of four, so that people can compare it and lines can break.
fn spaced(hex: &str) -> String {
    let groups: Vec<String> =
        hex.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_there_is_can_be_chosen() {
        let statuses = [("active".to_owned(), 3), ("expired".to_owned(), 1)].into();
        let chips = chips(&statuses, 4, "expired");
        let labels: Vec<(&str, &str)> =
            chips.iter().map(|chip| (chip.label.as_str(), chip.certificates.as_str())).collect();
        let expected =
            [("All", "4"), ("In use", "3"), ("Renewal due", "0"), ("Revoked", "0"), ("Expired", "1")];
        assert_eq!(labels, expected);
        assert!(chips[4].is_chosen);
    }

    #[test]
    fn fingerprints_can_be_compared() {
        assert_eq!(spaced("0123456789"), "0123 4567 89");
    }
}
