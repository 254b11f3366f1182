//! Proxy auto-configuration: a script from the company's network that names the way for each destination. Where it comes
//! from, how long it is good, what it may cost, and what happens when it fails.

pub mod answer;
pub mod engine;
pub mod error;
pub mod fetch;
pub mod functions;
pub mod limits;
mod lookup;
pub mod script;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use self::engine::{Answer, ScriptHost};
use self::error::{FetchError, ScriptError};
use self::fetch::Place;
use self::limits::{
    ANSWER_KEPT_FOR, ANSWERS_MAX, FETCHED_AGAIN_AFTER, FETCHED_AGAIN_AFTER_FAILURE, FETCHED_WITHIN,
    SCRIPT_MAX_BYTES,
};
use self::lookup::NamesLookup;
use self::script::{GivenUp, Script};
use super::{Destination, Plan, Route};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::dial::direct::Straight;
use crate::dial::tls::Trust;
use crate::secrets::write_private;

/// The last script that loaded, in the data directory.
const KEPT_FILE: &str = "last-good.pac";
/// First line of that file: whose script it is.
const KEPT_MARK: &str = "// fetched by causeway-agent from ";

/// Finds a script and says where it was: at a fixed place, or by WPAD.
pub trait Fetch: Send + Sync + 'static {
    /// The script's text and its place.
    fn fetch(&self) -> BoxFuture<'_, Result<(String, String), FetchError>>;

    /// What the source is called in explanations; also tells one source's kept script from another's.
    fn name(&self) -> String;
}

/// A script at a fixed place.
pub struct FixedPlace {
    /// Where.
    pub place: Place,
    /// How to get there.
    pub straight: Straight,
    /// Who may sign its server's certificate.
    pub trust: Trust,
}

/// A PAC script and everything that keeps it fresh.
pub struct Pac {
    fetch: Box<dyn Fetch>,
    host: Option<ScriptHost>,
    straight: Straight,
    clock: Clock,
    /// Where the last good script is kept, if anywhere.
    kept: Option<PathBuf>,
    given_up: GivenUp,
    /// Held while fetching.
    fetching: tokio::sync::Mutex<()>,
    state: tokio::sync::Mutex<State>,
    answers: Mutex<HashMap<Destination, (Instant, Plan)>>,
}

#[derive(Default)]
struct State {
    loaded: Option<Loaded>,
    failures: usize,
    /// When to fetch; `None` is now.
    next: Option<Instant>,
    /// Why the newest attempt failed.
    trouble: Option<String>,
}

#[derive(Clone)]
struct Loaded {
    script: Arc<Script>,
    text: Arc<str>,
    place: String,
}

impl Fetch for FixedPlace {
    fn fetch(&self) -> BoxFuture<'_, Result<(String, String), FetchError>> {
        Box::pin(async {
            Ok((fetch::fetch(&self.place, &self.straight, &self.trust).await?, self.place.to_string()))
        })
    }

    fn name(&self) -> String {
        format!("PAC script {}", self.place)
    }
}

impl Pac {
    /// A script found by `fetch`; the last good one is kept in `data_dir`.
    pub fn new(fetch: Box<dyn Fetch>, straight: Straight, data_dir: Option<&Path>) -> Self {
        Self {
            fetch,
            host: None,
            straight,
            clock: Clock::system(),
            kept: data_dir.map(|dir| dir.join(KEPT_FILE)),
            given_up: GivenUp::default(),
            fetching: tokio::sync::Mutex::default(),
            state: tokio::sync::Mutex::default(),
            answers: Mutex::default(),
        }
    }

    /// With other look-ups and another clock.
    #[must_use]
    pub fn with_host(self, host: ScriptHost) -> Self {
        Self { host: Some(host), ..self }
    }

    /// The routes to a destination. `traced` asks the script anew and tells what it did.
    pub async fn find(self: &Arc<Self>, to: &Destination, traced: bool) -> Plan {
        let (loaded, trouble) = self.loaded().await;
        let Some(loaded) = loaded else {
            let trouble = trouble.unwrap_or_default();
            let mut plan = Plan::new(Route::Direct, self.fetch.name(), "no script is there, so straight");
            plan.notes.push(trouble);
            plan.troubled = true;
            return plan;
        };
        if !traced && let Some(plan) = self.remembered(to) {
            return plan;
        }
        let mut asked = loaded.script.ask(to, traced).await;
        if asked == Err(ScriptError::OutOfMemory) {
            // Scripts that cache in global variables fill any memory in the end; they were loaded afresh.
            asked = loaded.script.ask(to, traced).await;
        }
        let mut plan = match asked {
            Ok(answer) => self.plan(&loaded, to, answer),
            Err(error) => {
                tracing::warn!(error = %error, url = %to.url(), "The proxy script fails; going straight");
                self.fetch_soon().await;
                let rule = format!("the script of {} fails, so straight: {error}", loaded.place);
                Plan { troubled: true, ..Plan::new(Route::Direct, self.fetch.name(), rule) }
            }
        };
        plan.troubled |= trouble.is_some();
        plan.notes.extend(trouble.map(|trouble| format!("an older script is used: {trouble}")));
        plan
    }

