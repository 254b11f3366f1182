//! Reading one server's copy: the values of any attribute of an object, wherever they come from.

use std::sync::Mutex;

use super::account::Logons;
use super::entry::Entry;
use super::schema::{AttrId, ClassSet, Computed, Source};
use super::shared::Shared;
use super::time_text;
use super::tree::{Node, Tree};
use super::types::{EntryId, ExtendedDn, View};
use crate::dn;

/// A consistent look at one server's copy, as long as its lock is held.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) shared: &'a Shared,
    pub(crate) logons: &'a Mutex<Logons>,
    pub(crate) view: View,
    /// Attributes that exist only for a base-scope search are answered.
    pub(crate) base_scope: bool,
    pub(crate) extended_dn: Option<ExtendedDn>,
}

/// groupType bits (MS-ADTS 2.2.12).
pub(crate) const GROUP_GLOBAL: i64 = 2;
pub(crate) const GROUP_DOMAIN_LOCAL: i64 = 4;
pub(crate) const GROUP_UNIVERSAL: i64 = 8;
pub(crate) const GROUP_SECURITY: i64 = 0x8000_0000;

impl<'a> Reader<'a> {
    /// Gives every value of an attribute to `emit`. Names of linked objects come in their extended form when the
    /// request asked for it.
    pub(crate) fn each_value(
        &self,
        id: EntryId,
        node: &Node,
        attribute: AttrId,
        emit: &mut dyn FnMut(&[u8]),
    ) {
        let definition = self.tree.schema.attribute(attribute);
        if self.view == View::GlobalCatalog && !definition.in_global_catalog {
            return;
        }
        match &definition.source {
            Source::Stored => node.entry.values(attribute).for_each(emit),
            Source::Link => {
                if !self.hides_link(&node.entry) {
                    self.each_name(self.tree.forward(id, attribute), emit);
                }
                // Names of objects that do not exist stay as written.
                node.entry.values(attribute).for_each(emit);
            }
            Source::BackLink(links) => {
                for link in links {
                    let visible = self.tree.back(id, *link).iter().copied();
                    let visible: Vec<EntryId> =
                        visible.filter(|&group| !self.hides_back_link(group)).collect();
                    self.each_name(&visible, emit);
                }
            }
            Source::Computed(what) => self.computed(id, node, *what, emit),
        }
    }

    pub(crate) fn first_value(&self, id: EntryId, node: &Node, attribute: AttrId) -> Option<Vec<u8>> {
        let mut first = None;
        self.each_value(id, node, attribute, &mut |value| {
            first.get_or_insert_with(|| value.to_vec());
        });
        first
    }

    /// The Global Catalog holds members of universal groups only (MS-ADTS 3.1.1.1.9 and 7.1.1.5).
    pub(crate) fn hides_link(&self, entry: &Entry) -> bool {
        self.view == View::GlobalCatalog && !self.is_universal(entry)
    }

    pub(crate) fn hides_back_link(&self, source: EntryId) -> bool {
        self.view == View::GlobalCatalog
            && self.tree.node(source).is_some_and(|node| !self.is_universal(&node.entry))
    }

    fn is_universal(&self, entry: &Entry) -> bool {
        let kind = self.shared.known.group_type.and_then(|attribute| entry.integer(attribute));
        kind.is_none_or(|kind| kind & GROUP_UNIVERSAL != 0)
    }

    fn each_name(&self, ids: &[EntryId], emit: &mut dyn FnMut(&[u8])) {
        let mut name = String::with_capacity(120);
        for &id in ids {
            name.clear();
            self.name_into(id, &mut name);
            if !name.is_empty() {
                emit(name.as_bytes());
            }
        }
    }

    /// DN, with GUID and SID in front when EXTENDED_DN is in force (MS-ADTS 3.1.1.3.4.1.5).
    pub(crate) fn name_into(&self, id: EntryId, out: &mut String) {
        if let (Some(form), Some(node)) = (self.extended_dn, self.tree.node(id)) {
            let sid = self.shared.known.object_sid.and_then(|attribute| node.entry.first(attribute));
            match form {
                ExtendedDn::Hex => {
                    out.push_str(&format!("<GUID={}>;", dn::to_hex(&node.entry.uuid)));
                    sid.iter().for_each(|sid| out.push_str(&format!("<SID={}>;", dn::to_hex(sid))));
                }
                ExtendedDn::Text => {
                    out.push_str(&format!("<GUID={}>;", uuid::Uuid::from_bytes_le(node.entry.uuid)));
                    let text = sid.and_then(dn::sid_text);
                    text.iter().for_each(|sid| out.push_str(&format!("<SID={sid}>;")));
                }
            }
        }
        self.tree.dn_into(id, out);
    }

