//! What servers wrote without knowing of each other and cannot both be: one name taken twice, an object put below one
//! that is gone, two containers moved below each other. Every server judges by the stamps alone and writes the outcome
//! as a change of its own, which travels like any other; so they agree again, whoever noticed first.

use std::sync::Arc;

use super::commit::Effect;
use super::csn::Csn;
use super::entry::EntryDraft;
use super::limits;
use super::reader::rdn_value;
use super::replica::Replica;
use super::schema::AttrId;
use super::stamps::Part;
use super::tree::Tree;
use super::types::{ChangeKind, EntryId};
use crate::dn::escape_value;

impl Replica {
    /// Of two objects with one name the one named later keeps it; the other becomes `name\nCNF:guid`
    /// (Microsoft KB 218614), and what lies below it goes with it.
    pub(super) fn settle_name(&self, tree: &mut Tree, id: EntryId) {
        let Some(other) = tree.namesake(id) else { return };
        let loser = if named(tree, id) < named(tree, other) { id } else { other };
        let Some(mut draft) = tree.node(loser).map(|node| node.entry.to_draft()) else { return };
        let guid = uuid::Uuid::from_bytes_le(draft.uuid);
        let name = [rdn_value(&draft.rdn).unwrap_or_default(), format!("\nCNF:{guid}").into_bytes()].concat();
        let kind = draft.rdn.split_once('=').map_or("CN", |(kind, _)| kind).to_owned();
        draft.rdn = format!("{kind}={}", escape_value(&name));
        if let Some(naming) = tree.schema.find(&kind) {
            draft.set(naming, vec![name]);
        }
        self.write_name(tree, loser, &draft, None);
    }

    /// The parent an arriving object gets: the one it names while that lives here and is not below the object itself,
    /// else the lost-and-found.
    pub(super) fn place(
        &self,
        tree: &mut Tree,
        id: EntryId,
        wanted: Option<EntryId>,
        csn: Csn,
    ) -> Option<EntryId> {
        let parent = wanted?;
        let alive = tree.node(parent).is_some_and(|node| !node.entry.deleted);
        if alive && self.break_circle(tree, id, parent, csn) { wanted } else { self.lost_and_found() }
    }

    /// Two servers moved containers below each other: the move made first gives way. False when that is the arriving
    /// one, stamped `csn`.
    fn break_circle(&self, tree: &mut Tree, id: EntryId, parent: EntryId, csn: Csn) -> bool {
        if !tree.within(parent, id) {
            return true;
        }
        let between = std::iter::successors(Some(parent), |&up| tree.parent(up))
            .take(limits::TREE_DEPTH_MAX)
            .take_while(|&up| up != id);
        let moved = between.map(|up| (tree.stamps.get(up, Part::Name), up));
        let earlier = moved.filter(|(stamp, _)| *stamp != Csn::default() && *stamp < csn);
        let Some((_, oldest)) = earlier.min() else { return false };
        let last = tree.parent(oldest);
        self.rescue(tree, oldest, last);
        true
    }

    /// Moves the live objects below a deleted one to the lost-and-found.
    pub(super) fn rescue_children(&self, tree: &mut Tree, id: EntryId) {
        let alive = |child: &EntryId| tree.node(*child).is_some_and(|node| !node.entry.deleted);
        let children: Vec<EntryId> = tree.children(id).iter().copied().filter(alive).collect();
        children.into_iter().for_each(|child| self.rescue(tree, child, Some(id)));
    }

    /// Moves one object to the lost-and-found. `last`: where it was or was to be.
    pub(super) fn rescue(&self, tree: &mut Tree, id: EntryId, last: Option<EntryId>) {
        let Some(mut draft) = tree.node(id).map(|node| node.entry.to_draft()) else { return };
        let last = last.filter(|&last| tree.node(last).is_some());
        let noted = self.shared.known.last_known_parent.filter(|_| last.is_some());
        if let (Some(attribute), Some(last)) = (noted, last) {
            draft.set_text(attribute, tree.dn(last));
        }
        draft.parent = self.lost_and_found();
        self.write_name(tree, id, &draft, noted);
        self.settle_name(tree, id);
    }

    fn lost_and_found(&self) -> Option<EntryId> {
        self.shared.landmarks.lost_and_found.or(self.shared.landmarks.base)
    }

    /// Gives an object another place or name, as a change of this server. `also`: an attribute changed with it.
    fn write_name(&self, tree: &mut Tree, id: EntryId, draft: &EntryDraft, also: Option<AttrId>) {
        let known = &self.shared.known;
        // Stamped together with the name even when only the place changes, so that `cn` and the DN agree everywhere.
        let naming = draft.rdn.split_once('=').and_then(|(kind, _)| tree.schema.find(kind));
        let mut effect = Effect::new(id, ChangeKind::ModifyDn, Some(Arc::new(draft.build())));
        effect.attributes = [naming, also, known.name, known.parent_guid].into_iter().flatten().collect();
        effect.previous_dn = Some(tree.dn(id));
        self.apply_own(tree, effect);
    }
}

/// When an object got its name.
fn named(tree: &Tree, id: EntryId) -> Csn {
    tree.stamps.get(id, Part::Name).max(tree.stamps.get(id, Part::Existence))
}
