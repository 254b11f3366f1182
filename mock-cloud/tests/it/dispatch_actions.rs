//! Actions: to one agent, ended once, whatever breaks on the way.

use std::time::Duration;

use causeway_mock_cloud::dispatch::{self, DispatchError};
use causeway_mock_cloud::store::{ActionRow, NewAction, TimelineRow};
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::action::{ErrorReport, Report, Status, codes};
use causeway_protocol::channel::StreamElement;
use causeway_protocol::channel::payload::{self, LeaseOp, Payload as _};
use serde_json::{Value, json};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use crate::support::World;
use crate::support::agent::{Agent, enroll, health, hello};
use crate::support::company::upload_to;
use crate::support::http::Api;

fn ended(row: &ActionRow, _: &[TimelineRow]) -> bool {
    row.status.is_terminal()
}

fn events(timeline: &[TimelineRow]) -> Vec<&str> {
    timeline.iter().map(|step| step.event.as_str()).collect()
}

fn has(event: &'static str) -> impl Fn(&ActionRow, &[TimelineRow]) -> bool {
    move |_, timeline| timeline.iter().any(|step| step.event == event)
}

#[tokio::test]
async fn an_action_is_accepted_reported_and_ended_once() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let id = world.order("user_auth", "check_now", 60_000).await;
    let action = agent.accept().await;
    assert_eq!((action.id.as_str(), action.attempt, action.fence), (id.as_str(), 1, None));
    assert!(action.ttl_ms < 60_000 && action.ttl_ms > 50_000, "{}", action.ttl_ms);
    world.action(&id, "acceptance", has("accepted")).await;
    assert_eq!(agent.report(Report::pending(&id, Some(json!({"done": 3})), None)).await, Ok(None));
    assert_eq!(agent.report(Report::success(&id, json!({"n": 7}))).await, Ok(None));
    // The same report again (its answer was lost), and a contradicting one: taken, and changing nothing.
    assert_eq!(agent.report(Report::success(&id, json!({"n": 7}))).await, Ok(None));
    let failure = ErrorReport::new(codes::INTERNAL, "late", "none");
    assert_eq!(agent.report(Report::failure(&id, failure)).await, Ok(None));
    let (row, timeline) = world.action(&id, "both duplicates", |_, timeline| timeline.len() >= 7).await;
    assert_eq!((row.status, row.result, row.error), (Status::Success, Some(json!({"n": 7})), None));
    assert_eq!((row.agent.as_deref(), row.attempts), (Some(agent.enrolled.instance.as_str()), 1));
    let wanted =
        ["queued", "dispatched", "accepted", "running", "success", "duplicate_result", "duplicate_result"];
    assert_eq!(events(&timeline), wanted);
    let unknown = agent.report(Report::success("no-such-action", Value::Null)).await.unwrap_err();
    assert_eq!(unknown.defined_condition, DefinedCondition::ItemNotFound);
}

#[tokio::test]
async fn concurrent_reports_of_two_agents_leave_one_terminal_status() {
    let world = World::start().await;
    let mut first = Agent::online(&world).await;
    let id = world.order("user_auth", "check_now", 60_000).await;
    first.accept().await;
    let mut second = Agent::online(&world).await;
    let failure = ErrorReport::new(codes::INTERNAL, "no", "none");
    let (one, two) = tokio::join!(
        first.report(Report::success(&id, json!(1))),
        second.report(Report::failure(&id, failure)),
    );
    assert_eq!((one, two), (Ok(None), Ok(None)));
    let (_, timeline) = world.action(&id, "both reports", has("duplicate_result")).await;
    let terminal = events(&timeline).iter().filter(|event| ["success", "failure"].contains(event)).count();
    assert_eq!(terminal, 1, "{timeline:?}");
}

#[tokio::test]
async fn an_action_for_a_module_nobody_has_fails_in_words() {
    let world = World::start().await;
    let _agent = Agent::online(&world).await;
    let id = world.order("teleport", "beam_up", 60_000).await;
    let (row, _) = world.action(&id, "its failure", ended).await;
    let error = row.error.unwrap();
    assert_eq!(error.code, codes::UNKNOWN_MODULE);
    assert!(error.detail.contains("user_auth, user_visibility"), "{}", error.detail);
}

