//! The company's people, groups and units, as the cloud may see them.
//!
//! One agent of a tenant collects at a time, under a lease. It sends a snapshot once and differences from then on; what
//! the cloud has is remembered as hashes, together with the place in the directory's history, in one atomic step after
//! the cloud has confirmed.

mod changelog;
mod changes;
pub(crate) mod check;
mod config;
mod dirsync;
mod error;
mod guard;
mod limits;
mod mapping;
mod membership;
#[cfg(test)]
mod peer_tests;
mod reconcile;
mod run;
mod scan;
mod scope;
mod source;
mod state;
mod syncrepl;
#[cfg(test)]
mod tests;
mod usn;

use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::action::{Action, ErrorReport, codes};
use causeway_protocol::channel::payload::{Notice, Request};
use causeway_protocol::health::{ModuleState, Severity};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use self::config::Settings;
pub use self::error::SyncError;
pub use self::guard::Held;
use self::run::{Runner, Task};
use super::{
    CheckResult, ConfigError, LocalExample, Module, ModuleContext, ModuleError, ModuleFactory,
    ModuleSettings, Outcome,
};
use crate::directory::Directory;
use crate::link::{LeaseGuard, LinkError};

/// Stable kind.
pub const MODULE: &str = "user_visibility";

/// Makes user_visibility.
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
        super::example_directory()
    }

    fn build(&self, settings: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError> {
        UserVisibility::new(settings).map(|module| Arc::new(module) as Arc<dyn Module>)
    }
}

/// The module.
pub struct UserVisibility {
    runner: Runner,
    orders: mpsc::Sender<Order>,
    inbox: Mutex<mpsc::Receiver<Order>>,
}

