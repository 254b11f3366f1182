//! The watch over authorities: whether they answer, and when their certificates end. That of a registration authority
//! ends after two years without anybody having been told, and then nothing is issued any more.

use std::time::Duration;

use causeway_protocol::channel::payload::Notice;
use causeway_protocol::health::{ModuleState, Severity};

use super::limits;
use super::relay::{Office, Relay};
use super::state::Store;
use crate::ca::limits::CLOCKS_DIFFER;
use crate::ca::{Seen, Successor, clocks_apart};
use crate::chain::Chain;
use crate::directory::Net;
use crate::modules::ModuleContext;

/// Code of the notice about a certificate that ends.
pub(super) const ENDS: &str = "ca_certificate_ends";
/// Code of the notice about an authority whose clock is another one.
pub(super) const CLOCK: &str = "ca_clock_differs";
/// Code of the notice about an authority that will take another one's place and is not expected here.
pub(super) const SUCCESSOR: &str = "ca_successor_unknown";
/// Code of the notice about an authority that does not answer as it should.
pub(super) const UNWELL: &str = "ca_unwell";

/// Code of the notice about one of several front ends that does not work while another one does.
pub(super) const FRONT_END: &str = "ca_front_end_unwell";

const DAY_MS: i64 = 24 * 3_600_000;

/// Looks again and again until the module stops.
pub(super) async fn run(relay: &Relay, cx: &ModuleContext) {
    loop {
        let unwell = look(relay, cx).await;
        let every = Duration::from_secs(relay.settings.watch_every_secs);
        let pause = if unwell { every.min(limits::WATCH_RETRY) } else { every };
        tokio::select! {
            () = cx.clock.sleep(pause) => {}
            () = cx.stop.cancelled() => return,
        }
    }
}

/// One look at everything; whether something is not well.
pub(super) async fn look(relay: &Relay, cx: &ModuleContext) -> bool {
    relay.challenges.expire();
    match Store::new(cx.storage.clone()).prune(cx.clock.now_ms()).await {
        Ok(open) => cx.status.figure("orders_open", i64::try_from(open).unwrap_or(i64::MAX)),
        Err(error) => tracing::warn!(error = %Chain(&error), "Old orders could not be forgotten"),
    }
    let mut troubles = Vec::new();
    for office in relay.offices.values() {
        let seen = office.authority.look(&Net::from(cx)).await;
        match seen {
            Ok(seen) => {
                cx.cloud.notice(well(office));
                troubles.extend(front_ends(cx, office, &seen));
                troubles.extend(ends(relay, cx, office, &seen));
                troubles.extend(clocks(cx, office, &seen));
                troubles.extend(successors(cx, office, &seen));
            }
            Err(error) => {
                let error = office.error(error);
                let report = error.report();
                tracing::warn!(
                    authority = office.name,
                    code = report.code,
                    error = report.detail,
                    "An authority is not well"
                );
                troubles.push(format!("{}: {}", office.name, report.detail));
                cx.cloud.notice(Notice {
                    code: UNWELL.to_owned(),
                    severity: Severity::Warning,
                    subject: office.name.clone(),
                    detail: report.detail,
                    remedy: report.remedy,
                    resolved: false,
                });
            }
        }
    }
    cx.status.figure("authorities", i64::try_from(relay.offices.len()).unwrap_or(i64::MAX));
    match troubles.is_empty() {
        true => cx.status.set(ModuleState::Ok, "waits for orders"),
        false => cx.status.set(ModuleState::Degraded, troubles.join("; ")),
    }
    !troubles.is_empty()
}

fn well(office: &Office) -> Notice {
    Notice {
        code: UNWELL.to_owned(),
        severity: Severity::Info,
        subject: office.name.clone(),
        detail: "it answers".to_owned(),
        remedy: String::new(),
        resolved: true,
    }
}

/// Tells of each front end whether it works; gives those that do not.
fn front_ends(cx: &ModuleContext, office: &Office, seen: &Seen) -> Vec<String> {
    for (host, trouble) in &seen.front_ends {
        cx.cloud.notice(Notice {
            code: FRONT_END.to_owned(),
            severity: if trouble.is_some() { Severity::Warning } else { Severity::Info },
            subject: format!("{} {host}", office.name),
            detail: trouble.clone().unwrap_or_else(|| "it works".to_owned()),
            remedy: trouble.as_ref().map_or_else(String::new, |_| {
                "see that this server runs and is reachable from the agent; the others do its work meanwhile"
                    .to_owned()
            }),
            resolved: trouble.is_none(),
        });
    }
    troubles_of(seen).into_iter().map(|trouble| format!("{}: {trouble}", office.name)).collect()
}

