//! One task per module. An error, a panic or a refusal to end concerns that module only; restarts have a budget.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use causeway_protocol::channel::backoff::Backoff;
use causeway_protocol::health::ModuleState;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::limits::{
    DRAIN_WITHIN, RESTART_BACKOFF_CAP, RESTART_BACKOFF_FROM, RESTART_PENALTY, RESTARTS_MAX, RESTARTS_WITHIN,
};
use crate::modules::{Module, ModuleContext, ModuleError, Retry};

/// Keeps one module running. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    wanted: Arc<watch::Sender<Option<Supervised>>>,
    restarts: Arc<AtomicU32>,
    idle: watch::Receiver<bool>,
}

/// What should run.
#[derive(Clone)]
pub struct Supervised {
    /// The module.
    pub module: Arc<dyn Module>,
}

impl Supervisor {
    /// Nothing runs until [`Supervisor::replace`].
    pub fn start(kind: String, cx: ModuleContext) -> Self {
        let (wanted, receiver) = watch::channel(None);
        let (idle_in, idle) = watch::channel(true);
        let restarts = Arc::new(AtomicU32::new(0));
        let keeper = Keeper { kind, cx, wanted: receiver, restarts: restarts.clone(), idle: idle_in };
        tokio::spawn(keeper.run());
        Self { wanted: Arc::new(wanted), restarts, idle }
    }

    /// From now on this runs; what ran before ends first. `None` ends it.
    pub fn replace(&self, supervised: Option<Supervised>) {
        self.wanted.send_replace(supervised);
    }

    /// Restarts since the process began.
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Waits until nothing runs.
    pub async fn ended(&self) {
        let mut idle = self.idle.clone();
        let done = async {
            loop {
                if *idle.borrow_and_update() {
                    return;
                }
                if idle.changed().await.is_err() {
                    return;
                }
            }
        };
        // Twice: the module's own time, and the abort's.
        let _ = timeout(DRAIN_WITHIN * 2, done).await;
    }
}

struct Keeper {
    kind: String,
    cx: ModuleContext,
    wanted: watch::Receiver<Option<Supervised>>,
    restarts: Arc<AtomicU32>,
    idle: watch::Sender<bool>,
}

/// Why a run is over.
enum Over {
    Replaced,
    Failed { detail: String, retry: Retry },
}

impl Keeper {
    async fn run(mut self) {
        let mut recent: VecDeque<Instant> = VecDeque::new();
        let mut backoff = Backoff::new(RESTART_BACKOFF_FROM, RESTART_BACKOFF_CAP);
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let Some(supervised) = wanted else {
                self.idle.send_replace(true);
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            self.idle.send_replace(false);
            let begun = self.cx.clock.now();
            let over = self.run_once(&supervised).await;
            backoff.session_lived(self.cx.clock.now() - begun);
            let Over::Failed { detail, retry } = over else {
                if self.cx.stop.is_cancelled() {
                    self.idle.send_replace(true);
                    return;
                }
                recent.clear();
                continue;
            };
            let now = self.cx.clock.now();
            recent.push_back(now);
            recent.retain(|at| now - *at < RESTARTS_WITHIN);
            let exhausted = recent.len() > RESTARTS_MAX || retry != Retry::After;
            let delay = if exhausted { RESTART_PENALTY } else { backoff.next(self.cx.random.next_u64()) };
            let state = if exhausted { ModuleState::Failed } else { ModuleState::Degraded };
            tracing::error!(
                kind = self.kind,
                error = detail,
                delay_ms = delay.as_millis() as u64,
                "A module ended"
            );
            self.cx.status.set(state, detail);
            tokio::select! {
                biased;
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    recent.clear();
                }
                () = self.cx.clock.sleep(delay) => {
                    self.restarts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    async fn run_once(&mut self, supervised: &Supervised) -> Over {
        let stop = self.cx.stop.child_token();
        let cx = ModuleContext { stop: stop.clone(), ..self.cx.clone() };
        cx.status.set(ModuleState::Ok, "started");
        let mut task = tokio::spawn(supervised.module.clone().run(cx));
        tokio::select! {
            biased;
            _ = self.wanted.changed() => {
                self.end(&stop, task).await;
                Over::Replaced
            }
            ended = &mut task => match ended {
                Ok(Ok(())) if self.cx.stop.is_cancelled() => Over::Replaced,
                Ok(Ok(())) => Over::Failed {
                    detail: "the module ended without being told to".to_owned(),
                    retry: Retry::After,
                },
                Ok(Err(ModuleError { report, retry })) => {
                    Over::Failed { detail: format!("{}; {}", report.detail, report.remedy), retry }
                }
                Err(error) => Over::Failed {
                    detail: if error.is_panic() { "the module panicked" } else { "the module was ended" }.to_owned(),
                    retry: Retry::After,
                },
            },
        }
    }

    /// Tells a module to end, and makes it when it does not.
    async fn end(&self, stop: &CancellationToken, mut task: JoinHandle<Result<(), ModuleError>>) {
        stop.cancel();
        if timeout(DRAIN_WITHIN, &mut task).await.is_err() {
            tracing::error!(kind = self.kind, "A module does not end and is aborted");
            task.abort();
            let _ = task.await;
        }
    }
}
