//! What the parts of a run share: the log, the state of every host, the systems behind the modules.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_agent::RunningAgent;
use causeway_agent::link::LeaseGuard;
use causeway_agent::storage::memory::MemoryStorage;
use causeway_mock_cloud::Cloud;
use causeway_mock_cloud::store::{Disk, NewAction};
use tokio::sync::Notify;

use super::net::Sockets;
use super::stats::Stats;

/// The one tenant.
pub(super) const TENANT: &str = "acme";
/// The one collected resource.
pub(super) const RESOURCE: &str = "user_visibility/default";
/// Every password of a run begins so; nothing durable may contain it.
pub(super) const CANARY: &str = "canary-pw-";

/// One life of a host's software. A dead process does nothing any more, although its tasks may still be polled until
/// the end of the network's tick.
#[derive(Default)]
pub(super) struct Process {
    /// Counts the lives of the host, from 1.
    pub(super) number: u64,
    dead: AtomicBool,
    pub(super) sockets: Sockets,
}

impl Process {
    pub(super) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(super) fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// Never resolves when the process is dead.
    pub(super) async fn alive(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// A host's storage, as faults see it.
#[derive(Default)]
pub(super) struct DiskFaults {
    /// The process dies at this many storage awaits from now.
    pub(super) armed: Option<u32>,
    /// Every storage await takes up to this long.
    pub(super) slow_ms: u64,
}

/// An agent's place: outlives its processes.
pub(super) struct Seat {
    pub(super) host: &'static str,
    /// Whose certificate it has: its own number, or for a clone that of the original.
    pub(super) identity: usize,
    pub(super) state: Mutex<SeatState>,
    /// How wrong its clock is, in milliseconds.
    pub(super) skew_ms: &'static AtomicI64,
}

pub(super) struct SeatState {
    pub(super) process: Arc<Process>,
    pub(super) disk: MemoryStorage,
    pub(super) faults: DiskFaults,
    pub(super) running: Option<Arc<RunningAgent>>,
    /// Moments of the last connection attempts, in milliseconds of the run.
    pub(super) dials: VecDeque<u64>,
    pub(super) was_online: bool,
}

/// The cloud's place.
pub(super) struct CloudSeat {
    pub(super) disk: Disk,
    pub(super) state: Mutex<CloudState>,
    pub(super) orders: Mutex<VecDeque<Order>>,
    pub(super) ordered: Notify,
    pub(super) skew_ms: AtomicI64,
}

pub(super) struct CloudState {
    pub(super) process: Arc<Process>,
    pub(super) faults: DiskFaults,
    pub(super) cloud: Option<Arc<Cloud>>,
    /// Whether the actions' tables may have changed since the last look.
    pub(super) dirty: bool,
    pub(super) started_at_ms: u64,
}

/// What a user of the cloud's API does.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Action { n: usize, new: NewAction },
    Authenticate { n: usize },
    Config { module: &'static str, version: u64 },
}

/// The system behind the modules. It never crashes and forgets nothing, so whatever is done twice shows.
#[derive(Default)]
pub(super) struct System {
    /// How often each action took effect.
    pub(super) applied: BTreeMap<String, u32>,
    /// Seats that began to work on each action.
    pub(super) begun: BTreeMap<String, BTreeSet<usize>>,
    /// How often one process began an action that is over when it returns: action, seat, life of the process. Whatever
    /// is delivered again must be known from the inbox.
    pub(super) begins: BTreeMap<(String, usize, u64), u32>,
    /// Actions whose effect takes its time: when it is there, in milliseconds of the run.
    pub(super) jobs: BTreeMap<String, u64>,
    /// How often each password was tried.
    pub(super) tried: BTreeMap<String, u32>,
    /// The directory: key and version of every object.
    pub(super) objects: BTreeMap<String, u64>,
    /// Ids the cloud gave to orders, by the order's number.
    pub(super) ids: BTreeMap<usize, String>,
    /// Those who believe that they may collect.
    pub(super) holders: Vec<Holder>,
}

pub(super) struct Holder {
    pub(super) seat: usize,
    pub(super) process: Arc<Process>,
    pub(super) guard: Arc<LeaseGuard>,
}

/// Something to be done to a host at the end of the tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Died {
    Agent(usize),
    Cloud,
}

/// Everything shared.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) epoch_ms: i64,
    pub(super) seats: Vec<Seat>,
    pub(super) cloud: CloudSeat,
    pub(super) system: Mutex<System>,
    pub(super) stats: Mutex<Stats>,
    pub(super) died: Mutex<Vec<Died>>,
    pub(super) violations: Mutex<Vec<String>>,
    log: Mutex<Log>,
    /// Milliseconds of the run at the beginning of this tick.
    pub(super) tick_ms: AtomicU64,
}

#[derive(Default)]
struct Log {
    lines: Vec<(u64, String)>,
    keep: bool,
    hash: std::hash::DefaultHasher,
    count: u64,
}

impl World {
    pub(super) fn new(seed: u64, keep_log: bool, epoch_ms: i64, seats: Vec<Seat>, disk: Disk) -> Self {
        let process = Arc::new(Process::default());
        Self {
            seed,
            epoch_ms,
            seats,
            cloud: CloudSeat {
                disk,
                state: Mutex::new(CloudState {
                    process,
                    faults: DiskFaults::default(),
                    cloud: None,
                    dirty: false,
                    started_at_ms: 0,
                }),
                orders: Mutex::default(),
                ordered: Notify::new(),
                skew_ms: AtomicI64::new(0),
            },
            system: Mutex::default(),
            stats: Mutex::default(),
            died: Mutex::default(),
            violations: Mutex::default(),
            log: Mutex::new(Log { keep: keep_log, ..Log::default() }),
            tick_ms: AtomicU64::new(0),
        }
    }

    /// Milliseconds of the run.
    pub(super) fn now_ms(&self) -> u64 {
        let millis = |elapsed: Duration| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        turmoil::sim_elapsed().map_or_else(|| self.tick_ms.load(Ordering::Relaxed), millis)
    }

    /// Adds a line to the event log.
    pub(super) fn note(&self, actor: &str, what: impl std::fmt::Display) {
        let at = self.now_ms();
        let line = format!("{actor}: {what}");
        let mut log = lock(&self.log);
        (at, &line).hash(&mut log.hash);
        log.count += 1;
        if log.keep {
            log.lines.push((at, line));
        }
    }

    /// Something that must never happen did.
    pub(super) fn violated(&self, what: impl Into<String>) {
        let what = what.into();
        self.note("VIOLATION", &what);
        lock(&self.violations).push(what);
    }

    pub(super) fn take_log(&self) -> (Vec<(u64, String)>, u64, u64) {
        let mut log = lock(&self.log);
        (std::mem::take(&mut log.lines), log.hash.finish(), log.count)
    }

    /// A number that depends on nothing but the seed and what it is for.
    pub(super) fn derived(&self, purpose: &str, n: u64) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        (self.seed, purpose, n).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn seat(&self, n: usize) -> MutexGuard<'_, SeatState> {
        lock(&self.seats[n].state)
    }

    pub(super) fn process_died(&self, who: Died) {
        lock(&self.died).push(who);
    }
}

/// Nothing here survives a panic in a way that matters: a panic ends the run as a failure.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
