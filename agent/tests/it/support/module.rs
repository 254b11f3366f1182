//! A module that does as it is told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causeway_agent::modules::{
    Check, CheckResult, ConfigError, Module, ModuleContext, ModuleError, ModuleFactory, ModuleSettings,
    Outcome,
};
use causeway_agent::storage::{Batch, Table};
use causeway_protocol::action::{Action, ErrorReport, codes};
use causeway_protocol::channel::payload::{Configure, Request};
use causeway_protocol::health::ModuleState;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

static THERE: Check = Check { name: "probe.there", looks_at: "the probe", remedy: "none" };

/// What every module made by one factory shares with its test.
#[derive(Clone)]
pub(crate) struct Probe(Arc<Shared>);

#[derive(Default)]
struct Shared {
    acted: Mutex<Vec<String>>,
    asked: AtomicUsize,
    runs: AtomicUsize,
    ended: AtomicUsize,
    gate: Gate,
    crash: AtomicBool,
    deaf: AtomicBool,
}

struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Probe {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Lives as long as the test process.
    pub(crate) fn factory(&self) -> &'static dyn ModuleFactory {
        Box::leak(Box::new(Factory(self.clone())))
    }

    /// Ids of actions begun, in order.
    pub(crate) fn acted(&self) -> Vec<String> {
        self.0.acted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests begun.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Times `run` has begun.
    pub(crate) fn runs(&self) -> usize {
        self.0.runs.load(Ordering::SeqCst)
    }

    /// Times `run` has ended as it should.
    pub(crate) fn ended(&self) -> usize {
        self.0.ended.load(Ordering::SeqCst)
    }

    /// Lets `n` waiting actions or requests go on.
    pub(crate) fn release(&self, n: usize) {
        self.0.gate.0.add_permits(n);
    }

    /// From now on `run` panics at once.
    pub(crate) fn set_crash(&self, crash: bool) {
        self.0.crash.store(crash, Ordering::SeqCst);
    }

    /// From now on `run` does not listen to its stop signal.
    pub(crate) fn set_deaf(&self) {
        self.0.deaf.store(true, Ordering::SeqCst);
    }

    /// The config that makes it run.
    pub(crate) fn config(revision: u64, settings: Value) -> Configure {
        Configure { module: "probe".to_owned(), revision, enabled: true, settings }
    }
}

struct Factory(Probe);

impl ModuleFactory for Factory {
    fn kind(&self) -> &'static str {
        "probe"
    }

    fn example(&self) -> Value {
        json!({})
    }

    fn build(&self, settings: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError> {
        if settings.desired.get("broken").is_some() {
            return Err(ConfigError::new("settings.broken", "cannot work", "remove it"));
        }
        Ok(Arc::new(self.0.clone()))
    }
}

impl Module for Probe {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move {
            self.0.runs.fetch_add(1, Ordering::SeqCst);
            assert!(!self.0.crash.load(Ordering::SeqCst), "the probe was told to panic");
            cx.status.set(ModuleState::Ok, "probing");
            if self.0.deaf.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            cx.stop.cancelled().await;
            self.0.ended.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }

    fn act(&self, cx: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            self.0.acted.lock().unwrap_or_else(PoisonError::into_inner).push(action.id.clone());
            match action.action.as_str() {
                "echo" => Outcome::Success(action.params),
                "wait" => {
                    self.0.gate.0.acquire().await.expect("open").forget();
                    Outcome::Success(json!("waited"))
                }
                "panic" => panic!("told to"),
                "pending" => {
                    let key = action.id.as_bytes().to_vec();
                    let seen = cx.storage.get(Table::Cursors, key.clone()).await.unwrap();
                    if seen.is_some() {
                        return Outcome::Success(json!("at last"));
                    }
                    let mut batch = Batch::new();
                    batch.put(Table::Cursors, key, b"seen".to_vec());
                    cx.storage.commit(batch).await.unwrap();
                    Outcome::Pending { result: json!("not yet"), next_check: Duration::from_secs(3) }
                }
                other => Outcome::Failure(ErrorReport::new(codes::UNKNOWN_ACTION, other, "")),
            }
        })
    }

    fn answer(&self, _: ModuleContext, request: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async move {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            match request.request.as_str() {
                "length" => Ok(json!(request.body.expose().len())),
                "wait" => {
                    self.0.gate.0.acquire().await.expect("open").forget();
                    Ok(json!("waited"))
                }
                "panic" => panic!("told to"),
                other => Err(ErrorReport::new(codes::UNKNOWN_ACTION, other, "")),
            }
        })
    }

    fn check(&self, _: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async { vec![CheckResult::ok(&THERE, "there")] })
    }
}
