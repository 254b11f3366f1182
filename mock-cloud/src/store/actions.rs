//! Actions: durable from the moment the API answers, with exactly one terminal status by compare-and-set.

use causeway_protocol::action::{ErrorReport, Status};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::Value;

use super::audit::{self, Entry};
use super::certificate_requests::{CertificateRequest, IssuedRequest, issue};
use super::order_keys::{digest_of, earlier, earlier_many, key_of_part};
use super::rows::{Page, json, json_opt, one_more, signed, to_json, unsigned};
use super::{Store, StoreError};
use crate::limits::TIMELINE_MAX;

/// Work a user of the API orders.
#[derive(Clone, Debug)]
pub struct NewAction {
    /// Stable kind of the module.
    pub module: String,
    /// Lower snake case verb.
    pub action: String,
    /// What to do it to.
    pub target: Value,
    /// How to do it.
    pub params: Value,
    /// Makes repeating the order harmless.
    pub idempotency_key: Option<String>,
    /// Milliseconds until it is over, whatever happened.
    pub ttl_ms: u64,
    /// Who orders, for the audit log.
    pub actor: String,
    /// Why, for the timeline; empty when a person orders.
    pub reason: String,
}

/// An order to record.
#[derive(Clone, Debug)]
pub struct Order {
    /// Names the action for ever, see [`Store::action_id`].
    pub id: String,
    /// What is ordered.
    pub new: NewAction,
    /// The agent it goes to as soon as it is recorded: its first attempt.
    pub given: Option<Given>,
}

/// To whom an attempt goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The agent's instance id.
    pub agent: String,
    /// The lease it acts under.
    pub under: Option<Under>,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// A new action with this id.
    New(String),
    /// The same order was given before under this key; here is its id.
    Same(String),
    /// The key was used for another order.
    OtherBody(String),
}

impl Inserted {
    /// The action that stands for the order, whoever gave it first.
    pub fn id(&self) -> &str {
        match self {
            Self::New(id) | Self::Same(id) | Self::OtherBody(id) => id,
        }
    }
}

/// An action as stored.
#[derive(Clone, Debug)]
pub struct ActionRow {
    /// Order of creation.
    pub seq: i64,
    /// Whose.
    pub tenant: String,
    /// Unique for ever.
    pub id: String,
    /// Stable kind of the module.
    pub module: String,
    /// Lower snake case verb.
    pub action: String,
    /// What to do it to.
    pub target: Value,
    /// How to do it.
    pub params: Value,
    /// Where it stands.
    pub status: Status,
    /// Whether the agent of the current attempt has it durably.
    pub accepted: bool,
    /// The agent of the current attempt.
    pub agent: Option<String>,
    /// Fence under which that agent may act.
    pub fence: Option<u64>,
    /// The resource whose lease that fence belongs to, or belonged to at the last attempt that had one.
    pub resource: Option<String>,
    /// Dispatches so far.
    pub attempts: u32,
    /// What came of it.
    pub result: Option<Value>,
    /// Why it failed.
    pub error: Option<ErrorReport>,
    /// Unix milliseconds of the order.
    pub created_ms: i64,
    /// Unix milliseconds of its deadline.
    pub deadline_ms: i64,
    /// Unix milliseconds of its end.
    pub finished_ms: Option<i64>,
}

/// The lease an action is given under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Under {
    /// What is leased.
    pub resource: String,
    /// The holder's fence.
    pub fence: u64,
}

/// One line of an action's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineRow {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// `queued`, `dispatched`, `accepted`, `running`, `lost`, `success`, `failure`, `duplicate_result` ...
    pub event: String,
    /// The agent concerned.
    pub agent: Option<String>,
    /// A few words for people.
    pub detail: String,
}

/// What a terminal status met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It is the one.
    Done,
    /// The action had ended before; kept in the timeline as `duplicate_result`.
    Duplicate,
    /// The tenant has no such action.
    Unknown,
}

/// Filters of a list.
#[derive(Clone, Debug, Default)]
pub struct ActionFilter {
    /// Only these.
    pub status: Option<Status>,
    /// Only of this module.
    pub module: Option<String>,
    /// Only last given to this agent.
    pub agent: Option<String>,
    /// Only about the thing with this key (a phone), as `key` of the target names it.
    pub key: Option<String>,
}

