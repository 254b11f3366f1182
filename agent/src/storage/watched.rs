//! Notices when the disk refuses, so that the agent can say so while it goes on.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{Batch, Pair, Storage, StorageError, Table};
use crate::chain::Chain;

/// Passes everything through and remembers how the last write went.
pub struct Watched {
    inner: Arc<dyn Storage>,
    trouble: watch::Sender<Option<String>>,
}

impl Watched {
    /// Watches a storage. The receiver holds why writing fails, while it does.
    pub fn new(inner: Arc<dyn Storage>) -> (Self, watch::Receiver<Option<String>>) {
        let (trouble, receiver) = watch::channel(None);
        (Self { inner, trouble }, receiver)
    }

    fn note(&self, result: &Result<(), StorageError>) {
        let now = match result {
            Ok(()) => None,
            Err(StorageError::Closed) => return,
            Err(error) => Some(Chain(error).to_string()),
        };
        self.trouble.send_if_modified(|was| {
            let changed = *was != now;
            *was = now;
            changed
        });
    }
}

impl Storage for Watched {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move {
            let result = self.inner.commit(batch).await;
            self.note(&result);
            result
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
