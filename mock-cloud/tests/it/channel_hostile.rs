//! What a hostile or broken agent may say: bounded, answered, or the end of its stream with the error that fits (RFC
//! 6120 §4.9.3). Nobody else notices.

use causeway_protocol::channel::element::SmFailed;
use causeway_protocol::channel::{SmElement, StreamElement, ns};
use causeway_protocol::limits::{ELEMENT_DEPTH_MAX, ELEMENT_MAX_BYTES, UNACKED_MAX};
use futures_util::SinkExt;
use minidom::Element;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::DefinedCondition;

use crate::support::agent::{Agent, Line, hello};
use crate::support::wire::{HEADER, say_and_listen};
use crate::support::{PATIENCE, World};
use causeway_protocol::channel::payload::Payload as _;

const DOMAIN: &str = "cloud.causeway.test";

fn ping() -> Element {
    Element::builder("ping", ns::PING).build()
}

fn nested(levels: usize) -> String {
    format!("<iq type='get' id='deep'>{}{}</iq>", "<a xmlns='x'>".repeat(levels), "</a>".repeat(levels))
}

/// Writes bytes on a live stream and returns what the cloud says until it closes.
async fn last_words(line: Line, bytes: &[u8]) -> String {
    let mut tls = line.stream.into_inner().into_inner();
    // The cloud may hang up in the middle of it.
    let _ = tls.write_all(bytes).await;
    let _ = tls.flush().await;
    let mut heard = Vec::new();
    let mut buffer = [0; 4_096];
    let listen = async {
        while let Ok(read @ 1..) = tls.read(&mut buffer).await {
            heard.extend_from_slice(&buffer[..read]);
        }
    };
    let ended = tokio::time::timeout(PATIENCE, listen).await;
    let heard = String::from_utf8_lossy(&heard).into_owned();
    let sent = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
    assert!(ended.is_ok(), "{sent}: the cloud did not hang up; it said {heard:?}");
    heard
}

#[tokio::test]
async fn what_is_no_proper_xml_or_no_stanza_ends_the_stream_with_the_error_that_fits() {
    let world = World::start().await;
    let enrolled = crate::support::agent::enroll(&world).await;
    let deep = nested(15_000);
    let just_too_deep = nested(ELEMENT_DEPTH_MAX as usize);
    let long = format!("<iq type='get' id='1'><x xmlns='y'>{}</x></iq>", "a".repeat(ELEMENT_MAX_BYTES));
    let spaces = " ".repeat(ELEMENT_MAX_BYTES + 10_000);
    let cases: &[(&[u8], &str)] = &[
        (b"<iq type='set' id='1'><a></b></iq>", "not-well-formed"),
        (b"<iq type='set' id='1'><a>&lol;</a></iq>", "not-well-formed"),
        (b"<iq type='set' id='1'><a>&#0;</a></iq>", "not-well-formed"),
        (b"<iq type='get' id='1'><a b='1' b='2'/></iq>", "not-well-formed"),
        (b"<nobody:iq type='get' id='1'/>", "not-well-formed"),
        (b"<iq xmlns:xml='urn:x' type='get' id='1'><a xmlns='b'/></iq>", "not-well-formed"),
        (b"\xff\xfe<", "not-well-formed"),
        (b"<iq type='get' id='\xc3\x28'><a xmlns='b'/></iq>", "not-well-formed"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]>", "restricted-xml"),
        (b"<!-- a comment -->", "restricted-xml"),
        (b"<?php echo 1; ?>", "restricted-xml"),
        (b"text between stanzas", "bad-format"),
        (b"<iq type='get'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-format"),
        (b"<iq id='1'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-format"),
        (b"<iq type='sideways' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-format"),
        (b"<iq type='get' id='1'/>", "bad-format"),
        (b"<iq type='error' id='1'/>", "bad-format"),
        (
            b"<iq xmlns='jabber:server' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
            "unsupported-stanza-type",
        ),
        (
            b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>",
            "unsupported-stanza-type",
        ),
        (b"<a xmlns='urn:xmpp:sm:3' h='-1'/>", "bad-format"),
        (deep.as_bytes(), "policy-violation"),
        (just_too_deep.as_bytes(), "policy-violation"),
        (long.as_bytes(), "policy-violation"),
        (spaces.as_bytes(), "policy-violation"),
    ];
    for (bytes, condition) in cases {
        let line = Line::open(&world, Some(&enrolled.credentials), DOMAIN).await.external().await.unwrap();
        let mut line = line;
        line.bind("agent").await;
        let said = last_words(line, bytes).await;
        let sent = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        // Hanging up on somebody who is still talking may cost him the last words.
        let unheard = bytes.len() > 10_000 && said.is_empty();
        assert!(unheard || said.contains(condition), "{sent}: expected {condition}, the cloud said {said}");
    }
    // Before the login the same limits hold, smaller.
    let deep = format!("<auth xmlns='{}' mechanism='EXTERNAL'>{}", ns::SASL, "<a>".repeat(200));
    for before in
        [deep.as_str(), "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>&lol;</auth>"]
    {
        let heard = say_and_listen(&world, &[HEADER.as_bytes(), before.as_bytes()]).await;
        assert!(heard.contains("policy-violation") || heard.contains("not-well-formed"), "{heard}");
    }
    for no_header in ["<iq type='get' id='1'/>", "<stream xmlns='urn:x'>", "\u{feff}hello"] {
        let heard = say_and_listen(&world, &[no_header.as_bytes()]).await;
        assert!(!heard.contains("mechanism"), "{no_header}: {heard}");
    }
}

