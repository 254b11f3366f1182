//! What a mock received, in order, so that a test can say what must have happened and a person can read what did.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::clock::Clock;
use crate::limits::{
    JOURNAL_DETAIL_MAX_BYTES, JOURNAL_ENTRIES_MAX, JOURNAL_SHOWN_ON_FAILURE, JOURNAL_TEXT_MAX_BYTES,
};

/// One thing the mock received and what it answered. Holds no password, token or key: the mock leaves them out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Counts up from 1 without gaps, over the life of the mock.
    pub seq: u64,
    /// The mock's clock, Unix milliseconds.
    pub at_ms: i64,
    /// Front end that received it, such as `ldaps`.
    pub front: String,
    /// The protocol's word for the operation, such as `bind`.
    pub operation: String,
    /// Whom or what it was about: a DN, a user name, a path.
    pub subject: String,
    /// The answer in the protocol's words, such as `success` or `49 data 52e`.
    pub outcome: String,
    /// Whatever else the mock finds worth telling.
    #[schema(value_type = Option<Object>)]
    pub detail: Value,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} {} {:?} -> {}", self.seq, self.front, self.operation, self.subject, self.outcome)?;
        if !self.detail.is_null() {
            write!(f, " {}", self.detail)?;
        }
        Ok(())
    }
}

/// A bounded ring of [`Entry`]; the oldest are dropped and counted. Clones share one journal.
#[derive(Clone, Debug)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    last_seq: u64,
    dropped: u64,
}

/// A journal wait that ran out of time.
#[derive(Debug, thiserror::Error)]
#[error("no matching entry after #{after} within {} ms; {}", bound.as_millis(), shown(last, *seen))]
pub struct WaitError {
    /// The entry after which the wait looked.
    pub after: u64,
    /// How long it waited.
    pub bound: Duration,
    /// How many entries came after `after` without matching.
    pub seen: usize,
    /// The last of them.
    pub last: Vec<Entry>,
}

impl Journal {
    /// An empty journal whose entries carry the time of `clock`.
    pub fn new(clock: Clock) -> Self {
        Self(Arc::new(Inner { ring: Mutex::default(), last: watch::Sender::new(0), clock }))
    }

    /// Appends an entry and returns its number. Texts over the limit are cut, a detail over it is replaced.
    pub fn record(&self, front: &str, operation: &str, subject: &str, outcome: &str, detail: Value) -> u64 {
        let mut entry = Entry {
            seq: 0,
            at_ms: self.0.clock.now_ms(),
            front: front.to_owned(),
            operation: operation.to_owned(),
            subject: cut(subject),
            outcome: cut(outcome),
            detail: bounded(detail),
        };
        let seq = {
            let mut ring = self.ring();
            ring.last_seq += 1;
            entry.seq = ring.last_seq;
            if ring.entries.len() == JOURNAL_ENTRIES_MAX {
                ring.entries.pop_front();
                ring.dropped += 1;
            }
            ring.entries.push_back(entry);
            ring.last_seq
        };
        self.0.last.send_if_modified(|last| {
            let newer = *last < seq;
            *last = seq.max(*last);
            newer
        });
        seq
    }

    /// Every kept entry with a number above `seq`, oldest first.
    pub fn after(&self, seq: u64) -> Vec<Entry> {
        let ring = self.ring();
        let start = ring.entries.partition_point(|entry| entry.seq <= seq);
        ring.entries.range(start..).cloned().collect()
    }

