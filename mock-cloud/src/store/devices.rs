//! Phones, their policies and mail systems as the last uploads left them.

use std::collections::BTreeMap;

use causeway_protocol::mobile::{DevicePolicyRecord, DeviceRecord, MailOrganizationRecord};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::directory::{Cursor, Search};
use super::rows::{Page, json, one_more};
use super::{Store, StoreError};

/// One phone in one mailbox.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Device {
    /// The mail system's stable id of this partnership.
    pub id: String,
    /// Where it was collected.
    pub source: String,
    /// The kind of mail system, for example `exchange`.
    pub system: String,
    /// What the phone calls itself towards the server (ActiveSync DeviceId).
    pub device_id: String,
    /// The server's name for the partnership.
    pub identity: String,
    /// Stable id of the mailbox.
    pub mailbox: String,
    /// The mailbox's primary address.
    pub address: Option<String>,
    /// Login name or principal name of its owner.
    pub user: Option<String>,
    /// The owner's name.
    pub display_name: Option<String>,
    /// What the owner calls the phone.
    pub friendly_name: Option<String>,
    /// Model as the phone says it.
    pub model: Option<String>,
    /// Type as the phone says it.
    pub device_type: Option<String>,
    /// Operating system and version.
    pub os: Option<String>,
    /// IMEI.
    pub imei: Option<String>,
    /// Telephone number.
    pub phone_number: Option<String>,
    /// Mobile operator.
    pub operator: Option<String>,
    /// ActiveSync user agent.
    pub user_agent: Option<String>,
    /// `EAS`, `REST`, `Outlook`, `MOWA`.
    pub client_type: Option<String>,
    /// Protocol version the phone speaks.
    pub client_version: Option<String>,
    /// `allowed`, `blocked`, `quarantined`, `device_discovery`, `unknown`, or another word of the server.
    pub access_state: String,
    /// Why, in the server's word.
    pub access_reason: Option<String>,
    /// The rule that decided.
    pub access_rule: Option<String>,
    /// First contact, RFC 3339 in UTC.
    pub first_sync: Option<String>,
    /// Last synchronisation that succeeded, RFC 3339 in UTC; some programs report none.
    pub last_sync: Option<String>,
    /// Last attempt, RFC 3339 in UTC.
    pub last_attempt: Option<String>,
    /// Name of the policy in force on the phone.
    pub policy: Option<String>,
    /// How far the phone has applied it.
    pub policy_status: Option<String>,
    /// Where a wipe stands.
    pub wipe_status: Option<String>,
    /// When the phone confirmed a wipe, RFC 3339 in UTC.
    pub wipe_acknowledged: Option<String>,
    /// Folders it keeps in step.
    pub folders: Option<u32>,
}

impl Device {
    /// As the agent sent it.
    pub fn from_record(id: String, source: String, record: DeviceRecord) -> Self {
        Self {
            id,
            source,
            system: record.system,
            device_id: record.device_id,
            identity: record.identity,
            mailbox: record.mailbox,
            address: record.address,
            user: record.user,
            display_name: record.display_name,
            friendly_name: record.friendly_name,
            model: record.model,
            device_type: record.device_type,
            os: record.os,
            imei: record.imei,
            phone_number: record.phone_number,
            operator: record.operator,
            user_agent: record.user_agent,
            client_type: record.client_type,
            client_version: record.client_version,
            access_state: record.access_state,
            access_reason: record.access_reason,
            access_rule: record.access_rule,
            first_sync: record.first_sync,
            last_sync: record.last_sync,
            last_attempt: record.last_attempt,
            policy: record.policy,
            policy_status: record.policy_status,
            wipe_status: record.wipe_status,
            wipe_acknowledged: record.wipe_acknowledged,
            folders: record.folders,
        }
    }

    /// The owner's name, or the best word there is for it.
    pub fn owner(&self) -> &str {
        let words = [self.display_name.as_deref(), self.user.as_deref(), self.address.as_deref()];
        words.into_iter().flatten().find(|word| !word.trim().is_empty()).unwrap_or(&self.mailbox)
    }
}

