//! What a hostile or broken cloud may say in a session: the agent bounds it, answers it or ends the stream with the
//! error that fits (RFC 6120 §4.9.3), and begins anew.

use causeway_agent::channel::ChannelState;
use causeway_protocol::channel::element::SmFailed;
use causeway_protocol::channel::payload::Payload;
use causeway_protocol::channel::{SmElement, StreamElement, ns};
use causeway_protocol::limits::{ELEMENT_DEPTH_MAX, ELEMENT_MAX_BYTES, UNACKED_MAX};
use serde_json::json;
use tokio::io::AsyncReadExt;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::DefinedCondition as Condition;

use crate::support::cloud::{Begun, action};
use crate::support::module::Probe;
use crate::support::{Bench, DOMAIN, eventually, soon};

fn nested(levels: usize) -> String {
    format!(
        "<iq type='get' id='deep' xmlns='jabber:client'>{}{}</iq>",
        "<a xmlns='x'>".repeat(levels),
        "</a>".repeat(levels)
    )
}

#[tokio::test(start_paused = true)]
async fn what_is_no_proper_xml_or_no_stanza_ends_the_stream_with_the_error_that_fits() {
    let deep = nested(20_000);
    let just_too_deep = nested(ELEMENT_DEPTH_MAX as usize);
    let long = format!("<iq type='get' id='1'><x xmlns='y'>{}</x></iq>", "a".repeat(ELEMENT_MAX_BYTES));
    let spaces = " ".repeat(ELEMENT_MAX_BYTES + 10_000);
    let cases: &[(&[u8], &str)] = &[
        (b"<iq type='set' id='1'><a></b></iq>", "not-well-formed"),
        (b"<iq type='set' id='1'><a>&lol;</a></iq>", "not-well-formed"),
        (b"<iq type='set' id='1'><a>&#0;</a></iq>", "not-well-formed"),
        (b"<iq type='set' id='1'><a>&#xFFFE;</a></iq>", "not-well-formed"),
        (b"<iq type='get' id='1'><a b='1' b='2'/></iq>", "not-well-formed"),
        (b"<nobody:iq type='get' id='1'/>", "not-well-formed"),
        (b"<iq xmlns:xml='urn:x' type='get' id='1'><a xmlns='b'/></iq>", "not-well-formed"),
        (b"<iq xmlns:xmlns='urn:x' type='get' id='1'><a xmlns='b'/></iq>", "not-well-formed"),
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
        (b"<iq type='get' id='1' from='@@'><a xmlns='b'/></iq>", "bad-format"),
        (b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>", "unsupported-stanza-type"),
        (b"<a xmlns='urn:xmpp:sm:3' h='-1'/>", "bad-format"),
        (deep.as_bytes(), "policy-violation"),
        (just_too_deep.as_bytes(), "policy-violation"),
        (long.as_bytes(), "policy-violation"),
        (spaces.as_bytes(), "policy-violation"),
    ];
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    for (bytes, condition) in cases {
        let (line, _) = bench.lobby.online().await;
        let mut io = line.send_bytes(bytes).await;
        let mut rest = Vec::new();
        soon("the end of the connection", io.read_to_end(&mut rest)).await.unwrap();
        let (said, sent) =
            (String::from_utf8_lossy(&rest), String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
        assert!(said.contains(condition), "{sent}: expected {condition}, the agent said {said}");
    }
    let (mut line, _) = bench.lobby.online().await;
    line.inject(nested(ELEMENT_DEPTH_MAX as usize - 1).as_bytes()).await;
    assert_eq!(line.answer_to("deep").await.unwrap_err().defined_condition, Condition::ServiceUnavailable);
    assert!(bench.probe.acted().is_empty());
}

#[tokio::test(start_paused = true)]
async fn odd_but_lawful_xml_is_understood_and_foreign_namespaces_are_not_obeyed() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    let id = line.order(Probe::config(1, json!({})).to_element()).await;
    line.answer_to(&id).await.unwrap();
    // Prefixes are spelling; namespaces are what counts.
    line.inject(b"<c:iq xmlns:c='jabber:client' type='get' id='p1'><p:ping xmlns:p='urn:xmpp:ping'/></c:iq>")
        .await;
    assert_eq!(line.answer_to("p1").await, Ok(None));
    line.inject(b" \n\t<iq type=\"get\" id='p2'\n><ping xmlns='urn:xmpp:ping'></ping></iq   > ").await;
    assert_eq!(line.answer_to("p2").await, Ok(None));
    line.inject(b"<iq type='get' id='p3'><ping xmlns='urn:xmpp:ping'><![CDATA[<iq>]]></ping></iq>").await;
    assert_eq!(line.answer_to("p3").await.unwrap_err().defined_condition, Condition::ServiceUnavailable);

    // The same names in other namespaces, the default namespace changed, the stream's prefix taken for something else.
    let order = String::from(&action("a1", "echo", json!(1)).to_element());
    let handled = line.injected_handled().await;
    for stranger in [
        format!("<iq xmlns='jabber:server' type='set' id='x1'>{order}</iq>"),
        format!("<stream:iq xmlns:stream='urn:x' type='set' id='x2'>{order}</stream:iq>"),
        "<stream:error xmlns:stream='urn:x'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>".to_owned(),
        "<features xmlns='urn:x'/>".to_owned(),
        "<r xmlns='urn:xmpp:sm:2'/>".to_owned(),
    ] {
        assert!(line.inject(stranger.as_bytes()).await, "{stranger}");
    }
    assert_eq!(line.injected_handled().await, handled, "none of these is a stanza");
    // Contents of messages and presences that no library would accept.
    for talk in [
        "<message type='sideways' to='x'><body/><body/></message>",
        "<presence type='purple'><show>nonsense</show><priority>x</priority></presence>",
    ] {
        assert!(line.inject(talk.as_bytes()).await, "{talk}");
    }
    assert_eq!(line.injected_handled().await, handled + 2);
    assert!(bench.probe.acted().is_empty());

    // A flood of attributes is a large stanza like any other.
    let attributes: String = (0..15_000).map(|n| format!(" a{n}='{n}'")).collect();
    assert!(attributes.len() < ELEMENT_MAX_BYTES - 1_000);
    line.inject(format!("<iq type='get' id='f1'><x xmlns='y'{attributes}/></iq>").as_bytes()).await;
    assert_eq!(line.answer_to("f1").await.unwrap_err().defined_condition, Condition::ServiceUnavailable);
    // One stanza in pieces of a byte.
    let whole = b"<iq type='get' id='s1'><ping xmlns='urn:xmpp:ping'/></iq>";
    for byte in whole.chunks(1) {
        line.inject(byte).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(line.answer_to("s1").await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_that_cannot_be_true_end_the_stream() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    line.send(&StreamElement::Sm(SmElement::Ack(sm::A::new(4_000)))).await;
    let text = format!("{:?}", line.agents_error().await);
    assert!(text.contains("handled-count-too-high") && text.contains("4000"), "{text}");

    // Going backwards is claiming nearly 2^32 (XEP-0198 §4: counters wrap).
    let (mut line, _) = bench.lobby.online().await;
    let handled = line.handled;
    assert!(handled > 0);
    line.send(&StreamElement::Sm(SmElement::Ack(sm::A::new(handled)))).await;
    line.send(&StreamElement::Sm(SmElement::Ack(sm::A::new(handled - 1)))).await;
    let text = format!("{:?}", line.agents_error().await);
    assert!(text.contains("handled-count-too-high"), "{text}");
    bench.lobby.online().await;
}

#[tokio::test(start_paused = true)]
async fn stream_management_out_of_order_ends_the_stream() {
    let previd = || sm::StreamId("sm-1".to_owned());
    let enabled = sm::Enabled { id: Some(previd()), location: None, max: None, resume: true };
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    for element in [
        SmElement::Enabled(enabled),
        SmElement::Enable(sm::Enable::new()),
        SmElement::Resume(sm::Resume { h: 0, previd: previd() }),
        SmElement::Resumed(sm::Resumed { h: 0, previd: previd() }),
        SmElement::Failed(SmFailed { h: Some(1), condition: None }),
    ] {
        let (mut line, _) = bench.lobby.online().await;
        line.send(&StreamElement::Sm(element.clone())).await;
        let error = line.agents_error().await;
        assert_eq!(error.condition.to_string(), "unsupported-stanza-type", "{element:?}");
    }
    bench.lobby.online().await;
}

#[tokio::test(start_paused = true)]
async fn resumptions_that_do_not_fit_are_not_believed() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    // More handled than was ever sent.
    let (line, _) = bench.lobby.online().await;
    drop(line);
    let mut line = bench.lobby.authenticated().await;
    assert!(matches!(line.begin(Some(("sm-1", 9_999))).await, Begun::Resumed { .. }));
    let text = format!("{:?}", line.agents_error().await);
    assert!(text.contains("handled-count-too-high"), "{text}");

    // Somebody else's session: the login fails, and the agent asks for its own again.
    let (line, _) = bench.lobby.online().await;
    let handled = line.handled;
    drop(line);
    let mut line = bench.lobby.authenticated().await;
    let StreamElement::Sm(SmElement::Resume(asked)) = line.next().await.unwrap() else { panic!("no resume") };
    let foreign = sm::Resumed { h: asked.h, previd: sm::StreamId("not-asked-for".to_owned()) };
    line.send(&StreamElement::Sm(SmElement::Resumed(foreign))).await;
    assert!(line.next().await.is_none(), "the agent goes on in a foreign session");
    let mut line = bench.lobby.authenticated().await;
    assert!(matches!(line.begin(Some(("sm-1", handled))).await, Begun::Resumed { .. }));

    // And once more: a session can be cut and resumed as often as it must.
    let handled = line.handled;
    drop(line);
    let mut line = bench.lobby.authenticated().await;
    assert!(matches!(line.begin(Some(("sm-1", handled))).await, Begun::Resumed { .. }));
    line.inject(b"<iq type='get' id='p1'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    assert_eq!(line.answer_to("p1").await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn stanzas_before_enabled_are_taken_and_not_counted() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let mut line = bench.lobby.authenticated().await;
    let early = b"<iq type='get' id='early'><ping xmlns='urn:xmpp:ping'/></iq><message/>";
    assert!(matches!(soon("bind", line.begin_after(None, early)).await, Begun::Bound));
    let first = soon("the answer", line.next()).await;
    assert!(matches!(&first, Some(StreamElement::Iq(Iq::Result { id, .. })) if id == "early"), "{first:?}");
    soon("hello", line.welcome()).await;
    assert_eq!(line.injected_handled().await, 0, "only what follows <enabled/> counts");
}

#[tokio::test(start_paused = true)]
async fn answers_to_nothing_and_ids_used_again_change_nothing() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    let id = line.order(Probe::config(1, json!({})).to_element()).await;
    line.answer_to(&id).await.unwrap();
    let before = line.injected_handled().await;
    let nothing = b"<iq type='result' id='never-asked'/>\
        <iq type='result' id='a999999'><x xmlns='y'/></iq>\
        <iq type='error' id='a999998'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>";
    assert!(line.inject(nothing).await);
    assert_eq!(line.injected_handled().await, before + 3);
    for _ in 0..2 {
        line.inject(b"<iq type='get' id='again'><ping xmlns='urn:xmpp:ping'/></iq>").await;
        assert_eq!(line.answer_to("again").await, Ok(None));
    }
    // The same action under the same iq id, and once more under another: done once.
    for iq in ["o1", "o1", "o2"] {
        line.order_as(iq, action("a1", "echo", json!(1)).to_element()).await;
    }
    let (id, report) = soon("the report", line.report_past_answers()).await;
    assert_eq!(report.id, "a1");

    // A stranger who guesses the id of the report's iq does not make the agent forget it.
    let mallory = Some(format!("mallory@{DOMAIN}/x").parse().unwrap());
    let guess = Iq::Result { from: mallory, to: None, id: id.clone(), payload: None };
    line.send(&StreamElement::Iq(guess)).await;
    line.asked_h().await;
    drop(line);
    let (mut line, hello) = bench.lobby.online().await;
    assert_eq!(hello.outbox, 1, "the report was not delivered yet");
    let (id, _) = soon("the report again", line.report()).await;
    line.answer(&id, None).await;
    assert_eq!(bench.probe.acted(), ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn floods_are_bounded() {
    let ping = |n: usize| format!("<iq type='get' id='p{n}'><ping xmlns='urn:xmpp:ping'/></iq>");
    let mut bench = Bench::new();
    let agent = bench.start().await;
    // Pings that are never acknowledged.
    let (mut line, _) = bench.lobby.online().await;
    let flood: String = (0..2 * UNACKED_MAX).map(ping).collect();
    line.inject(flood.as_bytes()).await;
    assert_eq!(line.agents_error().await.condition.to_string(), "policy-violation");

    // Pings of somebody who does not read: the pipe between us holds a MiB, then the answers pile up.
    let mut line = bench.lobby.online_without_sm().await;
    let flood: String = (0..60_000).map(ping).collect();
    line.inject(flood.as_bytes()).await;
    let state = eventually(
        "the agent gives up",
        || async { agent.channel().state().borrow().clone() },
        |state| !matches!(state, ChannelState::Online),
    )
    .await;
    assert!(
        matches!(&state, ChannelState::Waiting { reason, .. } if reason.contains("does not read")),
        "{state:?}"
    );
    drop(line);

    // Questions for the counter, more than the pipe holds: one answer serves many.
    const FLOOD: usize = 120_000;
    let (mut line, _) = bench.lobby.online().await;
    let flood = format!("<r xmlns='{}'/>", ns::SM).repeat(FLOOD);
    assert!(soon("the agent reads them", line.inject(flood.as_bytes())).await);
    line.inject(ping(1).as_bytes()).await;
    let mut answers = 0;
    loop {
        match line.next().await.expect("open") {
            StreamElement::Sm(SmElement::Ack(_)) => answers += 1,
            StreamElement::Iq(Iq::Result { id, .. }) if id == "p1" => break,
            StreamElement::Iq(Iq::Set { id, .. }) => line.answer(&id, None).await,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..FLOOD).contains(&answers), "{answers}");
    // White space now and then is a lawful way to keep a link alive (RFC 6120 §4.6.1).
    for _ in 0..100 {
        assert!(line.inject(b" \n").await);
    }
    line.inject(ping(2).as_bytes()).await;
    assert_eq!(line.answer_to("p2").await, Ok(None));
}
