//! What a session is used for. The stream core (login, stream management, reconnection) knows nothing of it, so the
//! same core works with any XMPP server; [`super::causeway`] is the conversation with the cloud.

use futures_util::future::BoxFuture;
use jid::Jid;
use minidom::Element;
use xmpp_parsers::stanza_error::StanzaError;

/// One side of what is said in a session. Futures may be dropped when the link is cut; what they began must go on.
pub trait Conversation: Send + Sync + 'static {
    /// The iq of type set that opens a new session; it counts when the server's answer is taken by
    /// [`Conversation::opened`]. `None` when a bound session counts at once.
    fn opening(&self) -> Option<Element>;

    /// Takes the answer to the opening.
    ///
    /// # Errors
    /// When the answer is not usable; says why. The session is then given up.
    fn opened(&self, answer: Option<Element>) -> Result<(), String>;

    /// Takes what a peer asks. Pings of the server never come here.
    fn take(&self, asked: Asked<'_>) -> Taken;
}

/// A get or set that arrived.
pub struct Asked<'a> {
    /// Set or get.
    pub set: bool,
    /// Whether it comes from our own server (or our own account) and not from somebody it lets through.
    pub from_server: bool,
    /// Who sent it, if it says so.
    pub from: Option<&'a Jid>,
    /// What is asked.
    pub payload: &'a Element,
}

/// What becomes of it.
pub enum Taken {
    /// An error, at once.
    Refused(Box<StanzaError>),
    /// It counts as handled (XEP-0198) and is answered when the future ends, that is when it is durably accepted.
    Accepting(BoxFuture<'static, Result<(), Box<StanzaError>>>),
    /// It lives in memory only, so receiving it is handling it; the answer follows when there is one. After a
    /// resumption a repetition of it is recognised, and this is not called again.
    Answering(Box<dyn FnOnce() -> BoxFuture<'static, Element> + Send>),
}
