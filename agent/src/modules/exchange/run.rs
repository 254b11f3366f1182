//! What the jobs of the module share, and the order in which the collector does them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causeway_protocol::mobile::DeviceRecord;
use serde_json::{Value, json};
use uuid::Uuid;

use super::config::Settings;
use super::error::{Class, MailError};
use super::limits;
use super::listing::{Found, Listing};
use super::mapping::Mailbox;
use super::quarantine;
use super::sessions::Sessions;
use super::state::Store;
use super::statistics::Pace;
use crate::directory::Directory;
use crate::exchange::Exchange;
use crate::link::LeaseGuard;
use crate::modules::ModuleContext;

/// What a listing is asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Task {
    /// Read all statistics again.
    pub(super) full: bool,
    /// Send nothing; say what would be sent.
    pub(super) dry: bool,
    /// A person has confirmed any number of deletions.
    pub(super) confirmed: bool,
    /// Only this phone.
    pub(super) device: Option<Uuid>,
}

/// Carries out listings and everything around them.
pub(super) struct Runner {
    pub(super) settings: Settings,
    pub(super) sessions: Sessions,
    /// Enrolled phones: device id to the mailboxes it may be in; none means any.
    enrolled: HashMap<String, Vec<Option<String>>>,
    /// Statistics that are still to be read.
    work: AtomicU64,
    statistics_missing: AtomicBool,
    /// Whether the last statistics could be read, so that a change may wait for its own.
    reading_well: AtomicBool,
    pace: Mutex<Pace>,
    /// The quarantine job is worked on by one at a time.
    pub(super) job: tokio::sync::Mutex<quarantine::Place>,
    /// Ids of mailboxes in the databases of the scope, as the last listing found them.
    in_databases: Mutex<HashSet<Uuid>>,
    /// A global catalog that knows where mailboxes are.
    pub(super) catalog: Option<Arc<Directory>>,
    /// Ids of mailboxes on the servers and in the databases of the scope, when it was asked.
    in_catalog: Mutex<Option<HashSet<Uuid>>>,
}

impl Runner {
    pub(super) fn new(
        settings: Settings,
        exchange: Arc<dyn Exchange>,
        catalog: Option<Arc<Directory>>,
    ) -> Self {
        let mut enrolled: HashMap<String, Vec<Option<String>>> = HashMap::new();
        for phone in &settings.enrolled {
            let mailbox = phone.mailbox.as_ref().map(|mailbox| mailbox.to_lowercase());
            enrolled.entry(phone.device_id.clone()).or_default().push(mailbox);
        }
        Self {
            sessions: Sessions::new(exchange, settings.domain_controller.clone()),
            settings,
            enrolled,
            work: AtomicU64::new(0),
            statistics_missing: AtomicBool::new(false),
            reading_well: AtomicBool::new(true),
            pace: Mutex::default(),
            job: tokio::sync::Mutex::default(),
            in_databases: Mutex::default(),
            catalog,
            in_catalog: Mutex::default(),
        }
    }

    /// One listing, and what follows from it.
    pub(super) async fn list(
        &self,
        cx: &ModuleContext,
        lease: &LeaseGuard,
        task: &Task,
    ) -> Result<Found, MailError> {
        let started = cx.clock.now();
        if task.full {
            // Roles and versions may have changed since.
            self.sessions.forget_recipe();
            self.statistics_missing.store(false, Ordering::Relaxed);
        }
        let mut found = Listing::begin(self, cx, lease, task).await?.run().await?;
        found.result["elapsed_ms"] = json!(started.elapsed().as_millis() as u64);
        let left = Store::new(cx.storage.clone()).work_left().await?;
        if left > self.work.swap(left, Ordering::Relaxed) {
            self.pace().start();
        }
        Ok(found)
    }

