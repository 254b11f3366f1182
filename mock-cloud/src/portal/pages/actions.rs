//! Actions: the list, an order form, and one action with its timeline.

use std::collections::HashMap;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use causeway_protocol::action::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Portal;
use super::super::forms::{Form, Query};
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, When, action_status, action_title, duration, short_id, step};
use super::{next_query, once_key};
use crate::api::refused;
use crate::certificates;
use crate::dispatch;
use crate::limits::{ACTION_TTL_DEFAULT, PAGE_MAX, PORTAL_PAGE};
use crate::state::Cloud;
use crate::store::{ActionFilter, ActionRow, AgentRow, NewAction, TimelineRow};
use causeway_protocol::limits::USERNAME_MAX_BYTES;

/// The module behind the portal's order form.
const MODULE: &str = "user_visibility";

/// An action in a list.
pub(in super::super) struct ActionLine {
    pub(in super::super) id: String,
    pub(in super::super) title: String,
    pub(in super::super) module: String,
    pub(in super::super) subject: String,
    pub(in super::super) tone: Tone,
    pub(in super::super) state: &'static str,
    pub(in super::super) created: Option<When>,
    pub(in super::super) took: String,
    pub(in super::super) host: String,
}

/// Names agents by their hosts, which people know.
async fn hosts(cloud: &Cloud, tenant: &str) -> Result<HashMap<String, String>, PortalError> {
    let agents = cloud.store.agents(tenant, PAGE_MAX, None).await?.items;
    let named = |agent: AgentRow| {
        let name = format!("{} ({})", agent.host, short_id(&agent.instance));
        (agent.instance, name)
    };
    Ok(agents.into_iter().map(named).collect())
}

fn host_of(hosts: &HashMap<String, String>, agent: Option<&String>) -> String {
    agent.map(|agent| hosts.get(agent).unwrap_or(agent).clone()).unwrap_or_default()
}

/// Actions, ready to show.
///
/// # Errors
/// When the store fails.
pub(in super::super) async fn action_lines(
    cloud: &Cloud,
    tenant: &str,
    rows: Vec<ActionRow>,
    now_ms: i64,
) -> Result<Vec<ActionLine>, PortalError> {
    let hosts = hosts(cloud, tenant).await?;
    Ok(rows.into_iter().map(|row| line(row, &hosts, now_ms)).collect())
}

fn line(row: ActionRow, hosts: &HashMap<String, String>, now_ms: i64) -> ActionLine {
    let (tone, state) = action_status(row.status);
    let end = row.finished_ms.unwrap_or(now_ms);
    ActionLine {
        title: action_title(&row.action),
        subject: subject(&row),
        host: host_of(hosts, row.agent.as_ref()),
        created: When::at(row.created_ms, now_ms),
        took: duration(end - row.created_ms),
        tone,
        state,
        module: row.module,
        id: row.id,
    }
}

/// What it is done to, in a few words.
fn subject(row: &ActionRow) -> String {
    let mut words = Vec::new();
    // Of the names of a phone, the one people know.
    if let Some(device_id) = row.target.get("device_id").and_then(Value::as_str) {
        words.push(device_id.to_owned());
        let params = row.params.as_object().into_iter().flatten();
        words.extend(params.filter_map(|(_, value)| Some(value.as_str()?.replace('_', " "))));
        return words.join(", ");
    }
    // Orders of certificates are full of names nobody knows; whose it is and by which profile says which one it is.
    if row.module == certificates::MODULE {
        let known = ["/variables/uname", "/profile", "/id/serial"];
        let named = known.iter().filter_map(|place| row.params.pointer(place)?.as_str());
        return named.collect::<Vec<_>>().join(", ");
    }
    for value in [&row.target, &row.params] {
        for (name, value) in value.as_object().into_iter().flatten() {
            match value {
                Value::Bool(true) => words.push(name.replace('_', " ")),
                Value::String(text) => words.push(text.clone()),
                _ => {}
            }
        }
    }
    words.join(", ")
}

#[derive(Template)]
#[template(path = "actions.html")]
struct ActionsPage {
    shell: Shell,
    rows: Vec<ActionLine>,
    status: String,
    further: bool,
    next: Option<String>,
}

/// A dot on the timeline.
struct Dot {
    tone: Tone,
    text: String,
    detail: String,
    host: String,
    at: Option<When>,
    /// Since the order.
    offset: String,
}

/// A stretch of the bar, in thousandths of its length.
struct Stretch {
    x: i64,
    width: i64,
    tone: Tone,
    label: String,
}

#[derive(Template)]
#[template(path = "action.html")]
struct ActionPage {
    shell: Shell,
    line: ActionLine,
    row: ActionRow,
    pending: bool,
    deadline: Option<When>,
    dots: Vec<Dot>,
    stretches: Vec<Stretch>,
    result: String,
    params: String,
}

/// Which actions.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct ActionsQuery {
    status: String,
    after: Option<String>,
}

/// An order.
#[derive(Deserialize)]
pub(in super::super) struct OrderForm {
    #[serde(default)]
    csrf: String,
    action: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    dry_run: Option<String>,
    #[serde(default)]
    allow_mass_delete: Option<String>,
    /// Made with the form, so that a double click is one order.
    #[serde(default)]
    once: String,
}

