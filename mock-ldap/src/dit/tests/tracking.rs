//! Change tracking. The property that matters most: a copy kept up to date by deltas equals a fresh read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::BytesMut;
use proptest::prelude::*;

use super::story::{Step, Story, steps};
use super::writing::{modify, rename};
use super::*;

const INCREMENTAL: i64 = -2_147_483_648;
const ATTRIBUTES: [&str; 8] = [
    "name",
    "sAMAccountName",
    "description",
    "member",
    "manager",
    "userAccountControl",
    "objectClass",
    "telephoneNumber",
];

type Attributes = BTreeMap<String, BTreeSet<Vec<u8>>>;

/// A client's copy of a domain, kept by DirSync: objects by GUID, linked names as GUIDs.
#[derive(Default)]
struct Copy {
    objects: BTreeMap<Vec<u8>, Attributes>,
    cookie: Vec<u8>,
}

impl Copy {
    fn fresh(world: &World, server: &Replica) -> Self {
        let mut copy = Self::default();
        copy.pull(world, server, 0, 0);
        copy
    }

    /// Pulls until nothing more is there. Returns the number of entries that came.
    fn pull(&mut self, world: &World, server: &Replica, flags: i64, bytes_max: usize) -> usize {
        let (filter, who) = (Filter::everything(), world.admin());
        let mut came = 0;
        for _ in 0..10_000 {
            let mut selection = Selection::new(ATTRIBUTES.map(str::to_owned).to_vec());
            selection.extended_dn = Some(ExtendedDn::Text);
            let request = DirSyncRequest {
                who: &who,
                base: world.directory.base_dn().as_bytes(),
                scope: Scope::Subtree,
                filter: &filter,
                selection: &selection,
                flags,
                bytes_max,
                cookie: &self.cookie,
            };
            let page = server.dirsync(&request).expect("the service account may replicate");
            came += page.entries.len();
            page.entries.iter().for_each(|body| self.apply(body));
            self.cookie = page.cookie;
            if !page.more {
                return came;
            }
        }
        panic!("the pages never end");
    }

    fn apply(&mut self, body: &[u8]) {
        let (_, attributes) = decode(body);
        let one = |name: &str| {
            attributes.iter().find(|(known, _)| known == name).map(|(_, values)| values[0].clone())
        };
        let guid = one("objectGUID").expect("every entry carries its GUID");
        if one("isDeleted").as_deref() == Some(b"TRUE") {
            self.objects.remove(&guid);
            for object in self.objects.values_mut() {
                for linked in ["member", "manager"] {
                    if let Some(values) = object.get_mut(linked) {
                        values.remove(&guid);
                    }
                    object.retain(|_, values| !values.is_empty());
                }
            }
            return;
        }
        let object = self.objects.entry(guid).or_default();
        for (name, values) in attributes {
            let (name, range) = name.split_once(";range=").unwrap_or((&name, ""));
            let linked = matches!(name, "member" | "manager");
            let values = values.into_iter().map(|value| if linked { guid_of(&value) } else { value });
            let known = object.entry(name.to_owned()).or_default();
            match range {
                "1-1" => known.extend(values),
                "0-0" => {
                    let gone: Vec<Vec<u8>> = values.collect();
                    known.retain(|value| !gone.contains(value));
                }
                _ => *known = values.collect(),
            }
        }
        object.retain(|_, values| !values.is_empty());
    }
}

/// What differs between two copies, in words.
fn differences(one: &Copy, other: &Copy) -> Vec<String> {
    let name = |attributes: Option<&Attributes>| {
        let value = attributes.and_then(|attributes| attributes.get("name")?.first().cloned());
        value.map_or("nothing".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())
    };
    let guids: BTreeSet<&Vec<u8>> = one.objects.keys().chain(other.objects.keys()).collect();
    let mut found = Vec::new();
    for guid in guids {
        let (left, right) = (one.objects.get(guid), other.objects.get(guid));
        if left != right {
            let keys: BTreeSet<&String> = left.into_iter().chain(right).flat_map(BTreeMap::keys).collect();
            let keys = keys
                .into_iter()
                .filter(|key| left.and_then(|it| it.get(*key)) != right.and_then(|it| it.get(*key)));
            found.push(format!("{} / {}: {:?}", name(left), name(right), keys.collect::<Vec<_>>()));
        }
    }
    found
}

