//! Who is to be looked at again, and when.

use std::collections::HashMap;

use causeway_mock_kit::Clock;

use crate::limits::STORE_PAUSE;

/// The next look at each tenant, Unix milliseconds by the cloud's clock.
#[derive(Default)]
pub(crate) struct Due(HashMap<String, i64>);

impl Due {
    /// Tenants whose time has come.
    pub(crate) fn at(&self, now_ms: i64) -> impl Iterator<Item = &String> {
        self.0.iter().filter(move |(_, at_ms)| **at_ms <= now_ms).map(|(tenant, _)| tenant)
    }

    /// After a look: the next one, if time alone brings it.
    pub(crate) fn set(&mut self, tenant: String, next_ms: Option<i64>) {
        match next_ms {
            Some(next_ms) => self.0.insert(tenant, next_ms),
            None => self.0.remove(&tenant),
        };
    }

    /// After a look that failed: again after a pause.
    pub(crate) fn set_failed(&mut self, tenant: String, now_ms: i64) {
        let pause_ms = i64::try_from(STORE_PAUSE.as_millis()).unwrap_or(i64::MAX);
        self.0.insert(tenant, now_ms.saturating_add(pause_ms));
    }

    /// Waits for the first of them; for ever when there is none.
    pub(crate) async fn wait(&self, clock: &Clock) {
        match self.0.values().min() {
            Some(next_ms) => clock.sleep_until_ms(*next_ms).await,
            None => std::future::pending().await,
        }
    }
}
