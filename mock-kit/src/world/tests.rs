use std::collections::{HashMap, HashSet};

use super::*;

fn company(seed: u64, users: usize) -> Company {
    Company::generate(&CompanySpec { seed, users, domain: "acme.example".to_owned() })
}

/// A hash of everything a mock shows of a company, in a text of its own, so that a new field changes nothing here.
fn fingerprint(company: &Company) -> String {
    let mut text =
        format!("{} {} {}\n", company.base_dn, company.netbios, company.service_account.password());
    for ou in &company.ous {
        text.push_str(&format!("{} {:?} {:x?}\n", ou.name, ou.parent, ou.guid));
    }
    for it in &company.people {
        let name = format!("{}|{}|{}|{}|{}", it.given_name, it.surname, it.display_name, it.login, it.mail);
        let place = format!("{}|{}|{}|{}|{:?}", it.ou, it.title, it.city(), it.phone(), it.manager);
        let account =
            format!("{:?}|{}|{}|{:x?}|{}", it.state, it.rid, it.created_ms, it.guid(), it.password());
        text.push_str(&format!("{name}|{place}|{account}\n"));
    }
    for it in &company.groups {
        text.push_str(&format!("{}|{:?}|{}|{:x?}|{:?}\n", it.name, it.members, it.rid, it.guid, it.mail));
    }
    for it in &company.devices {
        text.push_str(&format!("{}|{}|{}|{}\n", it.owner, it.model.name, it.serial(), it.eas_id()));
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_seed_decides_everything() {
    let first = fingerprint(&company(1, 250));
    assert_eq!(fingerprint(&company(1, 250)), first);
    assert_ne!(fingerprint(&company(2, 250)), first);
    let json = |company: Company| serde_json::to_string(&company).unwrap();
    assert_eq!(json(company(1, 250)), json(company(1, 250)));
    // Recorded scenarios and demos name these people: a change here must be deliberate and in the changelog.
    assert_eq!(first, include_str!("golden.txt").trim(), "the company of seed 1 is no longer what it was");
}

#[test]
fn a_bigger_company_has_the_same_people_first() {
    let (small, big) = (company(1, 40), company(1, 400));
    for (one, other) in small.people.iter().zip(&big.people) {
        assert_eq!(
            (&one.login, &one.display_name, one.guid(), one.password()),
            (&other.login, &other.display_name, other.guid(), other.password())
        );
    }
}

#[test]
fn the_hero_is_there_in_every_company() {
    for (seed, users) in [(1, 250), (77, 2), (3, 1_000)] {
        let company = company(seed, users);
        let alice = &company.people[0];
        assert_eq!(
            (&*alice.login, &*alice.display_name, &*alice.mail),
            ("asmith", "Alice Smith", "alice.smith@acme.example")
        );
        assert!(alice.is_active() && alice.manager.is_some());
        assert!(company.devices.iter().any(|device| device.owner == 0));
    }
    assert_eq!(company(1, 1).people[0].manager, None);
    assert!(company(1, 0).people.is_empty());
    assert_eq!(company(1, 1).upn("asmith"), "asmith@acme.example");
}

#[test]
fn every_state_is_there_from_ten_people_on() {
    let company = company(1, 10);
    for state in [
        PersonState::Active,
        PersonState::Disabled,
        PersonState::Expired,
        PersonState::PasswordExpired,
        PersonState::MustChange,
        PersonState::HoursDenied,
    ] {
        assert!(company.first_in_state(state).is_some(), "{state:?}");
    }
}

#[test]
fn names_are_alive_and_hard() {
    let company = company(1, 250);
    let names: Vec<&str> = company.people.iter().map(|person| &*person.display_name).collect();
    for hard in [
        "Conor O'Brien",
        "Smith, Robert",
        "José (Pepe) Núñez",
        "William \"Bill\" Turner",
        "Jürgen Groß",
        "יעל כהן",
        "Ann Back\\Slash",
    ] {
        assert!(names.contains(&hard), "{hard}");
    }
    // X.520's upper bound for common names.
    assert_eq!(names.iter().map(|name| name.chars().count()).max(), Some(64));
    let scripts: HashSet<bool> = names.iter().map(|name| name.is_ascii()).collect();
    assert_eq!(scripts.len(), 2);
    assert_eq!(
        (company.netbios.as_str(), company.base_dn.as_str(), company.organisation.as_str()),
        ("ACME", "DC=acme,DC=example", "Acme")
    );
    let departments = company.ous.iter().filter(|ou| ou.kind == OuKind::Department).count();
    assert_eq!(departments, 48);
    let path: Vec<&str> = company.ou_path(company.people[0].ou).iter().map(|ou| ou.name.as_str()).collect();
    assert_eq!(path, ["London", "Engineering"]);
}

#[test]
fn managers_lead_to_the_head_of_the_company() {
    let company = company(5, 2_000);
    for person in &company.people {
        let mut steps = 0;
        let mut at = person;
        while let Some(manager) = at.manager {
            at = &company.people[manager as usize];
            steps += 1;
            assert!(steps < 10, "the line above {} does not end", person.login);
        }
        assert_eq!(at.index, 1, "{} reports to {}", person.login, at.login);
    }
}

#[test]
fn groups_nest_have_a_cycle_and_one_holds_everyone() {
    let company = company(1, 250);
    let everyone = company.group("All Staff").unwrap();
    assert_eq!(everyone.members.len(), 250);
    let at = |name: &str| company.groups.iter().position(|group| group.name == name).unwrap();
    let aurora = Member::Group(u32::try_from(at("Project Aurora")).unwrap());
    let contractors = Member::Group(u32::try_from(at("Aurora Contractors")).unwrap());
    assert!(company.groups[at("Project Aurora")].members.contains(&contractors));
    assert!(company.groups[at("Aurora Contractors")].members.contains(&aurora));
    assert!(company.group("Archive Readers").unwrap().members.is_empty());
    let technology = company.group("Technology").unwrap();
    assert!(technology.members.iter().all(|member| matches!(member, Member::Group(_))));
    let names: HashSet<&str> = company.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names.len(), company.groups.len());
    let distribution = company.groups.iter().filter(|group| group.kind == GroupKind::Distribution);
    let mails: Vec<&String> = distribution.map(|group| group.mail.as_ref().unwrap()).collect();
    assert_eq!(mails.iter().collect::<HashSet<_>>().len(), mails.len(), "{mails:?}");
    assert!(mails.iter().all(|mail| mail.is_ascii() && !mail.contains(['(', ',', ' '])), "{mails:?}");
}

#[test]
fn a_hundred_thousand_people_are_told_apart() {
    let company = company(1, 100_000);
    let count = |of: &dyn Fn(&Person) -> String| company.people.iter().map(of).collect::<HashSet<_>>().len();
    assert_eq!(count(&|it| it.login.to_string()), 100_000);
    assert_eq!(count(&|it| it.mail.to_string()), 100_000);
    assert_eq!(count(&|it| it.display_name.to_lowercase()), 100_000);
    assert_eq!(count(&|it| it.employee_id()), 100_000);
    assert_eq!(count(&Person::password), 100_000);
    for person in &company.people[22..] {
        let login = &person.login;
        assert!(
            login.len() <= 20 && login.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
            "{login}"
        );
        assert!(person.mail.is_ascii(), "{}", person.mail);
    }
    let mut guids = HashSet::new();
    let mut rids = HashMap::new();
    for person in &company.people {
        guids.insert(person.guid());
        rids.insert(person.rid, &*person.login);
    }
    for group in &company.groups {
        guids.insert(group.guid);
        rids.insert(group.rid, &group.name);
    }
    guids.extend(company.ous.iter().map(|ou| ou.guid));
    guids.insert(company.service_account.guid);
    rids.insert(company.service_account.rid, company.service_account.login);
    assert_eq!(guids.len(), 100_000 + company.groups.len() + company.ous.len() + 1);
    assert_eq!(rids.len(), 100_000 + company.groups.len() + 1);
    assert!(company.groups.len() > 5_000, "{} groups", company.groups.len());
}

#[test]
fn passwords_are_good_and_stay_out_of_sight() {
    let company = company(1, 30);
    let json = serde_json::to_string(&company).unwrap();
    let debug = format!("{company:?}");
    let mut passwords: Vec<String> = company.people.iter().map(Person::password).collect();
    passwords.push(company.service_account.password());
    for password in passwords {
        assert!(password.len() >= 14 && password.contains('-'), "{password}");
        assert!(
            password.bytes().any(|it| it.is_ascii_digit())
                && password.bytes().any(|it| it.is_ascii_uppercase())
        );
        assert!(!json.contains(&password) && !debug.contains(&password), "{password} is shown");
    }
}
