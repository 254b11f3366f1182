//! Uploading batches over HTTP/2.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_protocol::channel::ALPN_H2;
use causeway_protocol::upload::{BASE_PATH, Commit};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

use super::World;
use super::wire::{Credentials, dial};

/// One HTTP/2 connection of an agent.
pub(crate) struct Uploader(SendRequest<Full<Bytes>>);

impl Uploader {
    /// Connects, with or without a certificate.
    pub(crate) async fn connect(world: &World, credentials: Option<&Credentials>) -> Self {
        let tls = dial(world, credentials, &[ALPN_H2]).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(ALPN_H2));
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// Sends a request; returns status and JSON body (null when there is none).
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
        self.try_send(request).await.unwrap()
    }

    pub(crate) async fn try_send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<(StatusCode, Value)> {
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Puts NDJSON as batch `n`.
    pub(crate) async fn put(&mut self, upload: &str, n: u64, ndjson: &str) -> (StatusCode, Value) {
        self.send(batch(upload, n, &zstd::encode_all(ndjson.as_bytes(), 3).unwrap())).await
    }

    /// Commits.
    pub(crate) async fn commit(&mut self, upload: &str, batches: u64, records: u64) -> (StatusCode, Value) {
        let body = serde_json::to_vec(&Commit { batches, records }).unwrap();
        let request = Request::post(format!("https://cloud.causeway.test{BASE_PATH}/{upload}/commit"));
        self.send(request.body(Full::from(body)).unwrap()).await
    }

    /// Asks what has arrived.
    pub(crate) async fn state(&mut self, upload: &str) -> (StatusCode, Value) {
        let request = Request::get(format!("https://cloud.causeway.test{BASE_PATH}/{upload}"));
        self.send(request.body(Full::default()).unwrap()).await
    }
}

/// A batch request around compressed bytes, with a right digest.
pub(crate) fn batch(upload: &str, n: u64, compressed: &[u8]) -> Request<Full<Bytes>> {
    let digest = STANDARD.encode(digest::digest(&digest::SHA256, compressed));
    Request::put(format!("https://cloud.causeway.test{BASE_PATH}/{upload}/batches/{n}"))
        .header("content-encoding", "zstd")
        .header("content-type", "application/x-ndjson")
        .header("content-digest", format!("sha-256=:{digest}:"))
        .body(Full::from(compressed.to_vec()))
        .unwrap()
}
