#![doc = include_str!("../README.md")]

pub mod admin;
pub mod cli;
pub mod clock;
mod der;
pub mod dns;
pub mod fault;
pub mod journal;
pub mod kerberos;
pub mod limits;
pub mod listen;
pub mod ntlm;
pub mod pki;
pub mod program;
pub mod proxy;
pub mod spnego;
pub mod world;

pub use clock::Clock;
pub use fault::Faults;
pub use journal::Journal;

/// What a mock hands to every part of itself: a cheap clone, one per mock.
#[derive(Clone)]
pub struct KitContext {
    /// The mock's name as in its ready line, such as `mock-ldap`.
    pub service: &'static str,
    /// Failures to inject.
    pub faults: Faults,
    /// What the mock received.
    pub journal: Journal,
    /// The mock's wall clock.
    pub clock: Clock,
    /// Cancelled when the mock stops; every task of the mock ends on it.
    pub stop: tokio_util::sync::CancellationToken,
}

impl KitContext {
    /// A context with no faults, an empty journal and the given clock.
    pub fn new(service: &'static str, clock: Clock) -> Self {
        Self {
            service,
            faults: Faults::new(),
            journal: Journal::new(clock.clone()),
            clock,
            stop: tokio_util::sync::CancellationToken::new(),
        }
    }

    /// A context on real time that obeys the common settings (latency).
    pub fn from_common(service: &'static str, common: &cli::CommonConfig) -> Self {
        let cx = Self::new(service, Clock::automatic());
        cx.faults.set_base_latency(std::time::Duration::from_millis(common.latency_ms));
        cx
    }
}
