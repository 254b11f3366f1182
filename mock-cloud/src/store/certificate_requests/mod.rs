//! Requests for certificates: from the wish to the device's word that it has the certificate.

mod course;
mod look;

pub(super) use course::issue;

use causeway_protocol::action::ErrorReport;
use causeway_protocol::certificate::SealTo;
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::StoreError;
use super::certificates::{Chained, NewCertificate};
use super::rows::{json_opt, unsigned};

/// How far a request is.
pub mod stages {
    /// The device must act: ask for the challenge, hand in a signing request or its key.
    pub const WANTED: &str = "wanted";
    /// The device has the challenge and makes its signing request.
    pub const CHALLENGED: &str = "challenged";
    /// Everything is there; the order is on its way to an agent.
    pub const ORDERED: &str = "ordered";
    /// The authority waits for a person.
    pub const AWAITING_APPROVAL: &str = "awaiting_approval";
    /// The certificate is there; the device has not said that it has it.
    pub const ISSUED: &str = "issued";
    /// The device has it.
    pub const INSTALLED: &str = "installed";
    /// It came to nothing; `error` says why.
    pub const FAILED: &str = "failed";
    /// Nobody wants it any more.
    pub const CANCELLED: &str = "cancelled";
}

/// Why a certificate is wanted.
pub mod reasons {
    /// The device has none.
    pub const ENROL: &str = "enrol";
    /// The one it has ends.
    pub const RENEW: &str = "renew";
    /// The one it has is lost, or its profile has changed.
    pub const REPLACE: &str = "replace";
}

/// A request for a certificate.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CertificateRequest {
    /// Names the request and its order for ever.
    pub id: String,
    /// The enrolled device.
    pub device: String,
    /// Whose it is.
    pub user: String,
    /// The profile.
    pub profile: String,
    /// Its version.
    pub version: u64,
    /// `enrol`, `renew` or `replace`.
    pub reason: String,
    /// SHA-256 of the certificate it takes the place of.
    pub renews: Option<String>,
    /// `wanted`, `challenged`, `ordered`, `checked`, `submitted`, `awaiting_approval`, `retrying`, `issued`, `installed`,
    /// `failed`, `cancelled`.
    pub stage: String,
    /// Whether it is still under way.
    pub open: bool,
    /// Counts the tries since the last one that worked.
    pub attempt: u32,
    /// The action that orders it from an agent.
    pub action: Option<String>,
    /// SHA-256 of the certificate that came of it.
    pub certificate: Option<String>,
    /// Why it failed.
    #[schema(value_type = Option<Object>)]
    pub error: Option<ErrorReport>,
    /// Unix milliseconds of the wish.
    pub created_ms: i64,
    /// Unix milliseconds of the last change.
    pub changed_ms: i64,
    /// Unix milliseconds of its end.
    pub ended_ms: Option<i64>,
    /// Unix milliseconds from which another one may follow, when it failed.
    pub retry_ms: Option<i64>,
    #[serde(skip)]
    pub(crate) seq: i64,
}

/// A line of a request's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RequestStep {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// The stage that began, or what else happened.
    pub event: String,
    /// A few words for people.
    pub detail: String,
}

/// What a device hands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandedIn {
    /// Its signing request.
    Csr {
        /// As it rests here: DER, or with a seal CMS EnvelopedData around it.
        body: Vec<u8>,
        /// The seal it was encrypted for.
        seal: Option<SealTo>,
        /// SHA-256 over the DER, hexadecimal.
        sha256: String,
        /// Its public key (SubjectPublicKeyInfo), DER.
        key: Vec<u8>,
    },
    /// The public key the identity is encrypted to, DER.
    DeviceKey(Vec<u8>),
}

/// What handing in met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenIn {
    /// Recorded.
    New,
    /// The same was handed in before.
    Same,
    /// Something else was handed in before.
    Other,
    /// The challenge was never asked for, or its time is over.
    NoChallenge,
    /// The request is not at a point where anything can be handed in, or there is none.
    NotNow,
}

