//! Agents as enrolled and last seen. Who is online now is the business of the channel's registry.

use causeway_protocol::health::{HealthReport, Hello};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::audit::{self, Entry};
use super::rows::{Page, json, one_more, to_json, unsigned};
use super::{Store, StoreError};

/// One enrolled agent.
#[derive(Clone, Debug)]
pub struct AgentRow {
    /// Its instance id.
    pub instance: String,
    /// Host name, for people.
    pub host: String,
    /// Version of the agent, empty before its first session.
    pub version: String,
    /// Operating system and architecture.
    pub os: String,
    /// Changes with every start of its process.
    pub boot_id: String,
    /// Unix milliseconds of the start of its process.
    pub started_ms: i64,
    /// Unix milliseconds of its enrolment.
    pub enrolled_ms: i64,
    /// Unix milliseconds of the last sign of life that was stored.
    pub last_seen_ms: i64,
    /// Sessions so far.
    pub session_epoch: u64,
    /// Kinds of modules its build knows.
    pub modules: Vec<String>,
    /// Its last health report.
    pub health: HealthReport,
    /// Unix milliseconds of that report, 0 for none.
    pub health_ms: i64,
    /// Serial number of its newest certificate, hexadecimal.
    pub certificate_serial: String,
    /// Serial number of the certificate before it while the agent has not shown the newest; empty otherwise.
    pub certificate_before: String,
    /// Unix milliseconds of the newest certificate's end.
    pub certificate_expires_ms: i64,
    /// Unix milliseconds of its revocation.
    pub revoked_ms: Option<i64>,
}

const COLUMNS: &str = "instance, host, version, os, boot_id, started_ms, enrolled_ms, last_seen_ms, session_epoch, \
                       modules, health, health_ms, certificate_serial, certificate_before, \
                       certificate_expires_ms, revoked_ms";

