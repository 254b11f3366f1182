//! What peers ask for: every iq of type get or set, by role.
//!
//! An iq that needs the store is answered later, from a future the session polls; its stanza counts as handled
//! (XEP-0198) only then. Unknown payloads are refused by name before anything looks at who asks.

use std::future::Future;
use std::sync::Arc;

use causeway_mock_kit::fault::{Fault, Point};
use causeway_protocol::action::ErrorReport;
use causeway_protocol::channel::ns;
use causeway_protocol::channel::payload::{self, Payload};
use futures_util::future::BoxFuture;
use jid::Jid;
use minidom::Element;
use serde_json::Value;
use xmpp_parsers::disco::{DiscoInfoResult, Identity};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use super::FRONT;
use super::login::Role;
use super::registry::Session;
use super::session::Effect;
use crate::dispatch::{actions, config, leases, sessions};
use crate::pki::AgentIdentity;
use crate::state::Cloud;
use crate::{enrollment, ingest};

/// What became of a request.
pub(super) enum Taken {
    /// Answered.
    Now(Box<Iq>),
    /// To be answered when this is done.
    Later(BoxFuture<'static, Effect>),
}

/// Addresses of the answer.
struct Envelope {
    id: String,
    from: Option<Jid>,
    to: Option<Jid>,
}

/// Why a request is not done.
#[derive(Debug)]
pub(crate) struct Refused {
    /// RFC 6120 §8.3.3.
    pub(crate) condition: DefinedCondition,
    /// For the log of the other side; a stable word where the other side must tell cases apart.
    pub(crate) text: String,
    /// Seconds after which asking again makes sense.
    pub(crate) retry_after_secs: Option<u32>,
}

impl Refused {
    /// A refusal for good.
    pub(crate) fn new(condition: DefinedCondition, text: impl Into<String>) -> Self {
        Self { condition, text: text.into(), retry_after_secs: None }
    }

    /// A refusal for now.
    pub(crate) fn wait(text: impl Into<String>, secs: u32) -> Self {
        Self {
            condition: DefinedCondition::ResourceConstraint,
            text: text.into(),
            retry_after_secs: Some(secs),
        }
    }

