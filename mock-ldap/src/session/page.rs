//! Result sets of paged searches (RFC 2696), kept per connection: a cookie is worth nothing anywhere else.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::controls::oid;
use crate::dit::EntryId;
use crate::message::Request;

/// Numbers cookies over the whole process, so that one taken to another connection is never valid there.
static NEXT_COOKIE: AtomicU64 = AtomicU64::new(1);

/// What is left of a paged search.
#[derive(Debug, Clone)]
pub(super) struct PageSet {
    pub(super) ids: Arc<Vec<EntryId>>,
    pub(super) next: usize,
    /// The last page ends with sizeLimitExceeded.
    pub(super) truncated: bool,
    pub(super) query: QueryPrint,
    cookie: [u8; 8],
}

impl PageSet {
    /// A result set of which nothing was sent yet.
    pub(super) fn first(ids: Vec<EntryId>, truncated: bool, query: QueryPrint) -> Self {
        Self { ids: Arc::new(ids), next: 0, truncated, query, cookie: [0; 8] }
    }
}

/// Stands for everything of a request that the following pages must repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueryPrint(u64);

impl QueryPrint {
    /// All but message id, page size and cookie (RFC 2696 section 3).
    pub(super) fn of(request: &Request<'_>, encoded: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        encoded.hash(&mut hasher);
        for control in request.controls.iter().filter(|control| control.oid != oid::PAGED.as_bytes()) {
            (control.oid, control.value).hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

/// Why a cookie is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CookieError {
    Unknown,
    OtherQuery,
}

#[derive(Debug, Default)]
pub(super) struct PageSets {
    /// Oldest first.
    sets: Vec<PageSet>,
}

impl PageSets {
    /// Takes the set out; a page that is not the last puts it back under a new cookie.
    pub(super) fn take(&mut self, cookie: &[u8], query: QueryPrint) -> Result<PageSet, CookieError> {
        let at = self.sets.iter().position(|set| set.cookie == cookie).ok_or(CookieError::Unknown)?;
        if self.sets[at].query != query {
            return Err(CookieError::OtherQuery);
        }
        Ok(self.sets.remove(at))
    }

    /// Keeps what is left and returns its cookie. Beyond `sets_max` the oldest set is given up.
    pub(super) fn keep(
        &mut self,
        ids: Arc<Vec<EntryId>>,
        next: usize,
        truncated: bool,
        query: QueryPrint,
        sets_max: usize,
    ) -> [u8; 8] {
        let cookie = NEXT_COOKIE.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        while self.sets.len() >= sets_max.max(1) {
            self.sets.remove(0);
        }
        self.sets.push(PageSet { ids, next, truncated, query, cookie });
        cookie
    }

    /// Gives a set up (page size 0 with a cookie).
    pub(super) fn release(&mut self, cookie: &[u8]) {
        self.sets.retain(|set| set.cookie != cookie);
    }

    pub(super) fn clear(&mut self) {
        self.sets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_works_once_and_only_for_its_query() {
        let mut sets = PageSets::default();
        let (mine, other) = (QueryPrint(1), QueryPrint(2));
        let cookie = sets.keep(Arc::new(Vec::new()), 3, false, mine, 2);
        assert_eq!(sets.take(&cookie, other).err(), Some(CookieError::OtherQuery));
        assert_eq!(sets.take(&cookie, mine).map(|set| set.next).ok(), Some(3));
        assert_eq!(sets.take(&cookie, mine).err(), Some(CookieError::Unknown));
    }

    #[test]
    fn the_oldest_set_is_given_up_first() {
        let mut sets = PageSets::default();
        let cookies: Vec<_> =
            (0..3).map(|at| sets.keep(Arc::new(Vec::new()), at, false, QueryPrint(0), 2)).collect();
        assert!(sets.take(&cookies[0], QueryPrint(0)).is_err());
        assert!(sets.take(&cookies[2], QueryPrint(0)).is_ok());
    }
}
