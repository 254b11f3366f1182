//! Against the mock's name server, through sockets.

use causeway_mock_kit::dns::{DnsServer, Srv};
use causeway_mock_kit::fault::{Fault, Rule};

use super::*;

async fn server() -> DnsServer {
    let server = DnsServer::start("acme.example").await.unwrap();
    server.set_addresses("dc1.acme.example", &ADDRESSES).unwrap();
    server
}

const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))];

fn stub(servers: &[SocketAddr]) -> Stub {
    Stub::new(servers, RandomSource::seeded(1)).unwrap()
}

fn malformed(kind: &str) -> Fault {
    Fault::Malformed { kind: kind.to_owned() }
}

#[tokio::test]
async fn both_families_come() {
    let server = server().await;
    assert_eq!(stub(&[server.address()]).addresses("DC1.acme.example.").await.unwrap(), ADDRESSES);
}

#[tokio::test(start_paused = true)]
async fn answers_are_remembered_as_long_as_they_hold() {
    let stub = stub(&["127.0.0.1:1".parse().unwrap()]);
    let key = |kind| ("dc1.acme.example".to_owned(), kind);
    stub.remember(key(Kind::A), Duration::from_secs(60), Some(vec![Data::Address(ADDRESSES[1])]));
    stub.remember(key(Kind::Aaaa), Duration::from_secs(60), None);
    assert_eq!(stub.addresses("Dc1.Acme.example").await.unwrap(), ADDRESSES[1..]);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(stub.known(&key(Kind::A)), None);
    for n in 0..2 * DNS_CACHE_MAX {
        stub.remember((n.to_string(), Kind::A), Duration::from_secs(60), None);
    }
    let remembered = stub.known.lock().unwrap().len();
    assert!(remembered <= DNS_CACHE_MAX, "{remembered}");
}

#[tokio::test]
async fn names_of_the_machine_are_not_asked_for() {
    let stub = stub(&["127.0.0.1:1".parse().unwrap()]);
    let found = stub.addresses("LocalHost").await.unwrap();
    assert!(found.contains(&Ipv4Addr::LOCALHOST.into()), "{found:?}");
    assert!(stub.addresses("a.localhost").await.unwrap().iter().all(IpAddr::is_loopback));
}

#[tokio::test]
async fn a_list_too_long_for_a_datagram_comes_over_tcp() {
    let server = server().await;
    let srv = |n: u16| Srv { priority: n, weight: 1, port: 389, target: format!("dc{n}.acme.example") };
    let all: Vec<Srv> = (0..40).map(srv).collect();
    server.set_srv("_ldap._tcp.acme.example", &all).unwrap();
    let found = stub(&[server.address()]).services("_ldap._tcp.acme.example").await.unwrap();
    let mut hosts: Vec<String> = found.into_iter().map(|service| service.host).collect();
    hosts.sort_by_key(|host| (host.len(), host.clone()));
    assert_eq!(hosts.len(), 40);
    assert_eq!(hosts[39], "dc39.acme.example");
}

#[tokio::test]
async fn nothing_there_and_nobody_there_are_told_apart() {
    let server = server().await;
    let stub = stub(&[server.address()]);
    for name in ["no.acme.example", "_ldap._tcp.acme.example"] {
        assert!(matches!(stub.services(name).await, Err(DnsError::NoRecord)), "{name}");
    }
    assert!(stub.answers("no.acme.example").await.is_ok());
    let refused = stub.addresses("www.other.example").await.unwrap_err();
    assert!(matches!(&refused, DnsError::Unusable { reason, .. } if reason.contains("refuses")), "{refused}");
    let nobody = self::stub(&["127.0.0.1:1".parse().unwrap()]);
    let nobody = nobody.addresses("dc1.acme.example").await.unwrap_err();
    assert!(matches!(nobody, DnsError::Unusable { .. } | DnsError::Silent(_)), "{nobody}");
    assert!(matches!(stub.addresses("a..b").await, Err(DnsError::NotAName(_))));
}

#[tokio::test]
async fn what_is_no_answer_to_us_is_passed_over() {
    let good = server().await;
    for kind in ["wrong_id", "garbage"] {
        let bad = server().await;
        bad.faults().add(Rule::new(malformed(kind)));
        let found = stub(&[bad.address(), good.address()]).addresses("dc1.acme.example").await;
        assert_eq!(found.unwrap(), ADDRESSES, "{kind}");
    }
}

#[tokio::test]
async fn a_server_that_fails_is_followed_by_the_next_at_once() {
    let (bad, good) = (server().await, server().await);
    bad.faults().add(Rule::new(Fault::status(2, "server failure")));
    let began = Instant::now();
    let stub = stub(&["127.0.0.1:1".parse().unwrap(), bad.address(), good.address()]);
    assert_eq!(stub.addresses("dc1.acme.example").await.unwrap(), ADDRESSES);
    // Waiting for each of the two would take twice as long.
    assert!(began.elapsed() < 2 * DNS_NEXT_SERVER_AFTER, "{:?}", began.elapsed());
}

#[tokio::test]
async fn names_that_are_no_ascii_are_asked_for_as_dns_carries_them() {
    let server = server().await;
    server.set_addresses("xn--mnchen-3ya.acme.example", &ADDRESSES).unwrap();
    let found = stub(&[server.address()]).addresses("M\u{fc}nchen.acme.example").await;
    assert_eq!(found.unwrap(), ADDRESSES);
}
