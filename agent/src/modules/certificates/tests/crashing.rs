//! Whatever dies when: one order, one certificate, one result.

use std::pin::pin;
use std::task::Poll;

use causeway_protocol::pkix::Certificate;

use super::fake::Next;
use super::*;

/// Polls so often and then drops it, as a process that dies there would.
async fn killed_after<T>(polls: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(cx).map(Some)
    })
    .await
}

/// Kills the agent at each point where it waits, brings it back, and looks at what there is.
async fn killed_everywhere(order_of: impl Fn(&Bench, &str) -> Value, prepare: impl Fn(&Fake)) {
    let mut bench = Bench::new();
    for polls in 0.. {
        let request = format!("r{polls}");
        let order = order_of(&bench, &request);
        prepare(&bench.fake);
        let ended = killed_after(polls, bench.issue(&order)).await;
        bench.fake.state().next.clear();
        let survivor = bench.restarted();
        let after = survivor.issued(&order).await;
        assert_eq!(bench.fake.count(&request), 1, "killed after {polls} polls");
        assert_eq!(after, survivor.issued(&order).await, "asked again, it says the same");
        let known = Certificate::read(&STANDARD.decode(&after.certificate).unwrap()).unwrap();
        assert_eq!(after.id, known.id());
        if let Some(Outcome::Success(before)) = ended {
            // Its report had not been committed yet, so it is asked for again.
            let before = serde_json::from_value::<Issued>(before).unwrap();
            assert_eq!((before.id, before.certificate), (after.id, after.certificate));
            assert!(polls >= 5, "only {polls} deaths");
            return;
        }
        bench = survivor;
        assert!(polls < 200, "it never ends");
    }
}

#[tokio::test]
async fn a_devices_request_leads_to_one_certificate() {
    killed_everywhere(Bench::device_order, |_| {}).await;
}

#[tokio::test]
async fn an_identity_made_by_the_agent_leads_to_one_certificate() {
    killed_everywhere(Bench::agent_order, |_| {}).await;
}

#[tokio::test]
async fn with_one_time_challenges_too() {
    killed_everywhere(Bench::agent_order, |fake| fake.state().wants_challenge = true).await;
}

#[tokio::test]
async fn an_answer_that_got_lost_is_asked_for() {
    let bench = Bench::new();
    for (n, order) in [bench.device_order("a"), bench.agent_order("b")].iter().enumerate() {
        bench.fake.then(Next::Lost);
        let (result, _) = pending(bench.issue(order).await);
        assert_eq!((&result["stage"], &result["code"]), (&json!("retrying"), &json!("ca_unreachable")));
        let issued = bench.issued(order).await;
        assert_eq!(bench.fake.count(&issued.request), 1);
        assert_eq!(bench.fake.state().submits, n as u32 + 1, "it was handed in once");
    }
    let issued = bench.issued(&bench.agent_order("b")).await;
    assert!(!bench.opened(&issued).passphrase.is_empty(), "the identity has the key of the first try");
}

#[tokio::test]
async fn the_disk_is_asked_before_the_authority() {
    let bench = Bench::new();
    bench.storage.set_full(true);
    let order = bench.device_order("a");
    let (result, _) = pending(bench.issue(&order).await);
    assert_eq!(result["code"], "storage");
    assert_eq!(bench.fake.count("a"), 0, "nothing left that could not be found again");
    bench.storage.set_full(false);
    bench.issued(&order).await;
    assert_eq!(bench.fake.count("a"), 1);
}

#[tokio::test]
async fn an_approval_survives_the_agent() {
    let bench = Bench::new();
    let order = bench.agent_order("a");
    bench.fake.then(Next::Pending);
    let (result, wait) = pending(bench.issue(&order).await);
    assert_eq!((result["stage"].as_str(), wait.as_secs()), (Some("awaiting_approval"), 60));
    let bench = bench.restarted();
    let (_, wait) = pending(bench.issue(&order).await);
    assert_eq!(wait.as_secs(), 90, "each wait is longer");
    bench.fake.approve();
    let issued = bench.restarted().issued(&order).await;
    assert_eq!((bench.fake.count("a"), bench.fake.figures().1), (1, 1));
    assert!(bench.opened(&issued).pkcs12.len() > 100);
}

#[tokio::test]
async fn nobody_is_asked_for_ever() {
    let bench = Bench::new();
    let order = bench.device_order("a");
    bench.fake.then(Next::Pending);
    for _ in 0..4 {
        pending(bench.issue(&order).await);
    }
    assert_eq!(failure(bench.issue(&order).await).code, "ca_not_decided");
    // It may still be approved, and another order for the same request finds it.
    bench.fake.approve();
    bench.issued(&order).await;
    assert_eq!(bench.fake.count("a"), 1);
}

