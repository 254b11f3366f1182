//! The one log of a server: every change it made or received, in the order of its own USNs. DirSync, USN polling,
//! syncrepl, the retro changelog, persistent searches and replication are all read from it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::csn::Csn;
use super::entry::Entry;
use super::limits;
use super::schema::AttrId;
use super::types::{ChangeKind, EntryId};

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) usn: u64,
    pub(crate) id: EntryId,
    pub(crate) kind: ChangeKind,
    pub(crate) csn: Csn,
    /// USN at the server where the change was made.
    pub(crate) origin_usn: u64,
    pub(crate) attributes: Box<[AttrId]>,
    pub(crate) links: Box<[LinkChange]>,
    pub(crate) previous_dn: Option<Box<str>>,
    /// A deletion without tombstone: what was there.
    pub(crate) gone: Option<Arc<Gone>>,
    /// Body of the retro changelog entry.
    pub(crate) changelog: Option<Arc<super::changelog::Body>>,
}

/// A value added to or taken from a linked attribute.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LinkChange {
    pub(crate) attribute: AttrId,
    pub(crate) target: EntryId,
    pub(crate) added: bool,
}

#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) dn: String,
    pub(crate) entry: Arc<Entry>,
}

/// Highest USN seen of each origin. A cursor that is valid on every server.
pub(crate) type Vector = HashMap<u16, u64>;

#[derive(Debug)]
pub(crate) struct Log {
    base_usn: u64,
    last_usn: u64,
    records: VecDeque<Record>,
    /// Per origin: (USN there, USN here), both rising.
    origins: HashMap<u16, VecDeque<(u64, u64)>>,
    seen: Vector,
    /// Highest USN of each origin whose record is no longer kept.
    forgotten: Vector,
    /// Newest stamp whose record is no longer kept, and newest stamp seen, per origin.
    forgotten_stamps: HashMap<u16, Csn>,
    newest: std::collections::BTreeMap<u16, Csn>,
    records_max: usize,
}

impl Log {
    pub(crate) fn new(base_usn: u64) -> Self {
        Self {
            base_usn,
            last_usn: base_usn,
            records: VecDeque::new(),
            origins: HashMap::new(),
            seen: Vector::new(),
            forgotten: Vector::new(),
            forgotten_stamps: HashMap::new(),
            newest: std::collections::BTreeMap::new(),
            records_max: limits::LOG_RECORDS_MAX,
        }
    }

    /// The USN before the first logged change: everything up to here was there when the directory was built.
    pub(crate) fn base_usn(&self) -> u64 {
        self.base_usn
    }

    /// Numbers the objects of the initial build.
    pub(crate) fn next_base_usn(&mut self) -> u64 {
        self.base_usn += 1;
        self.last_usn = self.base_usn;
        self.base_usn
    }

    pub(crate) fn last_usn(&self) -> u64 {
        self.last_usn
    }

    pub(crate) fn vector(&self) -> Vector {
        self.seen.clone()
    }

    /// Appends a change; its `usn` is assigned here, and `origin_usn` as well when the change is made here (zero).
    pub(crate) fn push(&mut self, mut record: Record) -> u64 {
        self.last_usn += 1;
        record.usn = self.last_usn;
        if record.origin_usn == 0 {
            record.origin_usn = record.usn;
        }
        let origin = record.csn.origin;
        self.origins.entry(origin).or_default().push_back((record.origin_usn, record.usn));
        let seen = self.seen.entry(origin).or_default();
        *seen = (*seen).max(record.origin_usn);
        self.note_stamp(record.csn);
        self.records.push_back(record);
        if self.records.len() > self.records_max {
            self.trim();
        }
        self.last_usn
    }

    /// Notes the stamp of an object of the initial build: no record will ever tell of it.
    pub(crate) fn note_built(&mut self, csn: Csn) {
        self.note_stamp(csn);
        let newest = self.newest.get(&csn.origin).copied().unwrap_or(csn);
        self.forgotten_stamps.insert(csn.origin, newest);
    }

    fn note_stamp(&mut self, csn: Csn) {
        let newest = self.newest.entry(csn.origin).or_default();
        *newest = (*newest).max(csn);
    }

