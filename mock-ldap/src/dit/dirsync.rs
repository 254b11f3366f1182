//! DirSync (MS-ADTS 3.1.1.3.4.1.3): the objects of a naming context, then what changed in them, attribute by
//! attribute. A delta is read from the log, so its cost follows the changes and not the directory.

use std::collections::{BTreeSet, HashMap};

use bytes::{Bytes, BytesMut};

use super::condition::Condition;
use super::cookie::Cookie;
use super::encode::EMPTY_SET;
use super::limits;
use super::log::{Record, Vector};
use super::reader::Reader;
use super::replica::Replica;
use super::schema::{AttrId, Computed, Schema, Source};
use super::search::base_of;
use super::shared::Known;
use super::tlv;
use super::tree::Node;
use super::types::{
    ChangeKind, DirSyncPage, DirSyncRequest, EntryId, LdapFailure, ResultCode, Scope, Selection, View,
};

const OBJECT_SECURITY: i64 = 0x1;
const ANCESTORS_FIRST: i64 = 0x800;
/// INTEGER -2147483648 on the wire.
const INCREMENTAL_VALUES: i64 = 0x8000_0000;

/// What changed in one object since a cursor.
#[derive(Default)]
struct Delta {
    /// Everything is new to the client.
    whole: bool,
    attributes: BTreeSet<AttrId>,
    links: BTreeSet<(AttrId, EntryId)>,
}

/// Which attributes a client asked for.
struct Wanted {
    all: bool,
    names: BTreeSet<AttrId>,
}

/// One page while it is gathered.
struct Page<'a> {
    reader: Reader<'a>,
    condition: Condition,
    wanted: Wanted,
    root: EntryId,
    flags: i64,
    tombstones: bool,
    bytes_max: usize,
    bytes: usize,
    /// (depth, body)
    entries: Vec<(usize, Bytes)>,
}

impl Replica {
    /// One page of changes after a cookie; an empty cookie starts with everything.
    pub fn dirsync(&self, request: &DirSyncRequest<'_>) -> Result<DirSyncPage, LdapFailure> {
        self.catch_up();
        self.require_reader(request.who)?;
        let name = self.parse_name(request.base)?;
        self.index_for(&name);
        let invocation = self.invocation_id();
        self.read_with(View::Domain, |reader| {
            let reader = Reader { extended_dn: request.selection.extended_dn, ..*reader };
            self.dirsync_page(&reader, request, invocation)
        })
    }

    fn dirsync_page(
        &self,
        reader: &Reader<'_>,
        request: &DirSyncRequest<'_>,
        invocation: [u8; 16],
    ) -> Result<DirSyncPage, LdapFailure> {
        let root = base_of(self, reader, request.base)?;
        if reader.tree.parent(root).is_some() || request.scope != Scope::Subtree {
            return Err(LdapFailure::new(
                ResultCode::UNWILLING_TO_PERFORM,
                self.shared.text("dirsync_base", &[]),
            ));
        }
        let flags = i64::from(request.flags as u32);
        let rights = self.rights(reader, request.who);
        if flags & OBJECT_SECURITY == 0 && !rights.replicate {
            return Err(self.no_access(&reader.tree.dn(root)));
        }
        let cookie = self.usable_cookie(reader, root, request.cookie)?;
        let mut page = Page {
            reader: *reader,
            condition: Condition::compile(request.filter, reader),
            wanted: Wanted::of(request.selection, &self.shared.schema),
            root,
            flags,
            tombstones: rights.replicate || rights.see_deleted,
            bytes_max: page_bytes(request.bytes_max),
            bytes: 0,
            entries: Vec::new(),
        };
        let (vector, position) = match cookie {
            Some(Cookie { position: Some(position), vector, .. }) => {
                page.enumerate(position, self.vector_of(&vector))
            }
            Some(Cookie { vector, .. }) => match page.changes(&self.vector_of(&vector)) {
                Some(advanced) => (advanced, None),
                None => page.enumerate(0, reader.tree.log.vector()),
            },
            None => page.enumerate(0, reader.tree.log.vector()),
        };
        let more = position.is_some() || vector != reader.tree.log.vector() && page.is_cut(&vector);
        if flags & ANCESTORS_FIRST != 0 {
            page.entries.sort_by_key(|(depth, _)| *depth);
        }
        let context = reader.tree.node(root).map_or([0; 16], |node| node.entry.uuid);
        let next = Cookie {
            context,
            issued_ms: self.shared.clock.now_ms(),
            issuer: invocation,
            position,
            vector: self.portable(&vector),
        };
        Ok(DirSyncPage {
            entries: page.entries.into_iter().map(|(_, body)| body).collect(),
            more,
            cookie: next.encode(),
        })
    }

