//! A search that is being answered: a cursor over what was found, and what is sent after the last entry.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::time::Instant;

use super::fault::Twist;
use super::persist::Watch;
use super::{Call, Session};
use crate::ber;
use crate::controls::{self, oid};
use crate::dit::{EntryId, LdapFailure, ResultCode, Selection, SyncState};
use crate::limits::{ENTRIES_PER_TURN_MAX, WRITE_BATCH_BYTES};
use crate::message::{self, ResponseControl};

/// What is sent, in order.
pub(super) enum Items {
    /// `ids[next..end]`.
    Entries { ids: Arc<Vec<EntryId>>, end: usize },
    /// Bodies that are already encoded.
    Bodies(Vec<Bytes>),
    /// Entries with a Sync State control each.
    Sync(Vec<SyncItem>),
}

pub(super) enum SyncItem {
    Entry(EntryId, SyncState, [u8; 16]),
    Gone { dn: String, uuid: [u8; 16] },
}

impl Items {
    fn end(&self) -> usize {
        match self {
            Items::Entries { end, .. } => *end,
            Items::Bodies(bodies) => bodies.len(),
            Items::Sync(items) => items.len(),
        }
    }
}

/// What follows the last item.
pub(super) enum Tail {
    /// SearchResultDone. Intermediate Sync Info messages come before it.
    Done { failure: Option<LdapFailure>, sync_info: Vec<Vec<u8>>, controls: Vec<ResponseControl> },
    /// The search stays and reports changes.
    Watch { sync_info: Vec<Vec<u8>>, watch: Box<Watch> },
}

impl Tail {
    pub(super) fn done(failure: Option<LdapFailure>, controls: Vec<ResponseControl>) -> Self {
        Tail::Done { failure, sync_info: Vec::new(), controls }
    }
}

pub(super) struct Run {
    pub(super) call: Call,
    pub(super) items: Items,
    pub(super) next: usize,
    pub(super) selection: Arc<Selection>,
    /// Continuation references without scheme (`host/DN`).
    pub(super) references: Vec<String>,
    pub(super) tail: Tail,
    pub(super) twist: Twist,
    /// On the mock's clock.
    pub(super) deadline_ms: Option<i64>,
    pub(super) not_before: Option<Instant>,
    pub(super) sent: usize,
    /// The cookie of the Sync State control of the last item.
    pub(super) sync_cookie: Option<Vec<u8>>,
}

/// Whether a search wants another turn.
pub(super) enum Turn {
    Again,
    Done,
}

impl Run {
    pub(super) fn new(call: Call, items: Items, selection: Arc<Selection>, tail: Tail) -> Self {
        Self {
            call,
            items,
            next: 0,
            selection,
            references: Vec::new(),
            tail,
            twist: Twist::default(),
            deadline_ms: None,
            not_before: None,
            sent: 0,
            sync_cookie: None,
        }
    }

    pub(super) fn id(&self) -> i32 {
        self.call.id
    }

    pub(super) fn is_due(&self) -> bool {
        self.not_before.is_none_or(|at| at <= Instant::now())
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.not_before
    }
}

impl Session {
    /// Appends entries until the batch is full, the turn is over or the search is answered.
    pub(super) fn advance(&mut self, run: &mut Run) -> Turn {
        run.not_before = None;
        if run.deadline_ms.is_some_and(|at| self.shared.cx.clock.now_ms() >= at) {
            run.next = run.items.end();
            let failure = LdapFailure::new(ResultCode::TIME_LIMIT_EXCEEDED, "");
            run.tail = Tail::done(Some(failure), Vec::new());
        }
        for _ in 0..ENTRIES_PER_TURN_MAX {
            if run.next >= run.items.end() {
                self.complete(run);
                return Turn::Done;
            }
            run.sent += usize::from(self.put_item(run));
            run.next += 1;
            if run.twist.close_after_entries.is_some_and(|after| run.sent >= after) {
                self.note(&run.call, "closed mid-page");
                self.running.clear();
                self.closing = true;
                return Turn::Done;
            }
            if let Some(pause) = run.twist.pause_per_entry {
                run.not_before = Some(Instant::now() + pause);
                return Turn::Again;
            }
            if self.wire.pending() >= WRITE_BATCH_BYTES {
                break;
            }
        }
        Turn::Again
    }

    fn put_item(&mut self, run: &Run) -> bool {
        let replica = &self.replica;
        let out = self.wire.out();
        match &run.items {
            Items::Entries { ids, .. } => message::put_entry(out, run.call.id, &[], |out| {
                replica.encode_entry(ids[run.next], &run.selection, out)
            }),
            Items::Bodies(bodies) => {
                message::put_entry(out, run.call.id, &[], message::copy_body(&bodies[run.next]))
            }
            Items::Sync(items) => {
                let cookie = run.sync_cookie.as_deref().filter(|_| run.next + 1 == items.len());
                match &items[run.next] {
                    SyncItem::Entry(id, state, uuid) => {
                        let control = controls::sync_state(*state, uuid, cookie);
                        message::put_entry(out, run.call.id, &[control], |out| {
                            replica.encode_entry(*id, &run.selection, out)
                        })
                    }
                    SyncItem::Gone { dn, uuid } => {
                        let control = controls::sync_state(SyncState::Delete, uuid, cookie);
                        message::put_entry(out, run.call.id, &[control], |out| put_bare_entry(out, dn))
                    }
                }
            }
        }
    }

    fn complete(&mut self, run: &mut Run) {
        let scheme = if self.wire.is_tls() { "ldaps" } else { "ldap" };
        for reference in std::mem::take(&mut run.references) {
            let uri = format!("{scheme}://{reference}");
            message::put_reference(self.wire.out(), run.call.id, &[], &uri);
        }
        if let Value::Object(detail) = &mut run.call.detail {
            detail.insert("entries".to_owned(), run.sent.into());
        }
        let tail = std::mem::replace(&mut run.tail, Tail::done(None, Vec::new()));
        match tail {
            Tail::Done { failure, sync_info, controls } => {
                self.put_sync_info(run.call.id, &sync_info);
                self.finish(&run.call, failure.as_ref(), &controls);
            }
            Tail::Watch { sync_info, watch } => {
                self.put_sync_info(run.call.id, &sync_info);
                self.watch(*watch);
            }
        }
    }

    fn put_sync_info(&mut self, id: i32, values: &[Vec<u8>]) {
        for value in values {
            message::put_intermediate(self.wire.out(), id, oid::SYNC_INFO, value);
        }
    }
}

/// An entry of which only the name is told.
pub(super) fn put_bare_entry(out: &mut BytesMut, dn: &str) -> bool {
    ber::put_octets(out, dn.as_bytes());
    ber::constructed(out, ber::SEQUENCE, |_| {});
    true
}
