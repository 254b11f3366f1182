//! Random writes to any server of a domain, for the properties that must hold whatever is written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::writing::{add, modify, rename};
use super::*;

/// One random change; numbers pick among what exists.
#[derive(Clone, Debug)]
pub(super) enum Step {
    AddUser(u8),
    AddGroup(u8),
    Delete(u8),
    Describe(u8, u8),
    Undescribe(u8),
    Rename(u8, u8),
    Move(u8, u8),
    AddUnit(u8, u8),
    MoveUnit(u8, u8),
    DeleteUnit(u8),
    Join(u8, u8),
    Leave(u8, u8),
    Manage(u8, u8),
    BadPassword(u8),
    Pull {
        server: u8,
        incremental: bool,
        small: bool,
    },
    Replicate,
    /// One server hears of everything, the others of nothing.
    Hear(u8),
    Restore(u8),
}

pub(super) fn steps(several: bool) -> impl Strategy<Value = Vec<(u8, Step)>> {
    let n = any::<u8>();
    let pull = (n, any::<bool>(), any::<bool>());
    let step = prop_oneof![
        3 => n.prop_map(Step::AddUser),
        1 => n.prop_map(Step::AddGroup),
        3 => n.prop_map(Step::Delete),
        3 => (n, n).prop_map(|(object, text)| Step::Describe(object, text)),
        1 => n.prop_map(Step::Undescribe),
        2 => (n, n).prop_map(|(object, name)| Step::Rename(object, name)),
        2 => (n, n).prop_map(|(object, unit)| Step::Move(object, unit)),
        1 => (n, n).prop_map(|(name, into)| Step::AddUnit(name, into)),
        2 => (n, n).prop_map(|(unit, into)| Step::MoveUnit(unit, into)),
        1 => n.prop_map(Step::DeleteUnit),
        5 => (n, n).prop_map(|(group, member)| Step::Join(group, member)),
        3 => (n, n).prop_map(|(group, member)| Step::Leave(group, member)),
        1 => (n, n).prop_map(|(object, manager)| Step::Manage(object, manager)),
        1 => n.prop_map(Step::BadPassword),
        3 => pull.prop_map(|(server, incremental, small)| Step::Pull { server, incremental, small }),
        1 => Just(Step::Replicate),
        2 => n.prop_map(Step::Hear),
        1 => n.prop_map(Step::Restore),
    ];
    proptest::collection::vec((if several { any::<u8>().boxed() } else { Just(0u8).boxed() }, step), 1..40)
}

/// A world in which random steps are taken on any of its servers.
pub(super) struct Story {
    pub(super) world: World,
    pub(super) admin: Identity,
}

impl Story {
    pub(super) fn new(vendor: Vendor, servers: usize) -> Self {
        let names = [("dc1", None), ("dc2", None), ("dc3", None)];
        let mut world = World::with(vendor, &names[..servers], |_| {});
        // A small company keeps a case fast.
        world.company =
            Company::generate(&CompanySpec { seed: 3, users: 12, domain: "acme.example".to_owned() });
        let spec = DirectorySpec {
            personality: Personality::of(vendor),
            servers: names[..servers]
                .iter()
                .map(|(name, lag_ms)| ServerSpec { name: (*name).to_owned(), lag_ms: *lag_ms })
                .collect(),
            accounts: AccountPolicy::default(),
            seed: 3,
            exchange: false,
        };
        world.directory = Directory::build(&spec, &world.company, world.clock.clone());
        let admin = world.admin();
        world.directory.replicate_now();
        Self { world, admin }
    }

    pub(super) fn server(&self, number: u8) -> &Replica {
        let servers = self.world.directory.servers();
        &servers[usize::from(number) % servers.len()]
    }

    /// Every object of one server, deleted ones too: its identifier, name and place. No name may be there twice.
    pub(super) fn picture(&self, server: u8) -> BTreeMap<[u8; 16], String> {
        let server = self.server(server);
        let base = self.world.directory.base_dn();
        let everything = Filter::everything();
        let plan = SearchPlan { show_deleted: true, ..plan(base, Scope::Subtree, &everything, &self.admin) };
        let found = server.search(&plan).unwrap().ids;
        let picture: BTreeMap<_, _> =
            found.iter().map(|&id| (server.uuid_of(id).unwrap(), server.dn_of(id).unwrap())).collect();
        let names: BTreeSet<String> = picture.values().map(|dn| dn.to_lowercase()).collect();
        assert_eq!(names.len(), found.len(), "every object has a name of its own: {picture:#?}");
        picture
    }

    /// DNs of what matches on one server; a choice by number.
    fn pick(&self, server: &Replica, filter: &str, number: u8) -> Option<String> {
        let filter = Filter::parse(filter).unwrap();
        let found = server
            .search(&plan(self.world.directory.base_dn(), Scope::Subtree, &filter, &self.admin))
            .unwrap()
            .ids;
        let id = found.get(usize::from(number) % found.len().max(1))?;
        server.dn_of(*id)
    }

