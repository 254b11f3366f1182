//! The agent's disk in a simulation. Every operation is two awaits, before and after it takes effect, and the process
//! can die at each.

use std::sync::Arc;

use causeway_agent::storage::memory::MemoryStorage;
use causeway_agent::storage::{Batch, Op, Pair, Storage, StorageError, Table};
use futures_util::future::BoxFuture;

use super::world::{CANARY, Died, DiskFaults, Process, World, lock};

/// A disk of one process.
pub(super) struct SimStorage {
    pub(super) inner: MemoryStorage,
    pub(super) world: Arc<World>,
    pub(super) seat: usize,
    pub(super) process: Arc<Process>,
}

impl SimStorage {
    async fn pass(&self, what: &str, moment: &str) {
        self.process.alive().await;
        let point = format!("agent {what} {moment}");
        let slow_ms = {
            let mut seat = self.world.seat(self.seat);
            match strike(&self.world, &mut seat.faults, &point) {
                Strike::Dies => None,
                Strike::Passes { slow_ms } => Some(slow_ms),
            }
        };
        match slow_ms {
            None => {
                self.process.die();
                self.world.note(self.world.seats[self.seat].host, format_args!("dies at {point}"));
                self.world.process_died(Died::Agent(self.seat));
            }
            Some(0) => {}
            Some(slow_ms) => tokio::time::sleep(std::time::Duration::from_millis(slow_ms)).await,
        }
        self.process.alive().await;
    }
}

/// What a storage await meets.
pub(super) enum Strike {
    Dies,
    Passes { slow_ms: u64 },
}

/// Counts a storage await and looks what is meant to happen at it.
pub(super) fn strike(world: &World, faults: &mut DiskFaults, point: &str) -> Strike {
    let mut stats = lock(&world.stats);
    stats.point(point);
    match &mut faults.armed {
        Some(0) => {
            faults.armed = None;
            stats.crashed_at.insert(point.to_owned());
            return Strike::Dies;
        }
        Some(left) => *left -= 1,
        None => {}
    }
    let slow_ms = match faults.slow_ms {
        0 => 0,
        most => world.derived("slow", world.now_ms()) % most,
    };
    Strike::Passes { slow_ms }
}

/// The module or part of the agent a key belongs to.
fn scope(key: &[u8]) -> String {
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&key[..end]).into_owned()
}

fn describe(batch: &Batch) -> String {
    let mut parts: Vec<String> = batch
        .clone()
        .into_ops()
        .iter()
        .map(|op| match op {
            Op::Put(table, key, _) => format!("{}/{}", scope(key), table.name()),
            Op::Delete(table, key) | Op::DeletePrefix(table, key) => {
                format!("{}/-{}", scope(key), table.name())
            }
        })
        .collect();
    parts.sort();
    parts.dedup();
    format!("commit {}", parts.join("+"))
}

impl Storage for SimStorage {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), StorageError>> {
        let what = describe(&batch);
        for op in batch.clone().into_ops() {
            if let Op::Put(table, _, value) = op
                && value.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
            {
                self.world.violated(format!("a password is written to the agent's table {}", table.name()));
            }
        }
        Box::pin(async move {
            self.pass(&what, "before").await;
            let done = self.inner.commit(batch).await;
            self.world.note(self.world.seats[self.seat].host, format_args!("{what} {}", done.is_ok()));
            self.pass(&what, "after").await;
            done
        })
    }

    fn get(&self, table: Table, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Vec<u8>>, StorageError>> {
        Box::pin(async move {
            let what = format!("get {}/{}", scope(&key), table.name());
            self.pass(&what, "before").await;
            let found = self.inner.get(table, key).await;
            self.pass(&what, "after").await;
            found
        })
    }

    fn get_many(
        &self,
        table: Table,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Vec<u8>>>, StorageError>> {
        Box::pin(async move {
            let what = format!("get many {}", table.name());
            self.pass(&what, "before").await;
            let found = self.inner.get_many(table, keys).await;
            self.pass(&what, "after").await;
            found
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
            let what = format!("scan {}/{}", scope(&prefix), table.name());
            self.pass(&what, "before").await;
            let found = self.inner.scan(table, prefix, after, limit).await;
            self.pass(&what, "after").await;
            found
        })
    }
}
