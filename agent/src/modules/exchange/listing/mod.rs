//! A listing: every phone there is, compared with what the cloud has. Exchange keeps no history that could be asked for
//! changes, so the list is whole and only what differs travels.
//!
//! Kept in memory: sixteen bytes a phone to find who is gone, and the rows to be written after the cloud has confirmed.
//! A phone that is new or has changed waits in the store for its statistics, so that it travels once.

mod compare;

use std::collections::HashSet;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use causeway_protocol::mobile::DeviceRecord;
use causeway_protocol::record::Kind;
use causeway_protocol::upload::Mode;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::{MailError, is_missing_cmdlet};
use super::homes;
use super::limits;
use super::mapping::{self, Lists, Mailbox, Phone, Statistics};
use super::output::{delete, upsert};
use super::recipes::Recipe;
use super::run::{Runner, Task};
use super::state::{
    Row, STATE, State, Store, delete_hash, delete_row, digest, put_document, put_hash, put_mailbox, put_row,
};
use crate::directory::Net;
use crate::exchange::ExchangeError;
use crate::link::{LeaseGuard, LinkError};
use crate::modules::ModuleContext;
use crate::modules::output::{Output, OutputError};
use crate::storage::Batch;

/// What a listing found besides what it sent.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// For the order's result and the status.
    pub(super) result: Value,
    /// What happens to a phone nobody has decided about; none where the version has no such setting.
    pub(super) default_access: Option<String>,
    /// Phones that wait and that the cloud knows: mailbox and device id.
    pub(super) to_approve: Vec<(String, DeviceRecord)>,
    /// Phones nobody uses any more.
    pub(super) idle: Vec<Uuid>,
    /// Whether the listing was whole.
    pub(super) complete: bool,
}

/// One listing.
pub(super) struct Listing<'a> {
    runner: &'a Runner,
    net: Net,
    task: &'a Task,
    store: Store,
    output: Output<'a>,
    before: Option<State>,
    seen: HashSet<[u8; 16]>,
    /// Rows that take effect when the cloud has what they stand for.
    rows: Vec<(Uuid, Option<Row>)>,
    /// Records of other kinds likewise.
    hashes: Batch,
    work: Batch,
    held: u64,
    stale: u64,
    /// Phones whose mailbox is not known yet.
    strangers: Vec<Phone>,
    /// Why it is not whole.
    incomplete: Option<String>,
    found: Found,
    now_ms: i64,
}

impl<'a> Listing<'a> {
    /// Opens the upload.
    pub(super) async fn begin(
        runner: &'a Runner,
        cx: &'a ModuleContext,
        lease: &'a LeaseGuard,
        task: &'a Task,
    ) -> Result<Self, MailError> {
        let store = Store::new(cx.storage.clone());
        let before = store.state().await?;
        let output = |base: Option<u64>| {
            let mode = if base.is_some() { Mode::Delta } else { Mode::Snapshot };
            let output = Output::upload(cx.cloud.clone(), lease, mode, base, task.confirmed);
            if task.dry { output.dry() } else { output }
        };
        let mut opened = output(before.as_ref().map(|state| state.epoch));
        match opened.open().await {
            Err(OutputError::Link(LinkError::BaseMismatch)) => {
                tracing::info!("The cloud has another state; everything is sent again");
                opened = output(None);
                opened.open().await?;
            }
            done => done?,
        }
        Ok(Self {
            runner,
            net: Net::from(cx),
            task,
            store,
            output: opened,
            before,
            seen: HashSet::new(),
            rows: Vec::new(),
            hashes: Batch::new(),
            work: Batch::new(),
            held: 0,
            stale: 0,
            strangers: Vec::new(),
            incomplete: None,
            found: Found::default(),
            now_ms: cx.clock.now_ms(),
        })
    }

    /// Whether everything there is must be sent.
    fn is_snapshot(&self) -> bool {
        self.output.mode() == Mode::Snapshot
    }

