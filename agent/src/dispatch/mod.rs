//! Actions and requests, from the channel to a module and back.
//!
//! An action is durable on both sides: its inbox row is committed before it is accepted, and the row that ends it is
//! committed together with the report in the outbox. A request lives in memory only.

mod inbox;
pub mod outbox;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_protocol::action::{Action, ErrorReport, Report, Status, codes};
use causeway_protocol::channel::payload::{Reply, Request};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use self::inbox::{Inbox, Row};
use self::outbox::{Outbox, Tell};
use crate::chain::Chain;
use crate::channel::stanza_error;
use crate::clock::Clock;
use crate::limits::{ACTION_TTL_MAX, ACTIONS_OPEN_MAX, INBOX_PRUNE_EVERY, STORAGE_RETRY_AFTER};
use crate::modules::{Module, ModuleContext, Outcome};
use crate::orchestrator::Modules;
use crate::storage::{Storage, StorageError};

/// Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    inbox: Inbox,
    outbox: Outbox,
    modules: Modules,
    clock: Clock,
    open: Mutex<HashMap<String, Open>>,
    action_permits: Semaphore,
    request_permits: Arc<Semaphore>,
    requests_in_work: AtomicU32,
    stop: CancellationToken,
}

/// An action that is not finished.
struct Open {
    action: Arc<Action>,
    given: Given,
    accepted: Shared<BoxFuture<'static, Result<(), Box<StanzaError>>>>,
}

/// How the cloud has given us an action: by which attempt, and under which lease. After a restart of this process, or a
/// while in which we were taken for dead, it gives the same action again, under the lease of then; what was said before
/// is nothing it would still believe. Not kept on disk: a process that begins again begins under another lease.
#[derive(Clone)]
struct Given(Arc<Mutex<(u32, Option<u64>)>>);

impl Given {
    fn by(action: &Action) -> Self {
        Self(Arc::new(Mutex::new((action.attempt, action.fence))))
    }

    /// It is given again.
    fn again(&self, action: &Action) {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if action.attempt > given.0 {
            *given = (action.attempt, action.fence);
        }
    }

    /// The newest attempt and its fence.
    fn newest(&self) -> (u32, Option<u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much is taken at once.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Actions.
    pub actions: u32,
    /// Requests.
    pub requests: u32,
}

impl Dispatcher {
    /// Reads what an earlier process left. [`Dispatcher::resume`] then goes on with it.
    ///
    /// # Errors
    /// When the state file cannot be read.
    pub async fn new(
        storage: Arc<dyn Storage>,
        modules: Modules,
        clock: Clock,
        capacity: Capacity,
        stop: CancellationToken,
    ) -> Result<Self, StorageError> {
        let outbox = Outbox::open(storage.clone()).await?;
        let inbox = Inbox::open(storage, clock).await?;
        Ok(Self(Arc::new(Inner {
            inbox,
            outbox,
            modules,
            clock,
            open: Mutex::default(),
            action_permits: Semaphore::new(capacity.actions as usize),
            request_permits: Arc::new(Semaphore::new(capacity.requests as usize)),
            requests_in_work: AtomicU32::new(0),
            stop,
        })))
    }

    /// The reports that wait for the cloud.
    pub fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// Requests being worked on.
    pub fn requests_in_work(&self) -> u32 {
        self.0.requests_in_work.load(Ordering::Relaxed)
    }

    /// Begins again with every action that was accepted and not finished. Call it when the modules are there.
    ///
    /// # Errors
    /// When the state file cannot be read.
    pub async fn resume(&self) -> Result<usize, StorageError> {
        let rows = self.0.inbox.unfinished().await?;
        let count = rows.len();
        for row in rows {
            let action = Arc::new(row.action);
            let given = Given::by(&action);
            let accepted = futures_util::future::ready(Ok(())).boxed().shared();
            let open = Open { action: action.clone(), given: given.clone(), accepted };
            self.0.open().insert(action.id.clone(), open);
            let left = u64::try_from(row.deadline_ms - self.0.clock.now_ms()).unwrap_or(0);
            let deadline = self.0.clock.now() + Duration::from_millis(left).min(ACTION_TTL_MAX);
            self.spawn(action, given, row.accepted_ms, deadline);
        }
        Ok(count)
    }

