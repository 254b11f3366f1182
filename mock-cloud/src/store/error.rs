//! What can go wrong in the store.

use std::path::PathBuf;

use thiserror::Error;

/// A failure of the store itself. What a caller may do about a row (absent, taken, changed) is in the result types.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("open store {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was written by a newer version of this program.
    #[error("store has schema {found}, this version knows up to {known}")]
    NewerSchema {
        /// Version in the file.
        found: usize,
        /// Newest version known here.
        known: usize,
    },
    /// A thread of the store could not be started.
    #[error("start store thread")]
    Thread {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A statement failed: disk full, file damaged, or a mistake of ours.
    #[error("run store statement")]
    Statement {
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The transaction of this write could not be committed; nothing of it happened.
    #[error("commit to store: {reason}")]
    Commit {
        /// SQLite's words; the error itself is shared by all writes of the group.
        reason: String,
    },
    /// A stored JSON text does not fit its type.
    #[error("read stored {what}")]
    Stored {
        /// Which column.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The store is closing, or the job died of a panic.
    #[error("store thread is gone or gave up on this job")]
    Gone,
}

impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Statement { source }
    }
}
