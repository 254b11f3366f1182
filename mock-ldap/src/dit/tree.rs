//! One server's copy of the objects: nodes by number, children by name, links in both directions.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::csn::Csn;
use super::entry::Entry;
use super::index::{IdSet, Indexes};
use super::log::Log;
use super::matching::Folding;
use super::schema::{AttrId, Schema};
use super::stamps::Stamps;
use super::types::EntryId;
use crate::dn::{Dn, Rdn};

/// One object on one server.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) entry: Arc<Entry>,
    pub(crate) usn_created: u64,
    pub(crate) usn_changed: u64,
    /// When this server last applied a change: whenChanged is not replicated.
    pub(crate) changed_ms: i64,
    /// The last change wherever it was made: modifyTimestamp and entryCSN are replicated.
    pub(crate) csn: Csn,
    pub(crate) links: Option<Box<Links>>,
    pub(crate) container: Option<Box<Container>>,
}

/// Numbers of linked objects, by the forward attribute, in the order they were added.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) forward: Vec<(AttrId, Vec<EntryId>)>,
    pub(crate) back: Vec<(AttrId, Vec<EntryId>)>,
}

/// What only objects with children need.
#[derive(Debug)]
pub(crate) struct Container {
    /// Full name, so that a child's name is two pieces.
    pub(crate) dn: Arc<str>,
    pub(crate) children: Vec<EntryId>,
}

/// Head of a naming context.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) id: EntryId,
    /// Comparison keys of the relative names, leaf first.
    pub(crate) keys: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) schema: Arc<Schema>,
    pub(crate) folding: Folding,
    nodes: Vec<Option<Node>>,
    live: usize,
    by_name: HashMap<u64, IdSet, BuildHasherDefault<KeyHasher>>,
    pub(crate) roots: Vec<Root>,
    pub(crate) indexes: Indexes,
    pub(crate) log: Log,
    pub(crate) stamps: Stamps,
    pub(crate) passwords: HashMap<EntryId, super::account::StoredPassword>,
    /// Deleted objects in order of deletion, for the garbage collection.
    pub(crate) tombstones: std::collections::VecDeque<(i64, EntryId)>,
}

/// Result of looking a name up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lookup {
    Found(EntryId),
    /// Inside a naming context; the deepest object that exists.
    Missing {
        best: EntryId,
    },
    /// In no naming context of this server.
    Foreign,
}

impl Tree {
    pub(crate) fn new(schema: Arc<Schema>, folding: Folding, base_usn: u64) -> Self {
        Self {
            schema,
            folding,
            nodes: Vec::new(),
            live: 0,
            by_name: HashMap::default(),
            roots: Vec::new(),
            indexes: Indexes::default(),
            log: Log::new(base_usn),
            stamps: Stamps::default(),
            passwords: HashMap::new(),
            tombstones: std::collections::VecDeque::new(),
        }
    }

    pub(crate) fn reserve(&mut self, entries: usize) {
        self.nodes.reserve_exact(entries);
        self.by_name.reserve(entries);
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn node(&self, id: EntryId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)?.as_ref()
    }

    pub(crate) fn node_mut(&mut self, id: EntryId) -> Option<&mut Node> {
        self.nodes.get_mut(id.0 as usize)?.as_mut()
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (EntryId, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(at, node)| Some((EntryId(at as u32), node.as_ref()?)))
    }

