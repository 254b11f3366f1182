//! Idempotency keys: what was ordered before under the same one.

use aws_lc_rs::digest;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::StoreError;
use super::actions::{Inserted, NewAction, Order};
use super::rows::to_json;

/// Joins the key of an order for many and the number of one of its actions; the API takes no key that contains it.
const PART: char = '\u{1f}';

/// The key of the action for target number `n`.
pub(super) fn key_of_part(key: &str, n: usize) -> String {
    format!("{key}{PART}{n}")
}

/// The order that was given before under the same key. An order for many has the key too, and is never the same one.
pub(super) fn earlier(
    connection: &Connection,
    tenant: &str,
    new: &NewAction,
) -> Result<Option<Inserted>, StoreError> {
    let Some(key) = &new.idempotency_key else { return Ok(None) };
    if let Some((id, digest)) = under_key(connection, tenant, key)? {
        let is_same = digest == digest_of(new);
        return Ok(Some(if is_same { Inserted::Same(id) } else { Inserted::OtherBody(id) }));
    }
    if key.contains(PART) {
        return Ok(None);
    }
    let of_many = under_key(connection, tenant, &key_of_part(key, 0))?;
    Ok(of_many.map(|(id, _)| Inserted::OtherBody(id)))
}

/// What was ordered for many before under the same key: the very same list, or another order.
pub(super) fn earlier_many(
    connection: &Connection,
    tenant: &str,
    key: &str,
    orders: &[Order],
) -> Result<Option<Vec<Inserted>>, StoreError> {
    // A single order with this key, or a list that goes on where this one ends.
    for key in [key.to_owned(), key_of_part(key, orders.len())] {
        if let Some((id, _)) = under_key(connection, tenant, &key)? {
            return Ok(Some(vec![Inserted::OtherBody(id)]));
        }
    }
    let mut known = Vec::new();
    for order in orders {
        known.extend(earlier(connection, tenant, &order.new)?);
    }
    let Some(first) = known.first() else { return Ok(None) };
    let is_whole = known.len() == orders.len() && known.iter().all(|it| matches!(it, Inserted::Same(_)));
    Ok(Some(if is_whole { known } else { vec![Inserted::OtherBody(first.id().to_owned())] }))
}

/// Id and digest of the action with a key.
fn under_key(
    connection: &Connection,
    tenant: &str,
    key: &str,
) -> Result<Option<(String, Vec<u8>)>, StoreError> {
    let mut query = connection
        .prepare_cached("SELECT id, body_digest FROM actions WHERE tenant = ?1 AND idempotency_key = ?2")?;
    Ok(query.query_row(params![tenant, key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

/// What makes two orders the same one. Object keys are sorted by `serde_json`, so their order does not matter.
pub(super) fn digest_of(new: &NewAction) -> Vec<u8> {
    let text = to_json(&(&new.module, &new.action, &new.target, &new.params, new.ttl_ms));
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec()
}
