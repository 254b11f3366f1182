//! Authorities that speak SCEP (RFC 8894): NDES and most others. The messages are `protocol::scep`'s; here is which front
//! end they go to, whether it is the right one, and what its answers mean for an order.
//!
//! Safe repeats rest on the transaction: its id is made of the order's id and the key, so the same order always has the
//! same one. After a crash the authority is asked (CertPoll) before anything is handed in again.

mod ndes;
mod page;
mod successor;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use causeway_protocol::certificate::{CertificateId, RevocationReason};
use causeway_protocol::pkix::{Accept, Certificate, Csr, PkixError, self_signed};
use causeway_protocol::scep::{
    CaCertificates, Caps, Enrollment, FailInfo, Operation, Outcome, ScepError, ScepRandom, Suite,
    TransactionId, encode_get, url,
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::ndes::Pages;
use super::http::{Answer as Page, Endpoint, FrontEnds, Who, note, refusal, success};
use super::settings::{CaSettings, ChallengeKind, RevocationKind};
use super::{Answer, Authority, CaError, Challenge, Keep, Order, Revocation, Seen, clocks_apart, limits};
use crate::chain::Chain;
use crate::dial::tls::read_certificates;
use crate::directory::Net;
use crate::secrets::SecretStore;
use crate::web::client::Client;
use crate::web::servers::Server;

/// Content type of a message (RFC 8894 section 4.3).
const MESSAGE: &str = "application/x-pki-message";

/// The certificate that signs messages is for this long around now: clocks differ by days, and nobody checks.
const SIGNER_AROUND_MS: i64 = 30 * 24 * 3_600_000;

/// An authority that speaks SCEP.
pub struct Scep {
    name: String,
    settings: CaSettings,
    secrets: SecretStore,
    fronts: FrontEnds,
    pages: Pages,
    /// What is known of each front end, by URL.
    known: Mutex<HashMap<String, Known>>,
}

/// What a front end has said about itself.
#[derive(Clone)]
struct Known {
    caps: Caps,
    suite: Suite,
    certificates: CaCertificates,
    /// When it said so; nothing when it is to be asked anew.
    at: Option<Instant>,
}

/// What must be found again to ask about an order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ticket {
    /// The front end that has it: another one of the same authority does not know the transaction.
    url: String,
}

impl Scep {
    /// From checked settings. Opens nothing.
    pub fn new(name: &str, settings: CaSettings, secrets: SecretStore) -> Self {
        let fronts = FrontEnds::new(name, &settings, secrets.clone());
        let pages = Pages::new(&settings);
        Self { name: name.to_owned(), settings, secrets, fronts, pages, known: Mutex::default() }
    }

