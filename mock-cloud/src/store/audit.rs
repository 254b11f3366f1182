//! The audit log: one hash chain per tenant, so that a row changed or removed afterwards is found.

use aws_lc_rs::digest;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::rows::{Page, json, one_more, to_json};
use super::{Store, StoreError};

/// What is written: who did what. Never a secret.
#[derive(Clone, Debug)]
pub struct Entry {
    tenant: String,
    at_ms: i64,
    actor: String,
    what: &'static str,
    body: Value,
}

impl Entry {
    /// `actor` is `api`, `portal:<user>`, `agent:<instance>` or `cloud`.
    pub fn new(tenant: &str, at_ms: i64, actor: &str, what: &'static str, body: Value) -> Self {
        Self { tenant: tenant.to_owned(), at_ms, actor: actor.to_owned(), what, body }
    }
}

/// A row of the log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditRow {
    /// Counts from 1 without gaps.
    pub n: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// What, a lower snake case verb in the past tense.
    pub what: String,
    /// Particulars.
    #[schema(value_type = Object)]
    pub body: Value,
    /// SHA-256 of this row and the hash before it, in hexadecimal.
    pub hash: String,
}

/// Outcome of walking the whole chain.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditVerdict {
    /// Whether every row is as it was written.
    pub intact: bool,
    /// Rows walked.
    pub rows: u64,
    /// Hash of the last row. Whoever keeps it elsewhere can also prove that no row was cut off the end.
    pub head: String,
    /// The first row that does not fit, when not intact.
    pub first_broken: Option<u64>,
}

/// Appends within the transaction of the change it records.
pub(super) fn append(connection: &Connection, entry: &Entry) -> Result<(), StoreError> {
    let last: Option<(i64, Vec<u8>)> = connection
        .prepare_cached("SELECT n, hash FROM audit WHERE tenant = ?1 ORDER BY n DESC LIMIT 1")?
        .query_row([&entry.tenant], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (n, prev) = last.map_or_else(|| (1, Vec::new()), |(n, hash)| (n + 1, hash));
    let body = to_json(&entry.body);
    let hash = chain(&prev, &entry.tenant, n, entry.at_ms, &entry.actor, entry.what, &body);
    connection
        .prepare_cached("INSERT INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![entry.tenant, n, entry.at_ms, entry.actor, entry.what, body, prev, hash])?;
    Ok(())
}

impl Store {
    /// Records something that changes nothing else in the store.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn audit(&self, entry: Entry) -> Result<(), StoreError> {
        self.write(move |connection| append(connection, &entry)).await
    }

    /// The log, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn audit_rows(
        &self,
        tenant: &str,
        limit: usize,
        before: Option<i64>,
    ) -> Result<Page<AuditRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT n, at_ms, actor, what, body, hash FROM audit WHERE tenant = ?1 AND n < ?2 \
                 ORDER BY n DESC LIMIT ?3",
            )?;
            let mut rows = query.query(params![tenant, before.unwrap_or(i64::MAX), one_more(limit)])?;
            let mut items = Vec::new();
            while let Some(row) = rows.next()? {
                items.push(AuditRow {
                    n: row.get::<_, i64>(0)?.unsigned_abs(),
                    at_ms: row.get(1)?,
                    actor: row.get(2)?,
                    what: row.get(3)?,
                    body: json("audit body", &row.get::<_, String>(4)?)?,
                    hash: hex(&row.get::<_, Vec<u8>>(5)?),
                });
            }
            Ok(Page::cut(items, limit, |row| row.n.to_string()))
        })
        .await
    }

    /// Walks the tenant's chain from its first row.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn verify_audit(&self, tenant: &str) -> Result<AuditVerdict, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| walk(connection, &tenant)).await
    }
}

fn walk(connection: &Connection, tenant: &str) -> Result<AuditVerdict, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT n, at_ms, actor, what, body, prev, hash FROM audit WHERE tenant = ?1 ORDER BY n",
    )?;
    let mut rows = query.query([tenant])?;
    let mut verdict = AuditVerdict { intact: true, rows: 0, head: String::new(), first_broken: None };
    let mut prev: Vec<u8> = Vec::new();
    let mut expected_n = 1_i64;
    while let Some(row) = rows.next()? {
        let n: i64 = row.get(0)?;
        let (actor, what, body): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let hash: Vec<u8> = row.get(6)?;
        let right = chain(&prev, tenant, n, row.get(1)?, &actor, &what, &body);
        let fits = n == expected_n && row.get::<_, Vec<u8>>(5)? == prev && hash == right;
        if !fits && verdict.intact {
            verdict.intact = false;
            verdict.first_broken = Some(expected_n.unsigned_abs());
        }
        verdict.rows += 1;
        expected_n = n + 1;
        prev = hash;
    }
    verdict.head = hex(&prev);
    Ok(verdict)
}

/// Every field with its length in front, so that no two different rows give the same bytes.
fn chain(prev: &[u8], tenant: &str, n: i64, at_ms: i64, actor: &str, what: &str, body: &str) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    let (n, at_ms) = (n.to_be_bytes(), at_ms.to_be_bytes());
    for field in [prev, tenant.as_bytes(), &n, &at_ms, actor.as_bytes(), what.as_bytes(), body.as_bytes()] {
        context.update(&(field.len() as u64).to_be_bytes());
        context.update(field);
    }
    context.finish().as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
