//! Years in the life of many devices, in minutes.
//!
//! Cloud and authority share a clock that is moved day by day. Every day each device that the cloud wants something of and
//! that is switched on does it. The step holds when no device that was on ever had a certificate that was over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::ca::put;
use crate::device::{Outcome, SimulatedDevice};
use crate::spec::YearsStep;
use crate::world::{PROFILE, World};

const DAY: Duration = Duration::from_secs(86_400);

/// Devices that are busy at once.
const AT_ONCE: usize = 24;

/// How long the cloud may take to begin everything that is due on a day.
const LOOK_WITHIN: Duration = Duration::from_secs(30);

/// How long a device waits for its certificate in one visit.
const VISIT_MS: u64 = 1_000;

/// How long all of them may take for their first certificates.
const FIRST_WITHIN: Duration = Duration::from_secs(1_200);

/// How long devices come back on a day on which the authority answers: an agent that has found it away tries again within
/// a minute.
const DAY_WITHIN: Duration = Duration::from_secs(120);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What happened in all those days.
#[derive(Default)]
struct Chronicle {
    renewals: usize,
    failures: usize,
    /// Renewals of one day at most.
    busiest: usize,
    /// Devices that were off and came back with a certificate that was over.
    came_back: usize,
}

pub(super) async fn live(step: &YearsStep, world: &mut World) -> Result<String> {
    let mut fleet = enrol(step, world).await?;
    let all = (0..fleet.len()).collect();
    let left = serve(&mut fleet, all, FIRST_WITHIN).await;
    ensure!(left.is_empty(), "{} devices got no certificate: {}", left.len(), reasons(&left));
    let places: HashMap<String, usize> =
        fleet.iter().enumerate().map(|(n, device)| (device.id.clone(), n)).collect();
    let mut chronicle = Chronicle::default();
    let half = step.days / 2;
    let is_off = |n: usize, day: u64| {
        step.off_every > 0
            && n.is_multiple_of(step.off_every)
            && day > half
            && day + step.step_days <= step.days
    };
    let (mut day, mut left) = (0, BTreeMap::new());
    while day < step.days {
        day += step.step_days;
        let away = set_outage(step, world, day)?;
        for target in ["cloud", "ca"] {
            world.advance_clock(target, DAY * u32::try_from(step.step_days)?)?;
        }
        looked(world).await?;
        let wanted = world.tenant().all("certificate-requests?stage=wanted").await?;
        let wanted = wanted.iter().filter_map(|request| places.get(request["device"].as_str()?).copied());
        let (off, busy): (BTreeSet<usize>, BTreeSet<usize>) =
            wanted.chain(left.keys().copied()).partition(|n| is_off(*n, day));
        let now_ms = world.ca()?.mock().clock().now_ms();
        let over =
            |n: &&usize| fleet[**n].held(PROFILE).is_some_and(|it| it.certificate.not_after_ms() <= now_ms);
        chronicle.came_back += busy.iter().filter(over).count();
        let asked = busy.len();
        left = serve(&mut fleet, busy, if away { Duration::ZERO } else { DAY_WITHIN }).await;
        ensure!(away || left.is_empty(), "on day {day} {} devices wait: {}", left.len(), reasons(&left));
        chronicle.renewals += asked - left.len();
        chronicle.failures += left.len();
        chronicle.busiest = chronicle.busiest.max(asked - left.len());
        left.extend(off.into_iter().map(|n| (n, "it is off".to_owned())));
        check(&fleet, now_ms, day, |n| is_off(n, day))?;
    }
    let seen = world.tenant().get("certificate-summary").await?;
    ensure!(
        seen["statuses"]["expired"].as_u64().unwrap_or(0) as usize <= chronicle.came_back,
        "certificates ran out in use: {seen}"
    );
    ensure!(chronicle.renewals >= step.devices, "only {} renewals in {} days", chronicle.renewals, step.days);
    let refused = refused(world).await?;
    ensure!(refused.is_empty(), "the authority refused {} requests: {}", refused.len(), refused.join("; "));
    let Chronicle { renewals, failures, busiest, came_back } = chronicle;
    Ok(format!(
        "{renewals} renewals, at most {busiest} a day; {failures} tries during the outage failed; {came_back} devices \
         came back late; nobody who was on had a certificate that was over"
    ))
}

