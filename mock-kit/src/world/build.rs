//! How a company is generated.

use std::collections::HashMap;

use super::device::{Device, MODELS};
use super::group::{Group, GroupKind, GroupScope, Member};
use super::names::{
    CAST, CULTURES, CastMember, DEPARTMENTS, DEPARTMENTS_PER_LOCATION, GUESTS, LOCATIONS, TEAM_WORDS,
};
use super::person::{Key, Person, PersonState, ServiceAccount, guid};
use super::random::{SplitMix64, mix_two};
use super::{Company, CompanySpec, Ou, OuKind};
use crate::limits::PEOPLE_MAX;

/// Everything in the company was made between these moments (2015-01-01 and 2026-01-01 UTC), whatever the real date.
const FIRST_MS: i64 = 1_420_070_400_000;
const SPAN_MS: u64 = 347_155_200_000;

/// First RID an administrator's object gets in a new domain is 1000 (MS-SAMR 3.1.1.9.2.1); a little room is left for
/// computers.
const SERVICE_RID: u32 = 1_103;
const FIRST_PERSON_RID: u32 = 1_200;

/// Longest letters of a login before its number: together at most 20.
const LOGIN_LETTERS_MAX: usize = 14;

/// Index of the head of the company in the cast.
const HEAD: u32 = 1;

/// People one lead looks after.
const SPAN_OF_CONTROL: usize = 10;

/// People in one team.
const TEAM_SIZE: usize = 20;

/// What the number in a derived key is for, so that no two kinds of object share one.
mod salt {
    pub(super) const PEOPLE: u64 = 1 << 40;
    pub(super) const GROUPS: u64 = 2 << 40;
    pub(super) const OUS: u64 = 3 << 40;
    pub(super) const DEVICES: u64 = 4 << 40;
    pub(super) const SERVICE: u64 = 5 << 40;
}

pub(super) fn company(spec: &CompanySpec) -> Company {
    assert!(spec.users <= PEOPLE_MAX, "a company of {} people is more than {PEOPLE_MAX}", spec.users);
    let layout = Layout::new(spec.seed);
    let mut people = Hiring::new(spec, &layout).everyone();
    let leaves = layout.people_by_leaf(&people);
    appoint_managers(&mut people, &leaves);
    let groups =
        Grouping { spec, layout: &layout, people: &people, leaves: &leaves, groups: Vec::new() }.all();
    let devices = devices(spec, &people);
    let label = spec.domain.split('.').next().unwrap_or_default();
    Company {
        seed: spec.seed,
        domain: spec.domain.clone(),
        netbios: label.to_ascii_uppercase().chars().take(15).collect(),
        organisation: capitalised(label),
        base_dn: spec.domain.split('.').map(|label| format!("DC={label}")).collect::<Vec<_>>().join(","),
        service_account: ServiceAccount {
            login: "svc-causeway",
            display_name: "Causeway Service",
            ou: layout.service_accounts,
            guid: guid(mix_two(spec.seed, salt::SERVICE)),
            rid: SERVICE_RID,
            key: Key::derive(spec.seed, salt::SERVICE),
        },
        ous: layout.ous,
        people,
        groups,
        devices,
    }
}

/// The organisational units, and where departments are among them.
struct Layout {
    ous: Vec<Ou>,
    /// (location, department, unit)
    leaves: Vec<(usize, usize, usize)>,
    groups: usize,
    service_accounts: usize,
}

