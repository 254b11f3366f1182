//! Uploads: granted, applied batch by batch, committed once.
//!
//! An upload lives as long as the lease it is sent under. A snapshot stamps every row it names with its epoch; the
//! commit deletes what carries another one. An upload that ends without commit after it wrote something moves the
//! source's epoch on, so that no delta can build on the mixture it left: the agent must send a snapshot.

use std::ops::Range;
use std::sync::Arc;

use causeway_protocol::channel::payload::UploadRequest;
use causeway_protocol::upload::{Commit, Committed, Mode, UploadState};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::leases::current_fence;
use super::people::{self, Counts, Kept};
use super::rows::{signed, unsigned};
use super::threads::Wait;
use super::{Store, StoreError};
use crate::config::UploadConfig;
use crate::ingest::Change;
use crate::limits::{CHANGES_PER_PART_MIN, MASS_DELETE_MIN, PARTS_OF_A_BATCH, UPLOAD_FIRST_BATCH_WITHIN};
use crate::pki::AgentIdentity;

/// An agent wants to upload.
#[derive(Clone, Debug)]
pub struct UploadAsk {
    /// The agent.
    pub identity: AgentIdentity,
    /// What it wants.
    pub request: UploadRequest,
    /// Unix milliseconds.
    pub now_ms: i64,
    /// Uploads under way at most, over all agents.
    pub concurrent_max: usize,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// This upload.
    Upload {
        /// Its id.
        upload: String,
        /// The source's epoch after commit.
        epoch: u64,
    },
    /// The lease is not the agent's (any more).
    StaleFence,
    /// The delta does not build on the current epoch.
    BaseMismatch,
    /// Enough uploads are under way.
    TooMany,
}

/// A batch that came.
#[derive(Debug)]
pub struct BatchIn {
    /// The agent.
    pub identity: AgentIdentity,
    /// The upload's id.
    pub upload: String,
    /// Number of the batch.
    pub n: u64,
    /// SHA-256 of the compressed body.
    pub digest: Vec<u8>,
    /// Size of the compressed body.
    pub bytes: usize,
    /// What is in it.
    pub changes: Vec<Change>,
    /// Whether to remember the batch without applying it.
    pub acknowledge_only: bool,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchApplied {
    /// It is applied.
    Stored,
    /// It was before.
    Repeated,
    /// Another batch has that number.
    OtherDigest,
    /// The lease has passed on.
    StaleFence,
    /// The upload is in this other state.
    Over(String),
    /// The agent has no such upload.
    NoUpload,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitResult {
    /// The source has a new epoch.
    Committed {
        /// For the agent.
        committed: Committed,
        /// Whether this call did it; false for a repeated commit.
        first: bool,
        /// What was collected.
        source: String,
        /// `snapshot` or `delta`.
        mode: String,
    },
    /// The guard holds it.
    MassDelete {
        /// What was collected.
        source: String,
        /// Objects it would delete.
        doomed: u64,
        /// Objects there are.
        total: u64,
    },
    /// Not everything has arrived.
    Incomplete {
        /// Batches that have.
        batches: u64,
        /// Records in them.
        records: u64,
    },
    /// The lease has passed on.
    StaleFence,
    /// The upload is in this other state.
    Over(String),
    /// The agent has no such upload.
    NoUpload,
}

const RECEIVING: &str = "receiving";
const COMMITTED: &str = "committed";

/// In place of a batch's number of records, as long as only some of them are in.
const BEGUN: i64 = -1;

struct UploadRow {
    id: String,
    tenant: String,
    source: i64,
    resource: String,
    mode: String,
    epoch: u64,
    fence: u64,
    allow_mass_delete: bool,
    state: String,
    batches: u64,
    records: u64,
    counts: Counts,
}

impl Store {
    /// Grants an upload, or says why not. An earlier upload of the same source ends.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn grant_upload(&self, ask: UploadAsk) -> Result<Granted, StoreError> {
        let upload = self.ids.next().to_string();
        self.write(move |connection| grant(connection, upload, &ask)).await
    }

    /// Applies a batch, once. A long one is written in parts, so that whoever else writes waits for a part at most: a
    /// collector that uploads may not hold up an administrator's action.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn apply_batch(&self, batch: BatchIn) -> Result<BatchApplied, StoreError> {
        let batch = Arc::new(batch);
        let at_once = (batch.changes.len() / PARTS_OF_A_BATCH).max(CHANGES_PER_PART_MIN);
        let (mut from, mut counts) = (0, Counts::default());
        loop {
            let (part, to) = (Arc::clone(&batch), (from + at_once).min(batch.changes.len()));
            // Only the last part is promised to the agent, and the disk has the others with it.
            let wait = if to == batch.changes.len() { Wait::ForDisk } else { Wait::ForReads };
            let applied = self
                .hand_over(wait, move |connection, kept| apply(connection, kept, &part, from..to, counts))
                .await?;
            match applied {
                Applied::Part(so_far) => (from, counts) = (to, so_far),
                Applied::Batch(end) => return Ok(end),
            }
        }
    }