#[tokio::test]
async fn odd_but_lawful_xml_is_understood() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let attributes: String = (0..15_000).map(|n| format!(" a{n}='{n}'")).collect();
    let flood = format!("<iq type='get' id='f1'><x xmlns='y'{attributes}/></iq>");
    let within = nested(ELEMENT_DEPTH_MAX as usize - 1);
    let mut tls = agent.line.stream.into_inner().into_inner();
    let mut said = String::new();
    for (bytes, answer) in [
        ("<c:iq xmlns:c='jabber:client' type='get' id='p1'><p:ping xmlns:p='urn:xmpp:ping'/></c:iq>", "p1"),
        (" \n\t<iq type=\"get\" id='p2'\n><ping xmlns='urn:xmpp:ping'></ping></iq   > ", "p2"),
        ("<iq type='get' id='p3'><ping xmlns='urn:xmpp:ping'><![CDATA[<iq>]]></ping></iq>", "p3"),
        (
            "<message type='sideways'><body/><body/></message><presence type='purple'/><iq type='get' id='p4'><ping xmlns='urn:xmpp:ping'/></iq>",
            "p4",
        ),
        (&flood, "f1"),
        (&within, "deep"),
    ] {
        // In pieces, so that every boundary of the reader is met by something.
        for piece in bytes.as_bytes().chunks(if bytes.len() > 1_000 { 5_000 } else { 1 }) {
            tls.write_all(piece).await.unwrap();
            tls.flush().await.unwrap();
        }
        let answered = async {
            let mut buffer = [0; 4_096];
            while !said.contains(&format!("id='{answer}'")) && !said.contains(&format!("id=\"{answer}\"")) {
                let read = tls.read(&mut buffer).await.unwrap();
                assert_ne!(read, 0, "{answer}: the cloud hung up: {said}");
                said.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("no answer to {answer}"));
    }
    agent.line = Line::open(&world, Some(&agent.enrolled.credentials), DOMAIN).await;
    assert!(agent.line.features.limits.is_some());
}

#[tokio::test]
async fn stream_management_out_of_order_is_refused() {
    let world = World::start().await;
    let enrolled = crate::support::agent::enroll(&world).await;
    let resume = |id: &str| SmElement::Resume(sm::Resume { h: 0, previd: sm::StreamId(id.into()) });
    let failed = |element: Option<StreamElement>| match element {
        Some(StreamElement::Sm(SmElement::Failed(failed))) => failed.condition,
        other => panic!("unexpected {other:?}"),
    };
    let ask = async |line: &mut Line, element: SmElement| {
        line.send(StreamElement::Sm(element)).await;
        failed(line.next().await.ok())
    };
    // Enabled before there is a resource: not a stanza, but nothing before bind.
    let mut line = Line::open(&world, Some(&enrolled.credentials), DOMAIN).await.external().await.unwrap();
    line.send(StreamElement::Sm(SmElement::Enable(sm::Enable::new().with_resume()))).await;
    assert_eq!(line.end().await.condition(), "not-authorized");

    // Resumed after bind, enabled twice, resumed once enabled.
    let mut agent = Agent::connect(&world, enrolled.clone(), "boot-1").await;
    let own = agent.sm_id.clone();
    assert_eq!(ask(&mut agent.line, resume(&own)).await, Some(DefinedCondition::UnexpectedRequest));
    let again = SmElement::Enable(sm::Enable::new().with_resume());
    assert_eq!(ask(&mut agent.line, again).await, Some(DefinedCondition::UnexpectedRequest));
    assert_eq!(agent.line.ask_get(ping()).await, Ok(None), "the stream goes on");
    // What only a server says.
    for element in [
        SmElement::Resumed(sm::Resumed { h: 0, previd: sm::StreamId(own.clone()) }),
        SmElement::Failed(SmFailed { h: None, condition: None }),
    ] {
        let mut line =
            Line::open(&world, Some(&enrolled.credentials), DOMAIN).await.external().await.unwrap();
        line.bind("agent").await;
        line.send(StreamElement::Sm(element)).await;
        assert_eq!(line.end().await.condition(), "unsupported-stanza-type");
    }
}

