//! Who may synchronise where there is no list of blocked phones (Exchange 2007): a mailbox without a list of allowed ones
//! takes every phone, one with a list takes those on it. So a phone is blocked by a list of all the others, and approved
//! by being on the list where there is one.

use causeway_protocol::cmdlet::Cmdlet;
use serde_json::{Value, json};

use super::access::{ALLOWED, Access, whole};
use super::find::{InMailbox, mailbox_named};
use super::{Progress, Step, not_yet_visible};
use crate::modules::exchange::error::MailError;
use crate::modules::exchange::limits;
use crate::modules::exchange::mapping::{Phone, may_by_list};
use crate::modules::exchange::sessions::Lent;

/// On a list that we made: without it the mailbox took every phone, and does so again when nobody is blocked any more.
/// No phone is called so.
const OPEN_BEFORE: &str = "CausewayOpenBefore";

/// Keeps somebody else's list from being empty, which would let in everybody. No phone is called so.
const NOBODY: &str = "CausewayNobody";

/// Brings the mailbox's list about that lets the phone in, or keeps it out, and changes nothing for the others there are.
pub(super) async fn set_access(
    lent: &mut Lent<'_>,
    mailbox: &InMailbox,
    device_id: &str,
    access: Access,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    let guid = mailbox.mailbox.guid.as_str();
    let is_so = |list: &[String]| may_by_list(list, device_id) == (access == Access::Allowed);
    if is_so(&mailbox.lists.allowed) {
        return Ok(Step::Done(told(guid, device_id, &mailbox.lists.allowed)));
    }
    let phones = Cmdlet::new(&lent.recipe.statistics).with("Mailbox", guid);
    let phones = lent.ask_for(&phones, limits::PHONES_PER_MAILBOX_MAX).await?;
    let there: Vec<String> =
        phones.iter().filter_map(Phone::read).map(|phone| phone.record.device_id).collect();
    let list = list_for(&mailbox.lists.allowed, &there, device_id, access);
    let cmdlet = Cmdlet::new(&lent.recipe.set_mailbox).with("Identity", guid).with(ALLOWED, whole(list));
    lent.ask(&cmdlet).await?;
    let after = mailbox_named(lent, guid).await?;
    if is_so(&after.lists.allowed) {
        return Ok(Step::Done(told(guid, device_id, &after.lists.allowed)));
    }
    not_yet_visible("the mailbox's list of phones", progress)
}

/// The result; it says what the list means for phones that are not there yet.
fn told(mailbox: &str, device_id: &str, list: &[String]) -> Value {
    let new_phones = if list.is_empty() { "allowed" } else { "blocked until they are approved" };
    json!({ "mailbox": mailbox, "device_id": device_id, "new_phones": new_phones })
}

/// The list to be written. `there` are the phones of the mailbox.
fn list_for(current: &[String], there: &[String], device_id: &str, access: Access) -> Vec<String> {
    let without = |ids: &[String], out: &str| -> Vec<String> {
        ids.iter().filter(|id| !id.eq_ignore_ascii_case(out)).cloned().collect()
    };
    match access {
        Access::Blocked if current.is_empty() => {
            let mut list = without(there, device_id);
            list.push(OPEN_BEFORE.to_owned());
            list
        }
        Access::Blocked => {
            let mut list = without(current, device_id);
            if list.is_empty() {
                list.push(NOBODY.to_owned());
            }
            list
        }
        Access::Allowed => {
            let mut list = without(current, NOBODY);
            list.push(device_id.to_owned());
            let ours = list.iter().any(|id| id == OPEN_BEFORE);
            if ours && there.iter().all(|phone| may_by_list(&list, phone)) {
                list.clear();
            }
            list
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn after(current: &[&str], there: &[&str], id: &str, access: Access) -> Vec<String> {
        list_for(&texts(current), &texts(there), id, access)
    }

    #[test]
    fn who_is_blocked_in_an_open_mailbox_leaves_the_others_in_and_it_opens_again() {
        let one = after(&[], &["A", "B", "C"], "b", Access::Blocked);
        assert_eq!(one, ["A", "C", OPEN_BEFORE]);
        let two = list_for(&one, &texts(&["A", "B", "C"]), "A", Access::Blocked);
        assert_eq!(two, ["C", OPEN_BEFORE]);
        let three = list_for(&two, &texts(&["A", "B", "C"]), "A", Access::Allowed);
        assert_eq!(three, ["C", OPEN_BEFORE, "A"], "another one is still blocked");
        assert!(list_for(&three, &texts(&["A", "B", "C"]), "B", Access::Allowed).is_empty());
    }

    #[test]
    fn the_only_phone_is_blocked_too() {
        assert_eq!(after(&[], &["A"], "A", Access::Blocked), [OPEN_BEFORE]);
        assert_eq!(after(&["A"], &["A"], "A", Access::Blocked), [NOBODY], "an empty list lets everybody in");
        assert_eq!(after(&[NOBODY], &["A"], "A", Access::Allowed), ["A"]);
        assert!(after(&[OPEN_BEFORE], &["A"], "A", Access::Allowed).is_empty());
    }

    #[test]
    fn a_list_that_is_not_ours_stays_a_list() {
        assert_eq!(after(&["A", "X"], &["A", "B"], "B", Access::Allowed), ["A", "X", "B"]);
        assert_eq!(after(&["A", "X"], &["A", "B"], "A", Access::Blocked), ["X"]);
    }
}
