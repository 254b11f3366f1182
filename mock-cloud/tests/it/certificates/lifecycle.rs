//! How certificates come and how they end.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::action::ErrorReport;
use causeway_protocol::channel::payload::Report;
use http::Method;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{Device, advance, alerted, calmed, has_status, looked, put_profile, wifi};
use crate::support::authority::{Authority, Turn, csr_of};
use crate::support::http::Api;
use crate::support::{World, until};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn a_phone_enrols_with_the_company_password_and_gets_its_certificate() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    authority.ledger.lock().unwrap().password = Some("correct horse".into());
    put_profile(&world, "wifi", wifi()).await;
    let api = Api(&world);
    let body = |password: &str| {
        json!({ "tenant": world.tenant, "username": "asmith@acme.example", "password": password, "udid": "u-1",
        "serial": "C02-1", "sim": "8949-1", "phone_number": "+49 30 1" })
    };
    let enrol = async |password: &str| {
        api.send(Method::POST, "/device/enroll", body(password).to_string(), &[]).await
    };
    let wrong = enrol("wrong").await.problem(403, "bad_credentials");
    assert!(!wrong.to_string().contains("wrong\""), "{wrong}");
    let enrolled = enrol("correct horse").await.ok();
    let token = enrolled["token"].as_str().unwrap().to_owned();
    let device =
        Device { id: enrolled["device"].as_str().unwrap().into(), token, key: KeyPair::generate().unwrap() };

    let assigned = device.profile(&world).await;
    assert_eq!(
        (&assigned["profile"], &assigned["wanted"], &assigned["key_mode"], &assigned["key"]),
        (&json!("wifi"), &json!("enrol"), &json!("device"), &json!("p256"))
    );
    let request = device.post(&world, "/requests", json!({ "profile": "wifi" })).await;
    assert_eq!(request.status, 201);
    let id = request.json()["id"].as_str().unwrap().to_owned();
    let again = device.post(&world, "/requests", json!({ "profile": "wifi" })).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (200, &json!(id)), "one request at a time");

    let early = device.post(&world, &format!("/requests/{id}/csr"), json!({ "csr": device.csr() })).await;
    early.problem(409, "challenge_expired");
    let told = device.post(&world, &format!("/requests/{id}/challenge"), json!({})).await.ok();
    assert_eq!(
        (&told["challenge"], &told["subject"], &told["alternative_names"]),
        (&json!("challenge-0-canary"), &json!("CN=asmith"), &json!(["upn:a@acme.example"]))
    );
    authority.will([
        Turn::Says(json!("checked")),
        Turn::Says(json!({ "stage": "awaiting_approval", "detail": "request 7 waits" })),
    ]);
    let csr = json!({ "csr": device.csr() });
    device.post(&world, &format!("/requests/{id}/csr"), csr.clone()).await.ok();
    device.post(&world, &format!("/requests/{id}/csr"), csr).await.ok();
    let other = json!({ "csr": STANDARD.encode(csr_of("eve", &KeyPair::generate().unwrap())) });
    device.post(&world, &format!("/requests/{id}/csr"), other).await.problem(409, "handed_in");

    let issued = device.get(&world, &format!("/requests/{id}?wait_ms=20000")).await;
    assert_eq!(issued["stage"], "issued", "{issued}");
    assert!(issued["certificate_der"].is_string() && issued["chain"].as_array().unwrap().len() == 1);
    assert_eq!(device.profile(&world).await["wanted"], "install");
    device.post(&world, &format!("/requests/{id}/installed"), json!({})).await.ok();
    device.post(&world, &format!("/requests/{id}/installed"), json!({})).await.ok();
    assert_eq!(device.profile(&world).await["wanted"], Value::Null);

    let sha256 = issued["certificate"].as_str().unwrap();
    let certificate = has_status(&world, sha256, "active").await;
    assert_eq!(certificate["user"], "asmith", "as the directory calls who has typed a mail address");
    assert_eq!(certificate["device"], device.id);
    let detail = api.of_tenant(&format!("/certificate-requests/{id}")).await;
    let events: Vec<&str> =
        detail["timeline"].as_array().unwrap().iter().map(|it| it["event"].as_str().unwrap()).collect();
    let expected = ["wanted", "challenged", "ordered", "checked", "awaiting_approval", "issued", "installed"];
    assert_eq!(events, expected);
    assert_eq!(detail["timeline"][4]["detail"], "request 7 waits");
    let chain = api.get(&format!("/tenants/{}/certificates/{sha256}/chain", world.tenant)).await;
    assert_eq!(chain.text.matches("BEGIN CERTIFICATE").count(), 2);

    let (_, _, ledger) = authority.stop().await;
    let ledger = ledger.lock().unwrap();
    assert_eq!(ledger.orders.len(), 1, "the same request handed in twice is one order");
    let order = &ledger.orders[0];
    assert_eq!(order.sealed_csr.as_ref().unwrap().proof, "proof 0");
    assert!(told.get("seal").is_none(), "that is for the cloud: {told}");
    assert_eq!((order.request.as_str(), order.version), (id.as_str(), 1));
    for (name, value) in
        [("uname", "asmith"), ("udid", "u-1"), ("csn", "C02-1"), ("sim", "8949-1"), ("phnumber", "+49 30 1")]
    {
        assert_eq!(order.variables[name], value, "{name}");
    }
}

