//! Uploads: bulk data over HTTP/2 on the same port, in batches that can be repeated without harm.
//!
//! An agent asks for an upload on the channel and is granted an id and credits. It then sends
//! `PUT {base}/{upload}/batches/{n}` (n counts from 0) with `Content-Encoding: zstd` and
//! `Content-Digest: sha-256=:...:` (RFC 9530) over the compressed body, and at the end `POST {base}/{upload}/commit`.
//! `GET {base}/{upload}` tells what has arrived, for an agent that lost its memory.
//!
//! Answers to a batch: 201 stored, 200 same digest already stored, 409 another digest for that number, 400 wrong
//! digest or malformed record, 412 stale fence, 413 too large or a decompression bomb, 429/503 with `Retry-After`.

use serde::{Deserialize, Serialize};

/// Path under which agents upload; client certificate required.
pub const BASE_PATH: &str = "/agent/v1/uploads";

/// Media type of a batch.
pub const BATCH_MEDIA_TYPE: &str = "application/x-ndjson";

/// Response header with the number of batches the agent may have in flight from now on.
pub const CREDITS_HEADER: &str = "upload-credits";

/// What an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything there is; what is not in it is deleted at commit.
    Snapshot,
    /// Changes since `base_epoch`.
    Delta,
}

/// The agent asks to upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadRequest {
    /// What is collected, for example `user_visibility/default`; also the leased resource.
    pub source: String,
    /// Snapshot or delta.
    pub mode: Mode,
    /// For a delta: the epoch it builds on. The cloud refuses any other than its current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_epoch: Option<u64>,
    /// The fence of the lease under which the agent collects.
    pub fence: u64,
    /// For a snapshot: a person has confirmed that it may delete more than the guard allows.
    #[serde(default)]
    pub allow_mass_delete: bool,
}

/// The cloud allows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadGrant {
    /// Names the upload in the paths above.
    pub upload: String,
    /// The epoch the source will have after commit.
    pub epoch: u64,
    /// Batches in flight at once.
    pub credits: u32,
}

/// The agent says that all batches are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Number of batches.
    pub batches: u64,
    /// Number of records in them.
    pub records: u64,
}

/// The cloud has committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The source's epoch now.
    pub epoch: u64,
    /// Rows written.
    pub upserts: u64,
    /// Rows deleted, including those a snapshot no longer named.
    pub deletes: u64,
}

/// What has arrived of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadState {
    /// Inclusive ranges of batch numbers, in order.
    pub received: Vec<(u64, u64)>,
    /// Whether it is committed.
    pub committed: bool,
}