#[tokio::test]
async fn acknowledgements_that_cannot_be_true_end_the_stream_and_the_session() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    // The cloud has sent two answers at least; having handled one of them, one cannot have handled none.
    agent.line.send(StreamElement::Sm(SmElement::Ack(sm::A::new(1)))).await;
    agent.line.send(StreamElement::Sm(SmElement::Ack(sm::A::new(0)))).await;
    let text = format!("{:?}", agent.line.end().await);
    assert!(text.contains("handled-count-too-high"), "{text}");

    // A resumption with a count of stanzas that were never sent, and with one that goes backwards.
    for h in [4_000, 0] {
        let mut agent = Agent::connect(&world, agent.enrolled.clone(), "boot-1").await;
        agent.line.send(StreamElement::Sm(SmElement::Ack(sm::A::new(1)))).await;
        assert_eq!(agent.line.ask_get(ping()).await, Ok(None), "the acknowledgement is read");
        let instance = agent.enrolled.instance.clone();
        drop(agent.line);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while world.cloud().sessions.presence(&world.tenant, &instance).is_some() {
            assert!(tokio::time::Instant::now() < deadline, "the cut goes unnoticed");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut line =
            Line::open(&world, Some(&agent.enrolled.credentials), DOMAIN).await.external().await.unwrap();
        let resume = sm::Resume { h, previd: sm::StreamId(agent.sm_id.clone()) };
        line.send(StreamElement::Sm(SmElement::Resume(resume))).await;
        let text = format!("{:?}", line.end().await);
        assert!(text.contains("handled-count-too-high"), "h={h}: {text}");
        // That session is gone for good.
        let mut line =
            Line::open(&world, Some(&agent.enrolled.credentials), DOMAIN).await.external().await.unwrap();
        let resume = sm::Resume { h: 1, previd: sm::StreamId(agent.sm_id) };
        line.send(StreamElement::Sm(SmElement::Resume(resume))).await;
        assert!(matches!(line.next().await, Ok(StreamElement::Sm(SmElement::Failed(_)))));
    }
}

#[tokio::test]
async fn answers_to_nothing_and_ids_used_again_change_nothing() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let before = agent.line.ack().await;
    for id in ["never-asked", "q999999", "q", "q-1"] {
        agent.line.answer(id, None).await;
    }
    let error = xmpp_parsers::stanza_error::StanzaError::new(
        xmpp_parsers::stanza_error::ErrorType::Cancel,
        DefinedCondition::ItemNotFound,
        "en",
        "no such thing",
    );
    let iq = Iq::Error { from: None, to: None, id: "q999998".into(), error, payload: None };
    agent.line.send(StreamElement::Iq(iq)).await;
    assert_eq!(agent.line.ack().await, before + 5, "they are stanzas and counted");
    for _ in 0..2 {
        let iq = Iq::Get { from: None, to: None, id: "again".into(), payload: ping() };
        agent.line.send(StreamElement::Iq(iq)).await;
        let answer = agent.line.next().await.unwrap();
        assert!(matches!(&answer, StreamElement::Iq(Iq::Result { id, .. }) if id == "again"), "{answer:?}");
    }
    // A second hello in one session is no second session.
    let epoch = agent.welcome.session_epoch;
    let _ = agent.line.try_ask(hello("boot-1").to_element(), true).await;
    let now = world.cloud().sessions.presence(&world.tenant, &agent.enrolled.instance);
    assert!(now.is_none_or(|presence| presence.session_epoch <= epoch + 1));
}

#[tokio::test]
async fn floods_are_bounded_and_nobody_else_notices() {
    let world = World::start().await;
    let mut neighbour = Agent::online(&world).await;
    // Pings, and not one acknowledgement.
    let mut agent = Agent::online(&world).await;
    let pings: String = (0..2 * UNACKED_MAX)
        .map(|n| format!("<iq type='get' id='p{n}'><ping xmlns='urn:xmpp:ping'/></iq>"))
        .collect();
    let said = last_words(agent.line, pings.as_bytes()).await;
    assert!(said.matches("type='result'").count() <= UNACKED_MAX);
    world.journal("offline", "policy-violation").await;

    // Questions for the counter are cheap; each is answered, nothing else happens.
    agent = Agent::connect(&world, agent.enrolled.clone(), "boot-1").await;
    for _ in 0..2_000 {
        let request = StreamElement::Sm(SmElement::Request(sm::R));
        SinkExt::<&StreamElement>::feed(&mut agent.line.stream, &request).await.unwrap();
    }
    assert_eq!(agent.line.ask_get(ping()).await, Ok(None));
    assert_eq!(neighbour.line.ask_get(ping()).await, Ok(None), "the neighbour is served");
}

/// Clients keep links alive with it (RFC 6120 §4.6.1).
#[tokio::test]
async fn white_space_is_no_unfinished_element() {
    let world = World::with(|config| config.channel.element_within_ms = 300).await;
    let agent = Agent::online(&world).await;
    let mut tls = agent.line.stream.into_inner().into_inner();
    tls.write_all(b" \n").await.unwrap();
    tls.flush().await.unwrap();
    // Nothing comes within more than the time an element has; then the stream still answers.
    let mut buffer = [0; 4_096];
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(700), async {
        loop {
            let read = tls.read(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            assert!(read > 0 && !text.contains("stream:error"), "{text}");
        }
    })
    .await;
    assert!(quiet.is_err());
    tls.write_all(b"<iq type='get' id='still'><ping xmlns='urn:xmpp:ping'/></iq>").await.unwrap();
    tls.flush().await.unwrap();
    let mut heard = String::new();
    while !heard.contains("still") {
        let read = tokio::time::timeout(PATIENCE, tls.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}
