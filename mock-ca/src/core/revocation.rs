//! Certificates that ended early, as a CRL (RFC 5280 section 5) and as answers over OCSP (RFC 6960) say it.

use causeway_protocol::pkix::ber::{ENUMERATED, Node, OCTET_STRING, SEQUENCE, context};
use causeway_protocol::pkix::{Digest, Oid, PkixError, der, oid, time};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Signer;
use super::certificate::{Serial, extension};
use super::hierarchy::{Identity, signature, signed};
use crate::limits::OCSP_REQUESTS_MAX;

/// Why a certificate ended (RFC 5280 section 5.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    #[default]
    Unspecified,
    KeyCompromise,
    CaCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    /// Can be taken back.
    CertificateHold,
    PrivilegeWithdrawn,
    AaCompromise,
}

impl Reason {
    pub const ALL: [Self; 9] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::CaCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::CertificateHold,
        Self::PrivilegeWithdrawn,
        Self::AaCompromise,
    ];

    /// The number of RFC 5280.
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::CaCompromise => 2,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::CertificateHold => 6,
            Self::PrivilegeWithdrawn => 9,
            Self::AaCompromise => 10,
        }
    }

    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// An end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Revocation {
    pub reason: Reason,
    pub at_ms: i64,
}

/// A whole CRL of one authority.
pub(super) fn crl(
    by: &Identity,
    number: u64,
    now_ms: i64,
    next_ms: i64,
    revoked: impl Iterator<Item = (Serial, Revocation)>,
) -> Vec<u8> {
    let key = &by.key;
    let entries: Vec<Vec<u8>> = revoked.map(|(serial, revocation)| entry(serial, revocation)).collect();
    let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    // An empty list is left out altogether (RFC 5280 section 5.1.2.6).
    let entries = if entries.is_empty() { Vec::new() } else { der::sequence(&entries) };
    let issuer_key = der::sequence(&[&der::implicit(0, &key.public_key().key_id())]);
    let extensions = der::sequence(&[
        &extension(oid::AUTHORITY_KEY_ID, false, &issuer_key),
        &extension(oid::CRL_NUMBER, false, &der::unsigned(&number.to_be_bytes())),
    ]);
    let content = der::sequence(&[
        &der::small(1),
        &key.signature_algorithm(Digest::Sha256).identifier(),
        &by.name,
        &time::write(now_ms),
        &time::write(next_ms),
        &entries,
        &der::explicit(0, &extensions),
    ]);
    signed(&content, key)
}

fn entry(serial: Serial, revocation: Revocation) -> Vec<u8> {
    // The reason unspecified should be left out (RFC 5280 section 5.3.1).
    let extensions = match revocation.reason {
        Reason::Unspecified => Vec::new(),
        reason => {
            let code = der::element(ENUMERATED, &[reason.code()]);
            der::sequence(&[&extension(oid::CRL_REASON, false, &code)])
        }
    };
    der::sequence(&[&serial.der(), &time::write(revocation.at_ms), &extensions])
}

/// What the responder knows of one certificate.
pub(super) enum Status {
    Good,
    Revoked(Revocation),
    Unknown,
}

/// Why there is no answer about certificates (RFC 6960 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspRefusal {
    MalformedRequest,
    /// Ask again later.
    TryLater,
    /// The request is about another authority's certificates only.
    Unauthorized,
}

impl OcspRefusal {
    /// The whole response that says so.
    pub fn response(self) -> Vec<u8> {
        let code = match self {
            Self::MalformedRequest => 1,
            Self::TryLater => 3,
            Self::Unauthorized => 6,
        };
        der::sequence(&[&der::element(ENUMERATED, &[code])])
    }
}

/// What a fault makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcspTwist {
    /// The books are lost: every certificate is unknown.
    Forgotten,
    /// An authority of the same name with another key answers.
    Stranger,
}

/// Who answers.
pub(super) struct Responder<'a> {
    /// Whose certificates are asked about.
    pub(super) signers: Vec<(Signer, &'a Identity)>,
    /// Who signs in their place.
    pub(super) stranger: Option<&'a Identity>,
    pub(super) now_ms: i64,
    pub(super) next_ms: i64,
}

