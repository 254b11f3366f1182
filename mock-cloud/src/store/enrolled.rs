//! Phones that device management knows itself, whatever a mail system says of them.

use causeway_protocol::Secret;
use causeway_protocol::certificate::RevocationReason;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::{self, Entry};
use super::rows::{Page, json, one_more};
use super::{JudgedPhone, Store, StoreError, certificates, token_hash};
use crate::limits::COMPLIANCE_PAGE;

/// An enrolled phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EnrolledDevice {
    /// Names the enrolment.
    pub id: String,
    /// Whose it is: login, principal name or mail address.
    pub user: String,
    /// ActiveSync id, as device management read it from the phone.
    pub device_id: Option<String>,
    /// IMEI.
    pub imei: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// UDID.
    pub udid: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Serial number of its SIM card (ICCID).
    pub sim: Option<String>,
    /// Telephone number.
    pub phone_number: Option<String>,
    /// Whether it keeps the rules of device management.
    pub compliant: bool,
    /// Unix milliseconds of the enrolment.
    pub enrolled_ms: i64,
    /// Unix milliseconds at which it was wiped or reported lost; it gets no certificate until it is enrolled again.
    pub wiped_ms: Option<i64>,
}

/// A phone to enrol.
#[derive(Clone, Debug, Default)]
pub struct NewEnrolled {
    /// Whose it is.
    pub user: String,
    /// ActiveSync id.
    pub device_id: Option<String>,
    /// IMEI.
    pub imei: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// UDID.
    pub udid: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Serial number of its SIM card (ICCID).
    pub sim: Option<String>,
    /// Telephone number.
    pub phone_number: Option<String>,
    /// Whether it keeps the rules.
    pub compliant: bool,
}

impl NewEnrolled {
    /// Whether anything tells it from other phones of its owner.
    pub fn is_identified(&self) -> bool {
        [&self.device_id, &self.imei, &self.serial, &self.udid].into_iter().any(Option::is_some)
    }
}

const COLUMNS: &str = "id, owner, device_id, imei, serial, udid, model, sim, phone_number, compliant, enrolled_ms, \
     wiped_ms";