pub(in super::super) async fn list(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<ActionsQuery>,
) -> PageResult {
    let shell = seen.shell(&portal, "actions").await?;
    let status = match query.status.as_str() {
        "pending" => Some(Status::Pending),
        "success" => Some(Status::Success),
        "failure" => Some(Status::Failure),
        _ => None,
    };
    let filter = ActionFilter { status, ..ActionFilter::default() };
    let before = query.after.as_deref().and_then(|after| after.parse().ok());
    let found = portal.cloud.store.actions(&seen.tenant.id, filter, PORTAL_PAGE, before).await?;
    let next = next_query("", found.next.as_deref())
        .map(|next| status.map_or(next.clone(), |status| format!("{next}&status={}", status.as_str())));
    page(&ActionsPage {
        rows: action_lines(&portal.cloud, &seen.tenant.id, found.items, shell.now_ms).await?,
        status: status.map_or("", Status::as_str).to_owned(),
        further: query.after.is_some(),
        next,
        shell,
    })
}

pub(in super::super) async fn order(
    State(portal): State<Portal>,
    seen: InTenant,
    Form(form): Form<OrderForm>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    let refuse = |detail: &str| Err(PortalError::Refused { status: 400, detail: detail.to_owned() });
    let mut params = serde_json::Map::new();
    match form.action.as_str() {
        "sync_now" => {
            for (name, ticked) in [("dry_run", form.dry_run), ("allow_mass_delete", form.allow_mass_delete)] {
                if ticked.is_some() {
                    params.insert(name.to_owned(), Value::Bool(true));
                }
            }
        }
        "sync_user" => {
            let user = form.user.trim();
            if user.is_empty() || user.len() > USERNAME_MAX_BYTES {
                return refuse("Say whom to sync: a login name or mail address.");
            }
            params.insert("user".to_owned(), json!(user));
        }
        _ => return refuse("The portal has no such action; the API has them all."),
    }
    let new = NewAction {
        module: MODULE.to_owned(),
        action: form.action,
        target: Value::Null,
        params: if params.is_empty() { Value::Null } else { Value::Object(params) },
        idempotency_key: once_key(form.once),
        ttl_ms: u64::try_from(ACTION_TTL_DEFAULT.as_millis()).unwrap_or(u64::MAX),
        actor: seen.visitor.actor(),
        reason: String::new(),
    };
    let id = dispatch::submit(&portal.cloud, &seen.tenant.id, new).await.map_err(refused)?;
    Ok(Redirect::to(&format!("/t/{}/actions/{id}", seen.tenant.id)).into_response())
}

pub(in super::super) async fn show(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let shell = seen.shell(&portal, "actions").await?;
    let found = portal.cloud.store.action(&seen.tenant.id, &id).await?;
    let (row, timeline) = found.ok_or_else(|| PortalError::NotFound { what: "action".to_owned() })?;
    let hosts = hosts(&portal.cloud, &seen.tenant.id).await?;
    let dots = timeline.iter().map(|entry| Dot {
        tone: step(&entry.event).0,
        text: step(&entry.event).1,
        detail: entry.detail.clone(),
        host: host_of(&hosts, entry.agent.as_ref()),
        at: When::at(entry.at_ms, shell.now_ms),
        offset: format!("+{}", duration(entry.at_ms - row.created_ms)),
    });
    page(&ActionPage {
        dots: dots.collect(),
        stretches: stretches(&row, &timeline, shell.now_ms),
        pending: !row.status.is_terminal(),
        deadline: When::at(row.deadline_ms, shell.now_ms),
        result: row.result.as_ref().map(pretty).unwrap_or_default(),
        params: if row.params.is_null() { String::new() } else { pretty(&row.params) },
        line: line(row.clone(), &hosts, shell.now_ms),
        row,
        shell,
    })
}

/// From one line of the timeline to the next, until the end or now. A stretch is at least wide enough to be seen.
fn stretches(row: &ActionRow, timeline: &[TimelineRow], now_ms: i64) -> Vec<Stretch> {
    const WIDTH: i64 = 1_000;
    const SEEN: i64 = 12;
    let end = row.finished_ms.unwrap_or(now_ms).max(row.created_ms + 1);
    let whole = end - row.created_ms;
    let starts: Vec<&TimelineRow> = timeline
        .iter()
        .filter(|entry| {
            entry.at_ms <= end && !matches!(entry.event.as_str(), "success" | "failure" | "duplicate_result")
        })
        .collect();
    let mut stretches = Vec::new();
    let mut x = 0;
    for (n, entry) in starts.iter().enumerate() {
        let until = starts.get(n + 1).map_or(end, |next| next.at_ms);
        let to = ((until - row.created_ms) * WIDTH / whole).clamp(x + SEEN, WIDTH.max(x + SEEN));
        let name = match entry.event.as_str() {
            "queued" => "Waiting",
            "dispatched" => "Under way to the agent",
            "accepted" | "running" => "In work",
            _ => "Interrupted",
        };
        let tone = match entry.event.as_str() {
            "queued" => Tone::Calm,
            "dispatched" | "accepted" | "running" => Tone::Busy,
            _ => Tone::Warn,
        };
        let label = format!("{name}: {}", duration(until - entry.at_ms));
        stretches.push(Stretch { x, width: to - x, tone, label });
        x = to;
    }
    if let Some(last) = stretches.last_mut()
        && row.status.is_terminal()
    {
        last.tone = action_status(row.status).0;
    }
    stretches
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON values serialise to JSON")
}
