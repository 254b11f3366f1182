//! A byte stream that refuses to deliver more than one element may have. The stream library has no limit of its own.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use causeway_protocol::channel::nesting::{Nesting, TooDeep};
use thiserror::Error;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf};

use crate::dial::ByteStream;

/// Bytes read ahead. Stanzas are mostly below 1 KiB.
const READ_AHEAD_BYTES: usize = 8 * 1024;

/// The peer sent more than an element may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OverLimit {
    /// Too long.
    #[error("the peer sent an element of more than {max} bytes")]
    Bytes {
        /// The limit.
        max: usize,
    },
    /// Elements inside elements inside elements.
    #[error("{0}")]
    Depth(TooDeep),
}

/// Counts what the parser takes since the last complete element.
pub struct Limited {
    inner: BufReader<Box<dyn ByteStream>>,
    limit: AtomicUsize,
    taken: AtomicUsize,
    total: AtomicU64,
    ended: AtomicBool,
    nesting: Nesting,
    restarted: AtomicBool,
}

impl Limited {
    /// At most `limit` bytes an element.
    pub fn new(inner: Box<dyn ByteStream>, limit: usize) -> Self {
        Self {
            inner: BufReader::with_capacity(READ_AHEAD_BYTES, inner),
            limit: AtomicUsize::new(limit),
            taken: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            nesting: Nesting::default(),
            restarted: AtomicBool::new(false),
        }
    }

    /// A new stream begins on the same connection (after login), with another limit.
    pub fn restart(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.restarted.store(true, Ordering::Relaxed);
    }

    /// An element is complete; the next may have as many bytes again.
    pub fn element_complete(&self) {
        self.taken.store(0, Ordering::Relaxed);
    }

    /// Whether the peer has closed its side. The parser reports that as bad XML, which is another matter.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Bytes taken since the beginning: a sign of life even inside a long element.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

impl AsyncBufRead for Limited {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.taken.load(Ordering::Relaxed) > limit {
            let over = OverLimit::Bytes { max: limit };
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, over)));
        }
        let this = self.get_mut();
        let read = ready!(Pin::new(&mut this.inner).poll_fill_buf(cx))?;
        if read.is_empty() {
            this.ended.store(true, Ordering::Relaxed);
        }
        if this.restarted.swap(false, Ordering::Relaxed) {
            this.nesting.restart();
        }
        let fits = this.nesting.look(read).map_err(OverLimit::Depth);
        Poll::Ready(fits.map(|()| read).map_err(|over| io::Error::new(io::ErrorKind::InvalidData, over)))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.taken.fetch_add(amount, Ordering::Relaxed);
        self.total.fetch_add(amount as u64, Ordering::Relaxed);
        self.nesting.consumed(amount);
        Pin::new(&mut self.inner).consume(amount);
    }
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let available = ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = available.len().min(buf.remaining());
        buf.put_slice(&available[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Limited {
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
