//! Changing attributes: add, delete, replace, increment, in the order given, all or nothing (RFC 4511 4.6).

use std::sync::Arc;

use super::check::LinkValue;
use super::{Prepared, Writer};
use crate::dit::account::{StoredPassword, UAC_DISABLED, UAC_PASSWORD_NOT_REQUIRED};
use crate::dit::changelog;
use crate::dit::commit::Effect;
use crate::dit::entry::EntryDraft;
use crate::dit::log::LinkChange;
use crate::dit::matching;
use crate::dit::schema::{AttrId, Source, Syntax};
use crate::dit::time_text;
use crate::dit::types::{ChangeKind, EntryId, LdapFailure, ModOp, Modification, ResultCode};
use crate::dn::Rdn;
use crate::personality::Vendor;

/// An object's state while its modifications are worked through.
pub(super) struct Progress {
    pub(super) id: EntryId,
    pub(super) draft: EntryDraft,
    /// Linked attributes that were touched, with their targets as they are now.
    links: Vec<(AttrId, Vec<EntryId>)>,
    pub(super) changed: Vec<AttrId>,
    pub(super) password: Option<StoredPassword>,
    /// An old password that was named for deletion: the change is the user's own.
    pub(super) old_password: Option<Vec<u8>>,
    pub(super) unlocked: bool,
}

impl Progress {
    pub(super) fn note(&mut self, attribute: AttrId) {
        if !self.changed.contains(&attribute) {
            self.changed.push(attribute);
        }
    }
}

