//! One order to the authority and back, once: what is known of it is on disk before anything leaves, and whoever takes it
//! up again asks before handing in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::certificate::{IssueOrder, Issued, KeyKind, KeyMode};
use causeway_protocol::pkix::{
    Certificate, Csr, CsrDraft, Digest, Key, Name, PkixError, PublicKey, Template,
};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

use super::error::CertError;
use super::relay::{Office, Plan, Relay};
use super::state::{Keys, Open, Row, Standing, Store};
use super::{identity, keys, limits, millis, rules};
use crate::ca::{Answer, CaError, Challenge, Keep, Order};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::directory::Net;
use crate::modules::ModuleContext;

/// How far an order has come.
pub(super) enum Progress {
    Issued(Box<Issued>),
    Waits { next_check: Duration, detail: String },
}

/// What the authority gave.
struct Given {
    certificate: Vec<u8>,
    chain: Vec<Vec<u8>>,
}

/// Milliseconds of each step.
pub(super) struct Timing {
    clock: Clock,
    begun: tokio::time::Instant,
    last: tokio::time::Instant,
    steps: BTreeMap<String, u64>,
}

impl Timing {
    pub(super) fn new(clock: Clock) -> Self {
        let now = clock.now();
        Self { clock, begun: now, last: now, steps: BTreeMap::new() }
    }

    fn step(&mut self, name: &str) {
        let now = self.clock.now();
        *self.steps.entry(name.to_owned()).or_default() += millis(now - self.last);
        self.last = now;
    }

    fn all(&mut self) -> BTreeMap<String, u64> {
        self.steps.insert("total".to_owned(), millis(self.clock.now() - self.begun));
        self.steps.clone()
    }
}

/// One order being worked on.
pub(super) struct Work<'a> {
    pub(super) relay: &'a Relay,
    pub(super) cx: &'a ModuleContext,
    pub(super) order: &'a IssueOrder,
    pub(super) store: Store,
    pub(super) digest: String,
    pub(super) since_ms: i64,
}

/// The turn that a challenge holds, and the front end that knows it.
type Claim = (Option<OwnedSemaphorePermit>, Option<String>);

/// What a request is made of.
struct Made {
    keys: Keys,
    /// What is handed in.
    csr: Zeroizing<Vec<u8>>,
    /// The key the certificate must have.
    public: PublicKey,
}

