//! Proxies that failed lately go to the end of the list for a while, so that a dead one does not hold up every
//! connection; afterwards they are tried in their place again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::{ProxyServer, Route};
use crate::limits::{FAILING_PROXIES_MAX, PROXY_AVOIDED_FOR};

/// Who failed until when.
#[derive(Default)]
pub struct Failing(Mutex<HashMap<ProxyServer, Instant>>);

impl Failing {
    /// The same routes; proxies that failed lately last, each group in its order. They stay in the list: when all fail,
    /// the one that failed longest ago may be the one that works again.
    pub fn order(&self, routes: Vec<Route>) -> Vec<Route> {
        let mut avoided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        avoided.retain(|_, until| *until > now);
        let (last, first): (Vec<Route>, Vec<Route>) = routes
            .into_iter()
            .partition(|route| matches!(route, Route::Proxy(server) if avoided.contains_key(server)));
        first.into_iter().chain(last).collect()
    }

    /// Whether a route is being avoided.
    pub fn avoids(&self, route: &Route) -> bool {
        let Route::Proxy(server) = route else { return false };
        let avoided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.get(server).is_some_and(|until| *until > Instant::now())
    }

    /// A proxy failed. Going straight is never held against anyone.
    pub fn failed(&self, route: &Route) {
        let Route::Proxy(server) = route else { return };
        let mut avoided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if avoided.len() < FAILING_PROXIES_MAX || avoided.contains_key(server) {
            avoided.insert(server.clone(), Instant::now() + PROXY_AVOIDED_FOR);
        }
    }

    /// A proxy works.
    pub fn worked(&self, route: &Route) {
        let Route::Proxy(server) = route else { return };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }

    /// Settings or network have changed: everybody gets a new chance.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_proxy_comes_last_for_a_while_and_then_in_its_place() {
        let proxy = |host: &str| Route::Proxy(ProxyServer { host: host.into(), port: 1, tls: false });
        let all = vec![proxy("a"), proxy("b"), Route::Direct];
        let failing = Failing::default();
        failing.failed(&proxy("a"));
        failing.failed(&Route::Direct);
        assert_eq!(failing.order(all.clone()), [proxy("b"), Route::Direct, proxy("a")]);
        tokio::time::advance(PROXY_AVOIDED_FOR).await;
        assert_eq!(failing.order(all.clone()), all);
        failing.failed(&proxy("a"));
        failing.worked(&proxy("a"));
        assert_eq!(failing.order(all.clone()), all);
    }
}
