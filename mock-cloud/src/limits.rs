//! Every limit of the cloud, with the reason for its value. Limits of the wire are in `causeway_protocol::limits`.

use std::num::NonZeroU32;
use std::time::Duration;

/// Writes of one group commit: at a millisecond of fsync this is 64,000 small writes a second, and still a short wait.
pub const GROUP_COMMIT_JOBS_MAX: usize = 64;

/// Numbers of directory ids the writing thread keeps during an upload, about 100 bytes each; beyond it, it begins anew.
pub const NUMBERS_KEPT_MAX: usize = 200_000;

/// Jobs waiting for a thread of the store before callers have to wait themselves.
pub const STORE_QUEUE: usize = 1_024;

/// Reading threads: one may be busy with a search over 100,000 people while the other answers the rest.
pub const STORE_READERS: usize = 2;

/// Tenants remembered, of all there are; the rest are read from the store with every call.
pub const TENANTS_KNOWN_MAX: usize = 10_000;

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

/// Targets of one order for many. 1,000 phones fill half of a body.
pub const BATCH_MAX: usize = 1_000;

/// Body of one API call. Desired configs are the largest; `BODY_MAX_BYTES` of the channel is the real limit behind it.
pub const API_BODY_MAX_BYTES: usize = 256 * 1024;

/// What is read of a body that nobody wants, so that whoever sends it gets to the answer. People take a file for a body by
/// mistake; what is larger than this is no mistake, and is interrupted.
pub const UNREAD_MAX_BYTES: usize = 32 << 20;

/// The time that may take: such a body comes in a few seconds over a line of tens of megabits.
pub const UNREAD_WITHIN: Duration = Duration::from_secs(10);

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

/// PBKDF2 rounds of SCRAM verifiers. RFC 7677 §4 asks for at least 4,096; enrolment keys hold 128 random bits, which
/// no number of rounds could make harder to guess.
pub const SCRAM_ITERATIONS: u32 = 4_096;

/// Login attempts on one stream before it ends (RFC 6120 §6.4.5 recommends 2 to 5).
pub const SASL_ATTEMPTS_MAX: usize = 3;

/// Connections let in at once before the pace of `admission_per_sec` holds: a second's worth.
pub const ADMISSION_BURST: Duration = Duration::from_secs(1);

/// How long a connection waits for its turn before it is closed instead. Agents give TLS 10 s, this wait included.
pub const ADMISSION_WAIT_MAX: Duration = Duration::from_secs(4);

/// How long a logged-out stream waits for its turn to log in before it is sent away with a hint; below the 10 s that
/// agents give a login.
pub const LOGIN_TURN_WITHIN: Duration = Duration::from_secs(3);

/// The longest time over which agents are asked to come back, in seconds: beyond it the cloud is too small.
pub const COMEBACK_MAX_SECS: u64 = 300;

/// How long an agent with an enrolment key may take from login to its certificate: it makes its key in that time.
pub const ENROLMENT_WITHIN: Duration = Duration::from_secs(60);

/// Silence after which the XML layer would speak up: never, because the session has its own clock.
pub const STREAM_SILENCE: Duration = Duration::from_secs(24 * 3_600);

/// Silence of an agent after which the cloud asks whether it is there. Agents ask after 45 s, so this is rare.
pub const SILENCE_ASK_AFTER: Duration = Duration::from_secs(120);

/// Silence of an agent after which its connection counts as dead; `IDLE_SECS` as advertised.
pub const SILENCE_MAX: Duration = Duration::from_secs(150);

/// How long written data may stay unsent before the connection counts as dead.
pub const WRITE_WITHIN: Duration = Duration::from_secs(30);

/// How long the last words on a stream may take.
pub const GOODBYE_WITHIN: Duration = Duration::from_millis(300);

/// Stanzas queued for one session. Behind it, requests go to another agent and actions wait in the store.
pub const OUTBOUND_QUEUE: usize = 64;

/// Elements written to a stream between two flushes, and read beyond what the peer takes of our answers.
pub const BURST_MAX: usize = 64;

/// Stanzas of one session in work at once; then it is not read until one is done.
pub const INBOUND_WORK_MAX: usize = 64;

/// Cut sessions kept for resumption: twice the agents one node is meant for.
pub const DETACHED_SESSIONS_MAX: usize = 20_000;

