//! The inventory: every certificate an agent has reported, whose it is, when it ends, and what its end looked like.

mod look;
mod renewal;
mod revocation;

use causeway_protocol::certificate::RevocationReason;
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::StoreError;
use super::audit::{self, Entry};
use super::certificate_requests::CertificateRequest;
use super::rows::{json, one_more, signed, to_json, unsigned};
use crate::limits::CERTIFICATE_TURN_MAX;

pub use look::CertificateTroubles;
pub(super) use look::chain;
pub(super) use renewal::put_off;
pub(super) use revocation::{revoke_all_of, want_revoked};

/// The device has not said that it has it.
pub(super) const ISSUED: &str = "issued";
/// Nobody waits for it.
pub(super) const UNUSED: &str = "unused";

/// A certificate, DER, and the authorities above it, base64 of DER.
pub type Chained = (Vec<u8>, Vec<String>);

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
