//! What the server sends: counted, understood, given to whom it concerns, answered.

use std::io;

use causeway_protocol::channel::sm::{SmError, Ticket};
use causeway_protocol::channel::{SmElement, StreamElement, ns};
use futures_util::FutureExt;
use minidom::Element;
use tokio_xmpp::xmlstream::ReadError;
use xmpp_parsers::iq::{Iq, IqHeader, IqPayload};
use xmpp_parsers::ping::Ping;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::StanzaError;
use xmpp_parsers::stream_error::{DefinedCondition, StreamError};

use super::conversation::{Asked, Taken};
use super::driver::{Breach, Connection, End, RequestReply};
use super::limited::OverLimit;
use super::{Answer, IqError, login, unavailable};

impl Connection<'_> {
    pub(super) fn read(&mut self, read: Option<Result<StreamElement, ReadError>>) -> Result<(), End> {
        match read {
            Some(Ok(element)) => self.take(element),
            Some(Err(ReadError::SoftTimeout)) => Ok(()),
            Some(Err(ReadError::StreamFooterReceived)) => Err(End::Closed),
            None => Err(End::Cut("the cloud closed the connection".to_owned())),
            Some(Err(ReadError::HardError(error))) => match error.kind() {
                _ if self.stream.get_stream().has_ended() => {
                    Err(End::Cut("the connection to the cloud was cut".to_owned()))
                }
                io::ErrorKind::InvalidData => {
                    Err(breach(fault_in(&error), login::shorten(&error.to_string())))
                }
                _ => Err(End::Cut(error.to_string())),
            },
            // Whether it was a stanza and counts is unknowable now, so the counters are worthless.
            Some(Err(ReadError::ParseError(error))) => {
                Err(breach(DefinedCondition::BadFormat, login::shorten(&error.to_string())))
            }
        }
    }

    pub(super) fn take(&mut self, element: StreamElement) -> Result<(), End> {
        let ticket = match &mut self.session.sm {
            Some(sm) if element.is_stanza() => Some(sm.received()),
            _ => None,
        };
        self.take_counted(element, ticket)
    }

    /// As [`Connection::take`] for an element that is counted already or does not count.
    pub(super) fn take_counted(&mut self, element: StreamElement, ticket: Option<Ticket>) -> Result<(), End> {
        match element {
            StreamElement::Iq(iq) => self.take_iq(iq, ticket),
            StreamElement::Message(_) | StreamElement::Presence(_) => {
                self.handled(ticket);
                Ok(())
            }
            StreamElement::Sm(element) => self.take_sm(&element),
            StreamElement::Error(error) => Err(End::Ended(error.0.into())),
            StreamElement::Sasl(_) => Err(breach(
                DefinedCondition::UnsupportedStanzaType,
                "a SASL element in the middle of a session".to_owned(),
            )),
            StreamElement::Unknown(element) => {
                tracing::debug!(name = element.name(), "An unknown element is ignored");
                Ok(())
            }
        }
    }

    fn take_sm(&mut self, element: &SmElement) -> Result<(), End> {
        let out_of_order = |what: &str| breach(DefinedCondition::UnsupportedStanzaType, what.to_owned());
        let Some(sm) = &mut self.session.sm else {
            return Err(out_of_order("stream management without being enabled"));
        };
        match element {
            SmElement::Request(_) => {
                let h = sm.h();
                // One answer serves many questions that were not read yet, so a flood of them does not fill the queue.
                if let Some(StreamElement::Sm(SmElement::Ack(last))) = self.queue.back_mut() {
                    last.h = h;
                } else {
                    self.queue.push_back(StreamElement::Sm(SmElement::Ack(sm::A::new(h))));
                }
                Ok(())
            }
            SmElement::Ack(ack) => sm.acked(ack.h).map(drop).map_err(too_high),
            _ => Err(out_of_order("stream management out of order")),
        }
    }

    fn take_iq(&mut self, iq: Iq, ticket: Option<Ticket>) -> Result<(), End> {
        let (header, payload) = iq.split();
        match payload {
            IqPayload::Result(payload) => self.take_answer(&header, Ok(payload), ticket),
            IqPayload::Error(error) => {
                self.take_answer(&header, Err(IqError::Refused(Box::new(error))), ticket)
            }
            IqPayload::Set(payload) => self.take_asked(header, true, &payload, ticket),
            IqPayload::Get(payload) => self.take_asked(header, false, &payload, ticket),
        }
    }

    fn take_answer(&mut self, header: &IqHeader, answer: Answer, ticket: Option<Ticket>) -> Result<(), End> {
        self.handled(ticket);
        let from_server = self.session.is_from_server(header.from.as_ref());
        if from_server && self.opening.as_ref().is_some_and(|(opening, _)| *opening == header.id) {
            self.opening = None;
            return self.take_opened(answer);
        }
        // Answers nobody waits for: the question was given up, or never asked.
        if let Some(waiting) = self.session.waiting_for(&header.id, header.from.as_ref()) {
            let _ = waiting.send(answer);
        }
        Ok(())
    }

    fn take_opened(&mut self, answer: Answer) -> Result<(), End> {
        let unusable = |reason| breach(DefinedCondition::UndefinedCondition, reason);
        let element = match answer {
            Ok(element) => element,
            Err(IqError::Refused(error)) => return Err(End::Refused(error)),
            Err(error) => return Err(unusable(error.to_string())),
        };
        self.conversation.opened(element).map_err(unusable)?;
        self.session.opened = true;
        (self.online)(true);
        Ok(())
    }

    fn take_asked(
        &mut self,
        header: IqHeader,
        set: bool,
        payload: &Element,
        ticket: Option<Ticket>,
    ) -> Result<(), End> {
        let from_server = self.session.is_from_server(header.from.as_ref());
        if from_server && !set && payload.is("ping", ns::PING) {
            // A repeated id belongs to a request whose answer is under way: the cloud repeats its place as a ping.
            if self.session.recent.contains(&header.id) {
                self.handled(ticket);
                return Ok(());
            }
            let pong = Ping::try_from(payload.clone()).map(drop).map_err(|_| unavailable());
            return self.answer_now(header, pong, ticket);
        }
        let asked = Asked { set, from_server, from: header.from.as_ref(), payload };
        match self.conversation.take(asked) {
            Taken::Refused(error) => self.answer_now(header, Err(error), ticket),
            Taken::Accepting(accepted) => {
                self.accepts.push(accepted.map(move |result| (ticket, answer_iq(header, result))).boxed());
                Ok(())
            }
            Taken::Answering(answer) => {
                self.handled(ticket);
                if self.session.recent.insert(&header.id) {
                    self.answer_later(header, answer());
                }
                Ok(())
            }
        }
    }

    fn answer_later(&mut self, header: IqHeader, answer: futures_util::future::BoxFuture<'static, Element>) {
        let (session, replies) = (self.session.number, self.reply_sender.clone());
        let header = IqHeader { from: None, to: header.from, id: header.id };
        tokio::spawn(async move {
            let payload = answer.await;
            // Fails only when the agent stops.
            let _ = replies.send(RequestReply { session, header, payload }).await;
        });
    }

    fn answer_now(
        &mut self,
        header: IqHeader,
        answer: Result<(), Box<StanzaError>>,
        ticket: Option<Ticket>,
    ) -> Result<(), End> {
        self.handled(ticket);
        self.send_iq(answer_iq(header, answer))
    }
}