#[tokio::test]
async fn a_device_is_one_device_however_its_owner_is_spelled_and_two_are_two() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    authority.ledger.lock().unwrap().password = Some("correct horse".into());
    let api = Api(&world);
    let enrol = async |username: &str, identifiers: Value| {
        let mut body = json!({ "tenant": world.tenant, "username": username, "password": "correct horse" });
        body.as_object_mut().unwrap().extend(identifiers.as_object().unwrap().clone());
        api.send(Method::POST, "/device/enroll", body.to_string(), &[]).await
    };
    let profiles = async |token: &Value| {
        let token = format!("Bearer {}", token.as_str().unwrap());
        api.send(Method::GET, "/device/profiles", String::new(), &[("authorization", &token)]).await
    };
    let mut enrolled = Vec::new();
    for spelling in ["ACME\\asmith", "asmith@acme.example", "alice.smith@acme.example", "ASMITH"] {
        let answer = enrol(spelling, json!({ "serial": "C39XK1TJN72M" })).await.ok();
        assert_eq!(answer["user"], "asmith", "{spelling}");
        enrolled.push(answer);
    }
    assert!(enrolled.iter().all(|it| it["device"] == enrolled[0]["device"]), "{enrolled:?}");
    let (last, before) = enrolled.split_last().unwrap();
    for old in before {
        profiles(&old["token"]).await.problem(401, "unauthorized");
    }
    profiles(&last["token"]).await.ok();

    // Nothing tells this one from the next phone of the same person.
    let nameless = enrol("asmith", json!({ "model": "phone 1" })).await.problem(400, "invalid_request");
    assert!(nameless["detail"].as_str().unwrap().contains("serial"), "{nameless}");
    let second = enrol("asmith", json!({ "serial": "C39XK1TJN72N" })).await.ok();
    assert_ne!(second["device"], last["device"]);
    profiles(&last["token"]).await.ok();

    let token = format!("Bearer {}", last["token"].as_str().unwrap());
    let wish = json!({ "profile": "no-such-profile" }).to_string();
    let asked = api.send(Method::POST, "/device/requests", wish, &[("authorization", &token)]).await;
    let missing = asked.problem(404, "not_found");
    assert_eq!(missing["detail"], "there is no profile \"no-such-profile\" here");
}