    /// Commits an upload, once; a repeated commit gets the same answer.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn commit_upload(
        &self,
        identity: &AgentIdentity,
        upload: &str,
        commit: Commit,
        settings: &UploadConfig,
        now_ms: i64,
    ) -> Result<CommitResult, StoreError> {
        let (identity, upload, settings) = (identity.clone(), upload.to_owned(), settings.clone());
        self.write(move |connection| {
            let Some(row) = one(connection, &identity, &upload)? else { return Ok(CommitResult::NoUpload) };
            finish(connection, &row, &commit, &settings, now_ms)
        })
        .await
    }

    /// What has arrived of an upload.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn upload_state(
        &self,
        identity: &AgentIdentity,
        upload: &str,
    ) -> Result<Option<UploadState>, StoreError> {
        let (identity, upload) = (identity.clone(), upload.to_owned());
        self.read(move |connection| {
            let Some(row) = one(connection, &identity, &upload)? else { return Ok(None) };
            let mut query = connection.prepare_cached(
                "SELECT n FROM upload_batches WHERE upload = ?1 AND records <> ?2 ORDER BY n",
            )?;
            let mut received: Vec<(u64, u64)> = Vec::new();
            let mut rows = query.query(params![upload, BEGUN])?;
            while let Some(batch) = rows.next()? {
                let n = unsigned(batch, "n")?;
                match received.last_mut() {
                    Some((_, last)) if *last + 1 == n => *last = n,
                    _ => received.push((n, n)),
                }
            }
            Ok(Some(UploadState { received, committed: row.state == COMMITTED }))
        })
        .await
    }
}

fn grant(connection: &Connection, upload: String, ask: &UploadAsk) -> Result<Granted, StoreError> {
    let AgentIdentity { tenant, instance } = &ask.identity;
    let request = &ask.request;
    if !holds_lease(connection, ask)? {
        return Ok(Granted::StaleFence);
    }
    connection
        .prepare_cached("INSERT INTO sources (tenant, source) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![tenant, request.source])?;
    let source: i64 = connection
        .prepare_cached("SELECT id FROM sources WHERE tenant = ?1 AND source = ?2")?
        .query_row(params![tenant, request.source], |row| row.get(0))?;
    abandon_open(connection, tenant, source, ask.now_ms)?;
    if under_way(connection, ask.now_ms)? >= ask.concurrent_max {
        return Ok(Granted::TooMany);
    }
    let current: i64 = connection
        .prepare_cached("SELECT epoch FROM sources WHERE id = ?1")?
        .query_row([source], |row| row.get(0))?;
    let builds_on = request.base_epoch.map(signed);
    if request.mode == Mode::Delta && (builds_on != Some(current) || current == 0) {
        return Ok(Granted::BaseMismatch);
    }
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(epoch) FROM uploads WHERE source = ?1")?
        .query_row([source], |row| row.get(0))?;
    let epoch = current.max(last.unwrap_or(0)) + 1;
    let mode = match request.mode {
        Mode::Snapshot => "snapshot",
        Mode::Delta => "delta",
    };
    connection
        .prepare_cached(
            "INSERT INTO uploads (tenant, id, source, agent, mode, base_epoch, epoch, fence, allow_mass_delete, \
             started_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            tenant,
            upload,
            source,
            instance,
            mode,
            builds_on,
            epoch,
            signed(request.fence),
            request.allow_mass_delete,
            ask.now_ms
        ])?;
    Ok(Granted::Upload { upload, epoch: epoch.unsigned_abs() })
}

