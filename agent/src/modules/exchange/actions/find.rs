//! Finding exactly the phone or mailbox that is meant, and nothing else.

use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::mobile::DeviceTarget;
use uuid::Uuid;

use crate::modules::exchange::error::MailError;
use crate::modules::exchange::mapping::{Lists, Mailbox, Phone, text};
use crate::modules::exchange::run::Runner;
use crate::modules::exchange::sessions::Lent;
use crate::modules::exchange::{error, limits};

/// A phone and the mailbox it is in, both read just now.
pub(super) struct Found {
    pub(super) phone: Phone,
    pub(super) mailbox: InMailbox,
}

/// A mailbox with who may and who may not.
#[derive(Clone, Debug)]
pub(in crate::modules::exchange) struct InMailbox {
    pub(in crate::modules::exchange) mailbox: Mailbox,
    pub(in crate::modules::exchange) lists: Lists,
    /// As the server names it.
    pub(in crate::modules::exchange) policy: Option<String>,
}

/// The phone of a target. Key, device id and mailbox must be those of one and the same phone; a server that does not
/// know an identity may answer with every phone there is.
pub(super) async fn device(
    runner: &Runner,
    lent: &mut Lent<'_>,
    target: &DeviceTarget,
) -> Result<Found, MailError> {
    let key = Uuid::parse_str(&target.key).map_err(|_| no_phone(target))?;
    let phone = if lent.recipe.per_mailbox {
        in_mailbox(lent, target, key).await?
    } else {
        runner.find(lent, key).await?
    };
    let mut phone = phone.ok_or_else(|| no_phone(target))?;
    if let Some(wanted) = &target.device_id
        && phone.record.device_id != *wanted
    {
        let what = format!(
            "the phone {} has the device id {:?}, not {wanted:?}",
            target.key, phone.record.device_id
        );
        return Err(MailError::Mismatch { what });
    }
    let name = target.mailbox.clone().or_else(|| phone.owner.first().cloned()).unwrap_or_default();
    let mailbox = mailbox_named(lent, &name).await?;
    if !lent.recipe.per_mailbox && !mailbox.mailbox.owns(&phone) {
        let what =
            format!("the phone {} is in {}, not in mailbox {name}", target.key, phone.owner.join(" or "));
        return Err(MailError::Mismatch { what });
    }
    if !lent.recipe.block_list {
        phone.judge_by_list(&mailbox.lists.allowed);
    }
    Ok(Found { phone, mailbox })
}

/// A phone where only mailboxes can be asked.
async fn in_mailbox(
    lent: &mut Lent<'_>,
    target: &DeviceTarget,
    key: Uuid,
) -> Result<Option<Phone>, MailError> {
    let Some(mailbox) = &target.mailbox else {
        let what = "the target's mailbox is missing; this version of Exchange needs it".to_owned();
        return Err(MailError::Mismatch { what });
    };
    let cmdlet = Cmdlet::new(&lent.recipe.statistics).with("Mailbox", mailbox.as_str());
    let objects = lent.ask_for(&cmdlet, limits::PHONES_PER_MAILBOX_MAX).await?;
    Ok(objects.iter().filter_map(Phone::read).find(|phone| phone.key == key))
}

/// The mailbox of an id, address or name; the one answer must be called so.
pub(in crate::modules::exchange) async fn mailbox_named(
    lent: &mut Lent<'_>,
    name: &str,
) -> Result<InMailbox, MailError> {
    let not_found = || MailError::NotFound { what: format!("mailbox {name:?}") };
    if name.trim().is_empty() {
        return Err(not_found());
    }
    let cmdlet = Cmdlet::new(&lent.recipe.mailbox).with("Identity", name);
    let objects = lent.ask(&cmdlet).await?;
    let [object] = objects.as_slice() else { return Err(not_found()) };
    let mailbox = Mailbox::read(object).ok_or_else(not_found)?;
    let called = name.to_lowercase();
    let is_it = mailbox.guid == called
        || mailbox.address.as_ref().is_some_and(|address| address.to_lowercase() == called)
        || mailbox.names.contains(&called)
        || ["SamAccountName", "UserPrincipalName", "WindowsEmailAddress", "Name", "Alias"]
            .iter()
            .any(|property| text(object, property).is_some_and(|value| value.to_lowercase() == called));
    if !is_it {
        return Err(MailError::Mismatch {
            what: format!("asked for mailbox {name:?}, the server gave {}", mailbox.guid),
        });
    }
    let policy = text(object, "ActiveSyncMailboxPolicy");
    Ok(InMailbox { lists: Lists::read(object), mailbox, policy })
}

/// The statistics object of a phone, cross-checked.
pub(super) async fn statistics(
    lent: &mut Lent<'_>,
    found: &Found,
) -> Result<causeway_protocol::clixml::Object, MailError> {
    let phone = &found.phone;
    let cmdlet = Cmdlet::new(&lent.recipe.statistics);
    let cmdlet = if lent.recipe.per_mailbox {
        cmdlet.with("Mailbox", found.mailbox.mailbox.guid.as_str())
    } else {
        cmdlet.with("Identity", phone.key.to_string())
    };
    let objects = lent.ask_for(&cmdlet, limits::PHONES_PER_MAILBOX_MAX).await?;
    objects
        .into_iter()
        .find(|object| match text(object, "Guid") {
            Some(guid) => Uuid::parse_str(&guid).is_ok_and(|guid| guid == phone.key),
            None => text(object, "DeviceId").is_some_and(|id| id == phone.record.device_id),
        })
        .ok_or_else(|| MailError::NotFound { what: format!("statistics of the phone {}", phone.key) })
}

/// What identifies the phone towards cmdlets that change it: its Guid, and where it has none, what the server itself
/// called it a moment ago. Never empty.
pub(super) fn identity(lent: &Lent<'_>, phone: &Phone) -> Result<String, MailError> {
    let identity =
        if lent.recipe.per_mailbox { phone.record.identity.clone() } else { phone.key.to_string() };
    if identity.trim().is_empty() {
        return Err(MailError::NotFound { what: format!("identity of the phone {}", phone.key) });
    }
    Ok(identity)
}

fn no_phone(target: &DeviceTarget) -> MailError {
    MailError::NotFound { what: format!("phone {}", target.key) }
}

/// Whether an error says that something is not there.
pub(super) fn is_gone(error: &MailError) -> bool {
    error.class() == error::Class::NotFound
}
