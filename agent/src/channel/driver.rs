//! One connection of a session: a single task that reads, writes, counts (XEP-0198) and watches for silence.
//!
//! Nothing here waits for the peer to read: what goes out waits in a bounded queue that is written between reads, so
//! two ends with full buffers cannot block each other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use causeway_protocol::channel::liveness::{Liveness, Watch};
use causeway_protocol::channel::payload::{Action, Configure, Payload, Reply, Request, Welcome};
use causeway_protocol::channel::sm::{SmError, StreamManagement, Ticket};
use causeway_protocol::channel::{SmElement, StreamElement, ns};
use causeway_protocol::limits::{ACK_WITHIN, LOGIN_WITHIN};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, SinkExt, StreamExt};
use minidom::Element;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_xmpp::xmlstream::ReadError;
use xmpp_parsers::iq::{Iq, IqHeader, IqPayload};
use xmpp_parsers::ping::Ping;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use super::login::{self, Ended, Stream};
use super::{Answer, IqError, Orders, Outgoing, stanza_error};
use crate::clock::Clock;
use crate::limits::{ACCEPTS_AT_ONCE, CLOSE_WITHIN, RECENT_REQUESTS_MAX, WRITE_QUEUE_MAX};

/// What outlives a connection: counters, unanswered iqs, the name to resume by.
pub(crate) struct Session {
    /// Names the session for a resumption.
    pub(crate) resume_id: Option<String>,
    /// Counters; none when the cloud has no stream management.
    pub(crate) sm: Option<StreamManagement<Iq>>,
    /// Elements that came before counting began.
    pub(crate) early: Vec<StreamElement>,
    /// The cloud's name on the stream.
    pub(crate) domain: String,
    /// Distinguishes sessions, so that answers to an older one's requests are dropped.
    pub(crate) number: u64,
    waiting: HashMap<String, oneshot::Sender<Answer>>,
    next_id: u64,
    welcomed: bool,
    recent: Recent,
}

impl Session {
    pub(crate) fn new(number: u64, domain: String) -> Self {
        Self {
            resume_id: None,
            sm: None,
            early: Vec::new(),
            domain,
            number,
            waiting: HashMap::new(),
            next_id: 0,
            welcomed: false,
            recent: Recent::default(),
        }
    }

    /// The session is gone for good.
    pub(crate) fn give_up(self) {
        for (_, answer) in self.waiting {
            let _ = answer.send(Err(IqError::Lost));
        }
    }
}

/// Ids of requests already taken. After a resumption the cloud repeats stanzas that were not acknowledged, and a
/// password must not be tried twice.
#[derive(Default)]
struct Recent {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Recent {
    /// False when the id is known already.
    fn insert(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > RECENT_REQUESTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The agent stops; the stream was closed properly.
    Stopped,
    /// The connection broke; the session may be resumed.
    Cut(String),
    /// The cloud ended the stream with an error.
    Ended(Ended),
    /// The cloud closed the stream properly.
    Closed,
    /// The cloud does what it must not; a new session is needed.
    Broken(String),
    /// The cloud refused our hello.
    Refused(Box<StanzaError>),
}

/// What the driver works with; lives as long as the channel.
pub(crate) struct Workplace {
    pub(crate) orders: Arc<dyn Orders>,
    pub(crate) outgoing: mpsc::Receiver<Outgoing>,
    pub(crate) replies: mpsc::Receiver<RequestReply>,
    pub(crate) reply_sender: mpsc::Sender<RequestReply>,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
}

/// An answer to a request, from the task that worked on it.
pub(crate) struct RequestReply {
    session: u64,
    header: IqHeader,
    reply: Reply,
}

struct Connection<'a> {
    stream: Stream,
    session: &'a mut Session,
    orders: Arc<dyn Orders>,
    reply_sender: mpsc::Sender<RequestReply>,
    clock: Clock,
    online: &'a (dyn Fn(bool) + Send + Sync),
    queue: VecDeque<StreamElement>,
    flushed: bool,
    accepts: FuturesUnordered<BoxFuture<'static, (Option<Ticket>, Iq)>>,
    watch: Watch,
    seen_bytes: u64,
    ask_ack_at: Option<Instant>,
    hello: Option<(String, Instant)>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "lives for one turn of the loop; a box would cost an allocation per stanza"
)]
enum Step {
    Read(Option<Result<StreamElement, ReadError>>),
    Wrote,
    Failed(io::Error),
}

