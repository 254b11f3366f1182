//! The doctor of user_auth: the directory's own checks, then the search for a user and the lockout policy.

use super::Shared;
use super::bind::Looked;
use super::config::Lookup;
use super::username::Typed;
use crate::directory::{Net, doctor};
use crate::modules::{CheckResult, ModuleContext};

pub(super) async fn run(shared: &Shared, cx: &ModuleContext) -> Vec<CheckResult> {
    let net = Net::from(cx);
    let mut results = doctor::run(&shared.directory, &net).await;
    if let Lookup::Direct { template } = &shared.settings.lookup {
        results.push(CheckResult::ok("bind names", format!("made from {template}, without a search")));
        return results;
    }
    let name = "search for a user";
    // A name nobody has: the search itself is what is tried.
    match shared.look_up(&net, &Typed::Login("causeway-check\0")).await {
        Ok(Looked::Nobody | Looked::User(_) | Looked::Several(_)) => {
            results.push(CheckResult::ok(name, "the service account may search"));
        }
        Err(error) => results.push(doctor::failed(name, &error)),
    }
    results.push(lockout(shared));
    results
}

fn lockout(shared: &Shared) -> CheckResult {
    let name = "lockout protection";
    match shared.cap() {
        Some(cap) => CheckResult::ok(
            name,
            format!(
                "at most {} wrong passwords of one user reach the directory in {} s",
                cap.failures_max,
                cap.window.as_secs()
            ),
        ),
        None => match shared.known_profile().and_then(|profile| profile.lockout) {
            Some(_) => CheckResult::ok(name, "the domain never locks accounts"),
            None => CheckResult::warn(
                name,
                "the domain's lockout policy could not be read",
                "if accounts are locked after wrong passwords, set failures_max below that number",
            ),
        },
    }
}
