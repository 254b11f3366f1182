//! Reading everything: the first snapshot, and the comparison that needs no history.
//!
//! Units first, so that parents are known; then users; then groups, whose members are known by then. One chunk is
//! worked on while the next is on its way; what is kept per object is two hashes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use causeway_protocol::record::Kind;
use causeway_protocol::upload::Mode;
use tokio::task::JoinHandle;

use super::error::SyncError;
use super::limits;
use super::mapping::Mapped;
use super::membership::{difference, sorted, union};
use super::source::Source;
use super::state::{Cursor, Part, Row, State, Store, put_name, put_part, put_pending, put_row};
use crate::directory::dn::NameHash;
use crate::directory::filter::Filter;
use crate::directory::guid::ObjectId;
use crate::directory::page::{Chunk, Item};
use crate::modules::output::Output;
use crate::storage::{Batch, Storage, StorageError};

/// What a scan leaves behind.
pub(super) struct Scanned {
    pub(super) seen: HashSet<ObjectId>,
    pub(super) unresolved: u64,
}

/// One scan.
pub(super) struct Scan<'a, 'o> {
    source: &'a Source,
    store: &'a Store,
    output: &'a mut Output<'o>,
    /// What the cloud has, to compare with; `None` for a snapshot.
    before: Option<&'a State>,
    names: HashMap<NameHash, ObjectId>,
    seen: HashSet<ObjectId>,
    primaries: HashMap<NameHash, Vec<[u8; 16]>>,
    deferred: Vec<Deferred>,
    deferred_members: usize,
    unresolved: u64,
    writer: Option<Writer>,
}

/// A group some of whose members may come later in the scan.
struct Deferred {
    group: ObjectId,
    alias: Option<NameHash>,
    known: Vec<[u8; 16]>,
    unknown: Vec<NameHash>,
}

impl<'a, 'o> Scan<'a, 'o> {
    /// Compares with `before` if the upload is a delta; writes generation `generation` unless the output is dry.
    pub(super) fn new(
        source: &'a Source,
        store: &'a Store,
        output: &'a mut Output<'o>,
        before: Option<&'a State>,
        generation: u32,
    ) -> Self {
        let writer = (!output.is_dry()).then(|| Writer::new(store.storage().clone(), generation));
        Self {
            source,
            store,
            output,
            before,
            names: HashMap::new(),
            seen: HashSet::new(),
            primaries: HashMap::new(),
            deferred: Vec::new(),
            deferred_members: 0,
            unresolved: 0,
            writer,
        }
    }

    /// Reads everything in scope and pushes what differs. Nothing counts before the caller commits.
    pub(super) async fn run(mut self) -> Result<Scanned, SyncError> {
        self.output.expect(self.before.map(|state| state.objects));
        self.units().await?;
        let filter = self.source.scope.users.clone();
        self.pass("reading users", filter, false).await?;
        if let Some(filter) = self.source.scope.groups.clone() {
            self.pass("reading groups", filter, true).await?;
        }
        self.settle_deferred().await?;
        if let Some(writer) = self.writer.take() {
            writer.finish().await?;
        }
        self.output.count("unresolved_members", self.unresolved);
        Ok(Scanned { seen: self.seen, unresolved: self.unresolved })
    }

    async fn units(&mut self) -> Result<(), SyncError> {
        let mut units = Vec::new();
        for base in &self.source.scope.bases {
            let attributes = self.source.attributes(false);
            let filter = self.source.scope.units.clone();
            let mut chunks = self.source.subtree(base, filter, &attributes).await?;
            loop {
                let chunk = chunks.next().await?;
                for mapped in self.mapped(&chunk) {
                    if mapped.kind() == Kind::Ou && !self.names.contains_key(&mapped.name) {
                        self.names.insert(mapped.name, mapped.id);
                        units.push(mapped);
                    }
                }
                if units.len() > limits::UNITS_MAX {
                    return Err(SyncError::TooManyUnits { limit: limits::UNITS_MAX });
                }
                if chunk.done.is_some() {
                    break;
                }
            }
        }
        while !units.is_empty() {
            let rest = units.split_off(units.len().min(limits::ROWS_PER_READ));
            let page = std::mem::replace(&mut units, rest);
            self.objects("reading units", page).await?;
        }
        Ok(())
    }

