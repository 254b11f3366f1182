//! Certificates of devices: an order from the cloud becomes a certificate of the company's own authority, and comes back
//! for the device alone.
//!
//! For companies with NDES or another SCEP server, Active Directory Certificate Services, Symantec/DigiCert or Entrust,
//! over HTTPS (SCEP also over HTTP, which protects its messages itself). The device makes its key and sends a signing
//! request, which is checked against the order before it leaves; or the agent makes the key, and encrypts the identity to
//! the device so that nobody else, itself included, opens it again. An order is durable before anything of it leaves
//! (`state`), so one request id leads to one certificate, whatever dies when.

mod challenges;
pub(crate) mod check;
mod config;
mod error;
mod identity;
mod keys;
mod limits;
mod lookup;
mod relay;
mod rules;
mod sealing;
mod state;
mod template;
#[cfg(test)]
mod tests;
mod watch;
mod work;

use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::action::{Action, ErrorReport};
use causeway_protocol::certificate::{ChallengeAnswer, ChallengeAsk, IssueOrder, KeyMode, RevokeOrder};
use causeway_protocol::channel::payload::Request;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::config::Settings;
pub use self::error::CertError;
use self::relay::{Office, Relay};
pub use self::rules::RequestError;
use self::state::Store;
pub use self::template::TemplateError;
use super::{
    CheckResult, ConfigError, LocalExample, Module, ModuleContext, ModuleError, ModuleFactory,
    ModuleSettings, Outcome,
};
use crate::ca::settings::CaSettings;
use crate::directory::{Directory, Net};
use crate::secrets::SecretStore;

/// Stable kind.
pub const MODULE: &str = "certificates";

const ISSUE: &str = "issue_certificate";
const REVOKE: &str = "revoke_certificate";
const CHALLENGE: &str = "challenge";

/// Makes the module.
pub struct Factory;

impl ModuleFactory for Factory {
    fn kind(&self) -> &'static str {
        MODULE
    }

    fn example(&self) -> Value {
        Settings::example()
    }

    fn defaults(&self) -> Value {
        json!(Settings::default())
    }

    fn example_local(&self) -> LocalExample {
        let authority = json!({
            "kind": "scep",
            "urls": [
                "https://ndes1.acme.example/certsrv/mscep/mscep.dll",
                "https://ndes2.acme.example/certsrv/mscep/mscep.dll",
            ],
            "user": "svc-causeway@acme.example",
            "challenge": "ndes",
        });
        LocalExample {
            authorities: [("default".to_owned(), authority)].into(),
            secrets: vec!["ca.default.password".to_owned()],
            ..super::example_directory()
        }
    }

    fn build(&self, settings: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError> {
        let open = |name: &String| {
            Ok(Office {
                name: name.clone(),
                settings: CaSettings::read(name, settings)?,
                authority: crate::ca::open(name, settings)?,
            })
        };
        let offices = settings.authorities.keys().map(open).collect::<Result<Vec<_>, ConfigError>>()?;
        Ok(Arc::new(CertificatesModule::new(settings, offices)?))
    }
}

/// The module.
pub struct CertificatesModule {
    relay: Relay,
    secrets: SecretStore,
}

impl CertificatesModule {
    /// From settings, over these authorities; opens nothing.
    fn new(settings: &ModuleSettings, offices: Vec<Office>) -> Result<Self, ConfigError> {
        let read = Settings::read(settings)?;
        let defined = settings.directories.contains_key(&read.directory);
        let directory = match defined || read.directory != Settings::default().directory {
            true => Some(Arc::new(Directory::new(&read.directory, settings)?)),
            false => None,
        };
        let relay = Relay::new(read, offices, directory, settings.vault.clone());
        Ok(Self { relay, secrets: settings.secrets.clone() })
    }

