//! The state file: `redb` on a thread of its own, because its calls block, with one fsync for many batches.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use futures_util::future::BoxFuture;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, TableDefinition, TableError,
    WriteTransaction,
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::{Batch, Op, Pair, Storage, StorageError, Table};
use crate::limits::{STORAGE_CACHE_BYTES, STORAGE_GROUP_MAX, STORAGE_QUEUE_MAX};
use crate::platform::set_aside;

/// The file's name in the data directory.
pub const FILE_NAME: &str = "state.redb";

/// Who has the state file open, beside it. Says nothing once the file is free: the file's own lock decides.
pub const PID_FILE_NAME: &str = "agent.pid";

/// Version of the tables' content. A newer file is refused, an older one would be migrated here.
pub const SCHEMA_VERSION: u32 = 1;

const VERSION_KEY: &[u8] = b"schema_version";
const MACHINE_KEY: &[u8] = b"machine";
const OWNER_KEY: &[u8] = b"owner";

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

type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

enum Job {
    Commit(Batch, Reply<()>),
    GetMany(Table, Vec<Vec<u8>>, Reply<Vec<Option<Vec<u8>>>>),
    Scan { table: Table, prefix: Vec<u8>, after: Option<Vec<u8>>, limit: usize, reply: Reply<Vec<Pair>> },
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

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

enum Trouble {
    Damaged(String),
    Refused(OpenError),
}

fn io_error(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> OpenError {
    OpenError::Io { path: path.to_owned(), source: Arc::new(source) }
}

/// Begins a file where the last one was just set aside.
fn open_new(path: &Path, machine: &str) -> Result<Database, OpenError> {
    open_checked(path, machine).map_err(|trouble| match trouble {
        Trouble::Damaged(what) => io_error(path, std::io::Error::other(what)),
        Trouble::Refused(error) => error,
    })
}

/// Makes sure that the file is this owner's; gives the new file, and where the other owner's is.
fn owned(
    database: Database,
    path: &Path,
    machine: &str,
    owner: &str,
) -> Result<(Database, Option<PathBuf>), OpenError> {
    let failed = |error: redb::Error| io_error(path, error);
    let found = read_one(&database, OWNER_KEY).map_err(failed)?;
    if found.as_deref() == Some(owner.as_bytes()) {
        return Ok((database, None));
    }
    if found.is_none() {
        write_owner(&database, owner).map_err(failed)?;
        return Ok((database, None));
    }
    // Windows renames no file that is open.
    drop(database);
    let aside = set_aside(path, "former").map_err(|source| io_error(path, source))?;
    tracing::warn!(kept = %aside.display(), "The state file is of an earlier enrolment; it is kept aside and a new one begun");
    let database = open_new(path, machine)?;
    write_owner(&database, owner).map_err(failed)?;
    Ok((database, Some(aside)))
}

fn write_owner(database: &Database, owner: &str) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.open_table(definition(Table::Meta))?.insert(OWNER_KEY, owner.as_bytes())?;
    write.commit()?;
    Ok(())
}

/// Whether a process has the state file of a data directory open; none when that cannot be told, as before there is one.
pub fn is_open(data_dir: &Path) -> Option<bool> {
    let file = fs::File::open(data_dir.join(FILE_NAME)).ok()?;
    // The library's own lock, wanted for the moment of asking only: it is gone with the handle.
    match file.try_lock_shared() {
        Ok(()) => Some(false),
        Err(fs::TryLockError::WouldBlock) => Some(true),
        Err(fs::TryLockError::Error(_)) => None,
    }
}

fn open_checked(path: &Path, machine: &str) -> Result<Database, Trouble> {
    // The library takes an empty file for one to begin; we begin only where there is none, so this one has lost
    // everything.
    if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        return Err(Trouble::Damaged("it is empty".to_owned()));
    }
    // The library checks checksums but may still panic on a file it did not write; a panic here is damage too.
    let owned = path.to_owned();
    let opened = std::thread::spawn(move || {
        let mut builder = Builder::new();
        builder.set_cache_size(STORAGE_CACHE_BYTES).set_check_integrity_on_open(true);
        builder.create(&owned)
    })
    .join();
    let database = match opened {
        Ok(Ok(database)) => database,
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
            return Err(Trouble::Refused(OpenError::InUse { path: path.to_owned(), held_by: holder(path) }));
        }
        Ok(Err(DatabaseError::Storage(redb::StorageError::Io(error))))
            if error.kind() != std::io::ErrorKind::InvalidData
                && error.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            return Err(Trouble::Refused(io_error(path, error)));
        }
        Ok(Err(error)) => return Err(Trouble::Damaged(error.to_string())),
        Err(_) => return Err(Trouble::Damaged("reading it panicked".to_owned())),
    };
    restrict(path).map_err(|source| Trouble::Refused(io_error(path, source)))?;
    check_origin(&database, path, machine)?;
    // Only a word for people, so a disk that refuses it stops nobody.
    let pid_file = path.with_file_name(PID_FILE_NAME);
    let _ = fs::write(&pid_file, std::process::id().to_string());
    let _ = crate::platform::hand_over(&pid_file);
    Ok(database)
}

