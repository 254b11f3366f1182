//! Checklist 1, 6, 7, 11, 12, 15, 16: what a search returns and what it refuses.

use std::collections::BTreeSet;

use causeway_mock_ldap::{Config, Policies};

use crate::client::{
    Search, boolean, children, ctx, enumerated, integer, number, octets, parse, request_control,
    search_operation, sequence,
};
use lber::structure::{PL, StructureTag};

use crate::world::{BASE, ONE_LEVEL, SUBTREE, World};

const SORT: &str = "1.2.840.113556.1.4.473";
const SORT_ANSWER: &str = "1.2.840.113556.1.4.474";
const VLV: &str = "2.16.840.1.113730.3.4.9";
const VLV_ANSWER: &str = "2.16.840.1.113730.3.4.10";

#[tokio::test]
async fn the_root_dse_is_anonymous_and_tells_the_vendor() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    let found = client.search(&Search::new("", BASE, "(objectClass=*)").attributes(&["*", "+"])).await;
    let root = &found.entries[0];
    let capabilities: Vec<_> =
        root.all("supportedCapabilities").iter().map(|v| String::from_utf8_lossy(v)).collect();
    assert!(capabilities.iter().any(|oid| oid == "1.2.840.113556.1.4.800"), "{capabilities:?}");
    assert_eq!(root.first("isSynchronized").as_deref(), Some("TRUE"));
    assert_eq!(root.first("dnsHostName").as_deref(), Some("dc1.acme.example"));
    let usn = root.first("highestCommittedUSN").and_then(|usn| usn.parse::<u64>().ok());
    assert!(usn.is_some_and(|usn| usn > 0), "{usn:?}");
    let other = client.search(&Search::new(&world.base, SUBTREE, "(objectClass=*)")).await;
    assert_eq!(other.done.code, 1, "everything else needs a bind: {:?}", other.done);
    assert!(other.done.text.contains("successful bind must be completed"), "{}", other.done.text);
}

#[tokio::test]
async fn openldap_lets_anonymous_clients_search() {
    let world = World::of("openldap").await;
    let found = world.connect().await.search(&Search::new(&world.base, SUBTREE, "(uid=asmith)")).await;
    assert_eq!((found.done.code, found.entries.len()), (0, 1), "{:?}", found.done);
    assert!(found.entries[0].all("userPassword").is_empty(), "never the password");
}

#[tokio::test]
async fn binary_values_are_searched_byte_by_byte() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let people = Search::new(&world.base, SUBTREE, "(&(objectCategory=person)(objectClass=user))")
        .attributes(&["objectGUID"]);
    let found = client.search(&people).await;
    let odd = found.entries.iter().find(|entry| std::str::from_utf8(&entry.all("objectGUID")[0]).is_err());
    let odd = odd.expect("a GUID that is not UTF-8");
    let escaped: String = odd.all("objectGUID")[0].iter().map(|byte| format!("\\{byte:02x}")).collect();
    let by_guid = client.search(&Search::new(&world.base, SUBTREE, &format!("(objectGUID={escaped})"))).await;
    assert_eq!(by_guid.dns(), [odd.dn.as_str()]);
    let nothing = octets(&[0xff, 0xfe, 0x28, 0x00]);
    let filter = ctx(3, PL::C(vec![octets(b"cn"), nothing]));
    let id = client.send(search_operation(&Search::new(&world.base, SUBTREE, "(a=b)"), filter), vec![]).await;
    let found = client.collect(id).await;
    assert_eq!((found.done.code, found.entries.len()), (0, 0), "a value that is not UTF-8 matches nothing");
}

#[tokio::test]
async fn in_chain_ends_on_cycles() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let (dn, _) = world.person("asmith").await;
    let direct = client.search(&Search::new(&world.base, SUBTREE, &format!("(member={dn})"))).await;
    let filter = format!("(member:1.2.840.113556.1.4.1941:={dn})");
    let nested = client.search(&Search::new(&world.base, SUBTREE, &filter)).await;
    assert_eq!(nested.done.code, 0);
    let direct: BTreeSet<_> = direct.dns().into_iter().map(str::to_owned).collect();
    let nested: BTreeSet<_> = nested.dns().into_iter().map(str::to_owned).collect();
    assert!(!direct.is_empty() && nested.is_superset(&direct), "{direct:?} {nested:?}");
    assert!(nested.len() > direct.len(), "the company nests its groups: {nested:?}");
}

