//! The only place that opens sockets. Modules and the channel ask a [`Dial`]; so every byte can be led through a proxy,
//! cut by a test, or simulated.

pub mod connect_proxy;
pub mod direct;
pub(crate) mod dns;
pub mod probe;
pub mod proxy;
pub mod resolve;
pub mod security;
pub mod steps;
pub mod tls;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use direct::Dialer;

/// Opens byte streams and looks up names.
pub trait Dial: Send + Sync + 'static {
    /// Opens a stream to the target, within [`crate::limits::CONNECT_WITHIN`].
    fn connect(&self, target: Target) -> BoxFuture<'_, Result<DialStream, DialError>>;

    /// Addresses of a host.
    fn addresses(&self, host: &str) -> BoxFuture<'_, Result<Vec<IpAddr>, DialError>>;

    /// Service records, in the order to try them (RFC 2782: priority, then weighted chance).
    fn services(&self, name: &str) -> BoxFuture<'_, Result<Vec<Service>, DialError>>;

    /// The way the last connection to the outside took, for people.
    fn way(&self) -> Option<String> {
        None
    }

    /// This machine is on another network now: what was learnt about ways out is stale.
    fn network_changed(&self) {}

    /// The address of ours that packets to `toward` leave by. `None` without a way there, or where nobody can tell.
    fn own_address(&self, _toward: SocketAddr) -> Option<IpAddr> {
        None
    }
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Which side of the firewall it is on.
    pub side: Side,
}

/// Which way leads to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Behind the firewall, with us: connected directly.
    Inside,
    /// The internet: through the configured proxy, if there is one.
    Outside,
}

impl Target {
    /// A server on our side of the firewall.
    pub fn inside(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, side: Side::Inside }
    }

    /// A server on the internet.
    pub fn outside(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, side: Side::Outside }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One service record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Host name, without the final dot.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Lower is tried first.
    pub priority: u16,
    /// Share among equals.
    pub weight: u16,
}

/// Why there is no stream. The variant names the culprit.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name is unknown or the name server did not answer.
    #[error("resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The name exists, without any address or record of the kind asked for.
    #[error("{host} has no {kind} record")]
    NoRecord {
        /// The name.
        host: String,
        /// `A/AAAA` or `SRV`.
        kind: &'static str,
    },
    /// Nobody listens, or the network does not lead there.
    #[error("connect to {target}")]
    Unreachable {
        /// Where to.
        target: Target,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer from {target} within {} ms", .within.as_millis())]
    TimedOut {
        /// Where to.
        target: Target,
        /// How long we waited.
        within: Duration,
    },
    /// The proxy refuses or fails.
    #[error("proxy {proxy} does not connect us to {target}")]
    Proxy {
        /// The proxy.
        proxy: Target,
        /// Where we wanted to go.
        target: Target,
        /// What the proxy did.
        #[source]
        source: connect_proxy::ProxyError,
    },
    /// No TLS with a proxy that should speak it.
    #[error("secure the connection to proxy {proxy}")]
    ProxyTls {
        /// The proxy.
        proxy: Target,
        /// Why.
        #[source]
        source: tls::TlsError,
    },
    /// None of several ways leads there.
    #[error("find a way to {target}")]
    NoWay {
        /// Where to.
        target: Target,
        /// Who named the ways, and why each failed.
        #[source]
        source: direct::NoWay,
    },
}

/// A byte stream from somewhere.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> ByteStream for T {}

/// An open stream. Nearly always a plain socket, which [`DialStream::into_tcp`] gives to libraries that insist on one.
pub struct DialStream {
    /// Bytes that arrived behind a proxy's answer and belong to the tunnel.
    early: Bytes,
    inner: Inner,
}

enum Inner {
    Tcp(TcpStream),
    Other(Box<dyn ByteStream>),
}

impl DialStream {
    /// A plain socket.
    pub fn tcp(stream: TcpStream) -> Self {
        Self { early: Bytes::new(), inner: Inner::Tcp(stream) }
    }

    /// The same stream behind a proxy's answer, together with the bytes that came in the same segment.
    #[must_use]
    pub fn with_early(self, early: Bytes) -> Self {
        Self { early, inner: self.inner }
    }

    /// Anything else: an in-memory pipe, a simulated socket.
    pub fn other(stream: impl ByteStream) -> Self {
        Self { early: Bytes::new(), inner: Inner::Other(Box::new(stream)) }
    }

    /// Where the socket ends: the server, or the proxy before it.
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.inner {
            Inner::Tcp(stream) => stream.peer_addr().ok(),
            Inner::Other(_) => None,
        }
    }

    /// The plain socket, when there is nothing but one.
    ///
    /// # Errors
    /// Gives the stream back when it is no plain socket or holds early bytes.
    pub fn into_tcp(self) -> Result<TcpStream, Self> {
        match self {
            Self { early, inner: Inner::Tcp(stream) } if early.is_empty() => Ok(stream),
            other => Err(other),
        }
    }
}

impl AsyncRead for DialStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let n = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..n]);
            self.early.advance(n);
            return Poll::Ready(Ok(()));
        }
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Other(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for DialStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Other(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
