//! The server's half of a stream, spoken by hand: a test says what the cloud does, element by element.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use causeway_agent::channel::{Connect, ConnectError};
use causeway_agent::dial::ByteStream;
use causeway_protocol::channel::element::{SmFailed, Success};
use causeway_protocol::channel::payload::{Action, Hello, Payload, Report, Welcome};
use causeway_protocol::channel::{SaslElement, SmElement, StreamElement, ns};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use minidom::Element;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;
use tokio_xmpp::xmlstream::{ReadError, StreamHeader, Timeouts, XmlStream, accept_stream};
use xmpp_parsers::bind::{BindFeature, BindQuery, BindResponse};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::sasl::{DefinedCondition, Failure};
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::StanzaError;
use xmpp_parsers::stream_error::{SentStreamError, StreamError};
use xmpp_parsers::stream_features::StreamFeatures;

use super::{DOMAIN, INSTANCE, soon};

/// Connects agents to a [`Lobby`].
pub(crate) struct MemoryConnect {
    lobby: mpsc::Sender<DuplexStream>,
    down: AtomicBool,
    failure: Mutex<std::io::ErrorKind>,
    dialled: AtomicUsize,
    redirects: Mutex<Vec<Option<String>>>,
}

/// Where connections arrive.
pub(crate) struct Lobby(mpsc::Receiver<DuplexStream>);

impl MemoryConnect {
    pub(crate) fn new() -> (Self, Lobby) {
        let (lobby, arrivals) = mpsc::channel(64);
        let connect = Self {
            lobby,
            down: AtomicBool::new(false),
            failure: Mutex::new(std::io::ErrorKind::ConnectionRefused),
            dialled: AtomicUsize::new(0),
            redirects: Mutex::default(),
        };
        (connect, Lobby(arrivals))
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// How attempts fail while it is down.
    pub(crate) fn set_failure(&self, kind: std::io::ErrorKind) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = kind;
    }

    /// Attempts so far.
    pub(crate) fn dialled(&self) -> usize {
        self.dialled.load(Ordering::SeqCst)
    }

