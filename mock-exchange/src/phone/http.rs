//! The phone's HTTP: one request at a time over TLS, the connection kept for the next.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::limits::{ANSWER_MAX_BYTES, CONNECT_TIMEOUT};

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    #[error("{url:?} is not a URL with http or https and a host")]
    Url { url: String },
    #[error("connect to {address} within {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimedOut { address: String },
    #[error("connect to {address}")]
    Connect {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no answer within {} s", bound.as_secs())]
    TimedOut { bound: Duration },
    #[error("ask the server")]
    Exchange(#[source] hyper::Error),
    #[error("read the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("make the request")]
    Request(#[source] http::Error),
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// A header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Where a URL leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// Path without a query.
    pub path: String,
}

impl Target {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// [`HttpError::Url`].
    pub fn parse(url: &str) -> Result<Self, HttpError> {
        let wrong = || HttpError::Url { url: url.to_owned() };
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, path: uri.path().to_owned() })
    }

    /// As the Host header says it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A client of one server at a time.
pub struct Http {
    tls: TlsConnector,
    idle: Mutex<Option<(Target, SendRequest<Full<Bytes>>)>>,
}

impl Http {
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls: TlsConnector::from(tls), idle: Mutex::new(None) }
    }

    /// Sends a request and reads the whole answer. A kept connection that turns out to be closed is replaced once.
    ///
    /// # Errors
    /// [`HttpError`] when no answer came within `bound`.
    pub async fn send(
        &self,
        target: &Target,
        request: Request<Full<Bytes>>,
        bound: Duration,
    ) -> Result<Answer, HttpError> {
        let exchange = async {
            if let Some(kept) = self.take(target) {
                match self.over(target, kept, request.clone()).await {
                    // The server had closed it before anything was sent.
                    Err(HttpError::Exchange(error)) if error.is_canceled() => {}
                    other => return other,
                }
            }
            let fresh = self.connect(target).await?;
            self.over(target, fresh, request).await
        };
        tokio::time::timeout(bound, exchange).await.map_err(|_| HttpError::TimedOut { bound })?
    }

    /// Closes the kept connection.
    pub fn close(&self) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn take(&self, target: &Target) -> Option<SendRequest<Full<Bytes>>> {
        let (known, sender) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let same = (known.tls, &known.host, known.port) == (target.tls, &target.host, target.port);
        (same && sender.is_ready()).then_some(sender)
    }

    async fn over(
        &self,
        target: &Target,
        mut sender: SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, HttpError> {
        let answer = sender.send_request(request).await.map_err(HttpError::Exchange)?;
        let answer = read(answer).await?;
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some((target.clone(), sender));
        Ok(answer)
    }

    async fn connect(&self, target: &Target) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let address = target.authority();
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
            tcp.set_nodelay(true)?;
            if !target.tls {
                return Ok(Stream::Plain(tcp));
            }
            let name = ServerName::try_from(target.host.clone()).map_err(std::io::Error::other)?;
            Ok(Stream::Tls(Box::new(self.tls.connect(name, tcp).await?)))
        });
        let stream = match opened.await {
            Err(_) => return Err(HttpError::ConnectTimedOut { address }),
            Ok(Err(source)) => return Err(HttpError::Connect { address, source }),
            Ok(Ok(stream)) => stream,
        };
        match stream {
            Stream::Plain(tcp) => drive(tcp).await,
            Stream::Tls(tls) => drive(*tls).await,
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn drive<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(HttpError::Exchange)?;
    // Ends when the sender is dropped or the server closes.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "Connection of a phone ended");
        }
    });
    Ok(sender)
}

async fn read(answer: Response<Incoming>) -> Result<Answer, HttpError> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(HttpError::Body)?.to_bytes();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("https://mail.acme.example/Microsoft-Server-ActiveSync").unwrap();
        assert_eq!((target.tls, target.port), (true, 443));
        assert_eq!(target.authority(), "mail.acme.example:443");
        let target = Target::parse("http://[::1]:8080/x?y").unwrap();
        assert_eq!((target.authority().as_str(), target.path.as_str()), ("[::1]:8080", "/x"));
        for wrong in ["ftp://x/", "/path", "https://", ""] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
