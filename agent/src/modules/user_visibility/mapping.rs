//! From an entry of the directory to an object of the cloud. Attributes are asked for by name, never with `*`, and what
//! is not on the list does not travel.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use causeway_protocol::record::{GroupRecord, Kind, Op, OuRecord, Record, UserRecord};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::limits;
use crate::directory::dn::{self, NameHash};
use crate::directory::entry::Entry;
use crate::directory::guid::{IdCodec, ObjectId, sid_rid};
use crate::directory::personality::{MemberNames, Personality};

/// An object, before the id of its parent is known.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) id: ObjectId,
    /// The name it is known by, and the name of what it is in.
    pub(super) name: NameHash,
    pub(super) parent: Option<NameHash>,
    /// A second name it is referred to by: a group's relative id, a user's login.
    pub(super) alias: Option<NameHash>,
    /// A user's primary group, by relative id.
    pub(super) primary: Option<NameHash>,
    /// Where it is, as text.
    pub(super) dn: String,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Ou(OuRecord),
    User(UserRecord),
    Group(GroupRecord),
}

/// An object as it travels, with the hash that tells whether it changed.
pub(super) struct Finished {
    pub(super) value: Box<RawValue>,
    pub(super) hash: [u8; 16],
}

impl Mapped {
    pub(super) fn kind(&self) -> Kind {
        match self.body {
            Body::Ou(_) => Kind::Ou,
            Body::User(_) => Kind::User,
            Body::Group(_) => Kind::Group,
        }
    }

    /// With the parent's id filled in.
    pub(super) fn finish(&mut self, parent: Option<String>) -> Finished {
        let value = match &mut self.body {
            Body::Ou(record) => {
                record.parent = parent;
                raw(record)
            }
            Body::User(record) => {
                record.parent = parent;
                raw(record)
            }
            Body::Group(record) => {
                record.parent = parent;
                raw(record)
            }
        };
        let digest = digest::digest(&digest::SHA256, value.get().as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest.as_ref()[..16]);
        Finished { value, hash }
    }
}

fn raw<T: Serialize>(record: &T) -> Box<RawValue> {
    to_raw_value(record).expect("records serialise to JSON")
}

/// Maps entries of one personality.
pub(super) struct Mapper {
    personality: std::sync::Arc<Personality>,
    /// Names asked for, without the member attributes.
    pub(super) attributes: Vec<String>,
    /// The customer's allow-list.
    extra: Vec<String>,
}

impl Mapper {
    pub(super) fn new(personality: std::sync::Arc<Personality>, extra: &[String]) -> Self {
        let p = &*personality;
        let mut attributes = vec!["objectClass".to_owned(), p.id.attribute.clone()];
        let single = [&p.given_name, &p.surname, &p.mail].into_iter();
        let optional = [&p.upn, &p.primary_group, &p.sid, &p.group_type].into_iter().flatten();
        let lists = [&p.login, &p.display_name, &p.group_name, &p.ou_name].into_iter().flatten();
        attributes.extend(single.chain(optional).chain(lists).cloned());
        attributes.extend(p.disabled.as_ref().map(|rule| rule.attribute.clone()));
        attributes.push("description".to_owned());
        attributes.extend(extra.iter().cloned());
        let mut seen = std::collections::HashSet::new();
        attributes.retain(|name| seen.insert(name.to_ascii_lowercase()));
        Self { personality, attributes, extra: extra.to_vec() }
    }

    /// Names of the member attributes.
    pub(super) fn member_attributes(&self) -> impl Iterator<Item = (&str, MemberNames)> {
        self.personality.members.iter().map(|member| (member.attribute.as_str(), member.names))
    }

    /// How ids are spelled.
    pub(super) fn codec(&self) -> IdCodec {
        self.personality.id.codec
    }

    pub(super) fn personality(&self) -> &Personality {
        &self.personality
    }

    /// The id attribute's value.
    pub(super) fn id(&self, entry: &Entry) -> Option<ObjectId> {
        self.codec().decode(entry.first(&self.personality.id.attribute)?)
    }

    /// The id as uploads spell it.
    pub(super) fn key(&self, id: ObjectId) -> String {
        self.codec().text(id)
    }