    fn computed(&self, id: EntryId, node: &Node, what: Computed, emit: &mut dyn FnMut(&[u8])) {
        let entry = &*node.entry;
        let mut text = |value: String| emit(value.as_bytes());
        match what {
            Computed::ObjectClass => {
                entry
                    .classes
                    .shown
                    .iter()
                    .for_each(|&class| emit(self.tree.schema.class(class).name().as_bytes()));
            }
            Computed::StructuralClass => self.structural_class(&entry.classes, emit),
            Computed::ObjectCategory if !entry.deleted => text(self.category_dn(&entry.classes)),
            Computed::ObjectCategory => {}
            Computed::Guid => emit(&entry.uuid),
            Computed::UuidText => text(uuid::Uuid::from_bytes(entry.uuid).to_string()),
            Computed::NsUniqueId => text(ns_unique_id(&entry.uuid)),
            Computed::DominoUnid => text(dn::to_hex(&entry.uuid).to_ascii_uppercase()),
            Computed::RdnValue => rdn_value(&entry.rdn).iter().for_each(|value| emit(value)),
            Computed::EntryDn => {
                let mut name = String::new();
                self.name_into(id, &mut name);
                emit(name.as_bytes());
            }
            Computed::CanonicalName => text(self.canonical_name(id)),
            Computed::ParentGuid => {
                if let Some(parent) = entry.parent.and_then(|parent| self.tree.node(parent)) {
                    emit(&parent.entry.uuid);
                }
            }
            Computed::PrincipalName => {
                let account = self.shared.known.sam_account_name.and_then(|attribute| entry.first(attribute));
                let account = account.map(String::from_utf8_lossy);
                account.iter().for_each(|account| text(format!("{}\\{account}", self.shared.naming.netbios)));
            }
            Computed::SubschemaSubentry => text(self.shared.naming.subschema.clone()),
            Computed::ManagerName => text(self.shared.naming.manager.clone()),
            Computed::HasSubordinates => {
                emit(if self.tree.children(id).is_empty() { b"FALSE" } else { b"TRUE" });
            }
            Computed::NumSubordinates => text(self.tree.children(id).len().to_string()),
            Computed::EntryNumber => text((id.0 + 1).to_string()),
            Computed::ParentNumber => entry.parent.iter().for_each(|parent| text((parent.0 + 1).to_string())),
            Computed::Revision => text((node.usn_changed - node.usn_created + 1).to_string()),
            Computed::IsDeleted if entry.deleted => emit(b"TRUE"),
            Computed::IsDeleted => {}
            Computed::SecurityDescriptor => emit(DESCRIPTOR),
            Computed::AllowedAttributes => {
                self.tree.schema.attributes().for_each(|(_, attribute)| emit(attribute.name().as_bytes()));
            }
            Computed::UsnCreated
            | Computed::UsnChanged
            | Computed::EntryUsn
            | Computed::WhenCreated
            | Computed::WhenChanged
            | Computed::CreateTimestamp
            | Computed::ModifyTimestamp
            | Computed::EntryCsn
            | Computed::ContextCsn => self.change_stamp(node, what, emit),
            Computed::SamAccountType | Computed::AccountControl | Computed::PrimaryGroupToken => {
                self.security_number(entry, what).iter().for_each(|number| text(number.to_string()));
            }
            Computed::TokenGroups
            | Computed::TokenGroupsGlobal
            | Computed::MemberOfTransitive
            | Computed::MemberTransitive => {
                if self.base_scope {
                    self.transitive(id, node, what, emit);
                }
            }
            Computed::BadCount
            | Computed::BadTime
            | Computed::LastLogon
            | Computed::LastLogonTime
            | Computed::LogonCount
            | Computed::FailureTimes
            | Computed::RetryReset
            | Computed::LockedFlag => self.logon_value(id, node, what, emit),
        }
    }

    fn structural_class(&self, classes: &ClassSet, emit: &mut dyn FnMut(&[u8])) {
        let schema = &self.tree.schema;
        if schema.shows_superiors {
            // Active Directory answers the whole chain (MS-ADTS 3.1.1.4.5.12).
            schema
                .lineage(classes.structural)
                .iter()
                .for_each(|&class| emit(schema.class(class).name().as_bytes()));
        } else {
            emit(schema.class(classes.structural).name().as_bytes());
        }
    }

    /// DN of the schema object that stands for a class in objectCategory.
    pub(crate) fn category_dn(&self, classes: &ClassSet) -> String {
        category_dn(&self.tree.schema.class(classes.structural).category, &self.shared.naming.schema)
    }

