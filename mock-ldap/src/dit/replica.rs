//! One server's copy behind its lock, and the plain reading operations on it.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use bytes::BytesMut;
use tokio::sync::watch;

use super::account::Logons;
use super::condition::Condition;
use super::index::Indexes;
use super::limits;
use super::matching;
use super::reader::Reader;
use super::replication::Inbound;
use super::schema::{AttrId, Syntax};
use super::shared::Shared;
use super::tree::Tree;
use super::types::{EntryId, Identity, LdapFailure, ResultCode, Selection, View};
use crate::dn::Name;

/// One server's copy of the directory. Locks are held only inside a call.
pub struct Replica {
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) tree: RwLock<Tree>,
    pub(crate) logons: Mutex<Logons>,
    /// Number under which this server's own changes are stamped; a restore gives a new one.
    pub(crate) origin: AtomicU16,
    pub(crate) synchronized: AtomicBool,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) peers: OnceLock<Vec<Weak<Replica>>>,
    pub(crate) inbound: Mutex<Inbound>,
    /// Last own USN that carries a change made here: peers compare it before they look at the log.
    pub(crate) last_own_usn: AtomicU64,
    pub(crate) session_log: AtomicUsize,
}

impl Replica {
    pub(crate) fn new(
        name: String,
        index: usize,
        shared: Arc<Shared>,
        tree: Tree,
        lag_ms: Option<u64>,
    ) -> Self {
        let last = tree.log.last_usn();
        Self {
            name,
            index,
            shared,
            tree: RwLock::new(tree),
            logons: Mutex::default(),
            origin: AtomicU16::new(index as u16),
            synchronized: AtomicBool::new(true),
            changed: watch::Sender::new(last),
            peers: OnceLock::new(),
            inbound: Mutex::new(Inbound::new(lag_ms)),
            last_own_usn: AtomicU64::new(last),
            session_log: AtomicUsize::new(limits::SESSION_LOG_RECORDS_MAX),
        }
    }

    /// Short host name, such as `dc1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fully qualified host name, such as `dc1.acme.example`.
    pub fn host_name(&self) -> String {
        self.shared.host_name(self.index)
    }

    /// Objects on this server, deleted ones included.
    pub fn entry_count(&self) -> usize {
        self.read(|reader| reader.tree.len())
    }

    /// Appends LDAPDN and PartialAttributeList: the content of SearchResultEntry, without its tag and length. False
    /// when the entry is gone; nothing is written then.
    pub fn encode_entry(&self, id: EntryId, selection: &Selection, out: &mut BytesMut) -> bool {
        if super::changelog::is_virtual(id) {
            return self.encode_changelog(id, selection, out);
        }
        self.read_as(selection, |reader| match reader.tree.node(id) {
            Some(node) => {
                reader.encode(id, node, selection, out);
                true
            }
            None => false,
        })
    }

    /// An error the selection causes: a transitive attribute over many objects, a range behind the end.
    pub fn check_selection(&self, id: EntryId, selection: &Selection) -> Result<(), LdapFailure> {
        self.read_as(selection, |reader| reader.check_selection(id, selection))
    }

    pub fn dn_of(&self, id: EntryId) -> Option<String> {
        self.read(|reader| reader.tree.node(id).map(|_| reader.tree.dn(id)))
    }

    /// Identifier that survives renames: objectGUID, entryUUID, nsUniqueId, as bytes.
    pub fn uuid_of(&self, id: EntryId) -> Option<[u8; 16]> {
        self.read(|reader| reader.tree.node(id).map(|node| node.entry.uuid))
    }

    /// The object a base or object name means.
    pub fn find(&self, dn: &[u8]) -> Option<EntryId> {
        let name = Name::parse(dn).ok()?;
        self.index_for(&name);
        self.read(|reader| reader.resolve(&name))
    }

    /// Values of one attribute, as a client would see them.
    pub fn values(&self, id: EntryId, attribute: &str) -> Vec<Vec<u8>> {
        let Some(attribute) = self.shared.schema.find(attribute) else { return Vec::new() };
        self.read(|reader| {
            let mut values = Vec::new();
            if let Some(node) = reader.tree.node(id) {
                reader.each_value(id, node, attribute, &mut |value| values.push(value.to_vec()));
            }
            values
        })
    }

    /// The key by which an object sorts on an attribute: its smallest value, folded, numbers by value. `None` when it
    /// has no value; those sort last (RFC 2891 2.2).
    pub fn sort_key(&self, id: EntryId, attribute: &str) -> Option<Vec<u8>> {
        let attribute = self.shared.schema.find(attribute)?;
        let syntax = self.shared.schema.attribute(attribute).syntax;
        self.read(|reader| {
            let node = reader.tree.node(id)?;
            let mut least: Option<Vec<u8>> = None;
            reader.each_value(id, node, attribute, &mut |value| {
                let key = match syntax {
                    // Bias, so that negative numbers sort before positive ones as bytes.
                    Syntax::Integer => {
                        let number = matching::parse_integer(value).unwrap_or_default();
                        ((number as u64) ^ (1 << 63)).to_be_bytes().to_vec()
                    }
                    _ => matching::normalize(syntax, reader.tree.folding, value).into_owned(),
                };
                if least.as_ref().is_none_or(|best| key < *best) {
                    least = Some(key);
                }
            });
            least
        })
    }

