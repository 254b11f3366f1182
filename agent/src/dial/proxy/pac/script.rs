//! A script on its own thread: QuickJS is not `Send`, and a script that waits for a name server must not hold up ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, timeout};

use super::engine::{Answer, Engine, Progress, ScriptHost};
use super::error::ScriptError;
use super::limits::{GIVEN_UP_AFTER, GIVEN_UP_MAX, THREAD_STACK_BYTES};
use crate::dial::proxy::Destination;

/// How often a waiting caller looks at the script's progress.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Counts threads that were left behind with their scripts.
#[derive(Clone, Default)]
pub struct GivenUp(Arc<AtomicUsize>);

/// A loaded script. Its thread ends when this is dropped.
pub struct Script {
    jobs: SyncSender<Job>,
    /// One evaluation at a time: the engine has one thread, and whoever waits wants to know when its own began.
    one: Mutex<()>,
    progress: Arc<Progress>,
    given_up: GivenUp,
    hangs: AtomicBool,
}

struct Job {
    url: String,
    host: String,
    traced: bool,
    reply: oneshot::Sender<Result<Answer, ScriptError>>,
}

impl Script {
    /// Loads a script.
    ///
    /// # Errors
    /// When it cannot be loaded within its limits.
    pub async fn load(text: String, host: ScriptHost, given_up: GivenUp) -> Result<Self, ScriptError> {
        if given_up.0.load(Ordering::Acquire) >= GIVEN_UP_MAX {
            return Err(ScriptError::Forbidden);
        }
        let (jobs, queue) = sync_channel(1);
        let (reply, loaded) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let inside = progress.clone();
        std::thread::Builder::new()
            .name("proxy-script".to_owned())
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || serve(&text, &host, &inside, reply, &queue))
            .map_err(|error| ScriptError::Engine { message: error.to_string() })?;
        let script = Self { jobs, one: Mutex::default(), progress, given_up, hangs: AtomicBool::new(false) };
        script.patiently(loaded).await??;
        Ok(script)
    }

    /// Asks the script for a destination. With `traced` the answer tells every function called.
    ///
    /// # Errors
    /// [`ScriptError`].
    pub async fn ask(&self, to: &Destination, traced: bool) -> Result<Answer, ScriptError> {
        let _one = self.one.lock().await;
        if self.hangs.load(Ordering::Acquire) {
            return Err(ScriptError::GivenUp);
        }
        self.progress.reset();
        let (reply, answer) = oneshot::channel();
        let job = Job { url: to.url(), host: to.host.clone(), traced, reply };
        // The thread is idle, because only one evaluation is under way; it is gone only when it panicked.
        self.jobs.try_send(job).map_err(|_| ScriptError::GivenUp)?;
        self.patiently(answer).await?
    }

    /// Waits as long as the script may take; look-ups do not count.
    async fn patiently<T>(&self, mut answer: oneshot::Receiver<T>) -> Result<T, ScriptError> {
        let began = Instant::now();
        loop {
            match timeout(LOOK_EVERY, &mut answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(_)) => return Err(ScriptError::Engine { message: "its thread has ended".to_owned() }),
                Err(_) => {}
            }
            let (waiting, waited) = self.progress.waits();
            if !waiting && began.elapsed().saturating_sub(waited) > GIVEN_UP_AFTER {
                self.hangs.store(true, Ordering::Release);
                self.given_up.0.fetch_add(1, Ordering::AcqRel);
                tracing::warn!("A proxy script hangs in a built-in function; its thread is left behind");
                return Err(ScriptError::GivenUp);
            }
        }
    }
}

fn serve(
    text: &str,
    host: &ScriptHost,
    progress: &Arc<Progress>,
    loaded: oneshot::Sender<Result<(), ScriptError>>,
    jobs: &Receiver<Job>,
) {
    let load = || Engine::load(text, host.clone(), progress.clone());
    let mut engine = match load() {
        Ok(engine) => engine,
        Err(error) => {
            let _ = loaded.send(Err(error));
            return;
        }
    };
    if loaded.send(Ok(())).is_err() {
        return;
    }
    while let Ok(Job { url, host, traced, reply }) = jobs.recv() {
        let answer = engine.ask(&url, &host, traced);
        let failed = answer.is_err();
        let _ = reply.send(answer);
        if failed {
            // What an interrupted script leaves behind is anybody's guess.
            match load() {
                Ok(fresh) => engine = fresh,
                Err(_) => return,
            }
        }
    }
}
