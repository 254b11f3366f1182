//! Binding a front end and serving its connections.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::KitContext;
pub use crate::fault::FaultStream;
use crate::limits::{CONNECTIONS_MAX, LISTEN_BACKLOG, REBIND_TIMEOUT};

/// Pause after a failed `accept` (no file handles left, usually), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A front end that could not be opened. The text says which flag mends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Something else listens there.
    #[error(
        "{service} cannot listen on {address} for {name}: the port is in use; \
         choose another with --port {name}=N, or any free one with --port {name}=0"
    )]
    PortInUse {
        /// The mock.
        service: String,
        /// The front end.
        name: String,
        /// Where.
        address: SocketAddr,
    },
    /// Ports below 1024 are reserved on most systems.
    #[error(
        "{service} cannot listen on {address} for {name}: not permitted; \
         choose a port above 1023 with --port {name}=N, or any free one with --port {name}=0"
    )]
    NotPermitted {
        /// The mock.
        service: String,
        /// The front end.
        name: String,
        /// Where.
        address: SocketAddr,
    },
    /// The address is not one of this machine's.
    #[error(
        "{service} cannot listen on {address} for {name}: this machine does not have that address; \
         choose one it has with --listen HOST"
    )]
    NotOurAddress {
        /// The mock.
        service: String,
        /// The front end.
        name: String,
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("{service} cannot listen on {address} for {name}; try --listen HOST or --port {name}=N")]
    Failed {
        /// The mock.
        service: String,
        /// The front end.
        name: String,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Opens a listening socket for the front end `name` of `service`; `port` 0 takes any free one.
///
/// # Errors
/// [`BindError`], with the flag that mends it.
pub async fn bind(service: &str, name: &str, host: IpAddr, port: u16) -> Result<TcpListener, BindError> {
    let address = SocketAddr::new(host, port);
    open(address).map_err(|source| {
        let (service, name) = (service.to_owned(), name.to_owned());
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::PortInUse { service, name, address },
            io::ErrorKind::PermissionDenied => BindError::NotPermitted { service, name, address },
            io::ErrorKind::AddrNotAvailable => BindError::NotOurAddress { service, name, address },
            _ => BindError::Failed { service, name, address, source },
        }
    })
}

/// Accepts connections and hands each to `serve`, at most [`CONNECTIONS_MAX`] at once. TCP-level faults of the front
/// end `name` apply to all of them. Ends when `cx.stop` is cancelled, and closes what is still open.
pub fn serve<F, Fut>(listener: TcpListener, name: &'static str, cx: KitContext, serve: F) -> JoinHandle<()>
where
    F: Fn(FaultStream, SocketAddr) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    serve_with_limit(listener, name, cx, CONNECTIONS_MAX, serve)
}

/// As [`serve`], with another limit of connections; more wait in the kernel's queue.
pub fn serve_with_limit<F, Fut>(
    listener: TcpListener,
    name: &'static str,
    cx: KitContext,
    connections_max: usize,
    serve: F,
) -> JoinHandle<()>
where
    F: Fn(FaultStream, SocketAddr) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        let stop = cx.stop.clone();
        let front = FrontEnd { name: name.into(), cx, slots: Arc::new(Semaphore::new(connections_max)) };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = front.run(listener, serve) => {}
        }
    })
}

struct FrontEnd {
    name: Arc<str>,
    cx: KitContext,
    slots: Arc<Semaphore>,
}

impl FrontEnd {
    async fn run<F, Fut>(&self, listener: TcpListener, serve: F)
    where
        F: Fn(FaultStream, SocketAddr) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        // Dropping the set closes every connection, each through its guard.
        let mut connections = JoinSet::new();
        let mut changes = self.cx.faults.changes();
        let mut listener = Some(listener);
        loop {
            changes.borrow_and_update();
            let down = self.cx.faults.is_down(&self.name);
            listener = match listener.take() {
                Some(open) if down => self.stay_down(open, &mut changes).await,
                other => other,
            };
            let Some(open) = &listener else {
                tracing::error!(front = &*self.name, "Front end lost its port");
                return;
            };
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                Some(ended) = connections.join_next() => if let Err(error) = ended {
                    tracing::error!(front = &*self.name, %error, "Connection task failed");
                },
                (permit, accepted) = self.accept(open) => match accepted {
                    Ok((tcp, peer)) => {
                        // Small answers must not wait for acknowledgements of earlier ones.
                        let _ = tcp.set_nodelay(true);
                        let link = self.cx.faults.enter(&self.name, tcp);
                        let served = serve(link.stream(), peer);
                        connections.spawn(async move {
                            let _permit = permit;
                            let mut drive = std::pin::pin!(link.drive());
                            tokio::select! {
                                biased;
                                () = &mut drive => return,
                                () = served => {}
                            }
                            // The stream may live on elsewhere (an upgraded HTTP connection), or data be under way.
                            drive.await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(front = &*self.name, %error, "Accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> (tokio::sync::OwnedSemaphorePermit, io::Result<(TcpStream, SocketAddr)>) {
        let permit = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
        (permit, listener.accept().await)
    }

    /// Closes the listener so that connecting is refused, keeps the port, and listens again once no rule says down.
    /// `None` when the port could not be had back.
    async fn stay_down(
        &self,
        listener: TcpListener,
        changes: &mut tokio::sync::watch::Receiver<u64>,
    ) -> Option<TcpListener> {
        let address = listener.local_addr().ok()?;
        drop(listener);
        // A bound socket that does not listen refuses connections, and no other program is given its port.
        let holder = reserve(address);
        while self.cx.faults.is_down(&self.name) {
            changes.changed().await.ok()?;
        }
        let deadline = Instant::now() + REBIND_TIMEOUT;
        loop {
            match open(address) {
                Ok(listener) => {
                    drop(holder);
                    return Some(listener);
                }
                Err(error) if Instant::now() >= deadline => {
                    tracing::error!(front = &*self.name, %address, %error, "Port is taken");
                    return None;
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // On Unix this permits a port with connections in TIME_WAIT; on Windows it would let two programs share it.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    socket(address)?.listen(LISTEN_BACKLOG)
}

/// Windows has no safe way to bind a port twice, so there the port stays free while the front end is down.
fn reserve(address: SocketAddr) -> Option<TcpSocket> {
    if cfg!(unix) { socket(address).ok() } else { None }
}
