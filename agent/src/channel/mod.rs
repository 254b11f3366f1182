//! The channel: the one outbound connection to the cloud, from the agent's side.
//!
//! [`login`] gets from bytes to a session, [`driver`] runs one connection of a session (`inbound` takes what the cloud
//! sends, `pump` moves elements), `session` is what outlives a connection, [`reconnect`] keeps a session alive over
//! many (`reaction` says what follows a stream error), [`enrol`] gets the first certificate. That much is XMPP and works
//! with any server; what is said in a session is a [`conversation::Conversation`], and [`causeway`] is ours. Everything works over any byte stream that a
//! [`Connect`] delivers.

pub mod causeway;
pub mod conversation;
pub(crate) mod driver;
pub mod enrol;
mod inbound;
pub mod limited;
pub mod login;
mod pump;
mod reaction;
pub mod reconnect;
pub mod scram;
mod session;
pub mod websocket;

use std::sync::Arc;

use causeway_protocol::channel::payload::{
    Action, Configure, Hello, Payload, PayloadError, Reply, Request, Welcome,
};
use causeway_protocol::limits::IQ_WITHIN;
use futures_util::future::BoxFuture;
use jid::Jid;
use minidom::Element;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use crate::dial::ByteStream;
use crate::limits::{CHANNEL_QUEUE_MAX, NUDGES_MAX};

/// Delivers encrypted, verified byte streams to the cloud.
pub trait Connect: Send + Sync + 'static {
    /// Opens one. `redirect` is `host[:port]` of a `see-other-host`; the certificate must still be for the cloud's
    /// own name.
    fn connect(&self, redirect: Option<String>) -> BoxFuture<'_, Result<Box<dyn ByteStream>, ConnectError>>;
}

/// Why there is no byte stream to the cloud.
#[derive(Debug, Error)]
#[error("connect to the cloud")]
pub struct ConnectError {
    /// The dialler's or TLS's reason.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What the cloud orders goes here. Futures may be dropped when the link is cut; what they began must go on.
pub trait Orders: Send + Sync + 'static {
    /// The first message of a session.
    fn hello(&self) -> Hello;

    /// The session counts.
    fn welcomed(&self, welcome: Welcome);

    /// Returns when the action is durably accepted.
    fn accept(&self, action: Action) -> BoxFuture<'static, Result<(), Box<StanzaError>>>;

    /// Returns when the config is durably taken.
    fn configure(&self, config: Configure) -> BoxFuture<'static, Result<(), Box<StanzaError>>>;

    /// Returns with the answer, or at the request's deadline.
    fn answer(&self, request: Request) -> BoxFuture<'static, Reply>;
}

/// How the channel is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ChannelState {
    /// Connecting or logging in.
    #[default]
    Connecting,
    /// A session is up.
    Online,
    /// Waiting before the next attempt.
    Waiting {
        /// For how long, in milliseconds.
        delay_ms: u64,
        /// Why the last attempt or session ended.
        reason: String,
        /// Whether a person must act.
        needs_admin: bool,
    },
    /// The agent has stopped it.
    Stopped,
}

/// Something outside the channel that it should act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// The connection is worth nothing any more, or not good enough: leave it and dial now. The session is resumed.
    Redial(String),
    /// Waiting longer is of no use: dial now. A connection that lives is left alone.
    Retry,
}

/// Sends iqs over whatever session there is. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    outgoing: mpsc::Sender<Outgoing>,
    nudges: mpsc::Sender<Nudge>,
    state: watch::Receiver<ChannelState>,
    online: watch::Receiver<bool>,
    turns: Arc<Notify>,
}

/// An iq on its way out.
pub(crate) struct Outgoing {
    /// `None` for our server.
    to: Option<Jid>,
    get: bool,
    payload: Element,
    answer: oneshot::Sender<Answer>,
}

/// What came back.
type Answer = Result<Option<Element>, IqError>;

/// Why an iq has no result.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum IqError {
    /// No session.
    #[error("not connected to the cloud")]
    Offline,
    /// The session ended before the answer came; whether the cloud acted is unknown.
    #[error("the session with the cloud ended before it answered")]
    Lost,
    /// No answer in time.
    #[error("the cloud did not answer within {} s", IQ_WITHIN.as_secs())]
    TimedOut,
    /// An error answer.
    #[error("the cloud answers {}", login::describe(.0))]
    Refused(Box<StanzaError>),
    /// The server would end the stream over it.
    #[error("the message has {bytes} bytes, the cloud takes {max_bytes}")]
    TooLarge {
        /// Its size on the wire.
        bytes: usize,
        /// The server's limit.
        max_bytes: usize,
    },
    /// The answer is not what was asked for.
    #[error("the cloud's answer is not usable: {0}")]
    Unusable(String),
}

/// The ends [`reconnect::run`] works with.
pub struct Ends {
    pub(crate) outgoing: mpsc::Receiver<Outgoing>,
    pub(crate) nudges: mpsc::Receiver<Nudge>,
    pub(crate) state: watch::Sender<ChannelState>,
    pub(crate) online: OnlineSender,
}

