//! What every part of the cloud shares.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use causeway_mock_kit::KitContext;
use causeway_protocol::auth::AuthOutcome;
use causeway_protocol::health::Notice;
use tokio::sync::Notify;

use crate::access::Access;
use crate::config::Config;
use crate::events::{Events, kinds};
use crate::ids::Ids;
use crate::limits::VERDICT_EVENT_EVERY;
use crate::store::{Alert, AlertChange, Store, StoreError};

/// The cloud's state, shared as `Arc<Cloud>`.
pub struct Cloud {
    /// What survives a restart.
    pub store: Store,
    /// What happens, live.
    pub events: Events,
    /// Faults, journal, clock and stop signal.
    pub kit: KitContext,
    /// Settings.
    pub config: Config,
    /// Names of streams, sessions and agents.
    pub ids: Ids,
    /// Who may use the API.
    pub access: Access,
    /// Wakes those who wait for an action.
    pub actions_changed: Changes,
    /// Verdicts of password checks since the last event.
    pub verdicts: Verdicts,
    /// One permit per live feed.
    pub feeds: Arc<tokio::sync::Semaphore>,
    /// Known once the public port is bound.
    pub(crate) public_url: std::sync::OnceLock<String>,
    /// Who is online.
    pub sessions: crate::channel::registry::Sessions,
    /// Who may come in, and when.
    pub admission: crate::admission::Admission,
    /// Work on its way to agents.
    pub dispatch: crate::dispatch::Dispatch,
    /// Tenants whose phones the compliance rule must look at.
    pub compliance: crate::mobile::compliance::Compliance,
    /// Tenants whose devices' certificates must be looked at.
    pub certificates: crate::certificates::Certificates,
    /// Slows guessing of passwords at devices' enrolment.
    pub(crate) device_sign_ins: crate::portal::SignInLimits,
    /// The certificate authority.
    pub pki: crate::pki::CloudPki,
    /// Makes the answers about unknown accounts always the same ones (RFC 5802 §5.1).
    pub(crate) scram_seed: [u8; 16],
}

impl Cloud {
    /// Unix milliseconds by the cloud's clock.
    pub fn now_ms(&self) -> i64 {
        self.kit.clock.now_ms()
    }

    /// `https://host:port` of the public port, as agents are told at enrolment.
    pub fn public_url(&self) -> String {
        self.public_url.get().cloned().unwrap_or_default()
    }

    /// Opens, repeats or closes an alert and tells the live feeds. `agent` is empty for the cloud's own.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn notice(&self, tenant: &str, agent: &str, notice: Notice) -> Result<(), StoreError> {
        match self.store.notice(tenant, agent, notice, self.now_ms()).await? {
            AlertChange::Opened(alert) => self.events.emit(tenant, kinds::ALERT_OPENED, alert_body(&alert)),
            AlertChange::Closed(alert) => self.events.emit(tenant, kinds::ALERT_CLOSED, alert_body(&alert)),
            AlertChange::Repeated(_) | AlertChange::Nothing => {}
        }
        Ok(())
    }

    /// A collection succeeded: what another agent reported of an earlier failure of it is over.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn collection_succeeded(&self, tenant: &str, resource: &str) -> Result<(), StoreError> {
        let closed = self.store.close_alerts(tenant, "sync_failed", resource, self.now_ms()).await?;
        for alert in closed {
            self.events.emit(tenant, kinds::ALERT_CLOSED, alert_body(&alert));
        }
        Ok(())
    }

    /// Tells live feeds and waiting API calls that an action went a step further. Call it after the commit.
    pub fn action_changed(&self, tenant: &str, id: &str, body: serde_json::Value) {
        self.events.emit(tenant, kinds::ACTION, body);
        self.actions_changed.changed(id);
    }

    /// Turns counted verdicts into one event per tenant and second, until the cloud stops.
    pub(crate) async fn emit_verdicts(self: Arc<Self>) {
        let mut tick = tokio::time::interval(VERDICT_EVENT_EVERY);
        loop {
            tokio::select! {
                biased;
                () = self.kit.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            for (tenant, counts) in self.verdicts.take() {
                self.events.emit(&tenant, kinds::AUTHENTICATE, serde_json::json!(counts));
            }
        }
    }
}

fn alert_body(alert: &Alert) -> serde_json::Value {
    serde_json::json!({
        "alert": alert.id, "agent": alert.agent, "code": alert.code, "severity": alert.severity,
        "subject": alert.subject, "detail": alert.detail,
    })
}

/// Wakes whoever waits for one of many things to change.
#[derive(Default)]
pub struct Changes(Mutex<HashMap<String, Waiters>>);

#[derive(Default)]
struct Waiters {
    waiting: usize,
    notify: Arc<Notify>,
}

impl Changes {
    /// Begins to watch `key`. Look at the thing only after this, then wait, then look again: no change is missed.
    pub fn watch(&self, key: &str) -> Watch<'_> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiters = map.entry(key.to_owned()).or_default();
        waiters.waiting += 1;
        Watch { changes: self, key: key.to_owned(), notify: Arc::clone(&waiters.notify) }
    }

    /// Wakes everyone who watches `key`.
    pub fn changed(&self, key: &str) {
        if let Some(waiters) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            waiters.notify.notify_waiters();
        }
    }
}

/// One who watches.
pub struct Watch<'a> {
    changes: &'a Changes,
    key: String,
    notify: Arc<Notify>,
}

impl Watch<'_> {
    /// Resolves at the next change after this call. Create the future before looking and await it afterwards.
    pub fn next_change(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut map = self.changes.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiters) = map.get_mut(&self.key) {
            waiters.waiting -= 1;
            if waiters.waiting == 0 {
                map.remove(&self.key);
            }
        }
    }
}

/// Verdicts by tenant and outcome since they were last taken.
#[derive(Default)]
pub struct Verdicts(Mutex<BTreeMap<String, BTreeMap<&'static str, u64>>>);

impl Verdicts {
    /// Counts one.
    pub fn count(&self, tenant: &str, outcome: AuthOutcome) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !map.contains_key(tenant) {
            map.insert(tenant.to_owned(), BTreeMap::new());
        }
        if let Some(counts) = map.get_mut(tenant) {
            *counts.entry(outcome.as_str()).or_default() += 1;
        }
    }

    fn take(&self) -> BTreeMap<String, BTreeMap<&'static str, u64>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_between_looking_and_waiting_is_not_missed() {
        let changes = Changes::default();
        let watch = changes.watch("a");
        let next = watch.next_change();
        changes.changed("a");
        tokio::time::timeout(std::time::Duration::from_secs(5), next).await.unwrap();
        drop(watch);
        assert!(changes.0.lock().unwrap().is_empty(), "nobody watches, nothing is kept");
    }
}