    /// The store failed: the agent tries again later, the operator reads the log.
    pub(crate) fn store(error: &crate::store::StoreError) -> Self {
        tracing::error!(%error, "Store failed for a request on the channel");
        Self::wait("the cloud cannot store anything at the moment", 5)
    }
}

/// Takes a get or set.
pub(super) fn take(cloud: &Arc<Cloud>, session: &Arc<Session>, role: &Role, domain: &Jid, iq: Iq) -> Taken {
    let (id, to, payload, is_set) = match iq {
        Iq::Get { id, to, payload, .. } => (id, to, payload, false),
        Iq::Set { id, to, payload, .. } => (id, to, payload, true),
        Iq::Result { id, .. } | Iq::Error { id, .. } => {
            return Taken::Now(Box::new(refusal(
                &id,
                None,
                None,
                DefinedCondition::BadRequest,
                "nothing to answer",
            )));
        }
    };
    let envelope = Envelope { id, from: to.or_else(|| Some(domain.clone())), to: session.jid().cloned() };
    if payload.is("ping", ns::PING) && !is_set {
        return Taken::Now(envelope.result(None));
    }
    match role {
        Role::Enrolling { tenant, key } => {
            if !payload::CertificateRequest::names(&payload) {
                let text = "an enrolment key may only ask for a certificate";
                return Taken::Now(envelope.refuse(&Refused::new(DefinedCondition::Forbidden, text)));
            }
            let (cloud, tenant, key) = (Arc::clone(cloud), tenant.clone(), key.clone());
            work(envelope, async move {
                meet(&cloud, "enroll", &key).await?;
                let certificate = enrollment::enroll(&cloud, &tenant, &key, read(&payload)?).await?;
                Ok(Some(certificate.to_element()))
            })
        }
        Role::Console => Taken::Now(console(&envelope, &payload, is_set)),
        Role::Agent(_) if payload.is("query", xmpp_parsers::ns::DISCO_INFO) && !is_set => {
            Taken::Now(envelope.result(Some(disco())))
        }
        Role::Agent(identity) => agent(cloud, session, identity, envelope, payload),
    }
}

fn console(envelope: &Envelope, payload: &Element, is_set: bool) -> Box<Iq> {
    if payload.is("query", xmpp_parsers::ns::DISCO_INFO) && !is_set {
        return envelope.result(Some(disco()));
    }
    let ours = [ns::AGENT, ns::CMD].contains(&payload.ns().as_str());
    envelope.refuse(&if ours {
        Refused::new(DefinedCondition::Forbidden, "a console may only look around")
    } else {
        unknown(payload)
    })
}

fn agent(
    cloud: &Arc<Cloud>,
    session: &Arc<Session>,
    identity: &AgentIdentity,
    envelope: Envelope,
    payload: Element,
) -> Taken {
    let (name, namespace) = (payload.name().to_owned(), payload.ns());
    let (cloud, session, who) = (Arc::clone(cloud), Arc::clone(session), identity.clone());
    if payload::Hello::names(&payload) {
        return Taken::Later(Box::pin(hello(cloud, session, who, envelope, payload)));
    }
    let known = match namespace.as_str() {
        ns::AGENT => {
            ["health", "progress", "notice", "applied", "lease", "upload-request", "certificate-request"]
                .contains(&name.as_str())
        }
        ns::CMD => name == "report",
        _ => false,
    };
    if !known {
        return Taken::Now(envelope.refuse(&unknown(&payload)));
    }
    if session.hello().is_none() && name != "certificate-request" {
        let refused = Refused::new(DefinedCondition::UnexpectedRequest, "say hello first");
        return Taken::Now(envelope.refuse(&refused));
    }
    work(envelope, serve_agent(cloud, session, who, payload))
}

/// The requests of an agent that has said hello (a certificate it may ask for before).
async fn serve_agent(
    cloud: Arc<Cloud>,
    session: Arc<Session>,
    who: AgentIdentity,
    payload: Element,
) -> Result<Option<Element>, Failed> {
    match payload.name() {
        "report" => report(&cloud, &who, &payload).await?,
        "health" => sessions::health(&cloud, &session, &who, read(&payload)?).await?,
        "progress" => sessions::progress(&cloud, &who, read(&payload)?).await?,
        "notice" => sessions::notice(&cloud, &who, read(&payload)?).await?,
        "applied" => config::applied(&cloud, &session, &who, read(&payload)?).await?,
        "lease" => {
            let lease: payload::Lease = read(&payload)?;
            meet(&cloud, "lease", &lease.resource).await?;
            return Ok(Some(leases::serve(&cloud, &session, &who, lease).await?.to_element()));
        }
        "upload-request" => {
            let request: payload::UploadRequest = read(&payload)?;
            meet(&cloud, "upload", &request.source).await?;
            return Ok(Some(ingest::grant(&cloud, &who, request).await?.to_element()));
        }
        _ => return Ok(Some(enrollment::renew(&cloud, &who, read(&payload)?).await?.to_element())),
    }
    Ok(None)
}

async fn report(cloud: &Arc<Cloud>, who: &AgentIdentity, payload: &Element) -> Result<(), Failed> {
    let report: payload::Report = read(payload)?;
    meet(cloud, "report", &report.id).await?;
    actions::report(cloud, who, report).await?;
    Ok(())
}

async fn hello(
    cloud: Arc<Cloud>,
    session: Arc<Session>,
    who: AgentIdentity,
    envelope: Envelope,
    payload: Element,
) -> Effect {
    let taken = async {
        meet(&cloud, "bind", &who.instance).await?;
        let answer = sessions::hello(&cloud, &session, &who, read(&payload)?).await?;
        Ok::<_, Failed>(answer)
    };
    match taken.await {
        Ok((welcome, then)) => Effect::Answer(envelope.result(Some(welcome.to_element())), Some(then)),
        Err(failed) => failed.effect(&envelope),
    }
}

/// Why a request's work stopped.
#[derive(Debug)]
enum Failed {
    Refused(Refused),
    /// An injected fault cuts the connection.
    Cut,
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Failed {
    fn effect(self, envelope: &Envelope) -> Effect {
        match self {
            Self::Refused(refused) => Effect::Answer(envelope.refuse(&refused), None),
            Self::Cut => Effect::Cut,
        }
    }
}

fn work<F>(envelope: Envelope, work: F) -> Taken
where
    F: Future<Output = Result<Option<Element>, Failed>> + Send + 'static,
{
    let effect = async move {
        match work.await {
            Ok(payload) => Effect::Answer(envelope.result(payload), None),
            Err(failed) => failed.effect(&envelope),
        }
    };
    Taken::Later(Box::pin(effect))
}

/// Obeys the fault rules of this front end: `delay` and `stall` happen here, `close` cuts the connection, `status`
/// answers with a stanza error whose condition is the code.
async fn meet(cloud: &Cloud, operation: &str, subject: &str) -> Result<(), Failed> {
    match cloud.kit.faults.meet(&Point { front: FRONT, operation, subject }).await {
        None => Ok(()),
        Some(Fault::Status { code, message }) => {
            let element = Element::builder(code.as_str(), xmpp_parsers::ns::XMPP_STANZAS).build();
            let condition =
                DefinedCondition::try_from(element).unwrap_or(DefinedCondition::UndefinedCondition);
            Err(Failed::Refused(Refused::new(condition, message)))
        }
        Some(_) => Err(Failed::Cut),
    }
}

fn read<P: Payload>(payload: &Element) -> Result<P, Refused> {
    P::from_element(payload).map_err(|error| {
        let reason =
            std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Refused::new(DefinedCondition::NotAcceptable, format!("{error}{reason}"))
    })
}

fn unknown(payload: &Element) -> Refused {
    Refused::new(
        DefinedCondition::ServiceUnavailable,
        format!("<{}/> is not understood here", payload.name()),
    )
}

impl Envelope {
    fn result(&self, payload: Option<Element>) -> Box<Iq> {
        Box::new(Iq::Result { from: self.from.clone(), to: self.to.clone(), id: self.id.clone(), payload })
    }