    /// The newest stamp of every origin.
    pub(crate) fn contexts(&self) -> Vec<Csn> {
        self.newest.values().copied().collect()
    }

    /// Whether every change that is no longer kept is `known`.
    pub(crate) fn reaches_back_to(&self, known: impl Fn(Csn) -> bool) -> bool {
        self.forgotten_stamps.values().all(|&csn| known(csn))
    }

    /// Notes a change of another server that needed no record here.
    pub(crate) fn observe(&mut self, origin: u16, origin_usn: u64) {
        let seen = self.seen.entry(origin).or_default();
        *seen = (*seen).max(origin_usn);
    }

    /// Changes after a USN of this server; `None` when the log does not reach back that far.
    pub(crate) fn since(&self, usn: u64) -> Option<impl Iterator<Item = &Record> + Clone> {
        let first = self.first_usn();
        if usn + 1 < first {
            return None;
        }
        Some(self.records.iter().skip((usn + 1 - first) as usize))
    }

    /// Changes a vector does not cover, in the order they arrived here; `None` when some may be forgotten.
    pub(crate) fn uncovered(&self, vector: &Vector) -> Option<impl Iterator<Item = &Record> + Clone> {
        let mut start = self.last_usn + 1;
        for (origin, usns) in &self.origins {
            let known = vector.get(origin).copied().unwrap_or_default();
            let at = usns.partition_point(|&(origin_usn, _)| origin_usn <= known);
            if let Some(&(_, local)) = usns.get(at) {
                start = start.min(local);
            }
        }
        let knows = |(origin, usn): (&u16, &u64)| vector.get(origin).is_some_and(|known| known >= usn);
        if !self.forgotten.iter().all(knows) {
            return None;
        }
        let covered = vector.clone();
        let records = self.records.iter().skip(start.saturating_sub(self.first_usn()) as usize);
        Some(
            records.filter(move |record| {
                covered.get(&record.csn.origin).is_none_or(|&usn| record.origin_usn > usn)
            }),
        )
    }

    pub(crate) fn records(&self) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        self.records.iter()
    }

    pub(crate) fn record(&self, usn: u64) -> Option<&Record> {
        let at = usn.checked_sub(self.first_usn())?;
        self.records.get(usize::try_from(at).ok()?)
    }

    /// USN of the oldest change kept; one past the last when none is.
    pub(crate) fn first_usn(&self) -> u64 {
        self.records.front().map_or(self.last_usn + 1, |record| record.usn)
    }

    fn trim(&mut self) {
        let Some(oldest) = self.records.pop_front() else { return };
        self.forgotten.insert(oldest.csn.origin, oldest.origin_usn);
        self.forgotten_stamps.insert(oldest.csn.origin, oldest.csn);
        if let Some(usns) = self.origins.get_mut(&oldest.csn.origin) {
            usns.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(origin: u16, origin_usn: u64) -> Record {
        Record {
            usn: 0,
            id: EntryId(1),
            kind: ChangeKind::Modify,
            csn: Csn { at_ms: 0, count: 0, origin },
            origin_usn,
            attributes: Box::default(),
            links: Box::default(),
            previous_dn: None,
            gone: None,
            changelog: None,
        }
    }

    #[test]
    fn a_vector_skips_what_another_server_already_told() {
        let mut log = Log::new(100);
        for record in [change(0, 0), change(1, 7), change(0, 0), change(1, 8)] {
            log.push(record);
        }
        let told = Vector::from([(0, 101), (1, 7)]);
        let rest: Vec<u64> = log.uncovered(&told).unwrap().map(|record| record.usn).collect();
        assert_eq!(rest, [103, 104]);
        assert_eq!(log.uncovered(&log.vector()).unwrap().count(), 0);
        assert_eq!(log.since(102).unwrap().count(), 2);
    }

    #[test]
    fn a_forgotten_change_is_noticed() {
        let mut log = Log::new(100);
        log.records_max = 2;
        for _ in 0..4 {
            log.push(change(0, 0));
        }
        assert!(log.since(101).is_none());
        assert_eq!(log.since(102).unwrap().count(), 2);
        assert!(log.uncovered(&Vector::from([(0, 101)])).is_none());
        assert_eq!(log.uncovered(&Vector::from([(0, 103)])).unwrap().count(), 1);
    }
}