impl Store {
    /// Agents in the order of their host names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn agents(
        &self,
        tenant: &str,
        limit: usize,
        after: Option<String>,
    ) -> Result<Page<AgentRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM agents WHERE tenant = ?1 AND instance > ?2 ORDER BY instance LIMIT ?3"
            ))?;
            let mut rows = query.query(params![tenant, after.unwrap_or_default(), one_more(limit)])?;
            let mut items = Vec::new();
            while let Some(row) = rows.next()? {
                items.push(read(row)?);
            }
            Ok(Page::cut(items, limit, |agent| agent.instance.clone()))
        })
        .await
    }

    /// One agent of one tenant.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn agent(&self, tenant: &str, instance: &str) -> Result<Option<AgentRow>, StoreError> {
        let (tenant, instance) = (tenant.to_owned(), instance.to_owned());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM agents WHERE tenant = ?1 AND instance = ?2"
            ))?;
            let mut rows = query.query(params![tenant, instance])?;
            rows.next()?.map(read).transpose()
        })
        .await
    }

    /// A session begins: stores what the agent said of itself and returns the session's epoch.
    ///
    /// # Errors
    /// When the store fails, or there is no such agent (`Statement` with "no rows").
    pub async fn agent_hello(
        &self,
        tenant: &str,
        instance: &str,
        hello: Hello,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let (tenant, instance) = (tenant.to_owned(), instance.to_owned());
        self.write(move |connection| {
            let epoch: i64 = connection
                .prepare_cached(
                    "UPDATE agents SET version = ?3, os = ?4, host = ?5, boot_id = ?6, started_ms = ?7, modules = ?8, \
                     last_seen_ms = ?9, session_epoch = session_epoch + 1 WHERE tenant = ?1 AND instance = ?2 \
                     RETURNING session_epoch",
                )?
                .query_row(
                    params![
                        tenant,
                        instance,
                        hello.version,
                        hello.os,
                        hello.host,
                        hello.boot_id,
                        hello.started_ms,
                        to_json(&hello.modules),
                        now_ms
                    ],
                    |row| row.get(0),
                )?;
            Ok(epoch.unsigned_abs())
        })
        .await
    }

    /// A health report came.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn agent_health(
        &self,
        tenant: &str,
        instance: &str,
        report: HealthReport,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (tenant, instance) = (tenant.to_owned(), instance.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE agents SET health = ?3, health_ms = ?4, last_seen_ms = ?4 \
                     WHERE tenant = ?1 AND instance = ?2",
                )?
                .execute(params![tenant, instance, to_json(&report), now_ms])?;
            Ok(())
        })
        .await
    }

    /// The agent was seen, for example when its session ended.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn agent_seen(&self, tenant: &str, instance: &str, now_ms: i64) -> Result<(), StoreError> {
        let (tenant, instance) = (tenant.to_owned(), instance.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached("UPDATE agents SET last_seen_ms = ?3 WHERE tenant = ?1 AND instance = ?2")?
                .execute(params![tenant, instance, now_ms])?;
            Ok(())
        })
        .await
    }

    /// Revokes an agent for ever. `None` when there is no such agent; `Some(false)` when it was revoked before.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke_agent(
        &self,
        tenant: &str,
        instance: &str,
        actor: &str,
        now_ms: i64,
    ) -> Result<Option<bool>, StoreError> {
        let (tenant, instance, actor) = (tenant.to_owned(), instance.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let Some(before) = revoked(connection, &tenant, &instance)? else { return Ok(None) };
            if before.is_some() {
                return Ok(Some(false));
            }
            connection.execute(
                "UPDATE agents SET revoked_ms = ?3 WHERE tenant = ?1 AND instance = ?2",
                params![tenant, instance, now_ms],
            )?;
            let body = serde_json::json!({ "agent": instance });
            audit::append(connection, &Entry::new(&tenant, now_ms, &actor, "agent_revoked", body))?;
            Ok(Some(true))
        })
        .await
    }

    /// Whether this identity may use the channel: enrolled and not revoked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn agent_allowed(&self, tenant: &str, instance: &str) -> Result<bool, StoreError> {
        let (tenant, instance) = (tenant.to_owned(), instance.to_owned());
        self.read(move |connection| Ok(matches!(revoked(connection, &tenant, &instance)?, Some(None)))).await
    }

    /// Every revoked (tenant, instance), for the check of live sessions.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoked_agents(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT tenant, instance FROM agents WHERE revoked_ms IS NOT NULL")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })
        .await
    }
}

/// Outer `None`: no such agent.
#[allow(clippy::option_option)]
fn revoked(connection: &Connection, tenant: &str, instance: &str) -> Result<Option<Option<i64>>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT revoked_ms FROM agents WHERE tenant = ?1 AND instance = ?2")?
        .query_row(params![tenant, instance], |row| row.get(0))
        .optional()?)
}

fn read(row: &Row<'_>) -> Result<AgentRow, StoreError> {
    Ok(AgentRow {
        instance: row.get("instance")?,
        host: row.get("host")?,
        version: row.get("version")?,
        os: row.get("os")?,
        boot_id: row.get("boot_id")?,
        started_ms: row.get("started_ms")?,
        enrolled_ms: row.get("enrolled_ms")?,
        last_seen_ms: row.get("last_seen_ms")?,
        session_epoch: unsigned(row, "session_epoch")?,
        modules: json("agent modules", &row.get::<_, String>("modules")?)?,
        health: health(&row.get::<_, String>("health")?)?,
        health_ms: row.get("health_ms")?,
        certificate_serial: row.get("certificate_serial")?,
        certificate_before: row.get("certificate_before")?,
        certificate_expires_ms: row.get("certificate_expires_ms")?,
        revoked_ms: row.get("revoked_ms")?,
    })
}

fn health(text: &str) -> Result<HealthReport, StoreError> {
    if text == "{}" { Ok(HealthReport::default()) } else { json("agent health", text) }
}
