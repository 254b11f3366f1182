//! Searching: base, scope, filter, rights; and who may see what.

use super::condition::Condition;
use super::limits;
use super::reader::Reader;
use super::replica::Replica;
use super::tree::Lookup;
use super::types::{EntryId, Identity, LdapFailure, Matches, ResultCode, Scope, SearchPlan, View};
use crate::dn::Name;
use crate::personality::Vendor;

/// What an identity may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rights {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// DS-Replication-Get-Changes.
    pub(crate) replicate: bool,
    /// List Contents on CN=Deleted Objects.
    pub(crate) see_deleted: bool,
}

impl Replica {
    /// The objects that match, parents before children. The lock is held for this call only.
    pub fn search(&self, plan: &SearchPlan<'_>) -> Result<Matches, LdapFailure> {
        self.catch_up();
        self.require_reader(plan.who)?;
        if let Some(matches) = self.search_changelog(plan) {
            return Ok(matches);
        }
        let name = self.parse_name(plan.base)?;
        self.index_for(&name);
        // A missing index is built between two looks; each round builds one, so the rounds are as many as the filter
        // has attributes.
        loop {
            let missing = match self.read_with(plan.view, |reader| self.attempt(reader, &name, plan)) {
                Ok(found) => return found,
                Err(missing) => missing,
            };
            self.ensure_index(missing);
        }
    }

    fn attempt(
        &self,
        reader: &Reader<'_>,
        name: &Name,
        plan: &SearchPlan<'_>,
    ) -> Result<Result<Matches, LdapFailure>, super::schema::AttrId> {
        let condition = Condition::compile(plan.filter, reader);
        // A base search reads one object; an index would not help.
        if plan.scope != Scope::Base
            && let Some(attribute) = condition.missing_index(reader)
        {
            return Err(attribute);
        }
        Ok(self.walk(reader, name, plan, &condition))
    }

    fn walk(
        &self,
        reader: &Reader<'_>,
        name: &Name,
        plan: &SearchPlan<'_>,
        condition: &Condition,
    ) -> Result<Matches, LdapFailure> {
        let rights = self.rights(reader, plan.who);
        let bases = self.bases(reader, name, plan)?;
        let mut matches = Matches { change_number: reader.tree.log.last_usn(), ..Matches::default() };
        // Its security descriptor inherits nothing, and gives reading and listing it together (MS-ADTS 6.1.1.4.2).
        let hidden = self.shared.landmarks.deleted_objects.filter(|_| !rights.see_deleted);
        let mut take = |id: EntryId| {
            let Some(node) = reader.tree.node(id) else { return true };
            let visible = !node.entry.rdn.is_empty()
                && hidden != Some(id)
                && (!node.entry.deleted || (plan.show_deleted && rights.see_deleted));
            if visible && condition.holds(reader, id, node) == Some(true) {
                if matches.ids.len() >= plan.count_max {
                    matches.truncated = true;
                    return false;
                }
                matches.ids.push(id);
            }
            true
        };
        if let Some(attribute) = plan.attribute_scope {
            let linked = scoped(reader, bases.first().copied(), attribute)?;
            let _ = linked.into_iter().all(&mut take);
            return Ok(matches);
        }
        match condition.candidates(reader).filter(|_| plan.scope != Scope::Base) {
            Some(ids) => {
                let inside = |&id: &EntryId| bases.iter().any(|&base| in_scope(reader, id, base, plan.scope));
                let mut ids: Vec<EntryId> = ids.into_iter().filter(inside).collect();
                ids.sort_by_cached_key(|&id| (reader.tree.depth(id), id));
                ids.dedup();
                let _ = ids.into_iter().all(take);
            }
            None => {
                let _ = bases.iter().all(|&base| walk_scope(reader, base, plan.scope, &mut take));
            }
        }
        if plan.scope == Scope::Subtree && !plan.domain_scope && plan.view == View::Domain {
            matches.references = self.references(reader, &bases);
        }
        Ok(matches)
    }

