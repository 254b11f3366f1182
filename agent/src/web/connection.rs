//! HTTP/1.1 over the agent's dialler: one connection, one request in flight, nothing repeated.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, HOST, HeaderMap, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::endpoint::Endpoint;
use super::limits;
use crate::dial::tls::{self, TlsError};
use crate::dial::{DialError, Side, Target};
use crate::directory::Net;

/// One connection to one server.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: AbortHandle,
    binding: Option<Vec<u8>>,
    /// The peer has said that it is going to close.
    ending: bool,
}

/// A request: all but where it goes.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The header fields, besides `Host`.
    pub headers: HeaderMap,
    /// All of the body.
    pub body: Bytes,
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// All of the body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection.
    #[error("reach {server}")]
    Dial {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: Box<DialError>,
    },
    /// No TLS.
    #[error("secure the connection to {server}")]
    Tls {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: Box<TlsError>,
    },
    /// The connection was closed before the request went out.
    #[error("{server} has closed the connection")]
    Closed {
        /// Host and port.
        server: String,
    },
    /// The connection broke while the request was out.
    #[error("the connection to {server} broke")]
    Broken {
        /// Host and port.
        server: String,
        /// What happened.
        #[source]
        source: hyper::Error,
    },
    /// The answer does not come.
    #[error("no answer from {server} within {} s", .within.as_secs())]
    TimedOut {
        /// Host and port.
        server: String,
        /// How long we waited.
        within: Duration,
    },
    /// The answer is larger than anything the protocol has.
    #[error("{server} answers with more than {max_bytes} bytes")]
    TooLarge {
        /// Host and port.
        server: String,
        /// The limit.
        max_bytes: usize,
    },
    /// The answer is compressed although we asked for no compression.
    #[error(
        "{server}, or something before it, answers in the coding {coding}, which the request refused; switch dynamic compression off for this path"
    )]
    Encoded {
        /// Host and port.
        server: String,
        /// `gzip`, for example.
        coding: String,
    },
    /// The request cannot be written.
    #[error("write a request for {server}")]
    BadRequest {
        /// Host and port.
        server: String,
        /// What is wrong.
        #[source]
        source: http::Error,
    },
}

impl HttpError {
    /// Whether the server cannot have seen the request.
    pub fn was_not_sent(&self) -> bool {
        matches!(self, Self::Dial { .. } | Self::Tls { .. } | Self::Closed { .. } | Self::BadRequest { .. })
    }

    /// Whether an answer got lost, so that asking for it again makes sense.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Dial { .. } | Self::Closed { .. } | Self::Broken { .. } | Self::TimedOut { .. })
    }

    /// Whether another server, or the same one later, may do better.
    pub fn is_servers_fault(&self) -> bool {
        !matches!(self, Self::BadRequest { .. })
    }
}

impl Connection {
    /// Connects, and speaks TLS where the URL says so.
    ///
    /// # Errors
    /// When the server cannot be reached or is not trusted.
    pub async fn open(
        net: &Net,
        side: Side,
        endpoint: &Endpoint,
        config: &Arc<ClientConfig>,
    ) -> Result<Self, HttpError> {
        let server = || endpoint.to_string();
        let target = Target { host: endpoint.host.clone(), port: endpoint.port, side };
        let stream = net
            .dial
            .connect(target)
            .await
            .map_err(|source| HttpError::Dial { server: server(), source: Box::new(source) })?;
        if !endpoint.tls {
            return Self::over(endpoint, stream, None).await;
        }
        let stream = tls::handshake(config.clone(), &endpoint.host, stream)
            .await
            .map_err(|source| HttpError::Tls { server: server(), source: Box::new(source) })?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let binding = leaf.map(|leaf| server_end_point(leaf));
        Self::over(endpoint, stream, binding).await
    }

