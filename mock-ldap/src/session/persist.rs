//! Searches that stay: persistent search (draft-ietf-ldapext-psearch-03), AD change notification (control 528) and the
//! persist stage of content synchronization (RFC 4533 section 3.4).

use std::sync::Arc;

use super::run::{Items, Run, SyncItem, Tail, put_bare_entry};
use super::search::{Refusal, unwilling};
use super::{Call, Session};
use crate::controls::{self, Controls};
use crate::dit::{
    Change, ChangeKind, LdapFailure, ResultCode, Scope, SearchPlan, Selection, SyncPhase, SyncRequest, View,
};
use crate::filter::Filter;
use crate::limits::{WATCHES_PER_CONNECTION_MAX, WRITE_BATCH_BYTES};
use crate::message::{self, SearchRequest};

/// How changes are told.
pub(super) enum WatchKind {
    /// Bit set of change kinds, and whether the entry change notification control goes with each entry.
    Persistent {
        change_types: u8,
        return_ecs: bool,
    },
    Notification,
    Sync {
        cookie: Vec<u8>,
    },
}

/// A search that reports changes until it is abandoned.
pub(super) struct Watch {
    pub(super) call: Call,
    pub(super) kind: WatchKind,
    pub(super) base: Vec<u8>,
    pub(super) scope: Scope,
    pub(super) filter: Filter,
    pub(super) selection: Arc<Selection>,
    /// Number of the last change seen.
    pub(super) since: u64,
    pub(super) show_deleted: bool,
    pub(super) view: View,
}

impl Watch {
    pub(super) fn id(&self) -> i32 {
        self.call.id
    }
}

impl Session {
    /// Registers a finished refresh or a fresh notification.
    pub(super) fn watch(&mut self, watch: Watch) {
        if self.changes.is_none() {
            self.changes = Some(self.replica.subscribe());
        }
        self.note(&watch.call, "watching");
        self.watches.push(watch);
    }

    pub(super) fn watching_search(
        &mut self,
        call: &Call,
        search: &SearchRequest<'_>,
        controls: &Controls<'_>,
    ) -> Result<Run, Refusal> {
        if controls.paged.is_some() || controls.vlv.is_some() || controls.sort.is_some() {
            return Err(unwilling(""));
        }
        self.check_watch_limit(controls.notification)?;
        if controls.notification {
            self.check_notification(search)?;
        }
        let selection = self.selection(search, controls);
        let matches = self.replica.search(&SearchPlan {
            base: search.base,
            scope: search.scope,
            filter: &search.filter,
            view: self.front.view,
            who: &self.who,
            show_deleted: controls.show_deleted,
            domain_scope: true,
            phantom_root: false,
            attribute_scope: None,
            count_max: usize::MAX,
        })?;
        let kind = match controls.persistent {
            Some(asked) => {
                WatchKind::Persistent { change_types: asked.change_types, return_ecs: asked.return_ecs }
            }
            None => WatchKind::Notification,
        };
        let wants_entries = controls.persistent.is_some_and(|asked| !asked.changes_only);
        let (since, ids) = (matches.change_number, if wants_entries { matches.ids } else { Vec::new() });
        let watch = Watch {
            call: call.clone(),
            kind,
            base: search.base.to_vec(),
            scope: search.scope,
            filter: search.filter.clone(),
            selection: Arc::clone(&selection),
            since,
            show_deleted: controls.show_deleted || controls.notification,
            view: self.front.view,
        };
        let end = ids.len();
        let tail = Tail::Watch { sync_info: Vec::new(), watch: Box::new(watch) };
        Ok(Run::new(call.clone(), Items::Entries { ids: Arc::new(ids), end }, selection, tail))
    }

    pub(super) fn check_watch_limit(&self, notification: bool) -> Result<(), Refusal> {
        let starting = self.running.iter().filter_map(|run| match &run.tail {
            Tail::Watch { watch, .. } => Some(&**watch),
            Tail::Done { .. } => None,
        });
        let watches: Vec<&Watch> = self.watches.iter().chain(starting).collect();
        let notifications =
            watches.iter().filter(|watch| matches!(watch.kind, WatchKind::Notification)).count();
        let limit = self.shared.effective.load().limits.notifications_max;
        let over = notification && limit > 0 && notifications >= limit;
        if over || watches.len() >= WATCHES_PER_CONNECTION_MAX {
            return Err(
                LdapFailure::new(ResultCode::ADMIN_LIMIT_EXCEEDED, "too many searches that stay").into()
            );
        }
        Ok(())
    }

    /// Tells the watching searches what changed. Stops when the write buffer holds a batch and goes on from there.
    pub(super) fn report_changes(&mut self) {
        let Some(receiver) = &mut self.changes else { return };
        let last = *receiver.borrow_and_update();
        let mut at = 0;
        while at < self.watches.len() && self.wire.pending() < WRITE_BATCH_BYTES {
            if self.watches[at].since >= last {
                at += 1;
                continue;
            }
            let watch = self.watches.remove(at);
            match &watch.kind {
                WatchKind::Sync { cookie } => {
                    let cookie = cookie.clone();
                    self.resync(watch, &cookie);
                }
                _ => {
                    if let Some(watch) = self.report_entries(watch, last) {
                        self.watches.insert(at, watch);
                        at += 1;
                    }
                }
            }
        }
    }