    /// RFC 4511 4.10.
    pub fn compare(
        &self,
        dn: &[u8],
        attribute: &str,
        value: &[u8],
        who: &Identity,
    ) -> Result<bool, LdapFailure> {
        self.catch_up();
        let name = self.parse_name(dn)?;
        self.index_for(&name);
        self.read(|reader| {
            self.require_reader(who)?;
            let id = reader.resolve(&name).ok_or_else(|| self.no_such_object(reader, &name))?;
            let node = reader.tree.node(id).ok_or_else(|| self.no_such_object(reader, &name))?;
            let known = &self.shared.known;
            let definition = self.shared.schema.find(attribute).ok_or_else(|| {
                let code = self.shared.personality.unknown_attribute_code();
                LdapFailure::new(code, self.shared.text("unknown_attribute", &[("attribute", attribute)]))
            })?;
            if [known.user_password, known.unicode_pwd].contains(&Some(definition)) {
                let stored = reader.tree.passwords.get(&id).map(|stored| stored.secret.as_slice());
                let stored = stored.or_else(|| self.shared.passwords.of(id).map(str::as_bytes));
                return Ok(stored.is_some_and(|stored| super::account::verify(stored, value)));
            }
            let filter = crate::filter::Filter::Equality {
                attr: attribute.to_ascii_lowercase(),
                value: value.to_vec(),
            };
            let verdict = Condition::compile(&filter, reader).holds(reader, id, node);
            match verdict {
                Some(true) => Ok(true),
                _ if reader.first_value(id, node, definition).is_none() => Err(LdapFailure::new(
                    ResultCode::NO_SUCH_ATTRIBUTE,
                    self.shared.text("no_value", &[("attribute", attribute)]),
                )),
                _ => Ok(false),
            }
        })
    }

    /// Wakes with the number of the last change after each change this server sees.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn invocation_id(&self) -> [u8; 16] {
        let origin = usize::from(self.origin.load(Ordering::Relaxed));
        self.shared.origins().get(origin).map_or([0; 16], |origin| origin.invocation)
    }

    /// Number of the last change: highestCommittedUSN.
    pub fn highest_usn(&self) -> u64 {
        self.read(|reader| reader.tree.log.last_usn())
    }

    /// What the rootDSE says in isSynchronized; a test may make a stale server honest.
    pub fn set_synchronized(&self, synchronized: bool) {
        self.synchronized.store(synchronized, Ordering::Relaxed);
    }

    pub(crate) fn read<T>(&self, work: impl FnOnce(&Reader<'_>) -> T) -> T {
        self.read_with(View::Domain, work)
    }

    pub(crate) fn read_with<T>(&self, view: View, work: impl FnOnce(&Reader<'_>) -> T) -> T {
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        let shared = &self.shared;
        work(&Reader {
            tree: &tree,
            shared,
            logons: &self.logons,
            view,
            base_scope: false,
            extended_dn: None,
        })
    }

    fn read_as<T>(&self, selection: &Selection, work: impl FnOnce(&Reader<'_>) -> T) -> T {
        self.read_with(selection.view, |reader| {
            let reader =
                Reader { base_scope: selection.base_scope, extended_dn: selection.extended_dn, ..*reader };
            work(&reader)
        })
    }

    /// Builds the equality index of an attribute unless it is there. Costs one walk over all objects, once.
    pub(crate) fn ensure_index(&self, attribute: AttrId) {
        if !Indexes::can_index(&self.shared.schema, attribute)
            || self.read(|reader| reader.tree.indexes.has(attribute))
        {
            return;
        }
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let entries = tree.nodes().map(|(id, node)| (id, &*node.entry));
        let built = Indexes::build(&tree.schema, tree.folding, attribute, entries);
        tree.indexes.install(built);
    }

    /// Prepares what resolving a name by identifier needs.
    pub(crate) fn index_for(&self, name: &Name) {
        let known = &self.shared.known;
        let attribute = match name {
            Name::Guid(_) => known.object_guid,
            Name::Sid(_) => known.object_sid,
            _ => None,
        };
        attribute.iter().for_each(|&attribute| self.ensure_index(attribute));
    }

    pub(crate) fn parse_name(&self, dn: &[u8]) -> Result<Name, LdapFailure> {
        Name::parse(dn).map_err(|_| {
            let shown = String::from_utf8_lossy(dn);
            LdapFailure::new(ResultCode::INVALID_DN_SYNTAX, self.shared.text("bad_dn", &[("dn", &shown)]))
        })
    }

    /// noSuchObject with the best match, or a referral for a name in nobody's naming context here.
    pub(crate) fn no_such_object(&self, reader: &Reader<'_>, name: &Name) -> LdapFailure {
        use super::tree::Lookup;
        let missing = |best: &str| {
            let text = self.shared.text("no_such_object", &[("best", best)]);
            LdapFailure::new(ResultCode::NO_SUCH_OBJECT, text).matched(best)
        };
        let Name::Path(dn) = name else { return missing("") };
        match reader.tree.lookup(dn) {
            Lookup::Found(id) | Lookup::Missing { best: id } => missing(&reader.tree.dn(id)),
            Lookup::Foreign if self.shared.personality.is_active_directory() && !dn.is_root() => {
                let labels = dn
                    .rdns
                    .iter()
                    .flat_map(|rdn| &rdn.parts)
                    .filter(|part| part.attribute.eq_ignore_ascii_case("dc"));
                let host = labels
                    .map(|part| String::from_utf8_lossy(&part.value).into_owned())
                    .collect::<Vec<_>>()
                    .join(".");
                if host.is_empty() {
                    return missing("");
                }
                let mut failure =
                    LdapFailure::new(ResultCode::REFERRAL, self.shared.text("referral", &[("host", &host)]));
                failure.referrals.push(format!("ldap://{host}/{dn}"));
                failure
            }
            Lookup::Foreign => missing(""),
        }
    }
}
