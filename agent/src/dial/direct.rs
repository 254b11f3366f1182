//! The production [`Dial`]: sockets of the operating system, and the ways out that settings or the network name.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connect_proxy::{Authenticator, ProxyError};
use super::proxy::failing::Failing;
use super::proxy::{Access, Destination, Plan, ProxyServer, Route, Ways};
use super::resolve::Names;
use super::steps::Steps;
use super::{Dial, DialError, DialStream, Service, Side, Target, tls};
use crate::chain::Chain;
use crate::limits::{CONNECT_WITHIN, KEEPALIVE_AFTER, KEEPALIVE_EVERY, NEXT_ADDRESS_AFTER};

/// Opens real sockets. Clones share the ways out and what is known about failing proxies.
#[derive(Clone)]
pub struct Dialer {
    straight: Straight,
    shared: Arc<Shared>,
}

/// Connects without any proxy. For what lies inside, for the proxies themselves, and for their scripts.
#[derive(Clone)]
pub struct Straight {
    names: Names,
}

struct Shared {
    ways: ArcSwap<Ways>,
    failing: Failing,
    authenticator: Authenticator,
    /// The route of the newest connection to the outside.
    used: Mutex<Option<Route>>,
}

impl Dialer {
    /// Looks names up with `names`; leads connections to the outside by `ways`.
    pub fn new(names: Names, ways: Ways) -> Self {
        let straight = Straight::new(names);
        let shared = Shared {
            ways: ArcSwap::from_pointee(ways),
            failing: Failing::default(),
            authenticator: Authenticator::new(Arc::new(straight.clone())),
            used: Mutex::default(),
        };
        Self { straight, shared: Arc::new(shared) }
    }

    /// Uses other ways from the next connection on; open ones stay.
    pub fn set_ways(&self, ways: Ways) {
        self.shared.ways.store(Arc::new(ways));
        self.shared.failing.forget();
        self.shared.authenticator.forget();
    }

    /// Connects without any proxy.
    pub fn straight(&self) -> &Straight {
        &self.straight
    }

    /// The ways in force.
    pub fn ways(&self) -> Arc<Ways> {
        self.shared.ways.load_full()
    }

    /// The route of the newest connection to the outside.
    pub fn used(&self) -> Option<Route> {
        self.shared.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The plan for a destination, proxies that failed lately at its end, with everything a script did.
    pub async fn explain(&self, to: &Destination) -> Plan {
        let mut plan = self.ways().explain(to).await;
        plan.routes = self.shared.failing.order(plan.routes);
        plan
    }

    /// Connects like [`Dial::connect`] and notes every step.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn connect_noting(&self, target: &Target, steps: &Steps) -> Result<DialStream, DialError> {
        match target.side {
            Side::Inside => self.straight.open(target, steps).await.map(DialStream::tcp),
            Side::Outside => self.out(target, steps).await,
        }
    }

    async fn out(&self, target: &Target, steps: &Steps) -> Result<DialStream, DialError> {
        let ways = self.ways();
        let mut plan = ways.find(&Destination::of(target)).await;
        steps.note(|| format!("way to {target}: {plan}"));
        plan.routes = self.shared.failing.order(plan.routes);
        let many = plan.routes.len() > 1;
        let mut tried = Vec::new();
        for route in plan.routes {
            match self.by(&route, target, ways.access(), steps).await {
                Ok(stream) => {
                    self.shared.failing.worked(&route);
                    *self.shared.used.lock().unwrap_or_else(PoisonError::into_inner) = Some(route);
                    return Ok(stream);
                }
                Err(error) => {
                    steps.note(|| format!("{route} fails: {}", Chain(&error)));
                    let blame = blame(&error);
                    if blame == Blame::Proxy {
                        self.shared.failing.failed(&route);
                    }
                    if blame == Blame::Verdict || !many {
                        return Err(error);
                    }
                    tracing::debug!(%route, error = %Chain(&error), "A way out does not work");
                    tried.push(format!("{route}: {}", Chain(&error)));
                }
            }
        }
        Err(DialError::NoWay {
            target: target.clone(),
            source: NoWay { plan: format!("{}: {}", plan.source, plan.rule), tried },
        })
    }

    async fn by(
        &self,
        route: &Route,
        target: &Target,
        access: &Access,
        steps: &Steps,
    ) -> Result<DialStream, DialError> {
        match route {
            Route::Direct => self.straight.open(target, steps).await.map(DialStream::tcp),
            Route::Proxy(server) => self.tunnel(server, target, access, steps).await,
        }
    }

    /// A fresh connection to the proxy itself, secured where it wants that.
    async fn to_proxy(
        &self,
        server: &ProxyServer,
        access: &Access,
        steps: &Steps,
    ) -> Result<DialStream, DialError> {
        let stream = DialStream::tcp(self.straight.open(&server.target(), steps).await?);
        if !server.tls {
            return Ok(stream);
        }
        let failed = |source| DialError::ProxyTls { proxy: server.target(), source };
        let config = tls::client_config(&access.trust, None, &[b"http/1.1"]).map_err(failed)?;
        let stream = tls::handshake(config, &server.host, stream).await.map_err(failed)?;
        steps.note(|| format!("TLS to {server} verified by {}", access.trust));
        Ok(DialStream::other(stream))
    }

