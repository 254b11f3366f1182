//! First-level elements of a stream.

use minidom::Element;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::sasl::Failure;
use xmpp_parsers::sm;
use xmpp_parsers::stream_error::ReceivedStreamError;
use xso::{AsXml, FromXml};

use super::ns;

/// Anything that may follow the stream header, before and after authentication. What we do not know lands in
/// [`StreamElement::Unknown`] instead of ending the stream, because ending it would also end stream management.
#[derive(FromXml, AsXml, Debug)]
#[xml()]
#[allow(clippy::large_enum_variant, reason = "nearly every element is an iq, the largest of them")]
pub enum StreamElement {
    /// The workhorse.
    #[xml(transparent)]
    Iq(Iq),
    /// Not used by us; strangers may send it.
    #[xml(transparent)]
    Message(Message),
    /// Not used by us; strangers send it after bind.
    #[xml(transparent)]
    Presence(Presence),
    /// XEP-0198.
    #[xml(transparent)]
    Sm(SmElement),
    /// Login.
    #[xml(transparent)]
    Sasl(SaslElement),
    /// The peer ends the stream and says why.
    #[xml(transparent)]
    Error(ReceivedStreamError),
    /// Anything else.
    #[xml(transparent)]
    Unknown(Element),
}

/// `<message/>`. What it says is not ours to judge: strangers may send anything, and a content that the usual type
/// refuses (an unknown `type` alone does it) must not end the stream, because stream management would end with it.
#[derive(FromXml, AsXml, Debug, Clone, Default, PartialEq, Eq)]
#[xml(namespace = ns::CLIENT, name = "message", on_unknown_attribute = Discard, on_unknown_child = Discard)]
pub struct Message {}

/// `<presence/>`; see [`Message`].
#[derive(FromXml, AsXml, Debug, Clone, Default, PartialEq, Eq)]
#[xml(namespace = ns::CLIENT, name = "presence", on_unknown_attribute = Discard, on_unknown_child = Discard)]
pub struct Presence {}

impl StreamElement {
    /// Whether XEP-0198 counts it: stanzas only.
    pub fn is_stanza(&self) -> bool {
        matches!(self, Self::Iq(_) | Self::Message(_) | Self::Presence(_))
    }
}

/// XEP-0198 elements. Own enum, because servers may leave out `h` in `<failed/>` (they do when they have forgotten the
/// session) and the usual type insists on it.
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml()]
pub enum SmElement {
    /// Client switches it on.
    #[xml(transparent)]
    Enable(sm::Enable),
    /// Server agrees.
    #[xml(transparent)]
    Enabled(sm::Enabled),
    /// Client wants its session back.
    #[xml(transparent)]
    Resume(sm::Resume),
    /// Server gives it back.
    #[xml(transparent)]
    Resumed(sm::Resumed),
    /// Server does not.
    #[xml(transparent)]
    Failed(SmFailed),
    /// So many stanzas handled.
    #[xml(transparent)]
    Ack(sm::A),
    /// How many have you handled?
    #[xml(transparent)]
    Request(sm::R),
}

/// `<failed/>`. Servers may add a text (ejabberd does).
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::SM, name = "failed", on_unknown_child = Discard)]
pub struct SmFailed {
    /// Stanzas of the old session that the server had handled, if it still knows.
    #[xml(attribute(default))]
    pub h: Option<u32>,
    /// Why.
    #[xml(child(default))]
    pub condition: Option<xmpp_parsers::stanza_error::DefinedCondition>,
}

/// SASL elements (RFC 6120 §6.4). Own types, because the usual ones know no EXTERNAL and refuse `=`, the spelling of
/// an empty initial response (§6.4.2).
#[derive(FromXml, AsXml, Debug, Clone)]
#[xml()]
pub enum SaslElement {
    /// Client begins.
    #[xml(transparent)]
    Auth(Auth),
    /// Server asks.
    #[xml(transparent)]
    Challenge(Challenge),
    /// Client answers.
    #[xml(transparent)]
    Response(Response),
    /// Server agrees.
    #[xml(transparent)]
    Success(Success),
    /// Server refuses.
    #[xml(transparent)]
    Failure(Failure),
    /// Client gives up.
    #[xml(transparent)]
    Abort(Abort),
}

/// `<auth/>`
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::SASL, name = "auth")]
pub struct Auth {
    /// Mechanism name, for example `EXTERNAL`.
    #[xml(attribute)]
    pub mechanism: String,
    /// Base64 of the initial response, `=` for an empty one, nothing for none.
    #[xml(text)]
    pub body: String,
}

/// `<challenge/>`
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::SASL, name = "challenge")]
pub struct Challenge {
    /// Base64.
    #[xml(text)]
    pub body: String,
}

/// `<response/>`
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::SASL, name = "response")]
pub struct Response {
    /// Base64.
    #[xml(text)]
    pub body: String,
}

/// `<success/>`
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::SASL, name = "success")]
pub struct Success {
    /// Base64 of additional data; empty for none.
    #[xml(text)]
    pub body: String,
}

/// `<abort/>`
#[derive(FromXml, AsXml, Debug, Clone, PartialEq)]
#[xml(namespace = ns::SASL, name = "abort")]
pub struct Abort;
