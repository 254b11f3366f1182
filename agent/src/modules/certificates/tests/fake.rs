//! An authority in memory that really issues, remembers by request what it has issued as a server does by transaction,
//! and can be told to do everything wrong. It survives the agent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use causeway_protocol::Secret;
use causeway_protocol::certificate::{CertificateId, KeyKind, RevocationReason};
use causeway_protocol::pkix::{Accept, CertificateDraft, Csr, Digest, Key, Name, PublicKey, self_signed};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use super::super::rules::hex;
use crate::ca::{Answer, Authority, CaError, Challenge, Keep, Order, Revocation, Seen};
use crate::directory::Net;

pub(super) const HOST: &str = "ca.acme.example";

#[derive(Clone)]
pub(super) struct Fake(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    key: Key,
    certificate: Vec<u8>,
    turns: Arc<Semaphore>,
}

/// What it does with the next request.
pub(super) enum Next {
    /// Fails before anything is sent.
    Unsent,
    /// Takes the request and issues, but the answer is lost.
    Lost,
    /// Says so and issues nothing.
    Fails(CaError),
    /// Waits for [`Fake::approve`].
    Pending,
    /// Issues for another key.
    OtherKey,
    /// Answers with something that is no certificate.
    Garbage,
}

#[derive(Default)]
pub(super) struct State {
    /// Certificates by request.
    pub(super) issued: BTreeMap<String, Vec<Vec<u8>>>,
    pub(super) pending: BTreeMap<String, (Vec<u8>, bool)>,
    pub(super) next: VecDeque<Next>,
    pub(super) next_challenge: VecDeque<CaError>,
    /// Challenges that are good; by SHA-256.
    pub(super) challenges: Vec<String>,
    pub(super) handed_out: u32,
    pub(super) submits: u32,
    pub(super) polls: u32,
    /// Whether requests need one.
    pub(super) wants_challenge: bool,
    pub(super) revoked: Vec<CertificateId>,
    pub(super) ends: Vec<(String, i64)>,
    pub(super) front_ends: Vec<(String, Option<String>)>,
    pub(super) down: bool,
}

