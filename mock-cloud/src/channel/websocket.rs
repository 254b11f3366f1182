//! The channel for agents behind a network that lets only HTTP through: RFC 7395 on the public port.
//!
//! The upgraded connection becomes a stream of octets again ([`Octets`]), so login, session, limits and stream
//! management are the ones of every other connection.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use causeway_protocol::channel::websocket::{self, Messages, PATH, SUBPROTOCOL};
use futures_util::{Sink, Stream};
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Caller;
use crate::limits::{WEBSOCKET_BUFFER_BYTES, WEBSOCKET_UNSENT_MAX_BYTES};
use crate::port::Peer;
use crate::state::Cloud;
use causeway_protocol::limits::ELEMENT_MAX_BYTES;

/// The endpoint.
pub(crate) fn router(cloud: Arc<Cloud>) -> Router {
    Router::new().route(PATH, any(upgrade)).with_state(cloud)
}

/// RFC 6455 §4.2 and RFC 7395 §3.1, with words for people who come with something else.
async fn upgrade(
    State(cloud): State<Arc<Cloud>>,
    peer: Option<Extension<Peer>>,
    mut request: Request<Body>,
) -> Response {
    let key = match accepted_key(&request) {
        Ok(key) => key,
        Err((status, text)) => {
            let version = [(header::SEC_WEBSOCKET_VERSION, "13")];
            return (status, version, text).into_response();
        }
    };
    // Its place as a connection was given back when it asked for this; logging in it takes one again.
    let Some(slot) = cloud.admission.place() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many have not logged in yet").into_response();
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let Some(Extension(peer)) = peer else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    tokio::spawn(async move {
        // Fails when the connection breaks before our answer is written; then there is nobody to serve.
        let Ok(upgraded) = upgraded.await else { return };
        let octets = Octets::new(TokioIo::new(upgraded)).await;
        let caller = Caller { chain: peer.chain.to_vec(), from: peer.from, slot };
        let (cut, stop) = (peer.cut.clone(), cloud.kit.stop.clone());
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            () = stop.cancelled() => {}
            () = super::serve(cloud, octets, caller) => {}
        }
    });
    let headers = [
        (header::CONNECTION, "upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, key),
        (header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL.to_owned()),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

fn accepted_key(request: &Request<Body>) -> Result<String, (StatusCode, &'static str)> {
    let headers = request.headers();
    let bad = |text| Err((StatusCode::BAD_REQUEST, text));
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return bad("a WebSocket begins with GET in HTTP/1.1");
    }
    if !lists(headers, header::CONNECTION, "upgrade") || !lists(headers, header::UPGRADE, "websocket") {
        return Err((StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint (RFC 7395)"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "the WebSocket version is 13"));
    }
    if !lists(headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return bad("the subprotocol is xmpp");
    }
    match headers.get(header::SEC_WEBSOCKET_KEY) {
        Some(key) => Ok(derive_accept_key(key.as_bytes())),
        None => bad("Sec-WebSocket-Key is missing"),
    }
}

/// Whether a comma separated header holds a word, in any case.
fn lists(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// A WebSocket as the octets of an XML stream.
struct Octets<S> {
    socket: WebSocketStream<S>,
    /// What the last message means, and how much of it was taken.
    incoming: Vec<u8>,
    taken: usize,
    cutter: Messages,
    outgoing: VecDeque<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Octets<S> {
    async fn new(io: S) -> Self {
        // Messages are elements, so they have the elements' limit.
        let config = WebSocketConfig::default()
            .read_buffer_size(WEBSOCKET_BUFFER_BYTES)
            .write_buffer_size(WEBSOCKET_BUFFER_BYTES)
            .max_write_buffer_size(WEBSOCKET_UNSENT_MAX_BYTES)
            .max_message_size(Some(ELEMENT_MAX_BYTES))
            .max_frame_size(Some(ELEMENT_MAX_BYTES));
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Self {
            socket,
            incoming: Vec::new(),
            taken: 0,
            cutter: Messages::default(),
            outgoing: VecDeque::new(),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(failed)?;
            if let Some(message) = self.outgoing.pop_front() {
                Pin::new(&mut self.socket).start_send(Message::text(message)).map_err(failed)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncBufRead for Octets<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.taken >= this.incoming.len() {
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(&[])),
                Some(Ok(Message::Text(text))) => {
                    this.incoming = websocket::octets(&text).map_err(unreadable)?.into_bytes();
                    this.taken = 0;
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
        Poll::Ready(Ok(&this.incoming[this.taken..]))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.taken += amount;
        if self.taken >= self.incoming.len() {
            // An idle session keeps no buffer.
            (self.incoming, self.taken) = (Vec::new(), 0);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Octets<S> {
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Octets<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let Self { cutter, outgoing, .. } = this;
        cutter.push(buf, |message| outgoing.push_back(message)).map_err(unreadable)?;
        // What cannot leave now leaves with the flush that follows every burst.
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

fn unreadable(error: websocket::FramingError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A message that is too long breaks the stream's rules as an element that is too long does.
fn failed(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::Capacity(_) => {
            let source = super::wire::ElementTooLarge { max_bytes: ELEMENT_MAX_BYTES };
            io::Error::new(io::ErrorKind::InvalidData, source)
        }
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::UnexpectedEof.into(),
        error => io::Error::other(error),
    }
}
