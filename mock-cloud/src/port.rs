//! The one public port: TLS, then the protocol that ALPN names, or that the first bytes show when there is no ALPN.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use causeway_mock_kit::fault::FaultStream;
use causeway_mock_kit::listen;
use causeway_protocol::channel::{ALPN_H2, ALPN_HTTP1, ALPN_XMPP};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::limits::{HANDSHAKE_WITHIN, HTTP_HEADER_WITHIN, HTTP_STREAMS_MAX, HTTP_WINDOW_BYTES};
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
    /// Cancelled to cut the connection, for injected faults.
    pub(crate) cut: CancellationToken,
}

/// Serves the public port until the cloud stops: the channel, uploads, and `router` (API and portal).
///
/// # Errors
/// When the certificate of the port cannot be made.
pub fn serve(cloud: Arc<Cloud>, listener: TcpListener, router: Router) -> Result<JoinHandle<()>, PkiError> {
    let acceptor = TlsAcceptor::from(cloud.pki.server_config()?);
    let router = router
        .merge(ingest::router(Arc::clone(&cloud)))
        .merge(channel::websocket::router(Arc::clone(&cloud)));
    let admission = Arc::new(TokenBucket::new(cloud.config.channel.admission_per_sec));
    let kit = cloud.kit.clone();
    Ok(listen::serve(listener, NAME, kit, move |tcp, _| {
        let (cloud, router, acceptor) = (Arc::clone(&cloud), router.clone(), acceptor.clone());
        let admitted = admission.take();
        async move {
            // Closing before TLS is the cheapest refusal; agents take it for a failure and back off.
            if admitted {
                connection(cloud, router, acceptor, tcp).await;
            }
        }
    }))
}

async fn connection(cloud: Arc<Cloud>, router: Router, acceptor: TlsAcceptor, tcp: FaultStream) {
    // Everything is boxed, so that a session's task holds what an idle session needs and nothing of its beginnings.
    let Some(accepted) = Box::pin(accept(acceptor, tcp)).await else { return };
    let Accepted { tls, chain, protocol } = *accepted;
    match protocol {
        Protocol::Xmpp => Box::pin(channel::serve(cloud, tls, chain)).await,
        Protocol::Http => Box::pin(http(cloud, router, tls, chain)).await,
    }
}

/// A connection after its handshake.
struct Accepted {
    tls: Box<TlsStream<FaultStream>>,
    chain: Vec<CertificateDer<'static>>,
    protocol: Protocol,
}

async fn accept(acceptor: TlsAcceptor, tcp: FaultStream) -> Option<Box<Accepted>> {
    let mut tls = match tokio::time::timeout(HANDSHAKE_WITHIN, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => Box::new(tls),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return None;
        }
        Err(_) => {
            tracing::debug!("TLS handshake took too long");
            return None;
        }
    };
    let session = tls.get_ref().1;
    let chain = session.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
    let protocol = match session.alpn_protocol() {
        Some(ALPN_XMPP) => Protocol::Xmpp,
        Some(ALPN_H2 | ALPN_HTTP1) => Protocol::Http,
        _ => tokio::time::timeout(HANDSHAKE_WITHIN, sniff(&mut tls)).await.ok()??,
    };
    Some(Box::new(Accepted { tls, chain, protocol }))
}

enum Protocol {
    Xmpp,
    Http,
}

/// Looks at the first bytes without taking them: XML begins with `<` or white space, HTTP with a letter.
async fn sniff(tls: &mut TlsStream<FaultStream>) -> Option<Protocol> {
    let first = *tls.fill_buf().await.ok()?.first()?;
    match first {
        b'<' | b' ' | b'\t' | b'\r' | b'\n' => Some(Protocol::Xmpp),
        b'A'..=b'Z' => Some(Protocol::Http),
        _ => None,
    }
}

async fn http(
    cloud: Arc<Cloud>,
    router: Router,
    tls: Box<TlsStream<FaultStream>>,
    chain: Vec<CertificateDer<'static>>,
) {
    let peer = Peer { chain: chain.into(), cut: CancellationToken::new() };
    let cut = peer.cut.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (router, peer) = (router.clone(), peer.clone());
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
    tokio::select! {
        () = cut.cancelled() => {}
        () = cloud.kit.stop.cancelled() => {}
        result = served => if let Err(error) = result {
            tracing::debug!(%error, "HTTP connection ended early");
        },
    }
}

/// Lets so many through per second, and one second's worth at once.
struct TokenBucket {
    per_sec: f64,
    state: Mutex<(f64, Instant)>,
}

impl TokenBucket {
    fn new(per_sec: u32) -> Self {
        let per_sec = f64::from(per_sec);
        Self { per_sec, state: Mutex::new((per_sec, Instant::now())) }
    }

    fn take(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(state.1).min(Duration::from_secs(1)).as_secs_f64() * self.per_sec;
        let tokens = (state.0 + gained).min(self.per_sec);
        let admitted = tokens >= 1.0;
        *state = (if admitted { tokens - 1.0 } else { tokens }, now);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wave_is_cut_to_the_rate() {
        let bucket = TokenBucket::new(10);
        assert_eq!((0..100).filter(|_| bucket.take()).count(), 10);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!((0..100).filter(|_| bucket.take()).count(), 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..100).filter(|_| bucket.take()).count(), 10);
    }
}
