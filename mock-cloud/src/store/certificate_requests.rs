//! Requests for certificates: from the wish to the device's word that it has the certificate.

use causeway_protocol::action::ErrorReport;
use causeway_protocol::certificate::{RevocationReason, SealTo};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::{self, Entry};
use super::certificates::{self, NewCertificate};
use super::rows::{Page, json_opt, one_more, signed, to_json, unsigned};
use super::{ActionRow, Store, StoreError};
use crate::limits::{CERTIFICATE_TURN_MAX, TIMELINE_MAX};

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

impl Store {
    /// Opens a request, or gives the one that is open for the device and profile. Says whether it is new.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open_request(
        &self,
        tenant: &str,
        new: NewRequest,
        now_ms: i64,
    ) -> Result<(CertificateRequest, bool), StoreError> {
        let (tenant, id) = (tenant.to_owned(), self.ids.next().to_string());
        self.write(move |connection| open(connection, &tenant, id, &new, now_ms)).await
    }

    /// One request with its timeline.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate_request(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<(CertificateRequest, Vec<RequestStep>)>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let Some(request) = one(connection, &tenant, &id)? else { return Ok(None) };
            let mut query = connection.prepare_cached(
                "SELECT at_ms, event, detail FROM certificate_timeline WHERE request = ?1 ORDER BY n",
            )?;
            let steps = query.query_map([&id], |row| {
                Ok(RequestStep { at_ms: row.get(0)?, event: row.get(1)?, detail: row.get(2)? })
            })?;
            let steps = steps.collect::<Result<Vec<_>, _>>()?;
            Ok(Some((request, steps)))
        })
        .await
    }

    /// Requests, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate_requests(
        &self,
        tenant: &str,
        filter: RequestFilter,
        limit: usize,
        before: Option<i64>,
    ) -> Result<Page<CertificateRequest>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            // Without a bare comparison the index on it is not used.
            let stage = if filter.stage.is_some() { "AND r.stage = ?3" } else { "AND ?3 IS NULL" };
            let device = if filter.device.is_some() { "AND r.device = ?5" } else { "AND ?5 IS NULL" };
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM certificate_requests r WHERE r.tenant = ?1 AND r.seq < ?2 {stage} \
                 AND (?4 IS NULL OR r.is_open = ?4) {device} AND (?6 IS NULL OR r.profile = ?6) \
                 ORDER BY r.seq DESC LIMIT ?7"
            ))?;
            let rows = query.query(params![
                tenant,
                before.unwrap_or(i64::MAX),
                filter.stage,
                filter.open,
                filter.device,
                filter.profile,
                one_more(limit)
            ])?;
            Ok(Page::cut(collect(rows)?, limit, |request| request.seq.to_string()))
        })
        .await
    }

    /// The newest request of each profile for a device.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn newest_requests(
        &self,
        tenant: &str,
        device: &str,
    ) -> Result<Vec<CertificateRequest>, StoreError> {
        let (tenant, device) = (tenant.to_owned(), device.to_owned());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM certificate_requests r WHERE r.seq IN (SELECT max(seq) FROM certificate_requests \
                 WHERE tenant = ?1 AND device = ?2 GROUP BY profile)"
            ))?;
            collect(query.query(params![tenant, device])?)
        })
        .await
    }

    /// What only dispatch needs of a request.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_parts(&self, tenant: &str, id: &str) -> Result<RequestParts, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT csr, csr_key, device_key, identity, seal, seal_agent FROM certificate_requests \
                 WHERE tenant = ?1 AND id = ?2",
            )?;
            let mut rows = query.query(params![tenant, id])?;
            let Some(row) = rows.next()? else { return Ok(RequestParts::default()) };
            let seal: Option<SealTo> = json_opt("seal of a certificate request", row.get(4)?)?;
            Ok(RequestParts {
                csr: row.get(0)?,
                csr_key: row.get(1)?,
                device_key: row.get(2)?,
                identity: row.get(3)?,
                seal: seal.zip(row.get(5)?),
            })
        })
        .await
    }

    /// The public key a device gave last for a profile.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn last_device_key(
        &self,
        tenant: &str,
        device: &str,
        profile: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let key = [tenant.to_owned(), device.to_owned(), profile.to_owned()];
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT device_key FROM certificate_requests WHERE tenant = ?1 AND device = ?2 AND profile = ?3 \
                 AND device_key IS NOT NULL ORDER BY seq DESC LIMIT 1",
            )?;
            Ok(query.query_row(key, |row| row.get(0)).optional()?)
        })
        .await
    }

    /// A challenge was handed out for a request that nothing was handed in for yet; an earlier one is no longer good.
    /// `false` when it is too late for that. The request takes on the profile's current version.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note_challenge(
        &self,
        tenant: &str,
        id: &str,
        seal: Option<(SealTo, String)>,
        until_ms: i64,
        version: u64,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.write(move |connection| {
            let (seal, agent) = seal.unzip();
            let seal = seal.as_ref().map(to_json);
            let changed = connection
                .prepare_cached(
                    "UPDATE certificate_requests SET stage = 'challenged', seal = ?3, seal_agent = ?4, \
                     challenge_until_ms = ?5, version = ?6, changed_ms = ?7 WHERE tenant = ?1 AND id = ?2 \
                     AND stage IN ('wanted', 'challenged')",
                )?
                .execute(params![tenant, id, seal, agent, until_ms, signed(version), now_ms])?;
            if changed == 1 {
                note(connection, &tenant, &id, now_ms, stages::CHALLENGED, "")?;
            }
            Ok(changed == 1)
        })
        .await
    }

    /// The device hands in what its request needs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn hand_in(
        &self,
        tenant: &str,
        id: &str,
        handed: HandedIn,
        version: u64,
        now_ms: i64,
    ) -> Result<TakenIn, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.write(move |connection| take_in(connection, &tenant, &id, &handed, version, now_ms)).await
    }

    /// The order of a request has this action.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_ordered(
        &self,
        tenant: &str,
        id: &str,
        action: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (tenant, id, action) = (tenant.to_owned(), id.to_owned(), action.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE certificate_requests SET action = ?3, changed_ms = ?4 WHERE tenant = ?1 AND id = ?2",
                )?
                .execute(params![tenant, id, action, now_ms])?;
            Ok(())
        })
        .await
    }

    /// An agent says how far the action of a request is. Gives the request when that is news.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_stage(
        &self,
        tenant: &str,
        action: &str,
        stage: &'static str,
        detail: String,
        now_ms: i64,
    ) -> Result<Option<CertificateRequest>, StoreError> {
        let (tenant, action) = (tenant.to_owned(), action.to_owned());
        self.write(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM certificate_requests r WHERE r.action = ?2 AND r.tenant = ?1 AND r.is_open = 1 \
                 AND r.settled = 0"
            ))?;
            let Some(request) = collect(query.query(params![tenant, action])?)?.pop() else {
                return Ok(None);
            };
            if request.stage == stage && detail.is_empty() {
                return Ok(None);
            }
            set_stage(connection, &tenant, &request.id, stage, now_ms)?;
            note(connection, &tenant, &request.id, now_ms, stage, &detail)?;
            one(connection, &tenant, &request.id)
        })
        .await
    }

    /// Requests whose order was not given to dispatch yet, and the ends of orders that were not taken into account.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn unsettled_requests(
        &self,
        tenant: &str,
    ) -> Result<(Vec<CertificateRequest>, Vec<(CertificateRequest, ActionRow)>), StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let limit = one_more(CERTIFICATE_TURN_MAX);
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM certificate_requests r WHERE r.tenant = ?1 AND r.settled = 0 \
                 AND r.stage = 'ordered' AND r.action IS NULL ORDER BY r.seq LIMIT ?2"
            ))?;
            let unordered = collect(query.query(params![tenant, limit])?)?;
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM certificate_requests r JOIN actions a ON a.id = r.action WHERE r.tenant = ?1 \
                 AND r.settled = 0 AND a.status <> 'pending' ORDER BY r.seq LIMIT ?2"
            ))?;
            let ended = collect(query.query(params![tenant, limit])?)?;
            let mut with_actions = Vec::with_capacity(ended.len());
            for request in ended {
                let id = request.action.as_deref().unwrap_or_default();
                if let Some(action) = super::actions::one(connection, &tenant, id)? {
                    with_actions.push((request, action));
                }
            }
            Ok((unordered, with_actions))
        })
        .await
    }

    /// The order of a request has ended with a certificate. It becomes the request's own when that still waits for one;
    /// otherwise nobody does, and it is to be revoked. Gives the request as it stands then.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_issued(
        &self,
        tenant: &str,
        id: &str,
        certificate: NewCertificate,
        identity: Option<Vec<u8>>,
        detail: String,
        now_ms: i64,
    ) -> Result<Option<CertificateRequest>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.write(move |connection| {
            let Some(request) = one(connection, &tenant, &id)? else { return Ok(None) };
            let waits = request.certificate.is_none() && still_waits(connection, &tenant, &request)?;
            let status = if waits { certificates::ISSUED } else { certificates::UNUSED };
            certificates::insert(connection, &tenant, &request, &certificate, status, now_ms)?;
            connection
                .prepare_cached("UPDATE certificate_requests SET settled = 1 WHERE tenant = ?1 AND id = ?2")?
                .execute(params![tenant, id])?;
            if waits {
                connection
                    .prepare_cached(
                        "UPDATE certificate_requests SET is_open = 1, stage = 'issued', certificate = ?3, \
                         identity = ?4, error = NULL, changed_ms = ?5, ended_ms = NULL WHERE tenant = ?1 AND id = ?2",
                    )?
                    .execute(params![tenant, id, certificate.sha256, identity, now_ms])?;
                note(connection, &tenant, &id, now_ms, stages::ISSUED, &detail)?;
            } else if request.certificate.as_deref() != Some(certificate.sha256.as_str()) {
                certificates::want_revoked(
                    connection,
                    &tenant,
                    &certificate.sha256,
                    RevocationReason::CessationOfOperation,
                    now_ms,
                )?;
                let detail = "the authority had issued a certificate that nobody waits for any more";
                note(connection, &tenant, &id, now_ms, "orphan", detail)?;
            }
            one(connection, &tenant, &id)
        })
        .await
    }

    /// Why the request before this one, for the same device and profile, failed; nothing when it did not.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn failure_before(
        &self,
        tenant: &str,
        request: &CertificateRequest,
    ) -> Result<Option<ErrorReport>, StoreError> {
        let (device, profile) = (request.device.clone(), request.profile.clone());
        let (tenant, seq) = (tenant.to_owned(), request.seq);
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM certificate_requests r WHERE r.tenant = ?1 AND r.device = ?2 AND r.profile = ?3 \
                 AND r.seq < ?4 ORDER BY r.seq DESC LIMIT 1"
            ))?;
            let before = collect(query.query(params![tenant, device, profile, seq])?)?.pop();
            Ok(before.filter(|before| before.stage == stages::FAILED).and_then(|before| before.error))
        })
        .await
    }

    /// A request came to nothing. `retry_ms` is when the next one may follow.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_failed(
        &self,
        tenant: &str,
        id: &str,
        error: ErrorReport,
        retry_ms: i64,
        now_ms: i64,
    ) -> Result<Option<CertificateRequest>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.write(move |connection| {
            let Some(request) = one(connection, &tenant, &id)? else { return Ok(None) };
            connection
                .prepare_cached("UPDATE certificate_requests SET settled = 1 WHERE tenant = ?1 AND id = ?2")?
                .execute(params![tenant, id])?;
            if !request.open {
                return Ok(Some(request));
            }
            connection
                .prepare_cached(
                    "UPDATE certificate_requests SET is_open = 0, stage = 'failed', error = ?3, changed_ms = ?4, \
                     ended_ms = ?4, retry_ms = ?5 WHERE tenant = ?1 AND id = ?2",
                )?
                .execute(params![tenant, id, to_json(&error), now_ms, retry_ms])?;
            let detail = format!("{}: {}", error.code, error.detail);
            note(connection, &tenant, &id, now_ms, stages::FAILED, &detail)?;
            if let Some(renews) = &request.renews {
                certificates::put_off(connection, &tenant, renews, retry_ms)?;
            }
            one(connection, &tenant, &id)
        })
        .await
    }

    /// The device says that it has its certificate: it is in use from now on, and what it replaces is not. `None` when
    /// there is no such certificate; repeating it changes nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_installed(
        &self,
        tenant: &str,
        id: &str,
        device: &str,
        now_ms: i64,
    ) -> Result<Option<CertificateRequest>, StoreError> {
        let (tenant, id, device) = (tenant.to_owned(), id.to_owned(), device.to_owned());
        self.write(move |connection| {
            let found = one(connection, &tenant, &id)?.filter(|request| request.device == device);
            let Some(request) = found else { return Ok(None) };
            let Some(sha256) = &request.certificate else { return Ok(None) };
            if request.stage != stages::ISSUED {
                return Ok(Some(request));
            }
            connection
                .prepare_cached(
                    "UPDATE certificate_requests SET is_open = 0, stage = 'installed', identity = NULL, \
                     changed_ms = ?3, ended_ms = ?3 WHERE tenant = ?1 AND id = ?2",
                )?
                .execute(params![tenant, id, now_ms])?;
            note(connection, &tenant, &id, now_ms, stages::INSTALLED, "")?;
            certificates::installed(connection, &tenant, &request, sha256, now_ms)?;
            let body =
                serde_json::json!({ "certificate": sha256, "device": device, "profile": request.profile });
            audit::append(connection, &Entry::new(&tenant, now_ms, "device", "certificate_installed", body))?;
            one(connection, &tenant, &id)
        })
        .await
    }

    /// Ends what is open for devices that are gone or wiped. What an authority may have by now is revoked when it comes.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cancel_requests_of_gone(&self, tenant: &str, now_ms: i64) -> Result<u64, StoreError> {
        let tenant = tenant.to_owned();
        self.write(move |connection| {
            let mut query = connection.prepare_cached(
                "UPDATE certificate_requests AS r SET is_open = 0, stage = 'cancelled', identity = NULL, \
                 changed_ms = ?2, ended_ms = ?2 WHERE r.tenant = ?1 AND r.is_open = 1 AND NOT EXISTS \
                 (SELECT 1 FROM enrolled_devices d WHERE d.tenant = ?1 AND d.id = r.device AND d.wiped_ms IS NULL) \
                 RETURNING id",
            )?;
            let ids: Vec<String> =
                query.query_map(params![tenant, now_ms], |row| row.get(0))?.collect::<Result<_, _>>()?;
            for id in &ids {
                note(connection, &tenant, id, now_ms, stages::CANCELLED, "the device is no longer managed")?;
            }
            Ok(ids.len() as u64)
        })
        .await
    }

    /// Requests the timetable has opened since a moment.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn planned_since(&self, tenant: &str, since_ms: i64) -> Result<(u64, Option<i64>), StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let (n, first): (i64, Option<i64>) = connection
                .prepare_cached(
                    "SELECT count(*), min(created_ms) FROM certificate_requests WHERE tenant = ?1 AND planned = 1 \
                     AND created_ms > ?2",
                )?
                .query_row(params![tenant, since_ms], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok((n.unsigned_abs(), first))
        })
        .await
    }
}

