//! A small HTTPS client for the cloud's API and the mocks' admin APIs: JSON in, JSON out, connections kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::RETRY_AFTER;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one call may take; waits of the API are shorter.
const CALL_WITHIN: Duration = Duration::from_secs(70);

/// Idle connections kept per client.
const IDLE_MAX: usize = 64;

/// A client of one origin.
#[derive(Clone)]
pub struct Client {
    origin: Arc<Origin>,
    idle: Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
}

#[derive(Clone)]
struct Origin {
    host: String,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
    token: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body; `null` when it is empty or not JSON.
    pub body: Value,
    /// When to come back, if it says so.
    pub retry_after_secs: Option<u64>,
}

impl Answer {
    /// The body of a successful answer.
    ///
    /// # Errors
    /// Any other status, with the problem document's words.
    pub fn ok(self) -> Result<Value> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let words = self.body["detail"].as_str().or(self.body["title"].as_str()).unwrap_or("no details");
        bail!("the API answers {}: {words}", self.status)
    }
}

impl Client {
    /// A client for `url` (`http://` or `https://`, host and port); `tls` is needed for https, `token` is sent as bearer.
    ///
    /// # Errors
    /// When the URL has no host or port.
    pub fn new(url: &str, tls: Option<Arc<rustls::ClientConfig>>, token: Option<String>) -> Result<Self> {
        let uri: hyper::Uri = url.parse().with_context(|| format!("read URL {url:?}"))?;
        let host = uri.host().with_context(|| format!("URL {url:?} has no host"))?.to_owned();
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let tls = if https { Some(tls.context("an https URL needs a CA to trust")?) } else { None };
        Ok(Self { origin: Arc::new(Origin { host, port, tls, token }), idle: Arc::default() })
    }

    /// Somebody else at the same origin, over the same connections.
    pub fn with_token(&self, token: String) -> Self {
        let origin = Origin { token: Some(token), ..(*self.origin).clone() };
        Self { origin: Arc::new(origin), idle: Arc::clone(&self.idle) }
    }

    /// What it is known by there.
    pub fn token(&self) -> Option<&str> {
        self.origin.token.as_deref()
    }

    /// `GET path`
    ///
    /// # Errors
    /// No connection, or no answer in time.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, None).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// No connection, or no answer in time.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Any method, with or without a JSON body.
    ///
    /// # Errors
    /// No connection, or no answer in time.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let what = format!("{method} {path}");
        tokio::time::timeout(CALL_WITHIN, self.exchange(method, path, body))
            .await
            .with_context(|| format!("{what}: no answer in {} s", CALL_WITHIN.as_secs()))?
            .with_context(|| format!("{what} at {}:{}", self.origin.host, self.origin.port))
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let request = self.request(method, path, body)?;
        let kept = self.idle.lock().expect("no holder panics").pop();
        let mut sender = match kept {
            Some(sender) if sender.is_ready() => sender,
            _ => self.connect().await?,
        };
        let response = sender.send_request(request).await.context("send request")?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after_secs = retry_after.and_then(|text| text.parse().ok());
        let bytes = response.into_body().collect().await.context("read answer")?.to_bytes();
        let mut idle = self.idle.lock().expect("no holder panics");
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), retry_after_secs })
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("{}:{}", self.origin.host, self.origin.port));
        if let Some(token) = &self.origin.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(serde_json::to_vec(body)?)
            }
            None => Bytes::new(),
        };
        Ok(request.body(Full::new(bytes))?)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let Origin { host, port, tls, .. } = &*self.origin;
        let stream = TcpStream::connect((host.as_str(), *port)).await.context("connect")?;
        stream.set_nodelay(true)?;
        match tls {
            None => open(stream).await,
            Some(config) => {
                let mut config = (**config).clone();
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let name = ServerName::try_from(host.clone())?;
                open(TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS")?).await
            }
        }
    }
}

/// One exchange of octets over plain http, as CRLs and OCSP are fetched: GET, or POST of `(content type, body)`.
///
/// # Errors
/// No connection, no answer in time, another status than 200, or more than `max_bytes`.
pub async fn fetch(
    url: &str,
    post: Option<(&str, Vec<u8>)>,
    max_bytes: usize,
    within: Duration,
) -> Result<Bytes> {
    let client = Client::new(url, None, None)?;
    let path = url.parse::<hyper::Uri>()?.path_and_query().map_or("/".to_owned(), ToString::to_string);
    let exchange = async {
        let mut request = Request::builder()
            .uri(path)
            .header("host", format!("{}:{}", client.origin.host, client.origin.port));
        let mut body = Bytes::new();
        if let Some((content_type, octets)) = post {
            request = request.method(Method::POST).header("content-type", content_type);
            body = octets.into();
        }
        let response = client.connect().await?.send_request(request.body(Full::new(body))?).await?;
        if response.status() != StatusCode::OK {
            bail!("it answers {}", response.status());
        }
        let read = Limited::new(response.into_body(), max_bytes).collect().await;
        Ok(read.map_err(|error| anyhow!("read answer: {error}"))?.to_bytes())
    };
    let answer = tokio::time::timeout(within, exchange).await;
    answer
        .with_context(|| format!("no answer in {} s", within.as_secs()))?
        .with_context(|| format!("ask {url}"))
}

async fn open<S>(stream: S) -> Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.context("HTTP/1.1")?;
    tokio::spawn(async move {
        // The end of a kept connection is not an error: the next call opens another.
        let _ = connection.await;
    });
    Ok(sender)
}
