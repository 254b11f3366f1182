//! Certificates of devices, from the device's own calls to the agent and back, over the real ports; the agent and the
//! authority behind it are scripted.

mod lifecycle;
mod portal;
mod removal;
mod renewal;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::Secret;
use causeway_protocol::pkix::{CsrDraft, Digest, Key, Name};
use http::Method;
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::support::authority::csr_of;
use crate::support::http::{Answer, Api};
use crate::support::{World, until};

/// An enrolled device and the token it shows.
struct Device {
    id: String,
    token: String,
    key: KeyPair,
}

impl Device {
    /// Enrolled by an administrator.
    async fn enrolled(world: &World, user: &str) -> Self {
        let api = Api(world);
        let tenant = &world.tenant;
        let body = json!({ "user": user, "udid": format!("udid-{user}"), "model": "iPhone 15" });
        let device = api.post(&format!("/tenants/{tenant}/enrolled-devices"), body).await.ok();
        let id = device["id"].as_str().unwrap().to_owned();
        let path = format!("/tenants/{tenant}/enrolled-devices/{id}/token");
        let token = api.post(&path, json!({})).await.ok()["token"].as_str().unwrap().to_owned();
        Self { id, token, key: KeyPair::generate().unwrap() }
    }

    async fn call(&self, world: &World, method: Method, path: &str, body: Value) -> Answer {
        let token = format!("Bearer {}", self.token);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Api(world).send(method, &format!("/device{path}"), body, &[("authorization", &token)]).await
    }

    async fn post(&self, world: &World, path: &str, body: Value) -> Answer {
        self.call(world, Method::POST, path, body).await
    }

    async fn get(&self, world: &World, path: &str) -> Value {
        self.call(world, Method::GET, path, Value::Null).await.ok()
    }

    /// What it must do for the first profile.
    async fn profile(&self, world: &World) -> Value {
        self.get(world, "/profiles").await["items"][0].take()
    }

    /// Base64 of its signing request.
    fn csr(&self) -> String {
        STANDARD.encode(csr_of("asmith", &self.key))
    }

    /// Base64 of one with a challenge in it.
    fn csr_with(&self, challenge: &str) -> String {
        let key = Key::from_pkcs8(&self.key.serialize_der()).unwrap();
        let draft = CsrDraft {
            subject: Name::parse("/CN=bjones").unwrap(),
            challenge: Some(Secret::new(challenge)),
            ..CsrDraft::default()
        };
        STANDARD.encode(draft.sign(&key, Digest::Sha256).unwrap())
    }

    /// Challenge and signing request for a request; gives the request when it is decided.
    async fn submit(&self, world: &World, request: &str) -> Value {
        self.post(world, &format!("/requests/{request}/challenge"), json!({})).await.ok();
        self.post(world, &format!("/requests/{request}/csr"), json!({ "csr": self.csr() })).await.ok();
        self.get(world, &format!("/requests/{request}?wait_ms=20000")).await
    }

    /// The whole way to an installed certificate; gives its fingerprint.
    async fn get_certificate(&self, world: &World, profile: &str) -> String {
        let wish = json!({ "profile": profile });
        let request = self.post(world, "/requests", wish).await.ok()["id"].as_str().unwrap().to_owned();
        let issued = self.submit(world, &request).await;
        assert_eq!(issued["stage"], "issued", "{issued}");
        self.post(world, &format!("/requests/{request}/installed"), json!({})).await.ok();
        issued["certificate"].as_str().unwrap().to_owned()
    }
}

/// A profile of the usual kind.
fn wifi() -> Value {
    json!({
        "name": "Wi-Fi", "authority": "default", "key": "p256", "subject": "/CN=%uname%/O=Acme",
        "alternative_names": ["upn:%upn%"], "renew_days": 14,
    })
}

async fn put_profile(world: &World, id: &str, profile: Value) -> Value {
    Api(world).put(&format!("/tenants/{}/certificate-profiles/{id}", world.tenant), profile).await.ok()
}

/// A certificate of the inventory once it has a status.
async fn has_status(world: &World, sha256: &str, status: &str) -> Value {
    let path = format!("/certificates/{sha256}");
    let what = format!("{sha256} to be {status}");
    until(&what, async || {
        let seen = Api(world).of_tenant(&path).await;
        (seen["status"] == status).then_some(seen)
    })
    .await
}

/// Moves the cloud's clock and waits until everything that is due then has been begun.
async fn advance(world: &World, by: std::time::Duration) {
    world.cloud().kit.clock.advance(by);
    looked(world).await;
}

/// Waits until the cloud has looked at its certificates since now.
async fn looked(world: &World) {
    let now_ms = world.cloud().now_ms();
    world.cloud().certificates.touch(&world.tenant);
    until("a look at all certificates", async || {
        (world.cloud().certificates.looked_ms(&world.tenant) >= now_ms).then_some(())
    })
    .await;
}

/// An open alert, once it is raised.
async fn alerted(world: &World, code: &str) -> Value {
    until(&format!("the alert {code}"), async || {
        let open = Api(world).of_tenant("/alerts?state=open").await;
        open["items"].as_array()?.iter().find(|it| it["code"] == code).cloned()
    })
    .await
}

/// Waits until no alert of this code is open.
async fn calmed(world: &World, code: &str) {
    until(&format!("the end of the alert {code}"), async || {
        let open = Api(world).of_tenant("/alerts?state=open").await;
        open["items"].as_array()?.iter().all(|it| it["code"] != code).then_some(())
    })
    .await;
}
