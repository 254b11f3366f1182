//! Policies: which one a mailbox has, and what they say.

use causeway_protocol::clixml::{Object, Value as Clixml};
use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::mobile::DeviceTarget;
use serde_json::{Map, Value, json};

use super::{Progress, Step, find, not_yet_visible};
use crate::modules::exchange::error::{Class, MailError};
use crate::modules::exchange::limits;
use crate::modules::exchange::mapping::{last_name, policy as read_policy, text};
use crate::modules::exchange::recipes::setting;
use crate::modules::exchange::run::Runner;
use crate::modules::exchange::sessions::Lent;

/// Gives the phone's mailbox a policy, or takes its own away.
pub(super) async fn assign(
    runner: &Runner,
    lent: &mut Lent<'_>,
    target: &DeviceTarget,
    policy: Option<&str>,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    let found = find::device(runner, lent, target).await?;
    let name = match policy {
        Some(policy) => Some(named(lent, policy).await?.ok_or_else(|| no_policy(policy))?.0),
        None => None,
    };
    let has = |current: Option<&String>| current.map(|current| last_name(current)) == name;
    let guid = found.mailbox.mailbox.guid.as_str();
    let done = json!({ "mailbox": guid, "policy": name });
    // Without a policy of its own a mailbox may show the default one; so one is taken away once, and then believed.
    if has(found.mailbox.policy.as_ref()) || (name.is_none() && progress.asked) {
        return Ok(Step::Done(done));
    }
    let value = name.as_deref().map_or(Clixml::Null, Clixml::from);
    let cmdlet =
        Cmdlet::new(&lent.recipe.set_mailbox).with("Identity", guid).with("ActiveSyncMailboxPolicy", value);
    lent.ask(&cmdlet).await?;
    progress.asked = true;
    let after = find::mailbox_named(lent, guid).await?;
    if has(after.policy.as_ref()) || name.is_none() {
        return Ok(Step::Done(done));
    }
    not_yet_visible("the mailbox's policy", progress)
}

/// Makes a policy, or changes what it says.
pub(super) async fn write(
    lent: &mut Lent<'_>,
    name: &str,
    settings: &Map<String, Value>,
    create: bool,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    let known = named(lent, name).await?;
    let cmdlet = match (&known, create) {
        (None, false) => return Err(no_policy(name)),
        (None, true) => Cmdlet::new(&lent.recipe.new_policy).with("Name", name),
        (Some((_, object)), _) => {
            if differing(lent, object, settings).is_empty() {
                return Ok(Step::Done(json!({ "policy": name })));
            }
            let identity = text(object, "Guid").unwrap_or_else(|| name.to_owned());
            Cmdlet::new(&lent.recipe.set_policy).with("Identity", identity)
        }
    };
    let mut cmdlet = cmdlet;
    for (key, value) in settings {
        let value = setting(key, value).expect("settings are checked when the order is read");
        let parameter = lent.recipe.parameter(key).to_owned();
        cmdlet = cmdlet.with(&parameter, value);
    }
    lent.ask(&cmdlet.with("Confirm", false)).await?;
    match named(lent, name).await? {
        Some((_, object)) if differing(lent, &object, settings).is_empty() => {
            Ok(Step::Done(json!({ "policy": name })))
        }
        _ => not_yet_visible("the policy", progress),
    }
}

/// The policy of this name or key.
async fn named(lent: &mut Lent<'_>, name: &str) -> Result<Option<(String, Object)>, MailError> {
    // All of them, compared here: an identity with a wildcard would mean several.
    let objects = match lent.ask_for(&Cmdlet::new(&lent.recipe.policies), limits::POLICIES_MAX).await {
        Err(error) if error.class() == Class::NotFound => return Ok(None),
        asked => asked?,
    };
    Ok(objects.into_iter().find_map(|object| {
        let (key, record) = read_policy(&object)?;
        (record.name == name || key.eq_ignore_ascii_case(name)).then_some((record.name, object))
    }))
}

/// Settings that are not as wanted. A server writes numbers and spans in more than one way.
fn differing(lent: &Lent<'_>, object: &Object, settings: &Map<String, Value>) -> Vec<String> {
    let same = |key: &String, wanted: &Value| {
        let wanted = match wanted {
            Value::Bool(truth) => if *truth { "true" } else { "false" }.to_owned(),
            Value::String(text) => text.to_lowercase(),
            other => other.to_string(),
        };
        text(object, lent.recipe.parameter(key)).is_some_and(|is| is.to_lowercase() == wanted)
    };
    settings.iter().filter(|(key, wanted)| !same(key, wanted)).map(|(key, _)| key.clone()).collect()
}

fn no_policy(name: &str) -> MailError {
    MailError::NotFound { what: format!("policy {name:?}") }
}