impl Fake {
    pub(super) fn new() -> Self {
        let key = Key::generate(KeyKind::P256).unwrap();
        let subject = Name::parse("/O=Acme/CN=Fake CA").unwrap().to_der();
        let certificate = self_signed(&key, subject, &[1; 16], 0, 4_000_000_000_000).unwrap();
        let turns = Arc::new(Semaphore::new(4));
        Self(Arc::new(Inner { state: Mutex::default(), key, certificate, turns }))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn then(&self, next: Next) {
        self.state().next.push_back(next);
    }

    pub(super) fn approve(&self) {
        self.state().pending.values_mut().for_each(|(_, approved)| *approved = true);
    }

    pub(super) fn count(&self, request: &str) -> usize {
        self.state().issued.get(request).map_or(0, Vec::len)
    }

    /// Challenges handed out, requests handed in, questions asked.
    pub(super) fn figures(&self) -> (u32, u32, u32) {
        let state = self.state();
        (state.handed_out, state.submits, state.polls)
    }

    pub(super) fn turns_left(&self) -> usize {
        self.0.turns.available_permits()
    }

    fn issue(&self, request: &str, csr: &[u8]) -> Answer {
        let csr = Csr::read(csr).unwrap();
        let certificate = self.certificate_for(request, &csr, csr.public_key().clone());
        let mut state = self.state();
        state.issued.entry(request.to_owned()).or_default().push(certificate.clone());
        Answer::Issued { certificate, chain: vec![self.0.certificate.clone()] }
    }

    fn certificate_for(&self, request: &str, csr: &Csr, public_key: PublicKey) -> Vec<u8> {
        let count = self.count(request);
        let mut serial = digest(&SHA256, format!("{request} {count}").as_bytes()).as_ref()[..16].to_vec();
        serial[0] = serial[0] & 0x7f | 1;
        let issuer = causeway_protocol::pkix::Certificate::read(&self.0.certificate).unwrap();
        let draft = CertificateDraft {
            serial,
            issuer: issuer.subject_raw().to_vec(),
            subject: csr.subject_raw().to_vec(),
            not_before_ms: 1_700_000_000_000,
            not_after_ms: 1_900_000_000_000,
            public_key,
            extensions: csr.extensions().0.clone(),
        };
        draft.sign(&self.0.key, Digest::Sha256).unwrap()
    }

    fn takes(&self, csr: &[u8]) -> Result<(), CaError> {
        let csr = Csr::read(csr).unwrap();
        csr.verify(Accept::MODERN).unwrap();
        let mut state = self.state();
        if !state.wants_challenge {
            return Ok(());
        }
        let shown = csr.challenge().map(|text| hex(digest(&SHA256, text.expose().as_bytes()).as_ref()));
        let at = state.challenges.iter().position(|good| Some(good) == shown.as_ref());
        match at {
            Some(at) => {
                state.challenges.remove(at);
                Ok(())
            }
            None => Err(CaError::ChallengeRefused { host: HOST.into(), detail: "used or unknown".into() }),
        }
    }

    async fn take(&self, order: &Order, keep: &dyn Keep) -> Result<Answer, CaError> {
        self.state().submits += 1;
        let next = self.state().next.pop_front();
        // Each of these is a place where the agent can die.
        yield_now().await;
        if self.state().down || matches!(next, Some(Next::Unsent)) {
            return Err(unreachable(false));
        }
        keep.keep(json!({ "request": order.request })).await?;
        yield_now().await;
        match next {
            Some(Next::Fails(error)) => return Err(error),
            Some(Next::Garbage) => {
                return Ok(Answer::Issued { certificate: b"<html>".to_vec(), chain: Vec::new() });
            }
            Some(Next::OtherKey) => {
                let csr = Csr::read(&order.csr).unwrap();
                let other = Key::generate(KeyKind::P256).unwrap().public_key().clone();
                let certificate = self.certificate_for(&order.request, &csr, other);
                return Ok(Answer::Issued { certificate, chain: Vec::new() });
            }
            _ => {}
        }
        self.takes(&order.csr)?;
        if matches!(next, Some(Next::Pending)) {
            let waiting = (order.csr.clone(), false);
            self.state().pending.insert(order.request.clone(), waiting);
            return Ok(Answer::Pending { ticket: json!({ "request": order.request }), ask_after: None });
        }
        let answer = self.issue(&order.request, &order.csr);
        yield_now().await;
        if matches!(next, Some(Next::Lost)) {
            return Err(unreachable(true));
        }
        Ok(answer)
    }

    async fn asked(&self, ticket: &Value) -> Result<Answer, CaError> {
        let request = ticket["request"].as_str().unwrap().to_owned();
        self.state().polls += 1;
        yield_now().await;
        if self.state().down {
            return Err(unreachable(true));
        }
        let known = self.state().issued.get(&request).and_then(|all| all.first().cloned());
        if let Some(certificate) = known {
            return Ok(Answer::Issued { certificate, chain: vec![self.0.certificate.clone()] });
        }
        let waiting = self.state().pending.get(&request).cloned();
        match waiting {
            Some((csr, true)) => {
                self.state().pending.remove(&request);
                Ok(self.issue(&request, &csr))
            }
            Some((_, false)) => Ok(Answer::Pending { ticket: ticket.clone(), ask_after: None }),
            None => Ok(Answer::Unknown),
        }
    }
}

fn unreachable(sent: bool) -> CaError {
    CaError::Unreachable { host: HOST.into(), sent, source: "cut".into() }
}

impl Authority for Fake {
    fn look<'a>(&'a self, _net: &'a Net) -> BoxFuture<'a, Result<Seen, CaError>> {
        Box::pin(async move {
            if self.state().down {
                return Err(unreachable(false));
            }
            let chain = vec![self.0.certificate.clone()];
            let State { ends, front_ends, .. } = &*self.state();
            Ok(Seen { chain, ends: ends.clone(), front_ends: front_ends.clone(), ..Seen::default() })
        })
    }

    fn challenge<'a>(&'a self, _net: &'a Net) -> BoxFuture<'a, Result<Option<Challenge>, CaError>> {
        Box::pin(async move {
            yield_now().await;
            if let Some(error) = self.state().next_challenge.pop_front() {
                return Err(error);
            }
            if !self.state().wants_challenge {
                return Ok(None);
            }
            let turn = self.0.turns.clone().acquire_owned().await.unwrap();
            let mut state = self.state();
            state.handed_out += 1;
            let password = format!("canary-challenge-{}", state.handed_out);
            state.challenges.push(hex(digest(&SHA256, password.as_bytes()).as_ref()));
            Ok(Some(Challenge {
                password: Secret::new(password),
                good_for: Duration::from_secs(57 * 60),
                once: true,
                at: None,
                turn: Some(turn),
            }))
        })
    }

    fn submit<'a>(
        &'a self,
        _net: &'a Net,
        order: &'a Order,
        keep: &'a dyn Keep,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(self.take(order, keep))
    }

    fn poll<'a>(
        &'a self,
        _net: &'a Net,
        _order: &'a Order,
        ticket: &'a Value,
    ) -> BoxFuture<'a, Result<Answer, CaError>> {
        Box::pin(self.asked(ticket))
    }

    fn revoke<'a>(
        &'a self,
        _net: &'a Net,
        id: &'a CertificateId,
        _reason: RevocationReason,
    ) -> BoxFuture<'a, Result<Revocation, CaError>> {
        Box::pin(async move {
            if self.state().down {
                return Err(unreachable(false));
            }
            self.state().revoked.push(id.clone());
            Ok(Revocation::Done)
        })
    }
}
