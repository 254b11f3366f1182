//! Steps about phones: what they do, and what the cloud orders for them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::mismatch;
use crate::cloud_api::Tenant;
use crate::spec::{
    DeviceExpectation, DeviceStep, EnrolStep, ExpectStep, MailStep, PhoneAct, PhoneStep, SecretStep, Through,
};
use crate::world::{Mail, World};

/// Stands for every phone.
const EVERY: &str = "*";

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Lets a phone do something and waits until it fares as the step says.
pub(super) async fn phone(step: &PhoneStep, world: &mut World) -> Result<String> {
    let mail = world.mail()?;
    let name = step.name.as_str();
    let mut asks = false;
    let mut seen = match &step.act {
        PhoneAct::SetUp(phone) => {
            asks = true;
            mail.set_up_phone(name, phone).await?
        }
        PhoneAct::Sync => {
            asks = true;
            mail.let_phone(name, "sync").await?
        }
        PhoneAct::Off => mail.let_phone(name, "off").await?,
        PhoneAct::On => mail.let_phone(name, "on").await?,
        PhoneAct::SetUpAgain => mail.let_phone(name, "set-up-again").await?,
        PhoneAct::Password(password) => {
            let password = world.ldap.expand(password)?;
            let path = format!("/world/phones/{name}/password");
            mail.call("PUT", &path, &json!({ "password": password })).await?;
            mail.phone(name).await?
        }
        PhoneAct::Look => mail.phone(name).await?,
    };
    let deadline = Instant::now() + Duration::from_secs(step.within_secs);
    loop {
        let Some(problem) = amiss(step, &seen) else {
            let standing = seen["standing"].as_str().unwrap_or_default();
            return Ok(format!("{standing}, {} messages, {} visits", seen["messages"], seen["visits"]));
        };
        if Instant::now() >= deadline {
            let log = seen["log"].as_array().into_iter().flatten().rev().take(6);
            let log: Vec<String> = log.map(|it| format!("{}: {}", it["what"], it["detail"])).collect();
            bail!("{name}: {problem}; its last: {}", log.join("; "));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        seen = if asks { mail.let_phone(name, "sync").await? } else { mail.phone(name).await? };
    }
}

/// What is not as the step wants it.
fn amiss(step: &PhoneStep, seen: &Value) -> Option<String> {
    if let Some(wanted) = &step.standing
        && seen["standing"] != **wanted
    {
        return Some(format!("it is {}, not {wanted}", seen["standing"]));
    }
    if let Some(wanted) = step.messages
        && seen["messages"].as_u64().unwrap_or(0) < wanted
    {
        return Some(format!("it has {} messages, not {wanted}", seen["messages"]));
    }
    for (word, wanted) in &step.experienced {
        let log = seen["log"].as_array().into_iter().flatten();
        let times = log.filter(|it| it["what"].as_str().unwrap_or_default().contains(word)).count();
        if times < *wanted {
            return Some(format!("it experienced {word:?} {times} times, not {wanted}"));
        }
    }
    mismatch(seen, &step.fields)
}

/// Orders something about a phone and waits for the end of it.
pub(super) async fn order(step: &DeviceStep, world: &mut World) -> Result<String> {
    let within = Duration::from_secs(step.within_secs);
    if step.phone == EVERY {
        return order_for_all(step, world).await;
    }
    let device = known_device(world, &step.phone, within).await?;
    let id = match step.through {
        Through::Api => order_one(step, world.tenant(), &device).await?,
        Through::Portal => through_portal(step, world, &device).await?,
    };
    if let Some(name) = &step.remember {
        world.remember_actions(name, std::slice::from_ref(&id));
    }
    let action = if step.status == "pending" {
        let action = while_pending(step, world, &id, within).await?;
        return Ok(action["result"].to_string());
    } else {
        world.tenant().finished(&id, within).await?
    };
    if action["status"] != *step.status {
        bail!("{} ended with {}, not {}: {}", step.action, action["status"], step.status, action["error"]);
    }
    if let Some(code) = &step.code
        && action["error"]["code"] != **code
    {
        bail!("it failed with {}, not {code}", action["error"]);
    }
    if let Some(problem) = mismatch(&action["result"], &step.result) {
        bail!("the result's {problem}");
    }
    let what = if action["error"].is_object() { &action["error"]["detail"] } else { &action["result"] };
    Ok(what.as_str().map_or_else(|| what.to_string(), str::to_owned).chars().take(160).collect())
}

async fn order_one(step: &DeviceStep, tenant: &Tenant, device: &Value) -> Result<String> {
    tenant.order("exchange", &step.action, &target(device), &params(step)).await
}

fn target(device: &Value) -> Value {
    json!({ "key": device["id"], "device_id": device["device_id"], "mailbox": device["mailbox"] })
}

fn params(step: &DeviceStep) -> Value {
    if step.params.is_empty() { Value::Null } else { json!(step.params) }
}

/// Orders the same for every phone, and waits for nothing.
async fn order_for_all(step: &DeviceStep, world: &mut World) -> Result<String> {
    let devices = world.tenant().all("devices").await?;
    let targets: Vec<Value> = devices.iter().map(target).collect();
    let ids = world.tenant().order_many("exchange", &step.action, &targets, &params(step)).await?;
    if let Some(name) = &step.remember {
        world.remember_actions(name, &ids);
    }
    Ok(format!("{} ordered", ids.len()))
}

/// Waits until a pending action says what the step wants; at once when it wants nothing.
async fn while_pending(step: &DeviceStep, world: &World, id: &str, within: Duration) -> Result<Value> {
    let deadline = Instant::now() + within;
    loop {
        let action = world.tenant().action(id).await?;
        if action["status"] != "pending" {
            bail!("{} has ended with {}: {}", step.action, action["status"], action["error"]);
        }
        // What a pending action says last stands in its timeline.
        let said = |it: &&Value| it["event"] == "running";
        let last = action["timeline"].as_array().and_then(|it| it.iter().rfind(said));
        let last = last.cloned().unwrap_or_default();
        let said: Value =
            serde_json::from_str(last["detail"].as_str().unwrap_or_default()).unwrap_or_default();
        match mismatch(&said, &step.result) {
            None => return Ok(said),
            Some(problem) if Instant::now() >= deadline => bail!("while it is pending, {problem}: {last}"),
            Some(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Fills in the form on the phone's page, as a person does.
async fn through_portal(step: &DeviceStep, world: &World, device: &Value) -> Result<String> {
    let browser = world.browser().await?;
    let id = device["id"].as_str().context("the phone has no id")?;
    let mut fields = vec![("action", step.action.as_str())];
    for (name, value) in &step.params {
        let value = value.as_str().with_context(|| format!("the form's {name} is a text"))?;
        fields.push((name, value));
    }
    if step.action == "wipe_device" {
        fields.push(("typed", device["device_id"].as_str().unwrap_or_default()));
    }
    let path = format!("/t/{}/devices/{id}", world.tenant().id());
    let location = browser.submit(&path, &fields).await?;
    let action = location.rsplit('/').next().unwrap_or_default();
    Ok(action.to_owned())
}

/// The phone as the cloud knows it, once it does.
async fn known_device(world: &World, name: &str, within: Duration) -> Result<Value> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(device) = find(world, name).await? {
            return Ok(device);
        }
        if Instant::now() >= deadline {
            bail!("the cloud does not know {name} after {} s", within.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn find(world: &World, name: &str) -> Result<Option<Value>> {
    let device_id = world.mail()?.device_id(name).await?;
    let found = world.tenant().all(&format!("devices?q={device_id}")).await?;
    Ok(found.into_iter().find(|device| device["device_id"] == *device_id))
}

/// Checks what a step expects of phones in the cloud.
pub(super) async fn look(step: &ExpectStep, world: &World, seen: &mut Vec<String>) -> Result<()> {
    if let Some(wanted) = &step.device {
        seen.push(device(world, wanted).await?);
    }
    if let Some(name) = &step.no_device
        && let Some(device) = find(world, name).await?
    {
        bail!("the cloud still has {name}: it is {}", device["access_state"]);
    }
    for (state, wanted) in &step.devices {
        // Thousands of phones are not fetched again and again only to be counted.
        let got = match state.as_str() {
            "all" => world.tenant().get("").await?["counts"]["devices"].as_u64().unwrap_or(0),
            state => world.tenant().all(&format!("devices?state={state}")).await?.len() as u64,
        };
        if !wanted.fits(got) {
            bail!("{got} phones are {state}, not {wanted:?}");
        }
        seen.push(format!("{got} phones are {state}"));
    }
    if !step.organization.is_empty() {
        let found = world.tenant().all("mail-organizations").await?;
        let organization = found.first().context("the cloud has no mail organisation")?;
        if let Some(problem) = mismatch(organization, &step.organization) {
            bail!("of the mail organisation, {problem}");
        }
    }
    if let Some(wanted) = step.lockouts {
        let budgets = world.mail()?.mock().world().budgets();
        let lockouts: u32 = budgets.iter().map(|budget| budget.lockouts).sum();
        ensure!(
            lockouts == wanted,
            "accounts were locked out {lockouts} times, {wanted} expected: {budgets:?}"
        );
        seen.push(format!("{lockouts} lock-outs"));
    }
    if step.mail_in_step == Some(true) {
        seen.push(world.mail_in_step().await?);
    }
    Ok(())
}

async fn device(world: &World, wanted: &DeviceExpectation) -> Result<String> {
    let found = find(world, &wanted.phone).await?;
    let listed = found.with_context(|| format!("the cloud does not know {}", wanted.phone))?;
    let id = listed["id"].as_str().context("the phone has no id")?;
    let device = world.tenant().get(&format!("devices/{id}")).await?;
    match mismatch(&device, &wanted.fields) {
        Some(problem) => bail!("of {}, {problem}", wanted.phone),
        None => Ok(format!("{} is {}", wanted.phone, device["access_state"].as_str().unwrap_or_default())),
    }
}

/// Enrols a phone with what it is recognised by.
pub(super) async fn enrol(step: &EnrolStep, world: &World) -> Result<String> {
    let phone = world.mail()?.phone(&step.phone).await?;
    let enrolled =
        json!({ "user": phone["user"], "device_id": phone["device_id"], "compliant": step.compliant });
    world.tenant().post("enrolled-devices", &enrolled).await?;
    Ok(format!("{} is {}compliant", step.phone, if step.compliant { "" } else { "not " }))
}

/// Calls the mail system's admin API.
pub(super) async fn admin(step: &MailStep, world: &World) -> Result<String> {
    let mail = world.mail()?;
    let body: Value = serde_json::from_str(&expand(&step.body.to_string(), mail).await?)?;
    let answer = mail.call(&step.method, &expand(&step.path, mail).await?, &body).await?;
    Ok(answer.to_string().chars().take(120).collect())
}

/// Replaces `${key:NAME}` by the stable id of the partnership of a phone of the story.
async fn expand(text: &str, mail: &Mail) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${key:") {
        let (name, after) = after.split_once('}').context("${key: without its end")?;
        let key = mail.key(&mail.device_id(name).await?);
        out += before;
        out += &key.with_context(|| format!("the mail system does not know {name}"))?;
        rest = after;
    }
    Ok(out + rest)
}

/// Types a secret into an agent's configuration.
pub(super) async fn store_secret(step: &SecretStep, world: &mut World) -> Result<String> {
    let value = world.ldap.expand(&step.value)?;
    world.store_secret(&step.agent, &step.table, &value).await
}
