//! Switching the organisation to quarantine without stopping anybody: every phone there is is allowed in its own
//! mailbox first, then newcomers since are looked for, and only when there are none is the default switched. After the
//! switch one more look finds whoever came in the moment between.
//!
//! The job is on disk after every few mailboxes. Whatever dies when, the worst that is left is phones allowed by name
//! that were allowed by default before.

use std::time::Duration;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::mobile::access;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::actions::{Access, InMailbox, Progress, Step, add, mailbox_named, not_yet_visible, write};
use super::error::{Class, MailError, is_missing_parameter};
use super::limits;
use super::listing::{note_incomplete, with_phones};
use super::mapping::{self, Lists, Mailbox, Phone};
use super::run::Runner;
use super::sessions::Lent;
use super::state::{
    Store, clear_mailbox_lists, clear_to_allow, delete_work, put_document, put_mailbox_lists, put_to_allow,
};
use crate::directory::Net;
use crate::modules::ModuleContext;
use crate::storage::Batch;

const DOCUMENT: &[u8] = b"job";

/// How far the job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// Finds phones that are not allowed by name.
    #[default]
    List,
    /// Allows them.
    Allow,
    /// Every phone is allowed; switches the default.
    Switch,
    /// Finds phones that came in the moment between.
    Verify,
}

/// The job on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Job {
    phase: Phase,
    started_ms: i64,
    /// When the phones that are being allowed were found.
    allowing_since_ms: i64,
    /// Of those: how many there were, and how many are done.
    found: u64,
    done: u64,
    /// Of those: how many were not allowed yet where we write.
    written: u64,
    /// Phones allowed by all rounds.
    allowed: u64,
    /// Listings so far.
    rounds: u32,
    /// How long the last listing took.
    listing_ms: u64,
    /// When the default was switched; 0: not yet.
    switched_ms: i64,
    /// Mailboxes of this round that could not be written, and why.
    failed: u64,
    error: String,
}

/// A mailbox with its lists, as the job remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) guid: String,
    pub(super) allowed: Vec<String>,
    pub(super) blocked: Vec<String>,
}

/// Goes on with the job for about `budget`.
pub(super) async fn advance(
    runner: &Runner,
    cx: &ModuleContext,
    budget: Duration,
) -> Result<Step, MailError> {
    let Ok(mut place) = runner.job.try_lock() else {
        return Ok(Step::Wait {
            result: json!({ "waits_for": "another order of the same kind" }),
            next_check: budget,
        });
    };
    let store = Store::new(cx.storage.clone());
    let net = Net::from(cx);
    let until = Instant::now() + budget;
    let mut job: Job = match store.document(DOCUMENT).await? {
        Some(job) => job,
        None => {
            if let Some(done) = already(runner, &net).await? {
                return Ok(done);
            }
            Job { started_ms: cx.clock.now_ms(), ..Job::default() }
        }
    };
    if place.choose(runner, &net).await? && job.phase == Phase::Switch {
        // That everybody is allowed was seen at another domain controller, perhaps.
        job.phase = if job.switched_ms == 0 { Phase::List } else { Phase::Verify };
    }
    let work = Work { runner, cx, net, store, host: place.host.clone() };
    let gone_on = work.go_on(&mut job, until).await;
    if !matches!(gone_on, Ok(Step::Wait { .. })) {
        // The job is over, or the domain controller may be what is in trouble.
        *place = Place::default();
    }
    gone_on
}

/// The domain controller a job writes to and reads back from, lest it take for missing what has not arrived elsewhere.
/// Listings are not bound to it: it may know only the phones of its own domain. Not kept on disk: after a restart another
/// one may be nearer.
#[derive(Debug, Default)]
pub(super) struct Place {
    is_chosen: bool,
    host: Option<String>,
}

impl Place {
    /// The one that the settings name; otherwise the one the servers answer from at this moment, if the account may name
    /// it. Says whether it chose.
    async fn choose(&mut self, runner: &Runner, net: &Net) -> Result<bool, MailError> {
        if self.is_chosen {
            return Ok(false);
        }
        self.host = match runner.sessions.domain_controller() {
            Some(host) => Some(host.to_owned()),
            None => answering(runner, net).await?,
        };
        self.is_chosen = true;
        tracing::info!(domain_controller = self.host, "The switch to quarantine goes on");
        Ok(true)
    }
}