/// Enrols all devices, as administrators do it with a list.
async fn enrol(step: &YearsStep, world: &World) -> Result<Vec<SimulatedDevice>> {
    let enrolments = (0..step.devices).map(|n| async move {
        let name = format!("device{n:04}");
        let body = json!({ "user": format!("{name}@acme.example"), "udid": format!("UDID-{name}") });
        put(&name, &body, world).await
    });
    let enrolled: Vec<Result<SimulatedDevice>> = stream::iter(enrolments).buffered(AT_ONCE).collect().await;
    enrolled.into_iter().collect()
}

/// Lets devices do what the cloud wants of them; they come back for so long. Returns those that have nothing new then, and
/// why.
async fn serve(
    fleet: &mut [SimulatedDevice],
    busy: BTreeSet<usize>,
    within: Duration,
) -> BTreeMap<usize, String> {
    let deadline = Instant::now() + within;
    let mut left: BTreeMap<usize, String> = busy.into_iter().map(|n| (n, String::new())).collect();
    loop {
        let devices = fleet.iter_mut().enumerate().filter(|(n, _)| left.contains_key(n));
        let visits = devices.map(|(n, device)| async move { (n, device.visit(PROFILE, VISIT_MS).await) });
        let outcomes: Vec<_> = stream::iter(visits).buffer_unordered(AT_ONCE).collect().await;
        for (n, outcome) in outcomes {
            match outcome {
                Ok(outcome) if outcome.stage == "installed" => left.remove(&n),
                Ok(Outcome { stage, code, detail }) => left.insert(n, format!("{stage} {code} {detail}")),
                Err(error) => left.insert(n, format!("{error:#}")),
            };
        }
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The first few reasons.
fn reasons(left: &BTreeMap<usize, String>) -> String {
    left.values().take(3).map(String::as_str).collect::<Vec<_>>().join("; ")
}

/// Whether the authority is away on that day.
fn set_outage(step: &YearsStep, world: &mut World, day: u64) -> Result<bool> {
    let Some(from) = step.outage_from else { return Ok(false) };
    let away = (from..from + step.outage_days).contains(&day);
    for server in world.ca()?.servers() {
        world.ca_mut()?.set_server_down(&server, away)?;
    }
    Ok(away)
}

/// Why the authority refused requests, if it did: none may come with a challenge that has expired or was used.
async fn refused(world: &World) -> Result<Vec<String>> {
    let denied = world.ca()?.call("GET", "/world/requests?state=denied", &Value::Null).await?;
    let requests = denied["requests"].as_array().context("mock-ca shows no requests")?;
    Ok(requests.iter().map(|request| request["reason"].to_string()).collect())
}

/// Nobody who is on has a certificate that is over.
fn check(fleet: &[SimulatedDevice], now_ms: i64, day: u64, is_off: impl Fn(usize) -> bool) -> Result<()> {
    for (n, device) in fleet.iter().enumerate().filter(|(n, _)| !is_off(*n)) {
        let held = device.held(PROFILE).with_context(|| format!("device {n} has no certificate"))?;
        if held.certificate.not_after_ms() <= now_ms {
            bail!("on day {day} the certificate of device {n} is over, and the device is on");
        }
    }
    Ok(())
}

/// Waits until the cloud has begun everything that is due.
async fn looked(world: &World) -> Result<()> {
    let now_ms = world.ca()?.mock().clock().now_ms();
    let deadline = Instant::now() + LOOK_WITHIN;
    loop {
        let seen: Value = world.tenant().get("certificate-summary").await?;
        let (looked, now) = (seen["looked_ms"].as_i64(), seen["now_ms"].as_i64());
        // The two clocks were started one after the other; a second's difference is none.
        if looked.zip(now).is_some_and(|(looked, now)| looked + 5_000 >= now.min(now_ms)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the cloud has not looked at its certificates: {seen}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
