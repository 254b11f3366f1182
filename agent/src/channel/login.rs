//! From an open byte stream to a session: header, SASL, reset, then resume or bind and enable (RFC 6120, XEP-0198).

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use causeway_protocol::Secret;
use causeway_protocol::channel::element::{Auth, Response};
use causeway_protocol::channel::{RESOURCE, SaslElement, SmElement, StreamElement, ns};
use causeway_protocol::limits::{ELEMENT_MAX_BYTES, RESUME_SECS};
use futures_util::{SinkExt, StreamExt};
use jid::{BareJid, FullJid};
use minidom::Element;
use thiserror::Error;
use tokio_xmpp::xmlstream::{
    PendingFeaturesRecv, ReadError, RecvFeaturesError, StreamHeader, Timeouts, XmlStream, initiate_stream,
};
use xmpp_parsers::bind::{BindQuery, BindResponse};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::StanzaError;
use xmpp_parsers::stream_error::{DefinedCondition, StreamError};
use xmpp_parsers::stream_features::StreamFeatures;

use super::limited::Limited;
use super::scram::{self, ScramError};

/// A stream of elements.
pub type Stream = XmlStream<Limited, StreamElement>;

/// The stream library's own patience is switched off: [`causeway_protocol::channel::liveness`] decides.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Stanzas that may come between `<enable/>` and `<enabled/>`.
const EARLY_STANZAS_MAX: usize = 16;

/// How we prove who we are.
#[derive(Clone)]
pub enum Credentials {
    /// The TLS certificate says it: SASL EXTERNAL.
    Certificate(BareJid),
    /// A name and a secret, such as the two parts of an enrolment key: SCRAM-SHA-256.
    Password {
        /// The name.
        username: String,
        /// The secret.
        secret: Secret,
    },
}

/// Why there is no session.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The connection broke, or carried something that is no XML stream.
    #[error("talk to the cloud during login")]
    Stream {
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The cloud ended the stream and said why.
    #[error("the cloud ended the stream during login")]
    Ended {
        /// Why.
        #[source]
        source: Ended,
    },
    /// The cloud offers no way to log in that we have.
    #[error("the cloud does not offer {wanted} (offers: {offered})")]
    NoMechanism {
        /// What we need.
        wanted: &'static str,
        /// What it offers.
        offered: String,
    },
    /// The cloud does not accept us.
    #[error("the cloud does not accept our {what}: {reason}")]
    Refused {
        /// `certificate` or `secret`.
        what: &'static str,
        /// What it says.
        reason: String,
        /// Whether it says that the same may succeed soon (`temporary-auth-failure`, RFC 6120 §6.5.11).
        passing: bool,
    },
    /// The cloud cannot prove itself.
    #[error("log in with a password")]
    Scram {
        /// Why.
        #[source]
        source: ScramError,
    },
    /// The cloud answered an iq of the login with an error.
    #[error("the cloud refuses to {step}: {reason}")]
    Step {
        /// What we asked for.
        step: &'static str,
        /// Condition and text.
        reason: String,
    },
    /// Something came that has no place in a login.
    #[error("the cloud sent {got} where {wanted} was due")]
    Unexpected {
        /// What was due.
        wanted: &'static str,
        /// What came.
        got: String,
    },
    /// The login did not end in time.
    #[error("the login did not end within {} s", causeway_protocol::limits::LOGIN_WITHIN.as_secs())]
    TimedOut,
}

/// A stream error from the cloud (RFC 6120 §4.9).
#[derive(Clone, Debug, Error)]
#[error("{condition}{}", .text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Ended {
    /// The condition.
    pub condition: DefinedCondition,
    /// For people.
    pub text: Option<String>,
    /// Seconds before which the cloud does not want us back, from `<retry after=''/>`.
    pub retry_after_secs: Option<u64>,
    /// Seconds over which it wants its agents spread, from `<retry spread=''/>`.
    pub retry_spread_secs: Option<u64>,
}

impl From<StreamError> for Ended {
    fn from(error: StreamError) -> Self {
        let text = error.get_best_text_cloned(vec!["en"]).map(|(_, text)| shorten(&text));
        let retry = error.application_specific.iter().find(|child| child.is("retry", ns::AGENT));
        let number = |name: &str| retry.and_then(|retry| retry.attr(name)).and_then(|text| text.parse().ok());
        Self {
            text,
            retry_after_secs: number("after"),
            retry_spread_secs: number("spread"),
            condition: error.condition,
        }
    }
}

/// Text of the peer for logs, people and stanzas: one line, not too long, fit for XML.
pub(crate) fn shorten(text: &str) -> String {
    // The last two are no characters of XML 1.0 (§2.2) and would end a stream that carried them.
    text.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).take(300).collect()
}

/// Condition and text of a stanza error, for people.
pub fn describe(error: &StanzaError) -> String {
    let condition = condition_name(error);
    match error.texts.values().next() {
        Some(text) => format!("{condition} ({})", shorten(text)),
        None => condition,
    }
}

