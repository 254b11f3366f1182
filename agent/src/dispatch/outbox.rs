//! Reports on their way to the cloud. A report leaves the outbox only when the cloud has it for good.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use causeway_protocol::action::{Report, Status};
use causeway_protocol::channel::payload::Payload;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use xmpp_parsers::stanza_error::ErrorType;

use super::inbox::{Inbox, Row};
use crate::chain::Chain;
use crate::channel::{Channel, IqError};
use crate::clock::Clock;
use crate::limits::{OUTBOX_IN_FLIGHT, OUTBOX_RETRY_AFTER, OUTBOX_WINDOW, STORAGE_PAGE};
use crate::storage::{Batch, Storage, StorageError, Table};

/// Cheap to clone.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    storage: Arc<dyn Storage>,
    next: AtomicU64,
    waiting: AtomicU64,
    fresh: mpsc::Sender<(u64, Report)>,
    queue: std::sync::Mutex<Option<mpsc::Receiver<(u64, Report)>>>,
    /// How pending actions stand, by their ids.
    news: std::sync::Mutex<BTreeMap<String, Report>>,
    more: Notify,
}

/// When the cloud is told that an action has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// Once that is on the disk.
    Stored,
    /// While the disk takes it: a crash in between leads to the same end again.
    AtOnce,
}

/// Numbers from here on name reports that are not in the state file.
const UNSTORED: u64 = 1 << 63;

