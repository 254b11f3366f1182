//! Adding an object: classes, naming, defaults of accounts and groups.

use std::sync::Arc;

use super::check::LinkValue;
use super::{Prepared, Writer};
use crate::dit::account::{NEVER, StoredPassword, UAC_DISABLED, UAC_NORMAL, UAC_PASSWORD_NOT_REQUIRED};
use crate::dit::changelog;
use crate::dit::commit::Effect;
use crate::dit::entry::EntryDraft;
use crate::dit::log::LinkChange;
use crate::dit::schema::{AttrId, ClassSet, Source};
use crate::dit::time_text;
use crate::dit::tree::Lookup;
use crate::dit::types::{ChangeKind, EntryId, LdapFailure, ResultCode};
use crate::dn::{Dn, Rdn};

/// Attributes Active Directory takes in an add and then decides by itself (MS-ADTS 3.1.1.5.2.2).
const IGNORED_ON_ADD: [&str; 4] = ["distinguishedname", "objectcategory", "name", "instancetype"];

type Given = (String, Vec<Vec<u8>>);

/// The parts of an add as they are gathered.
struct Parts {
    draft: EntryDraft,
    links: Vec<(AttrId, EntryId)>,
    password: Option<StoredPassword>,
}

impl Writer<'_> {
    pub(super) fn add(&self, dn: &[u8], attributes: Vec<Given>) -> Result<Prepared, LdapFailure> {
        self.require_writer(dn)?;
        let shown = String::from_utf8_lossy(dn);
        let bad_dn = || self.refuse(ResultCode::INVALID_DN_SYNTAX, "bad_dn", &[("dn", &shown)]);
        let path = Dn::parse(dn).ok().filter(|path| !path.is_root()).ok_or_else(bad_dn)?;
        if !self.is_name(&path.rdns[0]) {
            return Err(bad_dn());
        }
        if let Lookup::Found(_) = self.reader.tree.lookup(&path) {
            return Err(self.refuse(ResultCode::ENTRY_ALREADY_EXISTS, "entry_exists", &[]));
        }
        let parent = self.parent(&path.parent())?;
        let rdn = &path.rdns[0];
        let classes = attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case("objectClass"));
        let (_, classes) = classes.ok_or_else(|| {
            self.refuse(
                ResultCode::OBJECT_CLASS_VIOLATION,
                "missing_attribute",
                &[("attribute", "objectClass"), ("class", "top")],
            )
        })?;
        let classes = self.class_set(classes)?;
        self.check_naming(rdn, &classes, &shown)?;
        let mut parts = self.gather(&attributes, parent, rdn, classes)?;
        self.name_inside(rdn, &mut parts.draft)?;
        if self.is_active_directory() {
            self.windows_defaults(&mut parts);
            self.check_account_name(None, &parts.draft)?;
        }
        let linked = |id: AttrId| {
            let password = parts.password.is_some() && Some(id) == self.replica.shared.known.user_password;
            password || parts.links.iter().any(|(attribute, _)| *attribute == id)
        };
        self.check_classes(&parts.draft, &linked)?;
        self.check_size(&parts.draft)?;
        Ok(self.addition(path.to_string(), parts, &attributes))
    }

    fn addition(&self, dn: String, parts: Parts, given: &[Given]) -> Prepared {
        let id = self.replica.shared.new_id();
        let known = &self.replica.shared.known;
        let uuid = parts.draft.uuid;
        let mut effect = Effect::new(id, ChangeKind::Add, Some(Arc::new(parts.draft.build())));
        effect.attributes = parts.draft.attributes.iter().map(|(attribute, _)| *attribute).collect();
        effect.attributes.extend([known.object_class, known.name].into_iter().flatten());
        effect.links = parts
            .links
            .into_iter()
            .map(|(attribute, target)| LinkChange { attribute, target, added: true })
            .collect();
        if parts.password.is_some() {
            effect.attributes.extend(self.password_attribute());
        }
        effect.password = parts.password;
        if self.keeps_changelog() {
            effect.changelog = Some(changelog::Body::add(dn, uuid, given));
        }
        Prepared { id, effects: vec![effect], unlocked: false }
    }

    /// The naming attribute is one the class is named by (Active Directory), or at least a known one.
    fn check_naming(&self, rdn: &Rdn, classes: &ClassSet, dn: &str) -> Result<(), LdapFailure> {
        let schema = &self.reader.tree.schema;
        let naming = rdn.parts.first().and_then(|part| schema.find(&part.attribute));
        let expected =
            schema.lineage(classes.structural).into_iter().rev().find_map(|class| schema.class(class).rdn);
        let right = match naming {
            None => false,
            Some(naming) => {
                !self.is_active_directory()
                    || (rdn.parts.len() == 1 && expected.is_none_or(|it| it == naming))
            }
        };
        let attribute = rdn.parts.first().map_or("", |part| part.attribute.as_str());
        let values = [("dn", dn), ("attribute", attribute)];
        if right {
            Ok(())
        } else {
            Err(self.refuse(ResultCode::NAMING_VIOLATION, "naming_violation", &values))
        }
    }

    fn gather(
        &self,
        given: &[Given],
        parent: EntryId,
        rdn: &Rdn,
        classes: Arc<ClassSet>,
    ) -> Result<Parts, LdapFailure> {
        let draft = EntryDraft {
            uuid: self.replica.shared.new_uuid(),
            parent: Some(parent),
            rdn: rdn.to_string(),
            classes,
            deleted: false,
            created_ms: self.replica.shared.clock.now_ms(),
            attributes: Vec::new(),
        };
        let mut parts = Parts { draft, links: Vec::new(), password: None };
        for (name, values) in given {
            let attribute = self.attribute(name)?;
            if Some(attribute) == self.replica.shared.known.object_class {
                continue;
            }
            if self.is_active_directory() && IGNORED_ON_ADD.contains(&name.to_ascii_lowercase().as_str()) {
                continue;
            }
            if let Some(secret) = self.secret_of(attribute, values)? {
                parts.password = Some(self.replica.shared.new_password(&secret, None));
                continue;
            }
            let definition = self.reader.tree.schema.attribute(attribute);
            if definition.read_only || matches!(definition.source, Source::Computed(_) | Source::BackLink(_))
            {
                return Err(self.read_only(name));
            }
            self.check_values(attribute, values)?;
            self.check_single(attribute, values.len())?;
            if definition.is_link() {
                let mut names = Vec::new();
                for value in values {
                    match self.link_value(attribute, value)? {
                        LinkValue::Object(target) if !parts.links.contains(&(attribute, target)) => {
                            parts.links.push((attribute, target));
                        }
                        LinkValue::Object(_) => {}
                        LinkValue::Name(name) => names.push(name),
                    }
                }
                parts.draft.set(attribute, names);
            } else {
                let mut all = parts.draft.values(attribute).to_vec();
                all.extend(values.iter().cloned());
                parts.draft.set(attribute, all);
            }
        }
        Ok(parts)
    }

    /// The values of the relative name are values of the object; a server puts in what is missing.
    fn name_inside(&self, rdn: &Rdn, draft: &mut EntryDraft) -> Result<(), LdapFailure> {
        use crate::dit::matching;
        for part in &rdn.parts {
            let attribute = self.attribute(&part.attribute)?;
            let definition = self.reader.tree.schema.attribute(attribute);
            if definition.source != Source::Stored {
                continue;
            }
            let folding = self.reader.tree.folding;
            let wanted = matching::normalize(definition.syntax, folding, &part.value);
            let mut values = draft.values(attribute).to_vec();
            if values.iter().any(|value| matching::equals(definition.syntax, folding, value, &wanted)) {
                continue;
            }
            if self.is_active_directory() {
                values.clear();
            }
            values.push(part.value.clone());
            draft.set(attribute, values);
        }
        Ok(())
    }

    /// What a domain controller fills in (MS-ADTS 3.1.1.5.2.4, MS-SAMR 3.1.1.8).
    fn windows_defaults(&self, parts: &mut Parts) {
        let shared = &self.replica.shared;
        let known = shared.known;
        let schema = &self.reader.tree.schema;
        let is =
            |class: &str| schema.find_class(class).is_some_and(|class| parts.draft.classes.contains(class));
        let (user, group) = (is("user"), is("group"));
        let draft = &mut parts.draft;
        let mut default = |attribute: Option<AttrId>, value: Vec<u8>| {
            if let Some(attribute) = attribute.filter(|&attribute| draft.values(attribute).is_empty()) {
                draft.set(attribute, vec![value]);
            }
        };
        default(known.instance_type, b"4".to_vec());
        if user || group {
            default(known.object_sid, shared.new_sid());
            let number = shared.next_rid.load(std::sync::atomic::Ordering::Relaxed);
            default(known.sam_account_name, format!("${number:06X}-{:012X}", shared.seed).into_bytes());
        }
        if group {
            default(known.group_type, b"-2147483646".to_vec());
        }
        if user {
            // Disabled and without password until someone sets one.
            let control = UAC_NORMAL | UAC_DISABLED | UAC_PASSWORD_NOT_REQUIRED;
            let set = if parts.password.is_some() { time_text::filetime(shared.clock.now_ms()) } else { 0 };
            default(known.user_account_control, control.to_string().into_bytes());
            default(known.primary_group, b"513".to_vec());
            default(known.pwd_last_set, set.to_string().into_bytes());
            default(known.account_expires, NEVER.to_string().into_bytes());
            default(schema.find("codePage"), b"0".to_vec());
            default(schema.find("countryCode"), b"0".to_vec());
        }
    }
}
