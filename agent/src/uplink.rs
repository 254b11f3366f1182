//! The production [`CloudLink`]: leases and news over the channel, uploads over HTTP/2.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use causeway_protocol::channel::payload::{Notice, Payload, Progress};
use causeway_protocol::upload::UploadRequest;
use futures_util::future::BoxFuture;
use minidom::Element;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, IqError};
use crate::clock::Clock;
use crate::leases::Leases;
use crate::limits::{NEWS_MAX, NEWS_PACE, OUTBOX_RETRY_AFTER};
use crate::link::{CloudLink, LeaseGuard, LinkError, UploadSink};
use crate::upload::Uploads;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Uplink {
    channel: Channel,
    leases: Leases,
    uploads: Uploads,
    news: Arc<News>,
}

/// What people should know, waiting for a session. Of each subject only the latest waits.
#[derive(Default)]
struct News {
    waiting: Mutex<BTreeMap<(Topic, String), Element>>,
    more: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Notice,
    Progress,
}

impl Uplink {
    pub(crate) fn new(channel: Channel, leases: Leases, uploads: Uploads) -> Self {
        Self { channel, leases, uploads, news: Arc::default() }
    }

    /// Sends news for as long as the agent runs.
    pub(crate) async fn tell_until_stopped(&self, clock: Clock, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.tell(clock) => {}
        }
    }

    async fn tell(&self, clock: Clock) {
        loop {
            let more = self.news.more.notified();
            if self.channel.wait_online().await.is_err() {
                return;
            }
            let next = self.news.waiting().pop_first();
            let Some((key, element)) = next else {
                more.await;
                continue;
            };
            match self.channel.ask(element.clone()).await {
                Ok(_) => clock.sleep(NEWS_PACE).await,
                Err(IqError::Refused(error)) => {
                    tracing::warn!(error = %crate::channel::login::describe(&error), "The cloud does not want news");
                }
                Err(_) => {
                    self.news.waiting().entry(key).or_insert(element);
                    clock.sleep(OUTBOX_RETRY_AFTER).await;
                }
            }
        }
    }
}

impl News {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(Topic, String), Element>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: (Topic, String), element: Element) {
        let mut waiting = self.waiting();
        // Progress is worth less than notices and comes last in order.
        if waiting.len() >= NEWS_MAX && !waiting.contains_key(&key) {
            waiting.pop_last();
        }
        waiting.insert(key, element);
        self.more.notify_one();
    }
}

impl CloudLink for Uplink {
    fn lease(&self, resource: &str) -> BoxFuture<'_, Result<LeaseGuard, LinkError>> {
        let resource = resource.to_owned();
        Box::pin(async move { self.leases.acquire(&resource).await })
    }

    fn begin_upload(&self, request: UploadRequest) -> BoxFuture<'_, Result<Box<dyn UploadSink>, LinkError>> {
        Box::pin(self.uploads.begin(request))
    }

    fn progress(&self, progress: Progress) {
        self.news.put((Topic::Progress, progress.resource.clone()), progress.to_element());
    }

    fn notice(&self, notice: Notice) {
        let key = format!("{}\0{}", notice.code, notice.subject);
        self.news.put((Topic::Notice, key), notice.to_element());
    }

    fn online(&self) -> watch::Receiver<bool> {
        self.channel.online()
    }
}
