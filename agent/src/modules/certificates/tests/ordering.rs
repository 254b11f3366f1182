//! Orders and challenges as they should go, and how long trouble is waited out.

use p12_keystore::{KeyStore, Pkcs12ImportPolicy};

use super::fake::{HOST, Next};
use super::*;
use crate::ca::CaError;

#[tokio::test]
async fn a_devices_request_is_handed_in_as_it_is() {
    let bench = Bench::new();
    let issued = bench.issued(&bench.device_order("a")).await;
    assert_eq!(
        issued.subject,
        "1.2.840.113549.1.9.1=asmith@acme.example,CN=asmith".replace("1.2.840.113549.1.9.1", "emailAddress")
    );
    assert!(issued.identity.is_none() && issued.chain.len() == 1);
    assert_eq!(issued.not_after_ms, 1_900_000_000_000);
    assert!(issued.timing_ms.contains_key("authority") && issued.timing_ms.contains_key("total"));
}

#[tokio::test]
async fn an_identity_is_for_the_device_alone() {
    let mut desired = bench_desired();
    desired["profiles"][1]["key"] = json!("rsa2048");
    let bench = Bench::with(desired);
    let issued = bench.issued(&bench.agent_order("a")).await;
    let identity = bench.opened(&issued);
    let file = STANDARD.decode(&identity.pkcs12).unwrap();
    let store = KeyStore::from_pkcs12(&file, &identity.passphrase, Pkcs12ImportPolicy::Strict).unwrap();
    let (_, entry) = store.private_key_chain().unwrap();
    let certificate = STANDARD.decode(&issued.certificate).unwrap();
    assert_eq!(entry.certs()[0].as_der(), certificate);
    let certificate = causeway_protocol::pkix::Certificate::read(&certificate).unwrap();
    let key = Key::from_pkcs8(entry.key().as_der()).unwrap();
    assert!(key.public_key().same_as(certificate.public_key()) && key.is_rsa());
}

fn bench_desired() -> Value {
    json!({ "profiles": [profile("vpn", "device"), profile("mail", "agent")] })
}

#[tokio::test]
async fn a_challenge_belongs_to_one_device() {
    let bench = Bench::new();
    bench.fake.state().wants_challenge = true;
    let answer = bench.challenge("a").await;
    assert_eq!(answer.alternative_names, ["upn:asmith@acme.example"]);
    assert_eq!(answer.ttl_ms, 57 * 60_000);
    assert_eq!(bench.fake.turns_left(), 3, "its turn is held until the device comes back");
    let others = bench.challenge("b").await;
    let order = bench.sealed_order("a", &answer);
    for proof in [&others.seal.as_ref().unwrap().proof, "", "AAAA", "!"] {
        let mut order = order.clone();
        order["sealed_csr"]["proof"] = json!(proof);
        assert_eq!(failure(bench.issue(&order).await).code, "challenge_mismatch", "{proof}");
    }
    // The right proof with the challenge of another device in the request.
    let mut stolen = bench.sealed_order("a", &others);
    stolen["sealed_csr"]["proof"] = order["sealed_csr"]["proof"].clone();
    assert_eq!(failure(bench.issue(&stolen).await).code, "challenge_mismatch");
    assert_eq!(bench.fake.state().submits, 0);
    bench.issued(&order).await;
    assert_eq!(bench.fake.turns_left(), 3, "one is back");
    // Used up: the authority refuses it for good, whoever shows it.
    let used = bench
        .sealed_order("c", &ChallengeAnswer { challenge: answer.challenge, ..bench.challenge("c").await });
    assert_eq!(failure(bench.issue(&used).await).code, "challenge_mismatch");
    bench.fake.state().challenges.clear();
    let gone = bench.sealed_order("b", &others);
    assert_eq!(failure(bench.issue(&gone).await).code, "ca_challenge_refused");
    assert_eq!(bench.fake.count("b"), 0);
}

/// A challenge is for the name it was fetched for: what the directory says of the person must not change in between.
#[tokio::test]
async fn a_challenge_belongs_to_one_name() {
    let bench = Bench::new();
    bench.fake.state().wants_challenge = true;
    let mut order = bench.sealed_order("a", &bench.challenge("a").await);
    order["variables"]["email"] = json!("bjones@acme.example");
    assert_eq!(failure(bench.issue(&order).await).code, "challenge_mismatch");
    assert_eq!(bench.fake.state().submits, 0);
}

