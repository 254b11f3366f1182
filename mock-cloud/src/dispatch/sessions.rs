//! What agents say of themselves: hello, health, progress, notices; and the end of those that were revoked.

use std::sync::Arc;

use causeway_protocol::channel::payload::{Health, Hello, Notice, Progress, Welcome};
use causeway_protocol::health::{ModuleHealth, Severity};
use futures_util::future::BoxFuture;
use serde_json::json;
use xmpp_parsers::stream_error::DefinedCondition as StreamCondition;

use crate::channel::inbound::{Refused, journal};
use crate::channel::outbound::Outgoing;
use crate::channel::registry::{Answer, Session};
use crate::channel::{self, stream_error};
use crate::events::kinds;
use crate::limits::REVOCATIONS_EVERY;
use crate::pki::AgentIdentity;
use crate::state::Cloud;

/// Code of the alert about a cloned agent.
const DUPLICATE_INSTANCE: &str = "duplicate_instance";

/// The answer to a hello, and what follows once it is on its way.
pub(crate) type Welcomed = (Welcome, BoxFuture<'static, ()>);

/// An agent's first word.
pub(crate) async fn hello(
    cloud: &Arc<Cloud>,
    session: &Arc<Session>,
    who: &AgentIdentity,
    hello: Hello,
) -> Result<Welcomed, Refused> {
    let twin = twin(cloud, session, who, &hello).await;
    if let Some(twin) = &twin {
        raise_duplicate(cloud, who, twin, session, &hello).await;
    }
    let store = |error| Refused::store(&error);
    let now_ms = cloud.now_ms();
    let freed = cloud
        .store
        .free_leases_of_earlier_boots(&who.tenant, &who.instance, &hello.boot_id)
        .await
        .map_err(store)?;
    let session_epoch =
        cloud.store.agent_hello(&who.tenant, &who.instance, hello.clone(), now_ms).await.map_err(store)?;
    let tenant = cloud.store.tenant(&who.tenant).await.map_err(store)?;
    session.said_hello(hello, session_epoch);
    if let Some(old) = cloud.sessions.come_online(session) {
        let text = match twin {
            None => "replaced by a newer connection of the same process".to_owned(),
            Some(_) => format!(
                "another process with this certificate has connected from {}; is one machine a copy of the other?",
                place(session)
            ),
        };
        old.end(stream_error(StreamCondition::Conflict, &text));
    }
    channel::online(cloud, session, "hello");
    if !freed.is_empty() {
        journal(cloud, "lease", &freed.join(" "), "freed by a new process", json!({ "agent": who.instance }));
    }
    let welcome = Welcome {
        time_ms: now_ms,
        session_epoch,
        health_every_secs: cloud.config.channel.health_every_secs,
        tenant: tenant.map(|tenant| tenant.name).unwrap_or_default(),
    };
    let then = super::agent_arrived(Arc::clone(cloud), Arc::clone(session));
    Ok((welcome, Box::pin(then)))
}

/// Another process of the same instance that is connected and alive. One that does not answer is a dead connection
/// nobody has noticed yet.
async fn twin(cloud: &Cloud, session: &Session, who: &AgentIdentity, hello: &Hello) -> Option<Arc<Session>> {
    let old = cloud.sessions.get(who).filter(|old| old.serial != session.serial)?;
    if old.hello().is_none_or(|old| old.boot_id == hello.boot_id) {
        return None;
    }
    let within = cloud.config.channel.clone_probe();
    let alive = matches!(old.ask(within, Outgoing::ping).await, Answer::Result(_) | Answer::Error(_));
    alive.then_some(old)
}

/// Host and address, as far as known.
fn place(session: &Session) -> String {
    let address = session.from().ip();
    match session.hello() {
        Some(hello) => format!("host {} ({address})", hello.host),
        None => address.to_string(),
    }
}

async fn raise_duplicate(cloud: &Cloud, who: &AgentIdentity, old: &Session, new: &Session, hello: &Hello) {
    let (old, new) = (place(old), format!("host {} ({})", hello.host, new.from().ip()));
    let detail = json!({ "old": old, "new": new, "boot_id": hello.boot_id });
    journal(cloud, "hello", &who.instance, "clone", detail);
    let notice = Notice {
        code: DUPLICATE_INSTANCE.to_owned(),
        severity: Severity::Critical,
        subject: who.instance.clone(),
        detail: format!(
            "two processes use this agent's certificate: one on {old}, and now one on {new}; the newer one is served"
        ),
        remedy: "If the machine was copied, enrol the copy again with a key of its own; otherwise revoke the agent"
            .to_owned(),
        resolved: false,
    };
    if let Err(error) = cloud.notice(&who.tenant, &who.instance, notice).await {
        tracing::error!(%error, "Alert could not be stored");
    }
}

/// A health report.
pub(crate) async fn health(
    cloud: &Arc<Cloud>,
    session: &Session,
    who: &AgentIdentity,
    health: Health,
) -> Result<(), Refused> {
    let before = session.said_health(health.clone());
    let changed: Vec<&ModuleHealth> = health
        .modules
        .iter()
        .filter(|now| {
            let before =
                before.iter().flat_map(|report| &report.modules).find(|was| was.module == now.module);
            before.is_none_or(|was| was.state != now.state)
        })
        .collect();
    for module in &changed {
        let body = json!({
            "agent": who.instance, "module": module.module, "state": module.state, "detail": module.detail,
        });
        cloud.events.emit(&who.tenant, kinds::MODULE_HEALTH, body);
    }
    let recovered = !changed.is_empty();
    let stored = cloud.store.agent_health(&who.tenant, &who.instance, health, cloud.now_ms()).await;
    stored.map_err(|error| Refused::store(&error))?;
    if recovered {
        let (cloud, tenant) = (Arc::clone(cloud), who.tenant.clone());
        tokio::spawn(async move { super::try_waiting(&cloud, &tenant).await });
    }
    Ok(())
}

/// How a collection goes.
pub(crate) async fn progress(cloud: &Cloud, who: &AgentIdentity, progress: Progress) -> Result<(), Refused> {
    let body = json!({
        "agent": who.instance, "resource": progress.resource, "phase": progress.phase, "done": progress.done,
        "total": progress.total, "finished": progress.finished, "counts": progress.counts,
    });
    let value = serde_json::to_value(&progress).unwrap_or_default();
    let stored = cloud
        .store
        .source_progress(&who.tenant, &progress.resource, &who.instance, value, cloud.now_ms())
        .await;
    stored.map_err(|error| Refused::store(&error))?;
    if progress.finished && progress.phase == "done" {
        let closed = cloud.collection_succeeded(&who.tenant, &progress.resource).await;
        closed.map_err(|error| Refused::store(&error))?;
    }
    cloud.events.emit(&who.tenant, kinds::PROGRESS, body);
    Ok(())
}

/// Something a person should know.
pub(crate) async fn notice(cloud: &Cloud, who: &AgentIdentity, notice: Notice) -> Result<(), Refused> {
    cloud.notice(&who.tenant, &who.instance, notice).await.map_err(|error| Refused::store(&error))
}

/// Ends the sessions of revoked agents, however they were revoked, until the cloud stops.
pub(super) async fn watch_revocations(cloud: Arc<Cloud>) {
    let mut tick = tokio::time::interval(REVOCATIONS_EVERY);
    loop {
        tokio::select! {
            biased;
            () = cloud.kit.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        match cloud.store.revoked_agents().await {
            Ok(revoked) => {
                let identity = |(tenant, instance)| AgentIdentity { tenant, instance };
                channel::evict(&cloud, &revoked.into_iter().map(identity).collect());
            }
            Err(error) => tracing::error!(%error, "Revocations could not be read"),
        }
    }
}
