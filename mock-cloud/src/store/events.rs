//! Events as stored, so that a feed can be resumed where it was left.

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::rows::json;
use super::{Store, StoreError};
use crate::limits::{EVENTS_KEPT, EVENTS_PRUNE_EVERY};

/// Something a person would like to see live.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Event {
    /// Grows over the whole cloud; the `id` of the server-sent event.
    pub seq: i64,
    /// Whose.
    pub tenant: String,
    /// Lower snake case word, the `event` of the server-sent event.
    pub kind: String,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Particulars, never a secret.
    #[schema(value_type = Object)]
    pub body: Value,
}

impl Store {
    /// Stores events in order and gives each its number. Does not wait for the disk: what an event tells of is there
    /// already, and a power cut takes no more than the news of the last moment, whose numbers are given again.
    ///
    /// # Errors
    /// When the store fails; then none is stored.
    pub async fn append_events(&self, mut events: Vec<Event>) -> Result<Vec<Event>, StoreError> {
        self.write_soon(move |connection| {
            let mut insert = connection
                .prepare_cached("INSERT INTO events (tenant, kind, at_ms, body) VALUES (?1, ?2, ?3, ?4)")?;
            for event in &mut events {
                event.seq =
                    insert.insert(params![event.tenant, event.kind, event.at_ms, event.body.to_string()])?;
                if event.seq % EVENTS_PRUNE_EVERY == 0 {
                    prune(connection, event.seq - EVENTS_KEPT)?;
                }
            }
            drop(insert);
            Ok(events)
        })
        .await
    }

    /// Events of a tenant after a number, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn events_after(
        &self,
        tenant: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT seq, tenant, kind, at_ms, body FROM events WHERE tenant = ?1 AND seq > ?2 \
                 ORDER BY seq LIMIT ?3",
            )?;
            collect(query.query(params![tenant, after, i64::try_from(limit).unwrap_or(i64::MAX)])?)
        })
        .await
    }

    /// The newest events of a tenant, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn events_latest(&self, tenant: &str, limit: usize) -> Result<Vec<Event>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT seq, tenant, kind, at_ms, body FROM events WHERE tenant = ?1 ORDER BY seq DESC LIMIT ?2",
            )?;
            collect(query.query(params![tenant, i64::try_from(limit).unwrap_or(i64::MAX)])?)
        })
        .await
    }

    /// Number of the newest event of a tenant, 0 for none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn last_event(&self, tenant: &str) -> Result<i64, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            Ok(connection
                .prepare_cached("SELECT coalesce(max(seq), 0) FROM events WHERE tenant = ?1")?
                .query_row([tenant], |row| row.get(0))?)
        })
        .await
    }
}

fn prune(connection: &Connection, up_to: i64) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM events WHERE seq <= ?1")?.execute([up_to])?;
    Ok(())
}

fn collect(mut rows: rusqlite::Rows<'_>) -> Result<Vec<Event>, StoreError> {
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(Event {
            seq: row.get(0)?,
            tenant: row.get(1)?,
            kind: row.get(2)?,
            at_ms: row.get(3)?,
            body: json("event body", &row.get::<_, String>(4)?)?,
        });
    }
    Ok(events)
}
