//! The inventory: every certificate an agent has reported, whose it is, when it ends, and what its end looked like.

use std::collections::BTreeMap;

use causeway_protocol::action::{ErrorReport, Status};
use causeway_protocol::certificate::RevocationReason;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::{self, Entry};
use super::certificate_requests::CertificateRequest;
use super::rows::{Page, json, json_opt, one_more, signed, to_json, unsigned};
use super::{Store, StoreError};
use crate::limits::CERTIFICATE_TURN_MAX;

/// The device has not said that it has it.
pub(super) const ISSUED: &str = "issued";
/// Nobody waits for it.
pub(super) const UNUSED: &str = "unused";

/// A certificate of a device.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeviceCertificate {
    /// SHA-256 over the DER, hexadecimal: its id here.
    pub sha256: String,
    /// Issuer as RFC 4514 writes it.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Subject as RFC 4514 writes it.
    pub subject: String,
    /// Unix milliseconds of its begin.
    pub not_before_ms: i64,
    /// Unix milliseconds of its end.
    pub not_after_ms: i64,
    /// `issued` (the device does not have it yet), `active`, `renewing`, `superseded`, `unused`, `revoking`, `revoked`,
    /// `not_revocable` or `expired`.
    pub status: String,
    /// The enrolled device.
    pub device: String,
    /// Whose it is.
    pub user: String,
    /// The profile.
    pub profile: String,
    /// Its version.
    pub version: u64,
    /// The authority, as agents call it.
    pub authority: String,
    /// The request it came of.
    pub request: String,
    /// Unix milliseconds at which the device said that it has it.
    pub installed_ms: Option<i64>,
    /// Unix milliseconds at which its renewal begins.
    pub renew_at_ms: i64,
    /// The certificate that took its place.
    pub replaced_by: Option<String>,
    /// Its revocation, when one is wanted.
    pub revocation: Option<CertificateRevocation>,
    #[serde(skip)]
    pub(crate) seq: i64,
}

/// A revocation that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CertificateRevocation {
    /// `unspecified`, `key_compromise`, `superseded`, `cessation_of_operation`.
    #[schema(value_type = String)]
    pub reason: RevocationReason,
    /// Unix milliseconds since when.
    pub asked_ms: i64,
    /// The action that orders it from an agent, the last one.
    pub action: Option<String>,
    /// How often it was ordered.
    pub tries: u32,
    /// Unix milliseconds at which the authority said that it is revoked.
    pub revoked_ms: Option<i64>,
    /// What the authority, or the agent, says.
    pub note: String,
}

/// A certificate to record.
#[derive(Clone, Debug)]
pub struct NewCertificate {
    /// SHA-256 over the DER, hexadecimal.
    pub sha256: String,
    /// Issuer as RFC 4514 writes it.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Subject as RFC 4514 writes it.
    pub subject: String,
    /// Unix milliseconds of its begin.
    pub not_before_ms: i64,
    /// Unix milliseconds of its end.
    pub not_after_ms: i64,
    /// The authority, as agents call it.
    pub authority: String,
    /// DER.
    pub der: Vec<u8>,
    /// Authorities from the issuer upwards, base64 of DER.
    pub chain: Vec<String>,
    /// Unix milliseconds at which its renewal begins.
    pub renew_at_ms: i64,
}

/// Which certificates.
#[derive(Clone, Debug, Default)]
pub struct CertificateSearch {
    /// Part of a subject, an owner, a serial number or a fingerprint, any case.
    pub q: Option<String>,
    /// Only in this status.
    pub status: Option<String>,
    /// Only of this device.
    pub device: Option<String>,
    /// Only by this profile.
    pub profile: Option<String>,
    /// Only those that end before this moment, Unix milliseconds.
    pub ends_before_ms: Option<i64>,
    /// Rows on the page.
    pub limit: usize,
    /// Where the page before ended: end and number.
    pub after: Option<(i64, i64)>,
}

/// A certificate whose renewal is due.
#[derive(Clone, Debug)]
pub struct DueCertificate {
    /// The certificate.
    pub certificate: DeviceCertificate,
    /// Whether its profile has changed so that it looks outdated.
    pub outdated: bool,
}