    async fn tunnel(
        &self,
        server: &ProxyServer,
        target: &Target,
        access: &Access,
        steps: &Steps,
    ) -> Result<DialStream, DialError> {
        let open = async || self.to_proxy(server, access, steps).await.map_err(Failed::Dial);
        let tunnel = self.shared.authenticator.tunnel(server, target, &access.auth, steps, open).await;
        match tunnel {
            Ok((stream, early)) => Ok(stream.with_early(early)),
            Err(Failed::Dial(error)) => Err(error),
            Err(Failed::Proxy(source)) => {
                Err(DialError::Proxy { proxy: server.target(), target: target.clone(), source })
            }
        }
    }
}

/// Why a tunnel does not stand.
enum Failed {
    Dial(DialError),
    Proxy(ProxyError),
}

impl From<ProxyError> for Failed {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(error)
    }
}

impl Straight {
    /// Looks names up with `names`.
    pub fn new(names: Names) -> Self {
        Self { names }
    }

    /// Who looks names up.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Opens a plain socket.
    pub(super) async fn open(&self, target: &Target, steps: &Steps) -> Result<TcpStream, DialError> {
        let addresses = self.names.addresses(&target.host).await?;
        steps.note(|| format!("{} has the addresses {}", target.host, listed(&addresses)));
        let stream = self.open_to(&addresses, target).await?;
        steps.note(|| match stream.peer_addr() {
            Ok(peer) => format!("connected to {peer}"),
            Err(_) => format!("connected to {target}"),
        });
        Ok(stream)
    }

    /// Opens a plain socket to the first of these addresses that answers.
    pub(super) async fn open_to(
        &self,
        addresses: &[IpAddr],
        target: &Target,
    ) -> Result<TcpStream, DialError> {
        let timed_out = || DialError::TimedOut { target: target.clone(), within: CONNECT_WITHIN };
        timeout(CONNECT_WITHIN, first_of(addresses, target.port))
            .await
            .map_err(|_| timed_out())?
            .map_err(|source| DialError::Unreachable { target: target.clone(), source })
    }
}

/// Reaches KDCs, too: they stand on our side, so no proxy is asked.
impl Dial for Straight {
    fn connect(&self, target: Target) -> BoxFuture<'_, Result<DialStream, DialError>> {
        Box::pin(async move { self.open(&target, &Steps::unrecorded()).await.map(DialStream::tcp) })
    }

    fn addresses(&self, host: &str) -> BoxFuture<'_, Result<Vec<IpAddr>, DialError>> {
        let host = host.to_owned();
        Box::pin(async move { self.names.addresses(&host).await })
    }

    fn services(&self, name: &str) -> BoxFuture<'_, Result<Vec<Service>, DialError>> {
        let name = name.to_owned();
        Box::pin(async move { self.names.services(&name).await })
    }
}

/// Every way that was named failed.
#[derive(Debug, thiserror::Error)]
#[error("{plan}; {}", if .tried.is_empty() { "it names no way we can use".to_owned() } else { .tried.join("; ") })]
pub struct NoWay {
    /// Who named the ways, and by which rule.
    pub plan: String,
    /// Each way and why it failed.
    pub tried: Vec<String>,
}

/// Whose fault it is that a way does not work.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The proxy is broken: the next way, and this one is avoided for a while.
    Proxy,
    /// The proxy works but does not reach the target: the next way may.
    Target,
    /// The proxy has decided about us: asking another one would only go around the company's rule, or lock an account.
    Verdict,
}

fn blame(error: &DialError) -> Blame {
    match error {
        DialError::Proxy { source: ProxyError::TargetUnreachable { .. }, .. } => Blame::Target,
        DialError::Proxy { source, .. } if !source.elsewhere() => Blame::Verdict,
        // By the direct route these are about the target; `failed` ignores that route.
        _ => Blame::Proxy,
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Dial for Dialer {
    fn way(&self) -> Option<String> {
        self.used().map(|route| route.to_string())
    }

    fn connect(&self, target: Target) -> BoxFuture<'_, Result<DialStream, DialError>> {
        Box::pin(async move { self.connect_noting(&target, &Steps::unrecorded()).await })
    }

    fn addresses(&self, host: &str) -> BoxFuture<'_, Result<Vec<IpAddr>, DialError>> {
        self.straight.addresses(host)
    }

    fn services(&self, name: &str) -> BoxFuture<'_, Result<Vec<Service>, DialError>> {
        self.straight.services(name)
    }

    fn network_changed(&self) {
        self.shared.failing.forget();
        self.ways().network_changed();
    }

    fn own_address(&self, toward: SocketAddr) -> Option<IpAddr> {
        own_address(toward)
    }
}

/// Asks the routing table: connecting a datagram socket sends nothing.
fn own_address(toward: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match toward {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(toward).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Tries the addresses in order; a silent one does not hold up the next for longer than [`NEXT_ADDRESS_AFTER`], unless
/// it is the last.
async fn first_of(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for (n, address) in addresses.iter().enumerate() {
        let patience = if n + 1 == addresses.len() { CONNECT_WITHIN } else { NEXT_ADDRESS_AFTER };
        match timeout(patience, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => return prepare(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

/// Half-open connections must be noticed: by probes while idle, by unacknowledged data while busy.
fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    #[cfg(not(windows))]
    let keepalive = keepalive.with_retries(crate::limits::KEEPALIVE_TRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(crate::limits::UNACKNOWLEDGED_WITHIN))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routing_table_says_by_which_address_we_go_out() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(own_address(SocketAddr::new(loopback, 9)), Some(loopback));
    }
}
