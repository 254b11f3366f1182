//! Leases and uploads: one collector, batches applied once, deletions guarded.

use std::time::Duration;

use causeway_mock_cloud::store::Search;
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::channel::payload::{LeaseOp, Payload as _, UploadGrant, UploadRequest};
use causeway_protocol::limits::UPLOAD_CREDITS;
use causeway_protocol::upload::Mode;
use http::StatusCode;
use serde_json::{Value, json};
use xmpp_parsers::stanza_error::{DefinedCondition, StanzaError};

use crate::support::World;
use crate::support::agent::{Agent, SOURCE, enroll};
use crate::support::upload::{Uploader, batch};

/// A collector with its lease and its HTTP connection.
struct Collector {
    agent: Agent,
    http: Uploader,
    fence: u64,
}

impl Collector {
    async fn start(world: &World) -> Self {
        let mut agent = Agent::online(world).await;
        let fence = agent.lease(LeaseOp::Acquire, None).await.fence;
        let http = Uploader::connect(world, Some(&agent.enrolled.credentials)).await;
        Self { agent, http, fence }
    }

    async fn ask(&mut self, request: UploadRequest) -> Result<UploadGrant, StanzaError> {
        let answer = self.agent.line.ask_set(request.to_element()).await?;
        Ok(UploadGrant::from_element(&answer.unwrap()).unwrap())
    }

    fn request(&self, mode: Mode, base_epoch: Option<u64>) -> UploadRequest {
        UploadRequest { source: SOURCE.into(), mode, base_epoch, fence: self.fence, allow_mass_delete: false }
    }

    async fn grant(&mut self, mode: Mode, base_epoch: Option<u64>) -> UploadGrant {
        self.ask(self.request(mode, base_epoch)).await.unwrap()
    }

    /// A whole upload of one batch.
    async fn upload(&mut self, mode: Mode, base_epoch: Option<u64>, lines: &[Value]) -> (StatusCode, Value) {
        let grant = self.grant(mode, base_epoch).await;
        let (status, body) = self.http.put(&grant.upload, 0, &ndjson(lines)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        self.http.commit(&grant.upload, 1, lines.len() as u64).await
    }
}

fn ndjson(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn user(n: usize) -> Value {
    let (key, login) = (format!("u{n}"), format!("user{n:03}"));
    json!({"op": "upsert", "kind": "user", "key": key,
           "v": {"login": login, "dn": format!("CN={login},DC=acme"), "enabled": true,
                 "display_name": format!("O'User <{n}>"), "attributes": {"department": ["IT"]}}})
}

fn group(key: &str) -> Value {
    json!({"op": "upsert", "kind": "group", "key": key, "v": {"name": key, "dn": format!("CN={key}"), "security": true}})
}

fn member(group: &str, member: &str) -> Value {
    json!({"op": "upsert", "kind": "member", "key": group, "member": member})
}

fn gone(kind: &str, key: &str) -> Value {
    json!({"op": "delete", "kind": kind, "key": key})
}

async fn logins(world: &World) -> Vec<String> {
    let search = Search { limit: 1_000, ..Search::default() };
    let page = world.cloud().store.users(&world.tenant, search).await.unwrap();
    page.items.into_iter().map(|user| user.login).collect()
}

#[tokio::test]
async fn a_snapshot_then_deltas_make_the_directory() {
    let world = World::start().await;
    let mut collector = Collector::start(&world).await;
    let mut lines: Vec<Value> = (0..10).map(user).collect();
    // A membership before its group, and one in a cycle: order inside a batch does not matter.
    lines.insert(0, member("g1", "u1"));
    lines.extend([group("g1"), group("g2"), member("g1", "g2"), member("g2", "g1")]);
    let (status, body) = collector.upload(Mode::Snapshot, None, &lines).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"epoch": 1, "upserts": 15, "deletes": 0})));
    assert_eq!(logins(&world).await.len(), 10);
    let (found, groups) = world.cloud().store.user(&world.tenant, "u1").await.unwrap().unwrap();
    assert_eq!(found.attributes["department"], ["IT"]);
    assert_eq!(groups.len(), 2, "{groups:?}");

    let delta = [
        gone("user", "u9"),
        user(10),
        json!({"op": "delete", "kind": "member", "key": "g1", "member": "u1"}),
    ];
    let (status, body) = collector.upload(Mode::Delta, Some(1), &delta).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"epoch": 2, "upserts": 1, "deletes": 2})));
    let now = logins(&world).await;
    assert!(now.contains(&"user010".to_owned()) && !now.contains(&"user009".to_owned()), "{now:?}");

    // A delta on another epoch is refused at once, and so is one without any.
    for base in [Some(1), Some(7), None] {
        let refused = collector.ask(collector.request(Mode::Delta, base)).await.unwrap_err();
        assert_eq!(refused.defined_condition, DefinedCondition::Conflict);
        assert_eq!(refused.texts["en"], "base_mismatch");
    }
    let uploads = world.cloud().store.upload_views(&world.tenant, 10, None).await.unwrap().items;
    assert_eq!(uploads.iter().map(|it| it.state.as_str()).collect::<Vec<_>>(), ["committed", "committed"]);
}

