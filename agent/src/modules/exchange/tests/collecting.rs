//! Listings and statistics: what travels, what does not, and what is never concluded.

use causeway_protocol::upload::Mode;

use super::fake::{Trouble, phone};
use super::*;

#[tokio::test(start_paused = true)]
async fn the_first_listing_shows_every_phone_and_statistics_follow() {
    let bench = Bench::new(Fake::with_phones(25), json!({}));
    let found = bench.list(Task::default()).await.unwrap();
    assert_eq!(
        (found.result["mode"].as_str(), found.result["devices"].as_u64()),
        (Some("snapshot"), Some(25))
    );
    assert_eq!(bench.cloud.count(Kind::Device), 25);
    assert_eq!(bench.record(3)["last_sync"], Value::Null);
    assert_eq!(bench.read().await.unwrap(), 25);
    let record = bench.record(3);
    assert_eq!(record["last_sync"], "2026-11-01T00:00:00Z");
    assert_eq!(record["mailbox"], bench.fake.state().mailboxes[3].guid.to_string());
    assert_eq!(
        (record["address"].as_str(), record["policy"].as_str()),
        (Some("user3@acme.example"), Some("Default"))
    );
    assert_eq!(record["access_state"], "allowed");
    assert!(record.get("RunspaceId").is_none());
    let organization = &bench.cloud.values(Kind::MailOrganization)["default"];
    assert_eq!(
        (organization["version"].as_str(), organization["name"].as_str()),
        (Some("2019"), Some("Acme"))
    );
    assert_eq!(organization["default_access"], "allowed");
    assert_eq!(bench.cloud.count(Kind::DevicePolicy), 2);
    // Two phones of one mailbox are read with one cmdlet.
    assert_eq!(bench.fake.calls("Get-MobileDeviceStatistics"), 20);
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_travels_and_once() {
    let bench = Bench::new(Fake::with_phones(40), json!({}));
    bench.sync().await;
    let uploads = bench.cloud.uploads().len();
    bench.sync().await;
    assert_eq!(bench.cloud.uploads().len(), uploads, "nothing changed and something was sent");
    let calls = bench.fake.calls("Get-MobileDeviceStatistics");
    bench.fake.state().phones[7].model = "iPhone15".to_owned();
    bench.fake.state().phones.push(phone(100, 0));
    bench.sync().await;
    assert_eq!(bench.record(7)["model"], "iPhone15");
    assert_eq!(bench.cloud.count(Kind::Device), 41);
    assert_eq!(bench.cloud.uploads()[uploads..], [(Mode::Delta, 2)]);
    assert_eq!(bench.fake.calls("Get-MobileDeviceStatistics") - calls, 2);
}

#[tokio::test(start_paused = true)]
async fn statistics_are_read_again_when_they_are_old() {
    let bench = Bench::new(Fake::with_phones(10), json!({"statistics_every_secs": 3_600}));
    bench.sync().await;
    bench.fake.state().phones[2].last_sync = Some("2026-11-23T05:00:00Z".to_owned());
    bench.sync().await;
    assert_eq!(bench.record(2)["last_sync"], "2026-11-01T00:00:00Z");
    tokio::time::sleep(Duration::from_secs(3_601)).await;
    bench.sync().await;
    assert_eq!(bench.record(2)["last_sync"], "2026-11-23T05:00:00Z");
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_is_deleted_but_never_because_a_listing_was_cut_short() {
    let bench = Bench::new(Fake::with_phones(30), json!({}));
    bench.sync().await;
    bench.fake.state().truncate_at = Some(10);
    let found = bench.list(Task::default()).await.unwrap();
    assert!(!found.complete && found.result["incomplete"].as_str().unwrap().contains("ResultSize"));
    bench.fake.state().truncate_at = None;
    bench.fake.trouble("Get-MobileDevice", Trouble::Partly("ADTransientException"));
    bench.fake.state().phones.remove(29);
    assert!(!bench.list(Task::default()).await.unwrap().complete);
    assert_eq!(bench.cloud.count(Kind::Device), 30);
    bench.sync().await;
    assert_eq!(bench.cloud.count(Kind::Device), 29);
}

#[tokio::test(start_paused = true)]
async fn too_many_deletions_wait_for_a_person() {
    let guard = json!({"guard": {"deletions_max": 3, "percent_max": 10}});
    let bench = Bench::new(Fake::with_phones(20), guard);
    bench.sync().await;
    bench.fake.state().phones.truncate(15);
    let error = bench.list(Task::default()).await.unwrap_err();
    assert_eq!(error.code(), codes::HELD_BY_GUARD);
    assert_eq!(bench.cloud.count(Kind::Device), 20);
    let dry = bench.list(Task { dry: true, ..Task::default() }).await.unwrap();
    assert_eq!(dry.result["counts"]["device.delete"], 5);
    assert_eq!(bench.cloud.count(Kind::Device), 20);
    bench.list(Task { confirmed: true, ..Task::default() }).await.unwrap();
    assert_eq!(bench.cloud.count(Kind::Device), 15);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_can_be_held_until_the_phone_stays_away() {
    let bench = Bench::new(Fake::with_phones(5), json!({"deletion_hold_secs": 600}));
    bench.sync().await;
    let gone = bench.fake.state().phones.remove(4);
    bench.sync().await;
    assert_eq!(bench.cloud.count(Kind::Device), 5);
    bench.fake.state().phones.push(gone.clone());
    bench.sync().await;
    tokio::time::sleep(Duration::from_secs(601)).await;
    bench.fake.state().phones.pop();
    bench.sync().await;
    assert_eq!(bench.cloud.count(Kind::Device), 5, "the time it was there again does not count");
    tokio::time::sleep(Duration::from_secs(601)).await;
    bench.sync().await;
    assert_eq!(bench.cloud.count(Kind::Device), 4);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_commit_leads_to_a_snapshot_that_costs_no_cmdlets() {
    let bench = Bench::new(Fake::with_phones(12), json!({}));
    bench.sync().await;
    let before = bench.cloud.objects();
    bench.fake.state().phones[1].model = "Pixel".to_owned();
    bench.cloud.lose_next_commit_answer();
    bench.list(Task::default()).await.unwrap();
    bench.read().await.unwrap_err();
    let calls = bench.fake.calls("Get-MobileDeviceStatistics");
    bench.sync().await;
    assert!(bench.cloud.uploads().iter().filter(|upload| upload.0 == Mode::Snapshot).count() == 2);
    assert!(bench.fake.calls("Get-MobileDeviceStatistics") - calls <= 1, "{}", bench.shown());
    assert_eq!(bench.cloud.objects().len(), before.len());
    assert_eq!(bench.record(1)["model"], "Pixel");
    assert_eq!(bench.record(5)["last_sync"], "2026-11-01T00:00:00Z");
}

#[tokio::test(start_paused = true)]
async fn reading_goes_on_where_it_was_after_a_crash() {
    let bench = Bench::new(Fake::with_phones(50), json!({}));
    bench.list(Task::default()).await.unwrap();
    let lease = bench.lease().await;
    bench.fake.state().delay = Duration::from_millis(100);
    let until = Instant::now() + Duration::from_secs(2);
    bench.module.runner.read_slice(&bench.cx, &lease, until, || false).await.unwrap();
    let before = bench.fake.calls("Get-MobileDeviceStatistics");
    assert!((10..30).contains(&before), "{before}");
    let bench = bench.restarted();
    bench.read().await.unwrap();
    assert_eq!(bench.fake.calls("Get-MobileDeviceStatistics"), 40);
    assert_eq!(bench.cloud.count(Kind::Device), 50);
}

#[tokio::test(start_paused = true)]
async fn trouble_in_the_middle_keeps_what_was_read() {
    let bench = Bench::new(Fake::with_phones(20), json!({}));
    bench.list(Task::default()).await.unwrap();
    bench.fake.trouble("Get-MobileDeviceStatistics", Trouble::Fails("StorageCorruptException"));
    bench.fake.trouble("Get-MobileDeviceStatistics", Trouble::Throttled(30));
    let error = bench.read().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(30)));
    bench.read().await.unwrap();
    let unread = (0..20).filter(|n| bench.record(*n)["last_sync"].is_null()).count();
    assert!((1..=2).contains(&unread), "only the broken mailbox has none: {unread}");
}

#[tokio::test(start_paused = true)]
async fn older_generations_are_recognised_by_their_cmdlets() {
    let fake = Fake::with_phones(6);
    fake.state().missing = vec!["Get-MobileDevice".to_owned()];
    let bench = Bench::new(fake, json!({"policies": false}));
    assert_eq!(bench.sync().await["version"], "Exchange 2010");
    assert_eq!(bench.cloud.count(Kind::Device), 6);
    assert!(bench.fake.calls("Get-ActiveSyncDeviceStatistics") > 0);
}

#[tokio::test(start_paused = true)]
async fn exchange_2007_is_asked_mailbox_by_mailbox() {
    let fake = Fake::with_phones(11);
    fake.state().missing = vec!["Get-MobileDevice".to_owned(), "Get-ActiveSyncDevice".to_owned()];
    let bench = Bench::new(fake, json!({"policies": false}));
    assert_eq!(bench.sync().await["version"], "Exchange 2007");
    assert_eq!(bench.cloud.count(Kind::Device), 11);
    assert_eq!(bench.record(4)["last_sync"], "2026-11-01T00:00:00Z");
    let uploads = bench.cloud.uploads().len();
    bench.sync().await;
    assert_eq!(bench.cloud.uploads().len(), uploads);
    let order = action("q", "quarantine_on", Value::Null, Value::Null);
    assert_eq!(failure(bench.act(&order).await).code, "not_supported");
    let block = action("b", "block_device", on(&bench.fake, 3), Value::Null);
    success(bench.settle(&block).await);
    let state = bench.fake.state();
    let mailbox = &state.mailboxes[3];
    assert!(mailbox.blocked.is_empty(), "there is no such list: {:?}", mailbox.blocked);
    assert!(!mailbox.allowed.is_empty() && !mailbox.allowed.contains(&"Appl000003".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_account_without_roles_is_told_so() {
    let fake = Fake::with_phones(1);
    fake.state().missing = ["Get-MobileDevice", "Get-ActiveSyncDevice", "Get-ActiveSyncDeviceStatistics"]
        .map(str::to_owned)
        .to_vec();
    let bench = Bench::new(fake, json!({}));
    assert_eq!(bench.list(Task::default()).await.unwrap_err().code(), "exchange_forbidden");
}

#[tokio::test(start_paused = true)]
async fn parts_of_an_organisation_do_not_overlap() {
    let fake = Fake::with_phones(20);
    for (n, mailbox) in fake.state().mailboxes.iter_mut().enumerate() {
        mailbox.marked = n != 3;
    }
    let of = |scope: Value| Bench::new(fake.clone(), json!({ "scope": scope }));
    let inside = of(json!({"name": "a", "servers": ["EX1.acme.example"], "domains": ["acme.example"]}));
    inside.sync().await;
    assert_eq!(inside.cloud.count(Kind::Device), 20);
    fake.state().sessions = 0;
    let outside = of(json!({"name": "b", "servers": ["ex2"]}));
    outside.sync().await;
    assert_eq!(outside.cloud.count(Kind::Device), 0);
    let elsewhere = of(json!({"name": "c", "domains": ["sub.acme.example"]}));
    elsewhere.sync().await;
    assert_eq!(elsewhere.cloud.count(Kind::Device), 0, "another domain's mailboxes are another's");
    assert_ne!(inside.module.runner.settings.resource(), outside.module.runner.settings.resource());
}

#[tokio::test(start_paused = true)]
async fn phones_the_cloud_knows_are_approved_and_others_wait() {
    let fake = Fake::with_phones(4);
    fake.state().default_level = "Quarantine".to_owned();
    fake.state().mailboxes[2].blocked.push("Appl000002".to_owned());
    let enrolled = json!([
        {"device_id": "Appl000001"},
        {"device_id": "Appl000002"},
        {"device_id": "Appl000003", "mailbox": "somebody@else.example"},
    ]);
    let desired = json!({
        "auto_approve_enrolled": true,
        "enrolled": enrolled,
        "preauthorise": [
            {"mailbox": "user0@acme.example", "device_id": "NEWPHONE1"},
            {"mailbox": "nobody@acme.example", "device_id": "NEWPHONE2"},
        ],
    });
    let bench = Bench::new(fake, desired);
    let found = bench.list(Task::default()).await.unwrap();
    let (done, _) =
        rules::follow(&bench.module.runner, &bench.module.guard, &bench.cx, &found).await.unwrap();
    assert_eq!(done, json!({"approved": 1, "preauthorised": 1}));
    {
        let state = bench.fake.state();
        assert_eq!(state.mailboxes[1].allowed, ["Appl000001"]);
        assert_eq!(state.mailboxes[0].allowed, ["NEWPHONE1"]);
        assert!(state.mailboxes[2].allowed.is_empty() && state.mailboxes[3].allowed.is_empty());
    }
    let told = bench.cloud.notices();
    let failed: Vec<_> = told.iter().filter(|it| it.code == "preauthorise_failed").collect();
    assert!(
        matches!(&failed[..], [one] if one.detail.contains("NEWPHONE2") && one.detail.contains("nobody@")),
        "{told:?}"
    );
    // What a person took back stays so, and nothing is said twice.
    bench.fake.state().mailboxes[0].allowed.clear();
    rules::follow(&bench.module.runner, &bench.module.guard, &bench.cx, &Found::default()).await.unwrap();
    assert!(bench.fake.state().mailboxes[0].allowed.is_empty());
    assert_eq!(bench.cloud.notices().len(), told.len());
}

#[tokio::test(start_paused = true)]
async fn idle_partnerships_go_a_few_at_a_time_and_only_when_told_so() {
    let fake = Fake::with_phones(10);
    for n in [1, 2, 3] {
        fake.state().phones[n].last_sync = Some("2025-01-01T00:00:00Z".to_owned());
    }
    fake.state().phones[4].last_sync = None;
    let idle = |dry: bool| json!({"idle_removal": {"enabled": true, "removals_max": 2, "dry_run": dry}});
    let bench = Bench::new(fake, idle(true));
    bench.sync().await;
    let follow = async |bench: &Bench| {
        let found = bench.list(Task::default()).await.unwrap();
        rules::follow(&bench.module.runner, &bench.module.guard, &bench.cx, &found).await.unwrap().0
    };
    assert_eq!(follow(&bench).await, json!({}));
    assert!(
        bench.cloud.notices().iter().any(|it| it.code == "idle_devices" && it.detail.contains("would be"))
    );
    assert_eq!(bench.fake.state().phones.len(), 10);
    let bench = Bench { desired: idle(false), ..bench }.restarted();
    assert_eq!(follow(&bench).await, json!({"removed_idle": 2}));
    assert_eq!(follow(&bench).await, json!({"removed_idle": 1}));
    assert_eq!(follow(&bench).await, json!({}));
    assert_eq!(bench.fake.state().phones.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn the_loop_collects_by_itself_and_takes_orders() {
    let bench = Bench::new(Fake::with_phones(10), json!({"delta_every_secs": 60}));
    let running = tokio::spawn(bench.module.clone().run(bench.cx.clone()));
    let cloud = bench.cloud.clone();
    let reads = |n: usize| (0..n).all(|n| !bench.record(n)["last_sync"].is_null());
    for _ in 0..1_000 {
        if cloud.count(Kind::Device) == 10 && reads(10) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(reads(10), "{}", bench.shown());
    bench.fake.state().phones[0].model = "Changed".to_owned();
    let order = action("s", "sync_now", Value::Null, json!({"full": true}));
    assert_eq!(success(bench.act(&order).await)["devices"], 10);
    for _ in 0..1_000 {
        if bench.record(0)["model"] == "Changed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.record(0)["model"], "Changed");
    let block = action("b", "block_device", on(&bench.fake, 1), Value::Null);
    success(bench.act(&block).await);
    for _ in 0..1_000 {
        if bench.record(1)["access_state"] == "blocked" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.record(1)["access_state"], "blocked", "{}", bench.shown());
    bench.cx.stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(bench.fake.state().sessions, 0, "every session is closed");
}

#[tokio::test(start_paused = true)]
async fn the_settings_can_ask_for_quarantine() {
    let bench = Bench::new(Fake::with_phones(10), json!({"auto_quarantine": true}));
    let watched = bench.fake.state().phones.iter().map(|it| it.guid).collect();
    bench.fake.state().watch = Some(watched);
    let running = tokio::spawn(bench.module.clone().run(bench.cx.clone()));
    for _ in 0..1_000 {
        if bench.fake.state().default_level == "Quarantine" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.fake.state().default_level, "Quarantine");
    assert!(bench.fake.state().wrongly_held.is_empty());
    bench.cx.stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_password_is_tried_at_once() {
    let bench = Bench::new(Fake::with_phones(5), json!({}));
    bench.fake.trouble("open", Trouble::Credentials);
    let running = tokio::spawn(bench.module.clone().run(bench.cx.clone()));
    let refused = || bench.cloud.notices().iter().any(|notice| notice.code == "sync_failed");
    until("the refusal", refused).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.cloud.count(Kind::Device), 0, "a wrong password is not tried again so soon");
    let started = Instant::now();
    bench.cx.wake.call();
    until("the phones", || bench.cloud.count(Kind::Device) == 5).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    bench.cx.stop.cancel();
    running.await.unwrap().unwrap();
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_ends_with_the_last_phone_is_the_last() {
    let bench = Bench::new(Fake::with_phones(2), json!({}));
    bench.list(Task::default()).await.unwrap();
    let lease = bench.lease().await;
    for is_done in [false, true] {
        let slice = bench.module.runner.read_slice(&bench.cx, &lease, Instant::now(), || true).await.unwrap();
        assert_eq!((slice.read, slice.is_done), (1, is_done));
    }
}
