//! Writes: what changes, what is refused, and in whose words.

use super::*;

impl World {
    pub(super) fn write(&self, op: WriteOp) -> Result<WriteDone, LdapFailure> {
        self.server().write(op, &self.admin(), true)
    }

    pub(super) fn add(&self, dn: &str, attributes: &[(&str, &str)]) -> Result<WriteDone, LdapFailure> {
        self.write(add(dn, attributes))
    }

    pub(super) fn change(
        &self,
        dn: &str,
        op: ModOp,
        attribute: &str,
        values: &[&str],
    ) -> Result<WriteDone, LdapFailure> {
        self.write(modify(dn, op, attribute, values))
    }

    pub(super) fn delete(&self, dn: &str) -> Result<WriteDone, LdapFailure> {
        self.write(WriteOp::Delete { dn: dn.into(), tree: false })
    }
}

pub(super) fn add(dn: &str, attributes: &[(&str, &str)]) -> WriteOp {
    let mut gathered: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    for (name, value) in attributes {
        match gathered.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value.as_bytes().to_vec()),
            None => gathered.push(((*name).to_owned(), vec![value.as_bytes().to_vec()])),
        }
    }
    WriteOp::Add { dn: dn.into(), attributes: gathered }
}

pub(super) fn modify(dn: &str, op: ModOp, attribute: &str, values: &[&str]) -> WriteOp {
    let values = values.iter().map(|value| value.as_bytes().to_vec()).collect();
    let changes = vec![Modification { op, attribute: attribute.to_owned(), values }];
    WriteOp::Modify { dn: dn.into(), changes, permissive: false }
}

pub(super) fn rename(dn: &str, rdn: &str, superior: Option<&str>) -> WriteOp {
    WriteOp::ModifyDn {
        dn: dn.into(),
        new_rdn: rdn.into(),
        delete_old: true,
        new_superior: superior.map(|superior| superior.as_bytes().to_vec()),
    }
}

fn code(result: Result<WriteDone, LdapFailure>) -> u32 {
    result.expect_err("should be refused").code.0
}

#[test]
fn a_new_user_of_active_directory_gets_what_a_domain_controller_gives() {
    let world = World::new(Vendor::ActiveDirectory);
    let base = world.directory.base_dn();
    let dn = format!("CN=New User,CN=Users,{base}");
    world.admin();
    let before = world.server().highest_usn();
    let id = world.add(&dn, &[("objectClass", "user"), ("sAMAccountName", "newuser")]).unwrap().id;
    let texts = [
        "userAccountControl",
        "primaryGroupID",
        "name",
        "cn",
        "instanceType",
        "pwdLastSet",
        "sAMAccountType",
    ];
    let found = texts.map(|attribute| world.text(id, attribute));
    assert_eq!(found, ["546", "513", "New User", "New User", "4", "0", "805306368"]);
    assert_eq!(world.server().values(id, "objectClass").len(), 4, "the whole chain of classes");
    assert_eq!(world.text(id, "uSNCreated"), (before + 1).to_string());
    assert_eq!(world.text(id, "whenCreated"), "20261122043735.0Z");
    assert_eq!(world.find("(&(objectCategory=person)(sAMAccountName=NEWUSER))"), [id]);
    assert_eq!(code(world.add(&dn, &[("objectClass", "user")])), 68);
    let twin = format!("CN=Twin,CN=Users,{base}");
    assert_eq!(code(world.add(&twin, &[("objectClass", "user"), ("sAMAccountName", "NewUser")])), 68);
}

