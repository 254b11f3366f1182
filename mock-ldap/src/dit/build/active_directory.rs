//! A domain of Active Directory: the containers every domain has, the built-in groups, the people in their units.

use std::sync::Arc;

use causeway_mock_kit::world::{
    Company, Group, GroupKind, GroupScope, Member, OuKind, Person, PersonState, mailbox_home,
};

use super::super::account::{InitialPasswords, NEVER, UAC_DISABLED, UAC_NEVER_EXPIRES, UAC_NORMAL};
use super::super::entry::EntryWriter;
use super::super::reader::{GROUP_DOMAIN_LOCAL, GROUP_GLOBAL, GROUP_SECURITY, GROUP_UNIVERSAL};
use super::super::schema::{AttrId, ClassSet};
use super::super::shared::{Naming, domain_sid, sid_in_domain, uuid_from};
use super::super::time_text;
use super::super::types::EntryId;
use super::{Builder, DAY_MS, Shape};
use crate::dn::escape_value;

/// When the domain was made: 2019-01-01.
pub(super) const FOUNDED_MS: i64 = 1_546_300_800_000;

/// systemFlags of the heads of the domain: may not be deleted, renamed or moved (MS-ADTS 2.2.10).
const PROTECTED: i64 = -1_946_157_056;

/// Well-known containers (MS-ADTS 6.1.1.4): GUID, name, class.
const WELL_KNOWN: [(&str, &str, &str); 10] = [
    ("aa312825768811d1aded00c04fd8d5cd", "CN=Computers", "container"),
    ("a361b2ffffd211d1aa4b00c04fd7d83a", "OU=Domain Controllers", "organizationalUnit"),
    ("22b70c67d56e4efb91e9300fca3dc1aa", "CN=ForeignSecurityPrincipals", "container"),
    ("ab8153b7768811d1aded00c04fd8d5cd", "CN=LostAndFound", "lostAndFound"),
    ("1eb93889e40c45df9f0c64d23bbb6237", "CN=Managed Service Accounts", "container"),
    ("6227f0af1fc2410d8e3bb10615bb5b0f", "CN=NTDS Quotas", "msDS-QuotaContainer"),
    ("09460c08ae1e4a4ea0f64aee7daa1e5a", "CN=Program Data", "container"),
    ("ab1d30f3768811d1aded00c04fd8d5cd", "CN=System", "container"),
    ("a9d1ca15768811d1aded00c04fd8d5cd", "CN=Users", "container"),
    ("18e2ea80684f11d2b9aa00c04f79f805", "CN=Deleted Objects", "container"),
];

/// Built-in groups in CN=Users: name, relative identifier, scope.
const DOMAIN_GROUPS: [(&str, u32, i64); 9] = [
    ("Domain Admins", 512, GROUP_GLOBAL),
    ("Domain Users", 513, GROUP_GLOBAL),
    ("Domain Guests", 514, GROUP_GLOBAL),
    ("Domain Computers", 515, GROUP_GLOBAL),
    ("Domain Controllers", 516, GROUP_GLOBAL),
    ("Schema Admins", 518, GROUP_UNIVERSAL),
    ("Enterprise Admins", 519, GROUP_UNIVERSAL),
    ("Group Policy Creator Owners", 520, GROUP_GLOBAL),
    ("Protected Users", 525, GROUP_GLOBAL),
];

/// Groups in CN=Builtin, whose SIDs are the same in every domain.
const BUILTIN_GROUPS: [(&str, u32); 4] =
    [("Administrators", 544), ("Users", 545), ("Guests", 546), ("Remote Desktop Users", 555)];

