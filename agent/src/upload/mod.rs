//! Collections on their way up: batches of records over HTTP/2, each sent until the cloud has it, the whole committed
//! once. The wire is described in `causeway_protocol::upload`.

mod batch;
mod http;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use causeway_protocol::channel::backoff::Backoff;
use causeway_protocol::record::Record;
use causeway_protocol::upload::{
    BASE_PATH, BATCH_MEDIA_TYPE, CREDITS_HEADER, Commit, Committed, UploadGrant, UploadRequest,
};
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use self::batch::{Builder, Lines, Packed, Packer};
use self::http::{Http, HttpError, Response};
use crate::chain::Chain;
use crate::channel::{Channel, IqError, login};
use crate::clock::Clock;
use crate::cloud::CloudConnector;
use crate::limits::{
    UPLOAD_BACKOFF_CAP, UPLOAD_BACKOFF_FROM, UPLOAD_BUSY_AFTER, UPLOAD_CREDITS_MAX, UPLOAD_OUTAGE_MAX,
    UPLOAD_RETRY_AFTER_MAX,
};
use crate::link::{LinkError, UploadSink};
use crate::random::RandomSource;

/// Opens uploads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Uploads {
    channel: Channel,
    http: Arc<Http>,
    clock: Clock,
    random: RandomSource,
    stop: CancellationToken,
}

impl Uploads {
    pub(crate) fn new(
        channel: Channel,
        connector: Arc<CloudConnector>,
        clock: Clock,
        random: RandomSource,
        stop: CancellationToken,
    ) -> Self {
        Self { channel, http: Arc::new(Http::new(connector)), clock, random, stop }
    }

    /// Asks the cloud for an upload; waits a while when it is busy or out of reach.
    pub(crate) async fn begin(&self, request: UploadRequest) -> Result<Box<dyn UploadSink>, LinkError> {
        let give_up = self.clock.now() + UPLOAD_OUTAGE_MAX;
        let grant: UploadGrant = loop {
            let asked = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(LinkError::Stopping),
                () = tokio::time::sleep_until(give_up) => return Err(LinkError::Offline),
                asked = self.ask(&request) => asked,
            };
            match asked {
                Ok(grant) => break grant,
                Err(error) => {
                    let wait = match granted_later(error)? {
                        Some(wait) => wait,
                        None => UPLOAD_BUSY_AFTER,
                    };
                    if self.clock.now() + wait > give_up {
                        return Err(LinkError::Busy { retry_after: wait });
                    }
                    self.clock.sleep(wait).await;
                }
            }
        };
        tracing::info!(upload = grant.upload, epoch = grant.epoch, source = request.source, "Upload begun");
        let credits = grant.credits.clamp(1, UPLOAD_CREDITS_MAX);
        Ok(Box::new(Upload {
            wire: Arc::new(Wire { uploads: self.clone(), grant, credits: AtomicU32::new(credits) }),
            builder: Builder::default(),
            packer: Arc::default(),
            sending: JoinSet::new(),
            batches: 0,
            records: 0,
            failed: None,
        }))
    }

    async fn ask(&self, request: &UploadRequest) -> Result<UploadGrant, IqError> {
        self.channel.wait_online().await?;
        self.channel.ask_for(request).await
    }
}

/// What a refused grant means: an error, or how long to wait.
fn granted_later(error: IqError) -> Result<Option<Duration>, LinkError> {
    match error {
        IqError::Refused(error) => {
            let text = error.texts.values().next().map_or("", String::as_str);
            if text.contains("base_mismatch") {
                Err(LinkError::BaseMismatch)
            } else if text.contains("stale_fence") {
                Err(LinkError::StaleFence)
            } else if error.type_ == ErrorType::Wait
                || error.defined_condition == DefinedCondition::ResourceConstraint
            {
                Ok(retry_after(&error))
            } else {
                Err(LinkError::Refused {
                    condition: login::condition_name(&error),
                    detail: login::describe(&error),
                })
            }
        }
        error @ IqError::TooLarge { .. } => {
            Err(LinkError::NoAnswer { operation: "begin an upload", detail: error.to_string() })
        }
        IqError::Unusable(detail) => Err(LinkError::NoAnswer { operation: "begin an upload", detail }),
        IqError::Offline | IqError::Lost | IqError::TimedOut => Ok(None),
    }
}

