//! Search, filters, entries.

use bytes::BytesMut;

use super::*;

fn entry(world: &World, id: EntryId, selection: &Selection) -> Decoded {
    let mut out = BytesMut::new();
    assert!(world.server().encode_entry(id, selection, &mut out), "entry is there");
    decode(&out)
}

fn select(names: &[&str]) -> Selection {
    Selection::new(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn every_personality_holds_the_same_people() {
    for vendor in Vendor::ALL {
        let world = World::new(vendor);
        for person in &world.company.people {
            let found = world.find(&format!("(mail={})", person.mail));
            assert_eq!(found.len(), 1, "{vendor:?} {}", person.mail);
            let dn = world.server().dn_of(found[0]).unwrap();
            let bound = world.server().authenticate(dn.as_bytes(), person.password().as_bytes());
            if person.is_active() {
                assert_eq!(bound.unwrap().identity, Identity::Entry { id: found[0], dn }, "{vendor:?}");
            }
        }
    }
}

#[test]
fn standard_filters_of_active_directory() {
    let world = World::new(Vendor::ActiveDirectory);
    let people = world.company.people.len();
    // Administrator, Guest, krbtgt and the service account are users as well.
    assert_eq!(world.find("(&(objectCategory=person)(objectClass=user))").len(), people + 4);
    assert_eq!(world.find("(sAMAccountType=805306368)").len(), people + 4);
    assert_eq!(world.find("(objectClass=user)").len(), people + 5, "the domain controller is a user too");
    let disabled = world.company.people.iter().filter(|person| person.state == PersonState::Disabled).count();
    assert_eq!(world.find("(userAccountControl:1.2.840.113556.1.4.803:=2)").len(), disabled + 2);
    assert_eq!(
        world.find("(&(objectCategory=group)(mail=*))").len(),
        world.company.groups.iter().filter(|group| group.mail.is_some()).count()
    );
    assert_eq!(world.find("(nosuchattribute=1)"), []);
    assert_eq!(world.find("(!(nosuchattribute=1))"), [], "not Undefined is Undefined");
    assert!(world.find("(!(mail=*))").len() > 10, "an absent attribute is false, not Undefined");
    assert_eq!(world.find("(|)"), []);
    assert!(world.find("(&)").len() > people);
}

#[test]
fn binary_identifiers_search_and_serve_as_base() {
    let world = World::new(Vendor::ActiveDirectory);
    let alice = &world.company.people[0];
    let id = world.find(&format!("(sAMAccountName={})", alice.login))[0];
    let guid = alice.guid();
    let escaped: String = guid.iter().map(|byte| format!("\\{byte:02x}")).collect();
    assert_eq!(world.find(&format!("(objectGUID={escaped})")), [id]);
    let sid = crate::dn::sid_text(&world.server().values(id, "objectSid")[0]).unwrap();
    assert_eq!(world.find(&format!("(objectSid={sid})")), [id]);
    for base in [format!("<GUID={}>", uuid::Uuid::from_bytes_le(guid)), format!("<SID={sid}>")] {
        let found = world.search(&base, Scope::Base, "(objectClass=*)", &world.admin()).unwrap();
        assert_eq!(found.ids, [id], "{base}");
    }
    let users = format!("<WKGUID=a9d1ca15768811d1aded00c04fd8d5cd,{}>", world.directory.base_dn());
    let found = world.search(&users, Scope::Base, "(objectClass=*)", &world.admin()).unwrap();
    assert_eq!(
        world.server().dn_of(found.ids[0]).unwrap(),
        format!("CN=Users,{}", world.directory.base_dn())
    );
}

#[test]
fn nested_membership_follows_cycles_once() {
    let world = World::new(Vendor::ActiveDirectory);
    for group in &world.company.groups {
        let dn = world
            .names(&format!("(&(objectClass=group)(cn={}))", crate::filter::escape(group.name.as_bytes())))
            .remove(0);
        let direct = world.find(&format!("(memberOf={})", crate::filter::escape(dn.as_bytes())));
        let nested = world
            .find(&format!("(memberOf:1.2.840.113556.1.4.1941:={})", crate::filter::escape(dn.as_bytes())));
        assert_eq!(direct.len(), group.members.len(), "{dn}");
        assert!(direct.iter().all(|id| nested.contains(id)), "{dn}");
    }
}

#[test]
fn a_bind_is_needed_where_the_server_wants_one() {
    let world = World::new(Vendor::ActiveDirectory);
    let failure = world
        .search(world.directory.base_dn(), Scope::Base, "(objectClass=*)", &Identity::Anonymous)
        .unwrap_err();
    assert_eq!(failure.code, ResultCode::OPERATIONS_ERROR);
    let open = World::new(Vendor::OpenLdap);
    assert!(
        open.search(open.directory.base_dn(), Scope::Base, "(objectClass=*)", &Identity::Anonymous).is_ok()
    );
}

#[test]
fn missing_and_foreign_bases() {
    let world = World::new(Vendor::ActiveDirectory);
    let admin = world.admin();
    let base = world.directory.base_dn();
    let missing =
        world.search(&format!("CN=x,OU=nowhere,{base}"), Scope::Subtree, "(cn=*)", &admin).unwrap_err();
    assert_eq!((missing.code, missing.matched_dn.as_str()), (ResultCode::NO_SUCH_OBJECT, base));
    assert!(missing.message.contains("NO_OBJECT"), "{}", missing.message);
    let foreign = world.search("DC=other,DC=test", Scope::Subtree, "(cn=*)", &admin).unwrap_err();
    assert_eq!(foreign.referrals, ["ldap://other.test/DC=other,DC=test"]);
    let head = world.search(base, Scope::Subtree, "(cn=nobody)", &admin).unwrap();
    assert_eq!(head.references.len(), 3);
    assert_eq!(
        world.search("no dn", Scope::Base, "(cn=*)", &admin).unwrap_err().code,
        ResultCode::INVALID_DN_SYNTAX
    );
}

#[test]
fn long_value_lists_come_in_ranges() {
    let world = World::new(Vendor::ActiveDirectory);
    let staff = world.company.groups.iter().max_by_key(|group| group.members.len()).unwrap();
    let total = staff.members.len();
    let id = world
        .find(&format!("(&(objectClass=group)(cn={}))", crate::filter::escape(staff.name.as_bytes())))[0];
    let mut selection = select(&["member"]);
    selection.values_max = 20;
    let (_, attributes) = entry(&world, id, &selection);
    let shape: Vec<(&str, usize)> =
        attributes.iter().map(|(name, values)| (name.as_str(), values.len())).collect();
    assert_eq!(shape, [("member", 0), ("member;range=0-19", 20)]);
    let mut gathered = Vec::new();
    let mut low = 0;
    loop {
        let mut selection = select(&[&format!("member;range={low}-*")]);
        selection.values_max = 20;
        let (_, mut attributes) = entry(&world, id, &selection);
        let (name, values) = attributes.remove(0);
        low += values.len();
        gathered.extend(values);
        if name.ends_with("-*") {
            break;
        }
    }
    gathered.sort();
    gathered.dedup();
    assert_eq!(gathered.len(), total);
    let beyond = select(&[&format!("member;range={total}-*")]);
    assert_eq!(world.server().check_selection(id, &beyond).unwrap_err().code, ResultCode::OPERATIONS_ERROR);
}

#[test]
fn selections_choose_what_is_sent() {
    let world = World::new(Vendor::OpenLdap);
    let id = world.find("(uid=asmith)")[0];
    let names = |selection: &Selection| {
        entry(&world, id, selection).1.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(&select(&["1.1"])), [] as [&str; 0]);
    assert_eq!(names(&select(&["MAIL", "entryuuid"])), ["mail", "entryUUID"]);
    let user = names(&select(&[]));
    assert!(user.contains(&"objectClass".to_owned()) && !user.contains(&"entryUUID".to_owned()), "{user:?}");
    let operational = names(&select(&["+"]));
    assert!(
        operational.contains(&"entryCSN".to_owned()) && !operational.contains(&"mail".to_owned()),
        "{operational:?}"
    );
    assert!(names(&select(&["@person"])).contains(&"sn".to_owned()));
    let mut types = select(&["mail"]);
    types.types_only = true;
    assert_eq!(entry(&world, id, &types).1, [("mail".to_owned(), vec![])]);
}

#[test]
fn computed_attributes_of_active_directory() {
    let world = World::new(Vendor::ActiveDirectory);
    let alice = world.find("(sAMAccountName=asmith)")[0];
    let base = world.directory.base_dn();
    assert!(world.text(alice, "objectCategory").starts_with("CN=Person,CN=Schema,CN=Configuration,"));
    assert!(world.text(alice, "canonicalName").starts_with("acme.example/"));
    assert!(world.text(alice, "canonicalName").ends_with("/Alice Smith"));
    assert_eq!(world.text(alice, "distinguishedName"), world.server().dn_of(alice).unwrap());
    assert_eq!(world.text(alice, "msDS-PrincipalName"), "ACME\\asmith");
    let mut selection = select(&["tokenGroups"]);
    let refused = world.server().check_selection(alice, &selection).unwrap_err();
    assert_eq!(refused.code, ResultCode::OPERATIONS_ERROR);
    selection = select(&["tokenGroups"]);
    selection.base_scope = true;
    let (_, attributes) = entry(&world, alice, &selection);
    let users = world.find("(cn=Domain Users)")[0];
    let domain_users = world.server().values(users, "objectSid").remove(0);
    assert!(attributes[0].1.contains(&domain_users), "the primary group counts");
    assert!(attributes[0].1.iter().all(|sid| sid.len() == 28 || sid.len() == 16));
    let admins = world.find("(cn=Administrators)")[0];
    assert_eq!(world.text(admins, "groupType"), "-2147483643");
    assert_eq!(world.text(users, "primaryGroupToken"), "513");
    assert!(
        world.find(&format!("(memberOf=CN=Domain Users,CN=Users,{base})")).is_empty(),
        "primary groups list nobody"
    );
}

#[test]
fn ambiguous_names_find_people_by_either_order() {
    let world = World::new(Vendor::ActiveDirectory);
    let alice = world.find("(sAMAccountName=asmith)")[0];
    for text in ["ali smi", "smi ali", "Alice Smith", "asmith", "=asmith"] {
        assert!(world.find(&format!("(anr={text})")).contains(&alice), "{text}");
    }
    assert!(!world.find("(anr=lice)").contains(&alice), "a prefix, not a part");
}

#[test]
fn the_global_catalog_shows_its_part_only() {
    let world = World::new(Vendor::ActiveDirectory);
    let (filter, admin) = (Filter::parse("(sAMAccountName=asmith)").unwrap(), world.admin());
    let plan = SearchPlan { view: View::GlobalCatalog, ..plan("", Scope::Subtree, &filter, &admin) };
    let id = world.server().search(&plan).unwrap().ids[0];
    let mut selection = select(&["mail", "employeeID"]);
    selection.view = View::GlobalCatalog;
    let (_, attributes) = entry(&world, id, &selection);
    assert_eq!(attributes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["mail"]);
}

#[test]
fn root_dse_tells_what_the_server_is() {
    let read = |world: &World, selection: &Selection| {
        let mut out = BytesMut::new();
        world.server().root_dse(selection, false, &mut out);
        decode(&out).1
    };
    let windows = World::new(Vendor::ActiveDirectory);
    let attributes = read(&windows, &select(&[]));
    let value = |name: &str| {
        let found = attributes.iter().find(|(known, _)| known == name).map(|(_, values)| values[0].clone());
        String::from_utf8(found.unwrap_or_default()).unwrap()
    };
    assert_eq!(value("defaultNamingContext"), "DC=acme,DC=example");
    assert_eq!(value("currentTime"), "20261122043735.0Z");
    assert_eq!(value("dnsHostName"), "dc1.acme.example");
    assert!(value("dsServiceName").starts_with("CN=NTDS Settings,CN=DC1,CN=Servers,"));
    assert_eq!(value("highestCommittedUSN"), windows.server().highest_usn().to_string());
    let dsa = windows
        .search(&value("dsServiceName"), Scope::Base, "(objectClass=nTDSDSA)", &windows.admin())
        .unwrap()
        .ids[0];
    assert_eq!(windows.server().values(dsa, "invocationId"), [windows.server().invocation_id()]);
    assert!(windows.server().root_dse_matches(&Filter::everything()));
    assert!(!windows.server().root_dse_matches(&Filter::parse("(objectClass=person)").unwrap()));
    let open = World::new(Vendor::OpenLdap);
    assert_eq!(read(&open, &select(&[])).len(), 1, "operational attributes only on request");
    assert!(read(&open, &select(&["+"])).iter().any(|(name, _)| name == "namingContexts"));
}

#[test]
fn the_schema_subentry_describes_every_attribute() {
    for vendor in Vendor::ALL {
        let world = World::new(vendor);
        let base = world.text(world.find("(mail=*)")[0], "subschemaSubentry");
        let found = world.search(&base, Scope::Base, "(objectClass=*)", &world.admin()).unwrap().ids[0];
        let types = world.server().values(found, "attributeTypes");
        assert_eq!(types.len(), world.directory.shared.schema.len(), "{vendor:?}");
        assert!(!world.server().values(found, "objectClasses").is_empty());
    }
}
