//! A client of OCSP (RFC 6960), as a careful server has it: an answer counts if the issuer or somebody it has appointed has
//! signed it, if it is about this certificate, answers this question, and is not over.

use std::time::Duration;

use anyhow::Context as _;
use causeway_protocol::pkix::ber::{ENUMERATED, INTEGER, Node, OCTET_STRING, Reader, SEQUENCE, context};
use causeway_protocol::pkix::{
    Accept, Certificate, Digest, Extension, PkixError, SignatureAlgorithm, der, oid, time,
};

use crate::http;

/// How long the responder may take.
const WITHIN: Duration = Duration::from_secs(5);

/// The largest answer that is read: one with a chain of four is about 6 KiB.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Answers and certificates in one response that are looked at; we ask about one.
const ANSWERS_MAX: usize = 16;

/// How far the responder's clock may be ahead of ours.
const SKEW_MS: i64 = 5 * 60 * 1_000;

/// How long an answer counts that does not say itself (RFC 6960 section 4.2.2.1).
const AGE_MAX_MS: i64 = 60 * 60 * 1_000;

const WHAT: &str = "OCSP response";

/// What the responder says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not revoked.
    Good,
    /// Revoked at that time (Unix milliseconds), for that reason (RFC 5280 section 5.3.1) if it says one.
    Revoked(i64, Option<u32>),
    /// The responder knows no such certificate.
    Unknown,
}

/// Why an answer does not count.
#[derive(Debug, thiserror::Error)]
pub enum OcspError {
    /// A status other than successful (RFC 6960 section 4.2.1).
    #[error("the responder refuses with status {0}")]
    Refused(u32),
    /// No such structure.
    #[error("the answer cannot be read")]
    Malformed(#[from] PkixError),
    /// Signed by somebody who may not.
    #[error("the answer is signed neither by the issuer nor by somebody it has appointed")]
    Signer,
    /// Another certificate's.
    #[error("the answer is about another certificate")]
    About,
    /// A nonce that was not sent.
    #[error("the answer is for another question")]
    Nonce,
    /// From too long ago, or from the future.
    #[error("the answer is not of this time")]
    Time,
}

/// A question about one certificate.
pub struct Question<'a> {
    certificate: &'a Certificate,
    issuer: &'a Certificate,
    nonce: [u8; 16],
}

impl<'a> Question<'a> {
    /// A question with a nonce, which nobody must have used before.
    pub fn new(certificate: &'a Certificate, issuer: &'a Certificate, nonce: [u8; 16]) -> Self {
        Self { certificate, issuer, nonce }
    }

    /// Asks the responder that the certificate names.
    ///
    /// # Errors
    /// When it names none, says nothing, or says what does not count.
    pub async fn ask(&self, now_ms: i64) -> anyhow::Result<Standing> {
        let urls = self.certificate.extensions().ocsp_urls().context("read where the responder is")?;
        let url = urls.first().context("the certificate names no responder")?;
        let asked = Some(("application/ocsp-request", self.to_der()));
        let answer = http::fetch(url, asked, ANSWER_MAX_BYTES, WITHIN).await?;
        Ok(self.read(&answer, now_ms)?)
    }

    /// `OCSPRequest`. SHA-1 names the issuer, as every responder knows it (RFC 5019 section 2.1.1): no security hangs on it.
    pub fn to_der(&self) -> Vec<u8> {
        let id = der::sequence(&[
            &Digest::Sha1.identifier(),
            &der::octets(Digest::Sha1.of(self.issuer.subject_raw()).as_ref()),
            &der::octets(&self.issuer.public_key().key_id()),
            &der::element(INTEGER, self.certificate.serial_raw()),
        ]);
        let requests = der::sequence(&[&der::sequence(&[&id])]);
        let nonce = Extension::new(oid::OCSP_NONCE, der::octets(&self.nonce)).to_der();
        der::sequence(&[&der::sequence(&[&requests, &der::explicit(2, &der::sequence(&[&nonce]))])])
    }

    /// Reads the responder's answer.
    ///
    /// # Errors
    /// [`OcspError`] says why it does not count.
    pub fn read(&self, answer: &[u8], now_ms: i64) -> Result<Standing, OcspError> {
        let mut response = Node::only(WHAT, answer)?.open(WHAT, SEQUENCE)?;
        let status =
            response.expect(ENUMERATED)?.body().iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
        if status != 0 {
            return Err(OcspError::Refused(status));
        }
        let mut bytes = response.expect(context(0))?.inside(WHAT)?.sequence()?;
        if bytes.node()?.oid(WHAT)? != oid::OCSP_BASIC {
            return Err(OcspError::Malformed(PkixError::Malformed {
                what: WHAT,
                why: "its type is not known",
            }));
        }
        let basic = bytes.expect(OCTET_STRING)?.octets(WHAT)?;
        let mut basic = Node::only(WHAT, &basic)?.open(WHAT, SEQUENCE)?;
        let content = basic.expect(SEQUENCE)?;
        self.check_signature(&content, &mut basic, now_ms)?;
        self.read_content(&content, now_ms)
    }

