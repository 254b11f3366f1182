//! What two servers write before they hear of each other, and what all of them say afterwards.

use std::collections::BTreeSet;

use super::writing::{add, modify, rename};
use super::*;

/// A domain whose servers hear of nothing until they are told.
struct Apart {
    world: World,
    admin: Identity,
    servers: Vec<Arc<Replica>>,
}

impl Apart {
    fn new() -> Self {
        let names = [("dc1", None), ("dc2", None), ("dc3", None)];
        let world = World::with(Vendor::ActiveDirectory, &names, |_| {});
        let admin = world.admin();
        world.directory.replicate_now();
        let servers = world.directory.servers().to_vec();
        Self { world, admin, servers }
    }

    fn under_base(&self, path: &str) -> String {
        format!("{path},{}", self.world.directory.base_dn())
    }

    /// Writes on one server, a second after the write before.
    fn write(&self, server: usize, op: WriteOp) -> EntryId {
        self.world.clock.advance(Duration::from_secs(1));
        self.servers[server].write(op, &self.admin, true).expect("the write is allowed").id
    }

    fn add_user(&self, server: usize, dn: &str, login: &str) -> EntryId {
        self.write(server, add(dn, &[("objectClass", "user"), ("sAMAccountName", login)]))
    }

    fn add_unit(&self, server: usize, dn: &str) -> EntryId {
        self.write(server, add(dn, &[("objectClass", "organizationalUnit")]))
    }

    /// Names of the live objects that match, which must be the same on all servers.
    fn names(&self, filter: &str) -> BTreeSet<String> {
        let parsed = Filter::parse(filter).unwrap();
        let base = self.world.directory.base_dn();
        let names = self.servers.iter().map(|server| {
            let found = server.search(&plan(base, Scope::Subtree, &parsed, &self.admin)).unwrap().ids;
            found.into_iter().map(|id| server.dn_of(id).unwrap()).collect::<BTreeSet<String>>()
        });
        let mut names: Vec<BTreeSet<String>> = names.collect();
        let first = names.remove(0);
        names.iter().for_each(|other| assert_eq!(*other, first, "the servers agree about {filter}"));
        first
    }

    /// `CN=Twin\0ACNF:guid`, as a name shows it.
    fn mangled(&self, kind_and_name: &str, id: EntryId) -> String {
        let guid = self.servers.iter().find_map(|server| server.uuid_of(id)).unwrap();
        format!("{kind_and_name}\\0ACNF:{}", uuid::Uuid::from_bytes_le(guid))
    }

    fn meet(&self) {
        self.world.directory.replicate_now();
    }
}

#[test]
fn of_two_objects_with_one_name_the_younger_name_stays_on_every_server() {
    // Whichever server hears first, and whether it has the older or the younger one.
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        let apart = Apart::new();
        let dn = apart.under_base("CN=Twin,CN=Users");
        let older = apart.add_user(1, &dn, "older");
        let younger = apart.add_user(0, &dn, "younger");
        for server in order {
            apart.servers[server].pull_all(true);
        }
        apart.meet();
        let mangled = apart.mangled("CN=Twin", older);
        let expected = [dn.clone(), apart.under_base(&format!("{mangled},CN=Users"))];
        assert_eq!(apart.names("(cn=Twin*)"), BTreeSet::from(expected));
        for server in &apart.servers {
            assert_eq!(server.find(dn.as_bytes()), Some(younger));
            let cn = server.values(older, "cn");
            assert_eq!(cn, server.values(older, "name"), "the naming attribute follows the name");
            assert!(String::from_utf8_lossy(&cn[0]).starts_with("Twin\nCNF:"), "{cn:?}");
        }
    }
}

#[test]
fn a_rename_is_a_younger_name_than_an_older_addition() {
    let apart = Apart::new();
    let alice = apart.world.dn_of(&apart.world.company.people[0]);
    let id = apart.servers[0].find(alice.as_bytes()).unwrap();
    let parent = alice.split_once(',').unwrap().1.to_owned();
    let wanted = format!("CN=Wanted,{parent}");
    let added = apart.add_user(1, &wanted, "added");
    apart.write(0, rename(&alice, "CN=Wanted", None));
    apart.meet();
    for server in &apart.servers {
        assert_eq!(server.find(wanted.as_bytes()), Some(id));
        assert_eq!(server.dn_of(added), Some(format!("{},{parent}", apart.mangled("CN=Wanted", added))));
    }
    // The winner goes on; the loser may be given another name, and both stay what they are.
    apart.write(2, rename(&wanted, "CN=Elsewhere", None));
    let loser = apart.servers[2].dn_of(added).unwrap();
    apart.write(2, rename(&loser, "CN=Wanted", None));
    apart.meet();
    assert_eq!(apart.names("(cn=Wanted*)"), BTreeSet::from([wanted]));
}

