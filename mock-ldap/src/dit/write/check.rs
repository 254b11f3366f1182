//! Schema checks: what classes demand and allow, what a syntax accepts, what links may name.

use super::Writer;
use crate::dit::entry::EntryDraft;
use crate::dit::limits;
use crate::dit::matching;
use crate::dit::schema::{AttrId, ClassSet, Source, Syntax};
use crate::dit::time_text;
use crate::dit::types::{EntryId, LdapFailure, ResultCode};
use crate::dn::{Dn, Name};
use crate::personality::Vendor;
use std::sync::Arc;

/// Where the value of a linked attribute leads.
pub(super) enum LinkValue {
    Object(EntryId),
    /// The name of something that is not here, kept as written.
    Name(Vec<u8>),
}

impl Writer<'_> {
    /// The attribute a client names; only the option `binary` is understood.
    pub(super) fn attribute(&self, description: &str) -> Result<AttrId, LdapFailure> {
        let (name, option) = description.split_once(';').unwrap_or((description, ""));
        let known = option.is_empty() || option.eq_ignore_ascii_case("binary");
        self.reader.tree.schema.find(name).filter(|_| known).ok_or_else(|| {
            let code = self.replica.shared.personality.unknown_attribute_code();
            self.refuse(code, "unknown_attribute", &[("attribute", description)])
        })
    }

    pub(super) fn read_only(&self, name: &str) -> LdapFailure {
        let code = match self.vendor() {
            Vendor::OpenLdap => ResultCode::CONSTRAINT_VIOLATION,
            Vendor::EDirectory | Vendor::Domino => ResultCode::INSUFFICIENT_ACCESS_RIGHTS,
            _ => ResultCode::UNWILLING_TO_PERFORM,
        };
        self.refuse(code, "read_only", &[("attribute", name)])
    }

    /// Values fit the syntax, are not empty in number, and do not repeat.
    pub(super) fn check_values(&self, attribute: AttrId, values: &[Vec<u8>]) -> Result<(), LdapFailure> {
        let definition = self.reader.tree.schema.attribute(attribute);
        let name = definition.name();
        if values.is_empty() || values.len() > limits::VALUES_PER_ATTRIBUTE_MAX {
            return Err(self.refuse(ResultCode::CONSTRAINT_VIOLATION, "bad_value", &[("attribute", name)]));
        }
        let fits = |value: &Vec<u8>| match definition.syntax {
            Syntax::Integer => matching::parse_integer(value).is_some(),
            Syntax::Boolean => value == b"TRUE" || value == b"FALSE",
            Syntax::Dn => Name::parse(value).is_ok(),
            Syntax::Time => time_text::parse(value).is_some(),
            Syntax::CaseIgnore | Syntax::CaseExact => !value.is_empty() && std::str::from_utf8(value).is_ok(),
            _ => true,
        };
        if !values.iter().all(fits) {
            return Err(self.refuse(
                ResultCode::INVALID_ATTRIBUTE_SYNTAX,
                "bad_value",
                &[("attribute", name)],
            ));
        }
        let folding = self.reader.tree.folding;
        let mut keys: Vec<_> =
            values.iter().map(|value| matching::normalize(definition.syntax, folding, value)).collect();
        keys.sort();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(self.refuse(
                ResultCode::ATTRIBUTE_OR_VALUE_EXISTS,
                "value_exists",
                &[("attribute", name)],
            ));
        }
        Ok(())
    }

    pub(super) fn check_single(&self, attribute: AttrId, count: usize) -> Result<(), LdapFailure> {
        let definition = self.reader.tree.schema.attribute(attribute);
        if definition.single && count > 1 {
            let values = [("attribute", definition.name())];
            return Err(self.refuse(ResultCode::CONSTRAINT_VIOLATION, "single_value", &values));
        }
        Ok(())
    }

    /// The object a linked value names. Servers that check refuse names of nobody.
    pub(super) fn link_value(&self, attribute: AttrId, value: &[u8]) -> Result<LinkValue, LdapFailure> {
        let name = self.replica.parse_name(value)?;
        let found = self
            .reader
            .resolve(&name)
            .filter(|&id| self.reader.tree.node(id).is_some_and(|node| !node.entry.deleted));
        match found {
            Some(id) => Ok(LinkValue::Object(id)),
            None if self.replica.shared.personality.checks_link_targets() => {
                let dn = Dn::parse(value).unwrap_or_default();
                let best = self.replica.no_such_object(&self.reader, &Name::Path(dn)).matched_dn;
                let name = self.reader.tree.schema.attribute(attribute).name();
                let values = [("best", best.as_str()), ("attribute", name)];
                Err(self.refuse(ResultCode::NO_SUCH_OBJECT, "link_target", &values).matched(best.clone()))
            }
            None => Ok(LinkValue::Name(value.to_vec())),
        }
    }

    pub(super) fn class_set(&self, names: &[Vec<u8>]) -> Result<Arc<ClassSet>, LdapFailure> {
        let schema = &self.reader.tree.schema;
        let mut classes = Vec::new();
        for name in names {
            let text = String::from_utf8_lossy(name);
            let class = schema.find_class(text.trim()).ok_or_else(|| {
                let code = match self.vendor() {
                    Vendor::OpenLdap => ResultCode::INVALID_ATTRIBUTE_SYNTAX,
                    Vendor::ActiveDirectory => ResultCode::NO_SUCH_ATTRIBUTE,
                    _ => ResultCode::OBJECT_CLASS_VIOLATION,
                };
                self.refuse(code, "unknown_class", &[("class", &text)])
            })?;
            if !classes.contains(&class) {
                classes.push(class);
            }
        }
        schema
            .class_set(&classes)
            .ok_or_else(|| self.refuse(ResultCode::OBJECT_CLASS_VIOLATION, "no_structural_class", &[]))
    }

    /// Mandatory attributes are there and nothing else is; `has` tells of attributes that are not in the draft.
    pub(super) fn check_classes(
        &self,
        draft: &EntryDraft,
        has: &dyn Fn(AttrId) -> bool,
    ) -> Result<(), LdapFailure> {
        let schema = &self.reader.tree.schema;
        let stored = |id: AttrId| !draft.values(id).is_empty() || has(id);
        for &class in &draft.classes.all {
            let class = schema.class(class);
            let given = |id: AttrId| matches!(schema.attribute(id).source, Source::Computed(_)) || stored(id);
            if let Some(&missing) = class.must.iter().find(|&&id| !given(id)) {
                let values = [("class", class.name()), ("attribute", schema.attribute(missing).name())];
                return Err(self.refuse(ResultCode::OBJECT_CLASS_VIOLATION, "missing_attribute", &values));
            }
        }
        let open = draft.classes.all.iter().any(|&class| schema.class(class).open);
        if open || !self.replica.shared.personality.checks_allowed_attributes() {
            return Ok(());
        }
        let allowed = |id: AttrId| {
            let listed = |&class: &usize| {
                schema.class(class).must.contains(&id) || schema.class(class).may.contains(&id)
            };
            schema.attribute(id).operational || draft.classes.all.iter().any(listed)
        };
        let links = schema.attributes().filter(|(id, it)| it.is_link() && has(*id)).map(|(id, _)| id);
        let stranger = draft.attributes.iter().map(|(id, _)| *id).chain(links).find(|&id| !allowed(id));
        match stranger {
            Some(id) => {
                let values = [("attribute", schema.attribute(id).name())];
                Err(self.refuse(ResultCode::OBJECT_CLASS_VIOLATION, "class_violation", &values))
            }
            None => Ok(()),
        }
    }

    pub(super) fn check_size(&self, draft: &EntryDraft) -> Result<(), LdapFailure> {
        let entry = draft.build();
        if entry.size_bytes() > limits::ENTRY_SIZE_MAX_BYTES {
            return Err(LdapFailure::new(
                ResultCode::ADMIN_LIMIT_EXCEEDED,
                "entry is larger than the server takes",
            ));
        }
        Ok(())
    }

    /// sAMAccountName is unique in the domain (MS-ADTS 3.1.1.5.1.3).
    pub(super) fn check_account_name(
        &self,
        id: Option<EntryId>,
        draft: &EntryDraft,
    ) -> Result<(), LdapFailure> {
        let Some(attribute) = self.replica.shared.known.sam_account_name else { return Ok(()) };
        let Some(name) = draft.values(attribute).first() else { return Ok(()) };
        let normalized = matching::normalize(Syntax::CaseIgnore, self.reader.tree.folding, name).into_owned();
        let others = self.reader.tree.indexes.candidates(attribute, &normalized).unwrap_or_default();
        let taken = others.into_iter().any(|other| {
            let node = self.reader.tree.node(other).filter(|node| Some(other) != id && !node.entry.deleted);
            node.and_then(|node| node.entry.first(attribute)).is_some_and(|stored| {
                matching::equals(Syntax::CaseIgnore, self.reader.tree.folding, stored, &normalized)
            })
        });
        if taken { Err(self.refuse(ResultCode::ENTRY_ALREADY_EXISTS, "account_exists", &[])) } else { Ok(()) }
    }
}
