//! Enrolment, sessions, actions and requests between the real ends.

use std::fs;

use causeway_agent::channel::ChannelState;
use causeway_agent::clock::Clock;
use causeway_agent::identity;
use causeway_agent::storage::redb::RedbStorage;
use causeway_agent::{Agent, AgentConfig};
use causeway_mock_kit::proxy::{ConnectAuth, ConnectProxy, ConnectSettings};
use causeway_tests::cuts::{self, Plan};
use serde_json::json;

use crate::support::{PATIENCE, Probe, Quiet, World, eventually, start};

#[tokio::test(flavor = "multi_thread")]
async fn an_enrolled_agent_takes_config_actions_and_requests() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let agent = world.ready_agent("one", &probe).await;
    let id = world.tenant.order("user_auth", "echo", &json!(null), &json!({"n": 1})).await.unwrap();
    let action = world.tenant.finished(&id, PATIENCE).await.unwrap();
    assert_eq!(action["status"], "success", "{action}");
    assert_eq!(action["result"]["params"]["n"], 1);
    let verdict = world.tenant.authenticate("asmith", "pencil").await.unwrap();
    assert_eq!(verdict["outcome"], "ok", "{verdict}");
    assert_eq!((probe.acted(), probe.asked()), (vec![id], 1));
    eventually("the outbox", || async { agent.status().outbox }, |waiting| *waiting == 0).await;
    agent.stop().await;
    eventually(
        "the agent offline",
        || async { world.tenant.get("agents").await.unwrap()["items"][0]["online"].clone() },
        |online| *online == false,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_or_wrong_key_is_refused_and_leaves_nothing_behind() {
    let world = World::start().await;
    let key = world.tenant.enrollment_key().await.unwrap();
    // Another last character than the key's, whatever that one is.
    let (start, last) = key.split_at(key.len() - 1);
    let wrong = format!("{start}{}", if last == "x" { "y" } else { "x" });
    for (n, key) in [wrong, "cw1-unknown-secretsecret".to_owned()].into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join(n.to_string());
        let url = world.cloud().url("api").to_owned();
        let words = ["causeway-agent", "enroll", "--cloud", &url, "--key", &key, "--ca"];
        let rest = [world.cloud().ca_pem().to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        let words = words.into_iter().chain(rest);
        let error = causeway_agent::cli::execute(clap::Parser::parse_from(words)).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("enrolment key"), "{text}");
        assert!(!text.contains(&key), "{text}");
        assert!(!data.join(identity::FILE_NAME).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_loses_and_repeats_nothing() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let _agent = world.ready_agent("one", &probe).await;
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(world.tenant.order("user_auth", "wait", &json!(null), &json!(n)).await.unwrap());
        if n % 10 == 9 {
            world.link.cut();
        }
    }
    eventually("all begun", || async { probe.acted().len() }, |count| *count == 30).await;
    world.link.cut();
    probe.release(30);
    for id in &ids {
        let action = world.tenant.finished(id, PATIENCE).await.unwrap();
        assert_eq!(action["status"], "success", "{action}");
    }
    let mut acted = probe.acted();
    acted.sort();
    ids.sort();
    assert_eq!(acted, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_cut_again_and_again_lose_nothing_repeat_nothing_and_are_resumed() {
    let plan = Plan { links: 2, cuts: 12, gap_max_ms: 150, outage_max_ms: 150, order_every_ms: 20, seed: 3 };
    let seen = cuts::run(plan).await.unwrap();
    assert!(seen.lost.is_empty() && seen.twice.is_empty(), "{seen:?}");
    assert_eq!((seen.resumed, seen.anew), (24, 0), "{seen:?}");
    assert!(seen.ordered > 24, "{} actions are too few to be hit", seen.ordered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_cloud_finds_its_agents_and_their_reports() {
    let mut world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let agent = world.ready_agent("one", &probe).await;
    let id = world.tenant.order("user_auth", "wait", &json!(null), &json!(1)).await.unwrap();
    eventually("the action", || async { probe.acted().len() }, |count| *count == 1).await;
    world.restart_cloud().await;
    probe.release(1);
    let action = world.tenant.finished(&id, PATIENCE).await.unwrap();
    assert_eq!(action["status"], "success", "{action}");
    assert!(agent.wait_online(PATIENCE).await);
    assert_eq!(probe.acted(), [id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_died_in_the_middle_is_taken_over_by_the_next() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let dir = world.enrol("one", &[]).await;
    world.tenant.configure("user_auth", true, &json!({})).await.unwrap();
    let agent = start(&dir, &probe).await;
    let id = world.tenant.order("user_auth", "wait", &json!(null), &json!(1)).await.unwrap();
    eventually("the action", || async { probe.acted().len() }, |count| *count == 1).await;
    // No goodbye: tasks are dropped as they stand. The file is free when its thread has ended.
    drop(agent);
    let path = dir.clone();
    let opened = || async {
        RedbStorage::open(&path, &identity::machine()).map(|opened| drop(opened.storage)).is_ok()
    };
    eventually("the state file free", opened, |free| *free).await;
    probe.release(1);
    let _agent = eventually(
        "the next process",
        || async {
            let mut config = AgentConfig::load(&dir).unwrap();
            config.factories = vec![probe.factory()];
            Quiet(Agent::start(config).await.ok())
        },
        |agent| agent.0.is_some(),
    )
    .await;
    let action = world.tenant.finished(&id, PATIENCE).await.unwrap();
    assert_eq!(action["status"], "success", "{action}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_through_a_proxy_that_asks_for_a_password() {
    let world = World::start().await;
    let auth = ConnectAuth::Basic { user: "svc".into(), password: "p:w@d".into() };
    let proxy = ConnectProxy::start(ConnectSettings { auth, ..ConnectSettings::default() }).await.unwrap();
    let spec = format!("http://svc:p:w@d@{}", proxy.address());
    let dir = world.enrol("one", &["--proxy", &spec]).await;
    let settings = fs::read_to_string(dir.join("agent.toml")).unwrap();
    assert!(!settings.contains("p:w@d"), "{settings}");
    let agent = start(&dir, &Probe::new("user_auth", "one")).await;
    assert!(agent.wait_online(PATIENCE).await, "{:?}", agent.status());
    let tunnels = proxy.journal().count(|entry| entry.operation == "connect" && entry.outcome == "200");
    assert!(tunnels >= 2, "{tunnels} tunnels");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_is_out_and_says_that_a_person_must_act() {
    let world = World::start().await;
    let agent = world.ready_agent("one", &Probe::new("user_auth", "one")).await;
    let id = agent.status().instance;
    let http = causeway_scenarios::http::Client::new(
        world.cloud().url("api"),
        Some(std::sync::Arc::new(
            causeway_tests::tls::trusting_only(&fs::read_to_string(world.cloud().ca_pem()).unwrap()).unwrap(),
        )),
        Some(world.cloud().token().to_owned()),
    )
    .unwrap();
    let path = format!("/api/v1/tenants/{}/agents/{id}/revoke", world.tenant.id());
    http.post(&path, &json!({})).await.unwrap().ok().unwrap();
    let state = eventually(
        "the agent out",
        || async { agent.channel().state().borrow().clone() },
        |state| matches!(state, ChannelState::Waiting { needs_admin: true, .. }),
    )
    .await;
    let ChannelState::Waiting { reason, .. } = state else { unreachable!() };
    assert!(reason.contains("revoked") || reason.contains("not-authorized"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_past_two_thirds_of_its_life_is_renewed_and_used() {
    let world = World::start().await;
    let dir = world.enrol("one", &[]).await;
    let before = fs::read(dir.join(identity::FILE_NAME)).unwrap();
    let mut config = AgentConfig::load(&dir).unwrap();
    let instance = config.identity.instance.clone();
    config.clock = Clock::simulated(config.identity.validity().unwrap().renew_at_ms() + 1_000);
    config.factories = Vec::new();
    let agent = Agent::start(config).await.unwrap();
    eventually(
        "a new certificate",
        || async { fs::read(dir.join(identity::FILE_NAME)).unwrap() != before },
        |changed| *changed,
    )
    .await;
    let renewed = AgentConfig::load(&dir).unwrap().identity;
    assert_eq!(renewed.instance, instance);
    agent.stop().await;
    let agent = start(&dir, &Probe::new("user_auth", "one")).await;
    assert!(agent.wait_online(PATIENCE).await, "the new certificate is good: {:?}", agent.status());
}
