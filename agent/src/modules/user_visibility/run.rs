//! One run: choose a server, learn what changed, send it, remember it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use causeway_protocol::channel::payload::Notice;
use causeway_protocol::health::Severity;
use causeway_protocol::record::Kind;
use causeway_protocol::upload::Mode;
use serde_json::{Value, json};

use super::changes::{Changes, plan};
use super::config::Settings;
use super::error::SyncError;
use super::scan::{Scan, state_after, sweep};
use super::source::{Members, Source};
use super::state::{Cursor, State, Store};
use super::{changelog, dirsync, limits, reconcile, syncrepl, usn};
use crate::chain::Chain;
use crate::directory::error::DirectoryError;
use crate::directory::filter::Filter;
use crate::directory::personality::Strategy;
use crate::directory::{Directory, Net};
use crate::link::{LeaseGuard, LinkError};
use crate::modules::ModuleContext;
use crate::modules::output::{Output, OutputError};

/// What a run is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Task {
    /// Compare everything, whatever history says.
    pub(super) full: bool,
    /// Send nothing; say what would be sent.
    pub(super) dry: bool,
    /// A person has confirmed any number of deletions.
    pub(super) confirmed: bool,
    /// Only this user.
    pub(super) user: Option<String>,
}

/// Carries out runs.
pub(super) struct Runner {
    pub(super) settings: Settings,
    pub(super) directory: Arc<Directory>,
    /// Highest generation used by this process; a generation is never written twice.
    generation: AtomicU32,
    /// Whether the cloud has said since the start that it has the state ours is the other side of.
    epoch_known: AtomicBool,
}

impl Runner {
    pub(super) fn new(settings: Settings, directory: Arc<Directory>) -> Self {
        Self { settings, directory, generation: AtomicU32::new(0), epoch_known: AtomicBool::new(false) }
    }

    /// Runs at the best server; at another one when that one fails. Every attempt starts from the last committed state.
    pub(super) async fn run(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        task: &Task,
    ) -> Result<Value, SyncError> {
        let net = Net::from(cx);
        let started = cx.clock.now();
        let mut last = None;
        for _ in 0..limits::ATTEMPTS {
            for server in self.directory.candidates(&net).await? {
                let at_server = async {
                    let source = Source::open(&net, &self.directory, &server, &self.settings).await?;
                    Once {
                        runner: self,
                        cx,
                        lease,
                        task,
                        source: &source,
                        store: Store::new(cx.storage.clone()),
                    }
                    .run()
                    .await
                };
                match at_server.await {
                    Ok(mut result) => {
                        result["server"] = json!(server.name().as_ref());
                        result["elapsed_ms"] = json!(started.elapsed().as_millis() as u64);
                        return Ok(result);
                    }
                    Err(error) if error.is_servers_fault() => {
                        tracing::warn!(server = %server.name(), error = %Chain(&error), "run failed");
                        let SyncError::Directory { source } = error else { return Err(error) };
                        let noted = self.directory.note(&net, &server, Err::<(), _>(source));
                        last = noted.err();
                    }
                    Err(error) => return Err(error),
                }
            }
            cx.clock.sleep(Duration::from_millis(cx.random.next_u64() % 500)).await;
        }
        Err(last.map_or_else(
            || DirectoryError::NoServer { domain: self.settings.directory.clone() }.into(),
            SyncError::from,
        ))
    }

    fn next_generation(&self, state: Option<&State>) -> u32 {
        let stored = state.map_or(0, |state| state.generation);
        let before = self.generation.fetch_max(stored, Ordering::SeqCst).max(stored);
        self.generation.store(before.wrapping_add(1), Ordering::SeqCst);
        before.wrapping_add(1)
    }
}

/// One attempt at one server.
struct Once<'a> {
    runner: &'a Runner,
    cx: &'a ModuleContext,
    lease: &'a LeaseGuard,
    task: &'a Task,
    source: &'a Source,
    store: Store,
}

