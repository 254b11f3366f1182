//! Modules of a simulated agent. They do what real modules do (read back before acting, collect under a lease, answer
//! requests once) to a system that remembers everything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use causeway_agent::link::{LeaseGuard, LinkError};
use causeway_agent::modules::{
    CheckResult, ConfigError, Module, ModuleContext, ModuleError, ModuleFactory, ModuleSettings, Outcome,
};
use causeway_agent::storage::{Batch, StorageError, Table};
use causeway_protocol::action::{Action, ErrorReport, codes};
use causeway_protocol::auth::{AuthOutcome, AuthReply, AuthRequest};
use causeway_protocol::channel::payload::Request;
use causeway_protocol::record::{Kind, Op, Record, UserRecord};
use causeway_protocol::upload::{Mode, UploadRequest};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::world::{Holder, Process, RESOURCE, World, lock};

/// Actions with an effect that must happen once.
pub(super) const SYSTEM: &str = "sim_system";
/// The collector; its kind is the one the cloud gives leases and repeatable actions to.
pub(super) const COLLECTOR: &str = "user_visibility";
/// Password checks.
pub(super) const AUTH: &str = "user_auth";

/// Kinds of modules of a simulated agent.
pub(super) static FACTORIES: &[&dyn ModuleFactory] =
    &[&SimFactory(SYSTEM), &SimFactory(COLLECTOR), &SimFactory(AUTH)];

thread_local! {
    /// The run this thread plays. A factory is told nothing but settings, and settings are text.
    static CURRENT: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// From now on modules built on this thread belong to `world`.
pub(super) fn enter(world: Option<Arc<World>>) {
    CURRENT.with_borrow_mut(|current| *current = world);
}

/// One kind.
struct SimFactory(&'static str);

impl ModuleFactory for SimFactory {
    fn kind(&self) -> &'static str {
        self.0
    }

    fn example(&self) -> Value {
        json!({})
    }

    fn build(&self, settings: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError> {
        let wrong = |problem: &str| {
            ConfigError::new(format!("modules.{}.seat", self.0), problem, "play by the rules")
        };
        let seat = settings.local.get("seat").and_then(Value::as_u64).ok_or_else(|| wrong("missing"))?;
        let seat = usize::try_from(seat).map_err(|_| wrong("too large"))?;
        let world = CURRENT.with_borrow(Clone::clone).ok_or_else(|| wrong("no run"))?;
        let process = world.seat(seat).process.clone();
        let place = Place { world, seat, process };
        Ok(match self.0 {
            SYSTEM => Arc::new(SystemModule { place }),
            COLLECTOR => Arc::new(Collector { place, now: Notify::new() }),
            _ => Arc::new(AuthModule { place }),
        })
    }
}

/// Where a module works.
#[derive(Clone)]
struct Place {
    world: Arc<World>,
    seat: usize,
    process: Arc<Process>,
}

impl Place {
    fn note(&self, what: impl std::fmt::Display) {
        self.world.note(self.world.seats[self.seat].host, what);
    }

    async fn takes(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.process.alive().await;
    }
}

async fn until_stopped(cx: &ModuleContext) -> Result<(), ModuleError> {
    cx.stop.cancelled().await;
    Ok(())
}

struct SystemModule {
    place: Place,
}

impl SystemModule {
    async fn set(&self, action: &Action) -> Outcome {
        let number = |name: &str| action.params.get(name).and_then(Value::as_u64).unwrap_or(0);
        let place = &self.place;
        let begin = (action.id.clone(), place.seat, place.process.number);
        *lock(&place.world.system).begins.entry(begin).or_default() += 1;
        let is_done = || lock(&place.world.system).applied.contains_key(&action.id);
        place.takes(1).await;
        if is_done() {
            place.note(format_args!("{} is found done", action.id));
            return Outcome::Success(json!("found done"));
        }
        place.takes(number("before_ms")).await;
        // No second look: whoever else works on the action at the same time shows as a second effect.
        *lock(&place.world.system).applied.entry(action.id.clone()).or_default() += 1;
        place.note(format_args!("{} takes effect", action.id));
        place.takes(number("after_ms")).await;
        Outcome::Success(json!("done"))
    }

    async fn order(&self, action: &Action) -> Outcome {
        let place = &self.place;
        place.takes(1).await;
        let now = place.world.now_ms();
        let takes_ms = action.params.get("takes_ms").and_then(Value::as_u64).unwrap_or(0);
        let ready = *lock(&place.world.system).jobs.entry(action.id.clone()).or_insert(now + takes_ms);
        if now < ready {
            return Outcome::Pending { result: json!("ordered"), next_check: Duration::from_millis(900) };
        }
        lock(&place.world.system).applied.entry(action.id.clone()).or_insert(1);
        Outcome::Success(json!("arrived"))
    }
}

impl Module for SystemModule {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move { until_stopped(&cx).await })
    }

    fn act(&self, _: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            self.place.process.alive().await;
            self.place.note(format_args!("begins {} {}", action.action, action.id));
            lock(&self.place.world.system)
                .begun
                .entry(action.id.clone())
                .or_default()
                .insert(self.place.seat);
            match action.action.as_str() {
                "set" => self.set(&action).await,
                "order" => self.order(&action).await,
                other => Outcome::Failure(ErrorReport::new(codes::UNKNOWN_ACTION, other, "")),
            }
        })
    }

    fn answer(&self, _: ModuleContext, request: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async move { Err(ErrorReport::new(codes::UNKNOWN_ACTION, request.request, "")) })
    }

    fn check(&self, _: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async { Vec::new() })
    }
}

