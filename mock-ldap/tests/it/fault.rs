//! Protocol-level faults: each does on the wire what its word says.

use std::time::Duration;

use causeway_mock_kit::fault::{Fault, Rule};
use causeway_mock_ldap::MockLdap;
use serde_json::{Value, json};

use crate::client::{PATIENCE, Search, page_cookie, paged};
use crate::world::{BASE, SUBTREE, World};

fn custom(word: &str, args: Value) -> Rule {
    Rule::new(Fault::Custom { word: word.into(), args })
}

fn malformed(kind: &str) -> Rule {
    Rule::new(Fault::Malformed { kind: kind.into() })
}

fn people(world: &World) -> Search<'_> {
    Search::new(&world.base, SUBTREE, "(objectClass=user)").attributes(&["cn"])
}

#[tokio::test]
async fn status_answers_with_the_named_code() {
    let world = World::ad().await;
    for (code, number) in [("busy", 51), ("unavailable", 52), ("invalid_credentials", 49), ("80", 80)] {
        let _rule = world
            .mock
            .faults()
            .guard(Rule::new(Fault::status(code, "told so")).on_operation("bind").times(1));
        let outcome = world.connect().await.bind("x@acme.example", "y").await;
        assert_eq!((outcome.code, outcome.text.as_str()), (number, "told so"), "{code}");
    }
    assert_eq!(world.admin().await.bind("", "").await.code, 0, "the rules are gone");
}

#[tokio::test]
async fn stall_never_answers_and_the_connection_stays() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let _rule = world.mock.faults().guard(Rule::new(Fault::Stall {}).on_operation("search").times(1));
    client.send(people(&world).operation(), vec![]).await;
    let stalled = world.mock.journal().wait(0, PATIENCE, |entry| entry.outcome == "stalled").await;
    stalled.expect("the stall is journalled");
    assert_eq!(client.search(&Search::new("", BASE, "(objectClass=*)")).await.entries.len(), 1);
}

#[tokio::test]
async fn delay_holds_one_request_back() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let rule = Rule::new(Fault::Delay { ms: 300 }).on_operation("search").times(1);
    let _rule = world.mock.faults().guard(rule);
    let started = std::time::Instant::now();
    let slow = client.send(Search::new("", BASE, "(objectClass=*)").operation(), vec![]).await;
    let quick = client.send(Search::new("", BASE, "(objectClass=*)").operation(), vec![]).await;
    assert_eq!(client.receive().await.unwrap().id, quick, "the other one is not held");
    client.receive().await.unwrap();
    assert_eq!(client.receive().await.unwrap().id, slow);
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn close_ends_without_an_answer() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    let _rule = world.mock.faults().guard(Rule::new(Fault::Close {}).on_operation("bind"));
    client.send_bytes(&[0x30, 0x0c, 2, 1, 1, 0x60, 7, 2, 1, 3, 4, 0, 0x80, 0]).await;
    assert!(client.read_to_end().await.is_empty());
}

#[tokio::test]
async fn a_page_breaks_off() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let _rule =
        world.mock.faults().guard(custom("close_mid_page", json!({ "entries": 7 })).on_operation("search"));
    client.send(people(&world).operation(), vec![paged(100, b"")]).await;
    let mut entries = 0;
    while let Some(message) = client.receive().await {
        assert_eq!(message.op.id, 4, "no SearchResultDone");
        entries += 1;
    }
    assert_eq!(entries, 7);
}

#[tokio::test]
async fn a_cookie_is_refused() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let _rule =
        world.mock.faults().guard(custom("refuse_cookie", Value::Null).on_operation("search").after(1));
    let first = client.search(&people(&world).control(paged(10, b""))).await;
    let cookie = page_cookie(&first);
    let second = client.search(&people(&world).control(paged(10, &cookie))).await;
    assert_eq!(second.done.code, 53, "{:?}", second.done);
}