#[test]
fn children_stay_with_the_container_that_loses_its_name() {
    let apart = Apart::new();
    let unit = apart.under_base("OU=Projects");
    let older = apart.add_unit(1, &unit);
    apart.add_user(1, &format!("CN=Below older,{unit}"), "below.older");
    let younger = apart.add_unit(0, &unit);
    apart.add_user(0, &format!("CN=Below younger,{unit}"), "below.younger");
    apart.meet();
    let mangled = apart.under_base(&apart.mangled("OU=Projects", older));
    let expected = [format!("CN=Below older,{mangled}"), format!("CN=Below younger,{unit}")];
    assert_eq!(apart.names("(cn=Below*)"), BTreeSet::from(expected));
    assert_eq!(apart.servers[2].find(unit.as_bytes()), Some(younger));
}

#[test]
fn what_comes_below_a_deleted_container_is_found_in_lost_and_found() {
    let apart = Apart::new();
    let (unit, other) = (apart.under_base("OU=Closing"), apart.under_base("OU=Open"));
    apart.add_unit(0, &unit);
    apart.add_unit(0, &other);
    let moved = apart.add_user(0, &format!("CN=Moved in,{other}"), "moved.in");
    let inner = apart.add_unit(0, &format!("OU=Inner,{other}"));
    apart.add_user(0, &format!("CN=Deep,OU=Inner,{other}"), "deep");
    apart.meet();
    // One server closes the container; the others put something into it.
    let closed = apart.write(0, WriteOp::Delete { dn: unit.clone().into(), tree: true });
    apart.add_user(1, &format!("CN=Made,{unit}"), "made");
    apart.write(1, rename(&format!("CN=Moved in,{other}"), "CN=Moved in", Some(&unit)));
    apart.write(2, rename(&format!("OU=Inner,{other}"), "OU=Inner", Some(&unit)));
    apart.meet();
    let found = |name: &str| apart.under_base(&format!("{name},CN=LostAndFound"));
    let people = "(|(cn=Made)(cn=Moved in)(cn=Deep))";
    let expected = [found("CN=Made"), found("CN=Moved in"), found("CN=Deep,OU=Inner")];
    assert_eq!(apart.names(people), BTreeSet::from(expected));
    assert_eq!(apart.names("(ou=Inner)"), BTreeSet::from([found("OU=Inner")]));
    for server in &apart.servers {
        let tombstone = server.dn_of(closed).unwrap();
        for id in [moved, inner] {
            let last = server.values(id, "lastKnownParent");
            assert_eq!(last, [tombstone.clone().into_bytes()], "where it was to be");
        }
    }
}

#[test]
fn two_rescued_objects_of_one_name_are_told_apart() {
    let apart = Apart::new();
    let units = [apart.under_base("OU=First"), apart.under_base("OU=Second")];
    for unit in &units {
        apart.add_unit(0, unit);
    }
    apart.meet();
    for (unit, login) in units.iter().zip(["one", "two"]) {
        apart.add_user(1, &format!("CN=Same,{unit}"), login);
        apart.write(0, WriteOp::Delete { dn: unit.clone().into(), tree: false });
    }
    apart.meet();
    let names = apart.names("(cn=Same*)");
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.contains("CNF:")).count(), 1, "{names:?}");
    assert!(names.iter().all(|name| name.contains(",CN=LostAndFound,")), "{names:?}");
}