/// What only dispatch needs of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestParts {
    /// The signing request: DER, or with a seal CMS EnvelopedData around it.
    pub csr: Option<Vec<u8>>,
    /// The public key in it (SubjectPublicKeyInfo), DER.
    pub csr_key: Option<Vec<u8>>,
    /// The device's public key, DER.
    pub device_key: Option<Vec<u8>>,
    /// How a signing request with a challenge is to be protected, and for which agent; none where there is no challenge.
    pub seal: Option<(SealTo, String)>,
    /// The identity, encrypted for the device.
    pub identity: Option<Vec<u8>>,
}

/// What a device installs.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// The certificate.
    pub certificate: Option<Chained>,
    /// The identity, encrypted for the device.
    pub identity: Option<Vec<u8>>,
}

/// What an order has brought for a request.
#[derive(Clone, Debug)]
pub struct IssuedRequest {
    /// The request's id.
    pub id: String,
    /// The certificate.
    pub certificate: NewCertificate,
    /// The identity, encrypted for the device.
    pub identity: Option<Vec<u8>>,
    /// A few words for the timeline.
    pub detail: String,
}

/// A request to open.
#[derive(Clone, Debug)]
pub struct NewRequest {
    /// The enrolled device.
    pub device: String,
    /// Whose it is.
    pub user: String,
    /// The profile.
    pub profile: String,
    /// Its version.
    pub version: u64,
    /// See [`reasons`].
    pub reason: &'static str,
    /// SHA-256 of the certificate it takes the place of.
    pub renews: Option<String>,
    /// Whether it comes from the timetable.
    pub planned: bool,
    /// The device's public key, where the agent makes identities and the device has said it before.
    pub device_key: Option<Vec<u8>>,
    /// Who wants it, and a few words for people.
    pub detail: String,
}

/// Which requests.
#[derive(Clone, Debug, Default)]
pub struct RequestFilter {
    /// Only at this stage.
    pub stage: Option<String>,
    /// Only those under way, or only those that are over.
    pub open: Option<bool>,
    /// Only of this device.
    pub device: Option<String>,
    /// Only by this profile.
    pub profile: Option<String>,
}

const COLUMNS: &str = "r.seq, r.id, r.device, r.owner, r.profile, r.version, r.reason, r.renews, r.stage, r.is_open, \
                       r.attempt, r.action, r.certificate, r.error, r.created_ms, r.changed_ms, r.ended_ms, r.retry_ms";

fn one(connection: &Connection, tenant: &str, id: &str) -> Result<Option<CertificateRequest>, StoreError> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM certificate_requests r WHERE r.tenant = ?1 AND r.id = ?2"
    ))?;
    Ok(collect(query.query(params![tenant, id])?)?.pop())
}

fn collect(mut rows: rusqlite::Rows<'_>) -> Result<Vec<CertificateRequest>, StoreError> {
    let mut requests = Vec::new();
    while let Some(row) = rows.next()? {
        requests.push(read(row)?);
    }
    Ok(requests)
}

fn read(row: &Row<'_>) -> Result<CertificateRequest, StoreError> {
    Ok(CertificateRequest {
        seq: row.get("seq")?,
        id: row.get("id")?,
        device: row.get("device")?,
        user: row.get("owner")?,
        profile: row.get("profile")?,
        version: unsigned(row, "version")?,
        reason: row.get("reason")?,
        renews: row.get("renews")?,
        stage: row.get("stage")?,
        open: row.get("is_open")?,
        attempt: row.get("attempt")?,
        action: row.get("action")?,
        certificate: row.get("certificate")?,
        error: json_opt("error of a certificate request", row.get("error")?)?,
        created_ms: row.get("created_ms")?,
        changed_ms: row.get("changed_ms")?,
        ended_ms: row.get("ended_ms")?,
        retry_ms: row.get("retry_ms")?,
    })
}
