//! Every limit inside the agent, with the reason for its value. Limits of the wire are in `causeway_protocol::limits`.

use std::time::Duration;

/// Opening a TCP connection, proxy included. Longer than two SYN retransmissions (1 s + 2 s), shorter than a person's
/// patience at the doctor.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Resolving a name. The system resolver's own default is 5 s for each of two attempts.
pub const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// TLS handshake on an open connection.
pub const TLS_WITHIN: Duration = Duration::from_secs(10);

/// The head of a proxy's answer; the same as common HTTP servers allow.
pub const PROXY_HEAD_MAX_BYTES: usize = 64 * 1024;

/// The body of a proxy's refusal that is read to keep the connection usable.
pub const PROXY_BODY_MAX_BYTES: usize = 256 * 1024;

/// A proxy that says nothing for so long is broken.
pub const PROXY_WITHIN: Duration = Duration::from_secs(30);

/// What a module may take to end after its stop signal.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// TCP keep-alive: first probe after so long without traffic ...
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// ... repeated so often ...
pub const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// ... and given up after so many.
pub const KEEPALIVE_TRIES: u32 = 3;

/// A silent address of a name with several must leave time for the others within [`CONNECT_WITHIN`].
pub const NEXT_ADDRESS_AFTER: Duration = Duration::from_secs(3);

/// Sent data that stays unacknowledged for so long means a dead path (RFC 5482).
pub const UNACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// Batches waiting for the storage thread; a full queue slows the writers down instead of growing.
pub const STORAGE_QUEUE_MAX: usize = 256;

/// Batches committed with one fsync.
pub const STORAGE_GROUP_MAX: usize = 64;

/// Pages of the state file kept in memory. The file is small and the system caches it too.
pub const STORAGE_CACHE_BYTES: usize = 2 << 20;

/// Largest `agent.toml`, secrets and identity file; they are written by hand or by us.
pub const SETTINGS_FILE_MAX_BYTES: u64 = 1 << 20;

/// Iqs of ours, and answers to requests, waiting for the channel's task.
pub const CHANNEL_QUEUE_MAX: usize = 256;

/// Elements waiting to be written before the channel's task takes no new ones.
pub const WRITE_QUEUE_MAX: usize = 64;

/// Actions being committed to the inbox at once; the channel reads no further until one is. Twice a group commit, so
/// that the next group fills while one is written.
pub const ACCEPTS_AT_ONCE: usize = 2 * STORAGE_GROUP_MAX;

/// Request ids remembered to recognise repetitions: more than the cloud can have unacknowledged (1,000).
pub const RECENT_REQUESTS_MAX: usize = 2_048;

/// Saying goodbye on a stream.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Redirects followed in a row (RFC 6120 §4.9.3.19 says 2 to 5).
pub const REDIRECTS_MAX: u32 = 3;

/// After `system-shutdown` agents come back spread over this long, unless the cloud says otherwise.
pub const SHUTDOWN_SPREAD: Duration = Duration::from_secs(30);

/// The longest wait the cloud can ask for.
pub const RETRY_HINT_MAX: Duration = Duration::from_secs(3_600);

/// Another process uses our identity: at once would be a ping-pong.
pub const CLONE_WAIT_FROM: Duration = Duration::from_secs(300);
/// Upper end of the same.
pub const CLONE_WAIT_TO: Duration = Duration::from_secs(900);

/// The cloud does not accept our certificate: only a person can change that.
pub const REFUSED_WAIT_FROM: Duration = Duration::from_secs(900);
/// Upper end of the same.
pub const REFUSED_WAIT_TO: Duration = Duration::from_secs(1_800);
