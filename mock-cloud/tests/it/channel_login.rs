//! Who gets in: enrolment, certificates, strangers.

use std::time::Duration;

use causeway_mock_kit::pki::{LeafUse, TestCa};
use causeway_protocol::channel::payload::{self, Payload as _};
use causeway_protocol::channel::{ALPN_XMPP, ns};
use minidom::Element;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use xmpp_parsers::sasl::{DefinedCondition, Failure};
use xmpp_parsers::stanza_error::DefinedCondition as StanzaCondition;
use xmpp_parsers::stream_error::DefinedCondition as StreamCondition;

use crate::support::agent::{Agent, Ended, Enrolled, Line, enroll, enroll_with, request};
use crate::support::http::Api;
use crate::support::wire::{Credentials, HEADER, dial, dial_with, tls};
use crate::support::{PATIENCE, World};

const DOMAIN: &str = "cloud.causeway.test";

fn reason(failure: Failure) -> (DefinedCondition, String) {
    (failure.defined_condition, failure.texts.into_values().next().unwrap_or_default())
}

fn ping() -> Element {
    Element::builder("ping", ns::PING).build()
}

#[tokio::test]
async fn an_agent_enrols_and_comes_online() {
    let world = World::start().await;
    let agent = Agent::online(&world).await;
    assert_eq!(agent.welcome.session_epoch, 1);
    assert_eq!(agent.welcome.tenant, "Acme");
    let presence = world.cloud().sessions.presence(&world.tenant, &agent.enrolled.instance).unwrap();
    assert_eq!((presence.session_epoch, presence.hello.host.as_str()), (1, "srv1"));
    let limits = agent.line.features.limits.as_ref().unwrap();
    assert_eq!(limits.max_bytes.map(u32::from), Some(262_144));
    assert_eq!(limits.idle_seconds.map(u32::from), Some(150));
    let again = Agent::connect(&world, agent.enrolled.clone(), "boot-1").await;
    assert_eq!(again.welcome.session_epoch, 2);
}

