//! When to try again: full jitter, so that ten thousand agents do not come back in one wave.

use std::time::Duration;

use crate::limits::{BACKOFF_BASE, BACKOFF_CAP, BACKOFF_RESET_AFTER};

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