/// Computes a certificate's status; `?now` stands for the parameter with the time.
const STATUS: &str = "CASE WHEN c.revoked_ms IS NOT NULL THEN 'revoked' \
     WHEN c.revoke_reason IS NOT NULL AND c.revoke_next_ms IS NULL AND c.revoke_action IS NULL AND c.revoke_tries > 0 THEN 'not_revocable' \
     WHEN c.not_after_ms <= :now THEN 'expired' \
     WHEN c.revoke_reason IS NOT NULL THEN 'revoking' \
     WHEN c.status = 'active' AND c.renew_at_ms <= :now THEN 'renewing' ELSE c.status END";

const COLUMNS: &str = "c.seq, c.sha256, c.issuer, c.serial, c.subject, c.not_before_ms, c.not_after_ms, c.device, c.owner, \
     c.profile, c.version, c.authority, c.request, c.installed_ms, c.renew_at_ms, c.replaced_by, c.revoke_reason, \
     c.revoke_asked_ms, c.revoke_action, c.revoke_tries, c.revoked_ms, c.revoke_note";

impl Store {
    /// Certificates, those that end first at the beginning.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificates(
        &self,
        tenant: &str,
        search: CertificateSearch,
        now_ms: i64,
    ) -> Result<Page<DeviceCertificate>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let (end, seq) = search.after.unwrap_or((i64::MIN, -1));
            let q = search.q.as_deref().map(str::trim).filter(|q| !q.is_empty()).map(str::to_lowercase);
            // Without a bare comparison the index on it is not used.
            let device = if search.device.is_some() { "AND c.device = :device" } else { "AND :device IS NULL" };
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {STATUS} AS shown FROM certificates c WHERE c.tenant = :tenant \
                 AND (c.not_after_ms, c.seq) > (:end, :seq) AND (:q IS NULL OR instr(c.search, :q) > 0) {device} \
                 AND (:profile IS NULL OR c.profile = :profile) AND (:before IS NULL OR c.not_after_ms < :before) \
                 AND (:status IS NULL OR {STATUS} = :status) ORDER BY c.not_after_ms, c.seq LIMIT :limit"
            ))?;
            let rows = query.query(rusqlite::named_params! {
                ":tenant": tenant, ":end": end, ":seq": seq, ":q": q, ":device": search.device,
                ":profile": search.profile, ":before": search.ends_before_ms, ":status": search.status,
                ":now": now_ms, ":limit": one_more(search.limit),
            })?;
            Ok(Page::cut(collect(rows)?, search.limit, |it| format!("{}.{}", it.not_after_ms, it.seq)))
        })
        .await
    }

    /// How many there are, by status.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate_statuses(
        &self,
        tenant: &str,
        now_ms: i64,
    ) -> Result<BTreeMap<String, u64>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {STATUS} AS shown, count(*) FROM certificates c WHERE c.tenant = :tenant GROUP BY shown"
            ))?;
            let rows = query
                .query_map(rusqlite::named_params! { ":tenant": tenant, ":now": now_ms }, |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
                })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// One certificate by its fingerprint.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate(
        &self,
        tenant: &str,
        sha256: &str,
        now_ms: i64,
    ) -> Result<Option<DeviceCertificate>, StoreError> {
        let (tenant, sha256) = (tenant.to_owned(), sha256.to_lowercase());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {STATUS} AS shown FROM certificates c WHERE c.tenant = :tenant AND c.sha256 = :sha256"
            ))?;
            let rows = query.query(
                rusqlite::named_params! { ":tenant": tenant, ":sha256": sha256, ":now": now_ms },
            )?;
            Ok(collect(rows)?.pop())
        })
        .await
    }

    /// A certificate, DER, and the authorities above it, base64 of DER.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate_chain(
        &self,
        tenant: &str,
        sha256: &str,
    ) -> Result<Option<(Vec<u8>, Vec<String>)>, StoreError> {
        let (tenant, sha256) = (tenant.to_owned(), sha256.to_lowercase());
        self.read(move |connection| {
            let found: Option<(Vec<u8>, String)> = connection
                .prepare_cached("SELECT der, chain FROM certificates WHERE tenant = ?1 AND sha256 = ?2")?
                .query_row(params![tenant, sha256], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            found.map(|(der, chain)| Ok((der, json("certificate chain", &chain)?))).transpose()
        })
        .await
    }

    /// What a device has or may have of each profile: certificates that are issued or active and not to be revoked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificates_of_device(
        &self,
        tenant: &str,
        device: &str,
        now_ms: i64,
    ) -> Result<Vec<DeviceCertificate>, StoreError> {
        let (tenant, device) = (tenant.to_owned(), device.to_owned());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {STATUS} AS shown FROM certificates c WHERE c.tenant = :tenant AND c.device = :device \
                 AND c.status IN ('issued', 'active') AND c.revoke_reason IS NULL ORDER BY c.seq"
            ))?;
            collect(query.query(
                rusqlite::named_params! { ":tenant": tenant, ":device": device, ":now": now_ms },
            )?)
        })
        .await
    }

    /// Active certificates whose renewal is due, for devices that are there and have no request under way; those that end
    /// first at the beginning.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificates_due(
        &self,
        tenant: &str,
        limit: usize,
        now_ms: i64,
    ) -> Result<Vec<DueCertificate>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {STATUS} AS shown, c.version < p.shape AS outdated FROM certificates c \
                 JOIN certificate_profiles p ON p.tenant = c.tenant AND p.id = c.profile \
                 JOIN enrolled_devices d ON d.tenant = c.tenant AND d.id = c.device AND d.wiped_ms IS NULL \
                 WHERE c.tenant = :tenant AND c.status = 'active' AND c.revoke_reason IS NULL \
                 AND c.renew_at_ms <= :now AND NOT EXISTS (SELECT 1 FROM certificate_requests r \
                 WHERE r.tenant = c.tenant AND r.device = c.device AND r.profile = c.profile AND r.is_open = 1) \
                 ORDER BY c.not_after_ms, c.seq LIMIT :limit"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = query
                .query(rusqlite::named_params! { ":tenant": tenant, ":now": now_ms, ":limit": limit })?;
            let mut due = Vec::new();
            while let Some(row) = rows.next()? {
                due.push(DueCertificate { certificate: read(row)?, outdated: row.get("outdated")? });
            }
            Ok(due)
        })
        .await
    }

    /// Active certificates whose time of renewal was worked out for another version of their profile.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificates_untimed(
        &self,
        tenant: &str,
        now_ms: i64,
    ) -> Result<Vec<DeviceCertificate>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let wanted = "JOIN certificate_profiles p ON p.tenant = c.tenant AND p.id = c.profile \
                          AND p.version <> c.timed_for WHERE c.tenant = :tenant AND c.status = 'active'";
            one_turn(connection, &tenant, now_ms, wanted)
        })
        .await
    }

    /// Sets when renewals begin, worked out for a version of the profile.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn time_renewals(
        &self,
        tenant: &str,
        times: Vec<(String, i64, u64)>,
    ) -> Result<(), StoreError> {
        let tenant = tenant.to_owned();
        self.write(move |connection| {
            let mut update = connection.prepare_cached(
                "UPDATE certificates SET renew_at_ms = ?3, timed_for = ?4 WHERE tenant = ?1 AND sha256 = ?2",
            )?;
            for (sha256, at_ms, version) in times {
                update.execute(params![tenant, sha256, at_ms, signed(version)])?;
            }
            Ok(())
        })
        .await
    }

    /// Wants a certificate revoked; one that is wanted, done or over keeps what it has. Gives it as it stands then.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke_certificate(
        &self,
        tenant: &str,
        sha256: &str,
        reason: RevocationReason,
        actor: &str,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let (tenant, sha256, actor) = (tenant.to_owned(), sha256.to_lowercase(), actor.to_owned());
        self.write(move |connection| {
            let wanted = want_revoked(connection, &tenant, &sha256, reason, now_ms)?;
            if wanted {
                let body = serde_json::json!({ "certificate": sha256, "reason": reason });
                audit::append(
                    connection,
                    &Entry::new(&tenant, now_ms, &actor, "certificate_revocation_ordered", body),
                )?;
            }
            Ok(wanted)
        })
        .await
    }

    /// Wants what devices had revoked that are gone (cessation of operation) or wiped (key compromise), as long as it has
    /// not ended by itself. Gives how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revoke_of_gone(&self, tenant: &str, now_ms: i64) -> Result<u64, StoreError> {
        let tenant = tenant.to_owned();
        self.write(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT c.sha256, d.wiped_ms IS NOT NULL FROM certificates c LEFT JOIN enrolled_devices d \
                 ON d.tenant = c.tenant AND d.id = c.device WHERE c.tenant = ?1 AND c.revoke_reason IS NULL \
                 AND c.not_after_ms > ?2 AND (d.id IS NULL OR d.wiped_ms IS NOT NULL)",
            )?;
            let found: Vec<(String, bool)> = query
                .query_map(params![tenant, now_ms], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            for (sha256, wiped) in &found {
                let reason = match wiped {
                    true => RevocationReason::KeyCompromise,
                    false => RevocationReason::CessationOfOperation,
                };
                want_revoked(connection, &tenant, sha256, reason, now_ms)?;
                let body = serde_json::json!({ "certificate": sha256, "reason": reason });
                let entry = Entry::new(&tenant, now_ms, "cloud", "certificate_revocation_ordered", body);
                audit::append(connection, &entry)?;
            }
            Ok(found.len() as u64)
        })
        .await
    }

    /// Certificates whose revocation is to be ordered now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revocations_due(
        &self,
        tenant: &str,
        now_ms: i64,
    ) -> Result<Vec<DeviceCertificate>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let wanted =
                "WHERE c.tenant = :tenant AND c.revoke_next_ms <= :now ORDER BY c.revoke_next_ms, c.seq";
            one_turn(connection, &tenant, now_ms, wanted)
        })
        .await
    }

    /// A revocation has this action now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revocation_ordered(
        &self,
        tenant: &str,
        sha256: &str,
        action: &str,
    ) -> Result<(), StoreError> {
        let (tenant, sha256, action) = (tenant.to_owned(), sha256.to_owned(), action.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE certificates SET revoke_action = ?3, revoke_tries = revoke_tries + 1, \
                     revoke_next_ms = NULL WHERE tenant = ?1 AND sha256 = ?2 AND revoke_next_ms IS NOT NULL",
                )?
                .execute(params![tenant, sha256, action])?;
            Ok(())
        })
        .await
    }

    /// Revocations whose action has ended: the certificate, and what came of it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revocations_ended(
        &self,
        tenant: &str,
        now_ms: i64,
    ) -> Result<Vec<(DeviceCertificate, Result<serde_json::Value, ErrorReport>)>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {STATUS} AS shown, a.status AS ended, a.result, a.error FROM certificates c \
                 JOIN actions a ON a.id = c.revoke_action WHERE c.tenant = :tenant AND c.revoke_action IS NOT NULL \
                 AND c.revoked_ms IS NULL AND a.status <> 'pending' LIMIT :limit"
            ))?;
            let limit = one_more(CERTIFICATE_TURN_MAX);
            let mut rows = query
                .query(rusqlite::named_params! { ":tenant": tenant, ":now": now_ms, ":limit": limit })?;
            let mut ended = Vec::new();
            while let Some(row) = rows.next()? {
                let result: Option<serde_json::Value> = json_opt("action result", row.get("result")?)?;
                let error: Option<ErrorReport> = json_opt("action error", row.get("error")?)?;
                let is_success = row.get::<_, String>("ended")? == Status::Success.as_str();
                let unknown = || ErrorReport::new("internal", "the action gave no reason", "Look at the action");
                let outcome = if is_success {
                    Ok(result.unwrap_or_default())
                } else {
                    Err(error.unwrap_or_else(unknown))
                };
                ended.push((read(row)?, outcome));
            }
            Ok(ended)
        })
        .await
    }

    /// What came of a revocation: done, impossible (never tried again), or to be tried again at a time.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn revocation_ended(
        &self,
        tenant: &str,
        sha256: &str,
        done: bool,
        note: String,
        again_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (tenant, sha256) = (tenant.to_owned(), sha256.to_owned());
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE certificates SET revoked_ms = ?3, revoke_note = ?4, revoke_next_ms = ?5, \
                     revoke_action = CASE WHEN ?3 IS NULL THEN NULL ELSE revoke_action END \
                     WHERE tenant = ?1 AND sha256 = ?2 AND revoked_ms IS NULL",
                )?
                .execute(params![tenant, sha256, done.then_some(now_ms), note, again_ms])?;
            if done {
                let body = serde_json::json!({ "certificate": sha256 });
                let entry = Entry::new(&tenant, now_ms, "cloud", "certificate_revoked", body);
                audit::append(connection, &entry)?;
            }
            Ok(())
        })
        .await
    }

    /// The next moment at which something is to be done about certificates, as far as the clock decides it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn next_certificate_moment(
        &self,
        tenant: &str,
        now_ms: i64,
    ) -> Result<Option<i64>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let next: Option<i64> = connection
                .prepare_cached(
                    "SELECT min(at_ms) FROM (SELECT min(renew_at_ms) AS at_ms FROM certificates WHERE tenant = ?1 \
                     AND status = 'active' AND revoke_reason IS NULL AND renew_at_ms > ?2 UNION ALL \
                     SELECT min(revoke_next_ms) FROM certificates WHERE tenant = ?1 AND revoke_next_ms > ?2)",
                )?
                .query_row(params![tenant, now_ms], |row| row.get(0))?;
            Ok(next)
        })
        .await
    }

    /// Figures for alerts: open requests to renew that have failed before, certificates in use that end before a moment
    /// or have ended, and revocations that have failed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificate_troubles(
        &self,
        tenant: &str,
        soon_ms: i64,
        now_ms: i64,
    ) -> Result<CertificateTroubles, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let n = |sql: &str, at_ms: i64| -> Result<u64, StoreError> {
                let n: i64 = connection
                    .prepare_cached(sql)?
                    .query_row(params![tenant, at_ms], |row| row.get(0))?;
                Ok(n.unsigned_abs())
            };
            let failed = n(
                "SELECT count(*) FROM certificates c JOIN certificate_requests r ON r.tenant = c.tenant \
                 AND r.renews = c.sha256 AND r.seq = (SELECT max(seq) FROM certificate_requests \
                 WHERE tenant = c.tenant AND device = c.device AND profile = c.profile) \
                 WHERE c.tenant = ?1 AND c.status = 'active' AND c.revoke_reason IS NULL \
                 AND r.stage = 'failed' AND r.created_ms <= ?2",
                now_ms,
            )?;
            let ending = n(
                "SELECT count(*) FROM certificates c JOIN certificate_profiles p ON p.tenant = c.tenant \
                 AND p.id = c.profile WHERE c.tenant = ?1 AND c.status = 'active' AND c.revoke_reason IS NULL \
                 AND c.not_after_ms <= ?2",
                soon_ms,
            )?;
            let revocations = n(
                "SELECT count(*) FROM certificates c WHERE c.tenant = ?1 AND c.revoke_reason IS NOT NULL \
                 AND c.revoked_ms IS NULL AND c.revoke_tries > 1 AND c.revoke_next_ms IS NOT NULL AND c.not_after_ms > ?2",
                now_ms,
            )?;
            Ok(CertificateTroubles { failed, ending, revocations })
        })
        .await
    }
}

