//! Changes since a cursor: gathered by a strategy, compared with what the cloud has, sent as records, remembered.

use std::collections::{BTreeMap, HashMap, HashSet};

use causeway_protocol::record::{Kind, Record};

use super::error::SyncError;
use super::limits;
use super::mapping::Finished;
use super::membership::{difference, sorted, union};
use super::source::{Members, Source, Whole};
use super::state::{
    Part, Row, State, Store, delete_name, delete_pending, delete_row, put_name, put_part, put_pending,
    put_row,
};
use crate::directory::dn::NameHash;
use crate::directory::guid::ObjectId;
use crate::storage::Batch;

/// What a strategy found.
#[derive(Default)]
pub(super) struct Changes {
    /// Changed objects as they are now. The latest reading of one id wins.
    pub(super) upserts: HashMap<ObjectId, Whole>,
    /// Objects that are gone or out of scope.
    pub(super) deletes: HashSet<ObjectId>,
    /// Members added (true) and removed (false), in order, where the server tells them one by one.
    pub(super) edits: BTreeMap<ObjectId, Vec<(NameHash, bool)>>,
    /// Something moved in a way that leaves objects behind which only a comparison of ids can find.
    pub(super) reconcile: bool,
}

impl Changes {
    /// An object as it is now.
    pub(super) fn upsert(&mut self, whole: Whole) -> Result<(), SyncError> {
        self.deletes.remove(&whole.mapped.id);
        self.upserts.insert(whole.mapped.id, whole);
        self.check()
    }

    /// An object that is gone.
    pub(super) fn delete(&mut self, id: ObjectId) -> Result<(), SyncError> {
        self.upserts.remove(&id);
        self.edits.remove(&id);
        self.deletes.insert(id);
        self.check()
    }

    fn check(&self) -> Result<(), SyncError> {
        if self.upserts.len() + self.deletes.len() > limits::CHANGES_MAX {
            return Err(SyncError::TooManyChanges { limit: limits::CHANGES_MAX });
        }
        Ok(())
    }

    /// Reads changed objects by id; those that are not found in scope are gone as far as the cloud is concerned.
    pub(super) async fn read(
        &mut self,
        source: &Source,
        ids: &[ObjectId],
        members: Members<'_>,
    ) -> Result<(), SyncError> {
        let mut missing: HashSet<ObjectId> = ids.iter().copied().collect();
        for whole in source.read(ids, members).await? {
            missing.remove(&whole.mapped.id);
            self.upsert(whole)?;
        }
        missing.into_iter().try_for_each(|id| self.delete(id))
    }

    /// Units that came or moved take what is below them along, without the server saying so: reads it again.
    pub(super) async fn follow_units(
        &mut self,
        source: &Source,
        store: &Store,
        state: &State,
    ) -> Result<(), SyncError> {
        let units: Vec<(ObjectId, NameHash, String)> = self
            .upserts
            .values()
            .filter(|whole| whole.mapped.kind() == Kind::Ou)
            .map(|whole| (whole.mapped.id, whole.mapped.name, whole.mapped.dn.clone()))
            .collect();
        let ids: Vec<ObjectId> = units.iter().map(|(id, ..)| *id).collect();
        let rows = store.rows(state.generation, &ids).await?;
        for ((_, name, dn), row) in units.into_iter().zip(rows) {
            if row.is_some_and(|row| row.name == name) {
                continue;
            }
            for whole in source.below(&dn, Members::Read).await? {
                let fresher = self.upserts.get(&whole.mapped.id).is_some_and(|known| known.members.is_some());
                if !fresher {
                    self.edits.remove(&whole.mapped.id);
                    self.upsert(whole)?;
                }
            }
        }
        // A unit that went out of scope took its content along; nobody reports that content.
        let gone: Vec<ObjectId> = self.deletes.iter().copied().collect();
        let rows = store.rows(state.generation, &gone).await?;
        self.reconcile |= rows.iter().flatten().any(|row| row.kind == Kind::Ou);
        Ok(())
    }
}

impl Changes {
    /// Where lists of members do not follow their members, a renamed or deleted one leaves a stale name behind: reads the
    /// groups again that list it.
    pub(super) async fn follow_members(
        &mut self,
        source: &Source,
        store: &Store,
        state: &State,
    ) -> Result<(), SyncError> {
        if source.mapper.personality().members_follow || source.scope.groups.is_none() {
            return Ok(());
        }
        let ids: Vec<ObjectId> = self.upserts.keys().copied().collect();
        let rows = store.rows(state.generation, &ids).await?;
        let renamed = ids.into_iter().zip(rows).filter(|(id, row)| {
            let name = self.upserts.get(id).map(|whole| whole.mapped.name);
            row.is_some_and(|row| Some(row.name) != name)
        });
        let stale: HashSet<ObjectId> =
            renamed.map(|(id, _)| id).chain(self.deletes.iter().copied()).collect();
        if stale.is_empty() {
            return Ok(());
        }
        let mut groups = store.groups_with(state.generation, &stale).await?;
        groups.retain(|id| {
            let read = self.upserts.get(id).is_some_and(|whole| whole.members.is_some());
            !read && !self.deletes.contains(id)
        });
        self.read(source, &groups, Members::Read).await
    }
}