#[test]
fn containers_moved_below_each_other_do_not_vanish() {
    let apart = Apart::new();
    let [left, right] = ["OU=Left", "OU=Right"].map(|unit| apart.under_base(unit));
    apart.add_unit(0, &left);
    apart.add_unit(0, &right);
    apart.add_user(0, &format!("CN=On the left,{left}"), "on.left");
    apart.meet();
    apart.write(0, rename(&left, "OU=Left", Some(&right)));
    apart.write(1, rename(&right, "OU=Right", Some(&left)));
    apart.meet();
    let lost = apart.under_base("OU=Left,CN=LostAndFound");
    assert_eq!(
        apart.names("(|(ou=Left)(ou=Right))"),
        BTreeSet::from([lost.clone(), format!("OU=Right,{lost}")])
    );
    assert_eq!(apart.names("(cn=On the left)"), BTreeSet::from([format!("CN=On the left,{lost}")]));
}

#[test]
fn a_deletion_wins_over_changes_renames_and_another_deletion() {
    let apart = Apart::new();
    let people: Vec<String> = (0..4).map(|at| apart.world.dn_of(&apart.world.company.people[at])).collect();
    let ids: Vec<EntryId> = people.iter().map(|dn| apart.servers[0].find(dn.as_bytes()).unwrap()).collect();
    let delete =
        |server: usize, dn: &str| apart.write(server, WriteOp::Delete { dn: dn.into(), tree: false });
    delete(0, &people[0]);
    apart.write(1, modify(&people[0], ModOp::Replace, "description", &["later, in vain"]));
    apart.write(1, rename(&people[1], "CN=Renamed in vain", None));
    delete(0, &people[1]);
    // Renamed on one server before it is deleted there, deleted on another as it was.
    apart.write(1, rename(&people[2], "CN=Renamed before", None));
    let parent = people[2].split_once(',').unwrap().1;
    delete(1, &format!("CN=Renamed before,{parent}"));
    delete(0, &people[2]);
    let group = apart.under_base("CN=Team,CN=Users");
    apart.write(
        1,
        add(&group, &[("objectClass", "group"), ("sAMAccountName", "team"), ("member", &people[3])]),
    );
    delete(0, &people[3]);
    apart.meet();
    let first: Vec<String> = ids.iter().map(|&id| apart.servers[0].dn_of(id).unwrap()).collect();
    assert!(first.iter().all(|dn| dn.contains("\\0ADEL:")), "{first:?}");
    for server in &apart.servers {
        let here: Vec<String> = ids.iter().map(|&id| server.dn_of(id).unwrap()).collect();
        assert_eq!(here, first, "one tombstone of each, the same everywhere");
        let team = server.find(group.as_bytes()).unwrap();
        assert_eq!(server.values(team, "member"), [] as [Vec<u8>; 0], "nobody is a member who is gone");
    }
}

#[test]
fn a_change_never_comes_before_the_object_it_builds_on() {
    let apart = Apart::new();
    let dn = apart.under_base("CN=Relay,CN=Users");
    // Made on the last server, changed on the one that comes first among the sources of dc1.
    let id = apart.add_user(2, &dn, "relay");
    apart.servers[1].pull_all(true);
    apart.write(1, modify(&dn, ModOp::Replace, "description", &["second hand"]));
    apart.servers[0].pull_all(true);
    assert_eq!(apart.servers[0].values(id, "description"), [b"second hand"]);
}

#[test]
fn a_settled_conflict_reaches_servers_without_lag_at_once_and_others_after_theirs() {
    let servers = [("dc1", Some(0)), ("dc2", Some(10_000)), ("dc3", Some(0))];
    let world = World::with(Vendor::ActiveDirectory, &servers, |_| {});
    let admin = world.admin();
    world.directory.replicate_now();
    let dn = format!("CN=Twin,CN=Users,{}", world.directory.base_dn());
    let [first, second, third] = [0, 1, 2].map(|at| world.directory.servers()[at].clone());
    let twin = |login: &str| add(&dn, &[("objectClass", "user"), ("sAMAccountName", login)]);
    let older = first.write(twin("older"), &admin, true).unwrap().id;
    let younger = second.write(twin("younger"), &admin, true).unwrap().id;
    for server in [&first, &third] {
        assert_eq!(server.find(dn.as_bytes()), Some(younger));
        assert!(server.dn_of(older).unwrap().contains("CNF:"));
    }
    assert_eq!(second.dn_of(older), None, "not there yet");
    world.clock.advance(Duration::from_secs(10));
    world.directory.replicate_due();
    assert_eq!(second.dn_of(older), first.dn_of(older));
    assert_eq!(second.find(dn.as_bytes()), Some(younger));
}
