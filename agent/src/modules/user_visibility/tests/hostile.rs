//! Servers that answer what they should not, and directories that hold what nobody expects.

use super::*;

#[tokio::test]
async fn an_incomplete_scan_deletes_nothing() {
    let bench = Bench::start("openldap", json!({})).await;
    bench.sync().await;
    let before = bench.world.cloud.objects();
    for fault in [
        Fault::Custom { word: "close_mid_page".into(), args: json!({"entries": 5}) },
        Fault::status("sizeLimitExceeded", ""),
        Fault::status("busy", ""),
        Fault::status("timeLimitExceeded", ""),
        Fault::Custom { word: "referral_loop".into(), args: json!({}) },
        Fault::status("unavailableCriticalExtension", ""),
        Fault::Malformed { kind: "wrong_message_id".into() },
        Fault::Malformed { kind: "nesting_bomb".into() },
    ] {
        let shown = format!("{fault:?}");
        let asked = bench.world.ldap.journal().count(|entry| entry.operation == "search");
        let _cut = bench.world.ldap.faults().guard(Rule::new(fault).on_operation("search").after(1));
        let done = bench.run(Task { full: true, ..Task::default() }).await;
        assert!(done.is_err(), "{shown}: {done:?}");
        assert_eq!(bench.world.cloud.objects(), before, "{shown}");
        // Neither asked for ever nor led in circles: a few searches in each of a few attempts.
        let asked = bench.world.ldap.journal().count(|entry| entry.operation == "search") - asked;
        assert!(asked <= 30, "{shown}: {asked} searches\n{}", bench.world.shown_journal());
    }
}

#[tokio::test]
async fn malformed_answers_end_in_errors_within_bounds() {
    for kind in
        ["wrong_message_id", "truncated_ber", "oversized_ber", "indefinite_length", "garbage", "nesting_bomb"]
    {
        let mut config = Config::default();
        config.common.users = 20;
        let bench = Bench::with(config, json!({})).await;
        let rule = Rule::new(Fault::Malformed { kind: kind.into() }).on_operation("search").after(2);
        let _bad = bench.world.ldap.faults().guard(rule);
        let error = tokio::time::timeout(Duration::from_secs(30), bench.run(Task::default())).await;
        let error = error.unwrap_or_else(|_| panic!("{kind} holds us for ever")).unwrap_err();
        assert!(matches!(error, SyncError::Directory { .. }), "{kind}: {error:?}");
        assert!(bench.world.cloud.uploads().is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn a_silent_server_is_left_for_the_next() {
    let bench = Bench::start("active_directory", json!({})).await;
    let silent = Rule::new(Fault::Stall {}).on_operation("search").on_front("ldaps");
    let _silent = bench.world.ldap.faults().guard(silent);
    let result = tokio::time::timeout(Duration::from_secs(30), bench.run(Task::default())).await;
    let result = result.expect("it waits with a bound").unwrap();
    assert_ne!(result["server"], bench.world.ldap.address("ldaps"));
    bench.assert_current("a silent server").await;
}

#[tokio::test]
async fn a_group_of_fifty_thousand_unknown_names_is_one_group() {
    let bench = Bench::start("openldap", json!({})).await;
    let base = bench.world.ldap.directory().base_dn().to_owned();
    let members = (0..50_000).map(|n| format!("uid=nobody{n},ou=elsewhere,{base}").into_bytes()).collect();
    let attributes = vec![
        ("objectClass".to_owned(), vec![b"groupOfNames".to_vec()]),
        ("cn".to_owned(), vec![b"crowd".to_vec()]),
        ("member".to_owned(), members),
    ];
    assert!(bench.write(WriteOp::Add { dn: format!("cn=crowd,{base}").into_bytes(), attributes }));
    let result = bench.sync().await;
    assert!(result["unresolved_members"].as_u64() >= Some(50_000), "{result}");
    let groups = bench.world.cloud.values(Kind::Group);
    let crowd = groups.iter().find(|(_, group)| group["name"] == "crowd").expect("the group is there").0;
    let edges = bench.world.cloud.objects().into_keys().filter(|k| k.0 == Kind::Member && k.1 == *crowd);
    assert_eq!(edges.count(), 0, "nobody of them is known");
}

#[tokio::test]
async fn an_entry_that_is_no_object_and_text_that_is_no_text_are_passed_over() {
    for fault in [
        Fault::Custom { word: "huge_entry".into(), args: json!({ "values": 50_000 }) },
        Fault::Malformed { kind: "non_utf8".into() },
    ] {
        let bench = Bench::start("active_directory", json!({"strategy": "scan"})).await;
        let shown = format!("{fault:?}");
        let base = bench.world.ldap.directory().base_dn().to_owned();
        let odd = bench.world.ldap.faults().guard(Rule::new(fault).on_operation("search").on_subject(&base));
        let result = bench.run(Task::default()).await;
        assert_eq!(bench.world.cloud.count(Kind::User), 0, "{shown}: {result:?}");
        drop(odd);
        bench.sync().await;
        bench.assert_current(&shown).await;
    }
}

#[tokio::test]
async fn people_arrive_under_whatever_name_they_have() {
    let long = "n".repeat(1_000);
    let names = [
        "Quo \"ted\" O'Name",
        "(&(objectClass=*))",
        "Back\\slash\\2a",
        "nul\0byte",
        "\u{202e}\u{5d0}\u{5d1}\u{5d2} left",
        " # leading, trailing; + ",
        "e\u{301}\u{1f980}\u{fffe}",
        &long,
    ];
    for strategy in ["syncrepl", "scan"] {
        let bench = Bench::start("openldap", json!({"strategy": strategy})).await;
        bench.sync().await;
        let unit = bench.dns(Kind::Ou).remove(0);
        for name in names {
            let value = |attribute: &str| (attribute.to_owned(), vec![name.as_bytes().to_vec()]);
            let mut attributes = vec![("objectClass".to_owned(), vec![b"inetOrgPerson".to_vec()])];
            attributes.extend(["uid", "cn", "sn", "displayName"].map(value));
            let dn = format!("uid={},{unit}", crate::directory::dn::escape(name));
            assert!(bench.write(WriteOp::Add { dn: dn.into_bytes(), attributes }), "{name:?}");
        }
        bench.sync().await;
        let users = bench.world.cloud.values(Kind::User);
        for name in names {
            let found: Vec<&Value> = users.values().filter(|user| user["display_name"] == name).collect();
            assert_eq!(found.len(), 1, "{strategy}: {name:?}");
            assert_eq!(found[0]["login"], name, "{strategy}: {name:?}");
        }
        bench.assert_current(strategy).await;
    }
}
