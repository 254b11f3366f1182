//! One HTTP/2 connection to the cloud, opened when it is needed and again when it broke.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::{HeaderMap, Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::cloud::{CloudConnector, CloudError};
use crate::limits::{HTTP_ANSWER_MAX_BYTES, HTTP_WITHIN, UPLOAD_RETRY_AFTER_MAX};

/// A client for one host.
pub(super) struct Http {
    connector: Arc<CloudConnector>,
    open: Mutex<Option<SendRequest<Full<Bytes>>>>,
    resting: AtomicBool,
}

/// An answer.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is none.
#[derive(Debug, Error)]
pub(super) enum HttpError {
    #[error("connect for an upload")]
    Connect {
        #[source]
        source: CloudError,
    },
    #[error("talk HTTP/2 to the cloud")]
    Protocol {
        #[source]
        source: hyper::Error,
    },
    #[error("the cloud did not answer within {} s", HTTP_WITHIN.as_secs())]
    TimedOut,
    #[error("the cloud's answer is longer than {HTTP_ANSWER_MAX_BYTES} bytes")]
    TooLong,
    #[error("read the cloud's answer")]
    Body {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Http {
    pub(super) fn new(connector: Arc<CloudConnector>) -> Self {
        Self { connector, open: Mutex::default(), resting: AtomicBool::new(false) }
    }

    /// The full address of a path.
    pub(super) fn uri(&self, path: &str) -> Uri {
        let endpoint = self.connector.endpoint();
        Uri::builder()
            .scheme("https")
            .authority(format!("{}:{}", endpoint.bracketed(), endpoint.port))
            .path_and_query(path)
            .build()
            .expect("the endpoint and our paths are valid")
    }

    /// Sends and waits for the whole answer. After an error it is unknown whether the cloud acted.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response, HttpError> {
        let exchange = async {
            let mut sender = self.sender().await?;
            let request = request.map(Full::new);
            let answer =
                sender.send_request(request).await.map_err(|source| HttpError::Protocol { source })?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, HTTP_ANSWER_MAX_BYTES).collect().await.map_err(|source| {
                if source.is::<LengthLimitError>() { HttpError::TooLong } else { HttpError::Body { source } }
            })?;
            Ok(Response { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        let answer = timeout(HTTP_WITHIN, exchange).await.unwrap_or(Err(HttpError::TimedOut));
        if answer.is_err() {
            // The next request begins with a connection of its own.
            *self.open.lock().await = None;
        }
        answer
    }

    /// Nothing more to send for now: the connection is closed when the last answer is read.
    pub(super) fn rest(&self) {
        self.resting.store(true, Ordering::Relaxed);
        if let Ok(mut open) = self.open.try_lock() {
            *open = None;
        }
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.as_mut()
            && !self.resting.swap(false, Ordering::Relaxed)
            && sender.ready().await.is_ok()
        {
            return Ok(sender.clone());
        }
        self.resting.store(false, Ordering::Relaxed);
        let stream = self.connector.connect_h2().await.map_err(|source| HttpError::Connect { source })?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|source| HttpError::Protocol { source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "The upload connection ended");
            }
        });
        *open = Some(sender.clone());
        Ok(sender)
    }
}

impl Response {
    /// `Retry-After` in seconds.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        Some(Duration::from_secs(text.parse().ok()?).min(UPLOAD_RETRY_AFTER_MAX))
    }
}
