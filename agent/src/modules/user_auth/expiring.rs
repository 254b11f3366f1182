//! A map of bounded size whose entries live for a fixed time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// Forgets entries after `ttl`, and the oldest when there are more than `entries_max`.
pub(super) struct ExpiringMap<K, V> {
    entries: HashMap<K, (V, Instant)>,
    order: VecDeque<(K, Instant)>,
    ttl: Duration,
    entries_max: usize,
}

impl<K: Clone + Eq + Hash, V> ExpiringMap<K, V> {
    pub(super) fn new(ttl: Duration, entries_max: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), ttl, entries_max }
    }

    /// Adds or replaces; the entry's time starts anew.
    pub(super) fn insert(&mut self, key: K, value: V, now: Instant) {
        self.expire(now);
        if self.ttl.is_zero() {
            return;
        }
        let until = now + self.ttl;
        self.entries.insert(key.clone(), (value, until));
        self.order.push_back((key, until));
        while self.order.len() > self.entries_max {
            self.pop();
        }
    }

    pub(super) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        self.entries.get(key).filter(|(_, until)| *until > now).map(|(value, _)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K, now: Instant) -> Option<&mut V> {
        self.entries.get_mut(key).filter(|(_, until)| *until > now).map(|(value, _)| value)
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(_, until)| *until <= now) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((key, until)) = self.order.pop_front() else { return };
        // A replaced entry has a younger place in the order.
        if self.entries.get(&key).is_some_and(|(_, current)| *current == until) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn entries_end_by_time_and_by_number() {
        let mut map = ExpiringMap::new(Duration::from_secs(60), 2);
        let start = Instant::now();
        map.insert(1, "a", start);
        map.insert(2, "b", start + Duration::from_secs(30));
        assert_eq!(map.get(&1, start + Duration::from_secs(59)), Some(&"a"));
        assert_eq!(map.get(&1, start + Duration::from_secs(60)), None);
        map.insert(3, "c", start + Duration::from_secs(31));
        assert_eq!(map.get(&1, start + Duration::from_secs(31)), None, "the oldest made room");
        assert_eq!(map.get(&2, start + Duration::from_secs(31)), Some(&"b"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_entry_starts_anew() {
        let mut map = ExpiringMap::new(Duration::from_secs(60), 10);
        let start = Instant::now();
        map.insert(1, "a", start);
        map.insert(1, "b", start + Duration::from_secs(50));
        map.insert(2, "x", start + Duration::from_secs(70));
        assert_eq!(map.get(&1, start + Duration::from_secs(70)), Some(&"b"));
    }
}
