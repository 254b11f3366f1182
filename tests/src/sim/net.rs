//! The simulated network as the agent and the cloud see it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use causeway_agent::dial::{Dial, DialError, DialStream, Service, Target};
use causeway_agent::limits::CONNECT_WITHIN;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use super::world::{Process, World};

/// Name of the cloud's host on the simulated network.
pub(super) const CLOUD: &str = "cloud";
/// Its port.
pub(super) const PORT: u16 = 443;

/// A connection of a process; a dead process neither reads nor writes.
pub(super) struct SimStream {
    inner: TcpStream,
    process: Arc<Process>,
}

impl SimStream {
    pub(super) fn new(inner: TcpStream, process: Arc<Process>) -> Self {
        Self { inner, process }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.process.is_dead() {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.process.is_dead() {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.process.is_dead() {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.process.is_dead() {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The agent's way out.
pub(super) struct SimDial {
    pub(super) world: Arc<World>,
    pub(super) seat: usize,
    pub(super) process: Arc<Process>,
}

impl Dial for SimDial {
    fn connect(&self, target: Target) -> BoxFuture<'_, Result<DialStream, DialError>> {
        Box::pin(async move {
            self.process.alive().await;
            let host = self.world.seats[self.seat].host;
            let at = self.world.now_ms();
            self.world.seat(self.seat).dials.push_back(at);
            let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((CLOUD, PORT))).await;
            self.process.alive().await;
            match connected {
                Ok(Ok(stream)) => {
                    self.world.note(host, "connected");
                    Ok(DialStream::other(SimStream::new(stream, self.process.clone())))
                }
                Ok(Err(source)) => {
                    self.world.note(host, "connection refused");
                    Err(DialError::Unreachable { target, source })
                }
                Err(_) => {
                    self.world.note(host, "connection timed out");
                    Err(DialError::TimedOut { target, within: CONNECT_WITHIN })
                }
            }
        })
    }

    fn addresses(&self, host: &str) -> BoxFuture<'_, Result<Vec<IpAddr>, DialError>> {
        let host = host.to_owned();
        Box::pin(async move { Err(DialError::NoRecord { host, kind: "A/AAAA" }) })
    }

    fn services(&self, name: &str) -> BoxFuture<'_, Result<Vec<Service>, DialError>> {
        let host = name.to_owned();
        Box::pin(async move { Err(DialError::NoRecord { host, kind: "SRV" }) })
    }
}
