//! Password checks: one agent, one try, an answer in time.

use causeway_mock_cloud::dispatch::{self, Authenticated};
use causeway_protocol::Secret;
use causeway_protocol::action::{ErrorReport, codes};
use causeway_protocol::auth::{AuthOutcome, AuthRequest};
use causeway_protocol::channel::payload::{Payload as _, Reply};
use serde_json::json;

use crate::support::World;
use crate::support::agent::Agent;

async fn check(world: &World, user: &str, password: &str) -> Authenticated {
    let request = AuthRequest { username: user.into(), password: Secret::new(password) };
    dispatch::authenticate(world.cloud(), &world.tenant, request).await
}

#[tokio::test]
async fn a_password_travels_to_one_agent_and_its_verdict_back() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let user = json!({"id": "u1", "login": "asmith", "dn": "CN=Alice"});
    let (verdict, ()) = tokio::join!(check(&world, "asmith", "pa<ss>&"), async {
        let (id, request) = agent.next_request().await;
        assert_eq!((request.module.as_str(), request.request.as_str()), ("user_auth", "authenticate"));
        assert!(request.ttl_ms <= 4_000);
        let body: serde_json::Value = serde_json::from_str(request.body.expose()).unwrap();
        assert_eq!(body, json!({"username": "asmith", "password": "pa<ss>&"}));
        agent.reply(&id, json!({"outcome": "ok", "user": user, "server": "dc1"})).await;
    });
    assert_eq!(verdict.reply.outcome, AuthOutcome::Ok);
    assert_eq!(verdict.agent.as_deref(), Some(agent.enrolled.instance.as_str()));
    assert_eq!(verdict.reply.user.unwrap().login, "asmith");
    let journal = format!("{:?}", world.mock.journal().after(0));
    assert!(!journal.contains("pa<ss>&"), "the password is in the journal");
}

#[tokio::test]
async fn hopeless_attempts_never_leave_the_cloud() {
    let world = World::start().await;
    let mut agent = Agent::online(&world).await;
    let long = "x".repeat(2_000);
    for (user, password) in
        [("asmith", ""), ("", "secret"), (long.as_str(), "secret"), ("asmith", long.as_str())]
    {
        let verdict = check(&world, user, password).await;
        assert_eq!((verdict.reply.outcome, verdict.agent), (AuthOutcome::BadCredentials, None));
    }
    let (_, ()) = tokio::join!(check(&world, "asmith", "only this one"), async {
        let (id, request) = agent.next_request().await;
        assert!(request.body.expose().contains("only this one"));
        agent.reply(&id, json!({"outcome": "bad_credentials"})).await;
    });
}

#[tokio::test]
async fn without_an_agent_or_an_answer_there_is_no_verdict() {
    let world = World::start().await;
    let verdict = check(&world, "asmith", "secret").await;
    assert_eq!((verdict.reply.outcome, verdict.agent), (AuthOutcome::Unavailable, None));
    assert!(verdict.reply.detail.unwrap().contains("no agent"));
    let _silent = Agent::online(&world).await;
    let verdict = check(&world, "asmith", "secret").await;
    assert_eq!(verdict.reply.outcome, AuthOutcome::Unavailable);
    assert!((3_900..6_000).contains(&verdict.elapsed_ms), "{} ms", verdict.elapsed_ms);
}

#[tokio::test]
async fn a_lost_agents_password_is_not_tried_a_second_time() {
    let world = World::start().await;
    let mut first = Agent::online(&world).await;
    let first_id = first.enrolled.instance.clone();
    let attempt = check(&world, "asmith", "secret");
    let (verdict, mut second) = tokio::join!(attempt, async {
        first.next_request().await;
        let second = Agent::online(&world).await;
        // What kill -9 does: the connection is gone, without a word.
        drop(first);
        second
    });
    assert_eq!(verdict.reply.outcome, AuthOutcome::Unavailable);
    assert_eq!(verdict.agent.as_deref(), Some(first_id.as_str()));
    assert!(verdict.elapsed_ms < 3_500, "known at once, not at the deadline: {} ms", verdict.elapsed_ms);
    // The second agent hears only the next attempt.
    let (verdict, ()) = tokio::join!(check(&world, "asmith", "next"), async {
        let (id, request) = second.next_request().await;
        assert!(request.body.expose().contains("next"));
        second.reply(&id, json!({"outcome": "ok"})).await;
    });
    assert_eq!(verdict.reply.outcome, AuthOutcome::Ok);
}

#[tokio::test]
async fn an_agent_without_room_passes_the_attempt_on() {
    let world = World::start().await;
    let mut agents = [Agent::online(&world).await, Agent::online(&world).await];
    let [first, second] = &mut agents;
    let busy = Reply::Error(ErrorReport::new(codes::OVERLOADED, "64 requests in work", "wait")).to_element();
    let serve = async {
        // Which of the two is asked first is the cloud's choice.
        let refused = tokio::select! {
            (id, _) = first.next_request() => (id, true),
            (id, _) = second.next_request() => (id, false),
        };
        let (refuser, other) = if refused.1 { (first, second) } else { (second, first) };
        refuser.line.answer(&refused.0, Some(busy)).await;
        let (id, _) = other.next_request().await;
        other.reply(&id, json!({"outcome": "ok"})).await;
    };
    let (verdict, ()) = tokio::join!(check(&world, "asmith", "secret"), serve);
    assert_eq!(verdict.reply.outcome, AuthOutcome::Ok);
}

#[tokio::test]
async fn attempts_spread_over_the_agents_that_are_well() {
    let world = World::start().await;
    let mut agents = [Agent::online(&world).await, Agent::online(&world).await];
    let [first, second] = &mut agents;
    let attempts = futures_util::future::join_all((0..20).map(|_| check(&world, "asmith", "secret")));
    let mut counts = [0, 0];
    let serve = async {
        let mut open = (Vec::new(), Vec::new());
        while counts[0] + counts[1] < 20 {
            tokio::select! {
                (id, _) = first.next_request() => { counts[0] += 1; open.0.push(id); }
                (id, _) = second.next_request() => { counts[1] += 1; open.1.push(id); }
            }
        }
        for id in open.0 {
            first.reply(&id, json!({"outcome": "ok"})).await;
        }
        for id in open.1 {
            second.reply(&id, json!({"outcome": "ok"})).await;
        }
    };
    let (verdicts, ()) = tokio::join!(attempts, serve);
    assert!(verdicts.iter().all(|verdict| verdict.reply.outcome == AuthOutcome::Ok));
    assert_eq!(counts, [10, 10], "least outstanding first");
}
