//! Equality indexes: hash of the comparison form -> objects. Built for an attribute when it is first searched by,
//! so that a start pays for none, and kept up to date from then on.

use super::entry::Entry;
use super::matching::{self, Folding};
use super::schema::{AttrId, Computed, Schema, Source};
use super::tree::{KeyHasher, hash_bytes};
use super::types::EntryId;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// A few object numbers; nearly always one.
#[derive(Clone, Debug, Default)]
pub(crate) enum IdSet {
    #[default]
    Empty,
    One(EntryId),
    Many(Vec<EntryId>),
}

impl IdSet {
    pub(crate) fn insert(&mut self, id: EntryId) {
        match self {
            Self::Empty => *self = Self::One(id),
            Self::One(only) if *only == id => {}
            Self::One(only) => *self = Self::Many(vec![*only, id]),
            // Ids mostly arrive in rising order.
            Self::Many(ids) => match ids.binary_search(&id) {
                Ok(_) => {}
                Err(at) => ids.insert(at, id),
            },
        }
        if let Self::Many(ids) = self
            && ids.len() == 2
        {
            ids.sort_unstable();
        }
    }

    /// True when nothing is left.
    pub(crate) fn remove(&mut self, id: EntryId) -> bool {
        match self {
            Self::One(only) if *only == id => *self = Self::Empty,
            Self::Many(ids) => {
                ids.retain(|&other| other != id);
                if ids.is_empty() {
                    *self = Self::Empty;
                }
            }
            _ => {}
        }
        matches!(self, Self::Empty)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = EntryId> + '_ {
        let slice: &[EntryId] = match self {
            Self::Empty => &[],
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(ids) => ids,
        };
        slice.iter().copied()
    }
}

type Index = HashMap<u64, IdSet, BuildHasherDefault<KeyHasher>>;

#[derive(Debug, Default)]
pub(crate) struct Indexes {
    by_attribute: Vec<(AttrId, Index)>,
}

impl Indexes {
    /// Whether equality on this attribute can be indexed at all.
    pub(crate) fn can_index(schema: &Schema, attribute: AttrId) -> bool {
        matches!(schema.attribute(attribute).source, Source::Stored | Source::Computed(Computed::Guid))
    }

    /// `None`: no index yet. Otherwise a superset of the objects with this value.
    pub(crate) fn candidates(&self, attribute: AttrId, normalized: &[u8]) -> Option<Vec<EntryId>> {
        let (_, index) = self.by_attribute.iter().find(|(id, _)| *id == attribute)?;
        Some(index.get(&hash_bytes(0, normalized)).map(|ids| ids.iter().collect()).unwrap_or_default())
    }

    pub(crate) fn has(&self, attribute: AttrId) -> bool {
        self.by_attribute.iter().any(|(id, _)| *id == attribute)
    }

    pub(crate) fn build<'a>(
        schema: &Schema,
        folding: Folding,
        attribute: AttrId,
        entries: impl Iterator<Item = (EntryId, &'a Entry)>,
    ) -> (AttrId, Index) {
        let mut index = Index::default();
        for (id, entry) in entries {
            each_key(schema, folding, attribute, entry, &mut |key| index.entry(key).or_default().insert(id));
        }
        (attribute, index)
    }

    pub(crate) fn install(&mut self, built: (AttrId, Index)) {
        if !self.has(built.0) {
            self.by_attribute.push(built);
        }
    }

    pub(crate) fn add(&mut self, schema: &Schema, folding: Folding, id: EntryId, entry: &Entry) {
        for (attribute, index) in &mut self.by_attribute {
            each_key(schema, folding, *attribute, entry, &mut |key| index.entry(key).or_default().insert(id));
        }
    }

    pub(crate) fn remove(&mut self, schema: &Schema, folding: Folding, id: EntryId, entry: &Entry) {
        for (attribute, index) in &mut self.by_attribute {
            each_key(schema, folding, *attribute, entry, &mut |key| take(index, key, id));
        }
    }

    pub(crate) fn update(
        &mut self,
        schema: &Schema,
        folding: Folding,
        id: EntryId,
        old: &Entry,
        new: &Entry,
    ) {
        for (attribute, index) in &mut self.by_attribute {
            if old.set_of(*attribute) == new.set_of(*attribute) {
                continue;
            }
            each_key(schema, folding, *attribute, old, &mut |key| take(index, key, id));
            each_key(schema, folding, *attribute, new, &mut |key| index.entry(key).or_default().insert(id));
        }
    }
}

fn take(index: &mut Index, key: u64, id: EntryId) {
    if index.get_mut(&key).is_some_and(|ids| ids.remove(id)) {
        index.remove(&key);
    }
}

fn each_key(schema: &Schema, folding: Folding, attribute: AttrId, entry: &Entry, found: &mut dyn FnMut(u64)) {
    let definition = schema.attribute(attribute);
    if definition.source == Source::Computed(Computed::Guid) {
        return found(hash_bytes(0, &entry.uuid));
    }
    for value in entry.values(attribute) {
        found(hash_bytes(0, &matching::normalize(definition.syntax, folding, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_grows_shrinks_and_keeps_order() {
        let mut ids = IdSet::default();
        for number in [5, 3, 9, 3] {
            ids.insert(EntryId(number));
        }
        assert_eq!(ids.iter().collect::<Vec<_>>(), [3, 5, 9].map(EntryId));
        assert!(!ids.remove(EntryId(5)));
        assert!(!ids.remove(EntryId(3)));
        assert!(ids.remove(EntryId(9)));
        assert_eq!(ids.iter().count(), 0);
    }
}
