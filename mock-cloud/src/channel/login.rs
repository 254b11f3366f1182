//! From the first byte to a logged-in stream: stream header, SASL, second stream header (RFC 6120 §4, §6).

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_kit::fault::{Fault, Point};
use causeway_protocol::Secret;
use causeway_protocol::channel::element::{Auth, Challenge, Success};
use causeway_protocol::channel::{SaslElement, StreamElement, ns};
use causeway_protocol::limits::{ELEMENT_MAX_BYTES, ELEMENT_PRE_AUTH_MAX_BYTES, IDLE_SECS};
use futures_util::{SinkExt as _, StreamExt as _};
use jid::Jid;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncBufRead, AsyncWrite, AsyncWriteExt as _};
use tokio_xmpp::xmlstream::{
    AcceptedStream, PendingFeaturesSend, ReadError, StreamHeader, Timeouts, accept_stream,
};
use xmpp_parsers::bind::BindFeature;
use xmpp_parsers::sasl::{DefinedCondition as SaslCondition, Failure};
use xmpp_parsers::sm::StreamManagement;
use xmpp_parsers::stream_error::{DefinedCondition, StreamError};
use xmpp_parsers::stream_features::StreamFeatures;
use xmpp_parsers::stream_limits::Limits;

use super::scram::{ClientFirst, Exchange, Verifier};
use super::session::{Stream, fault_in};
use super::wire::Metered;
use super::{FRONT, stream_error};
use crate::limits::{SASL_ATTEMPTS_MAX, STREAM_SILENCE};
use crate::pki::{AgentIdentity, Refusal, serial_of};
use crate::state::Cloud;

/// Name of the account strangers may use.
const CONSOLE: &str = "console";

/// Whom a stream belongs to, and so what it may do.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// An enrolled agent.
    Agent(AgentIdentity),
    /// An agent that has an enrolment key and wants a certificate.
    Enrolling {
        /// Whose agent it becomes.
        tenant: String,
        /// The key.
        key: String,
    },
    /// A third-party client that looks around.
    Console,
}

impl Role {
    /// The agent's identity, for agents.
    pub(super) fn identity(&self) -> Option<&AgentIdentity> {
        match self {
            Self::Agent(identity) => Some(identity),
            Self::Enrolling { .. } | Self::Console => None,
        }
    }

    /// Local part of the JID.
    pub(super) fn node(&self) -> &str {
        match self {
            Self::Agent(identity) => &identity.instance,
            Self::Enrolling { key, .. } => key,
            Self::Console => CONSOLE,
        }
    }
}

/// A stream after SASL.
pub(super) struct LoggedIn<'io, S> {
    pub(super) stream: Stream<'io, S>,
    pub(super) role: Role,
    /// The name under which the client knows us.
    pub(super) domain: Jid,
}

/// Why a connection did not log in.
pub(super) enum NoLogin {
    /// The peer's stream header could not be read; our own is not sent yet.
    Header(io::Error),
    /// The peer has been told as far as it can be told.
    Ended,
}

/// Logs a connection in.
///
/// # Errors
/// [`NoLogin`]; for a bad header the caller still has the connection and answers with [`refuse_header`].
pub(super) async fn login<'io, S>(
    cloud: &Cloud,
    io: &'io mut Metered<S>,
    chain: &[CertificateDer<'static>],
) -> Result<Box<LoggedIn<'io, S>>, NoLogin>
where
    S: AsyncBufRead + AsyncWrite + Unpin + Send,
{
    let accepted = accept_stream(io, ns::CLIENT, timeouts()).await.map_err(NoLogin::Header)?;
    let (domain, pending) = greet(cloud, accepted).await?;
    let Some(_turn) = cloud.admission.login_turn().await else {
        let text = "too many log in at the moment";
        let waiting = cloud.config.channel.logins_max;
        let error = cloud.admission.come_back_later(DefinedCondition::ResourceConstraint, text, waiting);
        let _ = pending.send_error(&error).await;
        return Err(NoLogin::Ended);
    };
    let mut sasl = Sasl { cloud, chain };
    let mut stream: Stream<'io, S> =
        pending.send_features(&sasl.features()).await.map_err(|_| NoLogin::Ended)?;
    stream.get_stream().element_done();
    let (role, proof) = sasl.run(&mut stream).await?;
    let success = SaslElement::Success(Success { body: proof });
    stream.get_stream().restart();
    let accepted = stream.accept_reset(&success).await.map_err(NoLogin::Header)?;
    let (_, pending) = greet(cloud, accepted).await?;
    let stream: Stream<'io, S> =
        pending.send_features(&features_after_login(&role)).await.map_err(|_| NoLogin::Ended)?;
    stream.get_stream().set_limit(ELEMENT_MAX_BYTES);
    stream.get_stream().element_done();
    Ok(Box::new(LoggedIn { stream, role, domain }))
}

