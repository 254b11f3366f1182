//! Who may come in, and when: a herd that comes back at once is let in at the pace the cloud can take.
//!
//! Three bounds, from the cheapest refusal to the dearest:
//! 1. connections that have not logged in yet: beyond `pre_auth_max` they are closed as they come;
//! 2. admissions per second: who comes early waits for a turn, and who would wait too long is closed before TLS, which
//!    agents take for a failure and back off;
//! 3. logins at once: who gets no turn in time is told by a stream error when to come back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use causeway_protocol::channel::ns;
use minidom::Element;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use xmpp_parsers::stream_error::{DefinedCondition, StreamError};

use crate::config::ChannelConfig;
use crate::limits::{ADMISSION_BURST, ADMISSION_WAIT_MAX, COMEBACK_MAX_SECS, LOGIN_TURN_WITHIN};

/// The door of the public port.
pub struct Admission {
    per_sec: u32,
    turns: Mutex<Turns>,
    pre_auth: Arc<Semaphore>,
    logins: Arc<Semaphore>,
}

/// A connection that may come in.
pub(crate) struct Entry {
    /// When its turn is.
    pub(crate) turn: Instant,
    /// Held until the peer has logged in or said what it wants.
    pub(crate) slot: OwnedSemaphorePermit,
}

impl Admission {
    /// A door with the settings' bounds.
    pub fn new(config: &ChannelConfig) -> Self {
        Self {
            per_sec: config.admission_per_sec.max(1),
            turns: Mutex::new(Turns::new(config.admission_per_sec)),
            pre_auth: Arc::new(Semaphore::new(config.pre_auth_max)),
            logins: Arc::new(Semaphore::new(config.logins_max)),
        }
    }

    /// Takes a place for a new connection; `None` when it must be closed.
    pub(crate) fn enter(&self) -> Option<Entry> {
        let slot = self.place()?;
        let turn = self.turns.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())?;
        Some(Entry { turn, slot })
    }

    /// Takes a place among those who have not logged in, for a connection that is in already.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pre_auth).try_acquire_owned().ok()
    }

    /// Waits for a turn to log in; `None` when there is none in time.
    pub(crate) async fn login_turn(&self) -> Option<OwnedSemaphorePermit> {
        let turn = Arc::clone(&self.logins).acquire_owned();
        tokio::time::timeout(LOGIN_TURN_WITHIN, turn).await.ok()?.ok()
    }

    /// A stream error that spreads `agents` of them over the time it takes to let them in again.
    pub(crate) fn come_back_later(
        &self,
        condition: DefinedCondition,
        text: &str,
        agents: usize,
    ) -> StreamError {
        let after = xso::exports::rxml::xml_ncname!("after").to_owned();
        let spread = xso::exports::rxml::xml_ncname!("spread").to_owned();
        let retry = Element::builder("retry", ns::AGENT)
            .attr(after, "0")
            .attr(spread, self.spread_secs(agents).to_string())
            .build();
        let mut error = StreamError::new(condition, "en", text);
        error.application_specific.push(retry);
        error
    }

    /// Half as long again as the pace needs, so that the last ones do not meet a full house.
    fn spread_secs(&self, agents: usize) -> u64 {
        let agents = u64::try_from(agents).unwrap_or(u64::MAX);
        let secs = agents.saturating_mul(3) / (u64::from(self.per_sec) * 2);
        secs.saturating_add(1).min(COMEBACK_MAX_SECS)
    }
}

/// Turns at an even pace (the generic cell rate algorithm): a second's worth may come at once, later ones wait.
struct Turns {
    every: Duration,
    /// When the next turn would be if nobody had ever come early.
    due: Option<Instant>,
}

impl Turns {
    fn new(per_sec: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_sec.max(1), due: None }
    }

    /// The turn of who comes now; `None` when it is too far away.
    fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.due.map_or(now, |due| due.max(now)) + self.every;
        let wait = due.duration_since(now).saturating_sub(ADMISSION_BURST.max(self.every));
        if wait > ADMISSION_WAIT_MAX {
            return None;
        }
        self.due = Some(due);
        Some(now + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(turns: &mut Turns, now: Instant, comers: usize) -> Vec<Duration> {
        (0..comers).filter_map(|_| turns.take(now)).map(|turn| turn - now).collect()
    }

    #[test]
    fn a_wave_gets_turns_at_the_rate_and_the_excess_none() {
        let mut turns = Turns::new(10);
        let now = Instant::now();
        let first = waits(&mut turns, now, 100);
        let queue = 10 * usize::try_from(ADMISSION_WAIT_MAX.as_secs()).unwrap();
        assert_eq!(first.len(), 10 + queue, "a second's worth at once, the others in turn");
        assert_eq!(first.iter().filter(|wait| wait.is_zero()).count(), 10);
        assert_eq!(first.last(), Some(&ADMISSION_WAIT_MAX));
        let later = waits(&mut turns, now + Duration::from_millis(500), 100);
        assert_eq!(later.len(), 5, "half a second makes room for five");
        let idle = waits(&mut turns, now + Duration::from_secs(600), 100);
        assert_eq!(idle.len(), 10 + queue, "a long pause saves no more than a second's worth");
    }

    #[test]
    fn a_rate_of_one_lets_one_in() {
        let mut turns = Turns::new(1);
        assert_eq!(waits(&mut turns, Instant::now(), 1), [Duration::ZERO]);
    }

    #[test]
    fn few_agents_come_back_at_once_and_many_over_the_time_they_need() {
        let door = Admission::new(&ChannelConfig { admission_per_sec: 500, ..ChannelConfig::default() });
        assert_eq!(
            [2, 10_000, usize::MAX].map(|agents| door.spread_secs(agents)),
            [1, 31, COMEBACK_MAX_SECS]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_turn_to_log_in_is_not_kept_waiting() {
        let door = Admission::new(&ChannelConfig { logins_max: 1, ..ChannelConfig::default() });
        let first = door.login_turn().await;
        assert!(first.is_some() && door.login_turn().await.is_none());
        drop(first);
        assert!(door.login_turn().await.is_some());
    }
}
