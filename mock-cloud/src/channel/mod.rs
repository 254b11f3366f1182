//! The channel's server: XMPP streams (RFC 6120) from agents, with stream management (XEP-0198).
//!
//! A connection goes through `login` (who is it), `session` (the loop), `inbound` (what it asks for); `registry` is
//! where the rest of the cloud finds it.

pub(crate) mod inbound;
pub(crate) mod login;
pub mod outbound;
pub mod registry;
pub mod scram;
mod session;
pub(crate) mod websocket;
pub(crate) mod wire;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::limits::ELEMENT_PRE_AUTH_MAX_BYTES;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use xmpp_parsers::stream_error::{DefinedCondition, StreamError};

use crate::dispatch;
use crate::events::kinds;
use crate::limits::SHUTDOWN_POLL;
use crate::pki::AgentIdentity;
use crate::state::Cloud;
use login::NoLogin;
use registry::{Detached, Session};
use wire::Metered;

/// Name of this front end in fault rules and in the journal.
pub(crate) const FRONT: &str = "channel";

/// Who is at the other end of a stream, as far as the connection shows it.
pub(crate) struct Caller {
    /// The certificate it presented, leaf first; empty for none. Not judged yet.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Where it comes from; a proxy's address when there is one between.
    pub(crate) from: SocketAddr,
    /// Its place among those who have not logged in.
    pub(crate) slot: OwnedSemaphorePermit,
}

/// Serves one connection whose TLS is done and whose protocol is XMPP.
pub(crate) async fn serve<S>(cloud: Arc<Cloud>, io: S, caller: Caller)
where
    S: AsyncBufRead + AsyncWrite + Unpin + Send,
{
    let Caller { chain, from, slot } = caller;
    let mut io = Metered::new(io, ELEMENT_PRE_AUTH_MAX_BYTES);
    let within = cloud.config.channel.login_within();
    // Boxed, so that the state of a login does not stay in the task of an idle session.
    let login = Box::pin(tokio::time::timeout(within, login::login(&cloud, &mut io, &chain))).await;
    drop((chain, slot));
    let error = match login {
        Ok(Ok(login)) => return session::run(cloud, login, from).await,
        Ok(Err(NoLogin::Ended)) => return,
        Ok(Err(NoLogin::Header(error))) => error,
        // The stream may be in any state, so the deadline just closes the connection.
        Err(_) => return,
    };
    let refusal = Box::pin(login::refuse_header(&mut io, &cloud.config.domain, &error));
    let _ = tokio::time::timeout(crate::limits::GOODBYE_WITHIN, refusal).await;
}

/// Ends every session of these agents at once, because they were revoked.
pub fn evict(cloud: &Cloud, revoked: &HashSet<AgentIdentity>) {
    cloud.sessions.evict(revoked, || stream_error(DefinedCondition::NotAuthorized, "the agent is revoked"));
}

/// Tells every peer that the cloud stops, and waits until they are gone or `within` is over.
pub async fn shut_down(cloud: &Cloud, within: Duration) {
    let (restarting, agents) = (DefinedCondition::SystemShutdown, cloud.sessions.connections());
    let farewell = cloud.admission.come_back_later(restarting, "the cloud is restarting", agents);
    cloud.sessions.end_all(|| farewell.clone());
    let gone = async {
        while cloud.sessions.connections() > 0 {
            tokio::time::sleep(SHUTDOWN_POLL).await;
        }
    };
    let _ = tokio::time::timeout(within, gone).await;
}

/// Sends every connected agent to another address (`host[:port]`), spread over time so that it is no crowd that
/// arrives there. Returns how many. A session that is resumed meanwhile stays; drain again.
pub fn drain(cloud: &Arc<Cloud>, to: &str, over: Duration) -> usize {
    let sessions = cloud.sessions.connected_agents();
    let count = sessions.len();
    for session in sessions {
        let wait = over.mul_f64(f64::from(rand::random::<u32>()) / f64::from(u32::MAX));
        let (stop, to) = (cloud.kit.stop.clone(), to.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            session.end(stream_error(DefinedCondition::SeeOtherHost(to), "this node is being emptied"));
        });
    }
    count
}

/// A stream error with a sentence.
pub(crate) fn stream_error(condition: DefinedCondition, text: &str) -> StreamError {
    StreamError::new(condition, "en", text)
}

/// A session lost its connection and may be resumed for a while. It counts as offline meanwhile.
fn detached(cloud: &Arc<Cloud>, id: String, state: Detached) {
    let session = Arc::clone(&state.session);
    cloud.sessions.detach(&id, state);
    offline(cloud, &session, "connection lost");
    let keep = Duration::from_secs(u64::from(cloud.config.channel.resume_secs));
    let cloud = Arc::clone(cloud);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = cloud.kit.stop.cancelled() => {}
            () = tokio::time::sleep(keep) => cloud.sessions.expire(&id),
        }
    });
}

/// A session is over.
fn ended(cloud: &Arc<Cloud>, session: &Arc<Session>, reason: &str) {
    offline(cloud, session, reason);
}

/// A cut session has a connection again.
fn resumed(cloud: &Arc<Cloud>, session: &Arc<Session>) {
    if session.hello().is_none() {
        return;
    }
    cloud.sessions.come_online(session);
    online(cloud, session, "resumed");
    tokio::spawn(dispatch::agent_arrived(Arc::clone(cloud), Arc::clone(session)));
}

/// Tells the world that an agent's session counts.
pub(crate) fn online(cloud: &Cloud, session: &Session, how: &str) {
    let (Some(identity), Some(hello)) = (&session.identity, session.hello()) else { return };
    cloud.kit.journal.record(FRONT, "online", &identity.instance, how, serde_json::Value::Null);
    let body = serde_json::json!({
        "agent": identity.instance, "host": hello.host, "version": hello.version, "session_epoch": session.epoch(),
    });
    cloud.events.emit(&identity.tenant, kinds::AGENT_ONLINE, body);
}

fn offline(cloud: &Arc<Cloud>, session: &Arc<Session>, reason: &str) {
    if !cloud.sessions.go_offline(session) {
        return;
    }
    let Some(identity) = session.identity.clone() else { return };
    cloud.kit.journal.record(FRONT, "offline", &identity.instance, reason, serde_json::Value::Null);
    let host = session.hello().map(|hello| hello.host).unwrap_or_default();
    let body = serde_json::json!({ "agent": identity.instance, "host": host, "reason": reason });
    cloud.events.emit(&identity.tenant, kinds::AGENT_OFFLINE, body);
    if cloud.kit.stop.is_cancelled() {
        return;
    }
    tokio::spawn(dispatch::agent_left(Arc::clone(cloud), identity));
}