/// The GUID in front of an extended name, as bytes.
fn guid_of(name: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(name).into_owned();
    let guid = text.strip_prefix("<GUID=").and_then(|rest| rest.split('>').next()).expect("extended form");
    crate::dn::parse_guid(guid).expect("dashed form").to_vec()
}

proptest! {
    // A fifth of the usual number: each case builds a domain. PROPTEST_CASES raises it.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 5, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_kept_by_dirsync_equals_a_fresh_read(steps in steps(true), last: u8) {
        let story = Story::new(Vendor::ActiveDirectory, 3);
        let mut copy = Copy::fresh(&story.world, story.server(0));
        for (count, (server, step)) in steps.iter().enumerate() {
            match step {
                Step::Pull { server, incremental, small } => {
                    let flags = if *incremental { INCREMENTAL } else { 0 };
                    copy.pull(&story.world, story.server(*server), flags, if *small { 1 } else { 0 });
                }
                Step::Restore(number) => {
                    // Of no other restore, whatever number was drawn.
                    let invocation = std::array::from_fn(|at| if at == 0 { count as u8 } else { *number });
                    story.server(*server).set_invocation_id(invocation);
                    // Everything comes again, but nothing says what is no longer set: a client has to start over.
                    copy = Copy::fresh(&story.world, story.server(*server));
                }
                step => story.take(*server, step, count),
            }
        }
        story.world.directory.replicate_now();
        copy.pull(&story.world, story.server(last), INCREMENTAL, 0);
        let fresh = Copy::fresh(&story.world, story.server(last));
        prop_assert_eq!(differences(&copy, &fresh), [] as [String; 0]);
        let expected = story.picture(last);
        for other in 1..3 {
            let other = last.wrapping_add(other);
            let there = Copy::fresh(&story.world, story.server(other));
            prop_assert_eq!(differences(&there, &fresh), [] as [String; 0], "the servers agree");
            prop_assert_eq!(&story.picture(other), &expected, "about names and deleted objects too");
        }
    }

    #[test]
    fn a_copy_kept_by_syncrepl_equals_a_fresh_read(
        steps in steps(false),
        depth in prop_oneof![Just(0usize), Just(3), Just(10_000)],
        vendor in prop_oneof![Just(Vendor::OpenLdap), Just(Vendor::Ds389)],
    ) {
        let story = Story::new(vendor, 1);
        story.server(0).set_session_log(depth);
        let mut copy = Consumer::default();
        copy.refresh(&story);
        for (count, (server, step)) in steps.iter().enumerate() {
            match step {
                Step::Pull { incremental, .. } => copy.pull(&story, *incremental),
                step => story.take(*server, step, count),
            }
        }
        copy.refresh(&story);
        let mut fresh = Consumer::default();
        fresh.refresh(&story);
        let wrong: Vec<_> = fresh.entries.iter().filter(|(uuid, entry)| copy.entries.get(*uuid) != Some(*entry)).collect();
        prop_assert!(wrong.is_empty(), "missing or stale: {:?}", wrong);
        prop_assert_eq!(copy.entries.len(), fresh.entries.len(), "too many");
    }
}

/// A syncrepl consumer: entries by UUID, as they were sent.
#[derive(Default)]
struct Consumer {
    entries: HashMap<[u8; 16], (String, Attributes)>,
    cookie: Option<Vec<u8>>,
}

impl Consumer {
    fn refresh(&mut self, story: &Story) {
        self.pull(story, false);
    }

