//! Seeds that once found a mistake. Each is played by the tests as long as the mistake could come back.

/// Name of the mistake and the seed that showed it.
pub const REGRESSIONS: &[(&str, u64)] = &[
    ("config refused by a full disk", 204),
    ("an undelivered attempt hid one without an answer", 966),
    ("an ending session used up every attempt of an action it may have had", 3577),
    ("an order's deadline was missed that came while the next one was looked up", 8829),
];