/// See [`Store::certificate_troubles`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateTroubles {
    /// Renewals whose last try failed.
    pub failed: u64,
    /// Certificates in use that end soon or have ended.
    pub ending: u64,
    /// Revocations that were tried in vain.
    pub revocations: u64,
}

/// Records a certificate; one that is there already stays as it is.
pub(super) fn insert(
    connection: &Connection,
    tenant: &str,
    request: &CertificateRequest,
    new: &NewCertificate,
    status: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    let search = format!("{} {} {} {}", new.subject, request.user, new.serial, new.sha256).to_lowercase();
    let added = connection
        .prepare_cached(
            "INSERT INTO certificates (tenant, sha256, issuer, serial, subject, not_before_ms, not_after_ms, device, \
             owner, profile, version, authority, request, der, chain, status, renew_at_ms, timed_for, search) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?11, ?18) \
             ON CONFLICT (tenant, sha256) DO NOTHING",
        )?
        .execute(params![
            tenant,
            new.sha256,
            new.issuer,
            new.serial,
            new.subject,
            new.not_before_ms,
            new.not_after_ms,
            request.device,
            request.user,
            request.profile,
            signed(request.version),
            new.authority,
            request.id,
            new.der,
            to_json(&new.chain),
            status,
            new.renew_at_ms,
            search
        ])?;
    if added == 1 {
        let body = serde_json::json!({
            "certificate": new.sha256, "serial": new.serial, "device": request.device, "profile": request.profile,
        });
        audit::append(connection, &Entry::new(tenant, now_ms, "cloud", "certificate_issued", body))?;
    }
    Ok(())
}