    /// Where the search starts: one object, or every naming context for the empty base of the Global Catalog.
    fn bases(
        &self,
        reader: &Reader<'_>,
        name: &Name,
        plan: &SearchPlan<'_>,
    ) -> Result<Vec<EntryId>, LdapFailure> {
        if let Name::Path(dn) = name
            && dn.is_root()
        {
            // slapd has a context for the empty name only where it is told to (`default_searchbase`).
            let everything = plan.view == View::GlobalCatalog
                || plan.phantom_root
                || !matches!(self.shared.personality.vendor, Vendor::ActiveDirectory | Vendor::OpenLdap);
            if everything && plan.scope != Scope::Base {
                return Ok(reader.tree.roots.iter().map(|root| root.id).collect());
            }
            return Err(self.no_such_object(reader, name));
        }
        let found = reader.resolve(name).filter(|&id| {
            let deleted = reader.tree.node(id).is_some_and(|node| node.entry.deleted);
            !deleted || plan.show_deleted
        });
        let base = found.ok_or_else(|| self.no_such_object(reader, name))?;
        if plan.view == View::GlobalCatalog || plan.phantom_root {
            // The Global Catalog has no borders between naming contexts.
            let key = |id| reader.tree.dn(id).to_ascii_lowercase();
            let suffix = format!(",{}", key(base));
            let below = reader.tree.roots.iter().map(|root| root.id);
            let below = below.filter(|&root| plan.scope == Scope::Subtree && key(root).ends_with(&suffix));
            return Ok(std::iter::once(base).chain(below).collect());
        }
        Ok(vec![base])
    }

    /// Continuation references to the naming contexts directly below the head that was searched (MS-ADTS 3.1.1.3.1.4).
    fn references(&self, reader: &Reader<'_>, bases: &[EntryId]) -> Vec<String> {
        let naming = &self.shared.naming;
        let at = |wanted: &str| {
            bases.iter().any(|&base| {
                reader.tree.parent(base).is_none() && reader.tree.dn(base).eq_ignore_ascii_case(wanted)
            })
        };
        if !self.shared.personality.is_active_directory() {
            return Vec::new();
        }
        if at(&naming.base) {
            let zone = |name: &str| format!("{name}.{}/DC={name},{}", naming.domain, naming.base);
            return vec![
                zone("ForestDnsZones"),
                zone("DomainDnsZones"),
                format!("{}/{}", naming.domain, naming.configuration),
            ];
        }
        if at(&naming.configuration) {
            vec![format!("{}/{}", naming.domain, naming.schema)]
        } else {
            Vec::new()
        }
    }

    /// operationsError for clients that did not bind where that is needed.
    pub(crate) fn require_reader(&self, who: &Identity) -> Result<(), LdapFailure> {
        if *who == Identity::Anonymous && !self.shared.personality.anonymous_search {
            return Err(LdapFailure::new(
                ResultCode::OPERATIONS_ERROR,
                self.shared.text("bind_required", &[]),
            ));
        }
        Ok(())
    }

    pub(crate) fn no_access(&self, dn: &str) -> LdapFailure {
        LdapFailure::new(ResultCode::INSUFFICIENT_ACCESS_RIGHTS, self.shared.text("no_access", &[("dn", dn)]))
    }

    pub(crate) fn rights(&self, reader: &Reader<'_>, who: &Identity) -> Rights {
        let all = Rights { read: true, write: true, replicate: true, see_deleted: true };
        let reading = Rights { read: true, ..Rights::default() };
        match who {
            Identity::Manager { .. } => all,
            Identity::Anonymous => {
                Rights { read: self.shared.personality.anonymous_search, ..Rights::default() }
            }
            Identity::Entry { id, .. } if self.is_administrator(reader, *id) => all,
            Identity::Entry { id, .. } if Some(*id) == self.shared.landmarks.service => {
                let policy = self.shared.accounts();
                let replicate = self.shared.may_replicate.load(std::sync::atomic::Ordering::Relaxed);
                Rights {
                    replicate,
                    see_deleted: policy.service_sees_deleted,
                    write: policy.service_may_write,
                    ..reading
                }
            }
            Identity::Entry { .. } => reading,
        }
    }

