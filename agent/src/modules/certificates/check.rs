//! The doctor of the module: whether what profiles need is there, and each authority as it is. Nothing here uses up a
//! challenge: NDES keeps five, and a doctor who takes one keeps a device out.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::relay::{Office, Relay};
use super::{limits, template, watch};
use crate::ca::{CaError, Seen, Successor};
use crate::chain::Chain;
use crate::checks::declare_checks;
use crate::directory::Net;
use crate::modules::{CheckResult, ModuleContext};
use crate::secrets::SecretStore;

declare_checks! {
    PROFILES = "certificates.profiles":
        "whether every profile's authority is defined here, and the directory where a profile needs it",
        "add the table [ca.NAME] to agent.toml, or correct the profile in the cloud";
    SECRETS = "certificates.secrets":
        "whether the secrets of each authority are stored here",
        "store them with causeway-agent configure ca --secret-from-stdin password (or key, or challenge)";
    AUTHORITY = "certificates.authority":
        "whether each authority answers, is the one it should be, and what was agreed with it",
        "see docs/certificates.md for what this kind of authority needs";
    FRONT_ENDS = "certificates.front_ends":
        "whether each of an authority's front ends works, so that there is one left when another fails",
        "check that this server runs and is reachable from here, or take it out of urls in [ca.NAME]";
    ENDS = "certificates.ends":
        "when the certificates of authorities and of ourselves end",
        "renew it at the authority before it ends";
    CLOCK = "certificates.clock":
        "whether the clocks of the authorities' servers and ours agree",
        "set the clocks of both machines by the same source: certificates begin and end by the authority's";
    SUCCESSOR = "certificates.successor":
        "whether an authority that is announced to take another one's place is expected here",
        "compare it with what who runs the authority says, and write it to next_fingerprint in [ca.NAME]";
}

pub(super) async fn run(relay: &Relay, secrets: &SecretStore, cx: &ModuleContext) -> Vec<CheckResult> {
    let mut results = vec![profiles(relay)];
    let offices: Vec<_> = relay.offices.values().collect();
    for found in join_all(offices.iter().map(|office| office_of(relay, office, secrets, cx))).await {
        results.extend(found);
    }
    results
}

fn profiles(relay: &Relay) -> CheckResult {
    let settings = &relay.settings;
    let wanted: BTreeSet<&str> = settings.profiles.iter().map(|profile| profile.authority.as_str()).collect();
    let missing: Vec<&str> =
        wanted.iter().copied().filter(|name| !relay.offices.contains_key(*name)).collect();
    if !missing.is_empty() {
        let detail = format!("not defined: {}", missing.join(", "));
        return CheckResult::fail(&PROFILES, detail, "");
    }
    let in_directory = |profile: &&causeway_protocol::certificate::Profile| {
        template::variables(profile).iter().any(|name| super::lookup::OF_DIRECTORY.contains(name))
    };
    if relay.directory.is_none()
        && let Some(profile) = settings.profiles.iter().find(in_directory)
    {
        let detail =
            format!("{} needs the directory {}, which is not defined", profile.id, settings.directory);
        return CheckResult::warn(&PROFILES, detail, "add the table [directory.NAME] to agent.toml");
    }
    match (settings.profiles.len(), relay.offices.len()) {
        (0, 0) => CheckResult::warn(&PROFILES, "there is neither a profile nor an authority", ""),
        (0, _) => CheckResult::warn(&PROFILES, "there is no profile", "make one in the cloud"),
        (count, _) => CheckResult::ok(&PROFILES, format!("{count} profiles")),
    }
}

async fn office_of(
    relay: &Relay,
    office: &Office,
    secrets: &SecretStore,
    cx: &ModuleContext,
) -> Vec<CheckResult> {
    let name = &office.name;
    let mut results = Vec::new();
    let missing: Vec<String> = office
        .settings
        .secret_names(name)
        .into_iter()
        .filter(|secret| secrets.newest(secret).is_none_or(|secret| secret.is_empty()))
        .collect();
    results.push(if missing.is_empty() {
        CheckResult::ok(&SECRETS, "stored").of(name)
    } else {
        CheckResult::fail(&SECRETS, format!("not stored: {}", missing.join(", ")), "").of(name)
    });
    match office.authority.look(&Net::from(cx)).await {
        Ok(seen) => {
            results.push(facts(&seen).of(name));
            results.extend(front_ends(&seen).map(|result| result.of(name)));
            results.extend(ends(relay, &seen, cx).into_iter().map(|result| result.of(name)));
            results.extend(clocks(&seen).map(|result| result.of(name)));
            results.extend(successors(&seen).into_iter().map(|result| result.of(name)));
        }
        Err(error) => results.push(failed(office, error).of(name)),
    }
    results
}

fn failed(office: &Office, error: CaError) -> CheckResult {
    let detail = Chain(&error).to_string();
    CheckResult::fail(&AUTHORITY, detail, office.error(error).remedy())
}

fn facts(seen: &Seen) -> CheckResult {
    let facts: Vec<String> = seen.facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    CheckResult::ok(&AUTHORITY, if facts.is_empty() { "it answers".to_owned() } else { facts.join("; ") })
}

/// Where there is more than one, or the only one works but for something.
fn front_ends(seen: &Seen) -> Option<CheckResult> {
    let troubles = watch::troubles_of(seen);
    if !troubles.is_empty() {
        let of_all = format!("{} of {} do not work as they should", troubles.len(), seen.front_ends.len());
        return Some(CheckResult::warn(&FRONT_ENDS, format!("{of_all}: {}", troubles.join("; ")), ""));
    }
    let count = seen.front_ends.len();
    (count > 1).then(|| CheckResult::ok(&FRONT_ENDS, format!("all {count} work")))
}

fn ends(relay: &Relay, seen: &Seen, cx: &ModuleContext) -> Vec<CheckResult> {
    let now_ms = cx.clock.now_ms();
    let days = |end_ms: i64| (end_ms - now_ms).div_euclid(24 * 3_600_000);
    let one = |(what, end_ms): &(String, i64)| {
        let detail = watch::when(what, days(*end_ms));
        match days(*end_ms) {
            ..0 => CheckResult::fail(&ENDS, detail, watch::REMEDY),
            left if left < i64::from(relay.settings.warn_days) => {
                CheckResult::warn(&ENDS, detail, watch::REMEDY)
            }
            _ => CheckResult::ok(&ENDS, detail),
        }
    };
    seen.ends.iter().take(limits::PAGE).map(one).collect()
}

fn clocks(seen: &Seen) -> Option<CheckResult> {
    let worst = seen.clocks.iter().max_by_key(|(_, ahead_ms)| ahead_ms.unsigned_abs())?;
    Some(match watch::clock_of(worst) {
        Some(detail) => CheckResult::fail(&CLOCK, detail, ""),
        None => CheckResult::ok(&CLOCK, "they agree"),
    })
}

fn successors(seen: &Seen) -> Vec<CheckResult> {
    let one = |next: &Successor| match next.is_expected {
        true => CheckResult::ok(&SUCCESSOR, format!("{} is expected", next.subject)),
        false => CheckResult::warn(&SUCCESSOR, watch::announced(next), ""),
    };
    seen.successors.iter().take(limits::PAGE).map(one).collect()
}
