//! Checklist 8, 9, 19: DirSync, USNs, tombstones, replication.

use std::time::Duration;

use causeway_mock_ldap::{Config, Replication};

use crate::client::{Client, Found, Search, dirsync, dirsync_answer, request_control};
use crate::world::{BASE, SUBTREE, World};

const INCREMENTAL: i64 = -2_147_483_648;

/// Runs DirSync until nothing more waits.
async fn sync(client: &mut Client, search: &Search<'_>, flags: i64, cookie: &[u8]) -> (Vec<Found>, Vec<u8>) {
    let (mut pages, mut cookie) = (Vec::new(), cookie.to_vec());
    loop {
        let found = client.search(&search.clone().control(dirsync(flags, 1_000_000, &cookie))).await;
        assert_eq!(found.done.code, 0, "{:?}", found.done);
        let (more, next) = dirsync_answer(&found);
        cookie = next;
        pages.push(found);
        assert!(pages.len() < 1000, "DirSync does not end");
        if !more {
            return (pages, cookie);
        }
    }
}

fn entries(pages: Vec<Found>) -> Vec<crate::client::Entry> {
    pages.into_iter().flat_map(|page| page.entries).collect()
}

const ATTRIBUTES: &[&str] =
    &["name", "sAMAccountName", "title", "member", "objectGUID", "parentGUID", "isDeleted"];

#[tokio::test]
async fn dirsync_tells_adds_changes_renames_and_deletions() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let search = Search::new(&world.base, SUBTREE, "(objectClass=user)").attributes(ATTRIBUTES);
    let (first, cookie) = sync(&mut client, &search, 0, b"").await;
    assert!(entries(first).len() >= 250);
    let (quiet, cookie) = sync(&mut client, &search, 0, &cookie).await;
    assert!(entries(quiet).is_empty(), "nothing changed");

    let (dn, _) = world.person("asmith").await;
    let changed = client.modify(&dn, &[(2, "title", &[b"Chief"])]).await;
    assert_eq!(changed.code, 0, "{changed:?}");
    let (delta, cookie) = sync(&mut client, &search, 0, &cookie).await;
    let delta = entries(delta);
    assert_eq!(delta.len(), 1);
    assert_eq!(delta[0].first("title").as_deref(), Some("Chief"));
    assert!(delta[0].first("sAMAccountName").is_none(), "only what changed: {:?}", delta[0].names());
    assert_eq!(delta[0].all("objectGUID").len(), 1);

    assert_eq!(client.modify_dn(&dn, "CN=Alice Renamed", None).await.code, 0);
    let (delta, cookie) = sync(&mut client, &search, 0, &cookie).await;
    let delta = entries(delta);
    assert_eq!(delta[0].first("name").as_deref(), Some("Alice Renamed"));
    assert_eq!(delta[0].all("parentGUID").len(), 1);

    let dn = delta[0].dn.clone();
    assert_eq!(client.delete(&dn).await.code, 0);
    let (delta, _) = sync(&mut client, &search, 0, &cookie).await;
    let gone = entries(delta);
    let gone =
        gone.iter().find(|entry| entry.first("isDeleted").as_deref() == Some("TRUE")).expect("a tombstone");
    assert!(gone.dn.contains("CN=Deleted Objects") && gone.dn.contains("DEL:"), "{}", gone.dn);
}

#[tokio::test]
async fn incremental_values_name_members_that_came_and_went() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let search = Search::new(&world.base, SUBTREE, "(objectClass=group)").attributes(&["member", "name"]);
    let (_, cookie) = sync(&mut client, &search, INCREMENTAL, b"").await;
    let group =
        client.search(&Search::new(&world.base, SUBTREE, "(cn=All Staff)")).await.entries.remove(0).dn;
    let (dn, _) = world.person("asmith").await;
    assert_eq!(client.modify(&group, &[(1, "member", &[dn.as_bytes()])]).await.code, 0);
    let (delta, cookie) = sync(&mut client, &search, INCREMENTAL, &cookie).await;
    let delta = entries(delta);
    assert_eq!(delta.len(), 1, "{delta:?}");
    assert_eq!(delta[0].all("member;range=0-0"), [dn.clone().into_bytes()]);
    assert_eq!(client.modify(&group, &[(0, "member", &[dn.as_bytes()])]).await.code, 0);
    let (delta, cookie) = sync(&mut client, &search, INCREMENTAL, &cookie).await;
    assert_eq!(entries(delta)[0].all("member;range=1-1"), [dn.clone().into_bytes()]);
    assert_eq!(client.modify(&group, &[(1, "member", &[dn.as_bytes()])]).await.code, 0);
    let (whole, _) = sync(&mut client, &search, 0, &cookie).await;
    assert!(entries(whole)[0].all("member").len() > 100, "without the flag the list comes whole");
}

