//! When to try again: full jitter, so that ten thousand agents do not come back in one wave.

use std::time::{Duration, Instant};

use crate::limits::{BACKOFF_BASE, BACKOFF_CAP, BACKOFF_RESET_AFTER, HASTE_EVERY, HASTE_MAX};

/// Reconnect delays: the n-th is uniform in `0..=min(cap, base * 2^n)`.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(BACKOFF_BASE, BACKOFF_CAP)
    }
}

impl Backoff {
    /// Delays from `base`, doubling up to `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, attempt: 0 }
    }

    /// The next delay. `random` is uniform over all of `u64`.
    pub fn next(&mut self, random: u64) -> Duration {
        let bound =
            self.base.saturating_mul(1u32.checked_shl(self.attempt).unwrap_or(u32::MAX)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1).min(31);
        spread(bound, random)
    }

    /// The next delay in an outage that has lasted so long: as [`Backoff::next`], but nobody waits longer than the outage
    /// has lasted so far. Without this, who drew short delays at first has used up the short bounds and waits for minutes
    /// after everyone else is back.
    pub fn next_in_outage(&mut self, lasted: Duration, random: u64) -> Duration {
        let delay = self.next(u64::MAX).min(lasted.max(self.base));
        spread(delay, random)
    }

    /// Tells how long the session lived that has just ended; a long one starts the series anew.
    pub fn session_lived(&mut self, lived: Duration) {
        if lived >= BACKOFF_RESET_AFTER {
            self.attempt = 0;
        }
    }

    /// Delays drawn since the series began.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }
}

/// Leave to try again at once after a session was cut: a bucket of [`HASTE_MAX`], filled by one in [`HASTE_EVERY`].
#[derive(Clone, Debug, Default)]
pub struct Haste {
    /// When the bucket will be full again.
    full_at: Option<Instant>,
}

impl Haste {
    /// Takes one; false when there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + HASTE_EVERY;
        let left = full_at.duration_since(now) <= HASTE_EVERY * HASTE_MAX;
        if left {
            self.full_at = Some(full_at);
        }
        left
    }
}

/// A delay uniform in `0..=bound`. `random` is uniform over all of `u64`.
pub fn spread(bound: Duration, random: u64) -> Duration {
    bound.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_cap() {
        let mut backoff = Backoff::default();
        let bounds: Vec<u64> = (0..12).map(|_| backoff.next(u64::MAX).as_secs()).collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(backoff.next(0), Duration::ZERO);
    }

    #[test]
    fn nobody_waits_longer_than_the_outage_has_lasted() {
        let mut backoff = Backoff::default();
        for _ in 0..8 {
            backoff.next(0);
        }
        let bound = |lasted| backoff.clone().next_in_outage(Duration::from_secs(lasted), u64::MAX).as_secs();
        assert_eq!([0, 7, 255, 10_000].map(bound), [1, 7, 255, 256]);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do; everything is counted from it")]
    fn haste_is_rationed() {
        let (mut haste, now) = (Haste::default(), Instant::now());
        assert_eq!((0..100).filter(|_| haste.take(now)).count(), HASTE_MAX as usize);
        assert!(!haste.take(now + HASTE_EVERY / 2) && haste.take(now + HASTE_EVERY));
        assert!(!haste.take(now + HASTE_EVERY));
        let later = now + HASTE_EVERY * 100;
        assert_eq!((0..100).filter(|_| haste.take(later)).count(), HASTE_MAX as usize);
    }

    #[test]
    fn only_a_long_session_starts_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(1);
        }
        backoff.session_lived(Duration::from_secs(59));
        assert_eq!(backoff.attempts(), 5);
        backoff.session_lived(Duration::from_secs(60));
        assert_eq!(backoff.attempts(), 0);
    }
}