/// What to send and what to remember.
pub(super) struct Plan {
    pub(super) records: Vec<Record>,
    pub(super) batch: Batch,
    /// Objects that go.
    pub(super) deletions: u64,
    /// Objects that come.
    pub(super) additions: u64,
    pub(super) unresolved: u64,
}

/// Compares changes with what the cloud has.
pub(super) async fn plan(
    source: &Source,
    store: &Store,
    state: &State,
    changes: Changes,
) -> Result<Plan, SyncError> {
    let mut planner = Planner::load(source, store, state, changes).await?;
    planner.objects().await?;
    planner.memberships().await?;
    Ok(planner.plan)
}

struct Planner<'a> {
    source: &'a Source,
    store: &'a Store,
    generation: u32,
    changes: Changes,
    rows: HashMap<ObjectId, Row>,
    /// Names as they are after the changes: of changed objects, and `None` for names that nobody has any more.
    names: HashMap<NameHash, Option<ObjectId>>,
    /// Names that somebody in scope has now and nobody had before.
    new_names: Vec<NameHash>,
    /// Groups whose members must be worked out anew.
    groups: HashSet<ObjectId>,
    /// Users who got or lost a primary group.
    primaries: HashMap<NameHash, Vec<(ObjectId, bool)>>,
    new_rows: HashMap<ObjectId, Row>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    async fn load(
        source: &'a Source,
        store: &'a Store,
        state: &State,
        changes: Changes,
    ) -> Result<Self, SyncError> {
        let ids: Vec<ObjectId> =
            changes.upserts.keys().chain(&changes.deletes).chain(changes.edits.keys()).copied().collect();
        let found = store.rows(state.generation, &ids).await?;
        let rows = ids.into_iter().zip(found).filter_map(|(id, row)| row.map(|row| (id, row))).collect();
        let plan =
            Plan { records: Vec::new(), batch: Batch::new(), deletions: 0, additions: 0, unresolved: 0 };
        Ok(Self {
            source,
            store,
            generation: state.generation,
            changes,
            rows,
            names: HashMap::new(),
            new_names: Vec::new(),
            groups: HashSet::new(),
            primaries: HashMap::new(),
            new_rows: HashMap::new(),
            plan,
        })
    }

    async fn objects(&mut self) -> Result<(), SyncError> {
        self.rename();
        let parents: Vec<NameHash> =
            self.changes.upserts.values().filter_map(|whole| whole.mapped.parent).collect();
        let parents = self.resolve(parents).await?;
        let mapper = &self.source.mapper;
        let ids: Vec<ObjectId> = self.changes.upserts.keys().copied().collect();
        for id in ids {
            let whole = self.changes.upserts.get_mut(&id).expect("its key was just listed");
            let parent = whole.mapped.parent.and_then(|name| parents.get(&name)).map(|id| mapper.key(*id));
            let Finished { value, hash } = whole.mapped.finish(parent);
            let kind = whole.mapped.kind();
            let (name, alias, primary) = (whole.mapped.name, whole.mapped.alias, whole.mapped.primary);
            let row = Row { kind, hash, name, alias, primary };
            let before = self.rows.get(&id).copied();
            if let Some(before) = before.filter(|before| before.kind != kind) {
                self.plan.records.push(mapper.delete(before.kind, id));
            }
            if before.is_none_or(|before| before.hash != hash || before.kind != kind) {
                self.plan.records.push(mapper.upsert(kind, id, value));
            }
            if before != Some(row) {
                put_row(&mut self.plan.batch, self.generation, id, &row);
            }
            if before.is_none() {
                self.plan.additions += 1;
            }
            let was = before.and_then(|before| before.primary);
            if was != primary {
                was.into_iter().for_each(|name| self.primaries.entry(name).or_default().push((id, false)));
                primary.into_iter().for_each(|name| self.primaries.entry(name).or_default().push((id, true)));
            }
            // A new group may be the primary group of users who are here already.
            if before.is_none() && kind == Kind::Group {
                self.groups.insert(id);
            }
            self.new_rows.insert(id, row);
        }
        for id in self.changes.deletes.clone() {
            let Some(row) = self.rows.get(&id).copied() else { continue };
            self.plan.records.push(mapper.delete(row.kind, id));
            self.plan.deletions += 1;
            delete_row(&mut self.plan.batch, self.generation, id);
            if row.kind == Kind::Group {
                self.groups.insert(id);
            }
        }
        Ok(())
    }

    /// Moves names in the index: the old ones first, so that a name may pass from one object to another.
    fn rename(&mut self) {
        let batch = &mut self.plan.batch;
        for (id, row) in &self.rows {
            let now = self.changes.upserts.get(id).map(|whole| &whole.mapped);
            if now.is_none() && !self.changes.deletes.contains(id) {
                continue;
            }
            for name in row.names() {
                if now.is_none_or(|now| now.name != name && now.alias != Some(name)) {
                    self.names.insert(name, None);
                    delete_name(batch, self.generation, name);
                }
            }
        }
        for (id, whole) in &self.changes.upserts {
            let before = self.rows.get(id);
            for name in std::iter::once(whole.mapped.name).chain(whole.mapped.alias) {
                self.names.insert(name, Some(*id));
                if before.is_none_or(|before| !before.names().any(|known| known == name)) {
                    self.new_names.push(name);
                    put_name(batch, self.generation, name, *id);
                }
            }
        }
    }

    /// Whom names refer to after the changes.
    async fn resolve(&self, names: Vec<NameHash>) -> Result<HashMap<NameHash, ObjectId>, SyncError> {
        let mut found = HashMap::with_capacity(names.len());
        let mut ask = Vec::new();
        for name in names {
            match self.names.get(&name) {
                Some(Some(id)) => {
                    found.insert(name, *id);
                }
                Some(None) => {}
                None => ask.push(name),
            }
        }
        ask.sort_unstable();
        ask.dedup();
        let ids = self.store.named(self.generation, &ask).await?;
        found.extend(ask.into_iter().zip(ids).filter_map(|(name, id)| id.map(|id| (name, id))));
        Ok(found)
    }

    async fn memberships(&mut self) -> Result<(), SyncError> {
        if self.source.scope.groups.is_none() {
            return Ok(());
        }
        let waiting = self.collect_groups().await?;
        let groups: Vec<ObjectId> = {
            let mut groups: Vec<_> = self.groups.iter().copied().collect();
            groups.sort_unstable();
            groups
        };
        for group in groups {
            self.membership(group, &waiting).await?;
        }
        Ok(())
    }

    /// Every group that the changes touch, and for each the names it waited for that somebody has now.
    async fn collect_groups(&mut self) -> Result<HashMap<ObjectId, Vec<NameHash>>, SyncError> {
        let listed =
            self.changes.upserts.iter().filter(|(_, whole)| whole.members.is_some()).map(|(id, _)| *id);
        self.groups.extend(listed);
        self.groups.extend(self.changes.edits.keys().copied());
        let aliases = self.resolve(self.primaries.keys().copied().collect()).await?;
        self.groups.extend(aliases.values());
        let gone: HashSet<ObjectId> =
            self.changes.deletes.iter().filter(|id| self.rows.contains_key(id)).copied().collect();
        if !gone.is_empty() {
            self.groups.extend(self.store.groups_with(self.generation, &gone).await?);
        }
        let mut waiting: HashMap<ObjectId, Vec<NameHash>> = HashMap::new();
        for name in &self.new_names {
            for group in self.store.waiting_for(self.generation, *name).await? {
                self.groups.insert(group);
                waiting.entry(group).or_default().push(*name);
            }
        }
        Ok(waiting)
    }

    async fn membership(
        &mut self,
        group: ObjectId,
        waiting: &HashMap<ObjectId, Vec<NameHash>>,
    ) -> Result<(), SyncError> {
        let wanted = [(group, Part::Listed), (group, Part::Primary), (group, Part::Unknown)];
        let mut parts = self.store.parts(self.generation, &wanted).await?;
        let unknown_before = parts.pop().unwrap_or_default();
        let primary_before = parts.pop().unwrap_or_default();
        let listed_before = parts.pop().unwrap_or_default();
        let deleted = self.changes.deletes.contains(&group);
        let exists = !deleted && (self.new_rows.contains_key(&group) || self.row(group).await?);
        let (listed, unknown, primary) = if exists {
            let (listed, unknown) = self.listed(group, &listed_before, &unknown_before, waiting).await?;
            (listed, unknown, self.primary(group, &primary_before).await?)
        } else {
            (Vec::new(), Vec::new(), Vec::new())
        };
        let before = union(&listed_before, &primary_before);
        let after = union(&listed, &primary);
        self.plan.records.extend(difference(&self.source.mapper, group, &before, &after));
        let batch = &mut self.plan.batch;
        for (part, before, after) in [
            (Part::Listed, &listed_before, &listed),
            (Part::Primary, &primary_before, &primary),
            (Part::Unknown, &unknown_before, &unknown),
        ] {
            if before != after {
                put_part(batch, self.generation, group, part, after);
            }
        }
        for name in unknown_before.iter().filter(|name| unknown.binary_search(name).is_err()) {
            delete_pending(batch, self.generation, NameHash(*name), group);
        }
        for name in unknown.iter().filter(|name| unknown_before.binary_search(name).is_err()) {
            put_pending(batch, self.generation, NameHash(*name), group);
        }
        self.plan.unresolved += unknown.len() as u64;
        Ok(())
    }

    async fn row(&self, id: ObjectId) -> Result<bool, SyncError> {
        if self.rows.contains_key(&id) {
            return Ok(true);
        }
        Ok(self.store.rows(self.generation, &[id]).await?.first().is_some_and(Option::is_some))
    }

    /// Listed members and unknown names of a group after the changes.
    async fn listed(
        &self,
        group: ObjectId,
        listed_before: &[[u8; 16]],
        unknown_before: &[[u8; 16]],
        waiting: &HashMap<ObjectId, Vec<NameHash>>,
    ) -> Result<(Vec<[u8; 16]>, Vec<[u8; 16]>), SyncError> {
        let full = self.changes.upserts.get(&group).and_then(|whole| whole.members.as_ref());
        let edits = self.changes.edits.get(&group).map(Vec::as_slice).unwrap_or_default();
        let mut names: Vec<NameHash> = edits.iter().map(|(name, _)| *name).collect();
        names.extend(full.into_iter().flatten());
        names.extend(waiting.get(&group).into_iter().flatten());
        let known = self.resolve(names).await?;
        let (mut listed, mut unknown): (HashSet<[u8; 16]>, HashSet<[u8; 16]>) = match full {
            Some(_) => (HashSet::new(), HashSet::new()),
            None => (listed_before.iter().copied().collect(), unknown_before.iter().copied().collect()),
        };
        let mut add = |name: &NameHash, listed: &mut HashSet<_>| match known.get(name) {
            Some(id) => {
                listed.insert(id.0);
                unknown.remove(&name.0);
            }
            None => {
                unknown.insert(name.0);
            }
        };
        full.into_iter().flatten().for_each(|name| add(name, &mut listed));
        waiting.get(&group).into_iter().flatten().for_each(|name| {
            // Only if the group still waits: a full list read since then has the last word.
            if full.is_none() {
                add(name, &mut listed);
            }
        });
        for (name, added) in edits {
            if *added {
                add(name, &mut listed);
            } else if let Some(id) = known.get(name) {
                listed.remove(&id.0);
            }
        }
        for (name, _) in edits.iter().filter(|(_, added)| !added) {
            let again = edits.iter().rev().find(|(other, _)| other == name).is_some_and(|(_, added)| *added);
            if !again {
                unknown.remove(&name.0);
            }
        }
        listed.retain(|id| !self.changes.deletes.contains(&ObjectId(*id)));
        Ok((sorted(listed.into_iter().collect()), sorted(unknown.into_iter().collect())))
    }

    /// Users whose primary group this is, after the changes.
    async fn primary(&self, group: ObjectId, before: &[[u8; 16]]) -> Result<Vec<[u8; 16]>, SyncError> {
        let row = match self.new_rows.get(&group).or_else(|| self.rows.get(&group)) {
            Some(row) => Some(*row),
            None => self.store.rows(self.generation, &[group]).await?.into_iter().next().flatten(),
        };
        let Some(alias) = row.and_then(|row| row.alias) else { return Ok(Vec::new()) };
        let mut users: HashSet<[u8; 16]> = before.iter().copied().collect();
        if !self.rows.contains_key(&group) && self.new_rows.contains_key(&group) {
            users.extend(self.users_of(alias).await?);
        }
        for (user, joined) in self.primaries.get(&alias).into_iter().flatten() {
            if *joined {
                users.insert(user.0);
            } else {
                users.remove(&user.0);
            }
        }
        users.retain(|id| !self.changes.deletes.contains(&ObjectId(*id)));
        Ok(sorted(users.into_iter().collect()))
    }

    /// Users here already whose primary group has just come into scope.
    async fn users_of(&self, alias: NameHash) -> Result<Vec<[u8; 16]>, SyncError> {
        let mut users = Vec::new();
        let mut last = None;
        loop {
            let page = self.store.objects_after(self.generation, last).await?;
            let Some((id, _)) = page.last() else { return Ok(users) };
            last = Some(*id);
            let theirs = page.iter().filter(|(_, row)| row.kind == Kind::User && row.primary == Some(alias));
            users.extend(theirs.map(|(id, _)| id.0));
        }
    }
}
