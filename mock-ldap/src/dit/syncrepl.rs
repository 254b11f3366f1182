//! Content synchronization (RFC 4533) as OpenLDAP and 389-ds do it, and the feed of changes for persistent searches.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use super::condition::Condition;
use super::csn::Csn;
use super::log::Record;
use super::reader::Reader;
use super::replica::Replica;
use super::search::{base_of, in_scope};
use super::tree::Node;
use super::types::{
    Change, ChangeKind, Changes, EntryId, LdapFailure, ResultCode, Scope, SearchPlan, SyncBatch, SyncPhase,
    SyncRequest, SyncState,
};
use crate::personality::Vendor;

/// The newest stamp of every origin: contextCSN.
pub(crate) fn context(reader: &Reader<'_>) -> Vec<Csn> {
    reader.tree.log.contexts()
}

/// Where a client stands.
enum Cursor {
    /// OpenLDAP: newest stamp it has, per origin.
    Stamps(HashMap<u16, Csn>),
    /// 389-ds: change number of this server.
    Number(u64),
}

impl Cursor {
    fn covers(&self, record: &Record, base_usn: u64) -> bool {
        match self {
            Self::Stamps(known) => known.get(&record.csn.origin).is_some_and(|csn| *csn >= record.csn),
            Self::Number(number) => record.usn - base_usn <= *number,
        }
    }

    fn covers_node(&self, node: &Node, base_usn: u64) -> bool {
        match self {
            Self::Stamps(known) => known.get(&node.csn.origin).is_some_and(|csn| *csn >= node.csn),
            Self::Number(number) => node.usn_changed.saturating_sub(base_usn) <= *number,
        }
    }
}

/// One refresh while it is put together.
struct Refresh<'a> {
    reader: Reader<'a>,
    condition: Condition,
    base: EntryId,
    scope: Scope,
}

impl Replica {
    /// One refresh, or in the persist stage what happened since the session's last cookie.
    pub fn syncrepl(&self, request: &SyncRequest<'_>) -> Result<SyncBatch, LdapFailure> {
        self.catch_up();
        self.require_reader(request.who)?;
        self.read(|reader| {
            let refresh = Refresh {
                reader: *reader,
                condition: Condition::compile(request.filter, reader),
                base: base_of(self, reader, request.base)?,
                scope: request.scope,
            };
            let cursor = match self.cursor(reader, request) {
                Ok(cursor) => cursor,
                Err(failure) if request.reload && failure.code == ResultCode::SYNC_REFRESH_REQUIRED => None,
                Err(failure) => return Err(failure),
            };
            let from_changelog = matches!(cursor, Some(Cursor::Number(_))) && !request.persist;
            let (entries, phase) = match cursor {
                None => (refresh.everything(), SyncPhase::Present { present: Vec::new() }),
                Some(cursor) => {
                    let always = request.persist || matches!(cursor, Cursor::Number(_));
                    let depth = if always { usize::MAX } else { self.session_log.load(Ordering::Relaxed) };
                    refresh.delta(&cursor, depth, from_changelog)
                }
            };
            let cookie = self.cookie(reader, request).into_bytes();
            let change_number = reader.tree.log.last_usn();
            Ok(SyncBatch { entries, phase, cookie, change_number, from_changelog })
        })
    }

    /// What happened after change `number` to objects in scope; the plan's filter decides about each.
    pub fn changes_since(&self, number: u64, plan: &SearchPlan<'_>) -> Result<Changes, LdapFailure> {
        self.catch_up();
        self.require_reader(plan.who)?;
        self.read_with(plan.view, |reader| {
            let last = reader.tree.log.last_usn();
            let base = base_of(self, reader, plan.base)?;
            let condition = Condition::compile(plan.filter, reader);
            let refresh = Refresh { reader: *reader, condition, base, scope: plan.scope };
            let Some(records) = reader.tree.log.since(number) else {
                return Ok(Changes { last, gap: true, ..Changes::default() });
            };
            let changes = records.map(|record| refresh.change(record, plan.show_deleted)).collect();
            Ok(Changes { changes, last, gap: false })
        })
    }

    /// How many changes are remembered for the delete phase (`syncprov-sessionlog`); beyond it every refresh is a
    /// present phase. Zero: always.
    pub fn set_session_log(&self, records: usize) {
        self.session_log.store(records, Ordering::Relaxed);
    }

