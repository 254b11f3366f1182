//! Wipes. Exchange notes the wish; the phone learns of it at its next contact and confirms. Until then the action is
//! Pending.

use std::time::Duration;

use causeway_protocol::action::Action;
use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::mobile::{DeviceTarget, WipeScope};
use serde_json::{Value, json};

use super::find::{self, Found};
use super::{Progress, Step, not_yet_visible};
use crate::modules::exchange::error::{MailError, is_missing_parameter};
use crate::modules::exchange::limits;
use crate::modules::exchange::mapping::{WipeTimes, Wipes};
use crate::modules::exchange::run::Runner;
use crate::modules::exchange::sessions::Lent;
use crate::modules::exchange::state::{Store, action_name};

/// Asks for the wipe once, then looks whether the phone has confirmed.
pub(super) async fn wipe(
    runner: &Runner,
    lent: &mut Lent<'_>,
    store: &Store,
    action: &Action,
    target: &DeviceTarget,
    scope: WipeScope,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    let found = find::device(runner, lent, target).await?;
    let object = find::statistics(lent, &found).await?;
    let wipes = Wipes::read(&object);
    if scope == WipeScope::Cancel {
        return cancel(lent, &found, &wipes, progress).await;
    }
    if !progress.asked {
        progress.acknowledged_before = times(&wipes, scope).acknowledged.clone();
        // A wish that stands already, whoever had it, is this one.
        if !is_pending(&wipes, scope) {
            order(lent, &found, scope).await?;
        }
        progress.asked = true;
        // What was confirmed before must not be taken for this wipe after a crash.
        store.put_document(&action_name(&action.id), progress).await?;
        let object = find::statistics(lent, &found).await?;
        return Ok(look(runner, &object, scope, progress)?.unwrap_or(not_yet_visible("the wipe", progress)?));
    }
    match look(runner, &object, scope, progress)? {
        Some(step) => Ok(step),
        None if progress.looks > 0 && progress.looks < VISIBLE_WITHIN => {
            not_yet_visible("the wipe", progress)
        }
        None => Err(MailError::WipeCancelled),
    }
}

/// Looks at a domain controller that may not know of the wipe yet, before it counts as taken back.
const VISIBLE_WITHIN: u32 = 6;

/// What the phone has done; nothing when the server knows of no wipe.
fn look(
    runner: &Runner,
    object: &Object,
    scope: WipeScope,
    progress: &mut Progress,
) -> Result<Option<Step>, MailError> {
    let wipes = Wipes::read(object);
    let times = times(&wipes, scope);
    let told = |acknowledged: Option<&String>| -> Value {
        json!({
            "scope": scope,
            "requested": times.requested,
            "sent": times.sent,
            "acknowledged": acknowledged,
            "wipe_status": wipes.status,
        })
    };
    if let Some(acknowledged) = &times.acknowledged
        && times.acknowledged != progress.acknowledged_before
    {
        return Ok(Some(Step::Done(told(Some(acknowledged)))));
    }
    if is_pending(&wipes, scope) {
        if progress.looks < VISIBLE_WITHIN {
            progress.looks = VISIBLE_WITHIN;
        }
        progress.looks = progress.looks.saturating_add(1);
        let rounds = (progress.looks - VISIBLE_WITHIN) / ROUNDS_BEFORE_SLOWER;
        let next_check = Duration::from_secs(runner.settings.phone_check_secs)
            .saturating_mul(1 << rounds.min(10))
            .min(limits::PHONE_CHECK_AT_MOST);
        let mut result = told(None);
        result["waits_for"] = json!("the phone");
        return Ok(Some(Step::Wait { result, next_check }));
    }
    Ok(None)
}

/// Looks at each pace before a slower one: a phone that is on answers within minutes.
const ROUNDS_BEFORE_SLOWER: u32 = 10;

fn times(wipes: &Wipes, scope: WipeScope) -> &WipeTimes {
    if scope == WipeScope::AccountOnly { &wipes.account_only } else { &wipes.full }
}

/// Whether the phone has still to act. By the status where there is one, else by the times.
fn is_pending(wipes: &Wipes, scope: WipeScope) -> bool {
    let times = times(wipes, scope);
    match wipes.status.as_deref() {
        Some("device_wipe_pending") => scope == WipeScope::Full,
        Some("account_only_device_wipe_pending") => scope == WipeScope::AccountOnly,
        _ => times.requested.is_some() && times.acknowledged < times.requested,
    }
}

async fn order(lent: &mut Lent<'_>, found: &Found, scope: WipeScope) -> Result<(), MailError> {
    let identity = find::identity(lent, &found.phone)?;
    let mut cmdlet = Cmdlet::new(&lent.recipe.wipe).with("Identity", identity).with("Confirm", false);
    match scope {
        WipeScope::Full => {}
        WipeScope::AccountOnly => cmdlet = cmdlet.with("AccountOnly", true),
        WipeScope::Cancel => cmdlet = cmdlet.with("Cancel", true),
    }
    match lent.ask(&cmdlet).await {
        Ok(_) => Ok(()),
        // Never a full wipe instead.
        Err(MailError::Cmdlet { record, .. })
            if scope == WipeScope::AccountOnly && is_missing_parameter(&record) =>
        {
            Err(MailError::NotSupported {
                title: lent.recipe.title.clone(),
                what: "wipe only the account; the phone was left alone",
            })
        }
        Err(error) => Err(error),
    }
}

async fn cancel(
    lent: &mut Lent<'_>,
    found: &Found,
    wipes: &Wipes,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    let pending =
        |wipes: &Wipes| is_pending(wipes, WipeScope::Full) || is_pending(wipes, WipeScope::AccountOnly);
    let done = |wipes: &Wipes| Step::Done(json!({ "cancelled": true, "wipe_status": wipes.status }));
    let acknowledged = wipes.full.acknowledged.clone().max(wipes.account_only.acknowledged.clone());
    match (pending(wipes), acknowledged) {
        (false, Some(at)) if !progress.asked => return Err(MailError::TooLate { at }),
        (false, _) => return Ok(done(wipes)),
        (true, _) => {}
    }
    order(lent, found, WipeScope::Cancel).await?;
    progress.asked = true;
    let after = Wipes::read(&find::statistics(lent, found).await?);
    if pending(&after) { not_yet_visible("the end of the wipe", progress) } else { Ok(done(&after)) }
}