#[test]
fn refusals_of_active_directory() {
    let world = World::new(Vendor::ActiveDirectory);
    let base = world.directory.base_dn().to_owned();
    let user = [("objectClass", "user")];
    assert_eq!(code(world.add(&format!("CN=x,OU=nowhere,{base}"), &user)), 32);
    assert_eq!(code(world.add(&format!("CN=x,CN=Users,{base}"), &[("cn", "x")])), 65);
    assert_eq!(code(world.add(&format!("OU=x,CN=Users,{base}"), &user)), 64);
    assert_eq!(
        code(world.add(&format!("CN=x,CN=Users,{base}"), &[("objectClass", "user"), ("nosuch", "1")])),
        16
    );
    assert_eq!(
        code(world.add(&format!("CN=x,CN=Users,{base}"), &[("objectClass", "user"), ("objectSid", "1")])),
        53
    );
    assert_eq!(code(world.add("no dn", &user)), 34);
    let alice = world.dn_of(&world.company.people[0]);
    assert_eq!(code(world.change(&alice, ModOp::Replace, "userAccountControl", &["many"])), 21);
    assert_eq!(code(world.change(&alice, ModOp::Replace, "title", &["a", "b"])), 19);
    assert_eq!(code(world.change(&alice, ModOp::Add, "title", &["second"])), 20);
    assert_eq!(code(world.change(&alice, ModOp::Delete, "description", &[])), 16);
    assert_eq!(code(world.change(&alice, ModOp::Replace, "cn", &["Other"])), 67);
    assert_eq!(code(world.change(&alice, ModOp::Delete, "sAMAccountName", &[])), 65);
    assert_eq!(code(world.change(&alice, ModOp::Replace, "memberOf", &["CN=x"])), 53);
    assert_eq!(code(world.delete(&format!("CN=Users,{base}"))), 53, "protected");
    let (_, unit) = alice.split_once(',').unwrap();
    assert_eq!(code(world.delete(unit)), 66);
    let keep = WriteOp::ModifyDn {
        dn: alice.clone().into(),
        new_rdn: b"CN=Kept".to_vec(),
        delete_old: false,
        new_superior: None,
    };
    assert_eq!(code(world.write(keep)), 53);
    assert_eq!(code(world.write(rename(unit, "OU=loop", Some(unit)))), 53);
    let nobody = Identity::Entry { id: world.find("(sAMAccountName=asmith)")[0], dn: alice.clone() };
    let refused = world.server().write(modify(&alice, ModOp::Replace, "title", &["Boss"]), &nobody, true);
    assert_eq!(code(refused), 50);
}

#[test]
fn members_must_exist_and_follow_deletion_and_rename() {
    let world = World::new(Vendor::ActiveDirectory);
    let base = world.directory.base_dn().to_owned();
    let group = format!("CN=Team X,CN=Users,{base}");
    let id = world.add(&group, &[("objectClass", "group"), ("sAMAccountName", "teamx")]).unwrap().id;
    let alice = world.dn_of(&world.company.people[0]);
    assert_eq!(code(world.change(&group, ModOp::Add, "member", &["CN=ghost,DC=acme,DC=example"])), 32);
    world.change(&group, ModOp::Add, "member", &[&alice]).unwrap();
    assert_eq!(code(world.change(&group, ModOp::Add, "member", &[&alice.to_uppercase()])), 68);
    let usn = |id| world.text(id, "uSNChanged");
    let user = world.find("(sAMAccountName=asmith)")[0];
    assert!(usn(id) > usn(user), "the group changed, the member did not");
    world.write(rename(&alice, "CN=Alice Jones", Some(&format!("CN=Users,{base}")))).unwrap();
    let renamed = format!("CN=Alice Jones,CN=Users,{base}");
    assert_eq!(world.text(id, "member"), renamed);
    assert_eq!(
        world.find(&format!("(member={renamed})")),
        world.find(&format!("(&(member={renamed})(objectClass=group))"))
    );
    assert_eq!(world.text(user, "cn"), "Alice Jones");
    world.delete(&renamed).unwrap();
    assert_eq!(world.server().values(id, "member"), [] as [Vec<u8>; 0]);
    let dn_of_ou = world.dn_of(&world.company.people[1]);
    let (_, unit) = dn_of_ou.split_once(',').unwrap();
    world.write(rename(unit, "OU=Renamed", None)).unwrap();
    assert!(world.dn_of(&world.company.people[1]).contains(",OU=Renamed,"), "children follow");
}

