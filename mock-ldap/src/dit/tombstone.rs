//! Deleted objects of Active Directory: what is kept, where it goes, and when it disappears (MS-ADTS 3.1.1.5.5).

use std::sync::PoisonError;

use super::entry::Entry;
use super::reader::{Reader, rdn_value};
use super::replica::Replica;
use super::types::EntryId;
use crate::dn::escape_value;

const DAY_MS: i64 = 86_400_000;
/// tombstoneLifetime when the attribute is not set (MS-ADTS 6.1.1.2.4.1.1).
const DEFAULT_LIFETIME_DAYS: i64 = 60;

impl Replica {
    /// The tombstone an object leaves: `CN=name\0ADEL:guid` below Deleted Objects of its naming context.
    pub(crate) fn tombstone_of(&self, reader: &Reader<'_>, id: EntryId, entry: &Entry) -> Entry {
        let known = &self.shared.known;
        let mut draft = entry.to_draft();
        let value = rdn_value(&entry.rdn).unwrap_or_default();
        let guid = uuid::Uuid::from_bytes_le(entry.uuid);
        let name = [value.as_slice(), format!("\nDEL:{guid}").as_bytes()].concat();
        let kind = entry.rdn.split_once('=').map_or("CN", |(kind, _)| kind).to_owned();
        draft.attributes.retain(|(attribute, _)| self.shared.schema.attribute(*attribute).kept_on_delete);
        // The naming attribute follows the name, so that `cn` and the DN agree.
        if let Some(naming) = self.shared.schema.find(&kind) {
            draft.set(naming, vec![name.clone()]);
        }
        if let (Some(attribute), Some(parent)) = (known.last_known_parent, entry.parent) {
            draft.set_text(attribute, reader.tree.dn(parent));
        }
        draft.rdn = format!("{kind}={}", escape_value(&name));
        draft.deleted = true;
        draft.parent = self.deleted_objects_for(reader, id).or(entry.parent);
        draft.build()
    }

    /// Deleted Objects of the domain; objects of other naming contexts stay where they are.
    fn deleted_objects_for(&self, reader: &Reader<'_>, id: EntryId) -> Option<EntryId> {
        let landmarks = &self.shared.landmarks;
        (Some(reader.tree.root_of(id)) == landmarks.base).then_some(landmarks.deleted_objects).flatten()
    }

    /// Milliseconds a tombstone stays.
    pub(crate) fn tombstone_lifetime_ms(&self, reader: &Reader<'_>) -> i64 {
        let attribute = self.shared.known.tombstone_lifetime;
        let head = reader
            .tree
            .roots
            .iter()
            .find(|root| reader.tree.dn(root.id).eq_ignore_ascii_case(&self.shared.naming.configuration));
        let service = head.and_then(|root| {
            let path = ["CN=Services", "CN=Windows NT", "CN=Directory Service"];
            path.into_iter().try_fold(root.id, |at, rdn| {
                reader.tree.child_by_key(at, &super::tree::rdn_key(rdn, reader.tree.folding)?)
            })
        });
        let days = service.and_then(|id| reader.tree.node(id)?.entry.integer(attribute?));
        days.unwrap_or(DEFAULT_LIFETIME_DAYS).max(2) * DAY_MS
    }

    /// Removes tombstones whose time is over. They go silently: no USN, no record (MS-ADTS 3.1.1.5.5.4).
    pub(crate) fn collect_garbage(&self) {
        let now = self.shared.clock.now_ms();
        let due = self.read(|reader| {
            let oldest = reader.tree.tombstones.front()?;
            (oldest.0 + self.tombstone_lifetime_ms(reader) <= now).then(|| self.tombstone_lifetime_ms(reader))
        });
        let Some(lifetime_ms) = due else { return };
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        while let Some(&(deleted_ms, id)) = tree.tombstones.front() {
            if deleted_ms + lifetime_ms > now {
                break;
            }
            tree.tombstones.pop_front();
            if tree.node(id).is_some_and(|node| node.entry.deleted) {
                tree.remove(id);
            }
        }
    }
}
