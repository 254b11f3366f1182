//! Noticing a dead link: behind a proxy only an answer from the other end proves anything.

use std::time::{Duration, Instant};

use crate::limits::{PING_AFTER, PONG_WITHIN};

/// What the driver should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Nothing before this instant.
    Quiet(Instant),
    /// Ask the peer (an acknowledgement request or a ping), then call [`Watch::asked`].
    Ask,
    /// The peer did not answer: drop the connection.
    Dead,
}

/// Watches one connection.
#[derive(Clone, Debug)]
pub struct Watch {
    ask_after: Duration,
    answer_within: Duration,
    heard_at: Instant,
    asked_at: Option<Instant>,
}

impl Watch {
    /// Watches with the default patience.
    pub fn new(now: Instant) -> Self {
        Self::with_patience(now, PING_AFTER, PONG_WITHIN)
    }

    /// Asks after `ask_after` of silence and gives up `answer_within` later.
    pub fn with_patience(now: Instant, ask_after: Duration, answer_within: Duration) -> Self {
        Self { ask_after, answer_within, heard_at: now, asked_at: None }
    }

    /// Anything at all arrived.
    pub fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.asked_at = None;
    }

    /// The peer was asked.
    pub fn asked(&mut self, now: Instant) {
        self.asked_at.get_or_insert(now);
    }

    /// When something arrived last.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// What to do at `now`.
    pub fn poll(&self, now: Instant) -> Liveness {
        let due = match self.asked_at {
            Some(asked) => asked + self.answer_within,
            None => self.heard_at + self.ask_after,
        };
        match (now >= due, self.asked_at) {
            (false, _) => Liveness::Quiet(due),
            (true, None) => Liveness::Ask,
            (true, Some(_)) => Liveness::Dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only instant a test of this crate can have; everything else is counted from it.
    #[allow(clippy::disallowed_methods)]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn silence_is_asked_about_and_then_given_up() {
        let start = origin();
        let mut watch = Watch::new(start);
        assert_eq!(watch.poll(start), Liveness::Quiet(start + PING_AFTER));
        let late = start + PING_AFTER;
        assert_eq!(watch.poll(late), Liveness::Ask);
        watch.asked(late);
        assert_eq!(watch.poll(late), Liveness::Quiet(late + PONG_WITHIN));
        assert_eq!(watch.poll(late + PONG_WITHIN), Liveness::Dead);
        watch.heard(late + PONG_WITHIN);
        assert!(matches!(watch.poll(late + PONG_WITHIN), Liveness::Quiet(_)));
    }
}
