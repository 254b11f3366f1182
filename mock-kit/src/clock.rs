//! The wall clock of a mock: real time that a test can push forward, or time that moves only when told.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::limits::CLOCK_MAX_MS;

/// A step that would take the clock past [`CLOCK_MAX_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the clock goes no further than {CLOCK_MAX_MS} (milliseconds since 1970), and would show more")]
pub struct TooFar;

/// Unix milliseconds as the mock sees them. Clones share one clock.
///
/// Time comes from tokio, so a test with paused time controls it too.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `Some` when time flows by itself: the tokio instant at which the clock showed its first value.
    started: Option<Instant>,
    /// Unix milliseconds at the start, plus everything advanced since.
    base_ms: watch::Sender<i64>,
}

impl Clock {
    /// Real time, which [`Clock::advance`] can push ahead.
    pub fn automatic() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::build(Some(Instant::now()), millis(now))
    }

    /// Real flow of time that starts at a given Unix millisecond.
    pub fn automatic_from(start_ms: i64) -> Self {
        Self::build(Some(Instant::now()), start_ms)
    }

    /// Time that stands still at `start_ms` until advanced.
    pub fn stepped(start_ms: i64) -> Self {
        Self::build(None, start_ms)
    }

    /// The current Unix time in milliseconds.
    pub fn now_ms(&self) -> i64 {
        let base = *self.0.base_ms.borrow();
        base.saturating_add(self.0.started.map_or(0, |started| millis(started.elapsed())))
    }

    /// Moves the clock forward, at most to [`CLOCK_MAX_MS`], and wakes whoever sleeps on it.
    pub fn advance(&self, by: Duration) {
        self.0
            .base_ms
            .send_modify(|base| *base = base.saturating_add(millis(by)).min(CLOCK_MAX_MS.max(*base)));
    }

    /// As [`Clock::advance`], all of it or nothing.
    ///
    /// # Errors
    /// [`TooFar`] when the clock would go past [`CLOCK_MAX_MS`].
    pub fn try_advance(&self, by: Duration) -> Result<(), TooFar> {
        if self.now_ms().saturating_add(millis(by)) > CLOCK_MAX_MS {
            return Err(TooFar);
        }
        self.advance(by);
        Ok(())
    }

    /// True when time flows without [`Clock::advance`].
    pub fn is_automatic(&self) -> bool {
        self.0.started.is_some()
    }

    /// Returns once the clock shows `at_ms` or later, by flow of time or by [`Clock::advance`].
    pub async fn sleep_until_ms(&self, at_ms: i64) {
        let mut advanced = self.0.base_ms.subscribe();
        loop {
            advanced.borrow_and_update();
            let left_ms = at_ms - self.now_ms();
            if left_ms <= 0 {
                return;
            }
            let left = Duration::from_millis(left_ms.unsigned_abs());
            let flow = async {
                match self.0.started {
                    Some(_) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = flow => {}
                changed = advanced.changed() => if changed.is_err() { std::future::pending::<()>().await },
            }
        }
    }

    fn build(started: Option<Instant>, base_ms: i64) -> Self {
        Self(Arc::new(Inner { started, base_ms: watch::Sender::new(base_ms) }))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stepped_clock_moves_only_when_told() {
        let clock = Clock::stepped(1_000);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep_until_ms(61_000).await;
                clock.now_ms()
            }
        });
        clock.advance(Duration::from_secs(59));
        tokio::task::yield_now().await;
        assert_eq!(clock.now_ms(), 60_000);
        assert!(!sleeper.is_finished(), "one second is still missing");
        clock.advance(Duration::from_secs(1));
        assert_eq!(sleeper.await.unwrap(), 61_000);
    }

    #[test]
    fn the_clock_ends_before_it_overflows() {
        let clock = Clock::stepped(1_000);
        assert_eq!(clock.try_advance(Duration::from_millis(i64::MAX as u64)), Err(TooFar));
        assert_eq!(clock.now_ms(), 1_000, "a step too far is none");
        clock.try_advance(Duration::from_millis(CLOCK_MAX_MS as u64 - 1_000)).unwrap();
        assert_eq!(clock.try_advance(Duration::from_millis(1)), Err(TooFar));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now_ms(), CLOCK_MAX_MS);
    }

    #[tokio::test(start_paused = true)]
    async fn automatic_clock_flows_and_can_be_pushed() {
        let clock = Clock::automatic_from(5_000);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.now_ms(), 5_250);
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(clock.now_ms(), 3_605_250);
        clock.sleep_until_ms(3_606_000).await;
        assert!(clock.now_ms() >= 3_606_000, "slept until {}", clock.now_ms());
    }

    #[tokio::test(start_paused = true)]
    async fn an_advance_wakes_a_sleeper_of_the_automatic_clock() {
        let clock = Clock::automatic_from(0);
        let before = Instant::now();
        let sleep = clock.sleep_until_ms(86_400_000);
        let ((), ()) = tokio::join!(sleep, async { clock.advance(Duration::from_secs(86_400)) });
        assert!(before.elapsed() < Duration::from_secs(1), "waited {:?} of tokio time", before.elapsed());
    }
}
