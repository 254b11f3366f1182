//! Leases and uploads between the real ends.

use causeway_agent::link::LinkError;
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::record::{Kind, Op, Record};
use causeway_protocol::upload::Mode;
use serde_json::json;

use crate::support::{Probe, World, eventually, soon, user};

const MANY: usize = 6_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_arrives_whole_across_cuts_and_a_restart_of_the_cloud() {
    let mut world = World::start().await;
    let probe = Probe::new("user_visibility", "one");
    let _agent = world.ready_agent("one", &probe).await;
    let lease = probe.lease().await;
    let mut upload = probe.upload(lease.fence(), Mode::Snapshot, None).await.unwrap();
    for n in 0..MANY {
        upload.push(user(n)).await.unwrap();
        if n == MANY / 3 {
            world.link.cut();
        }
        if n == MANY / 2 {
            world.restart_cloud().await;
        }
    }
    let committed = soon("the commit", upload.commit()).await.unwrap();
    assert_eq!((committed.upserts, committed.deletes), (MANY as u64, 0));
    assert_eq!(world.count("users").await, MANY);

    let mut delta = probe.upload(lease.fence(), Mode::Delta, Some(committed.epoch)).await.unwrap();
    delta.push(user(MANY)).await.unwrap();
    let gone = Record { op: Op::Delete, kind: Kind::User, key: "00000007".into(), member: None, v: None };
    delta.push(gone).await.unwrap();
    let next = soon("the commit", delta.commit()).await.unwrap();
    assert_eq!((next.epoch, next.deletes), (committed.epoch + 1, 1));
    assert_eq!(world.count("users").await, MANY);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_types() {
    let world = World::start().await;
    let probe = Probe::new("user_visibility", "one");
    let _agent = world.ready_agent("one", &probe).await;
    let lease = probe.lease().await;
    let mut upload = probe.upload(lease.fence(), Mode::Snapshot, None).await.unwrap();
    for n in 0..100 {
        upload.push(user(n)).await.unwrap();
    }
    let epoch = upload.commit().await.unwrap().epoch;

    let stale = probe.upload(lease.fence() + 1, Mode::Snapshot, None).await.err();
    assert!(matches!(stale, Some(LinkError::StaleFence)), "{stale:?}");
    let base = probe.upload(lease.fence(), Mode::Delta, Some(epoch + 7)).await.err();
    assert!(matches!(base, Some(LinkError::BaseMismatch)), "{base:?}");

    let mut few = probe.upload(lease.fence(), Mode::Snapshot, None).await.unwrap();
    few.push(user(0)).await.unwrap();
    let error = few.commit().await.unwrap_err();
    assert!(matches!(error, LinkError::MassDelete { .. }), "{error:?}");
    assert_eq!(world.count("users").await, 100);

    let mut large = probe.upload(lease.fence(), Mode::Snapshot, None).await.unwrap();
    let mut record = user(0);
    record.key = "k".repeat(300_000);
    let error = large.push(record).await.unwrap_err();
    assert!(matches!(error, LinkError::RecordTooLarge { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_cloud_is_waited_for() {
    let world = World::start().await;
    let probe = Probe::new("user_visibility", "one");
    let _agent = world.ready_agent("one", &probe).await;
    let lease = probe.lease().await;
    let fault = Fault::Status { code: "503".to_owned(), message: "busy".to_owned() };
    let rule = Rule { times: Some(2), ..Rule::new(fault).on_operation("upload_batch") };
    let guard = world.cloud().faults().guard(rule);
    let mut upload = probe.upload(lease.fence(), Mode::Snapshot, None).await.unwrap();
    upload.push(user(1)).await.unwrap();
    let committed = soon("the commit", upload.commit()).await.unwrap();
    assert_eq!((committed.upserts, guard.hits()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_passes_to_the_next_agent_with_a_higher_fence() {
    let world = World::start_with(|config| config.leases.ttl_ms = 3_000).await;
    let (one, two) = (Probe::new("user_visibility", "one"), Probe::new("user_visibility", "two"));
    let first = world.ready_agent("one", &one).await;
    let _second = world.ready_agent("two", &two).await;
    let held = one.lease().await;
    let fence = held.fence();
    let context = two.context().await;
    let waiting = tokio::spawn(async move { context.cloud.lease(crate::support::SOURCE).await });
    // Held and renewed beyond its first life.
    let renewed = tokio::time::timeout(std::time::Duration::from_secs(4), held.lost()).await;
    assert!(renewed.is_err() && !waiting.is_finished(), "one agent at a time");

    // The first agent's link dies without a word; the second takes over when the lease has ended.
    drop(first);
    let taken = soon("the second agent's turn", waiting).await.unwrap().unwrap();
    assert!(taken.fence() > fence, "{} after {fence}", taken.fence());
    soon("the first agent's loss", held.lost()).await;
    let leases = world.tenant.get("leases").await.unwrap();
    assert!(leases.to_string().contains(&json!(taken.fence()).to_string()), "{leases}");

    drop(taken);
    let again = soon("the lease again", two.lease()).await;
    assert!(again.fence() > fence);
    eventually("still held", || async { again.is_lost() }, |lost| !lost).await;
}
