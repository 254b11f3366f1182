//! ActiveSync as a phone meets it: HTTP and WBXML over the organisation, which decides everything.
//!
//! One [`ActiveSync`] serves the front end `activesync`. What it keeps itself is only what the protocol needs between two
//! requests of one phone: the key of the folder hierarchy, and the last Sync and Ping, which an empty request repeats.

pub mod autodiscover;
mod commands;
mod enforce;
mod fault;
mod folders;
mod http;
mod items;
pub mod limits;
mod ping;
mod provision;
mod request;
mod sessions;
mod settings;
mod sync;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use causeway_mock_kit::KitContext;
use causeway_mock_kit::listen::{self, FaultStream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

pub use enforce::{Refusal, RefusalNumbers, refusals};

use self::autodiscover::Autodiscover;
use self::sessions::Sessions;
use crate::config::ActiveSyncConfig;
use crate::server::Shared;
use crate::world::Organisation;

/// Gives the organisation as it is now: a reset puts another in its place.
pub type Current = Arc<dyn Fn() -> Arc<Organisation> + Send + Sync>;

/// The ActiveSync front end.
pub struct ActiveSync {
    cx: KitContext,
    organisation: Current,
    config: ActiveSyncConfig,
    tls: TlsAcceptor,
    sessions: Sessions,
}

impl ActiveSync {
    /// A front end over the organisation.
    pub fn new(
        cx: KitContext,
        organisation: Current,
        config: ActiveSyncConfig,
        tls: Arc<ServerConfig>,
    ) -> Self {
        Self { cx, organisation, config, tls: TlsAcceptor::from(tls), sessions: Sessions::default() }
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Arc<Self>, stream: FaultStream, _peer: SocketAddr) {
        let tls = self.tls.clone();
        let stop = self.cx.stop.clone();
        let service = move |request| {
            let front = Arc::clone(&self);
            async move { front.answer(request).await }
        };
        http::serve(&tls, stream, stop, service).await;
    }
}

/// Serves the front ends of phones on their listeners.
pub(crate) fn serve(
    shared: &Arc<Shared>,
    listeners: &mut BTreeMap<&'static str, TcpListener>,
) -> Vec<JoinHandle<()>> {
    let known = Arc::clone(shared);
    let organisation: Current = Arc::new(move || known.organisation());
    let mut tasks = Vec::new();
    if let Some(listener) = listeners.remove("activesync") {
        let config = shared.config().activesync;
        let tls = Arc::clone(&shared.tls);
        let front = Arc::new(ActiveSync::new(shared.cx.clone(), Arc::clone(&organisation), config, tls));
        tasks.push(listen::serve(listener, "activesync", shared.cx.clone(), move |stream, peer| {
            Arc::clone(&front).serve(stream, peer)
        }));
    }
    if let Some(listener) = listeners.remove("autodiscover") {
        let url = shared.urls.get("activesync").cloned().unwrap_or_default();
        let tls = Arc::clone(&shared.tls);
        let front = Arc::new(Autodiscover::new(shared.cx.clone(), organisation, url, tls));
        tasks.push(listen::serve(listener, "autodiscover", shared.cx.clone(), move |stream, peer| {
            Arc::clone(&front).serve(stream, peer)
        }));
    }
    tasks
}