    fn cursor(&self, reader: &Reader<'_>, request: &SyncRequest<'_>) -> Result<Option<Cursor>, LdapFailure> {
        let Some(cookie) = request.cookie.filter(|cookie| !cookie.is_empty()) else { return Ok(None) };
        let text = String::from_utf8_lossy(cookie);
        let again = || LdapFailure::new(ResultCode::SYNC_REFRESH_REQUIRED, "");
        if self.shared.personality.vendor == Vendor::OpenLdap {
            let stamps = parse_stamps(&text);
            let bad = || LdapFailure::new(ResultCode::PROTOCOL_ERROR, self.shared.text("sync_cookie", &[]));
            return stamps.map(|stamps| Some(Cursor::Stamps(stamps))).ok_or_else(bad);
        }
        // host:port#binddn:base:filter#number; another server, account, base or filter has no use for it.
        let (head, number) = text.rsplit_once('#').ok_or_else(again)?;
        let number: u64 = number.parse().map_err(|_| again())?;
        let log = &reader.tree.log;
        let reachable =
            number + log.base_usn() <= log.last_usn() && number + log.base_usn() + 1 >= log.first_usn();
        if head != self.cookie_head(request) || !reachable {
            return Err(again());
        }
        Ok(Some(Cursor::Number(number)))
    }

    fn cookie(&self, reader: &Reader<'_>, request: &SyncRequest<'_>) -> String {
        if self.shared.personality.vendor == Vendor::OpenLdap {
            let stamps: Vec<String> = context(reader).into_iter().map(Csn::text).collect();
            return format!("rid=000,csn={}", stamps.join(";"));
        }
        let log = &reader.tree.log;
        format!("{}#{}", self.cookie_head(request), log.last_usn() - log.base_usn())
    }

    fn cookie_head(&self, request: &SyncRequest<'_>) -> String {
        let base = String::from_utf8_lossy(request.base).to_lowercase();
        let who = request.who.dn().to_lowercase();
        format!("{}:389#{who}:{base}:{}", self.host_name(), request.filter)
    }
}

/// `rid=000,sid=001,csn=a;b`, in any order.
fn parse_stamps(cookie: &str) -> Option<HashMap<u16, Csn>> {
    let mut stamps = HashMap::new();
    for part in cookie.split(',') {
        match part.split_once('=')? {
            ("csn", list) => {
                for text in list.split(';') {
                    let csn = Csn::parse(text)?;
                    stamps.insert(csn.origin, csn);
                }
            }
            ("rid" | "sid", number) => drop(u16::from_str_radix(number, 16).ok()?),
            _ => return None,
        }
    }
    Some(stamps)
}