#[test]
fn a_deleted_object_leaves_a_tombstone_until_its_time_is_over() {
    let world = World::new(Vendor::ActiveDirectory);
    let admin = world.admin();
    let alice = &world.company.people[0];
    let (dn, id) = (world.dn_of(alice), world.find("(sAMAccountName=asmith)")[0]);
    world.delete(&dn).unwrap();
    assert_eq!(world.find("(sAMAccountName=asmith)"), []);
    let filter = Filter::parse("(&(isDeleted=TRUE)(sAMAccountName=asmith))").unwrap();
    let show =
        SearchPlan { show_deleted: true, ..plan(world.directory.base_dn(), Scope::Subtree, &filter, &admin) };
    assert_eq!(world.server().search(&show).unwrap().ids, [id]);
    let guid = uuid::Uuid::from_bytes_le(alice.guid());
    let base = world.directory.base_dn();
    assert_eq!(
        world.text(id, "distinguishedName"),
        format!("CN=Alice Smith\\0ADEL:{guid},CN=Deleted Objects,{base}")
    );
    assert_eq!(world.text(id, "name"), format!("Alice Smith\nDEL:{guid}"));
    assert_eq!(world.text(id, "lastKnownParent"), dn.split_once(',').unwrap().1);
    for gone in ["mail", "displayName", "objectCategory", "memberOf", "userPrincipalName", "title"] {
        assert_eq!(world.server().values(id, gone), [] as [Vec<u8>; 0], "{gone}");
    }
    for kept in
        ["objectGUID", "objectSid", "objectClass", "sAMAccountName", "uSNChanged", "userAccountControl"]
    {
        assert_ne!(world.server().values(id, kept), [] as [Vec<u8>; 0], "{kept}");
    }
    let ordinary = Identity::Entry { id: world.find("(objectClass=user)")[4], dn: String::new() };
    let unseen = SearchPlan { who: &ordinary, ..show };
    assert_eq!(world.server().search(&unseen).unwrap().ids, [], "ordinary users cannot list Deleted Objects");
    assert!(world.server().authenticate(dn.as_bytes(), alice.password().as_bytes()).is_err());
    world.clock.advance(std::time::Duration::from_secs(181 * 86_400));
    let usn = world.server().highest_usn();
    assert_eq!(world.server().search(&show).unwrap().ids, []);
    assert_eq!(world.server().highest_usn(), usn, "garbage collection is silent");
}