#[tokio::test]
async fn a_snapshot_sweeps_what_it_does_not_name() {
    let world = World::start().await;
    let mut collector = Collector::start(&world).await;
    let all: Vec<Value> =
        (0..50).map(user).chain([group("g"), member("g", "u49"), member("g", "u1")]).collect();
    collector.upload(Mode::Snapshot, None, &all).await;
    let fewer: Vec<Value> = (0..45).map(user).chain([group("g"), member("g", "u1")]).collect();
    let (status, body) = collector.upload(Mode::Snapshot, None, &fewer).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"epoch": 2, "upserts": 47, "deletes": 6})));
    assert_eq!(logins(&world).await.len(), 45);
}

#[tokio::test]
async fn an_acknowledging_cloud_checks_and_counts_everything_and_applies_nothing() {
    let world = World::with(|config| config.uploads.acknowledge_only = true).await;
    let mut collector = Collector::start(&world).await;
    let all: Vec<Value> =
        (0..50).map(user).chain([group("g"), member("g", "u1"), gone("user", "u7")]).collect();
    for (mode, base, epoch) in
        [(Mode::Snapshot, None, 1), (Mode::Delta, Some(1), 2), (Mode::Snapshot, None, 3)]
    {
        let (status, body) = collector.upload(mode, base, &all).await;
        assert_eq!((status, body), (StatusCode::OK, json!({"epoch": epoch, "upserts": 52, "deletes": 1})));
    }
    assert_eq!(logins(&world).await, [""; 0]);

    let grant = collector.grant(Mode::Delta, Some(3)).await;
    let (status, body) = collector.http.put(&grant.upload, 0, "{\"op\":\"upsert\"}").await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::BAD_REQUEST, Some("bad_batch")));
    assert_eq!(collector.http.put(&grant.upload, 0, &ndjson(&all)).await.0, StatusCode::CREATED);
    assert_eq!(collector.http.put(&grant.upload, 0, &ndjson(&all)).await.0, StatusCode::OK, "a repetition");
    let (status, _) = collector.http.put(&grant.upload, 0, &ndjson(&all[1..])).await;
    assert_eq!(status, StatusCode::CONFLICT, "another batch of that number");
}

#[tokio::test]
async fn a_mass_deletion_is_held_until_a_person_confirms() {
    let world = World::start().await;
    let mut collector = Collector::start(&world).await;
    let all: Vec<Value> = (0..50).map(user).collect();
    collector.upload(Mode::Snapshot, None, &all).await;
    let fewer: Vec<Value> = (0..30).map(user).collect();
    let (status, body) = collector.upload(Mode::Snapshot, None, &fewer).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::CONFLICT, Some("mass_delete")));
    assert!(body["detail"].as_str().unwrap().contains("20 of 50"), "{body}");
    assert_eq!(logins(&world).await.len(), 50, "nothing is deleted");
    // The refused snapshot has written rows, so no delta may build on what was before.
    let refused = collector.ask(collector.request(Mode::Delta, Some(1))).await.unwrap_err();
    assert_eq!(refused.texts["en"], "base_mismatch");
    let allowed = UploadRequest { allow_mass_delete: true, ..collector.request(Mode::Snapshot, None) };
    let grant = collector.ask(allowed).await.unwrap();
    collector.http.put(&grant.upload, 0, &ndjson(&fewer)).await;
    let (status, _) = collector.http.commit(&grant.upload, 1, 30).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(logins(&world).await.len(), 30);
}

