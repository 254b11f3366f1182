//! Several servers of one domain: each pulls the changes the others made, after its lag, and merges them attribute by
//! attribute; the later stamp wins, so all servers end up alike whatever the order (MS-ADTS 3.1.1.1.9). What cannot be
//! merged that way (one name twice, no parent left) is settled in `conflict`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::account::StoredPassword;
use super::commit::{Effect, Provenance};
use super::csn::Csn;
use super::entry::Entry;
use super::log::{LinkChange, Record};
use super::replica::Replica;
use super::schema::AttrId;
use super::stamps::Part;
use super::tree::Tree;
use super::types::{ChangeKind, EntryId};

/// What a server knows about its incoming replication.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// `None`: only when told.
    lag_ms: Option<u64>,
    /// Per source server: its USN up to which everything was taken over.
    taken: HashMap<usize, u64>,
}

impl Inbound {
    pub(crate) fn new(lag_ms: Option<u64>) -> Self {
        Self { lag_ms, taken: HashMap::new() }
    }
}

/// One change on its way: the record, and the state its parts had at the source.
struct Parcel {
    record: Record,
    entry: Option<Arc<Entry>>,
    /// Attributes whose value at the source is still the one of this change.
    attributes: Vec<AttrId>,
    /// The name at the source is still the one of this change.
    renamed: bool,
    /// Stamp of the name the object has at the source.
    named: Csn,
    password: Option<StoredPassword>,
}

/// What one pull came to.
struct Pulled {
    /// Last USN here.
    usn: u64,
    /// Conflicts were settled by changes of this server, which the others have to hear of.
    wrote: bool,
}

/// Which changes a pull takes.
#[derive(Clone, Copy)]
struct Horizon {
    /// Made no later than this: the lag.
    until_ms: i64,
    /// Stamped no later than this (milliseconds and count).
    newest: (i64, u32),
}

/// Makes the servers of one directory known to each other.
pub(super) fn introduce(servers: &[Arc<Replica>]) {
    for server in servers {
        let others = servers.iter().filter(|other| other.index != server.index).map(Arc::downgrade).collect();
        // Set once, right here.
        let _ = server.peers.set(others);
        let mut inbound = server.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        for other in servers.iter().filter(|other| other.index != server.index) {
            inbound.taken.insert(other.index, other.last_own_usn.load(Ordering::Acquire));
        }
    }
}

impl Replica {
    /// Takes over what has become due. Cheap when nothing is: one comparison per peer.
    pub(crate) fn catch_up(&self) {
        self.collect_garbage();
        if self.peers().next().is_some() {
            self.pull_all(false);
        }
    }

