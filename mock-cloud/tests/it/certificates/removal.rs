//! A profile that is removed while certificates of it are on their way: each one that comes all the same is revoked.

use causeway_protocol::action::Report;
use http::Method;
use serde_json::{Value, json};

use super::{Device, has_status, looked, put_profile, wifi};
use crate::support::authority::{Authority, Turn};
use crate::support::http::Api;
use crate::support::{World, until};

async fn remove_profile(world: &World) {
    let path = format!("/tenants/{}/certificate-profiles/wifi", world.tenant);
    Api(world).call(Method::DELETE, &path, None).await.ok();
}

async fn request_of(world: &World, request: &str) -> Value {
    Api(world).of_tenant(&format!("/certificate-requests/{request}")).await
}

/// Wants a certificate and hands in what it needs; gives the request's id.
async fn ordered(world: &World, device: &Device) -> String {
    let wish = json!({ "profile": "wifi" });
    let request = device.post(world, "/requests", wish).await.ok()["id"].as_str().unwrap().to_owned();
    device.post(world, &format!("/requests/{request}/challenge"), json!({})).await.ok();
    device.post(world, &format!("/requests/{request}/csr"), json!({ "csr": device.csr() })).await.ok();
    request
}

#[tokio::test]
async fn a_certificate_that_comes_after_its_profile_is_revoked() {
    let world = World::start().await;
    let authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let device = Device::enrolled(&world, "asmith").await;
    authority.will([Turn::Keeps]);
    let request = ordered(&world, &device).await;
    until("the order", async || (authority.ledger.lock().unwrap().kept.len() == 1).then_some(())).await;
    remove_profile(&world).await;
    looked(&world).await;
    let cancelled = request_of(&world, &request).await;
    assert_eq!(cancelled["stage"], "cancelled", "{cancelled}");
    assert!(cancelled.to_string().contains("the profile was removed"), "{cancelled}");
    // The same name again is another profile, and at another authority.
    let mut other = wifi();
    other["authority"] = json!("other");
    put_profile(&world, "wifi", other).await;
    let (mut agent, maker, ledger) = authority.stop().await;
    let (action, order) = ledger.lock().unwrap().kept[0].clone();
    agent.report(Report::success(&action, json!(maker.issue(&order, 100, false)))).await.unwrap();
    let unused = until("its revocation", async || {
        let found = Api(&world).of_tenant("/certificates?status=revoking").await;
        (found["items"].as_array().unwrap().len() == 1).then(|| found["items"][0].clone())
    })
    .await;
    assert_eq!(unused["authority"], "default", "where it was ordered: {unused}");
    assert_eq!(request_of(&world, &request).await["stage"], "cancelled");
}

#[tokio::test]
async fn a_certificate_nobody_fetched_goes_with_its_profile() {
    let world = World::start().await;
    let _authority = Authority::start(&world, 90).await;
    put_profile(&world, "wifi", wifi()).await;
    let (has_it, has_not) =
        (Device::enrolled(&world, "asmith").await, Device::enrolled(&world, "bjones").await);
    let installed = has_it.get_certificate(&world, "wifi").await;
    let request = ordered(&world, &has_not).await;
    let issued = has_not.get(&world, &format!("/requests/{request}?wait_ms=20000")).await;
    assert_eq!(issued["stage"], "issued", "{issued}");
    remove_profile(&world).await;
    has_status(&world, issued["certificate"].as_str().unwrap(), "revoked").await;
    let stays = Api(&world).of_tenant(&format!("/certificates/{installed}")).await;
    assert_eq!(stays["status"], "active", "{stays}");
}
