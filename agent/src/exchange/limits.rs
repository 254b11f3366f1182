//! Every limit of the Exchange layer, with the reason for its value.

use std::time::Duration;

/// Servers of one organisation. Large companies have more, but an agent talks to those of its site.
pub const SERVERS_MAX: usize = 16;

/// Accounts of one organisation.
pub const ACCOUNTS_MAX: usize = 8;

/// Sessions of one agent with one organisation: one for scans, one for actions. Exchange Online allows three in all, and
/// an administrator must be left one.
pub const SESSIONS_MAX: usize = 2;

/// Silence of a cmdlet after which it counts as hanging: Exchange Online ends every cmdlet after 15 minutes.
pub const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// An answer that takes longer does not come: a server may hold a request for 20 s (`OperationTimeout`), the rest is for
/// the network and the sealing.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// Creating a shell: Exchange loads a session's cmdlets then, which takes seconds on a busy server.
pub const OPEN_WITHIN: Duration = Duration::from_secs(90);

/// Signing in, with all legs and a KDC that is slow.
pub const SIGN_IN_WITHIN: Duration = Duration::from_secs(30);

/// Closing a session properly. Who closes does not wait for the server.
pub const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// A Receive whose answer is lost is asked again; the server repeats what it said. As often as pypsrp does.
pub const RECEIVE_TRIES: u32 = 5;

/// Largest body of an answer over WSMan. We ask for envelopes of 512,000 bytes; encryption and a server that counts
/// differently are allowed for.
pub const WSMAN_BODY_MAX_BYTES: usize = 4 << 20;

/// Largest page of the REST API: 1,000 objects of 30 kB.
pub const REST_BODY_MAX_BYTES: usize = 32 << 20;

/// Objects of a page that are asked for.
pub const REST_PAGE_OBJECTS: u32 = 1_000;

/// Pages of one cmdlet. 10 million objects; ends a server that never stops.
pub const REST_PAGES_MAX: u32 = 10_000;

/// One page. The service ends cmdlets after 15 minutes; a page must be there before.
pub const REST_WITHIN: Duration = Duration::from_secs(300);

/// A token.
pub const TOKEN_WITHIN: Duration = Duration::from_secs(30);

/// Largest answer with a token.
pub const TOKEN_BODY_MAX_BYTES: usize = 64 << 10;

/// A token is renewed so long before it ends, so that no page of a scan meets an expired one.
pub const TOKEN_MARGIN: Duration = Duration::from_secs(300);

/// Lifetime of an assertion; Entra ID takes at most ten minutes.
pub const ASSERTION_LIFETIME: Duration = Duration::from_secs(300);

/// Cookies of one session. Front ends of Exchange set three.
pub const COOKIES_MAX: usize = 20;

/// Name and value of a cookie (RFC 6265 §6.1).
pub const COOKIE_MAX_BYTES: usize = 4096;

/// Servers a session is sent on to before they count as going round in circles.
pub const REDIRECTS_MAX: u32 = 4;

/// Warnings and errors kept of one pipeline. A cmdlet over 100,000 objects can warn for each; the first ones tell.
pub const RECORDS_MAX: usize = 1_000;

/// How long to wait when a server has no runspace for us and does not say when. A forgotten one of ours is given back
/// after 15 minutes; half of that on average.
pub const BUSY_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Longest pause before a cmdlet that a server's own pace makes us take.
pub const PACE_MAX: Duration = Duration::from_secs(60);

/// Text of a server kept in an error.
pub const TEXT_MAX_CHARS: usize = 400;

/// How long to wait when the REST API wants fewer requests and does not say for how long; multiplied by the try.
pub const REST_PAUSE: Duration = Duration::from_secs(5);

/// Waits for one page before the whole cmdlet is put off.
pub const REST_WAITS_MAX: u32 = 5;

/// One step of the doctor.
pub const CHECK_WITHIN: Duration = Duration::from_secs(20);

/// Pause before an answer that got lost is asked for again; multiplied by the try.
pub const RECEIVE_PAUSE: Duration = Duration::from_millis(250);

/// Answers without content that may follow each other at once; a command and its further fragments are some.
pub const EMPTY_ANSWERS_MAX: u32 = 4;

/// What an answer without content takes at least when more of them follow each other.
pub const EMPTY_ANSWER_AFTER: Duration = Duration::from_millis(250);