    /// Capabilities and certificates of a front end, asked for once an hour. Only an authority that is the right one is
    /// known.
    async fn known(&self, net: &Net, server: &Server) -> Result<Known, CaError> {
        let at = server.endpoint();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = known.get(&at.url)
                && known.at.is_some_and(|at| at.elapsed() < limits::CAPABILITIES_HOLD)
            {
                return Ok(known.clone());
            }
        }
        let known = self.learn(net, at).await.map_err(|error| self.with_ended(net, at, error))?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(at.url.clone(), known.clone());
        Ok(known)
    }

    /// What it says next counts. What it said before may explain why it says nothing.
    fn forget(&self, at: &Endpoint) {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&at.url) {
            known.at = None;
        }
    }

    async fn learn(&self, net: &Net, at: &Endpoint) -> Result<Known, CaError> {
        let identifier = Some(self.settings.identifier.as_str()).filter(|text| !text.is_empty());
        let asked = at.at(url(&at.path, Operation::GetCaCaps, identifier));
        let answer = self.fronts.get(net, &asked, Who::Account).await?;
        let caps = match answer {
            answer if answer.status.is_server_error() => return Err(refusal(at, &answer)),
            answer if answer.status.is_success() => Caps::parse(&answer.body),
            // Servers of the time before capabilities do not know the question (RFC 8894 section 3.5.1).
            _ => Caps::default(),
        };
        let asked = at.at(url(&at.path, Operation::GetCaCert, identifier));
        let answer = success(at, self.fronts.get(net, &asked, Who::Account).await?)?;
        let certificates = CaCertificates::read(&answer.body).map_err(|error| judged(at, &error))?;
        self.authenticate(at, &certificates)?;
        let suite = caps.negotiate();
        if suite.accept.sha1 && !self.settings.legacy {
            let detail = format!(
                "{at} offers nothing better than SHA-1; set legacy = true in [ca.{}] if that must be",
                self.name
            );
            return Err(CaError::Settings { detail });
        }
        Ok(Known { caps, suite, certificates, at: Some(Instant::now()) })
    }

    /// Whether it is the authority that agent.toml means. By its fingerprint; over plain http by what it leads to, over TLS
    /// the server's own certificate has said who answers.
    fn authenticate(&self, at: &Endpoint, certificates: &CaCertificates) -> Result<(), CaError> {
        let chain = certificates.chain();
        // That of an authority above serves as well: it stays when the issuing one is replaced.
        let found: Vec<String> = chain.iter().map(Certificate::sha256).collect();
        if let Some(expected) = self.settings.is_expected(found.iter().map(String::as_str)) {
            if expected {
                return Ok(());
            }
            let found = certificates.ca().sha256();
            let detail =
                format!("the authority's fingerprint is {found}, which is not the one in [ca.{}]", self.name);
            return Err(CaError::Answer { host: at.to_string(), detail });
        }
        let Some(file) = self.settings.ca_file.as_ref().filter(|_| !at.tls) else { return Ok(()) };
        let unreadable = |detail: String| CaError::Settings { detail };
        let trusted = read_certificates(file).map_err(|error| unreadable(Chain(&error).to_string()))?;
        let trusted: Vec<Certificate> =
            trusted.iter().filter_map(|certificate| Certificate::read(certificate).ok()).collect();
        let known = |ca: &Certificate| {
            trusted
                .iter()
                .any(|root| root == ca || ca.issued_by(root, Accept { sha1: true, ..Accept::MODERN }))
        };
        if chain.iter().any(known) {
            return Ok(());
        }
        let detail = format!(
            "the authority {} does not lead to one in {}",
            certificates.ca().subject(),
            file.display()
        );
        Err(CaError::Answer { host: at.to_string(), detail })
    }

    fn enrollment(&self, net: &Net, known: &Known, order: &Order) -> Result<Enrollment, CaError> {
        let broken =
            |what: &str, error: &PkixError| CaError::Settings { detail: format!("{what}: {}", Chain(error)) };
        let key = Arc::clone(&order.message_key);
        let csr = Csr::read(&order.csr).map_err(|error| broken("the signing request", &error))?;
        // Made of the order, so that they are the same after a restart.
        let named = digest(&SHA256, &[order.request.as_bytes(), &[0], csr.public_key().spki()].concat());
        let hex: String = named.as_ref().iter().take(20).map(|byte| format!("{byte:02X}")).collect();
        let (serial, _) = named.as_ref().split_first_chunk::<16>().expect("SHA-256 has 32 bytes");
        let now_ms = net.clock.now_ms();
        let (from, until) = (now_ms - SIGNER_AROUND_MS, now_ms + SIGNER_AROUND_MS);
        let signer = self_signed(&key, csr.subject_raw().to_vec(), serial, from, until)
            .and_then(|der| Certificate::read(&der))
            .map_err(|error| broken("the certificate of the message", &error))?;
        let certificates = known.certificates.clone();
        Ok(Enrollment::new(known.suite, certificates, csr, key, signer, TransactionId::new(&hex)))
    }

    /// Carries a message and reads the answer. Nothing it says is believed that is not signed by the authority.
    async fn exchange(
        &self,
        net: &Net,
        at: &Endpoint,
        known: &Known,
        enrollment: &Enrollment,
        message: Vec<u8>,
    ) -> Result<Outcome, CaError> {
        let answer: Page = if known.suite.post {
            let to = at.at(url(&at.path, Operation::PkiOperation, None));
            self.fronts.post(net, &to, MESSAGE, message, Who::Account).await?
        } else {
            let query = encode_get(&message);
            let to = at.at(url(&at.path, Operation::PkiOperation, Some(&query)));
            self.fronts.get(net, &to, Who::Account).await?
        };
        if !answer.status.is_success() {
            return Err(self.with_ended(net, at, refusal(at, &answer)));
        }
        enrollment.answer(&answer.body).map_err(|error| {
            // Whoever signs and decrypts there may have been replaced within the hour: the next try looks.
            self.forget(at);
            judged(at, &error)
        })
    }

    /// NDES answers 500 without a word when its registration authority's certificates have ended.
    fn with_ended(&self, net: &Net, at: &Endpoint, error: CaError) -> CaError {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&at.url).cloned();
        let registration = known.iter().flat_map(|known| known.certificates.registration());
        let ended = registration.into_iter().find(|ra| ra.not_after_ms() < net.clock.now_ms());
        match (error, ended) {
            (CaError::Busy { host, detail, retry_after }, Some(ended)) => {
                let detail = format!(
                    "{detail}; the certificate of the registration authority {} has ended",
                    ended.subject()
                );
                CaError::Busy { host, detail, retry_after }
            }
            (error, _) => error,
        }
    }

    /// What the authority's no means.
    fn no(&self, at: &Endpoint, fail: Option<FailInfo>, text: Option<String>) -> CaError {
        let host = at.to_string();
        let words = text.map(|text| short(&text)).unwrap_or_default();
        let said = |what: &str| if words.is_empty() { what.to_owned() } else { format!("{what}: {words}") };
        let refused = |code: &str, what: &str| CaError::Refused {
            host: host.clone(),
            code: code.to_owned(),
            detail: said(what),
        };
        match fail {
            Some(FailInfo::BadAlg) => {
                refused("bad_alg", "it takes none of the algorithms it offered (badAlg)")
            }
            // Its registration authority may have been replaced within the hour.
            Some(FailInfo::BadMessageCheck) => {
                self.forget(at);
                let detail = said("it cannot read the message (badMessageCheck)");
                CaError::Answer { host, detail }
            }
            Some(FailInfo::BadRequest) if self.settings.challenge == ChallengeKind::Ndes => {
                CaError::ChallengeRefused { host, detail: said("badRequest") }
            }
            Some(FailInfo::BadRequest) => {
                refused("bad_request", "it does not allow the request (badRequest)")
            }
            Some(FailInfo::BadTime) => {
                let apart = self.fronts.ahead_ms(at).map(|ms| clocks_apart(ms, "; its clock is "));
                let apart = apart.unwrap_or_else(|| "; compare the clocks".to_owned());
                refused("bad_time", &format!("it finds the time of the message wrong (badTime){apart}"))
            }
            Some(FailInfo::BadCertId) => {
                refused("bad_cert_id", "it does not know the certificate (badCertId)")
            }
            None => refused("failure", "it gives no reason"),
        }
    }

    fn decided(&self, at: &Endpoint, known: &Known, outcome: Outcome) -> Result<Answer, CaError> {
        match outcome {
            Outcome::Issued { certificate, .. } => Ok(Answer::Issued {
                certificate: certificate.raw().to_vec(),
                chain: known.certificates.chain().iter().map(|ca| ca.raw().to_vec()).collect(),
            }),
            Outcome::Pending => Ok(Answer::Pending { ticket: ticket(at), ask_after: None }),
            Outcome::Failed { fail, text } => Err(self.no(at, fail, text)),
        }
    }

    /// Hands in at one front end. The second value says whether anything can have left.
    async fn hand_in(
        &self,
        net: &Net,
        server: &Server,
        order: &Order,
        keep: &dyn Keep,
    ) -> Result<Answer, (CaError, bool)> {
        let at = server.endpoint();
        let unsent = |error| (error, false);
        let known = self.known(net, server).await.map_err(unsent)?;
        // The message is made while the disk takes the ticket.
        let made = async {
            let mut enrollment = self.enrollment(net, &known, order)?;
            let message = enrollment.request(&random()?).map_err(|error| judged(at, &error))?;
            Ok((enrollment, message))
        };
        let (kept, made) = tokio::join!(biased; keep.keep(ticket(at)), made);
        kept.map_err(unsent)?;
        let (enrollment, message) = made.map_err(unsent)?;
        let outcome = self.exchange(net, at, &known, &enrollment, message).await;
        outcome.and_then(|outcome| self.decided(at, &known, outcome)).map_err(|error| {
            let sent = !error.was_not_sent();
            (error, sent)
        })
    }

    async fn submitted(&self, net: &Net, order: &Order, keep: &dyn Keep) -> Result<Answer, CaError> {
        let candidates = match &order.at {
            Some(at) => self.fronts.named(at).cloned().into_iter().collect(),
            None => self.fronts.candidates(),
        };
        let mut last = None;
        for server in candidates {
            match self.hand_in(net, &server, order, keep).await {
                Ok(answer) => {
                    server.succeeded();
                    return Ok(answer);
                }
                Err((error, sent)) => {
                    let servers_fault = error.is_servers_fault();
                    if servers_fault {
                        server.failed(Instant::now());
                    }
                    if sent || !servers_fault {
                        return Err(error);
                    }
                    if order.at.is_some() && self.fronts.all().len() > 1 {
                        return Err(away_with_challenge(&error));
                    }
                    tracing::debug!(server = %server.endpoint(), error = %Chain(&error), "A front end does not work");
                    last = Some(unsent(error));
                }
            }
        }
        Err(last.unwrap_or_else(|| self.nowhere()))
    }

    fn nowhere(&self) -> CaError {
        CaError::Settings { detail: format!("[ca.{}] has no front end for it any more", self.name) }
    }

    async fn asked(&self, net: &Net, order: &Order, ticket: &Value) -> Result<Answer, CaError> {
        let Ticket { url } = serde_json::from_value(ticket.clone())
            .map_err(|error| CaError::Settings { detail: format!("the ticket of the order: {error}") })?;
        let Some(server) = self.fronts.named(&url) else {
            let detail = "the front end it went to is not in agent.toml any more".to_owned();
            return Err(CaError::Unclear { host: url, detail });
        };
        let at = server.endpoint();
        let asked = async {
            let known = self.known(net, server).await?;
            let mut enrollment = self.enrollment(net, &known, order)?;
            let message = enrollment.poll(&random()?).map_err(|error| judged(at, &error))?;
            match self.exchange(net, at, &known, &enrollment, message).await? {
                Outcome::Failed { fail: Some(FailInfo::BadCertId), .. } => Ok(Answer::Unknown),
                // Of a question there is no challenge that could be wrong: the request itself was denied.
                Outcome::Failed { fail: Some(FailInfo::BadRequest), text } => {
                    let words = text.map(|text| short(&text)).unwrap_or_default();
                    Err(CaError::Refused {
                        host: at.to_string(),
                        code: "denied".to_owned(),
                        detail: format!("the request was denied {words}").trim_end().to_owned(),
                    })
                }
                outcome => self.decided(at, &known, outcome),
            }
        };
        let answered = asked.await;
        note(server, &answered);
        answered
    }

    async fn looked(&self, net: &Net, server: &Server) -> Result<Seen, CaError> {
        let mut seen = Seen::default();
        let at = server.endpoint();
        // Asked anew: a look must not show what was an hour ago.
        self.forget(at);
        let known = self.known(net, server).await?;
        self.describe(at, &known, &mut seen);
        self.look_at_successor(net, at, &known, &mut seen).await;
        self.look_at_page(net, server, &mut seen).await?;
        Ok(seen)
    }

    fn describe(&self, at: &Endpoint, known: &Known, seen: &mut Seen) {
        let ca = known.certificates.ca();
        if seen.chain.is_empty() {
            seen.chain = known.certificates.chain().iter().map(|ca| ca.raw().to_vec()).collect();
        }
        let suite = known.suite;
        let how = if suite.post { "POST" } else { "GET" };
        let agreed = format!("{}; {:?}, {:?}, {how}", ca.subject(), suite.cipher, suite.digest);
        seen.facts.push((at.to_string(), agreed));
        let mut ends = |what: String, certificate: &Certificate| {
            let end = (what, certificate.not_after_ms());
            if !seen.ends.contains(&end) {
                seen.ends.push(end);
            }
        };
        ends(format!("the authority {}", ca.subject()), ca);
        for certificate in known.certificates.registration() {
            ends(format!("the registration authority {} at {at}", certificate.subject()), certificate);
        }
    }

    /// Whether the page with challenges asks who we are. It is not opened: every look would use one up.
    async fn look_at_page(&self, net: &Net, server: &Server, seen: &mut Seen) -> Result<(), CaError> {
        if self.settings.challenge != ChallengeKind::Ndes {
            return Ok(());
        }
        let Some(page) = self.page_of(server) else { return Err(self.nowhere()) };
        let answer = self.fronts.probe(net, &page).await?;
        if answer.status == http::StatusCode::UNAUTHORIZED {
            let how = format!("it asks who we are ({})", Client::offered(&answer));
            seen.facts.push((format!("challenges of {}", server.endpoint()), how));
            return Ok(());
        }
        if answer.status.is_success() || answer.status.is_redirection() {
            let trouble = format!("{} does not ask who we are: anybody can have challenges", page.url);
            seen.front_ends.push((server.endpoint().to_string(), Some(trouble)));
            return Ok(());
        }
        Err(refusal(&page, &answer))
    }

    fn page_of(&self, server: &Server) -> Option<Endpoint> {
        let at = &server.endpoint().url;
        let n = self.fronts.all().iter().position(|other| other.endpoint().url == *at)?;
        self.settings.challenge_endpoint(n)
    }
}