    pub(super) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Statistics that are still to be read.
    pub(super) fn work_left(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    pub(super) fn work_added(&self, count: u64) {
        self.work.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts what was read; gives what is left.
    pub(super) fn work_done(&self, count: u64) -> u64 {
        let left = self.work_left().saturating_sub(count);
        self.work.store(left, Ordering::Relaxed);
        left
    }

    pub(super) fn work_is(&self, count: u64) {
        self.work.store(count, Ordering::Relaxed);
    }

    pub(super) fn reads_statistics(&self) -> bool {
        self.settings.statistics && !self.statistics_missing.load(Ordering::Relaxed)
    }

    pub(super) fn statistics_are_missing(&self) {
        self.statistics_missing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_reading_well(&self) -> bool {
        self.reading_well.load(Ordering::Relaxed)
    }

    pub(super) fn reads_well(&self, well: bool) {
        self.reading_well.store(well, Ordering::Relaxed);
    }

    /// These mailboxes are in the databases of the scope.
    pub(super) fn set_in_databases(&self, mailboxes: HashSet<Uuid>) {
        *self.in_databases.lock().unwrap_or_else(PoisonError::into_inner) = mailboxes;
    }

    /// What the catalog said; none when it could not be asked.
    pub(super) fn set_in_catalog(&self, mailboxes: Option<HashSet<Uuid>>) {
        *self.in_catalog.lock().unwrap_or_else(PoisonError::into_inner) = mailboxes;
    }

    /// Whether a mailbox belongs to this agent's part of the organisation; units are chosen by the servers.
    pub(super) fn holds(&self, mailbox: &Mailbox) -> bool {
        let scope = &self.settings.scope;
        let any = |wanted: &[String], test: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|wanted| test(&wanted.to_lowercase()))
        };
        let domain_of_address =
            mailbox.address.as_deref().and_then(|it| it.rsplit_once('@')).map(|(_, it)| it.to_lowercase());
        let home = mailbox.names.first().and_then(|name| name.split('/').next()).unwrap_or_default();
        let host = mailbox.server.as_deref().map(|server| last_of(server).to_lowercase());
        let database = mailbox.database.as_deref().map(str::to_lowercase);
        let id = Uuid::parse_str(&mailbox.guid).ok();
        let in_databases = self.in_databases.lock().unwrap_or_else(PoisonError::into_inner);
        if !any(&scope.domains, &|wanted| domain_of_address.as_deref() == Some(wanted) || home == wanted) {
            return false;
        }
        let in_catalog = self.in_catalog.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*in_catalog {
            return id.is_some_and(|id| found.contains(&id));
        }
        any(&scope.servers, &|wanted| {
            host.as_deref()
                .is_some_and(|host| host == wanted || host.split('.').next() == wanted.split('.').next())
        }) && any(&scope.databases, &|wanted| {
            database.as_deref() == Some(wanted) || id.is_some_and(|id| in_databases.contains(&id))
        })
    }

    /// Whether the cloud knows a phone, in this mailbox.
    pub(super) fn is_enrolled(&self, record: &DeviceRecord) -> bool {
        let Some(mailboxes) = self.enrolled.get(&record.device_id) else { return false };
        let address = record.address.as_deref().map(str::to_lowercase);
        mailboxes.iter().any(|wanted| match wanted {
            None => true,
            Some(wanted) => *wanted == record.mailbox || Some(wanted) == address.as_ref(),
        })
    }

    /// How long to wait after a failure: as the server says, or longer each time.
    pub(super) fn pause_after(&self, error: &MailError, failures: u32, interval: Duration) -> Duration {
        let doubled = limits::RETRY_AFTER.saturating_mul(1 << failures.min(12));
        let most = match error.class() {
            // A wrong password tried often locks the account.
            Class::Credentials | Class::Forbidden => return limits::RETRY_AT_MOST,
            Class::Throttled => limits::RETRY_AT_MOST,
            _ => interval.min(limits::RETRY_AT_MOST),
        };
        error.retry_after().unwrap_or_default().max(doubled.min(most))
    }
}

/// `/o=acme/ou=.../cn=EX1` and `EX1.acme.example` to the host.
fn last_of(server: &str) -> &str {
    server.rsplit_once("/cn=").map_or(server, |(_, host)| host)
}

/// The result of a listing with what else was done.
pub(super) fn with(mut result: Value, name: &str, value: Value) -> Value {
    result[name] = value;
    result
}
