//! Every bound of the kit, with the reason for its value.

use std::time::Duration;

/// Connections one front end holds at once. The cloud's target is 10,000 idle sessions; twice that leaves room
/// for a reconnect wave in which old and new sessions overlap.
pub const CONNECTIONS_MAX: usize = 20_480;

/// Pending connections the kernel queues for one front end; Linux cuts it to `net.core.somaxconn` (4,096).
pub const LISTEN_BACKLOG: u32 = 4_096;

/// Entries the journal keeps. At about 300 bytes each this is 3 MB, and covers a minute of a busy test.
pub const JOURNAL_ENTRIES_MAX: usize = 10_000;

/// Bytes of one journal text (subject, outcome); longer ones are cut so that hostile input cannot fill memory.
pub const JOURNAL_TEXT_MAX_BYTES: usize = 1_024;

/// Bytes of one journal detail (approximate, before encoding); a larger one is replaced by its size.
pub const JOURNAL_DETAIL_MAX_BYTES: usize = 4_096;

/// Longest wait one `GET /journal` request may ask for: under the 60 s after which common HTTP clients give up.
pub const JOURNAL_WAIT_MAX: Duration = Duration::from_secs(30);

/// Entries shown when a journal wait fails: enough to see what happened instead, short enough to read.
pub const JOURNAL_SHOWN_ON_FAILURE: usize = 12;

/// Rules installed at once. Each is tried per request, so a forgotten loop of `POST /faults` must not slow a mock.
pub const FAULT_RULES_MAX: usize = 256;

/// Bytes one direction of a disturbed connection may hold back before the writer has to wait. 256 KiB carries
/// 10 MB/s at 25 ms of latency.
pub const HELD_BACK_MAX_BYTES: usize = 256 * 1024;

/// Bytes read from the socket at a time while the incoming direction is disturbed.
pub const DISTURBED_READ_BYTES: usize = 16 * 1024;

/// A bandwidth fault sends ten slices a second, as Toxiproxy does.
pub const BANDWIDTH_SLICES_PER_SEC: u64 = 10;

/// Body of one admin request. A world document of 100,000 people is not sent through `PUT /world`; a mock that
/// needs more reads a file.
pub const ADMIN_BODY_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Connections to one admin API: tests in parallel and a browser or two; more wait.
pub const ADMIN_CONNECTIONS_MAX: usize = 256;

/// The last moment a mock's clock can be pushed to, the beginning of the year 9000 in Unix milliseconds: what a mock signs
/// or writes then must still end in a year of four digits (RFC 5280 section 4.1.2.5.2).
pub const CLOCK_MAX_MS: i64 = 221_845_392_000_000;

/// Time a stopping mock gets before the process ends anyway; the contract is one second.
pub const STOP_TIMEOUT: Duration = Duration::from_millis(800);

/// How long a front end that was switched off tries to get its port back.
pub const REBIND_TIMEOUT: Duration = Duration::from_secs(5);

/// People in one generated company. RIDs and employee numbers stay below 2^30 (MS-DTYP 2.4.2) with this many.
pub const PEOPLE_MAX: usize = 2_000_000;

/// Letters of a company's DNS domain, and of one label of it (RFC 1035 section 2.3.4; 253 is what 255 octets leave).
pub const DOMAIN_MAX_BYTES: usize = 253;
/// See [`DOMAIN_MAX_BYTES`].
pub const LABEL_MAX_BYTES: usize = 63;

/// Head of one HTTP CONNECT request.
pub const CONNECT_HEAD_MAX_BYTES: usize = 16 * 1024;

/// Requests on one proxy connection before a tunnel stands: one without and one with credentials, and a few more for
/// schemes with several rounds.
pub const CONNECT_REQUESTS_MAX: usize = 8;

/// Digest nonces a proxy remembers; an old one is then stale.
pub const DIGEST_NONCES_MAX: usize = 1_024;

/// Time a proxy tries to reach a target.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Time a proxy client has for its request head, so that an idle connection does not hold a slot for ever.
pub const CONNECT_HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// One DNS message over TCP has a 16-bit length (RFC 1035 4.2.2); over UDP we answer at most the classic 512 bytes
/// or what the client's EDNS record allows, and set TC beyond that.
pub const DNS_UDP_CLASSIC_BYTES: usize = 512;

/// Longest UDP answer whatever the client allows: fits an Ethernet frame without fragments (DNS flag day 2020).
pub const DNS_UDP_MAX_BYTES: usize = 1_232;

/// Questions answered at the same time; more are dropped, as UDP allows.
pub const DNS_QUESTIONS_AT_ONCE: usize = 256;

/// Time one DNS-over-TCP client may stay silent.
pub const DNS_TCP_IDLE: Duration = Duration::from_secs(10);

/// One NTLM token. Windows sends under 3 KiB; the fields are 16-bit lengths (MS-NLMP 2.2.1).
pub const NTLM_TOKEN_MAX_BYTES: usize = 64 * 1024;

/// One SPNEGO token: an NTLM or Kerberos token with some framing. Kerberos tickets with large PACs reach 64 KiB.
pub const SPNEGO_TOKEN_MAX_BYTES: usize = 128 * 1024;

/// Clock difference a service and a KDC forgive (RFC 4120 3.2.3 and Windows' default: 5 minutes).
pub const KERBEROS_SKEW_MAX_MS: i64 = 300_000;

/// Authenticators remembered so that each is taken once; at 40 bytes each this is 160 KiB, and more than a test shows
/// within the ten minutes that one could be shown again.
pub const KERBEROS_REPLAYS_MAX: usize = 4_096;

/// Life of a ticket, as Windows' default policy has it.
pub const KERBEROS_TICKET_LIFE_SECS: i64 = 36_000;

/// One request to the KDC: a ticket with some framing.
pub const KDC_MESSAGE_MAX_BYTES: usize = 128 * 1024;

/// Time a client of the KDC has for its next message.
pub const KDC_CLIENT_WITHIN: Duration = Duration::from_secs(30);

/// A client hello; with post-quantum key shares real ones reach 2 KiB, and one record holds 16.
pub const CLIENT_HELLO_MAX_BYTES: usize = 17 * 1024;

/// Time a client has for its hello.
pub const CLIENT_HELLO_WITHIN: Duration = Duration::from_secs(30);