struct AuthModule {
    place: Place,
}

impl Module for AuthModule {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move { until_stopped(&cx).await })
    }

    fn act(&self, _: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { Outcome::Failure(ErrorReport::new(codes::UNKNOWN_ACTION, action.action, "")) })
    }

    fn answer(&self, _: ModuleContext, request: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async move {
            let place = &self.place;
            place.process.alive().await;
            let asked: AuthRequest = serde_json::from_str(request.body.expose())
                .map_err(|error| ErrorReport::new(codes::BAD_PARAMETERS, error.to_string(), ""))?;
            place.note(format_args!("tries the password of {}", asked.username));
            let tries = {
                let mut system = lock(&place.world.system);
                let tries = system.tried.entry(asked.password.expose().to_owned()).or_default();
                *tries += 1;
                *tries
            };
            if tries > 1 {
                place.world.violated(format!("the password of {} is tried {tries} times", asked.username));
            }
            place.takes(place.world.derived("bind", place.world.now_ms()) % 1_500).await;
            let reply = AuthReply { outcome: AuthOutcome::Ok, user: None, server: None, detail: None };
            Ok(serde_json::to_value(reply).expect("a verdict serialises to JSON"))
        })
    }

    fn check(&self, _: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async { Vec::new() })
    }
}

/// Collects the simulated directory as `user_visibility` does a real one: deltas against what the cloud has
/// acknowledged, a snapshot when it disagrees, hashes and cursor in one commit after the cloud's.
struct Collector {
    place: Place,
    now: Notify,
}

/// A lease that shows in the list of those who hold one, as long as it is held.
struct Held<'a> {
    place: &'a Place,
    guard: Arc<LeaseGuard>,
}

impl<'a> Held<'a> {
    fn new(place: &'a Place, guard: LeaseGuard) -> Self {
        let guard = Arc::new(guard);
        let holder = Holder { seat: place.seat, process: place.process.clone(), guard: guard.clone() };
        lock(&place.world.system).holders.push(holder);
        Self { place, guard }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        lock(&self.place.world.system).holders.retain(|holder| !Arc::ptr_eq(&holder.guard, &self.guard));
    }
}

/// Key of the acknowledged epoch.
const EPOCH: &[u8] = b"epoch";
/// Rows read at once, here all of them.
const ROWS: usize = 10_000;

/// Why a round of collecting ended.
enum Stop {
    Link(LinkError),
    Storage,
}

impl From<LinkError> for Stop {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<StorageError> for Stop {
    fn from(_: StorageError) -> Self {
        Self::Storage
    }
}

impl Collector {
    async fn collect(&self, cx: &ModuleContext) {
        let pause = Duration::from_millis(1_500);
        loop {
            let Ok(guard) = cx.cloud.lease(RESOURCE).await else { return };
            let place = &self.place;
            place.process.alive().await;
            place.note(format_args!("holds the lease, fence {}", guard.fence()));
            let held = Held::new(place, guard);
            tokio::select! {
                biased;
                () = held.guard.lost() => {}
                () = self.hold(cx, &held.guard, pause) => {}
            }
            place.process.alive().await;
            place.note(format_args!("lets the lease go, fence {}", held.guard.fence()));
            drop(held);
            cx.clock.sleep(pause).await;
        }
    }

