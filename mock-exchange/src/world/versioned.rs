//! What each domain controller knows: objects keep their older states until every controller has the newest.

use crate::config::{DomainController, Replication};

/// When and where a change was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    at_ms: i64,
    /// Counts changes of the organisation.
    number: u64,
    /// Index of the controller it was made on.
    origin: usize,
}

/// The domain controllers, and how far each has come.
#[derive(Clone, Debug)]
pub struct Controllers {
    list: Vec<Controller>,
    /// Number of the last change.
    last: u64,
}

#[derive(Clone, Debug)]
struct Controller {
    name: String,
    replication: Replication,
    /// Changes up to this one have arrived because somebody said so.
    pushed: u64,
}

impl Controllers {
    pub fn new(configured: &[DomainController]) -> Self {
        let list = configured
            .iter()
            .map(|dc| Controller { name: dc.name.clone(), replication: dc.replication, pushed: 0 })
            .collect();
        Self { list, last: 0 }
    }

    /// Index of a controller by short or full name, whatever the case.
    pub fn find(&self, name: &str) -> Option<usize> {
        let short = name.split('.').next().unwrap_or_default();
        self.list.iter().position(|dc| dc.name.eq_ignore_ascii_case(short))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|dc| dc.name.as_str())
    }

    /// Where changes are made unless somebody names a controller.
    pub fn writer(&self) -> usize {
        0
    }

    /// Where questions are answered unless somebody names a controller.
    pub fn reader(&self) -> usize {
        self.list.len().saturating_sub(1)
    }

    pub fn set_replication(&mut self, name: &str, replication: Replication) -> bool {
        match self.find(name) {
            Some(at) => {
                self.list[at].replication = replication;
                true
            }
            None => false,
        }
    }

    /// Delivers every change made so far to every controller.
    pub fn push(&mut self) {
        let last = self.last;
        self.list.iter_mut().for_each(|dc| dc.pushed = last);
    }

    pub(super) fn stamp(&mut self, now_ms: i64, origin: usize) -> Stamp {
        self.last += 1;
        Stamp { at_ms: now_ms, number: self.last, origin }
    }

    pub(super) fn view(&self, dc: usize, now_ms: i64) -> View<'_> {
        View { controllers: self, dc, now_ms }
    }

    fn has(&self, dc: usize, stamp: &Stamp, now_ms: i64) -> bool {
        let Some(controller) = self.list.get(dc) else { return true };
        stamp.origin == dc
            || stamp.number <= controller.pushed
            || match controller.replication {
                Replication::LagMs(ms) => stamp.at_ms.saturating_add_unsigned(ms) <= now_ms,
                Replication::Manual => false,
            }
    }

    fn settled(&self, stamp: &Stamp, now_ms: i64) -> bool {
        (0..self.list.len()).all(|dc| self.has(dc, stamp, now_ms))
    }
}

/// What one controller knows at one moment.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    controllers: &'a Controllers,
    dc: usize,
    now_ms: i64,
}

/// An object, or its absence, with the states some controllers still see.
#[derive(Clone, Debug)]
pub(super) struct Versioned<T> {
    current: Option<T>,
    /// Oldest first.
    #[expect(
        clippy::box_collection,
        reason = "nearly all objects have none, and one word is a third of a Vec"
    )]
    older: Option<Box<Vec<Older<T>>>>,
}

#[derive(Clone, Debug)]
struct Older<T> {
    value: Option<T>,
    /// The change that replaced it.
    until: Stamp,
}

impl<T: Clone> Versioned<T> {
    /// An object that has always been there.
    pub(super) fn settled(value: T) -> Self {
        Self { current: Some(value), older: None }
    }

    /// An object made just now.
    pub(super) fn created(controllers: &Controllers, value: T, stamp: Stamp) -> Self {
        let mut this = Self { current: None, older: None };
        this.set(controllers, Some(value), stamp);
        this
    }

    /// Its newest state.
    pub(super) fn current(&self) -> Option<&T> {
        self.current.as_ref()
    }