#[tokio::test]
async fn an_agents_refusal_ends_the_action_with_its_reason() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let id = world.order("user_auth", "check_now", 60_000).await;
    let (iq, _) = agent.next_action().await;
    let error =
        StanzaError::new(ErrorType::Cancel, DefinedCondition::Conflict, "en", "id used for other work");
    let refusal = Iq::Error { from: None, to: None, id: iq, error, payload: None };
    agent.line.send(StreamElement::Iq(refusal)).await;
    let (row, _) = world.action(&id, "its failure", ended).await;
    let error = row.error.unwrap();
    assert_eq!((error.code.as_str(), error.detail.as_str()), (codes::DUPLICATE_ID, "id used for other work"));
}

#[tokio::test]
async fn an_idempotency_key_names_one_order() {
    let world = World::start().await;
    let order = |action: &str| NewAction {
        module: "user_visibility".into(),
        action: action.into(),
        target: Value::Null,
        params: Value::Null,
        idempotency_key: Some("k1".into()),
        ttl_ms: 60_000,
        actor: "test".into(),
        reason: String::new(),
    };
    let id = dispatch::submit(world.cloud(), &world.tenant, order("sync_now")).await.unwrap();
    assert_eq!(dispatch::submit(world.cloud(), &world.tenant, order("sync_now")).await.unwrap(), id);
    match dispatch::submit(world.cloud(), &world.tenant, order("sync_user")).await {
        Err(DispatchError::KeyReused { id: first }) => assert_eq!(first, id),
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn an_action_waits_for_an_agent_and_goes_to_one_that_runs_the_module() {
    let world = World::start().await;
    let id = world.order("user_visibility", "sync_now", 60_000).await;
    let enrolled = enroll(&world).await;
    let mut idle = Agent::greet(&world, enrolled, "boot-1").await;
    assert_eq!(idle.line.ask_set(health(&["user_auth"]).to_element()).await, Ok(None));
    let (row, _) = world.action(&id, "nothing yet", |_, _| true).await;
    assert_eq!(row.attempts, 0, "online is not enough");
    assert_eq!(idle.line.ask_set(health(&["user_visibility"]).to_element()).await, Ok(None));
    assert_eq!(idle.accept().await.id, id);
}

#[tokio::test]
async fn without_acceptance_a_repeatable_action_goes_to_the_next_agent() {
    let world = World::with(|config| config.channel.accept_within_ms = 300).await;
    let mut first = Agent::online(&world).await;
    let id = world.order("user_visibility", "sync_now", 60_000).await;
    let (_, action) = first.next_action().await;
    assert_eq!(action.attempt, 1);
    let mut second = Agent::online(&world).await;
    let action = second.accept().await;
    assert_eq!((action.id, action.attempt), (id.clone(), 2));
    world.action(&id, "acceptance", has("accepted")).await;
    // The first one did it after all and is faster: one end, one duplicate.
    assert_eq!(first.report(Report::success(&id, json!("first"))).await, Ok(None));
    assert_eq!(second.report(Report::success(&id, json!("second"))).await, Ok(None));
    let (row, timeline) = world.action(&id, "the duplicate", has("duplicate_result")).await;
    assert_eq!((row.status, row.result), (Status::Success, Some(json!("first"))));
    assert!(events(&timeline).contains(&"not_accepted"), "{timeline:?}");
}

#[tokio::test]
async fn an_accepted_action_of_a_lost_agent_is_repeated_only_where_that_is_safe() {
    let world = World::start().await;
    let mut lost = Agent::online_with_certificates(&world).await;
    let safe = world.order("user_visibility", "sync_now", 60_000).await;
    lost.accept().await;
    world.action(&safe, "acceptance", has("accepted")).await;
    // A second agent would get a second certificate.
    let mut unsafe_ones = Vec::new();
    for (module, verb) in [("user_auth", "wipe_everything"), ("certificates", "issue_certificate")] {
        let id = world.order(module, verb, 60_000).await;
        lost.accept().await;
        world.action(&id, "acceptance", has("accepted")).await;
        unsafe_ones.push(id);
    }
    let mut other = Agent::online_with_certificates(&world).await;
    drop(lost);
    let action = other.accept().await;
    assert_eq!((action.id, action.attempt), (safe.clone(), 2));
    let (_, timeline) = world.action(&safe, "both", has("lost")).await;
    assert!(events(&timeline).starts_with(&["queued", "dispatched", "accepted", "lost"]), "{timeline:?}");
    for id in &unsafe_ones {
        let (row, timeline) = world.action(id, "anything", |_, _| true).await;
        assert_eq!((row.status, row.attempts), (Status::Pending, 1), "{timeline:?}");
    }
    world.cloud().kit.clock.advance(Duration::from_secs(63));
    for id in &unsafe_ones {
        let (row, _) = world.action(id, "its deadline", ended).await;
        assert_eq!(row.error.unwrap().code, codes::UNKNOWN_OUTCOME);
    }
}

#[tokio::test]
async fn an_action_nobody_took_fails_at_its_deadline() {
    let world = World::start().await;
    let id = world.order("user_visibility", "sync_now", 60_000).await;
    world.cloud().kit.clock.advance(Duration::from_secs(61));
    let (row, timeline) = world.action(&id, "its deadline", ended).await;
    assert_eq!(row.error.unwrap().code, codes::DEADLINE_PASSED);
    assert_eq!(events(&timeline), ["queued", "failure"]);
    let soon = world.order("user_visibility", "sync_now", 150).await;
    let (row, _) = world.action(&soon, "a deadline by the flow of time", ended).await;
    assert_eq!(row.error.unwrap().code, codes::DEADLINE_PASSED);
}

#[tokio::test]
async fn pending_actions_survive_a_restart_of_the_cloud() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::on(dir.path(), None, |_| {}).await;
    let mut agent = Agent::online(&world).await;
    let accepted = world.order("user_auth", "check_now", 600_000).await;
    agent.accept().await;
    world.action(&accepted, "acceptance", has("accepted")).await;
    let enrolled = agent.enrolled.clone();
    drop(agent);
    world.journal("offline", "connection lost").await;
    let waiting = world.order("user_visibility", "sync_now", 600_000).await;
    let hopeless = world.order("user_visibility", "sync_now", 600_000).await;
    let tenant = world.tenant.clone();
    world.mock.stop().await;

    let world = World::on(dir.path(), Some(&tenant), |_| {}).await;
    // Same process, same certificate, same authority: only the session is new.
    let mut agent = Agent::connect(&world, enrolled, "boot-1").await;
    assert_eq!(agent.welcome.session_epoch, 2);
    let mut got = [agent.accept().await.id, agent.accept().await.id];
    got.sort();
    let mut wanted = [waiting.clone(), hopeless];
    wanted.sort();
    assert_eq!(got, wanted);
    for id in [&accepted, &waiting] {
        assert_eq!(agent.report(Report::success(id, Value::Null)).await, Ok(None));
        let (row, _) = world.action(id, "its end", ended).await;
        assert_eq!(row.status, Status::Success);
    }
}

#[tokio::test]
async fn collections_go_to_the_holder_of_the_lease_and_stale_reports_are_refused() {
    let world = World::start().await;
    let mut first = Agent::online(&world).await;
    let mut second = Agent::online(&world).await;
    let grant = second.lease(LeaseOp::Acquire, None).await;
    for _ in 0..3 {
        let id = world.order("user_visibility", "sync_now", 60_000).await;
        let action = second.accept().await;
        assert_eq!((action.id, action.fence), (id, Some(grant.fence)));
    }
    let id = world.order("user_visibility", "sync_user", 60_000).await;
    second.accept().await;
    world.action(&id, "acceptance", has("accepted")).await;
    second.lease(LeaseOp::Release, Some(grant.fence)).await;
    let newer = first.lease(LeaseOp::Acquire, None).await;
    assert_eq!(newer.fence, grant.fence + 1);
    let stale = Report { fence: Some(grant.fence), ..Report::success(&id, json!("old news")) };
    let refused = second.report(stale).await.unwrap_err();
    assert_eq!(refused.defined_condition, DefinedCondition::Conflict);
    assert_eq!(refused.texts["en"], codes::STALE_FENCE);
    // The holder of today gets it instead.
    let action = first.accept().await;
    assert_eq!((action.id.as_str(), action.fence, action.attempt), (id.as_str(), Some(newer.fence), 2));
    let valid = Report { fence: Some(newer.fence), ..Report::success(&id, json!("fresh")) };
    assert_eq!(first.report(valid).await, Ok(None));
    let (row, _) = world.action(&id, "its end", ended).await;
    assert_eq!(row.result, Some(json!("fresh")));
}

#[tokio::test]
async fn what_was_said_under_an_old_lease_does_not_take_the_action_from_who_has_it_again() {
    let world = World::start().await;
    let enrolled = enroll(&world).await;
    let mut agent = Agent::connect(&world, enrolled.clone(), "boot-1").await;
    let old = agent.lease(LeaseOp::Acquire, None).await;
    let id = world.order("user_visibility", "sync_now", 60_000).await;
    assert_eq!(agent.accept().await.fence, Some(old.fence));
    world.action(&id, "acceptance", has("accepted")).await;
    // It is killed and comes back: a new process, a new lease, and it goes on with what it has.
    drop(agent);
    let mut agent = Agent::greet(&world, enrolled, "boot-2").await;
    let new = agent.lease(LeaseOp::Acquire, None).await;
    assert_eq!(new.fence, old.fence + 1);
    assert_eq!(agent.line.ask_set(health(&["user_visibility"]).to_element()).await, Ok(None));
    let stale = Report { fence: Some(old.fence), ..Report::pending(&id, None, None) };
    assert_eq!(agent.report(stale.clone()).await.unwrap_err().texts["en"], codes::STALE_FENCE);
    // So it is given again, under the lease of now. What it said before does not take it away once more.
    let again = agent.accept().await;
    assert_eq!((again.id.as_str(), again.fence), (id.as_str(), Some(new.fence)));
    world.action(&id, "second acceptance", |row, _| row.accepted && row.fence == Some(new.fence)).await;
    assert_eq!(agent.report(stale).await.unwrap_err().texts["en"], codes::STALE_FENCE);
    let (row, _) = world.action(&id, "the row", |_, _| true).await;
    assert!(row.accepted && row.attempts == again.attempt, "{row:?}");
    let valid = Report { fence: Some(new.fence), ..Report::success(&id, json!("done")) };
    assert_eq!(agent.report(valid).await, Ok(None));
    let (row, _) = world.action(&id, "its end", ended).await;
    assert_eq!((row.result, row.attempts), (Some(json!("done")), again.attempt));
}

#[tokio::test]
async fn an_order_about_a_phone_goes_to_who_collects_the_organisation_it_is_in() {
    let world = World::start().await;
    let mut agents = [Agent::online(&world).await, Agent::online(&world).await, Agent::online(&world).await];
    let sources = ["exchange/default", "exchange/berlin", "exchange/paris"];
    for (agent, source) in agents.iter_mut().zip(sources) {
        let modules = health(&["user_auth", "user_visibility", "exchange"]);
        assert_eq!(agent.line.ask_set(modules.to_element()).await, Ok(None));
        let key = source.replace('/', "-");
        let device = json!({"op": "upsert", "kind": "device", "key": key, "v": {
            "system": "exchange", "device_id": format!("APPL{key}"), "identity": key, "mailbox": key,
            "access_state": "allowed"}});
        upload_to(&world, agent, source, &[device]).await;
    }
    for _ in 0..3 {
        for (agent, source) in agents.iter_mut().zip(sources) {
            let new = NewAction {
                module: "exchange".into(),
                action: "block_device".into(),
                target: json!({"key": source.replace('/', "-")}),
                params: Value::Null,
                idempotency_key: None,
                ttl_ms: 60_000,
                actor: "test".into(),
                reason: String::new(),
            };
            let id = dispatch::submit(world.cloud(), &world.tenant, new.clone()).await.unwrap();
            let action = agent.accept().await;
            assert_eq!((action.id, action.fence), (id, None), "{source}");
            // What belongs to the collection itself goes there under its lease.
            let new = NewAction { action: "sync_device".into(), ..new };
            let id = dispatch::submit(world.cloud(), &world.tenant, new).await.unwrap();
            let action = agent.accept().await;
            assert_eq!((action.id, action.fence), (id, Some(1)), "{source}");
        }
    }
}

#[tokio::test]
async fn one_order_for_many_is_taken_as_a_whole_or_not_at_all() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let api = Api(&world);
    let path = format!("/tenants/{}/actions/batch", world.tenant);
    let targets: Vec<Value> = (0..5).map(|n| json!({"n": n})).collect();
    let order =
        json!({"module": "user_auth", "action": "check_now", "targets": targets, "idempotency_key": "k"});
    let answer = api.post(&path, order.clone()).await;
    assert_eq!(answer.status.as_u16(), 202);
    let ids: Vec<String> = serde_json::from_value(answer.json()["ids"].clone()).unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let action = agent.accept().await;
        assert_eq!(
            ids[action.target["n"].as_u64().unwrap() as usize],
            action.id,
            "ids are in the order of the targets"
        );
        seen.push(action.id);
    }
    seen.sort();
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(seen, sorted);
    let again = api.post(&path, order.clone()).await.ok();
    assert_eq!(again["ids"], json!(ids), "the same key, the same orders");
    let mut other = order.clone();
    other["targets"][4] = json!({"n": "another"});
    other["targets"].as_array_mut().unwrap().push(json!({"n": 5}));
    api.post(&path, other).await.problem(409, "idempotency_key_reused");
    let mut longer = order.clone();
    longer["targets"].as_array_mut().unwrap().push(json!({"n": 5}));
    api.post(&path, longer).await.problem(409, "idempotency_key_reused");
    let mut shorter = order.clone();
    shorter["targets"].as_array_mut().unwrap().pop();
    api.post(&path, shorter).await.problem(409, "idempotency_key_reused");
    // A key is one order's, whether it is one for many or not.
    let actions = format!("/tenants/{}/actions", world.tenant);
    let single =
        json!({"module": "user_auth", "action": "check_now", "target": {"n": 0}, "idempotency_key": "k"});
    api.post(&actions, single.clone()).await.problem(409, "idempotency_key_reused");
    let all = api.of_tenant("/actions?limit=100").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 5, "nothing of the refused orders is kept");
    let mut single = single;
    for key in ["k/1", "single"] {
        single["idempotency_key"] = json!(key);
        let id = api.post(&actions, single.clone()).await.ok()["id"].as_str().unwrap().to_owned();
        assert!(!ids.contains(&id), "{key} has nothing to do with k");
    }
    let mut many = order.clone();
    many["idempotency_key"] = json!("single");
    api.post(&path, many).await.problem(409, "idempotency_key_reused");
    single["idempotency_key"] = json!("k\u{1f}1");
    api.post(&actions, single.clone()).await.problem(400, "invalid_request");
    for targets in [json!([]), json!(vec![1; 1_001])] {
        let order = json!({"module": "user_auth", "action": "check_now", "targets": targets});
        api.post(&path, order).await.problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_faulty_network_loses_orders_and_the_next_attempt_arrives() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let rule = Rule::new(Fault::Close {}).on_front("channel").on_operation("action").times(2);
    let _guard = world.mock.faults().guard(rule);
    let id = world.order("user_auth", "check_now", 60_000).await;
    let action = agent.accept().await;
    assert_eq!((action.id, action.attempt), (id, 3));
}