    fn refuse(&self, refused: &Refused) -> Box<Iq> {
        let mut iq =
            refusal(&self.id, self.from.clone(), self.to.clone(), refused.condition.clone(), &refused.text);
        if let (Some(secs), Iq::Error { error, .. }) = (refused.retry_after_secs, &mut iq) {
            let after = xso::exports::rxml::xml_ncname!("after").to_owned();
            error.other = Some(Element::builder("retry", ns::AGENT).attr(after, secs.to_string()).build());
        }
        Box::new(iq)
    }
}

/// An error answer; the type follows from the condition (RFC 6120 §8.3.3).
pub(super) fn refusal(
    id: &str,
    from: Option<Jid>,
    to: Option<Jid>,
    condition: DefinedCondition,
    text: &str,
) -> Iq {
    let kind = match condition {
        DefinedCondition::BadRequest | DefinedCondition::NotAcceptable | DefinedCondition::JidMalformed => {
            ErrorType::Modify
        }
        DefinedCondition::Forbidden | DefinedCondition::NotAuthorized => ErrorType::Auth,
        DefinedCondition::ResourceConstraint
        | DefinedCondition::UnexpectedRequest
        | DefinedCondition::RecipientUnavailable
        | DefinedCondition::RemoteServerTimeout => ErrorType::Wait,
        _ => ErrorType::Cancel,
    };
    let error = StanzaError::new(kind, condition, "en", text);
    Iq::Error { from, to, id: id.to_owned(), error, payload: None }
}

/// XEP-0030.
fn disco() -> Element {
    let features = [xmpp_parsers::ns::DISCO_INFO, ns::PING, ns::SM, ns::AGENT, ns::CMD];
    DiscoInfoResult {
        node: None,
        identities: vec![Identity::new("server", "im", "en", "Causeway cloud")],
        features: features.iter().map(|&feature| feature.to_owned()).collect(),
        extensions: Vec::new(),
    }
    .into()
}

/// What an agent's refusal of an order means for the order.
pub(crate) fn error_report(error: &StanzaError) -> ErrorReport {
    use causeway_protocol::action::codes;
    let text = error.texts.values().next().cloned().unwrap_or_default();
    if let Some(report) = error.other.as_ref().and_then(|other| ErrorReport::from_element(other).ok()) {
        return report;
    }
    let (code, remedy) = match error.defined_condition {
        DefinedCondition::ServiceUnavailable | DefinedCondition::ItemNotFound => {
            (codes::UNKNOWN_MODULE, "Enable the module for this tenant or update the agent")
        }
        DefinedCondition::Conflict => (codes::DUPLICATE_ID, "Order the action again"),
        DefinedCondition::BadRequest | DefinedCondition::NotAcceptable => {
            (codes::BAD_PARAMETERS, "Check target and params of the action")
        }
        DefinedCondition::Forbidden | DefinedCondition::NotAllowed => {
            (codes::FORBIDDEN_LOCALLY, "Ask the customer to allow it in agent.toml")
        }
        DefinedCondition::ResourceConstraint => (codes::OVERLOADED, "Try again later or add an agent"),
        _ => (codes::INTERNAL, "See the agent's log"),
    };
    ErrorReport::new(code, text, remedy)
}

/// A journal entry of this front end.
pub(crate) fn journal(cloud: &Cloud, operation: &str, subject: &str, outcome: &str, detail: Value) {
    cloud.kit.journal.record(FRONT, operation, subject, outcome, detail);
}