/// Who has the state file, by its own word.
fn holder(path: &Path) -> Option<u32> {
    fs::read_to_string(path.with_file_name(PID_FILE_NAME)).ok()?.trim().parse().ok()
}

/// Reads who wrote the file; signs a new one.
fn check_origin(database: &Database, path: &Path, machine: &str) -> Result<(), Trouble> {
    let damaged = |error: redb::Error| Trouble::Damaged(error.to_string());
    let version = read_one(database, VERSION_KEY).map_err(damaged)?;
    let Some(version) = version else {
        return sign(database, machine).map_err(|error| Trouble::Refused(io_error(path, error)));
    };
    let found = version
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| Trouble::Damaged("its version is unreadable".to_owned()))?;
    if found > SCHEMA_VERSION {
        return Err(Trouble::Refused(OpenError::Newer { path: path.to_owned(), found }));
    }
    let owner = read_one(database, MACHINE_KEY).map_err(damaged)?.unwrap_or_default();
    if owner != machine.as_bytes() {
        return Err(Trouble::Refused(OpenError::OtherMachine { path: path.to_owned() }));
    }
    Ok(())
}

fn read_one(database: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
    let read = database.begin_read()?;
    match read.open_table(definition(Table::Meta)) {
        Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn sign(database: &Database, machine: &str) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(definition(Table::Meta))?;
        meta.insert(VERSION_KEY, SCHEMA_VERSION.to_be_bytes().as_slice())?;
        meta.insert(MACHINE_KEY, machine.as_bytes())?;
    }
    for table in Table::ALL {
        write.open_table(definition(table))?;
    }
    write.commit()?;
    Ok(())
}

#[cfg(unix)]
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    crate::platform::hand_over(path)
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// The open file. After an I/O error (a full disk) the library refuses everything until the file is opened again, so it
/// is closed then and opened again for the next job.
struct Keeper {
    path: PathBuf,
    machine: String,
    current: Current,
    /// Who has committed batches that may be lost since the last durable commit.
    afloat: BTreeSet<Vec<u8>>,
    /// Whose batches were lost with the error, while the process lives on: their next commit fails, because it may build
    /// on what is gone.
    bereft: BTreeSet<Vec<u8>>,
}

impl Keeper {
    fn new(path: PathBuf, machine: String, current: Current) -> Self {
        let (afloat, bereft) = (BTreeSet::new(), BTreeSet::new());
        Self { path, machine, current, afloat, bereft }
    }

    /// Takes out the batches of those who lost what came before.
    fn refuse_bereft(&mut self, group: &mut Vec<(Batch, Reply<()>)>) {
        let refused = group.extract_if(.., |(batch, _)| self.bereft.remove(owner(batch)));
        for (_, reply) in refused {
            let lost =
                std::io::Error::other("what was written just before was lost with an error of the disk");
            let _ = reply.send(Err(StorageError::Write { source: Arc::new(lost) }));
        }
    }

