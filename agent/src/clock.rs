//! The only place that reads a clock. Spans of time come from tokio's clock, so that tests and simulations can own it;
//! wall time is for people and certificates and never decides an ordering between machines.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Tells the time. Cheap to clone.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Source);

#[derive(Clone, Copy, Debug)]
enum Source {
    System,
    Simulated { origin: Instant, origin_ms: i64, skew_ms: Option<&'static AtomicI64> },
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Wall time that starts at `origin_ms` (Unix milliseconds) and advances with tokio's clock, paused or not.
    pub fn simulated(origin_ms: i64) -> Self {
        Self(Source::Simulated { origin: Instant::now(), origin_ms, skew_ms: None })
    }

    /// The same, and wrong by `skew_ms`, which may change at any time: a clock that someone sets. Static, because
    /// clocks are copied everywhere.
    pub fn skewed(origin_ms: i64, skew_ms: &'static AtomicI64) -> Self {
        Self(Source::Simulated { origin: Instant::now(), origin_ms, skew_ms: Some(skew_ms) })
    }

    /// A point on the monotonic clock.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        match self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Source::Simulated { origin, origin_ms, skew_ms } => {
                let elapsed = Instant::now().duration_since(origin).as_millis();
                let skew_ms = skew_ms.map_or(0, |skew_ms| skew_ms.load(Ordering::Relaxed));
                origin_ms.saturating_add(skew_ms).saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
            }
        }
    }

    /// Waits on the monotonic clock.
    pub async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}