#[tokio::test]
async fn undefined_attributes_match_nothing_also_when_negated() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    for filter in ["(nosuchattribute=x)", "(!(nosuchattribute=x))", "(|)", "(&(cn=*)(nosuchattribute=x))"] {
        let search = Search::new(&world.base, SUBTREE, "(cn=*)").attributes(&["1.1"]);
        let found = if filter == "(|)" {
            let id = client.send(search_operation(&search, ctx(1, PL::C(vec![]))), vec![]).await;
            client.collect(id).await
        } else {
            client.search(&Search { filter, ..search }).await
        };
        assert_eq!((found.done.code, found.entries.len()), (0, 0), "{filter}");
    }
}

#[tokio::test]
async fn references_come_with_a_subtree_and_leave_with_domain_scope() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let search = Search::new(&world.base, SUBTREE, "(sAMAccountName=asmith)").attributes(&["cn"]);
    let found = client.search(&search).await;
    assert!(!found.references.is_empty(), "{:?}", found.done);
    assert!(found.references.iter().all(|uri| uri.starts_with("ldap://")), "{:?}", found.references);
    let scoped = search.clone().control(request_control("1.2.840.113556.1.4.1339", false, None));
    assert!(client.search(&scoped).await.references.is_empty());
    let foreign = client.search(&Search::new("DC=other,DC=test", SUBTREE, "(cn=*)")).await;
    assert_eq!(foreign.done.code, 10, "{:?}", foreign.done);
    assert!(foreign.done.referrals[0].starts_with("ldap://other.test/"), "{:?}", foreign.done.referrals);
    let missing = client.search(&Search::new(&format!("OU=Nowhere,{}", world.base), SUBTREE, "(cn=*)")).await;
    assert_eq!(missing.done.code, 32);
    assert_eq!(String::from_utf8_lossy(&missing.done.matched), world.base);
}

#[tokio::test]
async fn unknown_controls_fail_when_critical_and_pass_otherwise() {
    for personality in ["active_directory", "openldap"] {
        let world = World::of(personality).await;
        let mut client = world.admin().await;
        let search = Search::new(&world.base, BASE, "(objectClass=*)").attributes(&["1.1"]);
        let critical = search.clone().control(request_control("1.2.3.4.5.6", true, None));
        assert_eq!(client.search(&critical).await.done.code, 12, "{personality}");
        let harmless = search.clone().control(request_control("1.2.3.4.5.6", false, None));
        assert_eq!(client.search(&harmless).await.entries.len(), 1, "{personality}");
    }
    let world = World::ad().await;
    let sync = request_control("1.3.6.1.4.1.4203.1.9.1.1", true, Some(sequence(vec![enumerated(1)])));
    let refused =
        world.admin().await.search(&Search::new(&world.base, SUBTREE, "(cn=*)").control(sync)).await;
    assert_eq!(refused.done.code, 12, "syncrepl is not Active Directory's");
}

#[tokio::test]
async fn limits_of_the_client_are_honoured() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let people = Search::new(&world.base, SUBTREE, "(sAMAccountType=805306368)").attributes(&["cn"]);
    let few = client.search(&people.clone().size_limit(3)).await;
    assert_eq!((few.entries.len(), few.done.code), (3, 4));
    let slow = serde_json::json!({ "ms_per_entry": 50 });
    let fault = causeway_mock_kit::fault::Fault::Custom { word: "slow_page".into(), args: slow };
    let _slow = world.mock.faults().guard(causeway_mock_kit::fault::Rule::new(fault).on_operation("search"));
    let timed = client.search(&Search { time_limit: 1, ..people }).await;
    assert_eq!(timed.done.code, 3, "{} entries", timed.entries.len());
    assert!(!timed.entries.is_empty(), "what was found in time is sent");
}

