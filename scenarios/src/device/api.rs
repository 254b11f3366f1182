//! The cloud as a device sees it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use causeway_protocol::certificate::{KeyKind, KeyMode};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{Answer, Client};

/// A profile the device is to have a certificate of.
#[derive(Clone, Debug, Deserialize)]
pub struct Assigned {
    /// The profile.
    pub profile: String,
    /// Where the key is made.
    pub key_mode: KeyMode,
    /// Its kind.
    pub key: KeyKind,
    /// What to do now: `enrol`, `renew`, `replace`, `install`.
    pub wanted: Option<String>,
    /// SHA-256 of the certificate the cloud believes it to have.
    pub certificate: Option<String>,
}

/// What the cloud refuses, and when to come back.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The problem document's word.
    pub code: String,
    /// For people.
    pub detail: String,
    /// When trying again makes sense, if it does.
    pub retry_after: Option<Duration>,
}

/// What to put into the signing request.
#[derive(Clone, Deserialize)]
pub(super) struct Told {
    /// The challenge password.
    pub(super) challenge: Option<String>,
    /// The subject, RFC 4514.
    pub(super) subject: String,
    /// `KIND:VALUE`
    pub(super) alternative_names: Vec<String>,
}

/// The routes of a device, with its token.
#[derive(Clone)]
pub struct DeviceApi(Client);

impl DeviceApi {
    /// With a client that shows the device's token.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// The same device, with the cloud somewhere else.
    pub fn moved(&self, client: &Client) -> Self {
        Self(client.with_token(self.0.token().unwrap_or_default().to_owned()))
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.0.post(&format!("/api/v1/device{path}"), body).await
    }

    pub(super) async fn assigned(&self, wait_ms: u64) -> Result<Vec<Assigned>> {
        let path = format!("/api/v1/device/profiles?wait_ms={wait_ms}");
        let list = self.0.call(Method::GET, &path, None).await?.ok()?;
        serde_json::from_value(list["items"].clone()).context("read the device's profiles")
    }

    pub(super) async fn want(&self, profile: &str, lost: bool) -> Result<Result<String, Refusal>> {
        let answer = self.post("/requests", &json!({ "profile": profile, "lost": lost })).await?;
        Ok(judge(answer)?.map(|body| body["id"].as_str().unwrap_or_default().to_owned()))
    }

    pub(super) async fn challenge(&self, request: &str) -> Result<Result<Told, Refusal>> {
        let answer = self.post(&format!("/requests/{request}/challenge"), &json!({})).await?;
        match judge(answer)? {
            Ok(body) => Ok(Ok(serde_json::from_value(body).context("read what the cloud tells")?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    pub(super) async fn hand_in(
        &self,
        request: &str,
        what: &str,
        body: &Value,
    ) -> Result<Result<String, Refusal>> {
        let answer = self.post(&format!("/requests/{request}/{what}"), body).await?;
        Ok(judge(answer)?.map(|body| body["stage"].as_str().unwrap_or_default().to_owned()))
    }

    pub(super) async fn request(&self, request: &str, wait_ms: u64) -> Result<Value> {
        self.0.get(&format!("/api/v1/device/requests/{request}?wait_ms={wait_ms}")).await?.ok()
    }

    pub(super) async fn installed(&self, request: &str) -> Result<()> {
        self.post(&format!("/requests/{request}/installed"), &json!({})).await?.ok().map(|_| ())
    }
}

/// A refusal is no error of the line.
fn judge(answer: Answer) -> Result<Result<Value, Refusal>> {
    if answer.status.is_success() {
        return Ok(Ok(answer.body));
    }
    let word = |key: &str| answer.body[key].as_str().unwrap_or_default().to_owned();
    if word("code").is_empty() || answer.status == StatusCode::UNAUTHORIZED {
        bail!("the cloud answers {}: {}", answer.status, word("detail"));
    }
    let again = answer.status == StatusCode::SERVICE_UNAVAILABLE || word("code") == "challenge_expired";
    let retry_after = again.then_some(Duration::from_secs(answer.retry_after_secs.unwrap_or(1)));
    Ok(Err(Refusal { code: word("code"), detail: word("detail"), retry_after }))
}
