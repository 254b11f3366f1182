//! Directories of the X.500 style: OpenLDAP, 389-ds and Oracle with people in one branch, eDirectory with the
//! company's units as containers, Domino flat.

use std::sync::Arc;

use causeway_mock_kit::world::{Member, Person, PersonState};

use super::super::account::InitialPasswords;
use super::super::entry::EntryWriter;
use super::super::schema::{AttrId, ClassSet};
use super::super::shared::Naming;
use super::super::time_text;
use super::super::types::EntryId;
use super::{Builder, Shape};
use crate::dn::escape_value;
use crate::personality::Vendor;

/// When the organisation entered its directory: 2020-01-01.
const FOUNDED_MS: i64 = 1_577_836_800_000;

impl Builder<'_> {
    pub(super) fn plain(&mut self) {
        let vendor = self.spec.personality.vendor;
        self.name_things(vendor);
        let top = (vendor == Vendor::Domino).then(|| self.nameless_root());
        let base = self.suffix(vendor, top);
        self.landmarks.base = Some(base);
        let places = self.branches(vendor, base);
        let service = self.service_account(vendor, base);
        self.landmarks.service = Some(service);
        let first = self.tree.next_id();
        self.passwords = InitialPasswords::new(first, self.company.service_account.password());
        self.passwords.insert(service, self.company.service_account.password());
        let attributes = PersonAttributes::of(self, vendor);
        let company = self.company;
        for person in &company.people {
            let parent = places.people.get(person.ou).copied().unwrap_or(base);
            self.person(vendor, person, parent, &attributes);
            self.passwords.push_person(&person.password());
        }
        self.landmarks.people = (first, company.people.len() as u32);
        let manager = self.attribute("manager");
        for person in &company.people {
            if let Some(above) = person.manager {
                self.tree.link_new(EntryId(first + person.index), manager, EntryId(first + above));
            }
        }
        self.groups(vendor, &places, top, first, service);
    }

    fn name_things(&mut self, vendor: Vendor) {
        let company = self.company;
        let base = match vendor {
            Vendor::EDirectory => {
                format!("o={}", escape_value(company.organisation.to_ascii_lowercase().as_bytes()))
            }
            Vendor::Domino => format!("O={}", escape_value(company.organisation.as_bytes())),
            _ => company.base_dn.replace("DC=", "dc="),
        };
        let manager = self.spec.personality.manager_dn.as_deref().unwrap_or_default();
        let manager = manager.replace("{base}", &base).replace("{organisation}", &company.organisation);
        self.naming = Naming {
            domain: company.domain.clone(),
            netbios: company.netbios.clone(),
            subschema: if vendor == Vendor::OpenLdap { "cn=Subschema" } else { "cn=schema" }.to_owned(),
            organisation: company.organisation.clone(),
            manager,
            base,
            ..Naming::default()
        };
        self.subschema();
    }

    /// The subschema subentry, a naming context of its own (RFC 4512 4.2).
    fn subschema(&mut self) {
        let classes = self.classes(&["subentry", "subschema", "extensibleObject"]);
        let rdn = self.naming.subschema.clone();
        let (cn, types, objects) =
            (self.attribute("cn"), self.attribute("attributeTypes"), self.attribute("objectClasses"));
        let (descriptions, class_descriptions) =
            (self.schema.attribute_descriptions(), self.schema.class_descriptions());
        let shape = Shape { parent: None, rdn: &rdn, classes: &classes, uuid: None, created_ms: FOUNDED_MS };
        let value = rdn.split_once('=').map_or("schema", |(_, value)| value).to_owned();
        self.put(&shape, |entry| {
            entry.text(cn, &value);
            entry.bytes(types, &descriptions.iter().map(String::as_bytes).collect::<Vec<_>>());
            entry.bytes(objects, &class_descriptions.iter().map(String::as_bytes).collect::<Vec<_>>());
        });
    }

    /// Domino's groups have no suffix: everything hangs below a root that is never shown.
    fn nameless_root(&mut self) -> EntryId {
        let classes = self.classes(&["extensibleObject", "subentry"]);
        self.put(
            &Shape { parent: None, rdn: "", classes: &classes, uuid: None, created_ms: FOUNDED_MS },
            |_| {},
        )
    }

    fn suffix(&mut self, vendor: Vendor, top: Option<EntryId>) -> EntryId {
        let rdn = self.naming.base.clone();
        let organisation = self.company.organisation.clone();
        let label = self.company.domain.split('.').next().unwrap_or_default().to_owned();
        let (o, dc) = (self.attribute("o"), self.attribute("dc"));
        let with_dc = !matches!(vendor, Vendor::EDirectory | Vendor::Domino);
        let classes = if with_dc {
            self.classes(&["organization", "dcObject"])
        } else {
            self.classes(&["organization"])
        };
        let shape = Shape { parent: top, rdn: &rdn, classes: &classes, uuid: None, created_ms: FOUNDED_MS };
        self.put(&shape, |entry| {
            entry.text(o, &organisation);
            if with_dc {
                entry.text(dc, &label);
            }
        })
    }

    fn unit(&mut self, parent: EntryId, name: &str, uuid: Option<[u8; 16]>) -> EntryId {
        let classes = self.classes(&["organizationalUnit"]);
        let rdn = format!("ou={}", escape_value(name.as_bytes()));
        let ou = self.attribute("ou");
        let shape =
            Shape { parent: Some(parent), rdn: &rdn, classes: &classes, uuid, created_ms: FOUNDED_MS };
        self.put(&shape, |entry| {
            entry.text(ou, name);
        })
    }

    /// Containers, and which of them holds the people and groups of each unit of the company.
    fn branches(&mut self, vendor: Vendor, base: EntryId) -> Places {
        let company = self.company;
        match vendor {
            Vendor::Domino => Places::default(),
            Vendor::EDirectory => {
                let mut ids: Vec<EntryId> = Vec::with_capacity(company.ous.len());
                for ou in &company.ous {
                    let parent = ou.parent.and_then(|parent| ids.get(parent).copied()).unwrap_or(base);
                    ids.push(self.unit(parent, &ou.name, Some(ou.guid)));
                }
                Places { people: ids.clone(), groups: ids }
            }
            _ => {
                let people = self.unit(base, "people", None);
                let groups = self.unit(base, "groups", None);
                let count = company.ous.len();
                Places { people: vec![people; count], groups: vec![groups; count] }
            }
        }
    }

    fn service_account(&mut self, vendor: Vendor, base: EntryId) -> EntryId {
        let account = &self.company.service_account;
        let parent = match vendor {
            Vendor::Domino | Vendor::EDirectory => base,
            _ => self.unit(base, "services", None),
        };
        let (cn, sn, uid) = (self.attribute("cn"), self.attribute("sn"), self.attribute("uid"));
        let classes = self.classes(&["inetOrgPerson"]);
        let rdn = match vendor {
            Vendor::Domino => format!("CN={}", escape_value(account.display_name.as_bytes())),
            Vendor::EDirectory => format!("cn={}", account.login),
            _ => format!("uid={}", account.login),
        };
        let shape = Shape {
            parent: Some(parent),
            rdn: &rdn,
            classes: &classes,
            uuid: Some(account.guid),
            created_ms: FOUNDED_MS,
        };
        let common = if vendor == Vendor::EDirectory { account.login } else { account.display_name };
        self.put(&shape, |entry| {
            entry.text(cn, common).text(sn, account.display_name).text(uid, account.login);
        })
    }

    fn person(&mut self, vendor: Vendor, person: &Person, parent: EntryId, at: &PersonAttributes) {
        let rdn = match vendor {
            Vendor::Domino => format!("CN={}", escape_value(person.display_name.as_bytes())),
            Vendor::EDirectory => format!("cn={}", person.login),
            _ => format!("uid={}", person.login),
        };
        let expired = person.state == PersonState::PasswordExpired;
        let set_ms = self.password_set_ms(person.index, expired);
        let now_ms = self.now_ms;
        let company = self.company;
        let shape = Shape {
            parent: Some(parent),
            rdn: &rdn,
            classes: &at.classes,
            uuid: Some(person.guid()),
            created_ms: person.created_ms,
        };
        self.put(&shape, |entry| {
            let common = if vendor == Vendor::EDirectory { &person.login } else { &person.display_name };
            entry.text(at.uid, &person.login).text(at.cn, common).text(at.sn, person.surname);
            entry.text(at.given_name, person.given_name).text(at.display_name, &person.display_name);
            entry
                .text(at.mail, &person.mail)
                .text(at.telephone, &person.phone())
                .text(at.mobile, &person.mobile());
            entry.text(at.title, person.title).text(at.department, person.department);
            entry
                .text(at.employee, &person.employee_id())
                .text(at.city, person.city())
                .text(at.organisation, &company.organisation);
            account_state(vendor, person, set_ms, now_ms, at, entry);
        });
    }

    fn groups(
        &mut self,
        vendor: Vendor,
        places: &Places,
        top: Option<EntryId>,
        first_person: u32,
        service: EntryId,
    ) {
        let company = self.company;
        let base = self.landmarks.base.unwrap_or(service);
        let (cn, description) = (self.attribute("cn"), self.attribute("description"));
        let classes = match vendor {
            Vendor::Domino => self.classes(&["groupOfNames", "dominoGroup"]),
            Vendor::EDirectory => self.classes(&["Group"]),
            Vendor::Oracle => self.classes(&["groupOfUniqueNames"]),
            _ => self.classes(&["groupOfNames"]),
        };
        let first = self.tree.next_id();
        for group in &company.groups {
            let prefix = if vendor == Vendor::Domino { "CN" } else { "cn" };
            let rdn = format!("{prefix}={}", escape_value(group.name.as_bytes()));
            let parent = top.or_else(|| places.groups.get(group.ou).copied()).unwrap_or(base);
            let shape = Shape {
                parent: Some(parent),
                rdn: &rdn,
                classes: &classes,
                uuid: Some(group.guid),
                created_ms: group.created_ms,
            };
            self.put(&shape, |entry| {
                entry.text(cn, &group.name).text(description, &group.description);
            });
        }
        let member = self.attribute(if vendor == Vendor::Oracle { "uniqueMember" } else { "member" });
        for (at, group) in company.groups.iter().enumerate() {
            let from = EntryId(first + at as u32);
            for linked in &group.members {
                let to = match linked {
                    Member::Person(index) => EntryId(first_person + index),
                    Member::Group(index) => EntryId(first + index),
                };
                self.tree.link_new(from, member, to);
            }
            // These classes demand a member.
            if group.members.is_empty() {
                self.tree.link_new(from, member, service);
            }
        }
    }
}

