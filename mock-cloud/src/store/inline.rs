//! The store without threads, for simulations: jobs run on their caller, over a database in memory that outlives the
//! cloud as a disk outlives a process.

use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use rusqlite::Connection;

use super::people::Kept;
use super::{StoreError, migrate};
use crate::limits::STATEMENTS_CACHED;

/// What survives the process: everything whose job has run. Clones share it.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<Connection>>);

impl Disk {
    /// An empty one with the current schema.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn in_memory() -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;")?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        migrate(&mut connection)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// The database itself, for looking at it from outside.
    ///
    /// # Errors
    /// The look's own error.
    pub fn look<T>(&self, look: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        look(&self.connection())
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A moment at which a process can die, and everything between two of which happens or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A job is handed over.
    Before,
    /// The job has run and is on the disk; its caller does not know yet.
    After,
}

/// Lets jobs through: at once, late, or never (the process is dead).
pub trait Gate: Send + Sync + 'static {
    /// Resolves when the caller may go on. `asked_at` is the place in the store's sources that asked.
    fn pass(
        &self,
        asked_at: &'static Location<'static>,
        writes: bool,
        moment: Moment,
    ) -> BoxFuture<'static, ()>;
}

pub(super) struct Inline {
    disk: Disk,
    gate: Arc<dyn Gate>,
}

impl Inline {
    pub(super) fn new(disk: Disk, gate: Arc<dyn Gate>) -> Self {
        Self { disk, gate }
    }

    pub(super) async fn write<T, F>(
        &self,
        asked_at: &'static Location<'static>,
        job: F,
    ) -> Result<T, StoreError>
    where
        F: FnOnce(&Connection, &mut Kept) -> Result<T, StoreError>,
    {
        self.gate.pass(asked_at, true, Moment::Before).await;
        let done = {
            let connection = self.disk.connection();
            connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let done = job(&connection, &mut Kept::default());
            let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
            connection.prepare_cached(end)?.execute([])?;
            done
        };
        self.gate.pass(asked_at, true, Moment::After).await;
        done
    }

    pub(super) async fn read<T, F>(
        &self,
        asked_at: &'static Location<'static>,
        job: F,
    ) -> Result<T, StoreError>
    where
        F: FnOnce(&Connection) -> Result<T, StoreError>,
    {
        self.gate.pass(asked_at, false, Moment::Before).await;
        let done = job(&self.disk.connection());
        self.gate.pass(asked_at, false, Moment::After).await;
        done
    }
}
