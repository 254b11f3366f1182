//! The store's threads: one writer with group commit, and the readers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::people::Kept;
use crate::limits::{GROUP_COMMIT_JOBS_MAX, STORE_QUEUE, STORE_READERS};

/// Told whether the commit worked; answers the caller.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Runs inside a savepoint. `Err` means: undo what this job wrote (the reply is sent all the same).
type Work = Box<dyn FnOnce(&Connection, &mut Kept) -> Result<Reply, Reply> + Send>;

/// What a write is answered after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Reads see it. The disk has it with the next write that waits for it.
    ForReads,
    /// It is on the disk.
    ForDisk,
}

struct WriteJob {
    work: Work,
    wait: Wait,
}

type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

pub(super) struct Writer {
    jobs: mpsc::Sender<WriteJob>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel(STORE_QUEUE);
        spawn("store-write", move || write_loop(&connection, queue))?;
        Ok(Self { jobs })
    }

    pub(super) async fn run<T, F>(&self, wait: Wait, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Kept) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let work: Work = Box::new(move |connection, kept| match job(connection, kept) {
            Ok(value) => Ok(Box::new(move |committed: Result<(), StoreError>| {
                // Nobody waits any more when the caller was cancelled; the write stands.
                let _ = answer.send(committed.map(|()| value));
            })),
            Err(error) => Err(Box::new(move |_committed| {
                let _ = answer.send(Err(error));
            })),
        });
        self.jobs.send(WriteJob { work, wait }).await.map_err(|_| StoreError::Gone)?;
        result.await.map_err(|_| StoreError::Gone)?
    }
}

fn write_loop(connection: &Connection, mut queue: mpsc::Receiver<WriteJob>) {
    let mut group = Vec::with_capacity(GROUP_COMMIT_JOBS_MAX);
    let mut kept = Kept::default();
    while let Some(first) = queue.blocking_recv() {
        group.push(first);
        while group.len() < GROUP_COMMIT_JOBS_MAX {
            let Ok(next) = queue.try_recv() else { break };
            group.push(next);
        }
        commit_group(connection, &mut kept, &mut group);
    }
}

fn commit_group(connection: &Connection, kept: &mut Kept, group: &mut Vec<WriteJob>) {
    // In WAL mode the one leaves the log to the next commit of the other kind.
    let for_disk = group.iter().any(|job| job.wait == Wait::ForDisk);
    let mode = if for_disk { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
    if let Err(error) = execute(connection, mode) {
        tracing::error!(%error, "Cannot choose how a store transaction is committed");
        group.clear();
        return;
    }
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        tracing::error!(%error, "Cannot begin a store transaction");
        // Dropping the jobs drops their answers: every caller sees `Gone`.
        group.clear();
        return;
    }
    let mut replies = Vec::with_capacity(group.len());
    for job in group.drain(..) {
        replies.extend(in_savepoint(connection, kept, job.work));
    }
    let committed = execute(connection, "COMMIT");
    if let Err(error) = &committed {
        tracing::error!(%error, writes = replies.len(), "Store commit failed, nothing of the group is kept");
        // After some errors SQLite has already rolled back by itself; then this one fails and that is fine.
        let _ = execute(connection, "ROLLBACK");
        *kept = Kept::default();
    }
    let reason = committed.err().map(|error| error.to_string());
    for reply in replies {
        reply(match &reason {
            None => Ok(()),
            Some(reason) => Err(StoreError::Commit { reason: reason.clone() }),
        });
    }
}

/// Runs one job so that its failure, even a panic, undoes only its own writes.
fn in_savepoint(connection: &Connection, kept: &mut Kept, job: Work) -> Option<Reply> {
    if let Err(error) = execute(connection, "SAVEPOINT job") {
        tracing::error!(%error, "Cannot set a savepoint");
        return None;
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| job(connection, kept)));
    if !matches!(outcome, Ok(Ok(_))) {
        *kept = Kept::default();
        let _ = execute(connection, "ROLLBACK TO job");
    }
    let _ = execute(connection, "RELEASE job");
    match outcome {
        Ok(Ok(reply) | Err(reply)) => Some(reply),
        Err(_panic) => {
            tracing::error!("A store job panicked and was undone");
            None
        }
    }
}

fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(|_| ())
}

pub(super) struct Readers {
    jobs: mpsc::Sender<ReadJob>,
}

impl Readers {
    pub(super) fn start(connect: impl Fn() -> Result<Connection, StoreError>) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel(STORE_QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..STORE_READERS {
            let connection = connect()?;
            let queue = Arc::clone(&queue);
            spawn(&format!("store-read-{n}"), move || read_loop(&connection, &queue))?;
        }
        Ok(Self { jobs })
    }

    pub(super) async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let boxed: ReadJob = Box::new(move |connection| {
            let _ = answer.send(job(connection));
        });
        self.jobs.send(boxed).await.map_err(|_| StoreError::Gone)?;
        result.await.map_err(|_| StoreError::Gone)?
    }
}

fn read_loop(connection: &Connection, queue: &Mutex<mpsc::Receiver<ReadJob>>) {
    loop {
        // The lock is held only while waiting: the next reader takes over as soon as a job is in hand.
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        if let Err(error) = execute(connection, "BEGIN") {
            tracing::error!(%error, "Cannot begin a read transaction");
            continue;
        }
        if catch_unwind(AssertUnwindSafe(|| job(connection))).is_err() {
            tracing::error!("A store query panicked");
        }
        let _ = execute(connection, "COMMIT");
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(|_| ())
        .map_err(|source| StoreError::Thread { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How the transaction a job runs in is committed: 1 is `NORMAL`, 2 is `FULL`.
    async fn synchronous(writer: &Writer, wait: Wait) -> i64 {
        let ask = |connection: &Connection, _: &mut Kept| {
            Ok(connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?)
        };
        writer.run(wait, ask).await.unwrap()
    }

    #[tokio::test]
    async fn only_who_asks_for_it_does_not_wait_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let connection = super::super::connect(&folder.path().join("store.db")).unwrap();
        let writer = Writer::start(connection).unwrap();
        for (wait, mode) in [(Wait::ForDisk, 2), (Wait::ForReads, 1), (Wait::ForReads, 1), (Wait::ForDisk, 2)]
        {
            assert_eq!(synchronous(&writer, wait).await, mode, "{wait:?}");
        }
    }
}