/// The server that alone knows the order never comes back: that is said, not waited out until the order itself ends.
#[tokio::test]
async fn who_is_gone_is_not_asked_for_ever() {
    const HOUR_MS: i64 = 3_600_000;
    let mut bench = Bench::new();
    let order = bench.device_order("a");
    bench.fake.then(Next::Pending);
    pending(bench.issue(&order).await);
    let mut at_ms = NOW_MS;
    // Three bad days with an answer in between are no three bad days.
    for (hours, is_down) in [(0, true), (71, true), (2, false), (1, true), (70, true), (1, true)] {
        at_ms += hours * HOUR_MS;
        bench.cx.clock = Clock::simulated(at_ms);
        bench.fake.state().down = is_down;
        pending(bench.issue(&order).await);
    }
    let mut bench = bench.restarted();
    bench.cx.clock = Clock::simulated(at_ms + 5 * HOUR_MS / 2);
    let error = failure(bench.issue(&order).await);
    assert!(error.code == "ca_unclear" && error.detail.contains("73 h"), "{error:?}");
    // It is back after all, and another order for the same request finds it.
    bench.fake.state().down = false;
    bench.fake.approve();
    bench.issued(&order).await;
    assert_eq!(bench.fake.count("a"), 1);
}

#[tokio::test]
async fn two_actions_for_one_request_make_one_certificate() {
    let bench = Bench::new();
    let order = bench.device_order("a");
    let all = futures_util::future::join_all((0..8).map(|_| bench.issued(&order))).await;
    assert!(all.iter().all(|issued| *issued == all[0]));
    assert_eq!(bench.fake.count("a"), 1);
    let other = bench.device_order_with("a", |draft| draft.challenge = Some(Secret::new("x")));
    assert_eq!(failure(bench.issue(&other).await).code, "request_reused");
}

/// Nothing that opens anything is ever on disk or in a result.
#[tokio::test]
async fn no_secret_is_stored() {
    let bench = Bench::new();
    bench.fake.state().wants_challenge = true;
    bench.fake.then(Next::Pending);
    let order = bench.agent_order("a");
    let (result, _) = pending(bench.issue(&order).await);
    let while_open = bench.storage.dump();
    let row = super::super::state::Store::new(bench.cx.storage.clone()).find("a").await.unwrap().unwrap();
    let super::super::state::Standing::Open(open) = row.standing else { panic!("not open") };
    let sealed = STANDARD.decode(&open.keys).unwrap();
    let keys = super::super::state::Keys::open(&bench.vault, "a", &sealed).unwrap();
    bench.fake.approve();
    let issued = bench.issued(&order).await;
    let identity = bench.opened(&issued);
    let pkcs12 = STANDARD.decode(&identity.pkcs12).unwrap();
    let own = keys.identity.unwrap();
    let secrets: [&[u8]; 6] = [
        b"canary-challenge",
        &keys.message.pkcs8()[30..],
        &own[30..],
        identity.passphrase.as_bytes(),
        &pkcs12[..64],
        identity.pkcs12.as_bytes(),
    ];
    let result = format!("{result}{}", json!(issued));
    let at_last = bench.storage.dump();
    let stored = while_open.iter().chain(&at_last).flat_map(|(_, key, value)| [key.as_slice(), value]);
    for place in stored.chain([result.as_bytes()]) {
        for secret in secrets {
            assert!(!place.windows(secret.len()).any(|part| part == secret));
            let text = STANDARD.encode(&secret[secret.len() % 3..]);
            let text = &text.as_bytes()[..text.len() / 2];
            assert!(!place.windows(text.len()).any(|part| part == text));
        }
    }
    let after = String::from_utf8(bench.storage.dump()[0].2.clone()).unwrap();
    assert!(!after.contains("keys"), "a finished order has none: {after}");
}

/// A challenge leaves no trace, neither as text nor as the bytes of a signing request or its base64, however far the order
/// is.
#[tokio::test]
async fn no_challenge_is_stored() {
    let bench = Bench::new();
    bench.fake.state().wants_challenge = true;
    let answer = bench.challenge("a").await;
    let challenge = answer.challenge.clone().unwrap();
    let mut places = bench.storage.dump();
    let order = bench.sealed_order("a", &answer);
    bench.fake.then(Next::Pending);
    let (result, _) = pending(bench.issue(&order).await);
    places.extend(bench.storage.dump());
    bench.fake.approve();
    let issued = bench.issued(&order).await;
    places.extend(bench.storage.dump());
    assert!(places.len() > 4, "the storage was looked at");
    let texts = [order.to_string(), result.to_string(), json!(issued).to_string()];
    let stored = places.iter().flat_map(|(_, key, value)| [key.as_slice(), value]);
    for place in stored.chain(texts.iter().map(String::as_bytes)) {
        // In base64 the same bytes look different at each of three offsets.
        let at = |skip: usize| {
            let text = STANDARD.encode(&challenge.as_bytes()[skip..]);
            text[..text.len() / 4 * 4 - 4].to_owned()
        };
        for form in [challenge.clone(), at(0), at(1), at(2)] {
            assert!(!place.windows(form.len()).any(|part| part == form.as_bytes()), "{form}");
        }
    }
}