impl Layout {
    fn new(seed: u64) -> Self {
        let mut ous: Vec<Ou> = Vec::new();
        let mut add = |name: &str, parent, kind| {
            let number = ous.len() as u64;
            ous.push(Ou {
                name: name.to_owned(),
                parent,
                kind,
                guid: guid(mix_two(seed, salt::OUS + number)),
            });
            ous.len() - 1
        };
        let mut leaves = Vec::new();
        for (at, location) in LOCATIONS.iter().enumerate() {
            let office = add(location.city, None, OuKind::Location);
            for department in departments_at(at) {
                let unit = add(DEPARTMENTS[department].name, Some(office), OuKind::Department);
                leaves.push((at, department, unit));
            }
        }
        let groups = add("Groups", None, OuKind::Groups);
        let service_accounts = add("Service Accounts", None, OuKind::ServiceAccounts);
        add("Devices", None, OuKind::Devices);
        Self { ous, leaves, groups, service_accounts }
    }

    fn leaf(&self, location: usize, department: usize) -> usize {
        let exact = self.leaves.iter().position(|leaf| (leaf.0, leaf.1) == (location, department));
        exact
            .or_else(|| self.leaves.iter().position(|leaf| leaf.0 == location))
            .expect("every location has departments")
    }

    /// For each leaf, the indices of its people in order.
    fn people_by_leaf(&self, people: &[Person]) -> Vec<Vec<u32>> {
        let mut leaf_of = vec![usize::MAX; self.ous.len()];
        for (number, leaf) in self.leaves.iter().enumerate() {
            leaf_of[leaf.2] = number;
        }
        let mut lists = vec![Vec::new(); self.leaves.len()];
        for person in people {
            lists[leaf_of[person.ou]].push(person.index);
        }
        lists
    }
}

/// The first location has the first departments; the others start one further each, so that no two are alike.
fn departments_at(location: usize) -> impl Iterator<Item = usize> {
    let first = if location == 0 { 0 } else { (location - 1) % 3 };
    (0..DEPARTMENTS_PER_LOCATION).map(move |step| (first + step) % DEPARTMENTS.len())
}

/// Makes people one after the other and keeps their names apart.
struct Hiring<'a> {
    spec: &'a CompanySpec,
    layout: &'a Layout,
    random: SplitMix64,
    pairs: HashMap<(usize, usize), Pair>,
    logins: Register,
    mails: Register,
    names: Register,
}

/// What follows from a given name and a surname, worked out once per pair of table entries.
#[derive(Clone, Copy)]
struct Pair {
    given: &'static str,
    surname: &'static str,
    login: usize,
    mail: usize,
    name: usize,
}

impl<'a> Hiring<'a> {
    fn new(spec: &'a CompanySpec, layout: &'a Layout) -> Self {
        let mut hiring = Self {
            spec,
            layout,
            random: SplitMix64::new(spec.seed),
            pairs: HashMap::new(),
            logins: Register::default(),
            mails: Register::default(),
            names: Register::default(),
        };
        // The cast's names are taken whether or not the company is big enough for all of it.
        for member in &CAST {
            hiring.logins.take(member.login);
            hiring.mails.take(member.mail);
            hiring.names.take(&format!("{} {}", member.given, member.surname));
        }
        hiring
    }

    fn everyone(mut self) -> Vec<Person> {
        let mut people = Vec::with_capacity(self.spec.users);
        for index in 0..self.spec.users {
            let number = u32::try_from(index).expect("PEOPLE_MAX fits u32");
            people.push(match CAST.get(index) {
                Some(member) => self.cast(number, member),
                None => self.anyone(number),
            });
        }
        people
    }

    fn cast(&mut self, index: u32, member: &'static CastMember) -> Person {
        let leaf = self.layout.leaf(member.location, member.department);
        let full = format!("{} {}", member.given, member.surname);
        Person {
            given_name: member.given,
            surname: member.surname,
            display_name: member.display.map_or(full, str::to_owned).into(),
            login: member.login.into(),
            mail: format!("{}@{}", member.mail, self.spec.domain).into(),
            title: member.title,
            state: member.state,
            ..self.blank(index, leaf)
        }
    }

