//! What a caller is still sending when it has its answer.
//!
//! A refusal (401, 404, 413 ...) often comes before the end of the body. With bytes unread, HTTP/1.1 can only close the
//! connection, which resets it while the caller writes, and HTTP/2 resets the stream: the caller sees a broken pipe
//! instead of the answer (RFC 9112 section 9.6). So the rest is read and thrown away, within limits.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::limits::{UNREAD_MAX_BYTES, UNREAD_WITHIN};

/// Reads what the route has left of the body before its answer goes out.
pub(crate) async fn throw_away(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    // A caller that asks first sends nothing until somebody reads (RFC 9110 section 10.1.1).
    let sends_at_once = !parts.headers.contains_key(header::EXPECT);
    let left = Arc::new(Mutex::new(None));
    let lent = Lent { body, is_sent: sends_at_once, left: Arc::clone(&left) };
    let response = next.run(Request::from_parts(parts, Body::new(lent))).await;
    let rest = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(rest) = rest {
        // Whoever needs longer is interrupted.
        let _ = tokio::time::timeout(UNREAD_WITHIN, read(rest)).await;
    }
    response
}

async fn read(mut body: Body) {
    let mut room = UNREAD_MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match room.checked_sub(bytes) {
            Some(less) => room = less,
            None => return,
        }
    }
}

/// A body that comes back when the route is done with it and has not read it to its end.
struct Lent {
    body: Body,
    /// Whether the caller sends it, or has begun to.
    is_sent: bool,
    left: Arc<Mutex<Option<Body>>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_sent = true;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.is_sent && !self.body.is_end_stream() {
            let body = std::mem::take(&mut self.body);
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware;
    use axum::routing::post;
    use futures_util::{StreamExt as _, stream};
    use tower::ServiceExt as _;

    use super::*;

    const PIECE: usize = 64 * 1024;

    /// Sends so many pieces to a route that answers at once, or reads one piece; says how many were taken.
    async fn taken(pieces: usize, expect: bool, reads: bool) -> usize {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let body = stream::iter(0..pieces).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(&[0; PIECE]))
        });
        let refuse = post(move |request: Request| async move {
            let mut body = request.into_body();
            if reads {
                let _ = body.frame().await;
            }
            StatusCode::PAYLOAD_TOO_LARGE
        });
        let router = Router::new().route("/", refuse).layer(middleware::from_fn(throw_away));
        let mut request = Request::post("/");
        if expect {
            request = request.header(header::EXPECT, "100-continue");
        }
        let response = router.oneshot(request.body(Body::from_stream(body)).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        sent.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_refused_body_is_read_within_limits() {
        assert_eq!(taken(100, false, false).await, 100);
        assert_eq!(taken(100, false, true).await, 100);
        let most = UNREAD_MAX_BYTES / PIECE;
        assert_eq!(taken(most * 2, false, false).await, most + 1, "not without an end");
        assert_eq!(taken(100, true, false).await, 0, "it would only be sent for us to throw away");
        assert_eq!(taken(100, true, true).await, 100);
    }
}
