//! The compliance rule of a tenant, and what it found and ordered for each phone.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::{self, Entry};
use super::rows::{Page, json, one_more, signed, to_json, unsigned};
use super::{Store, StoreError};
use crate::limits::{COMPLIANCE_BLOCKS_MAX, COMPLIANCE_WINDOW_SECS};

/// When phones are blocked without a person. Blocks nothing unless it is switched on and not dry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ComplianceRule {
    /// Whether the rule is looked at; false when missing.
    pub enabled: bool,
    /// Only say what would be ordered; true when missing.
    pub dry_run: bool,
    /// Block phones that are not enrolled.
    pub block_not_enrolled: bool,
    /// Block enrolled phones that are not compliant; true when missing.
    pub block_not_compliant: bool,
    /// Approve quarantined phones that are enrolled and compliant; true when missing.
    pub approve_compliant: bool,
    /// Seconds between the finding and the block; 86,400 when missing.
    pub grace_secs: u64,
    /// Who is never blocked: logins, principal names, mail addresses, ActiveSync ids or ids of phones.
    pub exempt: Vec<String>,
    /// Programs that are never blocked, by client type (`REST`, `Outlook` ...): they have no identifier that could match.
    pub exempt_client_types: Vec<String>,
    /// Blocks within the window at most; more are held until a person confirms them; 20 when missing.
    pub blocks_max: u64,
    /// The window of that in seconds; 3,600 when missing.
    pub blocks_window_secs: u64,
}

impl Default for ComplianceRule {
    fn default() -> Self {
        Self {
            enabled: false,
            dry_run: true,
            block_not_enrolled: false,
            block_not_compliant: true,
            approve_compliant: true,
            grace_secs: 86_400,
            exempt: Vec::new(),
            exempt_client_types: Vec::new(),
            blocks_max: COMPLIANCE_BLOCKS_MAX,
            blocks_window_secs: COMPLIANCE_WINDOW_SECS,
        }
    }
}

/// The rule as stored.
#[derive(Clone, Debug)]
pub struct RuleRow {
    /// The rule.
    pub rule: ComplianceRule,
    /// Unix milliseconds of its last change; grace begins no earlier.
    pub changed_ms: i64,
    /// Unix milliseconds of the last look at all phones.
    pub evaluated_ms: i64,
    /// Blocks that wait for a person.
    pub held: u64,
    /// Blocks a person has let through and that are not ordered yet.
    pub confirmed: u64,
}

/// What the rule says of one phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// The phone's id.
    pub device: String,
    /// `compliant`, `not_compliant`, `not_enrolled` or `exempt`.
    pub finding: String,
    /// A sentence for people.
    pub why: String,
    /// Unix milliseconds since when.
    pub since_ms: i64,
    /// The action the rule wants, `block_device` or `approve_device`; null when it wants nothing.
    pub wants: Option<String>,
    /// Unix milliseconds from which it is ordered.
    pub due_ms: Option<i64>,
    /// The action it has ordered for this finding.
    pub ordered: Option<String>,
    /// The id of that order; null when nothing had to be done.
    pub action: Option<String>,
    /// Whether the phone is blocked by the rule.
    pub blocked: bool,
}

/// What the rule must know of a phone.
#[derive(Clone, Debug, Default)]
pub struct JudgedPhone {
    /// Place in the list of phones.
    pub number: i64,
    /// The phone's id.
    pub key: String,
    /// All of its record.
    pub record: causeway_protocol::mobile::DeviceRecord,
}

const FINDING: &str =
    "f.device, f.finding, f.why, f.since_ms, f.wants, f.due_ms, f.ordered, f.action, f.blocked";