    pub(crate) fn set_lag(&self, lag_ms: Option<u64>) {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner).lag_ms = lag_ms;
    }

    /// Takes over the changes of all peers, those not yet due only when `all`. True when there were any.
    pub(crate) fn pull_all(&self, all: bool) -> bool {
        let Some(Pulled { usn, wrote }) = self.pull(all) else { return false };
        self.changed.send_modify(|last| *last = (*last).max(usn));
        if wrote {
            self.push_to_peers();
        }
        true
    }

    /// Hands a change just made to the servers that have no lag.
    pub(crate) fn push_to_peers(&self) {
        for peer in self.peers() {
            peer.pull_all(false);
        }
    }

    /// When the oldest waiting change becomes due here.
    pub(crate) fn next_due_ms(&self) -> Option<i64> {
        let inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        let lag_ms = i64::try_from(inbound.lag_ms?).ok()?;
        let waiting = self.peers().filter_map(|source| {
            let taken = inbound.taken.get(&source.index).copied().unwrap_or_default();
            let origins = self.shared.origins();
            source.read(|reader| {
                let mut records = reader.tree.log.since(taken)?;
                records.find(|record| made_at(&origins, record, source.index)).map(|record| record.csn.at_ms)
            })
        });
        waiting.min().map(|at| at.saturating_add(lag_ms))
    }

    /// A failure counted here is counted at the first server too.
    pub(crate) fn forward_failure(&self, id: EntryId, policy: &super::types::AccountPolicy, now: i64) {
        let Some(first) = self.peers().find(|peer| peer.index == 0) else { return };
        let policy = super::types::AccountPolicy { forward_failures: false, ..policy.clone() };
        first.count_failure_for_peer(id, &policy, now);
    }

    /// Simulates a restore from backup: a new invocation, and cursors of the old one are void.
    pub fn set_invocation_id(&self, invocation: [u8; 16]) {
        {
            let mut origins = self.shared.origins.write().unwrap_or_else(PoisonError::into_inner);
            let old = usize::from(self.origin.load(Ordering::Relaxed));
            if let Some(origin) = origins.get_mut(old) {
                origin.retired = true;
            }
            self.origin.store(origins.len() as u16, Ordering::Relaxed);
            origins.push(super::shared::Origin { invocation, server: self.index, retired: false });
        }
        let dsa = self.shared.landmarks.dsa.get(self.index).copied();
        if let (Some(dsa), Some(attribute)) = (dsa, self.shared.known.invocation_id) {
            self.write_by_server(dsa, vec![(attribute, vec![invocation.to_vec()])]);
        }
    }

    fn peers(&self) -> impl Iterator<Item = Arc<Replica>> + '_ {
        self.peers.get().into_iter().flatten().filter_map(std::sync::Weak::upgrade)
    }

    fn pull(&self, all: bool) -> Option<Pulled> {
        // Held over the whole pull: two pulls at once would deliver out of order.
        let mut inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = |inbound: &Inbound, source: &Replica| {
            inbound.taken.get(&source.index).copied().unwrap_or_default()
        };
        if self.peers().all(|it| it.last_own_usn.load(Ordering::Acquire) <= taken(&inbound, &it)) {
            return None;
        }
        let until_ms = match inbound.lag_ms {
            _ if all => i64::MAX,
            Some(lag_ms) => {
                self.shared.clock.now_ms().saturating_sub(i64::try_from(lag_ms).unwrap_or(i64::MAX))
            }
            None => return None,
        };
        // Read before any log: what is stamped by now is in its log once that can be read. So a change never comes
        // before the one it builds on, although that one was made on a third server.
        let horizon = Horizon { until_ms, newest: self.shared.newest_stamp() };
        let mut parcels = Vec::new();
        for source in self.peers() {
            let reached = self.collect(&source, taken(&inbound, &source), horizon, &mut parcels);
            inbound.taken.insert(source.index, reached);
        }
        if parcels.is_empty() {
            return None;
        }
        parcels.sort_by_key(|parcel| parcel.record.csn);
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let before = self.last_own_usn.load(Ordering::Acquire);
        parcels.into_iter().for_each(|parcel| self.merge(&mut tree, parcel));
        let wrote = self.last_own_usn.load(Ordering::Acquire) != before;
        Some(Pulled { usn: tree.log.last_usn(), wrote })
    }

    /// The changes made at `source` after `taken`, up to the first beyond the horizon. Returns how far it looked.
    fn collect(&self, source: &Replica, taken: u64, horizon: Horizon, parcels: &mut Vec<Parcel>) -> u64 {
        let origins = self.shared.origins();
        source.read(|reader| {
            let mut reached = taken;
            let Some(records) = reader.tree.log.since(taken) else { return reader.tree.log.last_usn() };
            for record in records {
                if made_at(&origins, record, source.index) {
                    let csn = record.csn;
                    if csn.at_ms > horizon.until_ms || (csn.at_ms, csn.count) > horizon.newest {
                        break;
                    }
                    parcels.push(parcel(reader.tree, record));
                }
                reached = record.usn;
            }
            reached
        })
    }

    fn merge(&self, tree: &mut Tree, parcel: Parcel) {
        let (id, kind) = (parcel.record.id, parcel.record.kind);
        let from = Provenance {
            csn: parcel.record.csn,
            origin_usn: parcel.record.origin_usn,
            now_ms: self.shared.clock.now_ms(),
        };
        let wanted_parent = parcel.entry.as_ref().and_then(|entry| entry.parent);
        let effect = match kind {
            ChangeKind::Delete => {
                // Nothing may be left below what goes without a tombstone.
                if parcel.entry.is_none() {
                    self.rescue_children(tree, id);
                }
                merge_delete(tree, &parcel)
            }
            _ if tree.node(id).is_none() => self.merge_new(tree, &parcel),
            _ => self.merge_change(tree, parcel),
        };
        let Some(effect) = effect else {
            // Nothing left to do, but cursors must know that it was seen.
            return tree.log.observe(from.csn.origin, from.origin_usn);
        };
        let placed = matches!(effect.kind, ChangeKind::Add | ChangeKind::ModifyDn);
        tree.apply(effect, from);
        if kind == ChangeKind::Delete {
            self.rescue_children(tree, id);
        } else if placed && tree.parent(id) != wanted_parent {
            self.rescue(tree, id, wanted_parent);
        } else if placed {
            self.settle_name(tree, id);
        }
    }

    fn merge_new(&self, tree: &mut Tree, parcel: &Parcel) -> Option<Effect> {
        let record = &parcel.record;
        let deleted_here = tree.stamps.get(record.id, Part::Existence) > record.csn;
        let wanted = record.kind == ChangeKind::Add && !deleted_here;
        // Deleted in the meantime: the deletion comes with its own record.
        let source = parcel.entry.as_ref().filter(|entry| wanted && !entry.deleted)?;
        let parent = self.place(tree, record.id, source.parent, record.csn);
        let entry = if parent == source.parent {
            source.clone()
        } else {
            let mut draft = source.to_draft();
            draft.parent = parent;
            Arc::new(draft.build())
        };
        // The name may be a later one than that of the addition.
        tree.stamps.advance(record.id, Part::Name, parcel.named);
        Some(Effect {
            attributes: record.attributes.to_vec(),
            links: record.links.to_vec(),
            password: parcel.password.clone(),
            ..Effect::new(record.id, ChangeKind::Add, Some(entry))
        })
    }

    fn merge_change(&self, tree: &mut Tree, parcel: Parcel) -> Option<Effect> {
        let record = parcel.record;
        let id = record.id;
        let here = tree.node(id)?.entry.clone();
        let source = parcel.entry.filter(|entry| !entry.deleted && !here.deleted)?;
        let mut draft = here.to_draft();
        let mut attributes = Vec::new();
        let mut password = None;
        for attribute in parcel.attributes {
            if tree.stamps.advance(id, Part::Attribute(attribute), record.csn) {
                let values = source.values(attribute).map(<[u8]>::to_vec).collect();
                draft.set(attribute, values);
                attributes.push(attribute);
                if [self.shared.known.unicode_pwd, self.shared.known.user_password].contains(&Some(attribute))
                {
                    password.clone_from(&parcel.password);
                }
            }
        }
        let mut previous_dn = None;
        // Equal: the name came ahead, with the addition.
        if parcel.renamed && tree.stamps.get(id, Part::Name) <= record.csn {
            draft.parent = self.place(tree, id, source.parent, record.csn);
            draft.rdn = source.rdn.to_string();
            previous_dn = Some(tree.dn(id));
        }
        if attributes.iter().any(|&it| Some(it) == self.shared.known.object_class) {
            draft.classes = source.classes.clone();
        }
        let wins = |change: &LinkChange| {
            record.csn >= tree.stamps.get(id, Part::Link(change.attribute, change.target))
        };
        let links: Vec<LinkChange> = record.links.iter().copied().filter(wins).collect();
        if attributes.is_empty() && links.is_empty() && previous_dn.is_none() {
            return None;
        }
        let merged = draft.build();
        let entry = if merged.same_as(&source) { source } else { Arc::new(merged) };
        let kind = if previous_dn.is_some() { ChangeKind::ModifyDn } else { ChangeKind::Modify };
        Some(Effect { attributes, links, password, previous_dn, ..Effect::new(id, kind, Some(entry)) })
    }
}

