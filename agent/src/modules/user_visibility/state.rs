//! What the agent remembers of a collection: per object a hash of what the cloud has, the names it is known by, and the
//! direct members of groups. Never the objects themselves.
//!
//! Everything belongs to a generation. A scan writes the next one while it runs; the batch that makes it the current one
//! also holds the cursor and the cloud's epoch, so a crash at any moment leaves one consistent state.
//!
//! Keys (g = generation, 4 bytes): `Objects g id`, `Index g 'n' name`, `Index g 'p' name group`, `Edges g group part`.

use std::sync::Arc;

use causeway_protocol::record::Kind;
use serde::{Deserialize, Serialize};

use super::error::SyncError;
use super::limits;
use crate::directory::dn::NameHash;
use crate::directory::guid::ObjectId;
use crate::storage::{Batch, Storage, Table};

const STATE_KEY: &[u8] = b"state";
const NO_NAME: [u8; 16] = [0; 16];

/// Where a collection stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) generation: u32,
    /// The cloud's epoch that this state is the agent's side of.
    pub(super) epoch: u64,
    /// Hash of scope, mapping and personality: another one makes a scan necessary.
    pub(super) fingerprint: String,
    pub(super) cursor: Cursor,
    pub(super) objects: u64,
    pub(super) scanned_ms: i64,
    pub(super) reconciled_ms: i64,
}

/// A place in a server's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cursor {
    /// Opaque; valid on every domain controller of the naming context.
    Dirsync { context: String, cookie: Vec<u8> },
    /// Valid on one database of one domain controller.
    Usn { invocation: String, usn: u64 },
    /// Opaque; valid on every server of the replicated tree.
    Syncrepl { cookie: Vec<u8> },
    /// Last change seen, and who counted.
    Changelog { server: String, number: u64 },
    /// There is no history.
    None,
}

/// What is remembered of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) hash: [u8; 16],
    pub(super) name: NameHash,
    pub(super) alias: Option<NameHash>,
    pub(super) primary: Option<NameHash>,
}

/// Which list of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// Members listed in the group.
    Listed,
    /// Users whose primary group it is.
    Primary,
    /// Listed names that nobody in scope has.
    Unknown,
}

impl Part {
    fn byte(self) -> u8 {
        match self {
            Self::Listed => b'm',
            Self::Primary => b'p',
            Self::Unknown => b'u',
        }
    }
}

impl Row {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(65);
        bytes.push(match self.kind {
            Kind::Ou => 1,
            Kind::User => 2,
            Kind::Group => 3,
            // Rows are objects; nothing else is kept here, and reading such a row back fails.
            Kind::Member | Kind::Device | Kind::DevicePolicy | Kind::MailOrganization => 4,
        });
        bytes.extend_from_slice(&self.hash);
        bytes.extend_from_slice(&self.name.0);
        bytes.extend_from_slice(&self.alias.map_or(NO_NAME, |name| name.0));
        bytes.extend_from_slice(&self.primary.map_or(NO_NAME, |name| name.0));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SyncError> {
        let bad = || SyncError::BadState { what: "object" };
        let bytes: &[u8; 65] = bytes.try_into().map_err(|_| bad())?;
        let part = |n: usize| {
            let mut out = [0; 16];
            out.copy_from_slice(&bytes[1 + 16 * n..17 + 16 * n]);
            out
        };
        let name = |n: usize| Some(part(n)).filter(|name| *name != NO_NAME).map(NameHash);
        let kind = match bytes[0] {
            1 => Kind::Ou,
            2 => Kind::User,
            3 => Kind::Group,
            _ => return Err(bad()),
        };
        Ok(Self { kind, hash: part(0), name: NameHash(part(1)), alias: name(2), primary: name(3) })
    }

    /// Every name it is referred to by.
    pub(super) fn names(&self) -> impl Iterator<Item = NameHash> {
        std::iter::once(self.name).chain(self.alias)
    }
}

/// The module's part of the storage.
#[derive(Clone)]
pub(super) struct Store {
    storage: Arc<dyn Storage>,
}

