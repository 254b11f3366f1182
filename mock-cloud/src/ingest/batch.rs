//! One batch: bounded decompression, then records in the form the store takes.

use std::io::Read as _;

use causeway_protocol::limits::{
    BATCH_DECODED_MAX_BYTES, BATCH_RATIO_MAX, BATCH_RECORDS_MAX, RECORD_MAX_BYTES,
};
use causeway_protocol::mobile::{DevicePolicyRecord, DeviceRecord, MailOrganizationRecord};
use causeway_protocol::record::{GroupRecord, Kind, Op, OuRecord, Record, UserRecord};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::limits::{BATCH_RATIO_FLOOR_BYTES, ZSTD_WINDOW_LOG_MAX};

/// What is wrong with a batch.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// It decompresses to more than anyone would send.
    #[error("the batch decompresses to more than {max_bytes} bytes")]
    Bomb {
        /// The limit it ran into.
        max_bytes: usize,
    },
    /// Too many records.
    #[error("the batch holds more than {BATCH_RECORDS_MAX} records")]
    TooManyRecords,
    /// One record is too long.
    #[error("line {line} is longer than {RECORD_MAX_BYTES} bytes")]
    RecordTooLong {
        /// From 1.
        line: usize,
    },
    /// Not a Zstandard frame, or a damaged one.
    #[error("the batch is not valid Zstandard data")]
    Compression(#[source] std::io::Error),
    /// A line is not a record.
    #[error("line {line}: {reason}")]
    Malformed {
        /// From 1.
        line: usize,
        /// What does not fit; never the value itself.
        reason: String,
    },
}

impl BatchError {
    /// Whether the batch is too large rather than wrong.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Bomb { .. } | Self::TooManyRecords | Self::RecordTooLong { .. })
    }
}

/// One record, ready for the store.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// The directory's stable id.
    pub key: String,
    /// What it is and how it looks, or that it is gone.
    pub row: Row,
}

/// The part of a change that depends on the kind.
#[derive(Debug, PartialEq, Eq)]
pub enum Row {
    /// A unit.
    Ou(Box<OuRecord>),
    /// A person.
    User(Box<UserRecord>),
    /// A group.
    Group(Box<GroupRecord>),
    /// A membership in the group `key`.
    Member(String),
    /// A phone in a mailbox.
    Device(Box<DeviceRecord>),
    /// A policy for phones.
    DevicePolicy(Box<DevicePolicyRecord>),
    /// A mail system.
    MailOrganization(Box<MailOrganizationRecord>),
    /// It is gone; for a membership with the member's id.
    Gone(Kind, Option<String>),
}

/// Reads a compressed batch.
///
/// # Errors
/// [`BatchError`]; nothing is kept of a batch with one bad line.
pub fn read(compressed: &[u8]) -> Result<Vec<Change>, BatchError> {
    let text = decompress(compressed)?;
    let mut changes = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let line_number = index + 1;
        if line.len() > RECORD_MAX_BYTES {
            return Err(BatchError::RecordTooLong { line: line_number });
        }
        if changes.len() == BATCH_RECORDS_MAX {
            return Err(BatchError::TooManyRecords);
        }
        changes.push(change(line_number, line)?);
    }
    Ok(changes)
}

fn decompress(compressed: &[u8]) -> Result<Vec<u8>, BatchError> {
    let by_ratio = compressed.len().saturating_mul(BATCH_RATIO_MAX).max(BATCH_RATIO_FLOOR_BYTES);
    let max_bytes = by_ratio.min(BATCH_DECODED_MAX_BYTES);
    let mut decoder = zstd::stream::read::Decoder::new(compressed).map_err(BatchError::Compression)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(BatchError::Compression)?;
    let mut text = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut text).map_err(BatchError::Compression)?;
    if text.len() > max_bytes {
        return Err(BatchError::Bomb { max_bytes });
    }
    Ok(text)
}

