//! A storage for tests and simulations: it can lose what was not committed, and it can be full.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::{Batch, Op, Pair, Storage, StorageError, Table};

type Tables = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Clones share the same content, as two openings of one file would.
#[derive(Clone, Default)]
pub struct MemoryStorage(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tables: Mutex<Tables>,
    /// What a crash leaves, where that is less: how everything was before the first batch that may be lost.
    on_disk: Mutex<Option<Tables>>,
    full: AtomicBool,
    crashed: AtomicBool,
    commits: AtomicU64,
}

impl MemoryStorage {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// While true, every commit fails as on a full disk; reads go on.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// The process dies here: this handle and its clones answer [`StorageError::Closed`] from now on. What was
    /// committed is in the returned storage, without what may be lost.
    pub fn crash(&self) -> Self {
        self.0.crashed.store(true, Ordering::SeqCst);
        let survivor = Self::default();
        *survivor.tables() = match self.on_disk().take() {
            Some(on_disk) => on_disk,
            None => self.tables().clone(),
        };
        survivor
    }

    /// Batches committed so far.
    pub fn commits(&self) -> u64 {
        self.0.commits.load(Ordering::SeqCst)
    }

    /// Everything in every table, for searching (the canary test) and comparing.
    pub fn dump(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        self.tables().iter().map(|((table, key), value)| (*table, key.clone(), value.clone())).collect()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_disk(&self) -> MutexGuard<'_, Option<Tables>> {
        self.0.on_disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Result<(), StorageError> {
        if self.0.crashed.load(Ordering::SeqCst) { Err(StorageError::Closed) } else { Ok(()) }
    }

    fn apply(&self, batch: Batch) -> Result<(), StorageError> {
        self.alive()?;
        if self.0.full.load(Ordering::SeqCst) {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(StorageError::Write { source: Arc::new(source) });
        }
        let mut tables = self.tables();
        if batch.is_durable() {
            *self.on_disk() = None;
        } else {
            self.on_disk().get_or_insert_with(|| tables.clone());
        }
        for op in batch.into_ops() {
            match op {
                Op::Put(table, key, value) => {
                    tables.insert((table, key), value);
                }
                Op::Delete(table, key) => {
                    tables.remove(&(table, key));
                }
                Op::DeletePrefix(table, prefix) => {
                    tables.retain(|(t, key), _| *t != table || !key.starts_with(&prefix));
                }
            }
        }
        self.0.commits.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn read<R>(&self, read: impl FnOnce(&Tables) -> R) -> Result<R, StorageError> {
        self.alive()?;
        Ok(read(&self.tables()))
    }
}

impl Storage for MemoryStorage {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move { self.apply(batch) })
    }

    fn get(&self, table: Table, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Vec<u8>>, StorageError>> {
        Box::pin(async move { self.read(|tables| tables.get(&(table, key)).cloned()) })
    }

    fn get_many(
        &self,
        table: Table,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StorageError>> {
        Box::pin(async move {
            self.read(|tables| keys.into_iter().map(|key| tables.get(&(table, key)).cloned()).collect())
        })
    }

    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Pair>, StorageError>> {
        Box::pin(async move {
            self.read(|tables| {
                tables
                    .range((table, prefix.clone())..)
                    .take_while(|((t, key), _)| *t == table && key.starts_with(&prefix))
                    .filter(|((_, key), _)| after.as_ref().is_none_or(|after| key > after))
                    .take(limit)
                    .map(|((_, key), value)| (key.clone(), value.clone()))
                    .collect()
            })
        })
    }
}

/// A storage in memory that commits only when it is let.
#[derive(Clone)]
pub struct Gated {
    /// Where to.
    pub inner: MemoryStorage,
    /// One permit for each batch.
    pub gate: Arc<Semaphore>,
}

impl Storage for Gated {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move {
            self.gate.acquire().await.expect("open").forget();
            self.inner.commit(batch).await
        })
    }

    fn get(&self, table: Table, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Vec<u8>>, StorageError>> {
        self.inner.get(table, key)
    }

    fn get_many(
        &self,
        table: Table,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StorageError>> {
        self.inner.get_many(table, keys)
    }

    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Pair>, StorageError>> {
        self.inner.scan(table, prefix, after, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_be_lost_survives_a_crash_only_with_a_durable_batch_behind_it() {
        let put = |key: &str| {
            let mut batch = Batch::new();
            batch.put(Table::Objects, key, "value");
            batch
        };
        let storage = MemoryStorage::new();
        storage.commit(put("a").may_be_lost()).await.unwrap();
        storage.commit(put("b")).await.unwrap();
        storage.commit(put("c").may_be_lost()).await.unwrap();
        assert_eq!(storage.dump().len(), 3, "reads see everything");
        let left: Vec<Vec<u8>> = storage.crash().dump().into_iter().map(|(_, key, _)| key).collect();
        assert_eq!(left, [b"a", b"b"]);
    }
}
