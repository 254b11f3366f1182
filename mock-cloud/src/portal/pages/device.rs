//! One phone: what is known of it, why it is in its state, and what can be done.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use causeway_protocol::mobile::{WipeScope, access};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Portal;
use super::super::forms::Form;
use super::super::shell::{InTenant, PageResult, PortalError, Shell, page};
use super::super::words::{Tone, When, access_state, action_title, initials, sentence_case, wipe_status};
use super::actions::{ActionLine, action_lines};
use super::devices::{model_of, moment};
use super::once_key;
use crate::api::refused;
use crate::dispatch;
use crate::limits::PAGE_DEFAULT;
use crate::mobile::{self, Enrolment, Merge, merge_of};
use crate::store::{ActionFilter, Device, Finding, Search};

/// Actions shown on the page of a phone.
const SHOWN: usize = 12;

/// What the compliance rule says, ready to show.
struct Verdict {
    tone: Tone,
    title: String,
    why: String,
    /// What it wants and when, as long as that is not ordered.
    outlook: Option<(String, Option<When>)>,
    action: Option<String>,
}

#[derive(Template)]
#[template(path = "device.html")]
struct DevicePage {
    shell: Shell,
    device: Device,
    owner: String,
    initials: String,
    model: String,
    tone: Tone,
    state: String,
    wipe: Option<(Tone, String)>,
    can_cancel: bool,
    policy_status: String,
    why: String,
    first_sync: Option<When>,
    last_sync: Option<When>,
    last_attempt: Option<When>,
    acknowledged: Option<When>,
    merge: Merge,
    is_enrolled: bool,
    /// How many certificates it has, in words.
    certificates: String,
    verdict: Option<Verdict>,
    policies: Vec<String>,
    actions: Vec<ActionLine>,
}

/// An order about the phone.
#[derive(Deserialize)]
pub(in super::super) struct DeviceForm {
    #[serde(default)]
    csrf: String,
    action: String,
    #[serde(default)]
    policy: String,
    #[serde(default)]
    scope: String,
    /// What the person typed to confirm a wipe.
    #[serde(default)]
    typed: String,
    /// A person lets through what the agent's guard has held.
    #[serde(default)]
    confirm: Option<String>,
    /// Made with the form, so that a double click is one order.
    #[serde(default)]
    once: String,
}

pub(in super::super) async fn show(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, id)): Path<(String, String)>,
) -> PageResult {
    let shell = seen.shell(&portal, "devices").await?;
    let (store, tenant) = (&portal.cloud.store, seen.tenant.id.as_str());
    let device = found(&portal, &seen, &id).await?;
    let merge = merge_of(&portal.cloud, tenant, &device).await?;
    let finding = store.finding(tenant, &id).await?;
    let filter = ActionFilter { key: Some(id.clone()), ..ActionFilter::default() };
    let actions = store.actions(tenant, filter, SHOWN, None).await?.items;
    let search = Search { limit: PAGE_DEFAULT, ..Search::default() };
    let policies = store.device_policies(tenant, search).await?.items;
    let (tone, state) = access_state(&device.access_state);
    let now_ms = shell.now_ms;
    let certificates = match &merge.enrolled {
        Some(enrolled) => store.certificates_of_device(tenant, &enrolled.id, now_ms).await?.len(),
        None => 0,
    };
    page(&DevicePage {
        certificates: match certificates {
            0 => "None in use".to_owned(),
            n => format!("{n} in use"),
        },
        owner: device.owner().to_owned(),
        initials: initials(device.owner()),
        model: model_of(&device),
        tone,
        state,
        wipe: device.wipe_status.as_deref().and_then(wipe_status),
        can_cancel: device.wipe_status.as_deref().is_some_and(|status| status.ends_with("pending")),
        policy_status: device.policy_status.as_deref().unwrap_or_default().replace('_', " "),
        why: why(&device),
        first_sync: moment(device.first_sync.as_deref(), now_ms),
        last_sync: moment(device.last_sync.as_deref(), now_ms),
        last_attempt: moment(device.last_attempt.as_deref(), now_ms),
        acknowledged: moment(device.wipe_acknowledged.as_deref(), now_ms),
        is_enrolled: merge.enrolment == Enrolment::Enrolled,
        merge,
        verdict: finding.map(|finding| verdict(finding, now_ms)),
        policies: policies
            .into_iter()
            .filter(|policy| policy.source == device.source)
            .map(|policy| policy.name)
            .collect(),
        actions: action_lines(&portal.cloud, tenant, actions, now_ms).await?,
        device,
        shell,
    })
}

pub(in super::super) async fn order(
    State(portal): State<Portal>,
    seen: InTenant,
    Path((_, id)): Path<(String, String)>,
    Form(form): Form<DeviceForm>,
) -> PageResult {
    seen.visitor.check(&form.csrf)?;
    let device = found(&portal, &seen, &id).await?;
    let mut params = parameters(&form, &device)?;
    if form.confirm.is_some() {
        params.insert("confirm".to_owned(), Value::Bool(true));
    }
    let module = if device.system.is_empty() { "exchange" } else { &device.system };
    let actor = seen.visitor.actor();
    let mut new = mobile::order(module, &device.id, &device.device_id, &device.mailbox, &form.action, actor);
    new.params = if params.is_empty() { Value::Null } else { Value::Object(params) };
    new.idempotency_key = once_key(form.once);
    let action = dispatch::submit(&portal.cloud, &seen.tenant.id, new).await.map_err(refused)?;
    Ok(Redirect::to(&format!("/t/{}/actions/{action}", seen.tenant.id)).into_response())
}

