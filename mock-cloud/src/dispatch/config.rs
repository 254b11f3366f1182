//! Desired config on its way to agents: sent when it changes and when an agent comes, until the agent runs it.

use std::sync::Arc;

use causeway_protocol::channel::payload::{Applied, Configure, Payload as _};
use causeway_protocol::limits::IQ_WITHIN;
use xmpp_parsers::stanza_error::ErrorType;

use crate::channel::inbound::{Refused, journal};
use crate::channel::outbound::Outgoing;
use crate::channel::registry::{Answer, Session};
use crate::events::kinds;
use crate::limits::CONFIG_AGAIN_AFTER;
use crate::pki::AgentIdentity;
use crate::state::Cloud;

/// Sends a module's current config to every agent of the tenant that is online and does not run it yet. Returns
/// without waiting for them.
pub async fn push_config(cloud: &Arc<Cloud>, tenant: &str, module: &str) {
    let config = match cloud.store.config(tenant, module).await {
        Ok(Some(config)) => config,
        Ok(None) => return,
        Err(error) => return tracing::error!(%error, "Config could not be read"),
    };
    for session in cloud.sessions.of_tenant(tenant) {
        tokio::spawn(push(Arc::clone(cloud), session, config.clone()));
    }
}

/// Sends an agent every config it lacks, one after the other.
pub(super) async fn push_all(cloud: &Arc<Cloud>, session: &Arc<Session>, tenant: &str) {
    let configs = match cloud.store.configs(tenant).await {
        Ok(configs) => configs,
        Err(error) => return tracing::error!(%error, "Configs could not be read"),
    };
    for config in configs {
        push(Arc::clone(cloud), Arc::clone(session), config).await;
    }
}

/// Sends an agent a config. What may be taken later is sent again by a task of its own, so that neither the agent's
/// other configs nor its actions wait for it.
async fn push(cloud: Arc<Cloud>, session: Arc<Session>, config: Configure) {
    let Some(identity) = session.identity.clone() else { return };
    let push = session.begin_push(&config.module);
    if push_once(&cloud, &session, &identity, &config).await == Pushed::NotNow {
        tokio::spawn(push_again(cloud, session, identity, config.module, push));
    }
}

/// Sends an agent a module's newest config until it is decided, the connection is gone, or a later push of the same
/// module looks after it.
async fn push_again(cloud: Arc<Cloud>, session: Arc<Session>, who: AgentIdentity, module: String, push: u64) {
    loop {
        tokio::select! {
            biased;
            () = cloud.kit.stop.cancelled() => return,
            () = tokio::time::sleep(CONFIG_AGAIN_AFTER) => {}
        }
        if !session.is_attached() || !session.is_latest_push(&module, push) {
            return;
        }
        match cloud.store.config(&who.tenant, &module).await {
            Ok(Some(config)) => {
                if push_once(&cloud, &session, &who, &config).await == Pushed::Decided {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => tracing::error!(%error, "Config could not be read"),
        }
    }
}

/// What came of sending a config once.
#[derive(PartialEq, Eq)]
enum Pushed {
    /// Nothing is left to do on this connection.
    Decided,
    /// The agent could not take it now, and its connection is still there.
    NotNow,
}

async fn push_once(cloud: &Cloud, session: &Session, who: &AgentIdentity, config: &Configure) -> Pushed {
    if config.revision <= session.running(&config.module) || !session.knows(&config.module) {
        return Pushed::Decided;
    }
    let payload = Box::new(config.to_element());
    let answer = session.ask(IQ_WITHIN, |id| Outgoing::Ask { id, payload, get: false }).await;
    let (outcome, pushed) = match answer {
        Answer::Result(_) => ("taken", Pushed::Decided),
        // RFC 6120 §8.3.2: the same may succeed after waiting; the agent's disk was full, say.
        Answer::Error(error) if error.type_ == ErrorType::Wait => ("refused for now", Pushed::NotNow),
        Answer::Error(_) => ("refused", Pushed::Decided),
        Answer::TimedOut | Answer::Undelivered if session.is_attached() => ("no answer", Pushed::NotNow),
        // The agent is sent it again when it comes back.
        Answer::TimedOut | Answer::Undelivered | Answer::Lost => ("no answer", Pushed::Decided),
    };
    let detail = serde_json::json!({ "agent": who.instance, "revision": config.revision });
    journal(cloud, "configure", &config.module, outcome, detail);
    pushed
}

/// An agent has tried a revision.
pub(crate) async fn applied(
    cloud: &Arc<Cloud>,
    session: &Session,
    who: &AgentIdentity,
    applied: Applied,
) -> Result<(), Refused> {
    session.said_applied(&applied);
    let body = serde_json::json!({
        "agent": who.instance, "module": applied.module, "revision": applied.revision,
        "running": applied.running, "error": applied.error,
    });
    cloud
        .store
        .config_applied(&who.tenant, &who.instance, applied, cloud.now_ms())
        .await
        .map_err(|error| Refused::store(&error))?;
    cloud.events.emit(&who.tenant, kinds::CONFIG_APPLIED, body);
    let (cloud, tenant) = (Arc::clone(cloud), who.tenant.clone());
    tokio::spawn(async move { super::try_waiting(&cloud, &tenant).await });
    Ok(())
}
