//! One connection of a session: a single task that reads, writes, counts (XEP-0198) and watches for silence.
//!
//! Nothing here waits for the peer to read: what goes out waits in a bounded queue that is written between reads, so
//! two ends with full buffers cannot block each other.

use std::collections::VecDeque;
use std::sync::Arc;

use causeway_protocol::channel::keepalive::{Ending, Keepalive};
use causeway_protocol::channel::liveness::{Liveness, Watch};
use causeway_protocol::channel::sm::{StreamManagement, Ticket};
use causeway_protocol::channel::{SmElement, StreamElement};
use causeway_protocol::limits::{ACK_WITHIN, LOGIN_WITHIN, PONG_WITHIN};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, SinkExt, StreamExt};
use jid::Jid;
use minidom::Element;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use xmpp_parsers::iq::{Iq, IqHeader, IqPayload};
use xmpp_parsers::ping::Ping;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::{DefinedCondition as StanzaCondition, ErrorType, StanzaError};
use xmpp_parsers::stream_error::{DefinedCondition, SentStreamError, StreamError};

use super::conversation::Conversation;
use super::inbound::{breach, too_high};
use super::login::{Ended, Stream};
use super::pump::{Step, io_step};
use super::session::{Session, Waiting, iq_id};
use super::{IqError, Nudge, Outgoing, stanza_error};
use crate::clock::Clock;
use crate::limits::{ACCEPTS_AT_ONCE, CLOSE_WITHIN, WRITE_QUEUE_HARD_MAX, WRITE_QUEUE_MAX};

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The agent stops; the stream was closed properly.
    Stopped,
    /// The connection broke; the session may be resumed.
    Cut(String),
    /// We leave the connection, for a reason that lies around it; the session may be resumed.
    Left(String),
    /// The cloud ended the stream with an error.
    Ended(Ended),
    /// The cloud closed the stream properly.
    Closed,
    /// The cloud does what it must not; a new session is needed.
    Broken(Box<Breach>),
    /// The cloud refused our hello.
    Refused(Box<StanzaError>),
}

/// What the cloud did that it must not.
#[derive(Debug)]
pub(crate) struct Breach {
    /// For people.
    pub(crate) reason: String,
    /// For the cloud.
    pub(super) tell: StreamError,
}

/// What the driver works with; lives as long as the channel.
pub(crate) struct Workplace {
    pub(crate) conversation: Arc<dyn Conversation>,
    pub(crate) outgoing: mpsc::Receiver<Outgoing>,
    pub(crate) replies: mpsc::Receiver<RequestReply>,
    pub(crate) reply_sender: mpsc::Sender<RequestReply>,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
    pub(crate) nudges: mpsc::Receiver<Nudge>,
    /// Learns over connections how much silence they bear.
    pub(crate) keepalive: Keepalive,
}

/// An answer to a request, from the task that worked on it.
pub(crate) struct RequestReply {
    pub(super) session: u64,
    pub(super) header: IqHeader,
    pub(super) payload: Element,
}