fn change(line: usize, text: &[u8]) -> Result<Change, BatchError> {
    let malformed = |reason: String| BatchError::Malformed { line, reason };
    let record: Record = serde_json::from_slice(text).map_err(|error| malformed(error.to_string()))?;
    let missing = |what: &str| malformed(format!("a {} record needs {what}", record.kind.as_str()));
    if record.key.is_empty() {
        return Err(malformed("the key is empty".to_owned()));
    }
    let row = match (record.op, record.kind) {
        (_, Kind::Member) if record.member.is_none() => return Err(missing("the member's id")),
        (Op::Delete, kind) => Row::Gone(kind, record.member),
        (Op::Upsert, Kind::Member) => Row::Member(record.member.unwrap_or_default()),
        (Op::Upsert, kind) => {
            let Some(value) = &record.v else { return Err(missing("the object")) };
            match kind {
                Kind::Ou => Row::Ou(Box::new(object(line, value.get())?)),
                Kind::User => Row::User(Box::new(object(line, value.get())?)),
                Kind::Group | Kind::Member => Row::Group(Box::new(object(line, value.get())?)),
                Kind::Device => Row::Device(Box::new(object(line, value.get())?)),
                Kind::DevicePolicy => Row::DevicePolicy(Box::new(object(line, value.get())?)),
                Kind::MailOrganization => Row::MailOrganization(Box::new(object(line, value.get())?)),
            }
        }
    };
    Ok(Change { key: record.key, row })
}

fn object<T: DeserializeOwned>(line: usize, text: &str) -> Result<T, BatchError> {
    serde_json::from_str(text).map_err(|error| BatchError::Malformed { line, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(text: &str) -> Vec<u8> {
        zstd::encode_all(text.as_bytes(), 3).unwrap()
    }

    #[test]
    fn records_are_read_by_kind() {
        let text = concat!(
            r#"{"op":"upsert","kind":"user","key":"u1","v":{"login":"o'brien","dn":"CN=O'Brien","enabled":true}}"#,
            "\n",
            r#"{"op":"upsert","kind":"member","key":"g1","member":"u1"}"#,
            "\n\n",
            r#"{"op":"delete","kind":"ou","key":"o1"}"#,
        );
        let changes = read(&batch(text)).unwrap();
        let user = UserRecord {
            login: "o'brien".into(),
            dn: "CN=O'Brien".into(),
            enabled: true,
            ..UserRecord::default()
        };
        assert_eq!(changes[0], Change { key: "u1".into(), row: Row::User(Box::new(user)) });
        assert_eq!(changes[1].row, Row::Member("u1".into()));
        assert_eq!(changes[2].row, Row::Gone(Kind::Ou, None));
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let bomb = zstd::encode_all(&vec![b' '; 64 << 20][..], 19).unwrap();
        assert!(bomb.len() < 16 << 10, "{} bytes", bomb.len());
        let error = read(&bomb).unwrap_err();
        assert!(
            matches!(error, BatchError::Bomb { max_bytes } if max_bytes <= BATCH_DECODED_MAX_BYTES),
            "{error}"
        );
        assert!(error.is_too_large());
    }

    #[test]
    fn wrong_lines_are_named_by_number_and_never_quoted() {
        for (text, wanted) in [
            ("{\"op\":\"upsert\"", "line 1: EOF"),
            (r#"{"op":"upsert","kind":"user","key":"u"}"#, "line 1: a user record needs the object"),
            (r#"{"op":"upsert","kind":"member","key":"g"}"#, "line 1: a member record needs the member's id"),
            (r#"{"op":"delete","kind":"user","key":""}"#, "line 1: the key is empty"),
            ("\n{\"op\":\"x\"}", "line 2: unknown variant"),
            (r#"{"op":"upsert","kind":"user","key":"u","v":{"pin":"1234"}}"#, "line 1: unknown field `pin`"),
        ] {
            let error = read(&batch(text)).unwrap_err();
            assert!(error.to_string().starts_with(wanted), "{error}");
        }
        assert!(matches!(read(b"not zstd"), Err(BatchError::Compression(_))));
        // Of different users, because so many equal lines would shrink too far to be believed.
        let line =
            |n| format!("{{\"op\":\"delete\",\"kind\":\"user\",\"key\":\"{:x}\"}}\n", n * 2_654_435_761_u64);
        let many: String = (0..=BATCH_RECORDS_MAX as u64).map(line).collect();
        assert!(matches!(read(&batch(&many)), Err(BatchError::TooManyRecords)));
    }
}
