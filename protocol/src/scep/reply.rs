//! Answers (CertRep, RFC 8894 section 3.3.2): written by servers, read by clients.

use super::authority::CaCertificates;
use super::error::ScepError;
use super::message::{Header, header_with, kind, nonce, text};
use super::request::{Request, ScepRandom};
use super::types::{FailInfo, MessageType, PkiStatus};
use crate::cms::{self, Bag, ContentCipher, EnvelopedData, KeyTransport, Recipient, SignedData, SignerKey};
use crate::pkix::{Accept, Certificate, Digest, Key, Oid, der, oid};

/// Writes answers: who signs them.
#[derive(Clone, Copy, Debug)]
pub struct Replier<'a> {
    /// The authority or its registration authority.
    pub signer: SignerKey<'a>,
}

impl Replier<'_> {
    /// SUCCESS around a bag ([`cms::write_bag`], leaf first), encrypted to whoever signed the request.
    pub fn success(
        &self,
        request: &Request,
        bag: &[u8],
        cipher: ContentCipher,
        random: &ScepRandom,
    ) -> Result<Vec<u8>, ScepError> {
        let to = Recipient::Certificate(request.signer());
        let envelope =
            cms::seal(bag, to, cipher, KeyTransport::Pkcs1, &random.seal).map_err(ScepError::Write)?;
        self.write(request.header(), PkiStatus::Success, Some(&envelope), &[], random.nonce)
    }

    /// PENDING: come again.
    pub fn pending(&self, header: &Header, nonce: [u8; 16]) -> Result<Vec<u8>, ScepError> {
        self.write(header, PkiStatus::Pending, None, &[], nonce)
    }

    /// FAILURE, with a text for people (failInfoText) where it helps nobody who should not be helped. Without a reason it
    /// is what section 3.2.1.4 forbids and some authorities send.
    pub fn failure(
        &self,
        header: &Header,
        fail: impl Into<Option<FailInfo>>,
        text: Option<&str>,
        nonce: [u8; 16],
    ) -> Result<Vec<u8>, ScepError> {
        let fail = fail.into().map(|fail| (oid::SCEP_FAIL_INFO, der::printable(fail.code())));
        let mut attributes: Vec<_> = fail.into_iter().collect();
        attributes.extend(text.map(|text| (oid::SCEP_FAIL_INFO_TEXT, der::utf8(text))));
        self.write(header, PkiStatus::Failure, None, &attributes, nonce)
    }

    fn write(
        &self,
        header: &Header,
        status: PkiStatus,
        content: Option<&[u8]>,
        more: &[(Oid, Vec<u8>)],
        nonce: [u8; 16],
    ) -> Result<Vec<u8>, ScepError> {
        let mut attributes = vec![
            (oid::SCEP_MESSAGE_TYPE, der::printable(MessageType::CertRep.code())),
            (oid::SCEP_PKI_STATUS, der::printable(status.code())),
            (oid::SCEP_TRANSACTION_ID, header.transaction.to_der()),
            (oid::SCEP_SENDER_NONCE, der::octets(&nonce)),
            (oid::SCEP_RECIPIENT_NONCE, der::octets(&header.sender_nonce)),
        ];
        attributes.extend_from_slice(more);
        let digest = header.digest.unwrap_or(Digest::Sha256);
        cms::sign(self.signer, digest, oid::CMS_DATA, content, &attributes, &[]).map_err(ScepError::Write)
    }
}

/// What an answer says.
#[derive(Clone, Debug)]
pub enum Answer {
    /// SUCCESS with certificates or CRLs.
    Success(Bag),
    /// PENDING.
    Pending,
    /// FAILURE.
    Failure {
        /// Why; `None` where the server did not say, or with a number that does not exist.
        fail: Option<FailInfo>,
        /// Text for people.
        text: Option<String>,
    },
}

/// An answer as it came: readable, but not to be believed.
#[derive(Clone, Debug)]
pub struct CertRep {
    header: Header,
    recipient_nonce: Vec<u8>,
    status: PkiStatus,
    signed: SignedData,
}

impl CertRep {
    /// Reads an answer.
    pub fn read(bytes: &[u8]) -> Result<Self, ScepError> {
        let signed = SignedData::read(bytes).map_err(ScepError::outer)?;
        let signer = signed.signer().map_err(ScepError::outer)?;
        let kind = kind(signer)?;
        if kind != MessageType::CertRep {
            return Err(ScepError::MessageType { found: kind.code().to_owned() });
        }
        // Answers of some servers have no senderNonce; nobody needs it.
        let sender_nonce = nonce(signer, oid::SCEP_SENDER_NONCE).unwrap_or_default();
        let header = header_with(kind, signer, sender_nonce)?;
        let recipient_nonce = nonce(signer, oid::SCEP_RECIPIENT_NONCE)
            .ok_or(ScepError::Attribute { what: "recipientNonce" })?;
        let status = text(signer, oid::SCEP_PKI_STATUS)
            .and_then(|code| PkiStatus::from_code(&code))
            .ok_or(ScepError::Attribute { what: "pkiStatus" })?;
        Ok(Self { header, recipient_nonce, status, signed })
    }

    /// What it says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The nonce of the request it answers.
    pub fn recipient_nonce(&self) -> &[u8] {
        &self.recipient_nonce
    }

    /// Its pkiStatus.
    pub fn status(&self) -> PkiStatus {
        self.status
    }

    /// Verifies that the authority or its registration authority signed it, and reads what it says. `key` and `own`
    /// signed the request. The caller compares transaction and nonce.
    pub fn open(
        &self,
        authority: &CaCertificates,
        key: &Key,
        own: &Certificate,
        accept: Accept,
    ) -> Result<Answer, ScepError> {
        let signer = self.signed.signer().map_err(ScepError::outer)?;
        let certificate = authority.signers().find(|certificate| signer.id.names(certificate));
        let certificate = certificate.ok_or(ScepError::AnotherSigner)?;
        self.signed.verify(signer, certificate.public_key(), accept).map_err(ScepError::outer)?;
        match self.status {
            PkiStatus::Pending => Ok(Answer::Pending),
            PkiStatus::Failure => Ok(Answer::Failure {
                fail: text(signer, oid::SCEP_FAIL_INFO).and_then(|code| FailInfo::from_code(&code)),
                text: text(signer, oid::SCEP_FAIL_INFO_TEXT),
            }),
            PkiStatus::Success => {
                let envelope = self.signed.content.as_deref().ok_or(ScepError::Unreadable)?;
                let envelope = EnvelopedData::read(envelope, accept).map_err(ScepError::inner)?;
                let plain = envelope.open(key, Some(own)).map_err(ScepError::inner)?;
                Bag::read(&plain).map(Answer::Success).map_err(|_| ScepError::Unreadable)
            }
        }
    }
}