impl Store {
    /// A tenant's rule; `None` when it never had one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn compliance_rule(&self, tenant: &str) -> Result<Option<RuleRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| rule_of(connection, &tenant)).await
    }

    /// Tenants whose rule is switched on.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn compliance_tenants(&self) -> Result<Vec<String>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT tenant FROM compliance_rules WHERE json_extract(rule, '$.enabled') ORDER BY tenant",
            )?;
            Ok(query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Replaces a tenant's rule. What the old one held is forgotten; what it ordered is not.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn set_compliance_rule(
        &self,
        tenant: &str,
        rule: ComplianceRule,
        actor: &str,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let (tenant, actor) = (tenant.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let text = to_json(&rule);
            connection
                .prepare_cached(
                    "INSERT INTO compliance_rules (tenant, rule, changed_ms) VALUES (?1, ?2, ?3) \
                     ON CONFLICT (tenant) DO UPDATE SET changed_ms = iif(rule = excluded.rule, changed_ms, \
                     excluded.changed_ms), rule = excluded.rule, held = 0, confirmed = 0",
                )?
                .execute(params![tenant, text, now_ms])?;
            let body = serde_json::json!({ "rule": rule });
            audit::append(connection, &Entry::new(&tenant, now_ms, &actor, "compliance_rule_changed", body))
        })
        .await
    }

    /// A person lets held blocks through; returns how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn confirm_compliance(
        &self,
        tenant: &str,
        actor: &str,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let (tenant, actor) = (tenant.to_owned(), actor.to_owned());
        self.write(move |connection| {
            let confirmed: Option<i64> = connection
                .prepare_cached(
                    "UPDATE compliance_rules SET confirmed = held, held = 0 WHERE tenant = ?1 AND held > 0 \
                     RETURNING confirmed",
                )?
                .query_row([&tenant], |row| row.get(0))
                .optional()?;
            let confirmed = confirmed.unwrap_or(0).unsigned_abs();
            if confirmed > 0 {
                let body = serde_json::json!({ "blocks": confirmed });
                audit::append(
                    connection,
                    &Entry::new(&tenant, now_ms, &actor, "compliance_confirmed", body),
                )?;
            }
            Ok(confirmed)
        })
        .await
    }

    /// The rule has looked at all phones: what it holds, and whether what a person let through is used up.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn compliance_evaluated(
        &self,
        tenant: &str,
        held: u64,
        confirmation_used: bool,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let tenant = tenant.to_owned();
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "UPDATE compliance_rules SET evaluated_ms = ?2, held = ?3, \
                     confirmed = iif(?4, 0, confirmed) WHERE tenant = ?1",
                )?
                .execute(params![tenant, now_ms, signed(held), confirmation_used])?;
            Ok(())
        })
        .await
    }

    /// Blocks that the rule has ordered since `since_ms`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn compliance_blocks_since(&self, tenant: &str, since_ms: i64) -> Result<u64, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let n: i64 = connection
                .prepare_cached(
                    "SELECT count(*) FROM actions WHERE tenant = ?1 AND idempotency_key >= 'compliance/block_device/' \
                     AND idempotency_key < 'compliance/block_device0' AND created_ms > ?2",
                )?
                .query_row(params![tenant, since_ms], |row| row.get(0))?;
            Ok(n.unsigned_abs())
        })
        .await
    }

    /// Phones in the order of their numbers, some at a time.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn judged_phones(
        &self,
        tenant: &str,
        after: i64,
        limit: usize,
    ) -> Result<Vec<JudgedPhone>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT id, key, record FROM devices WHERE tenant = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            )?;
            let mut rows = query.query(params![tenant, after, one_more(limit) - 1])?;
            let mut phones = Vec::new();
            while let Some(row) = rows.next()? {
                let record = json("device", &row.get::<_, String>("record")?)?;
                phones.push(JudgedPhone { number: row.get("id")?, key: row.get("key")?, record });
            }
            Ok(phones)
        })
        .await
    }

    /// Every finding of a tenant by phone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn findings_by_device(&self, tenant: &str) -> Result<HashMap<String, Finding>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {FINDING} FROM compliance_findings f WHERE f.tenant = ?1"
            ))?;
            let rows = query.query_map([tenant], |row| read(row).map(|it| (it.device.clone(), it)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// What the rule says of one phone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finding(&self, tenant: &str, device: &str) -> Result<Option<Finding>, StoreError> {
        let (tenant, device) = (tenant.to_owned(), device.to_owned());
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {FINDING} FROM compliance_findings f WHERE f.tenant = ?1 AND f.device = ?2"
            ))?;
            Ok(query.query_row(params![tenant, device], read).optional()?)
        })
        .await
    }

    /// Findings of phones that are there, by phone. `wanted` keeps those the rule wants something of.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn findings(
        &self,
        tenant: &str,
        finding: Option<String>,
        wanted: bool,
        limit: usize,
        after: Option<String>,
    ) -> Result<Page<Finding>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {FINDING} FROM compliance_findings f WHERE f.tenant = ?1 AND f.device > ?2 \
                 AND (?3 IS NULL OR f.finding = ?3) \
                 AND (NOT ?4 OR (f.wants IS NOT NULL AND f.ordered IS NOT f.wants)) \
                 AND EXISTS (SELECT 1 FROM devices d WHERE d.tenant = ?1 AND d.key = f.device) \
                 ORDER BY f.device LIMIT ?5"
            ))?;
            let parameters = params![tenant, after.unwrap_or_default(), finding, wanted, one_more(limit)];
            let rows = query.query_map(parameters, read)?.collect::<Result<Vec<_>, _>>()?;
            Ok(Page::cut(rows, limit, |row| row.device.clone()))
        })
        .await
    }

    /// Keeps what the rule found, and forgets phones that are gone and not blocked by it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keep_findings(
        &self,
        tenant: &str,
        changed: Vec<Finding>,
        gone: Vec<String>,
    ) -> Result<(), StoreError> {
        let tenant = tenant.to_owned();
        self.write(move |connection| {
            for finding in &changed {
                keep(connection, &tenant, finding)?;
            }
            let mut delete = connection.prepare_cached(
                "DELETE FROM compliance_findings WHERE tenant = ?1 AND device = ?2 AND blocked = 0",
            )?;
            for device in &gone {
                delete.execute(params![tenant, device])?;
            }
            Ok(())
        })
        .await
    }
}

