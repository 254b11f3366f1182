//! Every limit of the directory layer, with the reason for its value.

use std::time::Duration;

/// Largest message accepted from a server. A group of 200,000 members in one entry has 10 MB (measured with slapd);
/// Active Directory never sends more than 1,500 values at once.
pub const MESSAGE_MAX_BYTES: usize = 32 << 20;

/// Entries handed on together. The usual MaxPageSize of Active Directory, so that a chunk is normally a page.
pub const CHUNK_ENTRIES: usize = 1_000;

/// Bytes of entries handed on together, so that two chunks of large entries stay small in memory.
pub const CHUNK_MAX_BYTES: usize = 2 << 20;

/// Pages asked for when the server does not force a smaller size. More does not pay (measured), less costs round trips.
pub const PAGE_SIZE: u32 = 1_000;

/// Pages in a row that are empty although the server says there is more. Active Directory sends a few when a filter is
/// evaluated slowly; a server that never ends must not hold us.
pub const EMPTY_PAGES_MAX: u32 = 1_000;

/// Continuation references counted in one search before the server counts as broken. They are never followed.
pub const REFERENCES_MAX: u32 = 10_000;

/// Size of one read from the socket below TLS: two full records.
pub const TLS_READ_BYTES: usize = 32 << 10;

/// Size of one read of the LDAP stream, and of the buffers that entries come in and keep alive.
pub const READ_BYTES: usize = 64 << 10;

/// Room in a buffer that is still read into: several entries of people.
pub const READ_MIN_BYTES: usize = 4 << 10;

/// Connect and TLS handshake together. A dead server must cost an authentication less than its budget of 4 s.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// StartTLS exchange and service account bind.
pub const BIND_WITHIN: Duration = Duration::from_secs(3);

/// Reading rootDSE or one object.
pub const READ_WITHIN: Duration = Duration::from_secs(5);

/// Silence allowed within a page. MaxQueryDuration of Active Directory is 120 s.
pub const PAGE_WITHIN: Duration = Duration::from_secs(120);

/// How long a server that failed is left alone.
pub const CIRCUIT_OPEN: Duration = Duration::from_secs(30);

/// Failures in a row that open the circuit. One is enough: there is another server, and a wrong guess costs 30 s of
/// affinity, while a second try costs every waiting user the connect timeout.
pub const CIRCUIT_FAILURES: u32 = 1;

/// Connections to one server for searches as the service account. One paged search each.
pub const SEARCH_CONNECTIONS: usize = 4;

/// Connections to one server for password checks. slapd peaks at eight (measured).
pub const BIND_CONNECTIONS: usize = 8;

/// A connection unused for so long is closed. Firewalls forget idle connections after five minutes, servers after
/// fifteen.
pub const IDLE_MAX: Duration = Duration::from_secs(120);

/// How long servers found by DNS are used before DNS is asked again.
pub const DISCOVERY_TTL: Duration = Duration::from_secs(300);

/// Servers of one domain that are tried for one operation.
pub const SERVERS_TRIED_MAX: usize = 4;

/// Values read of one ranged attribute. Far above any group seen; ends a server that invents ranges for ever.
pub const RANGED_VALUES_MAX: usize = 5_000_000;

/// Objects asked for by id in one search: a filter of about 8 KB, below every server's limit.
pub const IDS_PER_SEARCH: usize = 100;

/// Diagnostic text kept of an answer.
pub const DIAGNOSTIC_MAX_BYTES: usize = 512;