    /// Takes an action, once. The same id again leads to the recorded report, other work under it to an error.
    pub fn accept(&self, action: Action) -> BoxFuture<'static, Result<(), Box<StanzaError>>> {
        let mut open = self.0.open();
        if let Some(known) = open.get(&action.id) {
            if !known.action.same_work(&action) {
                return futures_util::future::ready(Err(duplicate())).boxed();
            }
            known.given.again(&action);
            return known.accepted.clone().boxed();
        }
        if open.len() >= ACTIONS_OPEN_MAX {
            return futures_util::future::ready(Err(busy("too many actions are open"))).boxed();
        }
        let action = Arc::new(action);
        let given = Given::by(&action);
        // A task of its own: a cut link drops the future, and the action must still run once it is committed.
        let this = self.clone();
        let begun = tokio::spawn(this.begin(action.clone(), given.clone()));
        let accepted = async move { begun.await.unwrap_or_else(|_| Err(busy("the agent is stopping"))) }
            .boxed()
            .shared();
        open.insert(action.id.clone(), Open { action, given, accepted: accepted.clone() });
        accepted.boxed()
    }

    async fn begin(self, action: Arc<Action>, given: Given) -> Result<(), Box<StanzaError>> {
        let inner = &self.0;
        let found = match inner.inbox.find(&action.id).await {
            Ok(found) => found,
            Err(error) => return Err(self.forget(&action.id, &error)),
        };
        if let Some(row) = found {
            inner.open().remove(&action.id);
            if !row.action.same_work(&action) {
                return Err(duplicate());
            }
            // The cloud asks again although we have reported: it may have lost the report, or refused it because the lease
            // had passed on meanwhile. What was done is done, so it gets it again under what it asks with.
            if let Some(report) = row.report {
                let report = Report { fence: given.newest().1, ..report };
                inner.outbox.send_again(report).await.map_err(|error| storage_busy(&error))?;
            }
            return Ok(());
        }
        let accepted_ms = inner.clock.now_ms();
        let ttl = Duration::from_millis(action.ttl_ms).min(ACTION_TTL_MAX);
        let deadline = inner.clock.now() + ttl;
        let deadline_ms = accepted_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        let row = Row { action: (*action).clone(), accepted_ms, deadline_ms, report: None };
        let (id, work) = (action.id.clone(), || self.spawn(action.clone(), given, accepted_ms, deadline));
        if self.keeps(&action) {
            let begun = work();
            return inner.inbox.accept(&row).await.map_err(|error| {
                begun.abort();
                self.forget(&id, &error)
            });
        }
        inner.inbox.accept(&row).await.map_err(|error| self.forget(&id, &error))?;
        work();
        Ok(())
    }

    fn forget(&self, id: &str, error: &StorageError) -> Box<StanzaError> {
        tracing::error!(id, error = %Chain(error), "An action could not be stored and was not accepted");
        self.0.open().remove(id);
        storage_busy(error)
    }

