//! Phones that fetch mail from Exchange: who they are, whether they may, and what is done about them.
//!
//! For companies with Exchange 2007 to 2019 or Exchange Online, over PowerShell remoting (443, or 80 with sealed
//! messages) or the administration API; the module does not know which. One agent of a tenant collects a part of the
//! organisation at a time, under a lease; actions go to any agent and go before collecting.

mod actions;
pub(crate) mod check;
mod config;
mod error;
mod guard;
mod homes;
mod limits;
mod listing;
mod mapping;
mod output;
mod quarantine;
mod recipes;
mod rules;
mod run;
mod sessions;
mod state;
mod statistics;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::action::{Action, ErrorReport, codes};
use causeway_protocol::channel::payload::{Notice, Request};
use causeway_protocol::health::{ModuleState, Severity};
use causeway_protocol::mobile::access;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use self::actions::{Order, Step};
use self::config::Settings;
pub use self::error::MailError;
use self::guard::Guard;
use self::listing::Found;
use self::run::{Runner, Task, with};
use self::state::Store;
use super::{
    CheckResult, ConfigError, LocalExample, Module, ModuleContext, ModuleError, ModuleFactory,
    ModuleSettings, Outcome,
};
use crate::directory::Directory;
use crate::exchange::{Exchange, Organisation};
use crate::link::{LeaseGuard, LinkError};
use crate::wake::Calls;

/// Stable kind.
pub const MODULE: &str = "exchange";

/// Makes the module.
pub struct Factory;

impl ModuleFactory for Factory {
    fn kind(&self) -> &'static str {
        MODULE
    }

    fn example(&self) -> Value {
        Settings::example()
    }

    fn defaults(&self) -> Value {
        json!(Settings::default())
    }

    fn example_local(&self) -> LocalExample {
        let organization = json!({
            "servers": ["https://ex1.acme.example/PowerShell/", "https://ex2.acme.example/PowerShell/"],
            "accounts": [{ "user": "svc-causeway@acme.example" }],
        });
        LocalExample {
            exchanges: [("default".to_owned(), organization)].into(),
            secrets: vec!["exchange.default".to_owned()],
            ..LocalExample::default()
        }
    }

    fn build(&self, settings: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError> {
        let read = Settings::read(settings)?;
        let organisation = Arc::new(Organisation::new(&read.organization, settings)?);
        let module = ExchangeModule::new(settings, organisation.clone())?;
        Ok(Arc::new(ExchangeModule { organisation: Some(organisation), ..module }))
    }
}

/// The module.
pub struct ExchangeModule {
    runner: Runner,
    /// For the doctor, who looks at the servers themselves.
    organisation: Option<Arc<Organisation>>,
    guard: Guard,
    orders: mpsc::Sender<Ordered>,
    /// Phones an action has touched.
    pokes: mpsc::Sender<Uuid>,
    inbox: Mutex<Inbox>,
}

struct Inbox {
    orders: mpsc::Receiver<Ordered>,
    pokes: mpsc::Receiver<Uuid>,
}

/// An action on its way to the run loop.
struct Ordered {
    task: Task,
    done: oneshot::Sender<Result<Value, MailError>>,
}

/// What the collector does next.
enum Turn {
    Order(Ordered),
    Poke(Uuid),
    List,
    Read,
    Job,
    Over,
}

/// When the collector does what.
struct Plan {
    list_at: Instant,
    read_at: Instant,
    /// The default must become quarantine, by the settings.
    job: bool,
    job_at: Instant,
    failures: u32,
    read_failures: u32,
}

impl Plan {
    /// What failed may go well now.
    fn try_again(&mut self) {
        let now = Instant::now();
        if self.failures > 0 {
            self.list_at = now;
        }
        if self.read_failures > 0 {
            (self.read_at, self.job_at) = (now, now);
        }
    }
}

impl ExchangeModule {
    /// From settings, over whatever carries cmdlets; opens nothing.
    ///
    /// # Errors
    /// Names the offending key.
    pub fn new(settings: &ModuleSettings, exchange: Arc<dyn Exchange>) -> Result<Self, ConfigError> {
        let read = Settings::read(settings)?;
        let catalog = match &read.directory {
            Some(name) => Some(Arc::new(Directory::new(name, settings)?)),
            None => None,
        };
        let (orders, inbox) = mpsc::channel(limits::ORDERS);
        let (pokes, poked) = mpsc::channel(limits::POKES);
        Ok(Self {
            runner: Runner::new(read, exchange, catalog),
            organisation: None,
            guard: Guard::default(),
            orders,
            pokes,
            inbox: Mutex::new(Inbox { orders: inbox, pokes: poked }),
        })
    }

