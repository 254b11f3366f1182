//! The conversation with the cloud: hello and welcome, actions, configs, requests.

use std::sync::Arc;

use causeway_protocol::channel::payload::{Action, Configure, Payload, PayloadError, Request, Welcome};
use futures_util::FutureExt;
use minidom::Element;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use super::conversation::{Asked, Conversation, Taken};
use super::{Orders, login, stanza_error, unavailable};
use crate::chain::Chain;

/// Gives what the cloud says to [`Orders`].
pub struct CloudConversation {
    orders: Arc<dyn Orders>,
}

impl CloudConversation {
    /// For whoever takes the orders.
    pub fn new(orders: Arc<dyn Orders>) -> Self {
        Self { orders }
    }

    fn order(&self, payload: &Element) -> Result<Taken, PayloadError> {
        Ok(if Action::names(payload) {
            Taken::Accepting(self.orders.accept(Action::from_element(payload)?))
        } else if Configure::names(payload) {
            Taken::Accepting(self.orders.configure(Configure::from_element(payload)?))
        } else if Request::names(payload) {
            let (orders, request) = (self.orders.clone(), Request::from_element(payload)?);
            Taken::Answering(Box::new(move || orders.answer(request).map(|reply| reply.to_element()).boxed()))
        } else {
            Taken::Refused(unavailable())
        })
    }
}

impl Conversation for CloudConversation {
    fn opening(&self) -> Option<Element> {
        Some(self.orders.hello().to_element())
    }

    fn opened(&self, answer: Option<Element>) -> Result<(), String> {
        let element = answer.ok_or_else(|| "an empty answer to our hello".to_owned())?;
        let welcome = Welcome::from_element(&element).map_err(|error| Chain(&error).to_string())?;
        self.orders.welcomed(welcome);
        Ok(())
    }

    fn take(&self, asked: Asked<'_>) -> Taken {
        // Only the cloud itself gives orders; whoever else gets a stanza through learns nothing.
        if !asked.from_server || !asked.set {
            return Taken::Refused(unavailable());
        }
        self.order(asked.payload).unwrap_or_else(|error| Taken::Refused(bad_request(&error)))
    }
}

fn bad_request(error: &PayloadError) -> Box<StanzaError> {
    let text = login::shorten(&Chain(error).to_string());
    stanza_error(ErrorType::Modify, DefinedCondition::BadRequest, &text)
}

#[cfg(test)]
mod tests {
    use causeway_protocol::channel::ns;
    use xmpp_parsers::iq::Iq;

    use super::*;

    /// A JSON error repeats what it read, and what it read may hold characters that XML cannot carry.
    #[test]
    fn what_the_parser_says_about_an_order_fits_into_a_stanza() {
        let name = "no\u{1}such\u{fffe}field\u{ffff}\u{7f}";
        let json = format!("{{\"{}\":1}}", name.replace('\u{1}', "\\u0001"));
        let payload =
            Element::builder("action", ns::CMD).append(json.replace(['\u{fffe}', '\u{ffff}'], "")).build();
        let error = Action::from_element(&payload).unwrap_err();
        let error = bad_request(&error);
        let text = error.texts.values().next().unwrap();
        assert!(text.contains("nosuchfield") || text.contains("missing field"), "{text}");

        let shortened = login::shorten(name);
        assert_eq!(shortened, "nosuchfield");
        let error = stanza_error(ErrorType::Modify, DefinedCondition::BadRequest, &shortened);
        let iq = Iq::Error { from: None, to: None, id: "1".into(), error: *error, payload: None };
        let written = xso::to_vec(&iq).unwrap();
        assert_eq!(xso::from_bytes::<Iq>(&written).unwrap().id(), "1");
    }
}
