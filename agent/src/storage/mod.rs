//! What the agent must not forget: actions taken, reports not yet delivered, config, and what the cloud has of each
//! collection. Never a credential.
//!
//! [`Storage`] is a set of ordered tables with atomic batches. [`redb::RedbStorage`] is the real one, on a thread of
//! its own; [`memory::MemoryStorage`] can crash and can be full.

pub mod memory;
pub mod redb;
pub mod watched;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use thiserror::Error;

/// A table. Keys are ordered bytewise within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Schema version, machine binding, counters.
    Meta,
    /// Actions by id: what was asked, where it stands, what was reported.
    Inbox,
    /// Reports the cloud has not confirmed, by sequence number.
    Outbox,
    /// Desired config by module.
    Config,
    /// Collections: per object what the cloud has of it (a hash, never the object).
    Objects,
    /// Collections: membership edges the cloud has.
    Edges,
    /// Collections: further indexes, such as DN to id.
    Index,
    /// Collections: cursors, epochs.
    Cursors,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 8] = [
        Self::Meta,
        Self::Inbox,
        Self::Outbox,
        Self::Config,
        Self::Objects,
        Self::Edges,
        Self::Index,
        Self::Cursors,
    ];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Inbox => "inbox",
            Self::Outbox => "outbox",
            Self::Config => "config",
            Self::Objects => "objects",
            Self::Edges => "edges",
            Self::Index => "index",
            Self::Cursors => "cursors",
        }
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Changes that happen together or not at all, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<Op>,
    may_be_lost: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a value.
    Put(Table, Vec<u8>, Vec<u8>),
    /// Removes a value, if there is one.
    Delete(Table, Vec<u8>),
    /// Removes every value whose key begins so.
    DeletePrefix(Table, Vec<u8>),
}

impl Op {
    /// Whether it sets a value.
    pub fn is_put(&self) -> bool {
        matches!(self, Self::Put(..))
    }

    /// What it touches: the table, and the key or the beginning of the keys.
    pub fn place(&self) -> (Table, &[u8]) {
        match self {
            Self::Put(table, key, _) | Self::Delete(table, key) | Self::DeletePrefix(table, key) => {
                (*table, key)
            }
        }
    }
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.ops.push(Op::Put(table, key.into(), value.into()));
        self
    }

    /// Removes a value, if there is one.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.ops.push(Op::Delete(table, key.into()));
        self
    }

    /// Removes every value whose key begins with `prefix`.
    pub fn delete_prefix(&mut self, table: Table, prefix: impl Into<Vec<u8>>) -> &mut Self {
        self.ops.push(Op::DeletePrefix(table, prefix.into()));
        self
    }

    /// A crash may undo it, until a batch that is not of this kind has been committed: for what counts only together with
    /// such a batch, and need not wait for the disk.
    #[must_use]
    pub fn may_be_lost(self) -> Self {
        Self { may_be_lost: true, ..self }
    }

    /// Whether its commit returns only when it is on disk.
    pub fn is_durable(&self) -> bool {
        !self.may_be_lost
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The changes, in order.
    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }
}

/// Why nothing was stored or read.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The disk or the file refused.
    #[error("write the state file")]
    Write {
        /// What the store says.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The file cannot be read.
    #[error("read the state file")]
    Read {
        /// What the store says.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The storage thread has ended; the process is stopping.
    #[error("storage is closed")]
    Closed,
}

/// Ordered tables with atomic, durable batches. A read sees every batch whose commit has returned. Returned futures may
/// be dropped; a batch already handed over is still committed.
pub trait Storage: Send + Sync + 'static {
    /// Returns when every change of the batch is on disk, and with it those of every batch before it; for one that
    /// [may be lost](Batch::may_be_lost) when reads see it.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), StorageError>>;

    /// One value.
    fn get(&self, table: Table, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Vec<u8>>, StorageError>>;

    /// Many values in one round trip, in the order of `keys`.
    fn get_many(
        &self,
        table: Table,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StorageError>>;

    /// At most `limit` pairs whose keys begin with `prefix`, in key order, from behind `after`.
    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Pair>, StorageError>>;
}

/// The part of a storage that belongs to one module: every key is prefixed with its kind, so modules cannot meet.
pub struct Scoped {
    inner: Arc<dyn Storage>,
    prefix: Vec<u8>,
}

impl Scoped {
    /// The part named `scope`; must not contain NUL.
    pub fn new(inner: Arc<dyn Storage>, scope: &str) -> Self {
        let mut prefix = scope.as_bytes().to_vec();
        prefix.push(0);
        Self { inner, prefix }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }
}

impl Storage for Scoped {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), StorageError>> {
        let may_be_lost = batch.may_be_lost;
        let ops = batch
            .into_ops()
            .into_iter()
            .map(|op| match op {
                Op::Put(table, key, value) => Op::Put(table, self.key(&key), value),
                Op::Delete(table, key) => Op::Delete(table, self.key(&key)),
                Op::DeletePrefix(table, prefix) => Op::DeletePrefix(table, self.key(&prefix)),
            })
            .collect();
        self.inner.commit(Batch { ops, may_be_lost })
    }

    fn get(&self, table: Table, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Vec<u8>>, StorageError>> {
        self.inner.get(table, self.key(&key))
    }

    fn get_many(
        &self,
        table: Table,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StorageError>> {
        self.inner.get_many(table, keys.iter().map(|key| self.key(key)).collect())
    }

    fn scan(
        &self,
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Pair>, StorageError>> {
        let cut = self.prefix.len();
        let scan = self.inner.scan(table, self.key(&prefix), after.map(|key| self.key(&key)), limit);
        Box::pin(async move {
            let mut pairs = scan.await?;
            for (key, _) in &mut pairs {
                key.drain(..cut);
            }
            Ok(pairs)
        })
    }
}
