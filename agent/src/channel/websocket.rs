//! The channel through a network that lets only HTTP through: RFC 7395 over an open TLS connection.
//!
//! A [`WebSocket`] is a byte stream like any other, so login, driver, limits and stream management do not know of it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use causeway_protocol::channel::websocket::{FramingError, Messages, PATH, SUBPROTOCOL, octets};
use causeway_protocol::limits::ELEMENT_MAX_BYTES;
use futures_util::{Sink, Stream};
use http::Uri;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::dial::ByteStream;
use crate::limits::{UPGRADE_WITHIN, WEBSOCKET_BUFFER_BYTES, WEBSOCKET_UNSENT_MAX_BYTES};

/// Why there is no WebSocket.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// Whoever answers does not know the endpoint.
    #[error("the answer to our WebSocket request is HTTP status {status}")]
    Refused {
        /// The status.
        status: u16,
    },
    /// The connection broke, or something else than HTTP came.
    #[error("open a WebSocket")]
    Broken {
        /// What happened.
        #[source]
        source: Box<tungstenite::Error>,
    },
    /// Our own address cannot be written as a URL.
    #[error("{authority} cannot be part of a URL")]
    BadAuthority {
        /// `host:port`.
        authority: String,
    },
    /// No answer in time.
    #[error("no answer to our WebSocket request within {} s", UPGRADE_WITHIN.as_secs())]
    TimedOut,
}

/// Octets of an XML stream, carried in WebSocket messages.
pub struct WebSocket<S> {
    socket: WebSocketStream<S>,
    incoming: Vec<u8>,
    taken: usize,
    cutter: Messages,
    outgoing: VecDeque<String>,
}

/// Opens a WebSocket over a secured stream. `authority` is `host:port` as it belongs into the request.
///
/// # Errors
/// Says what the other side did instead.
pub async fn open<S: ByteStream>(stream: S, authority: &str) -> Result<WebSocket<S>, WebSocketError> {
    let uri: Uri = format!("wss://{authority}{PATH}")
        .parse()
        .map_err(|_| WebSocketError::BadAuthority { authority: authority.to_owned() })?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
    let config = WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_BUFFER_BYTES)
        .write_buffer_size(WEBSOCKET_BUFFER_BYTES)
        .max_write_buffer_size(WEBSOCKET_UNSENT_MAX_BYTES)
        .max_message_size(Some(ELEMENT_MAX_BYTES))
        .max_frame_size(Some(ELEMENT_MAX_BYTES));
    match timeout(UPGRADE_WITHIN, client_async_with_config(request, stream, Some(config))).await {
        Ok(Ok((socket, _))) => Ok(WebSocket {
            socket,
            incoming: Vec::new(),
            taken: 0,
            cutter: Messages::default(),
            outgoing: VecDeque::new(),
        }),
        Ok(Err(tungstenite::Error::Http(answer))) => {
            Err(WebSocketError::Refused { status: answer.status().as_u16() })
        }
        Ok(Err(source)) => Err(WebSocketError::Broken { source: Box::new(source) }),
        Err(_) => Err(WebSocketError::TimedOut),
    }
}

impl<S: ByteStream> WebSocket<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(failed)?;
            if let Some(message) = self.outgoing.pop_front() {
                Pin::new(&mut self.socket).start_send(Message::text(message)).map_err(failed)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The octets of the next message; false at the end.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(false)),
                Some(Ok(Message::Text(text))) => {
                    (self.incoming, self.taken) = (octets(&text).map_err(unreadable)?.into_bytes(), 0);
                    return Poll::Ready(Ok(true));
                }
                Some(Ok(Message::Binary(_))) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "a message is not text");
                    return Poll::Ready(Err(error));
                }
                // Pings are answered by the library with the next write.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
            }
        }
    }
}

impl<S: ByteStream> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken >= this.incoming.len() && !ready!(this.poll_message(cx))? {
            return Poll::Ready(Ok(()));
        }
        let rest = &this.incoming[this.taken..];
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        this.taken += n;
        Poll::Ready(Ok(()))
    }
}

impl<S: ByteStream> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let Self { cutter, outgoing, .. } = this;
        cutter.push(buf, |message| outgoing.push_back(message)).map_err(unreadable)?;
        // What cannot leave now leaves with the next write or flush.
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx).map_err(failed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_close(cx).map_err(failed)
    }
}

fn unreadable(error: FramingError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn failed(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::UnexpectedEof.into()
        }
        error @ tungstenite::Error::Capacity(_) => io::Error::new(io::ErrorKind::InvalidData, error),
        error => io::Error::other(error),
    }
}
