//! Every bound a simulated phone obeys, with the reason for its value.

use std::time::Duration;

/// How long connecting may take, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take that the server need not wait for.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer read.
pub const ANSWER_MAX_BYTES: usize = causeway_protocol::limits::WBXML_MAX_BYTES;

/// How often a visit starts over (provisions, fetches its folders anew, follows a redirect) before the phone gives up:
/// one each of redirect, provisioning, restart and changed folders, and as many again.
pub const ROUNDS_MAX: usize = 8;

/// Answers with more to come that one visit reads of one folder: 512 messages each are far above what a mailbox of the
/// mock holds.
pub const PAGES_MAX: usize = 200;

/// Messages asked for at once, as phones in the field do.
pub const WINDOW: usize = 25;

/// Experiences a phone remembers; the oldest are dropped.
pub const EVENTS_MAX: usize = 200;

/// Messages a view lists.
pub const MESSAGES_SHOWN_MAX: usize = 20;

/// Simulated phones of one mock: each that keeps in touch has a connection open all the time.
pub const PHONES_MAX: usize = 2_000;

/// How long a phone waits for news unless told otherwise, in seconds: what iPhones begin with.
pub const HEARTBEAT_SECS: u32 = 470;

/// Time beyond the heartbeat before a phone gives the connection up.
pub const HEARTBEAT_GRACE: Duration = Duration::from_secs(30);

/// How long a phone that was turned away waits before it tries again.
pub const RETRY_SECS: u32 = 60;

/// Longest Retry-After a phone obeys: an hour, above which users would have restarted it.
pub const RETRY_AFTER_MAX_SECS: u32 = 3_600;