/// The device has this one: it is active, and whatever it had before of the same profile is superseded and no longer needed.
pub(super) fn installed(
    connection: &Connection,
    tenant: &str,
    request: &CertificateRequest,
    sha256: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE certificates SET status = 'active', installed_ms = ?3 WHERE tenant = ?1 AND sha256 = ?2",
        )?
        .execute(params![tenant, sha256, now_ms])?;
    let mut query = connection.prepare_cached(
        "UPDATE certificates SET status = 'superseded', replaced_by = ?4 WHERE tenant = ?1 AND device = ?2 \
         AND profile = ?3 AND sha256 <> ?4 AND status IN ('issued', 'active') RETURNING sha256, not_after_ms",
    )?;
    let old: Vec<(String, i64)> = query
        .query_map(params![tenant, request.device, request.profile, sha256], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<_, _>>()?;
    for (old, _) in old.iter().filter(|(_, not_after_ms)| *not_after_ms > now_ms) {
        want_revoked(connection, tenant, old, RevocationReason::Superseded, now_ms)?;
    }
    Ok(())
}

/// Wants a certificate revoked. `false` when it is wanted already, done, or unknown.
pub(super) fn want_revoked(
    connection: &Connection,
    tenant: &str,
    sha256: &str,
    reason: RevocationReason,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let changed = connection
        .prepare_cached(
            "UPDATE certificates SET revoke_reason = ?3, revoke_asked_ms = ?4, revoke_next_ms = ?4 \
             WHERE tenant = ?1 AND sha256 = ?2 AND revoke_reason IS NULL",
        )?
        .execute(params![tenant, sha256, to_json(&reason).trim_matches('"'), now_ms])?;
    Ok(changed == 1)
}

