//! Where the records of a run go: to the cloud, or, in a dry run, into a summary.

use std::collections::BTreeMap;
use std::sync::Arc;

use causeway_protocol::channel::payload::Progress;
use causeway_protocol::record::{Kind, Op, Record};
use causeway_protocol::upload::{Committed, Mode, UploadRequest};
use serde::Serialize;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::MailError;
use super::limits;
use super::state::{Hash, digest};
use crate::link::{CloudLink, LeaseGuard, LinkError, UploadSink};

/// The way out of one run. Opens the upload with the first record, so that nothing changed costs nothing.
pub(super) struct Output<'a> {
    cloud: Arc<dyn CloudLink>,
    lease: &'a LeaseGuard,
    request: UploadRequest,
    sink: Option<Box<dyn UploadSink>>,
    dry: Option<BTreeMap<String, Vec<Value>>>,
    counts: BTreeMap<String, u64>,
    told: Option<Instant>,
    phase: &'static str,
    seen: u64,
    total: Option<u64>,
    records: u64,
}

impl<'a> Output<'a> {
    /// To the cloud; without a base, a complete picture.
    pub(super) fn upload(
        cloud: Arc<dyn CloudLink>,
        lease: &'a LeaseGuard,
        base_epoch: Option<u64>,
        confirmed: bool,
    ) -> Self {
        let request = UploadRequest {
            source: lease.resource().to_owned(),
            mode: if base_epoch.is_some() { Mode::Delta } else { Mode::Snapshot },
            base_epoch,
            fence: lease.fence(),
            allow_mass_delete: confirmed,
        };
        Self {
            cloud,
            lease,
            request,
            sink: None,
            dry: None,
            counts: BTreeMap::new(),
            told: None,
            phase: "connecting",
            seen: 0,
            total: None,
            records: 0,
        }
    }

    /// Into a summary.
    pub(super) fn dry(mut self) -> Self {
        self.dry = Some(BTreeMap::new());
        self
    }

    pub(super) fn is_dry(&self) -> bool {
        self.dry.is_some()
    }

    /// Whether everything there is must be pushed.
    pub(super) fn is_snapshot(&self) -> bool {
        self.request.mode == Mode::Snapshot
    }

    /// Opens the upload now, so that a base the cloud does not have is found before a server is asked.
    pub(super) async fn open(&mut self) -> Result<(), MailError> {
        if self.sink.is_none() && self.dry.is_none() {
            self.check_lease()?;
            self.sink = Some(self.cloud.begin_upload(self.request.clone()).await?);
        }
        Ok(())
    }

    /// Sends an object; gives the hash of what was sent.
    pub(super) async fn upsert<T: Serialize>(
        &mut self,
        kind: Kind,
        key: String,
        value: &T,
    ) -> Result<Hash, MailError> {
        let raw = to_raw_value(value).expect("records serialise to JSON");
        let hash = digest(raw.get().as_bytes());
        self.push(Record { op: Op::Upsert, kind, key, member: None, v: Some(raw) }).await?;
        Ok(hash)
    }

    /// Sends a deletion.
    pub(super) async fn delete(&mut self, kind: Kind, key: String) -> Result<(), MailError> {
        self.push(Record { op: Op::Delete, kind, key, member: None, v: None }).await
    }

    async fn push(&mut self, record: Record) -> Result<(), MailError> {
        let name =
            format!("{}.{}", record.kind.as_str(), if record.op == Op::Upsert { "upsert" } else { "delete" });
        if let Some(samples) = &mut self.dry {
            let list = samples.entry(name.clone()).or_default();
            if list.len() < limits::SAMPLES {
                list.push(json!({ "key": record.key, "v": record.v }));
            }
        } else {
            self.open().await?;
            let sink = self.sink.as_mut().expect("it was just opened");
            match sink.push(record).await {
                // One object too large must not stop all others; it keeps its last state in the cloud.
                Err(LinkError::RecordTooLarge { key, bytes, .. }) => {
                    tracing::warn!(key, bytes, "Object too large to travel");
                    self.count("skipped.too_large", 1);
                    return Ok(());
                }
                done => done?,
            }
        }
        self.records += 1;
        self.count(&name, 1);
        Ok(())
    }

    /// Makes everything count; `None` when there was nothing to send.
    pub(super) async fn commit(&mut self) -> Result<Option<Committed>, MailError> {
        self.check_lease()?;
        let nothing_new = self.records == 0 && !self.is_snapshot();
        match self.sink.take() {
            // Opened to see whether the cloud has our base; there is nothing to add to it.
            Some(sink) if nothing_new => {
                sink.abort();
                Ok(None)
            }
            Some(sink) => Ok(Some(sink.commit().await?)),
            None => Ok(None),
        }
    }

    /// Stops at once when another agent has taken over.
    pub(super) fn check_lease(&self) -> Result<(), MailError> {
        if self.lease.is_lost() { Err(MailError::LeaseLost) } else { Ok(()) }
    }

    /// Counts something.
    pub(super) fn count(&mut self, name: &str, by: u64) {
        match self.counts.get_mut(name) {
            Some(count) => *count += by,
            None if by > 0 => {
                self.counts.insert(name.to_owned(), by);
            }
            None => {}
        }
    }

    /// Says a figure instead of counting it.
    pub(super) fn set_count(&mut self, name: &str, value: u64) {
        self.counts.insert(name.to_owned(), value);
    }

    /// Tells the cloud how far work is that goes over several uploads.
    pub(super) fn set_progress(&mut self, phase: &'static str, done: u64, total: u64) {
        self.seen = done;
        self.total = Some(total);
        self.progress(phase, 0);
    }

    pub(super) fn expect(&mut self, total: Option<u64>) {
        self.total = total;
    }

    /// Tells the cloud how far it is, not more often than a person can read.
    pub(super) fn progress(&mut self, phase: &'static str, seen: u64) {
        self.seen += seen;
        let due = self.told.is_none_or(|told| told.elapsed() >= limits::PROGRESS_EVERY);
        if due || phase != self.phase {
            self.phase = phase;
            self.told = Some(Instant::now());
            self.tell(false);
        }
    }

    /// Tells the cloud that this run is over.
    pub(super) fn finished(&mut self, phase: &'static str) {
        self.phase = phase;
        self.tell(true);
    }

    fn tell(&self, finished: bool) {
        self.cloud.progress(Progress {
            resource: self.request.source.clone(),
            phase: self.phase.to_owned(),
            done: self.seen,
            total: self.total.map(|total| total.max(self.seen)),
            finished,
            counts: self.counts.clone(),
        });
    }

    /// What was sent, or what a dry run would have sent.
    pub(super) fn summary(&self) -> Value {
        json!({ "counts": self.counts, "samples": self.dry })
    }
}