#[tokio::test]
async fn a_challenge_and_a_password_are_stored_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::on(folder.path(), None, |_| {}).await;
    let authority = Authority::start(&world, 90).await;
    authority.ledger.lock().unwrap().password = Some("canary-password-4711".into());
    authority.will([Turn::Keeps]);
    put_profile(&world, "wifi", wifi()).await;
    let body = json!({ "tenant": world.tenant, "username": "asmith", "password": "canary-password-4711", "imei": "1" });
    Api(&world).send(Method::POST, "/device/enroll", body.to_string(), &[]).await.ok();
    let device = Device::enrolled(&world, "bjones").await;
    let request = device.post(&world, "/requests", json!({ "profile": "wifi" })).await.ok();
    let path = format!("/requests/{}", request["id"].as_str().unwrap());
    let told = device.post(&world, &format!("{path}/challenge"), json!({})).await.ok();
    let challenge = told["challenge"].as_str().unwrap().to_owned();
    let csr = json!({ "csr": device.csr_with(&challenge) });
    device.post(&world, &format!("{path}/csr"), csr).await.ok();
    until("the order to be with the agent", async || {
        (!authority.ledger.lock().unwrap().kept.is_empty()).then_some(())
    })
    .await;
    let secrets = ["canary-password-4711", challenge.as_str(), device.token.as_str()];
    // While the order is under way, and when everything has been written out.
    nowhere(&secrets, stored(&world, folder.path()).await);
    let (mut agent, issuer, ledger) = authority.stop().await;
    let (action, order) = ledger.lock().unwrap().kept.remove(0);
    agent.report(Report::success(&action, json!(issuer.issue(&order, 1, false)))).await.unwrap();
    let issued = device.get(&world, &format!("{path}?wait_ms=20000")).await;
    assert_eq!(issued["stage"], "issued", "{issued}");
    let texts = stored(&world, folder.path()).await;
    world.mock.stop().await;
    nowhere(&secrets, texts.into_iter().chain(files(folder.path())).collect());
}

/// Everything a cloud shows, and its files.
async fn stored(world: &World, folder: &std::path::Path) -> Vec<Vec<u8>> {
    let api = Api(world);
    let mut texts = vec![format!("{:?}", world.mock.journal().after(0)).into_bytes()];
    for path in ["audit?limit=1000", "actions?limit=100", "certificate-requests?limit=100"] {
        let text = api.get(&format!("/tenants/{}/{path}", world.tenant)).await.text;
        assert!(text.len() > 50, "{path}: {text}");
        texts.push(text.into_bytes());
    }
    texts.extend(files(folder));
    texts
}

fn files(folder: &std::path::Path) -> Vec<Vec<u8>> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<Vec<u8>> =
        paths.filter(|path| path.is_file()).map(|it| std::fs::read(it).unwrap()).collect();
    assert!(files.iter().any(|bytes| bytes.starts_with(b"SQLite format 3")), "the store was looked at");
    files
}

/// As text, as bytes of a signing request, or as base64 of these, whose letters depend on where in it the secret begins.
#[track_caller]
fn nowhere(secrets: &[&str], texts: Vec<Vec<u8>>) {
    for secret in secrets {
        let at = |skip: usize| STANDARD.encode(&secret.as_bytes()[skip..])[..secret.len() - 4].to_owned();
        for form in [(*secret).to_owned(), at(0), at(1), at(2)] {
            let found = |text: &Vec<u8>| text.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!texts.iter().any(found), "{secret} is stored as {form}");
        }
    }
}

/// What a refused challenge costs: a new one at once, and only then a pause.
#[tokio::test]
async fn a_refused_challenge_is_followed_by_another_one_at_once() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let wish = json!({ "profile": "wifi" });
    let again = async || device.post(&world, "/requests", wish.clone()).await;
    let round = async |fails: &'static str| {
        authority.will([Turn::Fails(fails)]);
        let request = again().await.ok()["id"].as_str().unwrap().to_owned();
        let failed = device.submit(&world, &request).await;
        assert_eq!((&failed["stage"], &failed["error"]["code"]), (&json!("failed"), &json!(fails)));
    };
    round("ca_challenge_refused").await;
    round("ca_challenge_refused").await;
    again().await.problem(503, "busy");
    advance(&world, Duration::from_secs(3_600)).await;
    // Another trouble in between is none of the challenge's.
    round("ca_refused").await;
    again().await.problem(503, "busy");
    advance(&world, Duration::from_secs(3_600)).await;
    round("request_sealed_elsewhere").await;
    let request = again().await.ok()["id"].as_str().unwrap().to_owned();
    let issued = device.submit(&world, &request).await;
    assert_eq!((&issued["stage"], &issued["attempt"]), (&json!("issued"), &json!(5)), "{issued}");
    assert_eq!(authority.ledger.lock().unwrap().challenges.len(), 5);
}

