//! Requests: opened by servers, written by clients (RFC 8894 section 3.3).

use zeroize::Zeroizing;

use super::caps::Suite;
use super::error::ScepError;
use super::message::Header;
use super::types::{MessageType, TransactionId};
use crate::cms::{self, ContentCipher, EnvelopedData, KeyTransport, Recipient, SealRandom, SignerKey};
use crate::pkix::ber::{INTEGER, Node, SEQUENCE, trim_zeros};
use crate::pkix::{Accept, Certificate, Csr, Digest, Key, Name, PkixError, algorithm, der, oid};

/// A request whose signature is good. Its contents are still encrypted.
#[derive(Clone, Debug)]
pub struct Request {
    header: Header,
    signer: Certificate,
    envelope: Vec<u8>,
    accept: Accept,
}

/// What a request asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// PKCSReq or RenewalReq: a certificate. Whether the request's own signature is good, the server checks.
    Certificate(Box<Csr>),
    /// CertPoll: what became of a request.
    Poll {
        /// Name of the authority.
        issuer: Name,
        /// Name in the request.
        subject: Name,
    },
    /// GetCert: a certificate that was issued.
    Issued {
        /// Its issuer.
        issuer: Name,
        /// Its serial number, lower case hexadecimal without leading zeros.
        serial: String,
    },
    /// GetCRL: the list that a certificate would be on.
    Crl {
        /// Its issuer.
        issuer: Name,
        /// Its serial number, lower case hexadecimal without leading zeros.
        serial: String,
    },
}

/// A request, opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What it asks for.
    pub asked: Asked,
    /// The cipher it came in; answers use it, except single DES, which is answered with triple DES.
    pub cipher: ContentCipher,
}

impl Request {
    pub(crate) fn new(header: Header, signer: Certificate, envelope: Vec<u8>, accept: Accept) -> Self {
        Self { header, signer, envelope, accept }
    }

    /// What the message says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The certificate it is signed with: self-signed for a first request, the one to be renewed for RenewalReq. Answers
    /// are encrypted to it.
    pub fn signer(&self) -> &Certificate {
        &self.signer
    }

    /// Digest over the encrypted contents, by which a server knows a repeated request.
    pub fn sha256(&self) -> String {
        Digest::Sha256.hex_of(&self.envelope)
    }

    /// Decrypts with the key of the authority or registration authority whose certificate `own` is.
    ///
    /// # Errors
    /// [`ScepError::Algorithm`] for ciphers that are not accepted, which everybody can see. [`ScepError::BadRequest`]
    /// where the signing request was readable and has a name nobody should get. Everything else is
    /// [`ScepError::Unreadable`], from wrong padding to contents that make no sense.
    pub fn open(&self, key: &Key, own: &Certificate) -> Result<Opened, ScepError> {
        let envelope = EnvelopedData::read(&self.envelope, self.accept).map_err(ScepError::inner)?;
        let plain = envelope.open(key, Some(own)).map_err(ScepError::inner)?;
        let cipher = match envelope.cipher() {
            ContentCipher::Des => ContentCipher::TripleDes,
            cipher => cipher,
        };
        Ok(Opened { asked: Asked::read(self.header.kind, &plain)?, cipher })
    }
}

impl Asked {
    fn read(kind: MessageType, plain: &[u8]) -> Result<Self, ScepError> {
        match kind {
            MessageType::PkcsReq | MessageType::RenewalReq => match Csr::read(plain) {
                Ok(csr) => Ok(Self::Certificate(Box::new(csr))),
                Err(error @ PkixError::ControlCharacter { .. }) => Err(ScepError::BadRequest(error)),
                Err(_) => Err(ScepError::Unreadable),
            },
            MessageType::CertPoll => {
                let (issuer, subject) = pair(plain).map_err(|_| ScepError::Unreadable)?;
                let subject = Name::read(subject).map_err(|_| ScepError::Unreadable)?;
                Ok(Self::Poll { issuer, subject })
            }
            MessageType::GetCert | MessageType::GetCrl => {
                let (issuer, serial) = pair(plain).map_err(|_| ScepError::Unreadable)?;
                let serial = serial_text(serial).ok_or(ScepError::Unreadable)?;
                if kind == MessageType::GetCert {
                    Ok(Self::Issued { issuer, serial })
                } else {
                    Ok(Self::Crl { issuer, serial })
                }
            }
            MessageType::CertRep => Err(ScepError::MessageType { found: kind.code().to_owned() }),
        }
    }
}

