//! Requests for certificates: the list by stage, and one with its timeline.

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::Query;
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, When, request_stage, sentence_case};
use super::{next_query, query_value};
use crate::limits::PORTAL_PAGE;
use crate::store::{CertificateRequest, RequestFilter, RequestStep};

/// A request in a list.
pub(in super::super) struct RequestRow {
    pub(in super::super) id: String,
    pub(in super::super) owner: String,
    pub(in super::super) profile: String,
    pub(in super::super) reason: String,
    pub(in super::super) tone: Tone,
    pub(in super::super) stage: String,
    pub(in super::super) changed: Option<When>,
    pub(in super::super) why: String,
}

/// Requests, ready to show.
pub(in super::super) fn request_rows(requests: Vec<CertificateRequest>, now_ms: i64) -> Vec<RequestRow> {
    let row = |request: CertificateRequest| {
        let (tone, stage) = request_stage(&request.stage);
        RequestRow {
            reason: reason(&request.reason).to_owned(),
            changed: When::at(request.changed_ms, now_ms),
            why: request.error.map(|error| error.detail).unwrap_or_default(),
            id: request.id,
            owner: request.user,
            profile: request.profile,
            tone,
            stage,
        }
    };
    requests.into_iter().map(row).collect()
}

fn reason(word: &str) -> &str {
    match word {
        "enrol" => "First certificate",
        "renew" => "Renewal",
        "replace" => "Replacement",
        other => other,
    }
}

/// A line of a timeline.
pub(in super::super) struct StepDot {
    pub(in super::super) tone: Tone,
    pub(in super::super) text: String,
    pub(in super::super) detail: String,
    pub(in super::super) at: Option<When>,
}

/// A timeline, ready to show.
pub(in super::super) fn step_dots(steps: Vec<RequestStep>, now_ms: i64) -> Vec<StepDot> {
    let dot = |step: RequestStep| {
        let (tone, text) = request_stage(&step.event);
        StepDot { tone, text, detail: sentence_case(&step.detail), at: When::at(step.at_ms, now_ms) }
    };
    steps.into_iter().map(dot).collect()
}

/// Which requests.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct RequestsQuery {
    show: String,
    device: String,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "certificate_requests.html")]
struct RequestsPage {
    shell: Shell,
    tab: &'static str,
    rows: Vec<RequestRow>,
    show: String,
    further: bool,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "certificate_request.html")]
struct RequestPage {
    shell: Shell,
    request: CertificateRequest,
    tone: Tone,
    stage: String,
    reason: String,
    created: Option<When>,
    dots: Vec<StepDot>,
}

pub(in super::super) async fn list(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<RequestsQuery>,
) -> PageResult {
    let shell = seen.shell(&portal, "certificates").await?;
    let filter = RequestFilter {
        open: (query.show == "open").then_some(true),
        stage: matches!(query.show.as_str(), "failed" | "awaiting_approval").then(|| query.show.clone()),
        device: Some(query.device.clone()).filter(|device| !device.is_empty()),
        profile: None,
    };
    let before = query.after.as_deref().and_then(|after| after.parse().ok());
    let found = portal.cloud.store.certificate_requests(&seen.tenant.id, filter, PORTAL_PAGE, before).await?;
    let next = next_query("", found.next.as_deref()).map(|next| {
        format!("{next}&show={}&device={}", query_value(&query.show), query_value(&query.device))
    });
    page(&RequestsPage {
        rows: request_rows(found.items, shell.now_ms),
        tab: "requests",
        show: query.show,
        further: query.after.is_some(),
        next,
        shell,
    })
}

pub(in super::super) async fn show(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let shell = seen.shell(&portal, "certificates").await?;
    let found = portal.cloud.store.certificate_request(&seen.tenant.id, &id).await?;
    let missing = || PortalError::NotFound { what: "request for a certificate".to_owned() };
    let (request, steps) = found.ok_or_else(missing)?;
    let (tone, stage) = request_stage(&request.stage);
    page(&RequestPage {
        reason: reason(&request.reason).to_owned(),
        created: When::at(request.created_ms, shell.now_ms),
        dots: step_dots(steps, shell.now_ms),
        request,
        tone,
        stage,
        shell,
    })
}