/// Only the agent that has fetched the challenge can use it; when it is gone, another one begins anew.
#[tokio::test]
async fn an_order_goes_to_the_agent_that_fetched_the_challenge() {
    let world = World::start().await;
    let first = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let wish = json!({ "profile": "wifi" });
    let request =
        device.post(&world, "/requests", wish.clone()).await.ok()["id"].as_str().unwrap().to_owned();
    device.post(&world, &format!("/requests/{request}/challenge"), json!({})).await.ok();
    let second = Authority::start(&world, 90).await;
    let (agent, ..) = first.stop().await;
    drop(agent);
    world.journal("offline", "connection lost").await;
    device.post(&world, &format!("/requests/{request}/csr"), json!({ "csr": device.csr() })).await.ok();
    let failed = device.get(&world, &format!("/requests/{request}?wait_ms=20000")).await;
    assert_eq!(failed["error"]["code"], "request_sealed_elsewhere", "{failed}");
    assert!(second.ledger.lock().unwrap().orders.is_empty(), "it could not have opened it");
    device.get_certificate(&world, "wifi").await;
    assert_eq!(second.ledger.lock().unwrap().orders.len(), 1);
}

#[tokio::test]
async fn devices_see_their_own_only() {
    let world = World::start().await;
    let _authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let alice = Device::enrolled(&world, "asmith").await;
    let bob = Device::enrolled(&world, "bjones").await;
    let wish = json!({ "profile": "wifi" });
    let request = alice.post(&world, "/requests", wish).await.ok()["id"].as_str().unwrap().to_owned();
    for (method, path) in [(Method::GET, ""), (Method::POST, "/challenge"), (Method::POST, "/installed")] {
        let path = format!("/requests/{request}{path}");
        bob.call(&world, method, &path, json!({})).await.problem(404, "not_found");
    }
    let stolen = json!({ "csr": bob.csr() });
    bob.post(&world, &format!("/requests/{request}/csr"), stolen).await.problem(404, "not_found");
    let stranger = Device { token: "cwd_made-up".into(), ..bob };
    stranger.call(&world, Method::GET, "/profiles", Value::Null).await.problem(401, "unauthorized");
    let admin = Device { token: world.mock.token().to_owned(), ..stranger };
    admin.call(&world, Method::GET, "/profiles", Value::Null).await.problem(401, "unauthorized");
    let token = format!("Bearer {}", alice.token);
    let path = format!("/tenants/{}/certificates", world.tenant);
    let refused = Api(&world).send(Method::GET, &path, String::new(), &[("authorization", &token)]).await;
    refused.problem(401, "unauthorized");
}

#[tokio::test]
async fn a_profile_is_for_those_it_names_and_reaches_agents() {
    let world = World::start().await;
    let alice = Device::enrolled(&world, "asmith@acme.example").await;
    let bob = Device::enrolled(&world, "bjones").await;
    let mut profile = wifi();
    profile["users"] = json!(["ACME\\asmith"]);
    let first = put_profile(&world, "wifi", profile.clone()).await;
    assert_eq!((&first["version"], &first["replaces_before"]), (&json!(1), &json!(1)));
    assert_eq!(put_profile(&world, "wifi", profile.clone()).await["version"], 1, "nothing has changed");
    profile["renew_days"] = json!(30);
    let later = put_profile(&world, "wifi", profile.clone()).await;
    assert_eq!((&later["version"], &later["replaces_before"]), (&json!(2), &json!(1)));
    profile["subject"] = json!("/CN=%uname%/O=Acme Corporation");
    let other = put_profile(&world, "wifi", profile.clone()).await;
    assert_eq!((&other["version"], &other["replaces_before"]), (&json!(3), &json!(3)));
    assert_eq!(alice.get(&world, "/profiles").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(bob.get(&world, "/profiles").await["items"], json!([]));
    bob.post(&world, "/requests", json!({ "profile": "wifi" })).await.problem(404, "not_found");
    let config = Api(&world).of_tenant("/modules/certificates").await;
    assert_eq!(config["settings"]["profiles"][0]["version"], 3);
    assert_eq!(config["settings"]["profiles"][0]["subject"], "/CN=%uname%/O=Acme Corporation");
    for (field, value) in [
        ("subject", json!("CN=x")),
        ("alternative_names", json!(["ldap:x"])),
        ("renew_days", json!(0)),
        ("authority", json!("Not A Word")),
        ("key", json!("rsa512")),
    ] {
        let mut wrong = wifi();
        wrong[field] = value;
        let path = format!("/tenants/{}/certificate-profiles/other", world.tenant);
        let problem = Api(&world).put(&path, wrong).await.problem(400, "invalid_request");
        assert!(problem["path"].as_str().unwrap().starts_with(field), "{problem}");
    }
    let path = format!("/tenants/{}/certificate-profiles/wifi", world.tenant);
    assert_eq!(Api(&world).call(Method::DELETE, &path, None).await.status, 204);
    assert_eq!(Api(&world).of_tenant("/modules/certificates").await["settings"]["profiles"], json!([]));
}

#[tokio::test]
async fn the_reason_of_a_revocation_says_what_happened() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let gone = Device::enrolled(&world, "asmith").await;
    let lost = Device::enrolled(&world, "bjones").await;
    let (left, wiped) =
        (gone.get_certificate(&world, "wifi").await, lost.get_certificate(&world, "wifi").await);
    let api = Api(&world);
    let path = format!("/tenants/{}/enrolled-devices/{}", world.tenant, gone.id);
    assert_eq!(api.call(Method::DELETE, &path, None).await.status, 204);
    let seen = has_status(&world, &left, "revoked").await;
    assert_eq!(seen["revocation"]["reason"], "cessation_of_operation");
    let path = format!("/tenants/{}/enrolled-devices/{}/wipe", world.tenant, lost.id);
    api.post(&path, json!({})).await.ok();
    let seen = has_status(&world, &wiped, "revoked").await;
    assert_eq!(seen["revocation"]["reason"], "key_compromise");
    assert_eq!(lost.get(&world, "/profiles").await["items"], json!([]), "a wiped device gets nothing");
    lost.post(&world, "/requests", json!({ "profile": "wifi" })).await.problem(404, "not_found");
    let reasons: Vec<String> =
        authority.ledger.lock().unwrap().revoked.iter().map(|(_, reason)| reason.clone()).collect();
    assert_eq!(reasons, ["cessation_of_operation", "key_compromise"]);

    // Enrolled again it is a device like any other.
    let again = Device::enrolled(&world, "bjones").await;
    assert_eq!(again.id, lost.id);
    again.get_certificate(&world, "wifi").await;
}

