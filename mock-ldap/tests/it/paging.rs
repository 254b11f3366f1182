//! Checklist 4 and 5: pages, cookies, ranges.

use std::collections::BTreeSet;

use causeway_mock_ldap::{Config, Policies};

use crate::client::{Client, Search, page_cookie, paged, request_control};
use crate::world::{BASE, SUBTREE, World};

async fn crowd(users: usize) -> World {
    let mut config = Config::default();
    config.common.users = users;
    World::start(config).await
}

fn people(world: &World) -> Search<'_> {
    Search::new(&world.base, SUBTREE, "(sAMAccountType=805306368)").attributes(&["sAMAccountName"])
}

async fn all_pages(client: &mut Client, search: &Search<'_>, size: i64) -> (Vec<usize>, Vec<String>) {
    let (mut sizes, mut names, mut cookie) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let found = client.search(&search.clone().control(paged(size, &cookie))).await;
        assert_eq!(found.done.code, 0, "{:?}", found.done);
        sizes.push(found.entries.len());
        assert!(sizes.len() < 1000, "paging does not end");
        cookie = page_cookie(&found);
        names.extend(found.entries.into_iter().map(|entry| entry.dn));
        if cookie.is_empty() {
            return (sizes, names);
        }
    }
}

#[tokio::test]
async fn an_unpaged_search_ends_at_a_thousand_with_code_4() {
    let world = crowd(1200).await;
    let found = world.admin().await.search(&people(&world)).await;
    assert_eq!((found.entries.len(), found.done.code), (1000, 4));
}

#[tokio::test]
async fn pages_are_capped_and_cover_everything_once() {
    let world = crowd(2500).await;
    let mut client = world.admin().await;
    let (sizes, names) = all_pages(&mut client, &people(&world), 5000).await;
    assert_eq!(sizes[..2], [1000, 1000], "MaxPageSize caps silently");
    let distinct: BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "nothing twice");
    assert!(names.len() >= 2500, "{}", names.len());
    let (small, again) = all_pages(&mut client, &people(&world), 333).await;
    assert!(small[..small.len() - 1].iter().all(|size| *size == 333), "{small:?}");
    assert_eq!(again, names, "the same order whatever the page size");
}

#[tokio::test]
async fn cookies_are_bound_to_connection_and_query() {
    for personality in ["active_directory", "openldap"] {
        let world = World::of(personality).await;
        let search = Search::new(&world.base, SUBTREE, "(objectClass=person)").attributes(&["cn"]);
        let mut client = world.admin().await;
        let first = client.search(&search.clone().control(paged(10, b""))).await;
        let cookie = page_cookie(&first);
        assert_eq!(first.entries.len(), 10);
        let stranger = world.admin().await.search(&search.clone().control(paged(10, &cookie))).await;
        assert_eq!(stranger.done.code, 53, "{personality}: another connection");
        let other = Search { filter: "(objectClass=organizationalUnit)", ..search.clone() };
        let changed = client.search(&other.control(paged(10, &cookie))).await;
        assert_eq!(changed.done.code, 53, "{personality}: another query");
        let garbage = client.search(&search.clone().control(paged(10, b"garbage"))).await;
        assert_eq!(garbage.done.code, 53, "{personality}: no cookie of ours");
        let second = client.search(&search.clone().control(paged(7, &cookie))).await;
        assert_eq!((second.done.code, second.entries.len()), (0, 7), "{personality}: another size is fine");
        let replay = client.search(&search.clone().control(paged(10, &cookie))).await;
        assert_eq!(replay.done.code, 53, "{personality}: a cookie works once");
        let next = page_cookie(&second);
        let ended = client.search(&search.clone().control(paged(0, &next))).await;
        assert_eq!((ended.done.code, page_cookie(&ended).len()), (0, 0), "{personality}: size 0 gives it up");
        assert_eq!(client.search(&search.control(paged(10, &next))).await.done.code, 53, "{personality}");
    }
}

#[tokio::test]
async fn a_rebind_voids_cookies() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let cookie = page_cookie(&client.search(&people(&world).control(paged(10, b""))).await);
    let login = world.mock.service_account();
    client.bind(&login.upn, &login.password).await;
    assert_eq!(client.search(&people(&world).control(paged(10, &cookie))).await.done.code, 53);
}