/// A policy for phones.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DevicePolicy {
    /// The mail system's stable id.
    pub id: String,
    /// Where it was collected.
    pub source: String,
    /// The kind of mail system.
    pub system: String,
    /// Name.
    pub name: String,
    /// Whether mailboxes without a policy of their own get this one.
    pub is_default: bool,
    /// Everything it says, by the server's names.
    pub settings: BTreeMap<String, String>,
    /// Phones that report this policy.
    pub devices: u64,
}

/// A mail system.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MailOrganization {
    /// Stable id or name.
    pub id: String,
    /// Where it was collected.
    pub source: String,
    /// The kind of mail system.
    pub system: String,
    /// Name.
    pub name: String,
    /// Product version.
    pub version: String,
    /// What happens to a phone nobody has decided about; null where the version has no such setting.
    pub default_access: Option<String>,
    /// Further settings by the server's names.
    pub settings: BTreeMap<String, String>,
}

/// Which phones.
#[derive(Clone, Debug, Default)]
pub struct DeviceSearch {
    /// Part of an owner's name or address, a model, an id or a number, any case.
    pub q: Option<String>,
    /// Only in this access state.
    pub state: Option<String>,
    /// Only with this policy.
    pub policy: Option<String>,
    /// Rows on the page.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

const DEVICE: &str = "d.id, d.key, s.source, d.record, d.sort";

impl Store {
    /// Phones in the order of their owners' names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn devices(&self, tenant: &str, search: DeviceSearch) -> Result<Page<Device>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let after = search.after.unwrap_or_else(Cursor::start);
            // One statement each, so that a filter can use its index.
            let state = if search.state.is_some() { "AND d.state = ?5" } else { "AND ?5 IS NULL" };
            let query = format!(
                "SELECT {DEVICE} FROM devices d JOIN sources s ON s.id = d.source WHERE d.tenant = ?1 \
                 AND (d.sort, d.id) > (?2, ?3) AND (?4 IS NULL OR instr(d.search, ?4) > 0) {state} \
                 AND (?6 IS NULL OR d.policy = ?6) ORDER BY d.sort, d.id LIMIT ?7"
            );
            let q = search.q.as_deref().map(str::trim).filter(|q| !q.is_empty()).map(str::to_lowercase);
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query(params![
                tenant,
                after.sort,
                after.id,
                q,
                search.state,
                search.policy,
                one_more(search.limit)
            ])?;
            let mut items = Vec::new();
            while let Some(row) = rows.next()? {
                let cursor = Cursor::text(&row.get::<_, String>("sort")?, row.get("id")?);
                items.push((cursor, read_device(row)?));
            }
            let page = Page::cut(items, search.limit, |(cursor, _)| cursor.clone());
            Ok(Page { items: page.items.into_iter().map(|(_, device)| device).collect(), next: page.next })
        })
        .await
    }

    /// One phone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn device(&self, tenant: &str, id: &str) -> Result<Option<Device>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let query = format!(
                "SELECT {DEVICE} FROM devices d JOIN sources s ON s.id = d.source \
                 WHERE d.tenant = ?1 AND d.key = ?2 ORDER BY s.committed_ms DESC LIMIT 1"
            );
            let mut statement = connection.prepare_cached(&query)?;
            let mut rows = statement.query(params![tenant, id])?;
            rows.next()?.map(read_device).transpose()
        })
        .await
    }

    /// The collection a phone was last seen by: `exchange/default`, for example.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn device_source(&self, tenant: &str, id: &str) -> Result<Option<String>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let source = connection
                .prepare_cached(
                    "SELECT s.source FROM devices d JOIN sources s ON s.id = d.source \
                     WHERE d.tenant = ?1 AND d.key = ?2 ORDER BY s.committed_ms DESC LIMIT 1",
                )?
                .query_row(params![tenant, id], |row| row.get(0))
                .optional()?;
            Ok(source)
        })
        .await
    }

    /// Phones by access state.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn device_states(&self, tenant: &str) -> Result<BTreeMap<String, u64>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            counted(
                connection,
                "SELECT state, count(*) FROM devices WHERE tenant = ?1 GROUP BY state",
                &tenant,
            )
        })
        .await
    }

    /// Policies for phones in the order of their names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn device_policies(
        &self,
        tenant: &str,
        search: Search,
    ) -> Result<Page<DevicePolicy>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let uses = counted(
                connection,
                "SELECT policy, count(*) FROM devices WHERE tenant = ?1 AND policy IS NOT NULL GROUP BY policy",
                &tenant,
            )?;
            documents(connection, "device_policies", &tenant, &search, |id, source, text| {
                policy(id, source, text, &uses)
            })
        })
        .await
    }

    /// One policy.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn device_policy(&self, tenant: &str, id: &str) -> Result<Option<DevicePolicy>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let found: Option<(String, String)> = connection
                .prepare_cached(
                    "SELECT s.source, p.record FROM device_policies p JOIN sources s ON s.id = p.source \
                     WHERE p.tenant = ?1 AND p.key = ?2",
                )?
                .query_row(params![tenant, id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((source, text)) = found else { return Ok(None) };
            let uses = counted(
                connection,
                "SELECT policy, count(*) FROM devices WHERE tenant = ?1 AND policy IS NOT NULL GROUP BY policy",
                &tenant,
            )?;
            policy(id, source, &text, &uses).map(Some)
        })
        .await
    }

    /// Mail systems in the order of their names.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn mail_organizations(
        &self,
        tenant: &str,
        search: Search,
    ) -> Result<Page<MailOrganization>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            documents(connection, "mail_organizations", &tenant, &search, |id, source, text| {
                let record: MailOrganizationRecord = json("mail organisation", text)?;
                let MailOrganizationRecord { system, name, version, default_access, settings } = record;
                Ok(MailOrganization { id, source, system, name, version, default_access, settings })
            })
        })
        .await
    }
}

