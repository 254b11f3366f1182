//! What of a session outlives its connections: counters, unanswered iqs, the name to resume by.

use std::collections::{HashMap, HashSet, VecDeque};

use causeway_protocol::channel::StreamElement;
use causeway_protocol::channel::sm::StreamManagement;
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
    /// The cloud's name on the stream.
    pub(crate) domain: String,
    /// Distinguishes sessions, so that answers to an older one's requests are dropped.
    pub(crate) number: u64,
    pub(super) waiting: HashMap<String, oneshot::Sender<Answer>>,
    pub(super) next_id: u64,
    pub(super) welcomed: bool,
    pub(super) recent: Recent,
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
pub(super) struct Recent {
    order: VecDeque<String>,
    pub(super) ids: HashSet<String>,
}

impl Recent {
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
