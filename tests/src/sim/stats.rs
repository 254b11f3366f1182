//! What a run, or many, went through.

use std::collections::{BTreeMap, BTreeSet};

/// Counts of one or many runs.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// How often each kind of fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// What was done: orders, sessions, uploads.
    pub work: BTreeMap<&'static str, u64>,
    /// Storage awaits seen, and how often.
    pub points: BTreeMap<String, u64>,
    /// Storage awaits at which a process died.
    pub crashed_at: BTreeSet<String>,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Lines of event log.
    pub events: u64,
}

impl Stats {
    /// Adds another run's.
    pub fn add(&mut self, other: Self) {
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (kind, count) in other.work {
            *self.work.entry(kind).or_default() += count;
        }
        for (point, count) in other.points {
            *self.points.entry(point).or_default() += count;
        }
        self.crashed_at.extend(other.crashed_at);
        self.simulated_ms += other.simulated_ms;
        self.events += other.events;
    }

    pub(super) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub(super) fn did(&mut self, kind: &'static str) {
        *self.work.entry(kind).or_default() += 1;
    }

    pub(super) fn point(&mut self, point: &str) {
        match self.points.get_mut(point) {
            Some(count) => *count += 1,
            None => {
                self.points.insert(point.to_owned(), 1);
            }
        }
    }
}
