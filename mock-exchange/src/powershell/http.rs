//! One connection of a client: HTTP around WSMan, authentication before it, sealing between them.

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use causeway_protocol::wsman::encryption::{Protocol, Sealed};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use super::answer::{Answer, Body};
use super::auth::{Guest, Verdict};
use super::gzip;
use super::settings::Scheme;
use super::twist::Steer;
use super::{Call, Front, PowerShell};
use crate::limits::{HEAD_TIMEOUT, REQUEST_MAX_BYTES};
use crate::server::Shared;

/// The client says it wants to know who answers before it says who it is (MS-WSMV 3.1.4.5.29).
const IDENTIFY: HeaderName = HeaderName::from_static("wsmanidentify");
const SOAP: HeaderValue = HeaderValue::from_static("application/soap+xml;charset=UTF-8");

/// Why the connection ends without an answer; a fault asked for it.
#[derive(Debug, thiserror::Error)]
#[error("connection closed by a fault rule")]
struct Dropped;

/// A connection and who it belongs to.
struct Connection {
    shared: Arc<Shared>,
    front: Front,
    peer: SocketAddr,
    /// NTLM and Kerberos authenticate connections. Requests of one connection come one after the other, as sealing needs.
    guest: Mutex<Guest>,
}

/// Serves one connection until the client closes it.
pub(super) async fn serve<S>(shared: Arc<Shared>, front: Front, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(Connection { shared, front, peer, guest: Mutex::new(Guest::default()) });
    let service = hyper::service::service_fn(move |request| {
        let connection = Arc::clone(&connection);
        async move { connection.respond(request).await }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, %peer, "PowerShell connection ended");
    }
}

