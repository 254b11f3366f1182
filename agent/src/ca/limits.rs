//! Every limit of the layer of certificate authorities, with the reason for its value.

use std::time::Duration;

/// Front ends of one authority. Companies have two or three; more than a page of them is a mistake.
pub const URLS_MAX: usize = 16;

/// One answer. An authority that signs in a hardware module takes seconds, a web front end before it some more.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// One look of the doctor, or of the watch over certificates that end.
pub const LOOK_WITHIN: Duration = Duration::from_secs(15);

/// Largest answer: a certificate with a chain has 10 kB, a page of AD CS 20 kB, a list of profiles 100 kB.
pub const ANSWER_MAX_BYTES: usize = 1 << 20;

/// Text of an authority kept in an error.
pub const TEXT_MAX_CHARS: usize = 400;

/// How long an authority that has trouble without saying for how long is left alone.
pub const BUSY_RETRY_AFTER: Duration = Duration::from_secs(15);

/// What an authority can do is asked for again after this; administrators change it by hand.
pub const CAPABILITIES_HOLD: Duration = Duration::from_secs(3_600);

/// The challenges NDES keeps by default (registry `PasswordMax`) ...
pub const CHALLENGES_KEPT: u32 = 5;

/// ... how long it keeps one (`PasswordValidity`) ...
pub const CHALLENGE_VALID_MINS: u32 = 60;

/// ... and how many characters its page shows (`PasswordLength` is 8 bytes).
pub const CHALLENGE_LENGTH: usize = 16;

/// Challenges held by us at once on one NDES, whatever it keeps: one is left to others, and more at once than this
/// brings nothing, as each is used within seconds.
pub const CHALLENGES_AT_ONCE: u32 = 4;

/// Waiting for our turn, before the order gives its place to others.
pub const CHALLENGE_TURN_WITHIN: Duration = Duration::from_secs(30);

/// A challenge is not used in its last minutes: the request still has to travel, and clocks differ.
pub const CHALLENGE_MARGIN: Duration = Duration::from_secs(180);

/// How soon NDES is asked again whose challenges are all handed out. They come back one by one as others use them.
pub const CHALLENGES_RETRY_AFTER: Duration = Duration::from_secs(20);

/// Links of a chain that are followed; real ones have two or three.
pub const CHAIN_MAX: usize = 8;

/// How long an authority may work on a request whose answer was lost before a search that does not find it counts: two
/// minutes are longer than any front end waits for what is behind it.
pub const SETTLES_WITHIN: Duration = Duration::from_secs(120);

/// Pages of a search that are read: a seat has a handful of certificates.
pub const SEARCH_PAGES_MAX: usize = 20;

/// An authority's clock may differ from ours by so much where its events are looked through.
pub const CLOCKS_DIFFER: Duration = Duration::from_secs(600);

/// Events on one page; Entrust's hosted gateway gives no more.
pub const EVENTS_PAGE: usize = 50;

/// Pages of events that are read: an hour of a busy authority.
pub const EVENTS_PAGES_MAX: usize = 100;

/// Hosts whose clocks are known: front ends, their pages of challenges and the services a policy server names.
pub const CLOCKS_KEPT: usize = 64;

/// An authority is asked for its successor when it ends within this time: those who run it announce one months before.
pub const SUCCESSOR_BEFORE: Duration = Duration::from_secs(365 * 24 * 3_600);