    /// A cookie to go on from; `None` starts over: no cookie, one of another context, one of a server since restored,
    /// or one so old that tombstones may be gone.
    fn usable_cookie(
        &self,
        reader: &Reader<'_>,
        root: EntryId,
        bytes: &[u8],
    ) -> Result<Option<Cookie>, LdapFailure> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let refused = || {
            let text = self.shared.text("dirsync_cookie", &[]);
            LdapFailure::new(ResultCode::UNAVAILABLE_CRITICAL_EXTENSION, text)
        };
        let cookie = Cookie::decode(bytes).ok_or_else(refused)?;
        let same_context = reader.tree.node(root).is_some_and(|node| node.entry.uuid == cookie.context);
        let origins = self.shared.origins();
        let issuer = origins.iter().find(|origin| origin.invocation == cookie.issuer);
        let fresh = self.shared.clock.now_ms() - cookie.issued_ms < self.tombstone_lifetime_ms(reader);
        let usable = same_context && fresh && issuer.is_some_and(|origin| !origin.retired);
        // An unfinished enumeration goes on only where its positions mean something.
        let ours = cookie.position.is_none() || issuer.is_some_and(|origin| origin.server == self.index);
        Ok((usable && ours).then_some(cookie))
    }

    fn vector_of(&self, portable: &[([u8; 16], u64)]) -> Vector {
        let origins = self.shared.origins();
        let number =
            |invocation: &[u8; 16]| origins.iter().position(|origin| origin.invocation == *invocation);
        portable.iter().filter_map(|(invocation, usn)| Some((number(invocation)? as u16, *usn))).collect()
    }

    fn portable(&self, vector: &Vector) -> Vec<([u8; 16], u64)> {
        let origins = self.shared.origins();
        let mut rows: Vec<([u8; 16], u64)> = vector
            .iter()
            .filter_map(|(&origin, &usn)| Some((origins.get(usize::from(origin))?.invocation, usn)))
            .collect();
        rows.sort_unstable();
        rows
    }
}

fn page_bytes(hint: usize) -> usize {
    match hint {
        0 => limits::DIRSYNC_PAGE_BYTES_MAX,
        hint => hint.clamp(limits::DIRSYNC_PAGE_BYTES_MIN, limits::DIRSYNC_PAGE_BYTES_MAX),
    }
}

impl Wanted {
    fn of(selection: &Selection, schema: &Schema) -> Self {
        let names = &selection.attributes;
        let all = names.is_empty() || names.iter().any(|name| name == "*");
        let bare = |name: &String| schema.find(name.split(';').next().unwrap_or_default());
        Self { all, names: names.iter().filter_map(bare).collect() }
    }

    fn has(&self, id: AttrId) -> bool {
        self.all || self.names.contains(&id)
    }
}