impl Once<'_> {
    async fn run(&self) -> Result<Value, SyncError> {
        let fingerprint = self.source.fingerprint(&self.runner.settings);
        let state = self.store.state().await?;
        let Some(state) = state else { return self.scan(None, fingerprint, "the first time").await };
        if let Some(reason) = self.reason_to_scan(&state, &fingerprint) {
            return self.scan(Some(&state), fingerprint, reason).await;
        }
        match self.delta(&state).await {
            Err(
                error @ (SyncError::CursorLost { .. }
                | SyncError::TooManyChanges { .. }
                | SyncError::BadState { .. }),
            ) => {
                tracing::info!(error = %Chain(&error), "reading everything again");
                self.scan(Some(&state), fingerprint, "the place in history was lost").await
            }
            Err(SyncError::Link { source: LinkError::BaseMismatch }) => {
                self.scan(Some(&state), fingerprint, "the cloud has another state").await
            }
            done => done,
        }
    }

    fn reason_to_scan(&self, state: &State, fingerprint: &str) -> Option<&'static str> {
        let age = Duration::from_millis(
            self.cx.clock.now_ms().saturating_sub(state.scanned_ms).max(0).cast_unsigned(),
        );
        if self.task.user.is_some() {
            None
        } else if self.task.full {
            Some("ordered")
        } else if state.fingerprint != fingerprint {
            Some("the settings have changed")
        } else if state.cursor == Cursor::None {
            Some("the server keeps no history")
        } else if age >= Duration::from_secs(self.runner.settings.scan_every_secs) {
            Some("its time has come")
        } else {
            None
        }
    }

    fn output(&self, mode: Mode, base_epoch: Option<u64>) -> Output<'_> {
        let cloud = self.cx.cloud.clone();
        if self.task.dry {
            // What differs, whatever would have been sent.
            Output::upload(cloud, self.lease, Mode::Delta, None, false).dry()
        } else {
            Output::upload(cloud, self.lease, mode, base_epoch, self.task.confirmed)
        }
    }

    async fn scan(
        &self,
        state: Option<&State>,
        fingerprint: String,
        reason: &str,
    ) -> Result<Value, SyncError> {
        tracing::info!(reason, server = %self.source.server.name(), "reading everything");
        if !self.task.dry {
            self.store.keep_only(state.map(|state| state.generation)).await?;
        }
        // Before anything is read, so that changes made meanwhile are found afterwards.
        let (strategy, cursor) = self.start().await?;
        let mut output = match state {
            Some(state) => self.output(Mode::Delta, Some(state.epoch)),
            None => self.output(Mode::Snapshot, None),
        };
        let mut compared = state;
        match output.open().await {
            Err(OutputError::Link(LinkError::BaseMismatch)) => {
                compared = None;
                output = self.output(Mode::Snapshot, None);
                output.open().await?;
            }
            opened => opened?,
        }
        let generation = self.runner.next_generation(state);
        let scanned = Scan::new(self.source, &self.store, &mut output, compared, generation).run().await?;
        if let Some(state) = state {
            let gone = sweep(self.source, &self.store, &mut output, state, &scanned.seen).await?;
            self.guard(gone, state.objects)?;
        }
        let result = |output: &Output<'_>, mode: &str| {
            let mut result = output.summary();
            result["strategy"] = json!(strategy.as_str());
            result["mode"] = json!(mode);
            result["objects"] = json!(scanned.seen.len());
            result["unresolved_members"] = json!(scanned.unresolved);
            result
        };
        if self.task.dry {
            output.finished("dry run done");
            return Ok(result(&output, "dry_run"));
        }
        let committed = output.commit().await?;
        let epoch =
            committed.map(|committed| committed.epoch).or(state.map(|state| state.epoch)).unwrap_or(0);
        let now_ms = self.cx.clock.now_ms();
        let next = state_after(&scanned, generation, epoch, fingerprint, cursor, now_ms);
        let mut batch = crate::storage::Batch::new();
        Store::put_state(&mut batch, &next);
        self.store.commit(batch).await?;
        self.store.keep_only(Some(generation)).await?;
        self.settled();
        output.finished("done");
        let mode = if compared.is_some() { "scan" } else { "snapshot" };
        Ok(result(&output, mode))
    }

    /// The first strategy, best first, whose place in history the server gives us.
    async fn start(&self) -> Result<(Strategy, Cursor), SyncError> {
        for strategy in self.source.strategies(self.runner.settings.strategy) {
            let started = match strategy {
                Strategy::Dirsync => dirsync::start(self.source).await,
                Strategy::Usn => usn::start(self.source).await,
                Strategy::Syncrepl => syncrepl::start(self.source).await,
                Strategy::Changelog => changelog::start(self.source).await,
                Strategy::Scan => Ok(Cursor::None),
            };
            match started {
                Ok(cursor) => return Ok((strategy, cursor)),
                Err(error) if error.is_servers_fault() && !is_misbehaviour(&error) => return Err(error),
                Err(error) => {
                    tracing::info!(strategy = strategy.as_str(), error = %Chain(&error), "strategy not usable");
                }
            }
        }
        Ok((Strategy::Scan, Cursor::None))
    }

    async fn delta(&self, state: &State) -> Result<Value, SyncError> {
        if let Some(user) = &self.task.user {
            return self.one_user(state, user).await;
        }
        let (strategy, (mut changes, cursor)) = match &state.cursor {
            Cursor::Dirsync { context, cookie } => {
                (Strategy::Dirsync, dirsync::changes(self.source, &self.store, state, context, cookie).await?)
            }
            Cursor::Usn { invocation, usn } => {
                (Strategy::Usn, usn::changes(self.source, invocation, *usn).await?)
            }
            Cursor::Syncrepl { cookie } => {
                (Strategy::Syncrepl, syncrepl::changes(self.source, &self.store, state, cookie).await?)
            }
            Cursor::Changelog { server, number } => {
                (Strategy::Changelog, changelog::changes(self.source, server, *number).await?)
            }
            Cursor::None => (Strategy::Scan, (Changes::default(), Cursor::None)),
        };
        if self.runner.settings.strategy.is_some_and(|wanted| wanted != strategy) {
            return Err(SyncError::CursorLost {
                strategy: strategy.as_str(),
                reason: "another strategy is wanted".to_owned(),
            });
        }
        changes.follow_units(self.source, &self.store, state).await?;
        let mut next = State { cursor, ..state.clone() };
        let now_ms = self.cx.clock.now_ms();
        let age = now_ms.saturating_sub(state.reconciled_ms).max(0).cast_unsigned();
        if changes.reconcile || age >= self.runner.settings.reconcile_every_secs * 1_000 {
            reconcile::compare(self.source, &self.store, state, &mut changes).await?;
            next.reconciled_ms = now_ms;
        }
        changes.follow_members(self.source, &self.store, state).await?;
        self.send(state, next, changes, strategy.as_str()).await
    }

    async fn one_user(&self, state: &State, user: &str) -> Result<Value, SyncError> {
        let personality = self.source.mapper.personality();
        let mut any: Vec<Filter> = personality.login.iter().map(|name| Filter::equals(name, user)).collect();
        any.extend(personality.upn.iter().map(|name| Filter::equals(name, user)));
        any.push(Filter::equals(&personality.mail, user));
        let filter = Filter::all([self.source.scope.users.clone(), Filter::any(any)]);
        let mut found = Vec::new();
        self.source.gather(&self.source.scope.root, filter, Members::Unread, &mut found).await?;
        found.retain(|whole| whole.mapped.kind() == Kind::User);
        if found.is_empty() {
            return Err(SyncError::NoSuchUser { user: user.to_owned() });
        }
        let mut changes = Changes::default();
        found.into_iter().try_for_each(|whole| changes.upsert(whole))?;
        self.send(state, state.clone(), changes, "one_user").await
    }

    async fn send(
        &self,
        state: &State,
        mut next: State,
        changes: Changes,
        strategy: &str,
    ) -> Result<Value, SyncError> {
        let looked_at = (changes.upserts.len() + changes.deletes.len()) as u64;
        let plan = plan(self.source, &self.store, state, changes).await?;
        self.guard(plan.deletions, state.objects)?;
        let mut output = self.output(Mode::Delta, Some(state.epoch));
        // Nothing may have changed here for weeks, and the cloud may have lost everything meanwhile.
        if !self.runner.epoch_known.load(Ordering::Relaxed) {
            output.open_and_end().await?;
        }
        for record in plan.records {
            output.push(record).await?;
        }
        output.count("looked_at", looked_at);
        let mut result = output.summary();
        result["strategy"] = json!(strategy);
        result["mode"] = json!(if self.task.dry { "dry_run" } else { "delta" });
        if self.task.dry {
            output.finished("dry run done");
            return Ok(result);
        }
        if let Some(committed) = output.commit().await? {
            next.epoch = committed.epoch;
        }
        next.objects = (state.objects + plan.additions).saturating_sub(plan.deletions);
        result["objects"] = json!(next.objects);
        // Hashes and cursor take effect together, and only after the cloud has said that it has the records.
        let mut batch = plan.batch;
        if next != *state {
            Store::put_state(&mut batch, &next);
        }
        self.store.commit(batch).await?;
        self.settled();
        output.finished("done");
        Ok(result)
    }

    fn guard(&self, deletions: u64, known: u64) -> Result<(), SyncError> {
        // A dry run is how a person looks at what is held back.
        let confirmed = self.task.confirmed || self.task.dry;
        self.runner.settings.guard.check(deletions, known, confirmed).map_err(|held| SyncError::Held { held })
    }

    /// Whatever was wrong before is over.
    fn settled(&self) {
        self.runner.epoch_known.store(true, Ordering::Relaxed);
        for code in ["held_by_guard", "sync_failed"] {
            self.cx.cloud.notice(Notice {
                code: code.to_owned(),
                severity: Severity::Info,
                subject: self.lease.resource().to_owned(),
                detail: "a later run went through".to_owned(),
                remedy: String::new(),
                resolved: true,
            });
        }
    }
}

fn is_misbehaviour(error: &SyncError) -> bool {
    matches!(error, SyncError::Directory { source } if matches!(source.root(), DirectoryError::Misbehaved { .. }))
}
