//! Every limit inside the agent, with the reason for its value. Limits of the wire are in `causeway_protocol::limits`.

use std::time::Duration;

/// Opening a TCP connection, proxy included. Longer than two SYN retransmissions (1 s + 2 s), shorter than a person's
/// patience at the doctor.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Resolving a name. The system resolver's own default is 5 s for each of two attempts.
pub const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// Every name server is asked so often for one name.
pub const DNS_ATTEMPTS: usize = 2;
/// A silent name server is joined by the next one. Answers take milliseconds, those from far away some hundred.
pub const DNS_NEXT_SERVER_AFTER: Duration = Duration::from_secs(1);
/// Name servers asked, domains of short names tried: more than any system is set to.
pub const DNS_SERVERS_MAX: usize = 8;
/// See [`DNS_SERVERS_MAX`].
pub const DNS_SEARCH_MAX: usize = 16;
/// Names of the file `hosts`; lists against advertising have more, and nobody serves those.
pub const DNS_HOSTS_MAX: usize = 10_000;
/// One answer over UDP. Without asking for more, 512 bytes is what may come (RFC 1035); some send more all the same.
pub const DNS_DATAGRAM_MAX_BYTES: usize = 4_096;
/// Aliases followed from server to server.
pub const DNS_ALIASES_MAX: usize = 4;
/// Answers remembered; an agent asks for some dozens of names, a proxy script perhaps for more.
pub const DNS_CACHE_MAX: usize = 512;
/// An answer is asked for again after this, however long it may be kept.
pub const DNS_ANSWER_HOLDS_MAX: Duration = Duration::from_secs(3_600);
/// The system's settings are read again after this: a machine that changes networks finds its new name servers.
pub const DNS_SETTINGS_HOLD: Duration = Duration::from_secs(10);

/// TLS handshake on an open connection.
pub const TLS_WITHIN: Duration = Duration::from_secs(10);

/// The head of a proxy's answer; the same as common HTTP servers allow.
pub const PROXY_HEAD_MAX_BYTES: usize = 64 * 1024;

/// The body of a proxy's refusal that is read to keep the connection usable.
pub const PROXY_BODY_MAX_BYTES: usize = 256 * 1024;

/// A proxy that says nothing for so long is broken.
pub const PROXY_WITHIN: Duration = Duration::from_secs(30);

/// A proxy that failed is tried last for so long; browsers do the same.
pub const PROXY_AVOIDED_FOR: Duration = Duration::from_secs(300);
/// Failed proxies remembered; a script that invents names must not fill the memory.
pub const FAILING_PROXIES_MAX: usize = 64;
/// Exceptions from the proxy; the longest lists seen in the field have some hundreds.
pub const BYPASS_ITEMS_MAX: usize = 1_024;
/// Names asked for a WPAD server.
pub const WPAD_NAMES_MAX: usize = 8;
/// The system's proxy discovery; WinHTTP's own can take several seconds per network.
pub const SYSTEM_PROXY_WITHIN: Duration = Duration::from_secs(15);
/// How often agent.toml and the secrets are looked at for another way out. Two calls of `stat`.
pub const PROXY_WATCHED_EVERY: Duration = Duration::from_secs(2);
/// Steps of one connection that the doctor shows ...
pub const STEPS_MAX: usize = 200;
/// ... and the length of each.
pub const STEP_MAX_CHARS: usize = 400;

/// A whole tunnel, all rounds and a KDC included.
pub const PROXY_TUNNEL_WITHIN: Duration = Duration::from_secs(60);

/// The body of a refusal; a proxy whose Content-Length promises more than it sends is not waited for.
pub const PROXY_BODY_WITHIN: Duration = Duration::from_secs(3);

/// CONNECT requests for one tunnel. The longest proper exchange takes five: nothing, a remembered nonce that is stale,
/// and Negotiate with NTLM inside, which needs three.
pub const PROXY_ROUNDS_MAX: usize = 8;

/// Interim (1xx) answers before the real one. Proxies have no reason to send any.
pub const PROXY_INTERIM_MAX: usize = 4;

/// The line with a chunk's size, and a trailer line.
pub const PROXY_CHUNK_LINE_MAX_BYTES: usize = 1024;