pub(super) const COLUMNS: &str = "seq, tenant, id, module, action, target, params, status, accepted, agent, fence, resource, \
                       attempts, result, error, created_ms, deadline_ms, finished_ms";

impl NewAction {
    /// The action as it stands when it is recorded.
    pub fn row(&self, tenant: &str, id: &str, now_ms: i64) -> ActionRow {
        ActionRow {
            seq: 0,
            tenant: tenant.to_owned(),
            id: id.to_owned(),
            module: self.module.clone(),
            action: self.action.clone(),
            target: self.target.clone(),
            params: self.params.clone(),
            status: Status::Pending,
            accepted: false,
            agent: None,
            fence: None,
            resource: None,
            attempts: 0,
            result: None,
            error: None,
            created_ms: now_ms,
            deadline_ms: now_ms.saturating_add(signed(self.ttl_ms)),
            finished_ms: None,
        }
    }
}

impl Store {
    /// An id for an action that is not recorded yet.
    pub fn action_id(&self) -> String {
        self.ids.next().to_string()
    }

    /// Records an order, and its first attempt where it has one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn insert_action(
        &self,
        tenant: &str,
        order: Order,
        now_ms: i64,
    ) -> Result<Inserted, StoreError> {
        let tenant = tenant.to_owned();
        self.write(move |connection| insert(connection, &tenant, &order, now_ms)).await
    }

    /// Records many orders under one key, all or none; what became of each. When the key belongs to another order, or to
    /// another list, only that is returned and none is recorded.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn insert_actions(
        &self,
        tenant: &str,
        key: Option<String>,
        new: Vec<NewAction>,
        now_ms: i64,
    ) -> Result<Vec<Inserted>, StoreError> {
        let tenant = tenant.to_owned();
        let order = |(n, new): (usize, NewAction)| {
            let idempotency_key = key.as_deref().map(|key| key_of_part(key, n));
            Order { id: self.action_id(), new: NewAction { idempotency_key, ..new }, given: None }
        };
        let orders: Vec<_> = new.into_iter().enumerate().map(order).collect();
        self.write(move |connection| {
            if let Some(key) = &key
                && let Some(known) = earlier_many(connection, &tenant, key, &orders)?
            {
                return Ok(known);
            }
            orders.iter().map(|order| insert(connection, &tenant, order, now_ms)).collect()
        })
        .await
    }

    /// One action with its timeline.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn action(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<(ActionRow, Vec<TimelineRow>)>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.read(move |connection| {
            let Some(action) = one(connection, &tenant, &id)? else { return Ok(None) };
            let mut query = connection.prepare_cached(
                "SELECT at_ms, event, agent, detail FROM action_timeline WHERE action = ?1 ORDER BY n",
            )?;
            let timeline = query
                .query_map([&id], |row| {
                    Ok(TimelineRow {
                        at_ms: row.get(0)?,
                        event: row.get(1)?,
                        agent: row.get(2)?,
                        detail: row.get(3)?,
                    })
                })?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Some((action, timeline)))
        })
        .await
    }

    /// Actions, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn actions(
        &self,
        tenant: &str,
        filter: ActionFilter,
        limit: usize,
        before: Option<i64>,
    ) -> Result<Page<ActionRow>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| {
            // Without a bare comparison the index on it is not used.
            let about =
                if filter.key.is_some() { "AND json_extract(target, '$.key') = ?6" } else { "AND ?6 IS NULL" };
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM actions WHERE tenant = ?1 AND seq < ?2 AND (?3 IS NULL OR status = ?3) \
                 AND (?4 IS NULL OR module = ?4) AND (?5 IS NULL OR agent = ?5) {about} ORDER BY seq DESC LIMIT ?7"
            ))?;
            let rows = query.query(params![
                tenant,
                before.unwrap_or(i64::MAX),
                filter.status.map(Status::as_str),
                filter.module,
                filter.agent,
                filter.key,
                one_more(limit)
            ])?;
            Ok(Page::cut(collect(rows)?, limit, |action| action.seq.to_string()))
        })
        .await
    }

    /// Every action that is not finished, of all tenants, oldest first: what dispatch takes up after a restart.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn pending_actions(&self) -> Result<Vec<ActionRow>, StoreError> {
        self.read(|connection| {
            let mut query = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM actions WHERE status = 'pending' ORDER BY seq"
            ))?;
            collect(query.query([])?)
        })
        .await
    }

    /// The action goes to an agent: counts the attempt and returns its number; `None` when it is not pending.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn action_dispatched(
        &self,
        tenant: &str,
        id: &str,
        given: Given,
        now_ms: i64,
    ) -> Result<Option<u32>, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.write(move |connection| give(connection, &tenant, &id, &given, now_ms)).await
    }

    /// The agent has the action durably. `false` when the action has ended or belongs to another agent by now. Does not
    /// wait for the disk: an action whose acceptance a power cut has undone is offered again, and its agent knows it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn action_accepted(
        &self,
        tenant: &str,
        id: &str,
        agent: &str,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let (tenant, id, agent) = (tenant.to_owned(), id.to_owned(), agent.to_owned());
        self.write_soon(move |connection| {
            let changed = connection
                .prepare_cached(
                    "UPDATE actions SET accepted = 1 WHERE tenant = ?1 AND id = ?2 AND agent = ?3 \
                     AND status = 'pending' AND accepted = 0",
                )?
                .execute(params![tenant, id, agent])?;
            if changed == 1 {
                note(connection, &tenant, &id, now_ms, "accepted", Some(&agent), "")?;
            }
            Ok(changed == 1)
        })
        .await
    }

    /// Writes a line into the timeline of a pending action. `false` when it is not pending.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn action_note(
        &self,
        tenant: &str,
        id: &str,
        event: &'static str,
        agent: Option<String>,
        detail: String,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.write(move |connection| {
            let pending: bool = connection
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM actions WHERE tenant = ?1 AND id = ?2 AND status = 'pending')",
                )?
                .query_row(params![tenant, id], |row| row.get(0))?;
            if pending {
                note(connection, &tenant, &id, now_ms, event, agent.as_deref(), &detail)?;
            }
            Ok(pending)
        })
        .await
    }

    /// Ends an action, if nothing has ended it yet, and with it the request it has brought a certificate for; gives that
    /// request as it stands then.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finish_action(
        &self,
        tenant: &str,
        id: &str,
        agent: Option<String>,
        result: Result<Value, ErrorReport>,
        issued: Option<IssuedRequest>,
        now_ms: i64,
    ) -> Result<(Finish, Option<CertificateRequest>), StoreError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.write(move |connection| {
            let finish = finish(connection, &tenant, &id, agent.as_deref(), &result, now_ms)?;
            let request = match issued {
                Some(issued) if finish == Finish::Done => issue(connection, &tenant, &issued, now_ms)?,
                _ => None,
            };
            Ok((finish, request))
        })
        .await
    }
}

