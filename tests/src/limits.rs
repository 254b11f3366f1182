//! Bounds of this crate, each with its reason.

use std::time::Duration;

/// From `docker run` to an answered rootDSE search. Samba provisions a domain (6 s alone, measured), 389-ds
/// imports and restarts (4 s); beside a compiler on two cores several times that. A seed of 100,000 entries takes
/// OpenLDAP 8 s and 389-ds longer than this.
pub const READY_TIMEOUT: Duration = Duration::from_secs(180);

/// One try of a readiness probe, TLS handshake included. A server that is up answers in milliseconds.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between two tries of a readiness probe; short against the fastest start (0.2 s, OpenLDAP).
pub const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// A question to the container engine that starts nothing (its version).
pub const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections the API bridge serves at once; testcontainers opens a handful per container.
pub const BRIDGE_CONNECTIONS: usize = 64;

/// The longest line the peers program accepts on its standard input, and the longest we read from it. Addresses of
/// five servers with their CA are about 6 KiB.
pub const LINE_SIZE_MAX_BYTES: usize = 1024 * 1024;

/// How much of a failing container's log goes into the error.
pub const LOG_TAIL_BYTES: usize = 4096;

/// Output kept of one third-party client, each of stdout and stderr; the rest is read and dropped.
pub const SCRIPT_OUTPUT_MAX_BYTES: u64 = 4 * 1024 * 1024;