#[tokio::test]
async fn no_search_takes_longer_than_the_server_allows() {
    let mut config = Config::of("active_directory");
    config.policies.query_duration_max_secs = Some(1);
    let world = World::start(config).await;
    let mut client = world.admin().await;
    let slow = serde_json::json!({ "ms_per_entry": 50 });
    let fault = causeway_mock_kit::fault::Fault::Custom { word: "slow_page".into(), args: slow };
    let _slow = world.mock.faults().guard(causeway_mock_kit::fault::Rule::new(fault).on_operation("search"));
    let people = Search::new(&world.base, SUBTREE, "(sAMAccountType=805306368)").attributes(&["cn"]);
    for time_limit in [0, 60] {
        let cut = client.search(&Search { time_limit, ..people.clone() }).await;
        assert_eq!(cut.done.code, 3, "{} entries", cut.entries.len());
        assert!(!cut.entries.is_empty(), "what was found in time is sent");
    }
}

#[tokio::test]
async fn attribute_lists_select() {
    for personality in ["active_directory", "openldap"] {
        let world = World::of(personality).await;
        let (dn, _) = world.person("asmith").await;
        let mut client = world.admin().await;
        let search = Search::new(&dn, BASE, "(objectClass=*)");
        let of = |list| search.clone().attributes(list);
        let none = client.search(&of(&["1.1"])).await;
        assert!(none.entries[0].attributes.is_empty(), "{personality}: {:?}", none.entries[0].names());
        let named = client.search(&of(&["MAIL", "sN"])).await;
        let names: BTreeSet<_> = named.entries[0].names().into_iter().collect();
        assert_eq!(names, BTreeSet::from(["mail", "sn"]), "{personality}: schema case, only what was asked");
        let user = client.search(&search).await.entries.remove(0);
        assert!(user.first("mail").is_some());
        let mut both = of(&["*", "+"]);
        both.types_only = false;
        let all = client.search(&both).await.entries.remove(0);
        assert!(all.attributes.len() > user.attributes.len(), "{personality}: + adds operational attributes");
        let mut types = of(&["mail"]);
        types.types_only = true;
        let bare = client.search(&types).await.entries.remove(0);
        assert_eq!(bare.attributes, [("mail".to_owned(), Vec::<Vec<u8>>::new())], "{personality}");
    }
    let world = World::of("openldap").await;
    let (dn, _) = world.person("asmith").await;
    let class =
        world.admin().await.search(&Search::new(&dn, BASE, "(objectClass=*)").attributes(&["@person"])).await;
    let entry = &class.entries[0];
    assert!(entry.first("sn").is_some() && entry.first("mail").is_none(), "{:?}", entry.names());
}

fn sort(keys: &[(&str, bool)], critical: bool) -> StructureTag {
    let keys = keys.iter().map(|(name, reverse)| {
        let mut key = vec![octets(name.as_bytes())];
        if *reverse {
            key.push(ctx(1, boolean(true).payload));
        }
        sequence(key)
    });
    request_control(SORT, critical, Some(sequence(keys.collect())))
}

fn sort_code(found: &crate::client::Found) -> u64 {
    number(children(parse(found.control(SORT_ANSWER).expect("a sort response"))).remove(0))
}

#[tokio::test]
async fn results_are_sorted_both_ways() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let people = Search::new(&world.base, SUBTREE, "(sAMAccountType=805306368)").attributes(&["sn"]);
    let up = client.search(&people.clone().control(sort(&[("sn", false)], true))).await;
    assert_eq!((up.done.code, sort_code(&up)), (0, 0));
    let names: Vec<_> = up.entries.iter().filter_map(|entry| entry.first("sn")).collect();
    let ascii =
        names.iter().filter(|name| name.is_ascii()).map(|name| name.to_lowercase()).collect::<Vec<_>>();
    assert!(ascii.len() > 100 && ascii.is_sorted(), "{ascii:?}");
    let down = client.search(&people.clone().control(sort(&[("sn", true)], true))).await;
    let last = down.entries.iter().filter_map(|entry| entry.first("sn")).next_back();
    assert_eq!(last.map(|name| name.to_lowercase()), names.first().map(|name| name.to_lowercase()));
    let unknown = client.search(&people.clone().control(sort(&[("nosuchattribute", false)], true))).await;
    assert_eq!((unknown.done.code, sort_code(&unknown)), (12, 16));
    let two = client.search(&people.control(sort(&[("sn", false), ("cn", false)], false))).await;
    assert_eq!((two.done.code, sort_code(&two)), (0, 53), "Active Directory sorts by one key");
}

