mod against_mock;
mod crashing;
mod directory;
mod fake;
mod front_ends;
mod ordering;
mod refusing;
mod watching;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::Secret;
use causeway_protocol::certificate::{Identity, Issued, KeyKind};
use causeway_protocol::cms::{self, ContentCipher, EnvelopedData, KeyTransport, Recipient, SealRandom};
use causeway_protocol::pkix::{Accept, AlternativeName, CsrDraft, Digest, Key, Name, PublicKey};

use self::fake::Fake;
use super::*;
use crate::clock::Clock;
use crate::modules::testing::{MemoryCloud, context};
use crate::storage::memory::MemoryStorage;
use crate::vault::Vault;

/// 2026-11-23T06:00:00Z.
const NOW_MS: i64 = 1_795_413_600_000;

/// A module before an authority in memory, and a device.
struct Bench {
    fake: Fake,
    cloud: MemoryCloud,
    storage: MemoryStorage,
    vault: Vault,
    desired: Value,
    device: Arc<Key>,
    module: Arc<CertificatesModule>,
    cx: ModuleContext,
}

impl Bench {
    fn new() -> Self {
        Self::with(json!({ "profiles": [profile("vpn", "device"), profile("mail", "agent")] }))
    }

    fn with(desired: Value) -> Self {
        let device = Arc::new(Key::generate(KeyKind::P256).unwrap());
        Self::over(Fake::new(), MemoryStorage::new(), Vault::default(), desired, device)
    }

    fn over(fake: Fake, storage: MemoryStorage, vault: Vault, desired: Value, device: Arc<Key>) -> Self {
        let settings =
            ModuleSettings { desired: desired.clone(), vault: vault.clone(), ..ModuleSettings::default() };
        let ca = json!({ "urls": ["https://ca.acme.example/scep"], "polls_max": 3 });
        let office = Office {
            name: "default".to_owned(),
            settings: serde_json::from_value(ca).unwrap(),
            authority: Arc::new(fake.clone()),
        };
        let module = Arc::new(CertificatesModule::new(&settings, vec![office]).unwrap());
        let cloud = MemoryCloud::default();
        let mut cx = context(Arc::new(storage.clone()), Arc::new(cloud.clone()));
        cx.clock = Clock::simulated(NOW_MS);
        Self { fake, cloud, storage, vault, desired, device, module, cx }
    }

    /// The same agent after its process died.
    fn restarted(&self) -> Self {
        let survivor = self.storage.crash();
        let (fake, vault) = (self.fake.clone(), self.vault.clone());
        Self::over(fake, survivor, vault, self.desired.clone(), self.device.clone())
    }

    /// The same agent with another desired config.
    fn configured(&self, desired: Value) -> Self {
        Self::over(self.fake.clone(), self.storage.clone(), self.vault.clone(), desired, self.device.clone())
    }

    async fn act(&self, name: &str, params: &Value) -> Outcome {
        let action = Action {
            id: format!("action of {}", params["request"]),
            module: MODULE.to_owned(),
            action: name.to_owned(),
            target: Value::Null,
            params: params.clone(),
            ttl_ms: 60_000,
            attempt: 1,
            fence: None,
        };
        self.module.act(self.cx.clone(), action).await
    }

    async fn issue(&self, order: &Value) -> Outcome {
        self.act(ISSUE, order).await
    }

    /// Issues, whatever waits are asked for in between.
    async fn issued(&self, order: &Value) -> Issued {
        for _ in 0..20 {
            match self.issue(order).await {
                Outcome::Success(result) => return serde_json::from_value(result).unwrap(),
                Outcome::Pending { .. } => {}
                Outcome::Failure(error) => panic!("{error:?}"),
            }
        }
        panic!("it never ends");
    }

    /// A device's own request for what the profile `vpn` says.
    fn device_order(&self, request: &str) -> Value {
        self.device_order_with(request, |_| {})
    }

