//! Where the records of a collection go: to the cloud, or, in a dry run, into a summary. Shared by the modules that
//! collect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::channel::payload::Progress;
use causeway_protocol::record::{Kind, Op, Record};
use causeway_protocol::upload::{Committed, Mode, UploadRequest};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::Instant;

use crate::link::{CloudLink, LeaseGuard, LinkError, UploadSink};

/// Shown of each kind of difference by a dry run.
pub(crate) const SAMPLES: usize = 50;

/// Time between two progress messages.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Why records do not travel.
#[derive(Debug, Error)]
pub(crate) enum OutputError {
    /// Another agent has taken over.
    #[error("the lease has passed to another agent")]
    LeaseLost,
    /// The cloud does not take them.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// The way out of one run. Opens the upload with the first record, so that nothing changed costs nothing.
pub(crate) struct Output<'a> {
    cloud: Arc<dyn CloudLink>,
    lease: &'a LeaseGuard,
    request: UploadRequest,
    sink: Option<Box<dyn UploadSink>>,
    dry: Option<BTreeMap<String, Vec<Value>>>,
    counts: BTreeMap<String, u64>,
    /// By kind and operation; an array, because it is touched for every record.
    tallies: [[u64; 2]; Kind::ALL.len()],
    told: Option<Instant>,
    phase: &'static str,
    seen: u64,
    total: Option<u64>,
    records: u64,
    ends_empty: bool,
}

impl<'a> Output<'a> {
    /// To the cloud.
    pub(crate) fn upload(
        cloud: Arc<dyn CloudLink>,
        lease: &'a LeaseGuard,
        mode: Mode,
        base_epoch: Option<u64>,
        confirmed: bool,
    ) -> Self {
        let request = UploadRequest {
            source: lease.resource().to_owned(),
            mode,
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
            tallies: [[0; 2]; Kind::ALL.len()],
            told: None,
            phase: "connecting",
            seen: 0,
            total: None,
            records: 0,
            ends_empty: false,
        }
    }

    /// Into a summary.
    pub(crate) fn dry(self) -> Self {
        Self { dry: Some(BTreeMap::new()), ..self }
    }

    /// Whether a complete picture or changes are sent.
    pub(crate) fn mode(&self) -> Mode {
        self.request.mode
    }

    pub(crate) fn is_dry(&self) -> bool {
        self.dry.is_some()
    }

    /// Opens the upload now, so that a base the cloud does not have is found before a server is asked.
    pub(crate) async fn open(&mut self) -> Result<(), OutputError> {
        if self.sink.is_none() && self.dry.is_none() {
            self.check_lease()?;
            self.sink = Some(self.cloud.begin_upload(self.request.clone()).await?);
        }
        Ok(())
    }

    /// The same where most often nothing follows: what was opened is committed all the same, because an upload that stays
    /// open counts as one that is under way.
    pub(crate) async fn open_and_end(&mut self) -> Result<(), OutputError> {
        self.ends_empty = true;
        self.open().await
    }

    /// Sends a record.
    pub(crate) async fn push(&mut self, record: Record) -> Result<(), OutputError> {
        let (kind, op) = (record.kind, record.op);
        if let Some(samples) = &mut self.dry {
            let list = samples.entry(tally_name(kind, op)).or_default();
            if list.len() < SAMPLES {
                list.push(sample(&record));
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
        self.tallies[kind as usize][op as usize] += 1;
        Ok(())
    }

    /// Makes everything count; `None` when there was nothing to send.
    pub(crate) async fn commit(&mut self) -> Result<Option<Committed>, OutputError> {
        self.check_lease()?;
        let nothing_new = self.records == 0 && self.request.mode == Mode::Delta && !self.ends_empty;
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
    pub(crate) fn check_lease(&self) -> Result<(), OutputError> {
        if self.lease.is_lost() { Err(OutputError::LeaseLost) } else { Ok(()) }
    }

    /// Records by kind and operation, and whatever else was counted.
    fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = self.counts.clone();
        for kind in Kind::ALL {
            for op in [Op::Upsert, Op::Delete] {
                let tally = self.tallies[kind as usize][op as usize];
                if tally > 0 {
                    counts.insert(tally_name(kind, op), tally);
                }
            }
        }
        counts
    }

    /// Counts something that is no record.
    pub(crate) fn count(&mut self, name: &str, by: u64) {
        if by > 0 {
            *self.counts.entry(name.to_owned()).or_default() += by;
        }
    }

    /// Says a figure instead of counting it.
    pub(crate) fn set_count(&mut self, name: &str, value: u64) {
        self.counts.insert(name.to_owned(), value);
    }

    /// Tells the cloud how far work is that goes over several uploads.
    pub(crate) fn set_progress(&mut self, phase: &'static str, done: u64, total: u64) {
        self.seen = done;
        self.total = Some(total);
        self.progress(phase, 0);
    }

    pub(crate) fn expect(&mut self, total: Option<u64>) {
        self.total = total;
    }

    /// Tells the cloud how far it is, not more often than a person can read.
    pub(crate) fn progress(&mut self, phase: &'static str, seen: u64) {
        self.seen += seen;
        let due = self.told.is_none_or(|told| told.elapsed() >= PROGRESS_EVERY);
        if due || phase != self.phase {
            self.phase = phase;
            self.told = Some(Instant::now());
            self.tell(false);
        }
    }

    /// Tells the cloud that this run is over.
    pub(crate) fn finished(&mut self, phase: &'static str) {
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
            counts: self.counts(),
        });
    }

    /// What was sent, or what a dry run would have sent.
    pub(crate) fn summary(&self) -> Value {
        json!({ "counts": self.counts(), "samples": self.dry })
    }
}

fn tally_name(kind: Kind, op: Op) -> String {
    let op = match op {
        Op::Upsert => "upsert",
        Op::Delete => "delete",
    };
    format!("{}.{op}", kind.as_str())
}

fn sample(record: &Record) -> Value {
    match record.kind {
        Kind::Member => json!({ "group": record.key, "member": record.member }),
        _ => json!({ "key": record.key, "v": record.v }),
    }
}
