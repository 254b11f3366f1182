//! Desired config on its way to agents: sent when it changes and when an agent comes, until the agent runs it.

use std::sync::Arc;

use causeway_protocol::channel::payload::{Applied, Configure, Payload as _};
use causeway_protocol::limits::IQ_WITHIN;

use crate::channel::inbound::{Refused, journal};
use crate::channel::outbound::Outgoing;
use crate::channel::registry::{Answer, Session};
use crate::events::kinds;
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

async fn push(cloud: Arc<Cloud>, session: Arc<Session>, config: Configure) {
    let Some(identity) = session.identity.clone() else { return };
    if config.revision <= session.running(&config.module) || !session.knows(&config.module) {
        return;
    }
    let payload = Box::new(config.to_element());
    let answer = session.ask(IQ_WITHIN, |id| Outgoing::Ask { id, payload, get: false }).await;
    let outcome = match answer {
        Answer::Result(_) => "taken",
        Answer::Error(_) => "refused",
        // The agent is sent it again when it comes back.
        Answer::Undelivered | Answer::Lost | Answer::TimedOut => "no answer",
    };
    let detail = serde_json::json!({ "agent": identity.instance, "revision": config.revision });
    journal(&cloud, "configure", &config.module, outcome, detail);
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
