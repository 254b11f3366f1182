//! Uploads and leases as people see them.

use rusqlite::params;
use serde::Serialize;
use utoipa::ToSchema;

use super::rows::{Page, one_more, unsigned};
use super::{Store, StoreError};

/// One upload.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UploadView {
    /// Its id.
    pub id: String,
    /// What was collected.
    pub source: String,
    /// The agent that sent it.
    pub agent: String,
    /// `snapshot` or `delta`.
    pub mode: String,
    /// `receiving`, `committed`, `refused` or `abandoned`.
    pub state: String,
    /// The epoch the source has after it.
    pub epoch: u64,
    /// Fence of the lease it was sent under.
    pub fence: u64,
    /// Batches so far.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Compressed bytes.
    pub bytes: u64,
    /// Rows written.
    pub upserts: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// Why it was refused.
    pub detail: String,
    /// Unix milliseconds of its begin.
    pub started_ms: i64,
    /// Unix milliseconds of its end.
    pub finished_ms: Option<i64>,
    #[serde(skip)]
    seq: i64,
}

/// One lease.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LeaseView {
    /// What is leased.
    pub resource: String,
    /// The agent that holds it now, if any.
    pub holder: Option<String>,
    /// Grows with every new holder.
    pub fence: u64,
    /// Unix milliseconds of its end without renewal.
    pub expires_ms: i64,
}

impl Store {
    /// Uploads of a tenant, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn upload_views(
        &self,
        tenant: &str,
        limit: usize,
        before: Option<i64>,
    ) -> Result<Page<UploadView>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT u.seq, u.id, s.source, u.agent, u.mode, u.state, u.epoch, u.fence, u.batches, u.records, \
                 u.bytes, u.upserts, u.deletes, u.detail, u.started_ms, u.finished_ms FROM uploads u \
                 JOIN sources s ON s.id = u.source WHERE u.tenant = ?1 AND u.seq < ?2 ORDER BY u.seq DESC LIMIT ?3",
            )?;
            let rows = query
                .query_map(params![tenant, before.unwrap_or(i64::MAX), one_more(limit)], |row| {
                    Ok(UploadView {
                        seq: row.get("seq")?,
                        id: row.get("id")?,
                        source: row.get("source")?,
                        agent: row.get("agent")?,
                        mode: row.get("mode")?,
                        state: row.get("state")?,
                        epoch: unsigned(row, "epoch")?,
                        fence: unsigned(row, "fence")?,
                        batches: unsigned(row, "batches")?,
                        records: unsigned(row, "records")?,
                        bytes: unsigned(row, "bytes")?,
                        upserts: unsigned(row, "upserts")?,
                        deletes: unsigned(row, "deletes")?,
                        detail: row.get("detail")?,
                        started_ms: row.get("started_ms")?,
                        finished_ms: row.get("finished_ms")?,
                    })
                })?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Page::cut(rows, limit, |upload| upload.seq.to_string()))
        })
        .await
    }

    /// Leases of a tenant by resource; an expired one has no holder.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lease_views(&self, tenant: &str, now_ms: i64) -> Result<Vec<LeaseView>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT resource, CASE WHEN expires_ms > ?2 THEN holder END AS holder, fence, expires_ms FROM leases \
                 WHERE tenant = ?1 ORDER BY resource",
            )?;
            let rows = query.query_map(params![tenant, now_ms], |row| {
                Ok(LeaseView {
                    resource: row.get("resource")?,
                    holder: row.get("holder")?,
                    fence: unsigned(row, "fence")?,
                    expires_ms: row.get("expires_ms")?,
                })
            })?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })
        .await
    }
}
