//! Binds: name forms, states, lockout.

use std::time::Duration;

use super::*;

fn data(failure: &LdapFailure) -> String {
    let (_, rest) = failure.message.split_once("data ").unwrap_or_default();
    rest.split(',').next().unwrap_or_default().to_owned()
}

#[test]
fn every_name_form_of_active_directory() {
    let world = World::new(Vendor::ActiveDirectory);
    let alice = &world.company.people[0];
    let id = world.find("(sAMAccountName=asmith)")[0];
    let sid = crate::dn::sid_text(&world.server().values(id, "objectSid")[0]).unwrap();
    let forms = [
        world.dn_of(alice),
        "asmith@acme.example".to_owned(),
        "ACME\\asmith".to_owned(),
        "acme.example\\ASMITH".to_owned(),
        world.text(id, "canonicalName"),
        format!("{{{}}}", uuid::Uuid::from_bytes_le(alice.guid())),
        "Alice Smith".to_owned(),
        sid,
    ];
    for name in forms {
        let bound = world.server().authenticate(name.as_bytes(), alice.password().as_bytes());
        assert!(bound.is_ok(), "{name}: {bound:?}");
    }
    for name in ["asmith", "OTHER\\asmith", "asmith@other.example", "acme.example/Nowhere/Alice Smith"] {
        let failure = world.server().authenticate(name.as_bytes(), alice.password().as_bytes()).unwrap_err();
        assert_eq!(
            (failure.code, data(&failure).as_str()),
            (ResultCode::INVALID_CREDENTIALS, "52e"),
            "{name}"
        );
    }
}

#[test]
fn states_show_only_with_the_right_password() {
    let world = World::new(Vendor::ActiveDirectory);
    let cases = [
        (PersonState::Disabled, "533"),
        (PersonState::Expired, "701"),
        (PersonState::PasswordExpired, "532"),
        (PersonState::MustChange, "773"),
        (PersonState::HoursDenied, "530"),
    ];
    for (state, code) in cases {
        let person = world.person(state);
        let dn = world.dn_of(person);
        let right = world.server().authenticate(dn.as_bytes(), person.password().as_bytes()).unwrap_err();
        assert_eq!(data(&right), code, "{state:?}");
        assert!(right.message.ends_with('\0'), "AD's text ends in NUL");
        let wrong = world.server().authenticate(dn.as_bytes(), b"wrong").unwrap_err();
        assert_eq!(data(&wrong), "52e", "{state:?}");
    }
}

#[test]
fn the_threshold_locks_and_time_opens() {
    let world = World::new(Vendor::ActiveDirectory);
    let alice = &world.company.people[0];
    let dn = world.dn_of(alice);
    let id = world.find("(sAMAccountName=asmith)")[0];
    let bind = |password: &str| world.server().authenticate(dn.as_bytes(), password.as_bytes());
    for count in 1..=5 {
        assert_eq!(data(&bind("wrong").unwrap_err()), "52e");
        assert_eq!(world.text(id, "badPwdCount"), count.to_string());
    }
    assert_eq!(data(&bind(&alice.password()).unwrap_err()), "775", "the right password does not help");
    assert_eq!(data(&bind("wrong").unwrap_err()), "775");
    assert_eq!(world.text(id, "msDS-User-Account-Control-Computed"), "16");
    world.clock.advance(Duration::from_secs(1801));
    assert!(bind(&alice.password()).is_ok());
    assert_eq!(world.text(id, "badPwdCount"), "0");
    assert_eq!(world.text(id, "lockoutTime"), "0");
}

#[test]
fn old_failures_are_forgotten_and_success_resets() {
    let world = World::new(Vendor::ActiveDirectory);
    let alice = &world.company.people[0];
    let dn = world.dn_of(alice);
    let bind = |password: &str| world.server().authenticate(dn.as_bytes(), password.as_bytes());
    (0..4).for_each(|_| drop(bind("wrong")));
    world.clock.advance(Duration::from_secs(1801));
    (0..4).for_each(|_| drop(bind("wrong")));
    assert!(bind(&alice.password()).is_ok());
    (0..4).for_each(|_| drop(bind("wrong")));
    assert!(bind(&alice.password()).is_ok(), "the count began anew");
}