pub(super) fn insert(
    connection: &Connection,
    tenant: &str,
    order: &Order,
    now_ms: i64,
) -> Result<Inserted, StoreError> {
    let Order { id, new, given } = order;
    if let Some(earlier) = earlier(connection, tenant, new)? {
        return Ok(earlier);
    }
    connection
        .prepare_cached(
            "INSERT INTO actions (tenant, id, module, action, target, params, idempotency_key, body_digest, \
             created_ms, deadline_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            tenant,
            id,
            new.module,
            new.action,
            to_json(&new.target),
            to_json(&new.params),
            new.idempotency_key,
            digest_of(new),
            now_ms,
            now_ms.saturating_add(signed(new.ttl_ms))
        ])?;
    note(connection, tenant, id, now_ms, "queued", None, &new.reason)?;
    let body = serde_json::json!({ "action": id, "module": new.module, "verb": new.action });
    audit::append(connection, &Entry::new(tenant, now_ms, &new.actor, "action_ordered", body))?;
    if let Some(given) = given {
        give(connection, tenant, id, given, now_ms)?;
    }
    Ok(Inserted::New(id.clone()))
}

/// Begins an attempt; its number, or nothing when the action is not pending.
fn give(
    connection: &Connection,
    tenant: &str,
    id: &str,
    Given { agent, under }: &Given,
    now_ms: i64,
) -> Result<Option<u32>, StoreError> {
    let (fence, resource) = under.as_ref().map(|it| (signed(it.fence), &it.resource)).unzip();
    let attempt: Option<u32> = connection
        .prepare_cached(
            "UPDATE actions SET agent = ?3, fence = ?4, resource = coalesce(?5, resource), \
             attempts = attempts + 1, accepted = 0 WHERE tenant = ?1 AND id = ?2 AND status = 'pending' RETURNING attempts",
        )?
        .query_row(params![tenant, id, agent, fence, resource], |row| row.get(0))
        .optional()?;
    if let Some(attempt) = attempt {
        let detail = format!("attempt {attempt}");
        note(connection, tenant, id, now_ms, "dispatched", Some(agent), &detail)?;
    }
    Ok(attempt)
}