impl Store {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// Where the collection stands; `None` before the first scan, and when what is stored cannot be read.
    pub(super) async fn state(&self) -> Result<Option<State>, SyncError> {
        let stored = self.storage.get(Table::Cursors, STATE_KEY.to_vec()).await?;
        Ok(stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Adds the state to a batch, which then takes effect with it or not at all.
    pub(super) fn put_state(batch: &mut Batch, state: &State) {
        let bytes = serde_json::to_vec(state).expect("the state serialises to JSON");
        batch.put(Table::Cursors, STATE_KEY, bytes);
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<(), SyncError> {
        if batch.is_empty() { Ok(()) } else { Ok(self.storage.commit(batch).await?) }
    }

    /// The storage itself, for commits that run beside the caller.
    pub(super) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(super) async fn rows(
        &self,
        generation: u32,
        ids: &[ObjectId],
    ) -> Result<Vec<Option<Row>>, SyncError> {
        let keys = ids.iter().map(|id| object_key(generation, *id)).collect();
        let found = self.storage.get_many(Table::Objects, keys).await?;
        found.into_iter().map(|value| value.map(|value| Row::decode(&value)).transpose()).collect()
    }

    /// Whom names refer to.
    pub(super) async fn named(
        &self,
        generation: u32,
        names: &[NameHash],
    ) -> Result<Vec<Option<ObjectId>>, SyncError> {
        let keys = names.iter().map(|name| name_key(generation, *name)).collect();
        let found = self.storage.get_many(Table::Index, keys).await?;
        found.into_iter().map(|value| value.map(|value| id_of(&value)).transpose()).collect()
    }

    /// Groups that list a name nobody had.
    pub(super) async fn waiting_for(
        &self,
        generation: u32,
        name: NameHash,
    ) -> Result<Vec<ObjectId>, SyncError> {
        let prefix = pending_key(generation, name, None);
        let mut groups = Vec::new();
        let mut after = None;
        loop {
            let pairs = self.storage.scan(Table::Index, prefix.clone(), after, limits::ROWS_PER_READ).await?;
            let Some((last, _)) = pairs.last() else { return Ok(groups) };
            after = Some(last.clone());
            let full = pairs.len() == limits::ROWS_PER_READ;
            for (key, _) in &pairs {
                groups.push(id_of(key.get(prefix.len()..).unwrap_or_default())?);
            }
            if !full {
                return Ok(groups);
            }
        }
    }

    pub(super) async fn parts(
        &self,
        generation: u32,
        wanted: &[(ObjectId, Part)],
    ) -> Result<Vec<Vec<[u8; 16]>>, SyncError> {
        let keys = wanted.iter().map(|(group, part)| part_key(generation, *group, *part)).collect();
        let found = self.storage.get_many(Table::Edges, keys).await?;
        found.into_iter().map(|value| split(&value.unwrap_or_default())).collect()
    }

    /// Some objects in id order from behind `after`.
    pub(super) async fn objects_after(
        &self,
        generation: u32,
        after: Option<ObjectId>,
    ) -> Result<Vec<(ObjectId, Row)>, SyncError> {
        let prefix = generation.to_be_bytes().to_vec();
        let after = after.map(|id| object_key(generation, id));
        let pairs = self.storage.scan(Table::Objects, prefix, after, limits::ROWS_PER_READ).await?;
        pairs
            .into_iter()
            .map(|(key, value)| Ok((id_of(key.get(4..).unwrap_or_default())?, Row::decode(&value)?)))
            .collect()
    }

    /// Groups with any of these among their listed or primary members.
    pub(super) async fn groups_with(
        &self,
        generation: u32,
        members: &std::collections::HashSet<ObjectId>,
    ) -> Result<Vec<ObjectId>, SyncError> {
        let prefix = generation.to_be_bytes().to_vec();
        let mut groups = Vec::new();
        let mut after = None;
        loop {
            let pairs = self.storage.scan(Table::Edges, prefix.clone(), after, 200).await?;
            let Some((last, _)) = pairs.last() else { return Ok(groups) };
            after = Some(last.clone());
            for (key, value) in &pairs {
                if key.last() == Some(&Part::Unknown.byte()) {
                    continue;
                }
                let group = id_of(key.get(4..20).unwrap_or_default())?;
                let holds = value
                    .chunks_exact(16)
                    .any(|id| id.try_into().is_ok_and(|id| members.contains(&ObjectId(id))));
                if holds && groups.last() != Some(&group) {
                    groups.push(group);
                }
            }
        }
    }

    /// Removes everything that belongs to another generation: what an interrupted scan left, or the one before.
    pub(super) async fn keep_only(&self, generation: Option<u32>) -> Result<(), SyncError> {
        for table in [Table::Objects, Table::Index, Table::Edges] {
            loop {
                // The first key of another generation, before or behind the current one.
                let first = self.storage.scan(table, Vec::new(), None, 1).await?;
                let mut found = first.into_iter().next().map(|(key, _)| key);
                if let (Some(key), Some(current)) = (&found, generation)
                    && key.starts_with(&current.to_be_bytes())
                {
                    let behind = current.checked_add(1).map(|next| next.to_be_bytes().to_vec());
                    found = match behind {
                        Some(behind) => {
                            let next = self.storage.scan(table, Vec::new(), Some(behind), 1).await?;
                            next.into_iter().next().map(|(key, _)| key)
                        }
                        None => None,
                    };
                }
                let Some(prefix) = found.as_ref().and_then(|key| key.get(..4)) else { break };
                let mut batch = Batch::new();
                batch.delete_prefix(table, prefix);
                self.commit(batch).await?;
            }
        }
        Ok(())
    }
}

pub(super) fn put_row(batch: &mut Batch, generation: u32, id: ObjectId, row: &Row) {
    batch.put(Table::Objects, object_key(generation, id), row.encode());
}

pub(super) fn delete_row(batch: &mut Batch, generation: u32, id: ObjectId) {
    batch.delete(Table::Objects, object_key(generation, id));
}

pub(super) fn put_name(batch: &mut Batch, generation: u32, name: NameHash, id: ObjectId) {
    batch.put(Table::Index, name_key(generation, name), id.0);
}

pub(super) fn delete_name(batch: &mut Batch, generation: u32, name: NameHash) {
    batch.delete(Table::Index, name_key(generation, name));
}

/// Writes one list of a group; an empty one takes no room. The list must be sorted.
pub(super) fn put_part(batch: &mut Batch, generation: u32, group: ObjectId, part: Part, list: &[[u8; 16]]) {
    let key = part_key(generation, group, part);
    if list.is_empty() {
        batch.delete(Table::Edges, key);
    } else {
        batch.put(Table::Edges, key, list.as_flattened());
    }
}

pub(super) fn put_pending(batch: &mut Batch, generation: u32, name: NameHash, group: ObjectId) {
    batch.put(Table::Index, pending_key(generation, name, Some(group)), Vec::new());
}

pub(super) fn delete_pending(batch: &mut Batch, generation: u32, name: NameHash, group: ObjectId) {
    batch.delete(Table::Index, pending_key(generation, name, Some(group)));
}

fn object_key(generation: u32, id: ObjectId) -> Vec<u8> {
    [&generation.to_be_bytes()[..], &id.0].concat()
}

fn name_key(generation: u32, name: NameHash) -> Vec<u8> {
    [&generation.to_be_bytes()[..], b"n", &name.0].concat()
}

fn pending_key(generation: u32, name: NameHash, group: Option<ObjectId>) -> Vec<u8> {
    let group = group.map_or(Vec::new(), |group| group.0.to_vec());
    [&generation.to_be_bytes()[..], b"p", &name.0, &group].concat()
}

fn part_key(generation: u32, group: ObjectId, part: Part) -> Vec<u8> {
    [&generation.to_be_bytes()[..], &group.0, &[part.byte()]].concat()
}

fn id_of(bytes: &[u8]) -> Result<ObjectId, SyncError> {
    bytes.try_into().map(ObjectId).map_err(|_| SyncError::BadState { what: "id" })
}

fn split(bytes: &[u8]) -> Result<Vec<[u8; 16]>, SyncError> {
    let (chunks, rest) = bytes.as_chunks::<16>();
    if rest.is_empty() { Ok(chunks.to_vec()) } else { Err(SyncError::BadState { what: "list of members" }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn row(n: u8) -> Row {
        Row {
            kind: Kind::Group,
            hash: [n; 16],
            name: NameHash([n; 16]),
            alias: Some(NameHash::of_rid(u32::from(n))),
            primary: None,
        }
    }

    #[test]
    fn a_row_survives() {
        assert_eq!(Row::decode(&row(7).encode()).unwrap(), row(7));
        assert!(Row::decode(&[0; 65]).is_err());
        assert!(Row::decode(&[1; 64]).is_err());
    }

    #[tokio::test]
    async fn other_generations_are_removed_and_the_current_one_stays() {
        let store = Store::new(Arc::new(MemoryStorage::new()));
        let mut batch = Batch::new();
        for generation in [1, 2, 3, u32::MAX] {
            for n in 1..4 {
                put_row(&mut batch, generation, ObjectId([n; 16]), &row(n));
                put_name(&mut batch, generation, NameHash([n; 16]), ObjectId([n; 16]));
            }
        }
        store.commit(batch).await.unwrap();
        store.keep_only(Some(2)).await.unwrap();
        for (generation, count) in [(1, 0), (2, 3), (3, 0), (u32::MAX, 0)] {
            assert_eq!(store.objects_after(generation, None).await.unwrap().len(), count, "{generation}");
        }
        store.keep_only(None).await.unwrap();
        assert!(store.objects_after(2, None).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn pending_names_find_their_groups() {
        let store = Store::new(Arc::new(MemoryStorage::new()));
        let name = NameHash([9; 16]);
        let mut batch = Batch::new();
        put_pending(&mut batch, 1, name, ObjectId([1; 16]));
        put_pending(&mut batch, 1, name, ObjectId([2; 16]));
        put_pending(&mut batch, 1, NameHash([8; 16]), ObjectId([3; 16]));
        store.commit(batch).await.unwrap();
        assert_eq!(store.waiting_for(1, name).await.unwrap(), [ObjectId([1; 16]), ObjectId([2; 16])]);
    }
}
