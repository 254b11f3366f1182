//! Steps about certificates: what managed devices do, and what cloud and authority must show.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::mismatch;
use crate::device::{self, Forgery, Outcome, Server, SimulatedDevice, Verdict};
use crate::spec::{
    CaStep, Count, ExpectStep, ForgeSpec, IdentityAct, IdentityStep, LedgerExpectation, ShowSpec,
};
use crate::world::{PROFILE, World};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An act in words, for steps that say nothing themselves.
pub(super) fn words(act: &IdentityAct) -> &'static str {
    match act {
        IdentityAct::Enrol(_) | IdentityAct::EnrolPhone(_) => "is enrolled",
        IdentityAct::Get => "gets a certificate",
        IdentityAct::Begin => "asks for a certificate",
        IdentityAct::Finish => "waits for its certificate",
        IdentityAct::Renew => "renews its certificate",
        IdentityAct::Forge(_) => "asks for a certificate in another name",
        IdentityAct::Show(ShowSpec { welcome: true, .. }) => "is let in with its certificate",
        IdentityAct::Show(_) => "is not let in",
        IdentityAct::OpensslVerify => "shows OpenSSL its certificate",
        IdentityAct::Wipe => "is wiped",
        IdentityAct::Unenrol => "is no longer managed",
        IdentityAct::Revoke => "loses its certificate",
        IdentityAct::RenewButton => "is to renew its certificate",
    }
}

/// Lets a device do something and waits until it is as far as the step says.
pub(super) async fn identity(step: &IdentityStep, world: &mut World) -> Result<String> {
    let name = step.name.as_str();
    let patience = Duration::from_secs(step.within_secs);
    let outcome = match &step.act {
        IdentityAct::Enrol(user) => return enrol(name, user, world, step.within_secs).await,
        IdentityAct::EnrolPhone(phone) => return enrol_phone(name, phone, world).await,
        IdentityAct::Show(how) => return visit(step, *how, world).await,
        IdentityAct::OpensslVerify => return openssl_verify(name, world).await,
        IdentityAct::Wipe | IdentityAct::Unenrol | IdentityAct::Revoke | IdentityAct::RenewButton => {
            return administer(&step.act, name, world).await;
        }
        IdentityAct::Get => {
            world.ca_mut()?.device(name)?.begin(PROFILE, &Forgery::default(), patience).await?;
            finish(step, world).await?
        }
        IdentityAct::Begin => {
            let begun = world.ca_mut()?.device(name)?.begin(PROFILE, &Forgery::default(), patience).await?;
            if begun.stage == "refused" { begun } else { under_way(step, world).await? }
        }
        IdentityAct::Finish => finish(step, world).await?,
        IdentityAct::Renew => {
            wanted(name, world, step.within_secs).await?;
            world.ca_mut()?.device(name)?.begin(PROFILE, &Forgery::default(), patience).await?;
            finish(step, world).await?
        }
        IdentityAct::Forge(forged) => {
            let begun = world.ca_mut()?.device(name)?.begin(PROFILE, &forgery(forged), patience).await?;
            if begun.stage == "refused" { begun } else { finish(step, world).await? }
        }
    };
    judge(step, &outcome)
}

/// What the step wants to see at the end of its act.
fn aim(step: &IdentityStep) -> &str {
    step.stage.as_deref().unwrap_or(match step.act {
        IdentityAct::Forge(_) => "failed",
        IdentityAct::Begin => "",
        _ => "installed",
    })
}

fn judge(step: &IdentityStep, outcome: &Outcome) -> Result<String> {
    let Outcome { stage, code, detail } = outcome;
    let wanted = aim(step);
    if !wanted.is_empty() && stage != wanted {
        bail!("the request of {} is {stage}, not {wanted}: {code} {detail}", step.name);
    }
    if let Some(wanted) = &step.code
        && wanted != code
    {
        bail!("the request failed with {code}, not {wanted}: {detail}");
    }
    if let Some(part) = &step.detail
        && !detail.contains(part.as_str())
    {
        bail!("it says {detail:?}, nothing about {part:?}");
    }
    Ok(if code.is_empty() { format!("{stage} {detail}") } else { format!("{stage}: {code}") })
}

fn forgery(spec: &ForgeSpec) -> Forgery {
    let ForgeSpec { subject, alternative_names, challenge } = spec.clone();
    Forgery { subject, alternative_names, challenge }
}

/// Waits for the end of a request, or for the stage the step is about.
async fn finish(step: &IdentityStep, world: &mut World) -> Result<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(step.within_secs);
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let wait_ms = u64::try_from(left).unwrap_or(u64::MAX).min(5_000);
        let outcome = world.ca_mut()?.device(&step.name)?.finish(PROFILE, wait_ms).await?;
        let over = matches!(outcome.stage.as_str(), "installed" | "failed" | "cancelled");
        if over || outcome.stage == aim(step) || Instant::now() >= deadline {
            return Ok(outcome);
        }
    }
}

