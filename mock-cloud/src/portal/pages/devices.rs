//! Phones: the list with states, search and paging.

use askama::Template;
use axum::extract::State;
use causeway_protocol::mobile::access;
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::Query;
use super::super::shell::{InTenant, PageResult, Shell, page};
use super::super::words::{Tone, When, access_state, count, initials, wipe_status};
use super::people::{SourceCard, source_cards};
use super::{next_query, query_value};
use crate::limits::PORTAL_PAGE;
use crate::store::{Cursor, Device, DeviceSearch};

/// A phone in a list.
pub(in super::super) struct PhoneRow {
    pub(in super::super) id: String,
    pub(in super::super) owner: String,
    pub(in super::super) initials: String,
    pub(in super::super) model: String,
    pub(in super::super) device_id: String,
    pub(in super::super) tone: Tone,
    pub(in super::super) state: String,
    pub(in super::super) wipe: Option<(Tone, String)>,
    pub(in super::super) last_sync: Option<When>,
}

impl PhoneRow {
    fn new(device: &Device, now_ms: i64) -> Self {
        let (tone, state) = access_state(&device.access_state);
        Self {
            id: query_value(&device.id),
            initials: initials(device.owner()),
            owner: device.owner().to_owned(),
            model: model_of(device),
            device_id: device.device_id.clone(),
            tone,
            state,
            wipe: device.wipe_status.as_deref().and_then(wipe_status),
            last_sync: moment(device.last_sync.as_deref(), now_ms),
        }
    }
}

/// What kind of phone it is, in the best words there are.
pub(in super::super) fn model_of(device: &Device) -> String {
    let words = [&device.friendly_name, &device.model, &device.device_type];
    let best = words.into_iter().flatten().find(|word| !word.trim().is_empty());
    best.cloned().unwrap_or_else(|| "Unknown model".to_owned())
}

/// A time as a mail system writes it.
pub(in super::super) fn moment(text: Option<&str>, now_ms: i64) -> Option<When> {
    let moment = time::OffsetDateTime::parse(text?, &time::format_description::well_known::Rfc3339).ok()?;
    When::at(i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok()?, now_ms)
}

/// A state that can be chosen, with how many phones are in it.
struct Chip {
    word: String,
    label: String,
    tone: Tone,
    phones: String,
    is_chosen: bool,
}

/// Which phones.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct DevicesQuery {
    q: String,
    state: String,
    policy: String,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "devices.html")]
struct DevicesPage {
    shell: Shell,
    rows: Vec<PhoneRow>,
    chips: Vec<Chip>,
    q: String,
    state: String,
    policy: String,
    /// What is kept of the query when a state is chosen.
    kept: String,
    further: bool,
    next: Option<String>,
    total: String,
    sources: Vec<SourceCard>,
}

pub(in super::super) async fn list(
    State(portal): State<Portal>,
    seen: InTenant,
    Query(query): Query<DevicesQuery>,
) -> PageResult {
    let shell = seen.shell(&portal, "devices").await?;
    let (store, tenant) = (&portal.cloud.store, seen.tenant.id.as_str());
    let filter = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let search = DeviceSearch {
        q: filter(&query.q),
        state: filter(&query.state),
        policy: filter(&query.policy),
        limit: PORTAL_PAGE,
        after: query.after.as_deref().and_then(Cursor::parse),
    };
    let found = store.devices(tenant, search).await?;
    let states = store.device_states(tenant).await?;
    let total: u64 = states.values().sum();
    let mut kept = String::new();
    for (name, value) in [("q", &query.q), ("policy", &query.policy)] {
        if !value.is_empty() {
            kept += &format!("&{name}={}", query_value(value));
        }
    }
    let next = next_query("", found.next.as_deref())
        .map(|next| format!("{next}{kept}&state={}", query_value(&query.state)));
    let sources = source_cards(&portal.cloud, tenant, shell.now_ms).await?;
    page(&DevicesPage {
        rows: found.items.iter().map(|device| PhoneRow::new(device, shell.now_ms)).collect(),
        chips: chips(&states, total, &query.state),
        sources: sources.into_iter().filter(|card| !card.source.starts_with("user_visibility")).collect(),
        further: query.after.is_some(),
        total: count(total),
        q: query.q,
        state: query.state,
        policy: query.policy,
        kept,
        next,
        shell,
    })
}

/// All, then the states people know in the order of what needs them, then whatever else there is.
fn chips(states: &std::collections::BTreeMap<String, u64>, total: u64, chosen: &str) -> Vec<Chip> {
    const KNOWN: [&str; 3] = [access::QUARANTINED, access::BLOCKED, access::ALLOWED];
    let others = states.keys().map(String::as_str).filter(|word| !KNOWN.contains(word));
    let all = Chip {
        word: String::new(),
        label: "All".to_owned(),
        tone: Tone::Calm,
        phones: count(total),
        is_chosen: chosen.is_empty(),
    };
    let of = |word: &str| {
        let (tone, label) = access_state(word);
        let phones = count(states.get(word).copied().unwrap_or(0));
        Chip { word: word.to_owned(), label, tone, phones, is_chosen: chosen == word }
    };
    std::iter::once(all).chain(KNOWN.into_iter().chain(others).map(of)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_nobody_foresaw_get_a_chip_too() {
        let states = [("allowed".to_owned(), 3), ("upgrade_needed".to_owned(), 1)].into();
        let chips = chips(&states, 4, "allowed");
        let labels: Vec<(&str, &str)> =
            chips.iter().map(|chip| (chip.label.as_str(), chip.phones.as_str())).collect();
        let expected =
            [("All", "4"), ("Quarantined", "0"), ("Blocked", "0"), ("Allowed", "3"), ("Upgrade needed", "1")];
        assert_eq!(labels, expected);
        assert!(chips[3].is_chosen && !chips[0].is_chosen);
    }

    #[test]
    fn times_of_mail_systems_are_read() {
        assert_eq!(moment(Some("2026-11-22T10:00:00Z"), 0).unwrap().ms, 1_795_341_600_000);
        assert!(moment(Some("yesterday"), 0).is_none() && moment(None, 0).is_none());
    }
}
