//! One connection of a client: TLS where the front end has it, HTTP, and the front end's routes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use causeway_mock_kit::fault::{Fault, Point};
use causeway_mock_kit::listen::FaultStream;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::door::Guest;
use crate::limits::{HEAD_MAX_BYTES, HEAD_TIMEOUT, TLS_HANDSHAKE_TIMEOUT};
use crate::server::Shared;

/// What a connection has shown of itself; every request carries it as `Extension<Arc<Connection>>`.
pub struct Connection {
    pub peer: SocketAddr,
    /// The client's certificate, DER, where the front end asks for one and there was one.
    pub client_certificate: Option<Vec<u8>>,
    guest: Mutex<Guest>,
}

impl Connection {
    pub(crate) fn guest(&self) -> MutexGuard<'_, Guest> {
        // A panic leaves at worst an exchange that starts anew.
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In an answer's extensions: the connection closes instead of it.
#[derive(Clone, Copy, Debug)]
pub struct CloseInstead;

/// A fault rule asked for it.
#[derive(Debug, thiserror::Error)]
#[error("connection closed by a fault rule")]
struct Closed;

/// Serves one connection until the client closes it.
pub(crate) async fn connection(
    front: &'static str,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    stream: FaultStream,
    peer: SocketAddr,
) {
    let Some(tls) = tls else { return http(front, router, stream, peer, None).await };
    match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            let client = certificates.and_then(|list| list.first()).map(|certificate| certificate.to_vec());
            http(front, router, stream, peer, client).await;
        }
        Ok(Err(error)) => tracing::debug!(front, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(front, "TLS handshake took too long"),
    }
}

async fn http<S>(
    front: &'static str,
    router: Router,
    stream: S,
    peer: SocketAddr,
    client_certificate: Option<Vec<u8>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(Connection { peer, client_certificate, guest: Mutex::default() });
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&connection));
        let answered = router.call(request);
        async move {
            let response: Response = answered.await.unwrap_or_else(|never| match never {});
            match response.extensions().get::<CloseInstead>() {
                Some(_) => Err(Closed),
                None => Ok(response),
            }
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX_BYTES)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(front, %error, "Connection ended");
    }
}

/// Applies a fault rule, if one strikes here. What is the same for every front end is done: `close`, `status`, and of
/// `malformed` the words `html` (a page with 200), `empty` (no body) and `half` (see [`halve`]). Other words are the
/// front end's.
///
/// # Errors
/// The answer to give instead.
pub async fn fault(
    shared: &Shared,
    front: &str,
    operation: &str,
    subject: &str,
) -> Result<Option<Fault>, Response> {
    let Some(fault) = shared.cx.faults.meet(&Point { front, operation, subject }).await else {
        return Ok(None);
    };
    match &fault {
        Fault::Close {} => {
            let mut response = StatusCode::OK.into_response();
            response.extensions_mut().insert(CloseInstead);
            Err(response)
        }
        Fault::Status { code, message } => {
            let status = code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
            Err(html(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message))
        }
        Fault::Malformed { kind } if kind == "html" => Err(html(
            StatusCode::OK,
            "<html><head><title>Maintenance</title></head><body>Back soon.</body></html>",
        )),
        Fault::Malformed { kind } if kind == "empty" => Err(StatusCode::OK.into_response()),
        _ => Ok(Some(fault)),
    }
}

/// A page, as IIS sends its errors.
pub fn html(status: StatusCode, text: &str) -> Response {
    answer(status, "text/html", text.as_bytes().to_vec())
}

/// An answer of a type.
pub fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