#[tokio::test]
async fn dirsync_is_refused_for_reasons() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let search = Search::new(&world.base, SUBTREE, "(objectClass=user)").attributes(&["name"]);
    let garbage = client.search(&search.clone().control(dirsync(0, 1000, b"garbage"))).await;
    assert_eq!(garbage.done.code, 12, "{:?}", garbage.done);
    let ou = client
        .search(&Search::new(&world.base, 1, "(objectClass=organizationalUnit)"))
        .await
        .entries
        .remove(0)
        .dn;
    let base = client.search(&Search { base: &ou, ..search.clone() }.control(dirsync(0, 1000, b""))).await;
    assert!([50, 53].contains(&base.done.code), "only the head of a naming context: {:?}", base.done);
    let one = client.search(&Search { scope: 1, ..search.clone() }.control(dirsync(0, 1000, b""))).await;
    assert_ne!(one.done.code, 0, "only the subtree scope");
    let paged = client
        .search(&search.clone().control(dirsync(0, 1000, b"")).control(crate::client::paged(5, b"")))
        .await;
    assert_eq!(paged.done.code, 53);
    let (dn, password) = world.person("asmith").await;
    let mut ordinary = world.connect().await;
    ordinary.bind(&dn, &password).await;
    let rights = ordinary.search(&search.clone().control(dirsync(0, 1000, b""))).await;
    assert_eq!(rights.done.code, 50, "{:?}", rights.done);
    let trimmed = ordinary.search(&search.clone().control(dirsync(1, 1000, b""))).await;
    assert_eq!(trimmed.done.code, 0, "OBJECT_SECURITY needs no right: {:?}", trimmed.done);
    world.mock.directory().set_service_may_replicate(false);
    assert_eq!(client.search(&search.control(dirsync(0, 1000, b""))).await.done.code, 50);
}

#[tokio::test]
async fn a_cookie_works_on_another_server_without_loss() {
    let mut config = Config::default().with_servers(2);
    config.servers[1].replication = Replication::Manual;
    let world = World::start(config).await;
    let mut first = world.admin().await;
    let mut second = world.admin_on("ldap_dc2").await;
    let search = Search::new(&world.base, SUBTREE, "(objectClass=user)").attributes(&["name", "title"]);
    let (_, cookie) = sync(&mut first, &search, 0, b"").await;
    let (dn, _) = world.person("asmith").await;
    assert_eq!(first.modify(&dn, &[(2, "title", &[b"Chief"])]).await.code, 0);
    let (early, cookie) = sync(&mut second, &search, 0, &cookie).await;
    assert!(entries(early).is_empty(), "not replicated yet");
    world.mock.directory().replicate_now();
    let (late, _) = sync(&mut second, &search, 0, &cookie).await;
    assert_eq!(entries(late).len(), 1, "delivered later, never lost");
}

#[tokio::test]
async fn lag_follows_the_clock() {
    let mut config = Config::default().with_servers(2);
    config.servers[1].replication = Replication::LagMs(60_000);
    let world = World::start(config).await;
    let mut first = world.admin().await;
    let mut second = world.admin_on("ldap_dc2").await;
    let (dn, _) = world.person("asmith").await;
    assert_eq!(first.modify(&dn, &[(2, "title", &[b"Chief"])]).await.code, 0);
    let read = Search::new(&dn, BASE, "(title=Chief)").attributes(&["title"]);
    assert!(second.search(&read).await.entries.is_empty(), "stale for a minute");
    let mut changes = world.mock.directory().server("dc2").unwrap().subscribe();
    world.mock.clock().advance(Duration::from_secs(61));
    tokio::time::timeout(crate::client::PATIENCE, changes.changed())
        .await
        .expect("replicated in time")
        .unwrap();
    assert_eq!(second.search(&read).await.entries.len(), 1);
}

