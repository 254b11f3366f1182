//! What is done without an order after a whole listing: approving phones the cloud knows, allowing phones before their
//! first contact, removing partnerships nobody uses. Each only what the settings allow, and never more than a few.

use std::time::Duration;

use causeway_protocol::channel::payload::Notice;
use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::health::Severity;
use causeway_protocol::mobile::DeviceRecord;
use serde_json::{Value, json};
use uuid::Uuid;

use super::actions::{Access, Progress, Step, mailbox_named, set_access};
use super::error::{Class, MailError};
use super::guard::{Admission, Guard};
use super::listing::Found;
use super::mapping::{self, Statistics};
use super::run::Runner;
use super::state::{Hash, Store, digest};
use crate::directory::Net;
use crate::modules::ModuleContext;
use crate::modules::output::SAMPLES;

const PREAUTHORISED: &[u8] = b"preauthorised";
const PREAUTHORISE_FAILED: &[u8] = b"preauthorise_failed";

/// How a phone was allowed.
enum Allowed {
    Yes,
    /// Somebody has blocked it, or it is not visible yet.
    No,
    /// It cannot be, and why.
    Never(String),
}

/// Follows the rules; gives what was done, and the phones to read again.
pub(super) async fn follow(
    runner: &Runner,
    guard: &Guard,
    cx: &ModuleContext,
    found: &Found,
) -> Result<(Value, Vec<Uuid>), MailError> {
    let rules = Rules { runner, guard, cx, net: Net::from(cx) };
    let approved = rules.approve(&found.to_approve).await?;
    let preauthorised = rules.preauthorise().await?;
    let (removed, touched) = rules.remove_idle(&found.idle).await?;
    let mut done = json!({});
    for (name, count) in [("approved", approved), ("preauthorised", preauthorised), ("removed_idle", removed)]
    {
        if count > 0 {
            done[name] = json!(count);
        }
    }
    Ok((done, touched))
}

struct Rules<'a> {
    runner: &'a Runner,
    guard: &'a Guard,
    cx: &'a ModuleContext,
    net: Net,
}

