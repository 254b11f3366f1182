//! Looking at the inventory.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::rows::{Page, json, one_more};
use super::super::{Store, StoreError};
use super::{COLUMNS, CertificateSearch, Chained, DeviceCertificate, STATUS, collect};

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
    pub async fn certificate_chain(&self, tenant: &str, sha256: &str) -> Result<Option<Chained>, StoreError> {
        let (tenant, sha256) = (tenant.to_owned(), sha256.to_lowercase());
        self.read(move |connection| chain(connection, &tenant, &sha256)).await
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

/// A certificate and the authorities above it; `sha256` in lower case.
pub(in crate::store) fn chain(
    connection: &Connection,
    tenant: &str,
    sha256: &str,
) -> Result<Option<Chained>, StoreError> {
    let found: Option<(Vec<u8>, String)> = connection
        .prepare_cached("SELECT der, chain FROM certificates WHERE tenant = ?1 AND sha256 = ?2")?
        .query_row(params![tenant, sha256], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    found.map(|(der, chain)| Ok((der, json("certificate chain", &chain)?))).transpose()
}
