//! Records to lines, lines to batches, batches to compressed bytes with their digest.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use causeway_protocol::limits::{BATCH_MAX_BYTES, BATCH_RATIO_MAX, BATCH_RECORDS_MAX, RECORD_MAX_BYTES};
use causeway_protocol::record::Record;

use crate::limits::ZSTD_LEVEL;
use crate::link::LinkError;

/// Collects lines until a batch is full.
#[derive(Default)]
pub(super) struct Builder {
    lines: Vec<u8>,
    records: usize,
}

/// Room for the line that turns out not to fit, which nearly always is short.
const LAST_LINE_BYTES: usize = 4_096;

/// The lines of a batch.
#[derive(Debug)]
pub(super) struct Lines(Vec<u8>);

impl Builder {
    /// Adds a record. Returns the batch before it when the record does not fit in any more.
    pub(super) fn add(&mut self, record: &Record) -> Result<Option<Lines>, LinkError> {
        let before = self.lines.len();
        serde_json::to_writer(&mut self.lines, record).expect("records serialise to JSON");
        self.lines.push(b'\n');
        let bytes = self.lines.len() - before;
        if bytes > RECORD_MAX_BYTES {
            self.lines.truncate(before);
            return Err(LinkError::RecordTooLarge {
                key: record.key.clone(),
                bytes,
                limit: RECORD_MAX_BYTES,
            });
        }
        self.records += 1;
        if self.records <= BATCH_RECORDS_MAX && self.lines.len() <= BATCH_MAX_BYTES {
            return Ok(None);
        }
        // The next batch will be as large; growing by doubling it would take twice the room.
        let mut rest = Vec::with_capacity(BATCH_MAX_BYTES + LAST_LINE_BYTES);
        rest.extend_from_slice(&self.lines[before..]);
        self.lines.truncate(before);
        self.records = 1;
        Ok(Some(Lines(std::mem::replace(&mut self.lines, rest))))
    }

    /// What is left.
    pub(super) fn take(&mut self) -> Option<Lines> {
        self.records = 0;
        (!self.lines.is_empty()).then(|| Lines(std::mem::take(&mut self.lines)))
    }
}

/// Compresses batches, one after the other: one compressor serves all of an upload.
pub(super) struct Packer(zstd::bulk::Compressor<'static>);

impl Default for Packer {
    fn default() -> Self {
        Self(zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("the level exists"))
    }
}

impl Packer {
    /// Takes about 3 ms for 1 MiB, which a worker thread can spare.
    pub(super) fn pack(&mut self, Lines(plain): Lines) -> Packed {
        let mut body = self.0.compress(&plain).expect("compressing into memory does not fail");
        pad(&mut body, plain.len());
        // The library sizes the buffer for the worst case.
        body.shrink_to_fit();
        let digest = digest::digest(&digest::SHA256, &body);
        Packed { digest: format!("sha-256=:{}:", STANDARD.encode(digest)), body: body.into() }
    }
}

/// A batch as it travels.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) body: Bytes,
    /// `Content-Digest` of the compressed body (RFC 9530).
    pub(super) digest: String,
}

/// Appends a skippable frame (RFC 8878 §3.1.2) to a batch that shrank further than the cloud believes
/// ([`BATCH_RATIO_MAX`]): a thousand nearly equal objects must not look like a bomb.
fn pad(body: &mut Vec<u8>, plain_bytes: usize) {
    const MAGIC: u32 = 0x184D_2A50;
    let wanted = plain_bytes / BATCH_RATIO_MAX + 1;
    if body.len() < wanted {
        let filler = wanted - body.len();
        body.extend(MAGIC.to_le_bytes());
        body.extend(u32::try_from(filler).expect("a batch is far below 4 GiB").to_le_bytes());
        body.resize(body.len() + filler, 0);
    }
}

#[cfg(test)]
mod tests {
    use causeway_protocol::record::{Kind, Op};

    use super::*;

    fn record(key: String) -> Record {
        Record { op: Op::Delete, kind: Kind::User, key, member: None, v: None }
    }

    fn packed(lines: Lines) -> Packed {
        Packer::default().pack(lines)
    }

    fn plain(packed: &Packed) -> Vec<u8> {
        let mut back = Vec::new();
        std::io::copy(&mut zstd::stream::read::Decoder::new(&packed.body[..]).unwrap(), &mut back).unwrap();
        back
    }

    #[test]
    fn batches_end_at_either_limit_and_lose_nothing() {
        for (key_bytes, expected_max) in [(10, BATCH_RECORDS_MAX), (2_000, BATCH_MAX_BYTES / 2_000)] {
            let mut builder = Builder::default();
            let mut batches = Vec::new();
            for n in 0..5_000 {
                batches.extend(builder.add(&record(format!("{n:0key_bytes$}"))).unwrap());
            }
            batches.extend(builder.take());
            let mut lines = 0;
            for batch in batches.into_iter().map(|lines| plain(&packed(lines))) {
                let count = batch.iter().filter(|byte| **byte == b'\n').count();
                assert!(batch.len() <= BATCH_MAX_BYTES && count <= expected_max, "{} {count}", batch.len());
                assert_eq!(batch.last(), Some(&b'\n'));
                lines += count;
            }
            assert_eq!(lines, 5_000);
            assert!(builder.take().is_none());
        }
    }

    #[test]
    fn a_record_too_large_is_refused_and_the_others_stay() {
        let mut builder = Builder::default();
        builder.add(&record("a".into())).unwrap();
        let error = builder.add(&record("x".repeat(RECORD_MAX_BYTES))).unwrap_err();
        assert!(matches!(error, LinkError::RecordTooLarge { .. }), "{error}");
        assert_eq!(plain(&packed(builder.take().unwrap())).iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn the_digest_is_of_the_compressed_body() {
        let mut builder = Builder::default();
        builder.add(&record("a".into())).unwrap();
        let packed = packed(builder.take().unwrap());
        let digest = STANDARD.encode(digest::digest(&digest::SHA256, &packed.body));
        assert_eq!(packed.digest, format!("sha-256=:{digest}:"));
    }

    #[test]
    fn a_batch_of_equals_does_not_look_like_a_bomb() {
        let mut builder = Builder::default();
        for _ in 0..BATCH_RECORDS_MAX {
            builder.add(&record("the same again and again".into())).unwrap();
        }
        let packed = packed(builder.take().unwrap());
        let bytes = plain(&packed).len();
        assert!(bytes / packed.body.len() < BATCH_RATIO_MAX, "{bytes} to {}", packed.body.len());
    }
}