    /// Reads, sends, remembers.
    pub(super) async fn run(mut self) -> Result<Found, MailError> {
        self.output.expect(self.before.as_ref().map(|state| state.devices));
        let recipe = self.organization().await?;
        if self.runner.settings.policies {
            self.policies(recipe).await?;
        }
        if self.runner.settings.devices {
            let mailboxes = self.mailboxes(recipe).await?;
            if recipe.per_mailbox {
                self.phones_by_mailbox(recipe, &mailboxes).await?;
            } else {
                self.phones(recipe).await?;
            }
            self.strangers(recipe).await?;
        }
        self.flush_work(true).await?;
        if let Some(why) = &self.incomplete {
            if self.is_snapshot() {
                return Err(MailError::Incomplete { why: why.clone() });
            }
        } else {
            self.sweep().await?;
        }
        self.finish(recipe).await
    }

    async fn finish(mut self, recipe: &'static Recipe) -> Result<Found, MailError> {
        let mut result = self.output.summary();
        result["devices"] = json!(self.seen.len());
        result["version"] = json!(recipe.title);
        result["complete"] = json!(self.incomplete.is_none());
        result["mode"] = json!(match (self.task.dry, self.is_snapshot()) {
            (true, _) => "dry_run",
            (_, true) => "snapshot",
            _ => "delta",
        });
        if let Some(why) = &self.incomplete {
            result["incomplete"] = json!(why);
        }
        self.found.complete = self.incomplete.is_none();
        self.found.result = result;
        if self.task.dry {
            self.output.finished("dry run done");
            return Ok(self.found);
        }
        let committed = self.output.commit().await?;
        let epoch = committed.map(|it| it.epoch).or(self.before.as_ref().map(|it| it.epoch)).unwrap_or(0);
        let full = self.task.full || self.before.is_none();
        let state = State {
            epoch,
            devices: self.seen.len() as u64,
            listed_ms: self.now_ms,
            full_ms: if full { self.now_ms } else { self.before.as_ref().map_or(0, |before| before.full_ms) },
        };
        self.remember(&state).await?;
        self.output.finished("listed");
        Ok(self.found)
    }

    /// Rows first and the epoch last: a crash in between leaves an epoch the cloud no longer has, and everything is
    /// sent again.
    async fn remember(&mut self, state: &State) -> Result<(), MailError> {
        let mut batch = std::mem::take(&mut self.hashes);
        for (key, row) in std::mem::take(&mut self.rows) {
            match row {
                Some(row) => put_row(&mut batch, key, &row),
                None => delete_row(&mut batch, key),
            }
            if batch.len() >= limits::OPS_PER_COMMIT {
                self.store.commit(std::mem::take(&mut batch)).await?;
            }
        }
        put_document(&mut batch, STATE, state);
        self.store.commit(batch).await
    }