/// What is wrong with front ends while another one works.
pub(super) fn troubles_of(seen: &Seen) -> Vec<String> {
    let trouble = |(host, trouble): &(String, Option<String>)| Some(format!("{host}: {}", trouble.as_ref()?));
    seen.front_ends.iter().filter_map(trouble).collect()
}

/// Tells of each certificate whether it ends soon; gives those that do.
fn ends(relay: &Relay, cx: &ModuleContext, office: &Office, seen: &Seen) -> Vec<String> {
    let now_ms = cx.clock.now_ms();
    let mut troubles = Vec::new();
    for (what, end_ms) in &seen.ends {
        let days = (end_ms - now_ms).div_euclid(DAY_MS);
        let soon = days < i64::from(relay.settings.warn_days);
        let detail = when(what, days);
        if soon {
            troubles.push(format!("{}: {detail}", office.name));
        }
        cx.cloud.notice(Notice {
            code: ENDS.to_owned(),
            severity: match days {
                _ if !soon => Severity::Info,
                ..0 => Severity::Critical,
                _ => Severity::Warning,
            },
            subject: format!("{} {what}", office.name),
            detail,
            remedy: if soon { REMEDY.to_owned() } else { String::new() },
            resolved: !soon,
        });
    }
    troubles
}

/// Tells of each server whether its clock is ours; gives those where it is not.
fn clocks(cx: &ModuleContext, office: &Office, seen: &Seen) -> Vec<String> {
    let mut troubles = Vec::new();
    for clock in &seen.clocks {
        let apart = clock_of(clock);
        cx.cloud.notice(Notice {
            code: CLOCK.to_owned(),
            severity: if apart.is_some() { Severity::Warning } else { Severity::Info },
            subject: format!("{} {}", office.name, clock.0),
            detail: apart.clone().unwrap_or_else(|| "its clock is ours".to_owned()),
            remedy: apart.as_ref().map_or_else(String::new, |_| {
                "set the clocks of both machines by the same source".to_owned()
            }),
            resolved: apart.is_none(),
        });
        troubles.extend(apart.map(|apart| format!("{}: {apart}", office.name)));
    }
    troubles
}

/// What is to be said about a clock that is not ours.
pub(super) fn clock_of((host, ahead_ms): &(String, i64)) -> Option<String> {
    let most = u64::try_from(CLOCKS_DIFFER.as_millis()).unwrap_or(u64::MAX);
    let apart = || clocks_apart(*ahead_ms, &format!("the clock of {host} is "));
    (ahead_ms.unsigned_abs() > most).then(apart)
}

/// Tells of each successor whether it is expected; gives those that are not.
fn successors(cx: &ModuleContext, office: &Office, seen: &Seen) -> Vec<String> {
    let mut troubles = Vec::new();
    for next in &seen.successors {
        let detail = announced(next);
        if !next.is_expected {
            troubles.push(format!("{}: {detail}", office.name));
        }
        cx.cloud.notice(Notice {
            code: SUCCESSOR.to_owned(),
            severity: if next.is_expected { Severity::Info } else { Severity::Warning },
            subject: format!("{} {}", office.name, next.sha256),
            detail,
            remedy: if next.is_expected { String::new() } else { EXPECT.to_owned() },
            resolved: next.is_expected,
        });
    }
    troubles
}

/// What to do about a successor that nobody expects.
const EXPECT: &str = "compare it with what who runs the authority says, and write it to next_fingerprint in agent.toml: \
                      otherwise nothing is issued once it takes over";

/// For people.
pub(super) fn announced(next: &Successor) -> String {
    format!("{} will take over and is not expected; its SHA-256 fingerprint is {}", next.subject, next.sha256)
}

/// What to do about a certificate that ends.
pub(super) const REMEDY: &str = "renew it at the authority before it ends: afterwards nothing is issued";

/// For people.
pub(super) fn when(what: &str, days: i64) -> String {
    match days {
        ..0 => format!("the certificate of {what} has ended"),
        0 => format!("the certificate of {what} ends today"),
        days => format!("the certificate of {what} ends in {days} days"),
    }
}