    fn commit(&mut self, batches: Vec<Batch>) -> Result<(), Cause> {
        let durable = batches.iter().any(Batch::is_durable);
        let owners: Vec<Vec<u8>> = batches.iter().map(|batch| owner(batch).to_vec()).collect();
        self.with(|database| commit(database, batches, durable))?;
        if durable {
            self.afloat.clear();
        } else {
            self.afloat.extend(owners);
        }
        Ok(())
    }

    fn with<T>(&mut self, job: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, Cause> {
        let is_closed = self.current.read().unwrap_or_else(PoisonError::into_inner).is_none();
        if is_closed {
            let database = self.open_again()?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
        }
        let result = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            job(current.as_ref().expect("only this thread closes the file"))
        };
        if matches!(&result, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            self.bereft.append(&mut self.afloat);
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result.map_err(|error| Arc::new(error) as Cause)
    }

    fn open_again(&self) -> Result<Database, Cause> {
        let database = open_checked(&self.path, &self.machine).map_err(|trouble| match trouble {
            Trouble::Damaged(what) => Arc::new(std::io::Error::other(what)) as Cause,
            Trouble::Refused(error) => Arc::new(error) as Cause,
        })?;
        tracing::info!(path = %self.path.display(), "The state file is open again");
        Ok(database)
    }
}

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// The thread: reads are answered at once from what is committed, commits are gathered.
fn serve(mut keeper: Keeper, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        let mut group = Vec::new();
        let mut next = Some(job);
        while let Some(job) = next.take() {
            match job {
                Job::Commit(batch, reply) => group.push((batch, reply)),
                Job::GetMany(table, keys, reply) => {
                    let found = keeper.with(|database| get_many(database, table, &keys));
                    let _ = reply.send(found.map_err(read_failed));
                }
                Job::Scan { table, prefix, after, limit, reply } => {
                    let found =
                        keeper.with(|database| scan(database, table, &prefix, after.as_deref(), limit));
                    let _ = reply.send(found.map_err(read_failed));
                }
            }
            if group.len() < STORAGE_GROUP_MAX {
                next = queue.try_recv().ok();
            }
        }
        if !group.is_empty() {
            commit_group(&mut keeper, group);
        }
    }
}

fn read_failed(source: Cause) -> StorageError {
    StorageError::Read { source }
}

fn commit_group(keeper: &mut Keeper, mut group: Vec<(Batch, Reply<()>)>) {
    keeper.refuse_bereft(&mut group);
    let (batches, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
    let result = keeper.commit(batches).map_err(|source| StorageError::Write { source });
    for reply in replies {
        // Whoever has stopped waiting has its batch committed all the same.
        let _ = reply.send(result.clone());
    }
}

/// The part of the agent a batch belongs to, by the prefix of its first key (see [`super::Scoped`]).
fn owner(batch: &Batch) -> &[u8] {
    let key = batch.ops.first().map_or(&[][..], |op| op.place().1);
    key.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn commit(database: &Database, batches: Vec<Batch>, durable: bool) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    if !durable {
        write.set_durability(Durability::None)?;
    }
    let mut tables = Tables { write: &write, open: BTreeMap::new() };
    let mut ops: Vec<Op> = batches.into_iter().flat_map(Batch::into_ops).collect();
    // Neighbours in the tree one after the other, so that a page is found and copied once. Stable: of two values for
    // one key the later one wins, as it would in the order given.
    for run in ops.chunk_by_mut(|one, next| one.is_put() == next.is_put()) {
        if run.first().is_some_and(Op::is_put) {
            run.sort_by(|one, other| one.place().cmp(&other.place()));
        }
    }
    for op in ops {
        tables.apply(op)?;
    }
    drop(tables);
    write.commit()?;
    Ok(())
}

type OpenTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// The tables of one transaction, each opened once.
struct Tables<'t> {
    write: &'t WriteTransaction,
    open: BTreeMap<Table, OpenTable<'t>>,
}

