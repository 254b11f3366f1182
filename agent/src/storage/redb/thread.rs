//! The storage thread: reads are answered from what is committed, commits are gathered.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use redb::{Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::Current;
use super::file::{Trouble, open_checked};
use crate::limits::STORAGE_GROUP_MAX;
use crate::storage::{Batch, Op, Pair, StorageError, Table};

pub(super) type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

pub(super) enum Job {
    Commit(Batch, Reply<()>),
    GetMany(Table, Vec<Vec<u8>>, Reply<Vec<Option<Vec<u8>>>>),
    Scan { table: Table, prefix: Vec<u8>, after: Option<Vec<u8>>, limit: usize, reply: Reply<Vec<Pair>> },
}

pub(super) fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// The open file. After an I/O error (a full disk) the library refuses everything until the file is opened again, so it
/// is closed then and opened again for the next job.
pub(super) struct Keeper {
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
    pub(super) fn new(path: PathBuf, machine: String, current: Current) -> Self {
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
pub(super) fn serve(mut keeper: Keeper, mut queue: mpsc::Receiver<Job>) {
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

pub(super) fn get_one(database: &Database, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
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
    use std::sync::RwLock;

    use super::super::FILE_NAME;
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
}