    /// Performs a step; refusals are part of life.
    pub(super) fn take(&self, server: u8, step: &Step, count: usize) {
        self.world.clock.advance(Duration::from_millis(1));
        let server = self.server(server);
        match step {
            Step::BadPassword(number) => {
                if let Some(dn) = self.person(server, *number) {
                    let _ = server.authenticate(dn.as_bytes(), b"wrong");
                }
            }
            Step::Replicate => self.world.directory.replicate_now(),
            Step::Hear(number) => drop(self.server(*number).pull_all(true)),
            step => {
                if let Some(op) = self.operation(server, step, count) {
                    let _ = server.write(op, &self.admin, true);
                }
            }
        }
    }

    fn is_windows(&self) -> bool {
        self.world.directory.personality().is_active_directory()
    }

    fn person(&self, server: &Replica, number: u8) -> Option<String> {
        let windows = "(&(sAMAccountType=805306368)(mail=*))";
        let people = if self.is_windows() { windows } else { "(&(objectClass=inetOrgPerson)(mail=*))" };
        self.pick(server, people, number)
    }

    fn group(&self, server: &Replica, number: u8) -> Option<String> {
        let windows = "(&(objectClass=group)(!(isCriticalSystemObject=*)))";
        let groups = if self.is_windows() { windows } else { "(objectClass=groupOfNames)" };
        self.pick(server, groups, number)
    }

    fn unit(&self, server: &Replica, number: u8) -> Option<String> {
        let windows = "(|(objectClass=organizationalUnit)(cn=Users))";
        let units = if self.is_windows() { windows } else { "(objectClass=organizationalUnit)" };
        self.pick(server, units, number)
    }

    /// What a step writes; nothing when there is nothing to do it to.
    fn operation(&self, server: &Replica, step: &Step, count: usize) -> Option<WriteOp> {
        let person = |number: &u8| self.person(server, *number);
        let group = |number: &u8| self.group(server, *number);
        Some(match step {
            // Few names and few units: servers take the same ones. The login tells whose it is.
            Step::AddUser(unit) => self.new_user(
                &self.unit(server, *unit)?,
                &format!("made{}", unit % 4),
                &format!("made{count}"),
            ),
            Step::AddUnit(name, into) => {
                let dn = format!("OU=unit{},{}", name % 3, self.unit(server, *into)?);
                add(&dn, &[("objectClass", "organizationalUnit")])
            }
            Step::DeleteUnit(number) => {
                let dn = self.pick(server, "(&(objectClass=organizationalUnit)(ou=unit*))", *number)?;
                WriteOp::Delete { dn: dn.into(), tree: true }
            }
            Step::AddGroup(unit) => {
                self.new_group(&self.unit(server, *unit)?, &format!("team{count}"), &person(unit)?)
            }
            Step::Delete(number) => WriteOp::Delete { dn: person(number)?.into(), tree: false },
            Step::Describe(number, text) => {
                modify(&person(number)?, ModOp::Replace, "description", &[&format!("text {text}")])
            }
            Step::Undescribe(number) => modify(&person(number)?, ModOp::Replace, "description", &[]),
            Step::Rename(number, name) => {
                let kind = if self.is_windows() { "CN" } else { "uid" };
                rename(&person(number)?, &format!("{kind}=renamed{}", name % 8), None)
            }
            Step::Move(number, unit) => moved(&person(number)?, &self.unit(server, *unit)?),
            Step::MoveUnit(unit, into) if self.is_windows() => {
                let dn = self.pick(server, "(objectClass=organizationalUnit)", *unit)?;
                moved(&dn, &self.unit(server, *into)?)
            }
            Step::Join(number, member) => modify(&group(number)?, ModOp::Add, "member", &[&person(member)?]),
            Step::Leave(number, member) => {
                modify(&group(number)?, ModOp::Delete, "member", &[&person(member)?])
            }
            Step::Manage(number, manager) => {
                modify(&person(number)?, ModOp::Replace, "manager", &[&person(manager)?])
            }
            _ => return None,
        })
    }

    fn new_user(&self, parent: &str, name: &str, login: &str) -> WriteOp {
        if self.is_windows() {
            let attributes = [("objectClass", "user"), ("sAMAccountName", login), ("mail", login)];
            return add(&format!("CN={name},{parent}"), &attributes);
        }
        let attributes =
            [("objectClass", "inetOrgPerson"), ("uid", name), ("cn", login), ("sn", "x"), ("mail", login)];
        add(&format!("uid={name},{parent}"), &attributes)
    }

    fn new_group(&self, parent: &str, name: &str, first: &str) -> WriteOp {
        let class = if self.is_windows() { "group" } else { "groupOfNames" };
        let mut attributes = vec![("objectClass", class), ("cn", name), ("member", first)];
        if self.is_windows() {
            attributes.push(("sAMAccountName", name));
        }
        add(&format!("CN={name},{parent}"), &attributes)
    }
}

fn moved(dn: &str, into: &str) -> WriteOp {
    let rdn = crate::dn::Dn::parse(dn.as_bytes()).unwrap().rdns[0].to_string();
    rename(dn, &rdn, Some(into))
}
