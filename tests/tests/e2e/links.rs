//! Links as networks make them: middleboxes, sign-in pages, inspection, nodes that are emptied, certificates that end.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use causeway_agent::channel::{ChannelState, Nudge};
use causeway_agent::clock::Clock;
use causeway_agent::cloud::CloudConnector;
use causeway_agent::identity::{self, Identity};
use causeway_agent::secrets::FileModeSealer;
use causeway_agent::{Agent, AgentConfig, RunningAgent, way};
use causeway_mock_cloud::channel;
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_mock_kit::pki::TestCa;
use causeway_mock_kit::proxy::{Middlebox, TcpProxy};
use causeway_protocol::limits::PONG_WITHIN;
use serde_json::json;

use crate::support::{PATIENCE, Probe, World, eventually, soon, start};

/// Waits until the agent's own words hold a text.
async fn says(agent: &RunningAgent, text: &str) -> String {
    eventually("the agent's status", || async { agent.status().channel }, |words| words.contains(text)).await
}

async fn echo(world: &World) {
    let id = world.tenant.order("user_auth", "echo", &json!(null), &json!({"n": 1})).await.unwrap();
    let action = world.tenant.finished(&id, PATIENCE).await.unwrap();
    assert_eq!(action["status"], "success", "{action}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_out_and_works_where_unknown_protocols_are_not_let_through() {
    for (middlebox, trace) in [
        (Middlebox::ResetsUnknownAlpn, "reset: unknown ALPN"),
        (Middlebox::CutsUnknownAlpn, "cut: unknown ALPN"),
        (Middlebox::RefusesUnknownAlpn, "refused: unknown ALPN"),
    ] {
        let world = World::start().await;
        world.link.set_middlebox(Some(middlebox));
        let probe = Probe::new("user_auth", "one");
        let agent = world.ready_agent("one", &probe).await;
        echo(&world).await;
        world.link.cut();
        echo(&world).await;
        let met: Vec<_> = world.link.journal().after(0).into_iter().map(|entry| entry.outcome).collect();
        assert!(met.iter().any(|outcome| outcome == trace), "{met:?}");
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_middlebox_put_in_later_is_passed_and_what_worked_is_remembered() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    world.tenant.configure("user_auth", true, &json!({})).await.unwrap();
    let dir = world.enrol("one", &[]).await;
    let agent = start(&dir, &probe).await;
    assert!(agent.wait_online(PATIENCE).await);
    assert!(!dir.join(way::FILE_NAME).exists(), "the direct way needs no note");
    world.link.set_middlebox(Some(Middlebox::ResetsUnknownAlpn));
    world.link.cut();
    echo(&world).await;
    agent.stop().await;

    let refusals = || {
        let entries = world.link.journal().after(0);
        entries.iter().filter(|entry| entry.outcome == "reset: unknown ALPN").count()
    };
    let before = refusals();
    assert!(before >= 2, "one cut is not enough evidence: {before}");
    let agent = start(&dir, &probe).await;
    assert!(agent.wait_online(PATIENCE).await);
    assert_eq!(refusals(), before, "the note is used");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_the_direct_way_is_tried_and_taken_again() {
    let world = World::start().await;
    world.link.set_middlebox(Some(Middlebox::RefusesUnknownAlpn));
    let dir = world.enrol("one", &[]).await;
    let config = AgentConfig::load(&dir).unwrap();
    let tomorrow = Clock::simulated(from_now(DAY + Duration::from_secs(60)));
    let dial = causeway_agent::dialer(&config.settings, &config.secrets, &config.random).unwrap();
    let (endpoint, trust) =
        (causeway_agent::endpoint(&config.settings).unwrap(), causeway_agent::trust(&config.settings, &dir));
    let connector = CloudConnector::by(tomorrow, dial, endpoint, trust, Some(&config.identity))
        .unwrap()
        .remembering(&dir);
    assert!(!connector.better_way_works().await, "still blocked");
    world.link.set_middlebox(None);
    assert!(!connector.better_way_works().await, "not before another day");
    let overdue = json!({ "websocket_until_ms": 1 });
    std::fs::write(dir.join(way::FILE_NAME), overdue.to_string()).unwrap();
    let connector = connector.remembering(&dir);
    assert!(connector.better_way_works().await);
    assert!(!connector.better_way_works().await, "there is nothing better than the direct way");
}

const DAY: Duration = Duration::from_secs(86_400);

/// Unix milliseconds so far from now.
fn from_now(span: Duration) -> i64 {
    Clock::system().now_ms() + i64::try_from(span.as_millis()).unwrap()
}

/// Starts an agent with another clock than the machine's.
async fn start_by(clock: Clock, dir: &std::path::Path, probe: &Probe) -> RunningAgent {
    let mut config = AgentConfig::load(dir).unwrap();
    config.factories = vec![probe.factory()];
    config.clock = clock;
    Agent::start(config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_node_sends_its_agents_on_and_they_lose_nothing() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let agent = world.ready_agent("one", &probe).await;
    let second = TcpProxy::start(world.link.target()).await.unwrap();
    let id = world.tenant.order("user_auth", "wait", &json!(null), &json!(1)).await.unwrap();
    eventually("the action", || async { probe.acted().len() }, |count| *count == 1).await;
    let to = second.address().to_string();
    assert_eq!(channel::drain(world.cloud().cloud(), &to, Duration::from_millis(50)), 1);
    eventually("the agent elsewhere", || async { second.connections() }, |count| *count == 1).await;
    assert!(agent.wait_online(PATIENCE).await);
    probe.release(1);
    let action = world.tenant.finished(&id, PATIENCE).await.unwrap();
    assert_eq!((&action["status"], probe.acted().len()), (&json!("success"), 1), "{action}");
    // The redirect holds for one connection; the next begins where the settings say.
    second.cut();
    echo(&world).await;
    assert_eq!((second.connections(), world.link.connections()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_leads_to_allowed_hosts_and_to_the_same_certificate_only() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let agent = world.ready_agent("one", &probe).await;
    let second = TcpProxy::start(world.link.target()).await.unwrap();
    // The same machine by a name that the settings do not allow.
    let stranger = format!("localhost:{}", second.address().port());
    channel::drain(world.cloud().cloud(), &stranger, Duration::ZERO);
    says(&agent, "cloud.redirect_hosts of agent.toml does not allow that host").await;
    echo(&world).await;
    assert!(second.journal().after(0).is_empty(), "nothing was dialled");

    // An allowed host that cannot show the cloud's certificate.
    let ca = TestCa::new("Mallory").unwrap();
    let tls = ca.server_config(&["127.0.0.1"], &[]).unwrap();
    second.set_middlebox(Some(Middlebox::Inspects { tls, location: None }));
    channel::drain(world.cloud().cloud(), &second.address().to_string(), Duration::ZERO);
    says(&agent, "TLS inspection by CN=Mallory").await;
    echo(&world).await;
    let met = second.journal().after(0);
    assert!(met.iter().all(|entry| entry.outcome == "the client refused the inspection"), "{met:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stands_in_the_way_is_named_and_is_told_nothing() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let agent = world.ready_agent("one", &probe).await;
    let tls = || TestCa::new("Acme Filter").unwrap().server_config(&["127.0.0.1"], &[b"http/1.1"]).unwrap();
    let page = "http://sign-in.hotel.example/".to_owned();
    for (middlebox, words) in [
        (
            Middlebox::CaptivePortal { location: page.clone() },
            "captive portal: sign-in page http://sign-in.hotel",
        ),
        (
            Middlebox::Inspects { tls: tls(), location: Some(page.clone()) },
            "captive portal: sign-in page http://sign-in",
        ),
        (
            Middlebox::Inspects { tls: tls(), location: None },
            "TLS inspection by CN=Acme Filter; exclude 127.0.0.1",
        ),
    ] {
        world.link.set_middlebox(Some(middlebox));
        world.link.cut();
        let said = says(&agent, words).await;
        assert!(said.contains("a person must act"), "{said}");
        let ChannelState::Waiting { delay_ms, .. } = agent.channel().state().borrow().clone() else {
            panic!("not waiting: {said}")
        };
        assert!((30_000..=60_000).contains(&delay_ms), "calmly, not after {delay_ms} ms");
        // Another network: no reason to wait any longer.
        world.link.set_middlebox(None);
        agent.channel().nudge(Nudge::Retry);
        assert!(agent.wait_online(PATIENCE).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_told_from_an_expired_certificate() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let dir = world.enrol("one", &[]).await;
    let hour = Duration::from_secs(3_600);
    let agent = start_by(Clock::simulated(from_now(DAY * 500 + hour)), &dir, &probe).await;
    says(&agent, "clock wrong by 500 days (ahead of 127.0.0.1's)").await;
    agent.stop().await;
    let agent =
        start_by(Clock::simulated(2 * from_now(Duration::ZERO) - from_now(DAY * 30 + hour)), &dir, &probe)
            .await;
    says(&agent, "clock wrong by 30 days (behind 127.0.0.1's)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_after_two_thirds_and_the_old_one_is_refused_from_then_on() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let dir = world.enrol("one", &[]).await;
    let before = std::fs::read(dir.join(identity::FILE_NAME)).unwrap();
    let two_thirds = DAY * 61;
    world.cloud().cloud().kit.clock.advance(two_thirds);
    let agent = start_by(Clock::simulated(from_now(two_thirds)), &dir, &probe).await;
    let shown = || async {
        let mine = Identity::load(&dir, &FileModeSealer).unwrap();
        let row = world.cloud().cloud().store.agent(&mine.tenant, &mine.instance).await.unwrap().unwrap();
        (row.certificate_expires_ms, row.certificate_before)
    };
    let until = from_now(two_thirds + DAY * 90) - 120_000;
    let (expires_ms, _) = eventually("the new certificate shown", shown, |(expires_ms, before)| {
        *expires_ms > until && before.is_empty()
    })
    .await;
    assert!(agent.wait_online(PATIENCE).await);
    let kept = Identity::load(&dir, &FileModeSealer).unwrap().validity().unwrap();
    assert_eq!(kept.until_ms / 1_000, expires_ms / 1_000, "what the cloud signed last is what is kept");
    agent.stop().await;

    // Somebody brings back an old copy of the files.
    std::fs::write(dir.join(identity::FILE_NAME), before).unwrap();
    let agent = start_by(Clock::simulated(from_now(two_thirds)), &dir, &probe).await;
    says(&agent, "was replaced by a newer one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nudge_leaves_a_living_link_and_the_session_goes_on() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let agent = world.ready_agent("one", &probe).await;
    let id = world.tenant.order("user_auth", "wait", &json!(null), &json!(1)).await.unwrap();
    eventually("the action", || async { probe.acted().len() }, |count| *count == 1).await;
    let dialled = || async { world.link.journal().last_seq() };
    let before = dialled().await;
    agent.channel().nudge(Nudge::Redial("the network changed".to_owned()));
    eventually("the old connection left", dialled, |now| *now > before).await;
    assert!(agent.wait_online(PATIENCE).await);
    probe.release(1);
    assert_eq!(world.tenant.finished(&id, PATIENCE).await.unwrap()["status"], "success");
    let resumed =
        world.cloud().journal().count(|entry| entry.operation == "online" && entry.outcome == "resumed");
    assert_eq!((resumed, probe.acted().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_slept_leaves_its_link_and_its_leases_at_once() {
    static SLEPT_MS: AtomicI64 = AtomicI64::new(0);
    let world = World::start().await;
    let probe = Probe::new("user_visibility", "one");
    world.tenant.configure(probe.kind(), true, &json!({})).await.unwrap();
    let dir = world.enrol("one", &[]).await;
    let agent = start_by(Clock::skewed(from_now(Duration::ZERO), &SLEPT_MS), &dir, &probe).await;
    assert!(agent.wait_online(PATIENCE).await);
    let lease = probe.lease().await;
    let connections = || async { world.link.journal().last_seq() };
    let before = connections().await;
    // An hour has passed of which the monotonic clock knows nothing.
    SLEPT_MS.store(3_600_000, Ordering::Relaxed);
    soon("the lease given up", lease.lost()).await;
    eventually("the link left", connections, |now| *now > before).await;
    assert!(agent.wait_online(PATIENCE).await);
    let again = probe.lease().await;
    assert!(again.fence() >= lease.fence() && !again.is_lost(), "{again:?} after {lease:?}");
}

/// Takes as long as an answer may: the one thing here that no clock can shorten.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_swallows_bytes_is_noticed_and_left() {
    let world = World::start().await;
    let probe = Probe::new("user_auth", "one");
    let agent = world.ready_agent("one", &probe).await;
    let swallowing = world.link.faults().add(Rule::new(Fault::Timeout { ms: 0 }).on_front("tcp"));
    let silent_from = tokio::time::Instant::now();
    eventually("the silence noticed", || async { agent.status().online }, |online| !online).await;
    assert!(silent_from.elapsed() < PONG_WITHIN + Duration::from_secs(5), "{:?}", silent_from.elapsed());
    world.link.faults().remove(swallowing);
    assert!(agent.wait_online(PATIENCE).await);
    echo(&world).await;
}
