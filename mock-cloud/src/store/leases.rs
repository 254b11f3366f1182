//! Leases: who may collect a resource, and the fence that grows with every new holder.
//!
//! Only the cloud's clock decides; the holder counts its own time from before it asked, so the two are never compared.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::signed;
use super::{Store, StoreError};

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// What is leased.
    pub resource: String,
    /// Grows with every new holder; 0 when nobody ever held it.
    pub fence: u64,
    /// Who has it, if anyone.
    pub holder: Option<String>,
    /// Process of the holder.
    pub boot_id: String,
    /// Unix milliseconds at which it ends without renewal.
    pub expires_ms: i64,
}

impl LeaseRow {
    /// Whether someone has it at `now_ms`.
    pub fn is_held(&self, now_ms: i64) -> bool {
        self.holder.is_some() && self.expires_ms > now_ms
    }
}

/// Who asks for a lease.
#[derive(Clone, Debug)]
pub struct LeaseAsk {
    /// Whose.
    pub tenant: String,
    /// What.
    pub resource: String,
    /// Instance of the asker.
    pub holder: String,
    /// Process of the asker.
    pub boot_id: String,
    /// Milliseconds the lease shall live.
    pub ttl_ms: u64,
    /// Now, Unix milliseconds.
    pub now_ms: i64,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leased {
    /// The asker has it; `new_holder` when it was asked for and not renewed.
    Granted {
        /// As it stands now.
        lease: LeaseRow,
        /// Whether the fence grew.
        new_holder: bool,
    },
    /// Someone else has it, or the fence given is not the current one.
    Refused(LeaseRow),
}

impl Store {
    /// Gets a lease that is free, over, or already the asker's; each time under a fence of its own.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn acquire_lease(&self, ask: LeaseAsk) -> Result<Leased, StoreError> {
        self.write(move |connection| {
            let lease = one(connection, &ask.tenant, &ask.resource)?;
            if lease.is_held(ask.now_ms) && lease.holder.as_deref() != Some(&ask.holder) {
                return Ok(Leased::Refused(lease));
            }
            // Also for its holder, which asks because it does not hold it any more: what it still says of the holding
            // before, a release above all, may be on its way and must not end this one.
            let granted = LeaseRow {
                resource: ask.resource.clone(),
                fence: lease.fence + 1,
                holder: Some(ask.holder.clone()),
                boot_id: ask.boot_id.clone(),
                expires_ms: ask.now_ms.saturating_add(signed(ask.ttl_ms)),
            };
            put(connection, &ask.tenant, &granted)?;
            Ok(Leased::Granted { lease: granted, new_holder: true })
        })
        .await
    }

    /// Keeps a lease that is the asker's under this fence and not over.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn renew_lease(&self, ask: LeaseAsk, fence: u64) -> Result<Leased, StoreError> {
        self.write(move |connection| {
            let lease = one(connection, &ask.tenant, &ask.resource)?;
            let own = lease.holder.as_deref() == Some(&ask.holder) && lease.fence == fence;
            if !own || !lease.is_held(ask.now_ms) {
                return Ok(Leased::Refused(lease));
            }
            Ok(Leased::Granted { lease: keep(connection, &ask, lease)?, new_holder: false })
        })
        .await
    }

    /// Gives a lease back. The fence stays, so that what was done under it still counts until the next holder.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release_lease(&self, ask: LeaseAsk, fence: u64) -> Result<LeaseRow, StoreError> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE leases SET holder = NULL, boot_id = '', expires_ms = 0 \
                     WHERE tenant = ?1 AND resource = ?2 AND holder = ?3 AND fence = ?4",
                )?
                .execute(params![ask.tenant, ask.resource, ask.holder, signed(fence)])?;
            one(connection, &ask.tenant, &ask.resource)
        })
        .await
    }

    /// Frees what earlier processes of an instance held. Returns the resources.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn free_leases_of_earlier_boots(
        &self,
        tenant: &str,
        holder: &str,
        boot_id: &str,
    ) -> Result<Vec<String>, StoreError> {
        let (tenant, holder, boot_id) = (tenant.to_owned(), holder.to_owned(), boot_id.to_owned());
        self.write(move |connection| {
            let mut query = connection.prepare_cached(
                "UPDATE leases SET holder = NULL, boot_id = '', expires_ms = 0 \
                 WHERE tenant = ?1 AND holder = ?2 AND boot_id <> ?3 RETURNING resource",
            )?;
            let resources = query.query_map(params![tenant, holder, boot_id], |row| row.get(0))?;
            Ok(resources.collect::<Result<Vec<_>, _>>()?)
        })
        .await
    }

    /// A lease as it stands; one that nobody ever held has fence 0.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn lease(&self, tenant: &str, resource: &str) -> Result<LeaseRow, StoreError> {
        let (tenant, resource) = (tenant.to_owned(), resource.to_owned());
        self.read(move |connection| one(connection, &tenant, &resource)).await
    }

    /// All leases of a tenant.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn leases(&self, tenant: &str) -> Result<Vec<LeaseRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT resource, fence, holder, boot_id, expires_ms FROM leases WHERE tenant = ?1 ORDER BY resource",
            )?;
            let rows = query.query_map([tenant], read)?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })
        .await
    }
}