async fn found(portal: &Portal, seen: &InTenant, id: &str) -> Result<Device, PortalError> {
    let device = portal.cloud.store.device(&seen.tenant.id, id).await?;
    device.ok_or_else(|| PortalError::NotFound { what: "phone".to_owned() })
}

/// What the form says besides the verb; refuses what the page does not offer.
fn parameters(form: &DeviceForm, device: &Device) -> Result<serde_json::Map<String, Value>, PortalError> {
    let refuse = |detail: String| Err(PortalError::Refused { status: 400, detail });
    let mut params = serde_json::Map::new();
    match form.action.as_str() {
        "block_device" | "approve_device" | "remove_device" | "sync_device" => {}
        "assign_policy" => {
            let policy = form.policy.trim();
            if policy.is_empty() {
                return refuse("Choose a policy.".to_owned());
            }
            params.insert("policy".to_owned(), json!(policy));
        }
        "wipe_device" => {
            let scope: WipeScope = match form.scope.as_str() {
                "full" => WipeScope::Full,
                "account_only" => WipeScope::AccountOnly,
                "cancel" => WipeScope::Cancel,
                _ => return refuse("Say what to wipe: the account or the whole phone.".to_owned()),
            };
            // Taking a wipe back harms nobody. A wipe does, so it is typed and not only clicked.
            if scope != WipeScope::Cancel && !form.typed.trim().eq_ignore_ascii_case(&device.device_id) {
                return refuse(format!(
                    "To wipe this phone, type its ActiveSync id {} into the field. Nothing was ordered.",
                    device.device_id
                ));
            }
            params.insert("scope".to_owned(), json!(scope));
        }
        other => {
            let title = action_title(other).to_lowercase();
            return refuse(format!("The portal cannot {title} here; the API has every action."));
        }
    }
    Ok(params)
}

/// Why the phone is in its state, in a sentence.
fn why(device: &Device) -> String {
    let verb = match device.access_state.as_str() {
        access::ALLOWED => "It gets mail",
        access::BLOCKED => "It gets no mail",
        access::QUARANTINED => "It waits for a person",
        access::DISCOVERY => "The server is still finding out what it is",
        _ => "The server does not say whether it gets mail",
    };
    let rule = device.access_rule.as_deref().filter(|rule| !rule.is_empty());
    let reason = match (device.access_reason.as_deref().unwrap_or_default(), rule) {
        ("individual", _) => "because of a decision about this one phone".to_owned(),
        ("global", _) => "because the organisation's default says so".to_owned(),
        ("device_rule", Some(rule)) => format!("because of the device access rule {rule:?}"),
        ("device_rule", None) => "because of a device access rule".to_owned(),
        ("policy", _) => "because of the policy of its mailbox".to_owned(),
        ("upgrade", _) => "because it was there before the server was upgraded".to_owned(),
        ("user_agents_changes" | "recent_commands" | "sync_commands" | "watsons" | "out_of_budgets", _) => {
            "because the server found it to misbehave".to_owned()
        }
        ("" | "unknown", _) => return format!("{verb}."),
        (other, _) => format!("({})", other.replace('_', " ")),
    };
    format!("{verb} {reason}.")
}

fn verdict(finding: Finding, now_ms: i64) -> Verdict {
    let tone = match finding.finding.as_str() {
        "compliant" => Tone::Good,
        "exempt" => Tone::Calm,
        _ => Tone::Warn,
    };
    let waits = finding.wants.as_deref().filter(|wants| finding.ordered.as_deref() != Some(wants));
    let outlook = waits.map(|verb| {
        let due = finding.due_ms.and_then(|due_ms| When::at(due_ms, now_ms));
        (action_title(verb), due)
    });
    Verdict {
        tone,
        title: sentence_case(&finding.finding.replace('_', " ")),
        why: sentence_case(&finding.why),
        outlook,
        action: finding.action,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(action: &str, scope: &str, typed: &str) -> DeviceForm {
        DeviceForm {
            csrf: String::new(),
            action: action.to_owned(),
            policy: String::new(),
            scope: scope.to_owned(),
            typed: typed.to_owned(),
            confirm: None,
            once: String::new(),
        }
    }

    fn device() -> Device {
        let text = json!({ "device_id": "ApplF17", "access_state": "blocked", "access_reason": "device_rule",
                           "access_rule": "No tablets" });
        Device::from_record(
            "k".to_owned(),
            "exchange/default".to_owned(),
            serde_json::from_value(text).unwrap(),
        )
    }

    #[test]
    fn a_wipe_is_typed_and_not_only_clicked() {
        for typed in ["", "ApplF1", "yes"] {
            assert!(parameters(&form("wipe_device", "full", typed), &device()).is_err(), "{typed}");
        }
        let params = parameters(&form("wipe_device", "full", " applf17 "), &device()).unwrap();
        assert_eq!(Value::Object(params), json!({ "scope": "full" }));
        assert!(parameters(&form("wipe_device", "cancel", ""), &device()).is_ok());
        assert!(parameters(&form("wipe_device", "everything", "ApplF17"), &device()).is_err());
        assert!(parameters(&form("format_disk", "", ""), &device()).is_err());
    }

    #[test]
    fn the_state_is_explained() {
        assert_eq!(why(&device()), "It gets no mail because of the device access rule \"No tablets\".");
    }
}
