//! The small closed sets of SCEP (RFC 8894 section 3.2.1).

use std::fmt;

use super::error::ScepError;
use crate::limits::SCEP_TRANSACTION_MAX_BYTES;
use crate::pkix::ber::{Node, PRINTABLE_STRING};
use crate::pkix::{Digest, PublicKey, algorithm, der};

/// messageType (section 3.2.1.2). Closed: what is not here is refused, 18 (UpdateReq of old drafts) for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// 3: an answer.
    CertRep,
    /// 17: a request signed with the certificate that is to be renewed.
    RenewalReq,
    /// 19: a request.
    PkcsReq,
    /// 20: what became of a request.
    CertPoll,
    /// 21: a certificate that was issued.
    GetCert,
    /// 22: the list of revoked ones.
    GetCrl,
}

impl MessageType {
    const ALL: [Self; 6] =
        [Self::CertRep, Self::RenewalReq, Self::PkcsReq, Self::CertPoll, Self::GetCert, Self::GetCrl];

    /// Its number as it travels.
    pub fn code(self) -> &'static str {
        match self {
            Self::CertRep => "3",
            Self::RenewalReq => "17",
            Self::PkcsReq => "19",
            Self::CertPoll => "20",
            Self::GetCert => "21",
            Self::GetCrl => "22",
        }
    }

    /// Reads the number.
    ///
    /// # Errors
    /// [`ScepError::MessageType`] for every other.
    pub fn from_code(code: &str) -> Result<Self, ScepError> {
        let found = Self::ALL.into_iter().find(|kind| kind.code() == code);
        found.ok_or_else(|| ScepError::MessageType { found: code.escape_debug().take(32).collect() })
    }
}

/// pkiStatus (section 3.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PkiStatus {
    /// 0: here it is.
    Success,
    /// 2: no; failInfo says why.
    Failure,
    /// 3: a person must decide.
    Pending,
}

impl PkiStatus {
    /// Its number as it travels.
    pub fn code(self) -> &'static str {
        match self {
            Self::Success => "0",
            Self::Failure => "2",
            Self::Pending => "3",
        }
    }

    pub(crate) fn from_code(code: &str) -> Option<Self> {
        [Self::Success, Self::Failure, Self::Pending].into_iter().find(|status| status.code() == code)
    }
}

/// failInfo (section 3.2.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailInfo {
    /// 0: an algorithm is not known or not allowed.
    BadAlg,
    /// 1: the message was damaged, or could not be decrypted.
    BadMessageCheck,
    /// 2: the request is not allowed: challenge, subject, policy.
    BadRequest,
    /// 3: the signing time is too far from the server's.
    BadTime,
    /// 4: no certificate or request by that name.
    BadCertId,
}

impl FailInfo {
    const ALL: [Self; 5] =
        [Self::BadAlg, Self::BadMessageCheck, Self::BadRequest, Self::BadTime, Self::BadCertId];

    /// Its number as it travels.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadAlg => "0",
            Self::BadMessageCheck => "1",
            Self::BadRequest => "2",
            Self::BadTime => "3",
            Self::BadCertId => "4",
        }
    }

    /// Its name in RFC 8894.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadAlg => "badAlg",
            Self::BadMessageCheck => "badMessageCheck",
            Self::BadRequest => "badRequest",
            Self::BadTime => "badTime",
            Self::BadCertId => "badCertId",
        }
    }

    pub(crate) fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fail| fail.code() == code)
    }
}

/// transactionID (section 3.2.1.1): opaque, compared byte by byte. Clients put hexadecimal, base64 and decimal digits of
/// very different lengths into it.
#[derive(Clone)]
pub struct TransactionId {
    tag: u8,
    bytes: Vec<u8>,
}

impl TransactionId {
    /// From a text of our own. What PrintableString does not allow is left out.
    pub fn new(text: &str) -> Self {
        let allowed = text.bytes().filter(|byte| crate::pkix::name::is_printable(*byte));
        Self { tag: PRINTABLE_STRING, bytes: allowed.take(SCEP_TRANSACTION_MAX_BYTES).collect() }
    }

    /// The one RFC 8894 recommends: a digest over the key to be certified, so that it is the same after a restart.
    pub fn for_key(key: &PublicKey) -> Self {
        Self::new(&algorithm::hex(Digest::Sha256.of(key.spki()).as_ref()).to_uppercase())
    }

    pub(crate) fn read(node: &Node<'_>) -> Option<Self> {
        let bytes = node.octets("transactionID").ok()?.into_owned();
        if bytes.is_empty() || bytes.len() > SCEP_TRANSACTION_MAX_BYTES || node.is_constructed() {
            return None;
        }
        Some(Self { tag: node.tag(), bytes })
    }

    /// Its encoding, with the type of string it came in.
    pub(crate) fn to_der(&self) -> Vec<u8> {
        der::element(self.tag, &self.bytes)
    }

    /// What is compared.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for TransactionId {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for TransactionId {}

impl std::hash::Hash for TransactionId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes.escape_ascii())
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
