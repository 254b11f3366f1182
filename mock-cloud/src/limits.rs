//! Every limit of the cloud, with the reason for its value. Limits of the wire are in `causeway_protocol::limits`.

use std::num::NonZeroU32;
use std::time::Duration;

/// Writes of one group commit: at a millisecond of fsync this is 64,000 small writes a second, and still a short wait.
pub const GROUP_COMMIT_JOBS_MAX: usize = 64;

/// Jobs waiting for a thread of the store before callers have to wait themselves.
pub const STORE_QUEUE: usize = 1_024;

/// Reading threads: one may be busy with a search over 100,000 people while the other answers the rest.
pub const STORE_READERS: usize = 2;

/// Prepared statements kept per connection; all of ours fit.
pub const STATEMENTS_CACHED: usize = 128;

/// Events waiting to be stored. At 1,000 a second this is ten seconds of a store that stands still.
pub const EVENT_QUEUE: usize = 10_000;

/// Events stored in one write.
pub const EVENT_WRITE_MAX: usize = 256;

/// Events a slow reader of the live feed may lag before it catches up from the store.
pub const EVENT_FANOUT: usize = 1_024;

/// Events kept for resuming a feed and for the portal's history: days of a quiet tenant, minutes of a busy one.
pub const EVENTS_KEPT: i64 = 100_000;

/// Old events are removed once per this many new ones.
pub const EVENTS_PRUNE_EVERY: i64 = 1_000;

/// Events a resumed feed reads from the store at a time.
pub const EVENTS_PAGE: usize = 500;

/// How often counted verdicts of password checks become one event: live enough, and 2,000 checks a second cost one row.
pub const VERDICT_EVENT_EVERY: Duration = Duration::from_secs(1);

/// Lines of one action's timeline; its end is written beyond this too.
pub const TIMELINE_MAX: i64 = 200;

/// Steps of groups in groups that are followed. Real directories stay below 20; more means a cycle.
pub const NESTING_MAX: i64 = 64;

/// Rows of a page when the caller does not say.
pub const PAGE_DEFAULT: usize = 100;

/// Rows of a page at most.
pub const PAGE_MAX: usize = 1_000;

/// Body of one API call. Desired configs are the largest; `BODY_MAX_BYTES` of the channel is the real limit behind it.
pub const API_BODY_MAX_BYTES: usize = 256 * 1024;

/// Longest `wait_ms` of an API call, below the idle cut of common proxies.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Name of a tenant or portal user, in bytes.
pub const NAME_MAX_BYTES: usize = 200;

/// Idempotency key, in bytes.
pub const KEY_MAX_BYTES: usize = 200;

/// Time to live of an action when the caller does not say.
pub const ACTION_TTL_DEFAULT: Duration = Duration::from_secs(3_600);

/// Longest time to live of an action: an order nobody carried out for a month is no longer wanted.
pub const ACTION_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Enrolment keys live this long unless the caller says otherwise.
pub const ENROLLMENT_KEY_TTL: Duration = Duration::from_secs(7 * 24 * 3_600);

/// PBKDF2-HMAC-SHA-256 rounds of a portal password. Slows guessing of a stolen file; a sign-in takes about 20 ms.
pub const PASSWORD_ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");

/// A portal session without a click ends after this long ...
pub const PORTAL_IDLE: Duration = Duration::from_secs(2 * 3_600);

/// ... and after this long in any case.
pub const PORTAL_SESSION_MAX: Duration = Duration::from_secs(12 * 3_600);

/// Portal sessions at once; the longest unused one makes room.
pub const PORTAL_SESSIONS_MAX: usize = 1_000;

/// Failed sign-ins per name and per minute before further ones are refused unseen.
pub const SIGN_IN_FAILURES_MAX: u32 = 5;

/// Failed sign-ins of all names together per minute: a spray over many names is slowed too.
pub const SIGN_IN_FAILURES_ALL_MAX: u32 = 50;

/// The minute of the two limits above.
pub const SIGN_IN_WINDOW: Duration = Duration::from_secs(60);

/// Password checks a signed-in person may try on the portal's page per minute.
pub const PORTAL_CHECKS_MAX: u32 = 30;

/// Rows of the portal's tables.
pub const PORTAL_PAGE: usize = 25;

/// Units the portal draws in one tree.
pub const PORTAL_TREE_MAX: usize = 1_000;

/// Live feeds (server-sent events) open at once.
pub const FEEDS_MAX: usize = 256;
