//! What dispatch asks about actions.

use rusqlite::{OptionalExtension as _, params};

use super::actions::{COLUMNS, collect};
use super::{ActionRow, Store, StoreError};

impl Store {
    /// Ids of a tenant's actions that no agent has accepted, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn waiting_actions(&self, tenant: &str) -> Result<Vec<String>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT id FROM actions INDEXED BY actions_pending WHERE status = 'pending' AND tenant = ?1 \
                 AND accepted = 0 ORDER BY seq",
            )?;
            let ids = query.query_map([tenant], |row| row.get(0))?;
            Ok(ids.collect::<Result<Vec<_>, _>>()?)
        })
        .await
    }

    /// Pending actions an agent has accepted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn accepted_actions(&self, tenant: &str, agent: &str) -> Result<Vec<ActionRow>, StoreError> {
        let (tenant, agent) = (tenant.to_owned(), agent.to_owned());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM actions INDEXED BY actions_pending WHERE status = 'pending' AND tenant = ?1 \
                 AND agent = ?2 AND accepted = 1 ORDER BY seq"
            ))?;
            collect(query.query(params![tenant, agent])?)
        })
        .await
    }

    /// The attempt came to nothing and the agent certainly does not have the action: anyone may get it next.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn action_undelivered(&self, tenant: &str, id: &str, agent: &str) -> Result<(), StoreError> {
        let (tenant, id, agent) = (tenant.to_owned(), id.to_owned(), agent.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE actions SET agent = NULL, fence = NULL WHERE tenant = ?1 AND id = ?2 AND agent = ?3 \
                     AND status = 'pending' AND accepted = 0",
                )?
                .execute(params![tenant, id, agent])?;
            Ok(())
        })
        .await
    }

    /// The agent that had accepted the action is given up: anyone may get it next, also after a restart of the cloud.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn action_taken_back(&self, tenant: &str, id: &str, agent: &str) -> Result<(), StoreError> {
        let (tenant, id, agent) = (tenant.to_owned(), id.to_owned(), agent.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE actions SET accepted = 0, agent = NULL, fence = NULL WHERE tenant = ?1 AND id = ?2 \
                     AND agent = ?3 AND status = 'pending'",
                )?
                .execute(params![tenant, id, agent])?;
            Ok(())
        })
        .await
    }

    /// Pending actions whose time is over; accepted ones get `grace_ms` more, for the agent's own report to arrive.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn overdue_actions(
        &self,
        now_ms: i64,
        grace_ms: i64,
        limit: usize,
    ) -> Result<Vec<ActionRow>, StoreError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM actions WHERE status = 'pending' AND deadline_ms <= ?1 \
                 AND deadline_ms + accepted * ?2 <= ?1 ORDER BY deadline_ms LIMIT ?3"
            ))?;
            collect(query.query(params![now_ms, grace_ms, i64::try_from(limit).unwrap_or(i64::MAX)])?)
        })
        .await
    }

    /// Unix milliseconds at which the next pending action is over.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_action_deadline(&self, grace_ms: i64) -> Result<Option<i64>, StoreError> {
        self.read(move |connection| {
            let next = connection
                .prepare_cached(
                    "SELECT deadline_ms + accepted * ?1 FROM actions WHERE status = 'pending' \
                     ORDER BY deadline_ms LIMIT 1",
                )?
                .query_row([grace_ms], |row| row.get(0))
                .optional()?;
            Ok(next)
        })
        .await
    }
}