#[test]
fn passwords_need_quotes_tls_and_length() {
    let world = World::new(Vendor::ActiveDirectory);
    let alice = &world.company.people[0];
    let dn = world.dn_of(alice);
    let quoted =
        |text: &str| -> Vec<u8> { format!("\"{text}\"").encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let set = |value: Vec<u8>| WriteOp::Modify {
        dn: dn.clone().into(),
        changes: vec![Modification {
            op: ModOp::Replace,
            attribute: "unicodePwd".to_owned(),
            values: vec![value],
        }],
        permissive: false,
    };
    let admin = world.admin();
    assert_eq!(code(world.server().write(set(quoted("New-Pass-1")), &admin, false)), 53);
    assert_eq!(code(world.write(set(b"plain".to_vec()))), 53);
    assert_eq!(code(world.write(set(quoted("short")))), 53);
    let id = world.write(set(quoted("New-Pass-1"))).unwrap().id;
    assert!(world.server().authenticate(dn.as_bytes(), b"New-Pass-1").is_ok());
    assert!(world.server().authenticate(dn.as_bytes(), alice.password().as_bytes()).is_err());
    assert_eq!(world.server().values(id, "unicodePwd"), [] as [Vec<u8>; 0], "never readable");
    let own = world.server().authenticate(dn.as_bytes(), b"New-Pass-1").unwrap().identity;
    let change = |old: &str, new: &str| WriteOp::Modify {
        dn: dn.clone().into(),
        changes: vec![
            Modification { op: ModOp::Delete, attribute: "unicodePwd".to_owned(), values: vec![quoted(old)] },
            Modification { op: ModOp::Add, attribute: "unicodePwd".to_owned(), values: vec![quoted(new)] },
        ],
        permissive: false,
    };
    assert_eq!(code(world.server().write(change("wrong-old", "New-Pass-2"), &own, true)), 19);
    world.server().write(change("New-Pass-1", "New-Pass-2"), &own, true).unwrap();
    assert!(world.server().authenticate(dn.as_bytes(), b"New-Pass-2").is_ok());
}

#[test]
fn the_old_password_opens_for_as_long_as_the_policy_says() {
    let world = World::with(Vendor::OpenLdap, &[], |spec| spec.accounts.old_password_grace_secs = 3600);
    let alice = &world.company.people[0];
    let dn = world.dn_of(alice);
    let old = alice.password();
    let generated = world
        .server()
        .change_password(&world.admin(), Some(dn.as_bytes()), None, None, true)
        .unwrap()
        .unwrap();
    let opens = |password: &str| world.server().authenticate(dn.as_bytes(), password.as_bytes()).is_ok();
    assert!(opens(&generated) && opens(&old));
    world.clock.advance(std::time::Duration::from_secs(3601));
    assert!(opens(&generated) && !opens(&old));
}

#[test]
fn openldap_checks_its_schema() {
    let world = World::new(Vendor::OpenLdap);
    let base = world.directory.base_dn().to_owned();
    let dn = format!("uid=new,ou=people,{base}");
    let full = [("objectClass", "inetOrgPerson"), ("uid", "new"), ("cn", "New"), ("sn", "User")];
    assert_eq!(code(world.add(&dn, &full[..3])), 65);
    let unnamed = [("objectClass", "inetOrgPerson"), ("cn", "New"), ("sn", "User")];
    let named = world.add(&format!("uid=other,ou=people,{base}"), &unnamed).unwrap().id;
    assert_eq!(world.text(named, "uid"), "other", "slapd puts the naming value in");
    assert_eq!(code(world.add(&dn, &[&full[..], &[("dc", "x")]].concat())), 65);
    assert_eq!(code(world.add(&dn, &[&full[..], &[("nosuch", "x")]].concat())), 17);
    assert_eq!(code(world.add(&dn, &[&full[..], &[("objectClass", "nosuch")]].concat())), 21);
    assert_eq!(code(world.add(&dn, &[&full[..], &[("entryUUID", "x")]].concat())), 19);
    assert_eq!(code(world.add(&dn, &[("objectClass", "dcObject"), ("dc", "x")])), 65);
    let id = world.add(&dn, &full).unwrap().id;
    assert_eq!(world.server().values(id, "objectClass"), [b"inetOrgPerson"], "classes as written");
    assert_eq!(world.find("(&(objectClass=person)(uid=new))"), [id], "but superiors match");
    assert_eq!(code(world.change(&dn, ModOp::Delete, "sn", &[])), 65);
    assert_eq!(code(world.change(&dn, ModOp::Delete, "uid", &["new"])), 64);
    let stranger = "uid=elsewhere,dc=other";
    world.change(&dn, ModOp::Add, "seeAlso", &[stranger]).unwrap();
    assert_eq!(world.text(id, "seeAlso"), stranger, "names of strangers are kept");
    assert_eq!(world.find(&format!("(seeAlso={stranger})")), [id]);
    assert_eq!(code(world.delete(&format!("ou=people,{base}"))), 66);
    world.write(WriteOp::Delete { dn: format!("ou=people,{base}").into(), tree: true }).unwrap();
    assert_eq!(world.find("(objectClass=inetOrgPerson)").len(), 1, "the service account is elsewhere");
}

#[test]
fn hashed_passwords_of_openldap_open_accounts() {
    let world = World::new(Vendor::OpenLdap);
    let dn = world.dn_of(&world.company.people[0]);
    world.change(&dn, ModOp::Replace, "userPassword", &["{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="]).unwrap();
    assert!(world.server().authenticate(dn.as_bytes(), b"secret").is_ok());
    assert_eq!(world.server().compare(dn.as_bytes(), "userPassword", b"secret", &world.admin()), Ok(true));
    assert_eq!(world.server().compare(dn.as_bytes(), "sn", b"nobody", &world.admin()), Ok(false));
}

#[test]
fn permissive_modify_forgives_what_is_done_already() {
    let world = World::new(Vendor::OpenLdap);
    let dn = world.dn_of(&world.company.people[0]);
    let changes = |permissive| {
        let change = |op, value: &str| Modification {
            op,
            attribute: "mail".to_owned(),
            values: vec![value.as_bytes().to_vec()],
        };
        let mail = world.company.people[0].mail.to_string();
        WriteOp::Modify {
            dn: dn.clone().into(),
            changes: vec![change(ModOp::Add, &mail), change(ModOp::Delete, "none@x")],
            permissive,
        }
    };
    assert_eq!(code(world.write(changes(false))), 20);
    assert!(world.write(changes(true)).is_ok());
}

#[test]
fn the_retro_changelog_of_389_tells_every_change() {
    let world = World::new(Vendor::Ds389);
    let base = world.directory.base_dn().to_owned();
    let dn = format!("uid=new,ou=people,{base}");
    world.add(&dn, &[("objectClass", "inetOrgPerson"), ("cn", "New"), ("sn", "User")]).unwrap();
    world.change(&dn, ModOp::Replace, "title", &["Zürich"]).unwrap();
    world.write(rename(&dn, "uid=newer", None)).unwrap();
    world.delete(&format!("uid=newer,ou=people,{base}")).unwrap();
    let found =
        world.search("cn=changelog", Scope::OneLevel, "(changeNumber>=1)", &world.admin()).unwrap().ids;
    let read = |id| {
        let mut out = bytes::BytesMut::new();
        assert!(world.server().encode_entry(id, &Selection::default(), &mut out));
        let (dn, attributes) = decode(&out);
        let text = |name: &str| {
            let values = attributes
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, values)| values);
            values.map_or(String::new(), |values| String::from_utf8_lossy(&values[0]).into_owned())
        };
        (dn, text("changeType"), text("targetDn"), text("changes"), text("newRdn"))
    };
    let rows: Vec<_> = found.into_iter().map(read).collect();
    let kinds: Vec<&str> = rows.iter().map(|row| row.1.as_str()).collect();
    assert_eq!(kinds, ["add", "modify", "modrdn", "delete"]);
    assert_eq!(rows[0].0, "changenumber=1,cn=changelog");
    assert!(rows[0].3.contains("sn: User\n"), "{}", rows[0].3);
    assert_eq!(rows[1].3, "replace: title\ntitle:: WsO8cmljaA==\n-\n");
    assert_eq!(rows[2].4, "uid=newer");
    let later = world
        .search("cn=changelog", Scope::OneLevel, "(&(changeNumber>=3)(changeNumber<=3))", &world.admin())
        .unwrap();
    assert_eq!(later.ids.len(), 1);
}

