//! Alerts: what a person should know, opened by an agent's notice or by the cloud, closed when the matter is over.

use causeway_protocol::health::Notice;
use rusqlite::{OptionalExtension as _, Row, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::{self, Entry};
use super::rows::{Page, one_more, to_json, unsigned};
use super::{Store, StoreError};

/// One alert.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Alert {
    /// Number of the alert.
    pub id: i64,
    /// The agent that raised it, empty for the cloud itself.
    pub agent: String,
    /// Bounded lower snake case word; one open alert per (agent, code, subject).
    pub code: String,
    /// What it is about: a module, server or resource.
    pub subject: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// What happened.
    pub detail: String,
    /// What to do.
    pub remedy: String,
    /// How often it was raised while open.
    pub times: u64,
    /// Unix milliseconds of the first time.
    pub opened_ms: i64,
    /// Unix milliseconds of the last time.
    pub last_ms: i64,
    /// Unix milliseconds of its end.
    pub closed_ms: Option<i64>,
    /// Unix milliseconds at which a person took notice.
    pub acked_ms: Option<i64>,
    /// Who.
    pub acked_by: Option<String>,
}

/// What a notice did.
#[derive(Clone, Debug)]
pub enum AlertChange {
    /// A new alert.
    Opened(Alert),
    /// An open one was raised again.
    Repeated(Alert),
    /// One was closed.
    Closed(Alert),
    /// Nothing was open.
    Nothing,
}

const COLUMNS: &str = "id, agent, code, subject, severity, detail, remedy, times, opened_ms, last_ms, closed_ms, \
                       acked_ms, acked_by";

impl Store {
    /// Opens, repeats or closes the alert a notice is about. `agent` is empty for the cloud's own.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn notice(
        &self,
        tenant: &str,
        agent: &str,
        notice: Notice,
        now_ms: i64,
    ) -> Result<AlertChange, StoreError> {
        let (tenant, agent) = (tenant.to_owned(), agent.to_owned());
        self.write(move |connection| {
            if notice.resolved {
                let closed = connection
                    .prepare_cached(&format!(
                        "UPDATE alerts SET closed_ms = ?5, last_ms = ?5 WHERE tenant = ?1 AND agent = ?2 AND code = ?3 \
                         AND subject = ?4 AND closed_ms IS NULL RETURNING {COLUMNS}"
                    ))?
                    .query_row(params![tenant, agent, notice.code, notice.subject, now_ms], read)
                    .optional()?;
                return Ok(closed.map_or(AlertChange::Nothing, AlertChange::Closed));
            }
            let severity = to_json(&notice.severity);
            let alert = connection
                .prepare_cached(&format!(
                    "INSERT INTO alerts (tenant, agent, code, subject, severity, detail, remedy, opened_ms, last_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) \
                     ON CONFLICT (tenant, agent, code, subject) WHERE closed_ms IS NULL DO UPDATE SET \
                     severity = excluded.severity, detail = excluded.detail, remedy = excluded.remedy, \
                     times = times + 1, last_ms = excluded.last_ms RETURNING {COLUMNS}"
                ))?
                .query_row(
                    params![
                        tenant,
                        agent,
                        notice.code,
                        notice.subject,
                        severity.trim_matches('"'),
                        notice.detail,
                        notice.remedy,
                        now_ms
                    ],
                    read,
                )?;
            Ok(if alert.times == 1 { AlertChange::Opened(alert) } else { AlertChange::Repeated(alert) })
        })
        .await
    }

    /// Alerts, newest first. `open` filters by state.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn alerts(
        &self,
        tenant: &str,
        open: Option<bool>,
        limit: usize,
        before: Option<i64>,
    ) -> Result<Page<Alert>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM alerts WHERE tenant = ?1 AND id < ?2 \
                 AND (?3 IS NULL OR (closed_ms IS NULL) = ?3) ORDER BY id DESC LIMIT ?4"
            ))?;
            let rows = query
                .query_map(params![tenant, before.unwrap_or(i64::MAX), open, one_more(limit)], read)?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Page::cut(rows, limit, |alert| alert.id.to_string()))
        })
        .await
    }

    /// Closes the open alerts of a code and subject, whichever agent raised them: the matter is over for all.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn close_alerts(
        &self,
        tenant: &str,
        code: &'static str,
        subject: &str,
        now_ms: i64,
    ) -> Result<Vec<Alert>, StoreError> {
        let (tenant, subject) = (tenant.to_owned(), subject.to_owned());
        self.write(move |connection| {
            let mut update = connection.prepare_cached(&format!(
                "UPDATE alerts SET closed_ms = ?4, last_ms = ?4 WHERE tenant = ?1 AND code = ?2 AND subject = ?3 \
                 AND closed_ms IS NULL RETURNING {COLUMNS}"
            ))?;
            let closed = update.query_map(params![tenant, code, subject, now_ms], read)?;
            Ok(closed.collect::<Result<Vec<_>, _>>()?)
        })
        .await
    }

    /// How many are open.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn alerts_open(&self, tenant: &str) -> Result<u64, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let n: i64 = connection
                .prepare_cached("SELECT count(*) FROM alerts WHERE tenant = ?1 AND closed_ms IS NULL")?
                .query_row([tenant], |row| row.get(0))?;
            Ok(n.unsigned_abs())
        })
        .await
    }

    /// A person takes notice. `None` when there is no such alert; repeating it keeps the first name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn ack_alert(
        &self,
        tenant: &str,
        id: i64,
        actor: &str,
        now_ms: i64,
    ) -> Result<Option<Alert>, StoreError> {
        let (tenant, actor) = (tenant.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let alert = connection
                .prepare_cached(&format!(
                    "UPDATE alerts SET acked_ms = coalesce(acked_ms, ?3), acked_by = coalesce(acked_by, ?4) \
                     WHERE tenant = ?1 AND id = ?2 RETURNING {COLUMNS}"
                ))?
                .query_row(params![tenant, id, now_ms, actor], read)
                .optional()?;
            if alert.is_some() {
                let body = serde_json::json!({ "alert": id });
                audit::append(connection, &Entry::new(&tenant, now_ms, &actor, "alert_acknowledged", body))?;
            }
            Ok(alert)
        })
        .await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Alert> {
    Ok(Alert {
        id: row.get("id")?,
        agent: row.get("agent")?,
        code: row.get("code")?,
        subject: row.get("subject")?,
        severity: row.get("severity")?,
        detail: row.get("detail")?,
        remedy: row.get("remedy")?,
        times: unsigned(row, "times")?,
        opened_ms: row.get("opened_ms")?,
        last_ms: row.get("last_ms")?,
        closed_ms: row.get("closed_ms")?,
        acked_ms: row.get("acked_ms")?,
        acked_by: row.get("acked_by")?,
    })
}
