//! Looking at requests.

use causeway_protocol::action::ErrorReport;
use causeway_protocol::certificate::SealTo;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::super::rows::{Page, json_opt, one_more};
use super::super::{ActionRow, ProfileRow, Store, StoreError};
use super::super::{actions, certificate_profiles, certificates};
use super::{
    COLUMNS, CertificateRequest, Delivery, RequestFilter, RequestParts, RequestStep, collect, one, stages,
};
use crate::limits::CERTIFICATE_TURN_MAX;

impl Store {
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
        self.read(move |connection| parts(connection, &tenant, &id)).await
    }

    /// What a request has brought its device: the certificate `sha256`, and what belongs to it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delivery(&self, tenant: &str, id: &str, sha256: &str) -> Result<Delivery, StoreError> {
        let (tenant, id, sha256) = (tenant.to_owned(), id.to_owned(), sha256.to_lowercase());
        self.read(move |connection| {
            let certificate = certificates::chain(connection, &tenant, &sha256)?;
            Ok(Delivery { certificate, identity: parts(connection, &tenant, &id)?.identity })
        })
        .await
    }

    /// A request with its parts and its profile, where there is one still.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn request_with_profile(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<(CertificateRequest, RequestParts, Option<ProfileRow>)>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let Some(request) = one(connection, &tenant, &id)? else { return Ok(None) };
            let profile = certificate_profiles::one(connection, &tenant, &request.profile)?;
            Ok(Some((request, parts(connection, &tenant, &id)?, profile)))
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
                if let Some(action) = actions::one(connection, &tenant, id)? {
                    with_actions.push((request, action));
                }
            }
            Ok((unordered, with_actions))
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
}

fn parts(connection: &Connection, tenant: &str, id: &str) -> Result<RequestParts, StoreError> {
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
}