/// Runs one connection until it ends. `resumed` carries the cloud's `h` when the session was resumed.
pub(crate) async fn run(
    stream: Stream,
    session: &mut Session,
    place: &mut Workplace,
    resumed: Option<u32>,
    online: &(dyn Fn(bool) + Send + Sync),
) -> End {
    let now = place.clock.now();
    let mut connection = Connection {
        stream,
        session,
        orders: place.orders.clone(),
        reply_sender: place.reply_sender.clone(),
        clock: place.clock,
        online,
        queue: VecDeque::new(),
        flushed: true,
        accepts: FuturesUnordered::new(),
        watch: Watch::new(now.into_std()),
        seen_bytes: 0,
        ask_ack_at: None,
        hello: None,
    };
    let end = match connection.begin(resumed) {
        Ok(()) => connection.serve(place).await,
        Err(end) => end,
    };
    online(false);
    connection.close(&end).await;
    end
}

impl Connection<'_> {
    fn begin(&mut self, resumed: Option<u32>) -> Result<(), End> {
        if let Some(h) = resumed {
            let sm = self.session.sm.as_mut().expect("only sessions with counters are resumed");
            let again: Vec<Iq> = sm.resumed(h).map_err(too_high)?.cloned().collect();
            self.queue.extend(again.into_iter().map(StreamElement::Iq));
            self.queue.push_back(StreamElement::Sm(SmElement::Request(sm::R)));
            sm.requested();
        }
        for element in std::mem::take(&mut self.session.early) {
            self.take(element)?;
        }
        if self.session.welcomed {
            (self.online)(true);
        } else {
            let hello = self.orders.hello().to_element();
            let id = self.send_set(hello);
            self.hello = Some((id, self.clock.now() + LOGIN_WITHIN));
        }
        Ok(())
    }

    async fn serve(&mut self, place: &mut Workplace) -> End {
        loop {
            let room = self.queue.len() < WRITE_QUEUE_MAX && self.has_sm_room();
            let readable = self.accepts.len() < ACCEPTS_AT_ONCE;
            let wake = self.wake_at();
            let step = tokio::select! {
                biased;
                () = place.stop.cancelled() => return End::Stopped,
                Some((ticket, iq)) = self.accepts.next(), if !self.accepts.is_empty() => {
                    self.handled(ticket);
                    self.send_iq(iq);
                    continue;
                }
                Some(reply) = place.replies.recv(), if room => {
                    if reply.session == self.session.number {
                        let payload = Some(reply.reply.to_element());
                        self.send_iq(reply.header.assemble(IqPayload::Result(payload)));
                    }
                    continue;
                }
                Some(outgoing) = place.outgoing.recv(), if room && self.session.welcomed => {
                    // Whoever has stopped waiting does not want it sent any more.
                    if !outgoing.answer.is_closed() {
                        let id = self.send_set(outgoing.payload);
                        self.session.waiting.insert(id, outgoing.answer);
                    }
                    continue;
                }
                step = io_step(&mut self.stream, &mut self.queue, &mut self.flushed, readable) => step,
                () = sleep_until(wake) => {
                    match self.timer() {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
            };
            match step {
                Step::Wrote => {}
                Step::Failed(error) => return End::Cut(error.to_string()),
                Step::Read(read) => {
                    self.stream.get_stream().element_complete();
                    self.watch.heard(self.clock.now().into_std());
                    if let Err(end) = self.read(read) {
                        return end;
                    }
                }
            }
        }
    }

    fn read(&mut self, read: Option<Result<StreamElement, ReadError>>) -> Result<(), End> {
        match read {
            Some(Ok(element)) => self.take(element),
            Some(Err(ReadError::SoftTimeout)) => Ok(()),
            Some(Err(ReadError::StreamFooterReceived)) => Err(End::Closed),
            None => Err(End::Cut("the cloud closed the connection".to_owned())),
            Some(Err(ReadError::HardError(error))) => match error.kind() {
                _ if self.stream.get_stream().has_ended() => {
                    Err(End::Cut("the connection to the cloud was cut".to_owned()))
                }
                io::ErrorKind::InvalidData => Err(End::Broken(error.to_string())),
                _ => Err(End::Cut(error.to_string())),
            },
            // Whether it was a stanza and counts is unknowable now, so the counters are worthless.
            Some(Err(ReadError::ParseError(error))) => Err(End::Broken(login::shorten(&error.to_string()))),
        }
    }

    fn take(&mut self, element: StreamElement) -> Result<(), End> {
        let ticket = match &mut self.session.sm {
            Some(sm) if element.is_stanza() => Some(sm.received()),
            _ => None,
        };
        match element {
            StreamElement::Iq(iq) => self.take_iq(iq, ticket),
            StreamElement::Message(_) | StreamElement::Presence(_) => {
                self.handled(ticket);
                Ok(())
            }
            StreamElement::Sm(element) => self.take_sm(&element),
            StreamElement::Error(error) => Err(End::Ended(error.0.into())),
            StreamElement::Sasl(_) => {
                Err(End::Broken("a SASL element in the middle of a session".to_owned()))
            }
            StreamElement::Unknown(element) => {
                tracing::debug!(name = element.name(), "An unknown element is ignored");
                Ok(())
            }
        }
    }

    fn take_sm(&mut self, element: &SmElement) -> Result<(), End> {
        let Some(sm) = &mut self.session.sm else {
            return Err(End::Broken("stream management without being enabled".to_owned()));
        };
        match element {
            SmElement::Request(_) => {
                let h = sm.h();
                self.queue.push_back(StreamElement::Sm(SmElement::Ack(sm::A::new(h))));
                Ok(())
            }
            SmElement::Ack(ack) => sm.acked(ack.h).map(drop).map_err(too_high),
            _ => Err(End::Broken("stream management out of order".to_owned())),
        }
    }

    fn take_iq(&mut self, iq: Iq, ticket: Option<Ticket>) -> Result<(), End> {
        let from_cloud = iq
            .from()
            .is_none_or(|from| from.node().is_none() && from.domain().as_str() == self.session.domain);
        let (header, payload) = iq.split();
        match payload {
            IqPayload::Result(payload) => self.take_answer(&header.id, Ok(payload), ticket),
            IqPayload::Error(error) => {
                self.take_answer(&header.id, Err(IqError::Refused(Box::new(error))), ticket)
            }
            // Only the cloud itself gives orders; whoever else gets a stanza through learns nothing.
            IqPayload::Set(_) | IqPayload::Get(_) if !from_cloud => {
                self.answer_now(header, Err(unavailable()), ticket);
                Ok(())
            }
            IqPayload::Set(payload) => {
                self.take_order(header, &payload, ticket);
                Ok(())
            }
            IqPayload::Get(payload) => {
                let alive = payload.is("ping", ns::PING);
                // A repeated id belongs to a request whose answer is under way; see [`Recent`].
                if alive && self.session.recent.ids.contains(&header.id) {
                    self.handled(ticket);
                } else {
                    let answer =
                        if alive && Ping::try_from(payload).is_ok() { Ok(()) } else { Err(unavailable()) };
                    self.answer_now(header, answer, ticket);
                }
                Ok(())
            }
        }
    }

    fn take_answer(&mut self, id: &str, answer: Answer, ticket: Option<Ticket>) -> Result<(), End> {
        self.handled(ticket);
        if self.hello.as_ref().is_some_and(|(hello, _)| hello == id) {
            self.hello = None;
            return self.take_welcome(answer);
        }
        if let Some(waiting) = self.session.waiting.remove(id) {
            let _ = waiting.send(answer);
        }
        Ok(())
    }

    fn take_welcome(&mut self, answer: Answer) -> Result<(), End> {
        let element = match answer {
            Ok(Some(element)) => element,
            Ok(None) => return Err(End::Broken("an empty answer to our hello".to_owned())),
            Err(IqError::Refused(error)) => return Err(End::Refused(error)),
            Err(error) => return Err(End::Broken(error.to_string())),
        };
        let welcome = Welcome::from_element(&element)
            .map_err(|error| End::Broken(crate::chain::Chain(&error).to_string()))?;
        self.session.welcomed = true;
        self.orders.welcomed(welcome);
        (self.online)(true);
        Ok(())
    }

    fn take_order(&mut self, header: IqHeader, payload: &Element, ticket: Option<Ticket>) {
        let accepted = if Action::names(payload) {
            match Action::from_element(payload) {
                Ok(action) => self.orders.accept(action),
                Err(error) => return self.answer_now(header, Err(bad_request(&error)), ticket),
            }
        } else if Configure::names(payload) {
            match Configure::from_element(payload) {
                Ok(config) => self.orders.configure(config),
                Err(error) => return self.answer_now(header, Err(bad_request(&error)), ticket),
            }
        } else if Request::names(payload) {
            return self.take_request(header, payload, ticket);
        } else {
            return self.answer_now(header, Err(unavailable()), ticket);
        };
        self.accepts.push(accepted.map(move |result| (ticket, answer_iq(header, result))).boxed());
    }

    /// A request lives in memory only, so receiving it is handling it.
    fn take_request(&mut self, header: IqHeader, payload: &Element, ticket: Option<Ticket>) {
        let request = match Request::from_element(payload) {
            Ok(request) => request,
            Err(error) => return self.answer_now(header, Err(bad_request(&error)), ticket),
        };
        self.handled(ticket);
        if !self.session.recent.insert(&header.id) {
            return;
        }
        let answer = self.orders.answer(request);
        let (session, replies) = (self.session.number, self.reply_sender.clone());
        let header = IqHeader { from: None, to: header.from, id: header.id };
        tokio::spawn(async move {
            let reply = answer.await;
            // Fails only when the agent stops.
            let _ = replies.send(RequestReply { session, header, reply }).await;
        });
    }

    fn answer_now(&mut self, header: IqHeader, answer: Result<(), Box<StanzaError>>, ticket: Option<Ticket>) {
        self.handled(ticket);
        self.send_iq(answer_iq(header, answer));
    }

    fn handled(&mut self, ticket: Option<Ticket>) {
        if let (Some(sm), Some(ticket)) = (&mut self.session.sm, ticket) {
            sm.handled(ticket);
        }
    }

    fn send_set(&mut self, payload: Element) -> String {
        self.session.next_id += 1;
        let id = format!("a{}", self.session.next_id);
        self.send_iq(Iq::Set { from: None, to: None, id: id.clone(), payload });
        id
    }

    fn send_iq(&mut self, iq: Iq) {
        let Some(sm) = &mut self.session.sm else {
            self.queue.push_back(StreamElement::Iq(iq));
            return;
        };
        // New iqs of ours are not taken at the limit; answers are, because refusing them would not make room.
        let counted = sm.sent(iq.clone());
        self.queue.push_back(StreamElement::Iq(iq));
        match counted {
            Ok(true) => self.request_ack(),
            Ok(false) => {
                self.ask_ack_at.get_or_insert(self.clock.now() + ACK_WITHIN);
            }
            Err(backlog) => tracing::warn!(error = %backlog, "The cloud does not acknowledge"),
        }
    }

    fn request_ack(&mut self) {
        self.ask_ack_at = None;
        self.watch.asked(self.clock.now().into_std());
        match &mut self.session.sm {
            Some(sm) => {
                sm.requested();
                self.queue.push_back(StreamElement::Sm(SmElement::Request(sm::R)));
            }
            None => {
                self.session.next_id += 1;
                let id = format!("p{}", self.session.next_id);
                let ping = Iq::Get { from: None, to: None, id, payload: Ping.into() };
                self.queue.push_back(StreamElement::Iq(ping));
            }
        }
    }

    fn has_sm_room(&self) -> bool {
        self.session.sm.as_ref().is_none_or(StreamManagement::has_room)
    }

    fn wake_at(&self) -> Instant {
        let silence = match self.watch.poll(self.clock.now().into_std()) {
            Liveness::Quiet(until) => Instant::from_std(until),
            Liveness::Ask | Liveness::Dead => self.clock.now(),
        };
        let hello = self.hello.as_ref().map(|(_, deadline)| *deadline);
        [self.ask_ack_at, hello].into_iter().flatten().fold(silence, Instant::min)
    }

    fn timer(&mut self) -> Result<(), End> {
        let now = self.clock.now();
        if self.hello.as_ref().is_some_and(|(_, deadline)| *deadline <= now) {
            return Err(End::Cut("the cloud does not answer our hello".to_owned()));
        }
        let total = self.stream.get_stream().total();
        if total != self.seen_bytes {
            self.seen_bytes = total;
            self.watch.heard(now.into_std());
        }
        match self.watch.poll(now.into_std()) {
            Liveness::Dead => return Err(End::Cut("the cloud is silent".to_owned())),
            Liveness::Ask => self.request_ack(),
            Liveness::Quiet(_) => {}
        }
        if self.ask_ack_at.is_some_and(|at| at <= now) {
            self.request_ack();
        }
        self.session.waiting.retain(|_, answer| !answer.is_closed());
        Ok(())
    }

    /// Ends the stream properly where the session must not be resumed, and drops it where it may be (XEP-0198 §5).
    async fn close(&mut self, end: &End) {
        let farewell = match end {
            End::Cut(_) => return,
            End::Stopped | End::Closed | End::Ended(_) | End::Refused(_) => async {
                let _ = self.stream.shutdown().await;
            }
            .boxed(),
            End::Broken(_) => async {
                let error = xmpp_parsers::stream_error::StreamError::new(
                    xmpp_parsers::stream_error::DefinedCondition::UndefinedCondition,
                    "en",
                    "the agent cannot follow this stream",
                );
                let error = xmpp_parsers::stream_error::SentStreamError(error);
                let _ = self.stream.send(&error).await;
                let _ = self.stream.shutdown().await;
            }
            .boxed(),
        };
        let _ = tokio::time::timeout(CLOSE_WITHIN, farewell).await;
    }
}

/// Writes what waits, then reads. Ready when an element came, or when a full queue has room again.
async fn io_step(
    stream: &mut Stream,
    queue: &mut VecDeque<StreamElement>,
    flushed: &mut bool,
    readable: bool,
) -> Step {
    let was_full = queue.len() >= WRITE_QUEUE_MAX;
    std::future::poll_fn(|cx| {
        if let Err(error) = write_some(stream, queue, flushed, cx) {
            return Poll::Ready(Step::Failed(error));
        }
        if was_full && queue.len() < WRITE_QUEUE_MAX {
            return Poll::Ready(Step::Wrote);
        }
        if !readable {
            return Poll::Pending;
        }
        stream.poll_next_unpin(cx).map(Step::Read)
    })
    .await
}

fn write_some(
    stream: &mut Stream,
    queue: &mut VecDeque<StreamElement>,
    flushed: &mut bool,
    cx: &mut Context<'_>,
) -> io::Result<()> {
    type Out<'a> = &'a StreamElement;
    while let Some(element) = queue.front() {
        match futures_util::Sink::<Out<'_>>::poll_ready(Pin::new(&mut *stream), cx)? {
            Poll::Pending => break,
            Poll::Ready(()) => {
                futures_util::Sink::<Out<'_>>::start_send(Pin::new(&mut *stream), element)?;
                queue.pop_front();
                *flushed = false;
            }
        }
    }
    if !*flushed && futures_util::Sink::<Out<'_>>::poll_flush(Pin::new(stream), cx)?.is_ready() {
        *flushed = true;
    }
    Ok(())
}

fn answer_iq(header: IqHeader, answer: Result<(), Box<StanzaError>>) -> Iq {
    let header = IqHeader { from: None, to: header.from, id: header.id };
    header.assemble(match answer {
        Ok(()) => IqPayload::Result(None),
        Err(error) => IqPayload::Error(*error),
    })
}

fn too_high(error: SmError) -> End {
    End::Broken(error.to_string())
}

fn unavailable() -> Box<StanzaError> {
    stanza_error(
        ErrorType::Cancel,
        DefinedCondition::ServiceUnavailable,
        "the agent does not know this element",
    )
}

fn bad_request(error: &causeway_protocol::channel::payload::PayloadError) -> Box<StanzaError> {
    let text = login::shorten(&crate::chain::Chain(error).to_string());
    stanza_error(ErrorType::Modify, DefinedCondition::BadRequest, &text)
}