#[tokio::test]
async fn only_the_agent_that_fetched_the_challenge_opens_the_request() {
    let bench = Bench::new();
    bench.fake.state().wants_challenge = true;
    let order = bench.sealed_order("a", &bench.challenge("a").await);
    let (fake, vault) = (bench.fake.clone(), bench.vault.clone());
    for (storage, vault) in [(MemoryStorage::new(), vault), (bench.storage.crash(), Vault::default())] {
        let other = Bench::over(fake.clone(), storage, vault, bench.desired.clone(), bench.device.clone());
        assert_eq!(failure(other.issue(&order).await).code, "request_sealed_elsewhere");
        // It is as good as any with a challenge of its own.
        other.issued(&other.sealed_order("b", &other.challenge("b").await)).await;
        bench.fake.state().issued.clear();
    }
    assert_eq!(bench.fake.count("a"), 0);
    let bench = bench.restarted();
    bench.issued(&order).await;
    let mut both = order;
    both["request"] = json!("c");
    both["csr"] = json!("MAA=");
    assert_eq!(failure(bench.issue(&both).await).code, "bad_parameters");
    let mut torn = bench.sealed_order("d", &bench.challenge("d").await);
    torn["sealed_csr"]["envelope"] = json!("MAA=");
    assert_eq!(failure(bench.issue(&torn).await).code, "request_sealed_elsewhere");
}

#[tokio::test]
async fn questions_for_a_challenge_are_checked_like_orders() {
    let bench = Bench::new();
    let ask = |profile: &str, name: &str| {
        json!({
            "request": "a", "profile": profile, "version": 3,
            "variables": { "uname": name, "email": "x@acme.example", "upn": "x@acme.example" },
        })
    };
    let code = async |body: Value| bench.ask(body).await.unwrap_err().code;
    assert_eq!(code(ask("vpn", "Administrator")).await, "privileged_name");
    assert_eq!(code(ask("mail", "asmith")).await, "bad_parameters");
    assert_eq!(code(ask("none", "asmith")).await, "profile_missing");
    assert_eq!(code(json!({ "request": "a" })).await, "bad_parameters");
    let answer = bench.ask(ask("vpn", "asmith")).await.unwrap();
    assert!(answer.get("challenge").is_none(), "the authority wants none: {answer}");
}

#[tokio::test]
async fn a_refused_challenge_is_replaced_once() {
    let bench = Bench::new();
    bench.fake.state().wants_challenge = true;
    let refused = || Next::Fails(CaError::ChallengeRefused { host: HOST.into(), detail: "restarted".into() });
    bench.fake.then(refused());
    bench.issued(&bench.agent_order("a")).await;
    assert_eq!((bench.fake.figures().0, bench.fake.count("a")), (2, 1));
    (0..2).for_each(|_| bench.fake.then(refused()));
    assert_eq!(failure(bench.issue(&bench.agent_order("b")).await).code, "ca_challenge_refused");
    assert_eq!(bench.fake.state().handed_out, 4, "no more are burned");
    // What was refused left nothing behind.
    bench.issued(&bench.agent_order("b")).await;
    assert_eq!(bench.fake.count("b"), 1);
}