/// The fence that counts now, for checks inside a transaction.
pub(super) fn current_fence(
    connection: &Connection,
    tenant: &str,
    resource: &str,
) -> Result<u64, StoreError> {
    Ok(one(connection, tenant, resource)?.fence)
}

fn keep(connection: &Connection, ask: &LeaseAsk, mut lease: LeaseRow) -> Result<LeaseRow, StoreError> {
    lease.expires_ms = ask.now_ms.saturating_add(signed(ask.ttl_ms));
    put(connection, &ask.tenant, &lease)?;
    Ok(lease)
}

fn put(connection: &Connection, tenant: &str, lease: &LeaseRow) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO leases (tenant, resource, fence, holder, boot_id, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (tenant, resource) DO UPDATE SET fence = excluded.fence, holder = excluded.holder, \
             boot_id = excluded.boot_id, expires_ms = excluded.expires_ms",
        )?
        .execute(params![
            tenant,
            lease.resource,
            signed(lease.fence),
            lease.holder,
            lease.boot_id,
            lease.expires_ms
        ])?;
    Ok(())
}

fn one(connection: &Connection, tenant: &str, resource: &str) -> Result<LeaseRow, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT resource, fence, holder, boot_id, expires_ms FROM leases WHERE tenant = ?1 AND resource = ?2",
        )?
        .query_row(params![tenant, resource], read)
        .optional()?;
    Ok(found.unwrap_or_else(|| LeaseRow {
        resource: resource.to_owned(),
        fence: 0,
        holder: None,
        boot_id: String::new(),
        expires_ms: 0,
    }))
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<LeaseRow> {
    let fence: i64 = row.get(1)?;
    Ok(LeaseRow {
        resource: row.get(0)?,
        fence: fence.unsigned_abs(),
        holder: row.get(2)?,
        boot_id: row.get(3)?,
        expires_ms: row.get(4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(holder: &str, now_ms: i64) -> LeaseAsk {
        LeaseAsk {
            tenant: "acme".to_owned(),
            resource: "directory".to_owned(),
            holder: holder.to_owned(),
            boot_id: "b".to_owned(),
            ttl_ms: 1_000,
            now_ms,
        }
    }

    async fn fence(store: &Store, asked: LeaseAsk) -> Option<u64> {
        match store.acquire_lease(asked).await.unwrap() {
            Leased::Granted { lease, .. } => Some(lease.fence),
            Leased::Refused(_) => None,
        }
    }

    /// Found by the simulation: one agent gave a lease back and asked for it again, the cloud's slow disk took that the
    /// other way round, and the agent held what the cloud then gave to another one.
    #[tokio::test]
    async fn a_release_that_comes_after_the_next_acquire_ends_only_its_own_holding() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).unwrap();
        let acme = super::super::Tenant { id: "acme".to_owned(), name: "Acme".to_owned(), created_ms: 0 };
        store.create_tenant(acme, "test".to_owned()).await.unwrap();
        let first = fence(&store, ask("one", 0)).await.unwrap();
        let second = fence(&store, ask("one", 10)).await.unwrap();
        assert!(second > first, "{second} is no newer than {first}");
        store.release_lease(ask("one", 20), first).await.unwrap();
        assert_eq!(fence(&store, ask("two", 30)).await, None, "it is held");
        let kept = store.renew_lease(ask("one", 40), second).await.unwrap();
        assert!(matches!(kept, Leased::Granted { new_holder: false, .. }), "{kept:?}");
        store.release_lease(ask("one", 50), second).await.unwrap();
        assert!(fence(&store, ask("two", 60)).await.unwrap() > second);
    }
}
