//! The cloud's durable state: one SQLite file, one thread that writes, two that read.
//!
//! All SQL is in this folder; the rest of the cloud calls the typed methods of [`Store`]. Writes that wait together
//! share one transaction and one fsync (group commit): each runs in a savepoint of its own, so that one failing does
//! not undo its neighbours, and every caller is answered only after the commit.

mod actions;
mod agents;
mod alerts;
mod audit;
mod certificate_profiles;
mod certificate_requests;
mod certificates;
mod collections;
mod compliance;
mod configs;
mod credentials;
mod devices;
mod directory;
mod dispatch;
mod enrolled;
mod enrollment;
mod error;
mod events;
mod inline;
mod leases;
mod mobile_rows;
mod order_keys;
mod people;
mod rows;
mod tenants;
mod threads;
mod uploads;

pub use actions::*;
pub use agents::*;
pub use alerts::*;
pub use audit::*;
pub use certificate_profiles::*;
pub use certificate_requests::*;
pub use certificates::{
    CertificateRevocation, CertificateSearch, CertificateTroubles, Chained, DeviceCertificate,
    DueCertificate, NewCertificate,
};
pub use collections::*;
pub use compliance::*;
pub use configs::*;
pub use credentials::*;
pub use devices::*;
pub use directory::*;
pub use enrolled::*;
pub use enrollment::*;
pub use error::StoreError;
pub use events::*;
pub use inline::{Disk, Gate, Moment};
pub use leases::*;
pub use rows::Page;
pub use tenants::*;
pub use uploads::*;

use std::panic::Location;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use crate::ids::Ids;
use inline::Inline;
use people::Kept;
use rows::signed;
use tenants::KnownTenants;
use threads::{Readers, Wait, Writer};

/// Handle on the store; a cheap clone. The threads end when the last handle is gone.
#[derive(Clone)]
pub struct Store {
    executor: Executor,
    ids: Ids,
    known: Arc<KnownTenants>,
}

/// Where jobs run.
#[derive(Clone)]
enum Executor {
    Threads { writer: Arc<Writer>, readers: Arc<Readers> },
    Inline(Arc<Inline>),
}

impl Store {
    /// Opens or creates the store file.
    ///
    /// # Errors
    /// When the file cannot be opened, is damaged, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = connect(path)?;
        migrate(&mut connection)?;
        let readers = Readers::start(|| connect_read_only(path))?;
        let writer = Writer::start(connection)?;
        let executor = Executor::Threads { writer: Arc::new(writer), readers: Arc::new(readers) };
        Ok(Self { executor, ids: Ids::random(), known: Arc::default() })
    }

    /// A store without threads: every job runs on its caller, between two waits on `gate`. For simulations.
    pub fn inline(disk: Disk, gate: Arc<dyn Gate>, ids: Ids) -> Self {
        Self { executor: Executor::Inline(Arc::new(Inline::new(disk, gate))), ids, known: Arc::default() }
    }

    /// Runs `job` on the writing thread. When this returns, what the job did is on the disk.
    ///
    /// # Errors
    /// The job's own error (its writes are undone), or a commit that failed.
    #[track_caller]
    pub fn write<T, F>(&self, job: F) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.hand_over(Wait::ForDisk, move |connection, _| job(connection))
    }

    /// As [`Store::write`], but when this returns, reads see what the job did, and the end of the process cannot undo it;
    /// a power cut can, until the next write that waits for the disk.
    ///
    /// # Errors
    /// As [`Store::write`].
    #[track_caller]
    pub fn write_soon<T, F>(&self, job: F) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.hand_over(Wait::ForReads, move |connection, _| job(connection))
    }

    /// Has the writing thread do a job, with what it keeps for the next one.
    #[track_caller]
    fn hand_over<T, F>(&self, wait: Wait, job: F) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Kept) -> Result<T, StoreError> + Send + 'static,
    {
        let asked_at = Location::caller();
        async move {
            match &self.executor {
                Executor::Threads { writer, .. } => writer.run(wait, job).await,
                Executor::Inline(inline) => inline.write(asked_at, job).await,
            }
        }
    }

    /// Runs `job` on a reading thread, in one read transaction: it sees one committed state.
    ///
    /// # Errors
    /// The job's own error.
    #[track_caller]
    pub fn read<T, F>(&self, job: F) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let asked_at = Location::caller();
        async move {
            match &self.executor {
                Executor::Threads { readers, .. } => readers.run(job).await,
                Executor::Inline(inline) => inline.read(asked_at, job).await,
            }
        }
    }
}

/// The schema's versions in order; `user_version` counts those that were run. A released version is never edited.
const SCHEMA: [&str; 8] = [
    include_str!("schema.sql"),
    // The certificate an agent had before its newest, until it has shown the newest.
    "ALTER TABLE agents ADD COLUMN certificate_before TEXT NOT NULL DEFAULT '';",
    include_str!("schema_mobile.sql"),
    include_str!("schema_certificates.sql"),
    // The lease whose fence an action was last given under: its resource is told by what is known of a phone at that time.
    "ALTER TABLE actions ADD COLUMN resource TEXT;",
    // With the text, so that a search among many people reads this index and not every person's row.
    "DROP INDEX users_by_sort; CREATE INDEX users_by_sort ON users(tenant, sort, id, search);",
    // A signing request with a challenge rests encrypted only; what else is needed of it stands beside it.
    include_str!("schema_sealed_requests.sql"),
    // For certificates that name them.
    "ALTER TABLE enrolled_devices ADD COLUMN sim TEXT; ALTER TABLE enrolled_devices ADD COLUMN phone_number TEXT;",
];

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    let connection = Connection::open(path).map_err(open)?;
    // WAL lets readers go on while a batch is written; FULL makes every commit an fsync, so that what was answered
    // is there after a power cut. A log of up to 64 MB: a page that many batches of an upload change is copied back once.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
             PRAGMA cache_size = -32000; PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 16000;",
        )
        .map_err(open)?;
    connection.set_prepared_statement_cache_capacity(crate::limits::STATEMENTS_CACHED);
    Ok(connection)
}

fn connect_read_only(path: &Path) -> Result<Connection, StoreError> {
    let connection = connect(path)?;
    connection
        .execute_batch("PRAGMA query_only = ON;")
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    Ok(connection)
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > SCHEMA.len() {
        return Err(StoreError::NewerSchema { found, known: SCHEMA.len() });
    }
    for (version, script) in SCHEMA.iter().enumerate().skip(found) {
        let tx = connection.transaction()?;
        tx.execute_batch(script)?;
        tx.pragma_update(None, "user_version", signed(version as u64 + 1))?;
        tx.commit()?;
    }
    Ok(())
}
