//! Actions and requests: taken once, carried out once, reported until the cloud has it.

use std::sync::Arc;
use std::time::Duration;

use causeway_agent::storage::Table;
use causeway_agent::storage::memory::Gated;
use causeway_protocol::Secret;
use causeway_protocol::action::{Report, Status, codes};
use causeway_protocol::channel::payload::{Action, Notice, Payload, Reply, Request};
use serde_json::json;
use tokio::sync::Semaphore;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType};

use crate::support::cloud::{Line, action};
use crate::support::module::Probe;
use crate::support::{Bench, eventually, soon};

async fn configured(bench: &mut Bench) -> Line {
    let (mut line, _) = bench.lobby.online().await;
    let id = line.order(Probe::config(1, json!({})).to_element()).await;
    line.answer_to(&id).await.unwrap();
    line
}

/// Orders, takes the acceptance and the terminal report, and confirms it.
async fn done(line: &mut Line, action: Action) -> Report {
    let id = line.order(action.to_element()).await;
    line.answer_to(&id).await.unwrap();
    loop {
        let (id, report) = soon("the report", line.report()).await;
        line.answer(&id, None).await;
        if report.status.is_terminal() {
            return report;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_id_is_carried_out_once_and_reported_again() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let mut line = configured(&mut bench).await;
    let first = done(&mut line, action("a1", "echo", json!({"n": 1}))).await;
    let again = Action { attempt: 2, fence: Some(9), ..action("a1", "echo", json!({"n": 1})) };
    let second = done(&mut line, again).await;
    // What was done is said again, under the fence of the attempt that asks for it.
    assert_eq!((first.status, first.fence, second.fence), (Status::Success, None, Some(9)));
    assert_eq!(first, Report { fence: None, ..second });
    assert_eq!(bench.probe.acted(), ["a1"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_id_for_other_work_is_a_conflict_and_nothing_is_done() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let mut line = configured(&mut bench).await;
    done(&mut line, action("a1", "echo", json!(1))).await;
    for open in [false, true] {
        let name = if open { "a2" } else { "a1" };
        if open {
            let id = line.order(action(name, "wait", json!(1)).to_element()).await;
            line.answer_to(&id).await.unwrap();
        }
        let id = line.order(action(name, "panic", json!(2)).to_element()).await;
        let error = line.answer_to(&id).await.unwrap_err();
        assert_eq!(error.defined_condition, DefinedCondition::Conflict);
        assert_eq!(error.texts["en"], codes::DUPLICATE_ID);
    }
    assert_eq!(bench.probe.acted(), ["a1", "a2"]);
}

#[tokio::test(start_paused = true)]
async fn failures_have_codes() {
    let mut bench = Bench::new();
    bench.settings = "[limits]\nmodules_forbidden = [\"gateway\"]\n".into();
    let _agent = bench.start().await;
    let mut line = configured(&mut bench).await;
    let code = |report: causeway_protocol::action::Report| report.error.unwrap().code;
    let stranger = Action { module: "gateway".into(), ..action("m1", "echo", json!(1)) };
    assert_eq!(code(done(&mut line, stranger).await), codes::UNKNOWN_MODULE);
    assert_eq!(code(done(&mut line, action("p1", "panic", json!(1))).await), codes::INTERNAL);
    assert_eq!(code(done(&mut line, action("u1", "fly", json!(1))).await), codes::UNKNOWN_ACTION);
    let hurried = Action { ttl_ms: 2_000, ..action("d1", "wait", json!(1)) };
    assert_eq!(code(done(&mut line, hurried).await), codes::DEADLINE_PASSED);
    // The panic has harmed nobody.
    assert_eq!(done(&mut line, action("e1", "echo", json!(1))).await.status, Status::Success);
}

#[tokio::test(start_paused = true)]
async fn pending_work_is_looked_at_again() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let mut line = configured(&mut bench).await;
    let id = line.order(action("a1", "pending", json!(1)).to_element()).await;
    line.answer_to(&id).await.unwrap();
    let (id, pending) = line.report().await;
    line.answer(&id, None).await;
    assert_eq!((pending.status, pending.next_check_ms), (Status::Pending, Some(3_000)));
    let (_, report) = line.report().await;
    assert_eq!((report.status, report.result), (Status::Success, Some(json!("at last"))));
}

#[tokio::test(start_paused = true)]
async fn an_action_in_work_is_begun_again_by_the_next_process() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let mut line = configured(&mut bench).await;
    for (name, ttl_ms) in [("a1", 60_000), ("late", 1_000)] {
        let id = line.order(Action { ttl_ms, ..action(name, "wait", json!(1)) }.to_element()).await;
        line.answer_to(&id).await.unwrap();
    }
    eventually("both begun", || async { bench.probe.acted().len() }, |count| *count == 2).await;
    bench.storage = bench.storage.crash();
    drop((agent, line));

    let _agent = bench.start().await;
    bench.probe.release(1);
    let (mut line, hello) = bench.lobby.online().await;
    assert_eq!(hello.revisions["probe"], 1, "the config is there without the cloud");
    let mut reports = Vec::new();
    for _ in 0..2 {
        let (id, report) = soon("a report", line.report()).await;
        line.answer(&id, None).await;
        reports.push((report.id, report.error.map_or("success".to_owned(), |error| error.code)));
    }
    reports.sort();
    assert_eq!(reports[0].0, "a1");
    assert_eq!(reports[1].0, "late");
    assert_eq!(reports.iter().filter(|(_, end)| end == "success").count(), 1, "{reports:?}");
    assert_eq!(reports.iter().filter(|(_, end)| end == codes::DEADLINE_PASSED).count(), 1, "{reports:?}");
}

#[tokio::test(start_paused = true)]
async fn reports_wait_for_the_cloud_through_crash_and_outage() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let mut line = configured(&mut bench).await;
    for n in 0..40 {
        let id = line.order(action(&format!("a{n}"), "wait", json!(n)).to_element()).await;
        line.answer_to(&id).await.unwrap();
    }
    bench.connect.set_down(true);
    drop(line);
    bench.probe.release(40);
    eventually("the outbox", || async { agent.status().outbox }, |waiting| *waiting == 40).await;
    bench.storage = bench.storage.crash();
    drop(agent);

    bench.connect.set_down(false);
    let agent = bench.start().await;
    let (mut line, hello) = bench.lobby.online().await;
    assert_eq!(hello.outbox, 40);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 40 {
        let (id, report) = soon("a report", line.report()).await;
        line.answer(&id, None).await;
        assert_eq!(report.status, Status::Success);
        assert!(seen.insert(report.id.clone()), "{} twice", report.id);
    }
    // What is sent while waiting keeps the line alive.
    let drained = async {
        while agent.status().outbox > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the outbox", drained).await;
    assert_eq!(bench.probe.acted().len(), 40);
}

async fn storage_notice(line: &mut Line, resolved: bool) {
    loop {
        let notice: Notice = line.news().await;
        if notice.code == "storage_failing" && notice.resolved == resolved {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_said_and_survived() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let mut line = configured(&mut bench).await;
    let id = line.order(action("open", "wait", json!(1)).to_element()).await;
    line.answer_to(&id).await.unwrap();
    bench.storage.set_full(true);
    let id = line.order(action("a1", "echo", json!(1)).to_element()).await;
    let error = line.answer_to(&id).await.unwrap_err();
    assert_eq!(
        (error.type_, error.defined_condition),
        (ErrorType::Wait, DefinedCondition::ResourceConstraint)
    );
    soon("the alarm", storage_notice(&mut line, false)).await;
    assert!(agent.status().online && agent.status().storage_trouble.is_some());

    // What was accepted before is still reported, straight from memory.
    bench.probe.release(1);
    let (id, report) = soon("the report", line.report()).await;
    line.answer(&id, None).await;
    assert_eq!((report.id.as_str(), report.status), ("open", Status::Success));

    bench.storage.set_full(false);
    soon("the all-clear", storage_notice(&mut line, true)).await;
    let id = line.order(action("a1", "echo", json!(1)).to_element()).await;
    line.answer_to(&id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn handled_means_committed() {
    let mut bench = Bench::new();
    let gated = Gated { inner: bench.storage.clone(), gate: Arc::new(Semaphore::new(1)) };
    let _agent = bench.start_with(Arc::new(gated.clone())).await;
    let mut line = configured(&mut bench).await;
    let before = line.asked_h().await;
    let id = line.order(action("a1", "wait", json!(1)).to_element()).await;
    // A ping behind it is handled at once, but the counter only covers an unbroken run.
    let ping: xmpp_parsers::ping::Ping = xmpp_parsers::ping::Ping;
    let iq = xmpp_parsers::iq::Iq::Get { from: None, to: None, id: "ping".into(), payload: ping.into() };
    line.send(&causeway_protocol::channel::StreamElement::Iq(iq)).await;
    line.answer_to("ping").await.unwrap();
    let uncommitted = line.asked_h().await;
    gated.gate.add_permits(1);
    line.answer_to(&id).await.unwrap();
    let committed = line.asked_h().await;
    assert!(uncommitted < committed, "{before} {uncommitted} {committed}");
    let row =
        gated.inner.dump().into_iter().any(|(table, key, _)| table == Table::Inbox && key.ends_with(b"a1"));
    assert!(row);
}

fn request(verb: &str, body: &str) -> Request {
    Request { module: "probe".into(), request: verb.into(), ttl_ms: 4_000, body: Secret::new(body) }
}

async fn reply(line: &mut Line, id: &str) -> Reply {
    Reply::from_element(&soon("the reply", line.answer_to(id)).await.unwrap().unwrap()).unwrap()
}

fn code(reply: Reply) -> String {
    match reply {
        Reply::Answer(value) => format!("answer {value}"),
        Reply::Error(error) => error.code,
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_in_time_or_refused_at_once() {
    let mut bench = Bench::new();
    bench.settings = "[limits]\nrequests_at_once = 2\n".into();
    let _agent = bench.start().await;
    let mut line = configured(&mut bench).await;
    let slow = [
        line.order(request("wait", "{}").to_element()).await,
        line.order(request("wait", "{}").to_element()).await,
    ];
    let third = line.order(request("length", "{}").to_element()).await;
    assert_eq!(code(reply(&mut line, &third).await), codes::OVERLOADED);
    bench.probe.release(1);
    assert_eq!(code(reply(&mut line, &slow[0]).await), "answer \"waited\"");
    assert_eq!(code(reply(&mut line, &slow[1]).await), codes::DEADLINE_PASSED);
    let panics = line.order(request("panic", "{}").to_element()).await;
    assert_eq!(code(reply(&mut line, &panics).await), codes::INTERNAL);
    let well = line.order(request("length", "{}").to_element()).await;
    assert_eq!(code(reply(&mut line, &well).await), "answer 2");
}

#[tokio::test(start_paused = true)]
async fn no_request_reaches_the_storage() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let mut line = configured(&mut bench).await;
    let before = bench.storage.commits();
    let id = line.order(request("length", r#"{"password":"canary-in-a-request"}"#).to_element()).await;
    assert!(code(reply(&mut line, &id).await).starts_with("answer"));
    assert_eq!(bench.storage.commits(), before);
    let leaked = bench.storage.dump().iter().any(|(_, key, value)| {
        [key, value].iter().any(|bytes| String::from_utf8_lossy(bytes).contains("canary"))
    });
    assert!(!leaked);
}
