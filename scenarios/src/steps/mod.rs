//! What each verb of a scenario does. A step answers with one line for people, or the reason why it does not hold.

mod ca;
mod cloud;
mod expect;
mod ldap;
mod link;
mod mail;
mod years;

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::spec::Verb;
use crate::world::World;

/// The verb as it is spelt in the file.
pub(crate) fn name(verb: &Verb) -> &'static str {
    match verb {
        Verb::StartAgent(_) => "start_agent",
        Verb::KillAgent(_) => "kill_agent",
        Verb::StopAgent(_) => "stop_agent",
        Verb::CorruptState(_) => "corrupt_state",
        Verb::CutLink(_) => "cut_link",
        Verb::Middlebox(_) => "middlebox",
        Verb::Drain(_) => "drain",
        Verb::AgentSays(_) => "agent_says",
        Verb::RestartCloud(_) => "restart_cloud",
        Verb::ServerDown(_) => "server_down",
        Verb::ServerUp(_) => "server_up",
        Verb::Fault(_) => "fault",
        Verb::ClearFaults(_) => "clear_faults",
        Verb::AdvanceClock(_) => "advance_clock",
        Verb::Ldap(_) => "ldap",
        Verb::Configure(_) => "configure",
        Verb::Action(_) => "action",
        Verb::Authenticate(_) => "authenticate",
        Verb::Expect(_) => "expect",
        Verb::ExpectJournal(_) => "expect_journal",
        Verb::Phone(_) => "phone",
        Verb::Device(_) => "device",
        Verb::Enrol(_) => "enrol",
        Verb::Compliance(_) => "compliance",
        Verb::ConfirmCompliance(_) => "confirm_compliance",
        Verb::Mail(_) => "mail",
        Verb::MailPassword(_) => "mail_password",
        Verb::StoreSecret(_) => "store_secret",
        Verb::Identity(_) => "identity",
        Verb::Ca(_) => "ca",
        Verb::Years(_) => "years",
    }
}

/// A sentence for a step that has none of its own.
pub(crate) fn describe(verb: &Verb) -> String {
    match verb {
        Verb::StartAgent(step) => format!("Start {}", step.agent),
        Verb::KillAgent(step) => format!("Kill {} (SIGKILL)", step.agent),
        Verb::StopAgent(step) => format!("Stop {}", step.agent),
        Verb::CorruptState(step) => format!("Overwrite the state file of {}", step.agent),
        Verb::CutLink(step) => format!("Cut the link of {} for {} ms", step.agent, step.for_ms),
        Verb::Middlebox(step) => link::describe(step),
        Verb::Drain(_) => "Send all agents to another address".to_owned(),
        Verb::AgentSays(step) => format!("Ask {}; it says {:?}", step.agent, step.text),
        Verb::RestartCloud(step) => format!("Restart the cloud after {} ms", step.down_ms),
        Verb::ServerDown(step) => format!("Take {} off the network", step.server),
        Verb::ServerUp(step) => format!("Bring {} back", step.server),
        Verb::Fault(step) => format!("Make {} fail: {}", step.target, step.rule["fault"]),
        Verb::ClearFaults(step) => format!("Heal {}", step.target),
        Verb::AdvanceClock(step) => format!("Let {} s pass for {}", step.secs, step.target),
        Verb::Ldap(step) => format!("Change the directory ({} changes)", step.changes.len()),
        Verb::Configure(step) => format!("Configure {}", step.module),
        Verb::Action(step) if step.count > 1 => format!("Order {} x {}", step.count, step.action),
        Verb::Action(step) => format!("Order {}, expect {}", step.action, step.status),
        Verb::Authenticate(step) => format!("Check the password of {}: {}", step.user, step.outcome),
        Verb::Expect(_) => "Look at the cloud".to_owned(),
        Verb::ExpectJournal(step) => format!("Look at what {} received: {}", step.target, step.operation),
        Verb::Phone(step) => match &step.standing {
            Some(standing) => format!("The phone {:?} is {}", step.name, standing.replace('_', " ")),
            None => format!("Look at the phone {:?}", step.name),
        },
        Verb::Device(step) => format!("Order {} for the phone {:?}", step.action, step.phone),
        Verb::Enrol(step) => format!("Enrol the phone {:?}", step.phone),
        Verb::Compliance(_) => "Set the compliance rule".to_owned(),
        Verb::ConfirmCompliance(_) => "Let the held blocks through".to_owned(),
        Verb::Mail(step) => format!("Change the mail system: {} {}", step.method, step.path),
        Verb::MailPassword(step) => format!("Give {} another password", step.user),
        Verb::Identity(step) => format!("The device {:?}: {}", step.name, ca::words(&step.act)),
        Verb::Ca(step) => format!("Change the authority: {} {}", step.method, step.path),
        Verb::Years(step) => format!("{} devices live through {} days", step.devices, step.days),
        Verb::StoreSecret(step) => format!("Type a new password for {} into {}", step.table, step.agent),
    }
}