/// Wants everything revoked that a device has and that has not ended by itself.
pub(super) fn revoke_all_of(
    connection: &Connection,
    tenant: &str,
    device: &str,
    reason: RevocationReason,
    now_ms: i64,
) -> Result<(), StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT sha256 FROM certificates WHERE tenant = ?1 AND device = ?2 AND not_after_ms > ?3",
    )?;
    let found: Vec<String> =
        query.query_map(params![tenant, device, now_ms], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for sha256 in found {
        want_revoked(connection, tenant, &sha256, reason, now_ms)?;
    }
    Ok(())
}

/// A renewal has failed: the next try is not before this moment.
pub(super) fn put_off(
    connection: &Connection,
    tenant: &str,
    sha256: &str,
    until_ms: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE certificates SET renew_at_ms = max(renew_at_ms, ?3) WHERE tenant = ?1 AND sha256 = ?2",
        )?
        .execute(params![tenant, sha256, until_ms])?;
    Ok(())
}

/// Certificates that are looked after in one turn: those that `wanted`, what stands behind `FROM`, chooses.
fn one_turn(
    connection: &Connection,
    tenant: &str,
    now_ms: i64,
    wanted: &str,
) -> Result<Vec<DeviceCertificate>, StoreError> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT {COLUMNS}, {STATUS} AS shown FROM certificates c {wanted} LIMIT :limit"
    ))?;
    let limit = one_more(CERTIFICATE_TURN_MAX);
    collect(query.query(rusqlite::named_params! { ":tenant": tenant, ":now": now_ms, ":limit": limit })?)
}

