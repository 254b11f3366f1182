//! What a module can ask of the cloud. In production the channel and HTTP/2 answer; in tests a sink in memory.

use std::future::Future;
use std::time::Duration;

use causeway_protocol::channel::payload::{Notice, Progress};
use causeway_protocol::record::Record;
use causeway_protocol::upload::{Committed, UploadRequest};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The cloud, as a module sees it.
pub trait CloudLink: Send + Sync + 'static {
    /// Becomes the one collector of a resource. Waits politely until granted; ends early only when the agent stops.
    fn lease(&self, resource: &str) -> BoxFuture<'_, Result<LeaseGuard, LinkError>>;

    /// Opens an upload.
    fn begin_upload(&self, request: UploadRequest) -> BoxFuture<'_, Result<Box<dyn UploadSink>, LinkError>>;

    /// Tells how a collection goes. Never blocks; of each resource only the latest news travels.
    fn progress(&self, progress: Progress);

    /// Tells a person something. Never blocks; of each (code, subject) only the latest waits.
    fn notice(&self, notice: Notice);

    /// Whether a session with the cloud is up.
    fn online(&self) -> watch::Receiver<bool>;
}

/// An open upload. Dropping it is the same as [`UploadSink::abort`].
pub trait UploadSink: Send {
    /// Adds a record. Full batches are compressed and sent beside the caller; waits only while as many are on their
    /// way as the cloud allows. A cut link is waited out.
    fn push(&mut self, record: Record) -> BoxFuture<'_, Result<(), LinkError>>;

    /// Sends the rest and makes it count. When this returns, the cloud has it for good.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Committed, LinkError>>;

    /// Gives up; the cloud forgets what it got.
    fn abort(self: Box<Self>);
}

/// The right to act on a resource while it is not lost. Dropping it returns the lease.
#[derive(Debug)]
pub struct LeaseGuard {
    resource: String,
    fence: u64,
    lost: CancellationToken,
    _returned: DropGuard,
}

impl LeaseGuard {
    /// For implementers of [`CloudLink`]: cancel `lost` when the lease ends; `returned` is cancelled when the holder
    /// drops the guard.
    pub fn new(resource: String, fence: u64, lost: CancellationToken, returned: CancellationToken) -> Self {
        Self { resource, fence, lost, _returned: returned.drop_guard() }
    }

    /// What is leased.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Goes into every upload and report made under this lease.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Whether the lease has ended.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Ends when the lease is lost; the holder must stop acting at once.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + use<> {
        self.lost.clone().cancelled_owned()
    }
}

/// Why the cloud did not do what a module asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
    /// No session, for longer than the operation waits.
    #[error("not connected to the cloud")]
    Offline,
    /// The cloud has as many uploads as it takes.
    #[error("the cloud asks to come back in {} ms", .retry_after.as_millis())]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The delta builds on an epoch the cloud does not have: send a snapshot.
    #[error("the cloud does not have the state this delta builds on")]
    BaseMismatch,
    /// The lease has passed to another agent.
    #[error("the lease has passed to another agent")]
    StaleFence,
    /// The snapshot would delete more than the cloud's guard allows.
    #[error("the cloud holds the snapshot back: {detail}")]
    MassDelete {
        /// What the cloud says, with figures.
        detail: String,
    },
    /// One record is larger than a batch may carry.
    #[error("record {key} has {bytes} bytes, the limit is {limit}")]
    RecordTooLarge {
        /// The record's key.
        key: String,
        /// Its size as JSON.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The cloud does not know the upload any more.
    #[error("the cloud does not know the upload any more")]
    UploadGone,
    /// The cloud refuses, and repeating does not help.
    #[error("the cloud refuses: {detail}")]
    Refused {
        /// The stanza error condition or HTTP status.
        condition: String,
        /// What the cloud says.
        detail: String,
    },
    /// The cloud did not answer in time, or in a way we do not understand.
    #[error("no usable answer from the cloud to {operation}: {detail}")]
    NoAnswer {
        /// What was asked.
        operation: &'static str,
        /// What came instead.
        detail: String,
    },
}

/// No cloud at all: for the doctor, which tries modules without a session.
#[derive(Debug)]
pub struct Detached(watch::Sender<bool>);

impl Default for Detached {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl CloudLink for Detached {
    fn lease(&self, _: &str) -> BoxFuture<'_, Result<LeaseGuard, LinkError>> {
        Box::pin(async { Err(LinkError::Offline) })
    }

    fn begin_upload(&self, _: UploadRequest) -> BoxFuture<'_, Result<Box<dyn UploadSink>, LinkError>> {
        Box::pin(async { Err(LinkError::Offline) })
    }

    fn progress(&self, _: Progress) {}

    fn notice(&self, _: Notice) {}

    fn online(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}
