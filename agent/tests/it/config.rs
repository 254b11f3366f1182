//! Desired config and supervision.

use std::time::Duration;

use causeway_protocol::channel::payload::{Applied, Configure, Health, Payload};
use causeway_protocol::health::ModuleState;
use serde_json::json;

use crate::support::cloud::Line;
use crate::support::module::Probe;
use crate::support::{Bench, eventually, soon};

async fn apply(line: &mut Line, config: Configure) -> Applied {
    // The answer and the news may come in either order; `news` answers whatever comes before.
    line.order(config.to_element()).await;
    soon("the news", line.news()).await
}

#[tokio::test(start_paused = true)]
async fn older_revisions_are_ignored_and_a_bad_one_leaves_the_last_running() {
    let mut bench = Bench::new();
    let _agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    let good = apply(&mut line, Probe::config(5, json!({}))).await;
    assert_eq!((good.revision, good.running, good.error), (5, 5, None));
    eventually("the module", || async { bench.probe.runs() }, |runs| *runs == 1).await;

    let bad = apply(&mut line, Probe::config(6, json!({"broken": true}))).await;
    assert_eq!((bad.revision, bad.running), (6, 5));
    let error = bad.error.unwrap();
    assert!(error.detail.contains("settings.broken: cannot work"), "{error:?}");
    assert_eq!(error.remedy, "remove it");

    let old = apply(&mut line, Probe::config(4, json!({"broken": true}))).await;
    assert_eq!((old.revision, old.running, old.error), (4, 5, None));
    assert_eq!((bench.probe.runs(), bench.probe.ended()), (1, 0));

    let newer = apply(&mut line, Probe::config(7, json!({}))).await;
    assert_eq!(newer.running, 7);
    eventually("the replacement", || async { bench.probe.runs() }, |runs| *runs == 2).await;
    assert_eq!(bench.probe.ended(), 1);
}

#[tokio::test(start_paused = true)]
async fn unknown_and_forbidden_modules_are_refused_with_a_reason() {
    let mut bench = Bench::new();
    bench.settings = "[limits]\nmodules_forbidden = [\"probe\"]\n".into();
    let _agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    let forbidden = apply(&mut line, Probe::config(1, json!({}))).await;
    assert_eq!((forbidden.running, forbidden.error.unwrap().code.as_str()), (0, "forbidden_locally"));
    let unknown = Configure { module: "gateway".into(), ..Probe::config(1, json!({})) };
    let unknown = apply(&mut line, unknown).await;
    assert_eq!((unknown.running, unknown.error.unwrap().code.as_str()), (0, "unknown_module"));
    assert_eq!(bench.probe.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_module_can_be_switched_off_and_stays_off_after_a_restart() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    apply(&mut line, Probe::config(1, json!({}))).await;
    apply(&mut line, Configure { enabled: false, ..Probe::config(2, json!({})) }).await;
    eventually("its end", || async { bench.probe.ended() }, |ended| *ended == 1).await;
    drop((agent, line));
    let _agent = bench.start().await;
    let (_line, hello) = bench.lobby.online().await;
    assert_eq!(hello.revisions["probe"], 2);
    assert_eq!(bench.probe.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_module_is_restarted_within_its_budget_and_then_called_failed() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    bench.probe.set_crash(true);
    apply(&mut line, Probe::config(1, json!({}))).await;
    let mut health: Health = soon("health", line.news()).await;
    while health.modules.first().is_none_or(|module| module.state != ModuleState::Failed) {
        health = soon("health", line.news()).await;
    }
    assert_eq!((bench.probe.runs(), health.modules[0].restarts), (6, 5));
    assert!(health.modules[0].detail.contains("panicked"), "{:?}", health.modules);
    assert!(agent.status().online, "the agent itself is well");

    bench.probe.set_crash(false);
    apply(&mut line, Probe::config(2, json!({}))).await;
    eventually("the module", || async { agent.status().modules[0].state }, |state| *state == ModuleState::Ok)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_module_that_does_not_end_is_ended() {
    let mut bench = Bench::new();
    let agent = bench.start().await;
    let (mut line, _) = bench.lobby.online().await;
    bench.probe.set_deaf();
    apply(&mut line, Probe::config(1, json!({}))).await;
    eventually("the module", || async { bench.probe.runs() }, |runs| *runs == 1).await;
    let begun = tokio::time::Instant::now();
    agent.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(bench.probe.ended(), 0);
}
