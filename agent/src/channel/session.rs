//! What of a session outlives its connections: counters, unanswered iqs, the name to resume by.

use std::collections::{BTreeMap, HashSet, VecDeque};

use causeway_protocol::channel::StreamElement;
use causeway_protocol::channel::sm::StreamManagement;
use causeway_protocol::limits::ELEMENT_MAX_BYTES;
use jid::{FullJid, Jid};
use tokio::sync::oneshot;
use xmpp_parsers::iq::Iq;

use super::{Answer, IqError};
use crate::limits::RECENT_REQUESTS_MAX;

/// What outlives a connection: counters, unanswered iqs, the name to resume by.
pub(crate) struct Session {
    /// Names the session for a resumption.
    pub(crate) resume_id: Option<String>,
    /// Counters; none when the cloud has no stream management.
    pub(crate) sm: Option<StreamManagement<Iq>>,
    /// Elements that came before counting began.
    pub(crate) early: Vec<StreamElement>,
    /// Our own address in it.
    jid: FullJid,
    /// The largest first-level element the server takes (XEP-0478).
    pub(crate) peer_max_bytes: usize,
    /// Distinguishes sessions, so that answers to an older one's requests are dropped.
    pub(crate) number: u64,
    /// By number, so that whoever waits is told in the order of asking.
    pub(super) waiting: BTreeMap<u64, Waiting>,
    pub(super) next_id: u64,
    /// The opening was answered, or there is none.
    pub(super) opened: bool,
    pub(super) recent: Recent,
}

/// Whoever waits for the answer to an iq.
pub(super) struct Waiting {
    /// Whom it was sent to; `None` for our server.
    pub(super) to: Option<Jid>,
    pub(super) answer: oneshot::Sender<Answer>,
}

impl Session {
    pub(crate) fn new(number: u64, jid: FullJid) -> Self {
        Self {
            resume_id: None,
            sm: None,
            early: Vec::new(),
            jid,
            peer_max_bytes: ELEMENT_MAX_BYTES,
            number,
            waiting: BTreeMap::new(),
            next_id: 0,
            opened: false,
            recent: Recent::default(),
        }
    }

    /// The session is gone for good.
    pub(crate) fn give_up(self) {
        for (_, waiting) in self.waiting {
            let _ = waiting.answer.send(Err(IqError::Lost));
        }
    }

    /// Whether a stanza comes from our own server: from itself, or on behalf of our own account (RFC 6120 §8.1.2.1).
    /// Everybody else whom the server lets through is a stranger.
    pub(super) fn is_from_server(&self, from: Option<&Jid>) -> bool {
        from.is_none_or(|from| {
            from.resource().is_none()
                && from.domain() == self.jid.domain()
                && from.node().is_none_or(|node| self.jid.node().is_some_and(|own| own == node))
        })
    }

    /// Takes out whoever waits for the answer with this id, if it comes from where the question went (RFC 6120
    /// §8.1.2.1); a stranger's guess of an id answers nothing.
    pub(super) fn waiting_for(&mut self, id: &str, from: Option<&Jid>) -> Option<oneshot::Sender<Answer>> {
        let number = number_in(id)?;
        let expected = match &self.waiting.get(&number)?.to {
            Some(to) => from == Some(to),
            None => self.is_from_server(from) || from.is_some_and(|from| *from == self.jid),
        };
        expected.then(|| self.waiting.remove(&number).map(|waiting| waiting.answer)).flatten()
    }
}

/// Ids of requests already taken. After a resumption the cloud repeats stanzas that were not acknowledged, and a
/// password must not be tried twice.
#[derive(Default)]
pub(super) struct Recent {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Recent {
    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// False when the id is known already.
    pub(super) fn insert(&mut self, id: &str) -> bool {
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

/// Our iq ids: a prefix and the number.
pub(super) fn iq_id(number: u64) -> String {
    format!("a{number}")
}

/// The number in one of our iq ids.
fn number_in(id: &str) -> Option<u64> {
    id.strip_prefix('a')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(1, FullJid::new("a1@cloud.test/agent").unwrap())
    }

    fn jid(text: &str) -> Jid {
        Jid::new(text).unwrap()
    }

    #[test]
    fn the_server_is_its_domain_and_our_own_account() {
        let session = session();
        assert!(session.is_from_server(None));
        for own in ["cloud.test", "a1@cloud.test"] {
            assert!(session.is_from_server(Some(&jid(own))), "{own}");
        }
        for other in ["a2@cloud.test", "a1@cloud.test/other", "cloud.test/x", "evil.test", "a1@evil.test"] {
            assert!(!session.is_from_server(Some(&jid(other))), "{other}");
        }
    }

    #[test]
    fn an_answer_counts_only_from_where_the_question_went() {
        let mut session = session();
        let (answer, _wait) = oneshot::channel();
        session.waiting.insert(1, Waiting { to: None, answer });
        let (answer, _wait) = oneshot::channel();
        session.waiting.insert(2, Waiting { to: Some(jid("b@cloud.test/x")), answer });
        assert!(session.waiting_for("a1", Some(&jid("mallory@cloud.test/x"))).is_none());
        assert!(session.waiting_for("a2", None).is_none());
        assert!(session.waiting_for("1", None).is_none());
        assert!(session.waiting_for("a1", Some(&jid("a1@cloud.test/agent"))).is_some());
        assert!(session.waiting_for("a2", Some(&jid("b@cloud.test/x"))).is_some());
        assert!(session.waiting_for("a1", None).is_none(), "answered once");
    }
}
