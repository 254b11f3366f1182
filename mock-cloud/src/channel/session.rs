//! One connection's loop after login: reads, writes, acknowledges, and notices when the other end is gone.
//!
//! Everything happens in one task without children, because ten thousand of these are mostly idle. The loop is one
//! hand-written poll: it goes on reading while a write is blocked, so two ends that both have much to say cannot
//! stop each other, and it flushes only when nothing else is ready, so that a burst shares its system calls.

mod negotiate;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use causeway_protocol::channel::sm::{StreamManagement, Ticket};
use causeway_protocol::channel::{SmElement, StreamElement};
use causeway_protocol::limits::ACK_WITHIN;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{Sink, Stream as _};
use jid::Jid;
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_xmpp::xmlstream::{ReadError, XmlStream};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::sm;
use xmpp_parsers::stream_error::{DefinedCondition, StreamError};
use xso::AsXml;

use super::login::{LoggedIn, Role};
use super::outbound::{Outgoing, number_in};
use super::registry::{Answer, Control, Detached, Inlets, Session};
use super::wire::{ElementTooDeep, ElementTooLarge, Metered};
use super::{inbound, stream_error};
use crate::limits::{
    BURST_MAX, ENROLMENT_WITHIN, GOODBYE_WITHIN, INBOUND_WORK_MAX, SILENCE_ASK_AFTER, SILENCE_MAX,
    WRITE_WITHIN,
};
use crate::state::Cloud;

/// The XML stream of a session.
pub(super) type Stream<'io, S> = XmlStream<&'io mut Metered<S>, StreamElement>;

