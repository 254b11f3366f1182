//! Actions on phones, mailboxes, policies and the organisation.
//!
//! Every action brings about a state and can be tried again from its start: it looks, writes only what is missing, and
//! looks again before it says Success. Between two tries it is Pending, so that nothing is held meanwhile.

mod access;
mod closed_list;
mod find;
mod policy;
mod remove;
mod wipe;

use std::time::Duration;

use causeway_protocol::action::Action;
use causeway_protocol::mobile::{DeviceTarget, WipeScope};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub(super) use self::access::{Access, add, allow, set_access, write};
pub(super) use self::find::{InMailbox, mailbox_named};
use super::error::{Class, MailError};
use super::guard::{Admission, Guard};
use super::limits;
use super::quarantine;
use super::run::{Runner, Task};
use super::state::{Store, action_name};
use crate::directory::Net;
use crate::modules::{ModuleContext, Outcome};

/// An action, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    /// Through the run loop: a listing, or one phone again.
    Collect(Task),
    Access {
        target: DeviceTarget,
        access: Access,
    },
    Remove {
        target: DeviceTarget,
    },
    Wipe {
        target: DeviceTarget,
        scope: WipeScope,
    },
    AssignPolicy {
        target: DeviceTarget,
        policy: Option<String>,
    },
    Policy {
        name: String,
        settings: Map<String, Value>,
        create: bool,
    },
    Quarantine {
        on: bool,
    },
    Preauthorise {
        mailbox: String,
        device_id: String,
    },
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SyncNow {
    /// Send deletions whatever their number.
    allow_mass_delete: bool,
    /// Send nothing; say what would be sent.
    dry_run: bool,
    /// Read all statistics again.
    full: bool,
    /// Which collection, where a tenant has several; the cloud has chosen by it already.
    source: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct OnDevice {
    /// A person confirms this and everything the guard holds.
    confirm: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct OnWipe {
    scope: WipeScope,
    confirm: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnPolicy {
    /// A policy's name or key; null gives the mailbox the default one.
    policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicySettings {
    name: String,
    #[serde(default)]
    settings: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preauthorise {
    mailbox: String,
    device_id: String,
}

impl Order {
    /// Understands an action; also says whether a person confirms what the guard holds.
    pub(super) fn read(action: &Action) -> Result<(Self, bool), MailError> {
        let name = action.action.as_str();
        let order = match name {
            "sync_now" => {
                let SyncNow { allow_mass_delete, dry_run, full, source: _ } = read(action, &action.params)?;
                Self::Collect(Task { full, dry: dry_run, confirmed: allow_mass_delete, device: None })
            }
            "sync_device" => {
                let target: DeviceTarget = read(action, &action.target)?;
                Self::Collect(Task { device: Some(key_of(action, &target)?), ..Task::default() })
            }
            "block_device" | "approve_device" | "remove_device" => {
                let OnDevice { confirm } = read(action, &action.params)?;
                let target = device(action)?;
                let order = match name {
                    "block_device" => Self::Access { target, access: Access::Blocked },
                    "approve_device" => Self::Access { target, access: Access::Allowed },
                    _ => Self::Remove { target },
                };
                return Ok((order, confirm));
            }
            "wipe_device" => {
                let OnWipe { scope, confirm } = read(action, &action.params)?;
                return Ok((Self::Wipe { target: device(action)?, scope }, confirm));
            }
            "assign_policy" => {
                let OnPolicy { policy } = read(action, &action.params)?;
                Self::AssignPolicy { target: device(action)?, policy }
            }
            "create_policy" | "change_policy" => {
                let given = if action.params.is_null() { &action.target } else { &action.params };
                let PolicySettings { name: policy, settings } = read(action, given)?;
                for (setting, value) in &settings {
                    super::recipes::setting(setting, value).map_err(|problem| bad(action, problem))?;
                }
                if policy.is_empty() || policy.len() > 64 || policy.contains(['*', '\'', '"', '\\', '/']) {
                    return Err(bad(action, format!("{policy:?} is no name of a policy")));
                }
                Self::Policy { name: policy, settings, create: name == "create_policy" }
            }
            "quarantine_on" => Self::Quarantine { on: true },
            "quarantine_off" => Self::Quarantine { on: false },
            "preauthorise_device" => {
                let given = if action.params.is_null() { &action.target } else { &action.params };
                let Preauthorise { mailbox, device_id } = read(action, given)?;
                if !super::config::is_device_id(&device_id) {
                    return Err(bad(action, format!("{device_id:?} is no device id")));
                }
                Self::Preauthorise { mailbox, device_id }
            }
            name => return Err(MailError::Unknown { name: name.to_owned() }),
        };
        Ok((order, false))
    }

    /// Whether the guard counts it.
    fn is_guarded(&self) -> bool {
        match self {
            Self::Access { access, .. } => *access == Access::Blocked,
            Self::Remove { .. } => true,
            Self::Wipe { scope, .. } => *scope != WipeScope::Cancel,
            _ => false,
        }
    }

    /// The phone whose record changes.
    pub(super) fn touches(&self) -> Option<Uuid> {
        match self {
            Self::Access { target, .. }
            | Self::Remove { target }
            | Self::Wipe { target, .. }
            | Self::AssignPolicy { target, .. } => Uuid::parse_str(&target.key).ok(),
            _ => None,
        }
    }
}

fn read<T: DeserializeOwned>(action: &Action, given: &Value) -> Result<T, MailError> {
    let empty = Value::Object(Map::new());
    let given = if given.is_null() { &empty } else { given };
    T::deserialize(given).map_err(|error| bad(action, error.to_string()))
}

fn bad(action: &Action, problem: String) -> MailError {
    MailError::BadParameters { action: action.action.clone(), problem }
}

fn key_of(action: &Action, target: &DeviceTarget) -> Result<Uuid, MailError> {
    Uuid::parse_str(&target.key).map_err(|_| bad(action, format!("{:?} is no key of a phone", target.key)))
}

/// The target of whatever changes something: it must say which phone is meant in two ways.
fn device(action: &Action) -> Result<DeviceTarget, MailError> {
    let target: DeviceTarget = read(action, &action.target)?;
    key_of(action, &target)?;
    if target.device_id.as_ref().is_none_or(String::is_empty) {
        return Err(bad(
            action,
            "the target's device_id is missing; it is needed as a cross-check".to_owned(),
        ));
    }
    Ok(target)
}

/// What is remembered of an action between its tries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Progress {
    /// The guard has let it pass.
    pub(super) passed: bool,
    /// Since when the guard holds it, Unix milliseconds.
    held_ms: Option<i64>,
    /// The kind of trouble it has, since when (Unix milliseconds) and how often.
    trouble: Option<(String, i64, u32)>,
    /// Looks at what was written.
    pub(super) looks: u32,
    /// For a wipe: confirmations the server knew before we asked.
    pub(super) acknowledged_before: Option<String>,
    /// For a wipe: whether we have asked.
    pub(super) asked: bool,
}

/// How far an action has come.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// The state is as ordered, and was read back.
    Done(Value),
    /// Look again later.
    Wait { result: Value, next_check: Duration },
}

/// Patience with each kind of trouble: the first pause, the longest one, and when it is over.
fn patience(class: Class) -> (Duration, Duration, Duration) {
    let secs = Duration::from_secs;
    match class {
        Class::Throttled => (secs(15), secs(900), limits::GIVE_UP_AFTER),
        Class::Unreachable => (secs(5), secs(300), limits::GIVE_UP_AFTER),
        // A wrong password tried often locks the account; a person stores the right one.
        Class::Credentials => (secs(60), secs(900), limits::GIVE_UP_AFTER),
        Class::Forbidden => (secs(60), secs(3_600), secs(86_400)),
        // It may not be replicated yet.
        Class::NotFound => (secs(5), secs(30), secs(60)),
        Class::Other => (secs(10), secs(300), secs(3_600)),
        Class::Permanent => (secs(0), secs(0), secs(0)),
    }
}

/// Carries out an action that does not go through the run loop.
pub(super) async fn carry_out(
    runner: &Runner,
    guard: &Guard,
    cx: &ModuleContext,
    action: &Action,
    order: &Order,
    confirms: bool,
) -> Outcome {
    let store = Store::new(cx.storage.clone());
    let name = action_name(&action.id);
    let mut progress: Progress = match store.document(&name).await {
        Ok(progress) => progress.unwrap_or_default(),
        Err(error) => return Outcome::Failure(error.report()),
    };
    let before = progress.clone();
    let step = match admit(runner, guard, cx, (&action.id, order), confirms, &mut progress).await {
        Ok(None) => {
            if progress != before
                && let Err(error) = store.put_document(&name, &progress).await
            {
                return Outcome::Failure(error.report());
            }
            work(runner, cx, &store, action, order, &mut progress).await
        }
        Ok(Some(step)) => Ok(step),
        Err(error) => Err(error),
    };
    end(cx, &store, &action.id, before, progress, step).await
}

/// What came of work that was done elsewhere.
pub(super) async fn settle(cx: &ModuleContext, action: &Action, step: Result<Step, MailError>) -> Outcome {
    let store = Store::new(cx.storage.clone());
    match store.document::<Progress>(&action_name(&action.id)).await {
        Ok(before) => {
            let before = before.unwrap_or_default();
            end(cx, &store, &action.id, before.clone(), before, step).await
        }
        Err(error) => Outcome::Failure(error.report()),
    }
}

/// The outcome of a try; what is known of the action is kept for as long as it is Pending.
async fn end(
    cx: &ModuleContext,
    store: &Store,
    id: &str,
    before: Progress,
    mut progress: Progress,
    step: Result<Step, MailError>,
) -> Outcome {
    let name = action_name(id);
    let outcome = match step {
        Ok(Step::Done(result)) => Outcome::Success(result),
        Ok(Step::Wait { result, next_check }) => {
            progress.trouble = None;
            Outcome::Pending { result, next_check }
        }
        Err(error) => after_trouble(cx, &mut progress, &error),
    };
    let kept = match &outcome {
        Outcome::Pending { .. } if progress == before => Ok(()),
        Outcome::Pending { .. } => store.put_document(&name, &progress).await,
        _ if before == Progress::default() && !progress.passed && !progress.asked => Ok(()),
        _ => store.delete_document(&name).await,
    };
    if let Err(error) = kept {
        tracing::warn!(id, error = %crate::chain::Chain(&error), "What is known of an action could not be stored");
    }
    outcome
}

async fn admit(
    runner: &Runner,
    guard: &Guard,
    cx: &ModuleContext,
    (id, order): (&str, &Order),
    confirms: bool,
    progress: &mut Progress,
) -> Result<Option<Step>, MailError> {
    let settings = runner.settings.mass_actions;
    let resource = runner.settings.resource();
    if confirms && !progress.passed {
        let held = guard.confirm(cx, settings, &resource).await?;
        // What waits for exactly this need not look by itself.
        cx.wake.call();
        tracing::info!(held, "A person has confirmed what the guard held");
        progress.passed = true;
    }
    if progress.passed || !order.is_guarded() {
        return Ok(None);
    }
    match guard.admit(cx, settings, (id, progress.held_ms), &resource).await? {
        Admission::Passed => {
            progress.passed = true;
            Ok(None)
        }
        Admission::Held(since_ms) => {
            progress.held_ms = Some(since_ms);
            let spread = Duration::from_millis(cx.random.next_u64() % 60_000);
            let remedy = "order one of them again with confirm, if it is right";
            let result = json!({ "held_by_guard": true, "held_since_ms": since_ms, "remedy": remedy });
            Ok(Some(Step::Wait { result, next_check: limits::HELD_CHECK_EVERY + spread }))
        }
    }
}

async fn work(
    runner: &Runner,
    cx: &ModuleContext,
    store: &Store,
    action: &Action,
    order: &Order,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    if let Order::Quarantine { on } = order {
        // Long work, cmdlet by cmdlet in turn with everything else.
        return if *on {
            quarantine::advance(runner, cx, limits::JOB_SLICE).await
        } else {
            quarantine::off(runner, cx, progress).await
        };
    }
    let net = Net::from(cx);
    let mut lent = runner.sessions.urgent(&net).await?;
    match order {
        Order::Access { target, access } => {
            let found = find::device(runner, &mut lent, target).await?;
            let done =
                set_access(&mut lent, &found.mailbox, &found.phone.record.device_id, *access, progress)
                    .await?;
            Ok(done.with("access_state_before", json!(found.phone.record.access_state)))
        }
        Order::Remove { target } => remove::remove(runner, &mut lent, target, progress).await,
        Order::Wipe { target, scope } => {
            wipe::wipe(runner, &mut lent, store, action, target, *scope, progress).await
        }
        Order::AssignPolicy { target, policy } => {
            policy::assign(runner, &mut lent, target, policy.as_deref(), progress).await
        }
        Order::Policy { name, settings, create } => {
            policy::write(&mut lent, name, settings, *create, progress).await
        }
        Order::Preauthorise { mailbox, device_id } => {
            let mailbox = mailbox_named(&mut lent, mailbox).await?;
            allow(&mut lent, &mailbox, device_id, progress).await
        }
        Order::Collect(_) | Order::Quarantine { .. } => unreachable!("these are carried out elsewhere"),
    }
}

impl Step {
    /// With one more thing said.
    fn with(mut self, name: &str, value: Value) -> Self {
        let (Self::Done(result) | Self::Wait { result, .. }) = &mut self;
        result[name] = value;
        self
    }
}

/// Written and not yet to be seen: look again soon, for as long as replication may take.
pub(super) fn not_yet_visible(what: &str, progress: &mut Progress) -> Result<Step, MailError> {
    progress.looks += 1;
    let next_check = limits::READ_BACK_AFTER
        .saturating_mul(1 << (progress.looks - 1).min(8))
        .min(limits::READ_BACK_AT_MOST);
    if progress.looks > LOOKS_MAX {
        return Err(MailError::NotKept { what: what.to_owned() });
    }
    Ok(Step::Wait { result: json!({ "waits_for": "replication", "what": what }), next_check })
}

/// Looks at what was written: about half an hour, the longest replication interval between sites worth waiting for.
const LOOKS_MAX: u32 = 30;

/// What to do after trouble: try again later, or give up.
fn after_trouble(cx: &ModuleContext, progress: &mut Progress, error: &MailError) -> Outcome {
    let class = error.class();
    let now_ms = cx.clock.now_ms();
    let (kind, since_ms, tries) = match progress.trouble.take() {
        Some((kind, since_ms, tries)) if kind == class.as_str() => (kind, since_ms, tries + 1),
        _ => (class.as_str().to_owned(), now_ms, 1),
    };
    let (first, most, over_after) = patience(class);
    let lasted = Duration::from_millis(now_ms.saturating_sub(since_ms).max(0).cast_unsigned());
    if class == Class::Permanent || lasted >= over_after {
        return Outcome::Failure(error.report());
    }
    let doubled = first.saturating_mul(1 << (tries - 1).min(16)).min(most);
    let next = error.retry_after().unwrap_or_default().max(doubled);
    // Full jitter upwards only: what the server asked for is the least.
    let spread = Duration::from_millis(cx.random.next_u64() % (next.as_millis() as u64 / 4 + 1));
    progress.trouble = Some((kind, since_ms, tries));
    tracing::info!(class = class.as_str(), tries, error = %crate::chain::Chain(error), "An action waits");
    let result = json!({ "waits_for": class.as_str(), "tries": tries, "error": error.report() });
    Outcome::Pending { result, next_check: next + spread }
}
