//! Who may synchronise: the lists of allowed and blocked device ids of a mailbox.

use causeway_protocol::clixml::Value;
use causeway_protocol::cmdlet::Cmdlet;
use serde_json::json;

use super::find::{InMailbox, mailbox_named};
use super::{Progress, Step, closed_list, not_yet_visible};
use crate::modules::exchange::error::{MailError, is_missing_parameter};
use crate::modules::exchange::mapping::Lists;
use crate::modules::exchange::sessions::Lent;

/// What a person has decided about a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::modules::exchange) enum Access {
    Allowed,
    Blocked,
}

pub(super) const ALLOWED: &str = "ActiveSyncAllowedDeviceIDs";
const BLOCKED: &str = "ActiveSyncBlockedDeviceIDs";

/// Whether the lists say so: on one and not on the other, because blocked wins over allowed.
pub(in crate::modules::exchange) fn says(lists: &Lists, device_id: &str, access: Access) -> bool {
    let on = |list: &[String]| list.iter().any(|id| id == device_id);
    match access {
        Access::Allowed => on(&lists.allowed) && !on(&lists.blocked),
        Access::Blocked => on(&lists.blocked) && !on(&lists.allowed),
    }
}

/// Puts a phone on the right list of its mailbox.
pub(in crate::modules::exchange) async fn set_access(
    lent: &mut Lent<'_>,
    mailbox: &InMailbox,
    device_id: &str,
    access: Access,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    if !lent.recipe.block_list {
        return closed_list::set_access(lent, mailbox, device_id, access, progress).await;
    }
    let done = json!({ "mailbox": mailbox.mailbox.guid, "device_id": device_id });
    if says(&mailbox.lists, device_id, access) {
        return Ok(Step::Done(done));
    }
    let ids = [device_id.to_owned()];
    write(lent, mailbox, &ids, access).await?;
    let after = mailbox_named(lent, &mailbox.mailbox.guid).await?;
    if says(&after.lists, device_id, access) {
        return Ok(Step::Done(done));
    }
    not_yet_visible("the mailbox's list of phones", progress)
}

/// Allows a phone in a mailbox.
pub(in crate::modules::exchange) async fn allow(
    lent: &mut Lent<'_>,
    mailbox: &InMailbox,
    device_id: &str,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    set_access(lent, mailbox, device_id, Access::Allowed, progress).await
}

/// One call that adds to one list and removes from the other, so that no other change to them is lost; where the
/// server does not take that form, whole lists.
pub(in crate::modules::exchange) async fn write(
    lent: &mut Lent<'_>,
    mailbox: &InMailbox,
    ids: &[String],
    access: Access,
) -> Result<(), MailError> {
    let (to, from, others) = match access {
        Access::Allowed => (ALLOWED, BLOCKED, &mailbox.lists.blocked),
        Access::Blocked => (BLOCKED, ALLOWED, &mailbox.lists.allowed),
    };
    let leaving: Vec<String> = ids.iter().filter(|id| others.contains(id)).cloned().collect();
    let base = Cmdlet::new(&lent.recipe.set_mailbox).with("Identity", mailbox.mailbox.guid.as_str());
    let mut cmdlet = base.clone().with(to, change("Add", ids));
    if !leaving.is_empty() {
        cmdlet = cmdlet.with(from, change("Remove", &leaving));
    }
    match lent.ask(&cmdlet).await {
        Ok(_) => return Ok(()),
        Err(MailError::Cmdlet { record, .. }) if is_missing_parameter(&record) => {
            tracing::debug!(
                error = record.message,
                "The server takes no changes of lists; writing whole ones"
            );
        }
        Err(error) => return Err(error),
    }
    let (mut onto, mut off) = match access {
        Access::Allowed => (mailbox.lists.allowed.clone(), mailbox.lists.blocked.clone()),
        Access::Blocked => (mailbox.lists.blocked.clone(), mailbox.lists.allowed.clone()),
    };
    onto.extend(ids.iter().filter(|id| !onto.contains(id)).cloned().collect::<Vec<_>>());
    off.retain(|id| !ids.contains(id));
    let mut cmdlet = base.with(to, whole(onto));
    if !leaving.is_empty() {
        cmdlet = cmdlet.with(from, whole(off));
    }
    lent.ask(&cmdlet).await.map(|_| ())
}

/// Adds to the list of allowed ones and touches nothing else.
pub(in crate::modules::exchange) async fn add(
    lent: &mut Lent<'_>,
    mailbox: &str,
    ids: &[String],
) -> Result<(), MailError> {
    let cmdlet =
        Cmdlet::new(&lent.recipe.set_mailbox).with("Identity", mailbox).with(ALLOWED, change("Add", ids));
    lent.ask(&cmdlet).await.map(|_| ())
}

fn change(what: &str, ids: &[String]) -> Value {
    let value = match ids {
        [one] => Value::from(one.as_str()),
        several => Value::list(several.iter().map(|id| Value::from(id.as_str())).collect()),
    };
    Value::hashtable(vec![(Value::from(what), value)])
}

pub(super) fn whole(ids: Vec<String>) -> Value {
    if ids.is_empty() { Value::Null } else { Value::list(ids.into_iter().map(Value::from).collect()) }
}