#[tokio::test]
async fn an_authority_that_cannot_be_told_is_said_so() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    authority.ledger.lock().unwrap().cannot_revoke = true;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let sha256 = device.get_certificate(&world, "wifi").await;
    let path = format!("/tenants/{}/certificates/{sha256}/revoke", world.tenant);
    Api(&world).post(&path, json!({ "reason": "key_compromise" })).await.ok();
    let seen = has_status(&world, &sha256, "not_revocable").await;
    assert_eq!(seen["revocation"]["note"], "this authority cannot be told; use certutil -revoke");
    assert_eq!(seen["revocation"]["revoked_ms"], Value::Null);
    advance(&world, DAY).await;
    assert_eq!(authority.ledger.lock().unwrap().revoked.len(), 1, "it is not asked again and again");
}

#[tokio::test]
async fn a_revocation_that_keeps_failing_is_told_of_until_it_works() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    authority.ledger.lock().unwrap().revocations_fail = 2;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let sha256 = device.get_certificate(&world, "wifi").await;
    let path = format!("/tenants/{}/certificates/{sha256}/revoke", world.tenant);
    Api(&world).post(&path, json!({ "reason": "key_compromise" })).await.ok();
    let tries = async |n: usize| {
        let what = format!("try {n} to revoke");
        until(&what, async || (authority.ledger.lock().unwrap().revoked.len() == n).then_some(())).await;
    };
    tries(1).await;
    advance(&world, DAY).await;
    tries(2).await;
    let alert = alerted(&world, "certificate_revocation_failed").await;
    assert_eq!(
        (&alert["severity"], &alert["detail"]),
        (&json!("critical"), &json!("1 certificate could not be revoked yet"))
    );
    advance(&world, DAY).await;
    has_status(&world, &sha256, "revoked").await;
    calmed(&world, "certificate_revocation_failed").await;
}

