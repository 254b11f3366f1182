//! Statistics: one cmdlet a phone (or one a mailbox, where several of its phones wait), the most urgent first. They are
//! read between the listings, in slices that each end with what was read being sent and remembered.

use std::time::Duration;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::Cmdlet;
use causeway_protocol::record::Kind;
use causeway_protocol::upload::Mode;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::error::{Class, MailError, is_missing_cmdlet};
use super::limits;
use super::listing::hash_of;
use super::mapping::{self, Phone, Statistics};
use super::output::{delete, upsert};
use super::run::Runner;
use super::sessions::Lent;
use super::state::{
    Need, Queued, Row, STATE, State, Store, Work, delete_row, delete_work, put_document, put_row, put_work,
};
use crate::directory::Net;
use crate::link::LeaseGuard;
use crate::modules::ModuleContext;
use crate::modules::output::Output;
use crate::storage::Batch;

/// What a slice did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slice {
    /// Phones whose statistics were read.
    pub(super) read: u64,
    /// Whether nothing is left.
    pub(super) is_done: bool,
}

/// How fast statistics are read lately, to say when they will be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    since: Option<Instant>,
    read: u64,
    /// Where the last third or more of the way began, and where the next such stretch will.
    marks: [Mark; 2],
}

/// A mark is made when so many times the time until the one before has passed: the pace is always that of the last third
/// of the way at least.
const MARK_GROWTH: f64 = 1.5;

/// How far it was, and when.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    after: Duration,
    read: u64,
}

impl Pace {
    /// Counts from now.
    pub(super) fn start(&mut self) {
        *self = Self { since: Some(Instant::now()), ..Self::default() };
    }

    fn add(&mut self, read: u64) {
        let after = self.since.get_or_insert_with(Instant::now).elapsed();
        self.read += read;
        let newest = self.marks[1].after;
        if after > newest.mul_f64(MARK_GROWTH).max(newest + limits::PACE_WINDOW_MIN) {
            self.marks = [self.marks[1], Mark { after, read: self.read }];
        }
    }

    /// How long the rest takes at the pace of late: a server is generous at first and strict later. Nothing before there is
    /// a pace.
    pub(super) fn eta(&self, left: u64) -> Option<Duration> {
        let elapsed = self.since?.elapsed();
        let from = self.marks[0];
        let read = self.read - from.read;
        (read > 0).then(|| (elapsed - from.after).mul_f64(left as f64 / read as f64))
    }
}

