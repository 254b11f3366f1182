//! Revocations: wanted here, ordered from agents, ended by what authorities say.

use causeway_protocol::action::{ErrorReport, Status};
use causeway_protocol::certificate::RevocationReason;
use rusqlite::{Connection, params};

use super::super::audit::{self, Entry};
use super::super::rows::{json_opt, one_more, to_json};
use super::super::{Store, StoreError};
use super::{COLUMNS, DeviceCertificate, STATUS, one_turn, read};
use crate::limits::CERTIFICATE_TURN_MAX;

impl Store {
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
}

/// Wants a certificate revoked. `false` when it is wanted already, done, or unknown.
pub(in crate::store) fn want_revoked(
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
pub(in crate::store) fn revoke_all_of(
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