#[tokio::test]
async fn configs_are_pushed_when_they_change_and_when_an_agent_comes() {
    let world = World::start().await;
    let revision = world.configure("user_auth").await;
    let enrolled = enroll(&world).await;
    let mut agent = Agent::greet(&world, enrolled.clone(), "boot-1").await;
    let iq = agent.line.next_order().await;
    let id = iq.id().to_owned();
    let config = match iq {
        Iq::Set { payload, .. } => payload::Configure::from_element(&payload).unwrap(),
        other => panic!("unexpected {other:?}"),
    };
    assert_eq!((config.module.as_str(), config.revision, config.enabled), ("user_auth", revision, true));
    agent.line.answer(&id, None).await;
    let applied = payload::Applied { module: "user_auth".into(), revision, running: revision, error: None };
    assert_eq!(agent.line.ask_set(applied.to_element()).await, Ok(None));
    let rows = world.cloud().store.applied_configs(&world.tenant).await.unwrap();
    assert_eq!(rows["user_auth"][0].running, revision);
    // It comes again with that revision: nothing is pushed, the next order is the next thing it hears.
    drop(agent);
    let line = crate::support::agent::Line::open(&world, Some(&enrolled.credentials), "localhost").await;
    let mut line = line.external().await.unwrap();
    line.bind("agent").await;
    let mut said = hello("boot-1");
    said.revisions.insert("user_auth".into(), revision);
    line.ask_set(said.to_element()).await.unwrap();
    let id = world.order("user_auth", "check_now", 60_000).await;
    match line.next_order().await {
        Iq::Set { payload, .. } => assert_eq!(payload::Action::from_element(&payload).unwrap().id, id),
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn a_config_an_agent_cannot_take_now_is_sent_again_until_it_is_decided() {
    let world = World::start().await;
    let mut agent = Agent::greet(&world, enroll(&world).await, "boot-1").await;
    let revision = world.configure("user_auth").await;
    let refuse = |id: &str, kind| {
        let error = StanzaError::new(kind, DefinedCondition::ResourceConstraint, "en", "no room");
        StreamElement::Iq(Iq::Error { from: None, to: None, id: id.to_owned(), error, payload: None })
    };
    for kind in [ErrorType::Wait, ErrorType::Cancel] {
        let iq = agent.line.next_order().await;
        let id = iq.id().to_owned();
        match iq {
            Iq::Set { payload, .. } => {
                let config = payload::Configure::from_element(&payload).unwrap();
                assert_eq!((config.module.as_str(), config.revision), ("user_auth", revision));
            }
            other => panic!("unexpected {other:?}"),
        }
        agent.line.send(refuse(&id, kind)).await;
    }
    world.journal("configure", "refused for now").await;
    world.journal("configure", "refused").await;
}
