//! The simulated network as the agent and the cloud see it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use causeway_agent::dial::{Dial, DialError, DialStream, Service, Target};
use causeway_agent::limits::CONNECT_WITHIN;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use super::world::{Process, World, lock};

/// Name of the cloud's host on the simulated network.
pub(super) const CLOUD: &str = "cloud";
/// Its port.
pub(super) const PORT: u16 = 443;

/// A connection of a process; a dead process neither reads nor writes.
///
/// The socket itself is in the process's [`Sockets`]: when a process dies its tasks are dropped in an order that depends
/// on what else runs in this program, and the order in which sockets close decides what the network draws for each.
pub(super) struct SimStream {
    socket: Socket,
    process: Arc<Process>,
}

type Socket = Arc<Mutex<Option<TcpStream>>>;

/// The sockets of a process, in the order of their opening.
#[derive(Default)]
pub(super) struct Sockets(Mutex<Vec<Socket>>);

impl Sockets {
    /// Closes all, as the operating system does for a process that has died.
    pub(super) fn close(&self) {
        for socket in std::mem::take(&mut *lock(&self.0)) {
            lock(&socket).take();
        }
    }
}

/// Closes a process's sockets when its host is crashed. Kept by the host's program itself, which the network drops
/// after everything else.
pub(super) struct Closer(pub(super) Arc<Process>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.sockets.close();
    }
}

impl SimStream {
    pub(super) fn new(stream: TcpStream, process: Arc<Process>) -> Self {
        let socket = Arc::new(Mutex::new(Some(stream)));
        {
            let mut sockets = lock(&process.sockets.0);
            sockets.retain(|socket| lock(socket).is_some());
            sockets.push(socket.clone());
        }
        Self { socket, process }
    }

    fn with<T>(&self, poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.process.is_dead() {
            return Poll::Pending;
        }
        match &mut *lock(&self.socket) {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if !self.process.is_dead() {
            lock(&self.socket).take();
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
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
