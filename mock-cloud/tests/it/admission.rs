//! The door of the public port: pace, places, and those who come and say nothing.

use std::time::Duration;

use causeway_protocol::channel::{ALPN_H2, ALPN_XMPP, StreamElement, ns};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_xmpp::xmlstream::{RecvFeaturesError, StreamHeader, Timeouts, initiate_stream};

use crate::support::agent::{Agent, Line, enroll};
use crate::support::wire::{HEADER, dial};
use crate::support::{PATIENCE, World, until};

const DOMAIN: &str = "cloud.causeway.test";

/// Whether the cloud has closed a connection on which nothing was said; `None` when it is still open.
fn closed(tcp: &TcpStream) -> Option<bool> {
    match tcp.try_read(&mut [0; 1]) {
        Ok(read) => Some(read == 0),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(_) => Some(true),
    }
}

#[tokio::test]
async fn the_excess_of_a_wave_is_closed_before_tls_and_the_rest_waits_its_turn() {
    let world = World::with(|config| config.channel.admission_per_sec = 2).await;
    let mut wave = Vec::new();
    for _ in 0..40 {
        wave.push(TcpStream::connect(world.address()).await.unwrap());
    }
    // Two at once, and as many as get their turn in 4 s: the others have no business waiting.
    let gone = || async {
        let gone = wave.iter().filter(|tcp| closed(tcp) == Some(true)).count();
        (gone >= 28).then_some(gone)
    };
    let gone = until("the excess closed", gone).await;
    assert!(gone <= 30, "{gone} of 40 were sent away, so too few were let in");
    assert!(wave.iter().all(|tcp| closed(tcp) != Some(false)), "nobody was told anything before TLS");
}

#[tokio::test]
async fn those_who_say_nothing_take_places_only_for_a_while() {
    let world = World::with(|config| {
        config.channel.pre_auth_max = 3;
        config.channel.handshake_within_ms = 500;
        config.channel.login_within_ms = 500;
    })
    .await;
    // One that never begins TLS, one that stops after it, one that stops in the middle of its login.
    let silent = TcpStream::connect(world.address()).await.unwrap();
    let mut after_tls = dial(&world, None, &[]).await.unwrap();
    let mut in_login = dial(&world, None, &[ALPN_XMPP]).await.unwrap();
    in_login.write_all(HEADER.as_bytes()).await.unwrap();
    let fourth = TcpStream::connect(world.address()).await.unwrap();
    until("the fourth closed", || async { closed(&fourth) }).await;
    assert!(closed(&silent).is_none() || closed(&silent) == Some(true));

    let mut rest = Vec::new();
    let ends = async {
        let _ = after_tls.read_to_end(&mut rest).await;
        let _ = in_login.read_to_end(&mut rest).await;
    };
    tokio::time::timeout(PATIENCE, ends).await.expect("the slow ones are put out");
    until("the silent one closed", || async { closed(&silent) }).await;
    let agent = until("a free place", || async { dial(&world, None, &[ALPN_H2]).await.ok() }).await;
    drop(agent);
}

#[tokio::test]
async fn an_agent_online_and_an_http_client_that_has_asked_take_no_place() {
    let world = World::with(|config| config.channel.pre_auth_max = 1).await;
    // Each of these connects while the one before is still open.
    let enrolled = until("a place to enrol", || async { Some(enroll(&world).await) }).await;
    let mut agent = Agent::connect(&world, enrolled, "boot-1").await;
    let mut http = until("a place", || async { dial(&world, None, &[b"http/1.1"]).await.ok() }).await;
    http.write_all(b"GET /api/v1/tenants HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(http.read_u8().await.unwrap(), b'H');
    let second = until("a place", || async { dial(&world, None, &[ALPN_H2]).await.ok() }).await;
    drop(second);
    let ping = minidom::Element::builder("ping", ns::PING).build();
    assert_eq!(agent.line.ask_get(ping).await, Ok(None));
}

#[tokio::test]
async fn who_gets_no_turn_to_log_in_is_told_when_to_come_back() {
    let world = World::with(|config| config.channel.logins_max = 1).await;
    let enrolled = enroll(&world).await;
    // Its features have come, so it holds the only turn, and it does not go on.
    let _slow = Line::open(&world, Some(&enrolled.credentials), DOMAIN).await;
    let tls = dial(&world, Some(&enrolled.credentials), &[ALPN_XMPP]).await.unwrap();
    let header = StreamHeader { to: Some(DOMAIN.into()), ..StreamHeader::default() };
    let io = tokio::io::BufReader::new(tls);
    let pending = initiate_stream(io, ns::CLIENT, header, Timeouts::tight()).await.unwrap();
    let refused = tokio::time::timeout(PATIENCE, pending.recv_features::<StreamElement>()).await.unwrap();
    let Err(RecvFeaturesError::StreamError(error)) = refused else { panic!("it was let in") };
    assert_eq!(error.0.condition.to_string(), "resource-constraint");
    let retry = error.0.application_specific.iter().find(|child| child.is("retry", ns::AGENT)).unwrap();
    assert_eq!((retry.attr("after"), retry.attr("spread")), (Some("0"), Some("1")));
}

#[tokio::test]
async fn a_cloud_that_stops_says_over_what_time_to_come_back() {
    let world = World::with(|config| config.channel.admission_per_sec = 1).await;
    let mut agent = Agent::online(&world).await;
    let stopping = tokio::spawn(world.mock.stop());
    let error = loop {
        match agent.line.stream.next().await {
            Some(Ok(StreamElement::Error(error))) => break error.0,
            Some(Ok(_)) => {}
            other => panic!("no farewell: {other:?}"),
        }
    };
    let retry = error.application_specific.iter().find(|child| child.is("retry", ns::AGENT)).unwrap();
    // One agent at one a second, half as long again, and one.
    assert_eq!(retry.attr("spread"), Some("2"), "{retry:?}");
    tokio::time::timeout(Duration::from_secs(1), stopping).await.unwrap().unwrap();
}
