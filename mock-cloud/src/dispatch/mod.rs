//! Work from the API to the agents: actions (durable, carried until they end), requests (someone waits), desired
//! config (pushed until applied) and leases (who may collect).

pub(crate) mod actions;
mod choice;
pub(crate) mod config;
pub(crate) mod leases;
mod requests;
pub(crate) mod sessions;
mod submit;

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use thiserror::Error;
use tokio::sync::{Notify, Semaphore};

use crate::channel::registry::Session;
use crate::limits::ACTIONS_IN_FLIGHT_MAX;
use crate::pki::AgentIdentity;
use crate::state::Cloud;
use crate::store::StoreError;

pub use config::push_config;
pub use requests::{Authenticated, authenticate, request};
pub(crate) use submit::Draft;
pub use submit::{submit, submit_many};

/// Why an order is not taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// The idempotency key belongs to another order.
    #[error("idempotency key belongs to action {id}")]
    KeyReused {
        /// That action.
        id: String,
    },
    /// It could not be stored.
    #[error("store action")]
    Store(#[source] StoreError),
}

/// What dispatch keeps in memory; the truth is in the store.
pub struct Dispatch {
    /// Actions somebody carries at this moment: one carrier each.
    carried: Mutex<HashSet<String>>,
    /// Counts whatever may give a waiting action a chance: arrivals, leases, config, health.
    chances: AtomicU64,
    /// Actions between dispatch and acceptance.
    in_flight: Semaphore,
    /// Unix milliseconds of the deadline that is waited for.
    next_deadline_ms: AtomicI64,
    /// An action with an earlier deadline came.
    deadline_changed: Notify,
}

impl Default for Dispatch {
    fn default() -> Self {
        Self {
            carried: Mutex::default(),
            chances: AtomicU64::new(0),
            in_flight: Semaphore::new(ACTIONS_IN_FLIGHT_MAX),
            next_deadline_ms: AtomicI64::new(i64::MAX),
            deadline_changed: Notify::new(),
        }
    }
}

/// Starts what runs beside the sessions. Actions that an earlier process left wait in the store for their agents to
/// come back; what remains to be done for them is to watch their deadlines.
pub fn start(cloud: &Arc<Cloud>) {
    tokio::spawn(actions::watch_deadlines(Arc::clone(cloud)));
    tokio::spawn(sessions::watch_revocations(Arc::clone(cloud)));
}

/// An agent can work: configs it lacks are pushed, actions that wait are tried.
pub(crate) async fn agent_arrived(cloud: Arc<Cloud>, session: Arc<Session>) {
    let Some(identity) = session.identity.clone() else { return };
    config::push_all(&cloud, &session, &identity.tenant).await;
    try_waiting(&cloud, &identity.tenant).await;
}

/// Something changed that may let waiting actions of a tenant go.
pub(crate) async fn try_waiting(cloud: &Arc<Cloud>, tenant: &str) {
    cloud.dispatch.chances.fetch_add(1, Ordering::AcqRel);
    actions::carry_waiting(cloud, tenant).await;
}

/// An agent's session is gone. What it had accepted goes elsewhere after a grace, where repeating is safe.
pub(crate) async fn agent_left(cloud: Arc<Cloud>, identity: AgentIdentity) {
    let now_ms = cloud.now_ms();
    if let Err(error) = cloud.store.agent_seen(&identity.tenant, &identity.instance, now_ms).await {
        tracing::warn!(%error, "Last sign of life could not be stored");
    }
    tokio::select! {
        biased;
        () = cloud.kit.stop.cancelled() => return,
        () = tokio::time::sleep(cloud.config.channel.gone_after()) => {}
    }
    if cloud.sessions.get(&identity).is_none() {
        actions::take_from_lost(&cloud, &identity).await;
    }
}
