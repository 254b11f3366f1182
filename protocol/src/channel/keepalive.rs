//! How soon to speak up on a silent link: below the idle time after which the boxes on the path forget it. That time is
//! told by nobody, so it is learnt from the cuts.

use std::time::Duration;

use crate::limits::{KEEPALIVE_MIN, PING_AFTER};

/// Silences before two cuts that differ by no more than this are one and the same idle limit.
const SAME_WITHIN: Duration = Duration::from_secs(3);

/// How a connection ended, as far as keeping it alive is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It broke after so much silence.
    Cut(Duration),
    /// We asked after the silence, and nobody answered: somebody on the path may have forgotten the link without a
    /// word.
    Unanswered,
}

/// Learns.
#[derive(Clone, Debug)]
pub struct Keepalive {
    ask_after: Duration,
    last: Option<Ending>,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { ask_after: PING_AFTER, last: None }
    }
}

impl Keepalive {
    /// Silence after which to ask.
    pub fn ask_after(&self) -> Duration {
        self.ask_after
    }

    /// A connection ended. Two in a row that ended alike shorten the silence; one may be anything. True when it did.
    pub fn ended(&mut self, ending: Ending) -> bool {
        let shorter = match (self.last, ending) {
            (Some(Ending::Cut(before)), Ending::Cut(now))
                if before.abs_diff(now) <= SAME_WITHIN && now >= KEEPALIVE_MIN && now <= self.ask_after =>
            {
                // A fifth below, because timers of boxes are coarse.
                Some(before.min(now) / 5 * 4)
            }
            (Some(Ending::Unanswered), Ending::Unanswered) => Some(self.ask_after / 2),
            _ => None,
        };
        self.last = Some(ending);
        let Some(shorter) = shorter.map(|it| it.max(KEEPALIVE_MIN)).filter(|it| *it < self.ask_after) else {
            return false;
        };
        self.ask_after = shorter;
        self.last = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn two_cuts_after_the_same_silence_shorten_it() {
        let mut keepalive = Keepalive::default();
        assert!(!keepalive.ended(Ending::Cut(secs(30))));
        assert!(keepalive.ended(Ending::Cut(secs(31))));
        assert_eq!(keepalive.ask_after(), secs(24));
        // Nothing is learnt from a cut in the middle of traffic, or from different ones.
        assert!(!keepalive.ended(Ending::Cut(secs(1))) && !keepalive.ended(Ending::Cut(secs(1))));
        assert!(!keepalive.ended(Ending::Cut(secs(12))) && !keepalive.ended(Ending::Cut(secs(20))));
        assert_eq!(keepalive.ask_after(), secs(24));
    }

    #[test]
    fn links_forgotten_without_a_word_are_asked_about_sooner_down_to_a_floor() {
        let mut keepalive = Keepalive::default();
        let mut seen = Vec::new();
        for _ in 0..12 {
            if keepalive.ended(Ending::Unanswered) {
                seen.push(keepalive.ask_after());
            }
        }
        assert_eq!(seen, [PING_AFTER / 2, PING_AFTER / 4, KEEPALIVE_MIN]);
    }
}
