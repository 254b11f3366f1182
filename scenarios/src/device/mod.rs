//! A simulated device: makes its keys, gets its certificates from the cloud the way a phone does, keeps them, and shows
//! them to servers. What it is given it checks itself: a device trusts neither cloud nor agent with its identity.

mod api;
mod identity;
mod ocsp;
mod openssl;
mod server;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use causeway_protocol::certificate::{KeyKind, KeyMode};
use causeway_protocol::pkix::Key;
use serde_json::{Value, json};

pub use api::{Assigned, DeviceApi, Refusal};
pub use identity::{Held, Wish};
pub use ocsp::{OcspError, Question, Standing};
pub use openssl::{NO_OPENSSL, verify};
pub use server::{Server, Verdict, WhenSilent};

use crate::http::Client;

/// The longest it heeds being told to wait, so that a story does not stand still.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is to be different from what the cloud says, to see it refused.
#[derive(Clone, Debug, Default)]
pub struct Forgery {
    /// Another subject.
    pub subject: Option<String>,
    /// Further alternative names.
    pub alternative_names: Vec<String>,
    /// Another challenge.
    pub challenge: Option<String>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `installed`, `failed`, or the stage at which it stands.
    pub stage: String,
    /// Why it failed.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// A device.
pub struct SimulatedDevice {
    api: DeviceApi,
    /// Names the enrolment.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// What it has, by profile.
    held: BTreeMap<String, Held>,
    /// Requests under way and the keys made for them, by profile.
    begun: BTreeMap<String, (String, Wish)>,
}

impl SimulatedDevice {
    /// Enrols with the company's password.
    ///
    /// # Errors
    /// What the cloud says.
    pub async fn enrol(client: &Client, tenant: &str, person: (&str, &str), udid: &str) -> Result<Self> {
        let (user, password) = person;
        let body = json!({
            "tenant": tenant, "username": user, "password": password, "udid": udid, "serial": format!("SN{udid}"),
            "model": "iPhone 15",
        });
        let enrolled = client.post("/api/v1/device/enroll", &body).await?.ok()?;
        let word = |key: &str| {
            enrolled[key].as_str().map(str::to_owned).with_context(|| format!("the cloud gave no {key}"))
        };
        Ok(Self::known(client, word("device")?, user.to_owned(), word("token")?))
    }

    /// A device that was enrolled by an administrator, who has given it its token.
    pub fn known(client: &Client, id: String, user: String, token: String) -> Self {
        let api = DeviceApi::new(client.with_token(token));
        Self { api, id, user, held: BTreeMap::new(), begun: BTreeMap::new() }
    }

    /// The same device, with the cloud somewhere else.
    pub fn moved(&mut self, client: &Client) {
        self.api = self.api.moved(client);
    }

    /// What the cloud wants it to have.
    ///
    /// # Errors
    /// What the cloud says.
    pub async fn assigned(&self, wait_ms: u64) -> Result<Vec<Assigned>> {
        self.api.assigned(wait_ms).await
    }

    /// What it has of a profile.
    pub fn held(&self, profile: &str) -> Option<&Held> {
        self.held.get(profile)
    }

    /// Throws away what it has, as a reset does.
    pub fn forget(&mut self, profile: &str) {
        self.held.remove(profile);
    }

    /// Begins to get a certificate: asks, makes a key, hands in what the cloud wants. Comes back when it is told to.
    ///
    /// # Errors
    /// What the cloud says.
    pub async fn begin(&mut self, profile: &str, forgery: &Forgery, patience: Duration) -> Result<Outcome> {
        let assigned = self.assigned(0).await?;
        let found = assigned.into_iter().find(|it| it.profile == profile);
        let wanted = found.with_context(|| format!("the device is to have no certificate of {profile}"))?;
        let lost = wanted.wanted.is_none() && !self.held.contains_key(profile);
        let deadline = Instant::now() + patience;
        loop {
            let refusal = match self.try_begin(&wanted, lost, forgery).await? {
                Ok(outcome) => return Ok(outcome),
                Err(refusal) => refusal,
            };
            let Some(pause) = refusal.retry_after.filter(|_| Instant::now() < deadline) else {
                return Ok(Outcome {
                    stage: "refused".to_owned(),
                    code: refusal.code,
                    detail: refusal.detail,
                });
            };
            tokio::time::sleep(pause.min(PAUSE_MAX)).await;
        }
    }

