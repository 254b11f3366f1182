//! The production [`Dial`]: sockets of the operating system, and the proxy where one is configured.

use std::io;
use std::net::{IpAddr, SocketAddr};

use futures_util::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connect_proxy::{self, Answer, Credentials};
use super::resolve::Names;
use super::{Dial, DialError, DialStream, Service, Side, Target};
use crate::limits::{CONNECT_WITHIN, KEEPALIVE_AFTER, KEEPALIVE_EVERY, KEEPALIVE_TRIES, NEXT_ADDRESS_AFTER};

/// Opens real sockets.
#[derive(Clone)]
pub struct Dialer {
    names: Names,
    proxy: Option<Proxy>,
}

/// A proxy given by hand.
#[derive(Clone)]
pub struct Proxy {
    /// Where it is.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who we are to it.
    pub credentials: Option<Credentials>,
}

impl Dialer {
    /// Looks names up with `names`; leads connections to the outside through `proxy`.
    pub fn new(names: Names, proxy: Option<Proxy>) -> Self {
        Self { names, proxy }
    }

    async fn direct(&self, target: &Target) -> Result<TcpStream, DialError> {
        let addresses = self.names.addresses(&target.host).await?;
        let timed_out = || DialError::TimedOut { target: target.clone(), within: CONNECT_WITHIN };
        timeout(CONNECT_WITHIN, first_of(&addresses, target.port))
            .await
            .map_err(|_| timed_out())?
            .map_err(|source| DialError::Unreachable { target: target.clone(), source })
    }

    async fn tunnel(&self, proxy: &Proxy, target: &Target) -> Result<DialStream, DialError> {
        let at = Target::inside(proxy.host.clone(), proxy.port);
        let failed = |source| DialError::Proxy { proxy: at.clone(), target: target.clone(), source };
        let mut stream = self.direct(&at).await?;
        // The first attempt goes without credentials: a proxy that wants none should not see any.
        let mut using = None;
        loop {
            match connect_proxy::connect(&mut stream, target, using).await.map_err(failed)? {
                Answer::Tunnel(early) => return Ok(DialStream::tunnel(stream, early)),
                Answer::CredentialsWanted { offered, reusable } => {
                    let tried = using.is_some();
                    using = Some(
                        connect_proxy::choose(&offered, proxy.credentials.as_ref(), tried).map_err(failed)?,
                    );
                    if !reusable {
                        stream = self.direct(&at).await?;
                    }
                }
            }
        }
    }
}

impl Dial for Dialer {
    fn connect(&self, target: Target) -> BoxFuture<'_, Result<DialStream, DialError>> {
        Box::pin(async move {
            match &self.proxy {
                Some(proxy) if target.side == Side::Outside => self.tunnel(proxy, &target).await,
                _ => self.direct(&target).await.map(DialStream::tcp),
            }
        })
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
    let keepalive = keepalive.with_retries(KEEPALIVE_TRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(crate::limits::UNACKNOWLEDGED_WITHIN))?;
    Ok(stream)
}
