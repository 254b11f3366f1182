//! Desired config of each module and what each agent made of it.

use std::collections::BTreeMap;

use causeway_protocol::action::ErrorReport;
use causeway_protocol::config::{AppliedConfig, DesiredConfig};
use rusqlite::{Connection, Row, params};
use serde_json::Value;

use super::audit::{self, Entry};
use super::rows::{json, json_opt, signed, to_json, unsigned};
use super::{Store, StoreError};

/// What one agent runs of one module.
#[derive(Clone, Debug)]
pub struct AppliedRow {
    /// The agent.
    pub instance: String,
    /// The revision it tried last.
    pub revision: u64,
    /// The revision that runs, 0 for none.
    pub running: u64,
    /// Why the tried one does not run.
    pub error: Option<ErrorReport>,
}

impl Store {
    /// Writes a module's desired config. The revision grows only when something changed, so that repeating a PUT is
    /// harmless.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_config(
        &self,
        tenant: &str,
        module: &str,
        enabled: bool,
        settings: Value,
        actor: &str,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let (tenant, module, actor) = (tenant.to_owned(), module.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let old = one(connection, &tenant, &module)?;
            if let Some(old) = &old
                && old.enabled == enabled
                && old.settings == settings
            {
                return Ok(old.revision);
            }
            let revision = old.map_or(1, |old| old.revision + 1);
            connection.execute(
                "INSERT INTO configs (tenant, module, revision, enabled, settings, changed_ms) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (tenant, module) DO UPDATE SET \
                 revision = excluded.revision, enabled = excluded.enabled, settings = excluded.settings, \
                 changed_ms = excluded.changed_ms",
                params![tenant, module, signed(revision), enabled, to_json(&settings), now_ms],
            )?;
            let body = serde_json::json!({ "module": module, "revision": revision, "enabled": enabled });
            audit::append(connection, &Entry::new(&tenant, now_ms, &actor, "config_changed", body))?;
            Ok(revision)
        })
        .await
    }

    /// A module's desired config.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn config(&self, tenant: &str, module: &str) -> Result<Option<DesiredConfig>, StoreError> {
        let (tenant, module) = (tenant.to_owned(), module.to_owned());
        self.read(move |connection| one(connection, &tenant, &module)).await
    }

    /// All modules' desired configs of a tenant, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn configs(&self, tenant: &str) -> Result<Vec<DesiredConfig>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT module, revision, enabled, settings FROM configs WHERE tenant = ?1 ORDER BY module",
            )?;
            let mut rows = query.query([tenant])?;
            let mut configs = Vec::new();
            while let Some(row) = rows.next()? {
                configs.push(read(row)?);
            }
            Ok(configs)
        })
        .await
    }

    /// What an agent said after it tried a revision.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn config_applied(
        &self,
        tenant: &str,
        instance: &str,
        applied: AppliedConfig,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (tenant, instance) = (tenant.to_owned(), instance.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO applied_configs (tenant, module, instance, revision, running, error, at_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tenant, module, instance) DO UPDATE SET \
                     revision = excluded.revision, running = excluded.running, error = excluded.error, \
                     at_ms = excluded.at_ms",
                )?
                .execute(params![
                    tenant,
                    applied.module,
                    instance,
                    signed(applied.revision),
                    signed(applied.running),
                    applied.error.as_ref().map(to_json),
                    now_ms
                ])?;
            Ok(())
        })
        .await
    }

    /// What each agent runs, by module.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn applied_configs(
        &self,
        tenant: &str,
    ) -> Result<BTreeMap<String, Vec<AppliedRow>>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT module, instance, revision, running, error FROM applied_configs WHERE tenant = ?1 \
                 ORDER BY module, instance",
            )?;
            let mut rows = query.query([tenant])?;
            let mut applied: BTreeMap<String, Vec<AppliedRow>> = BTreeMap::new();
            while let Some(row) = rows.next()? {
                applied.entry(row.get("module")?).or_default().push(AppliedRow {
                    instance: row.get("instance")?,
                    revision: unsigned(row, "revision")?,
                    running: unsigned(row, "running")?,
                    error: json_opt("config error", row.get("error")?)?,
                });
            }
            Ok(applied)
        })
        .await
    }
}

fn one(connection: &Connection, tenant: &str, module: &str) -> Result<Option<DesiredConfig>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT module, revision, enabled, settings FROM configs WHERE tenant = ?1 AND module = ?2",
    )?;
    let mut rows = query.query(params![tenant, module])?;
    rows.next()?.map(read).transpose()
}

fn read(row: &Row<'_>) -> Result<DesiredConfig, StoreError> {
    Ok(DesiredConfig {
        module: row.get("module")?,
        revision: unsigned(row, "revision")?,
        enabled: row.get("enabled")?,
        settings: json("config settings", &row.get::<_, String>("settings")?)?,
    })
}
