//! What the cloud sends on a session, kept in a form that can be sent again.

use std::sync::Arc;

use causeway_protocol::channel::payload::{self, Payload as _};
use jid::Jid;
use minidom::Element;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::ping::Ping;

/// One stanza for an agent. It stays in the unacknowledged queue (XEP-0198) until the agent has it.
pub enum Outgoing {
    /// The answer to an iq of the agent; sent again after a resumption, because the agent waits for it.
    Answer(Box<Iq>),
    /// An iq that may be sent again: a config, a ping.
    Ask {
        /// Number of the iq.
        id: u64,
        /// What is asked.
        payload: Box<Element>,
        /// `get` instead of `set`.
        get: bool,
    },
    /// An action. The dispatcher decides about its next delivery, so a resumption does not.
    Action {
        /// Number of the iq.
        id: u64,
        /// The action.
        action: Arc<payload::Action>,
    },
    /// A request. Its body may be a password and nobody waits after a cut, so it is never sent twice.
    Request {
        /// Number of the iq.
        id: u64,
        /// The request.
        request: payload::Request,
    },
}

impl Outgoing {
    /// An XEP-0199 ping.
    pub fn ping(id: u64) -> Self {
        Self::Ask { id, payload: Box::new(Ping.into()), get: true }
    }

    /// The number under which an answer is expected.
    pub fn asks(&self) -> Option<u64> {
        match self {
            Self::Answer(_) => None,
            Self::Ask { id, .. } | Self::Action { id, .. } | Self::Request { id, .. } => Some(*id),
        }
    }

    /// The stanza for its first delivery.
    pub fn to_iq(&self, from: &Jid, to: &Jid) -> Iq {
        match self {
            Self::Answer(iq) => (**iq).clone(),
            Self::Ask { id, payload, get: true } => get(from, to, *id, (**payload).clone()),
            Self::Ask { id, payload, get: false } => set(from, to, *id, (**payload).clone()),
            Self::Action { id, action } => set(from, to, *id, action.to_element()),
            Self::Request { id, request } => set(from, to, *id, request.to_element()),
        }
    }

    /// The stanza for its delivery after a resumption: what must not be repeated becomes a ping, because XEP-0198
    /// counts stanzas and a gap would break both ends' counters.
    pub fn to_repeated_iq(&self, from: &Jid, to: &Jid) -> Iq {
        match self {
            Self::Answer(_) | Self::Ask { .. } => self.to_iq(from, to),
            Self::Action { id, .. } | Self::Request { id, .. } => get(from, to, *id, Ping.into()),
        }
    }

    /// Bytes it keeps in memory, roughly; bounds what detached sessions may hold.
    pub fn weight_bytes(&self) -> usize {
        const FRAME_BYTES: usize = 256;
        FRAME_BYTES
            + match self {
                Self::Answer(iq) => match &**iq {
                    Iq::Result { payload: Some(payload), .. } => payload.text().len(),
                    _ => 0,
                },
                Self::Ask { payload, .. } => payload.text().len(),
                Self::Action { action, .. } => {
                    action.params.to_string().len() + action.target.to_string().len()
                }
                Self::Request { request, .. } => request.body.expose().len(),
            }
    }
}

fn get(from: &Jid, to: &Jid, id: u64, payload: Element) -> Iq {
    Iq::Get { from: Some(from.clone()), to: Some(to.clone()), id: iq_id(id), payload }
}

fn set(from: &Jid, to: &Jid, id: u64, payload: Element) -> Iq {
    Iq::Set { from: Some(from.clone()), to: Some(to.clone()), id: iq_id(id), payload }
}

/// Our iq ids: a prefix that no client of ours uses, and the number.
fn iq_id(id: u64) -> String {
    format!("q{id}")
}

/// The number in one of our iq ids.
pub fn number_in(iq_id: &str) -> Option<u64> {
    iq_id.strip_prefix('q')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use causeway_protocol::Secret;

    #[test]
    fn a_request_is_never_sent_twice() {
        let (from, to) = (Jid::new("cloud.test").unwrap(), Jid::new("a@cloud.test/agent").unwrap());
        let request = payload::Request {
            module: "user_auth".into(),
            request: "authenticate".into(),
            ttl_ms: 1,
            body: Secret::new("hunter2"),
        };
        let outgoing = Outgoing::Request { id: 7, request };
        let first = String::from(&Element::from(outgoing.to_iq(&from, &to)));
        let again = String::from(&Element::from(outgoing.to_repeated_iq(&from, &to)));
        assert!(first.contains("hunter2"), "{first}");
        assert!(
            !again.contains("hunter2") && again.contains("urn:xmpp:ping") && again.contains("q7"),
            "{again}"
        );
        assert_eq!((number_in("q7"), number_in("x7"), number_in("q")), (Some(7), None, None));
    }
}