    /// Speaks over an open stream.
    async fn over(
        endpoint: &Endpoint,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        binding: Option<Vec<u8>>,
    ) -> Result<Self, HttpError> {
        let broken = |source| HttpError::Broken { server: endpoint.to_string(), source };
        let (sender, connection) = http1::Builder::new()
            .max_headers(limits::HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %crate::chain::Chain(&error), "A connection ended");
            }
        });
        Ok(Self { sender, driver: driver.abort_handle(), binding, ending: false })
    }

    /// What binds a security context to this connection's TLS; nothing without TLS.
    pub fn binding(&self) -> Option<&[u8]> {
        self.binding.as_deref()
    }

    /// Whether another request can go out.
    pub fn is_open(&self) -> bool {
        !self.ending && !self.sender.is_closed()
    }

    /// Posts a body and reads all of the answer, but no more than `max_bytes`.
    ///
    /// # Errors
    /// See [`HttpError::was_not_sent`] for whether it may be repeated.
    pub async fn post(
        &mut self,
        endpoint: &Endpoint,
        headers: HeaderMap,
        body: Bytes,
        within: Duration,
        max_bytes: usize,
    ) -> Result<Answer, HttpError> {
        self.send(endpoint, Ask { method: Method::POST, headers, body }, within, max_bytes).await
    }

    /// Sends a request and reads all of the answer, but no more than `max_bytes`.
    ///
    /// # Errors
    /// See [`HttpError::was_not_sent`] for whether it may be repeated.
    pub async fn send(
        &mut self,
        endpoint: &Endpoint,
        Ask { method, headers, body }: Ask,
        within: Duration,
        max_bytes: usize,
    ) -> Result<Answer, HttpError> {
        let server = || endpoint.to_string();
        let mut request = Request::builder()
            .method(method)
            .uri(&endpoint.path)
            .header(HOST, endpoint.authority())
            .header(ACCEPT_ENCODING, "identity")
            .body(Full::new(body))
            .map_err(|source| HttpError::BadRequest { server: server(), source })?;
        request.headers_mut().extend(headers);
        if !self.is_open() || self.sender.ready().await.is_err() {
            return Err(HttpError::Closed { server: server() });
        }
        // Dropped half way, the connection is in an unknown state: only a whole answer keeps it usable.
        self.ending = true;
        let whole = async {
            let answer = self.sender.send_request(request).await.map_err(|source| {
                if source.is_canceled() {
                    HttpError::Closed { server: server() }
                } else {
                    HttpError::Broken { server: server(), source }
                }
            })?;
            read(endpoint, answer, max_bytes).await
        };
        let (answer, ends) = timeout(within, whole)
            .await
            .map_err(|_| HttpError::TimedOut { server: server(), within })
            .flatten()?;
        self.ending = ends;
        Ok(answer)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn read(
    endpoint: &Endpoint,
    answer: http::Response<Incoming>,
    max_bytes: usize,
) -> Result<(Answer, bool), HttpError> {
    let (parts, mut incoming) = answer.into_parts();
    let too_large = || HttpError::TooLarge { server: endpoint.to_string(), max_bytes };
    if let Some(coding) = parts.headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let coding = String::from_utf8_lossy(coding.as_bytes()).chars().take(20).collect();
        return Err(HttpError::Encoded { server: endpoint.to_string(), coding });
    }
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|source| HttpError::Broken { server: endpoint.to_string(), source })?;
        if let Ok(piece) = frame.into_data() {
            if body.len() + piece.len() > max_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
    }
    let ends = parts.headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    Ok((Answer { status: parts.status, headers: parts.headers, body: body.freeze() }, ends))
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3); dates are for caches.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(limits::RETRY_AFTER_MAX))
}

/// When a server says that it answered, Unix milliseconds.
pub fn date_ms(headers: &HeaderMap) -> Option<i64> {
    read_date(headers.get(http::header::DATE)?.to_str().ok()?)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7) in Unix milliseconds.
pub fn read_date(text: &str) -> Option<i64> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = time::PrimitiveDateTime::parse(text, format).ok()?.assume_utc();
    Some(at.unix_timestamp() * 1_000)
}