fn policy(
    id: String,
    source: String,
    text: &str,
    uses: &BTreeMap<String, u64>,
) -> Result<DevicePolicy, StoreError> {
    let DevicePolicyRecord { system, name, is_default, settings } = json("device policy", text)?;
    let devices = uses.get(&name).copied().unwrap_or(0);
    Ok(DevicePolicy { id, source, system, name, is_default, settings, devices })
}

/// Rows of a table whose rows are one document each, in the order of their names.
fn documents<T>(
    connection: &Connection,
    table: &'static str,
    tenant: &str,
    search: &Search,
    read: impl Fn(String, String, &str) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let after = search.after.clone().unwrap_or_else(Cursor::start);
    let q = search.q.as_deref().map(str::trim).filter(|q| !q.is_empty()).map(str::to_lowercase);
    let query = format!(
        "SELECT t.id, t.key, s.source, t.record, t.sort FROM {table} t JOIN sources s ON s.id = t.source \
         WHERE t.tenant = ?1 AND (t.sort, t.id) > (?2, ?3) AND (?4 IS NULL OR instr(t.search, ?4) > 0) \
         ORDER BY t.sort, t.id LIMIT ?5"
    );
    let mut statement = connection.prepare_cached(&query)?;
    let mut rows = statement.query(params![tenant, after.sort, after.id, q, one_more(search.limit)])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let cursor = Cursor::text(&row.get::<_, String>("sort")?, row.get("id")?);
        items.push((cursor, read(row.get("key")?, row.get("source")?, &row.get::<_, String>("record")?)?));
    }
    let page = Page::cut(items, search.limit, |(cursor, _)| cursor.clone());
    Ok(Page { items: page.items.into_iter().map(|(_, item)| item).collect(), next: page.next })
}

fn counted(
    connection: &Connection,
    sql: &'static str,
    tenant: &str,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows =
        statement.query_map([tenant], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read_device(row: &Row<'_>) -> Result<Device, StoreError> {
    let record: DeviceRecord = json("device", &row.get::<_, String>("record")?)?;
    Ok(Device::from_record(row.get("key")?, row.get("source")?, record))
}