#[tokio::test]
async fn repeated_batches_and_commits_change_nothing() {
    let world = World::start().await;
    let mut collector = Collector::start(&world).await;
    let grant = collector.grant(Mode::Snapshot, None).await;
    assert_eq!((grant.epoch, grant.credits), (1, UPLOAD_CREDITS));
    let (first, second) = (ndjson(&[user(1), user(2)]), ndjson(&[user(3)]));
    let http = &mut collector.http;
    assert_eq!(http.put(&grant.upload, 0, &first).await.0, StatusCode::CREATED);
    assert_eq!(http.put(&grant.upload, 0, &first).await.0, StatusCode::OK);
    let (status, body) = http.put(&grant.upload, 0, &second).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::CONFLICT, Some("other_digest")));
    assert_eq!(http.put(&grant.upload, 5, &second).await.0, StatusCode::CREATED);
    let (status, body) = http.state(&grant.upload).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"received": [[0, 0], [5, 5]], "committed": false})));
    // A gap, then a wrong count: not complete.
    for (batches, records) in [(2, 3), (6, 3)] {
        let (status, body) = http.commit(&grant.upload, batches, records).await;
        assert_eq!((status, body["code"].as_str()), (StatusCode::CONFLICT, Some("incomplete")), "{body}");
    }
    for n in 1..5 {
        assert_eq!(http.put(&grant.upload, n, "").await.0, StatusCode::CREATED);
    }
    let wanted = (StatusCode::OK, json!({"epoch": 1, "upserts": 3, "deletes": 0}));
    assert_eq!(http.commit(&grant.upload, 6, 3).await, wanted);
    assert_eq!(http.commit(&grant.upload, 6, 3).await, wanted);
    assert_eq!(http.put(&grant.upload, 0, &first).await.0, StatusCode::OK);
    assert_eq!(http.put(&grant.upload, 6, &first).await.0, StatusCode::GONE);
    assert_eq!(http.state(&grant.upload).await.1["committed"], json!(true));
}