    /// Whether the issuer has signed, or one it has issued a certificate for this purpose to (RFC 6960 section 4.2.2.2).
    fn check_signature(
        &self,
        content: &Node<'_>,
        basic: &mut Reader<'_>,
        now_ms: i64,
    ) -> Result<(), OcspError> {
        let algorithm = SignatureAlgorithm::read(&basic.expect(SEQUENCE)?)?;
        let signature = basic.node()?.bits(WHAT)?;
        let signed_by = |signer: &Certificate| {
            let key = signer.public_key();
            key.verify(WHAT, algorithm, content.raw(), &signature, Accept::default()).is_ok()
        };
        if signed_by(self.issuer) {
            return Ok(());
        }
        let Some(appointed) = basic.optional(context(0))? else { return Err(OcspError::Signer) };
        for node in appointed.inside(WHAT)?.sequence()?.take(ANSWERS_MAX) {
            let signer = Certificate::read(node?.raw())?;
            let lasts = (signer.not_before_ms()..=signer.not_after_ms()).contains(&now_ms);
            if lasts
                && signer.extensions().extended_key_usage()?.contains(&oid::OCSP_SIGNING)
                && signer.issued_by(self.issuer, Accept::default())
                && signed_by(&signer)
            {
                return Ok(());
            }
        }
        Err(OcspError::Signer)
    }

    fn read_content(&self, content: &Node<'_>, now_ms: i64) -> Result<Standing, OcspError> {
        let mut fields = content.open(WHAT, SEQUENCE)?;
        fields.optional(context(0))?;
        let _responder = fields.node()?;
        let _produced = fields.node()?;
        let answers = fields.sequence()?;
        if let Some(extensions) = fields.optional(context(1))? {
            self.check_nonce(&extensions)?;
        }
        for answer in answers.take(ANSWERS_MAX) {
            let mut fields = answer?.open(WHAT, SEQUENCE)?;
            if self.is_about(&fields.expect(SEQUENCE)?)? {
                return standing(&mut fields, now_ms);
            }
        }
        Err(OcspError::About)
    }

    /// A responder may leave the nonce out (RFC 6960 section 4.4.1); one it sends must be ours.
    fn check_nonce(&self, extensions: &Node<'_>) -> Result<(), OcspError> {
        for extension in extensions.inside(WHAT)?.sequence()?.take(ANSWERS_MAX) {
            let mut fields = extension?.open(WHAT, SEQUENCE)?;
            if fields.node()?.oid(WHAT)? != oid::OCSP_NONCE {
                continue;
            }
            let value = fields.find(|node| node.as_ref().is_ok_and(|node| node.tag() == OCTET_STRING));
            let nonce = der::octets(&self.nonce);
            if !matches!(value, Some(Ok(value)) if value.body() == nonce) {
                return Err(OcspError::Nonce);
            }
        }
        Ok(())
    }

    fn is_about(&self, id: &Node<'_>) -> Result<bool, OcspError> {
        let mut fields = id.open(WHAT, SEQUENCE)?;
        let digest = fields.sequence()?.node()?.oid(WHAT)?;
        let name = fields.expect(OCTET_STRING)?.body();
        let key = fields.expect(OCTET_STRING)?.body();
        let serial = fields.expect(INTEGER)?.body();
        Ok(digest == oid::SHA1
            && name == Digest::Sha1.of(self.issuer.subject_raw()).as_ref()
            && key == self.issuer.public_key().key_id()
            && serial == self.certificate.serial_raw())
    }
}

/// The rest of a `SingleResponse`, behind the id.
fn standing(fields: &mut Reader<'_>, now_ms: i64) -> Result<Standing, OcspError> {
    let status = fields.node()?;
    let from_ms = time::read(&fields.node()?)?;
    let until_ms = match fields.optional(context(0))? {
        Some(until) => time::read(&until.inside(WHAT)?.node()?)?,
        None => from_ms + AGE_MAX_MS,
    };
    if from_ms > now_ms + SKEW_MS || until_ms < now_ms {
        return Err(OcspError::Time);
    }
    // The three are told apart by their tags: implicit NULL, a sequence, implicit NULL.
    Ok(match status.tag() {
        0x80 => Standing::Good,
        0xa1 => {
            let mut revoked = status.inside(WHAT)?;
            let at_ms = time::read(&revoked.node()?)?;
            let reason = match revoked.optional(context(0))? {
                Some(reason) => reason.inside(WHAT)?.expect(ENUMERATED)?.body().first().copied(),
                None => None,
            };
            Standing::Revoked(at_ms, reason.map(u32::from))
        }
        _ => Standing::Unknown,
    })
}
