//! Which way to the cloud works: the direct one, or a WebSocket where something on the path lets only HTTP through.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::{AlertDescription, PeerMisbehaved};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::dial::tls::TlsError;
use crate::limits::{CUTS_BEFORE_FALLBACK, FALLBACK_KEPT, FALLBACK_KEPT_UNSURE};

/// The file in the data directory that keeps what worked.
pub const FILE_NAME: &str = "way.json";

/// How to get to the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// XMPP directly over TLS.
    Direct,
    /// XMPP in a WebSocket.
    WebSocket,
}

/// What a failed handshake says about the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// Somebody refuses the protocol's name.
    Certain,
    /// The handshake was cut or swallowed: a middlebox does that, and so does a cloud with no room.
    Unsure,
    /// Nothing that another way would mend.
    None,
}

impl Evidence {
    /// Reads a handshake's failure.
    pub(crate) fn of(error: &TlsError) -> Self {
        let source = match error {
            TlsError::TimedOut { .. } => return Self::Unsure,
            TlsError::Handshake { source, .. } => source,
            _ => return Self::None,
        };
        match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(
                rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
                | rustls::Error::NoApplicationProtocol
                | rustls::Error::PeerMisbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol),
            ) => Self::Certain,
            Some(rustls::Error::AlertReceived(_)) => Self::Unsure,
            Some(_) => Self::None,
            None => match source.kind() {
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => Self::Unsure,
                _ => Self::None,
            },
        }
    }
}

/// Decides between the ways and remembers, over restarts too.
pub(crate) struct Ways {
    file: Option<PathBuf>,
    clock: Clock,
    /// Cuts in a row that make the other way worth a try.
    patience: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cuts: u32,
    /// Until when the WebSocket is used without asking, Unix milliseconds; 0 for never.
    websocket_until_ms: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    websocket_until_ms: i64,
}

impl Ways {
    /// Knows nothing yet and keeps nothing.
    pub(crate) fn new() -> Self {
        Self { file: None, clock: Clock::system(), patience: CUTS_BEFORE_FALLBACK, state: Mutex::default() }
    }

    /// Remembers in a data directory, and begins with what it holds.
    pub(crate) fn remembering(self, data_dir: &Path, clock: Clock) -> Self {
        let file = data_dir.join(FILE_NAME);
        let known: Option<OnDisk> =
            std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let websocket_until_ms = known.map_or(0, |known| known.websocket_until_ms);
        let state = Mutex::new(State { cuts: 0, websocket_until_ms });
        Self { file: Some(file), clock, state, ..self }
    }

    /// For somebody who asks once and waits for the answer: the other way is tried after the first cut.
    pub(crate) fn impatient(self) -> Self {
        Self { patience: 1, ..self }
    }

    /// What to try first.
    pub(crate) fn first(&self) -> Way {
        let state = self.state();
        let ahead = state.websocket_until_ms - self.clock.now_ms();
        // More than we ever write: the clock was set back, so the note is worth nothing.
        let believable = ahead <= i64::try_from(FALLBACK_KEPT.as_millis()).unwrap_or(i64::MAX);
        // After some cuts the ways take turns, so that a crowd of agents does not come twice each.
        let turn = state.cuts >= self.patience && (state.cuts - self.patience).is_multiple_of(2);
        if (ahead > 0 && believable) || turn { Way::WebSocket } else { Way::Direct }
    }

    /// Whether the WebSocket has been used for so long that the direct way should be tried again.
    pub(crate) fn is_due(&self) -> bool {
        let until_ms = self.state().websocket_until_ms;
        until_ms != 0 && self.clock.now_ms() >= until_ms
    }

    /// The direct way works: nothing else is needed.
    pub(crate) fn direct_worked(&self) {
        let known = {
            let mut state = self.state();
            state.cuts = 0;
            std::mem::take(&mut state.websocket_until_ms) != 0
        };
        if known {
            tracing::info!("The direct way to the cloud works again");
            self.write(0);
        }
    }

    /// The direct way failed. True when the WebSocket shall be tried at once.
    pub(crate) fn direct_failed(&self, evidence: Evidence) -> bool {
        let mut state = self.state();
        match evidence {
            Evidence::None => false,
            Evidence::Certain => true,
            Evidence::Unsure => {
                state.cuts = state.cuts.saturating_add(1);
                // It was the way out before, so it is the likely one now.
                state.websocket_until_ms != 0 || (self.patience == 1 && state.cuts == 1)
            }
        }
    }

