//! The servers of one system: which there are, and which are well.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::endpoint::Endpoint;
use super::limits;

/// One server.
pub struct Server {
    endpoint: Endpoint,
    /// Left alone until then.
    resting: Mutex<Option<Instant>>,
}

impl Server {
    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it is worth trying before others.
    pub fn is_well(&self, now: Instant) -> bool {
        self.resting().is_none_or(|until| until <= now)
    }

    /// It worked.
    pub fn succeeded(&self) {
        *self.resting() = None;
    }

    /// It failed in a way that is its own fault.
    pub fn failed(&self, now: Instant) {
        *self.resting() = Some(now + limits::CIRCUIT_OPEN);
    }

    fn resting(&self) -> MutexGuard<'_, Option<Instant>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All servers of one system.
pub struct Servers(Vec<Arc<Server>>);

impl Servers {
    /// In the configured order.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        let server = |endpoint| Arc::new(Server { endpoint, resting: Mutex::default() });
        Self(endpoints.into_iter().map(server).collect())
    }

    /// All of them, in the configured order.
    pub fn all(&self) -> &[Arc<Server>] {
        &self.0
    }

    /// Those that are well in the configured order, then the others as a last resort.
    pub fn candidates(&self, now: Instant) -> Vec<Arc<Server>> {
        let (mut well, mut resting): (Vec<_>, Vec<_>) =
            self.0.iter().cloned().partition(|server| server.is_well(now));
        well.append(&mut resting);
        well
    }

    /// Whether a server may send us on to this one: from TLS to TLS only, and only to hosts that were named.
    pub fn may_lead(&self, from: &Endpoint, to: &Endpoint, named: &[String]) -> bool {
        let known = self.0.iter().any(|server| server.endpoint.host.eq_ignore_ascii_case(&to.host));
        let same = from.host.eq_ignore_ascii_case(&to.host);
        let named = named.iter().any(|host| host.eq_ignore_ascii_case(&to.host));
        from.tls && to.tls && (same || known || named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Servers {
        Servers::new(["https://a/x", "https://b/x"].map(|url| Endpoint::read(url).unwrap()).into())
    }

    fn hosts(servers: &Servers) -> Vec<String> {
        let candidates = servers.candidates(Instant::now());
        candidates.iter().map(|server| server.endpoint().host.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_failed_comes_last_for_a_while() {
        let servers = servers();
        assert_eq!(hosts(&servers), ["a", "b"]);
        servers.all()[0].failed(Instant::now());
        assert_eq!(hosts(&servers), ["b", "a"]);
        tokio::time::advance(limits::CIRCUIT_OPEN).await;
        assert_eq!(hosts(&servers), ["a", "b"]);
        servers.all()[0].failed(Instant::now());
        servers.all()[0].succeeded();
        assert_eq!(hosts(&servers), ["a", "b"]);
    }

    #[test]
    fn redirects_stay_within_tls_and_named_hosts() {
        let servers = servers();
        let at = |url: &str| Endpoint::read(url).unwrap();
        let from = at("https://a/x");
        assert!(servers.may_lead(&from, &at("https://A:444/y"), &[]));
        assert!(servers.may_lead(&from, &at("https://b/x"), &[]));
        assert!(!servers.may_lead(&from, &at("https://evil/x"), &[]));
        assert!(servers.may_lead(&from, &at("https://c/x"), &["C".into()]));
        assert!(!servers.may_lead(&from, &at("http://b/x"), &[]));
        assert!(!servers.may_lead(&at("http://a/x"), &at("https://b/x"), &[]));
    }
}
