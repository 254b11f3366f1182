//! Every bound the wire side obeys, with the reason for its value.

use std::time::Duration;

/// Deepest nesting of BER elements in a request. Real filters stay below 20; 100 leaves a stack frame budget
/// that the smallest thread stack holds many times over.
pub const BER_DEPTH_MAX: usize = 100;

/// Largest request accepted from a connection that has bound: MaxReceiveBuffer of the default AD query policy.
pub const REQUEST_SIZE_MAX_BYTES: usize = 10 * 1024 * 1024;

/// Largest request accepted before the first successful bind. A bind carries at most a Kerberos ticket; 256 KiB is
/// what slapd allows (`sockbuf_max_incoming`).
pub const REQUEST_SIZE_ANONYMOUS_MAX_BYTES: usize = 256 * 1024;

/// Requests that may be outstanding on one connection before the next ones wait in the socket.
pub const OPERATIONS_PER_CONNECTION_MAX: usize = 64;

/// Paged result sets kept per connection: MaxResultSetsPerConn of the default AD query policy.
pub const RESULT_SETS_PER_CONNECTION_MAX: usize = 10;

/// Change notifications (control 528) per connection: MaxNotificationPerConn of the default AD query policy.
pub const NOTIFICATIONS_PER_CONNECTION_MAX: usize = 5;

/// Bytes of responses gathered before they are written: one TLS write of four records, still small beside
/// the socket buffer, so that a slow client holds back the search instead of filling memory.
pub const WRITE_BATCH_BYTES: usize = 64 * 1024;

/// Bytes read from the socket in one go.
pub const READ_CHUNK_BYTES: usize = 16 * 1024;

/// Entries looked at before the next operation of the same connection gets its turn.
pub const ENTRIES_PER_TURN_MAX: usize = 256;

/// Largest SASL buffer accepted or produced once NTLM signing or sealing is on (RFC 4422 section 3.7 lets both sides
/// state a maximum; NTLM has no negotiation for it, Windows uses the receive buffer size).
pub const SASL_BUFFER_MAX_BYTES: usize = REQUEST_SIZE_MAX_BYTES + 64;

/// Plain bytes put into one SASL buffer of ours.
pub const SASL_CHUNK_BYTES: usize = 32 * 1024;

/// Attribute names in one search request.
pub const SELECTION_ATTRIBUTES_MAX: usize = 4096;

/// Elements of one filter (leaves and branches together).
pub const FILTER_ELEMENTS_MAX: usize = 50_000;

/// Controls in one request.
pub const CONTROLS_MAX: usize = 64;

/// Sort keys in one sort control; AD takes one, the others a handful.
pub const SORT_KEYS_MAX: usize = 16;

/// How long the TLS handshake may take.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an open connection may wait for its first request: InitRecvTimeout of the default AD query policy.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a closing connection may take to take its last bytes.
pub const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Largest entry-less answer a fault may make up (`entry with 50,000 values`).
pub const FAULT_VALUES_MAX: usize = 200_000;

/// Searches that stay (persistent, synchronizing, notifying) on one connection; each costs work at every change.
pub const WATCHES_PER_CONNECTION_MAX: usize = 32;

/// Ids in one Sync Info message: 1,000 take 18 KB, well inside what every client accepts as one message.
pub const SYNC_IDS_PER_MESSAGE_MAX: usize = 1_000;

/// Servers of one domain. Each has up to four ports and, until it writes, shares its entries with the others.
pub const SERVERS_MAX: usize = 8;
