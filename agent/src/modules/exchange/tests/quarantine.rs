//! The switch to quarantine: whatever dies when, nobody who synchronised before is ever stopped by it.

use super::fake::{Trouble, add_mailbox, phone};
use super::*;

fn bench(count: usize) -> Bench {
    let bench = Bench::new(Fake::with_phones(count), json!({}));
    let watched = bench.fake.state().phones.iter().map(|it| it.guid).collect();
    bench.fake.state().watch = Some(watched);
    bench
}

fn quarantine_on() -> Action {
    action("q", "quarantine_on", Value::Null, Value::Null)
}

#[tokio::test(start_paused = true)]
async fn every_phone_is_allowed_before_the_switch() {
    let bench = bench(60);
    bench.fake.state().mailboxes[7].blocked.push("Appl000008".to_owned());
    let blocked = bench.fake.phone(8).guid;
    bench.fake.state().watch.as_mut().unwrap().retain(|it| *it != blocked);
    let result = success(bench.settle(&quarantine_on()).await);
    assert_eq!(
        (result["default_access"].as_str(), result["allowed"].as_u64()),
        (Some("quarantined"), Some(59))
    );
    {
        let state = bench.fake.state();
        assert_eq!(state.default_level, "Quarantine");
        assert!(state.wrongly_held.is_empty(), "{:?}", state.wrongly_held);
        assert_eq!(state.mailboxes[7].allowed, ["Appl000009"], "who is blocked stays blocked");
    }
    let again = success(bench.settle(&action("q2", "quarantine_on", Value::Null, Value::Null)).await);
    assert_eq!(again["already"], true);
    let off = success(bench.settle(&action("q3", "quarantine_off", Value::Null, Value::Null)).await);
    assert_eq!(off["default_access"], "allowed");
    assert_eq!(bench.fake.state().default_level, "Allow");
}

#[tokio::test(start_paused = true)]
async fn phones_that_come_meanwhile_are_found() {
    for takes_filters in [true, false] {
        phones_come_meanwhile(takes_filters).await;
    }
}