/// Of a refusal's page so much is read for its text. squid's pages have 3 to 4 KiB, the text in the middle.
pub const PROXY_TEXT_READ_MAX_BYTES: usize = 8 * 1024;

/// Of the text so much is kept: what fits into a log line.
pub const PROXY_TEXT_MAX_CHARS: usize = 300;

/// Challenges in one answer; four schemes exist, Digest may come once for each algorithm.
pub const CHALLENGES_MAX: usize = 16;

/// Parameters of one challenge; Digest has nine.
pub const CHALLENGE_PARAMETERS_MAX: usize = 32;

/// An authentication message from the proxy. Windows' own limit for Kerberos tickets is 48,000 bytes.
pub const PROXY_TOKEN_MAX_BYTES: usize = 48_000;

/// Refused credentials are shown again after this. Active Directory's usual lock-out counts over 10 to 30 minutes.
pub const CREDENTIAL_RETRY_AFTER: Duration = Duration::from_secs(30 * 60);

/// Within that time one attempt per proxy, and so many over all proxies: below the smallest usual lock-out threshold, 3.
pub const CREDENTIAL_REFUSALS_MAX: usize = 2;

/// Refused credentials remembered until they change. An installation has a handful of accounts; this many are only seen
/// when somebody types at random.
pub const REFUSALS_REMEMBERED_MAX: usize = 64;

/// So many passwords without any answer count like a refusal: a proxy that hangs up on wrong ones exists.
pub const CREDENTIAL_UNANSWERED_MAX: usize = 3;

/// Proxies and refusals remembered; companies have a handful.
pub const PROXIES_REMEMBERED_MAX: usize = 32;

/// One exchange with a KDC.
pub const KDC_WITHIN: Duration = Duration::from_secs(5);

/// KDCs asked for one message.
pub const KDC_TRIES: usize = 3;

/// A ticket with the group memberships of a large company has up to 64 KiB (MS-PAC).
pub const KDC_ANSWER_MAX_BYTES: usize = 256 * 1024;

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

/// Longest secret read from standard input or a file. A PEM file with a key of 4,096 bits and a chain of certificates has
/// some 10 KB.
pub const SECRET_MAX_BYTES: usize = 64 << 10;

/// Room on the disk made sure of before an enrolment key is spent, besides that for settings and secrets: the identity has
/// some 3 KB, and every file is rounded up to whole blocks.
pub const ENROLMENT_ROOM_BYTES: usize = 16 << 10;

/// Most pairs of lines compared to show what `configure` changes: 8 MB of counts.
pub const DIFF_PAIRS_MAX: usize = 1 << 21;

/// Iqs of ours, and answers to requests, waiting for the channel's task.
pub const CHANNEL_QUEUE_MAX: usize = 256;

/// Elements waiting to be written before the channel's task takes no new ones.
pub const WRITE_QUEUE_MAX: usize = 64;

/// Elements waiting to be written at which a peer that asks and does not read is given up. More than the answers that
/// can be owed at once for any other reason ([`ACCEPTS_AT_ONCE`], a full window of repeats after a resumption).
pub const WRITE_QUEUE_HARD_MAX: usize = 2_048;

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

/// The cloud is full or tired of us (`resource-constraint`, `policy-violation`): not within a minute ...
pub const CONSTRAINED_WAIT_FROM: Duration = Duration::from_secs(60);
/// ... and spread up to the cap of the usual back-off.
pub const CONSTRAINED_WAIT_TO: Duration = Duration::from_secs(300);

/// Actions accepted and not finished; further ones are refused with "wait". An order for every phone of a large company
/// may be held until a person confirms, and the confirmation must find room: 10,000 and some. About 2 KiB each.
pub const ACTIONS_OPEN_MAX: usize = 12_000;

/// The longest life of an action, whatever the cloud says.
pub const ACTION_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How long a finished action is remembered ...
pub const INBOX_KEEP: Duration = Duration::from_secs(7 * 24 * 3_600);
/// ... unless there are more than this many.
pub const INBOX_ROWS_MAX: usize = 100_000;
/// How often that is looked at.
pub const INBOX_PRUNE_EVERY: Duration = Duration::from_secs(600);

/// Rows read from storage at once.
pub const STORAGE_PAGE: usize = 1_000;