impl Writer<'_> {
    pub(super) fn modify(
        &self,
        dn: &[u8],
        changes: &[Modification],
        permissive: bool,
    ) -> Result<Prepared, LdapFailure> {
        self.replica.require_reader(self.who)?;
        let own_password = self.is_own_password_change(dn, changes);
        if !own_password {
            self.require_writer(dn)?;
        }
        let id = self.target(dn)?;
        let node = self.reader.tree.node(id).ok_or_else(|| self.replica.no_access(""))?;
        let mut progress = Progress {
            id,
            draft: node.entry.to_draft(),
            links: Vec::new(),
            changed: Vec::new(),
            password: None,
            old_password: None,
            unlocked: false,
        };
        for change in changes {
            self.step(&mut progress, change, permissive)?;
        }
        self.settle_password(&mut progress, own_password)?;
        if self.is_active_directory() {
            self.windows_rules(&mut progress)?;
        }
        self.check_rdn(&progress)?;
        self.check_classes(&progress.draft, &|attribute| match progress
            .links
            .iter()
            .find(|(id, _)| *id == attribute)
        {
            Some((_, targets)) => !targets.is_empty(),
            None => self.has_beyond_draft(id, attribute),
        })?;
        self.check_size(&progress.draft)?;
        Ok(self.modification(progress, changes))
    }

    /// Values an object has besides those of its draft: links, and a password.
    pub(super) fn has_beyond_draft(&self, id: EntryId, attribute: AttrId) -> bool {
        let known = &self.replica.shared.known;
        let password =
            || self.reader.tree.passwords.contains_key(&id) || self.replica.shared.passwords.of(id).is_some();
        !self.reader.tree.forward(id, attribute).is_empty()
            || (Some(attribute) == known.user_password && password())
    }

    fn modification(&self, progress: Progress, changes: &[Modification]) -> Prepared {
        let Progress { id, draft, links, changed, password, unlocked, .. } = progress;
        let mut effect = Effect::new(id, ChangeKind::Modify, Some(Arc::new(draft.build())));
        for (attribute, now) in links {
            let before = self.reader.tree.forward(id, attribute);
            let is_before: std::collections::HashSet<EntryId> = before.iter().copied().collect();
            let is_now: std::collections::HashSet<EntryId> = now.iter().copied().collect();
            let removed = before.iter().filter(|target| !is_now.contains(target));
            let added = now.iter().filter(|target| !is_before.contains(target));
            effect.links.extend(removed.map(|&target| LinkChange { attribute, target, added: false }));
            effect.links.extend(added.map(|&target| LinkChange { attribute, target, added: true }));
        }
        effect.attributes = changed;
        effect.password = password;
        if self.keeps_changelog() {
            let (target, uuid) = (self.reader.tree.dn(id), draft.uuid);
            effect.changelog = Some(changelog::Body::modify(target, uuid, changes));
        }
        Prepared { id, effects: vec![effect], unlocked }
    }

    fn step(
        &self,
        progress: &mut Progress,
        change: &Modification,
        permissive: bool,
    ) -> Result<(), LdapFailure> {
        let attribute = self.attribute(&change.attribute)?;
        let known = &self.replica.shared.known;
        if Some(attribute) == known.object_class {
            return self.change_classes(progress, change);
        }
        if self.is_password(attribute) {
            return self.note_password(progress, attribute, change);
        }
        let definition = self.reader.tree.schema.attribute(attribute);
        if definition.read_only || !matches!(definition.source, Source::Stored | Source::Link) {
            return Err(self.read_only(&change.attribute));
        }
        let removing = matches!(change.op, ModOp::Delete | ModOp::Replace) && change.values.is_empty();
        if !removing {
            self.check_values(attribute, &change.values)?;
        }
        if definition.is_link() {
            self.change_links(progress, attribute, change, permissive)?;
        } else {
            self.change_values(progress, attribute, change, permissive)?;
        }
        progress.note(attribute);
        Ok(())
    }

    fn change_values(
        &self,
        progress: &mut Progress,
        attribute: AttrId,
        change: &Modification,
        permissive: bool,
    ) -> Result<(), LdapFailure> {
        let definition = self.reader.tree.schema.attribute(attribute);
        let (syntax, folding) = (definition.syntax, self.reader.tree.folding);
        let same = |one: &[u8], other: &[u8]| {
            matching::equals(syntax, folding, one, &matching::normalize(syntax, folding, other))
        };
        let mut values = progress.draft.values(attribute).to_vec();
        let named = [("attribute", definition.name())];
        match change.op {
            ModOp::Replace => values.clone_from(&change.values),
            ModOp::Add => {
                for value in &change.values {
                    let there = values.iter().any(|known| same(known, value));
                    // A second value of a single-valued attribute exists already, says Active Directory.
                    let full = definition.single && !values.is_empty() && self.is_active_directory();
                    if !there && !full {
                        values.push(value.clone());
                    } else if !(permissive && there) {
                        return Err(self.refuse(
                            ResultCode::ATTRIBUTE_OR_VALUE_EXISTS,
                            "value_exists",
                            &named,
                        ));
                    }
                }
            }
            ModOp::Delete if change.values.is_empty() => {
                if values.is_empty() && !permissive {
                    return Err(self.refuse(ResultCode::NO_SUCH_ATTRIBUTE, "no_attribute", &named));
                }
                values.clear();
            }
            ModOp::Delete => {
                for value in &change.values {
                    match values.iter().position(|known| same(known, value)) {
                        Some(at) => drop(values.remove(at)),
                        None if permissive => {}
                        None => return Err(self.refuse(ResultCode::NO_SUCH_ATTRIBUTE, "no_value", &named)),
                    }
                }
            }
            ModOp::Increment => {
                values = incremented(&values, &change.values)
                    .ok_or_else(|| self.refuse(ResultCode::CONSTRAINT_VIOLATION, "bad_value", &named))?;
            }
        }
        self.check_single(attribute, values.len())?;
        progress.draft.set(attribute, values);
        Ok(())
    }

    fn change_links(
        &self,
        progress: &mut Progress,
        attribute: AttrId,
        change: &Modification,
        permissive: bool,
    ) -> Result<(), LdapFailure> {
        let name = self.reader.tree.schema.attribute(attribute).name().to_owned();
        let named = [("attribute", name.as_str())];
        let slot = match progress.links.iter().position(|(id, _)| *id == attribute) {
            Some(slot) => slot,
            None => {
                progress.links.push((attribute, self.reader.tree.forward(progress.id, attribute).to_vec()));
                progress.links.len() - 1
            }
        };
        let mut targets = std::mem::take(&mut progress.links[slot].1);
        let mut names = progress.draft.values(attribute).to_vec();
        if change.op == ModOp::Replace || (change.op == ModOp::Delete && change.values.is_empty()) {
            if change.op == ModOp::Delete && targets.is_empty() && names.is_empty() && !permissive {
                return Err(self.refuse(ResultCode::NO_SUCH_ATTRIBUTE, "no_attribute", &named));
            }
            targets.clear();
            names.clear();
        }
        let folding = self.reader.tree.folding;
        let removing = change.op == ModOp::Delete;
        for value in &change.values {
            let done = match self.link_value(attribute, value) {
                // What is not there cannot be taken away, and may always be absent.
                Err(_) if removing && permissive => continue,
                Ok(LinkValue::Object(target)) => {
                    put_or_take(&mut targets, target, removing, |one, other| one == other)
                }
                Ok(LinkValue::Name(text)) => put_or_take(&mut names, text, removing, |one, other| {
                    matching::equals(
                        Syntax::Dn,
                        folding,
                        one,
                        &matching::normalize(Syntax::Dn, folding, other),
                    )
                }),
                Err(failure) => return Err(failure),
            };
            if !done && !permissive {
                return Err(if removing { self.missing_link(&named) } else { self.present_link(&named) });
            }
        }
        self.check_single(attribute, targets.len() + names.len())?;
        progress.draft.set(attribute, names);
        progress.links[slot].1 = targets;
        Ok(())
    }

    fn present_link(&self, named: &[(&str, &str)]) -> LdapFailure {
        // Active Directory says that the member is there, not that the value is (MS-ADTS 3.1.1.5.3.2).
        let (code, reason) = match self.vendor() {
            Vendor::ActiveDirectory => (ResultCode::ENTRY_ALREADY_EXISTS, "member_exists"),
            _ => (ResultCode::ATTRIBUTE_OR_VALUE_EXISTS, "value_exists"),
        };
        self.refuse(code, reason, named)
    }

    fn missing_link(&self, named: &[(&str, &str)]) -> LdapFailure {
        let code = if self.is_active_directory() {
            ResultCode::UNWILLING_TO_PERFORM
        } else {
            ResultCode::NO_SUCH_ATTRIBUTE
        };
        self.refuse(code, "no_value", named)
    }

    fn change_classes(&self, progress: &mut Progress, change: &Modification) -> Result<(), LdapFailure> {
        let schema = &self.reader.tree.schema;
        let shown =
            progress.draft.classes.shown.iter().map(|&class| schema.class(class).name().as_bytes().to_vec());
        let mut names: Vec<Vec<u8>> = shown.collect();
        match change.op {
            ModOp::Replace => names.clone_from(&change.values),
            ModOp::Add => names.extend(change.values.iter().cloned()),
            ModOp::Delete => {
                names.retain(|name| !change.values.iter().any(|gone| gone.eq_ignore_ascii_case(name)))
            }
            ModOp::Increment => return Err(self.read_only("objectClass")),
        }
        let classes = self.class_set(&names)?;
        // RFC 4512 2.4.2: the structural class of an object never changes.
        if classes.structural != progress.draft.classes.structural {
            let (code, reason) = match self.vendor() {
                Vendor::OpenLdap => (ResultCode::OBJECT_CLASS_MODS_PROHIBITED, "structural_change"),
                _ => (ResultCode::OBJECT_CLASS_VIOLATION, "class_violation"),
            };
            return Err(self.refuse(code, reason, &[("attribute", "objectClass")]));
        }
        progress.draft.classes = classes;
        self.replica.shared.known.object_class.iter().for_each(|&attribute| progress.note(attribute));
        Ok(())
    }

    /// The values of the relative name stay (RFC 4511 4.6); Active Directory lets nobody touch them at all.
    fn check_rdn(&self, progress: &Progress) -> Result<(), LdapFailure> {
        let Ok(rdn) = Rdn::parse(progress.draft.rdn.as_bytes()) else { return Ok(()) };
        let folding = self.reader.tree.folding;
        for part in &rdn.parts {
            let Some(attribute) = self.reader.tree.schema.find(&part.attribute) else { continue };
            if !progress.changed.contains(&attribute) {
                continue;
            }
            let syntax = self.reader.tree.schema.attribute(attribute).syntax;
            let wanted = matching::normalize(syntax, folding, &part.value);
            let mut values = progress.draft.values(attribute).iter();
            let kept = values.any(|value| matching::equals(syntax, folding, value, &wanted));
            if !kept || self.is_active_directory() {
                // slapd calls an entry without its name's value misnamed.
                let (code, reason) = match self.vendor() {
                    Vendor::OpenLdap => (ResultCode::NAMING_VIOLATION, "naming_violation"),
                    _ => (ResultCode::NOT_ALLOWED_ON_RDN, "rdn_not_allowed"),
                };
                return Err(self.refuse(code, reason, &[("attribute", &part.attribute)]));
            }
        }
        Ok(())
    }

    /// What a domain controller makes of account attributes (MS-SAMR 3.1.1.8).
    fn windows_rules(&self, progress: &mut Progress) -> Result<(), LdapFailure> {
        let known = self.replica.shared.known;
        let now = time_text::filetime(self.replica.shared.clock.now_ms());
        let integer = |draft: &EntryDraft, attribute: Option<AttrId>| {
            attribute.and_then(|attribute| matching::parse_integer(draft.values(attribute).first()?))
        };
        let touched = |progress: &Progress, attribute: Option<AttrId>| {
            attribute.is_some_and(|it| progress.changed.contains(&it))
        };
        let unwilling = || self.refuse(ResultCode::UNWILLING_TO_PERFORM, "password_policy", &[]);
        if touched(progress, known.pwd_last_set) && progress.password.is_none() {
            // 0: must change; -1: changed just now; nothing else may be written (MS-SAMR 3.1.1.8.8).
            match (integer(&progress.draft, known.pwd_last_set), known.pwd_last_set) {
                (Some(-1), Some(attribute)) => progress.draft.set_text(attribute, now.to_string()),
                (Some(0), _) => {}
                _ => return Err(unwilling()),
            }
        }
        if touched(progress, known.lockout_time) {
            if integer(&progress.draft, known.lockout_time) != Some(0) {
                return Err(unwilling());
            }
            progress.unlocked = true;
        }
        if touched(progress, known.user_account_control) {
            let control = integer(&progress.draft, known.user_account_control).unwrap_or_default();
            let open = control & (UAC_DISABLED | UAC_PASSWORD_NOT_REQUIRED) == 0;
            let has_password = progress.password.is_some()
                || self.reader.tree.passwords.contains_key(&progress.id)
                || self.replica.shared.passwords.of(progress.id).is_some();
            // Enabling an account without password breaks the policy.
            if open && !has_password && control & 0x3000 == 0 {
                return Err(unwilling());
            }
        }
        if touched(progress, known.sam_account_name) {
            self.check_account_name(Some(progress.id), &progress.draft)?;
        }
        Ok(())
    }
}

/// Adds what is not there, or removes what is. `false` when there was nothing to do.
fn put_or_take<T>(known: &mut Vec<T>, one: T, taking: bool, same: impl Fn(&T, &T) -> bool) -> bool {
    match (known.iter().position(|other| same(other, &one)), taking) {
        (Some(at), true) => drop(known.remove(at)),
        (None, false) => known.push(one),
        _ => return false,
    }
    true
}

/// Every value greater by the one named (RFC 4525); `None` when one is no number or the sum does not fit.
fn incremented(values: &[Vec<u8>], by: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let by = matching::parse_integer(by.first()?)?;
    let sum = |value: &Vec<u8>| matching::parse_integer(value)?.checked_add(by);
    values.iter().map(|value| Some(sum(value)?.to_string().into_bytes())).collect()
}