async fn phones_come_meanwhile(takes_filters: bool) {
    let bench = bench(20);
    bench.fake.state().takes_filters = takes_filters;
    let mut count = 0;
    bench.fake.state().before_cmdlet = Some(Box::new(move |phones, mailboxes, name| {
        // One comes while phones are allowed, in a mailbox that is not marked as having any, and one in the very
        // moment of the switch.
        if (name == "Set-CASMailbox" && count == 0)
            || (name == "Set-ActiveSyncOrganizationSettings" && count == 1)
        {
            add_mailbox(mailboxes, 500 + count);
            mailboxes.last_mut().unwrap().marked = false;
            let mut new = phone(500 + count, mailboxes.len() - 1);
            new.first_sync = at_ms(NOW_MS - 1_000);
            phones.push(new);
            count += 1;
        }
    }));
    let result = success(bench.settle(&quarantine_on()).await);
    assert_eq!(result["allowed"], 22, "{}", bench.shown());
    // Two looks after the switch, for held phones alone where that can be asked; where it cannot, for all.
    let looks = |parameters: &str| {
        let state = bench.fake.state();
        let calls = state.log.iter().rev();
        let after = calls.take_while(|call| !call.starts_with("Set-ActiveSyncOrganizationSettings"));
        after.filter(|call| **call == format!("Get-MobileDevice{parameters}")).count()
    };
    let filtered = " -ResultSize Unlimited -Filter DeviceAccessState -eq 'Quarantined'";
    assert_eq!(looks(filtered), 2, "{}", bench.shown());
    assert_eq!(looks(" -ResultSize Unlimited"), if takes_filters { 0 } else { 2 }, "{}", bench.shown());
    let state = bench.fake.state();
    assert!(state.wrongly_held.is_empty());
    assert!(state.phones.iter().all(|phone| state.access(phone).0 == "Allowed"));
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_any_cmdlet_leaves_nobody_out() {
    let mut total = 0;
    for dies_after in 0..60 {
        let mut bench = bench(12);
        bench.fake.state().dies_after = Some(dies_after);
        let dead = tokio::time::timeout(Duration::from_secs(100), bench.settle(&quarantine_on())).await;
        if dead.is_ok() {
            total = dies_after;
            break;
        }
        let half_done = bench.fake.state().default_level == "Quarantine";
        bench = bench.restarted();
        bench.fake.state().dies_after = None;
        let result = success(bench.settle(&quarantine_on()).await);
        assert!(half_done || result["default_access"] == "quarantined", "{dies_after}: {result}");
        let state = bench.fake.state();
        assert_eq!(state.default_level, "Quarantine");
        assert!(state.wrongly_held.is_empty(), "{dies_after}: {:?}", state.wrongly_held);
        assert!(state.phones.iter().all(|phone| state.access(phone).0 == "Allowed"), "{dies_after}");
    }
    assert!(total > 15, "the job has that many cmdlets: {total}");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_the_job_before_the_switch() {
    let bench = bench(12);
    bench.storage.set_full(true);
    failure_or_pending(bench.act(&quarantine_on()).await);
    assert_eq!(bench.fake.state().default_level, "Allow");
    bench.storage.set_full(false);
    success(bench.settle(&quarantine_on()).await);
    assert!(bench.fake.state().wrongly_held.is_empty());
}

fn failure_or_pending(outcome: Outcome) {
    assert!(!matches!(outcome, Outcome::Success(_)), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_cannot_be_written_stops_the_switch() {
    let bench = bench(6);
    for _ in 0..500 {
        bench.fake.trouble("Set-CASMailbox", Trouble::Fails("SomethingOdd"));
    }
    let error = failure(bench.settle(&quarantine_on()).await);
    assert_eq!(error.code, "not_kept");
    assert_eq!(bench.fake.state().default_level, "Allow");
    assert!(bench.fake.state().wrongly_held.is_empty());
}

#[tokio::test(start_paused = true)]
async fn mailboxes_of_another_domain_are_allowed_too() {
    let bench = Bench::new(Fake::with_phones(20), json!({ "domain_controller": "dc1.acme.example" }));
    bench.fake.state().other_domain_from = Some(6);
    let watched = bench.fake.state().phones.iter().map(|it| it.guid).collect();
    bench.fake.state().watch = Some(watched);
    let result = success(bench.settle(&quarantine_on()).await);
    assert_eq!(result["allowed"], 20, "{}", bench.shown());
    let state = bench.fake.state();
    assert!(state.wrongly_held.is_empty(), "{:?}", state.wrongly_held);
    assert!(state.phones.iter().all(|phone| state.access(phone).0 == "Allowed"));
    let listings = state.log.iter().filter(|call| call.contains("ResultSize Unlimited"));
    assert!(listings.clone().count() > 3 && listings.clone().all(|call| !call.contains("DomainController")));
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_listing_stops_the_switch() {
    let bench = bench(30);
    bench.fake.state().truncate_at = Some(10);
    let (result, _) = pending(bench.act(&quarantine_on()).await);
    assert_eq!(result["error"]["code"], "incomplete_listing");
    assert_eq!(bench.fake.state().default_level, "Allow");
    bench.fake.state().truncate_at = None;
    success(bench.settle(&quarantine_on()).await);
    assert!(bench.fake.state().wrongly_held.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whole_lists_are_written_where_changes_are_not_taken() {
    let bench = bench(12);
    bench.fake.state().takes_changes = false;
    bench.fake.state().mailboxes[3].allowed.push("OTHER".to_owned());
    success(bench.settle(&quarantine_on()).await);
    let state = bench.fake.state();
    assert!(state.wrongly_held.is_empty());
    assert!(state.mailboxes[3].allowed.contains(&"OTHER".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn it_says_when_it_will_be_done() {
    let bench = bench(1_000);
    bench.fake.state().delay = Duration::from_millis(500);
    let started = Instant::now();
    let mut said = Vec::new();
    loop {
        match bench.act(&quarantine_on()).await {
            Outcome::Pending { result, next_check } => {
                if result["phase"] == "allow"
                    && let Some(eta_secs) = result["eta_secs"].as_u64()
                {
                    said.push((started.elapsed(), eta_secs));
                }
                tokio::time::sleep(next_check).await;
            }
            ended => {
                success(ended);
                break;
            }
        }
    }
    let took = started.elapsed().as_secs_f64();
    assert!(said.len() > 10, "{said:?}");
    for (at, eta_secs) in said {
        let total = at.as_secs_f64() + eta_secs as f64;
        assert!((total - took).abs() <= took * 0.2, "at {at:?}: {eta_secs} s left of {took} s");
    }
}