fn vlv(before: i64, after: i64, target: StructureTag) -> StructureTag {
    request_control(VLV, true, Some(sequence(vec![integer(before), integer(after), target])))
}

#[tokio::test]
async fn virtual_lists_show_a_window() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let people = Search::new(&world.base, SUBTREE, "(sAMAccountType=805306368)").attributes(&["cn", "sn"]);
    let sorted = people.clone().control(sort(&[("cn", false)], true));
    let all = client.search(&sorted).await;
    let offset = |n: i64| ctx(0, PL::C(vec![integer(n), integer(0)]));
    let middle = client.search(&sorted.clone().control(vlv(2, 3, offset(50)))).await;
    assert_eq!(middle.done.code, 0, "{:?}", middle.done);
    assert_eq!(middle.dns(), all.dns()[47..53]);
    let mut answer = children(parse(middle.control(VLV_ANSWER).expect("a VLV response")));
    assert_eq!(number(answer.remove(0)), 50);
    assert_eq!(number(answer.remove(0)) as usize, all.entries.len());
    let by_value = client.search(&sorted.clone().control(vlv(0, 0, ctx(1, PL::P(b"m".to_vec()))))).await;
    let first = by_value.entries[0].first("cn").unwrap().to_lowercase();
    assert!(first.as_str() >= "m", "{first}");
    let unsorted = client.search(&people.control(vlv(0, 1, offset(1)))).await;
    assert_eq!(unsorted.done.code, 60, "{:?}", unsorted.done);
    assert!(unsorted.control(VLV_ANSWER).is_some(), "always answered, or ldapsearch repeats for ever");
}

#[tokio::test]
async fn an_attribute_scoped_query_answers_the_members() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let groups = client
        .search(
            &Search::new(&world.base, SUBTREE, "(&(objectCategory=group)(member=*))").attributes(&["member"]),
        )
        .await;
    let group =
        groups.entries.iter().find(|group| (2..50).contains(&group.all("member").len())).expect("a team");
    let asq = request_control("1.2.840.113556.1.4.1504", true, Some(sequence(vec![octets(b"member")])));
    let found = client
        .search(&Search::new(&group.dn, BASE, "(objectClass=*)").attributes(&["cn"]).control(asq))
        .await;
    assert_eq!(found.done.code, 0, "{:?}", found.done);
    let members: BTreeSet<_> =
        group.all("member").iter().map(|dn| String::from_utf8_lossy(dn).into_owned()).collect();
    assert_eq!(found.dns().into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), members);
}

#[tokio::test]
async fn extended_names_carry_guid_and_sid() {
    let world = World::ad().await;
    let (dn, _) = world.person("asmith").await;
    let control = request_control("1.2.840.113556.1.4.529", true, Some(sequence(vec![integer(1)])));
    let found = world.admin().await.search(&Search::new(&dn, BASE, "(objectClass=*)").control(control)).await;
    let name = &found.entries[0].dn;
    assert!(name.starts_with("<GUID=") && name.contains(">;<SID=S-1-5-21-") && name.ends_with(&dn), "{name}");
}

#[tokio::test]
async fn users_with_hard_names_are_found_by_their_own_names() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    for ou in [ONE_LEVEL, SUBTREE] {
        let found =
            client.search(&Search::new(&world.base, ou, "(objectClass=*)").attributes(&["cn", "name"])).await;
        assert_eq!(found.done.code, 0);
        for entry in found.entries.iter().filter(|entry| entry.all("cn").len() == 1) {
            let again =
                client.search(&Search::new(&entry.dn, BASE, "(objectClass=*)").attributes(&["cn"])).await;
            assert_eq!(again.dns(), [entry.dn.as_str()], "the DN leads back to its entry");
            let escaped: String = entry.all("cn")[0].iter().map(|byte| format!("\\{byte:02x}")).collect();
            let by_name = client.search(&Search::new(&world.base, SUBTREE, &format!("(cn={escaped})"))).await;
            assert!(by_name.dns().contains(&entry.dn.as_str()), "{}", entry.dn);
        }
    }
}

