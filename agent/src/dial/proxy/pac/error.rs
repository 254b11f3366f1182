//! Why a PAC script gives no answer.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::limits::{
    ANSWER_MAX_BYTES, FETCHED_WITHIN, GIVEN_UP_MAX, LOOKUPS_MAX, LOOKUPS_WITHIN, MEMORY_MAX_BYTES,
    REDIRECTS_MAX, SCRIPT_MAX_BYTES, SCRIPT_WITHIN,
};
use crate::dial::DialError;
use crate::dial::tls::TlsError;

/// What the script does wrong.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScriptError {
    /// It cannot be loaded.
    #[error("the script cannot be loaded: {message}")]
    Unloadable {
        /// What the engine says.
        message: String,
    },
    /// It lacks the one function it is there for.
    #[error("the script defines neither FindProxyForURL nor FindProxyForURLEx")]
    NoFunction,
    /// It throws.
    #[error("the script fails: {message}")]
    Threw {
        /// What the engine says.
        message: String,
    },
    /// It does not end.
    #[error("the script was stopped after {} ms", SCRIPT_WITHIN.as_millis())]
    TooSlow,
    /// It uses too much memory.
    #[error("the script needs more than {} MiB of memory", MEMORY_MAX_BYTES >> 20)]
    OutOfMemory,
    /// It looks too many names up.
    #[error("the script looks up more than {LOOKUPS_MAX} names for one answer")]
    TooManyLookups,
    /// Its look-ups take too long.
    #[error("the script's look-ups take more than {} s together", LOOKUPS_WITHIN.as_secs())]
    LookupsTooSlow,
    /// It returns too much.
    #[error("the script returns more than {ANSWER_MAX_BYTES} bytes")]
    TooLong,
    /// It sits in a built-in function that cannot be interrupted; its thread was left behind.
    #[error("the script hangs in a built-in function and was given up")]
    GivenUp,
    /// Scripts have hung too often.
    #[error("{GIVEN_UP_MAX} scripts have hung; no script is run until the agent restarts")]
    Forbidden,
    /// The engine itself does not start.
    #[error("the script engine does not start: {message}")]
    Engine {
        /// What it says.
        message: String,
    },
}

/// Why there is no script.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The address is none.
    #[error("{problem}")]
    BadAddress {
        /// What is wrong.
        problem: &'static str,
    },
    /// The file cannot be read.
    #[error("read {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// Its server is not there.
    #[error("connect to the script's server")]
    Connect {
        /// Why.
        #[source]
        source: Box<DialError>,
    },
    /// Its server is not who it should be.
    #[error("secure the connection to the script's server")]
    Tls {
        /// Why.
        #[source]
        source: Box<TlsError>,
    },
    /// Its server does not speak HTTP.
    #[error("ask the script's server")]
    Http {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its server has no script for us.
    #[error("the script's server answers {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// Its server sends us from one place to the next.
    #[error("the script's server redirects more than {REDIRECTS_MAX} times")]
    Redirects,
    /// It is too large.
    #[error("the script has more than {SCRIPT_MAX_BYTES} bytes")]
    TooLarge,
    /// It does not come.
    #[error("the script did not arrive within {} s", FETCHED_WITHIN.as_secs())]
    TimedOut,
    /// Nobody in this network offers one.
    #[error("no wpad server was found: {tried}")]
    NoWpad {
        /// The names asked for.
        tried: String,
    },
}