    fn device_order_with(&self, request: &str, change: impl FnOnce(&mut CsrDraft)) -> Value {
        let mut draft = CsrDraft {
            subject: Name::parse("/CN=asmith/emailAddress=asmith@acme.example").unwrap(),
            alternative_names: vec![AlternativeName::Upn("asmith@acme.example".into())],
            ..CsrDraft::default()
        };
        change(&mut draft);
        let csr = draft.sign(&self.device, Digest::Sha256).unwrap();
        let mut order = order(request, "vpn");
        order["csr"] = json!(STANDARD.encode(csr));
        order
    }

    fn agent_order(&self, request: &str) -> Value {
        let mut order = order(request, "mail");
        order["device_key"] = json!(STANDARD.encode(self.device.public_key().spki()));
        order
    }

    fn opened(&self, issued: &Issued) -> Identity {
        let envelope = STANDARD.decode(issued.identity.as_ref().unwrap()).unwrap();
        let plain = EnvelopedData::read(&envelope, Accept::MODERN).unwrap().open(&self.device, None).unwrap();
        serde_json::from_slice(&plain).unwrap()
    }

    /// A challenge for the request of a device.
    async fn challenge(&self, request: &str) -> ChallengeAnswer {
        let ask = json!({ "request": request, "profile": "vpn", "version": 3, "variables": variables() });
        serde_json::from_value(self.ask(ask).await.unwrap()).unwrap()
    }

    /// What comes of an answer: an order as the cloud stores it.
    fn sealed_order(&self, request: &str, answer: &ChallengeAnswer) -> Value {
        let challenge = answer.challenge.as_deref().map(Secret::new);
        let mut order = self.device_order_with(request, |draft| draft.challenge = challenge);
        seal(&mut order, answer);
        order
    }

    async fn ask(&self, body: Value) -> Result<Value, ErrorReport> {
        let request = Request {
            module: MODULE.to_owned(),
            request: CHALLENGE.to_owned(),
            ttl_ms: 4_000,
            body: Secret::new(body.to_string()),
        };
        self.module.answer(self.cx.clone(), request).await
    }
}

fn profile(id: &str, key_mode: &str) -> Value {
    json!({
        "id": id, "version": 3, "authority": "default", "key_mode": key_mode, "key": "p256",
        "subject": "/CN=%uname%/emailAddress=%email%", "alternative_names": ["upn:%upn%"],
    })
}

fn order(request: &str, profile: &str) -> Value {
    json!({ "request": request, "profile": profile, "version": 3, "variables": variables() })
}

fn variables() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([("uname", "asmith"), ("email", "asmith@acme.example"), ("upn", "asmith@acme.example")])
}

/// Seals the signing request of an order as the cloud does.
fn seal(order: &mut Value, to: &ChallengeAnswer) {
    let to = to.seal.as_ref().expect("a challenge comes with a key");
    let csr = STANDARD.decode(order["csr"].take().as_str().unwrap()).unwrap();
    let key = PublicKey::read(&STANDARD.decode(&to.key).unwrap()).unwrap();
    let mut random = [0; 48];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let (cipher, transport) = (ContentCipher::Aes256, KeyTransport::Oaep(Digest::Sha256));
    let envelope =
        cms::seal(&csr, Recipient::Key(&key), cipher, transport, &SealRandom::new(random)).unwrap();
    order["sealed_csr"] = json!({ "envelope": STANDARD.encode(envelope), "proof": to.proof });
}

#[track_caller]
fn failure(outcome: Outcome) -> ErrorReport {
    match outcome {
        Outcome::Failure(error) => error,
        other => panic!("no failure: {other:?}"),
    }
}

#[track_caller]
fn pending(outcome: Outcome) -> (Value, Duration) {
    match outcome {
        Outcome::Pending { result, next_check } => (result, next_check),
        other => panic!("not pending: {other:?}"),
    }
}