/// The defined condition's name on the wire.
pub fn condition_name(error: &StanzaError) -> String {
    let element: Element = error.clone().into();
    element
        .children()
        .find(|child| child.ns() == "urn:ietf:params:xml:ns:xmpp-stanzas" && child.name() != "text")
        .map_or_else(|| "undefined-condition".to_owned(), |child| child.name().to_owned())
}

/// An authenticated stream, before resume or bind.
pub struct Authenticated {
    /// The stream.
    pub stream: Stream,
    /// What the cloud offers now.
    pub features: StreamFeatures,
}

/// Opens the stream and proves who we are. `domain` is the server's name on the stream.
///
/// # Errors
/// Says who is at fault. The caller bounds the time.
pub async fn authenticate(
    io: Limited,
    domain: &str,
    credentials: &Credentials,
) -> Result<Authenticated, LoginError> {
    // Where a name goes with the password, the account is known only afterwards.
    let from = match credentials {
        Credentials::Certificate(jid) => Some(jid.to_string()),
        Credentials::Password { .. } => None,
    };
    let header = || StreamHeader {
        from: from.as_deref().map(Cow::Borrowed),
        to: Some(Cow::Borrowed(domain)),
        id: None,
    };
    let timeouts = Timeouts { read_timeout: NEVER, response_timeout: NEVER };
    let pending = initiate_stream(io, ns::CLIENT, header(), timeouts).await.map_err(stream_failed)?;
    let (features, mut stream) = receive_features(pending).await?;
    match credentials {
        Credentials::Certificate(_) => external(&mut stream, &features).await?,
        Credentials::Password { username, secret } => {
            scram(&mut stream, &features, username, secret.clone()).await?;
        }
    }
    stream.get_stream().restart(ELEMENT_MAX_BYTES);
    let pending = stream.initiate_reset().send_header(header()).await.map_err(stream_failed)?;
    let (features, stream) = receive_features(pending).await?;
    Ok(Authenticated { stream, features })
}

async fn receive_features(
    pending: PendingFeaturesRecv<Limited>,
) -> Result<(StreamFeatures, Stream), LoginError> {
    let (features, stream) = pending.recv_features().await.map_err(|error| match error {
        RecvFeaturesError::Io(source) => LoginError::Stream { source },
        RecvFeaturesError::StreamError(error) => LoginError::Ended { source: error.0.into() },
    })?;
    stream.get_stream().element_complete();
    Ok((features, stream))
}

fn stream_failed(source: io::Error) -> LoginError {
    LoginError::Stream { source }
}

fn offered(features: &StreamFeatures, wanted: &'static str) -> Result<(), LoginError> {
    if features.sasl_mechanisms.contains(wanted) {
        return Ok(());
    }
    let offered = features.sasl_mechanisms.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    Err(LoginError::NoMechanism { wanted, offered: shorten(&offered) })
}

async fn external(stream: &mut Stream, features: &StreamFeatures) -> Result<(), LoginError> {
    offered(features, "EXTERNAL")?;
    // "=" is the empty initial response: the certificate names us (RFC 6120 §6.4.2).
    let auth = Auth { mechanism: "EXTERNAL".to_owned(), body: "=".to_owned() };
    send(stream, &StreamElement::Sasl(SaslElement::Auth(auth))).await?;
    match next(stream).await? {
        StreamElement::Sasl(SaslElement::Success(_)) => Ok(()),
        other => Err(refused("certificate", &other)),
    }
}

async fn scram(
    stream: &mut Stream,
    features: &StreamFeatures,
    id: &str,
    secret: Secret,
) -> Result<(), LoginError> {
    let failed = |source| LoginError::Scram { source };
    offered(features, scram::MECHANISM)?;
    let client = scram::Client::new(id, secret).map_err(failed)?;
    let auth = Auth { mechanism: scram::MECHANISM.to_owned(), body: client.first() };
    send(stream, &StreamElement::Sasl(SaslElement::Auth(auth))).await?;
    let challenge = match next(stream).await? {
        StreamElement::Sasl(SaslElement::Challenge(challenge)) => challenge,
        other => return Err(refused("secret", &other)),
    };
    let (response, verifier) = client.respond(challenge.body.trim()).map_err(failed)?;
    send(stream, &StreamElement::Sasl(SaslElement::Response(Response { body: response }))).await?;
    match next(stream).await? {
        StreamElement::Sasl(SaslElement::Success(success)) => {
            verifier.verify(success.body.trim()).map_err(failed)
        }
        other => Err(refused("secret", &other)),
    }
}

fn refused(what: &'static str, got: &StreamElement) -> LoginError {
    let StreamElement::Sasl(SaslElement::Failure(failure)) = got else {
        return unexpected("an answer to the login", got);
    };
    let element: Element = failure.clone().into();
    let condition = element
        .children()
        .find(|child| child.name() != "text")
        .map_or_else(|| "no reason".to_owned(), |child| child.name().to_owned());
    let reason = match failure.texts.values().next() {
        Some(text) => format!("{condition} ({})", shorten(text)),
        None => condition.clone(),
    };
    let passing = condition == "temporary-auth-failure";
    LoginError::Refused { what, reason, passing }
}