#[tokio::test]
async fn each_kind_of_trouble_is_waited_out_in_its_own_way() {
    let bench = Bench::new();
    let host = || HOST.to_owned();
    let words = || "words".to_owned();
    let within = |wait: Duration, secs: f64| (secs * 0.74..=secs * 1.26).contains(&wait.as_secs_f64());
    let order = bench.device_order("a");
    for (error, code, secs) in [
        (CaError::Busy { host: host(), detail: words(), retry_after: None }, "ca_busy", 2.0),
        (
            CaError::Busy { host: host(), detail: words(), retry_after: Some(Duration::from_secs(7)) },
            "ca_busy",
            7.0,
        ),
        (CaError::Answer { host: host(), detail: words() }, "ca_answer", 8.0),
        (CaError::Credentials { host: host(), detail: words() }, "ca_credentials", 300.0),
        (CaError::Forbidden { host: host(), detail: words() }, "ca_forbidden", 300.0),
        (
            CaError::ChallengesExhausted { host: host(), retry_after: Duration::from_secs(20) },
            "ca_challenges_used_up",
            20.0,
        ),
    ] {
        bench.fake.then(Next::Fails(error));
        let (result, wait) = pending(bench.issue(&order).await);
        assert_eq!((&result["stage"], &result["code"]), (&json!("retrying"), &json!(code)));
        assert!(within(wait, secs), "{code}: {wait:?}");
        assert!(!result["remedy"].as_str().unwrap().is_empty());
    }
    bench.issued(&order).await;
    for error in [
        CaError::Refused { host: host(), code: "bad_request".into(), detail: words() },
        CaError::Unclear { host: host(), detail: words() },
    ] {
        let order = bench.device_order(&error.to_string());
        bench.fake.then(Next::Fails(error));
        let report = failure(bench.issue(&order).await);
        assert!(report.detail.contains("words") && report.detail.contains("default"), "{}", report.detail);
        bench.issued(&order).await;
    }
}

#[tokio::test]
async fn nothing_that_was_not_sent_is_asked_about() {
    let bench = Bench::new();
    bench.fake.state().wants_challenge = true;
    bench.fake.then(Next::Unsent);
    let order = bench.agent_order("a");
    pending(bench.issue(&order).await);
    assert!(bench.storage.dump().is_empty());
    bench.issued(&order).await;
    let (_, submits, polls) = bench.fake.figures();
    assert_eq!((polls, submits), (0, 2));
    assert_eq!(bench.fake.turns_left(), 4);
}

#[tokio::test]
async fn answers_that_are_none_are_not_believed() {
    let bench = Bench::new();
    let order = bench.device_order("a");
    for next in [Next::Garbage, Next::OtherKey] {
        bench.fake.then(next);
        let (result, _) = pending(bench.issue(&order).await);
        assert_eq!(result["code"], "ca_answer");
    }
    bench.issued(&order).await;
    assert_eq!(bench.fake.count("a"), 1);
}

#[tokio::test]
async fn an_order_waits_for_its_profile_but_not_for_an_old_one() {
    let bench = Bench::new();
    let mut order = bench.device_order("a");
    order["version"] = json!(4);
    let (result, wait) = pending(bench.issue(&order).await);
    assert_eq!(result["code"], "profile_missing");
    assert!(wait < Duration::from_secs(3));
    let mut desired = bench_desired();
    desired["profiles"][0]["version"] = json!(4);
    bench.configured(desired.clone()).issued(&order).await;
    let report = failure(bench.configured(desired).issue(&bench.device_order("b")).await);
    assert_eq!(report.code, "profile_changed");
}

#[tokio::test]
async fn an_order_that_is_under_way_does_not_mind_a_changed_profile() {
    let bench = Bench::new();
    let order = bench.agent_order("a");
    bench.fake.then(Next::Pending);
    pending(bench.issue(&order).await);
    let bench = bench.configured(json!({ "profiles": [] }));
    bench.fake.approve();
    let issued = bench.issued(&order).await;
    assert!(!bench.opened(&issued).passphrase.is_empty());
}

#[tokio::test]
async fn certificates_are_revoked_where_the_authority_can_be_told() {
    let bench = Bench::new();
    let issued = bench.issued(&bench.device_order("a")).await;
    let params = json!({ "authority": "default", "id": issued.id, "reason": "key_compromise" });
    let Outcome::Success(result) = bench.act(REVOKE, &params).await else { panic!("not revoked") };
    assert_eq!((&result["revoked"], &result["id"]), (&json!(true), &json!(issued.id)));
    assert_eq!(bench.fake.state().revoked, [issued.id]);
    bench.fake.state().down = true;
    let (result, _) = pending(bench.act(REVOKE, &params).await);
    assert_eq!(result["code"], "ca_unreachable");
    let elsewhere = json!({ "authority": "other", "id": params["id"], "reason": "unspecified" });
    let (result, _) = pending(bench.act(REVOKE, &elsewhere).await);
    assert_eq!(result["code"], "authority_missing");
}