    fn pull(&mut self, story: &Story, persist: bool) {
        let filter = Filter::parse("(|(objectClass=inetOrgPerson)(objectClass=groupOfNames))").unwrap();
        let request = SyncRequest {
            who: &story.admin,
            base: story.world.directory.base_dn().as_bytes(),
            scope: Scope::Subtree,
            filter: &filter,
            cookie: self.cookie.as_deref(),
            persist: persist && self.cookie.is_some(),
            reload: true,
        };
        let server = story.server(0);
        let batch = server.syncrepl(&request).expect("the administrator may sync");
        let mut named: BTreeSet<[u8; 16]> = BTreeSet::new();
        for (id, _, uuid) in &batch.entries {
            let mut out = BytesMut::new();
            assert!(server.encode_entry(*id, &Selection::default(), &mut out));
            let (dn, attributes) = decode(&out);
            // memberOf is the server's view of other entries; its change is no change of this one.
            let kept = attributes.into_iter().filter(|(name, _)| name != "memberOf");
            let attributes = kept.map(|(name, values)| (name, values.into_iter().collect())).collect();
            self.entries.insert(*uuid, (dn, attributes));
            named.insert(*uuid);
        }
        match batch.phase {
            SyncPhase::Present { present } => {
                named.extend(present);
                self.entries.retain(|uuid, _| named.contains(uuid));
            }
            SyncPhase::Delete { deleted } => deleted.iter().for_each(|uuid| drop(self.entries.remove(uuid))),
        }
        self.cookie = Some(batch.cookie);
    }
}

fn dirsync(
    world: &World,
    who: &Identity,
    base: &str,
    flags: i64,
    cookie: &[u8],
    names: &[&str],
) -> Result<DirSyncPage, LdapFailure> {
    let filter = Filter::everything();
    let selection = Selection::new(names.iter().map(|name| (*name).to_owned()).collect());
    let (base, scope) = (base.as_bytes(), Scope::Subtree);
    let request = DirSyncRequest {
        who,
        base,
        scope,
        filter: &filter,
        selection: &selection,
        flags,
        bytes_max: 0,
        cookie,
    };
    world.server().dirsync(&request)
}

#[test]
fn rights_bases_and_cookies_of_dirsync() {
    let world = World::new(Vendor::ActiveDirectory);
    let (admin, base) = (world.admin(), world.directory.base_dn().to_owned());
    let code = |result: Result<DirSyncPage, LdapFailure>| result.unwrap_err().code;
    assert_eq!(
        code(dirsync(&world, &admin, &format!("CN=Users,{base}"), 0, b"", &["name"])),
        ResultCode::UNWILLING_TO_PERFORM
    );
    assert_eq!(
        code(dirsync(&world, &admin, &base, 0, b"garbage", &["name"])),
        ResultCode::UNAVAILABLE_CRITICAL_EXTENSION
    );
    world.directory.set_service_may_replicate(false);
    assert_eq!(
        code(dirsync(&world, &admin, &base, 0, b"", &["name"])),
        ResultCode::INSUFFICIENT_ACCESS_RIGHTS
    );
    assert!(
        dirsync(&world, &admin, &base, 1, b"", &["name"]).is_ok(),
        "OBJECT_SECURITY needs no special right"
    );
    world.directory.set_service_may_replicate(true);
    let only_cn = dirsync(&world, &admin, &base, 0, b"", &["cn"]).unwrap();
    assert_eq!(only_cn.entries.len(), 0, "the naming attribute itself is not reported");
}

#[test]
fn a_delta_has_the_measured_shape() {
    let world = World::new(Vendor::ActiveDirectory);
    let (admin, base) = (world.admin(), world.directory.base_dn().to_owned());
    let all = dirsync(&world, &admin, &base, 0, b"", &["name", "member", "description"]).unwrap();
    assert!(!all.more);
    let alice = world.dn_of(&world.company.people[0]);
    world.change(&alice, ModOp::Replace, "description", &["new"]).unwrap();
    world.change(&alice, ModOp::Replace, "title", &["not asked for"]).unwrap();
    let bob = world.dn_of(&world.company.people[1]);
    world.change(&bob, ModOp::Replace, "title", &["not asked for"]).unwrap();
    let delta = dirsync(&world, &admin, &base, 0, &all.cookie, &["name", "member", "description"]).unwrap();
    assert_eq!(delta.entries.len(), 1);
    let (dn, attributes) = decode(&delta.entries[0]);
    let names: Vec<&str> = attributes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((dn.as_str(), names), (alice.as_str(), vec!["description", "objectGUID", "instanceType"]));
    world.write(rename(&alice, "CN=Alice Jones", None)).unwrap();
    let renamed = dirsync(&world, &admin, &base, 0, &delta.cookie, &["name", "description"]).unwrap();
    let (_, attributes) = decode(&renamed.entries[0]);
    let names: Vec<&str> = attributes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["name", "objectGUID", "instanceType", "parentGUID"]);
    assert_eq!(dirsync(&world, &admin, &base, 0, &renamed.cookie, &["name"]).unwrap().entries.len(), 0);
}

