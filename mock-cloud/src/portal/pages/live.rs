//! The live feed.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response, sse};
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::Query;
use super::super::shell::{InTenant, PageResult, PortalError, Shell, cookie, page};
use super::super::words::{Line, When};
use crate::api::{last_seen_event, live_events};
use crate::store::Event;

/// Events shown when the page opens.
const SHOWN: usize = 50;

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    shell: Shell,
    lines: Vec<(Line, Option<When>)>,
    last_seq: i64,
}

/// Where the feed begins.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct StreamQuery {
    after: Option<i64>,
}

pub(in super::super) async fn show(State(portal): State<Portal>, seen: InTenant) -> PageResult {
    let shell = seen.shell(&portal, "live").await?;
    let events = portal.cloud.store.events_latest(&seen.tenant.id, SHOWN).await?;
    let line = |event: &Event| (Line::of(event), When::at(event.at_ms, shell.now_ms));
    page(&LivePage {
        lines: events.iter().map(line).collect(),
        last_seq: events.first().map_or(0, |event| event.seq),
        shell,
    })
}

pub(in super::super) async fn stream(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, PortalError> {
    let after = last_seen_event(&headers)?.or(query.after);
    // The visitor has a cookie, or there would be none.
    let value = cookie(&headers, &portal).unwrap_or_default();
    let sign_ins = portal.sign_ins;
    let over = async move { sign_ins.over(&value).await };
    Ok(live_events(portal.cloud, seen.tenant.id, after, frame, over).await?.into_response())
}

/// The sentence is made here, so that the script only shows it.
fn frame(event: &Event) -> sse::Event {
    let line = Line::of(event);
    let data = serde_json::json!({
        "seq": line.seq, "kind": line.kind, "tone": line.tone.to_string(), "title": line.title,
        "detail": line.detail, "href": line.href, "at_ms": line.at_ms,
    });
    sse::Event::default().id(line.seq.to_string()).data(data.to_string())
}