    /// On another network the script may be another one, and so are its answers.
    pub fn network_changed(&self) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Ok(mut state) = self.state.try_lock() {
            state.next = None;
            state.failures = 0;
        }
    }

    fn plan(&self, loaded: &Loaded, to: &Destination, answer: Answer) -> Plan {
        let (routes, skipped) = answer::routes(&answer.text);
        let took_us = answer.took.as_micros();
        let mut notes = answer.trace;
        notes.push(format!(
            "the script returns {:?} in {took_us} us, {} look-ups",
            answer.text, answer.lookups
        ));
        let troubled = !skipped.is_empty();
        notes.extend(skipped);
        let by = if self.fetch.name().ends_with(&loaded.place) { "it" } else { &loaded.place };
        let rule = format!("{by} says {:?} for {}", answer.text, to.url());
        let plan = Plan { routes, source: self.fetch.name(), rule, notes, troubled };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, (until, _)| *until > now);
        }
        if answers.len() < ANSWERS_MAX {
            answers.insert(to.clone(), (now + ANSWER_KEPT_FOR, plan.clone()));
        }
        plan
    }

    fn remembered(&self, to: &Destination) -> Option<Plan> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(to).filter(|(until, _)| *until > Instant::now()).map(|(_, plan)| plan.clone())
    }

    /// The script to use, fetched when it is due; and what is wrong with fetching. Only the very first fetch is waited
    /// for: connections do not wait for a newer version of a script that works.
    async fn loaded(self: &Arc<Self>) -> (Option<Loaded>, Option<String>) {
        if let Some(usable) = self.usable().await {
            return usable;
        }
        let _one = self.fetching.lock().await;
        if let Some(usable) = self.usable().await {
            return usable;
        }
        self.refresh().await;
        let state = self.state.lock().await;
        (state.loaded.clone(), state.trouble.clone())
    }

    /// What there is without waiting; `None` when a first script has to be fetched now.
    async fn usable(self: &Arc<Self>) -> Option<(Option<Loaded>, Option<String>)> {
        let mut state = self.state.lock().await;
        let due = state.next.is_none_or(|next| next <= Instant::now());
        if due && state.loaded.is_none() {
            return None;
        }
        if due {
            // Nobody else begins while this one is under way.
            state.next = Some(Instant::now() + 2 * FETCHED_WITHIN);
            let pac = self.clone();
            tokio::spawn(async move {
                let _one = pac.fetching.lock().await;
                pac.refresh().await;
            });
        }
        Some((state.loaded.clone(), state.trouble.clone()))
    }

    async fn refresh(&self) {
        let fetched = self.fetch.fetch().await;
        let mut state = self.state.lock().await;
        let trouble = match fetched {
            Ok((text, place)) => {
                self.load(&mut state, text, place).await.err().map(|error| error.to_string())
            }
            Err(error) => Some(Chain(&error).to_string()),
        };
        let Some(trouble) = trouble else {
            (state.failures, state.trouble) = (0, None);
            state.next = Some(Instant::now() + FETCHED_AGAIN_AFTER);
            return;
        };
        tracing::warn!(source = %self.fetch.name(), error = %trouble, "No usable proxy script");
        state.next = Some(Instant::now() + pause_after(state.failures));
        state.failures += 1;
        state.trouble = Some(trouble);
        if state.loaded.is_none() {
            self.load_kept(&mut state).await;
        }
    }

    /// Takes a script into use. The same text again changes nothing, its answers included.
    async fn load(&self, state: &mut State, text: String, place: String) -> Result<(), ScriptError> {
        if text.len() > SCRIPT_MAX_BYTES {
            return Err(ScriptError::Unloadable { message: format!("it has {} bytes", text.len()) });
        }
        if state.loaded.as_ref().is_some_and(|loaded| *loaded.text == *text) {
            return Ok(());
        }
        let script = Script::load(text.clone(), self.script_host(), self.given_up.clone()).await?;
        if let Some(kept) = &self.kept {
            let marked = format!("{KEPT_MARK}{}\n{text}", self.fetch.name());
            if let Err(error) = write_private(kept, marked.as_bytes()) {
                tracing::warn!(%error, path = %kept.display(), "The proxy script cannot be kept");
            }
        }
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        state.loaded = Some(Loaded { script: Arc::new(script), text: text.into(), place });
        Ok(())
    }

    /// The script of an earlier run, while its server does not answer.
    async fn load_kept(&self, state: &mut State) {
        let Some(kept) = &self.kept else { return };
        let Ok(marked) = tokio::fs::read_to_string(kept).await else { return };
        let Some((mark, text)) = marked.split_once('\n') else { return };
        if mark.strip_prefix(KEPT_MARK) != Some(self.fetch.name().as_str()) {
            return;
        }
        let script = Script::load(text.to_owned(), self.script_host(), self.given_up.clone()).await;
        if let Ok(script) = script {
            let place = format!("the kept copy {}", kept.display());
            state.loaded = Some(Loaded { script: Arc::new(script), text: text.into(), place });
        }
    }

    async fn fetch_soon(&self) {
        let mut state = self.state.lock().await;
        let soon = Instant::now() + pause_after(state.failures);
        // A script that fails again and again is fetched ever more rarely, as one that cannot be fetched.
        if state.next.is_none_or(|next| next > soon) {
            state.next = Some(soon);
            state.failures += 1;
        }
    }

    fn script_host(&self) -> ScriptHost {
        self.host.clone().unwrap_or_else(|| ScriptHost {
            lookup: Arc::new(NamesLookup::new(self.straight.names().clone())),
            clock: self.clock,
        })
    }
}

/// How long after the n-th failure in a row the script is fetched again.
fn pause_after(failures: usize) -> Duration {
    FETCHED_AGAIN_AFTER_FAILURE[failures.min(FETCHED_AGAIN_AFTER_FAILURE.len() - 1)]
}