    fn changes_for(&self, watch: &Watch) -> Result<crate::dit::Changes, LdapFailure> {
        self.replica.changes_since(
            watch.since,
            &SearchPlan {
                base: &watch.base,
                scope: watch.scope,
                filter: &watch.filter,
                view: watch.view,
                who: &self.who,
                show_deleted: watch.show_deleted,
                domain_scope: true,
                phantom_root: false,
                attribute_scope: None,
                count_max: usize::MAX,
            },
        )
    }

    /// `None` when the search ended with an error.
    fn report_entries(&mut self, mut watch: Watch, last: u64) -> Option<Watch> {
        let changes = match self.changes_for(&watch) {
            Ok(changes) => changes,
            Err(failure) => {
                self.finish(&watch.call, Some(&failure), &[]);
                return None;
            }
        };
        if changes.gap {
            let failure =
                LdapFailure::new(ResultCode::OTHER, "changes were made that are no longer remembered");
            self.finish(&watch.call, Some(&failure), &[]);
            return None;
        }
        for change in &changes.changes {
            if self.wire.pending() >= WRITE_BATCH_BYTES {
                return Some(watch);
            }
            self.put_change(&watch, change);
            watch.since = change.number;
        }
        watch.since = changes.last.max(last);
        Some(watch)
    }

    fn put_change(&mut self, watch: &Watch, change: &Change) {
        let bit = match change.kind {
            ChangeKind::Add => 1,
            ChangeKind::Delete => 2,
            ChangeKind::Modify => 4,
            ChangeKind::ModifyDn => 8,
        };
        let notices = match watch.kind {
            WatchKind::Persistent { change_types, .. } if change_types & bit == 0 => return,
            WatchKind::Persistent { return_ecs: true, .. } => {
                vec![controls::entry_change(bit, change.previous_dn.as_deref(), Some(change.number))]
            }
            _ => Vec::new(),
        };
        if !change.matches {
            return;
        }
        let replica = &self.replica;
        let out = self.wire.out();
        let sent = message::put_entry(out, watch.call.id, &notices, |out| {
            replica.encode_entry(change.id, &watch.selection, out)
        });
        if !sent {
            message::put_entry(out, watch.call.id, &notices, |out| put_bare_entry(out, &change.dn));
        }
    }

    /// One more round of a content synchronization in its persist stage.
    fn resync(&mut self, mut watch: Watch, cookie: &[u8]) {
        let batch = self.replica.syncrepl(&SyncRequest {
            who: &self.who,
            base: &watch.base,
            scope: watch.scope,
            filter: &watch.filter,
            cookie: Some(cookie),
            persist: true,
            reload: false,
        });
        let batch = match batch {
            Ok(batch) => batch,
            Err(failure) => return self.finish(&watch.call, Some(&failure), &[]),
        };
        let SyncPhase::Delete { deleted } = batch.phase else {
            let failure =
                LdapFailure::new(ResultCode::SYNC_REFRESH_REQUIRED, "history is no longer complete");
            return self.finish(&watch.call, Some(&failure), &[]);
        };
        let names = self.changes_for(&watch).map(|changes| changes.changes).unwrap_or_default();
        let dn_of = |uuid: &[u8; 16]| {
            let change = names.iter().rev().find(|change| change.uuid == *uuid);
            change
                .map(|change| change.previous_dn.clone().unwrap_or_else(|| change.dn.clone()))
                .unwrap_or_default()
        };
        let mut items: Vec<SyncItem> =
            deleted.iter().map(|uuid| SyncItem::Gone { dn: dn_of(uuid), uuid: *uuid }).collect();
        items.extend(batch.entries.into_iter().map(|(id, state, uuid)| SyncItem::Entry(id, state, uuid)));
        watch.since = batch.change_number;
        watch.kind = WatchKind::Sync { cookie: batch.cookie.clone() };
        if items.is_empty() {
            return self.watches.push(watch);
        }
        let selection = Arc::clone(&watch.selection);
        let call = watch.call.clone();
        let tail = Tail::Watch { sync_info: Vec::new(), watch: Box::new(watch) };
        let mut run = Run::new(call, Items::Sync(items), selection, tail);
        run.sync_cookie = Some(batch.cookie);
        self.running.push_back(run);
    }

    /// MS-ADTS 3.1.1.3.4.1.9: every object of the scope, and nothing narrower.
    fn check_notification(&self, search: &SearchRequest<'_>) -> Result<(), Refusal> {
        let everything = matches!(&search.filter, Filter::Present(attr) if attr == "objectclass");
        if everything && search.scope != Scope::Subordinate {
            return Ok(());
        }
        Err(unwilling(&self.directory.personality().text("notification_filter", &[])))
    }
}