impl Authority for Scep {
    fn look<'a>(&'a self, net: &'a Net) -> BoxFuture<'a, Result<Seen, CaError>> {
        Box::pin(self.fronts.look(move |server| Box::pin(async move { self.looked(net, &server).await })))
    }

    fn challenge<'a>(&'a self, net: &'a Net) -> BoxFuture<'a, Result<Option<Challenge>, CaError>> {
        Box::pin(async move {
            match self.settings.challenge {
                ChallengeKind::None => Ok(None),
                ChallengeKind::Static => {
                    let name = CaSettings::challenge_name(&self.name);
                    let password = self.secrets.newest(&name).filter(|secret| !secret.is_empty());
                    let missing = || CaError::Settings { detail: format!("the secret {name} is not stored") };
                    Ok(Some(Challenge {
                        password: password.ok_or_else(missing)?,
                        good_for: Duration::from_secs(24 * 3_600),
                        once: false,
                        at: None,
                        turn: None,
                    }))
                }
                ChallengeKind::Ndes => self.fetch_challenge(net).await.map(Some),
            }
        })
    }

    fn submit<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        keep: &'a dyn Keep,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(self.submitted(net, order, keep))
    }

    fn poll<'a>(
        &'a self,
        net: &'a Net,
        order: &'a Order,
        ticket: &'a Value,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(self.asked(net, order, ticket))
    }

    fn revoke<'a>(
        &'a self,
        _net: &'a Net,
        id: &'a CertificateId,
        reason: RevocationReason,
    ) -> BoxFuture<'a, Result<Revocation, CaError>> {
        let (serial, code) = (&id.serial, reason.code());
        let who = match self.settings.revocation {
            RevocationKind::None => {
                "agent.toml says that this authority's certificates are not revoked".to_owned()
            }
            RevocationKind::Auto => format!(
                "SCEP has no revocation: ask who runs the authority to revoke {serial}; at Active Directory Certificate \
                 Services by certutil -revoke {serial} {code}"
            ),
            RevocationKind::Adcs => {
                format!("ask an administrator of the authority to run: certutil -revoke {serial} {code}")
            }
        };
        Box::pin(async move { Ok(Revocation::Impossible(who)) })
    }
}