fn open(
    connection: &Connection,
    tenant: &str,
    id: String,
    new: &NewRequest,
    now_ms: i64,
) -> Result<(CertificateRequest, bool), StoreError> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM certificate_requests r WHERE r.tenant = ?1 AND r.device = ?2 AND r.profile = ?3 \
         ORDER BY r.seq DESC LIMIT 1"
    ))?;
    let before = collect(query.query(params![tenant, new.device, new.profile])?)?.pop();
    let attempt = match before {
        Some(open) if open.open => return Ok((open, false)),
        Some(before) if before.stage == stages::FAILED => before.attempt.saturating_add(1),
        _ => 1,
    };
    let stage = if new.device_key.is_some() { stages::ORDERED } else { stages::WANTED };
    connection
        .prepare_cached(
            "INSERT INTO certificate_requests (tenant, id, device, owner, profile, version, reason, renews, stage, \
             attempt, planned, device_key, created_ms, changed_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13)",
        )?
        .execute(params![
            tenant,
            id,
            new.device,
            new.user,
            new.profile,
            signed(new.version),
            new.reason,
            new.renews,
            stage,
            attempt,
            new.planned,
            new.device_key,
            now_ms
        ])?;
    note(connection, tenant, &id, now_ms, stages::WANTED, &new.detail)?;
    let opened = one(connection, tenant, &id)?;
    opened.map(|request| (request, true)).ok_or(StoreError::Gone)
}

