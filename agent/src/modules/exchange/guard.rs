//! The brake on wipes, blocks and removals: more than so many within some time wait until a person confirms. What has
//! passed and what is held survives a restart.

use causeway_protocol::action::codes;
use causeway_protocol::channel::payload::Notice;
use causeway_protocol::health::Severity;
use serde::{Deserialize, Serialize};

use super::config::MassSettings;
use super::error::MailError;
use super::state::Store;
use crate::modules::ModuleContext;

const DOCUMENT: &[u8] = b"guard";

/// What the guard remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Memory {
    /// When actions passed, Unix milliseconds, oldest first.
    passed_ms: Vec<i64>,
    /// Everything held until then has been confirmed, Unix milliseconds.
    confirmed_ms: i64,
    /// Actions held since then, also those that are over without having passed.
    held: u64,
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
    one: tokio::sync::Mutex<()>,
}

impl Guard {
    /// Judges an action that has not passed yet. `held_ms`: since when it is held, if it is.
    pub(super) async fn admit(
        &self,
        cx: &ModuleContext,
        settings: MassSettings,
        held_ms: Option<i64>,
        resource: &str,
    ) -> Result<Admission, MailError> {
        let _one = self.one.lock().await;
        let store = Store::new(cx.storage.clone());
        let mut memory: Memory = store.document(DOCUMENT).await?.unwrap_or_default();
        let now_ms = cx.clock.now_ms();
        // What is held passes by a person, not by time passing.
        if let Some(held_ms) = held_ms {
            let confirmed = held_ms <= memory.confirmed_ms;
            return Ok(if confirmed { Admission::Passed } else { Admission::Held(held_ms) });
        }
        let within_ms = i64::try_from(settings.within_secs * 1_000).unwrap_or(i64::MAX);
        memory.passed_ms.retain(|passed_ms| now_ms.saturating_sub(*passed_ms) < within_ms);
        if memory.passed_ms.len() < settings.actions_max as usize {
            memory.passed_ms.push(now_ms);
            store.put_document(DOCUMENT, &memory).await?;
            return Ok(Admission::Passed);
        }
        memory.held += 1;
        store.put_document(DOCUMENT, &memory).await?;
        cx.cloud.notice(notice(resource, memory.held, settings, false));
        Ok(Admission::Held(now_ms.max(memory.confirmed_ms + 1)))
    }

    /// A person has confirmed everything held until now.
    pub(super) async fn confirm(
        &self,
        cx: &ModuleContext,
        settings: MassSettings,
        resource: &str,
    ) -> Result<u64, MailError> {
        let _one = self.one.lock().await;
        let store = Store::new(cx.storage.clone());
        let mut memory: Memory = store.document(DOCUMENT).await?.unwrap_or_default();
        let held = std::mem::take(&mut memory.held);
        memory.confirmed_ms = cx.clock.now_ms().max(memory.confirmed_ms);
        memory.passed_ms.clear();
        store.put_document(DOCUMENT, &memory).await?;
        if held > 0 {
            cx.cloud.notice(notice(resource, held, settings, true));
        }
        Ok(held)
    }
}

fn notice(resource: &str, held: u64, settings: MassSettings, resolved: bool) -> Notice {
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