/// Bytes all cut sessions together may hold.
pub const DETACHED_MAX_BYTES: usize = 64 << 20;

/// How often shutting down looks whether everyone is gone.
pub const SHUTDOWN_POLL: Duration = Duration::from_millis(5);

/// How often live sessions are compared with the list of revoked agents; well below the promised 10 s.
pub const REVOCATIONS_EVERY: Duration = Duration::from_secs(2);

/// Host name of an agent, in bytes; DNS allows 253.
pub const HOST_MAX_BYTES: usize = 255;

/// Name of a leased resource, in bytes.
pub const RESOURCE_MAX_BYTES: usize = 200;

/// Shortest time after which asking again for a lease is suggested ...
pub const LEASE_RETRY_MIN_MS: u64 = 100;

/// ... and the longest: a holder may give its lease back at any time.
pub const LEASE_RETRY_MAX_MS: u64 = 5_000;

/// Actions between dispatch and acceptance at once.
pub const ACTIONS_IN_FLIGHT_MAX: usize = 256;

/// Dispatches of one action before it fails; a tenant in which every agent refuses must not keep the cloud busy.
pub const ATTEMPTS_MAX: u32 = 20;

/// Pause before an action is offered again to an agent whose session ended under the last attempt; a session that is
/// being replaced is there again within a second.
pub const SESSION_PAUSE: Duration = Duration::from_millis(500);

/// Pause before an action is offered again after an agent had no room.
pub const OVERLOAD_PAUSE: Duration = Duration::from_secs(1);

/// Pause before a config is sent again to an agent that could not take it: soon enough for a person who has just made
/// room on a disk, and a hundred agents with full disks cost twenty stanzas a second.
pub const CONFIG_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Pause after the store failed.
pub const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What an accepted action gets beyond its deadline, for the agent's own report to arrive.
pub const DEADLINE_GRACE: Duration = Duration::from_secs(2);

/// Overdue actions ended in one turn.
pub const DEADLINES_PER_TURN: usize = 256;

/// Agents asked for one verdict, when those before certainly did not try.
pub const AGENTS_TRIED_MAX: usize = 3;

/// Seconds an agent is asked to wait when too many uploads are under way.
pub const UPLOAD_RETRY_SECS: u32 = 5;

/// Parts a long batch is written in. Nobody else can write meanwhile, and a full batch takes the store 60 ms and more: that is
/// how long each of an action's steps waited when it was written at once.
pub const PARTS_OF_A_BATCH: usize = 14;

/// Changes written at once, at least: shorter parts cost more than they give others.
pub const CHANGES_PER_PART_MIN: usize = 100;

/// How long an upload without a batch takes the place of another. An agent that finds nothing changed begins one, sends
/// nothing, and lets it be until it collects again.
pub const UPLOAD_FIRST_BATCH_WITHIN: Duration = Duration::from_secs(60);

/// Objects a snapshot may always delete: in a directory of ten, a fifth is two.
pub const MASS_DELETE_MIN: u64 = 5;

/// Decoded bytes allowed whatever the ratio: small batches of much the same records compress very well.
pub const BATCH_RATIO_FLOOR_BYTES: usize = 256 * 1024;

/// Largest window a batch's frame may ask for (2^23 = 8 MiB, all a batch can hold).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Body of a commit.
pub const COMMIT_BODY_MAX_BYTES: usize = 1_024;

/// Time for the head of an HTTP/1.1 request.
pub const HTTP_HEADER_WITHIN: Duration = Duration::from_secs(30);

/// Requests of one HTTP/2 connection at once.
pub const HTTP_STREAMS_MAX: u32 = 128;

/// Window of one HTTP/2 stream: what a sender may have under way unread.
pub const HTTP_WINDOW_BYTES: u32 = 256 * 1024;

/// Read and write buffer of one WebSocket, which the library takes at once: most messages are below 1 KiB.
pub const WEBSOCKET_BUFFER_BYTES: usize = 4 * 1024;

/// What a WebSocket holds unsent: the buffer, and two of the largest messages behind it.
pub const WEBSOCKET_UNSENT_MAX_BYTES: usize =
    WEBSOCKET_BUFFER_BYTES + 2 * (causeway_protocol::limits::ELEMENT_MAX_BYTES + 1_024);

/// The longest time over which a node is emptied.
pub const DRAIN_OVER_MAX: Duration = Duration::from_secs(3_600);

