//! What module tests share: a world made of mock-ldap and a cloud in memory that keeps what it is sent.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use causeway_mock_ldap::{Config, MockLdap};
use causeway_protocol::Secret;
use causeway_protocol::channel::payload::{Notice, Progress};
use causeway_protocol::record::{Kind, Op, Record};
use causeway_protocol::upload::{Committed, Mode, UploadRequest};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{ModuleContext, ModuleSettings};
use crate::clock::Clock;
use crate::dial::{Dial, DialError, DialStream, Service, Target};
use crate::link::{CloudLink, LeaseGuard, LinkError, UploadSink};
use crate::random::RandomSource;
use crate::secrets::SecretStore;
use crate::status::StatusCell;
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;
use crate::wake::Wake;

/// Connects to loopback, and knows the service records it was given.
#[derive(Default)]
pub(crate) struct LoopbackDial {
    pub(crate) services: Vec<Service>,
}

impl Dial for LoopbackDial {
    fn connect(&self, target: Target) -> BoxFuture<'_, Result<DialStream, DialError>> {
        Box::pin(async move {
            match TcpStream::connect((target.host.as_str(), target.port)).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    Ok(DialStream::tcp(stream))
                }
                Err(source) => Err(DialError::Unreachable { target, source }),
            }
        })
    }

    fn addresses(&self, _host: &str) -> BoxFuture<'_, Result<Vec<IpAddr>, DialError>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }

    fn services(&self, _name: &str) -> BoxFuture<'_, Result<Vec<Service>, DialError>> {
        Box::pin(async { Ok(self.services.clone()) })
    }
}

/// A record's identity: kind, key, member.
pub(crate) type RecordKey = (Kind, String, Option<String>);

/// A cloud that keeps everything in memory and is strict: a record without effect, twice in one upload, or for an
/// object that is not there, is a failed test.
#[derive(Clone, Default)]
pub(crate) struct MemoryCloud(Arc<Mutex<CloudState>>);

#[derive(Default)]
struct CloudState {
    epoch: u64,
    objects: BTreeMap<RecordKey, String>,
    notices: Vec<Notice>,
    progress: Vec<Progress>,
    uploads: Vec<(Mode, usize)>,
    fail_commit: bool,
    lost: Option<CancellationToken>,
}

impl MemoryCloud {
    fn state(&self) -> MutexGuard<'_, CloudState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything it has.
    pub(crate) fn objects(&self) -> BTreeMap<RecordKey, String> {
        self.state().objects.clone()
    }

    /// How many of a kind it has.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.state().objects.keys().filter(|key| key.0 == kind).count()
    }

    /// The values of a kind, by key.
    pub(crate) fn values(&self, kind: Kind) -> BTreeMap<String, Value> {
        let parse = |text: &String| serde_json::from_str(text).expect("records are JSON");
        let state = self.state();
        let of_kind = state.objects.iter().filter(|(key, _)| key.0 == kind);
        of_kind.map(|(key, text)| (key.1.clone(), parse(text))).collect()
    }

    /// Committed uploads: mode and number of records.
    pub(crate) fn uploads(&self) -> Vec<(Mode, usize)> {
        self.state().uploads.clone()
    }

    pub(crate) fn notices(&self) -> Vec<Notice> {
        self.state().notices.clone()
    }

    pub(crate) fn progress_seen(&self) -> Vec<Progress> {
        self.state().progress.clone()
    }

    /// It comes back without anything.
    pub(crate) fn lose_everything(&self) {
        let mut state = self.state();
        state.epoch = 0;
        state.objects.clear();
    }

    /// The answer to the next commit is lost, although it took effect.
    pub(crate) fn lose_next_commit_answer(&self) {
        self.state().fail_commit = true;
    }

    /// The lease passes to another agent.
    pub(crate) fn take_lease_away(&self) {
        if let Some(lost) = &self.state().lost {
            lost.cancel();
        }
    }
}

impl CloudLink for MemoryCloud {
    fn lease(&self, resource: &str) -> BoxFuture<'_, Result<LeaseGuard, LinkError>> {
        let lost = CancellationToken::new();
        self.state().lost = Some(lost.clone());
        let guard = LeaseGuard::new(resource.to_owned(), 1, lost, CancellationToken::new());
        Box::pin(async { Ok(guard) })
    }

    fn begin_upload(&self, request: UploadRequest) -> BoxFuture<'_, Result<Box<dyn UploadSink>, LinkError>> {
        Box::pin(async move {
            let epoch = self.state().epoch;
            if request.mode == Mode::Delta && request.base_epoch != Some(epoch) {
                return Err(LinkError::BaseMismatch);
            }
            let sink = MemorySink { cloud: self.clone(), mode: request.mode, records: Vec::new() };
            Ok(Box::new(sink) as Box<dyn UploadSink>)
        })
    }

    fn progress(&self, progress: Progress) {
        self.state().progress.push(progress);
    }

    fn notice(&self, notice: Notice) {
        self.state().notices.push(notice);
    }

    fn online(&self) -> watch::Receiver<bool> {
        watch::channel(true).1
    }
}

