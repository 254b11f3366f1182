//! Building a directory from the generated company: the same people in every vendor's shape.

mod active_directory;
mod configuration;
mod plain;

use std::sync::Arc;

use causeway_mock_kit::world::Company;

use super::account::InitialPasswords;
use super::csn::Csn;
use super::entry::EntryWriter;
use super::matching::Folding;
use super::schema::{AttrId, ClassSet, Schema};
use super::shared::{Landmarks, Naming, uuid_from};
use super::tree::{Node, Tree};
use super::types::{DirectorySpec, EntryId, ServiceLogin};
use crate::personality::Vendor;

/// Passwords that have expired are this old, in days; others are younger than a month.
const OLD_PASSWORD_DAYS: i64 = 400;
const DAY_MS: i64 = 86_400_000;

/// Everything the first server and the common part are made of.
pub(super) struct Built {
    pub(super) tree: Tree,
    pub(super) naming: Naming,
    pub(super) landmarks: Landmarks,
    pub(super) passwords: InitialPasswords,
    pub(super) next_rid: u32,
    pub(super) service: ServiceLogin,
}

pub(super) fn build(
    spec: &DirectorySpec,
    company: &Company,
    schema: &Arc<Schema>,
    folding: Folding,
    now_ms: i64,
    invocations: &[[u8; 16]],
) -> Built {
    let mut tree = Tree::new(schema.clone(), folding, base_usn(0));
    tree.reserve(company.people.len() + company.groups.len() + company.ous.len() + 1_000);
    let mut builder = Builder {
        spec,
        company,
        schema: schema.clone(),
        tree,
        naming: Naming::default(),
        landmarks: Landmarks::default(),
        passwords: InitialPasswords::default(),
        now_ms,
        buffer: Vec::with_capacity(4096),
        made: 0,
        invocations,
    };
    match spec.personality.vendor {
        Vendor::ActiveDirectory => builder.active_directory(),
        _ => builder.plain(),
    }
    let login = &company.service_account.login;
    let dn = builder.landmarks.service.map(|id| builder.tree.dn(id)).unwrap_or_default();
    let windows = spec.personality.is_active_directory();
    let service = ServiceLogin {
        upn: company.upn(login),
        user: if windows { format!("{}\\{login}", company.netbios) } else { dn.clone() },
        password: company.service_account.password(),
        dn,
    };
    let rids =
        company.people.iter().map(|person| person.rid).chain(company.groups.iter().map(|group| group.rid));
    let next_rid = rids.chain([company.service_account.rid, 20_000]).max().unwrap_or(20_000) + 1;
    let Builder { tree, naming, landmarks, passwords, .. } = builder;
    Built { tree, naming, landmarks, passwords, next_rid, service }
}

/// USN before the first object of a server: each server counts on its own.
pub(super) fn base_usn(server: usize) -> u64 {
    12_288 + 8_192 * server as u64
}

struct Builder<'a> {
    spec: &'a DirectorySpec,
    company: &'a Company,
    schema: Arc<Schema>,
    tree: Tree,
    naming: Naming,
    landmarks: Landmarks,
    passwords: InitialPasswords,
    now_ms: i64,
    buffer: Vec<u8>,
    made: u64,
    /// Invocation of each server.
    invocations: &'a [[u8; 16]],
}

/// What every object has besides its attributes.
struct Shape<'a> {
    parent: Option<EntryId>,
    rdn: &'a str,
    classes: &'a Arc<ClassSet>,
    uuid: Option<[u8; 16]>,
    created_ms: i64,
}

impl Builder<'_> {
    fn attribute(&self, name: &str) -> AttrId {
        self.schema.known(name)
    }

    fn classes(&self, names: &[&str]) -> Arc<ClassSet> {
        let classes: Vec<usize> = names.iter().filter_map(|name| self.schema.find_class(name)).collect();
        self.schema.class_set(&classes).expect("the classes of the build are in the schema files")
    }

    fn put(&mut self, shape: &Shape<'_>, write: impl FnOnce(&mut EntryWriter<'_>)) -> EntryId {
        let id = EntryId(self.tree.next_id());
        let usn = self.tree.log.next_base_usn();
        self.made += 1;
        let uuid = shape.uuid.unwrap_or_else(|| uuid_from(self.spec.seed ^ 0x5eed, self.made));
        let mut writer = EntryWriter::new(&mut self.buffer);
        write(&mut writer);
        let entry = writer.finish(uuid, shape.parent, shape.rdn, shape.classes, shape.created_ms);
        let node = Node {
            entry: Arc::new(entry),
            usn_created: usn,
            usn_changed: usn,
            changed_ms: shape.created_ms,
            csn: Csn { at_ms: shape.created_ms, count: 0, origin: 0 },
            links: None,
            container: None,
        };
        self.tree.log.note_built(node.csn);
        self.tree.insert(id, node);
        id
    }

    /// When a person's password was set: expired ones long ago, the others within the last month.
    fn password_set_ms(&self, index: u32, expired: bool) -> i64 {
        let days = if expired { OLD_PASSWORD_DAYS } else { i64::from(index % 28) + 1 };
        self.now_ms - days * DAY_MS
    }
}

impl Tree {
    /// The same objects on another server, under its own USNs.
    pub(super) fn copy_for(&self, server: usize) -> Self {
        let mut copy = Self::new(self.schema.clone(), self.folding, base_usn(server));
        copy.reserve(self.len());
        for (id, node) in self.nodes() {
            let usn = copy.log.next_base_usn();
            let node = Node {
                entry: node.entry.clone(),
                usn_created: usn,
                usn_changed: usn,
                changed_ms: node.changed_ms,
                csn: node.csn,
                links: None,
                container: None,
            };
            copy.log.note_built(node.csn);
            copy.insert(id, node);
        }
        for (id, node) in self.nodes() {
            let links = node.links.iter().flat_map(|links| &links.forward);
            for (attribute, targets) in links {
                targets.iter().for_each(|&target| copy.link_new(id, *attribute, target));
            }
        }
        copy
    }
}
