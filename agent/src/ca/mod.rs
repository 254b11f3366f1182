//! Certificate authorities as the agent sees them: one trait, one folder per kind of authority.

pub mod certsrv;
pub mod entrust;
pub mod http;
mod issued;
pub mod limits;
pub mod mpki;
mod once;
mod percent;
pub mod scep;
pub mod settings;
mod soap;
#[cfg(test)]
mod tests;
pub mod wstep;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::Secret;
use causeway_protocol::certificate::{CertificateId, RevocationReason};
use causeway_protocol::pkix::Key;
use futures_util::future::BoxFuture;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use self::settings::{CaSettings, Kind};
use crate::directory::Net;
use crate::modules::{ConfigError, ModuleSettings};

/// One certificate authority, or one pool of front ends to it. Opens connections through [`Net`] only.
pub trait Authority: Send + Sync + 'static {
    /// Looks at the authority without using anything up: its chain, its registration certificates, whether it lets us
    /// in. Never fetches a challenge.
    fn look<'a>(&'a self, net: &'a Net) -> BoxFuture<'a, Result<Seen, CaError>>;

    /// Fetches a one-time challenge password; `None`, as here, where the authority needs none. The caller uses it at once: where
    /// the authority keeps only a few (NDES: five), holding one back keeps others out.
    fn challenge<'a>(&'a self, _net: &'a Net) -> BoxFuture<'a, Result<Option<Challenge>, CaError>> {
        Box::pin(async { Ok(None) })
    }

    /// Hands in a request. Before anything is sent that an authority may act on, a ticket goes into `keep`: the order is
    /// durable then. Called only for orders of which nothing can be with the authority; whenever a ticket was kept, a
    /// later try begins with [`Authority::poll`].
    fn submit<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        keep: &'a dyn Keep,
    ) -> BoxFuture<'a, Result<Answer, CaError>>;

    /// Asks what became of a request: one that is [`Answer::Pending`], or one whose answer was lost (the agent may have
    /// died between keeping the ticket and sending, or before it heard the answer). Where the authority cannot be asked,
    /// the same message may be sent again if it knows repeats; else [`CaError::Unclear`].
    fn poll<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        ticket: &'a Value,
    ) -> BoxFuture<'a, Result<Answer, CaError>>;

    /// Ends a certificate. [`Revocation::Impossible`] where the authority has no way to be told.
    fn revoke<'a>(
        &'a self,
        net: &'a Net,
        id: &'a CertificateId,
        reason: RevocationReason,
    ) -> BoxFuture<'a, Result<Revocation, CaError>>;
}

/// Keeps what a back end must find again after a crash.
pub trait Keep: Send + Sync {
    /// Stores a ticket, without secrets, in the place of an earlier one. Returns when it is on disk.
    fn keep(&self, ticket: Value) -> BoxFuture<'_, Result<(), CaError>>;
}

/// Opens the authority that settings name: `[ca.<name>]` of agent.toml. Connects to nothing.
///
/// # Errors
/// Names the offending key.
pub fn open(name: &str, settings: &ModuleSettings) -> Result<Arc<dyn Authority>, ConfigError> {
    let read = CaSettings::read(name, settings)?;
    match read.kind {
        Kind::Scep => Ok(Arc::new(scep::Scep::new(name, read, settings.secrets.clone()))),
        Kind::Certsrv => Ok(Arc::new(certsrv::Certsrv::new(name, read, settings.secrets.clone()))),
        Kind::Wstep => Ok(Arc::new(wstep::Wstep::new(name, read, settings.secrets.clone()))),
        Kind::Mpki => Ok(Arc::new(mpki::Mpki::new(name, read, settings.secrets.clone()))),
        Kind::EntrustGateway => {
            Ok(Arc::new(entrust::gateway::Gateway::new(name, read, settings.secrets.clone())))
        }
        Kind::EntrustDigitalId => {
            Ok(Arc::new(entrust::digital_id::DigitalIds::new(name, read, settings.secrets.clone())))
        }
    }
}

/// What a look at an authority showed.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Authorities from the issuer upwards, DER.
    pub chain: Vec<Vec<u8>>,
    /// Ends of the certificates whose expiry stops issuing (authority, registration authority, our own client
    /// certificate): what it is, milliseconds since 1970.
    pub ends: Vec<(String, i64)>,
    /// Further facts for the doctor: what was negotiated, the version, the profiles offered.
    pub facts: Vec<(String, String)>,
    /// How far the clocks of its servers are ahead of ours: host, milliseconds.
    pub clocks: Vec<(String, i64)>,
    /// Authorities that the present one says will take its place.
    pub successors: Vec<Successor>,
    /// What is wrong with the front ends that were looked at: host, and nothing where nothing is.
    pub front_ends: Vec<(String, Option<String>)>,
}

impl Seen {
    /// Adds what another front end of the same authority shows.
    fn merge(&mut self, other: Self) {
        if self.chain.is_empty() {
            self.chain = other.chain;
        }
        add(&mut self.ends, other.ends);
        add(&mut self.facts, other.facts);
        add(&mut self.successors, other.successors);
        add(&mut self.front_ends, other.front_ends);
    }
}

fn add<T: PartialEq>(to: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if !to.contains(&one) {
            to.push(one);
        }
    }
}

/// An authority that is announced by the one before it, and signed by that (RFC 8894 section 4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Subject as RFC 4514 writes it.
    pub subject: String,
    /// SHA-256 over its certificate, lower case hexadecimal.
    pub sha256: String,
    /// When it ends, milliseconds since 1970.
    pub not_after_ms: i64,
    /// Whether agent.toml says that it is the right one, so that nothing stops when it takes over.
    pub is_expected: bool,
}

