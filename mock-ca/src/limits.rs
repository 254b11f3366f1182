//! Every bound the mock obeys, with the reason for its value.

use std::time::Duration;

/// Keys one process keeps: five a mock, for a dozen of seeds that tests use side by side.
pub const KEPT_KEYS_MAX: usize = 64;

/// Longest challenge password that is looked at; NDES's have 16 digits, policy modules' blobs a few hundred.
pub const CHALLENGE_MAX_BYTES: usize = 4_096;

/// Challenges administrators can have made at once.
pub const CHALLENGES_MAX: usize = 20_000;

/// Largest PKCS#10 that is read: a request with RSA-8192 and every extension in use stays under 8 KiB.
pub const CSR_MAX_BYTES: usize = 64 * 1024;

/// Largest RSA key that is verified; bigger ones only cost time.
pub const RSA_MAX_BITS: u32 = 8_192;

/// Requests in the books: minutes of issuing at full speed, some 500 MB.
pub const LEDGER_MAX: usize = 200_000;

/// Entries one call of the admin API lists at most.
pub const LISTED_MAX: usize = 10_000;

/// Certificates one OCSP request asks about.
pub const OCSP_REQUESTS_MAX: usize = 64;

/// How long the TLS handshake and the head of an HTTP request may take.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest SCEP message: a request is about 3 KiB, one with RSA-4096 and a chain 10.
pub const SCEP_MESSAGE_MAX_BYTES: usize = 256 * 1024;

/// Longest request line and head: clients that use GET send the message in it, about 3.6 KB (the sheet, 1.1).
pub const REQUEST_LINE_MAX_BYTES: usize = 16 * 1024;
pub const HEAD_MAX_BYTES: usize = 64 * 1024;

/// Largest OCSP request.
pub const OCSP_MAX_BYTES: usize = 16 * 1024;

/// Largest form, SOAP message or JSON document: a request with every extension in use stays under 12 KiB as base64.
pub const FORM_MAX_BYTES: usize = 256 * 1024;

/// Certificates on one page of a search or of events: what Entrust's hosted gateway gives at most.
pub const SEARCH_PAGE: usize = 50;