impl Refresh<'_> {
    fn matches(&self, id: EntryId, node: &Node) -> bool {
        !node.entry.deleted
            && !node.entry.rdn.is_empty()
            && in_scope(&self.reader, id, self.base, self.scope)
            && self.condition.holds(&self.reader, id, node) == Some(true)
    }

    fn everything(&self) -> Vec<(EntryId, SyncState, [u8; 16])> {
        let nodes = self.reader.tree.nodes().filter(|(id, node)| self.matches(*id, node));
        self.parents_first(nodes.map(|(id, node)| (id, SyncState::Add, node.entry.uuid)).collect())
    }

    /// Changed entries, and how the rest is told: by deletions when the log holds them all, else by naming what stayed.
    fn delta(
        &self,
        cursor: &Cursor,
        depth: usize,
        from_changelog: bool,
    ) -> (Vec<(EntryId, SyncState, [u8; 16])>, SyncPhase) {
        let log = &self.reader.tree.log;
        let base_usn = log.base_usn();
        let records: Vec<&Record> = log.records().filter(|record| !cursor.covers(record, base_usn)).collect();
        let changed: HashSet<EntryId> = records.iter().map(|record| record.id).collect();
        if records.len() <= depth
            && log.reaches_back_to(|record_csn| match cursor {
                Cursor::Stamps(known) => known.get(&record_csn.origin).is_some_and(|csn| *csn >= record_csn),
                Cursor::Number(_) => true,
            })
        {
            return self.by_deletions(&records, &changed, from_changelog);
        }
        let (mut entries, mut present) = (Vec::new(), Vec::new());
        for (id, node) in self.reader.tree.nodes().filter(|(id, node)| self.matches(*id, node)) {
            if changed.contains(&id) || !cursor.covers_node(node, base_usn) {
                entries.push((id, SyncState::Add, node.entry.uuid));
            } else {
                present.push(node.entry.uuid);
            }
        }
        (self.parents_first(entries), SyncPhase::Present { present })
    }

    fn by_deletions(
        &self,
        records: &[&Record],
        changed: &HashSet<EntryId>,
        from_changelog: bool,
    ) -> (Vec<(EntryId, SyncState, [u8; 16])>, SyncPhase) {
        let created: HashSet<EntryId> =
            records.iter().filter(|record| record.kind == ChangeKind::Add).map(|record| record.id).collect();
        let (mut entries, mut deleted) = (Vec::new(), Vec::new());
        for &id in changed {
            match self.reader.tree.node(id) {
                Some(node) if self.matches(id, node) => {
                    let added = from_changelog || created.contains(&id);
                    let state = if added { SyncState::Add } else { SyncState::Modify };
                    entries.push((id, state, node.entry.uuid));
                }
                // 389-ds looks at what is there now, so it says nothing of what no longer matches.
                Some(node)
                    if from_changelog
                        && !node.entry.deleted
                        && in_scope(&self.reader, id, self.base, self.scope) => {}
                // It may have matched before: the client drops it if it has it.
                Some(node) => deleted.push(node.entry.uuid),
                None if from_changelog && created.contains(&id) => {}
                None => {
                    let gone = records
                        .iter()
                        .rev()
                        .find(|record| record.id == id)
                        .and_then(|record| record.gone.as_ref());
                    deleted.extend(gone.map(|gone| gone.entry.uuid));
                }
            }
        }
        deleted.sort_unstable();
        (self.parents_first(entries), SyncPhase::Delete { deleted })
    }

    fn parents_first(
        &self,
        mut entries: Vec<(EntryId, SyncState, [u8; 16])>,
    ) -> Vec<(EntryId, SyncState, [u8; 16])> {
        entries.sort_by_cached_key(|(id, _, _)| (self.reader.tree.depth(*id), *id));
        entries
    }

    fn change(&self, record: &Record, show_deleted: bool) -> Change {
        let tree = self.reader.tree;
        let previous_dn = record.previous_dn.as_deref().map(str::to_owned);
        let change = |dn, uuid, matches| Change {
            number: record.usn,
            id: record.id,
            kind: record.kind,
            dn,
            previous_dn,
            uuid,
            matches,
        };
        match (&record.gone, tree.node(record.id)) {
            (Some(gone), _) => {
                let parent_inside = gone.entry.parent.is_some_and(|parent| match self.scope {
                    Scope::Base => false,
                    Scope::OneLevel => parent == self.base,
                    Scope::Subtree | Scope::Subordinate => tree.within(parent, self.base),
                });
                let node = Node {
                    entry: gone.entry.clone(),
                    usn_created: record.usn,
                    usn_changed: record.usn,
                    changed_ms: record.csn.at_ms,
                    csn: record.csn,
                    links: None,
                    container: None,
                };
                let holds = self.condition.holds(&self.reader, record.id, &node) == Some(true);
                change(gone.dn.clone(), gone.entry.uuid, parent_inside && holds)
            }
            (None, Some(node)) => {
                let visible = !node.entry.deleted || show_deleted;
                let inside = in_scope(&self.reader, record.id, self.base, self.scope);
                let holds =
                    visible && inside && self.condition.holds(&self.reader, record.id, node) == Some(true);
                change(tree.dn(record.id), node.entry.uuid, holds)
            }
            (None, None) => change(String::new(), [0; 16], false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_slapd_are_read() {
        let stamp = "20261122043735.123000Z#000000#001#000000";
        let stamps = parse_stamps(&format!("rid=001,sid=002,csn={stamp}")).unwrap();
        assert_eq!(stamps[&1].text(), stamp);
        assert!(parse_stamps("rid=000").is_some_and(|stamps| stamps.is_empty()));
        for bad in ["", "csn=x", "nonsense", "rid=000,csn=20261122"] {
            assert!(parse_stamps(bad).is_none(), "{bad}");
        }
    }
}
