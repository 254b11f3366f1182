//! Two proxies for tests: one that keeps a stable port before a peer that moves ([`TcpProxy`]), and an HTTP forward
//! proxy as companies have ([`ConnectProxy`]).

mod auth;
mod connect;
mod middlebox;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

pub use auth::{ConnectAuth, DigestAccount, DigestAlgorithm};
pub use connect::{ConnectProxy, ConnectSettings, Manners};
pub use middlebox::Middlebox;

use crate::KitContext;
use crate::clock::Clock;
use crate::fault::Faults;
use crate::journal::Journal;
use crate::limits::DIAL_TIMEOUT;
use crate::listen::{self, BindError, FaultStream};
use middlebox::Verdict;

/// Name of the front end in rules and journal.
const FRONT: &str = "tcp";

/// Forwards a port that never changes to a target that may: kill a mock, start another one, [`TcpProxy::retarget`].
///
/// TCP-level faults of front end `tcp` apply to the client's side. A target that does not answer shows as a reset.
/// Stops on drop, with all its connections.
pub struct TcpProxy {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    middlebox: Arc<Mutex<Option<Middlebox>>>,
    cx: KitContext,
}

impl TcpProxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `target`.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn start(target: SocketAddr) -> Result<Self, BindError> {
        let cx = KitContext::new("tcp-proxy", Clock::automatic());
        let listener = listen::bind(cx.service, FRONT, IpAddr::V4(Ipv4Addr::LOCALHOST), 0).await?;
        let address = local_addr(&listener)?;
        let target = Arc::new(Mutex::new(target));
        let middlebox: Arc<Mutex<Option<Middlebox>>> = Arc::default();
        let (aim, journal) = (Arc::clone(&target), cx.journal.clone());
        let meddler = Arc::clone(&middlebox);
        listen::serve(listener, FRONT, cx.clone(), move |client, _| {
            let target = *aim.lock().unwrap_or_else(PoisonError::into_inner);
            let meddler = meddler.lock().unwrap_or_else(PoisonError::into_inner).clone();
            forward(client, target, meddler, journal.clone())
        });
        Ok(Self { address, target, middlebox, cx })
    }

    /// What stands on the path for new connections from now on; nothing at the start.
    pub fn set_middlebox(&self, middlebox: Option<Middlebox>) {
        *self.middlebox.lock().unwrap_or_else(PoisonError::into_inner) = middlebox;
    }

    /// Where clients connect; never changes.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where new connections go.
    pub fn target(&self) -> SocketAddr {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where new connections go from now on. Live ones stay where they are; see [`TcpProxy::cut`].
    pub fn retarget(&self, target: SocketAddr) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Resets all live connections; returns how many there were.
    pub fn cut(&self) -> usize {
        self.cx.faults.cut(FRONT)
    }

    /// Live connections.
    pub fn connections(&self) -> usize {
        self.cx.faults.connections(FRONT)
    }

    /// Failures to inject on the client's side.
    pub fn faults(&self) -> &Faults {
        &self.cx.faults
    }

    /// One entry per connection, when it is over.
    pub fn journal(&self) -> &Journal {
        &self.cx.journal
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.cx.stop.cancel();
    }
}

async fn forward(
    mut client: FaultStream,
    target: SocketAddr,
    middlebox: Option<Middlebox>,
    journal: Journal,
) {
    let subject = target.to_string();
    let note = |outcome: &str| journal.record(FRONT, "connect", &subject, outcome, serde_json::Value::Null);
    let first = match &middlebox {
        None => Vec::new(),
        Some(middlebox) => match middlebox.judge(&mut client).await {
            Ok(Verdict::Pass(first)) => first,
            Ok(Verdict::Handled(outcome)) => {
                note(outcome);
                return;
            }
            Ok(Verdict::Reset(outcome)) => {
                note(outcome);
                return client.reset();
            }
            Err(error) => {
                note(&error.to_string());
                return;
            }
        },
    };
    let mut upstream = match dial(target).await {
        Ok(upstream) => upstream,
        Err(error) => {
            journal.record(FRONT, "connect", &subject, &error.to_string(), serde_json::Value::Null);
            return client.reset();
        }
    };
    // A broken upstream shows in the copying below.
    let _ = upstream.write_all(&first).await;
    match copy_bidirectional(&mut client, &mut upstream).await {
        Ok((up, down)) => {
            let bytes = json!({ "bytes_up": up, "bytes_down": down });
            journal.record(FRONT, "connect", &subject, "closed", bytes);
        }
        Err(error) => {
            journal.record(FRONT, "connect", &subject, &error.to_string(), serde_json::Value::Null);
            client.reset();
        }
    }
}

async fn dial(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(target))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The bound address; asking for it fails only where binding would have.
fn local_addr(listener: &tokio::net::TcpListener) -> Result<SocketAddr, BindError> {
    listener.local_addr().map_err(|source| BindError::Failed {
        service: "proxy".to_owned(),
        name: FRONT.to_owned(),
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        source,
    })
}