/// A write the disk refused is tried again after this long.
pub const STORAGE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Reports kept in memory; more wait in the state file only.
pub const OUTBOX_WINDOW: usize = 1_024;

/// Reports on their way at once. Enough for 1,000 a second at a round trip of 100 ms.
pub const OUTBOX_IN_FLIGHT: usize = 128;

/// After the cloud said "wait" or did not answer.
pub const OUTBOX_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Modules configured at once; the build knows fewer, so this only stops a mad cloud.
pub const MODULES_MAX: usize = 64;

/// A module that fails is started again after a random wait of up to this, doubling ...
pub const RESTART_BACKOFF_FROM: Duration = Duration::from_secs(1);
/// ... to this.
pub const RESTART_BACKOFF_CAP: Duration = Duration::from_secs(60);
/// So many restarts ...
pub const RESTARTS_MAX: usize = 5;
/// ... within this long are the budget;
pub const RESTARTS_WITHIN: Duration = Duration::from_secs(600);
/// a module that has spent it, or says that only a person can help, waits this long.
pub const RESTART_PENALTY: Duration = Duration::from_secs(600);

/// Another agent holds the lease: ask again no sooner ...
pub const LEASE_ASK_FROM: Duration = Duration::from_millis(250);
/// ... and no later than this, so that a failover is quick.
pub const LEASE_ASK_TO: Duration = Duration::from_secs(30);
/// A lease could not be asked for or renewed.
pub const LEASE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// An upload, a batch or a commit that finds no working cloud for so long fails; the module begins again later.
pub const UPLOAD_OUTAGE_MAX: Duration = Duration::from_secs(600);
/// First wait before a batch is sent again, doubling ...
pub const UPLOAD_BACKOFF_FROM: Duration = Duration::from_millis(250);
/// ... to this.
pub const UPLOAD_BACKOFF_CAP: Duration = Duration::from_secs(15);
/// The cloud says "busy" without saying for how long.
pub const UPLOAD_BUSY_AFTER: Duration = Duration::from_secs(2);
/// The longest wait the cloud can ask for between two attempts.
pub const UPLOAD_RETRY_AFTER_MAX: Duration = Duration::from_secs(120);
/// Batches on their way at once, whatever the cloud grants: each holds up to 1 MiB twice.
pub const UPLOAD_CREDITS_MAX: u32 = 8;
/// Level 3 halves the size again compared with 1 at twice its time; 1 MiB of NDJSON takes about 3 ms at level 1 and
/// shrinks to a tenth, and the uplink is not what a full sync waits for.
pub const ZSTD_LEVEL: i32 = 1;

/// One HTTP exchange, connecting included.
pub const HTTP_WITHIN: Duration = Duration::from_secs(60);
/// Longest answer of the upload routes; they are all small JSON documents.
pub const HTTP_ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Notices and progress waiting for a session.
pub const NEWS_MAX: usize = 256;
/// Pause between two of them, so that a fast collection does not flood the channel with its progress.
pub const NEWS_PACE: Duration = Duration::from_millis(50);

/// A module that changed is reported within this.
pub const HEALTH_LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest pause between two health reports, whatever the cloud says.
pub const HEALTH_EVERY_MAX: Duration = Duration::from_secs(300);
/// The status file is at most this old.
pub const STATUS_FILE_EVERY: Duration = Duration::from_secs(10);
/// Kerberos refuses more (RFC 4120 suggests 5 minutes).
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// How often the certificate's age is looked at.
pub const ROTATION_LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// A renewal that failed is tried again after this, or up to twice as long.
pub const ROTATION_RETRY_AFTER: Duration = Duration::from_secs(900);

/// After the modules have ended, the rest may take this long.
pub const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Threads of the agent's runtime.
pub const WORKER_THREADS_MAX: usize = 4;

/// One module's part of the doctor.
pub const MODULE_CHECK_WITHIN: Duration = Duration::from_secs(60);

/// Answer to a WebSocket request on an open TLS connection; as long as the handshake before it.
pub const UPGRADE_WITHIN: Duration = Duration::from_secs(10);
/// Read and write buffer of a WebSocket; most messages are below 1 KiB.
pub const WEBSOCKET_BUFFER_BYTES: usize = 4 * 1024;
/// What a WebSocket holds unsent: the buffer, and two of the largest messages behind it.
pub const WEBSOCKET_UNSENT_MAX_BYTES: usize =
    WEBSOCKET_BUFFER_BYTES + 2 * (causeway_protocol::limits::ELEMENT_MAX_BYTES + 1_024);
