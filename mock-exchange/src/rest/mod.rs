//! Exchange Online's admin REST (`InvokeCommand`) and the token endpoint that lets an application in.

mod assertion;
mod batch;
mod discovery;
mod invoke;
mod json;
mod token;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::hmac;
use bytes::Bytes;
use causeway_mock_kit::fault::{Fault, Point};
use causeway_mock_kit::listen::FaultStream;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

pub use assertion::CertificateError;
pub(crate) use json::parameter;

use self::assertion::Registered;
use self::invoke::Cursor;
use crate::config::RestConfig;
use crate::limits::{APP_CERTIFICATES_MAX, HEAD_TIMEOUT, REST_BODY_MAX_BYTES, TLS_HANDSHAKE_TIMEOUT};
use crate::server::{Shared, StartError};

/// An answer, or the order to close the connection instead.
type Outcome = Result<Response<Full<Bytes>>, Closed>;

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed by a fault rule")]
struct Closed;

/// An object as REST writes it.
pub(crate) fn object(object: &causeway_protocol::clixml::Object) -> serde_json::Value {
    json::object(object, &[])
}

/// What the REST and token front ends remember.
pub struct Rest {
    certificates: Mutex<Vec<Registered>>,
    /// Identifiers of used assertions with the Unix second in which each may be forgotten; none where one may be used again.
    used: Option<Mutex<VecDeque<(String, i64)>>>,
    cursors: Mutex<VecDeque<Cursor>>,
    /// Signs access tokens.
    key: Mutex<hmac::Key>,
    life_secs: i64,
}

impl Rest {
    pub(crate) fn new(config: &RestConfig) -> Result<Self, StartError> {
        let rest = Self {
            certificates: Mutex::default(),
            used: config.single_use_assertions.then(Mutex::default),
            cursors: Mutex::default(),
            key: Mutex::new(token::new_key()),
            life_secs: config.token_life_secs,
        };
        for path in &config.certificates {
            let pem = std::fs::read_to_string(path)
                .map_err(|source| StartError::Read { path: path.clone(), source })?;
            rest.register(&pem).map_err(|source| StartError::Certificate { path: path.clone(), source })?;
        }
        Ok(rest)
    }

    /// Registers a certificate; gives its SHA-1 thumbprint in upper-case hexadecimal, as portals show it.
    pub(crate) fn register(&self, pem: &str) -> Result<String, CertificateError> {
        let registered = Registered::read(pem)?;
        let mut certificates = held(&self.certificates);
        let thumbprint = registered.thumbprint();
        if !certificates.iter().any(|known| known.thumbprint() == thumbprint) {
            if certificates.len() >= APP_CERTIFICATES_MAX {
                return Err(CertificateError::TooMany);
            }
            certificates.push(registered);
        }
        Ok(thumbprint)
    }

    /// Takes a certificate away. False when it is not registered.
    pub(crate) fn unregister(&self, thumbprint: &str) -> bool {
        let mut certificates = held(&self.certificates);
        let before = certificates.len();
        certificates.retain(|known| !known.thumbprint().eq_ignore_ascii_case(thumbprint));
        certificates.len() < before
    }

    pub(crate) fn thumbprints(&self) -> Vec<String> {
        held(&self.certificates).iter().map(Registered::thumbprint).collect()
    }

    /// Makes every access token worthless and forgets half-read lists; registered certificates stay.
    pub(crate) fn forget(&self) {
        *held(&self.key) = token::new_key();
        held(&self.cursors).clear();
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing behind these locks is left half changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection of the front end `rest` or `token`.
pub(crate) async fn serve(shared: Arc<Shared>, front: &'static str, stream: FaultStream) {
    let acceptor = TlsAcceptor::from(Arc::clone(&shared.tls));
    let stream = match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(front, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(front, "TLS handshake took too long"),
    };
    let service = hyper::service::service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, front, request).await }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(front, %error, "Connection ended");
    }
}

/// One request with its body.
struct Request {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

async fn answer(shared: &Arc<Shared>, front: &'static str, request: http::Request<Incoming>) -> Outcome {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, REST_BODY_MAX_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE));
        }
        Err(_) => return Err(Closed),
    };
    let request = Request {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    if front == "token" {
        token::answer(shared, &request).await
    } else {
        invoke::answer(shared, &request).await
    }
}

/// A value of a query, decoded.
fn query_value(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        let decoded =
            |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        (decoded(key) == name).then(|| decoded(&value.replace('+', " ")))
    })
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn respond(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = plain(status);
    let bytes = serde_json::to_vec(body).expect("JSON values always encode");
    *response.body_mut() = Full::new(bytes.into());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json; odata.metadata=minimal; charset=utf-8"),
    );
    response
}

/// A refusal in the words of the admin API.
fn refuse(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    respond(status, &json!({ "error": { "code": code, "message": message } }))
}

/// Too many requests, or too busy: with the seconds after which to come back.
fn later(status: StatusCode, secs: u64, message: &str) -> Response<Full<Bytes>> {
    let mut response = refuse(status, "TooManyRequests", message);
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(secs));
    response
}

/// Applies a fault rule, if one strikes here. Of protocol-level faults the front ends obey `close`, `status` (for 429 and 503
/// the message may be the seconds of Retry-After) and `malformed` (half an answer).
async fn fault(
    shared: &Shared,
    front: &'static str,
    operation: &str,
    subject: &str,
) -> Option<Result<Fault, Outcome>> {
    let fault = shared.cx.faults.meet(&Point { front, operation, subject }).await?;
    Some(match fault {
        Fault::Close {} => Err(Err(Closed)),
        Fault::Status { code, message } => {
            let status = code.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let secs = message.trim().parse().unwrap_or(5);
            Err(Ok(match status {
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    later(status, secs, &message)
                }
                _ => refuse(status, status.as_str(), &message),
            }))
        }
        Fault::Malformed { .. } => {
            let mut response = plain(StatusCode::OK);
            *response.body_mut() = Full::new(Bytes::from_static(b"{\"value\":[{\"Identity\":\"as"));
            Err(Ok(response))
        }
        other => Ok(other),
    })
}