    async fn pass(&mut self, phase: &'static str, filter: Filter, groups: bool) -> Result<(), SyncError> {
        let mut ranges = None;
        for base in &self.source.scope.bases {
            let attributes = self.source.attributes(groups);
            let mut chunks = self.source.subtree(base, filter.clone(), &attributes).await?;
            loop {
                let chunk = chunks.next().await?;
                self.output.check_lease()?;
                let wanted = if groups { Kind::Group } else { Kind::User };
                let mut page = self.mapped(&chunk);
                page.retain(|mapped| mapped.kind() == wanted && !self.seen.contains(&mapped.id));
                if groups {
                    let fresh: HashMap<ObjectId, Option<NameHash>> =
                        page.iter().map(|mapped| (mapped.id, mapped.alias)).collect();
                    self.objects(phase, page).await?;
                    self.memberships(&chunk, &fresh, &mut ranges).await?;
                } else {
                    self.objects(phase, page).await?;
                }
                if chunk.done.is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn mapped(&self, chunk: &Chunk) -> Vec<Mapped> {
        chunk
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Entry(entry, _) => self.source.in_scope(entry),
                Item::Intermediate(..) => None,
            })
            .collect()
    }

    /// Sends the objects of a page that differ, and remembers all of them.
    async fn objects(&mut self, phase: &'static str, page: Vec<Mapped>) -> Result<(), SyncError> {
        let seen = page.len() as u64;
        let before = match self.before {
            Some(state) => {
                let ids: Vec<ObjectId> = page.iter().map(|mapped| mapped.id).collect();
                self.store.rows(state.generation, &ids).await?
            }
            None => vec![None; page.len()],
        };
        for (mut mapped, before) in page.into_iter().zip(before) {
            let mapper = &self.source.mapper;
            let parent = mapped.parent.and_then(|name| self.names.get(&name)).map(|id| mapper.key(*id));
            let finished = mapped.finish(parent);
            let (id, kind) = (mapped.id, mapped.kind());
            // An object may come twice when it is renamed while pages are read.
            if !self.seen.insert(id) {
                continue;
            }
            let row = Row {
                kind,
                hash: finished.hash,
                name: mapped.name,
                alias: mapped.alias,
                primary: mapped.primary,
            };
            for name in row.names() {
                self.names.insert(name, id);
            }
            if let Some(primary) = mapped.primary {
                self.primaries.entry(primary).or_default().push(id.0);
            }
            if let Some(writer) = &mut self.writer {
                writer.row(id, row).await?;
            }
            if let Some(before) = before.filter(|before| before.kind != kind) {
                self.output.push(mapper.delete(before.kind, id)).await?;
            }
            if before.is_none_or(|before| before.hash != finished.hash || before.kind != kind) {
                self.output.push(mapper.upsert(kind, id, finished.value)).await?;
            }
        }
        self.output.progress(phase, seen);
        Ok(())
    }

    async fn memberships(
        &mut self,
        chunk: &Chunk,
        fresh: &HashMap<ObjectId, Option<NameHash>>,
        ranges: &mut Option<crate::directory::servers::Lent>,
    ) -> Result<(), SyncError> {
        for item in &chunk.items {
            let Item::Entry(entry, _) = item else { continue };
            let Some(group) = self.source.mapper.id(entry) else { continue };
            let Some(alias) = fresh.get(&group) else { continue };
            let members = self.source.members(ranges, entry).await?;
            let (mut known, mut unknown) = (Vec::with_capacity(members.len()), Vec::new());
            for name in members {
                match self.names.get(&name) {
                    Some(id) => known.push(id.0),
                    None => unknown.push(name),
                }
            }
            let deferred = Deferred { group, alias: *alias, known, unknown };
            let size = deferred.known.len() + deferred.unknown.len();
            if deferred.unknown.is_empty() || self.deferred_members + size > limits::DEFERRED_MEMBERS_MAX {
                self.settle(deferred).await?;
            } else {
                self.deferred_members += size;
                self.deferred.push(deferred);
            }
        }
        Ok(())
    }

    /// Every object is known now; who is still unknown is not in scope.
    async fn settle_deferred(&mut self) -> Result<(), SyncError> {
        for mut group in std::mem::take(&mut self.deferred) {
            let (known, unknown): (Vec<_>, Vec<_>) = group
                .unknown
                .into_iter()
                .map(|name| (name, self.names.get(&name)))
                .partition(|(_, id)| id.is_some());
            group.known.extend(known.into_iter().filter_map(|(_, id)| id.map(|id| id.0)));
            group.unknown = unknown.into_iter().map(|(name, _)| name).collect();
            self.settle(group).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, group: Deferred) -> Result<(), SyncError> {
        let Deferred { group, alias, known, unknown } = group;
        let listed = sorted(known);
        let primary = sorted(alias.and_then(|alias| self.primaries.get(&alias)).cloned().unwrap_or_default());
        self.unresolved += unknown.len() as u64;
        let before = match self.before {
            Some(state) => {
                let wanted = [(group, Part::Listed), (group, Part::Primary)];
                let mut parts = self.store.parts(state.generation, &wanted).await?;
                let (primary, listed) = (parts.pop().unwrap_or_default(), parts.pop().unwrap_or_default());
                union(&listed, &primary)
            }
            None => Vec::new(),
        };
        let after = union(&listed, &primary);
        let mapper = &self.source.mapper;
        for record in difference(mapper, group, &before, &after) {
            self.output.push(record).await?;
        }
        if let Some(writer) = &mut self.writer {
            writer.group(group, &listed, &primary, &unknown).await?;
        }
        Ok(())
    }
}

/// Objects the cloud has that a complete scan has not seen. Pushes their deletions into a delta; a snapshot says it by
/// leaving them out.
pub(super) async fn sweep(
    source: &Source,
    store: &Store,
    output: &mut Output<'_>,
    before: &State,
    seen: &HashSet<ObjectId>,
) -> Result<u64, SyncError> {
    let mut gone = 0;
    let mut last = None;
    loop {
        let page = store.objects_after(before.generation, last).await?;
        let Some((id, _)) = page.last() else { return Ok(gone) };
        last = Some(*id);
        for (id, row) in page.into_iter().filter(|(id, _)| !seen.contains(id)) {
            gone += 1;
            if output.mode() == Mode::Snapshot {
                continue;
            }
            output.push(source.mapper.delete(row.kind, id)).await?;
            if row.kind == Kind::Group {
                let parts =
                    store.parts(before.generation, &[(id, Part::Listed), (id, Part::Primary)]).await?;
                let members = union(&parts[0], &parts[1]);
                for record in difference(&source.mapper, id, &members, &[]) {
                    output.push(record).await?;
                }
            }
        }
    }
}

/// The state after a scan.
pub(super) fn state_after(
    scanned: &Scanned,
    generation: u32,
    epoch: u64,
    fingerprint: String,
    cursor: Cursor,
    now_ms: i64,
) -> State {
    State {
        generation,
        epoch,
        fingerprint,
        cursor,
        objects: scanned.seen.len() as u64,
        scanned_ms: now_ms,
        reconciled_ms: now_ms,
    }
}

/// Writes a generation beside the scan. Ids and names come in no order, so writing them as they come would copy nearly
/// every page of the tree for every few thousand objects; sorted, a round copies each page once.
struct Writer {
    storage: Arc<dyn Storage>,
    generation: u32,
    rows: Vec<(ObjectId, Row)>,
    groups: Batch,
    writing: Option<JoinHandle<Result<(), StorageError>>>,
}

impl Writer {
    fn new(storage: Arc<dyn Storage>, generation: u32) -> Self {
        Self { storage, generation, rows: Vec::new(), groups: Batch::new(), writing: None }
    }

    async fn row(&mut self, id: ObjectId, row: Row) -> Result<(), SyncError> {
        self.rows.push((id, row));
        self.flush_if_full().await
    }

    async fn group(
        &mut self,
        group: ObjectId,
        listed: &[[u8; 16]],
        primary: &[[u8; 16]],
        unknown: &[NameHash],
    ) -> Result<(), SyncError> {
        let names: Vec<[u8; 16]> = unknown.iter().map(|name| name.0).collect();
        for (part, list) in [(Part::Listed, listed), (Part::Primary, primary), (Part::Unknown, &names)] {
            if !list.is_empty() {
                put_part(&mut self.groups, self.generation, group, part, list);
            }
        }
        for name in unknown {
            put_pending(&mut self.groups, self.generation, *name, group);
            self.flush_if_full().await?;
        }
        self.flush_if_full().await
    }

    async fn flush_if_full(&mut self) -> Result<(), SyncError> {
        let full = self.rows.len() >= limits::ROWS_PER_ROUND || self.groups.len() >= limits::OPS_PER_COMMIT;
        if full { self.flush().await } else { Ok(()) }
    }

    /// Hands a round to a task: one is on its way to the disk while the next is filled.
    async fn flush(&mut self) -> Result<(), SyncError> {
        self.wait().await?;
        let (rows, groups) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.groups));
        self.writing = Some(tokio::spawn(write_round(self.storage.clone(), self.generation, rows, groups)));
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), SyncError> {
        match self.writing.take() {
            Some(writing) => Ok(writing.await.unwrap_or(Err(StorageError::Closed))?),
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> Result<(), SyncError> {
        self.flush().await?;
        self.wait().await
    }
}

async fn write_round(
    storage: Arc<dyn Storage>,
    generation: u32,
    mut rows: Vec<(ObjectId, Row)>,
    groups: Batch,
) -> Result<(), StorageError> {
    let mut names: Vec<(NameHash, ObjectId)> =
        rows.iter().flat_map(|(id, row)| row.names().map(|name| (name, *id))).collect();
    // Stable: of two objects met under one name the later one has it.
    names.sort_by_key(|(name, _)| *name);
    rows.sort_unstable_by_key(|(id, _)| id.0);
    for some in rows.chunks(limits::OPS_PER_COMMIT) {
        let mut batch = Batch::new();
        some.iter().for_each(|(id, row)| put_row(&mut batch, generation, *id, row));
        storage.commit(batch.may_be_lost()).await?;
    }
    drop(rows);
    for some in names.chunks(limits::OPS_PER_COMMIT) {
        let mut batch = Batch::new();
        some.iter().for_each(|(name, id)| put_name(&mut batch, generation, *name, *id));
        storage.commit(batch.may_be_lost()).await?;
    }
    if groups.is_empty() { Ok(()) } else { storage.commit(groups.may_be_lost()).await }
}