impl<'t> Tables<'t> {
    fn table(&mut self, table: Table) -> Result<&mut OpenTable<'t>, redb::Error> {
        Ok(match self.open.entry(table) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(closed) => closed.insert(self.write.open_table(definition(table))?),
        })
    }

    fn apply(&mut self, op: Op) -> Result<(), redb::Error> {
        match op {
            Op::Put(table, key, value) => {
                self.table(table)?.insert(key.as_slice(), value.as_slice())?;
            }
            Op::Delete(table, key) => {
                self.table(table)?.remove(key.as_slice())?;
            }
            Op::DeletePrefix(table, prefix) => {
                let end = prefix_end(&prefix);
                let bounds = (
                    Bound::Included(prefix.as_slice()),
                    end.as_deref().map_or(Bound::Unbounded, Bound::Excluded),
                );
                self.table(table)?.retain_in::<&[u8], _>(bounds, |_, _| false)?;
            }
        }
        Ok(())
    }
}

/// The first key behind every key that begins with `prefix`; none when there is no such key.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn get_one(database: &Database, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
    let table = database.begin_read()?.open_table(definition(table))?;
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

fn get_many(
    database: &Database,
    table: Table,
    keys: &[Vec<u8>],
) -> Result<Vec<Option<Vec<u8>>>, redb::Error> {
    let read = database.begin_read()?;
    let table = read.open_table(definition(table))?;
    keys.iter().map(|key| Ok(table.get(key.as_slice())?.map(|value| value.value().to_vec()))).collect()
}

fn scan(
    database: &Database,
    table: Table,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, redb::Error> {
    let read = database.begin_read()?;
    let table = read.open_table(definition(table))?;
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let end = prefix_end(prefix);
    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    // A start behind the end would panic in the library.
    if let (Bound::Excluded(start), Bound::Excluded(end)) = (start, end)
        && start >= end
    {
        return Ok(Vec::new());
    }
    table
        .range::<&[u8]>((start, end))?
        .take(limit)
        .map(|pair| {
            let (key, value) = pair?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: &str) -> Batch {
        let mut batch = Batch::new();
        batch.put(Table::Objects, key.as_bytes(), b"value");
        batch
    }

    fn committed(keeper: &mut Keeper, batches: Vec<Batch>) -> Vec<bool> {
        let (group, answers): (Vec<_>, Vec<_>) = batches
            .into_iter()
            .map(|batch| {
                let (reply, answer) = oneshot::channel();
                ((batch, reply), answer)
            })
            .unzip();
        commit_group(keeper, group);
        answers.into_iter().map(|mut answer| answer.try_recv().unwrap().is_ok()).collect()
    }

    fn has(keeper: &mut Keeper, key: &str) -> bool {
        let found = keeper.with(|database| get_many(database, Table::Objects, &[key.as_bytes().to_vec()]));
        found.unwrap()[0].is_some()
    }

    #[test]
    fn nobody_builds_on_what_an_error_of_the_disk_took_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let Ok(database) = open_checked(&path, "m") else { panic!("a new file opens") };
        let current = Current::new(RwLock::new(Some(database)));
        let mut keeper = Keeper::new(path, "m".to_owned(), current);
        assert_eq!(committed(&mut keeper, vec![batch("scan\0kept").may_be_lost()]), [true]);
        assert_eq!(committed(&mut keeper, vec![batch("other\0a")]), [true]);
        assert_eq!(committed(&mut keeper, vec![batch("scan\0lost").may_be_lost()]), [true]);
        assert!(has(&mut keeper, "scan\0lost"), "reads see it");
        let full = || redb::Error::Io(std::io::ErrorKind::StorageFull.into());
        assert!(keeper.with(|_| Err::<(), _>(full())).is_err());
        let both = vec![batch("other\0b"), batch("scan\0state")];
        assert_eq!(committed(&mut keeper, both), [true, false], "its ground is gone");
        assert!(has(&mut keeper, "scan\0kept"), "a durable commit takes along what came before");
        assert!(!has(&mut keeper, "scan\0state"));
        assert_eq!(committed(&mut keeper, vec![batch("scan\0state")]), [true], "told once");
    }

    #[tokio::test]
    async fn a_row_is_read_at_once_and_by_the_thread_after_the_file_was_closed() {
        let folder = tempfile::tempdir().unwrap();
        let Ok(Opened { storage, thread, .. }) = RedbStorage::open(folder.path(), "m") else {
            panic!("a new file opens")
        };
        storage.commit(batch("scan\0kept").may_be_lost()).await.unwrap();
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