    fn is_administrator(&self, reader: &Reader<'_>, id: EntryId) -> bool {
        let landmarks = &self.shared.landmarks;
        if landmarks.administrator == Some(id) {
            return true;
        }
        let Some(member) = self.shared.known.member else { return false };
        // The administrators are few; their groups are walked downwards, not the groups of the account upwards.
        landmarks.admin_groups.iter().any(|&group| reader.tree.closure(group, &[member], false).contains(&id))
    }
}

/// Attribute scoped query: the objects one attribute of the base names (MS-ADTS 3.1.1.3.4.1.18).
fn scoped(reader: &Reader<'_>, base: Option<EntryId>, attribute: &str) -> Result<Vec<EntryId>, LdapFailure> {
    use super::schema::Source;
    let unusable =
        || LdapFailure::new(ResultCode::INAPPROPRIATE_MATCHING, format!("{attribute} does not name objects"));
    let attribute = reader.tree.schema.find(attribute).ok_or_else(unusable)?;
    let Some(base) = base else { return Ok(Vec::new()) };
    match &reader.tree.schema.attribute(attribute).source {
        Source::Link => Ok(reader.tree.forward(base, attribute).to_vec()),
        Source::BackLink(links) => {
            Ok(links.iter().flat_map(|&link| reader.tree.back(base, link)).copied().collect())
        }
        _ => Err(unusable()),
    }
}

/// Whether an object lies in a scope.
pub(crate) fn in_scope(reader: &Reader<'_>, id: EntryId, base: EntryId, scope: Scope) -> bool {
    match scope {
        Scope::Base => id == base,
        Scope::OneLevel => reader.tree.parent(id) == Some(base),
        Scope::Subtree => reader.tree.within(id, base),
        Scope::Subordinate => id != base && reader.tree.within(id, base),
    }
}

/// Visits every object of a scope, parents first, until `take` says stop. True when it went through.
fn walk_scope(
    reader: &Reader<'_>,
    base: EntryId,
    scope: Scope,
    take: &mut dyn FnMut(EntryId) -> bool,
) -> bool {
    match scope {
        Scope::Base => take(base),
        Scope::OneLevel => reader.tree.children(base).iter().all(|&child| take(child)),
        Scope::Subtree | Scope::Subordinate => {
            if scope == Scope::Subtree && !take(base) {
                return false;
            }
            // A path of child positions instead of recursion: the depth of a directory is the client's choice.
            let mut path = vec![reader.tree.children(base).iter()];
            while let Some(level) = path.last_mut() {
                match level.next() {
                    Some(&child) => {
                        if !take(child) {
                            return false;
                        }
                        let below = reader.tree.children(child);
                        if !below.is_empty() && path.len() < limits::TREE_DEPTH_MAX {
                            path.push(below.iter());
                        }
                    }
                    None => {
                        path.pop();
                    }
                }
            }
            true
        }
    }
}

/// The object a cursor's base means; DirSync and syncrepl start here.
pub(crate) fn base_of(replica: &Replica, reader: &Reader<'_>, base: &[u8]) -> Result<EntryId, LdapFailure> {
    let name = replica.parse_name(base)?;
    match &name {
        Name::Path(dn) => match reader.tree.lookup(dn) {
            Lookup::Found(id) => Ok(id),
            _ => Err(replica.no_such_object(reader, &name)),
        },
        _ => reader.resolve(&name).ok_or_else(|| replica.no_such_object(reader, &name)),
    }
}