fn retry_after(error: &StanzaError) -> Option<Duration> {
    let secs = error.other.as_ref()?.attr("after")?.parse().ok()?;
    Some(Duration::from_secs(secs).min(UPLOAD_RETRY_AFTER_MAX))
}

struct Upload {
    wire: Arc<Wire>,
    builder: Builder,
    packer: Arc<Mutex<Packer>>,
    sending: JoinSet<Result<(), LinkError>>,
    batches: u64,
    records: u64,
    failed: Option<LinkError>,
}

impl Upload {
    async fn add(&mut self, record: Record) -> Result<(), LinkError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let added = self.builder.add(&record);
        if let Some(full) = added? {
            self.send(full).await?;
        }
        self.records += 1;
        Ok(())
    }

    /// Hands a batch to a task of its own, as soon as the cloud allows one more on its way.
    async fn send(&mut self, lines: Lines) -> Result<(), LinkError> {
        while self.sending.len() >= self.wire.credits.load(Ordering::Relaxed) as usize {
            self.sent().await?;
        }
        let number = self.batches;
        self.batches += 1;
        let (wire, packer) = (self.wire.clone(), self.packer.clone());
        self.sending.spawn(async move {
            // Not where records are made: that goes on meanwhile.
            let packed = packer.lock().await.pack(lines);
            wire.send_batch(number, packed).await
        });
        Ok(())
    }

    /// Waits until one batch is with the cloud.
    async fn sent(&mut self) -> Result<(), LinkError> {
        let result = match self.sending.join_next().await {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) => Err(LinkError::Stopping),
        };
        result.inspect_err(|error| self.failed = Some(error.clone()))
    }

    async fn finish(mut self) -> Result<Committed, LinkError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Some(last) = self.builder.take() {
            self.send(last).await?;
        }
        while !self.sending.is_empty() {
            self.sent().await?;
        }
        let commit = Commit { batches: self.batches, records: self.records };
        let committed = self.wire.commit(&commit).await?;
        tracing::info!(
            upload = self.wire.grant.upload,
            epoch = committed.epoch,
            count = self.records,
            "Upload committed"
        );
        Ok(committed)
    }
}

impl UploadSink for Upload {
    fn push(&mut self, record: Record) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.add(record))
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Committed, LinkError>> {
        Box::pin(self.finish())
    }

    fn abort(mut self: Box<Self>) {
        self.sending.abort_all();
    }
}

/// One upload's way to the cloud.
struct Wire {
    uploads: Uploads,
    grant: UploadGrant,
    credits: AtomicU32,
}

/// What to do after an answer.
enum Verdict {
    Done,
    Again { after: Option<Duration> },
    Failed(LinkError),
}

impl Wire {
    async fn send_batch(&self, number: u64, packed: Packed) -> Result<(), LinkError> {
        let path = format!("{BASE_PATH}/{}/batches/{number}", self.grant.upload);
        let make = || {
            Request::builder()
                .method(Method::PUT)
                .uri(self.uploads.http.uri(&path))
                .header(header::CONTENT_TYPE, BATCH_MEDIA_TYPE)
                .header(header::CONTENT_ENCODING, "zstd")
                .header("content-digest", &packed.digest)
                .body(packed.body.clone())
                .expect("the parts are valid")
        };
        self.persist("send a batch", make).await.map(drop)
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed, LinkError> {
        let path = format!("{BASE_PATH}/{}/commit", self.grant.upload);
        let body = Bytes::from(serde_json::to_vec(commit).expect("a commit serialises to JSON"));
        let make = || {
            Request::builder()
                .method(Method::POST)
                .uri(self.uploads.http.uri(&path))
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.clone())
                .expect("the parts are valid")
        };
        let answer = self.persist("commit an upload", make).await?;
        self.uploads.http.rest();
        serde_json::from_slice(&answer.body)
            .map_err(|error| LinkError::NoAnswer { operation: "commit an upload", detail: error.to_string() })
    }

