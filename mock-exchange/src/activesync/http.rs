//! HTTP/1.1 over TLS for the front ends of phones.

use std::future::Future;

use bytes::Bytes;
use causeway_mock_kit::listen::FaultStream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::limits::{BODY_TIMEOUT, HEAD_TIMEOUT, TLS_TIMEOUT};

/// An answer, or the order to close the connection instead.
pub(super) type Outcome = Result<Response<Full<Bytes>>, Closed>;

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
pub(super) struct Closed;

/// Serves one connection until either side closes it or `stop` says so.
pub(super) async fn serve<F, Fut>(tls: &TlsAcceptor, stream: FaultStream, stop: CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future<Output = Outcome>,
{
    let stream = match tokio::time::timeout(TLS_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake of a phone failed"),
        Err(_) => return,
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "Connection of a phone ended");
        }
    }
}

/// Reads a body.
///
/// # Errors
/// The status to answer with: too large, too slow, or cut off.
pub(super) async fn body(incoming: Incoming, max_bytes: usize) -> Result<Bytes, StatusCode> {
    let reading = Limited::new(incoming, max_bytes).collect();
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(StatusCode::PAYLOAD_TOO_LARGE)
        }
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
    }
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

/// Name and password of `Authorization: Basic` (RFC 7617).
pub(super) fn basic(headers: &http::HeaderMap) -> Option<(String, String)> {
    use base64::Engine as _;
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(credentials.trim()).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Asks for Basic.
pub(super) fn unauthorized(host: &str) -> Response<Full<Bytes>> {
    let mut answer = empty(StatusCode::UNAUTHORIZED);
    let realm = format!("Basic realm=\"{host}\"");
    if let Ok(value) = realm.parse() {
        answer.headers_mut().insert(http::header::WWW_AUTHENTICATE, value);
    }
    answer
}