    fn spawn(
        &self,
        action: Arc<Action>,
        given: Given,
        accepted_ms: i64,
        deadline: Instant,
    ) -> JoinHandle<()> {
        let this = self.clone();
        tokio::spawn(async move {
            let stop = this.0.stop.clone();
            // On stop the row stays unfinished, and the next process goes on.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = this.carry_out(action, given, accepted_ms, deadline) => {}
            }
        })
    }

    async fn carry_out(&self, action: Arc<Action>, given: Given, accepted_ms: i64, deadline: Instant) {
        let report = match timeout_at(deadline, self.work(&action, &given)).await {
            Ok(report) => report,
            Err(_) => Report::failure(&action.id, deadline_passed()),
        };
        let report = Report { fence: given.newest().1, ..report };
        let row = Row { action: (*action).clone(), accepted_ms, deadline_ms: 0, report: Some(report) };
        self.finish(row).await;
        self.0.open().remove(&action.id);
    }

    /// Whether the module finds the work of an action again by itself.
    fn keeps(&self, action: &Action) -> bool {
        self.0.modules.find(&action.module).is_ok_and(|(module, _)| module.keeps(action))
    }

    async fn finish(&self, row: Row) {
        let inner = &self.0;
        let succeeded = row.report.as_ref().is_some_and(|report| report.status == Status::Success);
        let tell = if succeeded && self.keeps(&row.action) { Tell::AtOnce } else { Tell::Stored };
        let mut told = tell == Tell::AtOnce;
        loop {
            let error = match inner.outbox.finish(&inner.inbox, &row, tell).await {
                Ok(()) => return,
                Err(StorageError::Closed) => return,
                Err(error) => error,
            };
            tracing::error!(id = row.action.id, error = %Chain(&error), "A report could not be stored");
            // The disk refuses, but the cloud's own record is just as good; ours is tried again until it stands.
            if !told && let Some(report) = &row.report {
                inner.outbox.send_unstored(report.clone());
                told = true;
            }
            inner.clock.sleep(STORAGE_RETRY_AFTER).await;
        }
    }

    /// Works until there is a terminal report.
    async fn work(&self, action: &Arc<Action>, given: &Given) -> Report {
        let inner = &self.0;
        let mut told = None;
        loop {
            let permit = inner.action_permits.acquire().await.expect("the semaphore is never closed");
            let (module, cx) = match inner.modules.find(&action.module) {
                Ok(found) => found,
                Err(error) => return Report::failure(&action.id, error),
            };
            // From before the work, so that nothing that changes meanwhile is missed.
            let mut calls = cx.wake.listen();
            let outcome = act(module, cx, (**action).clone()).await;
            drop(permit);
            match outcome {
                Outcome::Success(result) => return Report::success(&action.id, result),
                Outcome::Failure(error) => return Report::failure(&action.id, error),
                Outcome::Pending { result, next_check } => {
                    let news = (result, given.newest());
                    // Thousands of actions that wait for the same thing must not say so again and again.
                    if told.as_ref() != Some(&news) {
                        self.tell(action, &news, next_check);
                        told = Some(news);
                    }
                    tokio::select! {
                        () = inner.clock.sleep(next_check) => {}
                        () = calls.next() => {}
                    }
                }
            }
        }
    }

    /// Reports how a pending action stands.
    fn tell(&self, action: &Action, news: &(Value, (u32, Option<u64>)), next_check: Duration) {
        let (result, (_, fence)) = news;
        let next_ms = u64::try_from(next_check.as_millis()).unwrap_or(u64::MAX);
        let report = Report::pending(&action.id, Some(result.clone()), Some(next_ms));
        self.0.outbox.tell(Report { fence: *fence, ..report });
    }

    /// Answers a request within its time, or says at once that there is too much to do.
    pub fn answer(&self, request: Request) -> BoxFuture<'static, Reply> {
        let inner = self.0.clone();
        async move {
            let Ok(_permit) = inner.request_permits.clone().try_acquire_owned() else {
                return Reply::Error(ErrorReport::new(
                    codes::OVERLOADED,
                    "the agent works on as many requests as it may",
                    "install a further agent, or raise limits.requests_at_once in agent.toml",
                ));
            };
            let (module, cx) = match inner.modules.find(&request.module) {
                Ok(found) => found,
                Err(error) => return Reply::Error(error),
            };
            let deadline = inner.clock.now() + Duration::from_millis(request.ttl_ms).min(ACTION_TTL_MAX);
            inner.requests_in_work.fetch_add(1, Ordering::Relaxed);
            let kind = request.module.clone();
            let answer = AssertUnwindSafe(module.answer(cx, request)).catch_unwind();
            let answer = timeout_at(deadline, answer).await;
            inner.requests_in_work.fetch_sub(1, Ordering::Relaxed);
            match answer {
                Ok(Ok(Ok(value))) => Reply::Answer(value),
                Ok(Ok(Err(error))) => Reply::Error(error),
                Ok(Err(_)) => Reply::Error(panicked(&kind)),
                Err(_) => Reply::Error(deadline_passed()),
            }
        }
        .boxed()
    }

    /// Removes finished actions that are too old or too many, for as long as the agent runs.
    pub async fn prune_until_stopped(&self) {
        loop {
            match self.0.inbox.prune().await {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "Old actions are forgotten"),
                Err(error) => tracing::warn!(error = %Chain(&error), "Old actions could not be forgotten"),
            }
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return,
                () = self.0.clock.sleep(INBOX_PRUNE_EVERY) => {}
            }
        }
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn act(module: Arc<dyn Module>, cx: ModuleContext, action: Action) -> Outcome {
    let kind = action.module.clone();
    match AssertUnwindSafe(module.act(cx, action)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(panicked(&kind)),
    }
}

fn panicked(kind: &str) -> ErrorReport {
    ErrorReport::new(
        codes::INTERNAL,
        format!("module {kind} failed in a way nobody foresaw"),
        "send a support bundle to the maker of this agent",
    )
}

fn deadline_passed() -> ErrorReport {
    ErrorReport::new(
        codes::DEADLINE_PASSED,
        "the deadline passed before the work was done",
        "try again with more time, and look at the module's health",
    )
}

fn duplicate() -> Box<StanzaError> {
    stanza_error(ErrorType::Cancel, DefinedCondition::Conflict, codes::DUPLICATE_ID)
}

fn busy(text: &str) -> Box<StanzaError> {
    stanza_error(ErrorType::Wait, DefinedCondition::ResourceConstraint, text)
}

fn storage_busy(error: &StorageError) -> Box<StanzaError> {
    busy(&Chain(error).to_string())
}