    /// Fetches a challenge for a device that is about to make its request, and says what to ask for.
    async fn challenge(&self, cx: &ModuleContext, ask: &ChallengeAsk) -> Result<ChallengeAnswer, CertError> {
        bounded(CHALLENGE, &ask.request, &ask.variables)?;
        let plan = self.relay.plan(cx, &ask.profile, ask.version, &ask.variables).await?;
        if plan.profile.key_mode != KeyMode::Device {
            let problem = format!("keys of the profile {} are made by the agent", plan.profile.id);
            return Err(CertError::BadParameters { action: CHALLENGE.to_owned(), problem });
        }
        let mut answer = ChallengeAnswer {
            challenge: None,
            ttl_ms: millis(limits::NO_CHALLENGE_TTL),
            subject: plan.names.subject.to_string(),
            alternative_names: plan.names.texts,
            seal: None,
        };
        let Some(challenge) = plan.office.challenge(&Net::from(cx)).await? else { return Ok(answer) };
        let store = Store::new(cx.storage.clone());
        let seal = self.relay.sealing.ask(&store, &ask.request, &answer.subject, &challenge.password).await?;
        answer.seal = Some(seal);
        answer.challenge = Some(challenge.password.expose().to_owned());
        answer.ttl_ms = millis(challenge.good_for);
        self.relay.challenges.hold(&ask.request, challenge);
        Ok(answer)
    }
}

impl Module for CertificatesModule {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move {
            let keyring = self.relay.keyring.clone();
            tokio::select! {
                () = watch::run(&self.relay, &cx) => {}
                () = keyring.refill() => {}
                () = cx.stop.cancelled() => {}
            }
            Ok(())
        })
    }

    fn keeps(&self, action: &Action) -> bool {
        action.action == ISSUE
    }

    fn act(&self, cx: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let failed = |error: CertError| Outcome::Failure(error.report());
            match action.action.as_str() {
                ISSUE => match read::<IssueOrder>(ISSUE, &action.params)
                    .and_then(|order| bounded(ISSUE, &order.request, &order.variables).map(|()| order))
                {
                    Ok(order) => self.relay.issue(&cx, &order).await,
                    Err(error) => failed(error),
                },
                REVOKE => match read::<RevokeOrder>(REVOKE, &action.params) {
                    Ok(order) => self.relay.revoke(&cx, &order).await,
                    Err(error) => failed(error),
                },
                other => failed(CertError::Unknown { name: other.to_owned() }),
            }
        })
    }

    fn answer(&self, cx: ModuleContext, request: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async move {
            if request.request != CHALLENGE {
                return Err(CertError::Unknown { name: request.request }.report());
            }
            let ask = serde_json::from_str::<ChallengeAsk>(request.body.expose()).map_err(|error| {
                let problem = error.to_string();
                CertError::BadParameters { action: CHALLENGE.to_owned(), problem }.report()
            })?;
            let answer = self.challenge(&cx, &ask).await.map_err(|error| error.report())?;
            Ok(json!(answer))
        })
    }

    fn directories(&self) -> Vec<Arc<Directory>> {
        let needed = self.relay.settings.profiles.iter().any(|profile| {
            let variables = template::variables(profile);
            lookup::OF_DIRECTORY.iter().any(|name| variables.contains(name))
        });
        self.relay.directory.iter().filter(|_| needed).cloned().collect()
    }

    fn check(&self, cx: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async move { check::run(&self.relay, &self.secrets, &cx).await })
    }
}

fn read<T: DeserializeOwned>(action: &str, params: &Value) -> Result<T, CertError> {
    serde_path_to_error::deserialize(params).map_err(|error| {
        // The parser's own words may quote a value, and values may be a person's.
        let problem = format!("{}: {}", error.path(), kind_of(error.inner()));
        CertError::BadParameters { action: action.to_owned(), problem }
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn kind_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let quotes = text.starts_with("unknown field") || text.starts_with("missing field");
    if quotes { text } else { "it is of the wrong type".to_owned() }
}

/// What an order may hold at most.
fn bounded(
    action: &str,
    request: &str,
    variables: &std::collections::BTreeMap<String, String>,
) -> Result<(), CertError> {
    let wrong = |problem: String| Err(CertError::BadParameters { action: action.to_owned(), problem });
    if request.is_empty() || request.len() > limits::REQUEST_MAX_BYTES {
        return wrong(format!("the request's id has {} bytes", request.len()));
    }
    if variables.len() > limits::VARIABLES_MAX {
        return wrong(format!("{} variables are given", variables.len()));
    }
    let long = |value: &&String| value.chars().count() > limits::TEXT_MAX_CHARS;
    if let Some((name, _)) = variables.iter().find(|(_, value)| long(value)) {
        return wrong(format!("the value of {name} is too long"));
    }
    Ok(())
}