/// Handshakes cut in a row before a WebSocket is tried: one cut is bad luck, or a cloud without room.
pub const CUTS_BEFORE_FALLBACK: u32 = 2;
/// A WebSocket that works is used so long before the direct way is tried again.
pub const FALLBACK_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// The same when the direct way was only cut: a crowded cloud does that too.
pub const FALLBACK_KEPT_UNSURE: Duration = Duration::from_secs(3_600);
/// How often that time is looked at.
pub const WAY_LOOK_EVERY: Duration = Duration::from_secs(600);

/// A look at who answers in the cloud's place.
pub const GLIMPSE_WITHIN: Duration = Duration::from_secs(5);
/// The head of that answer.
pub const GLIMPSE_MAX_BYTES: usize = 16 * 1024;
/// Somebody stands between us and the cloud (captive portal, TLS inspection): a person has to sign in or to make an
/// exception, and both take minutes.
pub const INTERCEPTED_WAIT_FROM: Duration = Duration::from_secs(30);
/// Upper end of the same.
pub const INTERCEPTED_WAIT_TO: Duration = Duration::from_secs(60);

/// How often the surroundings are looked at: a moved laptop is online again within seconds, and a look is two system
/// calls.
pub const SURROUNDINGS_LOOK_EVERY: Duration = Duration::from_secs(3);
/// Time that is missing or too much between two looks before it counts as sleep or a set clock. Above what a busy
/// machine delays a task, well below the life of a lease.
pub const CLOCK_JUMP_MIN: Duration = Duration::from_secs(15);
/// After a nudge agents dial within this: at once for a person, and yet not all agents of a rebooted switch in one
/// moment.
pub const NUDGE_SPREAD: Duration = Duration::from_millis(500);
/// Nudges on their way; each makes the others superfluous.
pub const NUDGES_MAX: usize = 4;
/// After a redirect agents dial within this, when the cloud says nothing else; it sends them one by one.
pub const REDIRECT_SPREAD: Duration = Duration::from_millis(500);

/// One area of the doctor: longer than its slowest module, so that the module's own limit speaks first.
pub const CHECK_AREA_WITHIN: Duration = Duration::from_secs(90);

/// The doctor's one HTTP exchange with the cloud.
pub const CHECK_HTTP_WITHIN: Duration = Duration::from_secs(15);

/// A status older than this was written by an agent that has ended: three times [`STATUS_FILE_EVERY`].
pub const STATUS_FRESH_WITHIN: Duration = Duration::from_secs(30);

/// Below this the doctor warns of a disk that is filling up: the state file of 100,000 people, twice, and logs.
pub const DISK_FREE_WARNING_BYTES: u64 = 1_000_000_000;
/// Below this the next commit may fail.
pub const DISK_FREE_MIN_BYTES: u64 = 100_000_000;

/// Files and connections the agent has open at its busiest: directory pools, uploads, the state file.
pub const WORKING_FILES_MIN: u64 = 256;

/// Memory that should be left on the machine: what the agent takes during a first sync.
pub const WORKING_MEMORY_BYTES: u64 = 150_000_000;

/// Resident memory of a healthy agent with 100,000 people is below 100 MB.
pub const RSS_WARNING_BYTES: u64 = 300_000_000;

/// More reports than this waiting means that the cloud does not take them.
pub const OUTBOX_BACKLOG: u64 = 1_000;

/// A collection older than this is worth a look; the longest interval of the delta is a day.
pub const SYNC_AGE_WARNING: Duration = Duration::from_secs(2 * 86_400);

/// A support bundle, so that it can be mailed.
pub const BUNDLE_MAX_BYTES: usize = 4 << 20;
/// The end of the log in it: hours of a quiet agent, minutes of one in trouble.
pub const BUNDLE_LOG_MAX_BYTES: u64 = 512 << 10;
/// The last actions in it.
pub const BUNDLE_ACTIONS_MAX: usize = 200;
/// Rows of a table counted for it; more say nothing new.
pub const BUNDLE_ROWS_COUNTED_MAX: usize = 1_000_000;
