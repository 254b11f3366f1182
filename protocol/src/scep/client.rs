//! The client's machine: one certificate from one authority, from the request to the answer.

use std::sync::Arc;

use super::authority::CaCertificates;
use super::caps::Suite;
use super::error::ScepError;
use super::reply::{Answer, CertRep};
use super::request::{RequestWriter, ScepRandom};
use super::types::{FailInfo, TransactionId};
use crate::cms::SignerKey;
use crate::pkix::{Certificate, Csr, Key};

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Here it is; its key is the request's.
    Issued {
        /// The certificate.
        certificate: Certificate,
        /// What came along: usually authorities.
        others: Vec<Certificate>,
    },
    /// A person must decide; poll later.
    Pending,
    /// No.
    Failed {
        /// Why; `None` where the server did not say.
        fail: Option<FailInfo>,
        /// Text for people, if the server sent one. It is the server's: bound and escape it before showing it.
        text: Option<String>,
    },
}

/// One request for a certificate, over all its messages.
///
/// Everything but the nonce of the last message can be made again after a restart from what the caller keeps: the signing
/// request, the key that signs the messages, and the transaction.
#[derive(Debug)]
pub struct Enrollment {
    suite: Suite,
    authority: CaCertificates,
    csr: Csr,
    key: Arc<Key>,
    certificate: Certificate,
    transaction: TransactionId,
    renewal: bool,
    nonce: Option<[u8; 16]>,
}

impl Enrollment {
    /// Begins. `key` and `certificate` sign the messages and open the answers: RSA, self-signed
    /// ([`crate::pkix::self_signed`]) or the certificate that is to be renewed. They need not be those of the signing
    /// request: who asks on behalf of a device has no key of the device's.
    pub fn new(
        suite: Suite,
        authority: CaCertificates,
        csr: Csr,
        key: Arc<Key>,
        certificate: Certificate,
        transaction: TransactionId,
    ) -> Self {
        Self { suite, authority, csr, key, certificate, transaction, renewal: false, nonce: None }
    }

    /// Sends RenewalReq instead of PKCSReq: for a `certificate` of this authority. Servers that do not say that they can
    /// renew take a PKCSReq with it just as well.
    pub fn renewing(mut self) -> Self {
        self.renewal = self.suite.renewal;
        self
    }

    /// The transaction.
    pub fn transaction(&self) -> &TransactionId {
        &self.transaction
    }

    /// The request, to be sent as PKIOperation. Sent again, it is the same transaction.
    pub fn request(&mut self, random: &ScepRandom) -> Result<Vec<u8>, ScepError> {
        let message = self.writer()?.certificate(self.csr.raw(), self.renewal, random)?;
        self.nonce = Some(random.nonce);
        Ok(message)
    }

    /// The question what became of it, after [`Outcome::Pending`] or a restart.
    pub fn poll(&mut self, random: &ScepRandom) -> Result<Vec<u8>, ScepError> {
        let issuer = self.authority.ca().subject_raw();
        let message = self.writer()?.poll(issuer, self.csr.subject_raw(), random)?;
        self.nonce = Some(random.nonce);
        Ok(message)
    }

    fn writer(&self) -> Result<RequestWriter<'_>, ScepError> {
        Ok(RequestWriter {
            suite: self.suite,
            recipient: self.authority.recipient()?,
            signer: SignerKey { certificate: &self.certificate, key: &self.key },
            transaction: &self.transaction,
        })
    }

    /// Reads the answer to the message made last.
    ///
    /// # Errors
    /// Everything that makes it somebody else's answer has its own error. None of them says anything about what became
    /// of the request: ask again.
    pub fn answer(&self, bytes: &[u8]) -> Result<Outcome, ScepError> {
        let reply = CertRep::read(bytes)?;
        if reply.header().transaction != self.transaction {
            return Err(ScepError::AnotherTransaction);
        }
        if self.nonce.is_none_or(|nonce| reply.recipient_nonce() != nonce) {
            return Err(ScepError::AnotherNonce);
        }
        match reply.open(&self.authority, &self.key, &self.certificate, self.suite.accept)? {
            Answer::Pending => Ok(Outcome::Pending),
            Answer::Failure { fail, text } => Ok(Outcome::Failed { fail, text }),
            Answer::Success(bag) => self.pick(bag.certificates),
        }
    }

    /// The certificate with our key, wherever in the bag it is; issued by this authority.
    fn pick(&self, mut certificates: Vec<Certificate>) -> Result<Outcome, ScepError> {
        let ours = |certificate: &Certificate| {
            !certificate.is_ca() && certificate.public_key().same_as(self.csr.public_key())
        };
        let at = certificates.iter().position(ours).ok_or(ScepError::AnotherKey)?;
        let certificate = certificates.remove(at);
        let accept = crate::pkix::Accept { sha1: true, ..self.suite.accept };
        if !self.authority.chain().iter().any(|ca| certificate.issued_by(ca, accept)) {
            return Err(ScepError::NoAuthority { why: "the certificate is issued by another one" });
        }
        Ok(Outcome::Issued { certificate, others: certificates })
    }
}
