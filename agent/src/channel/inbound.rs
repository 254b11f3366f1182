//! What the cloud sends: counted, understood, given to whom it concerns, answered.

use std::io;

use causeway_protocol::channel::payload::{Action, Configure, Payload, Request, Welcome};
use causeway_protocol::channel::sm::{SmError, Ticket};
use causeway_protocol::channel::{SmElement, StreamElement, ns};
use futures_util::FutureExt;
use minidom::Element;
use tokio_xmpp::xmlstream::ReadError;
use xmpp_parsers::iq::{Iq, IqHeader, IqPayload};
use xmpp_parsers::ping::Ping;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use super::driver::{Connection, End, RequestReply};
use super::{Answer, IqError, login, stanza_error};

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
                io::ErrorKind::InvalidData => Err(End::Broken(error.to_string())),
                _ => Err(End::Cut(error.to_string())),
            },
            // Whether it was a stanza and counts is unknowable now, so the counters are worthless.
            Some(Err(ReadError::ParseError(error))) => Err(End::Broken(login::shorten(&error.to_string()))),
        }
    }

    pub(super) fn take(&mut self, element: StreamElement) -> Result<(), End> {
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
}

fn answer_iq(header: IqHeader, answer: Result<(), Box<StanzaError>>) -> Iq {
    let header = IqHeader { from: None, to: header.from, id: header.id };
    header.assemble(match answer {
        Ok(()) => IqPayload::Result(None),
        Err(error) => IqPayload::Error(*error),
    })
}

pub(super) fn too_high(error: SmError) -> End {
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