#[tokio::test]
async fn usn_polling_finds_changes_and_tombstones() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let usn = |found: Found| found.entries[0].first("highestCommittedUSN").unwrap().parse::<u64>().unwrap();
    let root = Search::new("", BASE, "(objectClass=*)").attributes(&["highestCommittedUSN"]);
    let before = usn(client.search(&root).await);
    let (dn, _) = world.person("asmith").await;
    client.modify(&dn, &[(2, "title", &[b"Chief"])]).await;
    let filter = format!("(&(objectClass=user)(uSNChanged>={})(uSNChanged<={}))", before + 1, before + 100);
    let delta = client.search(&Search::new(&world.base, SUBTREE, &filter).attributes(&["uSNChanged"])).await;
    assert_eq!(delta.dns(), [dn.as_str()]);
    client.delete(&dn).await;
    assert!(client.search(&Search::new(&world.base, SUBTREE, &filter)).await.entries.is_empty());
    let deleted = format!("CN=Deleted Objects,{}", world.base);
    let filter = format!("(&(isDeleted=TRUE)(objectClass=user)(uSNChanged>={}))", before + 1);
    let show = request_control("1.2.840.113556.1.4.417", true, None);
    let found = client.search(&Search::new(&deleted, SUBTREE, &filter).control(show)).await;
    assert_eq!(found.entries.len(), 1, "{:?}", found.done);
    assert_eq!(found.entries[0].first("isDeleted").as_deref(), Some("TRUE"));
    assert!(found.entries[0].first("lastKnownParent").is_some(), "{:?}", found.entries[0].names());
}

#[tokio::test]
async fn a_restore_changes_the_invocation_id() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let root = client.search(&Search::new("", BASE, "(objectClass=*)").attributes(&["dsServiceName"])).await;
    let service = root.entries[0].first("dsServiceName").expect("dsServiceName");
    let read = Search::new(&service, BASE, "(objectClass=*)").attributes(&["invocationId"]);
    let before = client.search(&read).await.entries[0].all("invocationId")[0].clone();
    assert_eq!(before.len(), 16);
    world.mock.directory().servers()[0].set_invocation_id([7; 16]);
    assert_eq!(client.search(&read).await.entries[0].all("invocationId")[0], [7; 16]);
}

#[tokio::test]
async fn a_stale_server_says_so_and_clocks_can_differ() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    let root = Search::new("", BASE, "(objectClass=*)").attributes(&["isSynchronized", "currentTime"]);
    let before = client.search(&root).await.entries.remove(0);
    world.mock.directory().servers()[0].set_synchronized(false);
    world.mock.clock().advance(Duration::from_secs(86_400));
    let after = world.connect().await.search(&root).await.entries.remove(0);
    assert_eq!(after.first("isSynchronized").as_deref(), Some("FALSE"));
    assert!(after.first("currentTime") > before.first("currentTime"), "{after:?}");
}

#[tokio::test]
async fn a_renamed_parent_is_told_its_children_are_not() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let search = Search::new(&world.base, SUBTREE, "(objectClass=*)").attributes(&["name", "parentGUID"]);
    let (_, cookie) = sync(&mut client, &search, 0, b"").await;
    let (dn, _) = world.person("asmith").await;
    let parent = dn.split_once(',').expect("a parent").1;
    assert_eq!(client.modify_dn(parent, "OU=Renamed", None).await.code, 0);
    let (delta, _) = sync(&mut client, &search, 0, &cookie).await;
    let delta = entries(delta);
    assert_eq!(delta.len(), 1, "{:?}", delta.iter().map(|entry| &entry.dn).collect::<Vec<_>>());
    assert_eq!(delta[0].first("name").as_deref(), Some("Renamed"));
    let found = client.search(&Search::new(&world.base, SUBTREE, "(sAMAccountName=asmith)")).await;
    assert!(
        found.entries[0].dn.contains("OU=Renamed"),
        "the child's own name follows: {}",
        found.entries[0].dn
    );
}

#[tokio::test]
async fn a_large_dirsync_comes_in_pages() {
    let mut config = Config::default();
    config.common.users = 3000;
    let world = World::start(config).await;
    let mut client = world.admin().await;
    let search = Search::new(&world.base, SUBTREE, "(objectClass=user)").attributes(&["name"]);
    let (pages, _) = sync(&mut client, &search, 0, b"").await;
    assert!(pages.len() > 1, "more data is announced");
    let mut names: Vec<_> = entries(pages).into_iter().map(|entry| entry.dn).collect();
    let total = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), total, "nothing twice");
    assert!(total >= 3000, "{total}");
}
