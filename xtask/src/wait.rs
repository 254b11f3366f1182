//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

use anyhow::bail;

const INTERVAL: Duration = Duration::from_millis(100);

/// Asks until `condition` is `Ok`, at most for `bound`; the error then holds the last answer.
pub(crate) fn until<T>(
    what: &str,
    bound: Duration,
    mut condition: impl FnMut() -> anyhow::Result<Wait<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match condition()? {
            Wait::Done(value) => return Ok(value),
            Wait::NotYet(last) if started.elapsed() > bound => bail!("{what}: not within {bound:?}: {last}"),
            Wait::NotYet(_) => std::thread::park_timeout(INTERVAL),
        }
    }
}

/// One answer of a condition: settled, or what it looks like so far.
pub(crate) enum Wait<T> {
    Done(T),
    NotYet(String),
}