fn holds_lease(connection: &Connection, ask: &UploadAsk) -> Result<bool, StoreError> {
    let holds = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM leases WHERE tenant = ?1 AND resource = ?2 AND holder = ?3 AND fence = ?4 \
             AND expires_ms > ?5)",
        )?
        .query_row(
            params![
                ask.identity.tenant,
                ask.request.source,
                ask.identity.instance,
                signed(ask.request.fence),
                ask.now_ms
            ],
            |row| row.get(0),
        )?;
    Ok(holds)
}

/// Ends what is open of a source: there is one collector, and it has begun anew.
fn abandon_open(connection: &Connection, tenant: &str, source: i64, now_ms: i64) -> Result<(), StoreError> {
    let mut query = connection.prepare_cached(
        "UPDATE uploads SET state = 'abandoned', finished_ms = ?3, detail = 'a newer upload of this source began' \
         WHERE tenant = ?1 AND source = ?2 AND state = 'receiving' \
         RETURNING epoch, EXISTS (SELECT 1 FROM upload_batches b WHERE b.upload = uploads.id)",
    )?;
    let open = query
        .query_map(params![tenant, source, now_ms], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, bool)>, _>>()?;
    for (epoch, written) in open {
        if written {
            move_on(connection, source, epoch)?;
        }
    }
    Ok(())
}

/// Makes deltas on the present epoch impossible.
fn move_on(connection: &Connection, source: i64, epoch: i64) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE sources SET epoch = max(epoch, ?2) WHERE id = ?1")?
        .execute(params![source, epoch])?;
    Ok(())
}

