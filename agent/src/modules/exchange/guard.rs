//! The brake on wipes, blocks and removals: more than so many within some time wait until a person confirms. What has
//! passed and what is held survives a restart.

use std::collections::HashSet;

use causeway_protocol::action::codes;
use causeway_protocol::channel::payload::Notice;
use causeway_protocol::health::Severity;
use serde::{Deserialize, Serialize};

use super::config::MassSettings;
use super::error::MailError;
use super::limits;
use super::state::Store;
use crate::modules::ModuleContext;

const DOCUMENT: &[u8] = b"guard";

/// What the guard remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    /// When actions passed, Unix milliseconds, oldest first.
    passed_ms: Vec<i64>,
    /// Everything held until then has been confirmed, Unix milliseconds.
    confirmed_ms: i64,
}

/// What becomes of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may go on.
    Passed,
    /// It waits; since when, Unix milliseconds.
    Held(i64),
}

/// The guard. One action is judged at a time.
#[derive(Default)]
pub(super) struct Guard {
    seen: tokio::sync::Mutex<Seen>,
}

/// What is known without asking the disk, so that thousands of actions can be held as fast as they come.
#[derive(Default)]
struct Seen {
    /// As last read or written. Good enough to hold an action; before one passes, the disk is asked.
    memory: Option<Memory>,
    /// Ids of what is held since the last confirmation, also of what is over without having passed. Not on disk: each
    /// action remembers for itself since when it is held.
    held: HashSet<String>,
}

impl Guard {
    /// Judges an action that has not passed yet, by its id and since when it is held (Unix milliseconds), if it is.
    pub(super) async fn admit(
        &self,
        cx: &ModuleContext,
        settings: MassSettings,
        (id, held_ms): (&str, Option<i64>),
        resource: &str,
    ) -> Result<Admission, MailError> {
        let mut seen = self.seen.lock().await;
        let store = Store::new(cx.storage.clone());
        let now_ms = cx.clock.now_ms();
        let within_ms = i64::try_from(settings.within_secs * 1_000).unwrap_or(i64::MAX);
        let is_full = |memory: &mut Memory| {
            memory.passed_ms.retain(|passed_ms| now_ms.saturating_sub(*passed_ms) < within_ms);
            memory.passed_ms.len() >= settings.actions_max as usize
        };
        let known = match seen.memory.take() {
            Some(known) => known,
            None => store.document(DOCUMENT).await?.unwrap_or_default(),
        };
        let known = seen.memory.insert(known);
        let confirmed_ms = known.confirmed_ms;
        // What is held passes by a person, not by time passing.
        if let Some(held_ms) = held_ms {
            if held_ms <= confirmed_ms {
                seen.held.remove(id);
                return Ok(Admission::Passed);
            }
            count(cx, &mut seen.held, id, settings, resource);
            return Ok(Admission::Held(held_ms));
        }
        if !is_full(known) {
            let mut memory: Memory = store.document(DOCUMENT).await?.unwrap_or_default();
            if !is_full(&mut memory) {
                memory.passed_ms.push(now_ms);
                store.put_document(DOCUMENT, &memory).await?;
                seen.memory = Some(memory);
                return Ok(Admission::Passed);
            }
            seen.memory = Some(memory);
        }
        count(cx, &mut seen.held, id, settings, resource);
        Ok(Admission::Held(now_ms.max(confirmed_ms + 1)))
    }

    /// A person has confirmed everything held until now.
    pub(super) async fn confirm(
        &self,
        cx: &ModuleContext,
        settings: MassSettings,
        resource: &str,
    ) -> Result<usize, MailError> {
        let mut seen = self.seen.lock().await;
        let store = Store::new(cx.storage.clone());
        let mut memory: Memory = store.document(DOCUMENT).await?.unwrap_or_default();
        memory.confirmed_ms = cx.clock.now_ms().max(memory.confirmed_ms);
        memory.passed_ms.clear();
        store.put_document(DOCUMENT, &memory).await?;
        seen.memory = Some(memory);
        let held = std::mem::take(&mut seen.held).len();
        if held > 0 {
            cx.cloud.notice(notice(resource, held, settings, true));
        }
        Ok(held)
    }
}

/// Counts an action that is held, once, and says so.
fn count(cx: &ModuleContext, held: &mut HashSet<String>, id: &str, settings: MassSettings, resource: &str) {
    if held.len() < limits::HELD_COUNTED_MAX && held.insert(id.to_owned()) {
        cx.cloud.notice(notice(resource, held.len(), settings, false));
    }
}

fn notice(resource: &str, held: usize, settings: MassSettings, resolved: bool) -> Notice {
    let MassSettings { actions_max, within_secs } = settings;
    let detail = if resolved {
        "a person has confirmed what was held".to_owned()
    } else {
        format!(
            "{held} wipes, blocks or removals wait; {actions_max} within {within_secs} s pass without a person"
        )
    };
    Notice {
        code: codes::HELD_BY_GUARD.to_owned(),
        severity: if resolved { Severity::Info } else { Severity::Critical },
        subject: format!("{resource}/actions"),
        detail,
        remedy: "check who ordered them; if it is right, order one of them again with confirm".to_owned(),
        resolved,
    }
}