fn rule_of(connection: &Connection, tenant: &str) -> Result<Option<RuleRow>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT rule, changed_ms, evaluated_ms, held, confirmed FROM compliance_rules WHERE tenant = ?1",
    )?;
    let mut rows = query.query([tenant])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(RuleRow {
        rule: json("compliance rule", &row.get::<_, String>("rule")?)?,
        changed_ms: row.get("changed_ms")?,
        evaluated_ms: row.get("evaluated_ms")?,
        held: unsigned(row, "held")?,
        confirmed: unsigned(row, "confirmed")?,
    }))
}

fn keep(connection: &Connection, tenant: &str, finding: &Finding) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO compliance_findings (tenant, device, finding, why, since_ms, wants, due_ms, ordered, action, \
             blocked) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT (tenant, device) DO UPDATE SET finding = excluded.finding, why = excluded.why, \
             since_ms = excluded.since_ms, wants = excluded.wants, due_ms = excluded.due_ms, \
             ordered = excluded.ordered, action = excluded.action, blocked = excluded.blocked",
        )?
        .execute(params![
            tenant,
            finding.device,
            finding.finding,
            finding.why,
            finding.since_ms,
            finding.wants,
            finding.due_ms,
            finding.ordered,
            finding.action,
            finding.blocked
        ])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Finding> {
    Ok(Finding {
        device: row.get("device")?,
        finding: row.get("finding")?,
        why: row.get("why")?,
        since_ms: row.get("since_ms")?,
        wants: row.get("wants")?,
        due_ms: row.get("due_ms")?,
        ordered: row.get("ordered")?,
        action: row.get("action")?,
        blocked: row.get("blocked")?,
    })
}
