//! The doctor of user_auth: the search for a user and the lockout policy. The directory itself is checked before.

use super::Shared;
use super::bind::Looked;
use super::config::Lookup;
use super::username::Typed;
use crate::checks::declare_checks;
use crate::directory::{Net, doctor};
use crate::modules::{CheckResult, ModuleContext};

declare_checks! {
    NAMES = "user_auth.names":
        "how a typed name becomes the name that signs in: by a search or by a template",
        "give the service account the right to search, or set lookup in [modules.user_auth]";
    LOCKOUT = "user_auth.lockout":
        "whether wrong passwords are capped below the domain's lockout threshold",
        "if accounts are locked after wrong passwords, set failures_max below that number";
}

pub(super) async fn run(shared: &Shared, cx: &ModuleContext) -> Vec<CheckResult> {
    let net = Net::from(cx);
    if let Lookup::Direct { template } = &shared.settings.lookup {
        return vec![CheckResult::ok(&NAMES, format!("made from {template}, without a search"))];
    }
    let mut results = Vec::new();
    // A name nobody has: the search itself is what is tried.
    match shared.look_up(&net, &Typed::Login("causeway-check\0")).await {
        Ok(Looked::Nobody | Looked::User(_) | Looked::Several(_)) => {
            results.push(CheckResult::ok(&NAMES, "the service account may search"));
        }
        Err(error) => results.push(doctor::failed(&NAMES, &error)),
    }
    results.push(lockout(shared));
    results
}

fn lockout(shared: &Shared) -> CheckResult {
    match shared.cap() {
        Some(cap) => CheckResult::ok(
            &LOCKOUT,
            format!(
                "at most {} wrong passwords of one user reach the directory in {} s",
                cap.failures_max,
                cap.window.as_secs()
            ),
        ),
        None => match shared.known_profile().and_then(|profile| profile.lockout) {
            Some(_) => CheckResult::ok(&LOCKOUT, "the domain never locks accounts"),
            None => CheckResult::warn(&LOCKOUT, "the domain's lockout policy could not be read", ""),
        },
    }
}