/// What an answer says it was read from, if that can be asked by name.
async fn answering(runner: &Runner, net: &Net) -> Result<Option<String>, MailError> {
    let mut lent = runner.sessions.urgent(net).await?;
    let Some(cmdlet) = lent.recipe.organization.as_deref().filter(|_| !lent.server().online) else {
        return Ok(None);
    };
    let objects = lent.ask(&Cmdlet::new(cmdlet)).await?;
    drop(lent);
    let Some(host) = objects.first().and_then(|object| mapping::text(object, "OriginatingServer")) else {
        return Ok(None);
    };
    let mut lent = runner.sessions.urgent_at(net, Some(&host)).await?;
    match lent.ask(&Cmdlet::new(cmdlet)).await {
        Ok(_) => Ok(Some(host)),
        Err(MailError::Cmdlet { record, .. }) => {
            tracing::info!(host, error = record.message, "Domain controllers cannot be named");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Between two slices of the job.
const NEXT_SLICE: Duration = Duration::from_millis(200);

/// Whether there is nothing to do, or nothing that this version can do.
async fn already(runner: &Runner, net: &Net) -> Result<Option<Step>, MailError> {
    let mut lent = runner.sessions.urgent(net).await?;
    supported(&lent)?;
    Ok(match default_access(&mut lent).await? {
        Some(level) if level == access::QUARANTINED => {
            Some(Step::Done(json!({ "default_access": level, "already": true })))
        }
        _ => None,
    })
}

/// Lets phones in by default again, and forgets the job.
pub(super) async fn off(
    runner: &Runner,
    cx: &ModuleContext,
    progress: &mut Progress,
) -> Result<Step, MailError> {
    let store = Store::new(cx.storage.clone());
    let mut batch = Batch::new();
    clear_to_allow(&mut batch);
    clear_mailbox_lists(&mut batch);
    batch.delete(crate::storage::Table::Cursors, DOCUMENT);
    store.commit(batch).await?;
    let net = Net::from(cx);
    let mut lent = runner.sessions.urgent(&net).await?;
    supported(&lent)?;
    let done = || Step::Done(json!({ "default_access": access::ALLOWED }));
    if default_access(&mut lent).await?.as_deref() == Some(access::ALLOWED) {
        return Ok(done());
    }
    set_default(&mut lent, "Allow").await?;
    match default_access(&mut lent).await?.as_deref() {
        Some(access::ALLOWED) => Ok(done()),
        _ => not_yet_visible("the organisation's default", progress),
    }
}

fn supported(lent: &Lent<'_>) -> Result<(), MailError> {
    if lent.recipe.quarantine {
        return Ok(());
    }
    Err(MailError::NotSupported { title: lent.recipe.title.clone(), what: "hold phones in quarantine" })
}

async fn default_access(lent: &mut Lent<'_>) -> Result<Option<String>, MailError> {
    let Some(cmdlet) = &lent.recipe.organization else { return Ok(None) };
    let objects = lent.ask(&Cmdlet::new(cmdlet)).await?;
    Ok(objects.first().and_then(mapping::default_access))
}

async fn set_default(lent: &mut Lent<'_>, level: &str) -> Result<(), MailError> {
    let Some(cmdlet) = &lent.recipe.set_organization else { return supported(lent) };
    lent.ask(&Cmdlet::new(cmdlet).with("DefaultAccessLevel", level)).await.map(|_| ())
}

struct Work<'a> {
    runner: &'a Runner,
    cx: &'a ModuleContext,
    net: Net,
    store: Store,
    /// Where is written and read back.
    host: Option<String>,
}

impl Work<'_> {
    /// Phase by phase until the time is up.
    async fn go_on(&self, job: &mut Job, until: Instant) -> Result<Step, MailError> {
        loop {
            match job.phase {
                Phase::List => self.list(job).await?,
                Phase::Allow => self.allow(job, until).await?,
                Phase::Switch if job.switched_ms != 0 => return self.finish(job).await,
                Phase::Switch => {
                    if let Some(wait) = self.switch(job).await? {
                        return Ok(wait);
                    }
                }
                Phase::Verify => {
                    self.list(job).await?;
                    if job.phase == Phase::Switch {
                        return self.finish(job).await;
                    }
                }
            }
            if Instant::now() >= until {
                let result = self.report(job).await?;
                return Ok(Step::Wait { result, next_check: NEXT_SLICE });
            }
        }
    }

    /// Finds phones to be allowed. With none the next phase is [`Phase::Switch`].
    async fn list(&self, job: &mut Job) -> Result<(), MailError> {
        let started = Instant::now();
        let mut batch = Batch::new();
        clear_to_allow(&mut batch);
        clear_mailbox_lists(&mut batch);
        self.store.commit(batch).await?;
        let mut incomplete = None;
        // After the switch a handful of phones is looked for; their mailboxes are asked one by one.
        if job.switched_ms == 0 {
            self.mailboxes(&mut incomplete).await?;
        }
        let found = self.phones(job, &mut incomplete).await?;
        if let Some(why) = incomplete {
            return Err(MailError::Incomplete { why });
        }
        if found > 0 && found <= job.failed {
            let what = format!("the permission of {found} phones ({})", job.error);
            (job.failed, job.error) = (0, String::new());
            self.store.put_document(DOCUMENT, job).await?;
            return Err(MailError::NotKept { what });
        }
        job.rounds += 1;
        if found > 0 && job.rounds > limits::JOB_ROUNDS {
            return Err(MailError::TooFast { left: found, rounds: job.rounds });
        }
        job.listing_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        job.allowing_since_ms = self.cx.clock.now_ms();
        (job.found, job.done, job.written, job.failed) = (found, 0, 0, 0);
        job.phase = if found > 0 { Phase::Allow } else { Phase::Switch };
        // After the last look there is no further phase to remember; a crash looks again.
        if job.phase == Phase::Switch && job.switched_ms != 0 {
            return Ok(());
        }
        self.store.put_document(DOCUMENT, job).await
    }

    /// Remembers the lists of every mailbox with phones, on disk.
    async fn mailboxes(&self, incomplete: &mut Option<String>) -> Result<(), MailError> {
        let mut lent = self.runner.sessions.background(&self.net).await?;
        let cmdlet = with_phones(lent.recipe);
        let mut listing = lent.list(cmdlet)?;
        while let Some(page) = listing.next_page(limits::STALLED_AFTER).await? {
            let mut batch = Batch::new();
            for object in &page {
                remember(&mut batch, object);
            }
            self.store.commit(batch).await?;
        }
        note_incomplete(incomplete, &listing.finish().await?);
        Ok(())
    }

    /// Queues the phones that must be allowed; says how many.
    async fn phones(&self, job: &Job, incomplete: &mut Option<String>) -> Result<u64, MailError> {
        if job.switched_ms != 0 {
            // Whoever came in the moment between waits no longer than that takes, however many phones there are.
            match self.queue_from(job, Some(HELD), incomplete).await {
                Err(error @ MailError::Cmdlet { .. })
                    if matches!(error.class(), Class::Other | Class::Permanent) =>
                {
                    tracing::info!(error = %error, "Held phones cannot be asked for alone");
                }
                done => return done,
            }
        }
        self.queue_from(job, None, incomplete).await
    }

    async fn queue_from(
        &self,
        job: &Job,
        filter: Option<&str>,
        incomplete: &mut Option<String>,
    ) -> Result<u64, MailError> {
        let mut found = 0;
        let mut strangers = Vec::new();
        let mut lent = self.runner.sessions.background(&self.net).await?;
        let cmdlet = Cmdlet::new(&lent.recipe.devices).with("ResultSize", "Unlimited");
        let cmdlet = filter.into_iter().fold(cmdlet, |cmdlet, filter| cmdlet.with("Filter", filter));
        let mut listing = lent.list(cmdlet)?;
        while let Some(page) = listing.next_page(limits::STALLED_AFTER).await? {
            let phones: Vec<Phone> =
                page.iter().filter_map(Phone::read).filter(|phone| self.is_concerned(job, phone)).collect();
            let mut batch = Batch::new();
            for (phone, listed) in self.with_lists(phones).await? {
                match listed {
                    Some(listed) => found += u64::from(queue(&mut batch, &listed, &phone)),
                    None => strangers.push(phone),
                }
            }
            self.store.commit(batch).await?;
        }
        note_incomplete(incomplete, &listing.finish().await?);
        drop(lent);
        for phone in strangers {
            let mut batch = Batch::new();
            if let Some(listed) = self.lists_of(&phone).await? {
                found += u64::from(queue(&mut batch, &listed, &phone));
            }
            self.store.commit(batch).await?;
        }
        Ok(found)
    }

    /// Whether a phone must be allowed by name. Before the switch: whoever gets mail, or is not yet judged. After it:
    /// whoever waits only because of the new default, and was there before.
    fn is_concerned(&self, job: &Job, phone: &Phone) -> bool {
        let state = phone.record.access_state.as_str();
        if job.switched_ms == 0 {
            return state != access::BLOCKED && state != access::QUARANTINED;
        }
        let first_ms = phone.record.first_sync.as_deref().and_then(mapping::unix_ms);
        let by_default = phone.record.access_reason.as_deref().is_none_or(|reason| reason == "global");
        state == access::QUARANTINED
            && by_default
            && first_ms.is_some_and(|first_ms| first_ms < job.switched_ms)
    }

    async fn with_lists(&self, phones: Vec<Phone>) -> Result<Vec<(Phone, Option<Listed>)>, MailError> {
        let names: Vec<&str> =
            phones.iter().flat_map(|phone| phone.owner.iter().map(String::as_str)).collect();
        let mut found = self.store.mailbox_lists(&names).await?.into_iter();
        Ok(phones
            .into_iter()
            .map(|phone| {
                let mine: Vec<_> = found.by_ref().take(phone.owner.len()).collect();
                (phone, mine.into_iter().flatten().next())
            })
            .collect())
    }

    /// The lists of a mailbox that the servers did not name among those with phones; none when there is no such mailbox
    /// any more, so that nobody can synchronise with it.
    async fn lists_of(&self, phone: &Phone) -> Result<Option<Listed>, MailError> {
        let Some(owner) = phone.owner.first() else {
            return Err(MailError::Incomplete {
                why: format!("the mailbox of {} is not known", phone.record.identity),
            });
        };
        let mut lent = self.runner.sessions.background(&self.net).await?;
        match mailbox_named(&mut lent, owner).await {
            Ok(InMailbox { mailbox, lists: Lists { allowed, blocked }, .. }) => {
                Ok(Some(Listed { guid: mailbox.guid, allowed, blocked }))
            }
            Err(error) if error.class() == Class::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Allows phones, mailbox by mailbox.
    async fn allow(&self, job: &mut Job, until: Instant) -> Result<(), MailError> {
        loop {
            let waiting = self.store.to_allow(limits::IDS_PER_CALL).await?;
            if waiting.is_empty() {
                job.phase = match job.switched_ms {
                    // All of them were allowed; only the listing did not know it yet.
                    _ if job.written == 0 && job.failed == 0 => Phase::Switch,
                    0 => Phase::List,
                    _ => Phase::Verify,
                };
                return self.store.put_document(DOCUMENT, job).await;
            }
            let mut groups: Vec<(String, Vec<String>, Vec<Vec<u8>>)> = Vec::new();
            for (place, mailbox, id) in waiting {
                match groups.last_mut() {
                    Some((last, ids, places)) if *last == mailbox => {
                        ids.push(id);
                        places.push(place);
                    }
                    _ => groups.push((mailbox, vec![id], vec![place])),
                }
            }
            let mut batch = Batch::new();
            let mut trouble = None;
            for (mailbox, ids, places) in groups {
                match self.allow_in(&mailbox, &ids, job.rounds > 1).await {
                    Ok(written) => {
                        job.written += written;
                        job.allowed += written;
                    }
                    Err(error)
                        if matches!(error.class(), Class::Other | Class::Permanent | Class::NotFound) =>
                    {
                        tracing::warn!(mailbox, error = %crate::chain::Chain(&error), "Phones could not be allowed");
                        job.failed += ids.len() as u64;
                        job.error = error.to_string();
                    }
                    Err(error) => {
                        trouble = Some(error);
                        break;
                    }
                }
                job.done += ids.len() as u64;
                places.into_iter().for_each(|place| delete_work(&mut batch, place));
                if Instant::now() >= until || batch.len() >= PHONES_PER_COMMIT {
                    break;
                }
            }
            put_document(&mut batch, DOCUMENT, job);
            self.store.commit(batch).await?;
            match trouble {
                Some(error) => return Err(error),
                None if Instant::now() >= until => return Ok(()),
                None => {}
            }
        }
    }

    /// Allows phones of a mailbox that are not allowed yet; says how many.
    async fn allow_in(&self, mailbox: &str, ids: &[String], looks: bool) -> Result<u64, MailError> {
        match self.allow_at(self.host.as_deref(), mailbox, ids, looks).await {
            // It is of another domain, perhaps, which that domain controller does not hold.
            Err(MailError::Cmdlet { .. }) if self.host.is_some() => {
                self.allow_at(None, mailbox, ids, looks).await
            }
            done => done,
        }
    }

    /// Adds to the list of allowed ones and touches nothing else: whoever is blocked stays blocked. Looks first, if what a
    /// round before has written may not have reached the listing.
    async fn allow_at(
        &self,
        host: Option<&str>,
        mailbox: &str,
        ids: &[String],
        looks: bool,
    ) -> Result<u64, MailError> {
        let mut lent = self.runner.sessions.background_at(&self.net, host).await?;
        let mut ids = ids.to_vec();
        if looks {
            let current = mailbox_named(&mut lent, mailbox).await?;
            ids.retain(|id| !current.lists.names(id));
        }
        if ids.is_empty() {
            return Ok(0);
        }
        match add(&mut lent, mailbox, &ids).await {
            Err(MailError::Cmdlet { record, .. }) if is_missing_parameter(&record) => {
                // Whole lists then, read just before.
                let current = mailbox_named(&mut lent, mailbox).await?;
                ids.retain(|id| !current.lists.names(id));
                if !ids.is_empty() {
                    write(&mut lent, &current, &ids, Access::Allowed).await?;
                }
            }
            done => done?,
        }
        Ok(ids.len() as u64)
    }

    /// Switches the default and looks whether it stands.
    async fn switch(&self, job: &mut Job) -> Result<Option<Step>, MailError> {
        let mut lent = self.runner.sessions.urgent_at(&self.net, self.host.as_deref()).await?;
        if default_access(&mut lent).await?.as_deref() != Some(access::QUARANTINED) {
            set_default(&mut lent, "Quarantine").await?;
            let after = default_access(&mut lent).await?;
            if after.as_deref() != Some(access::QUARANTINED) {
                let mut progress = Progress::default();
                return not_yet_visible("the organisation's default", &mut progress).map(Some);
            }
        }
        drop(lent);
        job.phase = Phase::Verify;
        job.switched_ms = self.cx.clock.now_ms();
        self.store.put_document(DOCUMENT, job).await?;
        Ok(None)
    }

    async fn finish(&self, job: &Job) -> Result<Step, MailError> {
        let mut batch = Batch::new();
        clear_to_allow(&mut batch);
        clear_mailbox_lists(&mut batch);
        batch.delete(crate::storage::Table::Cursors, DOCUMENT);
        self.store.commit(batch).await?;
        let result = json!({
            "default_access": access::QUARANTINED,
            "allowed": job.allowed,
            "rounds": job.rounds,
            "elapsed_ms": self.cx.clock.now_ms() - job.started_ms,
        });
        Ok(Step::Done(result))
    }

    async fn report(&self, job: &Job) -> Result<Value, MailError> {
        let spent_ms = self.cx.clock.now_ms().saturating_sub(job.allowing_since_ms).max(0) as u64;
        let left = job.found.saturating_sub(job.done);
        let allowing_ms = (spent_ms * left).checked_div(job.done);
        // One listing after this round, and one after the switch.
        let eta_secs = match job.phase {
            Phase::Allow => allowing_ms.map(|allowing_ms| (allowing_ms + 2 * job.listing_ms) / 1_000),
            Phase::List | Phase::Switch if job.rounds > 0 => Some(2 * job.listing_ms / 1_000),
            Phase::Verify => Some(job.listing_ms / 1_000),
            _ => None,
        };
        let mut result = json!({
            "phase": job.phase,
            "done": job.done,
            "total": job.found,
            "allowed": job.allowed,
            "round": job.rounds,
            "eta_secs": eta_secs,
        });
        if job.failed > 0 {
            result["failed"] = json!(job.failed);
        }
        Ok(result)
    }
}

/// Chooses phones that wait for a person's decision.
const HELD: &str = "DeviceAccessState -eq 'Quarantined'";

/// Phones whose permission may have to be written again after a crash.
const PHONES_PER_COMMIT: usize = 25;

fn remember(batch: &mut Batch, object: &Object) {
    if let Some(mailbox) = Mailbox::read(object) {
        let Lists { allowed, blocked } = Lists::read(object);
        put_mailbox_lists(batch, &mailbox.names, &Listed { guid: mailbox.guid, allowed, blocked });
    }
}

/// Notes a phone that is on neither list; says whether it did.
fn queue(batch: &mut Batch, listed: &Listed, phone: &Phone) -> bool {
    let id = &phone.record.device_id;
    if listed.allowed.contains(id) || listed.blocked.contains(id) {
        return false;
    }
    put_to_allow(batch, &listed.guid, id);
    true
}