    fn change_stamp(&self, node: &Node, what: Computed, emit: &mut dyn FnMut(&[u8])) {
        let mut text = |value: String| emit(value.as_bytes());
        match what {
            Computed::UsnCreated => text(node.usn_created.to_string()),
            Computed::UsnChanged => text(node.usn_changed.to_string()),
            Computed::EntryUsn => {
                text((node.usn_changed - self.tree.log.base_usn().min(node.usn_changed)).to_string())
            }
            Computed::WhenCreated => text(time_text::generalized_ad(node.entry.created_ms)),
            Computed::WhenChanged => text(time_text::generalized_ad(node.changed_ms)),
            Computed::CreateTimestamp => text(time_text::generalized(node.entry.created_ms)),
            Computed::ModifyTimestamp => text(time_text::generalized(node.csn.at_ms)),
            Computed::EntryCsn => text(node.csn.text()),
            // On the suffix only; one value per server that ever wrote.
            _ if node.entry.parent.is_none() => {
                super::syncrepl::context(self).iter().for_each(|csn| text(csn.text()))
            }
            _ => {}
        }
    }

    fn security_number(&self, entry: &Entry, what: Computed) -> Option<i64> {
        let known = &self.shared.known;
        let integer = |attribute: Option<AttrId>| attribute.and_then(|attribute| entry.integer(attribute));
        match what {
            Computed::SamAccountType if entry.deleted => None,
            Computed::SamAccountType => {
                match (integer(known.group_type), integer(known.user_account_control)) {
                    (Some(kind), _) => {
                        let local = if kind & GROUP_DOMAIN_LOCAL != 0 { 0x2000_0000 } else { 0x1000_0000 };
                        Some(local + i64::from(kind & GROUP_SECURITY == 0))
                    }
                    (None, Some(control)) if control & 0x3000 != 0 => Some(0x3000_0001),
                    (None, Some(control)) if control & 0x800 != 0 => Some(0x3000_0002),
                    (None, Some(_)) => Some(0x3000_0000),
                    (None, None) => None,
                }
            }
            Computed::AccountControl => {
                let control = integer(known.user_account_control)?;
                let locked = i64::from(self.is_locked(entry)) * 0x10;
                let expired = i64::from(self.password_expired(entry, control)) * 0x80_0000;
                Some(locked | expired)
            }
            _ => {
                integer(known.group_type)?;
                let sid = entry.first(known.object_sid?)?;
                Some(i64::from(u32::from_le_bytes(*sid.last_chunk::<4>()?)))
            }
        }
    }

    fn transitive(&self, id: EntryId, node: &Node, what: Computed, emit: &mut dyn FnMut(&[u8])) {
        let Some(member) = self.shared.known.member else { return };
        match what {
            Computed::MemberTransitive => self.each_name(&self.tree.closure(id, &[member], false), emit),
            Computed::MemberOfTransitive => self.each_name(&self.tree.closure(id, &[member], true), emit),
            _ => {
                for group in self.token_groups(id, &node.entry) {
                    let Some(group) = self.tree.node(group) else { continue };
                    let kind = self
                        .shared
                        .known
                        .group_type
                        .and_then(|it| group.entry.integer(it))
                        .unwrap_or_default();
                    let wanted = kind & GROUP_SECURITY != 0
                        && (what == Computed::TokenGroups || kind & (GROUP_GLOBAL | GROUP_UNIVERSAL) != 0);
                    let sid = self.shared.known.object_sid.and_then(|attribute| group.entry.first(attribute));
                    sid.filter(|_| wanted).iter().for_each(|sid| emit(sid));
                }
            }
        }
    }

    /// All groups an account is in, over any number of steps, the primary group included.
    fn token_groups(&self, id: EntryId, entry: &Entry) -> Vec<EntryId> {
        let known = &self.shared.known;
        let Some(member) = known.member else { return Vec::new() };
        let mut groups = self.tree.closure(id, &[member], true);
        let primary = known.primary_group.and_then(|attribute| entry.integer(attribute));
        let primary = primary.and_then(|rid| self.group_of_rid(u32::try_from(rid).ok()?));
        if let Some(primary) = primary.filter(|primary| !groups.contains(primary)) {
            groups.push(primary);
            let above = self.tree.closure(primary, &[member], true);
            above.into_iter().for_each(|group| {
                if !groups.contains(&group) {
                    groups.push(group)
                }
            });
        }
        groups
    }

    /// The group with a relative identifier of this domain. Primary groups are nearly always the built-in ones.
    pub(crate) fn group_of_rid(&self, rid: u32) -> Option<EntryId> {
        let sid = self.shared.sid(rid);
        let (object_sid, group_type) = (self.shared.known.object_sid?, self.shared.known.group_type?);
        let is_it = |node: &Node| {
            node.entry.first(object_sid) == Some(&sid) && node.entry.first(group_type).is_some()
        };
        match self.tree.indexes.candidates(object_sid, &sid) {
            Some(ids) => ids.into_iter().find(|&id| self.tree.node(id).is_some_and(is_it)),
            None => self.tree.nodes().find(|(_, node)| is_it(node)).map(|(id, _)| id),
        }
    }

