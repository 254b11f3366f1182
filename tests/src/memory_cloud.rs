//! A cloud in memory, for tests that drive the agent's modules against real directories. It is strict: a record
//! without effect, twice in one upload, or for something that is not there, fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use causeway_agent::link::{CloudLink, LeaseGuard, LinkError, UploadSink};
use causeway_protocol::channel::payload::{Notice, Progress};
use causeway_protocol::record::{Kind, Op, Record};
use causeway_protocol::upload::{Committed, Mode, UploadRequest};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What names a record: kind, key and, for a membership, the member.
pub type RecordKey = (Kind, String, Option<String>);

/// Clones share the content.
#[derive(Clone, Default)]
pub struct MemoryCloud(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    epoch: u64,
    objects: BTreeMap<RecordKey, Value>,
    notices: Vec<Notice>,
    progress: Option<Progress>,
    mistakes: Vec<String>,
}

impl MemoryCloud {
    /// Everything it was sent and still has.
    ///
    /// # Panics
    /// When an upload was wrong in itself.
    pub fn objects(&self) -> BTreeMap<RecordKey, Value> {
        let state = self.state();
        assert!(state.mistakes.is_empty(), "uploads were wrong: {:#?}", state.mistakes);
        state.objects.clone()
    }

    /// What a person would have been told.
    pub fn notices(&self) -> Vec<Notice> {
        self.state().notices.clone()
    }

    /// The last it was told about a run.
    pub fn last_progress(&self) -> Option<Progress> {
        self.state().progress.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CloudLink for MemoryCloud {
    fn lease(&self, resource: &str) -> BoxFuture<'_, Result<LeaseGuard, LinkError>> {
        let never = CancellationToken::new();
        let guard = LeaseGuard::new(resource.to_owned(), 1, never, CancellationToken::new());
        Box::pin(async { Ok(guard) })
    }

    fn begin_upload(&self, request: UploadRequest) -> BoxFuture<'_, Result<Box<dyn UploadSink>, LinkError>> {
        Box::pin(async move {
            if request.mode == Mode::Delta && request.base_epoch != Some(self.state().epoch) {
                return Err(LinkError::BaseMismatch);
            }
            let sink = Sink { cloud: self.clone(), mode: request.mode, records: Vec::new() };
            Ok(Box::new(sink) as Box<dyn UploadSink>)
        })
    }

    fn progress(&self, progress: Progress) {
        self.state().progress = Some(progress);
    }

    fn notice(&self, notice: Notice) {
        self.state().notices.push(notice);
    }

    fn online(&self) -> watch::Receiver<bool> {
        watch::channel(true).1
    }
}

struct Sink {
    cloud: MemoryCloud,
    mode: Mode,
    records: Vec<Record>,
}

impl UploadSink for Sink {
    fn push(&mut self, record: Record) -> BoxFuture<'_, Result<(), LinkError>> {
        self.records.push(record);
        Box::pin(async { Ok(()) })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Committed, LinkError>> {
        Box::pin(async move {
            let mut guard = self.cloud.state();
            let state = &mut *guard;
            if self.mode == Mode::Snapshot {
                state.objects.clear();
            }
            let mut once = BTreeSet::new();
            let (mut upserts, mut deletes) = (0, 0);
            for record in self.records {
                let key = (record.kind, record.key, record.member);
                if !once.insert(key.clone()) {
                    state.mistakes.push(format!("{key:?} twice in one upload"));
                }
                if record.op == Op::Upsert {
                    upserts += 1;
                    let value = record.v.map(|value| serde_json::from_str(value.get())).transpose();
                    let value = value.unwrap_or_default().unwrap_or_default();
                    if state.objects.insert(key.clone(), value) == state.objects.get(&key).cloned() {
                        state.mistakes.push(format!("{key:?} was sent without having changed"));
                    }
                } else {
                    deletes += 1;
                    if state.objects.remove(&key).is_none() {
                        state.mistakes.push(format!("{key:?} was deleted without being there"));
                    }
                }
            }
            state.epoch += 1;
            Ok(Committed { epoch: state.epoch, upserts, deletes })
        })
    }

    fn abort(self: Box<Self>) {}
}