#[tokio::test]
async fn an_authority_that_ends_soon_is_told_of() {
    let world = World::start().await;
    let _authority = Authority::ending(&world, 20, 45).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    device.get_certificate(&world, "wifi").await;
    let alert = alerted(&world, "authority_ending").await;
    assert_eq!(alert["subject"], "default");
    let detail = alert["detail"].as_str().unwrap();
    assert!(
        detail.contains("Acme Issuing CA ends in 44 days") || detail.contains("CA ends in 45 days"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_certificate_for_another_key_is_nobodys() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    authority.will([Turn::IssuesForAnotherKey]);
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let wish = json!({ "profile": "wifi" });
    let request =
        device.post(&world, "/requests", wish.clone()).await.ok()["id"].as_str().unwrap().to_owned();
    let failed = device.submit(&world, &request).await;
    assert_eq!((&failed["stage"], &failed["error"]["code"]), (&json!("failed"), &json!("wrong_certificate")));
    assert_eq!(Api(&world).of_tenant("/certificates").await["items"], json!([]));
    let busy = device.post(&world, "/requests", wish.clone()).await;
    assert_eq!(busy.header("retry-after"), "30");
    busy.problem(503, "busy");
    world.cloud().kit.clock.advance(Duration::from_secs(31));
    device.get_certificate(&world, "wifi").await;
}

#[tokio::test]
async fn what_the_authority_says_no_to_is_for_people() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let wish = json!({ "profile": "wifi" });
    let request = device.post(&world, "/requests", wish).await.ok()["id"].as_str().unwrap().to_owned();
    let challenge = format!("/requests/{request}/challenge");
    for (code, status, word) in
        [("ca_challenges_used_up", 503, "busy"), ("ca_forbidden", 502, "refused_behind")]
    {
        let error = ErrorReport::new(code, "the page says no", "Look at it");
        authority.ledger.lock().unwrap().no_challenge = Some(error);
        let problem = device.post(&world, &challenge, json!({})).await.problem(status, word);
        assert_eq!(problem["detail"], format!("{code}: the page says no"));
    }
    authority.ledger.lock().unwrap().no_challenge = None;
    authority.will([Turn::Fails("csr_refused")]);
    let failed = device.submit(&world, &request).await;
    assert_eq!((&failed["stage"], &failed["error"]["code"]), (&json!("failed"), &json!("csr_refused")));
}

#[tokio::test]
async fn a_challenge_is_good_for_its_time() {
    let world = World::start().await;
    let _authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let wish = json!({ "profile": "wifi" });
    let request = device.post(&world, "/requests", wish).await.ok()["id"].as_str().unwrap().to_owned();
    device.post(&world, &format!("/requests/{request}/challenge"), json!({})).await.ok();
    world.cloud().kit.clock.advance(Duration::from_secs(3_601));
    let csr = json!({ "csr": device.csr() });
    let late = device.post(&world, &format!("/requests/{request}/csr"), csr).await;
    late.problem(409, "challenge_expired");
    assert_eq!(device.submit(&world, &request).await["stage"], "issued");
}

#[tokio::test]
async fn an_identity_made_by_the_agent_is_fetched_once() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    let mut profile = wifi();
    profile["key_mode"] = json!("agent");
    put_profile(&world, "mail", profile).await;
    let device = Device::enrolled(&world, "asmith").await;
    let wish = json!({ "profile": "mail" });
    let request = device.post(&world, "/requests", wish).await.ok()["id"].as_str().unwrap().to_owned();
    device
        .post(&world, &format!("/requests/{request}/challenge"), json!({}))
        .await
        .problem(409, "no_challenge");
    let csr = json!({ "csr": device.csr() });
    device.post(&world, &format!("/requests/{request}/csr"), csr).await.problem(409, "other_key_mode");
    let path = format!("/requests/{request}/key");
    device.post(&world, &path, json!({ "public_key": "AAAA" })).await.problem(400, "invalid_request");
    let key = STANDARD.encode(rcgen::PublicKeyData::subject_public_key_info(&device.key));
    device.post(&world, &path, json!({ "public_key": key })).await.ok();
    let issued = device.get(&world, &format!("/requests/{request}?wait_ms=20000")).await;
    assert_eq!(issued["identity"], STANDARD.encode(b"encrypted for the device"), "{issued}");
    let installed = device.post(&world, &format!("/requests/{request}/installed"), json!({})).await.ok();
    assert_eq!(installed["identity"], Value::Null, "what is installed is forgotten");
    assert_eq!(authority.ledger.lock().unwrap().orders[0].device_key.as_deref(), Some(key.as_str()));
    // Its renewal needs nothing of the device but that it fetches it.
    advance(&world, DAY * 84).await;
    let renewed = until("the renewal", async || {
        let seen = device.profile(&world).await;
        (seen["wanted"] == "install").then_some(seen)
    })
    .await;
    assert_eq!(renewed["request"]["reason"], "renew");
}

