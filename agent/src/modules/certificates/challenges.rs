//! Challenges that devices have been given: whose turn each holds and which front end knows it, never the challenge.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::limits;
use crate::ca::Challenge;

/// By request.
#[derive(Default)]
pub(super) struct Challenges(Mutex<HashMap<String, Out>>);

struct Out {
    turn: Option<OwnedSemaphorePermit>,
    at: Option<String>,
    until: Instant,
}

impl Challenges {
    /// The device has it; the turn ends when it comes back, or when the challenge is no good any more.
    pub(super) fn hold(&self, request: &str, challenge: Challenge) {
        let Challenge { at, turn, good_for, .. } = challenge;
        if at.is_none() && turn.is_none() {
            return;
        }
        let now = Instant::now();
        let mut out = self.out();
        out.retain(|_, out| out.until > now);
        if out.len() < limits::CHALLENGES_OUT_MAX {
            out.insert(request.to_owned(), Out { turn, at, until: now + good_for });
        }
    }

    /// The turn of a request that is handed in now, and where its challenge is known. The place stays, for a further try,
    /// as long as the challenge is good: after that no front end is better than another.
    pub(super) fn take(&self, request: &str) -> (Option<OwnedSemaphorePermit>, Option<String>) {
        let now = Instant::now();
        match self.out().get_mut(request).filter(|out| out.until > now) {
            Some(out) => (out.turn.take(), out.at.clone()),
            None => (None, None),
        }
    }

    /// The request is over.
    pub(super) fn forget(&self, request: &str) {
        self.out().remove(request);
    }

    /// Gives back the turns of challenges that are no good any more.
    pub(super) fn expire(&self) {
        let now = Instant::now();
        self.out().retain(|_, out| out.until > now);
    }

    fn out(&self) -> MutexGuard<'_, HashMap<String, Out>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_with_its_challenge() {
        let turns = Arc::new(Semaphore::new(2));
        let challenges = Challenges::default();
        for request in ["a", "b"] {
            let challenge = Challenge {
                password: causeway_protocol::Secret::new("canary"),
                good_for: Duration::from_secs(60),
                once: true,
                at: Some("https://ndes1/".to_owned()),
                turn: Some(turns.clone().try_acquire_owned().unwrap()),
            };
            challenges.hold(request, challenge);
        }
        assert_eq!(turns.available_permits(), 0);
        assert_eq!(challenges.take("a").1.as_deref(), Some("https://ndes1/"));
        assert_eq!(challenges.take("a").1.as_deref(), Some("https://ndes1/"), "a further try finds it");
        assert_eq!(turns.available_permits(), 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(challenges.take("b").1, None, "its front end has forgotten it");
        challenges.expire();
        assert_eq!(turns.available_permits(), 2);
    }
}