pub(super) struct Connection<'a> {
    pub(super) stream: Stream,
    pub(super) session: &'a mut Session,
    pub(super) conversation: Arc<dyn Conversation>,
    pub(super) reply_sender: mpsc::Sender<RequestReply>,
    clock: Clock,
    pub(super) online: &'a (dyn Fn(bool) + Send + Sync),
    pub(super) queue: VecDeque<StreamElement>,
    flushed: bool,
    pub(super) accepts: FuturesUnordered<BoxFuture<'static, (Option<Ticket>, Iq)>>,
    watch: Watch,
    seen_bytes: u64,
    ask_ack_at: Option<Instant>,
    /// Id of the opening iq and when its answer must have come.
    pub(super) opening: Option<(String, Instant)>,
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
        conversation: place.conversation.clone(),
        reply_sender: place.reply_sender.clone(),
        clock: place.clock,
        online,
        queue: VecDeque::new(),
        flushed: true,
        accepts: FuturesUnordered::new(),
        watch: Watch::with_patience(now.into_std(), place.keepalive.ask_after(), PONG_WITHIN),
        seen_bytes: 0,
        ask_ack_at: None,
        opening: None,
    };
    let end = match connection.begin(resumed) {
        Ok(()) => connection.serve(place).await,
        Err(end) => end,
    };
    online(false);
    if let End::Cut(_) = end {
        connection.learn(&mut place.keepalive);
    }
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
        // They came before `<enabled/>`, so neither end counts them (XEP-0198 §4).
        for element in std::mem::take(&mut self.session.early) {
            self.take_counted(element, None)?;
        }
        if !self.session.opened {
            match self.conversation.opening() {
                Some(opening) => {
                    let number = self.send_ask(None, false, opening)?;
                    self.opening = Some((iq_id(number), self.clock.now() + LOGIN_WITHIN));
                    return Ok(());
                }
                None => self.session.opened = true,
            }
        }
        (self.online)(true);
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
                Some(nudge) = place.nudges.recv() => match nudge {
                    Nudge::Redial(reason) => return End::Left(reason),
                    Nudge::Retry => continue,
                },
                Some((ticket, iq)) = self.accepts.next(), if !self.accepts.is_empty() => {
                    self.handled(ticket);
                    match self.send_iq(iq) {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
                Some(reply) = place.replies.recv(), if room => {
                    if let Err(end) = self.reply(reply) {
                        return end;
                    }
                    continue;
                }
                Some(outgoing) = place.outgoing.recv(), if room && self.session.opened => {
                    // Whoever has stopped waiting does not want it sent any more.
                    if !outgoing.answer.is_closed()
                        && let Err(end) = self.ask(outgoing)
                    {
                        return end;
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
                    if let Some(Ok(_)) = read {
                        self.watch.heard(self.clock.now().into_std());
                        // Counted now; later they would pass for a sign of life of that time.
                        self.seen_bytes = self.stream.get_stream().total();
                    }
                    if let Err(end) = self.read(read) {
                        return end;
                    }
                }
            }
        }
    }

    pub(super) fn handled(&mut self, ticket: Option<Ticket>) {
        if let (Some(sm), Some(ticket)) = (&mut self.session.sm, ticket) {
            sm.handled(ticket);
        }
    }

    /// Sends what somebody waits for the answer of, unless the server would end the stream over its size.
    fn ask(&mut self, outgoing: Outgoing) -> Result<(), End> {
        let Outgoing { to, get, payload, answer } = outgoing;
        let (bytes, max_bytes) = (wire_bytes(&payload), self.session.peer_max_bytes);
        if bytes > max_bytes {
            let _ = answer.send(Err(IqError::TooLarge { bytes, max_bytes }));
            return Ok(());
        }
        let number = self.send_ask(to.clone(), get, payload)?;
        self.session.waiting.insert(number, Waiting { to, answer });
        Ok(())
    }

    /// Sends the answer to a request of this session; an error in its place if the server would end the stream over
    /// its size.
    fn reply(&mut self, reply: RequestReply) -> Result<(), End> {
        let RequestReply { session, header, payload } = reply;
        if session != self.session.number {
            return Ok(());
        }
        let (bytes, max_bytes) = (wire_bytes(&payload), self.session.peer_max_bytes);
        self.send_iq(header.assemble(if bytes <= max_bytes {
            IqPayload::Result(Some(payload))
        } else {
            let text = format!("the answer has {bytes} bytes, this stream takes {max_bytes}");
            IqPayload::Error(*stanza_error(ErrorType::Cancel, StanzaCondition::NotAcceptable, &text))
        }))
    }

    fn send_ask(&mut self, to: Option<Jid>, get: bool, payload: Element) -> Result<u64, End> {
        self.session.next_id += 1;
        let id = iq_id(self.session.next_id);
        self.send_iq(match get {
            true => Iq::Get { from: None, to, id, payload },
            false => Iq::Set { from: None, to, id, payload },
        })?;
        Ok(self.session.next_id)
    }

    /// New iqs of ours are not taken while there is no room, so at the limits here it is answers that pile up: the
    /// server asks and asks, and neither reads nor acknowledges. An iq that is not counted would break both ends'
    /// counters, and one that is kept would cost memory without end.
    pub(super) fn send_iq(&mut self, iq: Iq) -> Result<(), End> {
        let counted = match &mut self.session.sm {
            Some(sm) => sm.sent(iq.clone()).map_err(|backlog| {
                breach(
                    DefinedCondition::PolicyViolation,
                    format!("the cloud does not acknowledge: {backlog}"),
                )
            })?,
            None => false,
        };
        if self.queue.len() >= WRITE_QUEUE_HARD_MAX {
            let reason = format!("the cloud does not read: {} elements wait for it", self.queue.len());
            return Err(breach(DefinedCondition::PolicyViolation, reason));
        }
        self.queue.push_back(StreamElement::Iq(iq));
        if counted {
            self.request_ack();
        } else if self.session.sm.is_some() {
            self.ask_ack_at.get_or_insert(self.clock.now() + ACK_WITHIN);
        }
        Ok(())
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

    /// What the end of this connection says about how much silence the path bears.
    fn learn(&mut self, keepalive: &mut Keepalive) {
        let now = self.clock.now().into_std();
        let silence = now - self.watch.heard_at();
        let ending = match self.watch.poll(now) {
            Liveness::Dead if silence >= keepalive.ask_after() + PONG_WITHIN => Ending::Unanswered,
            // It died in the middle of traffic, which no keep-alive prevents.
            Liveness::Dead => return,
            Liveness::Ask | Liveness::Quiet(_) => Ending::Cut(silence),
        };
        if keepalive.ended(ending) {
            tracing::info!(secs = keepalive.ask_after().as_secs(), "Links are kept alive more often now");
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
        let opening = self.opening.as_ref().map(|(_, deadline)| *deadline);
        [self.ask_ack_at, opening].into_iter().flatten().fold(silence, Instant::min)
    }

    fn timer(&mut self) -> Result<(), End> {
        let now = self.clock.now();
        if self.opening.as_ref().is_some_and(|(_, deadline)| *deadline <= now) {
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
        self.session.waiting.retain(|_, waiting| !waiting.answer.is_closed());
        Ok(())
    }

    /// Ends the stream properly where the session must not be resumed, and drops it where it may be (XEP-0198 §5).
    async fn close(&mut self, end: &End) {
        let farewell = match end {
            End::Cut(_) | End::Left(_) => return,
            End::Stopped | End::Closed | End::Ended(_) | End::Refused(_) => async {
                let _ = self.stream.shutdown().await;
            }
            .boxed(),
            End::Broken(breach) => async {
                let _ = self.stream.send(&SentStreamError(breach.tell.clone())).await;
                let _ = self.stream.shutdown().await;
            }
            .boxed(),
        };
        let _ = tokio::time::timeout(CLOSE_WITHIN, farewell).await;
    }
}

/// Bytes of an iq with this payload, roughly: the frame around it has ids and addresses of ours only.
fn wire_bytes(payload: &Element) -> usize {
    const FRAME_BYTES: usize = 512;
    FRAME_BYTES + String::from(payload).len()
}
