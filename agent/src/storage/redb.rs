//! The state file: `redb` on a thread of its own, because its calls block, with one fsync for many batches.

mod file;
mod thread;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use redb::Database;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

pub use self::file::is_open;
use self::file::{Trouble, io_error, open_checked, open_new, owned};
use self::thread::{Job, Keeper, Reply, get_one, serve};
use super::{Batch, Pair, Storage, StorageError, Table};
use crate::limits::STORAGE_QUEUE_MAX;
use crate::platform::set_aside;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "state.redb";

/// Who has the state file open, beside it. Says nothing once the file is free: the file's own lock decides.
pub const PID_FILE_NAME: &str = "agent.pid";

/// Version of the tables' content. A newer file is refused, an older one would be migrated here.
pub const SCHEMA_VERSION: u32 = 1;

/// A handle to the storage thread. Clones share it; the thread ends with the last one.
#[derive(Clone)]
pub struct RedbStorage {
    /// Dropped before `jobs`, at whose end the thread closes the file.
    current: Current,
    jobs: mpsc::Sender<Job>,
}

/// The open file, which the thread alone opens and closes. Nobody holds the lock across an await.
type Current = Arc<RwLock<Option<Database>>>;

/// An opened state file.
pub struct Opened {
    /// The storage.
    pub storage: RedbStorage,
    /// Ends after the last handle is dropped and everything is on disk.
    pub thread: JoinHandle<()>,
    /// Where a damaged predecessor was kept, if there was one.
    pub set_aside: Option<PathBuf>,
    /// Where the file of an earlier enrolment was kept, if there was one.
    pub former: Option<PathBuf>,
}

/// Why the state file cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another agent{}; stop it, or give this one its own --data-dir", .path.display(), .held_by.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// Which file.
        path: PathBuf,
        /// The other's process id, where it could be read.
        held_by: Option<u32>,
    },
    /// A newer agent has written it.
    #[error("{} was written by a newer agent (schema {found}, this one knows {SCHEMA_VERSION}); install that version again", .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
    },
    /// It came from another machine: a copied disk or a restored backup would act twice under one name.
    #[error("{} belongs to another machine; enrol this machine with its own --data-dir", .path.display())]
    OtherMachine {
        /// Which file.
        path: PathBuf,
    },
    /// The disk refuses.
    #[error("open {}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the store says.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl RedbStorage {
    /// Opens or creates the state file of a data directory. A damaged file is renamed to `.corrupt-<n>` and a new one
    /// begun: everything in it can be had again from the cloud and the directory.
    ///
    /// # Errors
    /// When the file is in use, newer, another machine's, or the disk refuses.
    pub fn open(data_dir: &Path, machine: &str) -> Result<Opened, OpenError> {
        Self::open_as(data_dir, machine, None)
    }

    /// The same for the agent of one enrolment, `owner`. The file of another one is renamed to `.former-<n>` and a new one
    /// begun: its settings, reports and hashes are between that enrolment and its cloud. A file that names no owner yet
    /// becomes this one's.
    ///
    /// # Errors
    /// As [`RedbStorage::open`].
    pub fn open_for(data_dir: &Path, machine: &str, owner: &str) -> Result<Opened, OpenError> {
        Self::open_as(data_dir, machine, Some(owner))
    }

    fn open_as(data_dir: &Path, machine: &str, owner: Option<&str>) -> Result<Opened, OpenError> {
        let path = data_dir.join(FILE_NAME);
        let (database, set_aside) = match open_checked(&path, machine) {
            Ok(database) => (database, None),
            Err(Trouble::Damaged(what)) => {
                tracing::error!(error = %what, "The state file is damaged; it is kept aside and a new one begun");
                let aside = set_aside(&path, "corrupt").map_err(|source| io_error(&path, source))?;
                (open_new(&path, machine)?, Some(aside))
            }
            Err(Trouble::Refused(error)) => return Err(error),
        };
        let (database, former) = match owner {
            Some(owner) => owned(database, &path, machine, owner)?,
            None => (database, None),
        };
        let current = Current::new(RwLock::new(Some(database)));
        let (jobs, queue) = mpsc::channel(STORAGE_QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("storage".to_owned())
            .spawn({
                let keeper = Keeper::new(path.clone(), machine.to_owned(), Arc::clone(&current));
                move || serve(keeper, queue)
            })
            .map_err(|source| io_error(&path, source))?;
        Ok(Opened { storage: Self { current, jobs }, thread, set_aside, former })
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| StorageError::Closed)?;
        answer.await.map_err(|_| StorageError::Closed)?
    }

    /// One row as it is committed, without waiting for what the thread is writing: a few pages, most of them in memory.
    /// Nothing when the file is closed or refuses, which is the thread's to deal with.
    fn at_once(&self, table: Table, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        get_one(current.as_ref()?, table, key).ok()
    }
}

impl Storage for RedbStorage {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(self.ask(move |reply| Job::Commit(batch, reply)))
    }

    fn get(&self, table: Table, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Vec<u8>>, StorageError>> {
        Box::pin(async move {
            if let Some(found) = self.at_once(table, &key) {
                return Ok(found);
            }
            let found = self.ask(move |reply| Job::GetMany(table, vec![key], reply)).await?;
            Ok(found.into_iter().next().flatten())
        })
    }

    fn get_many(
        &self,
        table: Table,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StorageError>> {
        Box::pin(self.ask(move |reply| Job::GetMany(table, keys, reply)))
    }

    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Pair>, StorageError>> {
        Box::pin(self.ask(move |reply| Job::Scan { table, prefix, after, limit, reply }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_row_is_read_at_once_and_by_the_thread_after_the_file_was_closed() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(Opened { storage, thread, .. }) = RedbStorage::open(folder.path(), "m") else {
            panic!("a new file opens")
        };
        let mut batch = Batch::new();
        batch.put(Table::Objects, b"scan\0kept", b"value");
        storage.commit(batch.may_be_lost()).await.unwrap();
        assert_eq!(storage.at_once(Table::Objects, b"scan\0kept"), Some(Some(b"value".to_vec())));
        assert_eq!(storage.at_once(Table::Objects, b"scan\0none"), Some(None));
        *storage.current.write().unwrap() = None;
        assert_eq!(storage.at_once(Table::Objects, b"scan\0kept"), None);
        // What may be lost is on the disk when the file is closed in good order.
        let found = storage.get(Table::Objects, b"scan\0kept".to_vec()).await.unwrap();
        assert_eq!(found, Some(b"value".to_vec()), "the thread has opened it again");
        assert!(storage.at_once(Table::Objects, b"scan\0kept").is_some());
        drop(storage);
        thread.join().unwrap();
        assert!(RedbStorage::open(folder.path(), "m").is_ok(), "the file is free when the thread has ended");
    }
}