#[tokio::test]
async fn malformed_answers_are_malformed() {
    let world = World::ad().await;
    let send = async |kind: &str| {
        world.mock.faults().clear();
        world.mock.faults().add(malformed(kind).on_operation("search"));
        let mut client = world.connect().await;
        client.send(Search::new("", BASE, "(objectClass=*)").operation(), vec![]).await;
        client.fill().await;
        client
    };
    let wrong = send("wrong_message_id").await.receive().await.expect("an answer");
    assert!(wrong.id > 100_000, "{}", wrong.id);
    let truncated = send("truncated_ber").await.read_to_end().await;
    assert!(!truncated.is_empty() && lber::parse::parse_tag(&truncated).is_err(), "{truncated:02x?}");
    let bomb = send("nesting_bomb").await;
    let bytes = first_bytes(bomb, 60_000).await;
    assert!(bytes.windows(12).filter(|window| window[0] == 0x30 && window[6] == 0x30).count() > 5_000);
    let oversized = first_bytes(send("oversized_ber").await, 6).await;
    assert_eq!(oversized[..6], [0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]);
    let indefinite = first_bytes(send("indefinite_length").await, 2).await;
    assert_eq!(indefinite[..2], [0x30, 0x80]);
    let mut text = send("non_utf8").await;
    let entry = text.receive().await.expect("an entry");
    let dn = crate::client::bytes(crate::client::children(entry.op).remove(0));
    assert!(std::str::from_utf8(&dn).is_err(), "{dn:02x?}");
}

/// The first bytes of a connection that may stay open.
async fn first_bytes(mut client: crate::client::Client, count: usize) -> Vec<u8> {
    tokio::time::timeout(PATIENCE, client.read_at_least(count)).await.expect("bytes arrive")
}

#[tokio::test]
async fn one_entry_has_fifty_thousand_values() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let _rule =
        world.mock.faults().guard(custom("huge_entry", json!({ "values": 50_000 })).on_operation("search"));
    let found = client.search(&people(&world)).await;
    assert_eq!((found.entries.len(), found.done.code), (1, 0));
    assert_eq!(found.entries[0].all("member").len(), 50_000);
}

#[tokio::test]
async fn referrals_lead_back_to_the_same_server() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let _rule = world.mock.faults().guard(custom("referral_loop", Value::Null).on_operation("search"));
    let found = client.search(&people(&world)).await;
    assert_eq!(found.done.code, 10);
    assert_eq!(found.done.referrals, [format!("{}/{}", world.mock.url("ldap"), world.base)]);
}

#[tokio::test]
async fn a_notice_can_be_provoked() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    let _rule = world.mock.faults().guard(custom("disconnect", json!({ "code": "busy" })));
    client.send(Search::new("", BASE, "(objectClass=*)").operation(), vec![]).await;
    let notice = client.receive().await.expect("a notice");
    assert_eq!((notice.id, crate::client::outcome(&notice).code), (0, 51));
    assert!(client.receive().await.is_none());
}

#[tokio::test]
async fn a_misspelt_word_is_told_not_ignored() {
    let world = World::ad().await;
    let _rule = world.mock.faults().guard(custom("cloze_mid_page", Value::Null).on_operation("search"));
    let found = world.connect().await.search(&Search::new("", BASE, "(objectClass=*)")).await;
    assert_eq!(found.done.code, 80);
    assert!(found.done.text.contains("cloze_mid_page"), "{}", found.done.text);
}

#[tokio::test]
async fn one_server_of_two_can_be_down() {
    let config = causeway_mock_ldap::Config::default().with_servers(2);
    let world = World { mock: MockLdap::start(config).await.unwrap(), base: "DC=acme,DC=example".into() };
    for front in ["ldap", "ldaps"] {
        world.mock.faults().set_down(front);
    }
    let address = world.mock.address("ldap").to_owned();
    let refused = async {
        while tokio::net::TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the port closes");
    assert_eq!(world.admin_on("ldap_dc2").await.search(&people(&world)).await.done.code, 0);
}
