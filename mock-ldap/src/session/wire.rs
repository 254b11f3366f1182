//! The bytes of one connection: TCP or TLS below, an NTLM security layer when one was negotiated, whole LDAP
//! messages above.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use causeway_mock_kit::listen::FaultStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::ber::{self, BerError};
use crate::limits::{READ_CHUNK_BYTES, SASL_BUFFER_MAX_BYTES, SASL_CHUNK_BYTES, TLS_HANDSHAKE_TIMEOUT};
use crate::sasl::SecurityLayer;

enum Stream {
    Plain(FaultStream),
    Tls(Box<TlsStream<FaultStream>>),
}

/// What [`Wire::progress`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Bytes arrived.
    Received,
    /// Everything handed over was written.
    Drained,
    /// The client closed its side.
    Closed,
}

/// Why a received security-layer buffer is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("connection")]
    Io(#[source] io::Error),
    #[error("security layer buffer does not verify")]
    Layer,
    #[error("security layer buffer over the limit of {limit_bytes} bytes")]
    LayerTooLarge { limit_bytes: usize },
}

pub(super) struct Wire {
    /// `None` only while TLS is being started, and for good when that failed.
    stream: Option<Stream>,
    received: BytesMut,
    outgoing: BytesMut,
    needs_flush: bool,
    layer: Option<SecurityLayer>,
    sealed_received: BytesMut,
    sealed_outgoing: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: FaultStream) -> Self {
        Self {
            stream: Some(Stream::Plain(stream)),
            received: BytesMut::new(),
            outgoing: BytesMut::new(),
            needs_flush: false,
            layer: None,
            sealed_received: BytesMut::new(),
            sealed_outgoing: BytesMut::new(),
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.stream, Some(Stream::Tls(_)))
    }

    /// The DER certificate the TLS client presented.
    pub(super) fn client_certificate(&self) -> Option<Vec<u8>> {
        match &self.stream {
            Some(Stream::Tls(tls)) => {
                tls.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.as_ref().to_vec())
            }
            _ => None,
        }
    }

    /// Where responses are appended.
    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Bytes waiting to be written.
    pub(super) fn pending(&self) -> usize {
        self.outgoing.len() + self.sealed_outgoing.len()
    }

    pub(super) fn is_drained(&self) -> bool {
        self.pending() == 0 && !self.needs_flush
    }

    /// Bytes received and not yet taken as messages.
    pub(super) fn has_received(&self) -> bool {
        !self.received.is_empty() || !self.sealed_received.is_empty()
    }

    /// Cuts the next whole message, if one has arrived.
    pub(super) fn next_message(&mut self, limit_bytes: usize) -> Result<Option<Bytes>, BerError> {
        match ber::message_length(&self.received, limit_bytes)? {
            Some(length) if length <= self.received.len() => {
                Ok(Some(self.received.split_to(length).freeze()))
            }
            _ => Ok(None),
        }
    }

    /// From the next byte on, both directions go through `layer`. Responses already appended stay in the clear.
    pub(super) async fn start_layer(&mut self, layer: SecurityLayer) -> Result<(), WireError> {
        self.flush().await?;
        self.sealed_received = std::mem::take(&mut self.received);
        self.layer = Some(layer);
        self.open_received()
    }

    /// Performs the server side of a TLS handshake over the plain stream.
    pub(super) async fn start_tls(&mut self, config: Arc<ServerConfig>) -> Result<(), WireError> {
        self.flush().await?;
        let Some(Stream::Plain(plain)) = self.stream.take() else {
            return Err(WireError::Io(io::ErrorKind::InvalidInput.into()));
        };
        let handshake = TlsAcceptor::from(config).accept(plain);
        let tls = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| WireError::Io(io::ErrorKind::TimedOut.into()))?
            .map_err(WireError::Io)?;
        self.stream = Some(Stream::Tls(Box::new(tls)));
        Ok(())
    }

    /// Writes everything that was appended.
    pub(super) async fn flush(&mut self) -> Result<(), WireError> {
        std::future::poll_fn(|cx| self.poll_write(cx)).await
    }

    /// Waits until bytes arrive (when `read`), everything is written (when something was pending), or the
    /// connection ends.
    pub(super) async fn progress(&mut self, read: bool) -> Result<Progress, WireError> {
        std::future::poll_fn(|cx| self.poll_progress(cx, read)).await
    }

    /// As [`Wire::progress`], without waiting.
    pub(super) async fn progress_now(&mut self, read: bool) -> Result<Option<Progress>, WireError> {
        std::future::poll_fn(|cx| match self.poll_progress(cx, read) {
            Poll::Ready(progress) => Poll::Ready(progress.map(Some)),
            Poll::Pending => Poll::Ready(Ok(None)),
        })
        .await
    }

    /// Says goodbye below LDAP: TLS close_notify and FIN.
    pub(super) async fn shutdown(&mut self) {
        if let Some(stream) = &mut self.stream {
            // The peer may be gone already; nothing is left to tell it.
            let _ = std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await;
        }
    }

    fn poll_progress(&mut self, cx: &mut Context<'_>, read: bool) -> Poll<Result<Progress, WireError>> {
        let had_pending = !self.is_drained();
        let written = self.poll_write(cx)?;
        if read {
            match self.poll_read(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(Progress::Closed)),
                Poll::Ready(_) => return Poll::Ready(Ok(Progress::Received)),
                Poll::Pending => {}
            }
        }
        if had_pending && written.is_ready() {
            return Poll::Ready(Ok(Progress::Drained));
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        self.seal_outgoing();
        let buffer = if self.layer.is_some() { &mut self.sealed_outgoing } else { &mut self.outgoing };
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(broken())) };
        while !buffer.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, buffer)).map_err(WireError::Io)?;
            if written == 0 {
                return Poll::Ready(Err(broken()));
            }
            buffer.advance(written);
            self.needs_flush = true;
        }
        if self.needs_flush {
            ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(WireError::Io)?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(broken())) };
        let target = if self.layer.is_some() { &mut self.sealed_received } else { &mut self.received };
        let filled = target.len();
        target.resize(filled + READ_CHUNK_BYTES, 0);
        let mut chunk = ReadBuf::new(&mut target[filled..]);
        let outcome = Pin::new(stream).poll_read(cx, &mut chunk);
        let count = chunk.filled().len();
        target.truncate(filled + count);
        ready!(outcome).map_err(WireError::Io)?;
        if self.layer.is_some() {
            self.open_received()?;
        }
        Poll::Ready(Ok(count))
    }

    /// Moves whole security-layer buffers (four length bytes each, RFC 4422 section 3.7) into the clear.
    fn open_received(&mut self) -> Result<(), WireError> {
        let Some(layer) = &mut self.layer else { return Ok(()) };
        while let Some(length) = self.sealed_received.first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if length > SASL_BUFFER_MAX_BYTES {
                return Err(WireError::LayerTooLarge { limit_bytes: SASL_BUFFER_MAX_BYTES });
            }
            if self.sealed_received.len() < 4 + length {
                break;
            }
            self.sealed_received.advance(4);
            let buffer = self.sealed_received.split_to(length);
            let clear = layer.open(&buffer).ok_or(WireError::Layer)?;
            self.received.extend_from_slice(&clear);
        }
        Ok(())
    }

    fn seal_outgoing(&mut self) {
        let Some(layer) = &mut self.layer else { return };
        while !self.outgoing.is_empty() {
            let clear = self.outgoing.split_to(self.outgoing.len().min(SASL_CHUNK_BYTES));
            let sealed = layer.seal(&clear);
            self.sealed_outgoing.extend_from_slice(&(sealed.len() as u32).to_be_bytes());
            self.sealed_outgoing.extend_from_slice(&sealed);
        }
    }
}

fn broken() -> WireError {
    WireError::Io(io::ErrorKind::BrokenPipe.into())
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
