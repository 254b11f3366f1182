//! Records of mail systems on their way out, and what is remembered of them.

use causeway_protocol::record::{Kind, Op, Record};
use serde::Serialize;
use serde_json::value::to_raw_value;

use super::error::MailError;
use super::state::{Hash, digest};
use crate::modules::output::Output;

/// Sends an object; gives the hash of what was sent.
pub(super) async fn upsert<T: Serialize>(
    output: &mut Output<'_>,
    kind: Kind,
    key: String,
    value: &T,
) -> Result<Hash, MailError> {
    let raw = to_raw_value(value).expect("records serialise to JSON");
    let hash = digest(raw.get().as_bytes());
    output.push(Record { op: Op::Upsert, kind, key, member: None, v: Some(raw) }).await?;
    Ok(hash)
}

/// Sends a deletion.
pub(super) async fn delete(output: &mut Output<'_>, kind: Kind, key: String) -> Result<(), MailError> {
    Ok(output.push(Record { op: Op::Delete, kind, key, member: None, v: None }).await?)
}