fn take_in(
    connection: &Connection,
    tenant: &str,
    id: &str,
    handed: &HandedIn,
    version: u64,
    now_ms: i64,
) -> Result<TakenIn, StoreError> {
    let Some(request) = one(connection, tenant, id)? else { return Ok(TakenIn::NotNow) };
    let (sha256, device_key, until_ms, sealed_to): (
        Option<String>,
        Option<Vec<u8>>,
        Option<i64>,
        Option<String>,
    ) = connection
        .prepare_cached(
            "SELECT csr_sha256, device_key, challenge_until_ms, seal FROM certificate_requests \
                 WHERE tenant = ?1 AND id = ?2",
        )?
        .query_row(params![tenant, id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let same = match handed {
        HandedIn::Csr { sha256: handed, .. } => sha256.map(|before| before == *handed),
        HandedIn::DeviceKey(handed) => device_key.map(|before| before == *handed),
    };
    if let Some(same) = same {
        return Ok(if same { TakenIn::Same } else { TakenIn::Other });
    }
    if !matches!(request.stage.as_str(), stages::WANTED | stages::CHALLENGED) {
        return Ok(TakenIn::NotNow);
    }
    match handed {
        HandedIn::Csr { body, seal, sha256, key } => {
            let is_good = until_ms.is_some_and(|until_ms| until_ms > now_ms);
            // Another challenge may have been handed out since it was sealed, which makes the one before worthless.
            if !is_good || sealed_to != seal.as_ref().map(to_json) {
                return Ok(TakenIn::NoChallenge);
            }
            connection
                .prepare_cached(
                    "UPDATE certificate_requests SET stage = 'ordered', csr = ?3, csr_sha256 = ?4, csr_key = ?5, \
                     changed_ms = ?6 WHERE tenant = ?1 AND id = ?2",
                )?
                .execute(params![tenant, id, body, sha256, key, now_ms])?;
        }
        // A challenge was given for one version of the profile; a key is good for any.
        HandedIn::DeviceKey(bytes) => {
            connection
                .prepare_cached(
                    "UPDATE certificate_requests SET stage = 'ordered', device_key = ?3, version = ?4, \
                     changed_ms = ?5 WHERE tenant = ?1 AND id = ?2",
                )?
                .execute(params![tenant, id, bytes, signed(version), now_ms])?;
        }
    }
    note(connection, tenant, id, now_ms, stages::ORDERED, "")?;
    Ok(TakenIn::New)
}

/// Whether a certificate that comes now is of use: the device is there, and nothing newer was begun for it.
fn still_waits(
    connection: &Connection,
    tenant: &str,
    request: &CertificateRequest,
) -> Result<bool, StoreError> {
    let waits: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM enrolled_devices WHERE tenant = ?1 AND id = ?2 AND wiped_ms IS NULL) \
             AND NOT EXISTS (SELECT 1 FROM certificate_requests WHERE tenant = ?1 AND device = ?2 AND profile = ?3 \
             AND seq > ?4)",
        )?
        .query_row(params![tenant, request.device, request.profile, request.seq], |row| row.get(0))?;
    Ok(waits)
}

fn set_stage(
    connection: &Connection,
    tenant: &str,
    id: &str,
    stage: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE certificate_requests SET stage = ?3, changed_ms = ?4 WHERE tenant = ?1 AND id = ?2",
        )?
        .execute(params![tenant, id, stage, now_ms])?;
    Ok(())
}

/// Appends to the timeline, up to its limit; the end is written beyond it too.
fn note(
    connection: &Connection,
    tenant: &str,
    id: &str,
    at_ms: i64,
    event: &str,
    detail: &str,
) -> Result<(), StoreError> {
    let last: i64 = connection
        .prepare_cached("SELECT coalesce(max(n), -1) FROM certificate_timeline WHERE request = ?1")?
        .query_row([id], |row| row.get(0))?;
    let is_end = matches!(event, "issued" | "installed" | "failed" | "cancelled" | "orphan");
    if last + 1 >= TIMELINE_MAX && !is_end {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO certificate_timeline (tenant, request, n, at_ms, event, detail) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![tenant, id, last + 1, at_ms, event, detail])?;
    Ok(())
}

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