    async fn order(&self, task: Task) -> Result<Value, MailError> {
        let (done, result) = oneshot::channel();
        self.orders.send(Ordered { task, done }).await.map_err(|_| MailError::NotRunning)?;
        result.await.unwrap_or(Err(MailError::NotRunning))
    }

    /// Collects for as long as the lease is held.
    async fn collect(&self, cx: &ModuleContext, lease: &LeaseGuard, inbox: &mut Inbox) {
        let mut calls = cx.wake.listen();
        let now = Instant::now();
        let mut plan =
            Plan { list_at: now, read_at: now, job: false, job_at: now, failures: 0, read_failures: 0 };
        match Store::new(cx.storage.clone()).work_left().await {
            Ok(left) => self.runner.work_is(left),
            Err(error) => {
                tracing::warn!(error = %crate::chain::Chain(&error), "The state file is not readable")
            }
        }
        loop {
            let turn = self.next_turn(cx, lease, inbox, &mut plan, &mut calls).await;
            let work = async {
                match turn {
                    Turn::Order(order) => self.carry_out(cx, lease, order, &mut plan).await,
                    Turn::Poke(key) => self.follow_up(cx, lease, key, &mut plan).await,
                    Turn::List => self.list(cx, lease, &Task::default(), &mut plan).await.map(|_| ()),
                    Turn::Read => self.read(cx, lease, inbox, &mut plan).await,
                    Turn::Job => self.job(cx, &mut plan).await,
                    Turn::Over => Err(MailError::Stopping),
                }
            };
            let done = tokio::select! {
                done = work => done,
                () = lease.lost() => Err(MailError::LeaseLost),
                () = cx.stop.cancelled() => Err(MailError::Stopping),
            };
            if matches!(done, Err(MailError::LeaseLost | MailError::Stopping))
                && (lease.is_lost() || cx.stop.is_cancelled())
            {
                return;
            }
        }
    }

    async fn next_turn(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        inbox: &mut Inbox,
        plan: &mut Plan,
        calls: &mut Calls,
    ) -> Turn {
        loop {
            let reads = self.runner.work_left() > 0;
            let turn = tokio::select! {
                biased;
                () = lease.lost() => Turn::Over,
                () = cx.stop.cancelled() => Turn::Over,
                () = calls.next() => {
                    plan.try_again();
                    continue;
                }
                order = inbox.orders.recv() => order.map_or(Turn::Over, Turn::Order),
                () = tokio::time::sleep_until(plan.list_at) => Turn::List,
                key = inbox.pokes.recv() => key.map_or(Turn::Over, Turn::Poke),
                () = tokio::time::sleep_until(plan.job_at), if plan.job => Turn::Job,
                () = tokio::time::sleep_until(plan.read_at), if reads => Turn::Read,
            };
            match turn {
                // An asker who has gone away (its deadline passed) wants nothing any more.
                Turn::Order(order) if order.done.is_closed() => {}
                turn => return turn,
            }
        }
    }

    async fn carry_out(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        order: Ordered,
        plan: &mut Plan,
    ) -> Result<(), MailError> {
        let done = match order.task.device {
            Some(key) => {
                let refreshed = self.runner.refresh(cx, lease, key).await;
                if refreshed.is_ok() {
                    let until = Instant::now() + limits::SLICE;
                    if let Err(error) = self.runner.read_slice(cx, lease, until, || false).await {
                        tracing::debug!(error = %crate::chain::Chain(&error), "The phone's statistics come later");
                    }
                }
                refreshed
            }
            None => self.list(cx, lease, &order.task, plan).await,
        };
        let _ = order.done.send(done);
        Ok(())
    }

    /// Reads a phone again that an action has touched. What cannot be read now is found by a listing, which then comes
    /// sooner.
    async fn follow_up(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        key: Uuid,
        plan: &mut Plan,
    ) -> Result<(), MailError> {
        let read = self.runner.refresh(cx, lease, key).await;
        if let Err(error) = &read {
            tracing::warn!(error = %crate::chain::Chain(error), %key, "A phone could not be read after an action");
            plan.list_at = plan.list_at.min(Instant::now() + limits::RETRY_AFTER);
        }
        read.map(|_| ())
    }

