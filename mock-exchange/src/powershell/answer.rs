//! What is sent back for one request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use hyper::body::{Frame, SizeHint};

use super::twist::Twist;

/// An answer before it is sealed or compressed.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) xml: Vec<u8>,
    pub(super) twist: Twist,
    /// Where of `xml` the connection is cut.
    pub(super) cut_at: Option<usize>,
    pub(super) cookie: Option<HeaderValue>,
    /// A further header, such as `Location`.
    pub(super) header: Option<(http::HeaderName, HeaderValue)>,
}

impl Answer {
    /// An envelope, or whatever takes its place.
    pub(super) fn new(status: StatusCode, xml: impl Into<Vec<u8>>) -> Self {
        let (twist, cut_at, cookie, header) = (Twist::default(), None, None, None);
        Self { status, xml: xml.into(), twist, cut_at, cookie, header }
    }
}

/// A body of known length that may break off before its end, which breaks the connection.
pub(super) struct Body {
    bytes: Option<Bytes>,
    length: u64,
    breaks: bool,
}

impl Body {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { length: bytes.len() as u64, bytes: Some(bytes), breaks: false }
    }

    /// Announces all of `bytes` and sends those before `at`.
    pub(super) fn cut(bytes: impl Into<Bytes>, at: usize) -> Self {
        let mut bytes = bytes.into();
        let length = bytes.len() as u64;
        bytes.truncate(at.min(bytes.len().saturating_sub(1)));
        Self { bytes: Some(bytes), length, breaks: true }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(match self.bytes.take() {
            Some(bytes) if !bytes.is_empty() => Some(Ok(Frame::data(bytes))),
            _ if self.breaks => Some(Err(io::ErrorKind::ConnectionReset.into())),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        !self.breaks && self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.bytes.is_some() { self.length } else { 0 })
    }
}
