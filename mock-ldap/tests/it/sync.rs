//! Checklist 10 and the searches that stay: syncrepl, persistent search, change notification.

use causeway_mock_ldap::Config;
use lber::structure::{PL, StructureTag};

use crate::client::{
    Client, Found, Search, app, boolean, bytes, children, control, entry, enumerated, integer, number,
    octets, outcome, parse, request_control, sequence,
};
use crate::world::{SUBTREE, World};

const REQUEST: &str = "1.3.6.1.4.1.4203.1.9.1.1";
const STATE: &str = "1.3.6.1.4.1.4203.1.9.1.2";
const DONE: &str = "1.3.6.1.4.1.4203.1.9.1.3";
const INFO: &str = "1.3.6.1.4.1.4203.1.9.1.4";

fn sync(mode: i64, cookie: Option<&[u8]>) -> StructureTag {
    let mut fields = vec![enumerated(mode)];
    fields.extend(cookie.map(octets));
    request_control(REQUEST, true, Some(sequence(fields)))
}

/// State and UUID of the Sync State control.
fn state(entry: &crate::client::Entry) -> (u64, Vec<u8>) {
    let value = control(&entry.controls, STATE).expect("a Sync State control");
    let mut fields = children(parse(value)).into_iter();
    (number(fields.next().unwrap()), bytes(fields.next().unwrap()))
}

/// Cookie and refreshDeletes of the Sync Done control.
fn done(found: &Found) -> (Vec<u8>, bool) {
    let value = found.control(DONE).unwrap_or_else(|| panic!("no Sync Done control: {:?}", found.done));
    let mut fields = children(parse(value)).into_iter();
    (bytes(fields.next().unwrap()), fields.next().is_some_and(|flag| number(flag) != 0))
}

/// The ids of syncIdSet messages: (gone, unchanged).
fn id_sets(found: &Found) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut gone, mut unchanged) = (Vec::new(), Vec::new());
    for (name, value) in &found.intermediates {
        assert_eq!(name, INFO);
        let tag = parse(value);
        if tag.id != 3 {
            continue;
        }
        let (mut deletes, mut ids) = (false, Vec::new());
        for field in children(tag) {
            match field.id {
                1 => deletes = number(field) != 0,
                17 => ids = children(field).into_iter().map(bytes).collect(),
                _ => {}
            }
        }
        if deletes { gone.extend(ids) } else { unchanged.extend(ids) }
    }
    (gone, unchanged)
}

fn people(world: &World) -> Search<'_> {
    Search::new(&world.base, SUBTREE, "(objectClass=inetOrgPerson)").attributes(&["uid", "title"])
}

#[tokio::test]
async fn refresh_only_tells_changes_and_deletions_by_cookie() {
    let world = World::of("openldap").await;
    let mut client = world.admin().await;
    let all = client.search(&people(&world).control(sync(1, None))).await;
    assert_eq!(all.done.code, 0, "{:?}", all.done);
    assert!(
        all.entries.len() >= 250 && all.entries.iter().all(|entry| state(entry).0 == 1),
        "everything is an add"
    );
    let (cookie, _) = done(&all);
    assert!(String::from_utf8_lossy(&cookie).contains("csn="), "{:?}", String::from_utf8_lossy(&cookie));

    let quiet = client.search(&people(&world).control(sync(1, Some(&cookie)))).await;
    assert!(quiet.entries.is_empty(), "{:?}", quiet.dns());

    let (dn, _) = world.person("asmith").await;
    let uuid = state(all.entries.iter().find(|entry| entry.dn == dn).expect("Alice")).1;
    assert_eq!(client.modify(&dn, &[(2, "title", &[b"Chief"])]).await.code, 0);
    let changed = client.search(&people(&world).control(sync(1, Some(&cookie)))).await;
    assert_eq!(changed.dns(), [dn.as_str()]);
    assert_eq!(state(&changed.entries[0]).1, uuid, "the id stays");
    let (cookie, _) = done(&changed);

    assert_eq!(client.delete(&dn).await.code, 0);
    let deleted = client.search(&people(&world).control(sync(1, Some(&cookie)))).await;
    assert!(!deleted.dns().contains(&dn.as_str()), "her reports lost their manager, she is gone");
    let (_, delete_phase) = done(&deleted);
    let (gone, unchanged) = id_sets(&deleted);
    if delete_phase {
        assert!(gone.contains(&uuid), "the delete phase names what is gone");
    } else {
        assert!(unchanged.len() >= 249 && !unchanged.contains(&uuid), "the present phase names what is left");
    }
}