impl Runner {
    /// Reads statistics until `until`, or until somebody wants something else.
    pub(super) async fn read_slice(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        until: Instant,
        interrupted: impl Fn() -> bool,
    ) -> Result<Slice, MailError> {
        let store = Store::new(cx.storage.clone());
        let Some(state) = store.state().await? else { return Ok(Slice { read: 0, is_done: true }) };
        let net = Net::from(cx);
        let mut output = Output::upload(cx.cloud.clone(), lease, Mode::Delta, Some(state.epoch), false);
        output.open().await?;
        let mut next = state.clone();
        let mut batch = Batch::new();
        let mut slice = Slice::default();
        let mut trouble = None;
        let mut after = None;
        let reading = Reading { net: &net, store: &store };
        let mut answered: Option<Answered> = None;
        'slice: loop {
            let queued = store.work(after.take(), limits::WORK_PER_READ).await?;
            let Some(last) = queued.last() else {
                slice.is_done = true;
                break;
            };
            after = Some(last.place.clone());
            for group in by_mailbox(queued) {
                let count = group.len() as u64;
                // While the servers work on one answer, the one before is compared and written down.
                let noted = self.note(reading, answered.take(), &mut output, &mut batch);
                let (asked, noted) = tokio::join!(self.answer_about(reading, &group), noted);
                match noted.and(asked) {
                    Ok(found) => answered = Some(Answered { group, found, at_ms: cx.clock.now_ms() }),
                    Err(error) => {
                        trouble = Some(error);
                        break 'slice;
                    }
                }
                slice.read += count;
                let left = self.work_done(count);
                self.say_progress(&mut output, count, left);
                if Instant::now() >= until || batch.len() >= limits::OPS_PER_SLICE || interrupted() {
                    break 'slice;
                }
            }
        }
        // What was read before the trouble counts all the same.
        if let Err(error) = self.note(reading, answered.take(), &mut output, &mut batch).await {
            trouble.get_or_insert(error);
        }
        if let Some(committed) = output.commit().await? {
            next.epoch = committed.epoch;
        }
        if next != state {
            put_document(&mut batch, STATE, &next);
        }
        store.commit(batch).await?;
        // A slice may end with the last phone of all, and no further one begins then.
        slice.is_done |= self.work_left() == 0;
        if slice.is_done && trouble.is_none() {
            output.finished("done");
        }
        match trouble {
            Some(error) => Err(error),
            None => Ok(slice),
        }
    }

    fn say_progress(&self, output: &mut Output<'_>, read: u64, left: u64) {
        let pace = {
            let mut pace = self.pace();
            pace.add(read);
            *pace
        };
        if let Some(eta) = pace.eta(left) {
            output.set_count("eta_secs", eta.as_secs());
        }
        output.set_progress("reading statistics", pace.read, pace.read + left);
    }

    /// Asks the server about phones of one mailbox, unless it has said that it does not tell.
    async fn ask_about(&self, reading: Reading<'_>, group: &[Queued]) -> Result<Vec<Read>, MailError> {
        if !self.reads_statistics() {
            return Ok(vec![Read::Unknown; group.len()]);
        }
        let mut lent = self.sessions.background(reading.net).await?;
        match group {
            [one] => {
                self.statistics_of(&mut lent, one.key, &one.work.record.device_id).await.map(|it| vec![it])
            }
            several => self.statistics_in(&mut lent, several).await,
        }
    }

    /// Reads the statistics of phones of one mailbox; what they do not say is not known.
    async fn answer_about(&self, reading: Reading<'_>, group: &[Queued]) -> Result<Found, MailError> {
        let unknown = || vec![Read::Unknown; group.len()];
        match self.ask_about(reading, group).await {
            Ok(reads) => Ok(Found { reads, unreadable: 0 }),
            Err(MailError::Cmdlet { record, .. }) if is_missing_cmdlet(&record) => {
                tracing::warn!(cmdlet = record.message, "Statistics are not visible for this account");
                self.statistics_are_missing();
                Ok(Found { reads: unknown(), unreadable: 0 })
            }
            // Statistics are an extra: who may not read them may list all the same, and a session that the refusal has
            // ended is opened again for that.
            Err(error) if error.class() == Class::Forbidden => {
                tracing::warn!(error = %crate::chain::Chain(&error), "Statistics are forbidden for this account");
                self.statistics_are_missing();
                Ok(Found { reads: unknown(), unreadable: 0 })
            }
            Err(error @ MailError::Cmdlet { .. })
                if matches!(error.class(), Class::Other | Class::Permanent | Class::NotFound) =>
            {
                // Broken state of one phone must not stop the others; its turn comes again.
                tracing::warn!(error = %error, "Statistics of a phone are not readable");
                Ok(Found { reads: unknown(), unreadable: group.len() as u64 })
            }
            Err(error) => Err(error),
        }
    }

    /// Writes down what the servers said; what could not be is waiting still.
    async fn note(
        &self,
        reading: Reading<'_>,
        answered: Option<Answered>,
        output: &mut Output<'_>,
        batch: &mut Batch,
    ) -> Result<(), MailError> {
        let Some(answered) = answered else { return Ok(()) };
        let count = answered.group.len() as u64;
        let noted = note(reading, answered, output, batch).await;
        if noted.is_err() {
            self.work_added(count);
        }
        noted
    }

    async fn statistics_of(
        &self,
        lent: &mut Lent<'_>,
        key: Uuid,
        device_id: &str,
    ) -> Result<Read, MailError> {
        let cmdlet = Cmdlet::new(&lent.recipe.statistics).with("Identity", key.to_string());
        match lent.ask(&cmdlet).await {
            Ok(objects) => {
                let found = objects.iter().find(|object| is_of(object, key, device_id));
                Ok(found.map_or(Read::Gone, |object| Read::Known(Statistics::read(object))))
            }
            Err(error) if error.class() == Class::NotFound => Ok(Read::Gone),
            Err(error) => Err(error),
        }
    }

    async fn statistics_in(&self, lent: &mut Lent<'_>, group: &[Queued]) -> Result<Vec<Read>, MailError> {
        let cmdlet =
            Cmdlet::new(&lent.recipe.statistics).with("Mailbox", group[0].work.record.mailbox.as_str());
        let objects = match lent.ask_for(&cmdlet, limits::PHONES_PER_MAILBOX_MAX).await {
            Ok(objects) => objects,
            Err(error) if error.class() == Class::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let read = |one: &Queued| {
            let found = objects.iter().find(|object| is_of(object, one.key, &one.work.record.device_id));
            found.map_or(Read::Gone, |object| Read::Known(Statistics::read(object)))
        };
        Ok(group.iter().map(read).collect())
    }

    /// Reads one phone again after an action has touched it.
    pub(super) async fn refresh(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        key: Uuid,
    ) -> Result<Value, MailError> {
        let store = Store::new(cx.storage.clone());
        let Some(state) = store.state().await? else { return Ok(json!({ "read": false })) };
        let row = store.rows(&[key]).await?.remove(0);
        let net = Net::from(cx);
        let mut lent = self.sessions.background(&net).await?;
        if lent.recipe.per_mailbox {
            return Ok(json!({ "read": false }));
        }
        let phone = self.find(&mut lent, key).await?;
        drop(lent);
        let mut batch = Batch::new();
        match phone {
            Some(phone) => {
                let name = phone.owner.first().cloned().unwrap_or_default();
                let mailbox = store.mailboxes(&[&name]).await?.remove(0);
                let record = phone.of(mailbox.as_ref());
                let listed = hash_of(&record);
                put_work(&mut batch, Need::Changed, key, &Work { record, listed });
                store.commit(batch).await?;
                self.work_added(1);
                Ok(json!({ "read": true }))
            }
            None if row.is_some() => {
                let mut output =
                    Output::upload(cx.cloud.clone(), lease, Mode::Delta, Some(state.epoch), false);
                delete(&mut output, Kind::Device, key.to_string()).await?;
                let committed = output.commit().await?;
                let epoch = committed.map_or(state.epoch, |committed| committed.epoch);
                delete_row(&mut batch, key);
                let devices = state.devices.saturating_sub(1);
                put_document(&mut batch, STATE, &State { epoch, devices, ..state });
                store.commit(batch).await?;
                Ok(json!({ "gone": true }))
            }
            None => Ok(json!({ "gone": true })),
        }
    }

    /// The phone of this key and no other. A server that does not know it may answer with all there are.
    pub(super) async fn find(&self, lent: &mut Lent<'_>, key: Uuid) -> Result<Option<Phone>, MailError> {
        let cmdlet = Cmdlet::new(&lent.recipe.devices).with("Identity", key.to_string());
        match lent.ask(&cmdlet).await {
            Ok(objects) => Ok(objects.iter().filter_map(Phone::read).find(|phone| phone.key == key)),
            Err(error) if error.class() == Class::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What reading a phone's statistics needs.
#[derive(Clone, Copy)]
struct Reading<'a> {
    net: &'a Net,
    store: &'a Store,
}

/// Those that are asked about together.
fn by_mailbox(queued: Vec<Queued>) -> Vec<Vec<Queued>> {
    let mut groups: Vec<Vec<Queued>> = Vec::new();
    for one in queued {
        match groups.last_mut() {
            Some(group) if group[0].work.record.mailbox == one.work.record.mailbox => group.push(one),
            _ => groups.push(vec![one]),
        }
    }
    groups
}

/// What the servers said of phones of one mailbox.
struct Found {
    /// Phone by phone.
    reads: Vec<Read>,
    /// How many could not be read.
    unreadable: u64,
}

/// Phones of one mailbox about which the servers have been asked.
struct Answered {
    group: Vec<Queued>,
    found: Found,
    /// When they were, Unix milliseconds.
    at_ms: i64,
}

/// Sends what differs, and remembers it.
async fn note(
    reading: Reading<'_>,
    Answered { group, found, at_ms }: Answered,
    output: &mut Output<'_>,
    batch: &mut Batch,
) -> Result<(), MailError> {
    output.check_lease()?;
    if found.unreadable > 0 {
        output.count("skipped.unreadable", found.unreadable);
    }
    let keys: Vec<Uuid> = group.iter().map(|one| one.key).collect();
    let rows = reading.store.rows(&keys).await?;
    for ((one, read), row) in group.into_iter().zip(found.reads).zip(rows) {
        delete_work(batch, one.place);
        let Work { mut record, listed } = one.work;
        let statistics = match read {
            Read::Gone => continue,
            Read::Known(statistics) => statistics,
            Read::Unknown => row.as_ref().map(|row| row.statistics.clone()).unwrap_or_default(),
        };
        statistics.fill(&mut record);
        let mut sent = hash_of(&record);
        if row.as_ref().is_none_or(|row| row.sent != sent) {
            sent = upsert(output, Kind::Device, one.key.to_string(), &record).await?;
        }
        let missing_ms = row.map_or(0, |row| row.missing_ms);
        put_row(batch, one.key, &Row { listed, sent, read_ms: at_ms, missing_ms, statistics });
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Read {
    Known(Statistics),
    /// The servers do not know it any more; the next listing settles it.
    Gone,
    /// They do not say.
    Unknown,
}

/// Whether statistics are those of this phone: by its id, and where they carry none, by what it calls itself.
fn is_of(object: &Object, key: Uuid, device_id: &str) -> bool {
    match mapping::text(object, "Guid") {
        Some(guid) => Uuid::parse_str(&guid).is_ok_and(|guid| guid == key),
        None => mapping::text(object, "DeviceId").is_some_and(|id| id == device_id),
    }
}