#[tokio::test]
async fn a_connection_keeps_ten_result_sets() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let mut cookies = Vec::new();
    for _ in 0..11 {
        cookies.push(page_cookie(&client.search(&people(&world).control(paged(10, b""))).await));
    }
    assert_eq!(
        client.search(&people(&world).control(paged(10, &cookies[0]))).await.done.code,
        53,
        "the oldest is gone"
    );
    assert_eq!(client.search(&people(&world).control(paged(10, &cookies[10]))).await.done.code, 0);
}

#[tokio::test]
async fn openldap_counts_the_size_limit_over_all_pages() {
    let mut config = Config::of("openldap");
    config.common.users = 700;
    let world = World::start(config).await;
    let search = Search::new(&world.base, SUBTREE, "(objectClass=inetOrgPerson)").attributes(&["cn"]);
    let mut anonymous = world.connect().await;
    let found = anonymous.search(&search).await;
    assert_eq!((found.entries.len(), found.done.code), (500, 4));
    let (mut total, mut cookie) = (0, Vec::new());
    let code = loop {
        let found = anonymous.search(&search.clone().control(paged(200, &cookie))).await;
        total += found.entries.len();
        if found.done.code != 0 {
            break found.done.code;
        }
        cookie = page_cookie(&found);
        assert!(!cookie.is_empty(), "ended without an error after {total}");
    };
    assert_eq!((total, code), (500, 4));
    let (_, names) = all_pages(&mut world.admin().await, &search, 200).await;
    assert!(names.len() >= 700, "the service account is exempt: {}", names.len());
}

#[tokio::test]
async fn long_value_lists_are_read_in_ranges() {
    let mut config = Config::default();
    config.common.users = 350;
    config.policies = Policies { values_max: Some(100), ..Policies::default() };
    let world = World::start(config).await;
    let mut client = world.admin().await;
    let group = Search::new(&world.base, SUBTREE, "(cn=All Staff)").attributes(&["member"]);
    let found = client.search(&group).await;
    let group = found.entries[0].clone();
    let plain = group.attributes.iter().find(|(name, _)| name == "member");
    assert!(plain.is_none_or(|(_, values)| values.is_empty()), "an empty member beside the range, or none");
    let (mut members, mut start) = (Vec::new(), 0usize);
    loop {
        let asked = format!("member;range={start}-*");
        let found =
            client.search(&Search::new(&group.dn, BASE, "(objectClass=*)").attributes(&[&asked])).await;
        let entry = &found.entries[0];
        let (name, values) =
            entry.attributes.iter().find(|(name, _)| name.contains(";range=")).expect("a ranged attribute");
        members.extend(values.clone());
        assert!(values.len() <= 100, "{name}");
        if name == &format!("member;range={start}-*") {
            break;
        }
        assert_eq!(name, &format!("member;range={start}-{}", start + 99));
        start += 100;
    }
    let distinct: BTreeSet<_> = members.iter().collect();
    assert_eq!(distinct.len(), members.len());
    assert!(members.len() >= 350, "{}", members.len());
    let explicit = client
        .search(&Search::new(&group.dn, BASE, "(objectClass=*)").attributes(&["member;range=0-9"]))
        .await;
    assert_eq!(explicit.entries[0].all("member;range=0-9").len(), 10);
    let beyond = Search::new(&group.dn, BASE, "(objectClass=*)").attributes(&["member;range=99999-*"]);
    assert_eq!(client.search(&beyond).await.done.code, 1, "beyond the end");
    let no_error = beyond.control(request_control("1.2.840.113556.1.4.1948", true, None));
    assert_eq!(client.search(&no_error).await.done.code, 0);
}

#[tokio::test]
async fn pages_and_virtual_lists_exclude_each_other() {
    use crate::client::{ctx, integer, octets, sequence};
    use lber::structure::PL;
    let world = World::ad().await;
    let sort =
        request_control("1.2.840.113556.1.4.473", true, Some(sequence(vec![sequence(vec![octets(b"cn")])])));
    let target = ctx(0, PL::C(vec![integer(1), integer(0)]));
    let vlv = request_control(
        "2.16.840.1.113730.3.4.9",
        true,
        Some(sequence(vec![integer(0), integer(1), target])),
    );
    let search = people(&world).control(paged(10, b"")).control(sort).control(vlv);
    assert_eq!(world.admin().await.search(&search).await.done.code, 53);
}