impl Rules<'_> {
    async fn allow(&self, mailbox: &str, device_id: &str) -> Result<Allowed, MailError> {
        let mut lent = self.runner.sessions.background(&self.net).await?;
        let done = async {
            let mailbox = mailbox_named(&mut lent, mailbox).await?;
            // Whoever was blocked by a person stays blocked.
            if mailbox.lists.blocked.iter().any(|id| id == device_id) {
                return Ok::<_, MailError>(Allowed::No);
            }
            let step =
                set_access(&mut lent, &mailbox, device_id, Access::Allowed, &mut Progress::default()).await?;
            Ok(if matches!(step, Step::Done(_)) { Allowed::Yes } else { Allowed::No })
        };
        match done.await {
            Err(error) if matches!(error.class(), Class::NotFound | Class::Other | Class::Permanent) => {
                let why = crate::chain::Chain(&error).to_string();
                tracing::warn!(mailbox, device_id, error = why, "A phone could not be allowed");
                Ok(Allowed::Never(why))
            }
            done => done,
        }
    }

    async fn approve(&self, waiting: &[(String, DeviceRecord)]) -> Result<u64, MailError> {
        let mut count = 0;
        for (mailbox, record) in waiting {
            if let Allowed::Yes = self.allow(mailbox, &record.device_id).await? {
                tracing::info!(mailbox, device_id = record.device_id, "A phone the cloud knows is approved");
                count += 1;
            }
        }
        Ok(count)
    }

    /// Once for each phone: what a person decides later stands.
    async fn preauthorise(&self) -> Result<u64, MailError> {
        let wanted = &self.runner.settings.preauthorise;
        if wanted.is_empty() {
            return Ok(0);
        }
        let store = Store::new(self.cx.storage.clone());
        let known: Vec<Hash> = store.document(PREAUTHORISED).await?.unwrap_or_default();
        let mut now = Vec::with_capacity(wanted.len());
        let (mut count, mut failed) = (0, Vec::new());
        for phone in wanted {
            let hash = digest(format!("{}\0{}", phone.mailbox.to_lowercase(), phone.device_id).as_bytes());
            if known.contains(&hash) {
                now.push(hash);
                continue;
            }
            match self.allow(&phone.mailbox, &phone.device_id).await? {
                Allowed::Yes => {
                    now.push(hash);
                    count += 1;
                }
                Allowed::No => {}
                Allowed::Never(why) => {
                    failed.push(format!("{} in {}: {why}", phone.device_id, phone.mailbox))
                }
            }
        }
        if now != known {
            store.put_document(PREAUTHORISED, &now).await?;
        }
        let told: u64 = store.document(PREAUTHORISE_FAILED).await?.unwrap_or_default();
        if told != failed.len() as u64 {
            self.tell_failed(&failed);
            store.put_document(PREAUTHORISE_FAILED, &(failed.len() as u64)).await?;
        }
        Ok(count)
    }

    fn tell_failed(&self, failed: &[String]) {
        let shown = failed.iter().take(SAMPLES).cloned().collect::<Vec<_>>().join("; ");
        self.cx.cloud.notice(Notice {
            code: "preauthorise_failed".to_owned(),
            severity: Severity::Warning,
            subject: self.runner.settings.resource(),
            detail: match failed.len() {
                0 => "every phone of preauthorise is allowed".to_owned(),
                count => format!("{count} phones of preauthorise cannot be allowed: {shown}"),
            },
            remedy: "write each mailbox as Exchange knows it: its e-mail address or its Guid".to_owned(),
            resolved: failed.is_empty(),
        });
    }

    async fn remove_idle(&self, keys: &[Uuid]) -> Result<(u64, Vec<Uuid>), MailError> {
        let (mut count, mut touched, mut names) = (0, Vec::new(), Vec::new());
        for key in keys {
            let Some(name) = self.still_idle(*key).await? else { continue };
            names.push(name);
            if self.runner.settings.idle_removal.dry_run {
                continue;
            }
            let resource = self.runner.settings.resource();
            let (name, settings) = (key.to_string(), self.runner.settings.mass_actions);
            let passes = self.guard.admit(self.cx, settings, (&name, None), &resource).await?;
            if passes != Admission::Passed {
                break;
            }
            let mut lent = self.runner.sessions.background(&self.net).await?;
            let cmdlet =
                Cmdlet::new(&lent.recipe.remove).with("Identity", key.to_string()).with("Confirm", false);
            lent.ask(&cmdlet).await?;
            count += 1;
            touched.push(*key);
        }
        if !names.is_empty() {
            self.tell(&names);
        }
        Ok((count, touched))
    }

    /// Reads the phone and its statistics again: what was true at the last reading may not be now.
    async fn still_idle(&self, key: Uuid) -> Result<Option<String>, MailError> {
        let mut lent = self.runner.sessions.background(&self.net).await?;
        if lent.recipe.per_mailbox {
            return Ok(None);
        }
        let Some(phone) = self.runner.find(&mut lent, key).await? else { return Ok(None) };
        let cmdlet = Cmdlet::new(&lent.recipe.statistics).with("Identity", key.to_string());
        let objects = match lent.ask(&cmdlet).await {
            Ok(objects) => objects,
            Err(error) if error.class() == Class::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_it = |id: Option<String>| id.is_some_and(|id| id == phone.record.device_id);
        let statistics =
            objects.iter().find(|object| is_it(mapping::text(object, "DeviceId"))).map(Statistics::read);
        let after = Duration::from_secs(u64::from(self.runner.settings.idle_removal.after_days) * 86_400);
        let before_ms = self.cx.clock.now_ms() - i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let seen_ms = statistics.as_ref().and_then(Statistics::last_seen).and_then(mapping::unix_ms);
        // A phone that shall be wiped is waited for, however long.
        let wiping = statistics
            .as_ref()
            .and_then(|it| it.wipe_status.as_deref())
            .is_some_and(|it| it.contains("pending"));
        let idle = seen_ms.is_some_and(|seen_ms| seen_ms < before_ms) && !wiping;
        Ok(idle.then_some(phone.record.identity))
    }

    fn tell(&self, names: &[String]) {
        let dry = self.runner.settings.idle_removal.dry_run;
        let what = if dry { "would be removed" } else { "removed" };
        let shown = names.iter().take(SAMPLES).cloned().collect::<Vec<_>>().join(", ");
        tracing::info!(count = names.len(), dry, "Partnerships nobody uses");
        self.cx.cloud.notice(Notice {
            code: "idle_devices".to_owned(),
            severity: Severity::Info,
            subject: self.runner.settings.resource(),
            detail: format!("{} partnerships nobody uses {what}: {shown}", names.len()),
            remedy: if dry { "set idle_removal.dry_run to false to remove them" } else { "" }.to_owned(),
            resolved: false,
        });
    }
}