#[test]
fn failures_are_counted_per_server_unless_forwarded() {
    let count = |forward: bool| {
        let world = World::with(Vendor::ActiveDirectory, &[("dc1", Some(0)), ("dc2", Some(0))], |spec| {
            spec.accounts.forward_failures = forward;
        });
        let dn = world.dn_of(&world.company.people[0]);
        let id = world.find("(sAMAccountName=asmith)")[0];
        for server in world.directory.servers() {
            assert!(server.authenticate(dn.as_bytes(), b"wrong").is_err());
        }
        world
            .directory
            .servers()
            .iter()
            .map(|server| server.values(id, "badPwdCount")[0].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(count(false), [b"1", b"1"]);
    assert_eq!(count(true), [b"2", b"1"]);
}

#[test]
fn an_empty_password_means_what_the_policy_says() {
    let cases = [
        (EmptyPassword::Reject, Err(ResultCode::INVALID_CREDENTIALS)),
        (EmptyPassword::Unwilling, Err(ResultCode::UNWILLING_TO_PERFORM)),
        (EmptyPassword::Anonymous, Ok(Identity::Anonymous)),
    ];
    for (choice, expected) in cases {
        let world = World::with(Vendor::OpenLdap, &[], |spec| spec.accounts.empty_password = Some(choice));
        let dn = world.dn_of(&world.company.people[0]);
        let result = world.server().authenticate(dn.as_bytes(), b"");
        assert_eq!(result.map(|bound| bound.identity).map_err(|failure| failure.code), expected);
    }
}

#[test]
fn each_vendor_has_its_own_words() {
    let verdict = |vendor: Vendor, state: PersonState| {
        let world = World::new(vendor);
        let person = world.person(state);
        let dn = world.dn_of(person);
        match world.server().authenticate(dn.as_bytes(), person.password().as_bytes()) {
            Ok(bound) => (ResultCode::SUCCESS, bound.policy.error, String::new()),
            Err(failure) => (failure.code, failure.policy.error, failure.message),
        }
    };
    let (code, policy, text) = verdict(Vendor::OpenLdap, PersonState::Disabled);
    assert_eq!((code, policy, text.as_str()), (ResultCode::INVALID_CREDENTIALS, Some(1), ""));
    assert_eq!(
        verdict(Vendor::OpenLdap, PersonState::MustChange).1,
        Some(2),
        "in, but only to change the password"
    );
    assert_eq!(verdict(Vendor::OpenLdap, PersonState::PasswordExpired).1, Some(0));
    assert_eq!(verdict(Vendor::Ds389, PersonState::Disabled).0, ResultCode::UNWILLING_TO_PERFORM);
    assert_eq!(verdict(Vendor::Ds389, PersonState::PasswordExpired).1, Some(0));
    assert!(verdict(Vendor::EDirectory, PersonState::Disabled).2.contains("(-220)"));
    assert!(verdict(Vendor::EDirectory, PersonState::HoursDenied).2.contains("(-218)"));
}

#[test]
fn managers_and_malformed_names_of_openldap() {
    let world = World::new(Vendor::OpenLdap);
    let login = world.directory.service_account();
    let manager = world.directory.manager_dn().to_owned();
    let bound = world.server().authenticate(manager.as_bytes(), login.password.as_bytes()).unwrap();
    assert_eq!(bound.identity, Identity::Manager { dn: manager.clone() });
    assert!(world.server().authenticate(manager.as_bytes(), b"wrong").is_err());
    let malformed = world.server().authenticate(b"ACME\\asmith", b"x").unwrap_err();
    assert_eq!(malformed.code, ResultCode::INVALID_DN_SYNTAX);
}

#[test]
fn ntlm_and_certificates_find_the_same_account() {
    let world = World::new(Vendor::ActiveDirectory);
    let alice = &world.company.people[0];
    let (identity, password) = world.server().ntlm_account("ACME", "ASmith").unwrap();
    assert_eq!(password, alice.password());
    assert!(world.server().account_verdict(&identity, true).is_ok());
    assert!(world.server().account_verdict(&identity, false).is_err());
    assert_eq!(world.server().ntlm_account("ELSEWHERE", "asmith"), None);
    assert_eq!(
        world.server().identity_of_certificate("CN=x", Some("asmith@acme.example")),
        Some(identity.clone())
    );
    assert_eq!(world.server().who_am_i(&identity), "u:ACME\\asmith");
}