/// A one-time challenge.
pub struct Challenge {
    /// The password itself.
    pub password: Secret,
    /// How long it is good for.
    pub good_for: Duration,
    /// Whether issuing uses it up.
    pub once: bool,
    /// The front end that knows it, where each has its own; goes back in [`Order::at`].
    pub at: Option<String>,
    /// Our turn at an authority that keeps only a few challenges; given back when the challenge is used or forgotten.
    pub turn: Option<OwnedSemaphorePermit>,
}

/// A request on its way to an authority.
pub struct Order {
    /// The cloud's id of it.
    pub request: String,
    /// PKCS#10, DER, as the device or the agent signed it.
    pub csr: Vec<u8>,
    /// The subject the certificate must have, RFC 4514.
    pub subject: String,
    /// The alternative names it must have, `kind:value`.
    pub alternative_names: Vec<String>,
    /// Values of the template's variables, for authorities that take fields besides the request.
    pub variables: std::collections::BTreeMap<String, String>,
    /// The authority's own name of the template or profile.
    pub template: Option<String>,
    /// Signs messages about this order and opens the answers: RSA. Made once and kept (sealed) until the order ends,
    /// because an authority answers a poll only to the key that asked first.
    pub message_key: Arc<Key>,
    /// [`Challenge::at`] of the challenge in the request.
    pub at: Option<String>,
    /// The certificate this one takes the place of, when it is a renewal.
    pub renews: Option<CertificateId>,
}

/// What an authority answered.
#[derive(Debug)]
pub enum Answer {
    /// Here it is.
    Issued {
        /// DER. Its key is the request's; the backend has checked that.
        certificate: Vec<u8>,
        /// Authorities from the issuer upwards, DER.
        chain: Vec<Vec<u8>>,
    },
    /// A person must approve, or it takes time.
    Pending {
        /// What [`Authority::poll`] needs, without secrets; stored.
        ticket: Value,
        /// When asking again makes sense, if the authority said so.
        ask_after: Option<Duration>,
    },
    /// Only from [`Authority::poll`]: the authority has not got it, so handing it in (again) makes no second
    /// certificate.
    Unknown,
}

/// What became of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The authority says that it is revoked.
    Done,
    /// This kind of authority cannot be told over the way we have; the text says who can do it how.
    Impossible(String),
}

/// Why an authority did not do what it was to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaError {
    /// No connection, or no answer in time. The authority may have the request.
    #[error("{host} cannot be reached")]
    Unreachable {
        host: String,
        /// Whether the request may have arrived.
        sent: bool,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Our account or certificate is refused.
    #[error("{host} refuses the account: {detail}")]
    Credentials { host: String, detail: String },
    /// The account may not do this.
    #[error("{host} does not allow it: {detail}")]
    Forbidden { host: String, detail: String },
    /// All challenges it can keep are handed out.
    #[error("{host} has handed out all the challenges it keeps")]
    ChallengesExhausted { host: String, retry_after: Duration },
    /// The challenge was used, expired or is another one's.
    #[error("{host} refuses the challenge, or the request itself: {detail}")]
    ChallengeRefused { host: String, detail: String },
    /// Refused for good; a new try with the same request makes no sense.
    #[error("{host} refuses the request: {detail}")]
    Refused { host: String, code: String, detail: String },
    /// It has trouble of its own and may be better later.
    #[error("{host} is in trouble: {detail}")]
    Busy { host: String, detail: String, retry_after: Option<Duration> },
    /// An earlier try may have been carried out, and the authority cannot be asked. Trying again could make a second
    /// certificate; a person must look.
    #[error("{host} may have issued it already: {detail}")]
    Unclear { host: String, detail: String },
    /// The order could not be made durable, so nothing was sent.
    #[error("keep the order")]
    Keep {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is none of the protocol, is another one's, or holds a certificate with another key.
    #[error("{host} answered with something else: {detail}")]
    Answer { host: String, detail: String },
    /// Settings that cannot work with this authority.
    #[error("{detail}")]
    Settings { detail: String },
}

impl CaError {
    /// Whether the authority cannot have acted on the request.
    pub fn was_not_sent(&self) -> bool {
        match self {
            Self::Unreachable { sent, .. } => !sent,
            Self::Credentials { .. } | Self::Settings { .. } | Self::Keep { .. } => true,
            _ => false,
        }
    }

    /// The server that is to blame, where one is.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Unreachable { host, .. }
            | Self::Credentials { host, .. }
            | Self::Forbidden { host, .. }
            | Self::ChallengesExhausted { host, .. }
            | Self::ChallengeRefused { host, .. }
            | Self::Refused { host, .. }
            | Self::Busy { host, .. }
            | Self::Unclear { host, .. }
            | Self::Answer { host, .. } => Some(host),
            Self::Keep { .. } | Self::Settings { .. } => None,
        }
    }

    /// Whether another front end, or the same one later, may do better.
    pub fn is_servers_fault(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Busy { .. } | Self::Answer { .. })
    }
}

/// How far a clock is ahead of ours, or behind, for people.
pub(crate) fn clocks_apart(ahead_ms: i64, before: &str) -> String {
    let minutes = ahead_ms.unsigned_abs() / 60_000;
    let way = if ahead_ms < 0 { "behind" } else { "ahead of" };
    format!("{before}{} h {} min {way} ours", minutes / 60, minutes % 60)
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("good_for", &self.good_for)
            .field("once", &self.once)
            .finish_non_exhaustive()
    }
}
