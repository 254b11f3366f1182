//! What happens, as it happens: stored in order, then fanned out to live feeds.
//!
//! [`Events::emit`] never waits. A single task numbers and stores what is queued, many at a time, and only then
//! shows it to live feeds, so a feed that reconnects with the last number it saw misses nothing and sees nothing twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use causeway_mock_kit::Clock;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};

use crate::limits::{EVENT_FANOUT, EVENT_QUEUE, EVENT_WRITE_MAX};
use crate::store::{Event, Store};

/// Kinds of events; the bounded set that feeds and the portal know.
pub mod kinds {
    /// An agent's session counts now: `{agent, host, version, session_epoch}`.
    pub const AGENT_ONLINE: &str = "agent_online";
    /// An agent's session is gone: `{agent, host, reason}`.
    pub const AGENT_OFFLINE: &str = "agent_offline";
    /// A key was used up and an agent exists: `{agent, host}`.
    pub const AGENT_ENROLLED: &str = "agent_enrolled";
    /// An agent may not come back: `{agent}`.
    pub const AGENT_REVOKED: &str = "agent_revoked";
    /// A module's health changed: `{agent, module, state, detail}`.
    pub const MODULE_HEALTH: &str = "module_health";
    /// Someone changed desired config: `{module, revision}`.
    pub const CONFIG_CHANGED: &str = "config_changed";
    /// An agent tried a revision: `{agent, module, revision, running, error?}`.
    pub const CONFIG_APPLIED: &str = "config_applied";
    /// A collection goes on: `{agent, resource, phase, done, total?, finished}`.
    pub const PROGRESS: &str = "progress";
    /// An upload is applied: `{upload, source, mode, epoch, upserts, deletes, agent}`.
    pub const UPLOAD_COMMITTED: &str = "upload_committed";
    /// An upload was refused: `{upload, source, reason}`.
    pub const UPLOAD_REFUSED: &str = "upload_refused";
    /// A lease went to another agent: `{resource, holder, fence}`.
    pub const LEASE: &str = "lease";
    /// An action changed: `{action, module, verb, status, step, agent?}`.
    pub const ACTION: &str = "action";
    /// Device management enrolled, changed or forgot a phone: `{enrolled, user, compliant?}`.
    pub const ENROLLED: &str = "enrolled_changed";
    /// The compliance rule has looked at the phones: `{changes, ordered, held, dry_run}`.
    pub const COMPLIANCE: &str = "compliance";
    /// A request for a certificate went a step further, or a certificate ended: `{request?, certificate?, device, user,
    /// profile, step}`.
    pub const CERTIFICATE: &str = "certificate";
    /// An alert was opened: `{alert, code, severity, subject, detail}`.
    pub const ALERT_OPENED: &str = "alert_opened";
    /// An alert was closed: the same body.
    pub const ALERT_CLOSED: &str = "alert_closed";
    /// Password checks of the last second by outcome: `{ok: 3, bad_credentials: 1}`. No names.
    pub const AUTHENTICATE: &str = "authenticate";
}

/// Takes events and hands them out; a cheap clone.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    queue: mpsc::Sender<Event>,
    live: broadcast::Sender<Arc<Event>>,
    clock: Clock,
    dropped: AtomicU64,
}

impl Events {
    /// Starts the storing task; it ends when the last clone is gone.
    pub fn start(store: Store, clock: Clock) -> Self {
        let (queue, waiting) = mpsc::channel(EVENT_QUEUE);
        let (live, _) = broadcast::channel(EVENT_FANOUT);
        tokio::spawn(store_and_fan_out(store, waiting, live.clone()));
        Self(Arc::new(Inner { queue, live, clock, dropped: AtomicU64::new(0) }))
    }

    /// Announces something. Never waits; beyond the queue's limit events are lost and counted (the rows they tell of
    /// are not).
    pub fn emit(&self, tenant: &str, kind: &'static str, body: Value) {
        let event = Event {
            seq: 0,
            tenant: tenant.to_owned(),
            kind: kind.to_owned(),
            at_ms: self.0.clock.now_ms(),
            body,
        };
        if self.0.queue.try_send(event).is_err() {
            let dropped = self.0.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(count = dropped, "Event queue is full, events are lost");
            }
        }
    }

    /// Everything stored from now on, of all tenants.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.live.subscribe()
    }

    /// Events lost since the start.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

async fn store_and_fan_out(
    store: Store,
    mut waiting: mpsc::Receiver<Event>,
    live: broadcast::Sender<Arc<Event>>,
) {
    let mut batch = Vec::with_capacity(EVENT_WRITE_MAX);
    while waiting.recv_many(&mut batch, EVENT_WRITE_MAX).await > 0 {
        match store.append_events(std::mem::take(&mut batch)).await {
            Ok(stored) => {
                for event in stored {
                    // An error only means that no feed is open.
                    let _ = live.send(Arc::new(event));
                }
            }
            Err(error) => tracing::error!(%error, "Events could not be stored"),
        }
    }
}
