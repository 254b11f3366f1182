//! The byte stream under an XML stream, with the limits the XML layer does not have.
//!
//! `xmlstream` bounds one token (8 kB), not one element: an authenticated peer could send an element without end. This
//! counts what has been consumed since the last complete first-level element (RFC 6120 §13.12) and fails the read
//! when it is too much; the XML layer passes the error on and the session answers `policy-violation`.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use causeway_protocol::channel::nesting::Nesting;
use thiserror::Error;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// The first-level element being received is over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("element exceeds {max_bytes} bytes")]
pub(crate) struct ElementTooLarge {
    /// The limit.
    pub(crate) max_bytes: usize,
}

/// Why a read fails before the XML layer sees the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("elements are nested too deeply")]
pub(crate) struct ElementTooDeep;

/// A byte stream that counts.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    inner: S,
    /// Bytes consumed since the last complete element. Atomic only because the XML layer hands out `&Self`.
    since_element: AtomicUsize,
    element_max_bytes: AtomicUsize,
    nesting: Nesting,
    between: AtomicBool,
    restarted: AtomicBool,
}

impl<S> Metered<S> {
    /// Counts what is read from `inner`.
    pub(crate) fn new(inner: S, element_max_bytes: usize) -> Self {
        Self {
            inner,
            since_element: AtomicUsize::new(0),
            element_max_bytes: AtomicUsize::new(element_max_bytes),
            nesting: Nesting::default(),
            between: AtomicBool::new(true),
            restarted: AtomicBool::new(false),
        }
    }

    /// A first-level element is complete.
    pub(crate) fn element_done(&self) {
        self.since_element.store(0, Ordering::Relaxed);
    }

    /// From now on elements may be this large.
    pub(crate) fn set_limit(&self, element_max_bytes: usize) {
        self.element_max_bytes.store(element_max_bytes, Ordering::Relaxed);
    }

    /// What is read from now on is a new stream on the same connection.
    pub(crate) fn restart(&self) {
        self.restarted.store(true, Ordering::Relaxed);
    }

    /// Whether an element has begun and not ended. White space before one is none: clients keep connections alive
    /// with it (RFC 6120 §4.6.1).
    pub(crate) fn is_inside_element(&self) -> bool {
        self.since_element.load(Ordering::Relaxed) > 0 && !self.between.load(Ordering::Relaxed)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The XML layer reads through AsyncBufRead only; this is there because that trait demands it.
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.since_element.fetch_add(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncBufRead + Unpin> AsyncBufRead for Metered<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let max_bytes = this.element_max_bytes.load(Ordering::Relaxed);
        let left = max_bytes.saturating_sub(this.since_element.load(Ordering::Relaxed));
        if left == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                ElementTooLarge { max_bytes },
            )));
        }
        let buffer = ready!(Pin::new(&mut this.inner).poll_fill_buf(cx))?;
        // Never hand out more than what is left, so that the limit is exact whatever the size of the reads below.
        let buffer = &buffer[..buffer.len().min(left)];
        if this.restarted.swap(false, Ordering::Relaxed) {
            this.nesting.restart();
        }
        if this.nesting.look(buffer).is_err() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, ElementTooDeep)));
        }
        this.between.store(this.nesting.is_between_elements(), Ordering::Relaxed);
        Poll::Ready(Ok(buffer))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.since_element.fetch_add(amount, Ordering::Relaxed);
        self.nesting.consumed(amount);
        Pin::new(&mut self.inner).consume(amount);
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncBufReadExt as _;

    #[tokio::test]
    async fn the_limit_is_exact_and_starts_anew_with_every_element() {
        let mut metered = Metered::new(tokio::io::BufReader::new(&b"0123456789"[..]), 4);
        assert_eq!(metered.fill_buf().await.unwrap(), b"0123");
        metered.consume(3);
        assert_eq!(metered.fill_buf().await.unwrap(), b"3");
        metered.consume(1);
        let error = metered.fill_buf().await.unwrap_err();
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ElementTooLarge>());
        assert_eq!(inner, Some(&ElementTooLarge { max_bytes: 4 }));
        metered.element_done();
        assert!(!metered.is_inside_element());
        assert_eq!(metered.fill_buf().await.unwrap(), b"4567");
    }
}
