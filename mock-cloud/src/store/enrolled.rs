//! Phones that device management knows itself, whatever a mail system says of them.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::{self, Entry};
use super::rows::{Page, one_more};
use super::{Store, StoreError};

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
    /// Whether it keeps the rules of device management.
    pub compliant: bool,
    /// Unix milliseconds of the enrolment.
    pub enrolled_ms: i64,
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
    /// Whether it keeps the rules.
    pub compliant: bool,
}

const COLUMNS: &str = "id, owner, device_id, imei, serial, udid, model, compliant, enrolled_ms";

impl Store {
    /// Records an enrolled phone. One with the same user and identifiers is the same phone: it keeps its id, and only
    /// whether it is compliant (and its model) changes. Says whether it is new.
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
                     compliant, enrolled_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
                     ON CONFLICT (tenant, id) DO UPDATE SET compliant = excluded.compliant, \
                     model = coalesce(excluded.model, model) RETURNING {COLUMNS}"
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
                        now_ms
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
            }
            Ok(device.is_some())
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
        compliant: row.get("compliant")?,
        enrolled_ms: row.get("enrolled_ms")?,
    })
}
