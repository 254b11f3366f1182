//! The issuing core: what an authority is and does, without a protocol. Front ends hand in requests and say what became
//! of them in their own words; none of them decides anything.
//!
//! [`Authority::submit`] is the way in. A request that is repeated under the same transaction gets the same certificate.
//! Functions that sign take about half a millisecond; those that make keys ([`Authority::build`],
//! [`Authority::prepare_rollover`]) take tenths of a second and belong on a blocking thread.

mod certificate;
mod challenge;
mod config;
mod csr;
mod denial;
mod forgery;
mod hierarchy;
mod keys;
mod ledger;
mod policy;
mod revocation;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use causeway_mock_kit::Clock;
use causeway_mock_kit::world::Company;

pub use certificate::Serial;
pub use challenge::{CacheFull, ChallengeConfig, ChallengeError, ChallengeView, Challenges, Handed};
pub use config::{AuthorityConfig, AuthorityError, Checked};
pub use csr::Csr;
pub use denial::Denial;
pub use hierarchy::{Generation, Hierarchy, Identity, RaMode, Tiers};
pub use ledger::{Issued, Request, RequestView, State, Transaction};
pub use revocation::{OcspRefusal, OcspTwist, Reason, Revocation};
pub use template::{Approval, KeyUsage, Template, TemplateError};

use crate::limits::{LEDGER_MAX, LISTED_MAX};
use hierarchy::Maker;
use ledger::Ledger;
use policy::{Draft, sha256};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Where certificates say that more can be found out. Empty ones are left out of certificates.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// URL under which CRLs and issuers' certificates are.
    pub crl: String,
    pub ocsp: String,
}

impl Links {
    fn crl_of(&self, signer: Signer) -> String {
        format!("{}/{signer}.crl", self.crl)
    }

    fn issuer_of(&self, signer: Signer) -> String {
        format!("{}/{signer}.cer", self.crl)
    }
}

/// Who has signed a certificate and answers for it with a CRL and over OCSP. Reads as its published files are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// A root above the issuing authority.
    Root,
    /// The issuing authority, by its generation.
    Generation(u32),
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Generation(number) => number.fmt(f),
        }
    }
}

impl FromStr for Signer {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        if text == "root" { Ok(Self::Root) } else { text.parse().map(Self::Generation) }
    }
}

/// A request on its way in.
#[derive(Clone, Debug, Default)]
pub struct Submission<'a> {
    /// Which front end it came over.
    pub front: &'static str,
    /// PKCS#10, DER.
    pub csr: &'a [u8],
    /// Who asks: an account, or what the front end knows of the client. For administrators and journals.
    pub requester: &'a str,
    /// The template or profile the protocol names; without it, the request's own, else the default one.
    pub template: Option<&'a str>,
    /// What the protocol calls the request, if it does.
    pub transaction: Option<Transaction>,
    /// The certificate whose holder asks for its successor. The front end has checked that it is the holder who asks.
    pub renews: Option<Serial>,
    /// Subject (Name, DER) in place of the one in the request, for protocols that take names from fields.
    pub subject: Option<Vec<u8>>,
    /// Alternative names (GeneralNames, DER) in place of those in the request.
    pub alternative_names: Option<Vec<u8>>,
    /// Fewer days than the template says.
    pub validity_days: Option<u32>,
    /// A person must approve it, whatever the template says.
    pub hold: bool,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Decision {
    Issued(Arc<Issued>),
    /// Waits for approval, under this number.
    Pending(u32),
    /// Refused; the number is 0 where nothing was entered in the books.
    Denied(Denial, u32),
}

/// Why a certificate was not revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    #[error("no certificate has this serial number")]
    Unknown,
    #[error("the certificate is revoked already")]
    Already,
    #[error("the certificate is not on hold")]
    NotOnHold,
}

/// Why a request cannot be approved or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    #[error("there is no request of this number")]
    Unknown,
    #[error("the request is decided already")]
    Decided,
}

/// One authority with its books.
pub struct Authority {
    config: AuthorityConfig,
    company: Arc<Company>,
    links: Links,
    clock: Clock,
    hierarchy: ArcSwap<Hierarchy>,
    /// Held by whoever changes the hierarchy.
    changing: Mutex<()>,
    ledger: Mutex<Ledger>,
    /// A request that several clients wait for has been decided.
    decided: Condvar,
}