/// Waits until a request that was begun is at the stage the step wants.
async fn under_way(step: &IdentityStep, world: &World) -> Result<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(step.within_secs);
    loop {
        let seen = world.ca()?.look_at(&step.name)?.request(PROFILE).await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let stage = text(&seen["stage"]);
        if aim(step).is_empty() || stage == aim(step) || Instant::now() >= deadline {
            let (code, detail) = (text(&seen["error"]["code"]), text(&seen["error"]["detail"]));
            return Ok(Outcome { stage, code, detail });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the cloud wants a new certificate for a device.
async fn wanted(name: &str, world: &World, within_secs: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(within_secs);
    loop {
        let assigned = world.ca()?.look_at(name)?.assigned(1_000).await?;
        let wants = |it: &str| matches!(it, "renew" | "replace");
        if assigned.iter().any(|it| it.profile == PROFILE && it.wanted.as_deref().is_some_and(wants)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "the cloud does not want a new certificate for {name} within {within_secs} s: {assigned:?}"
            );
        }
    }
}

/// The owner types the company's password into the new device.
async fn enrol(name: &str, user: &str, world: &mut World, within_secs: u64) -> Result<String> {
    let person = world.person(user)?;
    let client = world.client()?;
    let tenant = world.tenant().id().to_owned();
    let udid = format!("UDID-{name}");
    let deadline = Instant::now() + Duration::from_secs(within_secs);
    let device = loop {
        let typed = (person.username.as_str(), person.password.as_str());
        match SimulatedDevice::enrol(&client, &tenant, typed, &udid).await {
            Ok(device) => break device,
            // The module that checks passwords may still be starting.
            Err(error) if Instant::now() < deadline => drop(error),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let seen = format!("enrolled for {}", device.user);
    world.ca_mut()?.put_device(name, device);
    Ok(seen)
}

/// The phone of a story about mail becomes a managed device.
async fn enrol_phone(name: &str, phone: &str, world: &mut World) -> Result<String> {
    let seen = world.mail()?.phone(phone).await?;
    let (user, device_id) = (seen["user"].clone(), seen["device_id"].clone());
    let body = json!({ "user": user, "device_id": device_id });
    let device = put(name, &body, world).await?;
    world.ca_mut()?.put_device(name, device);
    Ok(format!("{name} is {device_id}"))
}

/// An administrator enrols a device and gives it its token.
pub(super) async fn put(name: &str, body: &Value, world: &World) -> Result<SimulatedDevice> {
    let tenant = world.tenant();
    let enrolled = tenant.post("enrolled-devices", body).await?;
    let id = enrolled["id"].as_str().with_context(|| format!("{name} has no id"))?.to_owned();
    let given = tenant.post(&format!("enrolled-devices/{id}/token"), &json!({})).await?;
    let token = given["token"].as_str().context("the cloud gave no token")?.to_owned();
    let user = body["user"].as_str().unwrap_or_default().to_owned();
    Ok(SimulatedDevice::known(&world.client()?, id, user, token))
}

/// Shows a device's certificate to a server until it is judged as wanted: a revocation takes its time.
async fn visit(step: &IdentityStep, how: ShowSpec, world: &World) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(step.within_secs);
    let ca = world.ca()?;
    let name = &step.name;
    let held = ca.look_at(name)?.held(PROFILE).with_context(|| format!("{name} has no certificate"))?;
    held.check()?;
    let roots = vec![ca.root().await?];
    let mut server =
        Server { roots, crl: None, when_silent: how.when_silent, clock: ca.mock().clock().clone() };
    loop {
        // A list that cannot be fetched is one the server does not have.
        server.crl = ca.crl_of(&held.certificate).await.ok();
        let verdict = server.judge(held).await?;
        let (welcome, word) = match &verdict {
            Verdict::Accepted(word) => (true, word),
            Verdict::Refused(why) => (false, why),
        };
        let told = step.detail.as_ref().is_none_or(|part| word.contains(part.as_str()));
        if welcome == how.welcome && told {
            let subject = held.certificate.subject();
            return Ok(if welcome {
                format!("{subject} is let in: {word}")
            } else {
                format!("not let in: {word}")
            });
        }
        if Instant::now() >= deadline {
            bail!("the server says {verdict:?} to {name}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// OpenSSL's word about a device's certificate.
async fn openssl_verify(name: &str, world: &World) -> Result<String> {
    let ca = world.ca()?;
    let held = ca.look_at(name)?.held(PROFILE).with_context(|| format!("{name} has no certificate"))?;
    let crl = ca.crl_of(&held.certificate).await?;
    let found = device::verify(held, &ca.root().await?, &crl, ca.mock().clock().now_ms()).await?;
    Ok(found.unwrap_or_else(|| device::NO_OPENSSL.to_owned()))
}

/// What an administrator does about a device.
async fn administer(act: &IdentityAct, name: &str, world: &World) -> Result<String> {
    let device = world.ca()?.look_at(name)?;
    let tenant = world.tenant();
    match act {
        IdentityAct::Wipe => {
            tenant.post(&format!("enrolled-devices/{}/wipe", device.id), &json!({})).await?;
            Ok(format!("{name} is wiped"))
        }
        IdentityAct::Unenrol => {
            tenant.delete(&format!("enrolled-devices/{}", device.id)).await?;
            Ok(format!("{name} is no longer managed"))
        }
        IdentityAct::Revoke => {
            let sha256 = newest(world, name).await?["sha256"].clone();
            let path = format!("certificates/{}/revoke", sha256.as_str().unwrap_or_default());
            tenant.post(&path, &json!({ "reason": "key_compromise" })).await?;
            Ok(String::new())
        }
        _ => {
            let sha256 = newest(world, name).await?["sha256"].clone();
            let browser = world.browser().await?;
            let page = format!("/t/{}/certificates/{}", tenant.id(), sha256.as_str().unwrap_or_default());
            let location = browser.press(&page, &format!("{page}/renew"), &[]).await?;
            Ok(location)
        }
    }
}

/// The newest certificate of a device as the cloud shows it.
async fn newest(world: &World, name: &str) -> Result<Value> {
    let device = &world.ca()?.look_at(name)?.id;
    let mut found = world.tenant().all(&format!("certificates?device={device}")).await?;
    found.sort_by_key(|it| it["not_before_ms"].as_i64());
    found.pop().with_context(|| format!("the cloud has no certificate of {name}"))
}

/// Calls the authority's admin API.
pub(super) async fn admin(step: &CaStep, world: &World) -> Result<String> {
    let ca = world.ca()?;
    let mut path = step.path.clone();
    if let Some((before, rest)) = step.path.split_once("${request:") {
        let (number, after) = rest.split_once('}').context("${request: without its end")?;
        let number: usize = number.parse().context("the number of a request")?;
        let waiting = ca.call("GET", "/world/requests?state=pending", &Value::Null).await?;
        let mut ids: Vec<u64> =
            waiting["requests"].as_array().into_iter().flatten().filter_map(|it| it["id"].as_u64()).collect();
        ids.sort_unstable();
        let id = number.checked_sub(1).and_then(|n| ids.get(n));
        let id = id.with_context(|| format!("{} requests wait at the authority, not {number}", ids.len()))?;
        path = format!("{before}{id}{after}");
    }
    if let Some((before, rest)) = step.path.split_once("${certificate:") {
        let (name, after) = rest.split_once('}').context("${certificate: without its end")?;
        let held = ca.look_at(name)?.held(PROFILE).with_context(|| format!("{name} has no certificate"))?;
        path = format!("{before}{}{after}", held.certificate.serial());
    }
    let answer = ca.call(&step.method, &path, &step.body).await?;
    Ok(answer.to_string().chars().take(120).collect())
}

/// Checks what a step expects of certificates.
pub(super) async fn look(step: &ExpectStep, world: &World, seen: &mut Vec<String>) -> Result<()> {
    for (status, wanted) in &step.certificates {
        let list =
            if status == "all" { "certificates".to_owned() } else { format!("certificates?status={status}") };
        let got = world.tenant().all(&list).await?.len() as u64;
        if !wanted.fits(got) {
            bail!("{got} certificates are {status}, not {wanted:?}");
        }
        seen.push(format!("{got} certificates are {status}"));
    }
    for (name, fields) in &step.certificate {
        let certificate = newest(world, name).await?;
        if let Some(problem) = mismatch(&certificate, fields) {
            bail!("of the certificate of {name}, {problem}");
        }
        seen.push(format!("the certificate of {name} is {}", certificate["status"]));
    }
    if let Some(wanted) = &step.ledger {
        seen.push(ledger(wanted, world).await?);
    }
    Ok(())
}

/// What the authority's own books say.
async fn ledger(wanted: &LedgerExpectation, world: &World) -> Result<String> {
    let path = format!("/world/certificates?limit=100000&name={}", wanted.name);
    let books = world.ca()?.call("GET", &path, &Value::Null).await?;
    let all = books["certificates"].as_array().context("mock-ca shows no books")?;
    let is_meant = |it: &&Value| wanted.generation.is_none_or(|wanted| it["generation"] == wanted);
    let all: Vec<&Value> = all.iter().filter(is_meant).collect();
    let count = |wanted: &Count, got: usize, what: &str| {
        ensure!(
            wanted.fits(got as u64),
            "{got} certificates {what} in the authority's books, not {wanted:?}"
        );
        Ok(())
    };
    count(&wanted.issued, all.len(), "are")?;
    let revoked = all.iter().filter(|it| !it["revocation"].is_null()).count();
    if let Some(wanted) = &wanted.revoked {
        count(wanted, revoked, "are revoked")?;
    }
    Ok(format!("{} certificates in the authority's books, {revoked} revoked", all.len()))
}