impl Connection {
    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, REQUEST_MAX_BYTES).collect().await else {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE));
        };
        let powershell = PowerShell::of(&self.shared);
        if !powershell.has_path(head.uri.path()) {
            return Ok(plain(StatusCode::NOT_FOUND));
        }
        if head.method != Method::POST {
            return Ok(plain(StatusCode::METHOD_NOT_ALLOWED));
        }
        self.post(&powershell, &head.headers, body.to_bytes()).await
    }

    async fn post(
        &self,
        powershell: &PowerShell,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Dropped> {
        if headers.get(IDENTIFY).is_some_and(|value| value.as_bytes() == b"unauthenticated") {
            let mut response = Response::new(Body::whole(powershell.identify(&self.front, false)));
            response.headers_mut().insert(header::CONTENT_TYPE, SOAP);
            return Ok(response);
        }
        let mut guest = self.guest.lock().await;
        let twist = match powershell.steer_at_the_door(&self.front).await {
            Steer::Go(twist) => twist,
            Steer::Status(status, text) => return Ok(plain_with(status, text)),
            _ => return Err(Dropped),
        };
        let door = powershell.door(&self.front, &twist);
        let verdict = door.judge(&mut guest, headers.get(header::AUTHORIZATION));
        let (account, last_token) = match verdict {
            Verdict::Refuse(challenges, why) => return Ok(self.unauthorized(powershell, challenges, why)),
            Verdict::Admit { account, last_token } => (account, last_token),
        };
        let opened = self.open(powershell, &mut guest, headers, &body);
        let mut response = match opened {
            Ok(Opened::Nothing) => plain(StatusCode::OK),
            Err(status) => plain(status),
            Ok(Opened::Envelope { clear, sealed }) => {
                let call = Call { front: &self.front, account: &account, peer: self.peer, headers };
                let answer = powershell.wsman(&call, &clear).await.ok_or(Dropped)?;
                close(powershell, &mut guest, headers, sealed, answer)
            }
        };
        if let Some(token) = last_token {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, token);
        }
        Ok(response)
    }

    fn unauthorized(
        &self,
        powershell: &PowerShell,
        challenges: Vec<HeaderValue>,
        why: &'static str,
    ) -> Response<Body> {
        if why != "challenge" && why != "no credentials" {
            powershell.note(&self.front, "authenticate", "", "401", json!({ "why": why }));
        }
        let mut response = plain(StatusCode::UNAUTHORIZED);
        for challenge in challenges {
            response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    /// The envelope in a request's body.
    fn open(
        &self,
        powershell: &PowerShell,
        guest: &mut Guest,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Opened, StatusCode> {
        if body.is_empty() {
            return Ok(Opened::Nothing);
        }
        let content_type =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let Some(protocol) = Protocol::of_content_type(content_type) else {
            let config = &powershell.config;
            let clear = self.front.tls.is_some() || config.unencrypted || config.basic_over_http;
            // WinRM with AllowUnencrypted off gives no reason either.
            return match clear {
                true => Ok(Opened::Envelope { clear: body.to_vec(), sealed: None }),
                false => Err(StatusCode::INTERNAL_SERVER_ERROR),
            };
        };
        let Guest::Known(known) = guest else { return Err(StatusCode::BAD_REQUEST) };
        let sealed = Sealed::read(body).map_err(|error| {
            tracing::debug!(%error, "Sealed request is malformed");
            StatusCode::BAD_REQUEST
        })?;
        if protocol != sealed_as(known.scheme) || sealed.protocol != protocol {
            return Err(StatusCode::BAD_REQUEST);
        }
        match known.seal.unwrap(&[sealed.token, sealed.content].concat()) {
            Some(clear) if clear.len() == sealed.plain_bytes => {
                Ok(Opened::Envelope { clear, sealed: Some(protocol) })
            }
            _ => {
                // Both ends count messages, with NTLM on one key stream: nothing later on this connection could be read.
                *guest = Guest::Unknown;
                Err(StatusCode::BAD_REQUEST)
            }
        }
    }
}

/// What a request carries.
enum Opened {
    /// Only a token of the authentication.
    Nothing,
    Envelope {
        clear: Vec<u8>,
        sealed: Option<Protocol>,
    },
}

/// Seals an answer as the request was sealed, or compresses it, or leaves it.
fn close(
    powershell: &PowerShell,
    guest: &mut Guest,
    headers: &HeaderMap,
    sealed: Option<Protocol>,
    answer: Answer,
) -> Response<Body> {
    let Answer { status, xml, twist, cut_at, cookie, header } = answer;
    let mut content_type = SOAP;
    let mut encoding = None;
    let mut before = 0;
    let body = match (guest, sealed) {
        (Guest::Known(known), Some(protocol)) if !xml.is_empty() => {
            content_type = HeaderValue::from_str(&protocol.content_type()).unwrap_or(SOAP);
            let mut wrapped = known.seal.wrap(&xml);
            let token_bytes = known.seal.token_bytes();
            if twist.wrong_signature {
                // In the middle of either token is what protects the text.
                wrapped[token_bytes / 2] ^= 1;
            }
            let (token, content) = wrapped.split_at(token_bytes);
            let framed = Sealed { protocol, plain_bytes: xml.len(), token, content }.write();
            before = framed.len() - xml.len();
            if twist.boundary_space { with_space(&framed, wrapped.len()) } else { framed }
        }
        _ if twist.gzip || (powershell.config.gzip && accepts_gzip(headers)) => {
            encoding = Some(HeaderValue::from_static("gzip"));
            gzip::stored(&xml)
        }
        _ => xml,
    };
    let mut response = Response::new(match cut_at {
        Some(at) => Body::cut(body, at + before),
        None => Body::whole(body),
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    let further = [
        encoding.map(|it| (header::CONTENT_ENCODING, it)),
        cookie.map(|it| (header::SET_COOKIE, it)),
        header,
    ];
    headers.extend(further.into_iter().flatten());
    response
}

fn sealed_as(scheme: Scheme) -> Protocol {
    if scheme == Scheme::Kerberos { Protocol::Kerberos } else { Protocol::Spnego }
}

/// The boundary with a space, as Exchange sends it: in the text before the sealed bytes and in the text behind them.
fn with_space(framed: &[u8], sealed_bytes: usize) -> Vec<u8> {
    const TAIL_BYTES: usize = "--Encrypted Boundary--\r\n".len();
    const BOUNDARY: &str = "--Encrypted Boundary";
    let (head, rest) = framed.split_at(framed.len() - TAIL_BYTES - sealed_bytes - 4);
    let (binary, tail) = rest.split_at(rest.len() - TAIL_BYTES);
    let spaced =
        |text: &[u8]| String::from_utf8_lossy(text).replace(BOUNDARY, "-- Encrypted Boundary").into_bytes();
    [spaced(head), binary.to_vec(), spaced(tail)].concat()
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    accepted.split(',').any(|coding| coding.trim().split(';').next() == Some("gzip"))
}

/// An answer that is not WSMan's, with where to go or when to come back.
fn plain_with(status: StatusCode, text: Option<String>) -> Response<Body> {
    let mut response = plain(status);
    let name = if status.is_redirection() { header::LOCATION } else { header::RETRY_AFTER };
    if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// An answer that is not WSMan's.
fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("Microsoft-IIS/10.0"));
    response
}
