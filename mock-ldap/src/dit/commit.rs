//! Applying one change to a server's copy: the only place where nodes, stamps, USNs and the log move together.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::account::StoredPassword;
use super::csn::Csn;
use super::entry::Entry;
use super::log::{Gone, LinkChange, Record};
use super::replica::Replica;
use super::schema::AttrId;
use super::stamps::Part;
use super::tree::{Node, Tree};
use super::types::{ChangeKind, EntryId};

/// What one change does to one object.
#[derive(Debug)]
pub(crate) struct Effect {
    pub(crate) id: EntryId,
    pub(crate) kind: ChangeKind,
    /// The object afterwards; `None` when it is gone without a trace.
    pub(crate) entry: Option<Arc<Entry>>,
    /// Attributes whose stored values changed.
    pub(crate) attributes: Vec<AttrId>,
    pub(crate) links: Vec<LinkChange>,
    pub(crate) password: Option<StoredPassword>,
    pub(crate) previous_dn: Option<String>,
    pub(crate) changelog: Option<super::changelog::Body>,
    /// What another server deleted, when it never was here.
    pub(crate) gone: Option<Arc<Gone>>,
}

impl Effect {
    pub(crate) fn new(id: EntryId, kind: ChangeKind, entry: Option<Arc<Entry>>) -> Self {
        Self {
            id,
            kind,
            entry,
            attributes: Vec::new(),
            links: Vec::new(),
            password: None,
            previous_dn: None,
            changelog: None,
            gone: None,
        }
    }
}

/// When and where a change was made. `origin_usn` zero: here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Provenance {
    pub(crate) csn: Csn,
    pub(crate) origin_usn: u64,
    pub(crate) now_ms: i64,
}

impl Tree {
    /// Applies a change and logs it. Returns its USN here.
    pub(crate) fn apply(&mut self, effect: Effect, from: Provenance) -> u64 {
        let id = effect.id;
        let usn = self.log.last_usn() + 1;
        self.stamp(&effect, from.csn);
        let mut gone = effect.gone;
        match (effect.entry, self.node(id).map(|node| node.entry.clone())) {
            (Some(entry), Some(old)) => {
                if entry.deleted && !old.deleted {
                    self.drop_links(id);
                    self.tombstones.push_back((from.now_ms, id));
                }
                self.replace(id, entry);
            }
            (Some(entry), None) => {
                if entry.deleted {
                    self.tombstones.push_back((from.now_ms, id));
                }
                let node = Node {
                    entry,
                    usn_created: usn,
                    usn_changed: usn,
                    changed_ms: from.now_ms,
                    csn: from.csn,
                    links: None,
                    container: None,
                };
                self.insert(id, node);
            }
            (None, Some(old)) => {
                gone = Some(Arc::new(Gone { dn: self.dn(id), entry: old }));
                self.remove(id);
                self.passwords.remove(&id);
            }
            (None, None) => {}
        }
        for change in &effect.links {
            if change.added {
                self.link(id, change.attribute, change.target);
            } else {
                self.unlink(id, change.attribute, change.target);
            }
        }
        if let Some(password) = effect.password {
            self.passwords.insert(id, password);
        }
        if let Some(node) = self.node_mut(id) {
            node.usn_changed = usn;
            node.changed_ms = from.now_ms;
            node.csn = node.csn.max(from.csn);
        }
        self.log.push(Record {
            usn: 0,
            id,
            kind: effect.kind,
            csn: from.csn,
            origin_usn: from.origin_usn,
            attributes: effect.attributes.into(),
            links: effect.links.into(),
            previous_dn: effect.previous_dn.map(Into::into),
            gone,
            changelog: effect.changelog.map(Arc::new),
        })
    }

    fn stamp(&mut self, effect: &Effect, csn: Csn) {
        let id = effect.id;
        for &attribute in &effect.attributes {
            self.stamps.advance(id, Part::Attribute(attribute), csn);
        }
        for change in &effect.links {
            self.stamps.advance(id, Part::Link(change.attribute, change.target), csn);
        }
        let part = match effect.kind {
            ChangeKind::Modify => return,
            ChangeKind::ModifyDn => Part::Name,
            ChangeKind::Add | ChangeKind::Delete => Part::Existence,
        };
        self.stamps.advance(id, part, csn);
    }
}

impl Replica {
    /// Applies a change made on this server. The caller holds the tree.
    pub(crate) fn apply_own(&self, tree: &mut Tree, effect: Effect) -> u64 {
        let csn = self.shared.stamp(self.origin.load(Ordering::Relaxed));
        let usn = tree.apply(effect, Provenance { csn, origin_usn: 0, now_ms: csn.at_ms });
        self.last_own_usn.store(usn, Ordering::Release);
        usn
    }

    /// After the tree is released: wakes watchers and hands the change to servers without lag.
    pub(crate) fn announce(&self, usn: u64) {
        self.changed.send_modify(|last| *last = (*last).max(usn));
        self.push_to_peers();
    }

    /// Attribute values the server itself maintains (lock times, logon stamps); not subject to any check.
    pub(crate) fn write_by_server(&self, id: EntryId, values: Vec<(AttrId, Vec<Vec<u8>>)>) {
        let usn = {
            let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
            let Some(node) = tree.node(id) else { return };
            let mut draft = node.entry.to_draft();
            let attributes = values.iter().map(|(attribute, _)| *attribute).collect();
            values.into_iter().for_each(|(attribute, values)| draft.set(attribute, values));
            let effect =
                Effect { attributes, ..Effect::new(id, ChangeKind::Modify, Some(Arc::new(draft.build()))) };
            self.apply_own(&mut tree, effect)
        };
        self.announce(usn);
    }
}
