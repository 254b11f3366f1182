//! One connection to one server: opened, secured, and used by one operation at a time.
//!
//! The wire is our own and not the `ldap3` crate's. That one (0.12.1, read for this purpose) parses answers by
//! unbounded recursion and without a size limit, so a hostile or broken server can overflow the stack or fill the
//! memory of the agent; it panics on many malformed answers; and it accepts nothing but a socket of the operating
//! system, which would shut out simulated streams. Here nesting costs nothing, sizes are limited before they are
//! buffered, and any [`ByteStream`](crate::dial::ByteStream) will do.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf};
use tokio::time::timeout;

use super::entry::Entry;
use super::error::DirectoryError;
use super::limits;
use super::message::{self, Answer, Control, Message, OperationResult, ResultCode, SearchRequest};
use crate::dial::{ByteStream, Dial, Target, tls};

/// OID of StartTLS (RFC 4511 4.14.1).
const START_TLS: &str = "1.3.6.1.4.1.1466.20037";

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// TLS from the first byte (`ldaps://`).
    Tls,
    /// TLS after the StartTLS operation on a plain port.
    StartTls,
    /// None. Passwords travel in the clear; must be allowed explicitly.
    Plain,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address; also the name its certificate must be for.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How it is protected.
    pub security: Security,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Target::inside(self.host.as_str(), self.port).fmt(f)
    }
}

/// An open connection.
pub struct Connection {
    server: Arc<str>,
    stream: Box<dyn ByteStream>,
    buffer: BytesMut,
    last_id: i32,
    /// Whether no operation is outstanding and the identity is known: only then may someone else use it.
    clean: bool,
    certificate: Option<Vec<u8>>,
}

/// Why a bind gave no verdict.
#[derive(Debug)]
pub struct BindFailure {
    /// Whether the password may have reached the server. If so, it must not be tried again.
    pub sent: bool,
    /// What went wrong.
    pub error: DirectoryError,
}

