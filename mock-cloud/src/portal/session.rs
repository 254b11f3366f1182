//! Who is signed in to the portal, and how often someone may try.
//!
//! Sign-ins live in memory: a restart of the cloud asks everyone again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::access::{AccessError, random_text};
use crate::limits::{
    PORTAL_CHECKS_MAX, PORTAL_IDLE, PORTAL_SESSION_MAX, PORTAL_SESSIONS_MAX, SIGN_IN_FAILURES_ALL_MAX,
    SIGN_IN_FAILURES_MAX, SIGN_IN_WINDOW,
};
use crate::store::token_hash;

/// Someone who is signed in.
#[derive(Clone)]
pub(super) struct SignedIn {
    /// Their name.
    pub(super) user: String,
    /// Every form of theirs carries it; a page of another site cannot know it.
    pub(super) csrf: String,
    since: Instant,
    last: Instant,
}

impl SignedIn {
    /// Whether a form was ours.
    pub(super) fn owns(&self, csrf: &str) -> bool {
        constant_time::verify_slices_are_equal(self.csrf.as_bytes(), csrf.as_bytes()).is_ok()
    }

    /// When the session is over unless it is used again.
    fn ends(&self) -> Instant {
        (self.last + PORTAL_IDLE).min(self.since + PORTAL_SESSION_MAX)
    }
}

/// Sign-ins by the digest of their cookie.
#[derive(Default)]
pub(super) struct SignIns(Mutex<HashMap<Vec<u8>, Session>>);

/// A sign-in, and who wants to know when it goes.
struct Session {
    signed_in: SignedIn,
    gone: DropGuard,
}

impl SignIns {
    /// Begins a session and returns the cookie's value.
    pub(super) fn begin(&self, user: &str) -> Result<String, AccessError> {
        let cookie = random_text(32)?;
        let now = Instant::now();
        let signed_in = SignedIn { user: user.to_owned(), csrf: random_text(24)?, since: now, last: now };
        let mut all = self.lock();
        all.retain(|_, session| now < session.signed_in.ends());
        if all.len() >= PORTAL_SESSIONS_MAX
            && let Some(oldest) =
                all.iter().min_by_key(|(_, session)| session.signed_in.last).map(|(key, _)| key.clone())
        {
            all.remove(&oldest);
        }
        let gone = CancellationToken::new().drop_guard();
        all.insert(token_hash(&cookie), Session { signed_in, gone });
        Ok(cookie)
    }

    /// Who has this cookie.
    pub(super) fn find(&self, cookie: &str) -> Option<SignedIn> {
        let now = Instant::now();
        let mut all = self.lock();
        let key = token_hash(cookie);
        let session = all.get_mut(&key)?;
        if now >= session.signed_in.ends() {
            all.remove(&key);
            return None;
        }
        session.signed_in.last = now;
        Some(session.signed_in.clone())
    }

    /// Waits until this cookie is good for nothing: its owner has signed out, was idle for too long, or is signed in for too
    /// long. Watching is no use of the session.
    pub(super) async fn over(&self, cookie: &str) {
        let key = token_hash(cookie);
        loop {
            let found = {
                let all = self.lock();
                all.get(&key).map(|session| (session.signed_in.ends(), session.gone.token().clone()))
            };
            let Some((ends, gone)) = found else { return };
            if Instant::now() >= ends {
                return;
            }
            tokio::select! {
                () = gone.cancelled() => return,
                // It may have been used since, and then ends later.
                () = tokio::time::sleep_until(ends) => {}
            }
        }
    }