    /// The WebSocket works.
    pub(crate) fn websocket_worked(&self, certain: bool) {
        let now_ms = self.clock.now_ms();
        let (kept, until_ms) = {
            let mut state = self.state();
            state.cuts = 0;
            if state.websocket_until_ms > now_ms {
                return;
            }
            let known = state.websocket_until_ms != 0;
            let kept = if certain || known { FALLBACK_KEPT } else { FALLBACK_KEPT_UNSURE };
            state.websocket_until_ms = now_ms.saturating_add(millis(kept));
            (kept, state.websocket_until_ms)
        };
        tracing::warn!(
            again_in_secs = kept.as_secs(),
            "The direct way to the cloud is blocked; a WebSocket is used"
        );
        self.write(until_ms);
    }

    /// The WebSocket failed: next time the direct way has its turn.
    pub(crate) fn websocket_failed(&self) {
        let known = {
            let mut state = self.state();
            state.cuts = state.cuts.saturating_add(1);
            std::mem::take(&mut state.websocket_until_ms) != 0
        };
        if known {
            self.write(0);
        }
    }

    /// Failing to write costs an attempt after the next restart, no more.
    fn write(&self, websocket_until_ms: i64) {
        let Some(file) = &self.file else { return };
        let bytes = serde_json::to_vec(&OnDisk { websocket_until_ms }).expect("a number serialises to JSON");
        let fresh = file.with_extension("new");
        if let Err(error) = std::fs::write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, file)) {
            tracing::debug!(%error, "What works could not be written down");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(error: rustls::Error) -> TlsError {
        let source = io::Error::new(io::ErrorKind::InvalidData, error);
        TlsError::Handshake { name: "c".into(), source }
    }

    #[test]
    fn failures_are_told_apart() {
        let alert = |alert| handshake(rustls::Error::AlertReceived(alert));
        assert_eq!(Evidence::of(&alert(AlertDescription::NoApplicationProtocol)), Evidence::Certain);
        assert_eq!(Evidence::of(&alert(AlertDescription::HandshakeFailure)), Evidence::Unsure);
        let reset = TlsError::Handshake { name: "c".into(), source: io::ErrorKind::ConnectionReset.into() };
        assert_eq!(Evidence::of(&reset), Evidence::Unsure);
        assert_eq!(Evidence::of(&TlsError::TimedOut { name: "c".into() }), Evidence::Unsure);
        assert_eq!(Evidence::of(&TlsError::NoSystemRoots), Evidence::None);
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(Evidence::of(&handshake(plain)), Evidence::None);
    }

    #[test]
    fn one_cut_is_bad_luck_and_then_the_ways_take_turns() {
        let ways = Ways::new();
        assert_eq!(ways.first(), Way::Direct);
        assert!(!ways.direct_failed(Evidence::Unsure));
        assert_eq!(ways.first(), Way::Direct);
        assert!(!ways.direct_failed(Evidence::Unsure));
        assert_eq!(ways.first(), Way::WebSocket);
        ways.websocket_failed();
        assert_eq!(ways.first(), Way::Direct);
        assert!(!ways.direct_failed(Evidence::Unsure));
        assert_eq!(ways.first(), Way::WebSocket);
        ways.direct_worked();
        assert_eq!(ways.first(), Way::Direct);
        assert!(ways.direct_failed(Evidence::Certain) && !ways.direct_failed(Evidence::None));
        assert!(Ways::new().impatient().direct_failed(Evidence::Unsure));
    }

    #[tokio::test(start_paused = true)]
    async fn what_worked_is_kept_for_a_day_and_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(1_800_000_000_000);
        Ways::new().remembering(dir.path(), clock).websocket_worked(true);
        assert_eq!(Ways::new().remembering(dir.path(), clock).first(), Way::WebSocket);
        tokio::time::advance(FALLBACK_KEPT - Duration::from_secs(1)).await;
        assert_eq!(Ways::new().remembering(dir.path(), clock).first(), Way::WebSocket);
        tokio::time::advance(Duration::from_secs(2)).await;
        let ways = Ways::new().remembering(dir.path(), clock);
        assert_eq!((ways.first(), ways.is_due()), (Way::Direct, true), "the better way is tried again");
        assert!(ways.direct_failed(Evidence::Unsure), "and the known one at once when it is still blocked");
        ways.websocket_worked(false);
        ways.direct_worked();
        assert_eq!(Ways::new().remembering(dir.path(), clock).first(), Way::Direct);
    }

    #[tokio::test(start_paused = true)]
    async fn a_note_from_the_future_or_a_damaged_one_is_worth_nothing() {
        let dir = tempfile::tempdir().unwrap();
        Ways::new().remembering(dir.path(), Clock::simulated(1_900_000_000_000)).websocket_worked(true);
        let now = Clock::simulated(1_800_000_000_000);
        assert_eq!(Ways::new().remembering(dir.path(), now).first(), Way::Direct);
        std::fs::write(dir.path().join(FILE_NAME), b"{\"websocket").unwrap();
        assert_eq!(Ways::new().remembering(dir.path(), now).first(), Way::Direct);
    }
}
