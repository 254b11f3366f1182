//! The signed outside of messages (RFC 8894 section 3.1), read before anything is believed.

use super::error::ScepError;
use super::request::Request;
use super::types::{MessageType, TransactionId};
use crate::cms::{CmsError, SignedData, Signer};
use crate::limits::SCEP_NONCE_MAX_BYTES;
use crate::pkix::ber::Node;
use crate::pkix::{Accept, Certificate, Digest, Oid, PublicKeyKind, oid};

/// What every message says about itself, and what an answer must repeat.
#[derive(Clone, Debug)]
pub struct Header {
    /// Which message it is.
    pub kind: MessageType,
    /// Which transaction it belongs to.
    pub transaction: TransactionId,
    /// senderNonce.
    pub sender_nonce: Vec<u8>,
    /// The digest it is signed with, where that is one we sign with too; answers use it.
    pub digest: Option<Digest>,
}

/// A request as it came: readable, but not to be believed.
#[derive(Clone, Debug)]
pub struct Unverified {
    header: Header,
    signed: SignedData,
}

impl Unverified {
    /// Reads a message sent to a server.
    ///
    /// # Errors
    /// [`ScepError::MessageType`] for types that do not exist and for answers, before anything else of the message is
    /// looked at. Without a transactionID and a senderNonce there is nothing to answer to: [`ScepError::Attribute`].
    pub fn read(bytes: &[u8]) -> Result<Self, ScepError> {
        let signed = SignedData::read(bytes).map_err(ScepError::outer)?;
        let signer = signed.signer().map_err(ScepError::outer)?;
        let kind = kind(signer)?;
        if kind == MessageType::CertRep {
            return Err(ScepError::MessageType { found: kind.code().to_owned() });
        }
        let header = header(kind, signer)?;
        Ok(Self { header, signed })
    }

    /// What it says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The certificate it claims to be signed with.
    pub fn signer(&self) -> Option<&Certificate> {
        self.signed.certificate_of(self.signed.signers.first()?)
    }

    /// Verifies that whoever sent it has the key of the certificate that came along. Whether that certificate means
    /// anything is for the server to say; dates of self-signed ones do not.
    pub fn verify(&self, accept: Accept) -> Result<Request, ScepError> {
        let signer = self.signed.signer().map_err(ScepError::outer)?;
        let certificate = self.signer().ok_or(ScepError::BadSignature)?;
        // RFC 8894 section 2.3: only RSA can sign and decrypt.
        if !matches!(certificate.public_key().kind(), PublicKeyKind::Rsa { .. }) {
            return Err(ScepError::Algorithm {
                what: "key of the signer",
                oid: format!("{:?}", certificate.public_key().kind()),
            });
        }
        self.signed.verify(signer, certificate.public_key(), accept).map_err(|error| match error {
            CmsError::Malformed(_) => ScepError::BadSignature,
            other => ScepError::outer(other),
        })?;
        let envelope = self.signed.content.clone().ok_or(ScepError::Unreadable)?;
        Ok(Request::new(self.header.clone(), certificate.clone(), envelope, accept))
    }
}

/// messageType, the first thing read of a message.
pub(crate) fn kind(signer: &Signer) -> Result<MessageType, ScepError> {
    let code = text(signer, oid::SCEP_MESSAGE_TYPE).ok_or(ScepError::Attribute { what: "messageType" })?;
    MessageType::from_code(&code)
}

/// The attributes every request must have.
pub(crate) fn header(kind: MessageType, signer: &Signer) -> Result<Header, ScepError> {
    let sender_nonce =
        nonce(signer, oid::SCEP_SENDER_NONCE).ok_or(ScepError::Attribute { what: "senderNonce" })?;
    header_with(kind, signer, sender_nonce)
}

pub(crate) fn header_with(
    kind: MessageType,
    signer: &Signer,
    sender_nonce: Vec<u8>,
) -> Result<Header, ScepError> {
    let transaction = signer
        .attribute(oid::SCEP_TRANSACTION_ID)
        .and_then(|value| TransactionId::read(&Node::only("transactionID", value).ok()?))
        .ok_or(ScepError::Attribute { what: "transactionID" })?;
    let digest = signer.digest(Accept::MODERN).ok();
    Ok(Header { kind, transaction, sender_nonce, digest })
}

/// An attribute that is a number in a string.
pub(crate) fn text(signer: &Signer, kind: Oid) -> Option<String> {
    let node = Node::only("attribute", signer.attribute(kind)?).ok()?;
    String::from_utf8(node.octets("attribute").ok()?.into_owned()).ok()
}

pub(crate) fn nonce(signer: &Signer, kind: Oid) -> Option<Vec<u8>> {
    let node = Node::only("nonce", signer.attribute(kind)?).ok()?;
    let bytes = node.octets("nonce").ok()?;
    (!bytes.is_empty() && bytes.len() <= SCEP_NONCE_MAX_BYTES).then(|| bytes.into_owned())
}