fn substrings(attribute: &[u8], pieces: Vec<StructureTag>) -> StructureTag {
    ctx(4, PL::C(vec![octets(attribute), sequence(pieces)]))
}

#[tokio::test]
async fn filters_nobody_can_evaluate_match_nothing() {
    for world in [World::ad().await, World::of("openldap").await] {
        let mut client = world.admin().await;
        let search = Search::new(&world.base, SUBTREE, "");
        let piece = |kind, text: &[u8]| ctx(kind, PL::P(text.to_vec()));
        for filter in [
            substrings(b"cn", Vec::new()),
            substrings(b"cn", vec![piece(0, b"A"), piece(0, b"A")]),
            substrings(b"cn", vec![piece(1, b"a"), piece(0, b"A")]),
            substrings(b"cn", vec![piece(2, b"h"), piece(1, b"i")]),
            substrings(b"cn", vec![piece(2, b"h"), piece(2, b"h")]),
            substrings(b"cn", vec![piece(3, b"A")]),
            ctx(12, PL::P(b"cn".to_vec())),
        ] {
            // Its contrary matches nothing either, but what does not depend on it does.
            for whole in [filter.clone(), ctx(2, PL::C(vec![filter.clone()]))] {
                let id = client.send(search_operation(&search, whole), Vec::new()).await;
                let found = client.collect(id).await;
                assert_eq!((found.done.code, found.entries.len()), (0, 0), "{filter:?}");
            }
            let domain = ctx(7, PL::P(b"dc".to_vec()));
            let either = ctx(1, PL::C(vec![filter, domain]));
            let id = client.send(search_operation(&search, either), Vec::new()).await;
            assert!(!client.collect(id).await.entries.is_empty());
        }
        let right = substrings(b"cn", vec![piece(0, b"Al"), piece(1, b"ce"), piece(2, b"h")]);
        let id = client.send(search_operation(&search, right), Vec::new()).await;
        assert!(!client.collect(id).await.entries.is_empty(), "Alice Smith");
    }
}

#[tokio::test]
async fn numbers_out_of_range_are_refused_and_the_connection_lives() {
    let world = World::of("openldap").await;
    let mut client = world.admin().await;
    let odd = Search { scope: 9, ..Search::new(&world.base, SUBTREE, "(objectClass=*)") };
    let found = client.search(&odd).await;
    assert_eq!((found.done.code, found.entries.len()), (2, 0), "{:?}", found.done);
    assert_eq!(client.modify(&world.base, &[(7, "description", &[b"x"])]).await.code, 2);
    let found = client.search(&Search::new(&world.base, BASE, "(objectClass=*)")).await;
    assert_eq!((found.done.code, found.entries.len()), (0, 1));
    assert_eq!(world.mock.journal().count(|entry| entry.outcome == "protocolError"), 2);
}

#[tokio::test]
async fn the_empty_base_holds_entries_where_a_server_says_so() {
    for (personality, code) in [("openldap", 32), ("active_directory", 32), ("ds389", 0)] {
        let world = World::of(personality).await;
        let found = world.admin().await.search(&Search::new("", SUBTREE, "(objectClass=*)")).await;
        assert_eq!(found.done.code, code, "{personality}: {:?}", found.done);
        assert_eq!(found.entries.is_empty(), code == 32, "{personality}");
    }
}

#[tokio::test]
async fn compare_says_true_false_or_why_not() {
    let world = World::ad().await;
    let (dn, _) = world.person("asmith").await;
    let mut client = world.admin().await;
    assert_eq!(client.compare(&dn, "sAMAccountName", "ASMITH").await.code, 6);
    assert_eq!(client.compare(&dn, "sAMAccountName", "other").await.code, 5);
    assert_eq!(client.compare(&format!("CN=Nobody,{}", world.base), "cn", "x").await.code, 32);
}

#[tokio::test]
async fn anonymous_search_is_a_policy() {
    let mut config = Config::of("openldap");
    config.policies = Policies { anonymous_search: Some(false), ..Policies::default() };
    let world = World::start(config).await;
    let found = world.connect().await.search(&Search::new(&world.base, SUBTREE, "(uid=asmith)")).await;
    assert_ne!(found.done.code, 0);
    assert!(found.entries.is_empty());
}