fn unexpected(wanted: &'static str, got: &StreamElement) -> LoginError {
    let got = match got {
        StreamElement::Iq(_) => "an iq".to_owned(),
        StreamElement::Message(_) => "a message".to_owned(),
        StreamElement::Presence(_) => "a presence".to_owned(),
        StreamElement::Sm(_) => "a stream management element".to_owned(),
        StreamElement::Sasl(_) => "a SASL element".to_owned(),
        StreamElement::Error(_) => "a stream error".to_owned(),
        StreamElement::Unknown(element) => format!("<{}/>", shorten(element.name())),
    };
    LoginError::Unexpected { wanted, got }
}

pub(super) async fn send(stream: &mut Stream, element: &StreamElement) -> Result<(), LoginError> {
    stream.send(element).await.map_err(stream_failed)
}

/// The next element; a stream error becomes ours.
pub(super) async fn next(stream: &mut Stream) -> Result<StreamElement, LoginError> {
    loop {
        let element = match stream.next().await {
            Some(Ok(element)) => element,
            Some(Err(ReadError::SoftTimeout)) => continue,
            Some(Err(ReadError::HardError(source))) => return Err(LoginError::Stream { source }),
            Some(Err(ReadError::ParseError(error))) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
                return Err(LoginError::Stream { source });
            }
            Some(Err(ReadError::StreamFooterReceived)) | None => {
                return Err(LoginError::Stream { source: io::ErrorKind::UnexpectedEof.into() });
            }
        };
        stream.get_stream().element_complete();
        if let StreamElement::Error(error) = element {
            return Err(LoginError::Ended { source: error.0.into() });
        }
        return Ok(element);
    }
}

/// Sends an iq and waits for its answer; for the login only, where nothing else happens.
///
/// # Errors
/// When the answer is an error or does not come.
pub async fn ask(
    stream: &mut Stream,
    step: &'static str,
    payload: Element,
) -> Result<Option<Element>, LoginError> {
    let id = format!("login-{}", payload.name());
    let iq = Iq::Set { from: None, to: None, id: id.clone(), payload };
    send(stream, &StreamElement::Iq(iq)).await?;
    loop {
        match next(stream).await? {
            StreamElement::Iq(Iq::Result { id: got, payload, .. }) if got == id => return Ok(payload),
            StreamElement::Iq(Iq::Error { id: got, error, .. }) if got == id => {
                return Err(LoginError::Step { step, reason: describe(&error) });
            }
            StreamElement::Presence(_) | StreamElement::Message(_) => {}
            other => return Err(unexpected("an answer", &other)),
        }
    }
}

/// Binds our resource (RFC 6120 §7).
///
/// # Errors
/// When the cloud refuses.
pub async fn bind(stream: &mut Stream) -> Result<FullJid, LoginError> {
    let query = BindQuery::new(Some(RESOURCE.to_owned()));
    let answer = ask(stream, "bind a resource", query.into()).await?;
    answer
        .and_then(|element| BindResponse::try_from(element).ok())
        .map(FullJid::from)
        .ok_or(LoginError::Unexpected { wanted: "a bound JID", got: "something else".to_owned() })
}

/// What came of switching stream management on.
pub struct Enabled {
    /// Names the session for a resumption; none when it cannot be resumed.
    pub resume_id: Option<String>,
    /// Stanzas that came before `<enabled/>`; not counted.
    pub early: Vec<StreamElement>,
}

/// Switches stream management on (XEP-0198 §3). `None` when the cloud does not.
///
/// # Errors
/// When the stream breaks.
pub async fn enable(stream: &mut Stream) -> Result<Option<Enabled>, LoginError> {
    let enable = sm::Enable::new().with_resume().with_max(RESUME_SECS);
    send(stream, &StreamElement::Sm(SmElement::Enable(enable))).await?;
    let mut early = Vec::new();
    loop {
        match next(stream).await? {
            StreamElement::Sm(SmElement::Enabled(enabled)) => {
                let resume_id = enabled.id.filter(|_| enabled.resume).map(|id| id.0);
                return Ok(Some(Enabled { resume_id, early }));
            }
            StreamElement::Sm(SmElement::Failed(_)) => return Ok(None),
            stanza if stanza.is_stanza() && early.len() < EARLY_STANZAS_MAX => early.push(stanza),
            other => return Err(unexpected("<enabled/>", &other)),
        }
    }
}

/// Asks for the old session (XEP-0198 §5). `Some(h)` when the cloud gives it back, having handled `h` of our stanzas.
///
/// # Errors
/// When the stream breaks.
pub async fn resume(stream: &mut Stream, id: &str, h: u32) -> Result<Option<u32>, LoginError> {
    let resume = sm::Resume { h, previd: sm::StreamId(id.to_owned()) };
    send(stream, &StreamElement::Sm(SmElement::Resume(resume))).await?;
    match next(stream).await? {
        StreamElement::Sm(SmElement::Resumed(resumed)) if resumed.previd.0 == id => Ok(Some(resumed.h)),
        StreamElement::Sm(SmElement::Failed(_)) => Ok(None),
        other => Err(unexpected("<resumed/>", &other)),
    }
}