impl Store {
    /// Records an enrolled phone. One with the same user and identifiers is the same phone: it keeps its id, and only
    /// whether it is compliant (and its model, SIM card and number) changes. Says whether it is new.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn enrol_device(
        &self,
        tenant: &str,
        new: NewEnrolled,
        actor: &str,
        now_ms: i64,
    ) -> Result<(EnrolledDevice, bool), StoreError> {
        let (tenant, actor, id) = (tenant.to_owned(), actor.to_owned(), self.ids.next().to_string());
        self.write(move |connection| {
            let known: Option<String> = connection
                .prepare_cached(
                    "SELECT id FROM enrolled_devices WHERE tenant = ?1 AND lower(owner) = lower(?2) \
                     AND device_id IS ?3 AND imei IS ?4 AND serial IS ?5 AND udid IS ?6",
                )?
                .query_row(params![tenant, new.user, new.device_id, new.imei, new.serial, new.udid], |row| {
                    row.get(0)
                })
                .optional()?;
            let is_new = known.is_none();
            let id = known.unwrap_or(id);
            let device = connection
                .prepare_cached(&format!(
                    "INSERT INTO enrolled_devices (tenant, id, owner, device_id, imei, serial, udid, model, \
                     compliant, enrolled_ms, sim, phone_number) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
                     ON CONFLICT (tenant, id) DO UPDATE SET compliant = excluded.compliant, wiped_ms = NULL, \
                     model = coalesce(excluded.model, model), sim = coalesce(excluded.sim, sim), \
                     phone_number = coalesce(excluded.phone_number, phone_number) RETURNING {COLUMNS}"
                ))?
                .query_row(
                    params![
                        tenant,
                        id,
                        new.user,
                        new.device_id,
                        new.imei,
                        new.serial,
                        new.udid,
                        new.model,
                        new.compliant,
                        now_ms,
                        new.sim,
                        new.phone_number
                    ],
                    read,
                )?;
            let what = if is_new { "device_enrolled" } else { "enrolled_device_changed" };
            note(connection, &tenant, &device, &actor, what, now_ms)?;
            Ok((device, is_new))
        })
        .await
    }

    /// Says whether an enrolled phone keeps the rules. `None` when there is no such phone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn set_compliant(
        &self,
        tenant: &str,
        id: &str,
        compliant: bool,
        actor: &str,
        now_ms: i64,
    ) -> Result<Option<EnrolledDevice>, StoreError> {
        let (tenant, id, actor) = (tenant.to_owned(), id.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let device = connection
                .prepare_cached(&format!(
                    "UPDATE enrolled_devices SET compliant = ?3 WHERE tenant = ?1 AND id = ?2 RETURNING {COLUMNS}"
                ))?
                .query_row(params![tenant, id, compliant], read)
                .optional()?;
            if let Some(device) = &device {
                note(connection, &tenant, device, &actor, "enrolled_device_changed", now_ms)?;
            }
            Ok(device)
        })
        .await
    }

    /// Forgets an enrolled phone. `false` when there is no such phone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove_enrolled(
        &self,
        tenant: &str,
        id: &str,
        actor: &str,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let (tenant, id, actor) = (tenant.to_owned(), id.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let device = connection
                .prepare_cached(&format!(
                    "DELETE FROM enrolled_devices WHERE tenant = ?1 AND id = ?2 RETURNING {COLUMNS}"
                ))?
                .query_row(params![tenant, id], read)
                .optional()?;
            if let Some(device) = &device {
                note(connection, &tenant, device, &actor, "enrolled_device_removed", now_ms)?;
                let reason = RevocationReason::CessationOfOperation;
                certificates::revoke_all_of(connection, &tenant, &device.id, reason, now_ms)?;
            }
            Ok(device.is_some())
        })
        .await
    }

    /// One enrolled phone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn enrolled_device(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<EnrolledDevice>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM enrolled_devices WHERE tenant = ?1 AND id = ?2"
            ))?;
            Ok(query.query_row(params![tenant, id], read).optional()?)
        })
        .await
    }

    /// Notes that an enrolled phone was wiped or reported lost, and wants its certificates revoked because their keys may
    /// be in other hands. `seen` names a wipe of a mail system: the same one never counts twice. `None` when there is no
    /// such phone, or nothing new.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn wipe_enrolled(
        &self,
        tenant: &str,
        id: &str,
        seen: String,
        actor: &str,
        now_ms: i64,
    ) -> Result<Option<EnrolledDevice>, StoreError> {
        let (tenant, id, actor) = (tenant.to_owned(), id.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let device = connection
                .prepare_cached(&format!(
                    "UPDATE enrolled_devices SET wiped_ms = coalesce(wiped_ms, ?3), wipe_seen = ?4 WHERE tenant = ?1 \
                     AND id = ?2 AND (?4 = '' OR wipe_seen <> ?4) RETURNING {COLUMNS}"
                ))?
                .query_row(params![tenant, id, now_ms, seen], read)
                .optional()?;
            if let Some(device) = &device {
                note(connection, &tenant, device, &actor, "enrolled_device_wiped", now_ms)?;
                let reason = RevocationReason::KeyCompromise;
                certificates::revoke_all_of(connection, &tenant, &device.id, reason, now_ms)?;
            }
            Ok(device)
        })
        .await
    }

    /// A wipe that was seen as ordered is confirmed by now; `false` when it was not seen as ordered.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn wipe_confirmed(
        &self,
        tenant: &str,
        id: &str,
        ordered: &str,
        confirmed: &str,
    ) -> Result<bool, StoreError> {
        let key = [tenant.to_owned(), id.to_owned(), ordered.to_owned(), confirmed.to_owned()];
        self.write(move |connection| {
            let changed = connection
                .prepare_cached(
                    "UPDATE enrolled_devices SET wipe_seen = ?4 WHERE tenant = ?1 AND id = ?2 AND wipe_seen = ?3",
                )?
                .execute(key)?;
            Ok(changed == 1)
        })
        .await
    }

    /// Phones in mailboxes for which a wipe is ordered or done: stable id and record.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn wiped_phones(&self, tenant: &str) -> Result<Vec<JudgedPhone>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT id, key, record FROM devices WHERE tenant = ?1 \
                 AND json_extract(record, '$.wipe_status') LIKE '%wipe%' ORDER BY id LIMIT ?2",
            )?;
            let mut rows = query.query(params![tenant, one_more(COMPLIANCE_PAGE)])?;
            let mut phones = Vec::new();
            while let Some(row) = rows.next()? {
                let record = json("record of a phone", &row.get::<_, String>("record")?)?;
                phones.push(JudgedPhone { number: row.get("id")?, key: row.get("key")?, record });
            }
            Ok(phones)
        })
        .await
    }

    /// Makes `token` the one an enrolled phone shows; an earlier one is no longer good.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_device_token(&self, tenant: &str, id: &str, token: &Secret) -> Result<bool, StoreError> {
        let (tenant, id, hash) = (tenant.to_owned(), id.to_owned(), token_hash(token.expose()));
        self.write(move |connection| {
            let changed = connection.execute(
                "UPDATE enrolled_devices SET token_hash = ?3 WHERE tenant = ?1 AND id = ?2",
                params![tenant, id, hash],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    /// Whose token this is: the tenant and the phone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn device_of_token(&self, token: &str) -> Result<Option<(String, EnrolledDevice)>, StoreError> {
        let hash = token_hash(token);
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT tenant, {COLUMNS} FROM enrolled_devices WHERE token_hash = ?1"
            ))?;
            Ok(query.query_row([hash], |row| Ok((row.get("tenant")?, read(row)?))).optional()?)
        })
        .await
    }

    /// Enrolled phones in the order of their ids, which is that of their enrolment.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn enrolled_devices(
        &self,
        tenant: &str,
        limit: usize,
        after: Option<String>,
    ) -> Result<Page<EnrolledDevice>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM enrolled_devices WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
            ))?;
            let rows = query
                .query_map(params![tenant, after.unwrap_or_default(), one_more(limit)], read)?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Page::cut(rows, limit, |device| device.id.clone()))
        })
        .await
    }
}

fn note(
    connection: &Connection,
    tenant: &str,
    device: &EnrolledDevice,
    actor: &str,
    what: &'static str,
    now_ms: i64,
) -> Result<(), StoreError> {
    let body =
        serde_json::json!({ "enrolled": device.id, "user": device.user, "compliant": device.compliant });
    audit::append(connection, &Entry::new(tenant, now_ms, actor, what, body))
}

fn read(row: &Row<'_>) -> rusqlite::Result<EnrolledDevice> {
    Ok(EnrolledDevice {
        id: row.get("id")?,
        user: row.get("owner")?,
        device_id: row.get("device_id")?,
        imei: row.get("imei")?,
        serial: row.get("serial")?,
        udid: row.get("udid")?,
        model: row.get("model")?,
        sim: row.get("sim")?,
        phone_number: row.get("phone_number")?,
        compliant: row.get("compliant")?,
        enrolled_ms: row.get("enrolled_ms")?,
        wiped_ms: row.get("wiped_ms")?,
    })
}
