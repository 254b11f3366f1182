//! Alerts: open ones first, with what to do.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use causeway_protocol::action::codes;
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::{Form, Query};
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, When, sentence_case, severity};
use super::{TokenOnly, next_query};
use crate::limits::{PAGE_DEFAULT, PORTAL_PAGE};
use crate::store::Alert;

struct Row {
    tone: Tone,
    severity: &'static str,
    opened: Option<When>,
    last: Option<When>,
    closed: Option<When>,
    acked: Option<When>,
    /// Whether a person can confirm what a guard has held.
    held: bool,
    title: String,
    alert: Alert,
}

impl Row {
    fn new(alert: Alert, now_ms: i64) -> Self {
        let (tone, severity) = severity(&alert.severity);
        Self {
            tone: if alert.closed_ms.is_some() { Tone::Calm } else { tone },
            severity,
            opened: When::at(alert.opened_ms, now_ms),
            last: When::at(alert.last_ms, now_ms),
            closed: alert.closed_ms.and_then(|ms| When::at(ms, now_ms)),
            acked: alert.acked_ms.and_then(|ms| When::at(ms, now_ms)),
            held: alert.closed_ms.is_none()
                && matches!(alert.code.as_str(), codes::HELD_BY_GUARD | "mass_delete"),
            title: sentence_case(&alert.code.replace('_', " ")),
            alert,
        }
    }
}

#[derive(Template)]
#[template(path = "alerts.html")]
struct AlertsPage {
    shell: Shell,
    open: Vec<Row>,
    closed: Vec<Row>,
    next: Option<String>,
    further: bool,
}

/// Which page of the closed ones.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct AfterQuery {
    after: Option<String>,
}

pub(in super::super) async fn list(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<AfterQuery>,
) -> PageResult {
    let shell = seen.shell(&portal, "alerts").await?;
    let (store, tenant) = (&portal.cloud.store, seen.tenant.id.as_str());
    let before = query.after.as_deref().and_then(|after| after.parse().ok());
    let open = store.alerts(tenant, Some(true), PAGE_DEFAULT, None).await?;
    let closed = store.alerts(tenant, Some(false), PORTAL_PAGE, before).await?;
    let rows = |alerts: Vec<Alert>| alerts.into_iter().map(|alert| Row::new(alert, shell.now_ms)).collect();
    page(&AlertsPage {
        open: rows(open.items),
        next: next_query("", closed.next.as_deref()),
        closed: rows(closed.items),
        further: query.after.is_some(),
        shell,
    })
}

pub(in super::super) async fn ack(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, alert)): Path<(String, String)>,
    Form(form): Form<TokenOnly>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    let missing = || PortalError::NotFound { what: "alert".to_owned() };
    let id: i64 = alert.parse().map_err(|_| missing())?;
    let actor = seen.visitor.actor();
    let found = portal.cloud.store.ack_alert(&seen.tenant.id, id, &actor, portal.cloud.now_ms()).await?;
    found.ok_or_else(missing)?;
    Ok(Redirect::to(&format!("/t/{}/alerts", seen.tenant.id)).into_response())
}
