//! Renewal by the cloud's clock.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Device, advance, alerted, calmed, has_status, looked, put_profile, wifi};
use crate::support::authority::{Authority, Turn};
use crate::support::http::Api;
use crate::support::{World, until};

const DAY: Duration = Duration::from_secs(86_400);

/// The device's open request, once there is one.
async fn wanted(world: &World, device: &Device) -> Value {
    until("a request", async || {
        let seen = device.profile(world).await;
        let is_wanted = matches!(seen["wanted"].as_str(), Some("renew" | "replace"));
        is_wanted.then_some(seen["request"].clone())
    })
    .await
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_and_the_old_one_ends_after_the_new_one_is_there() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let old = device.get_certificate(&world, "wifi").await;
    device.post(&world, "/requests", json!({ "profile": "wifi" })).await.problem(409, "nothing_due");
    advance(&world, DAY * 75).await;
    assert_eq!(device.profile(&world).await["wanted"], Value::Null, "the window is 14 days");
    advance(&world, DAY * 9).await;
    let request = wanted(&world, &device).await;
    assert_eq!((&request["reason"], &request["renews"]), (&json!("renew"), &json!(old)));
    let id = request["id"].as_str().unwrap();
    let issued = device.submit(&world, id).await;
    assert_eq!(issued["stage"], "issued", "{issued}");
    looked(&world).await;
    assert_eq!(authority.ledger.lock().unwrap().revoked, [], "the device has not said that it has it");
    device.post(&world, &format!("/requests/{id}/installed"), json!({})).await.ok();
    let before = has_status(&world, &old, "revoked").await;
    assert_eq!(before["revocation"]["reason"], "superseded");
    assert_eq!(before["replaced_by"], issued["certificate"]);
    let order = authority.ledger.lock().unwrap().orders[1].clone();
    assert_eq!(order.renews.unwrap().serial, before["serial"].as_str().unwrap());
}

#[tokio::test]
async fn a_device_that_was_off_past_the_end_gets_a_new_one_all_the_same() {
    let world = World::start().await;
    let _authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let old = device.get_certificate(&world, "wifi").await;
    advance(&world, DAY * 120).await;
    let seen = Api(&world).of_tenant(&format!("/certificates/{old}")).await;
    assert_eq!(seen["status"], "expired");
    let alert = alerted(&world, "certificates_ending").await;
    assert_eq!(alert["detail"], "1 certificate in use end within two days or have ended");
    let request = wanted(&world, &device).await;
    let id = request["id"].as_str().unwrap();
    assert_eq!(device.submit(&world, id).await["stage"], "issued");
    device.post(&world, &format!("/requests/{id}/installed"), json!({})).await.ok();
    calmed(&world, "certificates_ending").await;
}

#[tokio::test]
async fn a_failed_renewal_is_tried_again_and_told_of() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    device.get_certificate(&world, "wifi").await;
    advance(&world, DAY * 84).await;
    authority.will([Turn::Fails("authority_unreachable")]);
    let first = wanted(&world, &device).await["id"].as_str().unwrap().to_owned();
    assert_eq!(device.submit(&world, &first).await["stage"], "failed");
    let alert = alerted(&world, "certificate_renewal_failed").await;
    assert_eq!(alert["detail"], "1 certificate could not be renewed at the last try");
    advance(&world, Duration::from_secs(31)).await;
    let second = wanted(&world, &device).await;
    assert_eq!((&second["attempt"], second["id"] == first), (&json!(2), false));
    assert_eq!(device.submit(&world, second["id"].as_str().unwrap()).await["stage"], "issued");
}

#[tokio::test]
async fn a_changed_profile_replaces_what_looks_outdated() {
    let world = World::start().await;
    let _authority = Authority::start(&world, 365).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    device.get_certificate(&world, "wifi").await;
    let mut profile = wifi();
    profile["renew_days"] = json!(30);
    put_profile(&world, "wifi", profile.clone()).await;
    advance(&world, DAY * 4).await;
    assert_eq!(device.profile(&world).await["wanted"], Value::Null, "it looks the same");
    profile["subject"] = json!("/CN=%uname%/O=Acme Corporation");
    put_profile(&world, "wifi", profile).await;
    advance(&world, DAY * 4).await;
    let request = wanted(&world, &device).await;
    assert_eq!((&request["reason"], &request["version"]), (&json!("replace"), &json!(3)));
}

#[tokio::test]
async fn a_person_renews_and_a_device_that_lost_its_key_is_helped() {
    let world = World::start().await;
    let authority = Authority::start(&world, 365).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    let first = device.get_certificate(&world, "wifi").await;
    let path = format!("/tenants/{}/certificates/{first}/renew", world.tenant);
    let request = Api(&world).post(&path, json!({})).await.ok();
    let again = Api(&world).post(&path, json!({})).await.ok();
    assert_eq!(request["id"], again["id"], "two clicks are one renewal");
    let id = request["id"].as_str().unwrap();
    assert_eq!(device.submit(&world, id).await["stage"], "issued");
    device.post(&world, &format!("/requests/{id}/installed"), json!({})).await.ok();
    has_status(&world, &first, "revoked").await;
    Api(&world).post(&path, json!({})).await.problem(409, "not_in_use");

    let lost = json!({ "profile": "wifi", "lost": true });
    let request = device.post(&world, "/requests", lost).await.ok();
    assert_eq!(request["reason"], "replace");
    let id = request["id"].as_str().unwrap();
    assert_eq!(device.submit(&world, id).await["stage"], "issued");
    device.post(&world, &format!("/requests/{id}/installed"), json!({})).await.ok();
    until("two revocations", async || (authority.ledger.lock().unwrap().revoked.len() == 2).then_some(()))
        .await;
}

#[tokio::test]
async fn renewals_keep_their_pace_and_those_that_end_first_go_first() {
    let world = World::with(|config| config.certificates.renewals_per_hour = 3).await;
    let _authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let mut ends = Vec::new();
    for n in 0..8 {
        let device = Device::enrolled(&world, &format!("user{n}")).await;
        let sha256 = device.get_certificate(&world, "wifi").await;
        let seen = Api(&world).of_tenant(&format!("/certificates/{sha256}")).await;
        ends.push((seen["not_after_ms"].as_i64().unwrap(), seen["user"].as_str().unwrap().to_owned()));
        world.cloud().kit.clock.advance(Duration::from_secs(60));
    }
    ends.sort();
    advance(&world, DAY * 84).await;
    let begun = async || {
        let open = Api(&world).of_tenant("/certificate-requests?stage=wanted").await;
        let mut users: Vec<String> = open["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["user"].as_str().unwrap().to_owned())
            .collect();
        users.sort();
        users
    };
    for expected in [3, 6, 8] {
        let mut first: Vec<String> = ends.iter().take(expected).map(|(_, user)| user.clone()).collect();
        first.sort();
        assert_eq!(begun().await, first);
        looked(&world).await;
        assert_eq!(begun().await.len(), expected, "no more within the hour");
        advance(&world, Duration::from_secs(3_601)).await;
    }
}