/// A SEQUENCE of a name and something.
fn pair(plain: &[u8]) -> Result<(Name, &[u8]), PkixError> {
    const WHAT: &str = "contents of the message";
    let mut fields = Node::only(WHAT, plain)?.open(WHAT, SEQUENCE)?;
    let name = fields.expect(SEQUENCE)?;
    Ok((Name::read(name.raw())?, fields.node()?.raw()))
}

fn serial_text(raw: &[u8]) -> Option<String> {
    let node = Node::only("serial number", raw).ok().filter(|node| node.tag() == INTEGER)?;
    let digits = algorithm::hex(trim_zeros(node.body()));
    let digits = digits.trim_start_matches('0');
    Some(if digits.is_empty() { "0".to_owned() } else { digits.to_owned() })
}

/// Random bytes for one message: its nonce, its content key, its initialisation vector. Never use them twice.
pub struct ScepRandom {
    pub(crate) nonce: [u8; 16],
    pub(crate) seal: SealRandom,
}

impl ScepRandom {
    /// From 64 bytes of a cryptographic source.
    pub fn new(bytes: [u8; 64]) -> Self {
        let bytes = Zeroizing::new(bytes);
        let (mut nonce, mut seal) = ([0; 16], Zeroizing::new([0; 48]));
        nonce.copy_from_slice(&bytes[..16]);
        seal.copy_from_slice(&bytes[16..]);
        Self { nonce, seal: SealRandom::new(*seal) }
    }
}

/// Writes requests: who signs them, whom they are for, in which transaction.
#[derive(Clone, Copy, Debug)]
pub struct RequestWriter<'a> {
    /// What was negotiated.
    pub suite: Suite,
    /// The certificate the contents are encrypted to: [`super::CaCertificates::recipient`].
    pub recipient: &'a Certificate,
    /// Who signs.
    pub signer: SignerKey<'a>,
    /// The transaction.
    pub transaction: &'a TransactionId,
}

impl RequestWriter<'_> {
    /// PKCSReq, or RenewalReq when `renewal`, around a signing request.
    pub fn certificate(&self, csr: &[u8], renewal: bool, random: &ScepRandom) -> Result<Vec<u8>, ScepError> {
        let kind = if renewal { MessageType::RenewalReq } else { MessageType::PkcsReq };
        self.write(kind, csr, random)
    }

    /// CertPoll for a request with this subject, to the authority of this name; both DER.
    pub fn poll(&self, issuer: &[u8], subject: &[u8], random: &ScepRandom) -> Result<Vec<u8>, ScepError> {
        self.write(MessageType::CertPoll, &der::sequence(&[issuer, subject]), random)
    }

    /// GetCert for a certificate: issuer as DER, serial number as bytes.
    pub fn issued(&self, issuer: &[u8], serial: &[u8], random: &ScepRandom) -> Result<Vec<u8>, ScepError> {
        self.write(MessageType::GetCert, &der::sequence(&[issuer, &der::unsigned(serial)]), random)
    }

    /// GetCRL for the list a certificate would be on: issuer as DER, serial number as bytes.
    pub fn crl(&self, issuer: &[u8], serial: &[u8], random: &ScepRandom) -> Result<Vec<u8>, ScepError> {
        self.write(MessageType::GetCrl, &der::sequence(&[issuer, &der::unsigned(serial)]), random)
    }

    fn write(&self, kind: MessageType, plain: &[u8], random: &ScepRandom) -> Result<Vec<u8>, ScepError> {
        let to = Recipient::Certificate(self.recipient);
        let envelope = cms::seal(plain, to, self.suite.cipher, KeyTransport::Pkcs1, &random.seal)
            .map_err(ScepError::Write)?;
        let attributes = [
            (oid::SCEP_MESSAGE_TYPE, der::printable(kind.code())),
            (oid::SCEP_TRANSACTION_ID, self.transaction.to_der()),
            (oid::SCEP_SENDER_NONCE, der::octets(&random.nonce)),
        ];
        cms::sign(self.signer, self.suite.digest, oid::CMS_DATA, Some(&envelope), &attributes, &[])
            .map_err(ScepError::Write)
    }
}