    fn anyone(&mut self, index: u32) -> Person {
        let leaf_count = self.layout.leaves.len() as u64;
        // The smaller of two picks: early locations become the big ones, as headquarters are.
        let pick = self.random.below(leaf_count).min(self.random.below(leaf_count));
        let leaf = usize::try_from(pick).expect("below the number of leaves");
        let (location, department, _) = self.layout.leaves[leaf];
        let culture = &CULTURES[self.culture(LOCATIONS[location].culture)];
        let (given, surname) = (self.random.pick(culture.given), self.random.pick(culture.surnames));
        let pair = self.pair(given, surname);
        let titles = DEPARTMENTS[department].titles;
        Person {
            given_name: pair.given,
            surname: pair.surname,
            display_name: self.display_name(pair).into(),
            login: self.logins.next(pair.login).into(),
            mail: format!("{}@{}", self.mails.next(pair.mail), self.spec.domain).into(),
            title: self.random.pick(&titles[1..]),
            state: state(self.random.below(1_000)),
            ..self.blank(index, leaf)
        }
    }

    /// Seven of ten come from the office's own culture, two from a frequent one, one from any of the others.
    fn culture(&mut self, home: usize) -> usize {
        let guests = match self.random.below(10) {
            0..=6 => return home,
            7 => &GUESTS[1],
            _ => &GUESTS[0],
        };
        let step = self.random.below(guests.len() as u64);
        guests.start + usize::try_from(step).expect("below the number of cultures")
    }

    /// A person with everything that does not depend on the name.
    fn blank(&self, index: u32, leaf: usize) -> Person {
        let (location, department, ou) = self.layout.leaves[leaf];
        let key = Key::derive(self.spec.seed, salt::PEOPLE + u64::from(index));
        Person {
            index,
            given_name: "",
            surname: "",
            display_name: Box::default(),
            login: Box::default(),
            mail: Box::default(),
            ou,
            department: DEPARTMENTS[department].name,
            title: "",
            location: &LOCATIONS[location],
            manager: None,
            state: PersonState::Active,
            rid: FIRST_PERSON_RID + index,
            created_ms: created(key.part(5)),
            key,
        }
    }

    fn pair(&mut self, given_entry: &'static str, surname_entry: &'static str) -> Pair {
        // Entries are told apart by where they are, which is cheaper than by what they say.
        let key = (given_entry.as_ptr().addr(), surname_entry.as_ptr().addr());
        if let Some(pair) = self.pairs.get(&key) {
            return *pair;
        }
        let (given, given_letters) = latin(given_entry);
        let (surname, letters) = latin(surname_entry);
        let mut login: String = given_letters.chars().take(1).chain(letters.chars()).collect();
        login.truncate(LOGIN_LETTERS_MAX);
        let pair = Pair {
            given,
            surname,
            login: self.logins.place(&login),
            mail: self.mails.place(&format!("{given_letters}.{letters}")),
            // Two tables may share a name, so namesakes are found by what they are called.
            name: self.names.place(&format!("{given} {surname}")),
        };
        self.pairs.insert(key, pair);
        pair
    }

    /// Namesakes get a middle initial, then a number: common names must be unique in a directory.
    fn display_name(&mut self, pair: Pair) -> String {
        let Pair { given, surname, name, .. } = pair;
        let count = self.names.count(name);
        match u8::try_from(count) {
            Ok(1) => format!("{given} {surname}"),
            // 7 and 26 have no common divisor, so the first 26 namesakes get 26 different letters.
            Ok(n @ 2..=27) => format!("{given} {}. {surname}", char::from(b'A' + (n - 2) * 7 % 26)),
            _ => format!("{given} {surname} ({count})"),
        }
    }
}

/// Texts and how often each was given out.
#[derive(Default)]
struct Register {
    places: HashMap<String, usize>,
    counts: Vec<(String, u32)>,
}

impl Register {
    /// Where a text is, entering it if it is new.
    fn place(&mut self, text: &str) -> usize {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.counts.len();
        self.places.insert(text.to_owned(), place);
        self.counts.push((text.to_owned(), 0));
        place
    }

