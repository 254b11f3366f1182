//! The doctor of the module: which version it is, what the account may see, and one harmless read of each kind.

use causeway_protocol::cmdlet::Cmdlet;

use super::error::{MailError, is_missing_cmdlet};
use super::limits;
use super::mapping::{self, Mailbox, Phone};
use super::run::Runner;
use super::sessions::Lent;
use crate::chain::Chain;
use crate::checks::{Check, declare_checks};
use crate::directory::Net;
use crate::exchange::{Organisation, doctor};
use crate::modules::{CheckResult, ModuleContext, Verdict};

declare_checks! {
    VERSION = "exchange.version":
        "which generation of Exchange answers, by the cmdlets the account sees",
        "give the account the roles that docs/exchange.md lists";
    DEVICES = "exchange.devices":
        "whether phones may be listed",
        "give the account the role Mail Recipients or a role of its own with Get-MobileDevice";
    MAILBOXES = "exchange.mailboxes":
        "whether mailboxes and their lists of phones may be read",
        "give the account a role with Get-CASMailbox and Set-CASMailbox";
    POLICIES = "exchange.policies":
        "whether policies for phones may be read",
        "give the account a role with Get-MobileDeviceMailboxPolicy";
    QUARANTINE = "exchange.quarantine":
        "what happens to a phone nobody has decided about",
        "give the account the role Organization Client Access";
}

pub(super) async fn run(
    runner: &Runner,
    organisation: Option<&Organisation>,
    cx: &ModuleContext,
) -> Vec<CheckResult> {
    let net = Net::from(cx);
    let mut results = match organisation {
        Some(organisation) => doctor::run(organisation, &net, NEEDED).await,
        None => Vec::new(),
    };
    // Another try to sign in would only bring the account closer to its lockout.
    if results.iter().any(|result| result.verdict() == Verdict::Fail) {
        return results;
    }
    let mut lent = match runner.sessions.urgent(&net).await {
        Ok(lent) => lent,
        Err(error) => {
            results.push(failed(&VERSION, &error));
            return results;
        }
    };
    let server = lent.server();
    results.push(CheckResult::ok(&VERSION, lent.recipe.title.clone()).of(server.host));
    results.push(devices(&mut lent).await);
    results.push(mailboxes(&mut lent).await);
    results.push(policies(&mut lent).await);
    results.push(quarantine(&mut lent).await);
    drop(lent);
    runner.sessions.close().await;
    results
}

/// Cmdlets that every version has; the others are tried by what they read.
const NEEDED: &[&str] = &["Get-CASMailbox", "Set-CASMailbox"];

async fn devices(lent: &mut Lent<'_>) -> CheckResult {
    if lent.recipe.per_mailbox {
        return CheckResult::warn(
            &DEVICES,
            "phones are asked for mailbox by mailbox; a scan takes long",
            "nothing",
        );
    }
    let cmdlet = Cmdlet::new(&lent.recipe.devices).with("ResultSize", "1");
    match lent.all(&cmdlet, limits::ANSWERS_MAX).await {
        Ok((objects, _)) => {
            let readable = objects.iter().filter_map(Phone::read).count();
            if readable < objects.len() {
                CheckResult::warn(&DEVICES, "a phone has no id", "look at the phone with Get-MobileDevice")
            } else {
                CheckResult::ok(&DEVICES, if objects.is_empty() { "there are none" } else { "readable" })
            }
        }
        Err(error) => failed(&DEVICES, &error),
    }
}

async fn mailboxes(lent: &mut Lent<'_>) -> CheckResult {
    let cmdlet = Cmdlet::new(&lent.recipe.mailbox).with("ResultSize", "1");
    match lent.all(&cmdlet, limits::ANSWERS_MAX).await {
        Ok((objects, _)) => match objects.first().map(Mailbox::read) {
            Some(None) => CheckResult::fail(&MAILBOXES, "a mailbox has no Guid", ""),
            _ => CheckResult::ok(&MAILBOXES, "readable"),
        },
        Err(error) => failed(&MAILBOXES, &error),
    }
}

async fn policies(lent: &mut Lent<'_>) -> CheckResult {
    match lent.ask_for(&Cmdlet::new(&lent.recipe.policies), limits::POLICIES_MAX).await {
        Ok(objects) => CheckResult::ok(&POLICIES, format!("{} policies", objects.len())),
        Err(MailError::Cmdlet { record, .. }) if is_missing_cmdlet(&record) => {
            CheckResult::warn(&POLICIES, "the account does not see them", "")
        }
        Err(error) => failed(&POLICIES, &error),
    }
}

async fn quarantine(lent: &mut Lent<'_>) -> CheckResult {
    let Some(cmdlet) = &lent.recipe.organization else {
        return CheckResult::warn(
            &QUARANTINE,
            "this version cannot hold phones",
            "update Exchange to hold new phones",
        );
    };
    match lent.ask(&Cmdlet::new(cmdlet)).await {
        Ok(objects) => match objects.first().and_then(mapping::default_access) {
            Some(level) => CheckResult::ok(&QUARANTINE, format!("a new phone is {level}")),
            None => CheckResult::warn(&QUARANTINE, "the servers do not say", ""),
        },
        Err(error) => failed(&QUARANTINE, &error),
    }
}

fn failed(check: &'static Check, error: &MailError) -> CheckResult {
    CheckResult::fail(check, Chain(error).to_string(), error.remedy())
}