    /// `acme.example/Berlin/Sales/Jane Doe` (MS-ADTS 3.1.1.4.5.2).
    pub(crate) fn canonical_name(&self, id: EntryId) -> String {
        let mut parts = Vec::new();
        let mut at = id;
        while let Some(node) = self.tree.node(at) {
            match node.entry.parent {
                Some(parent) => {
                    let value = rdn_value(&node.entry.rdn).unwrap_or_default();
                    parts.push(String::from_utf8_lossy(&value).replace('/', "\\/"));
                    at = parent;
                }
                None => {
                    parts.push(canonical_root(&node.entry.rdn));
                    break;
                }
            }
        }
        parts.reverse();
        if parts.len() == 1 { format!("{}/", parts[0]) } else { parts.join("/") }
    }
}

/// `CN=Person,CN=Schema,...` for a class name such as `person`: schema objects are named with capitals and hyphens.
pub(crate) fn category_dn(class: &str, schema_base: &str) -> String {
    format!("CN={},{schema_base}", schema_cn(class))
}

/// The common name of a schema object: `organizationalUnit` -> `Organizational-Unit`.
pub(crate) fn schema_cn(display_name: &str) -> String {
    let fixed = match display_name {
        "domainDNS" => Some("Domain-DNS"),
        "nTDSDSA" => Some("NTDS-DSA"),
        "dMD" => Some("DMD"),
        "cn" => Some("Common-Name"),
        "sn" => Some("Surname"),
        _ => None,
    };
    if let Some(name) = fixed {
        return name.to_owned();
    }
    let mut out = String::new();
    let mut lower_before = false;
    for character in display_name.chars() {
        if character.is_ascii_uppercase() && lower_before {
            out.push('-');
        }
        lower_before = character.is_ascii_lowercase() || character.is_ascii_digit();
        if out.is_empty() { out.extend(character.to_uppercase()) } else { out.push(character) }
    }
    out
}

/// DN of a naming context as a canonical name: the DNS labels, then the rest.
fn canonical_root(dn: &str) -> String {
    let Ok(parsed) = dn::Dn::parse(dn.as_bytes()) else { return dn.to_owned() };
    let values = |labels: bool| {
        let parts = parsed.rdns.iter().flat_map(|rdn| &rdn.parts);
        let wanted = parts.filter(move |part| part.attribute.eq_ignore_ascii_case("dc") == labels);
        wanted.map(|part| String::from_utf8_lossy(&part.value).into_owned()).collect::<Vec<_>>()
    };
    let (labels, mut path) = (values(true), values(false));
    path.reverse();
    path.insert(0, labels.join("."));
    path.join("/")
}

/// 389-ds's layout: four groups of eight hex digits (not RFC 9562).
pub(crate) fn ns_unique_id(uuid: &[u8; 16]) -> String {
    uuid.chunks_exact(4).map(dn::to_hex).collect::<Vec<_>>().join("-")
}

/// Unescaped value of a relative name, of its first part when there are several.
pub(crate) fn rdn_value(rdn: &str) -> Option<Vec<u8>> {
    let mut dn = dn::Dn::parse(rdn.as_bytes()).ok()?;
    let mut first = (!dn.rdns.is_empty()).then(|| dn.rdns.remove(0))?;
    Some(first.parts.remove(0).value)
}

/// A self-relative security descriptor (MS-DTYP 2.4.6): owner and group Administrators, no access lists. Access in
/// this server follows from group membership, not from descriptors.
const DESCRIPTOR: &[u8] = &[
    1, 0, 0x00, 0x80, 20, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, // revision, control, four offsets
    1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0, // S-1-5-32-544
    1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_schema_objects() {
        let cases = [
            ("person", "Person"),
            ("organizationalUnit", "Organizational-Unit"),
            ("builtinDomain", "Builtin-Domain"),
        ];
        for (class, name) in cases {
            assert_eq!(schema_cn(class), name);
        }
        assert_eq!(category_dn("domainDNS", "CN=Schema,DC=x"), "CN=Domain-DNS,CN=Schema,DC=x");
    }

    #[test]
    fn canonical_roots_start_with_the_dns_name() {
        assert_eq!(canonical_root("DC=acme,DC=example"), "acme.example");
        assert_eq!(
            canonical_root("CN=Schema,CN=Configuration,DC=acme,DC=example"),
            "acme.example/Configuration/Schema"
        );
    }

    #[test]
    fn unique_ids_have_the_measured_shape() {
        let uuid =
            [0x52, 0x13, 0xa0, 0xae, 0xe6, 0x31, 0x11, 0xf1, 0xa8, 0x21, 0xbe, 0x6c, 0x09, 0x1e, 0x3b, 0x7a];
        assert_eq!(ns_unique_id(&uuid), "5213a0ae-e63111f1-a821be6c-091e3b7a");
    }
}