    async fn list(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        task: &Task,
        plan: &mut Plan,
    ) -> Result<Value, MailError> {
        cx.status.set(ModuleState::Ok, "listing phones");
        let interval = Duration::from_secs(self.runner.settings.delta_every_secs);
        let mut task = task.clone();
        task.full |= !task.dry && self.full_is_due(cx).await?;
        let listed = self.list_and_follow(cx, lease, &task, plan).await;
        let now = Instant::now();
        match &listed {
            Ok(_) => {
                plan.failures = 0;
                plan.list_at = now + interval;
            }
            Err(error) => {
                plan.failures = plan.failures.saturating_add(1);
                plan.list_at = now + self.runner.pause_after(error, plan.failures, interval);
            }
        }
        self.runner.sessions.rest().await;
        self.tell(cx, lease, &listed);
        listed
    }

    async fn full_is_due(&self, cx: &ModuleContext) -> Result<bool, MailError> {
        let state = Store::new(cx.storage.clone()).state().await?;
        let every_ms = i64::try_from(self.runner.settings.full_every_secs * 1_000).unwrap_or(i64::MAX);
        Ok(state.is_some_and(|state| cx.clock.now_ms() - state.full_ms >= every_ms))
    }

    async fn list_and_follow(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        task: &Task,
        plan: &mut Plan,
    ) -> Result<Value, MailError> {
        let found = self.runner.list(cx, lease, task).await?;
        if task.dry {
            return Ok(found.result);
        }
        let settings = &self.runner.settings;
        plan.job = settings.auto_quarantine
            && found.default_access.as_deref().is_some_and(|it| it != access::QUARANTINED);
        let Found { complete, .. } = found;
        if !complete {
            return Ok(found.result);
        }
        let (done, touched) = rules::follow(&self.runner, &self.guard, cx, &found).await?;
        touched.into_iter().for_each(|key| self.poke(key));
        Ok(if done == json!({}) { found.result } else { with(found.result, "by_rule", done) })
    }

    async fn read(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        inbox: &Inbox,
        plan: &mut Plan,
    ) -> Result<(), MailError> {
        let long = self.runner.work_left() > limits::LONG_QUEUE;
        let slice = if long { limits::LONG_SLICE } else { limits::SLICE };
        let until = (Instant::now() + slice).min(plan.list_at);
        let waits = || !inbox.orders.is_empty() || !inbox.pokes.is_empty();
        let read = self.runner.read_slice(cx, lease, until, waits).await;
        self.runner.reads_well(read.is_ok());
        match read {
            Ok(slice) => {
                plan.read_failures = 0;
                if slice.is_done {
                    self.runner.work_is(0);
                    self.runner.sessions.rest().await;
                    cx.status.set(ModuleState::Ok, "all phones are read");
                } else {
                    let left = self.runner.work_left();
                    cx.status.figure("statistics_left", i64::try_from(left).unwrap_or(i64::MAX));
                    cx.status.set(ModuleState::Ok, "reading statistics");
                }
                Ok(())
            }
            Err(MailError::Link { source: LinkError::BaseMismatch }) => {
                plan.list_at = Instant::now();
                plan.read_at = Instant::now() + limits::RETRY_AFTER;
                Ok(())
            }
            Err(error) => {
                plan.read_failures = plan.read_failures.saturating_add(1);
                let pause = self.runner.pause_after(&error, plan.read_failures, limits::RETRY_AT_MOST);
                plan.read_at = Instant::now() + pause;
                if plan.read_failures == 1 {
                    // Phones that wait for their statistics travel without them.
                    plan.list_at = plan.list_at.min(Instant::now() + pause);
                }
                self.runner.sessions.rest().await;
                self.tell(cx, lease, &Err(error));
                Ok(())
            }
        }
    }

    /// A slice of the switch to quarantine that the settings ask for.
    async fn job(&self, cx: &ModuleContext, plan: &mut Plan) -> Result<(), MailError> {
        match quarantine::advance(&self.runner, cx, limits::JOB_SLICE).await {
            Ok(Step::Done(result)) => {
                tracing::info!(%result, "The organisation holds new phones now");
                plan.job = false;
                plan.list_at = Instant::now();
            }
            Ok(Step::Wait { next_check, result }) => {
                cx.status
                    .set(ModuleState::Ok, format!("allowing phones before quarantine: {}", result["phase"]));
                plan.job_at = Instant::now() + next_check;
            }
            Err(error) => {
                tracing::warn!(error = %crate::chain::Chain(&error), "The switch to quarantine waits");
                plan.read_failures = plan.read_failures.saturating_add(1);
                plan.job_at = Instant::now()
                    + self.runner.pause_after(&error, plan.read_failures, limits::RETRY_AT_MOST);
            }
        }
        Ok(())
    }

