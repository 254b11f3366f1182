//! Every limit of requests to servers, with the reason for its value.

use std::time::Duration;

/// Fields of an answer's header.
pub const HEADERS_MAX: usize = 100;

/// Messages of one sign-in. Kerberos takes one or two, NTLM two.
pub const SIGN_IN_ROUNDS_MAX: u32 = 4;

/// Sealed or base64 token in a header field; Kerberos tickets of users in many groups reach 48 KiB.
pub const TOKEN_HEADER_MAX_BYTES: usize = 64 << 10;

/// How long a server that failed is left alone.
pub const CIRCUIT_OPEN: Duration = Duration::from_secs(30);

/// Shortest and longest waits that a service may tell us.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Connections kept open for later requests, per system. Four requests at once is what NDES is asked for at most, and
/// a system has a page and a service.
pub const IDLE_CONNECTIONS_MAX: usize = 8;

/// How long a connection is kept open for later requests; IIS closes after 120 s.
pub const IDLE_CONNECTION_FOR: Duration = Duration::from_secs(60);