struct MemorySink {
    cloud: MemoryCloud,
    mode: Mode,
    records: Vec<Record>,
}

impl UploadSink for MemorySink {
    fn push(&mut self, record: Record) -> BoxFuture<'_, Result<(), LinkError>> {
        self.records.push(record);
        Box::pin(async { Ok(()) })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Committed, LinkError>> {
        Box::pin(async move {
            let mut state = self.cloud.state();
            if self.mode == Mode::Snapshot {
                state.objects.clear();
            }
            let mut once = HashSet::new();
            let (mut upserts, mut deletes) = (0, 0);
            let count = self.records.len();
            for record in self.records {
                let key = (record.kind, record.key, record.member);
                assert!(once.insert(key.clone()), "{key:?} twice in one upload");
                match record.op {
                    Op::Upsert => {
                        upserts += 1;
                        let value = record.v.map(|value| value.get().to_owned()).unwrap_or_default();
                        let before = state.objects.insert(key.clone(), value.clone());
                        assert!(before.as_ref() != Some(&value), "{key:?} was sent without having changed");
                    }
                    Op::Delete => {
                        deletes += 1;
                        assert!(
                            state.objects.remove(&key).is_some(),
                            "{key:?} was deleted without being there"
                        );
                    }
                }
            }
            state.epoch += 1;
            state.uploads.push((self.mode, count));
            if std::mem::take(&mut state.fail_commit) {
                return Err(LinkError::Offline);
            }
            Ok(Committed { epoch: state.epoch, upserts, deletes })
        })
    }

    fn abort(self: Box<Self>) {}
}

/// A directory, a cloud, and what a module needs to stand between them.
pub(crate) struct World {
    pub(crate) ldap: MockLdap,
    pub(crate) cloud: MemoryCloud,
    pub(crate) storage: MemoryStorage,
}

impl World {
    pub(crate) async fn start(config: Config) -> Self {
        let ldap = MockLdap::start(config).await.unwrap();
        Self { ldap, cloud: MemoryCloud::default(), storage: MemoryStorage::new() }
    }

    /// LDAPS addresses of its servers, first one first.
    pub(crate) fn servers(&self) -> Vec<String> {
        let urls = self.ldap.urls();
        let mut servers = vec![urls["ldaps"].clone()];
        servers.extend((2..9).filter_map(|n| urls.get(&format!("ldaps_dc{n}")).cloned()));
        servers
    }

    /// `[directory.default]` for it.
    pub(crate) fn directory(&self) -> Value {
        json!({
            "servers": self.servers(),
            "bind_dn": self.ldap.service_account().dn,
            "ca_file": self.ldap.ca().pem_path(),
        })
    }

    pub(crate) fn settings(&self, desired: Value) -> ModuleSettings {
        self.settings_with(desired, self.directory())
    }

    pub(crate) fn settings_with(&self, desired: Value, directory: Value) -> ModuleSettings {
        let password = Secret::new(self.ldap.service_account().password);
        ModuleSettings {
            desired,
            directories: BTreeMap::from([("default".to_owned(), directory)]),
            secrets: SecretStore::new([("directory.default".to_owned(), password)]),
            ..ModuleSettings::default()
        }
    }

    pub(crate) fn context(&self) -> ModuleContext {
        context(Arc::new(self.storage.clone()), Arc::new(self.cloud.clone()))
    }

    /// Binds of this subject that reached a server, by front end.
    pub(crate) fn binds_of(&self, subject: &str) -> Vec<(String, String)> {
        let entries = self.ldap.journal().after(0);
        let theirs =
            entries.into_iter().filter(|e| e.operation == "bind" && e.subject.eq_ignore_ascii_case(subject));
        theirs.map(|entry| (entry.front, entry.outcome)).collect()
    }

    /// The journal, for messages of failed tests.
    pub(crate) fn shown_journal(&self) -> String {
        let entries = self.ldap.journal().after(0);
        let last = entries.len().saturating_sub(30);
        entries[last..].iter().map(|entry| format!("{entry}\n")).collect()
    }
}

pub(crate) fn context(storage: Arc<dyn Storage>, cloud: Arc<dyn CloudLink>) -> ModuleContext {
    ModuleContext {
        dial: Arc::new(LoopbackDial::default()),
        storage,
        cloud,
        clock: Clock::system(),
        stop: CancellationToken::new(),
        status: StatusCell::default(),
        random: RandomSource::seeded(7),
        wake: Wake::default(),
    }
}

/// What differs between two clouds, for messages.
pub(crate) fn difference(
    ours: &BTreeMap<RecordKey, String>,
    theirs: &BTreeMap<RecordKey, String>,
) -> Vec<String> {
    let keys: BTreeSet<&RecordKey> = ours.keys().chain(theirs.keys()).collect();
    keys.into_iter()
        .filter(|key| ours.get(*key) != theirs.get(*key))
        .map(|key| format!("{key:?}: {:?} instead of {:?}", ours.get(key), theirs.get(key)))
        .take(10)
        .collect()
}