impl Builder<'_> {
    pub(super) fn active_directory(&mut self) {
        let company = self.company;
        let base_dn = company.base_dn.clone();
        let configuration = format!("CN=Configuration,{base_dn}");
        let schema = format!("CN=Schema,{configuration}");
        self.naming = Naming {
            domain: company.domain.clone(),
            netbios: company.netbios.clone(),
            organisation: company.organisation.clone(),
            subschema: format!("CN=Aggregate,{schema}"),
            configuration,
            schema,
            base: base_dn,
            manager: String::new(),
        };
        let base = self.domain_head();
        self.landmarks.base = Some(base);
        self.containers(base);
        let users = self.built_in_accounts(base);
        let units = self.units(base);
        let service = self.service_user(&units, users);
        self.landmarks.service = Some(service);
        let first = self.people(base, &units);
        self.company_groups(base, &units, first);
        self.links_of_people(first);
        self.configuration(base);
        self.domain_controllers();
        let service_password = company.service_account.password();
        self.passwords.insert(service, service_password.clone());
        if let Some(administrator) = self.landmarks.administrator {
            self.passwords.insert(administrator, service_password);
        }
    }

    fn domain_head(&mut self) -> EntryId {
        let classes = self.classes(&["domainDNS"]);
        let rdn = self.naming.base.clone();
        let label = self.company.domain.split('.').next().unwrap_or_default().to_owned();
        let policy = self.spec.accounts.clone();
        let sid = domain_sid(self.spec.seed);
        // Intervals are negative FILETIME differences (MS-ADA2).
        let interval = |seconds: u64| if seconds == 0 { i64::MIN } else { -(seconds as i64) * 10_000_000 };
        let well_known: Vec<String> = WELL_KNOWN
            .iter()
            .map(|(guid, name, _)| format!("B:32:{}:{name},{rdn}", guid.to_ascii_uppercase()))
            .collect();
        let text = [("dc", label)];
        let numbers = [
            ("instanceType", 5),
            ("systemFlags", PROTECTED),
            ("lockoutThreshold", i64::from(policy.lockout_threshold)),
            ("lockoutDuration", interval(policy.lockout_duration_secs)),
            ("lockOutObservationWindow", interval(policy.lockout_window_secs)),
            ("maxPwdAge", interval(policy.password_age_max_secs)),
            ("minPwdAge", interval(86_400)),
            ("minPwdLength", i64::from(policy.password_length_min)),
            ("pwdHistoryLength", 24),
            ("pwdProperties", 1),
            ("forceLogoff", i64::MIN),
            ("ms-DS-MachineAccountQuota", 10),
            ("msDS-Behavior-Version", 7),
        ];
        let attributes: Vec<(AttrId, String)> = text
            .into_iter()
            .chain(numbers.into_iter().map(|(name, number)| (name, number.to_string())))
            .map(|(name, value)| (self.attribute(name), value))
            .collect();
        let (object_sid, known_objects) = (self.attribute("objectSid"), self.attribute("wellKnownObjects"));
        let shape = Shape { parent: None, rdn: &rdn, classes: &classes, uuid: None, created_ms: FOUNDED_MS };
        self.put(&shape, |entry| {
            for (attribute, value) in &attributes {
                entry.text(*attribute, value);
            }
            entry.bytes(object_sid, &[&sid]);
            entry.bytes(known_objects, &well_known.iter().map(String::as_bytes).collect::<Vec<_>>());
        })
    }

    /// An object that is little more than its name. `extra`: text attributes.
    pub(super) fn simple(
        &mut self,
        parent: Option<EntryId>,
        rdn: &str,
        class: &str,
        extra: &[(&str, &str)],
    ) -> EntryId {
        let classes = self.classes(&[class]);
        let instance = self.attribute("instanceType");
        let naming = rdn.split_once('=').map_or("cn", |(attribute, _)| attribute);
        let naming = self.attribute(naming);
        let value = super::super::reader::rdn_value(rdn).unwrap_or_default();
        let extra: Vec<(AttrId, &str)> =
            extra.iter().map(|(name, value)| (self.attribute(name), *value)).collect();
        let kind = if parent.is_some() { 4 } else { 5 };
        let shape = Shape { parent, rdn, classes: &classes, uuid: None, created_ms: FOUNDED_MS };
        self.put(&shape, |entry| {
            entry.bytes(naming, &[&value]).number(instance, kind);
            for (attribute, value) in &extra {
                entry.text(*attribute, value);
            }
        })
    }

    fn containers(&mut self, base: EntryId) {
        for (guid, rdn, class) in WELL_KNOWN {
            let id = self.simple(Some(base), rdn, class, &[("systemFlags", &PROTECTED.to_string())]);
            let guid = crate::dn::from_hex(guid).and_then(|bytes| bytes.try_into().ok());
            self.landmarks.well_known.push((guid.expect("the table has 32 digits each"), id));
            match rdn {
                "CN=LostAndFound" => self.landmarks.lost_and_found = Some(id),
                "CN=Deleted Objects" => self.landmarks.deleted_objects = Some(id),
                "CN=System" => {
                    self.simple(
                        Some(id),
                        "CN=Password Settings Container",
                        "msDS-PasswordSettingsContainer",
                        &[],
                    );
                }
                _ => {}
            }
        }
        self.simple(Some(base), "CN=Builtin", "builtinDomain", &[]);
    }

    fn container(&self, base: EntryId, rdn: &str) -> EntryId {
        let key = super::super::tree::rdn_key(rdn, self.tree.folding).unwrap_or_default();
        self.tree.child_by_key(base, &key).unwrap_or(base)
    }

    /// Administrator, Guest, krbtgt and the built-in groups. Returns CN=Users.
    fn built_in_accounts(&mut self, base: EntryId) -> EntryId {
        let users = self.container(base, "CN=Users");
        let at = AccountAttributes::of(self);
        let administrator =
            self.account(users, "Administrator", "Administrator", 500, UAC_NORMAL | UAC_NEVER_EXPIRES, &at);
        self.account(users, "Guest", "Guest", 501, UAC_NORMAL | UAC_NEVER_EXPIRES | UAC_DISABLED, &at);
        self.account(users, "krbtgt", "krbtgt", 502, UAC_NORMAL | UAC_DISABLED, &at);
        self.landmarks.administrator = Some(administrator);
        let member = self.attribute("member");
        let mut made = Vec::new();
        for (name, rid, scope) in DOMAIN_GROUPS {
            let sid = sid_in_domain(&domain_sid(self.spec.seed), rid);
            made.push(self.group(users, name, &sid, scope | GROUP_SECURITY, None, "", &at));
        }
        let domain_admins = made[0];
        for group in [domain_admins, made[5], made[6]] {
            self.tree.link_new(group, member, administrator);
        }
        let builtin = self.container(base, "CN=Builtin");
        for (name, rid) in BUILTIN_GROUPS {
            let mut sid = vec![1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0];
            sid.extend_from_slice(&rid.to_le_bytes());
            let group =
                self.group(builtin, name, &sid, 1 | GROUP_DOMAIN_LOCAL | GROUP_SECURITY, None, "", &at);
            match rid {
                544 => {
                    for target in [administrator, domain_admins, made[6]] {
                        self.tree.link_new(group, member, target);
                    }
                    self.landmarks.admin_groups.push(group);
                }
                545 => self.tree.link_new(group, member, made[1]),
                _ => {}
            }
        }
        self.landmarks.admin_groups.push(domain_admins);
        users
    }

    fn account(
        &mut self,
        parent: EntryId,
        name: &str,
        login: &str,
        rid: u32,
        control: i64,
        at: &AccountAttributes,
    ) -> EntryId {
        let rdn = format!("CN={}", escape_value(name.as_bytes()));
        let sid = sid_in_domain(&domain_sid(self.spec.seed), rid);
        let classes = at.user.clone();
        let set = time_text::filetime(self.now_ms - DAY_MS);
        let shape =
            Shape { parent: Some(parent), rdn: &rdn, classes: &classes, uuid: None, created_ms: FOUNDED_MS };
        self.put(&shape, |entry| {
            entry.text(at.cn, name).text(at.sam, login).bytes(at.sid, &[&sid]);
            at.account(entry, control, set, NEVER);
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one row, used in two places")]
    fn group(
        &mut self,
        parent: EntryId,
        name: &str,
        sid: &[u8],
        kind: i64,
        group: Option<&Group>,
        description: &str,
        at: &AccountAttributes,
    ) -> EntryId {
        let rdn = format!("CN={}", escape_value(name.as_bytes()));
        let classes = at.group.clone();
        let created_ms = group.map_or(FOUNDED_MS, |group| group.created_ms);
        let uuid = group.map(|group| group.guid);
        let shape = Shape { parent: Some(parent), rdn: &rdn, classes: &classes, uuid, created_ms };
        let mail = group.and_then(|group| group.mail.as_deref()).unwrap_or_default();
        self.put(&shape, |entry| {
            entry.text(at.cn, name).number(at.instance, 4).text(at.sam, name).bytes(at.sid, &[sid]);
            // groupType is a signed 32-bit number (MS-ADTS 2.2.12).
            entry.number(at.group_type, i64::from(kind as u32 as i32)).text(at.description, description);
            if !mail.is_empty() {
                let proxy = format!("SMTP:{mail}");
                entry.text(at.mail, mail).bytes(at.proxy_addresses, &[proxy.as_bytes()]);
            }
        })
    }

    fn units(&mut self, base: EntryId) -> Vec<EntryId> {
        let company = self.company;
        let mut ids: Vec<EntryId> = Vec::with_capacity(company.ous.len());
        let classes = self.classes(&["organizationalUnit"]);
        let (ou_attribute, instance) = (self.attribute("ou"), self.attribute("instanceType"));
        for ou in &company.ous {
            let parent = ou.parent.and_then(|parent| ids.get(parent).copied()).unwrap_or(base);
            let rdn = format!("OU={}", escape_value(ou.name.as_bytes()));
            let shape = Shape {
                parent: Some(parent),
                rdn: &rdn,
                classes: &classes,
                uuid: Some(ou.guid),
                created_ms: FOUNDED_MS,
            };
            ids.push(self.put(&shape, |entry| {
                entry.text(ou_attribute, &ou.name).number(instance, 4);
            }));
        }
        ids
    }

    fn service_user(&mut self, units: &[EntryId], users: EntryId) -> EntryId {
        let service = &self.company.service_account;
        let fallback = self.company.ou_of_kind(OuKind::ServiceAccounts).and_then(|ou| units.get(ou).copied());
        let parent = units.get(service.ou).copied().or(fallback).unwrap_or(users);
        let at = AccountAttributes::of(self);
        let rdn = format!("CN={}", escape_value(service.display_name.as_bytes()));
        let sid = sid_in_domain(&domain_sid(self.spec.seed), service.rid);
        let upn = self.company.upn(service.login);
        let set = time_text::filetime(self.now_ms - DAY_MS);
        let classes = at.user.clone();
        let shape = Shape {
            parent: Some(parent),
            rdn: &rdn,
            classes: &classes,
            uuid: Some(service.guid),
            created_ms: FOUNDED_MS,
        };
        self.put(&shape, |entry| {
            entry.text(at.cn, service.display_name).text(at.sam, service.login).text(at.upn, &upn);
            entry.bytes(at.sid, &[&sid]).text(at.display_name, service.display_name);
            at.account(entry, UAC_NORMAL | UAC_NEVER_EXPIRES, set, NEVER);
        })
    }

    fn people(&mut self, base: EntryId, units: &[EntryId]) -> u32 {
        let first = self.tree.next_id();
        self.passwords = InitialPasswords::new(first, String::new());
        let at = AccountAttributes::of(self);
        let company = self.company;
        let domain_sid = domain_sid(self.spec.seed);
        let mut text = PersonText::default();
        for person in &company.people {
            let parent = units.get(person.ou).copied().unwrap_or(base);
            text.fill(person, &company.domain);
            let (control, expires) = control_and_expiry(person, self.now_ms);
            let set = match person.state {
                PersonState::MustChange => 0,
                state => {
                    let expired = state == PersonState::PasswordExpired;
                    time_text::filetime(self.password_set_ms(person.index, expired))
                }
            };
            let sid = sid_in_domain(&domain_sid, person.rid);
            let home = self.spec.exchange.then(|| mailbox_home_names(company, person.index));
            let shape = Shape {
                parent: Some(parent),
                rdn: &text.rdn,
                classes: &at.user,
                uuid: Some(person.guid()),
                created_ms: person.created_ms,
            };
            self.put(&shape, |entry| {
                at.person(entry, person, &text, &company.organisation, &sid);
                if let Some((database, server)) = &home {
                    entry.text(at.home_database, database).text(at.home_server, server);
                }
                at.account(entry, control, set, expires);
                if person.state == PersonState::HoursDenied {
                    entry.bytes(at.logon_hours, &[&[0; 21]]);
                }
            });
            self.passwords.push_person(&person.password());
        }
        self.landmarks.people = (first, company.people.len() as u32);
        first
    }

    fn company_groups(&mut self, base: EntryId, units: &[EntryId], first_person: u32) {
        let at = AccountAttributes::of(self);
        let company = self.company;
        let domain_sid = domain_sid(self.spec.seed);
        let first = self.tree.next_id();
        for group in &company.groups {
            let parent = units.get(group.ou).copied().unwrap_or(base);
            let scope = match group.scope {
                GroupScope::Global => GROUP_GLOBAL,
                GroupScope::DomainLocal => GROUP_DOMAIN_LOCAL,
                GroupScope::Universal => GROUP_UNIVERSAL,
            };
            let security = if group.kind == GroupKind::Security { GROUP_SECURITY } else { 0 };
            let sid = sid_in_domain(&domain_sid, group.rid);
            self.group(parent, &group.name, &sid, scope | security, Some(group), &group.description, &at);
        }
        let member = self.attribute("member");
        for (index, group) in company.groups.iter().enumerate() {
            for linked in &group.members {
                let to = match linked {
                    Member::Person(person) => EntryId(first_person + person),
                    Member::Group(group) => EntryId(first + group),
                };
                self.tree.link_new(EntryId(first + index as u32), member, to);
            }
        }
    }

    fn links_of_people(&mut self, first: u32) {
        let manager = self.attribute("manager");
        let company = self.company;
        for person in &company.people {
            if let Some(above) = person.manager {
                self.tree.link_new(EntryId(first + person.index), manager, EntryId(first + above));
            }
        }
    }

    /// The computer accounts of the servers.
    fn domain_controllers(&mut self) {
        let Some(base) = self.landmarks.base else { return };
        let parent = self.container(base, "OU=Domain Controllers");
        let classes = self.classes(&["computer"]);
        let at = AccountAttributes::of(self);
        let host = self.attribute("dNSHostName");
        let (system, version) = (self.attribute("operatingSystem"), self.attribute("operatingSystemVersion"));
        let spn = self.attribute("servicePrincipalName");
        let domain = self.company.domain.clone();
        for (index, server) in self.spec.servers.clone().iter().enumerate() {
            let name = server.name.to_ascii_uppercase();
            let rdn = format!("CN={name}");
            let sid = sid_in_domain(&domain_sid(self.spec.seed), 1_000 + index as u32);
            let fqdn = format!("{}.{domain}", server.name);
            let names = [format!("ldap/{fqdn}"), format!("HOST/{name}")];
            let uuid = Some(uuid_from(self.spec.seed ^ 0xdc, index as u64));
            let shape =
                Shape { parent: Some(parent), rdn: &rdn, classes: &classes, uuid, created_ms: FOUNDED_MS };
            self.put(&shape, |entry| {
                entry.text(at.cn, &name).text(at.sam, &format!("{name}$")).bytes(at.sid, &[&sid]);
                entry.number(at.instance, 4).number(at.control, 0x82000).number(at.primary_group, 516);
                entry
                    .text(host, &fqdn)
                    .text(system, "Windows Server 2022 Standard")
                    .text(version, "10.0 (20348)");
                entry.bytes(spn, &names.each_ref().map(|name| name.as_bytes()));
            });
        }
    }
}

/// userAccountControl and accountExpires of a person's state.
fn control_and_expiry(person: &Person, now_ms: i64) -> (i64, i64) {
    match person.state {
        PersonState::Disabled => (UAC_NORMAL | UAC_DISABLED, NEVER),
        PersonState::Expired => (UAC_NORMAL, time_text::filetime(now_ms - 30 * DAY_MS)),
        _ => (UAC_NORMAL, NEVER),
    }
}

/// The texts of one person, reused for the next: a hundred thousand people are built without a hundred thousand
/// times ten allocations.
#[derive(Default)]
struct PersonText {
    rdn: String,
    upn: String,
    proxy: String,
    phone: String,
    mobile: String,
    employee: String,
}

impl PersonText {
    fn fill(&mut self, person: &Person, domain: &str) {
        self.rdn = format!("CN={}", escape_value(person.display_name.as_bytes()));
        self.upn = format!("{}@{domain}", person.login);
        self.proxy = format!("SMTP:{}", person.mail);
        self.phone = person.phone();
        self.mobile = person.mobile();
        self.employee = person.employee_id();
    }
}

struct AccountAttributes {
    user: Arc<ClassSet>,
    group: Arc<ClassSet>,
    cn: AttrId,
    sn: AttrId,
    given_name: AttrId,
    display_name: AttrId,
    sam: AttrId,
    upn: AttrId,
    sid: AttrId,
    mail: AttrId,
    mail_nickname: AttrId,
    proxy_addresses: AttrId,
    home_database: AttrId,
    home_server: AttrId,
    telephone: AttrId,
    mobile: AttrId,
    title: AttrId,
    department: AttrId,
    company: AttrId,
    office: AttrId,
    city: AttrId,
    country: AttrId,
    country_name: AttrId,
    employee: AttrId,
    description: AttrId,
    instance: AttrId,
    control: AttrId,
    primary_group: AttrId,
    group_type: AttrId,
    pwd_last_set: AttrId,
    expires: AttrId,
    code_page: AttrId,
    country_code: AttrId,
    logon_hours: AttrId,
}

impl AccountAttributes {
    fn of(builder: &Builder<'_>) -> Self {
        let id = |name| builder.attribute(name);
        Self {
            user: builder.classes(&["user"]),
            group: builder.classes(&["group"]),
            cn: id("cn"),
            sn: id("sn"),
            given_name: id("givenName"),
            display_name: id("displayName"),
            sam: id("sAMAccountName"),
            upn: id("userPrincipalName"),
            sid: id("objectSid"),
            mail: id("mail"),
            mail_nickname: id("mailNickname"),
            proxy_addresses: id("proxyAddresses"),
            home_database: id("homeMDB"),
            home_server: id("msExchHomeServerName"),
            telephone: id("telephoneNumber"),
            mobile: id("mobile"),
            title: id("title"),
            department: id("department"),
            company: id("company"),
            office: id("physicalDeliveryOfficeName"),
            city: id("l"),
            country: id("c"),
            country_name: id("co"),
            employee: id("employeeID"),
            description: id("description"),
            instance: id("instanceType"),
            control: id("userAccountControl"),
            primary_group: id("primaryGroupID"),
            group_type: id("groupType"),
            pwd_last_set: id("pwdLastSet"),
            expires: id("accountExpires"),
            code_page: id("codePage"),
            country_code: id("countryCode"),
            logon_hours: id("logonHours"),
        }
    }

    fn account(&self, entry: &mut EntryWriter<'_>, control: i64, set: i64, expires: i64) {
        entry.number(self.instance, 4).number(self.control, control).number(self.primary_group, 513);
        entry.number(self.pwd_last_set, set).number(self.expires, expires);
        entry.number(self.code_page, 0).number(self.country_code, 0);
    }

    fn person(
        &self,
        entry: &mut EntryWriter<'_>,
        person: &Person,
        text: &PersonText,
        organisation: &str,
        sid: &[u8],
    ) {
        entry
            .text(self.cn, &person.display_name)
            .text(self.sn, person.surname)
            .text(self.given_name, person.given_name);
        entry
            .text(self.display_name, &person.display_name)
            .text(self.sam, &person.login)
            .text(self.upn, &text.upn);
        entry.bytes(self.sid, &[sid]).text(self.mail, &person.mail).text(self.mail_nickname, &person.login);
        entry.bytes(self.proxy_addresses, &[text.proxy.as_bytes()]);
        entry
            .text(self.telephone, &text.phone)
            .text(self.mobile, &text.mobile)
            .text(self.title, person.title);
        entry.text(self.department, person.department).text(self.company, organisation);
        entry.text(self.office, person.city()).text(self.city, person.city());
        entry.text(self.country, person.country_code()).text(self.country_name, person.country());
        entry.text(self.employee, &text.employee);
    }
}

/// `homeMDB` and `msExchHomeServerName` of a person, as Exchange's setup names its objects.
fn mailbox_home_names(company: &Company, index: u32) -> (String, String) {
    const GROUP: &str = "Exchange Administrative Group (FYDIBOHF23SPDLT)";
    let (server, database) = mailbox_home(index);
    let (organisation, domain) = (&company.organisation, company.domain.replace('.', ",DC="));
    let database = format!(
        "CN={database},CN=Databases,CN={GROUP},CN=Administrative Groups,CN={organisation},CN=Microsoft Exchange,\
         CN=Services,CN=Configuration,DC={domain}"
    );
    let server = server.to_ascii_uppercase();
    (database, format!("/o={organisation}/ou={GROUP}/cn=Configuration/cn=Servers/cn={server}"))
}
