//! Several servers of one domain: each pulls the changes the others made, after its lag, and merges them attribute by
//! attribute; the later stamp wins, so all servers end up alike whatever the order (MS-ADTS 3.1.1.1.9).

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::account::StoredPassword;
use super::commit::{Effect, Provenance};
use super::entry::{Entry, EntryDraft};
use super::log::{LinkChange, Record};
use super::replica::Replica;
use super::schema::AttrId;
use super::stamps::Part;
use super::tree::{Tree, rdn_key};
use super::types::{ChangeKind, EntryId};
use crate::dn::{Rdn, escape_value};

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
    password: Option<StoredPassword>,
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

    /// Takes over the changes of all peers, those not yet due only when `all`.
    pub(crate) fn pull_all(&self, all: bool) {
        let sources: Vec<Arc<Replica>> = self.peers().collect();
        sources.iter().for_each(|source| self.pull(source, all));
    }

    /// Hands a change just made to the servers that have no lag.
    pub(crate) fn push_to_peers(&self) {
        for peer in self.peers() {
            peer.pull(self, false);
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

    fn pull(&self, source: &Replica, all: bool) {
        let usn = {
            // Held over the whole pull: two pulls at once would deliver out of order.
            let mut inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = inbound.taken.get(&source.index).copied().unwrap_or_default();
            if source.last_own_usn.load(Ordering::Acquire) <= taken {
                return;
            }
            let until_ms = match inbound.lag_ms {
                _ if all => i64::MAX,
                Some(lag_ms) => {
                    self.shared.clock.now_ms().saturating_sub(i64::try_from(lag_ms).unwrap_or(i64::MAX))
                }
                None => return,
            };
            let (parcels, reached) = self.collect(source, taken, until_ms);
            inbound.taken.insert(source.index, reached);
            if parcels.is_empty() {
                return;
            }
            let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
            for parcel in parcels {
                self.merge(&mut tree, parcel);
            }
            tree.log.last_usn()
        };
        self.changed.send_modify(|last| *last = (*last).max(usn));
    }

    /// The changes made at `source` after `taken`, up to the first that is not due.
    fn collect(&self, source: &Replica, taken: u64, until_ms: i64) -> (Vec<Parcel>, u64) {
        let origins = self.shared.origins();
        source.read(|reader| {
            let mut reached = taken;
            let mut parcels = Vec::new();
            let Some(records) = reader.tree.log.since(taken) else {
                return (parcels, reader.tree.log.last_usn());
            };
            for record in records {
                if made_at(&origins, record, source.index) {
                    if record.csn.at_ms > until_ms {
                        break;
                    }
                    parcels.push(parcel(reader.tree, record));
                }
                reached = record.usn;
            }
            (parcels, reached)
        })
    }

    fn merge(&self, tree: &mut Tree, parcel: Parcel) {
        let record = &parcel.record;
        let from =
            Provenance { csn: record.csn, origin_usn: record.origin_usn, now_ms: self.shared.clock.now_ms() };
        let effect = match record.kind {
            ChangeKind::Delete => merge_delete(tree, &parcel),
            _ if tree.node(record.id).is_none() => self.merge_new(tree, &parcel),
            _ => self.merge_change(tree, parcel),
        };
        match effect {
            Some(effect) => drop(tree.apply(effect, from)),
            // Nothing left to do, but cursors must know that it was seen.
            None => tree.log.observe(from.csn.origin, from.origin_usn),
        }
    }

    fn merge_new(&self, tree: &mut Tree, parcel: &Parcel) -> Option<Effect> {
        let record = &parcel.record;
        let deleted_here = tree.stamps.get(record.id, Part::Existence) > record.csn;
        let wanted = record.kind == ChangeKind::Add && !deleted_here;
        // Deleted in the meantime: the deletion comes with its own record.
        let source = parcel.entry.as_ref().filter(|entry| wanted && !entry.deleted)?;
        let mut draft = source.to_draft();
        self.settle(tree, record.id, &mut draft);
        let unchanged = draft.parent == source.parent && draft.rdn == *source.rdn;
        let entry = if unchanged { source.clone() } else { Arc::new(draft.build()) };
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
        if parcel.renamed && tree.stamps.advance(id, Part::Name, record.csn) {
            previous_dn = Some(tree.dn(id));
            draft.parent = source.parent;
            draft.rdn = source.rdn.to_string();
            self.settle(tree, id, &mut draft);
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

    /// Gives an arriving object a place: below its parent when that is alive here, else in the lost-and-found; and a
    /// name of its own when another object has it (MS-ADTS 3.1.1.1.6 and 3.1.1.5.1.6: `CNF:` and the GUID).
    fn settle(&self, tree: &Tree, id: EntryId, draft: &mut EntryDraft) {
        let Some(parent) = draft.parent else { return };
        let alive = tree.node(parent).is_some_and(|node| !node.entry.deleted);
        let landmarks = &self.shared.landmarks;
        let parent = if alive { Some(parent) } else { landmarks.lost_and_found.or(landmarks.base) };
        draft.parent = parent;
        let (Some(parent), Some(key)) = (parent, rdn_key(&draft.rdn, tree.folding)) else { return };
        if tree.child_by_key(parent, &key).is_some_and(|other| other != id)
            && let Ok(rdn) = Rdn::parse(draft.rdn.as_bytes())
            && let Some(part) = rdn.parts.first()
        {
            let value = String::from_utf8_lossy(&part.value).into_owned();
            let mangled = format!("{value}\nCNF:{}", uuid::Uuid::from_bytes_le(draft.uuid));
            draft.rdn = format!("{}={}", part.attribute, escape_value(mangled.as_bytes()));
        }
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
        entry: tree.node(id).map(|node| node.entry.clone()),
        password: tree.passwords.get(&id).cloned(),
        record: record.clone(),
    }
}

fn merge_delete(tree: &mut Tree, parcel: &Parcel) -> Option<Effect> {
    let id = parcel.record.id;
    let here = tree.node(id);
    if here.is_some_and(|node| node.entry.deleted) {
        return None;
    }
    let parent_of_some =
        here.and_then(|node| node.container.as_deref()).is_some_and(|it| !it.children.is_empty());
    match (&parcel.entry, &parcel.record.gone) {
        // A tombstone travels like any object; deletion wins over everything. It may be all this server ever sees of
        // the object, and is told all the same: a client may know the object from elsewhere.
        (Some(tombstone), _) => {
            let attributes = parcel.record.attributes.to_vec();
            Some(Effect { attributes, ..Effect::new(id, ChangeKind::Delete, Some(tombstone.clone())) })
        }
        (None, _) if parent_of_some => None,
        (None, Some(gone)) => {
            Some(Effect { gone: Some(gone.clone()), ..Effect::new(id, ChangeKind::Delete, None) })
        }
        (None, None) => here.is_some().then(|| Effect::new(id, ChangeKind::Delete, None)),
    }
}