/// Attributes that travel between servers; only these are reported. The naming attribute is not among them: its value
/// is in `name`.
fn is_replicated(schema: &Schema, node: &Node, id: AttrId) -> bool {
    let attribute = schema.attribute(id);
    let naming = node.entry.rdn.split_once('=').and_then(|(kind, _)| schema.find(kind)) == Some(id);
    let kept = match &attribute.source {
        Source::Stored | Source::Link => true,
        Source::BackLink(_) => false,
        Source::Computed(what) => matches!(
            what,
            Computed::ObjectClass
                | Computed::ObjectCategory
                | Computed::RdnValue
                | Computed::Guid
                | Computed::WhenCreated
                | Computed::SamAccountType
                | Computed::IsDeleted
                | Computed::SecurityDescriptor
        ),
    };
    // createTimeStamp is whenCreated under another name, constructed and therefore not replicated.
    let constructed_time = attribute.operational && attribute.syntax == super::schema::Syntax::Time;
    kept && !attribute.local && !naming && !constructed_time
}

impl Page<'_> {
    /// Objects from a position on, whole. Returns the cursor's vector and the position to go on from.
    fn enumerate(&mut self, from: u32, vector: Vector) -> (Vector, Option<u32>) {
        for number in from..self.reader.tree.next_id() {
            if self.is_full() {
                return (vector, Some(number));
            }
            let whole = Delta { whole: true, ..Delta::default() };
            self.take(EntryId(number), &whole);
        }
        (vector, None)
    }

    /// Changed objects after a vector. Returns the vector that covers what was looked at; `None` when the log does not
    /// reach back.
    fn changes(&mut self, covered: &Vector) -> Option<Vector> {
        let log = &self.reader.tree.log;
        let mut order = Vec::new();
        let mut deltas: HashMap<EntryId, Delta> = HashMap::new();
        let mut vector = covered.clone();
        let objects_max = limits::DIRSYNC_PAGE_OBJECTS_MAX.min((self.bytes_max / 256).max(1));
        let mut cut = false;
        for record in log.uncovered(covered)? {
            if order.len() >= objects_max && !deltas.contains_key(&record.id) {
                cut = true;
                break;
            }
            let seen = vector.entry(record.csn.origin).or_default();
            *seen = (*seen).max(record.origin_usn);
            let delta = deltas.entry(record.id).or_insert_with(|| {
                order.push(record.id);
                Delta::default()
            });
            delta.note(record, &self.reader.shared.known);
        }
        for id in order {
            let delta = deltas.remove(&id).unwrap_or_default();
            self.take(id, &delta);
        }
        Some(if cut { vector } else { log.vector() })
    }

    /// The vector leaves changes uncovered.
    fn is_cut(&self, vector: &Vector) -> bool {
        self.reader.tree.log.uncovered(vector).is_none_or(|mut rest| rest.next().is_some())
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= limits::DIRSYNC_PAGE_OBJECTS_MAX || self.bytes >= self.bytes_max
    }

    /// Adds an object when it is in the context, matches, and has something to tell.
    fn take(&mut self, id: EntryId, delta: &Delta) {
        let tree = self.reader.tree;
        let Some(node) = tree.node(id) else { return };
        let hidden = node.entry.deleted && !self.tombstones;
        if hidden
            || tree.root_of(id) != self.root
            || self.condition.holds(&self.reader, id, node) != Some(true)
        {
            return;
        }
        let mut out = BytesMut::with_capacity(512);
        if self.body(id, node, delta, &mut out) {
            self.bytes += out.len();
            self.entries.push((tree.depth(id), out.freeze()));
        }
    }

    /// Writes the entry; false when none of the attributes asked for has something to tell.
    fn body(&self, id: EntryId, node: &Node, delta: &Delta, out: &mut BytesMut) -> bool {
        let (schema, known) = (&self.reader.tree.schema, &self.reader.shared.known);
        let mut name = String::new();
        self.reader.name_into(id, &mut name);
        tlv::put_octets(out, name.as_bytes());
        let list = tlv::open_sequence(out);
        let before = out.len();
        for (attribute, definition) in schema.attributes() {
            let always = [known.object_guid, known.instance_type].contains(&Some(attribute));
            if always || !self.wanted.has(attribute) || !is_replicated(schema, node, attribute) {
                continue;
            }
            let changed = delta.whole || delta.attributes.contains(&attribute);
            let linked = definition.is_link() && delta.links.iter().any(|(it, _)| *it == attribute);
            if changed || linked {
                self.attribute(id, node, attribute, delta, out);
            }
        }
        let tells = out.len() > before || node.entry.deleted;
        let named = known
            .name
            .is_some_and(|it| self.wanted.has(it) && (delta.whole || delta.attributes.contains(&it)));
        let parent = known.parent_guid.filter(|_| named);
        let deleted = known.is_deleted.filter(|&it| node.entry.deleted && !self.wanted.has(it));
        for attribute in [known.object_guid, known.instance_type, parent, deleted].into_iter().flatten() {
            self.plain(id, node, attribute, false, out);
        }
        tlv::close_sequence(out, list);
        tells
    }

    fn attribute(&self, id: EntryId, node: &Node, attribute: AttrId, delta: &Delta, out: &mut BytesMut) {
        let definition = self.reader.tree.schema.attribute(attribute);
        if !definition.is_link() || self.flags & INCREMENTAL_VALUES == 0 {
            // Set and cleared since: a client that saw it in between, on another server, must hear of the end.
            let touched = delta.attributes.contains(&attribute)
                || delta.links.iter().any(|(changed, _)| *changed == attribute);
            return self.plain(id, node, attribute, !delta.whole || touched, out);
        }
        let now = self.reader.tree.forward(id, attribute);
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        let present: std::collections::HashSet<EntryId> = now.iter().copied().collect();
        let changed = delta.links.iter().filter(|(it, _)| *it == attribute).map(|(_, target)| *target);
        // Of a new object everything, and what it had in between: see above.
        if delta.whole {
            added.extend_from_slice(now);
            removed.extend(changed.filter(|target| !present.contains(target)));
        } else {
            for target in changed {
                if present.contains(&target) { added.push(target) } else { removed.push(target) }
            }
        }
        for (range, targets) in [("1-1", added), ("0-0", removed)] {
            let mut values = Vec::new();
            for target in targets {
                let mut name = String::new();
                self.reader.name_into(target, &mut name);
                if !name.is_empty() {
                    values.push(name);
                }
            }
            if !values.is_empty() {
                put(&format!("{};range={range}", definition.name()), &values, out);
            }
        }
    }

    /// All values; an attribute that lost its last one is reported without any when `empty_too`.
    fn plain(&self, id: EntryId, node: &Node, attribute: AttrId, empty_too: bool, out: &mut BytesMut) {
        let mut values = Vec::new();
        self.reader.each_value(id, node, attribute, &mut |value| values.push(value.to_vec()));
        let definition = self.reader.tree.schema.attribute(attribute);
        if !values.is_empty() {
            put(definition.name(), &values, out);
        } else if empty_too {
            tlv::put_attribute(out, &definition.name_tlv, EMPTY_SET);
        }
    }
}

impl Delta {
    fn note(&mut self, record: &Record, known: &Known) {
        self.whole |= record.kind == ChangeKind::Add;
        self.attributes.extend(record.attributes.iter().copied());
        self.links.extend(record.links.iter().map(|change| (change.attribute, change.target)));
        // Derived values follow what they are derived from.
        let has =
            |attributes: &BTreeSet<AttrId>, it: Option<AttrId>| it.is_some_and(|it| attributes.contains(&it));
        if has(&self.attributes, known.user_account_control) || has(&self.attributes, known.group_type) {
            self.attributes.extend(known.sam_account_type);
        }
        if has(&self.attributes, known.object_class) || record.kind == ChangeKind::Delete {
            self.attributes.extend(known.object_category);
        }
    }
}

fn put<V: AsRef<[u8]>>(name: &str, values: &[V], out: &mut BytesMut) {
    let (mut name_tlv, mut set) = (Vec::new(), Vec::new());
    tlv::put_octets(&mut name_tlv, name.as_bytes());
    tlv::put_set(&mut set, values);
    tlv::put_attribute(out, &name_tlv, &set);
}
