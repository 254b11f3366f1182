//! What the protocol needs to remember of a phone between two requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use causeway_protocol::wbxml::Element;

use super::limits::SESSIONS_MAX;
use crate::world::{Organisation, PartnershipId};

/// One phone's part.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    pub(super) hierarchy: Option<Hierarchy>,
    /// The last Sync, which an empty one repeats.
    pub(super) sync: Option<Element>,
    /// Heartbeat and folders of the last Ping, which an empty one repeats.
    pub(super) ping: Option<(u32, Vec<String>)>,
}

/// Which folders a phone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) key: u32,
    /// Whether it knows the inbox of a held phone instead of all folders.
    pub(super) held: bool,
    /// The key before and what it stood for, in case the answer never arrived.
    pub(super) before: Option<(u32, bool)>,
}

#[derive(Default)]
pub(super) struct Sessions(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Whose partnerships the numbers name.
    organisation: Weak<Organisation>,
    phones: HashMap<PartnershipId, Session>,
}

impl Sessions {
    /// A copy of what is remembered.
    pub(super) fn get(&self, organisation: &Arc<Organisation>, id: PartnershipId) -> Session {
        self.lock(organisation).phones.get(&id).cloned().unwrap_or_default()
    }

    /// Changes what is remembered.
    pub(super) fn change(
        &self,
        organisation: &Arc<Organisation>,
        id: PartnershipId,
        change: impl FnOnce(&mut Session),
    ) {
        let mut inner = self.lock(organisation);
        if inner.phones.len() >= SESSIONS_MAX && !inner.phones.contains_key(&id) {
            let any = inner.phones.keys().next().copied();
            any.and_then(|any| inner.phones.remove(&any));
        }
        change(inner.phones.entry(id).or_default());
    }

    /// Locks, and begins anew when another organisation has taken the place of the one known.
    fn lock(&self, organisation: &Arc<Organisation>) -> MutexGuard<'_, Inner> {
        // Every critical section leaves the map whole even if a later step of it panicked.
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.organisation.as_ptr() != Arc::as_ptr(organisation) {
            inner.phones.clear();
            inner.organisation = Arc::downgrade(organisation);
        }
        inner
    }
}
