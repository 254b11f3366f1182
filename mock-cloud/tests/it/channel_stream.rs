//! Bad input on the stream, stream management, clones.

use std::time::Duration;

use causeway_protocol::action::Report;
use causeway_protocol::channel::payload::{self, Payload as _};
use causeway_protocol::channel::{SmElement, StreamElement, ns};
use causeway_protocol::health::Hello;
use causeway_protocol::limits::{ELEMENT_MAX_BYTES, ELEMENT_PRE_AUTH_MAX_BYTES};
use minidom::Element;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::DefinedCondition;

use crate::support::World;
use crate::support::agent::{Agent, Ended, Line, hello};
use crate::support::wire::{HEADER, dial, say_and_listen};

const DOMAIN: &str = "cloud.causeway.test";

fn ping() -> Element {
    Element::builder("ping", ns::PING).build()
}

#[tokio::test]
async fn an_element_over_the_limit_ends_the_stream() {
    let world = World::start().await;
    let long = "x".repeat(ELEMENT_PRE_AUTH_MAX_BYTES);
    let auth = format!("<auth xmlns='{}' mechanism='SCRAM-SHA-256'>{long}</auth>", ns::SASL);
    let heard = say_and_listen(&world, &[HEADER.as_bytes(), auth.as_bytes()]).await;
    assert!(heard.contains("policy-violation"), "{heard}");

    let mut agent = Agent::online(&world).await;
    let within =
        Element::builder("note", "urn:example:x").append("x".repeat(ELEMENT_MAX_BYTES - 1_000)).build();
    let refused = agent.line.ask_set(within).await.unwrap_err();
    assert_eq!(refused.defined_condition, DefinedCondition::ServiceUnavailable);
    let over = Element::builder("note", "urn:example:x").append("x".repeat(ELEMENT_MAX_BYTES)).build();
    let ended = agent.line.try_ask(over, true).await.unwrap_err();
    assert_eq!(ended.condition(), "policy-violation");
}

#[tokio::test]
async fn document_types_comments_and_instructions_are_restricted_xml() {
    let world = World::start().await;
    let bomb = "<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY lol 'lol'>]><stream:stream>";
    for parts in [
        vec![bomb.as_bytes()],
        vec![HEADER.as_bytes(), b"<!-- hello -->"],
        vec![HEADER.as_bytes(), b"<?php echo 1; ?>"],
    ] {
        let heard = say_and_listen(&world, &parts).await;
        assert!(heard.contains("<stream:stream") || heard.contains("stream:stream "), "{heard}");
        assert!(heard.contains("restricted-xml"), "{heard}");
    }
}