/// Answers a stream header that could not be read. RFC 6120 §4.9.1.2: our header first, then the error.
pub(super) async fn refuse_header<S>(io: &mut Metered<S>, domain: &str, error: &io::Error)
where
    S: AsyncBufRead + AsyncWrite + Unpin + Send,
{
    let Some((condition, text)) = fault_in(error) else { return };
    let header = format!(
        "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' from='{domain}' id='{}' version='1.0'>",
        ns::CLIENT,
        xmpp_parsers::ns::STREAM,
        uuid::Uuid::new_v4().simple(),
    );
    let body = format!(
        "<stream:error><{condition} xmlns='{0}'/><text xmlns='{0}' xml:lang='en'>{text}</text></stream:error>\
         </stream:stream>",
        ns::STREAM_ERRORS
    );
    let _ = io.write_all(header.as_bytes()).await;
    let _ = io.write_all(body.as_bytes()).await;
    let _ = io.shutdown().await;
}

/// Sends our stream header, or the error that ends the stream when it is not us the client wants.
async fn greet<'io, S>(
    cloud: &Cloud,
    mut accepted: AcceptedStream<&'io mut Metered<S>>,
) -> Result<(Jid, PendingFeaturesSend<&'io mut Metered<S>>), NoLogin>
where
    S: AsyncBufRead + AsyncWrite + Unpin + Send,
{
    let ours = cloud.config.domain.as_str();
    let to = accepted.take_header().to.map(std::borrow::Cow::into_owned);
    let known = to.as_deref().is_none_or(|to| to.eq_ignore_ascii_case(ours) || cloud.pki.serves_name(to));
    let name = to.filter(|_| known).unwrap_or_else(|| ours.to_owned());
    let id = cloud.ids.next().simple().to_string();
    let header = StreamHeader { from: Some(name.as_str().into()), to: None, id: Some(id.into()) };
    let pending = accepted.send_header(header).await.map_err(|_| NoLogin::Ended)?;
    // An address such as "::1" is a name of the certificate but no valid domain part; the configured one is.
    let domain = Jid::new(&name).or_else(|_| Jid::new(ours)).map_err(|_| NoLogin::Ended)?;
    if known {
        return Ok((domain, pending));
    }
    let error = stream_error(DefinedCondition::HostUnknown, &format!("this is {ours}"));
    let _ = pending.send_error(&error).await;
    Err(NoLogin::Ended)
}

struct Sasl<'a> {
    cloud: &'a Cloud,
    chain: &'a [CertificateDer<'static>],
}

/// Why SASL failed: the condition and a sentence for the log of the other side.
struct SaslRefusal(SaslCondition, String);

