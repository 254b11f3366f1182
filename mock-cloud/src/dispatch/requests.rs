//! Requests: someone waits for the answer, nothing is stored, and a password is tried at most once.

use std::sync::Arc;
use std::time::Duration;

use causeway_mock_kit::fault::{Fault, Point};
use causeway_protocol::Secret;
use causeway_protocol::action::{ErrorReport, codes};
use causeway_protocol::auth::{self, AuthOutcome, AuthReply, AuthRequest};
use causeway_protocol::channel::payload::{Payload as _, Reply, Request};
use causeway_protocol::limits::{AUTHENTICATE_WITHIN, PASSWORD_MAX_BYTES, USERNAME_MAX_BYTES};
use serde_json::Value;
use tokio::time::Instant;
use xmpp_parsers::stanza_error::{DefinedCondition, StanzaError};

use super::choice::instance_of;
use crate::channel::FRONT;
use crate::channel::inbound::error_report;
use crate::channel::registry::{Answer, Session};
use crate::limits::AGENTS_TRIED_MAX;
use crate::state::Cloud;

/// A verdict, and who gave it after how long.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The agent's words.
    pub reply: AuthReply,
    /// Instance id of the agent that was asked, if one was.
    pub agent: Option<String>,
    /// Milliseconds from the call.
    pub elapsed_ms: u64,
}

/// Has a password checked by one agent of the tenant, within [`AUTHENTICATE_WITHIN`]. A second agent is asked only
/// when the first one certainly did not try: it never got the request, or refused it unseen for want of room.
pub async fn authenticate(cloud: &Arc<Cloud>, tenant: &str, request: AuthRequest) -> Authenticated {
    let began = Instant::now();
    let (reply, agent) = verdict(cloud, tenant, &request, began).await;
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Authenticated { reply, agent, elapsed_ms }
}

async fn verdict(
    cloud: &Cloud,
    tenant: &str,
    request: &AuthRequest,
    began: Instant,
) -> (AuthReply, Option<String>) {
    let (name, password) = (request.username.as_str(), request.password.expose());
    // An empty password is an unauthenticated bind (RFC 4513 §5.1.2), which succeeds for everyone.
    let hopeless = name.is_empty()
        || password.is_empty()
        || name.len() > USERNAME_MAX_BYTES
        || password.len() > PASSWORD_MAX_BYTES;
    if hopeless {
        return (plain(AuthOutcome::BadCredentials), None);
    }
    let body = auth::encode_request(request);
    let mut detail = "no agent of this tenant is online with user_auth running".to_owned();
    let fit = cloud.sessions.fit_for(tenant, auth::MODULE);
    for session in fit.iter().take(AGENTS_TRIED_MAX) {
        let Some(left) = AUTHENTICATE_WITHIN.checked_sub(began.elapsed()) else { break };
        let agent = instance_of(session).map(str::to_owned);
        let request = Request {
            module: auth::MODULE.to_owned(),
            request: auth::REQUEST.to_owned(),
            ttl_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            body: body.clone(),
        };
        match ask(cloud, session, request, left).await {
            Asked::Answer(value) => {
                let who = agent.as_deref().unwrap_or_default();
                let strange = || unavailable(format!("agent {who} answered something else than a verdict"));
                return (serde_json::from_value(value).unwrap_or_else(|_| strange()), agent);
            }
            Asked::Untried(why) => detail = why,
            Asked::Refused(error) => return (unavailable(error.detail), agent),
            Asked::Unknown(why) => return (unavailable(why), agent),
        }
    }
    (unavailable(detail), None)
}

/// Asks one agent of the tenant something that nobody stores, and gives its answer and which agent it was. A second agent is
/// asked only when the first one certainly did not look at it.
///
/// # Errors
/// What the agent says, or why there is no answer.
pub async fn request(
    cloud: &Cloud,
    tenant: &str,
    (module, request): (&str, &str),
    body: Secret,
    within: Duration,
) -> Result<(String, Value), ErrorReport> {
    let began = Instant::now();
    let remedy = "Bring an agent with this module online and healthy, then try again";
    let nobody = format!("no agent of this tenant is online with {module} running");
    let mut error = ErrorReport::new(codes::NO_AGENT, nobody, remedy);
    for session in cloud.sessions.fit_for(tenant, module).iter().take(AGENTS_TRIED_MAX) {
        let Some(left) = within.checked_sub(began.elapsed()) else { break };
        let request = Request {
            module: module.to_owned(),
            request: request.to_owned(),
            ttl_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            body: body.clone(),
        };
        match ask(cloud, session, request, left).await {
            Asked::Answer(value) => return Ok((instance_of(session).unwrap_or_default().to_owned(), value)),
            Asked::Untried(why) => error = ErrorReport::new(codes::OVERLOADED, why, remedy),
            Asked::Refused(refused) => return Err(refused),
            Asked::Unknown(why) => return Err(ErrorReport::new(codes::UNKNOWN_OUTCOME, why, "Try again")),
        }
    }
    Err(error)
}

enum Asked {
    Answer(Value),
    /// The agent certainly did not look at it.
    Untried(String),
    /// It looked and says no.
    Refused(ErrorReport),
    /// It may have.
    Unknown(String),
}

async fn ask(cloud: &Cloud, session: &Session, request: Request, left: Duration) -> Asked {
    let agent = instance_of(session).unwrap_or_default();
    let point = Point { front: FRONT, operation: "request", subject: agent };
    match tokio::time::timeout(left, cloud.kit.faults.meet(&point)).await {
        Ok(None) => {}
        Ok(Some(Fault::Status { message, .. })) => return Asked::Unknown(message),
        Ok(Some(_)) => return Asked::Unknown("the request was lost".to_owned()),
        Err(_) => return Asked::Unknown("the agent did not answer in time".to_owned()),
    }
    match session.request(request, left).await {
        Answer::Result(Some(payload)) => match Reply::from_element(&payload) {
            Ok(Reply::Answer(value)) => Asked::Answer(value),
            Ok(Reply::Error(error)) if error.code == codes::OVERLOADED => Asked::Untried(error.detail),
            Ok(Reply::Error(error)) => Asked::Refused(error),
            Err(_) => Asked::Unknown(format!("agent {agent} answered something unreadable")),
        },
        Answer::Result(None) => Asked::Unknown(format!("agent {agent} gave an empty answer")),
        Answer::Error(error) => refused(&error),
        Answer::Undelivered => Asked::Untried(format!("agent {agent} is gone")),
        Answer::Lost => Asked::Unknown(format!("agent {agent} was lost before it answered")),
        Answer::TimedOut => Asked::Unknown(format!("agent {agent} did not answer in time")),
    }
}

/// Conditions with which an agent refuses before it looks inside.
fn refused(error: &StanzaError) -> Asked {
    let report = error_report(error);
    match error.defined_condition {
        DefinedCondition::ResourceConstraint | DefinedCondition::ServiceUnavailable => {
            Asked::Untried(report.detail)
        }
        _ => Asked::Refused(report),
    }
}

fn plain(outcome: AuthOutcome) -> AuthReply {
    AuthReply { outcome, user: None, server: None, detail: None }
}

fn unavailable(detail: String) -> AuthReply {
    AuthReply { detail: Some(detail), ..plain(AuthOutcome::Unavailable) }
}