    fn tell(&self, cx: &ModuleContext, lease: &LeaseGuard, result: &Result<Value, MailError>) {
        let subject = lease.resource();
        match result {
            Ok(done) => {
                done["devices"].as_i64().into_iter().for_each(|count| cx.status.figure("devices", count));
                cx.status.figure("last_run_ms", cx.clock.now_ms());
                cx.status.figure("last_run_took_ms", done["elapsed_ms"].as_i64().unwrap_or(0));
                cx.status.set(ModuleState::Ok, "collects");
                match done["incomplete"].as_str() {
                    Some(why) => cx.cloud.notice(incomplete(subject, why)),
                    None => [codes::HELD_BY_GUARD, SYNC_FAILED, INCOMPLETE]
                        .iter()
                        .for_each(|code| cx.cloud.notice(settled(subject, code))),
                }
            }
            Err(MailError::LeaseLost | MailError::Stopping) => {}
            Err(error) => {
                let ErrorReport { code, detail, remedy } = error.report();
                tracing::warn!(code, error = detail, "Collection failed");
                let held = code == codes::HELD_BY_GUARD;
                cx.status.set(ModuleState::Degraded, detail.clone());
                cx.cloud.notice(Notice {
                    code: if held { code } else { SYNC_FAILED.to_owned() },
                    severity: if held { Severity::Critical } else { Severity::Warning },
                    subject: subject.to_owned(),
                    detail,
                    remedy,
                    resolved: false,
                });
            }
        }
    }

    fn poke(&self, key: Uuid) {
        // With that many waiting, the next listing comes sooner than this phone's turn.
        let _ = self.pokes.try_send(key);
    }

    async fn collecting(&self, cx: &ModuleContext) -> Result<(), ModuleError> {
        let resource = self.runner.settings.resource();
        let mut inbox = self.inbox.lock().await;
        loop {
            cx.status.set(ModuleState::Idle, "waits for its turn to collect");
            let lease = tokio::select! {
                lease = cx.cloud.lease(&resource) => lease,
                () = cx.stop.cancelled() => return Ok(()),
            };
            match lease {
                Ok(lease) => self.collect(cx, &lease, &mut inbox).await,
                Err(LinkError::Stopping) => return Ok(()),
                Err(error) => {
                    cx.status.set(ModuleState::Degraded, error.to_string());
                    tokio::select! {
                        () = cx.clock.sleep(limits::RETRY_AFTER) => {}
                        () = cx.stop.cancelled() => {}
                    }
                }
            }
            if cx.stop.is_cancelled() {
                return Ok(());
            }
        }
    }
}

const SYNC_FAILED: &str = "sync_failed";
const INCOMPLETE: &str = "incomplete_listing";

fn incomplete(subject: &str, why: &str) -> Notice {
    Notice {
        code: INCOMPLETE.to_owned(),
        severity: Severity::Warning,
        subject: subject.to_owned(),
        detail: format!("the listing is not complete, so nothing is deleted: {why}"),
        remedy: "see the server's own words".to_owned(),
        resolved: false,
    }
}

fn settled(subject: &str, code: &str) -> Notice {
    Notice {
        code: code.to_owned(),
        severity: Severity::Info,
        subject: subject.to_owned(),
        detail: "a later run went through".to_owned(),
        remedy: String::new(),
        resolved: true,
    }
}

impl Module for ExchangeModule {
    fn directories(&self) -> Vec<Arc<Directory>> {
        self.runner.catalog.iter().cloned().collect()
    }

    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move {
            let idle = async {
                loop {
                    cx.clock.sleep(limits::IDLE_CHECK_EVERY).await;
                    self.runner.sessions.close_idle().await;
                }
            };
            let ended = tokio::select! {
                ended = self.collecting(&cx) => ended,
                () = idle => unreachable!("it has no end"),
            };
            self.runner.sessions.close().await;
            ended
        })
    }

    fn act(&self, cx: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let (order, confirms) = match Order::read(&action) {
                Ok(read) => read,
                Err(error) => return Outcome::Failure(error.report()),
            };
            if self.runner.settings.actions_forbidden.contains(&action.action) {
                return Outcome::Failure(MailError::ForbiddenHere { action: action.action }.report());
            }
            if let Order::Collect(task) = order {
                let done = self.order(task).await.map(Step::Done);
                return actions::settle(&cx, &action, done).await;
            }
            let outcome = actions::carry_out(&self.runner, &self.guard, &cx, &action, &order, confirms).await;
            if let Some(key) = order.touches()
                && !matches!(&outcome, Outcome::Failure(_))
            {
                self.poke(key);
            }
            outcome
        })
    }

    fn answer(&self, _cx: ModuleContext, request: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async move { Err(MailError::Unknown { name: request.request }.report()) })
    }

    fn check(&self, cx: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async move { check::run(&self.runner, self.organisation.as_deref(), &cx).await })
    }
}
