//! When certificates are renewed.

use rusqlite::{Connection, params};

use super::super::rows::signed;
use super::super::{Store, StoreError};
use super::{COLUMNS, DeviceCertificate, DueCertificate, STATUS, one_turn, read};

impl Store {
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
}

/// A renewal has failed: the next try is not before this moment.
pub(in crate::store) fn put_off(
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