/// `tls-server-end-point` (RFC 5929 §4.1): the certificate's hash by the hash function of its signature, but SHA-256
/// where that is MD5, SHA-1 or none.
fn server_end_point(certificate: &[u8]) -> Vec<u8> {
    let oid = x509_parser::parse_x509_certificate(certificate)
        .map(|(_, parsed)| parsed.signature_algorithm.algorithm.to_id_string());
    let algorithm = match oid.as_deref() {
        // sha384WithRSAEncryption, ecdsa-with-SHA384
        Ok("1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3") => &digest::SHA384,
        // sha512WithRSAEncryption, ecdsa-with-SHA512
        Ok("1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4") => &digest::SHA512,
        _ => &digest::SHA256,
    };
    [b"tls-server-end-point:", digest::digest(algorithm, certificate).as_ref()].concat()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::read("http://mail1/PowerShell/?a=1;b=2").unwrap()
    }

    /// Answers one request with these bytes, then closes if asked to; gives back what was asked.
    async fn answered(
        answer: &'static [u8],
        max_bytes: usize,
        within: Duration,
    ) -> (Result<Answer, HttpError>, String, bool) {
        let (ours, mut theirs) = duplex(64 << 10);
        let peer = tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"body") {
                assert_ne!(theirs.read_buf(&mut asked).await.unwrap(), 0);
            }
            theirs.write_all(answer).await.unwrap();
            (String::from_utf8(asked).unwrap(), theirs)
        });
        let mut connection = Connection::over(&endpoint(), ours, None).await.unwrap();
        let body = Bytes::from_static(b"body");
        let answer = connection.post(&endpoint(), HeaderMap::new(), body, within, max_bytes).await;
        let open = connection.is_open();
        let (asked, _theirs) = peer.await.unwrap();
        (answer, asked, open)
    }

    #[tokio::test]
    async fn a_request_asks_for_no_compression_and_keeps_the_query() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let (answer, asked, open) = answered(text, 100, Duration::from_secs(5)).await;
        assert_eq!(answer.unwrap().body, "ok");
        assert!(asked.starts_with("POST /PowerShell/?a=1;b=2 HTTP/1.1\r\n"), "{asked}");
        assert!(
            asked.contains("accept-encoding: identity\r\n") && asked.contains("host: mail1\r\n"),
            "{asked}"
        );
        assert!(asked.contains("content-length: 4\r\n"), "{asked}");
        assert!(open);
        let text = b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\nContent-Length: 0\r\n\r\n";
        assert!(!answered(text, 100, Duration::from_secs(5)).await.2, "the peer is going to close");
    }

    #[tokio::test]
    async fn answers_that_cannot_be_used_say_why() {
        let long = Duration::from_secs(5);
        let gzip = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx";
        assert!(
            matches!(answered(gzip, 100, long).await.0, Err(HttpError::Encoded { coding, .. }) if coding == "gzip")
        );
        let large = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n12345678901";
        assert!(matches!(answered(large, 10, long).await.0, Err(HttpError::TooLarge { .. })));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n123";
        let short = Duration::from_millis(50);
        let (answer, _, open) = answered(cut, 100, short).await;
        assert!(matches!(answer, Err(HttpError::TimedOut { .. })) && !open);
    }

    #[test]
    fn the_binding_hashes_by_the_signatures_own_function() {
        for (algorithm, length) in
            [(&rcgen::PKCS_ECDSA_P256_SHA256, 32), (&rcgen::PKCS_ECDSA_P384_SHA384, 48)]
        {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate =
                rcgen::CertificateParams::new(vec!["mail1".into()]).unwrap().self_signed(&key).unwrap();
            let binding = server_end_point(certificate.der());
            assert_eq!(binding.len(), "tls-server-end-point:".len() + length);
        }
        assert_eq!(server_end_point(b"no certificate").len(), "tls-server-end-point:".len() + 32);
    }
}
