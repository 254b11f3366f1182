//! The agent's way out, with a switch: a machine whose cable can be pulled.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use causeway_agent::dial::{Dial, DialError, DialStream, Service, Target};
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

/// Opens sockets to addresses while it is up, and says as an operating system would that there is no network while it
/// is not. Open sockets stay as they are: whoever pulls the cable cuts them himself.
#[derive(Default)]
pub struct Network {
    down: AtomicBool,
    attempts: AtomicU64,
}

impl Network {
    /// Takes the network away or gives it back.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Connections tried so far.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }
}

impl Dial for Network {
    fn connect(&self, target: Target) -> BoxFuture<'_, Result<DialStream, DialError>> {
        Box::pin(async move {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            let opened = async {
                if self.down.load(Ordering::SeqCst) {
                    return Err(io::Error::from(io::ErrorKind::NetworkUnreachable));
                }
                let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            };
            match opened.await {
                Ok(stream) => Ok(DialStream::tcp(stream)),
                Err(source) => Err(DialError::Unreachable { target, source }),
            }
        })
    }

    fn addresses(&self, host: &str) -> BoxFuture<'_, Result<Vec<IpAddr>, DialError>> {
        let found = host.parse().map(|address| vec![address]);
        let host = host.to_owned();
        Box::pin(async move { found.map_err(|_| DialError::NoRecord { host, kind: "A/AAAA" }) })
    }

    fn services(&self, name: &str) -> BoxFuture<'_, Result<Vec<Service>, DialError>> {
        let host = name.to_owned();
        Box::pin(async move { Err(DialError::NoRecord { host, kind: "SRV" }) })
    }
}
