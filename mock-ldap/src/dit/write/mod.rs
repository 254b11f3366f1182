//! Writes: add, delete, modify, rename, as clients ask for them. Each is checked against the object's classes and the
//! personality's habits first, then turned into effects, then applied while the tree is held.

mod add;
mod check;
mod modify;
mod password;
mod rename;

use std::sync::PoisonError;

use super::commit::Effect;
use super::log::LinkChange;
use super::reader::Reader;
use super::replica::Replica;
use super::tree::{Lookup, Tree};
use super::types::{
    ChangeKind, EntryId, Identity, LdapFailure, Modification, PolicyWord, ResultCode, View, WriteDone,
    WriteOp,
};
use super::{changelog, limits};
use crate::dn::{Dn, Name, Rdn};
use crate::personality::Vendor;

/// What a write comes to: the object it is about, and everything that changes with it, in order.
struct Prepared {
    id: EntryId,
    effects: Vec<Effect>,
    /// The lock counters start anew (lockoutTime set to 0, password reset).
    unlocked: bool,
}

/// One write while it is prepared; the tree does not change underneath.
struct Writer<'a> {
    replica: &'a Replica,
    reader: Reader<'a>,
    who: &'a Identity,
    secure: bool,
}

impl Replica {
    /// Performs a write. `secure`: the connection is protected; Active Directory takes passwords only then.
    pub fn write(&self, op: WriteOp, who: &Identity, secure: bool) -> Result<WriteDone, LdapFailure> {
        self.catch_up();
        self.index_for_write(&op);
        let done = {
            let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
            let prepared = self.writer(&tree, who, secure).prepare(op)?;
            self.perform(&mut tree, prepared)
        };
        self.announce(done.change_number);
        Ok(done)
    }

    fn writer<'a>(&'a self, tree: &'a Tree, who: &'a Identity, secure: bool) -> Writer<'a> {
        let reader = Reader {
            tree,
            shared: &self.shared,
            logons: &self.logons,
            view: View::Domain,
            base_scope: false,
            extended_dn: None,
        };
        Writer { replica: self, reader, who, secure }
    }

    fn perform(&self, tree: &mut Tree, prepared: Prepared) -> WriteDone {
        if prepared.unlocked {
            self.logons.lock().unwrap_or_else(PoisonError::into_inner).remove(&prepared.id);
        }
        let mut change_number = tree.log.last_usn();
        for effect in prepared.effects {
            change_number = self.apply_own(tree, effect);
        }
        WriteDone { id: prepared.id, change_number, policy: PolicyWord::default() }
    }

    /// Indexes that resolving the name and checking uniqueness need; building one takes the tree's lock.
    fn index_for_write(&self, op: &WriteOp) {
        let dn = match op {
            WriteOp::Add { dn, .. }
            | WriteOp::Delete { dn, .. }
            | WriteOp::Modify { dn, .. }
            | WriteOp::ModifyDn { dn, .. } => dn,
        };
        if let Ok(name) = Name::parse(dn) {
            self.index_for(&name);
        }
        if matches!(op, WriteOp::Add { .. } | WriteOp::Modify { .. }) {
            self.shared.known.sam_account_name.iter().for_each(|&attribute| self.ensure_index(attribute));
        }
    }
}

