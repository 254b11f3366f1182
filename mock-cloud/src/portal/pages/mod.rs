//! One file per page.

pub(super) mod actions;
pub(super) mod agents;
pub(super) mod alerts;
pub(super) mod certificate_profiles;
pub(super) mod certificate_requests;
pub(super) mod certificates;
pub(super) mod compliance;
pub(super) mod device;
pub(super) mod devices;
pub(super) mod groups;
pub(super) mod home;
pub(super) mod live;
pub(super) mod modules;
pub(super) mod overview;
pub(super) mod password;
pub(super) mod people;
pub(super) mod policies;
pub(super) mod sign_in;
pub(super) mod units;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

/// A form of which only the token matters.
#[derive(Deserialize)]
pub(super) struct TokenOnly {
    #[serde(default)]
    csrf: String,
}

/// The key a form was made with, so that a double click is one order.
fn once_key(once: String) -> Option<String> {
    Some(once).filter(|once| !once.is_empty() && once.len() <= 64 && !once.contains(char::is_control))
}

/// What may stand in a query value as it is.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// A query value, escaped.
fn query_value(text: &str) -> String {
    utf8_percent_encode(text, QUERY_VALUE).to_string()
}

/// The query of the next page, with the search kept.
fn next_query(q: &str, next: Option<&str>) -> Option<String> {
    let next = utf8_percent_encode(next?, QUERY_VALUE);
    if q.is_empty() {
        return Some(format!("?after={next}"));
    }
    Some(format!("?q={}&after={next}", utf8_percent_encode(q, QUERY_VALUE)))
}