/// An action on its way to the run loop.
struct Order {
    task: Task,
    done: oneshot::Sender<Result<Value, SyncError>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct SyncNow {
    /// Send deletions whatever their number.
    allow_mass_delete: bool,
    /// Send nothing; say what would be sent.
    dry_run: bool,
    /// Compare everything.
    full: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SyncUser {
    /// Login, UPN or mail address.
    user: String,
}

impl UserVisibility {
    /// From settings; opens nothing.
    ///
    /// # Errors
    /// Names the offending key.
    pub fn new(settings: &ModuleSettings) -> Result<Self, ConfigError> {
        let read = Settings::read(settings)?;
        let directory = Arc::new(Directory::new(&read.directory, settings)?);
        let (orders, inbox) = mpsc::channel(limits::ORDERS);
        Ok(Self { runner: Runner::new(read, directory), orders, inbox: Mutex::new(inbox) })
    }

    async fn order(&self, task: Task) -> Result<Value, SyncError> {
        let (done, result) = oneshot::channel();
        self.orders.send(Order { task, done }).await.map_err(|_| SyncError::NotRunning)?;
        result.await.unwrap_or(Err(SyncError::NotRunning))
    }

    /// Collects for as long as the lease is held.
    async fn collect(&self, cx: &ModuleContext, lease: &LeaseGuard, inbox: &mut mpsc::Receiver<Order>) {
        let interval = Duration::from_secs(self.runner.settings.delta_every_secs);
        let mut next = Instant::now();
        let mut failures = 0_u32;
        let mut calls = cx.wake.listen();
        loop {
            let order = tokio::select! {
                order = inbox.recv() => order,
                () = tokio::time::sleep_until(next) => None,
                // A new password, say; what goes well has nothing to wait for.
                () = calls.next() => {
                    if failures > 0 {
                        next = Instant::now();
                    }
                    continue;
                }
                () = lease.lost() => return,
                () = cx.stop.cancelled() => return,
            };
            // An asker who has gone away (its deadline passed) wants nothing any more.
            if order.as_ref().is_some_and(|order| order.done.is_closed()) {
                continue;
            }
            let task = order.as_ref().map(|order| order.task.clone()).unwrap_or_default();
            cx.status.set(ModuleState::Ok, "collecting");
            let result = tokio::select! {
                result = self.runner.run(cx, lease, &task) => result,
                () = lease.lost() => Err(SyncError::LeaseLost),
                () = cx.stop.cancelled() => Err(SyncError::Stopping),
            };
            let over = matches!(&result, Err(SyncError::LeaseLost | SyncError::Stopping));
            failures = if result.is_ok() { 0 } else { failures.saturating_add(1) };
            self.tell(cx, lease, &result);
            if let Some(order) = order {
                let _ = order.done.send(result);
            } else {
                let pause = limits::RETRY_AFTER.saturating_mul(1 << failures.min(16)).min(interval);
                next = Instant::now() + if failures == 0 { interval } else { pause };
            }
            if over {
                return;
            }
        }
    }

    fn tell(&self, cx: &ModuleContext, lease: &LeaseGuard, result: &Result<Value, SyncError>) {
        match result {
            Ok(done) => {
                let objects = done["objects"].as_i64();
                objects.into_iter().for_each(|count| cx.status.figure("objects", count));
                cx.status.figure("last_run_ms", cx.clock.now_ms());
                cx.status.figure("last_run_took_ms", done["elapsed_ms"].as_i64().unwrap_or(0));
                let strategy = done["strategy"].as_str().unwrap_or("scan");
                cx.status.set(ModuleState::Ok, format!("collects by {strategy}"));
            }
            Err(SyncError::LeaseLost | SyncError::Stopping) => {}
            Err(error) => {
                let ErrorReport { code, detail, remedy } = error.report();
                tracing::warn!(code, error = detail, "collection failed");
                let held = code == codes::HELD_BY_GUARD;
                cx.status.set(ModuleState::Degraded, detail.clone());
                cx.cloud.notice(Notice {
                    code: if held { code } else { "sync_failed".to_owned() },
                    severity: if held { Severity::Critical } else { Severity::Warning },
                    subject: lease.resource().to_owned(),
                    detail,
                    remedy,
                    resolved: false,
                });
            }
        }
    }
}

impl Module for UserVisibility {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move {
            let resource = self.runner.settings.resource();
            let mut inbox = self.inbox.lock().await;
            loop {
                cx.status.set(ModuleState::Idle, "waits for its turn to collect");
                let lease = tokio::select! {
                    lease = cx.cloud.lease(&resource) => lease,
                    () = cx.stop.cancelled() => return Ok(()),
                };
                match lease {
                    Ok(lease) => self.collect(&cx, &lease, &mut inbox).await,
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
        })
    }

    fn act(&self, _cx: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let done = match read_task(&action) {
                Ok(task) => self.order(task).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(result) => Outcome::Success(result),
                Err(error) => Outcome::Failure(error.report()),
            }
        })
    }

    fn answer(&self, _cx: ModuleContext, request: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async move { Err(SyncError::Unknown { name: request.request }.report()) })
    }

    fn directories(&self) -> Vec<Arc<Directory>> {
        vec![self.runner.directory.clone()]
    }

    fn check(&self, cx: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async move { check::run(&self.runner, &cx).await })
    }
}

fn read_task(action: &Action) -> Result<Task, SyncError> {
    match action.action.as_str() {
        "sync_now" => {
            let read: SyncNow = parameters(action, &action.params)?;
            Ok(Task { full: read.full, dry: read.dry_run, confirmed: read.allow_mass_delete, user: None })
        }
        "sync_user" => {
            let given = if action.params.is_null() { &action.target } else { &action.params };
            let read: SyncUser = parameters(action, given)?;
            Ok(Task { user: Some(read.user), ..Task::default() })
        }
        name => Err(SyncError::Unknown { name: name.to_owned() }),
    }
}

fn parameters<T: DeserializeOwned>(action: &Action, given: &Value) -> Result<T, SyncError> {
    let empty = Value::Object(serde_json::Map::new());
    let given = if given.is_null() { &empty } else { given };
    T::deserialize(given).map_err(|error| SyncError::BadParameters {
        action: action.action.clone(),
        problem: error.to_string(),
    })
}
