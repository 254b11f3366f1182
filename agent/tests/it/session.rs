//! The channel: sessions, resumption, silence, limits, and what the cloud says when it ends a stream.

use std::time::Duration;

use causeway_agent::channel::{ChannelState, Nudge};
use causeway_agent::limits::{CLONE_WAIT_FROM, CLONE_WAIT_TO, REFUSED_WAIT_FROM, SHUTDOWN_SPREAD};
use causeway_protocol::Secret;
use causeway_protocol::channel::payload::{Health, Payload, Reply, Request};
use causeway_protocol::channel::{StreamElement, ns};
use causeway_protocol::health::ModuleState;
use causeway_protocol::limits::{ELEMENT_MAX_BYTES, HASTE_MAX, HASTE_WITHIN, PING_AFTER, PONG_WITHIN};
use minidom::Element;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::stanza_error::DefinedCondition as Condition;
use xmpp_parsers::stream_error::{DefinedCondition, StreamError};

use crate::support::cloud::{Begun, Line, action};
use crate::support::module::Probe;
use crate::support::{Bench, DOMAIN, eventually, soon};

fn request(verb: &str, body: &str) -> Request {
    Request { module: "probe".into(), request: verb.into(), ttl_ms: 4_000, body: Secret::new(body) }
}

async fn configured(line: &mut Line) {
    let id = line.order(Probe::config(1, json!({})).to_element()).await;
    line.answer_to(&id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_says_hello_and_reports_its_health() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (mut line, hello) = bench.lobby.online().await;
    assert_eq!((hello.modules, hello.outbox), (vec!["probe".to_owned()], 0));
    assert!(agent.wait_online(Duration::from_secs(1)).await);
    configured(&mut line).await;
    let mut health: Health = line.news().await;
    while health.modules.is_empty() || health.modules[0].state != ModuleState::Ok {
        health = line.news().await;
    }
    assert_eq!(health.modules[0].detail, "probing");
    agent.stop().await;
    assert!(line.closed_properly().await);
    assert_eq!(bench.probe.ended(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cut_session_is_resumed_and_nothing_is_lost_or_repeated() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    configured(&mut line).await;
    let id = line.order(action("a1", "echo", json!(1)).to_element()).await;
    line.answer_to(&id).await.unwrap();
    // The cloud has handled everything up to here, but not the report that comes now.
    let handled = line.handled;
    line.report().await;
    let sent = line.sent;
    drop(line);

    let mut line = bench.lobby.authenticated().await;
    let Begun::Resumed { h } = line.begin(Some(("sm-1", handled))).await else { panic!("a new session") };
    assert_eq!(h, sent, "everything that was sent is handled");
    let (id, report) = soon("the report again", line.report()).await;
    assert_eq!((report.id.as_str(), report.result), ("a1", Some(json!(1))));
    line.answer(&id, None).await;
    assert_eq!(bench.probe.acted(), ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_the_cloud_has_forgotten_begins_anew_and_the_outbox_is_delivered() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    configured(&mut line).await;
    let id = line.order(action("a1", "echo", json!(1)).to_element()).await;
    line.answer_to(&id).await.unwrap();
    line.report().await;
    drop(line);

    let (mut line, hello) = bench.lobby.online().await;
    assert_eq!((hello.outbox, hello.revisions["probe"]), (1, 1));
    let (id, report) = soon("the report again", line.report()).await;
    assert_eq!(report.id, "a1");
    line.answer(&id, None).await;
    eventually("the outbox", || async { agent.status().outbox }, |waiting| *waiting == 0).await;
    assert_eq!(bench.probe.acted(), ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_repeated_after_a_resumption_is_not_tried_twice() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    configured(&mut line).await;
    line.order_as("q77", request("wait", "{}").to_element()).await;
    eventually("the request", || async { bench.probe.asked() }, |asked| *asked == 1).await;
    let handled = line.handled;
    drop(line);

    let mut line = bench.lobby.authenticated().await;
    assert!(matches!(line.begin(Some(("sm-1", handled))).await, Begun::Resumed { .. }));
    line.order_as("q77", request("wait", "{}").to_element()).await;
    bench.probe.release(1);
    let answer = soon("the answer", line.answer_to("q77")).await.unwrap().unwrap();
    assert_eq!(Reply::from_element(&answer).unwrap(), Reply::Answer(json!("waited")));
    assert_eq!(bench.probe.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_in_time() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (line, _) = bench.lobby.online().await;
    let silent_from = Instant::now();
    let _next = bench.lobby.raw().await;
    let noticed = silent_from.elapsed();
    drop(line);
    // The agent's own news may have asked for an acknowledgement earlier than the silence would have.
    assert!(noticed >= PONG_WITHIN, "{noticed:?}");
    assert!(noticed <= PING_AFTER + PONG_WITHIN + Duration::from_secs(2), "{noticed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endless_element_ends_the_connection_before_memory_does() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (line, _) = bench.lobby.online().await;
    let mut endless = b"<iq xmlns='jabber:client' type='set' id='x'><x xmlns='y'>".to_vec();
    endless.resize(ELEMENT_MAX_BYTES + 64 * 1024, b'a');
    let mut io = line.send_bytes(&endless).await;
    let mut rest = Vec::new();
    soon("the end of the connection", io.read_to_end(&mut rest)).await.unwrap();
    bench.lobby.online().await;
}

#[tokio::test(start_paused = true)]
async fn broken_xml_and_doctypes_end_the_stream_and_a_new_session_follows() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    for bad in [
        &b"<iq type='set' id='1'><a></b></iq>"[..],
        b"<!DOCTYPE x [<!ENTITY a 'b'>]>",
        b"<iq type='sideways' id='1'/>",
        b"\xff\xfe",
    ] {
        let (line, _) = bench.lobby.online().await;
        let mut io = line.send_bytes(bad).await;
        let mut rest = Vec::new();
        soon("the end of the connection", io.read_to_end(&mut rest)).await.unwrap();
    }
    bench.lobby.online().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_agent_does_not_know_is_answered_and_ends_nothing() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    let unknown = Element::builder("open-shell", ns::CMD).append("rm -rf /").build();
    let id = line.order(unknown).await;
    let error = line.answer_to(&id).await.unwrap_err();
    assert_eq!(error.defined_condition, Condition::ServiceUnavailable);

    // The right order from the wrong sender.
    let stranger = Some(format!("mallory@{DOMAIN}/x").parse().unwrap());
    let payload = action("a1", "echo", json!(1)).to_element();
    let iq = Iq::Set { from: stranger, to: None, id: "m1".into(), payload };
    line.send(&StreamElement::Iq(iq)).await;
    assert_eq!(line.answer_to("m1").await.unwrap_err().defined_condition, Condition::ServiceUnavailable);

    let extra = Element::builder("anything", "urn:x").build();
    line.send(&StreamElement::Unknown(extra)).await;
    let malformed = Element::builder("action", ns::CMD).append("{\"id\":").build();
    let id = line.order(malformed).await;
    assert_eq!(line.answer_to(&id).await.unwrap_err().defined_condition, Condition::BadRequest);
    assert!(bench.probe.acted().is_empty());
}

/// Ends the first stream so and tells how long the agent stayed away.
async fn away_after(condition: DefinedCondition) -> (Duration, Bench) {
    away_after_error(StreamError::new(condition, "en", "because")).await
}

async fn away_after_error(error: StreamError) -> (Duration, Bench) {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (line, _) = bench.lobby.online().await;
    let ended = Instant::now();
    line.end(error).await;
    let state = eventually(
        "the channel",
        || async { agent.channel().state().borrow().clone() },
        |state| matches!(state, ChannelState::Waiting { .. }) || bench.connect.dialled() == 2,
    )
    .await;
    if let ChannelState::Waiting { reason, .. } = state {
        assert!(reason.contains("because"), "{reason}");
    }
    bench.lobby.online().await;
    (ended.elapsed(), bench)
}

#[tokio::test(start_paused = true)]
async fn a_clone_waits_before_it_comes_back() {
    let (away, _) = away_after(DefinedCondition::Conflict).await;
    assert!(away >= CLONE_WAIT_FROM && away <= CLONE_WAIT_TO + Duration::from_secs(1), "{away:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_shutdown_agents_come_back_spread() {
    let (away, _) = away_after(DefinedCondition::SystemShutdown).await;
    assert!(away <= SHUTDOWN_SPREAD + Duration::from_secs(1), "{away:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hint_says_from_when_and_over_what_time_to_come_back() {
    for condition in [DefinedCondition::SystemShutdown, DefinedCondition::ResourceConstraint] {
        let mut error = StreamError::new(condition, "en", "because");
        let retry = format!("<retry xmlns='{}' after='120' spread='60'/>", ns::AGENT);
        error.application_specific.push(retry.parse().unwrap());
        let (away, _) = away_after_error(error).await;
        assert!(away >= Duration::from_secs(120) && away <= Duration::from_secs(181), "{away:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_session_is_tried_again_at_once_but_not_for_ever() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    let begun = Instant::now();
    for cut in 0..HASTE_MAX {
        let handled = line.handled;
        let lost = Instant::now();
        drop(line);
        line = bench.lobby.authenticated().await;
        assert!(
            lost.elapsed() <= HASTE_WITHIN + Duration::from_millis(10),
            "cut {cut}: {:?}",
            lost.elapsed()
        );
        assert!(matches!(line.begin(Some(("sm-1", handled))).await, Begun::Resumed { .. }));
        assert!(agent.wait_online(Duration::from_secs(1)).await);
    }
    // A link that is cut all the time has used up its haste; from then on the back-off holds.
    let quick = begun.elapsed();
    let attempts = bench.connect.dialled();
    for _ in 0..20 {
        let handled = line.handled;
        drop(line);
        line = bench.lobby.authenticated().await;
        assert!(matches!(line.begin(Some(("sm-1", handled))).await, Begun::Resumed { .. }));
        assert!(agent.wait_online(Duration::from_secs(1)).await);
    }
    let rate = (bench.connect.dialled() - attempts) as f64 / (begun.elapsed() - quick).as_secs_f64();
    assert!(rate <= 2.0, "{rate} attempts a second");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_a_machine_refuses_ends_the_haste() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (line, _) = bench.lobby.online().await;
    bench.connect.set_down(true);
    let dialled = bench.connect.dialled();
    drop(line);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let attempts = bench.connect.dialled() - dialled;
    assert!((2..=25).contains(&attempts), "{attempts} attempts in 20 s");
}

#[tokio::test(start_paused = true)]
async fn without_a_network_attempts_go_on_so_that_its_return_is_noticed_within_a_second() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (line, _) = bench.lobby.online().await;
    bench.connect.set_failure(std::io::ErrorKind::NetworkUnreachable);
    drop(line);
    for secs in [1, 5, 20] {
        bench.connect.set_down(true);
        tokio::time::sleep(Duration::from_secs(secs)).await;
        bench.connect.set_down(false);
        let back = Instant::now();
        let mut line = bench.lobby.authenticated().await;
        assert!(back.elapsed() < Duration::from_secs(1), "after {secs} s: {:?}", back.elapsed());
        assert!(matches!(line.begin(Some(("sm-1", 0))).await, Begun::Resumed { .. }));
        assert!(agent.wait_online(Duration::from_secs(1)).await);
        drop(line);
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_followed_at_once() {
    let (away, bench) = away_after(DefinedCondition::SeeOtherHost("node2.causeway.test:8443".into())).await;
    assert!(away < Duration::from_secs(1), "{away:?}");
    assert_eq!(bench.connect.redirects(), [None, Some("node2.causeway.test:8443".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn three_redirects_in_a_row_are_followed_and_then_the_agent_begins_anew() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    for n in 1..=4 {
        let (line, _) = bench.lobby.online().await;
        let to = DefinedCondition::SeeOtherHost(format!("node{n}.causeway.test"));
        line.end(StreamError::new(to, "en", "go on")).await;
    }
    let _line = bench.lobby.online().await;
    assert!(agent.wait_online(Duration::from_secs(1)).await);
    let node = |n: u32| Some(format!("node{n}.causeway.test"));
    assert_eq!(bench.connect.redirects(), [None, node(1), node(2), node(3), None]);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_says_when_to_come() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (line, _) = bench.lobby.online().await;
    let mut error = StreamError::new(DefinedCondition::SeeOtherHost("b.test".into()), "en", "later");
    let retry = Element::builder("retry", ns::AGENT).attr("after".try_into().unwrap(), "40").build();
    error.application_specific = vec![retry];
    let ended = Instant::now();
    line.end(error).await;
    bench.lobby.online().await;
    let away = ended.elapsed();
    assert!((Duration::from_secs(40)..Duration::from_secs(42)).contains(&away), "{away:?}");
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_back_ends_the_wait() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (line, _) = bench.lobby.online().await;
    bench.connect.set_down(true);
    drop(line);
    // Far into the back-off.
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    bench.connect.set_down(false);
    let dialled = bench.connect.dialled();
    let back = Instant::now();
    agent.channel().nudge(Nudge::Retry);
    bench.lobby.online().await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert_eq!(bench.connect.dialled(), dialled + 1);
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_was_told_to_wait_is_not_nudged_out_of_it() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (line, _) = bench.lobby.online().await;
    let ended = Instant::now();
    line.end(StreamError::new(DefinedCondition::Conflict, "en", "another one")).await;
    eventually(
        "the channel",
        || async { agent.channel().state().borrow().clone() },
        |state| matches!(state, ChannelState::Waiting { .. }),
    )
    .await;
    agent.channel().nudge(Nudge::Retry);
    agent.channel().nudge(Nudge::Redial("another network".to_owned()));
    bench.lobby.online().await;
    assert!(ended.elapsed() >= CLONE_WAIT_FROM, "{:?}", ended.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_link_left_on_a_nudge_is_resumed() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    configured(&mut line).await;
    let (handled, left) = (line.handled, Instant::now());
    agent.channel().nudge(Nudge::Redial("this machine slept".to_owned()));
    let mut next = bench.lobby.authenticated().await;
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
    assert!(matches!(next.begin(Some(("sm-1", handled))).await, Begun::Resumed { .. }));
    assert!(!line.closed_properly().await, "a proper end would end the session too");
}

/// Lets a resumed link be silent for as long as the path bears, and tells when the agent spoke up.
async fn silent_link(bench: &mut Bench, known: Option<u32>, bears: Duration) -> (u32, Option<Duration>) {
    let mut line = bench.lobby.authenticated().await;
    match known {
        None => {
            assert!(matches!(line.begin(None).await, Begun::Bound));
            line.welcome_with(300).await;
        }
        Some(handled) => assert!(matches!(line.begin(Some(("sm-1", handled))).await, Begun::Resumed { .. })),
    }
    // The agent's news of a fresh session come first.
    while let Ok(Some(news)) = tokio::time::timeout(Duration::from_secs(5), line.next()).await {
        if let StreamElement::Iq(Iq::Set { id, .. }) = news {
            line.answer(&id, None).await;
        }
    }
    let silent_from = Instant::now();
    let spoke = tokio::time::timeout(bears, line.asked()).await.is_ok();
    (line.handled, spoke.then(|| silent_from.elapsed()))
}

#[tokio::test(start_paused = true)]
async fn a_path_that_forgets_silent_links_is_kept_awake_after_two_cuts() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (mut known, mut asked) = (None, Vec::new());
    for _ in 0..3 {
        let (handled, spoke) = silent_link(&mut bench, known, Duration::from_secs(20)).await;
        known = Some(handled);
        asked.push(spoke);
    }
    assert!(matches!(asked[..], [None, None, Some(_)]), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_certificate_is_a_matter_for_a_person() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let io = bench.lobby.raw().await;
    let begun = Instant::now();
    Line::refuse(io, xmpp_parsers::sasl::DefinedCondition::NotAuthorized, "revoked on 3 May").await;
    let state = eventually(
        "the channel",
        || async { agent.channel().state().borrow().clone() },
        |state| matches!(state, ChannelState::Waiting { .. }),
    )
    .await;
    let ChannelState::Waiting { reason, needs_admin, .. } = state else { unreachable!() };
    assert!(needs_admin && reason.contains("revoked on 3 May"), "{reason}");
    bench.lobby.raw().await;
    assert!(begun.elapsed() >= REFUSED_WAIT_FROM, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_ten_minutes_causes_few_attempts_and_then_a_session() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (line, _) = bench.lobby.online().await;
    bench.connect.set_down(true);
    drop(line);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let attempts = bench.connect.dialled();
    assert!((4..=40).contains(&attempts), "{attempts} attempts in ten minutes");
    bench.connect.set_down(false);
    let _line = bench.lobby.online().await;
    assert!(agent.wait_online(Duration::from_secs(1)).await);
}