impl Work<'_> {
    /// Asks about an order that the authority may have; nothing when it does not have it.
    pub(super) async fn ask(
        &self,
        mut open: Open,
        timing: &mut Timing,
    ) -> Result<Option<Progress>, CertError> {
        let office = self.relay.office(&open.authority)?;
        let sealed = STANDARD.decode(&open.keys).map_err(|_| CertError::BadState)?;
        let keys = Keys::open(&self.relay.vault, &self.order.request, &sealed)?;
        let (csr, public) = match &keys.identity {
            // Whoever asks needs no challenge: this request has the key and the names of the one that was handed in.
            Some(key) => {
                let key = Key::from_pkcs8(key).map_err(|_| CertError::BadState)?;
                let subject = Name::parse(&open.subject).map_err(|_| CertError::BadState)?;
                let draft = CsrDraft { subject, ..CsrDraft::default() };
                let csr = draft.sign(&key, Digest::Sha256).map_err(|_| CertError::BadState)?;
                (Zeroizing::new(csr), key.public_key().clone())
            }
            None => {
                let csr = self.device_request().await?;
                let public = Csr::read(&csr).map_err(|_| CertError::BadState)?.public_key().clone();
                (csr, public)
            }
        };
        let asked = Order {
            request: self.order.request.clone(),
            csr: csr.to_vec(),
            subject: open.subject.clone(),
            alternative_names: open.alternative_names.clone(),
            variables: self.order.variables.clone(),
            template: open.template.clone(),
            message_key: Arc::clone(&keys.message),
            at: None,
            renews: self.order.renews.clone(),
        };
        let answer = office.authority.poll(&Net::from(self.cx), &asked, &open.ticket).await;
        timing.step("authority");
        match answer {
            Ok(Answer::Issued { certificate, chain }) => {
                let made = Made { keys, csr, public };
                let given = Given { certificate, chain };
                self.finish(&office, &made, given, open.legacy_pkcs12, timing).await.map(Some)
            }
            Ok(Answer::Pending { ticket, ask_after }) => {
                open.polls += 1;
                if open.polls > office.settings.polls_max {
                    return Err(CertError::NotDecided { authority: office.name.clone(), polls: open.polls });
                }
                self.waits(&office, Open { ticket, ..open }, ask_after).await.map(Some)
            }
            Ok(Answer::Unknown) => {
                tracing::info!(
                    request = self.order.request,
                    "The authority has not got an order that was begun"
                );
                self.store.forget(&self.order.request).await?;
                Ok(None)
            }
            Err(error) => {
                let error = office.error(self.unheard(&office, open, error).await?);
                if error.is_refusal() {
                    self.store.forget(&self.order.request).await?;
                }
                Err(error)
            }
        }
    }

    /// What comes of a question that was not answered. The server that knows the order may never come back, and nobody
    /// else knows of it: after a while that is said instead of asking on.
    async fn unheard(&self, office: &Office, open: Open, error: CaError) -> Result<CaError, CertError> {
        if !error.is_servers_fault() {
            return Ok(error);
        }
        let now_ms = self.cx.clock.now_ms();
        let Some(since_ms) = open.unheard_since_ms else {
            let open = Open { unheard_since_ms: Some(now_ms), ..open };
            self.store.put(&self.order.request, &self.row(Standing::Open(open))).await?;
            return Ok(error);
        };
        let elsewhere = !open.acknowledged && office.settings.urls.len() > 1;
        let most = if elsewhere { limits::UNHEARD_ELSEWHERE_MAX } else { limits::UNHEARD_MAX };
        let most_ms = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
        if now_ms - since_ms <= most_ms {
            return Ok(error);
        }
        let host = error.host().unwrap_or(&open.authority).to_owned();
        let detail =
            format!("it has not answered questions about it for {} h", (now_ms - since_ms) / 3_600_000);
        Ok(CaError::Unclear { host, detail })
    }

    /// Hands in an order of which nothing is with the authority.
    pub(super) async fn hand_in(&self, timing: &mut Timing) -> Result<Progress, CertError> {
        let IssueOrder { profile, version, variables, .. } = self.order;
        let plan = self.relay.plan(self.cx, profile, *version, variables).await?;
        if plan.profile.key_mode == KeyMode::Agent {
            identity::recipient(self.order.device_key.as_deref())?;
        }
        timing.step("names");
        let mut rounds = 0;
        loop {
            let done = self.hand_in_once(&plan, timing).await;
            rounds += 1;
            match done {
                // Somebody restarted the server that keeps the challenges: a new one works.
                Err(CertError::Ca { source: CaError::ChallengeRefused { .. }, .. })
                    if plan.profile.key_mode == KeyMode::Agent && rounds < limits::CHALLENGES_PER_CALL => {}
                done => return done,
            }
        }
    }

    async fn hand_in_once(&self, plan: &Plan, timing: &mut Timing) -> Result<Progress, CertError> {
        let net = Net::from(self.cx);
        let office = &plan.office;
        let (made, (turn, at)) = self.make(&net, plan, timing).await?;
        let open = Open {
            authority: office.name.clone(),
            template: plan.profile.template.clone(),
            subject: plan.names.subject.to_string(),
            alternative_names: plan.names.texts.clone(),
            legacy_pkcs12: plan.profile.legacy_pkcs12,
            ticket: Value::Null,
            keys: STANDARD.encode(made.keys.seal(&self.relay.vault, &self.order.request)?),
            polls: 0,
            acknowledged: false,
            unheard_since_ms: None,
        };
        let handed = Order {
            request: self.order.request.clone(),
            csr: made.csr.to_vec(),
            subject: open.subject.clone(),
            alternative_names: open.alternative_names.clone(),
            variables: plan.values.clone(),
            template: open.template.clone(),
            message_key: Arc::clone(&made.keys.message),
            at,
            renews: self.order.renews.clone(),
        };
        let keep = Keeping { work: self, open: &open };
        let answer = office.authority.submit(&net, &handed, &keep).await;
        drop(turn);
        timing.step("authority");
        match answer {
            Ok(Answer::Issued { certificate, chain }) => {
                let given = Given { certificate, chain };
                self.finish(office, &made, given, open.legacy_pkcs12, timing).await
            }
            Ok(Answer::Pending { ticket, ask_after }) => {
                self.waits(office, Open { ticket, ..open }, ask_after).await
            }
            Ok(Answer::Unknown) => {
                let detail = "it says nothing about a request it was just given".to_owned();
                Err(office.error(CaError::Answer { host: office.name.clone(), detail }))
            }
            Err(error) => {
                // Nothing is with the authority: the next try begins anew.
                let clean = error.was_not_sent();
                let error = office.error(error);
                if clean || error.is_refusal() {
                    self.store.forget(&self.order.request).await?;
                }
                Err(error)
            }
        }
    }

    /// The request itself, and what its challenge holds.
    async fn make(&self, net: &Net, plan: &Plan, timing: &mut Timing) -> Result<(Made, Claim), CertError> {
        let keyring = &self.relay.keyring;
        if plan.profile.key_mode == KeyMode::Device {
            let csr = self.device_request().await?;
            let expected = match &self.order.sealed_csr {
                Some(sealed) => {
                    let subject = plan.names.subject.to_string();
                    Some(self.relay.sealing.handed_out(&sealed.proof, &self.order.request, &subject)?)
                }
                None => None,
            };
            let read = rules::check(&csr, &plan.names, &plan.profile, expected.as_deref())?;
            let keys = Keys { message: keyring.message().await?, identity: None };
            timing.step("keys");
            let claim = self.relay.challenges.take(&self.order.request);
            return Ok((Made { keys, csr, public: read.public_key().clone() }, claim));
        }
        let own = keyring.fresh(plan.profile.key).await?;
        let key = keys::read(&own)?;
        let message = match plan.profile.key {
            KeyKind::P256 => keyring.message().await?,
            // RFC 8894 section 2.3: the message is best signed by the key the request is for.
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => Arc::clone(&key),
        };
        timing.step("keys");
        let challenge = plan.office.challenge(net).await?;
        timing.step("challenge");
        let (password, claim) = match challenge {
            Some(Challenge { password, turn, at, .. }) => (Some(password), (turn, at)),
            None => (None, (None, None)),
        };
        let draft = CsrDraft {
            subject: plan.names.subject.clone(),
            alternative_names: plan.names.alternative.clone(),
            challenge: password,
            template: plan.profile.template.clone().map(Template::Name),
            sid: plan.names.sid.clone(),
            extensions: Vec::new(),
        };
        let failed = |error: &PkixError| CertError::Identity { problem: Chain(error).to_string() };
        let csr = Zeroizing::new(draft.sign(&key, Digest::Sha256).map_err(|error| failed(&error))?);
        let keys = Keys { message, identity: Some(own) };
        Ok((Made { keys, csr, public: key.public_key().clone() }, claim))
    }

    /// The device's own signing request, opened where it came sealed.
    async fn device_request(&self) -> Result<Zeroizing<Vec<u8>>, CertError> {
        let wrong = |problem: &str| CertError::BadParameters {
            action: "issue_certificate".to_owned(),
            problem: problem.to_owned(),
        };
        let (text, room) = match (&self.order.csr, &self.order.sealed_csr) {
            (Some(csr), None) => (csr, limits::CSR_MAX_BYTES),
            (None, Some(sealed)) => (&sealed.envelope, limits::CSR_MAX_BYTES + limits::ENVELOPE_MAX_BYTES),
            (None, None) => return Err(wrong("the device's signing request (csr or sealed_csr) is missing")),
            (Some(_), Some(_)) => return Err(wrong("csr and sealed_csr are given")),
        };
        // Judged by its size as text first: base64 of more is not even decoded.
        if text.len() > room * 4 / 3 + 4 {
            return Err(rules::RequestError::TooLarge { bytes: text.len() / 4 * 3 }.into());
        }
        let bytes = STANDARD.decode(text).map(Zeroizing::new).map_err(|_| wrong("csr is no base64"))?;
        match self.order.sealed_csr {
            Some(_) => self.relay.sealing.open(&self.store, &self.order.request, &bytes).await,
            None => Ok(bytes),
        }
    }

    async fn waits(
        &self,
        office: &Office,
        open: Open,
        ask_after: Option<Duration>,
    ) -> Result<Progress, CertError> {
        let next_check = ask_after.unwrap_or_else(|| office.settings.poll_after(open.polls));
        let detail = format!("the authority {} has not decided; asked {} times", office.name, open.polls + 1);
        let open = Open { acknowledged: true, unheard_since_ms: None, ..open };
        self.store.put(&self.order.request, &self.row(Standing::Open(open))).await?;
        Ok(Progress::Waits { next_check, detail })
    }

    /// Puts the result together and keeps it in place of the keys.
    async fn finish(
        &self,
        office: &Office,
        made: &Made,
        given: Given,
        legacy_pkcs12: bool,
        timing: &mut Timing,
    ) -> Result<Progress, CertError> {
        let wrong = |detail: String| office.error(CaError::Answer { host: office.name.clone(), detail });
        let certificate = Certificate::read(&given.certificate)
            .map_err(|error| wrong(format!("what it issued is no certificate: {error}")))?;
        if !certificate.public_key().same_as(&made.public) {
            return Err(wrong("it issued a certificate with another key".to_owned()));
        }
        let identity = match &made.keys.identity {
            Some(key) => {
                let recipient = identity::recipient(self.order.device_key.as_deref())?;
                let chain: Vec<&[u8]> =
                    std::iter::once(&given.certificate).chain(&given.chain).map(Vec::as_slice).collect();
                Some(identity::enveloped(key, &chain, &recipient, legacy_pkcs12)?)
            }
            None => None,
        };
        timing.step("identity");
        let issued = Box::new(Issued {
            request: self.order.request.clone(),
            id: certificate.id(),
            subject: certificate.subject().to_string(),
            not_before_ms: certificate.not_before_ms(),
            not_after_ms: certificate.not_after_ms(),
            sha256: certificate.sha256(),
            certificate: STANDARD.encode(&given.certificate),
            chain: given.chain.iter().map(|authority| STANDARD.encode(authority)).collect(),
            identity: identity.map(|identity| STANDARD.encode(identity)),
            timing_ms: timing.all(),
        });
        self.store.put_before_the_end(&self.order.request, &self.row(Standing::Done(issued.clone()))).await?;
        tracing::info!(
            request = self.order.request,
            serial = issued.id.serial,
            authority = office.name,
            timing = ?issued.timing_ms,
            "A certificate is issued"
        );
        Ok(Progress::Issued(issued))
    }

    fn row(&self, standing: Standing) -> Row {
        Row { digest: self.digest.clone(), since_ms: self.since_ms, standing }
    }
}

/// Stores the order with a ticket before its request leaves.
struct Keeping<'a> {
    work: &'a Work<'a>,
    open: &'a Open,
}

impl Keep for Keeping<'_> {
    fn keep(&self, ticket: Value) -> BoxFuture<'_, Result<(), CaError>> {
        let row = self.work.row(Standing::Open(Open { ticket, ..self.open.clone() }));
        Box::pin(async move {
            let put = self.work.store.put(&self.work.order.request, &row).await;
            put.map_err(|error| CaError::Keep { source: error.into() })
        })
    }
}

/// Names what was ordered; the same order again has the same.
pub(super) fn digest_of(order: &IssueOrder) -> String {
    let bytes = Zeroizing::new(serde_json::to_vec(order).expect("an order serialises to JSON"));
    rules::hex(digest(&SHA256, &bytes).as_ref())
}