#[tokio::test]
async fn broken_xml_is_not_well_formed_and_unfinished_xml_runs_into_the_deadline() {
    let world = World::with(|config| {
        config.channel.login_within_ms = 700;
        config.channel.element_within_ms = 300;
    })
    .await;
    let heard = say_and_listen(&world, &[HEADER.as_bytes(), b"<a></b>"]).await;
    assert!(heard.contains("not-well-formed"), "{heard}");
    let heard =
        say_and_listen(&world, &[HEADER.as_bytes(), b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' "])
            .await;
    assert!(heard.contains("mechanisms") && !heard.contains("success"), "{heard}");
    let heard = say_and_listen(&world, &[b"<?xml version='1.0'?><stream:stream "]).await;
    assert_eq!(heard, "", "nothing was said that could be answered");

    let agent = Agent::online(&world).await;
    let mut tls = agent.line.stream.into_inner().into_inner();
    tls.write_all(b"<iq type='get' id='never'><ping").await.unwrap();
    tls.flush().await.unwrap();
    let mut heard = String::new();
    let listened = tokio::time::timeout(crate::support::PATIENCE, tls.read_to_string(&mut heard)).await;
    assert!(listened.is_ok(), "the cloud did not hang up; it said {heard}");
    assert!(heard.contains("connection-timeout"), "{heard}");
}

#[tokio::test]
async fn unknown_elements_and_payloads_get_the_answers_of_the_rfc() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let unknown = Element::builder("hello", "urn:example:x").build();
    let refused = agent.line.ask_set(unknown.clone()).await.unwrap_err();
    assert_eq!(refused.defined_condition, DefinedCondition::ServiceUnavailable);
    let misshapen = Element::builder("lease", ns::AGENT).append("{\"resource\":1}").build();
    let refused = agent.line.ask_set(misshapen).await.unwrap_err();
    assert_eq!(refused.defined_condition, DefinedCondition::NotAcceptable);
    agent.line.send(StreamElement::Unknown(unknown)).await;
    assert_eq!(agent.line.end().await.condition(), "unsupported-stanza-type");
    // Nothing before authentication and nothing before bind (RFC 6120 §6.3.1, §7.1).
    let heard = say_and_listen(
        &world,
        &[HEADER.as_bytes(), b"<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>"],
    )
    .await;
    assert!(heard.contains("not-authorized"), "{heard}");
    let line = Line::open(&world, Some(&agent.enrolled.credentials), DOMAIN).await;
    let mut line = line.external().await.unwrap();
    let ended = line.try_ask(ping(), false).await.unwrap_err();
    assert_eq!(ended.condition(), "not-authorized");
}

#[tokio::test]
async fn who_never_binds_is_sent_away() {
    let world = World::with(|config| config.channel.login_within_ms = 400).await;
    let enrolled = crate::support::agent::enroll(&world).await;
    let line = Line::open(&world, Some(&enrolled.credentials), DOMAIN).await;
    let mut line = line.external().await.unwrap();
    assert_eq!(line.end().await.condition(), "connection-timeout");
}

#[tokio::test]
async fn a_stream_without_alpn_is_told_apart_by_its_first_byte() {
    let world = World::start().await;
    let mut tls = dial(&world, None, &[]).await.unwrap();
    tls.write_all(HEADER.as_bytes()).await.unwrap();
    let mut heard = String::new();
    let mut buffer = [0; 1_024];
    while !heard.contains("</stream:features>") {
        let read = tls.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(heard.contains("SCRAM-SHA-256") && !heard.contains("EXTERNAL"), "{heard}");
    let mut tls = dial(&world, None, &[]).await.unwrap();
    tls.write_all(b"GET /api/v1/tenants HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut heard = String::new();
    tls.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 401"), "{heard}");
}

#[tokio::test]
async fn a_cut_session_is_resumed_and_what_was_not_acknowledged_comes_again() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let instance = agent.enrolled.instance.clone();
    let handled_before = agent.line.handled;
    // An answer the agent never counts: the link is cut before.
    let lease = payload::Lease { resource: "r".into(), op: payload::LeaseOp::Acquire, fence: None };
    let iq = Iq::Set { from: None, to: None, id: "lost-1".into(), payload: lease.to_element() };
    agent.line.send(StreamElement::Iq(iq)).await;
    world.journal("lease", "granted").await;
    assert!(world.cloud().sessions.presence(&world.tenant, &instance).is_some());
    drop(agent.line);
    world.journal("offline", "connection lost").await;
    assert!(world.cloud().sessions.presence(&world.tenant, &instance).is_none(), "cut means not online");

    let line = Line::open(&world, Some(&agent.enrolled.credentials), DOMAIN).await;
    let mut line = line.external().await.unwrap();
    (line.handled, line.counting) = (handled_before, true);
    let resume = sm::Resume { h: handled_before, previd: sm::StreamId(agent.sm_id.clone()) };
    line.send(StreamElement::Sm(SmElement::Resume(resume))).await;
    let resumed = match line.next().await.unwrap() {
        StreamElement::Sm(SmElement::Resumed(resumed)) => resumed,
        other => panic!("unexpected {other:?}"),
    };
    assert_eq!(resumed.h, 3, "hello, health and lease were handled");
    let again = match line.next().await.unwrap() {
        StreamElement::Iq(Iq::Result { id, payload, .. }) if id == "lost-1" => payload.unwrap(),
        other => panic!("unexpected {other:?}"),
    };
    assert!(payload::LeaseGrant::from_element(&again).unwrap().granted);
    world.journal("online", "resumed").await;
    assert_eq!(world.cloud().sessions.presence(&world.tenant, &instance).unwrap().session_epoch, 1);
    // A second resumption of the same session by a third connection takes it over from the living second one.
    let third = Line::open(&world, Some(&agent.enrolled.credentials), DOMAIN).await;
    let mut third = third.external().await.unwrap();
    (third.handled, third.counting) = (handled_before + 1, true);
    let resume = sm::Resume { h: handled_before + 1, previd: sm::StreamId(agent.sm_id) };
    third.send(StreamElement::Sm(SmElement::Resume(resume))).await;
    assert!(matches!(third.next().await.unwrap(), StreamElement::Sm(SmElement::Resumed(_))));
    assert_eq!(line.end().await.condition(), "conflict");
    assert_eq!(third.ask_get(ping()).await, Ok(None));
    let journal = world.mock.journal().after(0);
    assert!(world.cloud().sessions.presence(&world.tenant, &instance).is_some(), "{journal:#?}");
}

#[tokio::test]
async fn unknown_foreign_and_overstated_resumptions_fail() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let stranger = Agent::online(&world).await;
    let line = Line::open(&world, Some(&stranger.enrolled.credentials), DOMAIN).await;
    let mut line = line.external().await.unwrap();
    for id in ["nonsense", agent.sm_id.as_str()] {
        let resume = sm::Resume { h: 0, previd: sm::StreamId(id.into()) };
        line.send(StreamElement::Sm(SmElement::Resume(resume))).await;
        match line.next().await.unwrap() {
            StreamElement::Sm(SmElement::Failed(failed)) => {
                assert_eq!(failed.condition, Some(DefinedCondition::ItemNotFound));
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    // A failed resumption leaves the stream fit for bind.
    assert!(line.bind("agent").await.ends_with("/agent"));
    agent.line.send(StreamElement::Sm(SmElement::Ack(sm::A::new(4_000)))).await;
    let ended = agent.line.end().await;
    assert_eq!(ended.condition(), "undefined-condition");
    assert!(format!("{ended:?}").contains("handled-count-too-high"), "{ended:?}");
}

#[tokio::test]
async fn a_clone_wins_the_original_is_told_to_wait_and_an_alert_names_both() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let enrolled = agent.enrolled.clone();
    let copy = Hello { host: "srv1-copy".into(), ..hello("boot-of-a-copy") };
    let clone = async {
        let line = Line::open(&world, Some(&enrolled.credentials), DOMAIN).await;
        let mut line = line.external().await.unwrap();
        line.bind("agent").await;
        let welcome = line.ask_set(copy.to_element()).await.unwrap().unwrap();
        (line, payload::Welcome::from_element(&welcome).unwrap().session_epoch)
    };
    let original = async {
        // The probe: answering it is what proves that the original lives.
        let iq = agent.line.next_order().await;
        agent.line.answer(iq.id(), None).await;
    };
    let ((mut clone, epoch), ()) = tokio::join!(clone, original);
    assert_eq!(epoch, 2);
    let ended = agent.line.end().await;
    let Ended::Error(error) = &ended else { panic!("{ended:?}") };
    assert_eq!(ended.condition(), "conflict");
    assert!(format!("{error:?}").contains("host srv1-copy (127.0.0.1)"), "{error:?}");
    // What it had cannot be had back: it comes as a new session, after its wait.
    assert!(!resumes(&world, &agent).await);
    let alerts = world.cloud().store.alerts(&world.tenant, Some(true), 10, None).await.unwrap().items;
    let [alert] = alerts.as_slice() else { panic!("{alerts:?}") };
    assert_eq!(alert.code, "duplicate_instance");
    for place in ["host srv1 (127.0.0.1)", "host srv1-copy (127.0.0.1)"] {
        assert!(alert.detail.contains(place), "{}", alert.detail);
    }
    assert_eq!(clone.ask_get(ping()).await, Ok(None), "the newer one is served");
    assert_eq!(world.cloud().sessions.count(), 1);
}

#[tokio::test]
async fn a_reconnect_and_a_successor_are_no_clones() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    // The same process on a new connection: silent.
    let again = Agent::connect(&world, agent.enrolled.clone(), "boot-1").await;
    assert_eq!(again.welcome.session_epoch, 2);
    assert_eq!(agent.line.end().await.condition(), "conflict");
    // A new process whose predecessor is dead but not yet noticed: the probe goes unanswered.
    let reborn = Agent::connect(&world, agent.enrolled.clone(), "boot-2").await;
    assert_eq!(reborn.welcome.session_epoch, 3);
    let alerts = world.cloud().store.alerts(&world.tenant, None, 10, None).await.unwrap().items;
    assert!(alerts.is_empty(), "{alerts:?}");
}

async fn resumes(world: &World, agent: &Agent) -> bool {
    let line = Line::open(world, Some(&agent.enrolled.credentials), DOMAIN).await;
    let mut line = line.external().await.unwrap();
    let resume = sm::Resume { h: 0, previd: sm::StreamId(agent.sm_id.clone()) };
    line.send(StreamElement::Sm(SmElement::Resume(resume))).await;
    matches!(line.next().await.unwrap(), StreamElement::Sm(SmElement::Resumed(_)))
}

#[tokio::test]
async fn stopping_tells_every_agent() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let stopping = tokio::spawn(world.mock.stop());
    assert_eq!(agent.line.end().await.condition(), "system-shutdown");
    tokio::time::timeout(Duration::from_secs(1), stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn reports_are_counted_only_when_they_are_stored() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    world.configure("user_visibility").await;
    let id = world.order("user_visibility", "sync_now", 60_000).await;
    agent.accept().await;
    let before = agent.line.ack().await;
    let guard = world.mock.faults().guard(
        causeway_mock_kit::fault::Rule::new(causeway_mock_kit::fault::Fault::Stall {})
            .on_operation("report")
            .times(1),
    );
    let report = Report::success(&id, json!({})).to_element();
    let iq = Iq::Set { from: None, to: None, id: "r1".into(), payload: report };
    agent.line.send(StreamElement::Iq(iq)).await;
    assert_eq!(agent.line.ack().await, before, "a report in work is not handled");
    assert_eq!(guard.hits(), 1);
}
