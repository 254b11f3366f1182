//! Live events as server-sent events, resumable by the number of the last one seen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{self, error::RecvError};
use utoipa::IntoParams;

use super::Problem;
use super::extract::{Params, Scope};
use super::problem::{Busy, Problems};
use crate::limits::EVENTS_PAGE;
use crate::state::Cloud;
use crate::store::Event;

/// A comment this often keeps proxies from cutting a quiet feed.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Where to begin.
#[derive(Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventQuery {
    /// Begin behind this event; the header `Last-Event-ID` wins over it. Without either: from now on
    after: Option<i64>,
}

/// Everything that happens in a tenant, as it happens
///
/// Each event has its number as `id`, its kind as `event`, and the whole as JSON in `data`.
#[utoipa::path(get, path = "/tenants/{tenant}/events", tag = "watching",
    params(("tenant" = String, Path), EventQuery,
           ("Last-Event-ID" = Option<i64>, Header, description = "Number of the last event seen")),
    responses((status = 200, content_type = "text/event-stream", body = Event), Problems, Busy))]
pub(super) async fn events(
    State(cloud): State<Arc<Cloud>>,
    Scope(tenant): Scope,
    Params(query): Params<EventQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let after = last_seen(&headers)?.or(query.after);
    live(cloud, tenant.id, after, frame, std::future::pending()).await
}

/// Number of the last event a reconnecting client saw.
///
/// # Errors
/// A `Last-Event-ID` that is not a number.
pub(crate) fn last_seen(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Problem::invalid("Last-Event-ID", "not the number of an event"))
}

/// Opens a feed behind `after`, or from now on; `frame` writes an event down. It ends when `over` does.
///
/// # Errors
/// Too many feeds.
pub(crate) async fn live(
    cloud: Arc<Cloud>,
    tenant: String,
    after: Option<i64>,
    frame: fn(&Event) -> sse::Event,
    over: impl Future<Output = ()> + Send + 'static,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let permit = Arc::clone(&cloud.feeds)
        .try_acquire_owned()
        .map_err(|_| Problem::busy("as many live feeds are open as this cloud serves"))?;
    // Subscribe before looking, so that nothing falls between the store and the live part.
    let live = cloud.events.subscribe();
    let seen = match after {
        Some(seen) => seen,
        None => cloud.store.last_event(&tenant).await?,
    };
    let feed = Feed { cloud, tenant, live, seen, behind: true, ready: Vec::new(), _permit: permit };
    let stream = unfold(feed, move |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok(frame(&event)), feed))
    });
    let stream = stream.take_until(over);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY)))
}

fn frame(event: &Event) -> sse::Event {
    let data = serde_json::to_string(event).expect("an event is plain JSON");
    sse::Event::default().id(event.seq.to_string()).event(&event.kind).data(data)
}

struct Feed {
    cloud: Arc<Cloud>,
    tenant: String,
    live: broadcast::Receiver<Arc<Event>>,
    /// Number of the last event handed out.
    seen: i64,
    /// Whether the store may hold events that were not handed out and will not come live.
    behind: bool,
    /// From the store, newest first.
    ready: Vec<Event>,
    _permit: OwnedSemaphorePermit,
}

impl Feed {
    /// The next event; `None` when the cloud stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop() {
                self.seen = event.seq;
                return Some(event);
            }
            if self.behind {
                self.catch_up().await?;
                continue;
            }
            let received = tokio::select! {
                biased;
                () = self.cloud.kit.stop.cancelled() => return None,
                received = self.live.recv() => received,
            };
            match received {
                Ok(event) if event.tenant == self.tenant && event.seq > self.seen => {
                    self.seen = event.seq;
                    return Some((*event).clone());
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    async fn catch_up(&mut self) -> Option<()> {
        let stored = self.cloud.store.events_after(&self.tenant, self.seen, EVENTS_PAGE).await;
        let mut stored = stored.inspect_err(|error| tracing::error!(%error, "A live feed ends")).ok()?;
        self.behind = stored.len() == EVENTS_PAGE;
        stored.reverse();
        self.ready = stored;
        Some(())
    }
}