impl Authority {
    /// Makes keys and certificates; blocks while it does.
    pub fn build(config: Checked, company: Arc<Company>, links: Links, clock: Clock) -> Self {
        let config = config.into_inner();
        let maker = Maker { config: &config, seed: company.seed, links: &links, now_ms: clock.now_ms() };
        let hierarchy = ArcSwap::from_pointee(maker.hierarchy());
        Self {
            config,
            company,
            links,
            clock,
            hierarchy,
            changing: Mutex::default(),
            ledger: Mutex::default(),
            decided: Condvar::new(),
        }
    }

    pub fn config(&self) -> &AuthorityConfig {
        &self.config
    }

    pub fn company(&self) -> &Arc<Company> {
        &self.company
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Who signs at this moment. A rollover whose time has come happens here.
    pub fn hierarchy(&self) -> Arc<Hierarchy> {
        let now = self.hierarchy.load_full();
        match &now.next {
            Some((_, at_ms)) if *at_ms <= self.now_ms() => {
                self.roll_over();
                self.hierarchy.load_full()
            }
            _ => now,
        }
    }

    /// Judges a request and issues, or not. `admit` is asked once, after everything else is found right and only for a
    /// request that is not a repeated one: there a front end uses up a challenge.
    pub fn submit(
        &self,
        submission: &Submission<'_>,
        admit: impl FnOnce(&Csr) -> Result<(), Denial>,
    ) -> Decision {
        let csr = match Csr::read(submission.csr) {
            Ok(csr) => csr,
            Err(denial) => return Decision::Denied(denial, 0),
        };
        let (fingerprint, key_sha256) = (sha256(submission.csr), sha256(csr.spki()));
        let before = known(&self.ledger(), submission, &fingerprint, &key_sha256);
        if let Some(known) = before {
            return self.again(&known);
        }
        let checked = self
            .check_renewal(submission, &csr)
            .and_then(|()| policy::draft(&self.config, &self.company, &csr, submission));
        let mut ledger = self.ledger();
        // Somebody may have come with the same request meanwhile.
        if let Some(known) = known(&ledger, submission, &fingerprint, &key_sha256) {
            drop(ledger);
            return self.again(&known);
        }
        if ledger.requests.len() >= LEDGER_MAX {
            return Decision::Denied(Denial::BooksFull, 0);
        }
        let judged = checked.and_then(|draft| admit(&csr).map(|()| Arc::new(draft)));
        let (template, state) = match &judged {
            Ok(draft) => (draft.template.clone(), self.first_state(draft, submission.hold)),
            Err(denial) => {
                (submission.template.unwrap_or_default().to_owned(), State::Denied(denial.clone()))
            }
        };
        let id = ledger.next_id();
        let deciding = matches!(state, State::Deciding);
        ledger.enter(Request {
            id,
            front: submission.front,
            requester: submission.requester.to_owned(),
            template,
            subject: csr.subject_text(),
            submitted_ms: self.now_ms(),
            fingerprint,
            key_sha256,
            transaction: submission.transaction.clone(),
            state,
        });
        drop(ledger);
        match judged {
            Ok(draft) if deciding => self.issue(id, &draft),
            Ok(_) => Decision::Pending(id),
            Err(denial) => Decision::Denied(denial, id),
        }
    }

    /// What became of the newest request of a transaction; `None` when there is none that this asker may know of.
    pub fn poll(&self, front: &'static str, transaction: &Transaction) -> Option<Decision> {
        let id = {
            let ledger = self.ledger();
            let request = ledger.of_transaction(front, &transaction.id)?;
            let own = request.transaction.as_ref().is_some_and(|own| own.asker == transaction.asker);
            own.then_some(request.id)?
        };
        self.decision(id)
    }

    /// What became of a request. One that the clock approves is issued here when its time has come.
    pub fn decision(&self, id: u32) -> Option<Decision> {
        let mut ledger = self.ledger();
        loop {
            match &ledger.requests.get(&id)?.state {
                State::Issued(issued) => return Some(Decision::Issued(Arc::clone(issued))),
                State::Denied(denial) => return Some(Decision::Denied(denial.clone(), id)),
                State::Pending { due_ms: Some(due_ms), draft } if *due_ms <= self.now_ms() => {
                    let draft = Arc::clone(draft);
                    ledger.decide(id, State::Deciding);
                    drop(ledger);
                    return Some(self.issue(id, &draft));
                }
                State::Pending { .. } => return Some(Decision::Pending(id)),
                State::Deciding => ledger = self.decided.wait(ledger).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// A request as the books have it.
    pub fn request(&self, id: u32) -> Option<Request> {
        self.ledger().requests.get(&id).cloned()
    }

    /// The newest requests that match, newest first, at most `limit`.
    pub fn requests(&self, limit: usize, pick: impl Fn(&Request) -> bool) -> Vec<Request> {
        let ledger = self.ledger();
        ledger
            .requests
            .values()
            .rev()
            .filter(|request| pick(request))
            .take(limit.min(LISTED_MAX))
            .cloned()
            .collect()
    }

    /// Issues what waits for a person.
    ///
    /// # Errors
    /// [`DecideError`] when nothing of this number waits.
    pub fn approve(&self, id: u32) -> Result<Arc<Issued>, DecideError> {
        let draft = self.take_pending(id, State::Deciding)?;
        match self.issue(id, &draft) {
            Decision::Issued(issued) => Ok(issued),
            _ => Err(DecideError::Unknown),
        }
    }

    /// Refuses what waits for a person.
    ///
    /// # Errors
    /// [`DecideError`] when nothing of this number waits.
    pub fn deny(&self, id: u32) -> Result<(), DecideError> {
        self.take_pending(id, State::Denied(Denial::ByOfficer)).map(|_| ())
    }

    /// The certificate of this serial number.
    pub fn certificate(&self, serial: &Serial) -> Option<Arc<Issued>> {
        self.ledger().issued.get(serial).cloned()
    }

    /// Issued certificates that match, newest first, at most `limit`.
    pub fn certificates(&self, limit: usize, pick: impl Fn(&Issued) -> bool) -> Vec<Arc<Issued>> {
        let ledger = self.ledger();
        let issued = ledger.requests.values().rev().filter_map(|request| match &request.state {
            State::Issued(issued) => Some(issued),
            _ => None,
        });
        issued.filter(|issued| pick(issued)).take(limit.min(LISTED_MAX)).cloned().collect()
    }

    /// How many certificates were issued.
    pub fn issued_count(&self) -> usize {
        self.ledger().issued.len()
    }

    /// How and when a certificate ended.
    pub fn revocation(&self, serial: &Serial) -> Option<Revocation> {
        self.ledger().revoked.get(serial).copied()
    }

    /// Ends a certificate; one on hold can be ended for good.
    ///
    /// # Errors
    /// [`RevokeError::Unknown`], or [`RevokeError::Already`].
    pub fn revoke(&self, serial: &Serial, reason: Reason) -> Result<Revocation, RevokeError> {
        let mut ledger = self.ledger();
        if !ledger.issued.contains_key(serial) {
            return Err(RevokeError::Unknown);
        }
        if ledger.revoked.get(serial).is_some_and(|known| known.reason != Reason::CertificateHold) {
            return Err(RevokeError::Already);
        }
        let revocation = Revocation { reason, at_ms: self.now_ms() };
        ledger.revoked.insert(*serial, revocation);
        Ok(revocation)
    }

    /// Takes back a hold.
    ///
    /// # Errors
    /// [`RevokeError::Unknown`], or [`RevokeError::NotOnHold`].
    pub fn resume(&self, serial: &Serial) -> Result<(), RevokeError> {
        let mut ledger = self.ledger();
        if !ledger.issued.contains_key(serial) {
            return Err(RevokeError::Unknown);
        }
        match ledger.revoked.get(serial) {
            Some(known) if known.reason == Reason::CertificateHold => {
                ledger.revoked.remove(serial);
                Ok(())
            }
            _ => Err(RevokeError::NotOnHold),
        }
    }

    /// The CRL of one authority, made now; `None` when there is no such authority. Each has a number of its own.
    pub fn crl(&self, signer: Signer) -> Option<Vec<u8>> {
        let hierarchy = self.hierarchy();
        let by = hierarchy.signer(signer)?;
        let (number, now_ms, revoked) = {
            let mut ledger = self.ledger();
            let (number, now_ms) = (ledger.next_list(self.now_ms()), self.now_ms());
            let ended = ledger.revoked.iter().filter(|(serial, _)| {
                let issued = ledger.issued.get(serial);
                issued.is_some_and(|issued| {
                    signer == Signer::Generation(issued.generation) && issued.not_after_ms > now_ms
                })
            });
            (number, now_ms, ended.map(|(serial, how)| (*serial, *how)).collect::<Vec<_>>())
        };
        let next_ms = now_ms + i64::from(self.config.crl_hours) * HOUR_MS;
        Some(revocation::crl(by, number, now_ms, next_ms, revoked.into_iter()))
    }

    /// Answers a question over OCSP. Blocks while keys are made, if `twist` wants other ones.
    ///
    /// # Errors
    /// [`OcspRefusal`] when there is nothing to answer.
    pub fn ocsp(&self, request: &[u8], twist: Option<OcspTwist>) -> Result<Vec<u8>, OcspRefusal> {
        let now_ms = self.now_ms();
        let next_ms = now_ms + i64::from(self.config.crl_hours) * HOUR_MS;
        let stranger = (twist == Some(OcspTwist::Stranger)).then(|| self.stranger());
        let forgotten = twist == Some(OcspTwist::Forgotten);
        let hierarchy = self.hierarchy();
        let responder = revocation::Responder {
            signers: hierarchy.signers().collect(),
            stranger: stranger.as_ref().map(|stranger| &stranger.authority),
            now_ms,
            next_ms,
        };
        responder.answer(request, |signer, serial| {
            let ledger = self.ledger();
            match (ledger.issued.get(&serial), ledger.revoked.get(&serial)) {
                _ if forgotten => revocation::Status::Unknown,
                (Some(issued), _) if signer != Signer::Generation(issued.generation) => {
                    revocation::Status::Unknown
                }
                (Some(_), Some(how)) => revocation::Status::Revoked(*how),
                (Some(_), None) => revocation::Status::Good,
                (None, _) if hierarchy.has_signed(signer, &serial) => revocation::Status::Good,
                (None, _) => revocation::Status::Unknown,
            }
        })
    }

    /// Makes the next generation, which takes over at a time. Blocks while keys are made. An announced one is replaced.
    pub fn prepare_rollover(&self, at_ms: i64) -> Arc<Generation> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.hierarchy.load_full();
        let number = now.current().number + 1;
        let root = (self.config.tiers() == Tiers::Two).then_some(&now.root);
        let maker = self.maker();
        maker.make_keys(number);
        let next = Arc::new(maker.generation(root, number));
        self.hierarchy
            .store(Arc::new(Hierarchy { next: Some((Arc::clone(&next), at_ms)), ..(*now).clone() }));
        next
    }

    /// The announced generation takes over now. False when none is announced.
    pub fn roll_over(&self) -> bool {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hierarchy = (*self.hierarchy.load_full()).clone();
        let Some((next, _)) = hierarchy.next.take() else { return false };
        if self.config.tiers() == Tiers::One {
            hierarchy.root = next.authority.clone();
        }
        hierarchy.generations.push(next);
        self.hierarchy.store(Arc::new(hierarchy));
        true
    }

    /// New certificates for the RA of the current generation, with the same keys, good for so many days; already expired
    /// ones when `days` is negative. Without an RA nothing changes.
    pub fn renew_ra(&self, days: i32) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hierarchy = (*self.hierarchy.load_full()).clone();
        if let Some(current) = hierarchy.generations.last_mut() {
            *current = Arc::new(self.maker().with_ra(current.authority.clone(), current.number, days));
        }
        self.hierarchy.store(Arc::new(hierarchy));
    }

    fn maker(&self) -> Maker<'_> {
        Maker { config: &self.config, seed: self.company.seed, links: &self.links, now_ms: self.now_ms() }
    }

    fn again(&self, known: &Known) -> Decision {
        let decision = match known {
            Known::Same(id) => self.decision(*id),
            Known::Anothers => None,
        };
        decision.unwrap_or(Decision::Denied(Denial::AnothersTransaction, 0))
    }

    fn check_renewal(&self, submission: &Submission<'_>, csr: &Csr) -> Result<(), Denial> {
        let Some(serial) = submission.renews else { return Ok(()) };
        let old = self.certificate(&serial).ok_or(Denial::NotRenewable)?;
        let now_ms = self.now_ms();
        if old.not_after_ms <= now_ms || self.revocation(&serial).is_some() {
            return Err(Denial::NotRenewable);
        }
        if self.config.renewal_same_subject && old.name != csr.subject_raw() {
            return Err(Denial::SubjectChanged);
        }
        let window = self.config.template(&old.template).map_or(0, |template| template.renewal_days);
        if window > 0 && old.not_after_ms - i64::from(window) * DAY_MS > now_ms {
            return Err(Denial::TooEarly);
        }
        Ok(())
    }

    fn first_state(&self, draft: &Arc<Draft>, hold: bool) -> State {
        if hold {
            return State::Pending { draft: Arc::clone(draft), due_ms: None };
        }
        match self.config.template(&draft.template).map_or(Approval::None, |template| template.approval) {
            Approval::None => State::Deciding,
            Approval::Manual => State::Pending { draft: Arc::clone(draft), due_ms: None },
            Approval::AfterSecs(secs) => {
                let due_ms = Some(self.now_ms() + i64::from(secs) * 1_000);
                State::Pending { draft: Arc::clone(draft), due_ms }
            }
        }
    }

    /// Signs outside the lock and enters the result.
    fn issue(&self, id: u32, draft: &Draft) -> Decision {
        let (hierarchy, now_ms, serial) = (self.hierarchy(), self.now_ms(), Serial::random());
        let generation = hierarchy.current();
        let (certificate, not_before_ms, not_after_ms) = draft.sign(generation, &self.links, serial, now_ms);
        let mut ledger = self.ledger();
        let Some(request) = ledger.requests.get(&id) else { return Decision::Denied(Denial::BooksFull, 0) };
        let issued = Arc::new(Issued {
            request: id,
            serial,
            certificate,
            generation: generation.number,
            name: draft.name.clone(),
            subject: draft.subject.clone(),
            alternative_names: draft.alternative_texts.clone(),
            template: draft.template.clone(),
            requester: request.requester.clone(),
            front: request.front,
            issued_ms: now_ms,
            not_before_ms,
            not_after_ms,
            key_sha256: draft.key_sha256,
        });
        ledger.decide(id, State::Issued(Arc::clone(&issued)));
        self.decided.notify_all();
        Decision::Issued(issued)
    }

    fn take_pending(&self, id: u32, then: State) -> Result<Arc<Draft>, DecideError> {
        let mut ledger = self.ledger();
        let draft = match &ledger.requests.get(&id).ok_or(DecideError::Unknown)?.state {
            State::Pending { draft, .. } => Arc::clone(draft),
            _ => return Err(DecideError::Decided),
        };
        ledger.decide(id, then);
        Ok(draft)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Entries are whole before they are entered, so a panic leaves at worst one that is missing.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transaction that was seen before.
enum Known {
    /// With the very same request, of this number.
    Same(u32),
    /// With another one, or by somebody else.
    Anothers,
}

fn known(
    ledger: &Ledger,
    submission: &Submission<'_>,
    fingerprint: &[u8; 32],
    key: &[u8; 32],
) -> Option<Known> {
    let transaction = submission.transaction.as_ref()?;
    let before = ledger.of_transaction(submission.front, &transaction.id)?;
    let same_asker = before.transaction.as_ref().is_some_and(|own| own.asker == transaction.asker);
    match &before.state {
        // Nothing came of it, so its name is free.
        State::Denied(_) => None,
        _ if same_asker && before.fingerprint == *fingerprint => Some(Known::Same(before.id)),
        // The same key comes again after it got its certificate: many clients make the name from the key.
        State::Issued(_) if before.key_sha256 == *key => None,
        _ => Some(Known::Anothers),
    }
}
