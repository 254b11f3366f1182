//! Removing a partnership. A phone that still has its account comes back as a new one.

use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::mobile::DeviceTarget;
use serde_json::json;

use super::{Progress, Step, find, not_yet_visible};
use crate::modules::exchange::error::MailError;
use crate::modules::exchange::run::Runner;
use crate::modules::exchange::sessions::Lent;

/// Removes the phone; that it is gone already is as good.
pub(super) async fn remove(
    runner: &Runner,
    lent: &mut Lent<'_>,
    target: &DeviceTarget,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    let found = match find::device(runner, lent, target).await {
        Ok(found) => found,
        Err(error) if find::is_gone(&error) => {
            return Ok(Step::Done(json!({ "gone": true, "removed": progress.asked })));
        }
        Err(error) => return Err(error),
    };
    let identity = find::identity(lent, &found.phone)?;
    let cmdlet = Cmdlet::new(&lent.recipe.remove).with("Identity", identity).with("Confirm", false);
    match lent.ask(&cmdlet).await {
        Ok(_) => {}
        Err(error) if find::is_gone(&error) => {}
        Err(error) => return Err(error),
    }
    progress.asked = true;
    match find::device(runner, lent, target).await {
        Err(error) if find::is_gone(&error) => Ok(Step::Done(json!({ "gone": true, "removed": true }))),
        Err(error) => Err(error),
        Ok(_) => not_yet_visible("the removal", progress),
    }
}
