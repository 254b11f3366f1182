//! Every bound the mock obeys, with the reason for its value.

use std::time::Duration;

/// Domain controllers of one organisation; enough for any story about replication.
pub const DOMAIN_CONTROLLERS_MAX: usize = 8;

/// Objects made while the world is locked once; in between, other front ends get their turn.
pub const OBJECTS_PER_TURN: usize = 64;

/// Objects a `Get-` cmdlet returns when nobody says otherwise (documented default of ResultSize).
pub const RESULT_SIZE_DEFAULT: usize = 1000;

/// Longest OPATH filter, and its deepest nesting: far above what a person or program writes, small enough for any stack.
pub const FILTER_SIZE_MAX_BYTES: usize = 16 * 1024;
pub const FILTER_DEPTH_MAX: usize = 64;

/// Changes of settings remembered for the audit log.
pub const AUDIT_ENTRIES_MAX: usize = 2_000;

/// Partnerships that can be generated: one for each of the most people, and some over.
pub const PARTNERSHIPS_MAX: usize = 250_000;

/// Messages one mailbox holds; a phone's test never needs more, and a loop that delivers mail must end somewhere.
pub const MESSAGES_PER_MAILBOX_MAX: usize = 10_000;

/// Device ids one mailbox may list as allowed or blocked each.
pub const PERSONAL_IDS_MAX: usize = 1_000;

/// Device access rules of one organisation, policies, and registered app certificates.
pub const ACCESS_RULES_MAX: usize = 1_000;
pub const POLICIES_MAX: usize = 1_000;
pub const APP_CERTIFICATES_MAX: usize = 32;

/// Bytes under way in each direction of a connection in memory: a TLS record and some.
pub const IN_MEMORY_BUFFER_BYTES: usize = 64 * 1024;

/// How long the TLS handshake and the head of an HTTP request may take.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest body of a REST request: the largest cmdlet of the module is a few kilobytes, a batch carries ten.
pub const REST_BODY_MAX_BYTES: usize = 1024 * 1024;

/// Requests of one `$batch`. The service documents no number; clients in the field send 10.
pub const BATCH_REQUESTS_MAX: usize = 20;

/// Objects of one REST page, whatever `odata.maxpagesize` asks for.
pub const REST_PAGE_MAX: usize = 1000;

/// Results waiting for their next page, each with a page at most; the oldest is dropped, as the service drops abandoned ones.
pub const REST_CURSORS_MAX: usize = 16;

/// Longest life of a client assertion, from its nbf or iat to its exp (the sheet: at most 10 minutes).
pub const ASSERTION_LIFE_MAX_SECS: i64 = 600;

/// Clock difference forgiven between an assertion and the mock.
pub const CLOCK_SKEW_SECS: i64 = 300;

/// Identifiers of used assertions remembered against replay; each is forgotten when it has expired.
pub const ASSERTION_IDS_MAX: usize = 10_000;

/// Largest body of a PowerShell request: the largest envelope that is read, and what sealing puts around it.
pub const REQUEST_MAX_BYTES: usize = causeway_protocol::limits::SOAP_MAX_BYTES + 4096;

/// Runspaces of one pool. Clients of Exchange ask for one; the throttling policy counts pools.
pub const RUNSPACES_MAX: i32 = 32;

/// Smallest envelope taken seriously: the least MaxEnvelopeSize of WSMan (DSP0226 6.2) is 8,192 octets.
pub const ENVELOPE_MIN_BYTES: usize = 8192;

/// Longest idle timeout a client may ask for: IdleTimeout's greatest value in WinRM is about 2 hours for shells of Exchange.
pub const IDLE_TIMEOUT_MAX: Duration = Duration::from_secs(7200);

/// How long a Receive may wait: WinRM's MaxTimeoutms when the client says nothing, and a bound for what it says.
pub const OPERATION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
pub const OPERATION_TIMEOUT_MAX: Duration = Duration::from_secs(900);