/// What a stanza's work comes to.
pub(super) enum Effect {
    /// This answer, and then this, once the answer is on its way.
    Answer(Box<Iq>, Option<BoxFuture<'static, ()>>),
    /// Drop the connection as if the network had.
    Cut,
}

struct Done {
    ticket: Option<Ticket>,
    effect: Effect,
}

/// How a connection ends.
enum End {
    /// The peer closed the stream, or we did: there is nothing to resume.
    Over,
    /// The link broke: the session may be resumed.
    Broken,
    /// We end it and say why.
    Because(Box<StreamError>),
    /// Another connection takes the session over.
    HandedOver(tokio::sync::oneshot::Sender<Detached>),
}

enum Event {
    Element(Box<StreamElement>),
    Resume(Box<sm::Resume>),
    Unreadable(ReadError),
    /// The connection ended without a stream footer.
    Closed,
    Outbound(Outgoing),
    Control(Control),
    Done(Done),
    Tick,
    WriteFailed,
}

struct Loop {
    cloud: Arc<Cloud>,
    role: Role,
    session: Arc<Session>,
    inlets: Inlets,
    /// Our own address on this stream.
    domain: Jid,
    sm: Option<StreamManagement<Box<Outgoing>>>,
    sm_id: Option<String>,
    unacked_bytes: usize,
    ack_due: Option<Instant>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    tick: Pin<Box<Sleep>>,
    began: Instant,
    heard: Instant,
    asked: bool,
    inside_since: Option<Instant>,
    /// Elements written since the last complete flush, and since when they wait.
    unflushed: usize,
    unflushed_since: Instant,
}

/// Runs a logged-in connection to its end.
pub(super) async fn run<S>(cloud: Arc<Cloud>, login: Box<LoggedIn<'_, S>>, from: SocketAddr)
where
    S: AsyncBufRead + AsyncWrite + Unpin + Send,
{
    let LoggedIn { mut stream, role, domain } = *login;
    let mut state = Box::new(Loop::new(cloud, role, domain, from));
    state.cloud.sessions.connect(&state.session);
    let end = loop {
        let event = poll_fn(|cx| state.poll(&mut stream, cx)).await;
        let next = match event {
            // Boxed: waits for another session's task, which is rare.
            Event::Resume(resume) => Box::pin(state.on_resume(&mut stream, *resume)).await,
            event => state.on_event(&mut stream, event),
        };
        if let Err(end) = next {
            break end;
        }
    };
    // Boxed: runs once per session and must not make the idle task larger.
    Box::pin(state.finish(stream, end)).await;
}

impl Loop {
    fn new(cloud: Arc<Cloud>, role: Role, domain: Jid, from: SocketAddr) -> Self {
        let (session, inlets) = Session::new(cloud.sessions.serial(), role.identity().cloned(), from);
        let now = Instant::now();
        Self {
            role,
            session,
            inlets,
            domain,
            sm: None,
            sm_id: None,
            unacked_bytes: 0,
            ack_due: None,
            work: FuturesUnordered::new(),
            tick: Box::pin(tokio::time::sleep(cloud.config.channel.login_within())),
            began: now,
            heard: now,
            asked: false,
            inside_since: None,
            unflushed: 0,
            unflushed_since: now,
            cloud,
        }
    }

    fn poll<S>(&mut self, stream: &mut Stream<'_, S>, cx: &mut Context<'_>) -> Poll<Event>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        if self.unflushed >= BURST_MAX
            && let Poll::Ready(Err(_)) = self.poll_flush(stream, cx)
        {
            return Poll::Ready(Event::WriteFailed);
        }
        if let Poll::Ready(Some(control)) = self.inlets.control.poll_recv(cx) {
            return Poll::Ready(Event::Control(control));
        }
        if !self.work.is_empty()
            && let Poll::Ready(Some(done)) = Pin::new(&mut self.work).poll_next(cx)
        {
            return Poll::Ready(Event::Done(done));
        }
        // A peer that does not read our answers is not read either, beyond a burst.
        if self.work.len() < INBOUND_WORK_MAX && self.unflushed < 2 * BURST_MAX {
            match Pin::new(&mut *stream).poll_next(cx) {
                Poll::Pending => {}
                // Our own clock decides about silence; look again, so that the stream can wake us.
                Poll::Ready(Some(Err(ReadError::SoftTimeout))) => cx.waker().wake_by_ref(),
                Poll::Ready(read) => return Poll::Ready(self.heard(stream, read)),
            }
            self.inside_since = match (stream.get_stream().is_inside_element(), self.inside_since) {
                (true, None) => Some(Instant::now()),
                (true, since) => since,
                (false, _) => None,
            };
        }
        let room = self.sm.as_ref().is_none_or(StreamManagement::has_room);
        if self.unflushed < BURST_MAX
            && room
            && let Poll::Ready(Some(stanza)) = self.inlets.outbound.poll_recv(cx)
        {
            return Poll::Ready(Event::Outbound(stanza));
        }
        if self.unflushed > 0
            && let Poll::Ready(Err(_)) = self.poll_flush(stream, cx)
        {
            return Poll::Ready(Event::WriteFailed);
        }
        self.set_tick();
        self.tick.as_mut().poll(cx).map(|()| Event::Tick)
    }

    fn poll_flush<S>(&mut self, stream: &mut Stream<'_, S>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        let flushed = <Stream<'_, S> as Sink<&StreamElement>>::poll_flush(Pin::new(stream), cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.unflushed = 0;
        }
        flushed
    }

    /// Moves the timer to the next moment that matters. A later moment is left to the timer's next turn, because
    /// resetting it for every stanza would cost more than one turn too many.
    fn set_tick(&mut self) {
        let config = &self.cloud.config.channel;
        let mut due = if self.asked { self.heard + SILENCE_MAX } else { self.heard + SILENCE_ASK_AFTER };
        if let Some(ack_due) = self.ack_due {
            due = due.min(ack_due);
        }
        if let Some(since) = self.inside_since {
            due = due.min(since + config.element_within());
        }
        if self.session.jid().is_none() {
            due = due.min(self.began + self.bind_within());
        }
        if self.unflushed > 0 {
            due = due.min(self.unflushed_since + WRITE_WITHIN);
        }
        if due < self.tick.deadline() || self.tick.is_elapsed() {
            self.tick.as_mut().reset(due);
        }
    }

    fn bind_within(&self) -> std::time::Duration {
        match self.role {
            Role::Enrolling { .. } => ENROLMENT_WITHIN,
            Role::Agent(_) | Role::Console => self.cloud.config.channel.login_within(),
        }
    }

    fn on_event<S>(&mut self, stream: &mut Stream<'_, S>, event: Event) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        match event {
            Event::Element(element) => self.on_element(stream, *element),
            Event::Unreadable(error) => Err(on_read_error(&error)),
            Event::Closed => Err(End::Broken),
            Event::Outbound(stanza) => self.send(stream, stanza),
            Event::Done(Done { ticket, effect }) => self.on_effect(stream, ticket, effect),
            Event::Control(Control::End(error)) => Err(End::Because(error)),
            Event::Control(Control::HandOver(to)) => Err(End::HandedOver(to)),
            Event::Tick => self.on_tick(stream),
            Event::WriteFailed => Err(End::Broken),
            // Taken by the loop itself.
            Event::Resume(_) => Ok(()),
        }
    }