/// Enrolled phones shown as possibly the same one.
pub const CANDIDATES_MAX: usize = 10;

/// Time to live of what is ordered for a phone: agents retry throttled, unreachable and refused orders up to 168 h.
pub const DEVICE_ACTION_TTL: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Phones the compliance rule reads and notes at once.
pub const COMPLIANCE_PAGE: usize = 2_000;

/// Orders of the compliance rule in one turn; the rest follows, so that people's orders are not behind thousands.
pub const COMPLIANCE_ORDERS_PER_TURN: usize = 200;

/// The time between two such turns.
pub const COMPLIANCE_TURN: Duration = Duration::from_secs(5);

/// Blocks within the window before a person is asked, when the rule does not say: a mistake in enrolment's data must not
/// cost a company its mail.
pub const COMPLIANCE_BLOCKS_MAX: u64 = 20;

/// The window of that, in seconds.
pub const COMPLIANCE_WINDOW_SECS: u64 = 3_600;

/// Names a compliance rule may exempt.
pub const EXEMPT_MAX: usize = 1_000;

/// Identifier of an enrolled phone, in bytes.
pub const IDENTIFIER_MAX_BYTES: usize = 256;

/// Certificate profiles of a tenant: all of them travel to agents in one desired config.
pub const CERTIFICATE_PROFILES_MAX: usize = 50;

/// Users a certificate profile may name.
pub const PROFILE_USERS_MAX: usize = 1_000;

/// Pattern of a subject or an alternative name in a certificate profile, in bytes.
pub const PATTERN_MAX_BYTES: usize = 1_024;

/// Alternative names of a certificate profile.
pub const ALTERNATIVE_NAMES_MAX: usize = 20;

/// A device's signing request, DER: an RSA-4096 one with ten names has 2 KiB. A stanza to an agent holds more.
pub const CSR_MAX_BYTES: usize = 16 * 1024;

/// A device's public key, DER: RSA-8192 has 1 KiB.
pub const DEVICE_KEY_MAX_BYTES: usize = 2 * 1024;

/// A certificate as an agent reports it, DER; those of authorities above it count one by one.
pub const CERTIFICATE_MAX_BYTES: usize = 64 * 1024;

/// Authorities above a certificate.
pub const CHAIN_MAX: usize = 8;

/// Requests, certificates and revocations looked at in one turn; the rest follows at once.
pub const CERTIFICATE_TURN_MAX: usize = 200;

/// How long an agent has for a challenge: NDES pages take seconds when the authority is busy.
pub const CHALLENGE_WITHIN: Duration = Duration::from_secs(30);

/// Longest life of a challenge, whatever the agent says: NDES keeps them 60 minutes.
pub const CHALLENGE_LIFE_MAX: Duration = Duration::from_secs(60 * 60);

/// Time to live of the order for a certificate: an authority's administrators may take a week to approve.
pub const CERTIFICATE_ORDER_TTL: Duration = Duration::from_secs(14 * 24 * 3_600);

/// Time to live of the order to revoke one; a new one follows when it could not be done.
pub const REVOCATION_ORDER_TTL: Duration = Duration::from_secs(24 * 3_600);

/// Renewals the timetable may begin in an hour, over all devices of a tenant, when the settings do not say: below what an
/// NDES with five passwords of an hour's life takes, because most challenges are used within seconds.
pub const RENEWALS_PER_HOUR: u64 = 600;

/// The time over which certificates are replaced whose profile has changed.
pub const REPLACE_OVER: Duration = Duration::from_secs(3 * 24 * 3_600);

/// The pause after a request has failed for the first time ...
pub const CERTIFICATE_RETRY_MIN: Duration = Duration::from_secs(30);

/// ... doubled with each further failure up to this.
pub const CERTIFICATE_RETRY_MAX: Duration = Duration::from_secs(6 * 3_600);

/// Tries of a revocation before it is left to a person.
pub const REVOCATION_TRIES_MAX: u32 = 20;

/// Certificates in use that end within this time are worth an alert: renewal should be long over.
pub const CERTIFICATE_ENDS_SOON: Duration = Duration::from_secs(2 * 24 * 3_600);

/// An authority that ends within this time is worth an alert: a new one has to reach every device first.
pub const AUTHORITY_ENDS_SOON: Duration = Duration::from_secs(60 * 24 * 3_600);