    fn take(&mut self, text: &str) {
        let place = self.place(text);
        self.count(place);
    }

    fn count(&mut self, place: usize) -> u32 {
        let count = &mut self.counts[place].1;
        *count += 1;
        *count
    }

    /// The text the first time, then with 2, 3... after it. Texts hold no digits, so results never meet.
    fn next(&mut self, place: usize) -> String {
        match self.count(place) {
            1 => self.counts[place].0.clone(),
            count => format!("{}{count}", self.counts[place].0),
        }
    }
}

/// Of 1,000 people 30 are disabled, 10 have run out, 8 must change their password, 7 let it run out, 5 are barred by
/// the hour.
fn state(dice: u64) -> PersonState {
    match dice {
        0..30 => PersonState::Disabled,
        30..40 => PersonState::Expired,
        40..48 => PersonState::MustChange,
        48..55 => PersonState::PasswordExpired,
        55..60 => PersonState::HoursDenied,
        _ => PersonState::Active,
    }
}

/// Splits an entry of the name tables into the name and its lower-case ASCII letters.
fn latin(entry: &'static str) -> (&'static str, String) {
    let (name, latin) = entry.split_once('|').unwrap_or((entry, entry));
    (name, letters(latin))
}

fn letters(text: &str) -> String {
    let mut letters = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            'a'..='z' | 'A'..='Z' => letters.push(char),
            _ => letters.push_str(fold(char)),
        }
    }
    letters.make_ascii_lowercase();
    letters
}

/// The usual ASCII spelling of a Latin letter beyond ASCII; nothing for marks and spaces.
fn fold(char: char) -> &'static str {
    match char {
        'Ä' | 'ä' | 'Æ' | 'æ' => "ae",
        'Ö' | 'ö' | 'Ø' | 'ø' => "oe",
        'Ü' | 'ü' => "ue",
        'ß' => "ss",
        'Þ' | 'þ' => "th",
        'À'..='Å' | 'à'..='å' | 'Ą' | 'ą' | 'Ặ' | 'ặ' | 'Ạ' | 'ạ' | 'Ầ' | 'ầ' | 'Ả' | 'ả' => {
            "a"
        }
        'Ç' | 'ç' | 'Ć' | 'ć' | 'Č' | 'č' => "c",
        'Đ' | 'đ' | 'Ð' | 'ð' => "d",
        'È'..='Ë' | 'è'..='ë' | 'Ę' | 'ę' | 'Ě' | 'ě' | 'ễ' => "e",
        'Ğ' | 'ğ' => "g",
        'Ì'..='Ï' | 'ì'..='ï' | 'İ' | 'ı' => "i",
        'Ł' | 'ł' => "l",
        'Ñ' | 'ñ' | 'Ń' | 'ń' => "n",
        'Ò'..='Õ' | 'ò'..='õ' | 'ọ' => "o",
        'Ř' | 'ř' => "r",
        'Ś' | 'ś' | 'Ş' | 'ş' | 'Š' | 'š' => "s",
        'Ù'..='Û' | 'ù'..='û' | 'ứ' => "u",
        'Ý' | 'ý' => "y",
        'Ź' | 'ź' | 'Ż' | 'ż' | 'Ž' | 'ž' => "z",
        _ => "",
    }
}

fn created(number: u64) -> i64 {
    FIRST_MS + i64::try_from(number % SPAN_MS).expect("SPAN_MS fits i64")
}