#[test]
fn incremental_values_name_only_what_changed() {
    let world = World::new(Vendor::ActiveDirectory);
    let (admin, base) = (world.admin(), world.directory.base_dn().to_owned());
    let group = format!("CN=Team,CN=Users,{base}");
    let [alice, bob] = [0, 1].map(|at| world.dn_of(&world.company.people[at]));
    world.add(&group, &[("objectClass", "group"), ("sAMAccountName", "team"), ("member", &alice)]).unwrap();
    let all = dirsync(&world, &admin, &base, INCREMENTAL, b"", &["member"]).unwrap();
    world.change(&group, ModOp::Add, "member", &[&bob]).unwrap();
    world.change(&group, ModOp::Delete, "member", &[&alice]).unwrap();
    let delta = dirsync(&world, &admin, &base, INCREMENTAL, &all.cookie, &["member"]).unwrap();
    let (_, attributes) = decode(&delta.entries[0]);
    assert_eq!(attributes[0], ("member;range=1-1".to_owned(), vec![bob.clone().into_bytes()]));
    assert_eq!(attributes[1], ("member;range=0-0".to_owned(), vec![alice.into_bytes()]));
    let plain = dirsync(&world, &admin, &base, 0, &all.cookie, &["member"]).unwrap();
    assert_eq!(decode(&plain.entries[0]).1[0], ("member".to_owned(), vec![bob.into_bytes()]));
}

#[test]
fn cookies_die_with_restores_and_old_age_and_travel_between_servers() {
    let world = World::with(Vendor::ActiveDirectory, &[("dc1", Some(0)), ("dc2", None)], |_| {});
    let count = |copy: &mut Copy, server: usize| copy.pull(&world, &world.directory.servers()[server], 0, 0);
    let mut copy = Copy::fresh(&world, world.server());
    let whole = copy.objects.len();
    assert_eq!(count(&mut copy, 1), 0, "both servers know the same");
    let alice = world.dn_of(&world.company.people[0]);
    world.directory.replicate_now();
    count(&mut copy, 0);
    world.change(&alice, ModOp::Replace, "description", &["one"]).unwrap();
    assert_eq!(count(&mut copy, 1), 0, "not there yet");
    world.directory.replicate_now();
    assert_eq!(count(&mut copy, 1), 1, "later, but not lost");
    assert_eq!(count(&mut copy, 0), 0, "and not twice");
    world.server().set_invocation_id([9; 16]);
    assert!(count(&mut copy, 0) >= whole, "a restored server tells everything again");
    world.clock.advance(Duration::from_secs(200 * 86_400));
    assert!(count(&mut copy, 0) >= whole, "so does a cookie older than the tombstones");
}

#[test]
fn usn_ranges_find_exactly_the_changes() {
    let world = World::new(Vendor::ActiveDirectory);
    // The first sign-in writes lastLogonTimestamp; it must not be among what is counted.
    world.admin();
    let before = world.server().highest_usn();
    let changed: Vec<EntryId> = (0..5)
        .map(|at| {
            let dn = world.dn_of(&world.company.people[at]);
            world.change(&dn, ModOp::Replace, "description", &["x"]).unwrap().id
        })
        .collect();
    let after = world.server().highest_usn();
    let mut found =
        world.find(&format!("(&(objectClass=user)(uSNChanged>={})(uSNChanged<={after}))", before + 1));
    found.sort();
    assert_eq!(found, changed);
    assert_eq!(world.find(&format!("(uSNChanged>={})", after + 1)), []);
}