    /// Where each attempt was sent.
    pub(crate) fn redirects(&self) -> Vec<Option<String>> {
        self.redirects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Connect for MemoryConnect {
    fn connect(&self, redirect: Option<String>) -> BoxFuture<'_, Result<Box<dyn ByteStream>, ConnectError>> {
        Box::pin(async move {
            self.dialled.fetch_add(1, Ordering::SeqCst);
            self.redirects.lock().unwrap_or_else(PoisonError::into_inner).push(redirect);
            if self.down.load(Ordering::SeqCst) {
                let source =
                    std::io::Error::from(*self.failure.lock().unwrap_or_else(PoisonError::into_inner));
                return Err(ConnectError { source: source.into() });
            }
            let (ours, theirs) = duplex(1 << 20);
            self.lobby.send(theirs).await.map_err(|error| ConnectError { source: error.into() })?;
            Ok(Box::new(ours) as Box<dyn ByteStream>)
        })
    }
}

type Stream = XmlStream<BufReader<Wire>, StreamElement>;

/// The cloud's end of a connection, with a way in for bytes that no library would write.
struct Wire {
    io: DuplexStream,
    raw: Arc<Mutex<VecDeque<u8>>>,
}

impl Wire {
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        while !raw.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, raw.make_contiguous()))?;
            raw.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_raw(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_raw(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One connection, from the cloud's side.
pub(crate) struct Line {
    stream: Stream,
    raw: Arc<Mutex<VecDeque<u8>>>,
    /// Stanzas of the agent handled since `<enabled/>`.
    pub(crate) handled: u32,
    /// Our stanzas since then.
    pub(crate) sent: u32,
    counting: bool,
    next_id: u32,
}

/// What the cloud said about resuming.
pub(crate) enum Begun {
    Resumed { h: u32 },
    Bound,
}

impl Lobby {
    /// The next connection, raw.
    pub(crate) async fn raw(&mut self) -> DuplexStream {
        let wait = tokio::time::timeout(Duration::from_secs(4_000), self.0.recv());
        wait.await.expect("the agent connects").expect("the agent lives")
    }

    /// The next connection, logged in.
    pub(crate) async fn authenticated(&mut self) -> Line {
        let io = self.raw().await;
        soon("login", Line::authenticate(io)).await
    }

    /// The next connection, logged in at a cloud that knows no stream management, and welcomed.
    pub(crate) async fn online_without_sm(&mut self) -> Line {
        let io = self.raw().await;
        let mut line = soon("login", Line::authenticate_with(io, None)).await;
        let bind = soon("bind", line.next()).await;
        let Some(StreamElement::Iq(Iq::Set { id, payload, .. })) = bind else { panic!("no bind: {bind:?}") };
        line.bound(&id, payload).await;
        soon("hello", line.welcome()).await;
        line
    }

    /// The next connection, in a new session up to the welcome.
    pub(crate) async fn online(&mut self) -> (Line, Hello) {
        let mut line = self.authenticated().await;
        match soon("bind", line.begin(None)).await {
            Begun::Bound => {}
            Begun::Resumed { .. } => unreachable!("nothing was offered to resume"),
        }
        let hello = soon("hello", line.welcome()).await;
        (line, hello)
    }
}

fn header() -> StreamHeader<'static> {
    StreamHeader { from: Some(DOMAIN.into()), to: None, id: Some("s1".into()) }
}

impl Line {
    async fn open(io: DuplexStream) -> (Stream, Arc<Mutex<VecDeque<u8>>>) {
        let raw: Arc<Mutex<VecDeque<u8>>> = Arc::default();
        let io = Wire { io, raw: raw.clone() };
        let timeouts = Timeouts {
            read_timeout: Duration::from_secs(9_999),
            response_timeout: Duration::from_secs(9_999),
        };
        let accepted = accept_stream(BufReader::new(io), ns::CLIENT, timeouts).await.unwrap();
        let features =
            StreamFeatures { sasl_mechanisms: ["EXTERNAL".to_owned()].into(), ..StreamFeatures::default() };
        (accepted.send_header(header()).await.unwrap().send_features(&features).await.unwrap(), raw)
    }

    /// SASL EXTERNAL, accepted.
    pub(crate) async fn authenticate(io: DuplexStream) -> Self {
        Self::authenticate_with(io, Some(sm::StreamManagement { optional: false })).await
    }

    async fn authenticate_with(io: DuplexStream, stream_management: Option<sm::StreamManagement>) -> Self {
        let (mut stream, raw) = Self::open(io).await;
        let Some(Ok(StreamElement::Sasl(SaslElement::Auth(auth)))) = stream.next().await else {
            panic!("no <auth/>")
        };
        assert_eq!((auth.mechanism.as_str(), auth.body.as_str()), ("EXTERNAL", "="));
        let success = SaslElement::Success(Success { body: String::new() });
        let accepted = stream.accept_reset(&success).await.unwrap();
        let features = StreamFeatures {
            bind: Some(BindFeature { required: false }),
            stream_management,
            ..StreamFeatures::default()
        };
        let stream = accepted.send_header(header()).await.unwrap().send_features(&features).await.unwrap();
        Self { stream, raw, handled: 0, sent: 0, counting: false, next_id: 0 }
    }

    /// SASL EXTERNAL, refused.
    pub(crate) async fn refuse(io: DuplexStream, condition: DefinedCondition, text: &str) {
        let (mut stream, _) = Self::open(io).await;
        let _auth = stream.next().await;
        let texts = [("en".to_owned(), text.to_owned())].into();
        let failure = Failure { defined_condition: condition, texts };
        stream.send(&SaslElement::Failure(failure)).await.unwrap();
        let _ = stream.shutdown().await;
    }

    /// Resume (if `known` names the session and how many of its stanzas we have), else bind and enable.
    pub(crate) async fn begin(&mut self, known: Option<(&str, u32)>) -> Begun {
        self.begin_after(known, b"").await
    }

    /// As [`Line::begin`], with bytes between `<enable/>` and `<enabled/>`.
    pub(crate) async fn begin_after(&mut self, known: Option<(&str, u32)>, early: &[u8]) -> Begun {
        loop {
            match self.stream.next().await.expect("open").expect("readable") {
                StreamElement::Sm(SmElement::Resume(resume)) => match known {
                    Some((id, handled)) if resume.previd.0 == id => {
                        let resumed = sm::Resumed { h: handled, previd: resume.previd };
                        self.send(&StreamElement::Sm(SmElement::Resumed(resumed))).await;
                        self.counting = true;
                        self.handled = handled;
                        return Begun::Resumed { h: resume.h };
                    }
                    _ => {
                        let failed = SmFailed { h: None, condition: None };
                        self.send(&StreamElement::Sm(SmElement::Failed(failed))).await;
                    }
                },
                StreamElement::Iq(Iq::Set { id, payload, .. }) => {
                    self.bound(&id, payload).await;
                }
                StreamElement::Sm(SmElement::Enable(enable)) => {
                    assert!(enable.resume);
                    self.inject(early).await;
                    let enabled = sm::Enabled {
                        id: Some(sm::StreamId("sm-1".to_owned())),
                        location: None,
                        max: Some(300),
                        resume: true,
                    };
                    self.send(&StreamElement::Sm(SmElement::Enabled(enabled))).await;
                    self.counting = true;
                    return Begun::Bound;
                }
                other => panic!("unexpected before the session: {other:?}"),
            }
        }
    }

    async fn bound(&mut self, id: &str, payload: Element) {
        let query = BindQuery::try_from(payload).expect("bind");
        let resource = query.resource.expect("a resource");
        let jid = format!("{INSTANCE}@{DOMAIN}/{resource}").parse().unwrap();
        self.answer(id, Some(BindResponse { jid }.into())).await;
    }

    /// Takes the hello and welcomes the agent.
    pub(crate) async fn welcome(&mut self) -> Hello {
        self.welcome_with(30).await
    }

    /// The same, asking for health reports so often.
    pub(crate) async fn welcome_with(&mut self, health_every_secs: u32) -> Hello {
        let (id, payload) = self.order_from_agent().await;
        let hello = Hello::from_element(&payload).unwrap();
        let welcome = Welcome {
            time_ms: 1_800_000_000_000,
            session_epoch: 1,
            health_every_secs,
            tenant: "acme".to_owned(),
        };
        self.answer(&id, Some(welcome.to_element())).await;
        hello
    }

    pub(crate) async fn send(&mut self, element: &StreamElement) {
        if element.is_stanza() && self.counting {
            self.sent += 1;
        }
        self.stream.send(element).await.expect("the agent reads");
    }

    /// Whether the stream ends with its footer.
    pub(crate) async fn closed_properly(mut self) -> bool {
        loop {
            match soon("the end of the stream", self.stream.next()).await {
                Some(Ok(_)) => {}
                end => return matches!(end, Some(Err(ReadError::StreamFooterReceived))),
            }
        }
    }

    /// Bytes between two elements, after which the stream goes on. False when the agent has hung up meanwhile.
    pub(crate) async fn inject(&mut self, bytes: &[u8]) -> bool {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        SinkExt::<&StreamElement>::flush(&mut self.stream).await.is_ok()
    }

    /// The stream error with which the agent ends the stream. What it says before is of no interest.
    pub(crate) async fn agents_error(&mut self) -> StreamError {
        loop {
            match soon("the end of the stream", self.stream.next()).await {
                Some(Ok(StreamElement::Error(error))) => return error.0,
                Some(Ok(_)) => {}
                other => panic!("the agent ends the stream with {other:?}"),
            }
        }
    }

    /// Bytes that are no element.
    pub(crate) async fn send_bytes(self, bytes: &[u8]) -> DuplexStream {
        let mut io = self.stream.into_inner().into_inner().io;
        let _ = io.write_all(bytes).await;
        io
    }

    /// The next element. Acknowledgement requests are answered, our own counting is done.
    pub(crate) async fn next(&mut self) -> Option<StreamElement> {
        loop {
            let element = match tokio::time::timeout(Duration::from_secs(600), self.stream.next()).await {
                Ok(Some(Ok(element))) => element,
                Ok(_) => return None,
                Err(_) => panic!("the agent says nothing for 600 s"),
            };
            if element.is_stanza() && self.counting {
                self.handled += 1;
            }
            match element {
                StreamElement::Sm(SmElement::Request(_)) => {
                    let ack = sm::A::new(self.handled);
                    self.send(&StreamElement::Sm(SmElement::Ack(ack))).await;
                }
                element => return Some(element),
            }
        }
    }

    /// Waits until the agent asks for an acknowledgement, and gives none.
    pub(crate) async fn asked(&mut self) {
        loop {
            match self.stream.next().await {
                Some(Ok(StreamElement::Sm(SmElement::Request(_)))) => return,
                Some(Ok(_)) => {}
                end => panic!("expected <r/>, got {end:?}"),
            }
        }
    }

    /// The next iq of type set from the agent that is no news (health, progress); those are answered on the way.
    pub(crate) async fn order_from_agent(&mut self) -> (String, Element) {
        loop {
            match self.next().await.expect("the stream goes on") {
                StreamElement::Iq(Iq::Set { id, payload, .. }) => {
                    if ["health", "progress", "applied", "notice"].contains(&payload.name()) {
                        self.answer(&id, None).await;
                    } else {
                        return (id, payload);
                    }
                }
                other => panic!("expected an iq set, got {other:?}"),
            }
        }
    }

    /// The next report.
    pub(crate) async fn report(&mut self) -> (String, Report) {
        let (id, payload) = self.order_from_agent().await;
        (id, Report::from_element(&payload).unwrap())
    }

    /// The next payload of a kind; others of the agent are answered and dropped.
    pub(crate) async fn news<P: Payload>(&mut self) -> P {
        loop {
            if let StreamElement::Iq(Iq::Set { id, payload, .. }) = self.next().await.expect("open") {
                self.answer(&id, None).await;
                if P::names(&payload) {
                    return P::from_element(&payload).unwrap();
                }
            }
        }
    }

    pub(crate) async fn answer(&mut self, id: &str, payload: Option<Element>) {
        let iq = Iq::Result { from: None, to: None, id: id.to_owned(), payload };
        self.send(&StreamElement::Iq(iq)).await;
    }

    /// Orders something; returns the iq's id.
    pub(crate) async fn order(&mut self, payload: Element) -> String {
        self.next_id += 1;
        let id = format!("q{}", self.next_id);
        self.order_as(&id, payload).await;
        id
    }

    pub(crate) async fn order_as(&mut self, id: &str, payload: Element) {
        let from = Some(DOMAIN.parse().unwrap());
        let iq = Iq::Set { from, to: None, id: id.to_owned(), payload };
        self.send(&StreamElement::Iq(iq)).await;
    }

    /// The agent's answer to an iq of ours; news that come first are answered.
    pub(crate) async fn answer_to(&mut self, wanted: &str) -> Result<Option<Element>, StanzaError> {
        loop {
            match self.next().await.expect("the stream goes on") {
                StreamElement::Iq(Iq::Result { id, payload, .. }) if id == wanted => return Ok(payload),
                StreamElement::Iq(Iq::Error { id, error, .. }) if id == wanted => return Err(error),
                StreamElement::Iq(Iq::Set { id, payload, .. })
                    if ["health", "progress", "applied", "notice"].contains(&payload.name()) =>
                {
                    self.answer(&id, None).await;
                }
                other => panic!("expected the answer to {wanted}, got {other:?}"),
            }
        }
    }

    /// How many of our stanzas the agent says it has handled.
    pub(crate) async fn asked_h(&mut self) -> u32 {
        self.send(&StreamElement::Sm(SmElement::Request(sm::R))).await;
        loop {
            match self.next().await.expect("open") {
                StreamElement::Sm(SmElement::Ack(ack)) => return ack.h,
                StreamElement::Iq(Iq::Set { id, .. }) => self.answer(&id, None).await,
                other => panic!("expected <a/>, got {other:?}"),
            }
        }
    }

    /// How many injected stanzas the agent has counted as handled.
    pub(crate) async fn injected_handled(&mut self) -> u32 {
        loop {
            let sent = self.sent;
            let h = self.asked_h().await;
            // Otherwise news came and were answered meanwhile.
            if self.sent == sent {
                return h - sent;
            }
        }
    }

    /// The next report; answers to orders of ours that come first are passed over.
    pub(crate) async fn report_past_answers(&mut self) -> (String, Report) {
        loop {
            match self.next().await.expect("open") {
                StreamElement::Iq(Iq::Set { id, payload, .. }) if Report::names(&payload) => {
                    return (id, Report::from_element(&payload).unwrap());
                }
                StreamElement::Iq(Iq::Set { id, .. }) => self.answer(&id, None).await,
                StreamElement::Iq(Iq::Result { .. }) => {}
                other => panic!("expected a report, got {other:?}"),
            }
        }
    }

    /// Ends the stream with an error.
    pub(crate) async fn end(mut self, error: StreamError) {
        self.stream.send(&SentStreamError(error)).await.unwrap();
        let _ = self.stream.shutdown().await;
    }
}

/// An action for the probe.
pub(crate) fn action(id: &str, verb: &str, params: serde_json::Value) -> Action {
    Action {
        id: id.to_owned(),
        module: "probe".to_owned(),
        action: verb.to_owned(),
        target: serde_json::Value::Null,
        params,
        ttl_ms: 60_000,
        attempt: 1,
        fence: None,
    }
}