impl Outbox {
    pub(super) async fn open(storage: Arc<dyn Storage>) -> Result<Self, StorageError> {
        let (mut waiting, mut next, mut after) = (0, 0, None);
        loop {
            let page = storage.scan(Table::Outbox, Vec::new(), after, STORAGE_PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            waiting += page.len() as u64;
            next = number(last).map_or(next, |number| number + 1);
            after = Some(last.clone());
        }
        let (fresh, queue) = mpsc::channel(OUTBOX_WINDOW);
        Ok(Self(Arc::new(Inner {
            storage,
            next: AtomicU64::new(next),
            waiting: AtomicU64::new(waiting),
            fresh,
            queue: std::sync::Mutex::new(Some(queue)),
            news: std::sync::Mutex::default(),
            more: Notify::new(),
        })))
    }

    /// Reports that the cloud does not have.
    pub fn waiting(&self) -> u64 {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Ends an action: its inbox row and its report, in one commit.
    pub(super) async fn finish(&self, inbox: &Inbox, row: &Row, tell: Tell) -> Result<(), StorageError> {
        if self.0.news().remove(&row.action.id).is_some() {
            self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        let mut batch = Batch::new();
        inbox.finish(row, &mut batch);
        match &row.report {
            Some(report) => self.store(batch, report.clone(), tell).await,
            None => self.0.storage.commit(batch).await,
        }
    }

    /// Tells how a pending action stands. Not stored: after a restart it is worked on again and says so by itself. Of
    /// several such reports that wait for the link only the newest is worth sending.
    pub(super) fn tell(&self, report: Report) {
        if self.0.news().insert(report.id.clone(), report).is_none() {
            self.0.waiting.fetch_add(1, Ordering::Relaxed);
        }
        self.0.more.notify_one();
    }

    /// What waits to be told of an action.
    #[cfg(test)]
    pub(super) fn told(&self, id: &str) -> Option<Report> {
        self.0.news().get(id).cloned()
    }

    pub(super) async fn send_again(&self, report: Report) -> Result<(), StorageError> {
        self.store(Batch::new(), report, Tell::Stored).await
    }

    /// For a report the disk refuses. Lost when the process ends before the cloud has it.
    pub(super) fn send_unstored(&self, report: Report) {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed) | UNSTORED;
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        if self.0.fresh.try_send((number, report)).is_err() {
            self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn store(&self, mut batch: Batch, report: Report, tell: Tell) -> Result<(), StorageError> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let bytes = serde_json::to_vec(&report).expect("reports serialise to JSON");
        batch.put(Table::Outbox, number.to_be_bytes(), bytes);
        let mut commit = self.0.storage.commit(batch);
        // Handed over before the report goes out, so that its row is there when it is to be forgotten.
        let committed = match (futures_util::poll!(&mut commit), tell) {
            (Poll::Ready(committed), _) => Some(committed),
            (Poll::Pending, Tell::Stored) => Some(commit.as_mut().await),
            (Poll::Pending, Tell::AtOnce) => None,
        };
        if let Some(committed) = committed {
            committed?;
            self.send(number, report);
            return Ok(());
        }
        self.send(number, report);
        commit.await
    }

    fn send(&self, number: u64, report: Report) {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        // When the queue is full the report is found in the state file later.
        let _ = self.0.fresh.try_send((number, report));
    }

    /// Delivers reports for as long as the agent runs. Runs once.
    pub async fn drain(&self, channel: Channel, clock: Clock, stop: CancellationToken) {
        let queue = self.0.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(fresh) = queue else { return };
        let mut drain = Drain {
            outbox: self.clone(),
            channel,
            clock,
            fresh,
            ready: BTreeMap::new(),
            sent: BTreeMap::new(),
            in_flight: FuturesUnordered::new(),
            delivered: BTreeSet::new(),
            pause_until: None,
            look: true,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = drain.run() => {}
        }
        drain.forget_delivered().await;
    }
}

impl Inner {
    fn news(&self) -> MutexGuard<'_, BTreeMap<String, Report>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Drain {
    outbox: Outbox,
    channel: Channel,
    clock: Clock,
    fresh: mpsc::Receiver<(u64, Report)>,
    ready: BTreeMap<u64, Report>,
    sent: BTreeMap<u64, Report>,
    in_flight: FuturesUnordered<BoxFuture<'static, (u64, Result<(), IqError>)>>,
    delivered: BTreeSet<u64>,
    pause_until: Option<Instant>,
    /// Whether the state file may hold reports that are not in memory.
    look: bool,
}

impl Drain {
    async fn run(&mut self) {
        loop {
            if self.look && self.ready.is_empty() && self.in_flight.is_empty() {
                self.load().await;
            }
            let paused = self.pause_until.is_some();
            if !paused && self.channel.wait_online().await.is_err() {
                return;
            }
            while !paused && self.in_flight.len() < OUTBOX_IN_FLIGHT {
                if let Some((number, report)) = self.ready.pop_first() {
                    self.send(number, report);
                    continue;
                }
                // How actions ended comes before how others stand.
                let news = if self.look { None } else { self.outbox.0.news().pop_first() };
                let Some((_, report)) = news else { break };
                let number = self.outbox.0.next.fetch_add(1, Ordering::Relaxed) | UNSTORED;
                self.send(number, report);
            }
            let wake = self.pause_until.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                Some((number, result)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.answered(number, result);
                    if self.delivered.len() >= OUTBOX_IN_FLIGHT || self.in_flight.is_empty() {
                        self.forget_delivered().await;
                    }
                }
                fresh = self.fresh.recv() => match fresh {
                    Some((number, report)) if self.ready.len() < OUTBOX_WINDOW => {
                        if !self.sent.contains_key(&number) {
                            self.ready.insert(number, report);
                        }
                    }
                    Some(_) => self.look = true,
                    None => return,
                },
                () = self.outbox.0.more.notified(), if !paused => {}
                () = sleep_until(wake), if paused => self.pause_until = None,
            }
        }
    }

    fn send(&mut self, number: u64, report: Report) {
        let (channel, element) = (self.channel.clone(), report.to_element());
        self.sent.insert(number, report);
        self.in_flight.push(Box::pin(async move { (number, channel.ask(element).await.map(drop)) }));
    }

    fn answered(&mut self, number: u64, result: Result<(), IqError>) {
        let Some(report) = self.sent.remove(&number) else { return };
        match result {
            Ok(()) => {
                self.delivered.insert(number);
            }
            Err(IqError::Refused(error)) if error.type_ != ErrorType::Wait => {
                tracing::warn!(id = report.id, error = %crate::channel::login::describe(&error), "The cloud does not want a report");
                self.delivered.insert(number);
            }
            Err(error) => {
                tracing::debug!(id = report.id, error = %error, "A report waits");
                if !matches!(error, IqError::Lost | IqError::Offline) {
                    self.pause(OUTBOX_RETRY_AFTER);
                }
                if report.status == Status::Pending && number >= UNSTORED {
                    self.tell_later(report);
                } else {
                    self.ready.insert(number, report);
                }
            }
        }
    }

    /// Unless there is something newer to be told.
    fn tell_later(&mut self, report: Report) {
        let inner = &self.outbox.0;
        match inner.news().entry(report.id.clone()) {
            Entry::Occupied(_) => {
                inner.waiting.fetch_sub(1, Ordering::Relaxed);
            }
            Entry::Vacant(free) => {
                free.insert(report);
            }
        }
    }

    fn pause(&mut self, span: Duration) {
        self.pause_until.get_or_insert(self.clock.now() + span);
    }

    async fn load(&mut self) {
        let storage = &self.outbox.0.storage;
        match storage.scan(Table::Outbox, Vec::new(), None, OUTBOX_WINDOW).await {
            Ok(page) => {
                self.look = page.len() == OUTBOX_WINDOW;
                for (key, value) in page {
                    let Some(number) = number(&key) else { continue };
                    match serde_json::from_slice(&value) {
                        Ok(report) => {
                            self.ready.insert(number, report);
                        }
                        Err(error) => {
                            tracing::error!(number, %error, "An outbox row is unreadable and dropped");
                            self.delivered.insert(number);
                        }
                    }
                }
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "The outbox cannot be read");
                self.pause(OUTBOX_RETRY_AFTER);
            }
        }
    }

    async fn forget_delivered(&mut self) {
        if self.delivered.is_empty() {
            return;
        }
        let mut batch = Batch::new();
        for number in self.delivered.iter().filter(|number| **number < UNSTORED) {
            batch.delete(Table::Outbox, number.to_be_bytes());
        }
        // Nothing waits for the disk: at worst they are delivered again after a restart, which changes nothing.
        if !batch.is_empty()
            && let Err(error) = self.outbox.0.storage.commit(batch.may_be_lost()).await
        {
            tracing::warn!(error = %Chain(&error), "Delivered reports could not be forgotten");
        }
        self.outbox.0.waiting.fetch_sub(self.delivered.len() as u64, Ordering::Relaxed);
        self.delivered.clear();
    }
}

fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}