    /// Ends a session.
    pub(super) fn end(&self, cookie: &str) {
        self.lock().remove(&token_hash(cookie));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Recent failures to sign in, and recent password checks.
#[derive(Default)]
pub(crate) struct SignInLimits {
    failures: Mutex<VecDeque<(Instant, String)>>,
    checks: Mutex<VecDeque<(Instant, String)>>,
}

impl SignInLimits {
    /// How long this name has to wait before another attempt; `None` when it may go on.
    pub(crate) fn must_wait(&self, user: &str) -> Option<Duration> {
        let recent = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        wait_for(&recent, Some(user), SIGN_IN_FAILURES_MAX)
            .or_else(|| wait_for(&recent, None, SIGN_IN_FAILURES_ALL_MAX))
    }

    /// An attempt failed.
    pub(crate) fn failed(&self, user: &str) {
        remember(&self.failures, user, SIGN_IN_FAILURES_ALL_MAX);
    }

    /// Counts a password check of a signed-in person; how long to wait when there were too many.
    pub(super) fn check(&self, user: &str) -> Option<Duration> {
        let wait = {
            let recent = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
            wait_for(&recent, Some(user), PORTAL_CHECKS_MAX)
        };
        if wait.is_none() {
            remember(&self.checks, user, PORTAL_CHECKS_MAX.saturating_mul(8));
        }
        wait
    }
}

/// The time until the oldest of `max` events within the window leaves it.
fn wait_for(recent: &VecDeque<(Instant, String)>, user: Option<&str>, max: u32) -> Option<Duration> {
    let now = Instant::now();
    let within: Vec<Instant> = recent
        .iter()
        .filter(|(at, who)| now - *at < SIGN_IN_WINDOW && user.is_none_or(|user| user == who))
        .map(|(at, _)| *at)
        .collect();
    let oldest = within.len().checked_sub(max as usize).and_then(|first| within.get(first))?;
    Some(SIGN_IN_WINDOW.saturating_sub(now - *oldest))
}

/// Keeps at most `keep` entries: older ones cannot matter, as `keep` failures within a minute stop everyone.
fn remember(log: &Mutex<VecDeque<(Instant, String)>>, user: &str, keep: u32) {
    let mut recent = log.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    recent.retain(|(at, _)| now - *at < SIGN_IN_WINDOW);
    recent.push_back((now, user.to_owned()));
    while recent.len() > keep as usize {
        recent.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_sixth_failure_of_a_name_within_a_minute_has_to_wait() {
        let limits = SignInLimits::default();
        for _ in 0..SIGN_IN_FAILURES_MAX {
            assert_eq!(limits.must_wait("eve"), None);
            limits.failed("eve");
        }
        assert!(limits.must_wait("eve").is_some_and(|wait| wait <= SIGN_IN_WINDOW));
        assert_eq!(limits.must_wait("alice"), None, "another name is not punished");
        tokio::time::advance(SIGN_IN_WINDOW).await;
        assert_eq!(limits.must_wait("eve"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spray_over_many_names_is_slowed() {
        let limits = SignInLimits::default();
        for n in 0..SIGN_IN_FAILURES_ALL_MAX {
            limits.failed(&format!("user{n}"));
        }
        assert!(limits.must_wait("someone-else").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_idle() {
        let sign_ins = SignIns::default();
        let cookie = sign_ins.begin("admin").unwrap();
        tokio::time::advance(PORTAL_IDLE - Duration::from_secs(1)).await;
        let session = sign_ins.find(&cookie).unwrap();
        assert!(session.owns(&session.csrf.clone()) && !session.owns("") && !session.owns("x"));
        tokio::time::advance(PORTAL_IDLE).await;
        assert!(sign_ins.find(&cookie).is_none());
        assert!(sign_ins.find("made-up").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_watches_a_session_hears_of_its_end_and_does_not_prolong_it() {
        let sign_ins = SignIns::default();
        sign_ins.over("made-up").await;
        let cookie = sign_ins.begin("admin").unwrap();
        let begun = Instant::now();
        let use_it_once = async {
            tokio::time::sleep(PORTAL_IDLE / 2).await;
            assert!(sign_ins.find(&cookie).is_some());
        };
        tokio::join!(sign_ins.over(&cookie), use_it_once);
        let took = begun.elapsed();
        assert!(took >= PORTAL_IDLE * 3 / 2 && took < PORTAL_IDLE * 2, "{took:?}");

        let cookie = sign_ins.begin("admin").unwrap();
        let begun = Instant::now();
        let keep_it = async {
            while sign_ins.find(&cookie).is_some() {
                tokio::time::sleep(PORTAL_IDLE / 2).await;
            }
        };
        tokio::join!(sign_ins.over(&cookie), keep_it);
        assert!(begun.elapsed() >= PORTAL_SESSION_MAX, "however often it is used");

        let cookie = sign_ins.begin("admin").unwrap();
        let begun = Instant::now();
        let sign_out = async {
            tokio::task::yield_now().await;
            sign_ins.end(&cookie);
        };
        tokio::join!(sign_ins.over(&cookie), sign_out);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