impl Connection {
    /// Connects and secures.
    ///
    /// # Errors
    /// When the server cannot be reached within [`limits::CONNECT_WITHIN`] or does not do the TLS we want.
    pub async fn open(
        dial: &dyn Dial,
        endpoint: &Endpoint,
        config: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, DirectoryError> {
        let server: Arc<str> = endpoint.to_string().into();
        let opening = Self::open_unbounded(dial, endpoint, config, server.clone());
        match timeout(limits::CONNECT_WITHIN, opening).await {
            Ok(done) => done,
            Err(_) => Err(DirectoryError::TimedOut {
                server: server.to_string(),
                operation: "connect",
                within: limits::CONNECT_WITHIN,
            }),
        }
    }

    async fn open_unbounded(
        dial: &dyn Dial,
        endpoint: &Endpoint,
        config: Option<&Arc<ClientConfig>>,
        server: Arc<str>,
    ) -> Result<Self, DirectoryError> {
        let target = Target::inside(endpoint.host.as_str(), endpoint.port);
        let stream = dial.connect(target).await.map_err(|source| DirectoryError::Unreachable {
            server: server.to_string(),
            source: source.into(),
        })?;
        let mut plain = Self::over(server, Box::new(stream));
        match (endpoint.security, config) {
            (Security::Plain, _) | (_, None) => Ok(plain),
            (Security::Tls, Some(config)) => plain.secure(&endpoint.host, config.clone()).await,
            (Security::StartTls, Some(config)) => {
                plain.start_tls().await?;
                plain.secure(&endpoint.host, config.clone()).await
            }
        }
    }

    /// Speaks LDAP over a stream that is open and secure already.
    pub fn over(server: Arc<str>, stream: Box<dyn ByteStream>) -> Self {
        Self { server, stream, buffer: BytesMut::new(), last_id: 0, clean: true, certificate: None }
    }

    async fn start_tls(&mut self) -> Result<(), DirectoryError> {
        let id = self.next_id();
        self.send(&message::extended(id, START_TLS), "StartTLS").await?;
        let answer = self.receive(id, limits::BIND_WITHIN, "StartTLS").await?;
        let Answer::Extended(result) = answer.answer else {
            return Err(DirectoryError::misbehaved(&self.server, "StartTLS", "another kind of answer"));
        };
        self.success(result, "StartTLS")?;
        // Bytes that came before the handshake were not protected and must not be taken for protected ones.
        if !self.buffer.is_empty() {
            return Err(DirectoryError::misbehaved(
                &self.server,
                "StartTLS",
                "it sent more before the handshake",
            ));
        }
        self.clean = true;
        Ok(())
    }

    async fn secure(self, host: &str, config: Arc<ClientConfig>) -> Result<Self, DirectoryError> {
        let server = self.server;
        // Many servers send each entry as a TLS record of its own; the library would read them one by one.
        let stream = BufReader::with_capacity(limits::TLS_READ_BYTES, self.stream);
        let stream = tls::handshake(config, host, stream)
            .await
            .map_err(|source| DirectoryError::Tls { server: server.to_string(), source: source.into() })?;
        let certificate =
            stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
        Ok(Self { certificate, ..Self::over(server, Box::new(stream)) })
    }

    /// The server's name and port.
    pub fn server(&self) -> &Arc<str> {
        &self.server
    }

    /// The server's certificate in DER, if the connection is secured.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// Whether another operation may use it.
    pub(crate) fn is_clean(&self) -> bool {
        self.clean && self.buffer.is_empty()
    }

    /// Whether the peer has ended the connection, or sent something nobody asked for, since the last operation. Looks
    /// without waiting.
    pub(crate) async fn is_stale(&mut self) -> bool {
        let stream = &mut self.stream;
        poll_fn(|cx| {
            let mut octet = [0];
            let mut room = ReadBuf::new(&mut octet);
            Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut room).is_ready())
        })
        .await
    }

    /// A simple bind: one attempt.
    ///
    /// # Errors
    /// When there is no answer. Whatever the server answered is a result and no error.
    pub async fn bind(
        &mut self,
        name: &str,
        password: &[u8],
        controls: &[Control],
        within: Duration,
    ) -> Result<OperationResult, BindFailure> {
        let id = self.next_id();
        self.clean = false;
        let request = message::bind(id, name, password, controls);
        // From here on the password may be on its way, even if writing fails.
        let sent = |error| BindFailure { sent: true, error };
        self.send(&request, "bind").await.map_err(sent)?;
        let answer = self.receive(id, within, "bind").await.map_err(sent)?;
        match answer.answer {
            Answer::Bind(result) => {
                self.clean = true;
                Ok(result)
            }
            _ => Err(sent(DirectoryError::misbehaved(&self.server, "bind", "another kind of answer"))),
        }
    }

    /// Starts a search; the connection is busy until its last message has been taken.
    pub(crate) async fn begin(&mut self, request: &SearchRequest) -> Result<i32, DirectoryError> {
        let id = self.next_id();
        self.clean = false;
        self.send(&message::search(id, request), "search").await?;
        Ok(id)
    }

    /// The next message of a search. On silence the search is abandoned and the connection must not be used again.
    pub(crate) async fn next(&mut self, id: i32, within: Duration) -> Result<Message, DirectoryError> {
        let next = self.receive(id, within, "search").await;
        match &next {
            Ok(Message { answer: Answer::SearchDone(_), .. }) => self.clean = true,
            Err(DirectoryError::TimedOut { .. }) => self.abandon(id).await,
            _ => {}
        }
        next
    }

    /// Tells the server that nobody waits for this search any more. The connection stays unusable, because answers may
    /// be on their way.
    pub(crate) async fn abandon(&mut self, id: i32) {
        let own = self.next_id();
        let request = message::abandon(own, id);
        // Best effort: the connection is closed next in any case.
        let _ = timeout(Duration::from_millis(200), self.send(&request, "abandon")).await;
    }

    /// Runs a search whose result is small, and collects it.
    ///
    /// # Errors
    /// On any result but success, and when there are more than `entries_max`.
    pub async fn search(
        &mut self,
        request: &SearchRequest,
        entries_max: usize,
    ) -> Result<Vec<Entry>, DirectoryError> {
        let id = self.begin(request).await?;
        let mut entries = Vec::new();
        let mut references = 0;
        loop {
            match self.next(id, limits::READ_WITHIN).await?.answer {
                Answer::Entry(entry) if entries.len() < entries_max => entries.push(entry),
                Answer::Entry(_) => {
                    self.abandon(id).await;
                    return Err(DirectoryError::misbehaved(
                        &self.server,
                        "search",
                        format!("more than {entries_max} entries where few are expected"),
                    ));
                }
                Answer::Reference if references < limits::REFERENCES_MAX => references += 1,
                Answer::SearchDone(result) => {
                    self.success(result, "search")?;
                    return Ok(entries);
                }
                Answer::Intermediate { .. } => {}
                _ => {
                    return Err(DirectoryError::misbehaved(
                        &self.server,
                        "search",
                        "an answer that fits no search",
                    ));
                }
            }
        }
    }

    /// Reads one object; `None` when there is none of that name.
    ///
    /// # Errors
    /// On any result but success and noSuchObject.
    pub async fn read(&mut self, request: &SearchRequest) -> Result<Option<Entry>, DirectoryError> {
        match self.search(request, 1).await {
            Ok(entries) => Ok(entries.into_iter().next()),
            Err(error) if error.result_code() == Some(ResultCode::NO_SUCH_OBJECT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says good-bye, so that the server does not log a broken connection.
    pub async fn close(mut self) {
        let id = self.next_id();
        let request = message::unbind(id);
        let _ = timeout(Duration::from_millis(200), async {
            self.send(&request, "unbind").await?;
            self.stream.shutdown().await.map_err(|source| self.cut("unbind", source))
        })
        .await;
    }

    /// Turns any result but success into an error.
    pub(crate) fn success(
        &self,
        result: OperationResult,
        operation: &'static str,
    ) -> Result<OperationResult, DirectoryError> {
        if result.is_success() { Ok(result) } else { Err(self.refused(result, operation)) }
    }

    pub(crate) fn refused(&self, result: OperationResult, operation: &'static str) -> DirectoryError {
        DirectoryError::Refused {
            server: self.server.to_string(),
            operation,
            code: result.code,
            diagnostic: result.diagnostic,
        }
    }

    fn next_id(&mut self) -> i32 {
        self.last_id = if self.last_id == i32::MAX { 1 } else { self.last_id + 1 };
        self.last_id
    }

    async fn send(&mut self, request: &[u8], operation: &'static str) -> Result<(), DirectoryError> {
        let written = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        match timeout(limits::BIND_WITHIN, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => {
                self.clean = false;
                Err(self.cut(operation, source))
            }
            Err(_) => {
                self.clean = false;
                Err(self.timed_out(operation, limits::BIND_WITHIN))
            }
        }
    }

    /// The next message, which must belong to `id`.
    async fn receive(
        &mut self,
        id: i32,
        within: Duration,
        operation: &'static str,
    ) -> Result<Message, DirectoryError> {
        if let Some(message) = self.buffered(operation)? {
            return self.expect_id(message, id, operation);
        }
        let arrived = timeout(within, self.arrive(operation)).await;
        match arrived {
            Ok(message) => self.expect_id(message?, id, operation),
            Err(_) => Err(self.timed_out(operation, within)),
        }
    }

    fn buffered(&mut self, operation: &'static str) -> Result<Option<Message>, DirectoryError> {
        message::take(&mut self.buffer)
            .map_err(|error| DirectoryError::malformed(&self.server, operation, error))
    }

    async fn arrive(&mut self, operation: &'static str) -> Result<Message, DirectoryError> {
        loop {
            self.make_room();
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => {
                    let problem = if self.buffer.is_empty() { "" } else { " in the middle of a message" };
                    return Err(DirectoryError::Closed {
                        server: self.server.to_string(),
                        operation,
                        notice: problem.to_owned(),
                    });
                }
                Ok(_) => {}
                Err(source) => return Err(self.cut(operation, source)),
            }
            if let Some(message) = self.buffered(operation)? {
                return Ok(message);
            }
        }
    }

    /// Room for the next read. A large message gets all it needs at once: a buffer that doubles again and again ends up
    /// to twice as large, and would stay as long as what else has come into it. A buffer is filled before there is a new
    /// one: entries keep alive what they came in, and a server that sends each as a packet would fill memory with buffers
    /// of which little is used.
    fn make_room(&mut self) {
        let missing = message::missing(&self.buffer);
        let room = self.buffer.capacity() - self.buffer.len();
        if self.buffer.len() + missing > limits::READ_BYTES {
            if room < missing {
                self.buffer.reserve(missing);
            }
        } else if room < missing.max(limits::READ_MIN_BYTES) {
            self.buffer.reserve(limits::READ_BYTES);
        }
    }

    fn expect_id(
        &mut self,
        message: Message,
        id: i32,
        operation: &'static str,
    ) -> Result<Message, DirectoryError> {
        if message.id == id {
            return Ok(message);
        }
        self.clean = false;
        // Unsolicited: a notice of disconnection (RFC 4511 4.4.1) is the only one there is.
        if message.id == 0
            && let Answer::Extended(result) = message.answer
        {
            return Err(DirectoryError::Closed {
                server: self.server.to_string(),
                operation,
                notice: format!(": {} {}", result.code, result.diagnostic),
            });
        }
        Err(DirectoryError::misbehaved(
            &self.server,
            operation,
            format!("an answer to message {} when {id} is outstanding", message.id),
        ))
    }

    fn cut(&self, operation: &'static str, source: io::Error) -> DirectoryError {
        DirectoryError::Cut { server: self.server.to_string(), operation, source }
    }

    fn timed_out(&self, operation: &'static str, within: Duration) -> DirectoryError {
        DirectoryError::TimedOut { server: self.server.to_string(), operation, within }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::ber::{Writer, tag};
    use super::*;

    fn entry(dn: &str) -> Vec<u8> {
        let mut out = Writer::new();
        out.constructed(tag::SEQUENCE, |message| {
            message.integer(1);
            message.constructed(tag::application(4), |entry| {
                entry.octets(dn.as_bytes());
                entry.constructed(tag::SEQUENCE, |_| {});
            });
        });
        out.into_bytes()
    }

    #[tokio::test]
    async fn entries_that_come_one_by_one_share_a_buffer() {
        let (ours, mut theirs) = tokio::io::duplex(4 << 10);
        let mut connection = Connection::over("server".into(), Box::new(ours));
        let mut entries = Vec::new();
        for n in 0..20 {
            theirs.write_all(&entry(&format!("uid=user{n},dc=acme,dc=example"))).await.unwrap();
            match connection.next(1, Duration::from_secs(5)).await.unwrap().answer {
                Answer::Entry(entry) => entries.push(entry),
                _ => panic!("an entry was sent"),
            }
        }
        let places: Vec<usize> = entries
            .iter()
            .map(|entry| match entry.dn() {
                Cow::Borrowed(dn) => dn.as_ptr() as usize,
                Cow::Owned(dn) => panic!("{dn} was copied"),
            })
            .collect();
        let spread = places.iter().max().unwrap() - places.iter().min().unwrap();
        assert!(spread < limits::READ_BYTES, "20 small entries lie {spread} bytes apart: {places:?}");
    }
}
