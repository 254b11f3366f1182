//! Small pieces every table shares: pages, JSON columns.

use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows, in the list's order.
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Cuts a page of `limit` out of up to `limit + 1` rows; the extra row only proves that there are more.
    pub(super) fn cut(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next }
    }
}

/// A JSON column. `what` names it in errors.
pub(super) fn json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Stored { what, source })
}

/// A JSON column that may be NULL.
pub(super) fn json_opt<T: DeserializeOwned>(
    what: &'static str,
    text: Option<String>,
) -> Result<Option<T>, StoreError> {
    text.map(|text| json(what, &text)).transpose()
}

/// JSON text of a value whose type always has one.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("stored types serialise to JSON")
}

/// SQLite integers are signed; ours never pass 2^63.
pub(super) fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|value| u64::try_from(value).unwrap_or(0))
}

/// The other way round, for parameters.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// `limit + 1` as a parameter, see [`Page::cut`].
pub(super) fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).map_or(i64::MAX, |limit| limit.saturating_add(1))
}