#[derive(Default)]
struct Places {
    people: Vec<EntryId>,
    groups: Vec<EntryId>,
}

struct PersonAttributes {
    classes: Arc<ClassSet>,
    uid: AttrId,
    cn: AttrId,
    sn: AttrId,
    given_name: AttrId,
    display_name: AttrId,
    mail: AttrId,
    telephone: AttrId,
    mobile: AttrId,
    title: AttrId,
    department: AttrId,
    employee: AttrId,
    city: AttrId,
    organisation: AttrId,
    pwd_changed: Option<AttrId>,
    pwd_locked: Option<AttrId>,
    pwd_reset: Option<AttrId>,
    pwd_end: Option<AttrId>,
    account_lock: Option<AttrId>,
    expiration: Option<AttrId>,
    login_disabled: Option<AttrId>,
    login_expiration: Option<AttrId>,
    time_map: Option<AttrId>,
    grace: Option<AttrId>,
    full_name: Option<AttrId>,
    short_name: Option<AttrId>,
}

impl PersonAttributes {
    fn of(builder: &Builder<'_>, vendor: Vendor) -> Self {
        let classes: &[&str] = match vendor {
            Vendor::EDirectory => &["inetOrgPerson", "ndsLoginProperties"],
            Vendor::Domino => &["inetOrgPerson", "dominoPerson"],
            _ => &["inetOrgPerson"],
        };
        let id = |name| builder.attribute(name);
        let maybe = |name| builder.schema.find(name);
        Self {
            classes: builder.classes(classes),
            uid: id("uid"),
            cn: id("cn"),
            sn: id("sn"),
            given_name: id("givenName"),
            display_name: id("displayName"),
            mail: id("mail"),
            telephone: id("telephoneNumber"),
            mobile: id("mobile"),
            title: id("title"),
            department: id("departmentNumber"),
            employee: id("employeeNumber"),
            city: id("l"),
            organisation: id("o"),
            pwd_changed: maybe("pwdChangedTime"),
            pwd_locked: maybe("pwdAccountLockedTime"),
            pwd_reset: maybe("pwdReset"),
            pwd_end: maybe("pwdEndTime"),
            account_lock: maybe("nsAccountLock"),
            expiration: maybe("passwordExpirationTime"),
            login_disabled: maybe("loginDisabled"),
            login_expiration: maybe("loginExpirationTime"),
            time_map: maybe("loginAllowedTimeMap"),
            grace: maybe("loginGraceRemaining"),
            full_name: maybe("FullName"),
            short_name: maybe("ShortName"),
        }
    }
}