fn made_at(origins: &[super::shared::Origin], record: &Record, server: usize) -> bool {
    origins.get(usize::from(record.csn.origin)).is_some_and(|origin| origin.server == server)
}

fn parcel(tree: &Tree, record: &Record) -> Parcel {
    let id = record.id;
    // What was changed again since travels with its own, later record: cursors must find a value under the USN of the
    // change that made it.
    let current = |part| tree.stamps.get(id, part) == record.csn;
    let attributes = record.attributes.iter().copied();
    let attributes =
        attributes.filter(|&it| !tree.schema.attribute(it).local && current(Part::Attribute(it)));
    Parcel {
        attributes: attributes.collect(),
        renamed: record.kind == ChangeKind::ModifyDn && current(Part::Name),
        named: tree.stamps.get(id, Part::Name),
        entry: tree.node(id).map(|node| node.entry.clone()),
        password: tree.passwords.get(&id).cloned(),
        record: record.clone(),
    }
}

fn merge_delete(tree: &Tree, parcel: &Parcel) -> Option<Effect> {
    let (id, record) = (parcel.record.id, &parcel.record);
    let here = tree.node(id);
    // Deleted on both servers: the later tombstone stays.
    if here.is_some_and(|node| node.entry.deleted) && tree.stamps.get(id, Part::Existence) > record.csn {
        return None;
    }
    match (&parcel.entry, &record.gone) {
        // A tombstone travels like any object; deletion wins over everything. It may be all this server ever sees of
        // the object, and is told all the same: a client may know the object from elsewhere.
        (Some(tombstone), _) => {
            let attributes = record.attributes.to_vec();
            Some(Effect { attributes, ..Effect::new(id, ChangeKind::Delete, Some(tombstone.clone())) })
        }
        (None, Some(gone)) => {
            Some(Effect { gone: Some(gone.clone()), ..Effect::new(id, ChangeKind::Delete, None) })
        }
        (None, None) => here.is_some().then(|| Effect::new(id, ChangeKind::Delete, None)),
    }
}