    /// What an entry is, by its object classes; `None` for what we do not collect.
    pub(super) fn kind(&self, entry: &Entry) -> Option<Kind> {
        let p = &*self.personality;
        let (mut user, mut group, mut unit, mut not_user) = (false, false, false, false);
        for class in entry.attribute("objectClass")?.values() {
            let is = |names: &[String]| names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(class));
            user |= is(&p.user_classes);
            not_user |= is(&p.not_user_classes);
            group |= is(&p.group_classes);
            unit |= is(&p.ou_classes);
        }
        match (user && !not_user, group, unit) {
            (true, ..) => Some(Kind::User),
            (_, true, _) => Some(Kind::Group),
            (.., true) => Some(Kind::Ou),
            _ => None,
        }
    }

    /// Maps an entry; `None` when it is of no kind we collect, or has no id.
    pub(super) fn map(&self, entry: &Entry) -> Option<Mapped> {
        let id = self.id(entry)?;
        let p = &*self.personality;
        let kind = self.kind(entry)?;
        let dn = entry.dn().into_owned();
        let name = NameHash::of_dn(&dn);
        let parent = dn::parent(&dn).map(NameHash::of_dn);
        let text =
            |name: &str| entry.text(name).map(|text| text.into_owned()).filter(|text| !text.is_empty());
        let first = |names: &[String]| names.iter().find_map(|name| text(name));
        let number = |name: &str| text(name).and_then(|text| text.trim().parse::<i64>().ok());
        let (mut alias, mut primary) = (None, None);
        let body = match kind {
            Kind::User => {
                let login = first(&p.login).unwrap_or_default();
                if p.members.iter().any(|member| member.names == MemberNames::Login) && !login.is_empty() {
                    alias = Some(NameHash::of_login(&login));
                }
                let rid = p.primary_group.as_deref().and_then(number).and_then(|rid| u32::try_from(rid).ok());
                primary = rid.map(NameHash::of_rid);
                Body::User(UserRecord {
                    login,
                    dn: dn.clone(),
                    parent: None,
                    enabled: !self.is_disabled(entry),
                    upn: p.upn.as_deref().and_then(text),
                    display_name: first(&p.display_name),
                    given_name: text(&p.given_name),
                    surname: text(&p.surname),
                    mail: text(&p.mail),
                    attributes: self.extra(entry),
                })
            }
            Kind::Group => {
                alias =
                    p.sid.as_deref().and_then(|sid| entry.first(sid)).and_then(sid_rid).map(NameHash::of_rid);
                Body::Group(GroupRecord {
                    name: first(&p.group_name).unwrap_or_else(|| dn::leaf_value(&dn)),
                    dn: dn.clone(),
                    parent: None,
                    description: text("description"),
                    mail: text(&p.mail),
                    // Bit 31 of groupType (MS-ADTS 2.2.12), a negative number in text.
                    security: p.group_type.as_deref().is_none_or(|name| number(name).is_some_and(|n| n < 0)),
                })
            }
            _ => Body::Ou(OuRecord {
                name: first(&p.ou_name).unwrap_or_else(|| dn::leaf_value(&dn)),
                dn: dn.clone(),
                parent: None,
            }),
        };
        Some(Mapped { id, name, parent, alias, primary, dn, body })
    }

    /// The record of a mapped object.
    pub(super) fn upsert(&self, kind: Kind, id: ObjectId, value: Box<RawValue>) -> Record {
        Record { op: Op::Upsert, kind, key: self.key(id), member: None, v: Some(value) }
    }

    /// The record of an object that is gone.
    pub(super) fn delete(&self, kind: Kind, id: ObjectId) -> Record {
        Record { op: Op::Delete, kind, key: self.key(id), member: None, v: None }
    }

    /// The record of a membership.
    pub(super) fn member(&self, op: Op, group: ObjectId, member: ObjectId) -> Record {
        Record { op, kind: Kind::Member, key: self.key(group), member: Some(self.key(member)), v: None }
    }

    fn is_disabled(&self, entry: &Entry) -> bool {
        let Some(rule) = &self.personality.disabled else { return false };
        let Some(text) = entry.text(&rule.attribute) else { return false };
        match (&rule.bit, &rule.value) {
            (Some(bit), _) => text.trim().parse::<i64>().is_ok_and(|flags| flags & i64::from(*bit) != 0),
            (None, Some(value)) => text.eq_ignore_ascii_case(value),
            (None, None) => true,
        }
    }

    /// Values in a fixed order, because servers give them in any.
    fn extra(&self, entry: &Entry) -> BTreeMap<String, Vec<String>> {
        let mut found = BTreeMap::new();
        for name in &self.extra {
            let Some(attribute) = entry.attribute(name) else { continue };
            let mut values: Vec<String> = attribute
                .values()
                .filter(|value| value.len() <= limits::VALUE_MAX_BYTES)
                .filter_map(|value| std::str::from_utf8(value).ok().map(str::to_owned))
                .collect();
            values.sort_unstable();
            values.truncate(limits::VALUES_MAX);
            if !values.is_empty() {
                found.insert(name.clone(), values);
            }
        }
        found
    }
}

