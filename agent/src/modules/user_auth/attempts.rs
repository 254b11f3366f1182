//! What protects accounts from being locked by their own devices: a phone with an old password asks the agent as often
//! as it likes, and the directory hears of it once a minute.
//!
//! Passwords are never kept. A refused pair is remembered as HMAC-SHA-256 under a key drawn at start that never leaves
//! this process, so what is in memory helps nobody who reads it later.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_protocol::auth::AuthReply;
use tokio::sync::watch;
use tokio::time::Instant;

use super::expiring::ExpiringMap;
use crate::secrets::Fingerprints;

/// Refused pairs remembered. At 64 bytes each, well under a megabyte.
const REFUSED_MAX: usize = 10_000;

/// Users whose failures are counted.
const USERS_MAX: usize = 10_000;

/// A user and a password, as one opaque value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Pair([u8; 32]);

/// How many refused passwords one user may have in a window before the directory is not asked any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cap {
    pub(super) failures_max: u32,
    pub(super) window: Duration,
}

/// Attempts in progress and attempts remembered.
pub(super) struct Attempts {
    fingerprints: Fingerprints,
    state: Mutex<State>,
}

struct State {
    running: HashMap<Pair, watch::Receiver<Option<AuthReply>>>,
    refused: ExpiringMap<Pair, ()>,
    failures: ExpiringMap<String, VecDeque<Instant>>,
    users: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

/// What to do with an attempt.
pub(super) enum Turn {
    /// Carry it out, and tell the others through this.
    Lead(watch::Sender<Option<AuthReply>>),
    /// The same attempt is being carried out: wait for its verdict.
    Follow(watch::Receiver<Option<AuthReply>>),
    /// The same attempt was refused a moment ago.
    Refused,
}

impl Attempts {
    /// With this memory for refused pairs.
    pub(super) fn new(refused_ttl: Duration) -> Self {
        let state = State {
            running: HashMap::new(),
            refused: ExpiringMap::new(refused_ttl, REFUSED_MAX),
            failures: ExpiringMap::new(Duration::from_secs(24 * 3_600), USERS_MAX),
            users: HashMap::new(),
        };
        Self { fingerprints: Fingerprints::default(), state: Mutex::new(state) }
    }

    /// The pair's opaque value.
    pub(super) fn pair(&self, user: &str, password: &str) -> Pair {
        Pair(self.fingerprints.of(user, password))
    }

    /// Joins an attempt like this, or starts one.
    pub(super) fn enter(&self, pair: Pair, now: Instant) -> Turn {
        let mut state = self.state();
        if state.refused.get(&pair, now).is_some() {
            return Turn::Refused;
        }
        // A leader that vanished without a verdict must not block those behind it.
        if let Some(receiver) = state.running.get(&pair)
            && receiver.has_changed().is_ok()
        {
            return Turn::Follow(receiver.clone());
        }
        let (sender, receiver) = watch::channel(None);
        state.running.insert(pair, receiver);
        Turn::Lead(sender)
    }

    /// The attempt is over.
    pub(super) fn leave(&self, pair: Pair) {
        self.state().running.remove(&pair);
    }

    /// Whether this pair was refused a moment ago.
    pub(super) fn was_refused(&self, pair: Pair, now: Instant) -> bool {
        self.state().refused.get(&pair, now).is_some()
    }

    /// Remembers a refused pair.
    pub(super) fn refuse(&self, pair: Pair, now: Instant) {
        self.state().refused.insert(pair, (), now);
    }

    /// One user's attempts follow each other, so that the count of failures is exact.
    pub(super) fn user(&self, user: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state();
        if state.users.len() >= USERS_MAX {
            state.users.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        state.users.entry(user.to_owned()).or_default().clone()
    }

    /// Whether one more refused password could lock the user out.
    pub(super) fn is_capped(&self, user: &str, cap: Option<Cap>, now: Instant) -> bool {
        let Some(cap) = cap else { return false };
        let mut state = self.state();
        let Some(failures) = state.failures.get_mut(&user.to_owned(), now) else { return false };
        while failures.front().is_some_and(|at| now.saturating_duration_since(*at) >= cap.window) {
            failures.pop_front();
        }
        failures.len() >= cap.failures_max as usize
    }

    /// Counts a refused password.
    pub(super) fn failed(&self, user: &str, now: Instant) {
        /// More are never looked at: no domain locks later than that.
        const KEPT_MAX: usize = 1_000;
        let mut state = self.state();
        let key = user.to_owned();
        let mut failures = state.failures.get_mut(&key, now).map(std::mem::take).unwrap_or_default();
        failures.push_back(now);
        if failures.len() > KEPT_MAX {
            failures.pop_front();
        }
        state.failures.insert(key, failures, now);
    }

    /// A right password resets the directory's count, and ours.
    pub(super) fn succeeded(&self, user: &str) {
        self.state().failures.remove(&user.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_the_others_follow() {
        let attempts = Attempts::new(Duration::from_secs(60));
        let pair = attempts.pair("asmith", "secret");
        let now = Instant::now();
        let Turn::Lead(sender) = attempts.enter(pair, now) else { panic!("the first leads") };
        assert!(matches!(attempts.enter(pair, now), Turn::Follow(_)));
        assert!(matches!(attempts.enter(attempts.pair("asmith", "other"), now), Turn::Lead(_)));
        drop(sender);
        assert!(matches!(attempts.enter(pair, now), Turn::Lead(_)), "a vanished leader blocks nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_pair_is_remembered_for_a_minute() {
        let attempts = Attempts::new(Duration::from_secs(60));
        let pair = attempts.pair("asmith", "old");
        let now = Instant::now();
        attempts.refuse(pair, now);
        assert!(matches!(attempts.enter(pair, now + Duration::from_secs(59)), Turn::Refused));
        assert!(matches!(attempts.enter(pair, now + Duration::from_secs(60)), Turn::Lead(_)));
        assert!(!attempts.was_refused(attempts.pair("asmitho", "ld"), now));
    }

    #[tokio::test(start_paused = true)]
    async fn the_cap_counts_within_its_window() {
        let attempts = Attempts::new(Duration::ZERO);
        let cap = Some(Cap { failures_max: 2, window: Duration::from_secs(100) });
        let now = Instant::now();
        attempts.failed("a", now);
        assert!(!attempts.is_capped("a", cap, now));
        attempts.failed("a", now + Duration::from_secs(50));
        assert!(attempts.is_capped("a", cap, now + Duration::from_secs(99)));
        assert!(!attempts.is_capped("b", cap, now));
        assert!(!attempts.is_capped("a", None, now));
        assert!(!attempts.is_capped("a", cap, now + Duration::from_secs(100)));
        attempts.failed("a", now + Duration::from_secs(100));
        assert!(attempts.is_capped("a", cap, now + Duration::from_secs(100)));
        attempts.succeeded("a");
        assert!(!attempts.is_capped("a", cap, now + Duration::from_secs(100)));
    }
}