    async fn hold(&self, cx: &ModuleContext, guard: &LeaseGuard, pause: Duration) {
        let mut fresh = true;
        loop {
            match self.round(cx, guard, fresh).await {
                Ok(()) => fresh = false,
                Err(Stop::Link(LinkError::StaleFence | LinkError::Stopping)) => return,
                Err(Stop::Link(LinkError::BaseMismatch)) => {
                    let mut batch = Batch::new();
                    batch.delete(Table::Cursors, EPOCH);
                    let _ = cx.storage.commit(batch).await;
                    continue;
                }
                Err(Stop::Link(error)) => {
                    self.place.note(format_args!("collecting fails: {error}"));
                    fresh = true;
                }
                Err(Stop::Storage) => fresh = true,
            }
            tokio::select! {
                biased;
                () = self.now.notified() => {}
                () = cx.clock.sleep(pause) => {}
            }
        }
    }

    /// Uploads what has changed. A `fresh` holder tells the cloud on what it builds even when nothing has changed:
    /// another holder may have uploaded since.
    async fn round(&self, cx: &ModuleContext, guard: &LeaseGuard, fresh: bool) -> Result<(), Stop> {
        let place = &self.place;
        let epoch = cx.storage.get(Table::Cursors, EPOCH.to_vec()).await?;
        let epoch = epoch.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let mut known: BTreeMap<String, u64> = BTreeMap::new();
        for (key, value) in cx.storage.scan(Table::Objects, Vec::new(), None, ROWS).await? {
            let version = value.try_into().map_or(0, u64::from_be_bytes);
            known.insert(String::from_utf8_lossy(&key).into_owned(), version);
        }
        let objects = lock(&place.world.system).objects.clone();
        let changed: Vec<(String, Option<u64>)> = if epoch.is_some() {
            let gone = known.keys().filter(|key| !objects.contains_key(*key)).map(|key| (key.clone(), None));
            let new = objects.iter().filter(|(key, version)| known.get(*key) != Some(version));
            gone.chain(new.map(|(key, version)| (key.clone(), Some(*version)))).collect()
        } else {
            objects.iter().map(|(key, version)| (key.clone(), Some(*version))).collect()
        };
        if changed.is_empty() && epoch.is_some() && !fresh {
            return Ok(());
        }
        let request = UploadRequest {
            source: RESOURCE.to_owned(),
            mode: if epoch.is_some() { Mode::Delta } else { Mode::Snapshot },
            base_epoch: epoch,
            fence: guard.fence(),
            allow_mass_delete: true,
        };
        let mut sink = cx.cloud.begin_upload(request).await?;
        for (n, (key, version)) in changed.iter().enumerate() {
            sink.push(record(key, *version)).await?;
            if n % 8 == 7 {
                place.takes(20).await;
            }
        }
        let committed = sink.commit().await?;
        place.process.alive().await;
        place.note(format_args!("uploaded {} records, epoch {}", changed.len(), committed.epoch));
        lock(&place.world.stats).did("uploads committed");
        let mut batch = Batch::new();
        if epoch.is_none() {
            batch.delete_prefix(Table::Objects, Vec::new());
        }
        for (key, version) in changed {
            match version {
                Some(version) => batch.put(Table::Objects, key, version.to_be_bytes()),
                None => batch.delete(Table::Objects, key),
            };
        }
        batch.put(Table::Cursors, EPOCH, committed.epoch.to_be_bytes());
        Ok(cx.storage.commit(batch).await?)
    }
}

fn record(key: &str, version: Option<u64>) -> Record {
    let user = |version: u64| {
        let user = UserRecord {
            login: version.to_string(),
            dn: format!("CN={key},DC=sim"),
            enabled: true,
            ..UserRecord::default()
        };
        serde_json::value::to_raw_value(&user).expect("a user serialises to JSON")
    };
    let op = if version.is_some() { Op::Upsert } else { Op::Delete };
    Record { op, kind: Kind::User, key: key.to_owned(), member: None, v: version.map(user) }
}

impl Module for Collector {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = cx.stop.cancelled() => {}
                () = self.collect(&cx) => {}
            }
            until_stopped(&cx).await
        })
    }

    fn act(&self, _: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            self.place.process.alive().await;
            match action.action.as_str() {
                "sync_now" => {
                    self.now.notify_one();
                    self.place.takes(200).await;
                    Outcome::Success(Value::Null)
                }
                other => Outcome::Failure(ErrorReport::new(codes::UNKNOWN_ACTION, other, "")),
            }
        })
    }

    fn answer(&self, _: ModuleContext, request: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async move { Err(ErrorReport::new(codes::UNKNOWN_ACTION, request.request, "")) })
    }

    fn check(&self, _: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async { Vec::new() })
    }
}
