//! The actions this agent has taken, kept for a week so that the same id is never worked on twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use causeway_protocol::action::{Action, Report};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::limits::{INBOX_KEEP, INBOX_ROWS_MAX, STORAGE_PAGE};
use crate::storage::{Batch, Storage, StorageError, Table};

/// Finished actions by time: `<finished_ms, 8 bytes><id>`.
const BY_TIME: &[u8] = b"finished\0";

/// One action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) action: Action,
    /// Unix milliseconds by this machine's clock.
    pub(super) accepted_ms: i64,
    /// Unix milliseconds by this machine's clock; means nothing once there is a report.
    pub(super) deadline_ms: i64,
    /// The terminal report.
    pub(super) report: Option<Report>,
}

pub(super) struct Inbox {
    storage: Arc<dyn Storage>,
    clock: Clock,
    finished: AtomicUsize,
}

impl Inbox {
    pub(super) async fn open(storage: Arc<dyn Storage>, clock: Clock) -> Result<Self, StorageError> {
        let mut finished = 0;
        let mut after = None;
        loop {
            let page = storage.scan(Table::Index, BY_TIME.to_vec(), after, STORAGE_PAGE).await?;
            finished += page.len();
            match page.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        Ok(Self { storage, clock, finished: AtomicUsize::new(finished) })
    }

    pub(super) async fn find(&self, id: &str) -> Result<Option<Row>, StorageError> {
        let row = self.storage.get(Table::Inbox, id.as_bytes().to_vec()).await?;
        Ok(row.and_then(|row| read(id, &row)))
    }

    pub(super) async fn accept(&self, row: &Row) -> Result<(), StorageError> {
        let mut batch = Batch::new();
        batch.put(Table::Inbox, row.action.id.as_bytes(), write(row));
        self.storage.commit(batch).await
    }

    /// Adds to a batch what ends an action.
    pub(super) fn finish(&self, row: &Row, batch: &mut Batch) {
        let id = row.action.id.as_bytes();
        batch.put(Table::Inbox, id, write(row));
        batch.put(Table::Index, time_key(self.clock.now_ms(), id), Vec::new());
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) async fn unfinished(&self) -> Result<Vec<Row>, StorageError> {
        let mut unfinished = Vec::new();
        let mut after = None;
        loop {
            let page = self.storage.scan(Table::Inbox, Vec::new(), after, STORAGE_PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(unfinished) };
            after = Some(last.clone());
            unfinished.extend(
                page.iter()
                    .filter_map(|(id, row)| read(&String::from_utf8_lossy(id), row))
                    .filter(|row| row.report.is_none()),
            );
        }
    }

    /// Forgets what is older than [`INBOX_KEEP`] or beyond [`INBOX_ROWS_MAX`]; returns how many.
    pub(super) async fn prune(&self) -> Result<usize, StorageError> {
        let oldest_ms = self.clock.now_ms() - i64::try_from(INBOX_KEEP.as_millis()).unwrap_or(i64::MAX);
        let mut pruned = 0;
        loop {
            let page = self.storage.scan(Table::Index, BY_TIME.to_vec(), None, STORAGE_PAGE).await?;
            let excess = self.finished.load(Ordering::Relaxed).saturating_sub(INBOX_ROWS_MAX);
            let mut batch = Batch::new();
            let mut count = 0;
            for (key, _) in &page {
                let Some((finished_ms, id)) = read_time_key(key) else { continue };
                if finished_ms >= oldest_ms && count >= excess {
                    break;
                }
                batch.delete(Table::Index, key.clone()).delete(Table::Inbox, id);
                count += 1;
            }
            if count == 0 {
                return Ok(pruned);
            }
            self.storage.commit(batch).await?;
            self.finished.fetch_sub(count, Ordering::Relaxed);
            pruned += count;
        }
    }
}

fn time_key(finished_ms: i64, id: &[u8]) -> Vec<u8> {
    [BY_TIME, &u64::try_from(finished_ms).unwrap_or(0).to_be_bytes(), id].concat()
}

fn read_time_key(key: &[u8]) -> Option<(i64, &[u8])> {
    let (time, id) = key.strip_prefix(BY_TIME)?.split_first_chunk::<8>()?;
    Some((i64::try_from(u64::from_be_bytes(*time)).unwrap_or(i64::MAX), id))
}

fn write(row: &Row) -> Vec<u8> {
    serde_json::to_vec(row).expect("inbox rows serialise to JSON")
}

fn read(id: &str, bytes: &[u8]) -> Option<Row> {
    serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::error!(id, %error, "An inbox row is unreadable and left alone"))
        .ok()
}