#[test]
fn slapd_s_codes_for_names_and_suffixes() {
    let world = World::new(Vendor::OpenLdap);
    let base = world.directory.base_dn().to_owned();
    let code = |done: Result<WriteDone, LdapFailure>| {
        done.map(|_| ResultCode::SUCCESS).unwrap_or_else(|failure| failure.code)
    };
    assert_eq!(code(world.delete(&base)), ResultCode::NOT_ALLOWED_ON_NON_LEAF);
    let unit = format!("ou=Spare,{base}");
    let classes = [("objectClass", "organizationalUnit")];
    assert_eq!(code(world.add(&unit, &classes)), ResultCode::SUCCESS);
    assert_eq!(code(world.add(&format!("nosuch=Spare,{base}"), &classes)), ResultCode::INVALID_DN_SYNTAX);
    let rename = |new_rdn: &str, superior: Option<&str>| {
        code(world.write(WriteOp::ModifyDn {
            dn: unit.as_bytes().to_vec(),
            new_rdn: new_rdn.as_bytes().to_vec(),
            delete_old: true,
            new_superior: superior.map(|dn| dn.as_bytes().to_vec()),
        }))
    };
    assert_eq!(rename("nosuch=Spare", None), ResultCode::INVALID_DN_SYNTAX);
    assert_eq!(rename("ou=Spare", Some("dc=elsewhere,dc=test")), ResultCode::AFFECTS_MULTIPLE_DSAS);
    assert_eq!(rename("ou=Spare", Some(&format!("ou=Nowhere,{base}"))), ResultCode::NO_SUCH_OBJECT);
    assert_eq!(rename("ou=Rest", None), ResultCode::SUCCESS);
    let world = World::new(Vendor::ActiveDirectory);
    let base = world.directory.base_dn().to_owned();
    assert_eq!(code(world.delete(&base)), ResultCode::UNWILLING_TO_PERFORM);
}