/// Does it.
///
/// # Errors
/// When what the step says does not hold.
pub(crate) async fn perform(verb: &Verb, world: &mut World) -> Result<String> {
    match verb {
        Verb::StartAgent(step) => world.start_agent(&step.agent).await,
        Verb::KillAgent(step) => world.kill_agent(&step.agent).await,
        Verb::StopAgent(step) => world.stop_agent(&step.agent).await,
        Verb::CorruptState(step) => world.corrupt_state(&step.agent).await,
        Verb::CutLink(step) => world.cut_link(&step.agent, Duration::from_millis(step.for_ms)).await,
        Verb::Middlebox(step) => world.set_middlebox(&step.agent, link::middlebox(step.kind)?).await,
        Verb::Drain(step) => link::drain(step, world).await,
        Verb::AgentSays(step) => link::agent_says(step, world).await,
        Verb::RestartCloud(step) => world.restart_cloud(Duration::from_millis(step.down_ms)).await,
        Verb::ServerDown(step) => world.set_server_down(&step.server, true),
        Verb::ServerUp(step) => world.set_server_down(&step.server, false),
        Verb::Fault(step) => world.add_fault(&step.target, &step.rule),
        Verb::ClearFaults(step) => world.clear_faults(&step.target),
        Verb::AdvanceClock(step) => world.advance_clock(&step.target, Duration::from_secs(step.secs)),
        Verb::Ldap(step) => ldap::change(step, world).await,
        Verb::Configure(step) => world.configure(&step.module, step.enabled, &step.settings).await,
        Verb::Action(step) => cloud::act(step, world).await,
        Verb::Authenticate(step) => cloud::authenticate(step, world).await,
        Verb::Expect(step) => expect::hold(step, world).await,
        Verb::ExpectJournal(step) => expect::journal(step, world).await,
        Verb::Phone(step) => mail::phone(step, world).await,
        Verb::Device(step) => mail::order(step, world).await,
        Verb::Enrol(step) => mail::enrol(step, world).await,
        Verb::Compliance(rule) => world.tenant().put("compliance", rule).await.map(|_| String::new()),
        Verb::ConfirmCompliance(_) => {
            let confirmed = world.tenant().post("compliance/confirm", &Value::Null).await?;
            Ok(format!("{} blocks", confirmed["blocks"]))
        }
        Verb::Mail(step) => mail::admin(step, world).await,
        Verb::MailPassword(step) => world.mail()?.set_password(&step.user, &step.password),
        Verb::StoreSecret(step) => mail::store_secret(step, world).await,
        Verb::Identity(step) => ca::identity(step, world).await,
        Verb::Ca(step) => ca::admin(step, world).await,
        Verb::Years(step) => years::live(step, world).await,
    }
}

/// The first of the JSON pointers whose value is not as wanted, in words.
fn mismatch<'a>(object: &Value, wanted: impl IntoIterator<Item = (&'a String, &'a Value)>) -> Option<String> {
    wanted.into_iter().find_map(|(pointer, wanted)| {
        let got = object.pointer(pointer).unwrap_or(&Value::Null);
        (got != wanted).then(|| format!("{pointer} is {got}, not {wanted}"))
    })
}