    /// Sends until there is a final answer, across cuts and restarts of the cloud, for at most [`UPLOAD_OUTAGE_MAX`]
    /// without any progress.
    async fn persist(
        &self,
        operation: &'static str,
        make: impl Fn() -> Request<Bytes>,
    ) -> Result<Response, LinkError> {
        let uploads = &self.uploads;
        let give_up = uploads.clock.now() + UPLOAD_OUTAGE_MAX;
        let mut backoff = Backoff::new(UPLOAD_BACKOFF_FROM, UPLOAD_BACKOFF_CAP);
        loop {
            let answer = tokio::select! {
                biased;
                () = uploads.stop.cancelled() => return Err(LinkError::Stopping),
                answer = uploads.http.send(make()) => answer,
            };
            let (verdict, said) = match &answer {
                Ok(response) => {
                    self.take_credits(&response.headers);
                    (judge(response), response.status.to_string())
                }
                Err(error) => (judge_error(error), Chain(error).to_string()),
            };
            let after = match (verdict, answer) {
                (Verdict::Done, Ok(response)) => return Ok(response),
                (Verdict::Failed(error), _) => return Err(error),
                (Verdict::Again { after }, _) => after,
                (Verdict::Done, Err(_)) => None,
            };
            let wait = after.unwrap_or_else(|| backoff.next(uploads.random.next_u64()));
            tracing::debug!(operation, error = said, delay_ms = wait.as_millis() as u64, "An upload waits");
            if uploads.clock.now() + wait > give_up {
                return Err(LinkError::Offline);
            }
            uploads.clock.sleep(wait).await;
        }
    }

    fn take_credits(&self, headers: &HeaderMap) {
        let credits = headers.get(CREDITS_HEADER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
        if let Some(credits) = credits {
            self.credits.store(credits.clamp(1, UPLOAD_CREDITS_MAX), Ordering::Relaxed);
        }
    }
}

fn judge(response: &Response) -> Verdict {
    let detail = || problem(response);
    let refused = |detail| {
        Verdict::Failed(LinkError::Refused { condition: response.status.as_u16().to_string(), detail })
    };
    match response.status {
        status if status.is_success() => Verdict::Done,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Verdict::Again { after: response.retry_after() }
        }
        status if status.is_server_error() => Verdict::Again { after: None },
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Verdict::Again { after: None },
        StatusCode::NOT_FOUND | StatusCode::GONE => Verdict::Failed(LinkError::UploadGone),
        StatusCode::PRECONDITION_FAILED => Verdict::Failed(LinkError::StaleFence),
        StatusCode::CONFLICT => {
            let detail = detail();
            if detail.contains("mass_delete") {
                Verdict::Failed(LinkError::MassDelete { detail })
            } else if detail.contains("base_mismatch") {
                Verdict::Failed(LinkError::BaseMismatch)
            } else {
                refused(detail)
            }
        }
        _ => refused(detail()),
    }
}

fn judge_error(error: &HttpError) -> Verdict {
    match error {
        HttpError::TooLong => {
            Verdict::Failed(LinkError::NoAnswer { operation: "upload", detail: error.to_string() })
        }
        _ => Verdict::Again { after: None },
    }
}

/// What a problem document (RFC 9457) says, its type's last word first; or the beginning of any other text.
fn problem(response: &Response) -> String {
    let text = String::from_utf8_lossy(&response.body);
    let Ok(document) = serde_json::from_str::<serde_json::Value>(&text) else {
        return login::shorten(&text);
    };
    let field = |name: &str| document.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    let parts = [field("type"), field("code"), field("title"), field("detail")];
    login::shorten(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "))
}