/// The state of the account in the vendor's own attributes; what a vendor cannot say stays an open account.
fn account_state(
    vendor: Vendor,
    person: &Person,
    set_ms: i64,
    now_ms: i64,
    at: &PersonAttributes,
    entry: &mut EntryWriter<'_>,
) {
    let past = time_text::generalized(now_ms - 86_400_000);
    let mut put = |attribute: Option<AttrId>, value: &str| {
        if let Some(attribute) = attribute {
            entry.text(attribute, value);
        }
    };
    let state = person.state;
    match vendor {
        Vendor::OpenLdap => {
            put(at.pwd_changed, &time_text::generalized(set_ms));
            match state {
                PersonState::Disabled => put(at.pwd_locked, "000001010000Z"),
                PersonState::Expired => put(at.pwd_end, &past),
                PersonState::MustChange => put(at.pwd_reset, "TRUE"),
                _ => {}
            }
        }
        Vendor::Ds389 | Vendor::Oracle => match state {
            PersonState::Disabled | PersonState::Expired => put(at.account_lock, "TRUE"),
            PersonState::PasswordExpired => put(at.expiration, &past),
            PersonState::MustChange => put(at.pwd_reset, "TRUE"),
            _ => {}
        },
        Vendor::EDirectory => match state {
            PersonState::Disabled => put(at.login_disabled, "TRUE"),
            PersonState::Expired => put(at.login_expiration, &past),
            PersonState::PasswordExpired | PersonState::MustChange => {
                put(at.expiration, &past);
                put(at.grace, "0");
            }
            PersonState::HoursDenied => {
                if let Some(map) = at.time_map {
                    entry.bytes(map, &[&[0; 42]]);
                }
            }
            PersonState::Active => {}
        },
        Vendor::Domino => {
            put(at.full_name, &person.display_name);
            put(at.short_name, &person.login);
        }
        Vendor::ActiveDirectory => {}
    }
}