    /// The number of the newest entry, 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.ring().last_seq
    }

    /// Entries lost because the ring was full.
    pub fn dropped(&self) -> u64 {
        self.ring().dropped
    }

    /// How many kept entries match.
    pub fn count(&self, pred: impl Fn(&Entry) -> bool) -> usize {
        self.ring().entries.iter().filter(|entry| pred(entry)).count()
    }

    /// Forgets the kept entries; numbering goes on.
    pub fn clear(&self) {
        self.ring().entries.clear();
    }

    /// The first entry with a number above `after` that matches, waiting at most `bound` for it to arrive.
    ///
    /// # Errors
    /// [`WaitError`] shows the last entries that came instead.
    pub async fn wait(
        &self,
        after: u64,
        bound: Duration,
        pred: impl Fn(&Entry) -> bool,
    ) -> Result<Entry, WaitError> {
        let deadline = tokio::time::Instant::now() + bound;
        let mut last = self.0.last.subscribe();
        let mut looked_to = after;
        loop {
            last.borrow_and_update();
            {
                let ring = self.ring();
                let start = ring.entries.partition_point(|entry| entry.seq <= looked_to);
                if let Some(entry) = ring.entries.range(start..).find(|entry| pred(entry)) {
                    return Ok(entry.clone());
                }
                looked_to = ring.last_seq.max(after);
            }
            // The sender lives as long as this journal, so `changed` cannot fail while we hold `self`.
            if !matches!(tokio::time::timeout_at(deadline, last.changed()).await, Ok(Ok(()))) {
                return Err(self.wait_error(after, bound));
            }
        }
    }

    fn wait_error(&self, after: u64, bound: Duration) -> WaitError {
        let mut seen = self.after(after);
        let count = seen.len();
        let last = seen.split_off(count.saturating_sub(JOURNAL_SHOWN_ON_FAILURE));
        WaitError { after, bound, seen: count, last }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A panic while holding the lock leaves at worst a missing entry, so the ring stays usable.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(last: &[Entry], seen: usize) -> String {
    if last.is_empty() {
        return "nothing was received".to_owned();
    }
    let lines: Vec<String> = last.iter().map(|entry| format!("\n  {entry}")).collect();
    format!("{seen} others were received, the last being:{}", lines.concat())
}

fn cut(text: &str) -> String {
    if text.len() <= JOURNAL_TEXT_MAX_BYTES {
        return text.to_owned();
    }
    let end = (0..=JOURNAL_TEXT_MAX_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}... ({} bytes)", &text[..end], text.len())
}

fn bounded(detail: Value) -> Value {
    let size = size_of_value(&detail);
    if size <= JOURNAL_DETAIL_MAX_BYTES { detail } else { serde_json::json!({ "left_out_bytes": size }) }
}

/// Roughly the bytes a value takes; exact numbers do not matter for a bound.
fn size_of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 8,
        Value::Array(items) => items.iter().map(size_of_value).sum::<usize>() + 8,
        Value::Object(map) => {
            map.iter().map(|(key, value)| key.len() + 8 + size_of_value(value)).sum::<usize>() + 8
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn journal() -> Journal {
        Journal::new(Clock::stepped(7))
    }

    #[test]
    fn the_ring_drops_the_oldest_and_says_so() {
        let journal = journal();
        for _ in 0..JOURNAL_ENTRIES_MAX + 3 {
            journal.record("ldap", "bind", "x", "success", Value::Null);
        }
        assert_eq!(journal.dropped(), 3);
        assert_eq!(journal.after(0).first().map(|entry| entry.seq), Some(4));
        assert_eq!(journal.after(0).len(), JOURNAL_ENTRIES_MAX);
        assert_eq!(journal.count(|entry| entry.operation == "bind"), JOURNAL_ENTRIES_MAX);
        journal.clear();
        assert_eq!(
            journal.record("ldap", "bind", "x", "success", Value::Null),
            JOURNAL_ENTRIES_MAX as u64 + 4
        );
    }

    #[test]
    fn hostile_texts_are_cut_at_a_character() {
        let journal = journal();
        let name = "é".repeat(JOURNAL_TEXT_MAX_BYTES);
        journal.record(
            "ldap",
            "bind",
            &name,
            "success",
            json!({ "filter": "x".repeat(JOURNAL_DETAIL_MAX_BYTES) }),
        );
        let entry = &journal.after(0)[0];
        assert!(entry.subject.len() < JOURNAL_TEXT_MAX_BYTES + 32, "{} bytes", entry.subject.len());
        assert!(entry.subject.ends_with("(2048 bytes)"), "{}", entry.subject);
        assert!(entry.detail.get("left_out_bytes").is_some(), "{}", entry.detail);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_returns_the_entry_that_arrives_later() {
        let journal = journal();
        let before = journal.record("ldap", "bind", "alice", "success", Value::Null);
        let wait = journal.wait(before, Duration::from_secs(5), |entry| entry.subject == "bob");
        let (found, ()) = tokio::join!(wait, async {
            journal.record("ldap", "bind", "alice", "success", Value::Null);
            tokio::task::yield_now().await;
            journal.record("ldaps", "bind", "bob", "success", json!({ "tls": true }));
        });
        let found = found.unwrap();
        assert_eq!((found.seq, found.at_ms, found.front.as_str()), (3, 7, "ldaps"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_bounded_and_shows_what_came_instead() {
        let journal = journal();
        journal.record("ldap", "search", "DC=acme,DC=example", "busy", Value::Null);
        let started = tokio::time::Instant::now();
        let error = journal
            .wait(0, Duration::from_millis(1_500), |entry| entry.operation == "bind")
            .await
            .unwrap_err();
        assert_eq!(started.elapsed(), Duration::from_millis(1_500));
        let text = error.to_string();
        assert!(
            text.starts_with("no matching entry after #0 within 1500 ms; 1 others were received"),
            "{text}"
        );
        assert!(text.contains("#1 ldap search \"DC=acme,DC=example\" -> busy"), "{text}");
        let nothing = journal.wait(1, Duration::from_millis(1), |_| true).await.unwrap_err();
        assert!(nothing.to_string().ends_with("nothing was received"), "{nothing}");
    }
}