fn finish(
    connection: &Connection,
    tenant: &str,
    id: &str,
    agent: Option<&str>,
    result: &Result<Value, ErrorReport>,
    now_ms: i64,
) -> Result<Finish, StoreError> {
    let (status, value, error) = match result {
        Ok(value) => (Status::Success, Some(to_json(value)), None),
        Err(error) => (Status::Failure, None, Some(to_json(error))),
    };
    let changed = connection
        .prepare_cached(
            "UPDATE actions SET status = ?3, result = ?4, error = ?5, finished_ms = ?6, agent = coalesce(?7, agent) \
             WHERE tenant = ?1 AND id = ?2 AND status = 'pending'",
        )?
        .execute(params![tenant, id, status.as_str(), value, error, now_ms, agent])?;
    if changed == 0 && one(connection, tenant, id)?.is_none() {
        return Ok(Finish::Unknown);
    }
    let detail =
        result.as_ref().err().map_or(String::new(), |error| format!("{}: {}", error.code, error.detail));
    let event = if changed == 1 { status.as_str() } else { "duplicate_result" };
    note(connection, tenant, id, now_ms, event, agent, &detail)?;
    Ok(if changed == 1 { Finish::Done } else { Finish::Duplicate })
}

/// Appends to the timeline. Beyond the limit only the end of the action is still written, so that an agent that
/// reports for ever cannot fill the disk.
fn note(
    connection: &Connection,
    tenant: &str,
    id: &str,
    at_ms: i64,
    event: &str,
    agent: Option<&str>,
    detail: &str,
) -> Result<(), StoreError> {
    let last: i64 = connection
        .prepare_cached("SELECT coalesce(max(n), -1) FROM action_timeline WHERE action = ?1")?
        .query_row([id], |row| row.get(0))?;
    if last + 1 >= TIMELINE_MAX && !matches!(event, "success" | "failure") {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO action_timeline (tenant, action, n, at_ms, event, agent, detail) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![tenant, id, last + 1, at_ms, event, agent, detail])?;
    Ok(())
}

pub(super) fn one(connection: &Connection, tenant: &str, id: &str) -> Result<Option<ActionRow>, StoreError> {
    let mut query =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM actions WHERE tenant = ?1 AND id = ?2"))?;
    let mut rows = query.query(params![tenant, id])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn collect(mut rows: rusqlite::Rows<'_>) -> Result<Vec<ActionRow>, StoreError> {
    let mut actions = Vec::new();
    while let Some(row) = rows.next()? {
        actions.push(read(row)?);
    }
    Ok(actions)
}

fn read(row: &Row<'_>) -> Result<ActionRow, StoreError> {
    let fence: Option<i64> = row.get("fence")?;
    Ok(ActionRow {
        seq: row.get("seq")?,
        tenant: row.get("tenant")?,
        id: row.get("id")?,
        module: row.get("module")?,
        action: row.get("action")?,
        target: json("action target", &row.get::<_, String>("target")?)?,
        params: json("action params", &row.get::<_, String>("params")?)?,
        status: match row.get::<_, String>("status")?.as_str() {
            "success" => Status::Success,
            "failure" => Status::Failure,
            _ => Status::Pending,
        },
        accepted: row.get("accepted")?,
        agent: row.get("agent")?,
        fence: fence.map(i64::unsigned_abs),
        resource: row.get("resource")?,
        attempts: u32::try_from(unsigned(row, "attempts")?).unwrap_or(u32::MAX),
        result: json_opt("action result", row.get("result")?)?,
        error: json_opt("action error", row.get("error")?)?,
        created_ms: row.get("created_ms")?,
        deadline_ms: row.get("deadline_ms")?,
        finished_ms: row.get("finished_ms")?,
    })
}