    async fn try_begin(
        &mut self,
        wanted: &Assigned,
        lost: bool,
        forgery: &Forgery,
    ) -> Result<std::result::Result<Outcome, Refusal>> {
        let request = match self.api.want(&wanted.profile, lost).await? {
            Ok(request) => request,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let handed = match wanted.key_mode {
            KeyMode::Device => {
                let told = match self.api.challenge(&request).await? {
                    Ok(told) => told,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let wish = Wish::Certificate(make_key(wanted.key).await?);
                let csr = wish.csr(&told, forgery)?;
                self.begun.insert(wanted.profile.clone(), (request.clone(), wish));
                self.api.hand_in(&request, "csr", &json!({ "csr": csr })).await?
            }
            KeyMode::Agent => {
                let wish = Wish::Identity(make_key(KeyKind::Rsa2048).await?);
                let key = wish.public_key();
                self.begun.insert(wanted.profile.clone(), (request.clone(), wish));
                self.api.hand_in(&request, "key", &json!({ "public_key": key })).await?
            }
        };
        Ok(handed.map(|stage| Outcome { stage, code: String::new(), detail: String::new() }))
    }

    /// Waits for what was begun, checks it, installs it and says so. Stays as it is while the request is under way.
    ///
    /// # Errors
    /// When what comes is not what was asked for, or the cloud is away.
    pub async fn finish(&mut self, profile: &str, wait_ms: u64) -> Result<Outcome> {
        let (request, wish) =
            self.begun.get(profile).with_context(|| format!("nothing was begun for {profile}"))?;
        let seen = self.api.request(request, wait_ms).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let stage = text(&seen["stage"]);
        if stage != "issued" && stage != "installed" {
            let (code, detail) = (text(&seen["error"]["code"]), text(&seen["error"]["detail"]));
            return Ok(Outcome { stage, code, detail });
        }
        let held = wish.install(&seen)?;
        self.api.installed(request).await?;
        let detail = format!("{} until {}", held.certificate.subject(), held.ends());
        self.held.insert(profile.to_owned(), held);
        self.begun.remove(profile);
        Ok(Outcome { stage: "installed".to_owned(), code: String::new(), detail })
    }

    /// One visit: comes back for what was begun, or begins; then waits so long for it. What failed is begun anew next time.
    ///
    /// # Errors
    /// As [`SimulatedDevice::finish`].
    pub async fn visit(&mut self, profile: &str, wait_ms: u64) -> Result<Outcome> {
        if !self.begun.contains_key(profile) {
            let begun = self.begin(profile, &Forgery::default(), Duration::ZERO).await?;
            if begun.stage == "refused" {
                self.begun.remove(profile);
                return Ok(begun);
            }
        }
        let outcome = self.finish(profile, wait_ms).await?;
        if matches!(outcome.stage.as_str(), "failed" | "cancelled") {
            self.begun.remove(profile);
        }
        Ok(outcome)
    }

    /// What the cloud shows of the request under way, or of the last one.
    ///
    /// # Errors
    /// When nothing was begun, or the cloud is away.
    pub async fn request(&self, profile: &str) -> Result<Value> {
        let (request, _) =
            self.begun.get(profile).with_context(|| format!("nothing was begun for {profile}"))?;
        self.api.request(request, 0).await
    }
}

/// A day of Unix milliseconds, for people.
fn day(at_ms: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1_000));
    at.map(|at| at.date().to_string()).unwrap_or_default()
}

/// Makes a key on a thread where it keeps nobody waiting: RSA takes tenths of a second.
async fn make_key(kind: KeyKind) -> Result<Key> {
    let made = tokio::task::spawn_blocking(move || Key::generate(kind)).await.context("make a key")?;
    made.context("make a key")
}