fn ticket(at: &Endpoint) -> Value {
    json!(Ticket { url: at.url.clone() })
}

/// The one front end that knows the challenge does not work: with another challenge another one takes the request.
fn away_with_challenge(error: &CaError) -> CaError {
    let host = error.host().unwrap_or("the front end").to_owned();
    CaError::ChallengeRefused {
        host,
        detail: format!("it gave the challenge and does not work now: {}", Chain(error)),
    }
}

/// An error after which nothing is with the authority, whatever kind it is.
fn unsent(error: CaError) -> CaError {
    if error.was_not_sent() {
        return error;
    }
    let host = error.host().unwrap_or("the authority").to_owned();
    CaError::Unreachable { host, sent: false, source: Box::new(error) }
}

fn random() -> Result<ScepRandom, CaError> {
    let mut bytes = [0; 64];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| CaError::Settings { detail: "the system gives no random numbers".to_owned() })?;
    Ok(ScepRandom::new(bytes))
}

fn judged(at: &Endpoint, error: &ScepError) -> CaError {
    let detail = Chain(error).to_string();
    match error {
        ScepError::Write(_) => CaError::Settings { detail },
        _ => CaError::Answer { host: at.to_string(), detail },
    }
}

/// A server's words in an error.
fn short(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(limits::TEXT_MAX_CHARS).collect()
}
