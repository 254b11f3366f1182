//! An order from the cloud to the authority and back, once: what is known of it is on disk before anything leaves, and
//! whoever takes it up again asks before handing in.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::certificate::{
    IssueOrder, Issued, KeyKind, KeyMode, Profile, RevokeOrder, Revoked, Stage,
};
use causeway_protocol::pkix::{
    Certificate, Csr, CsrDraft, Digest, Key, Name, PkixError, PublicKey, Template,
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

use super::challenges::Challenges;
use super::config::Settings;
use super::error::CertError;
use super::keys::Keyring;
use super::state::{Keys, Open, Row, Standing, Store};
use super::template::Names;
use super::{identity, limits, lookup, rules, template};
use crate::ca::settings::CaSettings;
use crate::ca::{Answer, Authority, CaError, Challenge, Keep, Order, Revocation};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::directory::{Directory, Net};
use crate::modules::{ModuleContext, Outcome};
use crate::vault::Vault;

/// An authority with its settings.
pub(super) struct Office {
    pub(super) name: String,
    pub(super) settings: CaSettings,
    pub(super) authority: Arc<dyn Authority>,
}

impl Office {
    pub(super) fn error(&self, source: CaError) -> CertError {
        CertError::Ca { authority: self.name.clone(), source }
    }

    pub(super) async fn challenge(&self, net: &Net) -> Result<Option<Challenge>, CertError> {
        self.authority.challenge(net).await.map_err(|error| self.error(error))
    }
}

/// Carries orders to authorities.
pub(super) struct Relay {
    pub(super) settings: Settings,
    pub(super) offices: BTreeMap<String, Arc<Office>>,
    pub(super) directory: Option<Arc<Directory>>,
    pub(super) vault: Vault,
    pub(super) keyring: Arc<Keyring>,
    pub(super) challenges: Challenges,
    /// One order is worked on by one at a time, whichever action it came by.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Failures in a row, by request.
    tries: Mutex<HashMap<String, u32>>,
}

/// What an order is about, worked out.
pub(super) struct Plan {
    pub(super) profile: Profile,
    pub(super) names: Names,
    pub(super) office: Arc<Office>,
    pub(super) values: BTreeMap<String, String>,
}

enum Progress {
    Issued(Box<Issued>),
    Waits { next_check: Duration, detail: String },
}

/// What the authority gave.
struct Given {
    certificate: Vec<u8>,
    chain: Vec<Vec<u8>>,
}

/// Milliseconds of each step.
struct Timing {
    clock: Clock,
    begun: tokio::time::Instant,
    last: tokio::time::Instant,
    steps: BTreeMap<String, u64>,
}

impl Timing {
    fn new(clock: Clock) -> Self {
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

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Relay {
    pub(super) fn new(
        settings: Settings,
        offices: impl IntoIterator<Item = Office>,
        directory: Option<Arc<Directory>>,
        vault: Vault,
    ) -> Self {
        let offices = offices.into_iter().map(|office| (office.name.clone(), Arc::new(office))).collect();
        Self {
            settings,
            offices,
            directory,
            vault,
            keyring: Arc::default(),
            challenges: Challenges::default(),
            turns: Mutex::default(),
            tries: Mutex::default(),
        }
    }

    /// Gets the certificate of an order, or says how far it is.
    pub(super) async fn issue(&self, cx: &ModuleContext, order: &IssueOrder) -> Outcome {
        let turn = self.turn(&order.request);
        let _turn = turn.lock().await;
        match self.issued(cx, order).await {
            Ok(Progress::Issued(issued)) => {
                self.tries().remove(&order.request);
                self.challenges.forget(&order.request);
                Outcome::Success(json!(issued))
            }
            Ok(Progress::Waits { next_check, detail }) => {
                self.tries().remove(&order.request);
                let result = json!({ "stage": Stage::AwaitingApproval, "detail": detail });
                Outcome::Pending { result, next_check }
            }
            Err(error) => self.failed(cx, &order.request, &error),
        }
    }

    /// Ends a certificate, where the authority can be told.
    pub(super) async fn revoke(&self, cx: &ModuleContext, order: &RevokeOrder) -> Outcome {
        let id = format!("revoke {} {}", order.id.issuer, order.id.serial);
        let revoked = async {
            let office = self.office(&order.authority)?;
            let net = Net::from(cx);
            office.authority.revoke(&net, &order.id, order.reason).await.map_err(|error| office.error(error))
        };
        match revoked.await {
            Ok(done) => {
                self.tries().remove(&id);
                let (revoked, note) = match done {
                    Revocation::Done => (true, "the authority says that it is revoked".to_owned()),
                    Revocation::Impossible(who) => (false, who),
                };
                Outcome::Success(json!(Revoked { id: order.id.clone(), revoked, note }))
            }
            Err(error) => self.failed(cx, &id, &error),
        }
    }

    /// What an order or a device's question is about: names filled in and found harmless.
    pub(super) async fn plan(
        &self,
        cx: &ModuleContext,
        profile: &str,
        version: u64,
        variables: &BTreeMap<String, String>,
    ) -> Result<Plan, CertError> {
        let profile = match self.settings.profile(profile) {
            Some(known) if known.version == version => known.clone(),
            Some(known) if known.version < version => {
                let profile = profile.to_owned();
                return Err(CertError::ProfileBehind { profile, ordered: version, known: known.version });
            }
            Some(known) => {
                let profile = profile.to_owned();
                return Err(CertError::ProfileChanged { profile, ordered: version, known: known.version });
            }
            None => return Err(CertError::NoProfile { profile: profile.to_owned() }),
        };
        let office = self.office(&profile.authority)?;
        let values = self.values(cx, &profile, variables).await?;
        let names = template::fill(&profile, &values)?;
        if let Some(name) = rules::privileged(&names, &self.settings.privileged_names) {
            return Err(CertError::Privileged { name });
        }
        Ok(Plan { profile, names, office, values })
    }

    fn office(&self, name: &str) -> Result<Arc<Office>, CertError> {
        if self.settings.authorities_forbidden.contains(name) {
            return Err(CertError::ForbiddenHere { authority: name.to_owned() });
        }
        let office = self.offices.get(name).cloned();
        office.ok_or_else(|| CertError::NoAuthority { authority: name.to_owned() })
    }

    async fn values(
        &self,
        cx: &ModuleContext,
        profile: &Profile,
        variables: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, CertError> {
        let mut values = variables.clone();
        let needed = template::variables(profile);
        let Some(directory) = &self.directory else { return Ok(values) };
        if !lookup::needs(&needed, variables) {
            return Ok(values);
        }
        for name in lookup::OF_DIRECTORY {
            values.remove(*name);
        }
        for (name, value) in lookup::values(directory, &Net::from(cx), variables).await? {
            if lookup::OF_DIRECTORY.contains(&name.as_str()) {
                values.insert(name, value);
            } else {
                values.entry(name).or_insert(value);
            }
        }
        Ok(values)
    }

    async fn issued(&self, cx: &ModuleContext, order: &IssueOrder) -> Result<Progress, CertError> {
        let mut timing = Timing::new(cx.clock);
        let digest = digest_of(order);
        let store = Store::new(cx.storage.clone());
        match store.find(&order.request).await? {
            Some(row) if row.digest != digest => {
                Err(CertError::OtherOrder { request: order.request.clone() })
            }
            Some(Row { standing: Standing::Done(issued), .. }) => Ok(Progress::Issued(issued)),
            Some(Row { since_ms, standing: Standing::Open(open), .. }) => {
                let work = Work { relay: self, cx, order, store, digest, since_ms };
                match work.ask(open, &mut timing).await? {
                    Some(progress) => Ok(progress),
                    None => work.hand_in(&mut timing).await,
                }
            }
            None => {
                let since_ms = cx.clock.now_ms();
                Work { relay: self, cx, order, store, digest, since_ms }.hand_in(&mut timing).await
            }
        }
    }

    /// Trouble: over, or to be tried again in a while.
    fn failed(&self, cx: &ModuleContext, id: &str, error: &CertError) -> Outcome {
        let report = error.report();
        let tries = self.tries().get(id).copied().unwrap_or_default();
        let Some(wait) = error.wait(tries) else {
            self.tries().remove(id);
            self.challenges.forget(id);
            tracing::warn!(request = id, code = report.code, error = report.detail, "An order failed");
            return Outcome::Failure(report);
        };
        let mut counts = self.tries();
        if counts.len() < limits::TRIES_KEPT || counts.contains_key(id) {
            counts.insert(id.to_owned(), tries.saturating_add(1));
        }
        drop(counts);
        tracing::info!(
            request = id,
            code = report.code,
            error = report.detail,
            ?wait,
            "An order is tried again"
        );
        let result = json!({
            "stage": Stage::Retrying,
            "code": report.code,
            "detail": report.detail,
            "remedy": report.remedy,
        });
        // A quarter more or less, so that orders that failed together do not come back together.
        let share = 768 + u32::try_from(cx.random.next_u64() % 512).unwrap_or_default();
        Outcome::Pending { result, next_check: wait * share / 1_024 }
    }

    fn turn(&self, request: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(request).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(request.to_owned(), Arc::downgrade(&turn));
        turn
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One order being worked on.
struct Work<'a> {
    relay: &'a Relay,
    cx: &'a ModuleContext,
    order: &'a IssueOrder,
    store: Store,
    digest: String,
    since_ms: i64,
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
    async fn ask(&self, mut open: Open, timing: &mut Timing) -> Result<Option<Progress>, CertError> {
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
                let csr = device_request(self.order)?;
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
            message_key: keys.message.clone(),
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
                let error = office.error(error);
                if error.is_refusal() {
                    self.store.forget(&self.order.request).await?;
                }
                Err(error)
            }
        }
    }

    /// Hands in an order of which nothing is with the authority.
    async fn hand_in(&self, timing: &mut Timing) -> Result<Progress, CertError> {
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
        };
        let handed = Order {
            request: self.order.request.clone(),
            csr: made.csr.to_vec(),
            subject: open.subject.clone(),
            alternative_names: open.alternative_names.clone(),
            variables: plan.values.clone(),
            template: open.template.clone(),
            message_key: made.keys.message.clone(),
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
            let csr = device_request(self.order)?;
            let expected = self.order.challenge_sha256.as_deref();
            let read = rules::check(&csr, &plan.names, &plan.profile, expected)?;
            let keys = Keys { message: keyring.message().await?, identity: None };
            timing.step("keys");
            let claim = self.relay.challenges.take(&self.order.request);
            return Ok((Made { keys, csr, public: read.public_key().clone() }, claim));
        }
        let own = keyring.fresh(plan.profile.key).await?;
        let message = match plan.profile.key {
            KeyKind::P256 => keyring.message().await?,
            // RFC 8894 section 2.3: the message is best signed by the key the request is for.
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => own.clone(),
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
        let key = Key::from_pkcs8(&own).map_err(|error| failed(&error))?;
        let csr = Zeroizing::new(draft.sign(&key, Digest::Sha256).map_err(|error| failed(&error))?);
        let keys = Keys { message, identity: Some(own) };
        Ok((Made { keys, csr, public: key.public_key().clone() }, claim))
    }

    async fn waits(
        &self,
        office: &Office,
        open: Open,
        ask_after: Option<Duration>,
    ) -> Result<Progress, CertError> {
        let next_check = ask_after.unwrap_or_else(|| office.settings.poll_after(open.polls));
        let detail = format!("the authority {} has not decided; asked {} times", office.name, open.polls + 1);
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
        self.store.put(&self.order.request, &self.row(Standing::Done(issued.clone()))).await?;
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

fn device_request(order: &IssueOrder) -> Result<Zeroizing<Vec<u8>>, CertError> {
    let wrong = |problem: &str| CertError::BadParameters {
        action: "issue_certificate".to_owned(),
        problem: problem.to_owned(),
    };
    let text = order.csr.as_deref().ok_or_else(|| wrong("the device's signing request (csr) is missing"))?;
    // Judged by its size as text first: base64 of more is not even decoded.
    if text.len() > limits::CSR_MAX_BYTES * 4 / 3 + 4 {
        return Err(rules::RequestError::TooLarge { bytes: text.len() / 4 * 3 }.into());
    }
    STANDARD.decode(text).map(Zeroizing::new).map_err(|_| wrong("csr is no base64"))
}

/// Names what was ordered; the same order again has the same.
fn digest_of(order: &IssueOrder) -> String {
    let bytes = Zeroizing::new(serde_json::to_vec(order).expect("an order serialises to JSON"));
    rules::hex(digest(&SHA256, &bytes).as_ref())
}