    /// First number no object has.
    pub(crate) fn next_id(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// Puts a new object in place. The parent must exist.
    pub(crate) fn insert(&mut self, id: EntryId, node: Node) {
        let at = id.0 as usize;
        if self.nodes.len() <= at {
            self.nodes.resize_with(at + 1, || None);
        }
        self.hook(id, &node.entry);
        self.indexes.add(&self.schema, self.folding, id, &node.entry);
        self.nodes[at] = Some(node);
        self.live += 1;
    }

    /// Replaces an object's state; moves and renames are noticed here.
    pub(crate) fn replace(&mut self, id: EntryId, entry: Arc<Entry>) {
        let Some(old) = self.node(id).map(|node| node.entry.clone()) else { return };
        let moved = old.parent != entry.parent || old.rdn != entry.rdn;
        if moved {
            self.unhook(id, &old);
            self.hook(id, &entry);
        }
        self.indexes.update(&self.schema, self.folding, id, &old, &entry);
        if let Some(node) = self.node_mut(id) {
            node.entry = entry;
        }
        if moved {
            self.refresh_names(id);
        }
    }

    /// Takes an object away with all its links. Children must be gone.
    pub(crate) fn remove(&mut self, id: EntryId) {
        self.drop_links(id);
        let Some(node) = self.nodes.get_mut(id.0 as usize).and_then(Option::take) else { return };
        self.unhook(id, &node.entry);
        self.indexes.remove(&self.schema, self.folding, id, &node.entry);
        self.live -= 1;
    }

    pub(crate) fn children(&self, id: EntryId) -> &[EntryId] {
        self.node(id).and_then(|node| node.container.as_deref()).map_or(&[], |container| &container.children)
    }

    /// Full name as shown.
    pub(crate) fn dn(&self, id: EntryId) -> String {
        let mut out = String::with_capacity(80);
        self.dn_into(id, &mut out);
        out
    }

    pub(crate) fn dn_into(&self, id: EntryId, out: &mut String) {
        let Some(node) = self.node(id) else { return };
        out.push_str(&node.entry.rdn);
        if let Some(container) = node.entry.parent.and_then(|parent| self.node(parent)?.container.as_deref())
        {
            // Below Domino's nameless root there is nothing to add.
            if !container.dn.is_empty() {
                out.push(',');
                out.push_str(&container.dn);
            }
        }
    }

    pub(crate) fn parent(&self, id: EntryId) -> Option<EntryId> {
        self.node(id)?.entry.parent
    }

    /// Number of levels below the head of the naming context.
    pub(crate) fn depth(&self, id: EntryId) -> usize {
        std::iter::successors(self.parent(id), |&up| self.parent(up))
            .take(super::limits::TREE_DEPTH_MAX)
            .count()
    }

    /// Whether `id` is `base` or lies below it. Ends at the head of the naming context.
    pub(crate) fn within(&self, id: EntryId, base: EntryId) -> bool {
        std::iter::successors(Some(id), |&up| self.parent(up))
            .take(super::limits::TREE_DEPTH_MAX)
            .any(|up| up == base)
    }

    /// Head of the naming context an object lies in.
    pub(crate) fn root_of(&self, id: EntryId) -> EntryId {
        std::iter::successors(Some(id), |&up| self.parent(up))
            .take(super::limits::TREE_DEPTH_MAX)
            .last()
            .unwrap_or(id)
    }

    pub(crate) fn lookup(&self, dn: &Dn) -> Lookup {
        let keys: Vec<Vec<u8>> = dn.rdns.iter().map(|rdn| rdn.key(self.folding)).collect();
        let root =
            self.roots.iter().filter(|root| keys.ends_with(&root.keys)).max_by_key(|root| root.keys.len());
        let Some(root) = root else { return Lookup::Foreign };
        let mut at = root.id;
        for key in keys[..keys.len() - root.keys.len()].iter().rev() {
            match self.child_by_key(at, key) {
                Some(child) => at = child,
                None => return Lookup::Missing { best: at },
            }
        }
        Lookup::Found(at)
    }

    /// The object a name means, when there is one.
    pub(crate) fn find(&self, dn: &[u8]) -> Option<EntryId> {
        match self.lookup(&Dn::parse(dn).ok()?) {
            Lookup::Found(id) => Some(id),
            _ => None,
        }
    }

    pub(crate) fn child_by_key(&self, parent: EntryId, key: &[u8]) -> Option<EntryId> {
        let ids = self.by_name.get(&name_hash(parent, key))?;
        // Equal hashes are not equal names: the candidate's own name decides.
        ids.iter().find(|&id| {
            self.node(id).is_some_and(|node| {
                node.entry.parent == Some(parent)
                    && rdn_key(&node.entry.rdn, self.folding).as_deref() == Some(key)
            })
        })
    }

    /// Another object of the same name below the same parent: there only between a change that arrived and its settlement.
    pub(crate) fn namesake(&self, id: EntryId) -> Option<EntryId> {
        let entry = &self.node(id)?.entry;
        let (parent, key) = (entry.parent?, rdn_key(&entry.rdn, self.folding)?);
        let has_name = |other: &EntryId| {
            self.node(*other).is_some_and(|node| {
                node.entry.parent == Some(parent)
                    && rdn_key(&node.entry.rdn, self.folding).as_deref() == Some(key.as_slice())
            })
        };
        self.by_name.get(&name_hash(parent, &key))?.iter().filter(|&other| other != id).find(has_name)
    }

    pub(crate) fn forward(&self, id: EntryId, attribute: AttrId) -> &[EntryId] {
        self.node(id)
            .and_then(|node| node.links.as_deref())
            .map_or(&[], |links| pick(&links.forward, attribute))
    }

    pub(crate) fn back(&self, id: EntryId, attribute: AttrId) -> &[EntryId] {
        self.node(id).and_then(|node| node.links.as_deref()).map_or(&[], |links| pick(&links.back, attribute))
    }

    /// Adds a link; false when it was there, or when there is nothing to link to.
    pub(crate) fn link(&mut self, from: EntryId, attribute: AttrId, to: EntryId) -> bool {
        let alive = self.node(to).is_some_and(|node| !node.entry.deleted);
        if !alive || self.forward(from, attribute).contains(&to) {
            return false;
        }
        self.link_new(from, attribute, to);
        true
    }

    /// Adds a link that is known to be new, as when the company is built.
    pub(crate) fn link_new(&mut self, from: EntryId, attribute: AttrId, to: EntryId) {
        if let Some(node) = self.node_mut(from) {
            push(&mut node.links.get_or_insert_default().forward, attribute, to);
        }
        if let Some(node) = self.node_mut(to) {
            push(&mut node.links.get_or_insert_default().back, attribute, from);
        }
    }

    /// Takes a link away; false when there was none.
    pub(crate) fn unlink(&mut self, from: EntryId, attribute: AttrId, to: EntryId) -> bool {
        let Some(links) = self.node_mut(from).and_then(|node| node.links.as_deref_mut()) else {
            return false;
        };
        if !take(&mut links.forward, attribute, to) {
            return false;
        }
        if let Some(links) = self.node_mut(to).and_then(|node| node.links.as_deref_mut()) {
            take(&mut links.back, attribute, from);
        }
        true
    }

    /// Takes all links from and to an object away.
    pub(crate) fn drop_links(&mut self, id: EntryId) {
        let Some(links) = self.node_mut(id).and_then(|node| node.links.take()) else { return };
        for (attribute, targets) in links.forward {
            for target in targets.into_iter().filter(|&target| target != id) {
                if let Some(links) = self.node_mut(target).and_then(|node| node.links.as_deref_mut()) {
                    take(&mut links.back, attribute, id);
                }
            }
        }
        for (attribute, sources) in links.back {
            for source in sources.into_iter().filter(|&source| source != id) {
                if let Some(links) = self.node_mut(source).and_then(|node| node.links.as_deref_mut()) {
                    take(&mut links.forward, attribute, id);
                }
            }
        }
    }

    /// Everything reachable over a link, in either direction, without the start unless a cycle leads back to it.
    pub(crate) fn closure(&self, start: EntryId, attributes: &[AttrId], backwards: bool) -> Vec<EntryId> {
        let mut seen = std::collections::HashSet::new();
        let mut found = Vec::new();
        let mut queue = vec![start];
        while let Some(at) = queue.pop() {
            for &attribute in attributes {
                let next = if backwards { self.back(at, attribute) } else { self.forward(at, attribute) };
                for &id in next {
                    if seen.insert(id) {
                        found.push(id);
                        queue.push(id);
                    }
                }
            }
        }
        found
    }

    fn hook(&mut self, id: EntryId, entry: &Entry) {
        match entry.parent {
            None => {
                let keys = Dn::parse(entry.rdn.as_bytes()).unwrap_or_default().rdns;
                let keys = keys.iter().map(|rdn| rdn.key(self.folding)).collect();
                self.roots.push(Root { id, keys });
            }
            Some(parent) => {
                if self.node(parent).is_some_and(|node| node.container.is_none()) {
                    let dn = self.dn(parent).into();
                    if let Some(node) = self.node_mut(parent) {
                        node.container = Some(Box::new(Container { dn, children: Vec::new() }));
                    }
                }
                if let Some(container) = self.node_mut(parent).and_then(|node| node.container.as_deref_mut())
                {
                    container.children.push(id);
                }
                if let Some(key) = rdn_key(&entry.rdn, self.folding) {
                    self.by_name.entry(name_hash(parent, &key)).or_default().insert(id);
                }
            }
        }
    }

    fn unhook(&mut self, id: EntryId, entry: &Entry) {
        let Some(parent) = entry.parent else {
            self.roots.retain(|root| root.id != id);
            return;
        };
        if let Some(container) = self.node_mut(parent).and_then(|node| node.container.as_deref_mut()) {
            // The newest children are the likeliest to go.
            if let Some(at) = container.children.iter().rposition(|&child| child == id) {
                container.children.remove(at);
            }
        }
        if let Some(key) = rdn_key(&entry.rdn, self.folding) {
            let hash = name_hash(parent, &key);
            if self.by_name.get_mut(&hash).is_some_and(|ids| ids.remove(id)) {
                self.by_name.remove(&hash);
            }
        }
    }

    /// Renews the full names kept in this object and the containers below it.
    fn refresh_names(&mut self, id: EntryId) {
        let mut queue = vec![id];
        while let Some(at) = queue.pop() {
            let dn: Arc<str> = self.dn(at).into();
            if let Some(container) = self.node_mut(at).and_then(|node| node.container.as_deref_mut()) {
                container.dn = dn;
                queue.extend_from_slice(&container.children);
            }
        }
    }
}

fn pick(links: &[(AttrId, Vec<EntryId>)], attribute: AttrId) -> &[EntryId] {
    links.iter().find(|(id, _)| *id == attribute).map_or(&[], |(_, ids)| ids.as_slice())
}

fn push(links: &mut Vec<(AttrId, Vec<EntryId>)>, attribute: AttrId, to: EntryId) {
    match links.iter_mut().find(|(id, _)| *id == attribute) {
        Some((_, ids)) => ids.push(to),
        None => {
            links.reserve_exact(1);
            links.push((attribute, vec![to]));
        }
    }
}

fn take(links: &mut Vec<(AttrId, Vec<EntryId>)>, attribute: AttrId, to: EntryId) -> bool {
    let Some(slot) = links.iter().position(|(id, _)| *id == attribute) else { return false };
    let Some(at) = links[slot].1.iter().rposition(|&id| id == to) else { return false };
    links[slot].1.remove(at);
    if links[slot].1.is_empty() {
        links.remove(slot);
    }
    true
}

pub(crate) fn rdn_key(rdn: &str, folding: Folding) -> Option<Vec<u8>> {
    Rdn::parse(rdn.as_bytes()).ok().map(|rdn| rdn.key(folding))
}

fn name_hash(parent: EntryId, key: &[u8]) -> u64 {
    hash_bytes(u64::from(parent.0).wrapping_mul(0x9e37_79b9_7f4a_7c15), key)
}

/// A quick 64-bit hash. Candidates are always verified, so a collision costs time and nothing else.
pub(crate) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93_a5a3_564e_27f8_8655);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut state = mix(seed ^ 0x243f_6a88_85a3_08d3, bytes.len() as u64);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        state = mix(state, u64::from_le_bytes(chunk.try_into().expect("chunks of eight")));
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(state, u64::from_le_bytes(last))
}

/// The keys are hashes already.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_bytes(self.0, bytes);
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