fn answer_iq(header: IqHeader, answer: Result<(), Box<StanzaError>>) -> Iq {
    let header = IqHeader { from: None, to: header.from, id: header.id };
    header.assemble(match answer {
        Ok(()) => IqPayload::Result(None),
        Err(error) => IqPayload::Error(*error),
    })
}

/// The server breaks the rules; we say so with a stream error and begin anew.
pub(super) fn breach(condition: DefinedCondition, reason: String) -> End {
    let tell = StreamError::new(condition, "en", "the agent cannot follow this stream");
    End::Broken(Box::new(Breach { reason, tell }))
}

/// What a failed read says about the server.
fn fault_in(error: &io::Error) -> DefinedCondition {
    use xso::exports::rxml;
    let Some(inner) = error.get_ref() else { return DefinedCondition::UndefinedCondition };
    if inner.is::<OverLimit>() {
        return DefinedCondition::PolicyViolation;
    }
    match inner.downcast_ref::<rxml::Error>() {
        // What `<!` begins besides comments and CDATA is a document type; the parser says so only in words.
        Some(rxml::Error::RestrictedXml(_))
        | Some(rxml::Error::InvalidSyntax("malformed cdata or comment section start")) => {
            DefinedCondition::RestrictedXml
        }
        Some(_) => DefinedCondition::NotWellFormed,
        None => DefinedCondition::BadFormat,
    }
}

pub(super) fn too_high(error: SmError) -> End {
    let SmError::HandledCountTooHigh { h, sent } = error else {
        return breach(DefinedCondition::UndefinedCondition, error.to_string());
    };
    let tell = sm::HandledCountTooHigh { h, send_count: sent }.into();
    End::Broken(Box::new(Breach { reason: error.to_string(), tell }))
}
