//! Renaming and moving.

use std::sync::Arc;

use super::{Prepared, Writer};
use crate::dit::changelog;
use crate::dit::commit::Effect;
use crate::dit::entry::EntryDraft;
use crate::dit::matching;
use crate::dit::schema::Source;
use crate::dit::tree::Lookup;
use crate::dit::types::{ChangeKind, EntryId, LdapFailure, ResultCode};
use crate::dn::{Dn, Rdn};
use crate::personality::Vendor;

impl Writer<'_> {
    pub(super) fn modify_dn(
        &self,
        dn: &[u8],
        new_rdn: &[u8],
        delete_old: bool,
        new_superior: Option<&[u8]>,
    ) -> Result<Prepared, LdapFailure> {
        self.require_writer(dn)?;
        let id = self.target(dn)?;
        let shown = String::from_utf8_lossy(new_rdn);
        let bad_name = || self.refuse(ResultCode::INVALID_DN_SYNTAX, "bad_dn", &[("dn", &shown)]);
        let rdn = Rdn::parse(new_rdn).ok().filter(|rdn| self.is_name(rdn)).ok_or_else(bad_name)?;
        let tree = self.reader.tree;
        let unwilling =
            || self.refuse(ResultCode::UNWILLING_TO_PERFORM, "read_only", &[("attribute", "name")]);
        let old_parent = tree.parent(id).ok_or_else(unwilling)?;
        // Active Directory has no names that outlive a rename (MS-ADTS 3.1.1.5.4.1).
        if self.is_protected(id) || (self.is_active_directory() && !delete_old) {
            return Err(unwilling());
        }
        let parent = match new_superior {
            Some(superior) => self.superior(&Dn::parse(superior).map_err(|_| bad_name())?)?,
            None => old_parent,
        };
        if tree.within(parent, id) {
            return Err(self.refuse(ResultCode::UNWILLING_TO_PERFORM, "below_itself", &[]));
        }
        if tree.root_of(parent) != tree.root_of(id) {
            return Err(self.another_context().unwrap_or_else(unwilling));
        }
        let taken = tree.child_by_key(parent, &rdn.key(tree.folding));
        if taken.is_some_and(|other| other != id) {
            return Err(self.refuse(ResultCode::ENTRY_ALREADY_EXISTS, "entry_exists", &[]));
        }
        let Some(node) = tree.node(id) else { return Err(unwilling()) };
        let mut draft = node.entry.to_draft();
        self.rename_inside(id, &mut draft, &rdn, delete_old)?;
        draft.parent = Some(parent);
        draft.rdn = rdn.to_string();
        Ok(self.renaming(id, draft, &rdn, delete_old, new_superior))
    }

    /// Where the object is moved to.
    fn superior(&self, dn: &Dn) -> Result<EntryId, LdapFailure> {
        match self.reader.tree.lookup(dn) {
            Lookup::Foreign => self.another_context().map_or_else(|| self.parent(dn), Err),
            _ => self.parent(dn),
        }
    }

    /// slapd's words for a move to another naming context, be it one of its own or nobody's.
    fn another_context(&self) -> Option<LdapFailure> {
        let refused = || LdapFailure::new(ResultCode::AFFECTS_MULTIPLE_DSAS, "cannot rename between DSAs");
        (self.replica.shared.personality.vendor == Vendor::OpenLdap).then(refused)
    }

    fn renaming(
        &self,
        id: EntryId,
        draft: EntryDraft,
        rdn: &Rdn,
        delete_old: bool,
        new_superior: Option<&[u8]>,
    ) -> Prepared {
        let known = &self.replica.shared.known;
        let old_dn = self.reader.tree.dn(id);
        let mut effect = Effect::new(id, ChangeKind::ModifyDn, Some(Arc::new(draft.build())));
        let naming = rdn.parts.iter().filter_map(|part| self.reader.tree.schema.find(&part.attribute));
        effect.attributes = naming.chain([known.name, known.parent_guid].into_iter().flatten()).collect();
        if self.keeps_changelog() {
            effect.changelog = Some(changelog::Body {
                target: old_dn.clone(),
                new_rdn: Some(rdn.to_string()),
                delete_old_rdn: delete_old,
                new_superior: new_superior.map(|dn| String::from_utf8_lossy(dn).into_owned()),
                uuid: draft.uuid,
                ..changelog::Body::default()
            });
        }
        effect.previous_dn = Some(old_dn);
        let mut effects = vec![effect];
        // Names kept as text are rewritten one by one, so the objects that hold them change.
        if !self.is_active_directory() {
            effects.extend(self.subtree(id).into_iter().flat_map(|moved| self.touch_linking(moved, false)));
        }
        Prepared { id, effects, unlocked: false }
    }

    /// The values of the old name go when asked, those of the new one come.
    fn rename_inside(
        &self,
        id: EntryId,
        draft: &mut EntryDraft,
        rdn: &Rdn,
        delete_old: bool,
    ) -> Result<(), LdapFailure> {
        let folding = self.reader.tree.folding;
        let old = Rdn::parse(draft.rdn.as_bytes()).map(|old| old.parts).unwrap_or_default();
        if self.is_active_directory() {
            let kind = |parts: &[crate::dn::Ava]| {
                parts.first().and_then(|part| self.reader.tree.schema.find(&part.attribute))
            };
            if rdn.parts.len() != 1 || kind(&old) != kind(&rdn.parts) {
                let values = [("dn", draft.rdn.as_str())];
                return Err(self.refuse(ResultCode::NAMING_VIOLATION, "naming_violation", &values));
            }
        }
        for part in old.iter().filter(|_| delete_old) {
            let Some(attribute) = self.reader.tree.schema.find(&part.attribute) else { continue };
            let syntax = self.reader.tree.schema.attribute(attribute).syntax;
            let gone = matching::normalize(syntax, folding, &part.value).into_owned();
            let kept = draft
                .values(attribute)
                .iter()
                .filter(|value| !matching::equals(syntax, folding, value, &gone));
            let kept = kept.cloned().collect();
            draft.set(attribute, kept);
        }
        for part in &rdn.parts {
            let attribute = self.attribute(&part.attribute)?;
            let definition = self.reader.tree.schema.attribute(attribute);
            if definition.source != Source::Stored {
                continue;
            }
            let wanted = matching::normalize(definition.syntax, folding, &part.value);
            let mut values = draft.values(attribute).to_vec();
            values.retain(|value| !matching::equals(definition.syntax, folding, value, &wanted));
            // The spelling of the new name replaces an older one.
            values.insert(0, part.value.clone());
            self.check_single(attribute, values.len())?;
            draft.set(attribute, values);
        }
        self.check_classes(draft, &|attribute| self.has_beyond_draft(id, attribute))
    }
}