    /// What the servers say of themselves and of the organisation.
    async fn organization(&mut self) -> Result<&'static Recipe, MailError> {
        self.output.progress("reading the organisation", 0);
        let mut lent = self.runner.sessions.background(&self.net).await?;
        let recipe = lent.recipe;
        let server = lent.server();
        let mut settings = None;
        if let Some(cmdlet) = &recipe.organization {
            let objects = lent.ask(&Cmdlet::new(cmdlet)).await?;
            settings = objects.into_iter().next();
        }
        // Exchange Online shows no servers.
        let display = if server.online {
            None
        } else {
            optional(lent.ask_for(&Cmdlet::new("Get-ExchangeServer"), limits::POLICIES_MAX).await)?
                .and_then(|object| mapping::text(&object, "AdminDisplayVersion"))
        };
        drop(lent);
        let mut lent = self.runner.sessions.background(&self.net).await?;
        let name = optional(lent.ask(&Cmdlet::new("Get-OrganizationConfig")).await)?
            .and_then(|object| mapping::text(&object, "Name"));
        drop(lent);
        let name = name.unwrap_or_else(|| self.runner.settings.organization.clone());
        let version = mapping::version(&display.unwrap_or_default(), &server, &recipe.title);
        let record = mapping::organization(settings.as_ref(), name, version);
        self.found.default_access.clone_from(&record.default_access);
        self.others(Kind::MailOrganization, b'o', vec![(self.runner.settings.organization.clone(), record)])
            .await?;
        Ok(recipe)
    }

    async fn policies(&mut self, recipe: &'static Recipe) -> Result<(), MailError> {
        let mut lent = self.runner.sessions.background(&self.net).await?;
        let asked = lent.ask_for(&Cmdlet::new(&recipe.policies), limits::POLICIES_MAX).await;
        drop(lent);
        match asked {
            Ok(objects) => {
                let records = objects.iter().filter_map(mapping::policy).collect();
                self.others(Kind::DevicePolicy, b'p', records).await
            }
            Err(MailError::Cmdlet { record, .. }) if is_missing_cmdlet(&record) => {
                self.output.count("skipped.policies_not_visible", 1);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the few records of a kind that differ, and deletes those that are gone.
    async fn others<T: Serialize>(
        &mut self,
        kind: Kind,
        table: u8,
        records: Vec<(String, T)>,
    ) -> Result<(), MailError> {
        let known = self.store.hashes(table).await?;
        for (key, record) in &records {
            let hash = digest(&serde_json::to_vec(record).expect("records serialise to JSON"));
            let same = known.iter().any(|(other, before)| other == key && *before == hash);
            if !same || self.is_snapshot() {
                upsert(&mut self.output, kind, key.clone(), record).await?;
                put_hash(&mut self.hashes, table, key, hash);
            }
        }
        for (key, _) in known {
            if !records.iter().any(|(other, _)| *other == key) {
                if !self.is_snapshot() {
                    delete(&mut self.output, kind, key.clone()).await?;
                }
                delete_hash(&mut self.hashes, table, &key);
            }
        }
        Ok(())
    }

    /// The cmdlet once for each unit in scope, or once.
    fn by_unit(&self, cmdlet: &Cmdlet) -> Vec<Cmdlet> {
        let units = &self.runner.settings.scope.organizational_units;
        if units.is_empty() {
            return vec![cmdlet.clone()];
        }
        units.iter().map(|unit| cmdlet.clone().with("OrganizationalUnit", unit.as_str())).collect()
    }

    /// Finds out which mailboxes are in the databases of the scope: what is told of phones does not say.
    async fn databases(&mut self) -> Result<(), MailError> {
        let scope = &self.runner.settings.scope;
        let placed = !scope.databases.is_empty() || !scope.servers.is_empty();
        if let Some(catalog) = self.runner.catalog.as_ref().filter(|_| placed) {
            match homes::in_scope(catalog, &self.net, scope).await {
                Ok(found) => {
                    self.runner.set_in_catalog(Some(found));
                    return Ok(());
                }
                // Exchange knows it too; it only takes longer.
                Err(error) => {
                    tracing::warn!(error = %crate::chain::Chain(&error), "The catalog does not say where mailboxes are");
                    self.runner.set_in_catalog(None);
                }
            }
        }
        let databases = &self.runner.settings.scope.databases;
        let mut found = HashSet::new();
        for database in databases {
            let cmdlet = Cmdlet::new("Get-Mailbox")
                .with("Database", database.as_str())
                .with("ResultSize", "Unlimited");
            let mut lent = self.runner.sessions.background(&self.net).await?;
            let mut listing = lent.list(cmdlet)?;
            while let Some(page) = listing.next_page(limits::STALLED_AFTER).await? {
                let mailboxes = page.iter().filter_map(Mailbox::read);
                found.extend(mailboxes.filter_map(|mailbox| Uuid::parse_str(&mailbox.guid).ok()));
            }
            let completed = listing.finish().await?;
            note_incomplete(&mut self.incomplete, &completed);
        }
        if !databases.is_empty() {
            self.runner.set_in_databases(found);
        }
        Ok(())
    }

    /// Remembers every mailbox with phones, on disk; gives their ids and lists of allowed phones for versions that must be
    /// asked one by one.
    async fn mailboxes(&mut self, recipe: &'static Recipe) -> Result<Vec<(String, Vec<String>)>, MailError> {
        self.databases().await?;
        let mut ids = Vec::new();
        for cmdlet in self.by_unit(&with_phones(recipe)) {
            let mut lent = self.runner.sessions.background(&self.net).await?;
            let mut listing = lent.list(cmdlet)?;
            while let Some(page) = listing.next_page(limits::STALLED_AFTER).await? {
                self.output.check_lease()?;
                let mailboxes: Vec<Mailbox> = page.iter().filter_map(Mailbox::read).collect();
                remember_mailboxes(&self.store, &mailboxes).await?;
                if recipe.per_mailbox {
                    let read =
                        page.iter().filter_map(|it| Some((Mailbox::read(it)?, Lists::read(it).allowed)));
                    let mine = read.filter(|(mailbox, _)| self.runner.holds(mailbox));
                    ids.extend(mine.map(|(mailbox, allowed)| (mailbox.guid, allowed)));
                }
                self.output.progress("reading mailboxes", 0);
            }
            let completed = listing.finish().await?;
            note_incomplete(&mut self.incomplete, &completed);
        }
        Ok(ids)
    }

    async fn phones(&mut self, recipe: &'static Recipe) -> Result<(), MailError> {
        let everything = Cmdlet::new(&recipe.devices).with("ResultSize", "Unlimited");
        for cmdlet in self.by_unit(&everything) {
            // A way to the runner of its own: what is lent must not hold all of the listing.
            let runner = self.runner;
            let net = self.net.clone();
            let mut lent = runner.sessions.background(&net).await?;
            let mut listing = lent.list(cmdlet)?;
            while let Some(page) = listing.next_page(limits::STALLED_AFTER).await? {
                self.output.check_lease()?;
                self.page(&page).await?;
            }
            let completed = listing.finish().await?;
            note_incomplete(&mut self.incomplete, &completed);
        }
        Ok(())
    }

    async fn page(&mut self, page: &[Object]) -> Result<(), MailError> {
        let phones: Vec<Phone> = page.iter().filter_map(Phone::read).collect();
        self.output.count("skipped.no_id", (page.len() - phones.len()) as u64);
        let seen = phones.len() as u64;
        let mut known = Vec::with_capacity(phones.len());
        for (phone, mailbox) in with_mailboxes(&self.store, phones).await? {
            match mailbox {
                None if self.strangers.len() < limits::ROWS_PER_READ => self.strangers.push(phone),
                mailbox => known.push((phone, mailbox, None)),
            }
        }
        self.compare(known).await?;
        self.output.progress("reading phones", seen);
        Ok(())
    }

    /// Phones of mailboxes that the servers did not name among those with phones: that mark is brought up to date only
    /// now and then.
    async fn strangers(&mut self, recipe: &'static Recipe) -> Result<(), MailError> {
        let strangers = std::mem::take(&mut self.strangers);
        let mut known: Vec<(Phone, Option<Mailbox>, Option<Statistics>)> = Vec::new();
        for phone in strangers {
            let mut mailbox =
                self.store.mailboxes(&[phone.owner.first().map_or("", String::as_str)]).await?.remove(0);
            if let Some(owner) = phone.owner.first().filter(|_| mailbox.is_none()) {
                let mut lent = self.runner.sessions.background(&self.net).await?;
                let cmdlet = Cmdlet::new(&recipe.mailbox).with("Identity", owner.as_str());
                mailbox = match lent.ask(&cmdlet).await {
                    Ok(objects) => objects.iter().filter_map(Mailbox::read).find(|it| it.owns(&phone)),
                    Err(MailError::Cmdlet { .. }) => None,
                    Err(error) => return Err(error),
                };
                drop(lent);
                if let Some(mailbox) = &mailbox {
                    remember_mailboxes(&self.store, std::slice::from_ref(mailbox)).await?;
                }
            }
            known.push((phone, mailbox, None));
        }
        self.compare(known).await
    }

    /// Where phones can only be asked for by mailbox, the answer is their statistics.
    async fn phones_by_mailbox(
        &mut self,
        recipe: &'static Recipe,
        mailboxes: &[(String, Vec<String>)],
    ) -> Result<(), MailError> {
        self.output.expect(Some(mailboxes.len() as u64));
        for (guid, allowed) in mailboxes {
            self.output.check_lease()?;
            let mut lent = self.runner.sessions.background(&self.net).await?;
            let cmdlet = Cmdlet::new(&recipe.statistics).with("Mailbox", guid.as_str());
            let asked = lent.ask_for(&cmdlet, limits::PHONES_PER_MAILBOX_MAX).await;
            drop(lent);
            let objects = match asked {
                Ok(objects) => objects,
                // The mailbox went meanwhile.
                Err(MailError::Cmdlet { record, .. })
                    if super::error::class_of(&record) == super::error::Class::NotFound =>
                {
                    continue;
                }
                Err(MailError::Cmdlet { record, .. }) => {
                    self.incomplete.get_or_insert(record.message);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut known = Vec::with_capacity(objects.len());
            for object in &objects {
                let Some(mut phone) = Phone::read(object) else { continue };
                if !recipe.block_list {
                    phone.judge_by_list(allowed);
                }
                let (phone, mailbox) = with_mailboxes(&self.store, vec![phone]).await?.remove(0);
                known.push((phone, mailbox, Some(Statistics::read(object))));
            }
            self.compare(known).await?;
            self.output.progress("reading phones by mailbox", 1);
        }
        Ok(())
    }
}

/// The first object of a cmdlet that the account need not be allowed.
fn optional(asked: Result<Vec<Object>, MailError>) -> Result<Option<Object>, MailError> {
    match asked {
        Ok(objects) => Ok(objects.into_iter().next()),
        Err(MailError::Cmdlet { .. } | MailError::Session { source: ExchangeError::Forbidden { .. } }) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Phones with their mailboxes, where these are known.
async fn with_mailboxes(
    store: &Store,
    phones: Vec<Phone>,
) -> Result<Vec<(Phone, Option<Mailbox>)>, MailError> {
    let names: Vec<&str> = phones.iter().flat_map(|phone| phone.owner.iter().map(String::as_str)).collect();
    let mut found = store.mailboxes(&names).await?.into_iter();
    let mut out = Vec::with_capacity(phones.len());
    for phone in phones {
        let mine: Vec<_> = found.by_ref().take(phone.owner.len()).collect();
        let mailbox = mine.into_iter().flatten().next();
        out.push((phone, mailbox));
    }
    Ok(out)
}

/// Asks for every mailbox that has phones.
pub(super) fn with_phones(recipe: &Recipe) -> Cmdlet {
    Cmdlet::new(&recipe.mailbox)
        .with("Filter", "HasActiveSyncDevicePartnership -eq $true")
        .with("ResultSize", "Unlimited")
}

/// Writes the mailboxes that are not as remembered.
pub(super) async fn remember_mailboxes(store: &Store, mailboxes: &[Mailbox]) -> Result<(), MailError> {
    let names: Vec<&str> =
        mailboxes.iter().map(|mailbox| mailbox.names.first().map_or("", String::as_str)).collect();
    let known = store.mailboxes(&names).await?;
    let mut batch = Batch::new();
    for (mailbox, known) in mailboxes.iter().zip(known) {
        if known.as_ref() != Some(mailbox) {
            put_mailbox(&mut batch, mailbox);
        }
    }
    store.commit(batch).await
}

/// A listing with errors, or cut short by the server, proves nothing about what is not in it. The warning is known by
/// the name of the parameter that would help, which is not translated.
pub(super) fn note_incomplete(incomplete: &mut Option<String>, completed: &Completed) {
    if let Some(error) = completed.errors.first() {
        incomplete.get_or_insert_with(|| error.message.clone());
    }
    if let Some(warning) = completed.warnings.iter().find(|warning| warning.contains("ResultSize")) {
        incomplete.get_or_insert_with(|| warning.clone());
    }
}

/// Of a record as it would travel.
pub(super) fn hash_of(record: &DeviceRecord) -> [u8; 16] {
    digest(&serde_json::to_vec(record).expect("records serialise to JSON"))
}