#[tokio::test]
async fn an_enrolment_key_works_once_and_opens_nothing_else() {
    let world = World::start().await;
    let (name, secret) = world.key().await;
    let mut line = Line::open(&world, None, DOMAIN).await.scram(&name, &secret).await.unwrap();
    assert_eq!(line.ask_get(ping()).await, Ok(None));
    let lease = payload::Lease { resource: "x".into(), op: payload::LeaseOp::Acquire, fence: None };
    let refused = line.ask_set(lease.to_element()).await.unwrap_err();
    assert_eq!(refused.defined_condition, StanzaCondition::Forbidden);
    let nonsense = payload::CertificateRequest { csr_pem: "nonsense".into(), host: "h".into() };
    let refused = line.ask_set(nonsense.to_element()).await.unwrap_err();
    assert_eq!(refused.defined_condition, StanzaCondition::NotAcceptable);

    enroll_with(&world, &name, &secret).await;
    let used = Line::open(&world, None, DOMAIN).await.scram(&name, &secret).await.err().map(reason).unwrap();
    assert_eq!(used.0, DefinedCondition::NotAuthorized);
    assert!(used.1.contains("was used by srv1"), "{}", used.1);
    // The first stream was logged in before the key was used up, and gets nothing for it.
    let (_, csr_pem) = request();
    let late = payload::CertificateRequest { csr_pem, host: "h".into() };
    let refused = line.ask_set(late.to_element()).await.unwrap_err();
    assert_eq!(refused.defined_condition, StanzaCondition::Conflict);
    assert_eq!(world.cloud().store.agents(&world.tenant, 10, None).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn wrong_secrets_and_unknown_keys_look_alike_and_expired_keys_say_so() {
    let world = World::start().await;
    let (name, secret) = world.key().await;
    let wrong = Line::open(&world, None, DOMAIN).await.scram(&name, "wrong").await.err().map(reason).unwrap();
    let unknown =
        Line::open(&world, None, DOMAIN).await.scram("nobody", &secret).await.err().map(reason).unwrap();
    assert_eq!(wrong, unknown);
    assert_eq!(wrong.0, DefinedCondition::NotAuthorized);
    world.cloud().kit.clock.advance(Duration::from_secs(3_601));
    let late = Line::open(&world, None, DOMAIN).await.scram(&name, &secret).await.err().map(reason).unwrap();
    assert!(late.1.contains("expired"), "{}", late.1);
}

#[tokio::test]
async fn expired_foreign_and_revoked_certificates_are_refused_in_words() {
    let world = World::start().await;
    let enrolled = enroll(&world).await;

    let other = TestCa::new("someone else").unwrap().issue_leaf(&["x"], LeafUse::Client).unwrap();
    let foreign = Credentials { chain_pem: other.cert_pem.clone(), key_pem: other.key_pem.clone() };
    let refused = external(&world, &foreign).await;
    assert_eq!(refused.0, DefinedCondition::NotAuthorized);
    assert!(refused.1.contains("not issued by this cloud"), "{}", refused.1);

    let store = &world.cloud().store;
    store.revoke_agent(&world.tenant, &enrolled.instance, "test", 1).await.unwrap();
    let refused = external(&world, &enrolled.credentials).await;
    assert!(refused.1.contains("revoked"), "{}", refused.1);

    let second = enroll(&world).await;
    world.cloud().kit.clock.advance(Duration::from_secs(91 * 86_400));
    let refused = external(&world, &second.credentials).await;
    assert!(refused.1.contains("expired"), "{}", refused.1);
}

async fn external(world: &World, credentials: &Credentials) -> (DefinedCondition, String) {
    let line = Line::open(world, Some(credentials), DOMAIN).await;
    assert!(line.features.sasl_mechanisms.contains("EXTERNAL"));
    line.external().await.err().map(reason).expect("the certificate is refused")
}

#[tokio::test]
async fn a_revoked_agent_is_put_out_at_once_in_whatever_state_its_sessions_are() {
    let world = World::start().await;
    let mut online = Agent::online(&world).await;
    let enrolled = online.enrolled.clone();
    // One more connection of the same agent that has logged in and not yet bound.
    let halfway = Line::open(&world, Some(&enrolled.credentials), DOMAIN).await;
    let mut halfway = halfway.external().await.unwrap();
    // And an agent whose link is cut, waiting for its resumption.
    let cut = Agent::online(&world).await;
    let (cut_enrolled, cut_sm_id) = (cut.enrolled.clone(), cut.sm_id.clone());
    drop(cut.line);
    world.journal("offline", "connection lost").await;

    for instance in [&enrolled.instance, &cut_enrolled.instance] {
        let path = format!("/tenants/{}/agents/{instance}/revoke", world.tenant);
        assert_eq!(Api(&world).post(&path, serde_json::json!({})).await.status, http::StatusCode::NO_CONTENT);
    }
    assert_eq!(online.line.end().await.condition(), "not-authorized");
    assert_eq!(halfway.end().await.condition(), "not-authorized");
    assert_eq!(world.cloud().sessions.count(), 0);
    let refused = external(&world, &cut_enrolled.credentials).await;
    assert!(refused.1.contains("revoked"), "{} for {cut_sm_id}", refused.1);
}

#[tokio::test]
async fn a_revocation_written_by_another_node_counts_within_ten_seconds() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let began = tokio::time::Instant::now();
    let store = &world.cloud().store;
    store.revoke_agent(&world.tenant, &agent.enrolled.instance, "test", 1).await.unwrap();
    assert_eq!(agent.line.end().await.condition(), "not-authorized");
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    assert_eq!(world.cloud().sessions.count(), 0);
}

#[tokio::test]
async fn tls_is_never_resumed_so_that_every_connection_shows_a_certificate_to_judge() {
    let world = World::start().await;
    let enrolled = enroll(&world).await;
    let config = tls(&world, Some(&enrolled.credentials), &[ALPN_XMPP]);
    for _ in 0..2 {
        let mut stream = dial_with(&world, config.clone()).await.unwrap();
        // Reading takes in what a server would send after the handshake: tickets.
        stream.write_all(HEADER.as_bytes()).await.unwrap();
        stream.read_u8().await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_renewed_certificate_keeps_the_instance() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let (key_pem, csr_pem) = request();
    let ask = payload::CertificateRequest { csr_pem, host: "srv1".into() };
    let answer = agent.line.ask_set(ask.to_element()).await.unwrap().unwrap();
    let certificate = payload::Certificate::from_element(&answer).unwrap();
    assert_eq!(certificate.instance, agent.enrolled.instance);
    let credentials = Credentials { chain_pem: certificate.chain_pem, key_pem };
    let again = Enrolled { credentials, ..agent.enrolled.clone() };
    assert_eq!(Agent::connect(&world, again, "boot-1").await.welcome.session_epoch, 2);
}

/// Asks for another certificate and does not yet show it.
async fn renew(agent: &mut Agent) -> Enrolled {
    let (key_pem, csr_pem) = request();
    let ask = payload::CertificateRequest { csr_pem, host: "srv1".into() };
    let answer = agent.line.ask_set(ask.to_element()).await.unwrap().unwrap();
    let certificate = payload::Certificate::from_element(&answer).unwrap();
    Enrolled {
        credentials: Credentials { chain_pem: certificate.chain_pem, key_pem },
        ..agent.enrolled.clone()
    }
}

#[tokio::test]
async fn the_old_certificate_is_good_until_the_new_one_is_shown_and_no_longer() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let first = agent.enrolled.clone();
    // The answer is lost, or the agent dies before it has kept it: it comes back with what it has, and asks again.
    let lost = renew(&mut agent).await;
    let mut agent = Agent::connect(&world, first.clone(), "boot-1").await;
    let second = renew(&mut agent).await;
    let mut agent = Agent::connect(&world, first.clone(), "boot-1").await;
    assert_eq!(agent.line.ask_get(ping()).await, Ok(None));

    let mut agent = Agent::connect(&world, second.clone(), "boot-1").await;
    for old in [&first, &lost] {
        let refused = external(&world, &old.credentials).await;
        assert_eq!(refused.0, DefinedCondition::NotAuthorized);
        assert!(refused.1.contains("replaced by a newer one"), "{}", refused.1);
    }
    let third = renew(&mut agent).await;
    Agent::connect(&world, second.clone(), "boot-1").await;
    Agent::connect(&world, third, "boot-1").await;
    assert!(external(&world, &second.credentials).await.1.contains("replaced"));
}

#[tokio::test]
async fn an_emptied_node_tells_every_agent_where_to_go() {
    let world = World::start().await;
    let mut agents = [Agent::online(&world).await, Agent::online(&world).await];
    for (body, status) in [
        (json!({ "to": "" }), 400),
        (json!({ "to": "a b" }), 400),
        (json!({ "to": "node2.test", "over_ms": 3_600_001 }), 400),
        (json!({ "to": "node2.test:443", "over_ms": 20 }), 200),
    ] {
        let answer = admin(&world, "/world/drain", &body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{body}: {answer}");
        assert!(status != 200 || answer.ends_with("{\"agents\":2}"), "{answer}");
    }
    for agent in &mut agents {
        let Ended::Error(error) = agent.line.end().await else { panic!("closed without a word") };
        assert_eq!(error.condition, StreamCondition::SeeOtherHost("node2.test:443".into()));
    }
}

/// Posts to the admin port, which has no TLS.
async fn admin(world: &World, path: &str, body: &serde_json::Value) -> String {
    let at = world.mock.urls()["admin"].trim_start_matches("http://").to_owned();
    let mut tcp = tokio::net::TcpStream::connect(&at).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, tcp.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

#[tokio::test]
async fn strangers_look_around_with_the_console_account() {
    let world = World::with(|config| config.channel.console_password = Some("look around".into())).await;
    let mut line = Line::open(&world, None, "localhost").await.scram("console", "look around").await.unwrap();
    assert!(line.bind("laptop").await.starts_with("console@"), "bound");
    line.enable().await;
    assert_eq!(line.ask_get(ping()).await, Ok(None));
    let query = Element::builder("query", xmpp_parsers::ns::DISCO_INFO).build();
    let info = line.ask_get(query).await.unwrap().unwrap();
    assert!(String::from(&info).contains(ns::PING), "{}", String::from(&info));
    let roster = Element::builder("query", "jabber:iq:roster").build();
    let refused = line.ask_get(roster).await.unwrap_err();
    assert_eq!(refused.defined_condition, StanzaCondition::ServiceUnavailable);
    let hello = crate::support::agent::hello("b").to_element();
    assert_eq!(line.ask_set(hello).await.unwrap_err().defined_condition, StanzaCondition::Forbidden);
    // Counted and acknowledged like an agent's: two pings' worth of gets, a roster, a hello.
    assert_eq!(line.ack().await, 4);
    let wrong = Line::open(&world, None, DOMAIN).await.scram("console", "wrong").await;
    assert!(wrong.is_err());
}

#[tokio::test]
async fn a_host_that_is_not_ours_is_unknown_and_a_wrong_alpn_gets_an_alert() {
    let world = World::start().await;
    let tls = dial(&world, None, &[ALPN_XMPP]).await.unwrap();
    let header =
        tokio_xmpp::xmlstream::StreamHeader { to: Some("elsewhere.example".into()), ..Default::default() };
    let timeouts = tokio_xmpp::xmlstream::Timeouts::tight();
    let pending =
        tokio_xmpp::xmlstream::initiate_stream(tokio::io::BufReader::new(tls), ns::CLIENT, header, timeouts)
            .await
            .unwrap();
    assert_eq!(pending.header().from.as_deref(), Some(DOMAIN));
    let error = pending.recv_features::<causeway_protocol::channel::StreamElement>().await.err().unwrap();
    assert!(error.to_string().contains("host-unknown"), "{error}");

    let error = dial(&world, None, &[b"smtp"]).await.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}
