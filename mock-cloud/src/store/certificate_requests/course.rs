//! The course of a request: each step is one transaction, and what comes too late changes nothing.

use causeway_protocol::action::ErrorReport;
use causeway_protocol::certificate::{RevocationReason, SealTo};
use rusqlite::{Connection, params};

use super::super::actions::{self, Inserted, Order};
use super::super::audit::{self, Entry};
use super::super::certificates;
use super::super::rows::{signed, to_json};
use super::super::{Store, StoreError};
use super::{
    COLUMNS, CertificateRequest, HandedIn, IssuedRequest, NewRequest, TakenIn, collect, one, stages,
};
use crate::limits::TIMELINE_MAX;

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

    /// The device hands in what its request needs; the order that follows is recorded with it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn hand_in(
        &self,
        tenant: &str,
        id: &str,
        handed: HandedIn,
        version: u64,
        order: Order,
        now_ms: i64,
    ) -> Result<(TakenIn, Option<Inserted>), StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.write(move |connection| {
            let taken = take_in(connection, &tenant, &id, &handed, version, now_ms)?;
            if taken != TakenIn::New {
                return Ok((taken, None));
            }
            let inserted = actions::insert(connection, &tenant, &order, now_ms)?;
            ordered(connection, &tenant, &id, inserted.id(), now_ms)?;
            Ok((taken, Some(inserted)))
        })
        .await
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
        self.write(move |connection| ordered(connection, &tenant, &id, &action, now_ms)).await
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

    /// The order of a request has ended with a certificate. It becomes the request's own when that still waits for one;
    /// otherwise nobody does, and it is to be revoked. Gives the request as it stands then.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_issued(
        &self,
        tenant: &str,
        issued: IssuedRequest,
        now_ms: i64,
    ) -> Result<Option<CertificateRequest>, StoreError> {
        let tenant = tenant.to_owned();
        self.write(move |connection| issue(connection, &tenant, &issued, now_ms)).await
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

    /// Ends what is open for devices that are gone or wiped, or for profiles that were removed. What was issued and not
    /// installed is to be revoked, and so is what an authority may have by now when it comes.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cancel_requests_of_gone(&self, tenant: &str, now_ms: i64) -> Result<u64, StoreError> {
        let tenant = tenant.to_owned();
        self.write(move |connection| {
            let mut query = connection.prepare_cached(
                "UPDATE certificate_requests AS r SET is_open = 0, stage = 'cancelled', identity = NULL, \
                 changed_ms = ?2, ended_ms = ?2 WHERE r.tenant = ?1 AND r.is_open = 1 AND (NOT EXISTS \
                 (SELECT 1 FROM enrolled_devices d WHERE d.tenant = ?1 AND d.id = r.device AND d.wiped_ms IS NULL) \
                 OR NOT EXISTS (SELECT 1 FROM certificate_profiles p WHERE p.tenant = ?1 AND p.id = r.profile)) \
                 RETURNING id, certificate, \
                 EXISTS (SELECT 1 FROM certificate_profiles p WHERE p.tenant = ?1 AND p.id = profile)",
            )?;
            let ids: Vec<(String, Option<String>, bool)> = query
                .query_map(params![tenant, now_ms], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<_, _>>()?;
            for (id, certificate, has_profile) in &ids {
                if let Some(sha256) = certificate {
                    // Issued, and the device has not got it and never will.
                    let reason = RevocationReason::CessationOfOperation;
                    certificates::want_revoked(connection, &tenant, sha256, reason, now_ms)?;
                }
                let why = if *has_profile { "the device is no longer managed" } else { "the profile was removed" };
                note(connection, &tenant, id, now_ms, stages::CANCELLED, why)?;
            }
            Ok(ids.len() as u64)
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

fn ordered(
    connection: &Connection,
    tenant: &str,
    id: &str,
    action: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE certificate_requests SET action = ?3, changed_ms = ?4 WHERE tenant = ?1 AND id = ?2",
        )?
        .execute(params![tenant, id, action, now_ms])?;
    Ok(())
}

/// See [`Store::request_issued`].
pub(in crate::store) fn issue(
    connection: &Connection,
    tenant: &str,
    issued: &IssuedRequest,
    now_ms: i64,
) -> Result<Option<CertificateRequest>, StoreError> {
    let IssuedRequest { id, certificate, identity, detail } = issued;
    let Some(request) = one(connection, tenant, id)? else { return Ok(None) };
    let waits = request.certificate.is_none()
        && request.stage != stages::CANCELLED
        && still_waits(connection, tenant, &request)?;
    let status = if waits { certificates::ISSUED } else { certificates::UNUSED };
    certificates::insert(connection, tenant, &request, certificate, status, now_ms)?;
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
        note(connection, tenant, id, now_ms, stages::ISSUED, detail)?;
    } else if request.certificate.as_deref() != Some(certificate.sha256.as_str()) {
        let reason = RevocationReason::CessationOfOperation;
        certificates::want_revoked(connection, tenant, &certificate.sha256, reason, now_ms)?;
        let detail = "the authority had issued a certificate that nobody waits for any more";
        note(connection, tenant, id, now_ms, "orphan", detail)?;
    }
    one(connection, tenant, id)
}

/// Whether a certificate that comes now is of use: device and profile are there, and nothing newer was begun for it.
fn still_waits(
    connection: &Connection,
    tenant: &str,
    request: &CertificateRequest,
) -> Result<bool, StoreError> {
    let waits: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM enrolled_devices WHERE tenant = ?1 AND id = ?2 AND wiped_ms IS NULL) \
             AND EXISTS (SELECT 1 FROM certificate_profiles WHERE tenant = ?1 AND id = ?3) \
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