#[tokio::test]
async fn a_foreign_cookie_asks_for_a_fresh_start() {
    let world = World::of("openldap").await;
    let mut client = world.admin().await;
    let garbage = client.search(&people(&world).control(sync(1, Some(b"garbage")))).await;
    assert_ne!(garbage.done.code, 0, "{:?}", garbage.done);
    assert!(garbage.entries.is_empty());
}

#[tokio::test]
async fn a_cookie_of_another_search_asks_for_a_full_refresh() {
    let world = World::of("389ds").await;
    let mut client = world.admin().await;
    let all = client.search(&people(&world).control(sync(1, None))).await;
    let (cookie, _) = done(&all);
    let other = Search { filter: "(objectClass=groupOfNames)", ..people(&world) };
    let refused = client.search(&other.control(sync(1, Some(&cookie)))).await;
    assert_eq!(refused.done.code, 4096, "{:?}", refused.done);
    assert!(refused.entries.is_empty());
}

#[tokio::test]
async fn a_short_history_means_a_present_phase() {
    let world = World::of("openldap").await;
    world.mock.directory().servers()[0].set_session_log(0);
    let mut client = world.admin().await;
    let all = client.search(&people(&world).control(sync(1, None))).await;
    let (cookie, _) = done(&all);
    let (dn, _) = world.person("ddoyle").await;
    let gone = state(all.entries.iter().find(|entry| entry.dn == dn).expect("somebody")).1;
    assert_eq!(client.delete(&dn).await.code, 0);
    let refreshed = client.search(&people(&world).control(sync(1, Some(&cookie)))).await;
    assert!(!done(&refreshed).1, "refreshDeletes is false");
    let (deleted, unchanged) = id_sets(&refreshed);
    assert!(deleted.is_empty() && !unchanged.contains(&gone));
    assert_eq!(unchanged.len() + refreshed.entries.len(), all.entries.len() - 1, "everything left is named");
}

#[tokio::test]
async fn refresh_and_persist_goes_on_telling() {
    let world = World::of("openldap").await;
    let mut watcher = world.admin().await;
    let mut writer = world.admin().await;
    let id = watcher.send(people(&world).operation(), vec![sync(3, None)]).await;
    let mut seen = 0;
    loop {
        let message = watcher.receive().await.expect("the refresh");
        if message.op.id == 25 {
            break;
        }
        assert_eq!(message.op.id, 4, "{message:?}");
        seen += 1;
    }
    assert!(seen >= 250);
    let (dn, _) = world.person("asmith").await;
    assert_eq!(writer.modify(&dn, &[(2, "title", &[b"Chief"])]).await.code, 0);
    let change = entry(&watcher.receive().await.expect("the change"));
    assert_eq!((change.dn.as_str(), state(&change).0), (dn.as_str(), 2));
    assert_eq!(change.first("title").as_deref(), Some("Chief"));
    assert_eq!(writer.delete(&dn).await.code, 0);
    // Groups and reports that named her change with her; her own deletion is among them.
    let gone = loop {
        let told = next_entry(&mut watcher).await;
        if told.dn == dn {
            break told;
        }
    };
    assert_eq!(state(&gone).0, 3);
    assert!(gone.attributes.is_empty());
    watcher.send(app(16, PL::P(vec![u8::try_from(id).unwrap()])), vec![]).await;
    let probe = watcher.send(Search::new("", 0, "(objectClass=*)").operation(), vec![]).await;
    while watcher.receive().await.expect("the probe's answer").id != probe {}
    assert_eq!(watcher.receive().await.expect("the probe's result").id, probe);
    let (dn, _) = world.person("ddoyle").await;
    assert_eq!(writer.modify(&dn, &[(2, "title", &[b"Chief"])]).await.code, 0);
    assert_eq!(watcher.bind("", "").await.code, 0, "after an abandon nothing more of it comes");
}