impl Writer<'_> {
    fn prepare(&self, op: WriteOp) -> Result<Prepared, LdapFailure> {
        match op {
            WriteOp::Add { dn, attributes } => self.add(&dn, attributes),
            WriteOp::Delete { dn, tree } => self.delete(&dn, tree),
            WriteOp::Modify { dn, changes, permissive } => self.modify(&dn, &changes, permissive),
            WriteOp::ModifyDn { dn, new_rdn, delete_old, new_superior } => {
                self.modify_dn(&dn, &new_rdn, delete_old, new_superior.as_deref())
            }
        }
    }

    fn vendor(&self) -> Vendor {
        self.replica.shared.personality.vendor
    }

    fn is_active_directory(&self) -> bool {
        self.vendor() == Vendor::ActiveDirectory
    }

    fn keeps_changelog(&self) -> bool {
        matches!(self.vendor(), Vendor::Ds389 | Vendor::Oracle)
    }

    /// The vendor's text for a reason, under a code.
    fn refuse(&self, code: ResultCode, reason: &str, values: &[(&str, &str)]) -> LdapFailure {
        LdapFailure::new(code, self.replica.shared.text(reason, values))
    }

    fn require_writer(&self, dn: &[u8]) -> Result<(), LdapFailure> {
        self.replica.require_reader(self.who)?;
        if self.replica.rights(&self.reader, self.who).write {
            return Ok(());
        }
        Err(self.replica.no_access(&String::from_utf8_lossy(dn)))
    }

    /// The live object a name means.
    fn target(&self, dn: &[u8]) -> Result<EntryId, LdapFailure> {
        let name = self.replica.parse_name(dn)?;
        let found = self.reader.resolve(&name).filter(|&id| {
            self.reader.tree.node(id).is_some_and(|node| !node.entry.deleted && !node.entry.rdn.is_empty())
        });
        found.ok_or_else(|| self.replica.no_such_object(&self.reader, &name))
    }

    /// The live object below which something is put.
    fn parent(&self, dn: &Dn) -> Result<EntryId, LdapFailure> {
        match self.reader.tree.lookup(dn) {
            Lookup::Found(id) if self.reader.tree.node(id).is_some_and(|node| !node.entry.deleted) => Ok(id),
            Lookup::Missing { best } => {
                let best = self.reader.tree.dn(best);
                Err(self.refuse(ResultCode::NO_SUCH_OBJECT, "no_parent", &[("best", &best)]).matched(best))
            }
            _ => Err(self.replica.no_such_object(&self.reader, &Name::Path(dn.clone()))),
        }
    }

    fn delete(&self, dn: &[u8], whole_tree: bool) -> Result<Prepared, LdapFailure> {
        self.require_writer(dn)?;
        let id = self.target(dn)?;
        let tree = self.reader.tree;
        let live_children = |id: EntryId| {
            tree.children(id)
                .iter()
                .copied()
                .filter(|&child| tree.node(child).is_some_and(|node| !node.entry.deleted))
        };
        let kept = tree.parent(id).is_none() || self.is_protected(id);
        let leaf = live_children(id).next().is_none();
        // Active Directory says first that it keeps what every domain needs.
        if !(leaf || whole_tree || kept && self.is_active_directory()) {
            return Err(self.refuse(ResultCode::NOT_ALLOWED_ON_NON_LEAF, "non_leaf", &[]));
        }
        if kept {
            return Err(self.refuse(
                ResultCode::UNWILLING_TO_PERFORM,
                "read_only",
                &[("attribute", "entry")],
            ));
        }
        let mut doomed = vec![id];
        let mut at = 0;
        while at < doomed.len() {
            doomed.extend(live_children(doomed[at]));
            at += 1;
        }
        // Children first, so that no step leaves an orphan.
        let effects = doomed.iter().rev().flat_map(|&id| self.deletion(id)).collect();
        Ok(Prepared { id, effects, unlocked: true })
    }

    /// The deletion of one object. Where names are kept as text the groups that name it change as well (refint).
    fn deletion(&self, id: EntryId) -> Vec<Effect> {
        let Some(node) = self.reader.tree.node(id) else { return Vec::new() };
        if self.is_active_directory() {
            let tombstone = self.replica.tombstone_of(&self.reader, id, &node.entry);
            let known = &self.replica.shared.known;
            let changed = [known.is_deleted, known.name, known.last_known_parent, known.parent_guid];
            let entry = Some(std::sync::Arc::new(tombstone));
            let attributes = changed.into_iter().flatten().collect();
            return vec![Effect { attributes, ..Effect::new(id, ChangeKind::Delete, entry) }];
        }
        let mut effects = self.touch_linking(id, true);
        let mut effect = Effect::new(id, ChangeKind::Delete, None);
        if self.keeps_changelog() {
            let body = changelog::Body {
                target: self.reader.tree.dn(id),
                uuid: node.entry.uuid,
                ..Default::default()
            };
            effect.changelog = Some(body);
        }
        effects.push(effect);
        effects
    }

    /// The objects that name this one change with it: their value goes (`removed`) or reads differently.
    fn touch_linking(&self, id: EntryId, removed: bool) -> Vec<Effect> {
        let links = self.reader.tree.node(id).and_then(|node| node.links.as_deref());
        let mut effects = Vec::new();
        for (attribute, sources) in links.iter().flat_map(|links| &links.back) {
            for &source in sources.iter().filter(|&&source| source != id) {
                let Some(node) = self.reader.tree.node(source) else { continue };
                let mut effect = Effect::new(source, ChangeKind::Modify, Some(node.entry.clone()));
                effect.attributes.push(*attribute);
                if removed {
                    effect.links.push(LinkChange { attribute: *attribute, target: id, added: false });
                }
                if self.keeps_changelog() {
                    let (target, uuid) = (self.reader.tree.dn(source), node.entry.uuid);
                    let name = self.reader.tree.schema.attribute(*attribute).name().to_owned();
                    let op = super::types::ModOp::Delete;
                    let values = vec![self.reader.tree.dn(id).into_bytes()];
                    let change = Modification { op, attribute: name, values };
                    effect.changelog = Some(changelog::Body::modify(target, uuid, &[change]));
                }
                effects.push(effect);
            }
        }
        effects
    }

    /// To slapd a name of a type it does not know is no name.
    fn is_name(&self, rdn: &Rdn) -> bool {
        self.replica.shared.personality.vendor != Vendor::OpenLdap
            || rdn.parts.iter().all(|part| self.reader.tree.schema.find(&part.attribute).is_some())
    }

    /// Objects every domain needs (systemFlags DISALLOW_DELETE, 0x80000000).
    fn is_protected(&self, id: EntryId) -> bool {
        let flags = self.reader.tree.schema.find("systemFlags");
        let entry = self.reader.tree.node(id).map(|node| &node.entry);
        let number = flags.and_then(|flags| entry?.integer(flags)).unwrap_or_default();
        self.is_active_directory() && number as i32 & i32::MIN != 0
    }

    /// Everything below an object, itself included.
    fn subtree(&self, id: EntryId) -> Vec<EntryId> {
        let mut all = vec![id];
        let mut at = 0;
        while at < all.len() && all.len() < limits::VALUES_PER_ATTRIBUTE_MAX {
            all.extend_from_slice(self.reader.tree.children(all[at]));
            at += 1;
        }
        all
    }
}