fn capitalised(label: &str) -> String {
    let mut chars = label.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The head of the company leads the first of each department, who leads the leads, who lead the rest.
fn appoint_managers(people: &mut [Person], leaves: &[Vec<u32>]) {
    let head = (people.len() > 1).then_some(HEAD);
    for leaf in leaves {
        for (at, index) in leaf.iter().enumerate() {
            let person = &mut people[*index as usize];
            person.manager = match at {
                _ if *index == HEAD => None,
                0 => head,
                _ if at % SPAN_OF_CONTROL == 0 => Some(leaf[0]),
                _ => Some(leaf[at / SPAN_OF_CONTROL * SPAN_OF_CONTROL]),
            };
            if at == 0 && *index as usize >= CAST.len() {
                let department = DEPARTMENTS.iter().find(|it| it.name == person.department);
                person.title = department.map_or(person.title, |it| it.titles[0]);
            }
        }
    }
}

struct Grouping<'a> {
    spec: &'a CompanySpec,
    layout: &'a Layout,
    people: &'a [Person],
    leaves: &'a [Vec<u32>],
    groups: Vec<Group>,
}

impl Grouping<'_> {
    fn all(mut self) -> Vec<Group> {
        let everyone = (0..self.people.len()).map(|index| Member::Person(to_u32(index))).collect();
        self.security("All Staff", GroupScope::Universal, everyone, "Everyone who works here");
        let offices = self.offices_and_departments();
        self.access(&offices);
        self.odd_ones();
        self.teams();
        self.groups
    }

    /// One group per department and office, and over them one per department and one per office: three levels with
    /// "Technology". Returns the groups of department and office.
    fn offices_and_departments(&mut self) -> Vec<u32> {
        let mut units = Vec::new();
        for (at, (location, department, _)) in self.layout.leaves.iter().enumerate() {
            let members = self.leaves[at].iter().map(|index| Member::Person(*index)).collect();
            let (city, name) = (LOCATIONS[*location].city, DEPARTMENTS[*department].name);
            let text = format!("{name} in {city}");
            units.push(self.security(&format!("{city} {name}"), GroupScope::Global, members, &text));
        }
        let mut departments = Vec::new();
        for (number, department) in DEPARTMENTS.iter().enumerate() {
            let members = self.units_where(&units, |leaf| leaf.1 == number);
            let text = format!("{} in all offices", department.name);
            departments.push(self.security(department.name, GroupScope::Universal, members, &text));
        }
        for (number, location) in LOCATIONS.iter().enumerate() {
            let members = self.units_where(&units, |leaf| leaf.0 == number);
            let text = format!("Everyone in {}", location.city);
            self.distribution(&format!("Office {}", location.city), members, &text);
        }
        let technology = [0, 4, 6].map(|department| Member::Group(departments[department])).to_vec();
        self.security(
            "Technology",
            GroupScope::Universal,
            technology,
            "Departments that build and run things",
        );
        units
    }

    fn units_where(&self, units: &[u32], pick: impl Fn(&(usize, usize, usize)) -> bool) -> Vec<Member> {
        let leaves = self.layout.leaves.iter().zip(units);
        leaves.filter(|(leaf, _)| pick(leaf)).map(|(_, unit)| Member::Group(*unit)).collect()
    }

    /// Groups that grant something, as applications use them.
    fn access(&mut self, units: &[u32]) {
        let technology = self.groups.iter().position(|group| group.name == "Technology").map(to_u32);
        let technology: Vec<Member> = technology.map(Member::Group).into_iter().collect();
        self.security("VPN Users", GroupScope::DomainLocal, technology, "May connect from outside");
        let mobile =
            self.people.iter().filter(|it| it.is_active()).map(|it| Member::Person(it.index)).collect();
        self.security("Mobile Device Users", GroupScope::Global, mobile, "May enrol a phone");
        let confidential = self.units_where(units, |leaf| leaf.1 == 2);
        self.security("Finance Confidential", GroupScope::DomainLocal, confidential, "May read the books");
        let newsletter =
            self.people.iter().filter(|it| it.key.part(6) % 3 == 0).map(|it| Member::Person(it.index));
        let newsletter = newsletter.collect();
        self.distribution("Newsletter", newsletter, "Reads the company newsletter");
    }

    /// What directories really contain: a cycle, an empty group, names that need escaping.
    fn odd_ones(&mut self) {
        let first = to_u32(self.groups.len());
        let some = |people: &[Person], part: u64| -> Vec<Member> {
            people
                .iter()
                .filter(|it| it.key.part(7) % 16 == part)
                .take(8)
                .map(|it| Member::Person(it.index))
                .collect()
        };
        let mut inside = some(self.people, 1);
        inside.push(Member::Group(first + 1));
        self.security(
            "Project Aurora",
            GroupScope::Global,
            inside,
            "Contains its contractors, who contain it",
        );
        let mut outside = some(self.people, 2);
        outside.push(Member::Group(first));
        self.security(
            "Aurora Contractors",
            GroupScope::Global,
            outside,
            "Contains the project that contains it",
        );
        self.security("Archive Readers", GroupScope::DomainLocal, Vec::new(), "Nobody at the moment");
        let sales = some(self.people, 3);
        self.distribution("Sales, EMEA (North)", sales, "A name with comma and parentheses");
        let lab = some(self.people, 4);
        self.security("R&D \"Lab #1\" \\ Ωμέγα", GroupScope::Global, lab, "A name with everything else");
    }

    fn teams(&mut self) {
        let order: Vec<u32> = self.leaves.iter().flatten().copied().collect();
        for (number, team) in order.chunks(TEAM_SIZE).enumerate() {
            let members = team.iter().map(|index| Member::Person(*index)).collect();
            let name = match number / TEAM_WORDS.len() {
                0 => format!("Team {}", TEAM_WORDS[number]),
                round => format!("Team {} {}", TEAM_WORDS[number % TEAM_WORDS.len()], round + 1),
            };
            self.security(&name, GroupScope::Global, members, "A team");
        }
    }

    fn security(&mut self, name: &str, scope: GroupScope, members: Vec<Member>, description: &str) -> u32 {
        self.add(name, (GroupKind::Security, scope), members, description)
    }

    fn distribution(&mut self, name: &str, members: Vec<Member>, description: &str) -> u32 {
        self.add(name, (GroupKind::Distribution, GroupScope::Universal), members, description)
    }

    fn add(&mut self, name: &str, kind: (GroupKind, GroupScope), members: Vec<Member>, text: &str) -> u32 {
        let index = to_u32(self.groups.len());
        let key = mix_two(self.spec.seed, salt::GROUPS + u64::from(index));
        let mail = (kind.0 == GroupKind::Distribution).then(|| {
            let words: Vec<String> = name.split_whitespace().map(letters).collect();
            format!("{}@{}", words.join("-"), self.spec.domain)
        });
        self.groups.push(Group {
            name: name.to_owned(),
            kind: kind.0,
            scope: kind.1,
            members,
            ou: self.layout.groups,
            guid: guid(key),
            rid: FIRST_PERSON_RID + to_u32(self.people.len()) + index,
            description: text.to_owned(),
            mail,
            created_ms: created(key),
        });
        index
    }
}

/// Three of four active people have a phone, and of these one in five a second device.
fn devices(spec: &CompanySpec, people: &[Person]) -> Vec<Device> {
    let mut devices = Vec::with_capacity(people.len());
    let mut add = |owner: u32, dice: u64| {
        let index = to_u32(devices.len());
        let key = mix_two(spec.seed, salt::DEVICES + u64::from(index));
        let model = &MODELS[usize::try_from(dice % MODELS.len() as u64).expect("below the number of models")];
        devices.push(Device::new(index, owner, model, key));
    };
    for person in people.iter().filter(|person| person.is_active()) {
        let dice = person.key.part(8);
        if person.index == 0 || dice % 4 != 0 {
            add(person.index, dice >> 8);
            if dice % 5 == 0 {
                add(person.index, dice >> 16);
            }
        }
    }
    devices
}

fn to_u32(index: usize) -> u32 {
    u32::try_from(index).expect("PEOPLE_MAX bounds every count well below u32")
}