/// The name a member value refers to.
pub(super) fn member_name(names: MemberNames, value: &[u8]) -> NameHash {
    let text = String::from_utf8_lossy(value);
    match names {
        MemberNames::Dn => NameHash::of_dn(&text),
        MemberNames::Login => NameHash::of_login(&text),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::directory::entry::tests::entry;

    fn mapper() -> Mapper {
        let personality = Arc::new(Personality::named("active_directory").unwrap());
        Mapper::new(personality, &["department".to_owned(), "thumbnailPhoto".to_owned()])
    }

    #[test]
    fn a_user_of_active_directory() {
        let entry = entry(
            "CN=Smith\\, Alice,OU=Sales,DC=acme,DC=example",
            &[
                ("objectClass", &[b"top", b"person", b"organizationalPerson", b"user"]),
                (
                    "objectGUID",
                    &[&[
                        0x0e, 0xe4, 0x7e, 0xd7, 0x2d, 0xd1, 0x57, 0x47, 0x97, 0xaf, 0x79, 0x63, 0xd9, 0xb5,
                        0x63, 0xa5,
                    ]],
                ),
                ("sAMAccountName", &[b"asmith"]),
                ("userAccountControl", &[b"514"]),
                ("primaryGroupID", &[b"513"]),
                ("department", &[b"b", b"a"]),
                ("thumbnailPhoto", &[b"\xff\xd8"]),
                ("title", &[b"not asked for"]),
            ],
        );
        let mut mapped = mapper().map(&entry).unwrap();
        assert_eq!(mapped.kind(), Kind::User);
        assert_eq!(mapped.primary, Some(NameHash::of_rid(513)));
        assert_eq!(mapped.parent, Some(NameHash::of_dn("OU=Sales,DC=acme,DC=example")));
        let finished = mapped.finish(Some("p".into()));
        let user: UserRecord = serde_json::from_str(finished.value.get()).unwrap();
        assert!(!user.enabled);
        assert_eq!(user.attributes, BTreeMap::from([("department".into(), vec!["a".into(), "b".into()])]));
        assert_ne!(mapped.finish(None).hash, finished.hash);
    }

    #[test]
    fn computers_are_not_people() {
        let guid: &[u8] = &[1; 16];
        let entry =
            entry("CN=PC1,DC=x", &[("objectClass", &[b"user", b"computer"]), ("objectGUID", &[guid])]);
        assert!(mapper().map(&entry).is_none());
    }

    #[test]
    fn hostile_names_are_values() {
        let name = "o'brien \" () \\ \u{0} \u{202e}rtl";
        let guid: &[u8] = &[2; 16];
        let entry = entry(
            "CN=x,DC=x",
            &[("objectClass", &[b"user"]), ("objectGUID", &[guid]), ("sAMAccountName", &[name.as_bytes()])],
        );
        let finished = mapper().map(&entry).unwrap().finish(None);
        let user: UserRecord = serde_json::from_str(finished.value.get()).unwrap();
        assert_eq!(user.login, name);
    }
}