    /// What the XML layer gave.
    fn heard<S>(&mut self, stream: &Stream<'_, S>, read: Option<Result<StreamElement, ReadError>>) -> Event {
        let element = match read {
            Some(Ok(element)) => element,
            Some(Err(error)) => return Event::Unreadable(error),
            None => return Event::Closed,
        };
        stream.get_stream().element_done();
        self.inside_since = None;
        self.heard = Instant::now();
        self.asked = false;
        self.session.seen(self.cloud.now_ms());
        match element {
            StreamElement::Sm(SmElement::Resume(resume)) => Event::Resume(Box::new(resume)),
            element => Event::Element(Box::new(element)),
        }
    }

    fn on_element<S>(&mut self, stream: &mut Stream<'_, S>, element: StreamElement) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        match element {
            StreamElement::Iq(iq) => self.on_iq(stream, iq),
            StreamElement::Message(_) | StreamElement::Presence(_) => {
                self.must_be_bound()?;
                // Nothing here talks or is present; strangers may, and lose nothing by being ignored.
                if let Some(sm) = &mut self.sm {
                    let ticket = sm.received();
                    sm.handled(ticket);
                }
                Ok(())
            }
            StreamElement::Sm(SmElement::Request(_)) => match &self.sm {
                Some(sm) => {
                    let ack = SmElement::Ack(sm::A::new(sm.h()));
                    self.write(stream, &StreamElement::Sm(ack))
                }
                None => Ok(()),
            },
            StreamElement::Sm(SmElement::Ack(ack)) => self.on_ack(ack.h),
            StreamElement::Sm(SmElement::Enable(enable)) => self.on_enable(stream, &enable),
            StreamElement::Error(error) => {
                tracing::debug!(%error, "Peer ended its stream with an error");
                Err(End::Over)
            }
            StreamElement::Sm(_) | StreamElement::Sasl(_) | StreamElement::Unknown(_) => Err(because(
                DefinedCondition::UnsupportedStanzaType,
                "this element is not expected on a logged-in stream",
            )),
        }
    }

    fn on_iq<S>(&mut self, stream: &mut Stream<'_, S>, iq: Iq) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        if let Iq::Set { payload, id, .. } = &iq
            && payload.is("bind", xmpp_parsers::ns::BIND)
        {
            let id = id.clone();
            return self.on_bind(stream, id, payload.clone());
        }
        if !matches!(self.role, Role::Enrolling { .. }) {
            self.must_be_bound()?;
        }
        let ticket = self.sm.as_mut().map(StreamManagement::received);
        match iq {
            Iq::Result { id, payload, .. } => {
                if let Some(number) = number_in(&id) {
                    self.session.settle(number, Answer::Result(payload));
                }
                self.handled(ticket);
                Ok(())
            }
            Iq::Error { id, error, .. } => {
                if let Some(number) = number_in(&id) {
                    self.session.settle(number, Answer::Error(Box::new(error)));
                }
                self.handled(ticket);
                Ok(())
            }
            request => match inbound::take(&self.cloud, &self.session, &self.role, &self.domain, request) {
                inbound::Taken::Now(iq) => {
                    self.handled(ticket);
                    self.answer(stream, iq)
                }
                inbound::Taken::Later(work) => {
                    self.work.push(Box::pin(async move { Done { ticket, effect: work.await } }));
                    Ok(())
                }
            },
        }
    }

    fn on_effect<S>(
        &mut self,
        stream: &mut Stream<'_, S>,
        ticket: Option<Ticket>,
        effect: Effect,
    ) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        match effect {
            Effect::Answer(iq, then) => {
                self.handled(ticket);
                let sent = self.answer(stream, iq);
                if let Some(then) = then {
                    tokio::spawn(then);
                }
                sent
            }
            Effect::Cut => Err(End::Broken),
        }
    }

    fn on_ack(&mut self, h: u32) -> Result<(), End> {
        let Some(sm) = &mut self.sm else { return Ok(()) };
        let acked = sm.acked(h).map_err(too_many)?;
        self.unacked_bytes -= acked.iter().map(|stanza| stanza.weight_bytes()).sum::<usize>();
        if sm.unacked() == 0 {
            self.ack_due = None;
        }
        Ok(())
    }

    fn on_tick<S>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        let now = Instant::now();
        if self.session.jid().is_none() && now >= self.began + self.bind_within() {
            return Err(because(DefinedCondition::ConnectionTimeout, "no resource was bound in time"));
        }
        if self.inside_since.is_some_and(|since| now >= since + self.cloud.config.channel.element_within()) {
            return Err(because(
                DefinedCondition::ConnectionTimeout,
                "an element was begun and not ended in time",
            ));
        }
        if self.unflushed > 0 && now >= self.unflushed_since + WRITE_WITHIN {
            return Err(End::Broken);
        }
        if self.ack_due.is_some_and(|due| now >= due) {
            self.ack_due = None;
            self.request_ack(stream)?;
        }
        if self.asked && now >= self.heard + SILENCE_MAX {
            return Err(End::Broken);
        }
        if !self.asked && now >= self.heard + SILENCE_ASK_AFTER {
            self.asked = true;
            if self.sm.is_some() {
                return self.request_ack(stream);
            }
            // A ping without anyone waiting: any answer is a sign of life.
            return self.send(stream, Outgoing::ping(0));
        }
        Ok(())
    }

    fn must_be_bound(&self) -> Result<(), End> {
        match self.session.jid() {
            Some(_) => Ok(()),
            // RFC 6120 §7.1: no stanzas before resource binding.
            None => Err(because(DefinedCondition::NotAuthorized, "bind a resource first")),
        }
    }

    fn handled(&mut self, ticket: Option<Ticket>) {
        if let (Some(sm), Some(ticket)) = (&mut self.sm, ticket) {
            sm.handled(ticket);
        }
    }

    fn answer<S>(&mut self, stream: &mut Stream<'_, S>, iq: Box<Iq>) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        if self.sm.as_ref().is_some_and(|sm| !sm.has_room()) {
            // The peer asks and asks and acknowledges nothing: a broken client, and memory we would have to hold.
            return Err(because(DefinedCondition::PolicyViolation, "too many unacknowledged stanzas"));
        }
        self.send(stream, Outgoing::Answer(iq))
    }

    fn send<S>(&mut self, stream: &mut Stream<'_, S>, stanza: Outgoing) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        let iq = match (&stanza, self.session.jid()) {
            // Answers carry their own addresses, also before bind.
            (Outgoing::Answer(iq), _) => (**iq).clone(),
            (_, Some(to)) => stanza.to_iq(&self.domain, to),
            (_, None) => return Ok(()),
        };
        self.write(stream, &StreamElement::Iq(iq))?;
        let Some(sm) = &mut self.sm else { return Ok(()) };
        self.unacked_bytes += stanza.weight_bytes();
        match sm.sent(Box::new(stanza)) {
            Ok(true) => self.request_ack(stream),
            Ok(false) => {
                self.ack_due.get_or_insert_with(|| Instant::now() + ACK_WITHIN);
                Ok(())
            }
            Err(_) => Err(because(DefinedCondition::PolicyViolation, "too many unacknowledged stanzas")),
        }
    }

    fn request_ack<S>(&mut self, stream: &mut Stream<'_, S>) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        if let Some(sm) = &mut self.sm {
            sm.requested();
            self.ack_due = None;
        }
        self.write(stream, &StreamElement::Sm(SmElement::Request(sm::R)))
    }

    /// Puts an element into the stream's buffer; the loop flushes.
    fn write<S, E>(&mut self, stream: &mut Stream<'_, S>, element: &E) -> Result<(), End>
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
        E: AsXml,
    {
        if self.unflushed == 0 {
            self.unflushed_since = Instant::now();
        }
        self.unflushed += 1;
        Pin::new(stream).start_send(element).map_err(|_| End::Broken)
    }

    async fn finish<S>(mut self, mut stream: Stream<'_, S>, end: End)
    where
        S: AsyncBufRead + AsyncWrite + Unpin + Send,
    {
        self.cloud.sessions.disconnect(&self.session);
        self.session.cut(&mut self.inlets.outbound);
        let resumable = self.session.is_resumable() && self.session.jid().is_some();
        let (error, keep) = match end {
            End::Over => (None, None),
            End::Broken => (None, resumable.then_some(None)),
            End::Because(error) => (Some(*error), None),
            End::HandedOver(to) => {
                let error =
                    stream_error(DefinedCondition::Conflict, "the session was resumed on another connection");
                (Some(error), Some(Some(to)))
            }
        };
        let (session, sm_id) = (Arc::clone(&self.session), self.sm_id.take());
        let (cloud, reason) =
            (Arc::clone(&self.cloud), error.as_ref().map(|error| error.condition.to_string()));
        match (keep, self.sm.take(), sm_id) {
            (Some(to), Some(sm), Some(id)) => {
                let detached = Detached {
                    session: Arc::clone(&session),
                    inlets: self.inlets,
                    sm,
                    unacked_bytes: self.unacked_bytes,
                };
                match to {
                    Some(to) => drop(to.send(detached)),
                    None => super::detached(&cloud, id, detached),
                }
            }
            (_, _, Some(id)) => {
                cloud.sessions.forget(&id);
                super::ended(&cloud, &session, reason.as_deref().unwrap_or("stream closed"));
            }
            _ => super::ended(&cloud, &session, reason.as_deref().unwrap_or("connection closed")),
        }
        drop(self.work);
        let goodbye = async {
            if let Some(error) = &error {
                let _ = Pin::new(&mut stream).start_send(error);
            }
            let _ = stream.shutdown().await;
        };
        let _ = tokio::time::timeout(GOODBYE_WITHIN, goodbye).await;
    }
}

fn on_read_error(error: &ReadError) -> End {
    match error {
        ReadError::SoftTimeout => End::Broken,
        ReadError::StreamFooterReceived => End::Over,
        ReadError::ParseError(_) => {
            because(DefinedCondition::BadFormat, "an element does not have the form its name promises")
        }
        ReadError::HardError(error) => match fault_in(error) {
            Some((condition, text)) => because(condition, text),
            None => End::Broken,
        },
    }
}

/// What a failed read says about the peer; `None` when the connection simply broke.
pub(super) fn fault_in(error: &io::Error) -> Option<(DefinedCondition, &'static str)> {
    use xso::exports::rxml;
    let inner = error.get_ref()?;
    if inner.is::<ElementTooLarge>() {
        return Some((DefinedCondition::PolicyViolation, "an element is larger than this stream allows"));
    }
    if inner.is::<ElementTooDeep>() {
        return Some((DefinedCondition::PolicyViolation, "elements are nested too deeply"));
    }
    match inner.downcast_ref::<rxml::Error>() {
        Some(rxml::Error::InvalidEof(_)) => None,
        // What `<!` begins besides comments and CDATA is a document type; the parser says so only in words, and a
        // test holds us to them.
        Some(rxml::Error::InvalidSyntax("malformed cdata or comment section start"))
        | Some(rxml::Error::RestrictedXml(_)) => Some((
            DefinedCondition::RestrictedXml,
            "comments, processing instructions, document types and over-long names or attributes are not allowed",
        )),
        Some(_) => Some((DefinedCondition::NotWellFormed, "the XML is not well-formed")),
        None if error.kind() == io::ErrorKind::InvalidData && !error.to_string().contains("eof") => {
            Some((DefinedCondition::BadFormat, "the stream does not have the form RFC 6120 demands"))
        }
        None => None,
    }
}

fn because(condition: DefinedCondition, text: &str) -> End {
    End::Because(Box::new(stream_error(condition, text)))
}

fn too_many(error: causeway_protocol::channel::sm::SmError) -> End {
    let causeway_protocol::channel::sm::SmError::HandledCountTooHigh { h, sent } = error else {
        return because(DefinedCondition::UndefinedCondition, "stream management failed");
    };
    End::Because(Box::new(sm::HandledCountTooHigh { h, send_count: sent }.into()))
}