#[test]
fn lag_is_kept_by_the_clock_and_changes_have_usns_of_their_own() {
    let world = World::with(Vendor::ActiveDirectory, &[("dc1", Some(0)), ("dc2", Some(30_000))], |_| {});
    let second = world.directory.server("dc2").unwrap();
    let alice = world.dn_of(&world.company.people[0]);
    let id = world.find("(sAMAccountName=asmith)")[0];
    let mut watch = second.subscribe();
    world.directory.replicate_now();
    watch.borrow_and_update();
    world.change(&alice, ModOp::Replace, "description", &["late"]).unwrap();
    assert_eq!(second.values(id, "description"), [] as [Vec<u8>; 0]);
    let due = world.directory.replicate_due().unwrap();
    assert_eq!(due, world.clock.now_ms() + 30_000);
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(world.directory.replicate_due(), None);
    assert_eq!(second.values(id, "description"), [b"late"]);
    assert!(watch.has_changed().unwrap());
    assert_ne!(world.text(id, "uSNChanged").into_bytes(), second.values(id, "uSNChanged")[0]);
}

#[test]
fn the_later_of_two_conflicting_changes_wins_everywhere() {
    let world = World::with(Vendor::ActiveDirectory, &[("dc1", None), ("dc2", None)], |_| {});
    let admin = world.admin();
    let [first, second] = ["dc1", "dc2"].map(|name| world.directory.server(name).unwrap());
    let alice = world.dn_of(&world.company.people[0]);
    let id = world.find("(sAMAccountName=asmith)")[0];
    second.write(modify(&alice, ModOp::Replace, "description", &["early"]), &admin, true).unwrap();
    world.clock.advance(Duration::from_secs(1));
    first.write(modify(&alice, ModOp::Replace, "description", &["late"]), &admin, true).unwrap();
    second.write(modify(&alice, ModOp::Replace, "title", &["kept"]), &admin, true).unwrap();
    world.directory.replicate_now();
    world.directory.replicate_now();
    for server in [&first, &second] {
        assert_eq!(server.values(id, "description"), [b"late"]);
        assert_eq!(server.values(id, "title"), [b"kept"]);
    }
}

#[test]
fn persistent_searches_are_fed_in_order() {
    let world = World::new(Vendor::Ds389);
    let admin = world.admin();
    let base = world.directory.base_dn().to_owned();
    let from = world.server().highest_usn();
    let dn = format!("uid=new,ou=people,{base}");
    world.add(&dn, &[("objectClass", "inetOrgPerson"), ("cn", "New"), ("sn", "User")]).unwrap();
    world.change(&dn, ModOp::Replace, "title", &["x"]).unwrap();
    world.write(rename(&dn, "uid=newer", None)).unwrap();
    world.delete(&format!("uid=newer,ou=people,{base}")).unwrap();
    let filter = Filter::parse("(objectClass=inetOrgPerson)").unwrap();
    let changes = world.server().changes_since(from, &plan(&base, Scope::Subtree, &filter, &admin)).unwrap();
    let kinds: Vec<ChangeKind> = changes.changes.iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Add, ChangeKind::Modify, ChangeKind::ModifyDn, ChangeKind::Delete]);
    assert!(changes.changes[3].matches, "what was deleted matched");
    assert_eq!(changes.changes[2].previous_dn.as_deref(), Some(dn.as_str()));
    assert_eq!(changes.last, world.server().highest_usn());
    let later =
        world.server().changes_since(changes.last, &plan(&base, Scope::Subtree, &filter, &admin)).unwrap();
    assert_eq!(later.changes, []);
}

#[test]
fn content_sync_cookies_of_389_are_bound_to_their_search() {
    let world = World::new(Vendor::Ds389);
    let admin = world.admin();
    let base = world.directory.base_dn().to_owned();
    let sync = |filter: &str, cookie: Option<&[u8]>| {
        let filter = Filter::parse(filter).unwrap();
        let (base, scope) = (base.as_bytes(), Scope::Subtree);
        let request =
            SyncRequest { who: &admin, base, scope, filter: &filter, cookie, persist: false, reload: false };
        world.server().syncrepl(&request)
    };
    let first = sync("(uid=*)", None).unwrap();
    assert_eq!(first.entries.len(), world.company.people.len() + 1);
    assert!(sync("(uid=*)", Some(&first.cookie)).unwrap().entries.is_empty());
    assert_eq!(sync("(cn=*)", Some(&first.cookie)).unwrap_err().code, ResultCode::SYNC_REFRESH_REQUIRED);
    assert_eq!(sync("(uid=*)", Some(b"nonsense")).unwrap_err().code, ResultCode::SYNC_REFRESH_REQUIRED);
}
