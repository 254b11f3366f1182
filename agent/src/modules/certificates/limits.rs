//! Every limit of the module, with the reason for its value.

use std::time::Duration;

/// Profiles of one tenant. Each is some hundred bytes of the desired config.
pub(super) const PROFILES_MAX: usize = 200;

/// Alternative names of one profile.
pub(super) const NAMES_MAX: usize = 20;

/// Text of a template, or of a value put into one. A distinguished name of a deep directory has 300 characters.
pub(super) const TEXT_MAX_CHARS: usize = 1_024;

/// Variables of one order.
pub(super) const VARIABLES_MAX: usize = 64;

/// A device's signing request. RSA-4096 with long names has 2 kB; whoever sends more wants something else.
pub(super) const CSR_MAX_BYTES: usize = 64 << 10;

/// What sealing adds to a signing request: the envelope for one P-256 key has 300 bytes.
pub(super) const ENVELOPE_MAX_BYTES: usize = 2 << 10;

/// Id of a request.
pub(super) const REQUEST_MAX_BYTES: usize = 128;

/// Keys kept ready: as many as one agent is asked for while a new one is being made.
pub(super) const KEYS_READY: usize = 4;

/// Orders that share one key for their messages. The key protects answers that are no secrets (certificates), so it may
/// serve often; not for ever, so that nothing depends on it.
pub(super) const MESSAGE_KEY_ORDERS: u32 = 1_000;

/// See [`MESSAGE_KEY_ORDERS`].
pub(super) const MESSAGE_KEY_HOLDS: Duration = Duration::from_secs(24 * 3_600);

/// First wait after trouble; doubled each time.
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(2);

/// Longest wait after trouble of the authority: an outage of hours must not be followed by minutes of silence.
pub(super) const RETRY_MAX: Duration = Duration::from_secs(60);

/// Wait after trouble that a person must mend: rights, credentials, settings. Nothing is shown to the authority
/// meanwhile that it has refused.
pub(super) const RETRY_ADMIN: Duration = Duration::from_secs(300);

/// An order for a newer profile than this agent has: the config is on its way.
pub(super) const RETRY_CONFIG: Duration = Duration::from_secs(2);

/// New challenges fetched for one call because the authority refused one. More would burn what others wait for.
pub(super) const CHALLENGES_PER_CALL: u32 = 2;

/// Challenges handed to devices that have not come back yet, over all authorities.
pub(super) const CHALLENGES_OUT_MAX: usize = 256;

/// What a device is told when nothing ends: an order is waited for no longer than a day.
pub(super) const NO_CHALLENGE_TTL: Duration = Duration::from_secs(24 * 3_600);

/// A server that alone knows of an order and has not answered questions for so long is taken for gone: longer than a
/// weekend's works, much shorter than an order lives.
pub(super) const UNHEARD_MAX: Duration = Duration::from_secs(3 * 24 * 3_600);

/// The same of an order that only may have arrived, where other front ends could have it carried out meanwhile: longer
/// than a restart after updates.
pub(super) const UNHEARD_ELSEWHERE_MAX: Duration = Duration::from_secs(3_600);

/// Finished orders are remembered this long: the cloud's own deadline for an order is 30 days at most.
pub(super) const FINISHED_KEPT: Duration = Duration::from_secs(35 * 24 * 3_600);

/// Orders whose end was never heard of.
pub(super) const OPEN_KEPT: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Rows read at once when old ones are looked for.
pub(super) const PAGE: usize = 256;

/// Requests whose tries are counted.
pub(super) const TRIES_KEPT: usize = 4_096;

/// One look-up of a person, over all servers.
pub(super) const LOOKUP_WITHIN: Duration = Duration::from_secs(20);

/// Pause before the watch over authorities looks again at one that could not be reached.
pub(super) const WATCH_RETRY: Duration = Duration::from_secs(300);

/// Characters of a passphrase: 24 of 32 are 120 bits.
pub(super) const PASSPHRASE_CHARS: usize = 24;

/// Rounds of the passphrase's hash in a PKCS#12. The passphrase is random, so the rounds add nothing to it; some
/// programs refuse a small number.
pub(super) const PKCS12_ROUNDS: u32 = 2_048;