impl Sasl<'_> {
    /// EXTERNAL whenever a certificate was presented, also a bad one: the refusal then says what is wrong with it.
    fn features(&self) -> StreamFeatures {
        let mut sasl_mechanisms = BTreeSet::new();
        if !self.chain.is_empty() {
            sasl_mechanisms.insert("EXTERNAL".to_owned());
        }
        if self.judge().is_err() {
            sasl_mechanisms.insert("SCRAM-SHA-256".to_owned());
        }
        StreamFeatures {
            sasl_mechanisms,
            limits: limits(ELEMENT_PRE_AUTH_MAX_BYTES),
            ..StreamFeatures::default()
        }
    }

    fn judge(&self) -> Result<AgentIdentity, Refusal> {
        self.cloud.pki.judge(self.chain, self.cloud.now_ms())
    }

    /// Runs attempts until one succeeds. Returns the role and the text of `<success/>`.
    async fn run<S>(&mut self, stream: &mut Stream<'_, S>) -> Result<(Role, String), NoLogin>
    where
        S: AsyncBufRead + AsyncWrite + Unpin + Send,
    {
        for _ in 0..SASL_ATTEMPTS_MAX {
            let auth = match next_sasl(stream).await? {
                SaslElement::Auth(auth) => auth,
                _ => {
                    return Err(give_up(
                        stream,
                        DefinedCondition::UnsupportedStanzaType,
                        "authenticate first",
                    )
                    .await);
                }
            };
            let refusal = match self.attempt(stream, auth).await? {
                Ok(success) => return Ok(success),
                Err(refusal) => refusal,
            };
            self.cloud.kit.journal.record(FRONT, "login", "", &refusal.1, serde_json::Value::Null);
            let texts = [("en".to_owned(), refusal.1)].into();
            let failure = SaslElement::Failure(Failure { defined_condition: refusal.0, texts });
            stream.send(&failure).await.map_err(|_| NoLogin::Ended)?;
        }
        Err(give_up(stream, DefinedCondition::PolicyViolation, "too many failed logins on one stream").await)
    }

    async fn attempt<S>(
        &self,
        stream: &mut Stream<'_, S>,
        auth: Auth,
    ) -> Result<Result<(Role, String), SaslRefusal>, NoLogin>
    where
        S: AsyncBufRead + AsyncWrite + Unpin + Send,
    {
        match self.fault().await {
            None => {}
            Some(Fault::Status { code, message }) => {
                let condition = match code.as_str() {
                    "temporary-auth-failure" => SaslCondition::TemporaryAuthFailure,
                    _ => SaslCondition::NotAuthorized,
                };
                return Ok(Err(SaslRefusal(condition, message)));
            }
            Some(_) => return Err(NoLogin::Ended),
        }
        match auth.mechanism.as_str() {
            "EXTERNAL" if !self.chain.is_empty() => self.external(stream, auth).await,
            "SCRAM-SHA-256" => self.scram(stream, auth).await,
            other => {
                let text = format!("the mechanism {other} is not offered on this stream");
                Ok(Err(SaslRefusal(SaslCondition::InvalidMechanism, text)))
            }
        }
    }

    async fn fault(&self) -> Option<Fault> {
        let subject = self.judge().map(|identity| identity.instance).unwrap_or_default();
        self.cloud.kit.faults.meet(&Point { front: FRONT, operation: "login", subject: &subject }).await
    }

    /// RFC 6120 §6, XEP-0178: the certificate says who it is; an authorization identity may only repeat it.
    async fn external<S>(
        &self,
        stream: &mut Stream<'_, S>,
        auth: Auth,
    ) -> Result<Result<(Role, String), SaslRefusal>, NoLogin>
    where
        S: AsyncBufRead + AsyncWrite + Unpin + Send,
    {
        let response = match auth.body.as_str() {
            "" => match challenge(stream, "").await? {
                Ok(response) => response,
                Err(refusal) => return Ok(Err(refusal)),
            },
            body => body.to_owned(),
        };
        let Some(authzid) = decode(&response) else { return Ok(Err(incorrect_encoding())) };
        let refused = |refusal: Refusal| SaslRefusal(SaslCondition::NotAuthorized, refusal.to_string());
        let identity = match self.judge() {
            Ok(identity) => identity,
            Err(refusal) => return Ok(Err(refused(refusal))),
        };
        if let Err(refusal) = admit(self.cloud, &identity, self.chain).await {
            return Ok(Err(refused(refusal)));
        }
        let own = format!("{}@", identity.instance);
        if !authzid.is_empty() && !authzid.starts_with(&own) {
            let text = "the authorization identity is not the one in the certificate".to_owned();
            return Ok(Err(SaslRefusal(SaslCondition::InvalidAuthzid, text)));
        }
        Ok(Ok((Role::Agent(identity), String::new())))
    }

    async fn scram<S>(
        &self,
        stream: &mut Stream<'_, S>,
        auth: Auth,
    ) -> Result<Result<(Role, String), SaslRefusal>, NoLogin>
    where
        S: AsyncBufRead + AsyncWrite + Unpin + Send,
    {
        let malformed = |text: String| SaslRefusal(SaslCondition::MalformedRequest, text);
        let Some(message) = decode(&auth.body) else { return Ok(Err(incorrect_encoding())) };
        let first = match ClientFirst::parse(&message) {
            Ok(first) => first,
            Err(error) => return Ok(Err(malformed(error.to_string()))),
        };
        let (verifier, standing) = self.account(&first.name).await.map_err(|_| NoLogin::Ended)?;
        let nonce = self.cloud.ids.next().simple().to_string();
        let (exchange, server_first) = Exchange::begin(&first, verifier, &nonce);
        let response = match challenge(stream, &STANDARD.encode(server_first)).await? {
            Ok(response) => response,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(client_final) = decode(&response) else { return Ok(Err(incorrect_encoding())) };
        let server_final = match exchange.finish(&client_final) {
            Ok(server_final) => server_final,
            Err(error) => {
                let text = format!("{error}; the enrolment key or password is wrong");
                return Ok(Err(SaslRefusal(SaslCondition::NotAuthorized, text)));
            }
        };
        // Only who knows the secret learns how the account stands.
        Ok(match standing {
            Ok(role) => Ok((role, STANDARD.encode(server_final))),
            Err(text) => Err(SaslRefusal(SaslCondition::NotAuthorized, text)),
        })
    }

    /// The verifier of an account, and what it may do once the password is proven.
    async fn account(
        &self,
        name: &str,
    ) -> Result<(Verifier, Result<Role, String>), crate::store::StoreError> {
        if let (CONSOLE, Some(password)) = (name, &self.cloud.config.channel.console_password) {
            let salt = self.cloud.scram_seed.to_vec();
            return Ok((Verifier::derive(Secret::new(password.as_str()).expose(), salt), Ok(Role::Console)));
        }
        let Some(key) = self.cloud.store.enrollment_key(name).await? else {
            let nobody = Verifier::of_nobody(&self.cloud.scram_seed, name);
            return Ok((nobody, Err("unknown account".to_owned())));
        };
        let standing = match (key.used_by, self.cloud.now_ms() >= key.expires_ms) {
            (Some(used_by), _) => {
                Err(format!("the enrolment key was used by {used_by}; a key works once, make a new one"))
            }
            (None, true) => Err("the enrolment key has expired; make a new one".to_owned()),
            (None, false) => Ok(Role::Enrolling { tenant: key.tenant, key: name.to_owned() }),
        };
        Ok((key.verifier, standing))
    }
}

/// Whether an identity is enrolled and not revoked, and shows its newest certificate, or the one before while it may
/// not have the newest.
///
/// # Errors
/// [`Refusal`]; a store that fails refuses too.
pub(crate) async fn admit(
    cloud: &Cloud,
    identity: &AgentIdentity,
    chain: &[CertificateDer<'_>],
) -> Result<(), Refusal> {
    let agent = match cloud.store.agent(&identity.tenant, &identity.instance).await {
        Ok(Some(agent)) if agent.revoked_ms.is_some() => return Err(Refusal::Revoked),
        Ok(Some(agent)) => agent,
        Ok(None) => return Err(Refusal::UnknownAgent),
        Err(error) => {
            tracing::error!(%error, "Identity could not be looked up");
            return Err(Refusal::UnknownAgent);
        }
    };
    let serial = chain.first().and_then(serial_of).ok_or(Refusal::NoAgent)?;
    if serial == agent.certificate_serial {
        if !agent.certificate_before.is_empty()
            && let Err(error) = cloud.store.certificate_shown(identity, &serial).await
        {
            tracing::error!(%error, "A renewed certificate could not be noted");
        }
        return Ok(());
    }
    if serial == agent.certificate_before { Ok(()) } else { Err(Refusal::Superseded) }
}

async fn challenge<S>(stream: &mut Stream<'_, S>, body: &str) -> Result<Result<String, SaslRefusal>, NoLogin>
where
    S: AsyncBufRead + AsyncWrite + Unpin + Send,
{
    let challenge = SaslElement::Challenge(Challenge { body: body.to_owned() });
    stream.send(&challenge).await.map_err(|_| NoLogin::Ended)?;
    Ok(match next_sasl(stream).await? {
        SaslElement::Response(response) => Ok(response.body),
        SaslElement::Abort(_) => Err(SaslRefusal(SaslCondition::Aborted, "aborted as asked".to_owned())),
        _ => Err(SaslRefusal(SaslCondition::MalformedRequest, "a response was expected".to_owned())),
    })
}

async fn next_sasl<S>(stream: &mut Stream<'_, S>) -> Result<SaslElement, NoLogin>
where
    S: AsyncBufRead + AsyncWrite + Unpin + Send,
{
    loop {
        let (condition, text) = match stream.next().await {
            Some(Ok(StreamElement::Sasl(element))) => {
                stream.get_stream().element_done();
                return Ok(element);
            }
            Some(Err(ReadError::SoftTimeout)) => continue,
            None | Some(Err(ReadError::StreamFooterReceived)) => return Err(NoLogin::Ended),
            // RFC 6120 §6.3.1: nothing else before authentication.
            Some(Ok(_)) => (DefinedCondition::NotAuthorized, "authenticate first"),
            Some(Err(ReadError::ParseError(_))) => (DefinedCondition::BadFormat, "unreadable element"),
            Some(Err(ReadError::HardError(error))) => match fault_in(&error) {
                Some(fault) => fault,
                None => return Err(NoLogin::Ended),
            },
        };
        return Err(give_up(stream, condition, text).await);
    }
}

async fn give_up<S>(stream: &mut Stream<'_, S>, condition: DefinedCondition, text: &str) -> NoLogin
where
    S: AsyncBufRead + AsyncWrite + Unpin + Send,
{
    let error: StreamError = stream_error(condition, text);
    let _ = stream.send(&error).await;
    let _ = stream.shutdown().await;
    NoLogin::Ended
}

fn features_after_login(role: &Role) -> StreamFeatures {
    let stream_management = match role {
        Role::Enrolling { .. } => None,
        Role::Agent(_) | Role::Console => Some(StreamManagement { optional: false }),
    };
    StreamFeatures {
        bind: Some(BindFeature { required: true }),
        stream_management,
        limits: limits(ELEMENT_MAX_BYTES),
        ..StreamFeatures::default()
    }
}

/// XEP-0478.
fn limits(max_bytes: usize) -> Option<Limits> {
    let max_bytes = u32::try_from(max_bytes).ok().and_then(NonZeroU32::new);
    Some(Limits { max_bytes, idle_seconds: NonZeroU32::new(IDLE_SECS) })
}

/// RFC 6120 §6.4.2: `=` is an empty response, as opposed to none.
fn decode(body: &str) -> Option<String> {
    match body {
        "=" | "" => Some(String::new()),
        body => String::from_utf8(STANDARD.decode(body).ok()?).ok(),
    }
}

fn incorrect_encoding() -> SaslRefusal {
    SaslRefusal(SaslCondition::IncorrectEncoding, "the response is not Base64 of UTF-8".to_owned())
}

/// The XML layer's own patience is set beyond all of ours: it cannot tell silence from a broken element.
fn timeouts() -> Timeouts {
    Timeouts { read_timeout: STREAM_SILENCE, response_timeout: STREAM_SILENCE }
}