#[tokio::test]
async fn wrong_digests_bombs_and_malformed_batches_are_refused_and_leave_nothing() {
    let world = World::start().await;
    let mut collector = Collector::start(&world).await;
    let upload = collector.grant(Mode::Snapshot, None).await.upload;
    let body = zstd::encode_all(ndjson(&[user(1)]).as_bytes(), 3).unwrap();

    let mut wrong = batch(&upload, 0, &body);
    let digest = batch(&upload, 0, b"other").headers()["content-digest"].clone();
    wrong.headers_mut().insert("content-digest", digest);
    let (status, problem) = collector.http.send(wrong).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::BAD_REQUEST, Some("digest")));

    let mut plain = batch(&upload, 0, &body);
    plain.headers_mut().remove("content-encoding");
    assert_eq!(collector.http.send(plain).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    let bomb = zstd::encode_all(&vec![b'\n'; 256 << 20][..], 19).unwrap();
    let (status, problem) = collector.http.send(batch(&upload, 0, &bomb)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{problem}");
    let large = vec![7; (1 << 20) + 1];
    let (status, problem) = collector.http.send(batch(&upload, 0, &large)).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("too_large")));

    for text in [
        ndjson(&[user(1)]) + "{\"op\":",
        ndjson(&[user(1), json!({"op": "upsert", "kind": "user", "key": "x"})]),
    ] {
        let (status, problem) = collector.http.put(&upload, 0, &text).await;
        assert_eq!((status, problem["code"].as_str()), (StatusCode::BAD_REQUEST, Some("bad_batch")));
        assert!(problem["detail"].as_str().unwrap().starts_with("line 2: "), "{problem}");
    }
    assert_eq!(collector.http.state(&upload).await.1["received"], json!([]));
    assert_eq!(logins(&world).await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_collector_that_lost_its_lease_writes_nothing_more() {
    let world = World::start().await;
    let mut old = Collector::start(&world).await;
    let upload = old.grant(Mode::Snapshot, None).await.upload;
    assert_eq!(old.http.put(&upload, 0, &ndjson(&[user(1)])).await.0, StatusCode::CREATED);
    world.cloud().kit.clock.advance(Duration::from_secs(61));
    let mut new = Collector::start(&world).await;
    assert_eq!(new.fence, old.fence + 1);
    assert_eq!(old.http.put(&upload, 1, &ndjson(&[user(2)])).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(old.http.commit(&upload, 1, 1).await.0, StatusCode::PRECONDITION_FAILED);
    let refused = old.ask(old.request(Mode::Snapshot, None)).await.unwrap_err();
    assert_eq!(refused.texts["en"], "stale_fence");
    let all: Vec<Value> = (0..5).map(user).collect();
    assert_eq!(new.upload(Mode::Snapshot, None, &all).await.0, StatusCode::OK);
    assert_eq!(old.http.put(&upload, 1, &ndjson(&[user(2)])).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(logins(&world).await.len(), 5);
}

#[tokio::test]
async fn leases_have_one_holder_and_growing_fences() {
    let world = World::start().await;
    let mut first = Agent::online(&world).await;
    let mut second = Agent::online(&world).await;
    let grant = first.lease(LeaseOp::Acquire, None).await;
    assert_eq!((grant.granted, grant.fence, grant.ttl_ms), (true, 1, 60_000));
    let refused = second.lease(LeaseOp::Acquire, None).await;
    assert_eq!(
        (refused.granted, refused.ttl_ms, refused.holder),
        (false, 0, Some(first.enrolled.instance.clone()))
    );
    assert!((100..=5_000).contains(&refused.retry_after_ms), "{}", refused.retry_after_ms);
    // The holder asking again has a new holding; then it renews, or tries to with a wrong fence.
    assert_eq!(first.lease(LeaseOp::Acquire, None).await.fence, 2);
    world.cloud().kit.clock.advance(Duration::from_secs(50));
    assert!(first.lease(LeaseOp::Renew, Some(2)).await.granted);
    assert!(!first.lease(LeaseOp::Renew, Some(1)).await.granted);
    world.cloud().kit.clock.advance(Duration::from_secs(50));
    assert!(!second.lease(LeaseOp::Acquire, None).await.granted, "it was renewed");
    world.cloud().kit.clock.advance(Duration::from_secs(11));
    assert!(!first.lease(LeaseOp::Renew, Some(2)).await.granted, "it is over");
    assert_eq!(second.lease(LeaseOp::Acquire, None).await.fence, 3);
    // Given back: free at once. A stale release changes nothing.
    first.lease(LeaseOp::Release, Some(2)).await;
    assert!(!first.lease(LeaseOp::Acquire, None).await.granted);
    second.lease(LeaseOp::Release, Some(3)).await;
    let grant = first.lease(LeaseOp::Acquire, None).await;
    assert_eq!((grant.granted, grant.fence), (true, 4));
    // A new process of the holder frees what the old one had, for anyone.
    let enrolled = first.enrolled.clone();
    drop(first);
    world.journal("offline", "connection lost").await;
    let mut reborn = Agent::connect(&world, enrolled, "boot-2").await;
    let grant = second.lease(LeaseOp::Acquire, None).await;
    assert_eq!((grant.granted, grant.fence), (true, 5));
    assert!(!reborn.lease(LeaseOp::Acquire, None).await.granted);
}

#[tokio::test]
async fn an_abandoned_upload_makes_the_next_one_a_snapshot() {
    let world = World::start().await;
    let mut collector = Collector::start(&world).await;
    let all: Vec<Value> = (0..5).map(user).collect();
    collector.upload(Mode::Snapshot, None, &all).await;
    // Asked for and not begun: harmless.
    let unused = collector.grant(Mode::Delta, Some(1)).await;
    let begun = collector.grant(Mode::Delta, Some(1)).await;
    assert!(begun.epoch > unused.epoch);
    assert_eq!(collector.http.put(&unused.upload, 0, "").await.0, StatusCode::GONE);
    // Begun and given up: what it left is no base for a delta.
    assert_eq!(collector.http.put(&begun.upload, 0, &ndjson(&[user(7)])).await.0, StatusCode::CREATED);
    let refused = collector.ask(collector.request(Mode::Delta, Some(1))).await.unwrap_err();
    assert_eq!(refused.texts["en"], "base_mismatch");
    let (status, body) = collector.upload(Mode::Snapshot, None, &all).await;
    assert_eq!((status, body["deletes"].as_u64()), (StatusCode::OK, Some(1)), "{body}");
}

#[tokio::test]
async fn uploads_are_limited_and_need_the_right_certificate() {
    let world = World::with(|config| {
        config.uploads.concurrent_max = 1;
        config.leases.ttl_ms = 3_600_000;
    })
    .await;
    let mut collector = Collector::start(&world).await;
    let upload = collector.grant(Mode::Snapshot, None).await.upload;
    let other =
        UploadRequest { source: "user_visibility/second".into(), ..collector.request(Mode::Snapshot, None) };
    let lease = causeway_protocol::channel::payload::Lease {
        resource: other.source.clone(),
        op: LeaseOp::Acquire,
        fence: None,
    };
    collector.agent.line.ask_set(lease.to_element()).await.unwrap();
    let refused = collector.ask(other.clone()).await.unwrap_err();
    assert_eq!(refused.defined_condition, DefinedCondition::ResourceConstraint);
    let retry = refused.other.unwrap();
    assert_eq!((retry.name(), retry.attr("after")), ("retry", Some("5")));
    // One that sends something keeps its place, however long it takes; one that nothing comes of does not.
    assert_eq!(collector.http.put(&upload, 0, "").await.0, StatusCode::CREATED);
    world.cloud().kit.clock.advance(Duration::from_secs(61));
    collector.ask(other.clone()).await.unwrap_err();
    let upload = collector.grant(Mode::Snapshot, None).await.upload;
    collector.ask(other.clone()).await.unwrap_err();
    world.cloud().kit.clock.advance(Duration::from_secs(61));
    collector.ask(other).await.unwrap();

    let mut nobody = Uploader::connect(&world, None).await;
    assert_eq!(nobody.put(&upload, 0, "").await.0, StatusCode::UNAUTHORIZED);
    let stranger = enroll(&world).await;
    let mut stranger = Uploader::connect(&world, Some(&stranger.credentials)).await;
    assert_eq!(stranger.put(&upload, 0, "").await.0, StatusCode::NOT_FOUND);
    let instance = collector.agent.enrolled.instance.clone();
    world.cloud().store.revoke_agent(&world.tenant, &instance, "test", 1).await.unwrap();
    let (status, problem) = collector.http.put(&upload, 0, "").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(problem["detail"].as_str().unwrap().contains("revoked"), "{problem}");
}

#[tokio::test]
async fn injected_faults_answer_with_their_status_or_cut_the_connection() {
    let world = World::start().await;
    let mut collector = Collector::start(&world).await;
    let upload = collector.grant(Mode::Snapshot, None).await.upload;
    let busy =
        Rule::new(Fault::status(503, "busy")).on_front("channel").on_operation("upload_batch").times(1);
    let _busy = world.mock.faults().guard(busy);
    assert_eq!(collector.http.put(&upload, 0, "").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(collector.http.put(&upload, 0, "").await.0, StatusCode::CREATED);
    let _cut = world.mock.faults().guard(Rule::new(Fault::Close {}).on_operation("commit").times(1));
    let body = serde_json::to_vec(&json!({"batches": 1, "records": 0})).unwrap();
    let uri = format!("https://cloud.causeway.test{}/{upload}/commit", causeway_protocol::upload::BASE_PATH);
    let request = http::Request::post(uri).body(http_body_util::Full::from(body)).unwrap();
    assert!(collector.http.try_send(request).await.is_err());
    let mut again = Uploader::connect(&world, Some(&collector.agent.enrolled.credentials)).await;
    assert_eq!(again.commit(&upload, 1, 0).await.0, StatusCode::OK);
}