impl Responder<'_> {
    /// Answers a request. `status` is asked once for each serial number.
    pub(super) fn answer(
        &self,
        request: &[u8],
        status: impl Fn(Signer, Serial) -> Status,
    ) -> Result<Vec<u8>, OcspRefusal> {
        let (now_ms, next_ms) = (self.now_ms, self.next_ms);
        let asked = Question::read(request).map_err(|_| OcspRefusal::MalformedRequest)?;
        let mine = |id: &CertId<'_>| self.signers.iter().copied().find(|(_, one)| is_issuer(one, id));
        // One answer has one signer, so one request is about one authority.
        let (signer, by) = asked.ids.iter().find_map(mine).ok_or(OcspRefusal::Unauthorized)?;
        let mut answers = Vec::with_capacity(asked.ids.len());
        for id in &asked.ids {
            let known = Serial::from_bytes(id.serial).filter(|_| is_issuer(by, id));
            let status = match known.map_or(Status::Unknown, |serial| status(signer, serial)) {
                Status::Good => der::implicit(0, &[]),
                Status::Unknown => der::implicit(2, &[]),
                Status::Revoked(revocation) => {
                    let reason = der::element(ENUMERATED, &[revocation.reason.code()]);
                    der::joined(
                        context(1),
                        &[&time::write_generalized(revocation.at_ms), &der::explicit(0, &reason)],
                    )
                }
            };
            let next = der::explicit(0, &time::write_generalized(next_ms));
            answers.push(der::sequence(&[id.raw, &status, &time::write_generalized(now_ms), &next]));
        }
        let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
        let by = self.stranger.unwrap_or(by);
        let key = &by.key;
        let nonce = asked.nonce.map_or_else(Vec::new, |nonce| der::explicit(1, &der::sequence(&[nonce])));
        let content = der::sequence(&[
            &der::explicit(2, &der::octets(&key.public_key().key_id())),
            &time::write_generalized(now_ms),
            &der::sequence(&answers),
            &nonce,
        ]);
        let (algorithm, signature) = signature(&content, key);
        let certificates = der::explicit(0, &der::sequence(&[by.certificate.raw()]));
        let basic = der::sequence(&[&content, &algorithm, &signature, &certificates]);
        let bytes = der::sequence(&[&der::oid(oid::OCSP_BASIC), &der::octets(&basic)]);
        Ok(der::sequence(&[&der::element(ENUMERATED, &[0]), &der::explicit(0, &bytes)]))
    }
}

/// Whether an id names this authority: by the digests of its name and its key (RFC 6960 section 4.1.1).
fn is_issuer(authority: &Identity, id: &CertId<'_>) -> bool {
    let digests = [
        (oid::SHA1, Digest::Sha1),
        (oid::SHA256, Digest::Sha256),
        (oid::SHA384, Digest::Sha384),
        (oid::SHA512, Digest::Sha512),
    ];
    let Some((_, digest)) = digests.into_iter().find(|(oid, _)| *oid == id.digest) else { return false };
    digest.of(&authority.name).as_ref() == id.name_hash
        && digest.of(authority.key.public_key().bits()).as_ref() == id.key_hash
}

/// A question over OCSP (RFC 6960 section 4.1.1).
struct Question<'a> {
    ids: Vec<CertId<'a>>,
    /// The whole nonce extension, which is sent back.
    nonce: Option<&'a [u8]>,
}

/// `CertID`
struct CertId<'a> {
    raw: &'a [u8],
    digest: Oid,
    name_hash: &'a [u8],
    key_hash: &'a [u8],
    /// Body of the INTEGER.
    serial: &'a [u8],
}

impl<'a> Question<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, PkixError> {
        const WHAT: &str = "OCSP request";
        let mut content = Node::only(WHAT, bytes)?.open(WHAT, SEQUENCE)?.sequence()?;
        let _version = content.optional(context(0))?;
        let _requestor = content.optional(context(1))?;
        let mut ids = Vec::new();
        for request in content.sequence()?.take(OCSP_REQUESTS_MAX) {
            let id = request?.open(WHAT, SEQUENCE)?.node()?;
            let mut fields = id.open(WHAT, SEQUENCE)?;
            ids.push(CertId {
                raw: id.raw(),
                digest: fields.sequence()?.node()?.oid(WHAT)?,
                name_hash: fields.expect(OCTET_STRING)?.body(),
                key_hash: fields.expect(OCTET_STRING)?.body(),
                serial: fields.node()?.body(),
            });
        }
        let mut nonce = None;
        if let Some(extensions) = content.optional(context(2))? {
            for extension in extensions.inside(WHAT)?.sequence()? {
                let extension = extension?;
                if extension.open(WHAT, SEQUENCE)?.node()?.oid(WHAT)? == oid::OCSP_NONCE {
                    nonce = Some(extension.raw());
                }
            }
        }
        Ok(Self { ids, nonce })
    }
}
