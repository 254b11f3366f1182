//! Everything that was asked for and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::Denial;
use super::certificate::Serial;
use super::revocation::Revocation;

/// A certificate that was issued.
#[derive(Debug)]
pub struct Issued {
    /// [`Request::id`].
    pub request: u32,
    pub serial: Serial,
    /// DER.
    pub certificate: Vec<u8>,
    /// Which generation of the authority signed it.
    pub generation: u32,
    /// Subject, DER.
    pub name: Vec<u8>,
    /// Subject as RFC 4514 writes it.
    pub subject: String,
    /// `kind:value`
    pub alternative_names: Vec<String>,
    pub template: String,
    pub requester: String,
    pub front: &'static str,
    pub issued_ms: i64,
    pub not_before_ms: i64,
    pub not_after_ms: i64,
    /// SHA-256 over SubjectPublicKeyInfo.
    pub key_sha256: [u8; 32],
}

/// A request and how far it is.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counts from 1, as AD CS does it.
    pub id: u32,
    pub front: &'static str,
    pub requester: String,
    pub template: String,
    pub subject: String,
    pub submitted_ms: i64,
    /// SHA-256 over the request, DER.
    pub fingerprint: [u8; 32],
    /// SHA-256 over its public key.
    pub key_sha256: [u8; 32],
    pub transaction: Option<Transaction>,
    pub state: State,
}

/// What a protocol calls the request, so that a repeated one is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// The protocol's own id, as bytes: clients put anything there.
    pub id: Vec<u8>,
    /// SHA-256 over the public key that signed the message; only it may ask again. All zeros where the protocol has none.
    pub asker: [u8; 32],
}

/// How far a request is.
#[derive(Clone, Debug)]
pub enum State {
    /// Being decided right now.
    Deciding,
    /// Waits for a person, or until the clock shows `due_ms`.
    Pending {
        /// What will be issued.
        draft: Arc<super::policy::Draft>,
        due_ms: Option<i64>,
    },
    Issued(Arc<Issued>),
    Denied(Denial),
}

/// What an administrator sees of a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RequestView {
    pub id: u32,
    pub front: String,
    pub requester: String,
    pub template: String,
    pub subject: String,
    pub submitted_ms: i64,
    /// `pending`, `issued` or `denied`.
    pub state: String,
    /// Why it was denied.
    pub reason: Option<String>,
    /// Serial number of what was issued, hexadecimal.
    pub serial: Option<String>,
}

impl Request {
    pub fn view(&self) -> RequestView {
        let (state, reason, serial) = match &self.state {
            State::Deciding | State::Pending { .. } => ("pending", None, None),
            State::Issued(issued) => ("issued", None, Some(issued.serial.to_string())),
            State::Denied(denial) => ("denied", Some(denial.to_string()), None),
        };
        RequestView {
            id: self.id,
            front: self.front.to_owned(),
            requester: self.requester.clone(),
            template: self.template.clone(),
            subject: self.subject.clone(),
            submitted_ms: self.submitted_ms,
            state: state.to_owned(),
            reason,
            serial,
        }
    }
}

/// The books. Behind one lock in [`super::Authority`]; nothing slow happens in here.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) requests: BTreeMap<u32, Request>,
    pub(super) issued: HashMap<Serial, Arc<Issued>>,
    /// The newest request of each transaction.
    pub(super) transactions: HashMap<(&'static str, Vec<u8>), u32>,
    pub(super) revoked: BTreeMap<Serial, Revocation>,
    /// Number of the newest CRL.
    list_number: u64,
    last_id: u32,
}

impl Ledger {
    pub(super) fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// The number of a CRL made now: greater than that of every list before (RFC 5280 section 5.2.3). It follows the clock,
    /// because the books may begin anew while the authority's key stays the same.
    pub(super) fn next_list(&mut self, now_ms: i64) -> u64 {
        self.list_number = (self.list_number + 1).max(now_ms.unsigned_abs());
        self.list_number
    }

    /// The newest request of a transaction.
    pub(super) fn of_transaction(&self, front: &'static str, id: &[u8]) -> Option<&Request> {
        // A key of borrowed parts would need a type of its own; transaction ids are short.
        let id = self.transactions.get(&(front, id.to_vec()))?;
        self.requests.get(id)
    }

    pub(super) fn enter(&mut self, request: Request) {
        // A refused request takes no name away from one that was not: whoever guesses a transaction's name could make its
        // owner's next try a new request otherwise.
        let refused = matches!(request.state, State::Denied(_));
        if let Some(transaction) = &request.transaction
            && !(refused && self.of_transaction(request.front, &transaction.id).is_some())
        {
            self.transactions.insert((request.front, transaction.id.clone()), request.id);
        }
        self.requests.insert(request.id, request);
    }

    pub(super) fn decide(&mut self, id: u32, state: State) {
        if let State::Issued(issued) = &state {
            self.issued.insert(issued.serial, Arc::clone(issued));
        }
        if let Some(request) = self.requests.get_mut(&id) {
            request.state = state;
        }
    }
}
