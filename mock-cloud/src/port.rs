//! The one public port: TLS, then the protocol that ALPN names, or that the first bytes show when there is no ALPN.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use causeway_mock_kit::listen;
use causeway_protocol::channel::{ALPN_H2, ALPN_HTTP1, ALPN_XMPP};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::admission::Entry;
use crate::channel::Caller;
use crate::limits::{HTTP_HEADER_WITHIN, HTTP_STREAMS_MAX, HTTP_WINDOW_BYTES};
use crate::pki::PkiError;
use crate::state::Cloud;
use crate::{channel, ingest};

/// Name of the public port in `--port`, in the ready line and in TCP-level fault rules.
pub const NAME: &str = "api";

/// Who is at the other end of an HTTP request; an extension of every request on the public port.
#[derive(Clone)]
pub(crate) struct Peer {
    /// The certificate it presented, leaf first; empty for none. Not judged yet.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    /// Where it comes from; a proxy's address when there is one between.
    pub(crate) from: SocketAddr,
    /// Cancelled to cut the connection, for injected faults.
    pub(crate) cut: CancellationToken,
}

/// Serves the public port until the cloud stops: the channel, uploads, and `router` (API and portal).
///
/// # Errors
/// When the certificate of the port cannot be made.
pub fn serve(cloud: Arc<Cloud>, listener: TcpListener, router: Router) -> Result<JoinHandle<()>, PkiError> {
    let kit = cloud.kit.clone();
    let front = Front::new(cloud, router)?;
    Ok(listen::serve(listener, NAME, kit, move |tcp, from| front.serve(tcp, from)))
}

/// What the public port does with a connection, whatever network it came over.
pub struct Front {
    cloud: Arc<Cloud>,
    router: Router,
    acceptor: TlsAcceptor,
}

impl Front {
    /// Serves the channel, uploads, and `router` (API and portal).
    ///
    /// # Errors
    /// When the certificate of the port cannot be made.
    pub fn new(cloud: Arc<Cloud>, router: Router) -> Result<Self, PkiError> {
        let acceptor = TlsAcceptor::from(cloud.pki.server_config()?);
        let router = router
            .merge(ingest::router(Arc::clone(&cloud)))
            .merge(channel::websocket::router(Arc::clone(&cloud)));
        Ok(Self { cloud, router, acceptor })
    }

    /// Serves one connection to its end.
    pub fn serve<S>(&self, tcp: S, from: SocketAddr) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (cloud, router, acceptor) = (Arc::clone(&self.cloud), self.router.clone(), self.acceptor.clone());
        let entry = cloud.admission.enter();
        async move {
            // Closing before TLS is the cheapest refusal; agents take it for a failure and back off.
            if let Some(Entry { turn, slot }) = entry {
                tokio::time::sleep_until(turn).await;
                connection(cloud, router, acceptor, (tcp, from), slot).await;
            }
        }
    }
}

async fn connection<S>(
    cloud: Arc<Cloud>,
    router: Router,
    acceptor: TlsAcceptor,
    (tcp, from): (S, SocketAddr),
    slot: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Everything is boxed, so that a session's task holds what an idle session needs and nothing of its beginnings.
    let within = cloud.config.channel.handshake_within();
    let accepted = match Box::pin(tokio::time::timeout(within, accept(acceptor, tcp))).await {
        Ok(accepted) => accepted,
        Err(_) => {
            tracing::debug!(%from, "A connection says nothing");
            None
        }
    };
    let Some(accepted) = accepted else { return };
    let Accepted { tls, chain, protocol } = *accepted;
    match protocol {
        Protocol::Xmpp => Box::pin(channel::serve(cloud, tls, Caller { chain, from, slot })).await,
        Protocol::Http => Box::pin(http(cloud, router, tls, Caller { chain, from, slot })).await,
    }
}

/// A connection after its handshake.
struct Accepted<S> {
    tls: Box<TlsStream<S>>,
    chain: Vec<CertificateDer<'static>>,
    protocol: Protocol,
}

async fn accept<S>(acceptor: TlsAcceptor, tcp: S) -> Option<Box<Accepted<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut tls = match acceptor.accept(tcp).await {
        Ok(tls) => Box::new(tls),
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            return None;
        }
    };
    let session = tls.get_ref().1;
    let chain = session.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let protocol = match session.alpn_protocol() {
        Some(ALPN_XMPP) => Protocol::Xmpp,
        Some(ALPN_H2 | ALPN_HTTP1) => Protocol::Http,
        _ => sniff(&mut tls).await?,
    };
    Some(Box::new(Accepted { tls, chain, protocol }))
}

enum Protocol {
    Xmpp,
    Http,
}

/// Looks at the first bytes without taking them: XML begins with `<` or white space, HTTP with a letter.
async fn sniff<S>(tls: &mut TlsStream<S>) -> Option<Protocol>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = *tls.fill_buf().await.ok()?.first()?;
    match first {
        b'<' | b' ' | b'\t' | b'\r' | b'\n' => Some(Protocol::Xmpp),
        b'A'..=b'Z' => Some(Protocol::Http),
        _ => None,
    }
}

async fn http<S>(cloud: Arc<Cloud>, router: Router, tls: Box<TlsStream<S>>, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Caller { chain, from, slot } = caller;
    let asked = CancellationToken::new();
    let first = asked.clone();
    let peer = Peer { chain: chain.into(), from, cut: CancellationToken::new() };
    let cut = peer.cut.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (router, peer) = (router.clone(), peer.clone());
        first.cancel();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            let response = router.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HTTP_HEADER_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP_STREAMS_MAX)
        .initial_stream_window_size(HTTP_WINDOW_BYTES)
        .initial_connection_window_size(HTTP_WINDOW_BYTES * 4);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    // The time limit of HTTP/1.1 covers a head that has begun, and HTTP/2 has none: a client that asks for nothing
    // must not keep its place.
    let silent = async move {
        match tokio::time::timeout(HTTP_HEADER_WITHIN, asked.cancelled()).await {
            Ok(()) => {
                drop(slot);
                std::future::pending().await
            }
            Err(_) => tracing::debug!("An HTTP client asks for nothing"),
        }
    };
    tokio::select! {
        biased;
        () = cut.cancelled() => {}
        () = silent => {}
        () = cloud.kit.stop.cancelled() => {}
        result = served => if let Err(error) = result {
            tracing::debug!(%error, "HTTP connection ended early");
        },
    }
}
