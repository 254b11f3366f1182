//! Tenants: the customers of the cloud.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::audit::{self, Entry};
use super::rows::{Page, one_more};
use super::{Store, StoreError};
use crate::limits::TENANTS_KNOWN_MAX;

/// A customer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Tenant {
    /// Lower case letters, digits and hyphens; part of every path and of agents' certificates.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Unix milliseconds of its creation.
    pub created_ms: i64,
}

/// Figures of one tenant for an overview.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct TenantCounts {
    /// Enrolled agents that are not revoked.
    pub agents: u64,
    /// Users in the directory as uploaded.
    pub users: u64,
    /// Groups.
    pub groups: u64,
    /// Organisational units.
    pub ous: u64,
    /// Direct memberships.
    pub members: u64,
    /// Phones, once for each mailbox they are in.
    pub devices: u64,
    /// Actions that are not finished.
    pub actions_pending: u64,
    /// Alerts that are open.
    pub alerts_open: u64,
}

/// Tenants that were found: every call names one, and nothing changes or ends them but a reset.
#[derive(Default)]
pub(super) struct KnownTenants(RwLock<Known>);

#[derive(Default)]
struct Known {
    by_id: HashMap<String, Tenant>,
    resets: u64,
}

impl KnownTenants {
    /// The tenant, where it is known, and how many resets there were.
    fn find(&self, id: &str) -> (Option<Tenant>, u64) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (known.by_id.get(id).cloned(), known.resets)
    }

    /// Remembers what the store had said, unless it was reset since `resets` was read.
    fn found(&self, tenant: &Tenant, resets: u64) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.resets == resets && known.by_id.len() < TENANTS_KNOWN_MAX {
            known.by_id.insert(tenant.id.clone(), tenant.clone());
        }
    }

    /// The store has none any more.
    fn reset(&self) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.by_id.clear();
        known.resets += 1;
    }
}

impl Store {
    /// Creates a tenant. `false` when the id is taken.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create_tenant(&self, tenant: Tenant, actor: String) -> Result<bool, StoreError> {
        self.write(move |connection| {
            let added = connection.execute(
                "INSERT INTO tenants (id, name, created_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![tenant.id, tenant.name, tenant.created_ms],
            )?;
            if added == 1 {
                let body = serde_json::json!({ "name": tenant.name });
                audit::append(
                    connection,
                    &Entry::new(&tenant.id, tenant.created_ms, &actor, "tenant_created", body),
                )?;
            }
            Ok(added == 1)
        })
        .await
    }

    /// One tenant.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tenant(&self, id: &str) -> Result<Option<Tenant>, StoreError> {
        let (known, resets) = self.known.find(id);
        if known.is_some() {
            return Ok(known);
        }
        let id = id.to_owned();
        let found = self.read(move |connection| one(connection, &id)).await?;
        if let Some(tenant) = &found {
            self.known.found(tenant, resets);
        }
        Ok(found)
    }

    /// Tenants in the order of their ids.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tenants(&self, limit: usize, after: Option<String>) -> Result<Page<Tenant>, StoreError> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT id, name, created_ms FROM tenants WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?;
            let rows = query
                .query_map(params![after.unwrap_or_default(), one_more(limit)], read)?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Page::cut(rows, limit, |tenant| tenant.id.clone()))
        })
        .await
    }

    /// Figures for an overview.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tenant_counts(&self, id: &str) -> Result<TenantCounts, StoreError> {
        let id = id.to_owned();
        self.read(move |connection| {
            let count = |query: &str| -> Result<u64, StoreError> {
                let n: i64 = connection.prepare_cached(query)?.query_row([&id], |row| row.get(0))?;
                Ok(n.unsigned_abs())
            };
            Ok(TenantCounts {
                agents: count("SELECT count(*) FROM agents WHERE tenant = ?1 AND revoked_ms IS NULL")?,
                users: count("SELECT coalesce(sum(users), 0) FROM sources WHERE tenant = ?1")?,
                groups: count("SELECT coalesce(sum(groups), 0) FROM sources WHERE tenant = ?1")?,
                ous: count("SELECT coalesce(sum(ous), 0) FROM sources WHERE tenant = ?1")?,
                members: count("SELECT coalesce(sum(members), 0) FROM sources WHERE tenant = ?1")?,
                devices: count("SELECT coalesce(sum(devices), 0) FROM sources WHERE tenant = ?1")?,
                actions_pending: count(
                    "SELECT count(*) FROM actions WHERE tenant = ?1 AND status = 'pending'",
                )?,
                alerts_open: count("SELECT count(*) FROM alerts WHERE tenant = ?1 AND closed_ms IS NULL")?,
            })
        })
        .await
    }

    /// Deletes every tenant and all that belongs to it: what `POST /reset` of the admin API does.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reset(&self) -> Result<(), StoreError> {
        self.write(|connection| {
            // Children first: large tables without a foreign key are not reached by the cascade.
            for table in [
                "members",
                "users",
                "groups",
                "ous",
                "devices",
                "device_policies",
                "mail_organizations",
                "objects",
                "tenants",
                "events",
                "audit",
            ] {
                connection.execute(&format!("DELETE FROM {table}"), [])?;
            }
            Ok(())
        })
        .await?;
        self.known.reset();
        Ok(())
    }
}

fn one(connection: &Connection, id: &str) -> Result<Option<Tenant>, StoreError> {
    let mut query = connection.prepare_cached("SELECT id, name, created_ms FROM tenants WHERE id = ?1")?;
    Ok(query.query_row([id], read).optional()?)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Tenant> {
    Ok(Tenant { id: row.get(0)?, name: row.get(1)?, created_ms: row.get(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenant_is_known_until_the_store_is_reset() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let acme = Tenant { id: "acme".to_owned(), name: "Acme".to_owned(), created_ms: 1 };
        assert!(store.tenant("acme").await.unwrap().is_none(), "that there is none is not remembered");
        assert!(store.create_tenant(acme.clone(), "test".to_owned()).await.unwrap());
        for _ in 0..2 {
            assert_eq!(store.tenant("acme").await.unwrap().unwrap().name, "Acme");
        }
        let (_, resets) = store.known.find("acme");
        store.reset().await.unwrap();
        assert!(store.tenant("acme").await.unwrap().is_none());
        // Somebody who had read it before the reset comes late.
        store.known.found(&acme, resets);
        assert!(store.tenant("acme").await.unwrap().is_none());
    }
}
