//! Checklist 13 and 14: the connection itself, and what must not get past it.

use lber::common::TagClass;
use lber::structure::{PL, StructureTag};

use crate::client::{
    Client, Message, PATIENCE, Search, app, children, ctx, encode, message, number, octets, page_cookie,
    paged, text,
};
use crate::world::{BASE, SUBTREE, World};
use causeway_mock_ldap::Config;

/// The last message must be a notice of disconnection; then the connection is closed.
async fn expect_notice(client: &mut Client) -> u64 {
    let message = client.receive().await.expect("a notice before the close");
    let code = notice(&message);
    assert!(client.receive().await.is_none(), "closed after the notice");
    code
}

fn notice(message: &Message) -> u64 {
    assert_eq!((message.id, message.op.id), (0, 24), "{message:?}");
    let mut fields = children(message.op.clone());
    let named = |field: &&StructureTag| field.class == TagClass::Context && field.id == 10;
    let name = fields.iter().find(named).cloned().map(text);
    assert_eq!(name.as_deref(), Some("1.3.6.1.4.1.1466.20036"));
    number(fields.remove(0))
}

/// One element, by hand: `lber` recurses, and would not survive what these tests send.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x84], &length[..], content].concat()
}

#[tokio::test]
async fn malformed_bytes_end_with_a_notice() {
    let world = World::ad().await;
    let deep = |depth: usize| {
        let mut filter = encode(ctx(7, PL::P(b"cn".to_vec())));
        for _ in 0..depth {
            filter = element(0xa2, &filter);
        }
        let head =
            [&[4, 0, 0x0a, 1, 2, 0x0a, 1, 0, 2, 1, 0, 2, 1, 0, 1, 1, 0], &filter[..], &[0x30, 0]].concat();
        element(0x30, &[&[2, 1, 1], &element(0x63, &head)[..]].concat())
    };
    let cases: [(&str, Vec<u8>); 9] = [
        ("zero length", vec![0x30, 0]),
        ("indefinite length", vec![0x30, 0x80, 2, 1, 1, 0x42, 0, 0, 0]),
        ("not a sequence", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("length of nine bytes", vec![0x30, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("a terabyte", vec![0x30, 0x86, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("negative message id", vec![0x30, 5, 2, 1, 0xff, 0x42, 0]),
        ("unknown operation", vec![0x30, 5, 2, 1, 1, 0x5d, 0]),
        ("an element past the end", vec![0x30, 6, 2, 1, 1, 0x4a, 0x7f, b'x']),
        ("filter 200 deep", deep(200)),
    ];
    for (name, bytes) in cases {
        let mut client = world.connect().await;
        client.send_bytes(&bytes).await;
        assert_eq!(expect_notice(&mut client).await, 2, "{name}");
    }
    let mut client = world.connect().await;
    client.send_bytes(&deep(10_000)).await;
    assert_eq!(expect_notice(&mut client).await, 2, "filter 10,000 deep");
    assert_eq!(world.connect().await.bind("", "").await.code, 0, "others are served as before");
    assert!(world.mock.journal().count(|entry| entry.operation == "malformed") >= 10);
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_unread() {
    let world = World::ad().await;
    let mut stranger = world.connect().await;
    stranger.send_bytes(&[0x30, 0x83, 0x05, 0x00, 0x00, 2, 1, 1]).await;
    assert_eq!(expect_notice(&mut stranger).await, 2, "320 KiB before a bind");
    let mut known = world.admin().await;
    known.send_bytes(&[0x30, 0x84, 0x00, 0xa0, 0x00, 0x01, 2, 1, 9]).await;
    assert_eq!(expect_notice(&mut known).await, 2, "over 10 MiB after a bind");
    let mut big = world.admin().await;
    let terms = (0..2000)
        .map(|n| ctx(3, PL::C(vec![octets(b"sAMAccountName"), octets(format!("nobody{n}").as_bytes())])));
    let filter = ctx(1, PL::C(terms.collect()));
    let id = big
        .send(crate::client::search_operation(&Search::new(&world.base, SUBTREE, "(a=b)"), filter), vec![])
        .await;
    assert_eq!(big.collect(id).await.done.code, 0, "a filter of 2,000 terms is fine");
}

#[tokio::test]
async fn a_message_may_arrive_byte_by_byte() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    let bind = encode(message(
        1,
        app(0, PL::C(vec![crate::client::integer(3), octets(b""), ctx(0, PL::P(vec![]))])),
        vec![],
    ));
    for byte in &bind {
        client.send_bytes(&[*byte]).await;
    }
    let answer = client.receive().await.expect("an answer");
    assert_eq!(crate::client::outcome(&answer).code, 0);
}

#[tokio::test]
async fn windows_style_lengths_are_understood() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    let body = [2, 1, 7, 0x60, 0x84, 0, 0, 0, 7, 2, 1, 3, 4, 0, 0x80, 0];
    let mut bytes = vec![0x30, 0x84, 0, 0, 0, body.len() as u8];
    bytes.extend(body);
    client.send_bytes(&bytes).await;
    let answer = client.receive().await.expect("an answer");
    assert_eq!((answer.id, crate::client::outcome(&answer).code), (7, 0));
}

#[tokio::test]
async fn start_tls_refuses_bytes_that_came_with_it() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    let start =
        encode(message(1, app(23, PL::C(vec![ctx(0, PL::P(b"1.3.6.1.4.1.1466.20037".to_vec()))])), vec![]));
    let smuggled = encode(message(
        2,
        app(0, PL::C(vec![crate::client::integer(3), octets(b""), ctx(0, PL::P(vec![]))])),
        vec![],
    ));
    client.send_bytes(&[start, smuggled].concat()).await;
    let answer = client.receive().await.expect("an answer");
    assert_ne!(crate::client::outcome(&answer).code, 0);
    assert_eq!(expect_notice(&mut client).await, 2);
    assert_eq!(
        world.mock.journal().count(|entry| entry.operation == "bind"),
        0,
        "the smuggled bind never ran"
    );
}

#[tokio::test]
async fn start_tls_happens_once_and_only_when_quiet() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    assert_eq!(client.start_tls(world.mock.ca().client_config()).await.code, 0);
    let again = client.extended("1.3.6.1.4.1.1466.20037", None).await;
    assert_eq!(again.code, 1, "{again:?}");
    let login = world.mock.service_account();
    assert_eq!(client.bind(&login.dn, &login.password).await.code, 0, "and the connection goes on");
    let delay = causeway_mock_kit::fault::Rule::new(causeway_mock_kit::fault::Fault::Delay { ms: 600_000 });
    let _held = world.mock.faults().guard(delay.on_operation("search"));
    let mut busy = world.connect().await;
    busy.send(Search::new("", BASE, "(objectClass=*)").operation(), vec![]).await;
    assert_eq!(busy.extended("1.3.6.1.4.1.1466.20037", None).await.code, 1, "an operation is outstanding");
}

#[tokio::test]
async fn two_searches_on_one_connection_interleave() {
    let mut config = Config::default();
    config.common.users = 2000;
    config.policies.page_size_max = Some(0);
    let world = World::start(config).await;
    let mut client = world.admin().await;
    let search = Search::new(&world.base, SUBTREE, "(objectClass=*)").attributes(&["*"]);
    let first = client.send(search.operation(), vec![]).await;
    let second = client.send(search.operation(), vec![]).await;
    let (mut order, mut counts, mut open) = (Vec::new(), [0usize; 2], 2);
    while open > 0 {
        let message = client.receive().await.expect("more answers");
        let which = usize::from(message.id == second);
        assert!(message.id == first || message.id == second);
        match message.op.id {
            4 => {
                counts[which] += 1;
                if order.last() != Some(&which) {
                    order.push(which);
                }
            }
            5 => open -= 1,
            _ => {}
        }
    }
    assert_eq!(counts[0], counts[1]);
    assert!(order.len() > 3, "the answers alternate: {order:?}");
}

#[tokio::test]
async fn an_abandoned_search_stops_and_the_connection_goes_on() {
    let mut config = Config::default();
    config.common.users = 5000;
    config.policies.page_size_max = Some(0);
    let world = World::start(config).await;
    let mut client = world.admin().await;
    let search = Search::new(&world.base, SUBTREE, "(objectClass=*)").attributes(&["*"]);
    let id = client.send(search.operation(), vec![]).await;
    client.receive().await.expect("a first entry");
    client.send(app(16, PL::P(vec![u8::try_from(id).unwrap()])), vec![]).await;
    let probe = client.send(Search::new("", BASE, "(objectClass=*)").operation(), vec![]).await;
    let mut entries = 0;
    loop {
        let message = client.receive().await.expect("the probe's answer");
        if message.id == probe && message.op.id == 5 {
            break;
        }
        assert!(message.op.id != 5, "no result follows an abandon");
        entries += 1;
    }
    assert!(entries < 6000, "{entries} entries after the abandon");
    assert!(
        world.mock.journal().count(|entry| entry.operation == "abandon" && entry.outcome == "abandoned") == 1
    );
}

#[tokio::test]
async fn unbind_in_the_middle_closes() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    client.send(Search::new(&world.base, SUBTREE, "(objectClass=*)").operation(), vec![]).await;
    client.send(app(2, PL::P(vec![])), vec![]).await;
    client.read_to_end().await;
    let unbinds = world.mock.journal();
    let seen = unbinds.wait(0, PATIENCE, |entry| entry.operation == "unbind").await;
    seen.expect("the unbind is journalled");
}

#[tokio::test]
async fn a_client_that_stops_reading_stops_the_search() {
    let mut config = Config::default();
    config.common.users = 20_000;
    config.policies.page_size_max = Some(0);
    let world = World::start(config).await;
    let mut lazy = world.admin().await;
    let before = world.mock.journal().last_seq();
    let search = Search::new(&world.base, SUBTREE, "(objectClass=*)").attributes(&["*"]);
    let id = lazy.send(search.operation(), vec![]).await;
    lazy.receive().await.expect("a first entry");
    for _ in 0..5 {
        assert_eq!(world.connect().await.bind("", "").await.code, 0, "others are served meanwhile");
    }
    let answered = world.mock.journal().after(before).iter().any(|entry| entry.operation == "search");
    assert!(!answered, "the search waits for its reader");
    let found = lazy.collect(id).await;
    assert_eq!(found.done.code, 0);
    assert!(found.entries.len() >= 20_000);
}

#[tokio::test]
async fn idle_connections_are_closed_by_the_mock_s_clock() {
    let mut config = Config::default();
    config.policies.idle_timeout_secs = Some(900);
    let world = World::start(config).await;
    let mut client = world.admin().await;
    world.mock.clock().advance(std::time::Duration::from_secs(899));
    assert_eq!(client.search(&Search::new("", BASE, "(objectClass=*)")).await.done.code, 0);
    world.mock.clock().advance(std::time::Duration::from_secs(901));
    assert_eq!(expect_notice(&mut client).await, 52);
}

#[tokio::test]
async fn a_connection_that_never_asks_is_closed() {
    let world = World::ad().await;
    let mut client = world.connect().await;
    let mut other = world.connect().await;
    other.bind("", "").await;
    world.mock.clock().advance(std::time::Duration::from_secs(121));
    assert_eq!(expect_notice(&mut client).await, 52);
}

#[tokio::test]
async fn a_reset_says_goodbye_to_everybody() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let cookie = page_cookie(
        &client.search(&Search::new(&world.base, SUBTREE, "(cn=*)").control(paged(5, b""))).await,
    );
    assert!(!cookie.is_empty());
    world.mock.reset().expect("the world is rebuilt");
    assert_eq!(expect_notice(&mut client).await, 52);
    assert_eq!(
        world.admin().await.search(&Search::new(&world.base, BASE, "(objectClass=*)")).await.done.code,
        0
    );
}