#[tokio::test]
async fn synchronization_excludes_paging() {
    let world = World::of("openldap").await;
    let search = people(&world).control(sync(1, None)).control(crate::client::paged(10, b""));
    assert_eq!(world.admin().await.search(&search).await.done.code, 53);
}

async fn next_entry(client: &mut Client) -> crate::client::Entry {
    let message = client.receive().await.expect("a notification");
    assert_eq!(message.op.id, 4, "{:?}", outcome(&message));
    entry(&message)
}

#[tokio::test]
async fn persistent_search_reports_with_the_change_control() {
    let world = World::of("389ds").await;
    let mut watcher = world.admin().await;
    let mut writer = world.admin().await;
    let psearch = sequence(vec![integer(15), boolean(true), boolean(true)]);
    let psearch = request_control("2.16.840.1.113730.3.4.3", true, Some(psearch));
    watcher.send(people(&world).operation(), vec![psearch]).await;
    world.mock.journal().wait(0, crate::client::PATIENCE, |seen| seen.outcome == "watching").await.unwrap();
    let (dn, _) = world.person("asmith").await;
    let kind = |entry: &crate::client::Entry| {
        let value = control(&entry.controls, "2.16.840.1.113730.3.4.7").expect("an entry change control");
        number(children(parse(value)).remove(0))
    };
    assert_eq!(writer.modify(&dn, &[(2, "title", &[b"Chief"])]).await.code, 0);
    let change = next_entry(&mut watcher).await;
    assert_eq!((change.dn.as_str(), kind(&change)), (dn.as_str(), 4));
    assert_eq!(writer.modify_dn(&dn, "uid=asmith2", None).await.code, 0);
    let renamed = next_entry(&mut watcher).await;
    assert!(renamed.dn.starts_with("uid=asmith2"), "{}", renamed.dn);
    assert_eq!(kind(&renamed), 8);
    assert_eq!(writer.delete(&renamed.dn).await.code, 0);
    let gone = loop {
        let told = next_entry(&mut watcher).await;
        if told.dn == renamed.dn {
            break told;
        }
    };
    assert_eq!(kind(&gone), 2);
}

#[tokio::test]
async fn active_directory_notifies_and_limits_it() {
    let world = World::ad().await;
    let mut watcher = world.admin().await;
    let notify = || request_control("1.2.840.113556.1.4.528", true, None);
    let narrow = Search::new(&world.base, SUBTREE, "(cn=x)").control(notify());
    assert_eq!(watcher.search(&narrow).await.done.code, 53, "no filter but (objectClass=*)");
    let all = Search::new(&world.base, SUBTREE, "(objectClass=*)").attributes(&["title"]);
    for _ in 0..5 {
        watcher.send(all.operation(), vec![notify()]).await;
    }
    let sixth = watcher.search(&all.clone().control(notify())).await;
    assert_eq!(sixth.done.code, 11, "five per connection");
    let (dn, _) = world.person("asmith").await;
    assert_eq!(world.admin().await.modify(&dn, &[(2, "title", &[b"Chief"])]).await.code, 0);
    for _ in 0..5 {
        let entry = next_entry(&mut watcher).await;
        assert_eq!((entry.dn.as_str(), entry.first("title").as_deref()), (dn.as_str(), Some("Chief")));
    }
}

#[tokio::test]
async fn the_retro_changelog_is_an_ordinary_subtree() {
    let world = World::start(Config::of("389ds")).await;
    let mut client = world.admin().await;
    let (dn, _) = world.person("asmith").await;
    assert_eq!(client.modify(&dn, &[(2, "title", &[b"Chief"])]).await.code, 0);
    let log = Search::new("cn=changelog", SUBTREE, "(changeNumber>=1)").attributes(&[
        "changeNumber",
        "changeType",
        "targetDN",
    ]);
    let found = client.search(&log).await;
    let last = found.entries.last().unwrap_or_else(|| panic!("a change: {:?}", found.done));
    assert_eq!(last.first("changeType").as_deref(), Some("modify"));
    assert_eq!(last.first("targetDN").map(|dn| dn.to_lowercase()), Some(dn.to_lowercase()));
}