    /// Its state as one controller knows it.
    pub(super) fn seen(&self, view: View<'_>) -> Option<&T> {
        let mut value = self.current.as_ref();
        for older in self.older.iter().flat_map(|older| older.iter().rev()) {
            if view.controllers.has(view.dc, &older.until, view.now_ms) {
                break;
            }
            value = older.value.as_ref();
        }
        value
    }

    pub(super) fn set(&mut self, controllers: &Controllers, value: Option<T>, stamp: Stamp) {
        let before = std::mem::replace(&mut self.current, value);
        let mut older = self.older.take().unwrap_or_default();
        if controllers.settled(&stamp, stamp.at_ms) {
            // Whoever has a change has those it was made on top of.
            older.clear();
        } else {
            if let Some(at) = older.iter().rposition(|older| controllers.settled(&older.until, stamp.at_ms)) {
                older.drain(..=at);
            }
            older.push(Older { value: before, until: stamp });
        }
        self.older = (!older.is_empty()).then_some(older);
    }

    /// Changes the newest state; false when there is none.
    pub(super) fn change(
        &mut self,
        controllers: &Controllers,
        stamp: Stamp,
        change: impl FnOnce(&mut T),
    ) -> bool {
        let Some(current) = &self.current else { return false };
        let mut value = current.clone();
        change(&mut value);
        self.set(controllers, Some(value), stamp);
        true
    }

    /// Whether no controller knows of it any more.
    pub(super) fn is_gone(&self, controllers: &Controllers, now_ms: i64) -> bool {
        self.current.is_none()
            && self
                .older
                .iter()
                .flat_map(|older| older.iter())
                .all(|older| controllers.settled(&older.until, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(replication: Replication) -> Controllers {
        let dc = |name: &str, replication| DomainController { name: name.to_owned(), replication };
        Controllers::new(&[dc("dc1", Replication::LagMs(0)), dc("dc2", replication)])
    }

    #[test]
    fn a_change_arrives_after_the_lag() {
        let mut dcs = two(Replication::LagMs(100));
        let mut object = Versioned::settled("old");
        let stamp = dcs.stamp(1_000, 0);
        object.change(&dcs, stamp, |value| *value = "new");
        let seen = |dc, now| *object.seen(dcs.view(dc, now)).unwrap();
        assert_eq!(
            [seen(0, 1_000), seen(1, 1_000), seen(1, 1_099), seen(1, 1_100)],
            ["new", "old", "old", "new"]
        );
    }

    #[test]
    fn manual_waits_to_be_told_and_removal_is_seen_late() {
        let mut dcs = two(Replication::Manual);
        let stamp = dcs.stamp(5, 0);
        let mut object = Versioned::created(&dcs, 1, stamp);
        let stamp = dcs.stamp(6, 0);
        object.set(&dcs, None, stamp);
        assert_eq!(object.seen(dcs.view(1, 1_000_000)), None, "it was never there");
        dcs.push();
        let mut object = Versioned::settled(1);
        let stamp = dcs.stamp(7, 0);
        object.set(&dcs, None, stamp);
        assert_eq!((object.seen(dcs.view(0, 8)), object.seen(dcs.view(1, 8))), (None, Some(&1)));
        assert!(!object.is_gone(&dcs, 8));
        dcs.push();
        assert!(object.is_gone(&dcs, 8));
    }

    #[test]
    fn a_change_brings_those_it_was_made_on_top_of() {
        let mut dcs = two(Replication::Manual);
        let mut object = Versioned::settled(vec![0]);
        for (number, origin) in [(1, 0), (2, 1)] {
            let stamp = dcs.stamp(5, origin);
            object.change(&dcs, stamp, |value| value.push(number));
        }
        assert_eq!(object.seen(dcs.view(1, 5)), Some(&vec![0, 1, 2]));
        let stamp = dcs.stamp(6, 0);
        object.change(&dcs, stamp, |value| value.push(3));
        assert_eq!(object.seen(dcs.view(1, 6)), Some(&vec![0, 1, 2]));
    }

    #[test]
    fn one_controller_keeps_nothing() {
        let mut dcs = Controllers::new(&[DomainController::default()]);
        let mut object = Versioned::settled(1);
        let stamp = dcs.stamp(1, 0);
        object.change(&dcs, stamp, |value| *value = 2);
        assert!(object.older.is_none());
    }
}
