//! Who last changed what: the per-attribute and per-link stamps by which servers agree (MS-ADTS 3.1.1.1.9).
//! Only what changed since the directory was built has one, so an untouched directory costs nothing.

use std::collections::HashMap;

use super::csn::Csn;
use super::schema::AttrId;
use super::types::EntryId;

/// The parts of an object that change independently of each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Part {
    Attribute(AttrId),
    /// Relative name and parent together.
    Name,
    Existence,
    Link(AttrId, EntryId),
}

#[derive(Debug, Default)]
pub(crate) struct Stamps {
    of: HashMap<(EntryId, Part), Csn>,
}

impl Stamps {
    pub(crate) fn get(&self, id: EntryId, part: Part) -> Csn {
        self.of.get(&(id, part)).copied().unwrap_or_default()
    }

    /// Records a stamp; false when a later one is there already, and nothing is to be done.
    pub(crate) fn advance(&mut self, id: EntryId, part: Part, csn: Csn) -> bool {
        let slot = self.of.entry((id, part)).or_default();
        if *slot >= csn {
            return false;
        }
        *slot = csn;
        true
    }
}