fn collect(mut rows: rusqlite::Rows<'_>) -> Result<Vec<DeviceCertificate>, StoreError> {
    let mut certificates = Vec::new();
    while let Some(row) = rows.next()? {
        certificates.push(read(row)?);
    }
    Ok(certificates)
}

fn read(row: &Row<'_>) -> Result<DeviceCertificate, StoreError> {
    let reason: Option<String> = row.get("revoke_reason")?;
    let revocation = match reason {
        Some(reason) => Some(CertificateRevocation {
            reason: json("reason of a revocation", &format!("\"{reason}\""))?,
            asked_ms: row.get::<_, Option<i64>>("revoke_asked_ms")?.unwrap_or_default(),
            action: row.get("revoke_action")?,
            tries: row.get("revoke_tries")?,
            revoked_ms: row.get("revoked_ms")?,
            note: row.get("revoke_note")?,
        }),
        None => None,
    };
    Ok(DeviceCertificate {
        seq: row.get("seq")?,
        sha256: row.get("sha256")?,
        issuer: row.get("issuer")?,
        serial: row.get("serial")?,
        subject: row.get("subject")?,
        not_before_ms: row.get("not_before_ms")?,
        not_after_ms: row.get("not_after_ms")?,
        status: row.get("shown")?,
        device: row.get("device")?,
        user: row.get("owner")?,
        profile: row.get("profile")?,
        version: unsigned(row, "version")?,
        authority: row.get("authority")?,
        request: row.get("request")?,
        installed_ms: row.get("installed_ms")?,
        renew_at_ms: row.get("renew_at_ms")?,
        replaced_by: row.get("replaced_by")?,
        revocation,
    })
}