#[tokio::test]
async fn a_certificate_the_cloud_hears_of_too_late_is_not_lost() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let other = Device::enrolled(&world, "bjones").await;
    authority.will([Turn::Keeps, Turn::Keeps]);
    let mut requests = Vec::new();
    for device in [&device, &other] {
        let wish = json!({ "profile": "wifi" });
        let request = device.post(&world, "/requests", wish).await.ok()["id"].as_str().unwrap().to_owned();
        device.post(&world, &format!("/requests/{request}/challenge"), json!({})).await.ok();
        device.post(&world, &format!("/requests/{request}/csr"), json!({ "csr": device.csr() })).await.ok();
        requests.push(request);
    }
    until("both orders", async || (authority.ledger.lock().unwrap().kept.len() == 2).then_some(())).await;
    world.cloud().kit.clock.advance(DAY * 15);
    for request in &requests {
        until("the deadline", async || {
            let seen = Api(&world).of_tenant(&format!("/certificate-requests/{request}")).await;
            (seen["stage"] == "failed" && seen["error"]["code"] == "unknown_outcome").then_some(())
        })
        .await;
    }
    // One of them has got another certificate meanwhile.
    world.cloud().kit.clock.advance(Duration::from_secs(31));
    other.get_certificate(&world, "wifi").await;
    let (mut agent, maker, ledger) = authority.stop().await;
    let kept = ledger.lock().unwrap().kept.clone();
    for (number, (action, order)) in kept.iter().enumerate() {
        let issued = maker.issue(order, 100 + number as u64, false);
        agent.report(Report::success(action, json!(issued))).await.unwrap();
    }
    let issued = device.get(&world, &format!("/requests/{}?wait_ms=20000", requests[0])).await;
    assert_eq!(issued["stage"], "issued", "{issued}");
    looked(&world).await;
    let unused = Api(&world).of_tenant("/certificates?status=revoking").await;
    assert_eq!(unused["items"].as_array().unwrap().len(), 1, "{unused}");
    assert_eq!(unused["items"][0]["serial"], "1065");
    assert_eq!(unused["items"][0]["user"], "bjones");
}

#[tokio::test]
async fn a_wipe_in_the_mail_system_ends_certificates_too() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let api = Api(&world);
    let body = json!({ "user": "asmith", "device_id": "APPLF17" });
    let enrolled = api.post(&format!("/tenants/{}/enrolled-devices", world.tenant), body).await.ok();
    let id = enrolled["id"].as_str().unwrap().to_owned();
    let path = format!("/tenants/{}/enrolled-devices/{id}/token", world.tenant);
    let token = api.post(&path, json!({})).await.ok()["token"].as_str().unwrap().to_owned();
    let device = Device { id, token, key: KeyPair::generate().unwrap() };
    let sha256 = device.get_certificate(&world, "wifi").await;
    let (mut agent, _, _) = authority.stop().await;
    let phone = json!({"op": "upsert", "kind": "device", "key": "d1", "v": {
        "system": "exchange", "device_id": "APPLF17", "identity": "acme.example/asmith/d1", "mailbox": "m1",
        "user": "asmith", "access_state": "allowed", "wipe_status": "device_wipe_pending"}});
    crate::support::company::upload(&world, &mut agent, std::slice::from_ref(&phone)).await;
    let seen = has_status(&world, &sha256, "revoking").await;
    assert_eq!(seen["revocation"]["reason"], "key_compromise");
    // Enrolled again, the wipe that was is no reason any more, and its confirmation is none either.
    let body = json!({ "user": "asmith", "device_id": "APPLF17" });
    api.post(&format!("/tenants/{}/enrolled-devices", world.tenant), body).await.ok();
    let mut confirmed = phone;
    confirmed["v"]["wipe_status"] = json!("device_wipe_succeeded");
    confirmed["v"]["wipe_acknowledged"] = json!("2026-11-22T10:00:00Z");
    crate::support::company::upload(&world, &mut agent, &[confirmed]).await;
    looked(&world).await;
    assert_eq!(device.profile(&world).await["wanted"], "enrol");
}