/// Says whether a session is up. Those who wait for one are woken in the order in which they began to wait, which a
/// watch channel alone does not promise: it picks at random, and a simulation must repeat itself.
pub(crate) struct OnlineSender {
    online: watch::Sender<bool>,
    turns: Arc<Notify>,
}

impl OnlineSender {
    pub(crate) fn set(&self, up: bool) {
        if self.online.send_if_modified(|was| std::mem::replace(was, up) != up) {
            self.turns.notify_waiters();
        }
    }
}

impl Drop for OnlineSender {
    fn drop(&mut self) {
        // The channel has ended. Replaced, not borrowed: receivers see the end only when the sender is gone.
        self.online = watch::Sender::new(false);
        self.turns.notify_waiters();
    }
}

impl Channel {
    /// A channel and what runs it.
    pub fn new() -> (Self, Ends) {
        let (outgoing, queue) = mpsc::channel(CHANNEL_QUEUE_MAX);
        let (state_in, state) = watch::channel(ChannelState::default());
        let (online_in, online) = watch::channel(false);
        let (nudges_in, nudges) = mpsc::channel(NUDGES_MAX);
        let turns = Arc::new(Notify::new());
        let online_in = OnlineSender { online: online_in, turns: turns.clone() };
        (
            Self { outgoing, nudges: nudges_in, state, online, turns },
            Ends { outgoing: queue, nudges, state: state_in, online: online_in },
        )
    }

    /// Sends an iq of type set to the cloud and waits for its result.
    ///
    /// # Errors
    /// When there is no session, it ends, or the cloud refuses.
    pub async fn ask(&self, payload: Element) -> Result<Option<Element>, IqError> {
        self.send(None, false, payload).await
    }

    /// Sends an iq of type set and waits for its result; `to` is `None` for our server.
    ///
    /// # Errors
    /// As [`Channel::ask`].
    pub async fn set(&self, to: Option<Jid>, payload: Element) -> Result<Option<Element>, IqError> {
        self.send(to, false, payload).await
    }

    /// Sends an iq of type get and waits for its result; `to` is `None` for our server.
    ///
    /// # Errors
    /// As [`Channel::ask`].
    pub async fn get(&self, to: Option<Jid>, payload: Element) -> Result<Option<Element>, IqError> {
        self.send(to, true, payload).await
    }

    async fn send(&self, to: Option<Jid>, get: bool, payload: Element) -> Answer {
        if !*self.online.borrow() {
            return Err(IqError::Offline);
        }
        let (answer, wait) = oneshot::channel();
        let sent = async {
            self.outgoing.send(Outgoing { to, get, payload, answer }).await.map_err(|_| IqError::Offline)?;
            wait.await.unwrap_or(Err(IqError::Lost))
        };
        timeout(IQ_WITHIN, sent).await.unwrap_or(Err(IqError::TimedOut))
    }

    /// The same with types.
    ///
    /// # Errors
    /// As [`Channel::ask`], and when the answer does not fit.
    pub async fn ask_for<R: Payload>(&self, payload: &impl Payload) -> Result<R, IqError> {
        let answer = self.ask(payload.to_element()).await?;
        let element = answer.ok_or_else(|| IqError::Unusable("it is empty".to_owned()))?;
        R::from_element(&element).map_err(|error| IqError::Unusable(chain(&error)))
    }

    /// Tells the channel what it cannot notice itself. Never waits: when the queue is full, enough has been said.
    pub fn nudge(&self, nudge: Nudge) {
        let _ = self.nudges.try_send(nudge);
    }

    /// Iqs that no session has taken yet.
    pub fn waiting(&self) -> usize {
        self.outgoing.max_capacity() - self.outgoing.capacity()
    }

    /// Whether a session is up.
    pub fn online(&self) -> watch::Receiver<bool> {
        self.online.clone()
    }

    /// How the channel is, in more words.
    pub fn state(&self) -> watch::Receiver<ChannelState> {
        self.state.clone()
    }

    /// Waits for a session.
    ///
    /// # Errors
    /// When the channel has ended.
    pub async fn wait_online(&self) -> Result<(), IqError> {
        loop {
            let mut turn = std::pin::pin!(self.turns.notified());
            turn.as_mut().enable();
            if *self.online.borrow() {
                return Ok(());
            }
            if self.online.has_changed().is_err() {
                return Err(IqError::Offline);
            }
            turn.await;
        }
    }
}

fn chain(error: &PayloadError) -> String {
    crate::chain::Chain(error).to_string()
}

/// An error answer with a text.
pub(crate) fn stanza_error(kind: ErrorType, condition: DefinedCondition, text: &str) -> Box<StanzaError> {
    Box::new(StanzaError::new(kind, condition, "en", text))
}

/// What we do not know or do not tell.
pub(crate) fn unavailable() -> Box<StanzaError> {
    stanza_error(
        ErrorType::Cancel,
        DefinedCondition::ServiceUnavailable,
        "the agent does not know this element",
    )
}