/// Uploads whose lease is still good, and which send something: neither those of dead collectors count, nor those that
/// nothing comes of.
fn under_way(connection: &Connection, now_ms: i64) -> Result<usize, StoreError> {
    let idle_ms = i64::try_from(UPLOAD_FIRST_BATCH_WITHIN.as_millis()).unwrap_or(i64::MAX);
    let count: i64 = connection
        .prepare_cached(
            "SELECT count(*) FROM uploads u JOIN sources s ON s.id = u.source JOIN leases l ON l.tenant = u.tenant \
             AND l.resource = s.source AND l.fence = u.fence AND l.holder = u.agent AND l.expires_ms > ?1 \
             WHERE u.state = 'receiving' AND (u.batches > 0 OR u.started_ms > ?2)",
        )?
        .query_row([now_ms, now_ms.saturating_sub(idle_ms)], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// How far a batch is.
enum Applied {
    /// These of its changes are in.
    Part(Counts),
    /// It is over.
    Batch(BatchApplied),
}

/// Applies some of a batch's changes, which follow those counted in `counts`.
fn apply(
    connection: &Connection,
    kept: &mut Kept,
    batch: &BatchIn,
    part: Range<usize>,
    mut counts: Counts,
) -> Result<Applied, StoreError> {
    let over = |end| Ok(Applied::Batch(end));
    let Some(upload) = one(connection, &batch.identity, &batch.upload)? else {
        return over(BatchApplied::NoUpload);
    };
    let earlier: Option<(Vec<u8>, i64)> = connection
        .prepare_cached("SELECT digest, records FROM upload_batches WHERE upload = ?1 AND n = ?2")?
        .query_row(params![upload.id, signed(batch.n)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match &earlier {
        Some((digest, _)) if *digest != batch.digest => return over(BatchApplied::OtherDigest),
        Some((_, records)) if *records != BEGUN => return over(BatchApplied::Repeated),
        _ => {}
    }
    // Asked before every part: a collector whose lease has passed on may not write into its successor's snapshot.
    if current_fence(connection, &upload.tenant, &upload.resource)? != upload.fence {
        return over(BatchApplied::StaleFence);
    }
    if upload.state != RECEIVING {
        return over(BatchApplied::Over(upload.state));
    }
    let last = part.end == batch.changes.len();
    let changes = &batch.changes[part];
    counts += if batch.acknowledge_only {
        Counts::named(changes)
    } else {
        let numbers = kept.numbers_for(&upload.id);
        people::apply(connection, numbers, &upload.tenant, upload.source, upload.epoch, changes)?
    };
    let records = if last { i64::try_from(batch.changes.len()).unwrap_or(i64::MAX) } else { BEGUN };
    connection
        .prepare_cached(
            "INSERT INTO upload_batches (upload, n, digest, records) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (upload, n) DO UPDATE SET records = excluded.records",
        )?
        .execute(params![upload.id, signed(batch.n), batch.digest, records])?;
    if !last {
        return Ok(Applied::Part(counts));
    }
    connection
        .prepare_cached(
            "UPDATE uploads SET batches = batches + 1, records = records + ?2, bytes = bytes + ?3, \
             upserts = upserts + ?4, deletes = deletes + ?5 WHERE id = ?1",
        )?
        .execute(params![
            upload.id,
            records,
            i64::try_from(batch.bytes).unwrap_or(i64::MAX),
            signed(counts.upserts),
            signed(counts.deletes)
        ])?;
    over(BatchApplied::Stored)
}

fn finish(
    connection: &Connection,
    upload: &UploadRow,
    commit: &Commit,
    settings: &UploadConfig,
    now_ms: i64,
) -> Result<CommitResult, StoreError> {
    let committed = |counts: Counts, first| CommitResult::Committed {
        committed: Committed { epoch: upload.epoch, upserts: counts.upserts, deletes: counts.deletes },
        first,
        source: upload.resource.clone(),
        mode: upload.mode.clone(),
    };
    match upload.state.as_str() {
        COMMITTED => return Ok(committed(upload.counts, false)),
        RECEIVING => {}
        other => return Ok(CommitResult::Over(other.to_owned())),
    }
    if current_fence(connection, &upload.tenant, &upload.resource)? != upload.fence {
        return Ok(CommitResult::StaleFence);
    }
    let last: Option<i64> = connection
        .prepare_cached("SELECT max(n) FROM upload_batches WHERE upload = ?1")?
        .query_row([&upload.id], |row| row.get(0))?;
    let complete = (upload.batches, upload.records) == (commit.batches, commit.records)
        && last.map_or(0, |last| last.unsigned_abs() + 1) == upload.batches;
    if !complete {
        return Ok(CommitResult::Incomplete { batches: upload.batches, records: upload.records });
    }
    let mut counts = upload.counts;
    // Where nothing is applied, nothing may be swept either: every row would count as not named.
    if upload.mode == "snapshot" && !settings.acknowledge_only {
        let (doomed, total) = people::doomed(connection, upload.source, upload.epoch)?;
        let mass =
            doomed >= MASS_DELETE_MIN && doomed * 100 > total * u64::from(settings.mass_delete_percent);
        if mass && !upload.allow_mass_delete {
            let detail = format!("would delete {doomed} of {total} objects");
            end(connection, upload, "refused", &detail, counts, now_ms)?;
            move_on(connection, upload.source, signed(upload.epoch))?;
            return Ok(CommitResult::MassDelete { source: upload.resource.clone(), doomed, total });
        }
        counts.deletes += people::sweep(connection, upload.source, upload.epoch)?;
    }
    connection
        .prepare_cached("UPDATE sources SET epoch = ?2, committed_ms = ?3 WHERE id = ?1")?
        .execute(params![upload.source, signed(upload.epoch), now_ms])?;
    end(connection, upload, COMMITTED, "", counts, now_ms)?;
    Ok(committed(counts, true))
}

fn end(
    connection: &Connection,
    upload: &UploadRow,
    state: &str,
    detail: &str,
    counts: Counts,
    now_ms: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE uploads SET state = ?2, detail = ?3, upserts = ?4, deletes = ?5, finished_ms = ?6 WHERE id = ?1",
        )?
        .execute(params![upload.id, state, detail, signed(counts.upserts), signed(counts.deletes), now_ms])?;
    Ok(())
}

fn one(
    connection: &Connection,
    identity: &AgentIdentity,
    upload: &str,
) -> Result<Option<UploadRow>, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT u.id, u.tenant, u.source, s.source AS resource, u.mode, u.epoch, u.fence, u.allow_mass_delete, \
             u.state, u.batches, u.records, u.upserts, u.deletes FROM uploads u JOIN sources s ON s.id = u.source \
             WHERE u.id = ?1 AND u.tenant = ?2 AND u.agent = ?3",
        )?
        .query_row(params![upload, identity.tenant, identity.instance], |row| {
            Ok(UploadRow {
                id: row.get("id")?,
                tenant: row.get("tenant")?,
                source: row.get("source")?,
                resource: row.get("resource")?,
                mode: row.get("mode")?,
                epoch: unsigned(row, "epoch")?,
                fence: unsigned(row, "fence")?,
                allow_mass_delete: row.get("allow_mass_delete")?,
                state: row.get("state")?,
                batches: unsigned(row, "batches")?,
                records: unsigned(row, "records")?,
                counts: Counts { upserts: unsigned(row, "upserts")?, deletes: unsigned(row, "deletes")? },
            })
        })
        .optional()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use causeway_protocol::record::OuRecord;

    use super::super::Tenant;
    use super::super::leases::{LeaseAsk, Leased};
    use super::*;
    use crate::ingest::Row;

    const CHANGES: usize = CHANGES_PER_PART_MIN + 1;

    struct Collector {
        store: Store,
        identity: AgentIdentity,
        fence: u64,
        _folder: tempfile::TempDir,
    }

    impl Collector {
        async fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store.db")).unwrap();
            let identity = AgentIdentity { tenant: "acme".to_owned(), instance: "one".to_owned() };
            let acme = Tenant { id: identity.tenant.clone(), name: "Acme".to_owned(), created_ms: 0 };
            store.create_tenant(acme, "test".to_owned()).await.unwrap();
            let ask = LeaseAsk {
                tenant: identity.tenant.clone(),
                resource: "directory".to_owned(),
                holder: identity.instance.clone(),
                boot_id: "b".to_owned(),
                ttl_ms: 60_000,
                now_ms: 0,
            };
            let Leased::Granted { lease, .. } = store.acquire_lease(ask).await.unwrap() else {
                panic!("nobody else asked");
            };
            Self { store, identity, fence: lease.fence, _folder: folder }
        }

        async fn grant(&self, mode: Mode, base_epoch: Option<u64>) -> Granted {
            let (source, fence) = ("directory".to_owned(), self.fence);
            let request = UploadRequest { source, mode, base_epoch, fence, allow_mass_delete: false };
            let ask = UploadAsk { identity: self.identity.clone(), request, now_ms: 1, concurrent_max: 9 };
            self.store.grant_upload(ask).await.unwrap()
        }

        async fn upload(&self, mode: Mode, base_epoch: Option<u64>) -> String {
            match self.grant(mode, base_epoch).await {
                Granted::Upload { upload, .. } => upload,
                refused => panic!("{refused:?}"),
            }
        }

        /// A batch that is written in two parts.
        fn batch(&self, upload: &str) -> BatchIn {
            let unit = |n: usize| Change {
                key: format!("u{n}"),
                row: Row::Ou(Box::new(OuRecord { name: n.to_string(), dn: format!("OU={n}"), parent: None })),
            };
            BatchIn {
                identity: self.identity.clone(),
                upload: upload.to_owned(),
                n: 0,
                digest: vec![1],
                bytes: 10,
                changes: (0..CHANGES).map(unit).collect(),
                acknowledge_only: false,
            }
        }

        /// What a process that ends after a batch's first part leaves.
        async fn begin(&self, upload: &str) {
            let batch = self.batch(upload);
            let part = move |connection: &Connection, kept: &mut Kept| {
                apply(connection, kept, &batch, 0..CHANGES_PER_PART_MIN, Counts::default())
            };
            let applied = self.store.hand_over(Wait::ForReads, part).await.unwrap();
            assert!(matches!(applied, Applied::Part(Counts { upserts: 100, deletes: 0 })));
        }

        async fn received(&self, upload: &str) -> Vec<(u64, u64)> {
            self.store.upload_state(&self.identity, upload).await.unwrap().unwrap().received
        }

        async fn commit(&self, upload: &str) -> CommitResult {
            let commit = Commit { batches: 1, records: CHANGES as u64 };
            let settings = UploadConfig::default();
            self.store.commit_upload(&self.identity, upload, commit, &settings, 2).await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_batch_that_was_cut_short_is_not_received_and_counts_once_when_it_comes_again() {
        let collector = Collector::start().await;
        let upload = collector.upload(Mode::Snapshot, None).await;
        collector.begin(&upload).await;
        assert_eq!(collector.received(&upload).await, []);
        assert!(matches!(
            collector.commit(&upload).await,
            CommitResult::Incomplete { batches: 0, records: 0 }
        ));
        let other = BatchIn { digest: vec![2], ..collector.batch(&upload) };
        assert_eq!(collector.store.apply_batch(other).await.unwrap(), BatchApplied::OtherDigest);
        for expected in [BatchApplied::Stored, BatchApplied::Repeated] {
            assert_eq!(collector.store.apply_batch(collector.batch(&upload)).await.unwrap(), expected);
        }
        assert_eq!(collector.received(&upload).await, [(0, 0)]);
        let CommitResult::Committed { committed, first: true, .. } = collector.commit(&upload).await else {
            panic!("all of it has come");
        };
        assert_eq!((committed.upserts, committed.deletes), (CHANGES as u64, 0));
    }

    #[tokio::test]
    async fn what_part_of_a_batch_left_is_no_base_for_a_delta() {
        let collector = Collector::start().await;
        let first = collector.upload(Mode::Snapshot, None).await;
        collector.store.apply_batch(collector.batch(&first)).await.unwrap();
        assert!(matches!(collector.commit(&first).await, CommitResult::Committed { .. }));
        let begun = collector.upload(Mode::Delta, Some(1)).await;
        collector.begin(&begun).await;
        assert_eq!(collector.grant(Mode::Delta, Some(1)).await, Granted::BaseMismatch);
        // Its successor has begun: the rest of it is too late.
        let late = collector.store.apply_batch(collector.batch(&begun)).await.unwrap();
        assert_eq!(late, BatchApplied::Over("abandoned".to_owned()));
    }

    /// A write that is asked for while the first part waits is done before the second.
    #[tokio::test]
    async fn others_write_between_the_parts_of_a_batch() {
        let collector = Collector::start().await;
        let upload = collector.upload(Mode::Snapshot, None).await;
        // As long as the writing thread is held up here, both the others wait behind it, in the order they came.
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let hold_up = collector.store.write(move |_| Ok(held.recv().is_ok()));
        let batch = collector.store.apply_batch(collector.batch(&upload));
        let other = collector.store.write(|connection| {
            let all = "SELECT count(*) FROM ous";
            Ok(connection.query_row(all, [], |row| row.get::<_, i64>(0))?)
        });
        tokio::pin!(hold_up, batch, other);
        assert!(futures_util::poll!(&mut hold_up).is_pending());
        assert!(futures_util::poll!(&mut batch).is_pending());
        assert!(futures_util::poll!(&mut other).is_pending());
        let_go.send(()).unwrap();
        let (_, stored, begun) = tokio::join!(hold_up, batch, other);
        assert_eq!(stored.unwrap(), BatchApplied::Stored);
        assert_eq!(begun.unwrap(), CHANGES_PER_PART_MIN as i64);
    }
}
