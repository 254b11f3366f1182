//! Checklist 17: add, modify, modifyDN, delete, passwords.

use causeway_mock_ldap::Config;

use crate::client::{Search, ctx, encode, request_control, sequence};
use crate::world::{BASE, SUBTREE, World};
use lber::structure::PL;

fn quoted(password: &str) -> Vec<u8> {
    format!("\"{password}\"").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

async fn add_user(world: &World, client: &mut crate::client::Client, cn: &str, login: &str) -> String {
    let dn = format!("CN={cn},CN=Users,{}", world.base);
    let outcome = client
        .add(
            &dn,
            &[
                ("objectClass", &["top", "person", "organizationalPerson", "user"]),
                ("sAMAccountName", &[login]),
                ("userPrincipalName", &[&world.upn(login)]),
                ("sn", &["New"]),
            ],
        )
        .await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    dn
}

#[tokio::test]
async fn an_account_lives_its_whole_life_over_ldaps() {
    let world = World::ad().await;
    let mut client = world.admin_on("ldaps").await;
    let dn = add_user(&world, &mut client, "Nora New", "nnew").await;
    let twice = client.add(&dn, &[("objectClass", &["user"])]).await;
    assert_eq!(twice.code, 68, "{twice:?}");
    let set = client.modify(&dn, &[(2, "unicodePwd", &[&quoted("Fresh-Pass-1")])]).await;
    assert_eq!(set.code, 0, "{set:?}");
    let enable = client.modify(&dn, &[(2, "userAccountControl", &[b"512"])]).await;
    assert_eq!(enable.code, 0, "{enable:?}");
    assert_eq!(world.connect().await.bind("ACME\\nnew", "Fresh-Pass-1").await.code, 0);
    let title =
        client.modify(&dn, &[(2, "title", &["Größe".as_bytes()]), (0, "telephoneNumber", &[b"+1"])]).await;
    assert_eq!(title.code, 0, "{title:?}");
    let renamed = client.modify_dn(&dn, "CN=Nora Newer", None).await;
    assert_eq!(renamed.code, 0, "{renamed:?}");
    let dn = format!("CN=Nora Newer,CN=Users,{}", world.base);
    let found = client.search(&Search::new(&dn, BASE, "(objectClass=*)").attributes(&["title", "cn"])).await;
    assert_eq!(found.entries[0].first("title").as_deref(), Some("Größe"));
    assert_eq!(client.delete(&dn).await.code, 0);
    assert_eq!(client.delete(&dn).await.code, 32);
    assert_eq!(world.connect().await.bind("ACME\\nnew", "Fresh-Pass-1").await.code, 49);
    let journal = world.mock.journal();
    assert_eq!(journal.count(|entry| entry.to_string().contains("Fresh")), 0, "no password in the journal");
}

#[tokio::test]
async fn passwords_need_a_protected_connection() {
    let world = World::ad().await;
    let mut plain = world.admin().await;
    let dn = add_user(&world, &mut plain, "Plain Jane", "pjane").await;
    let outcome = plain.modify(&dn, &[(2, "unicodePwd", &[&quoted("Fresh-Pass-1")])]).await;
    assert_eq!(outcome.code, 53, "{outcome:?}");
    let mut secure = world.admin_on("ldaps").await;
    let unquoted: Vec<u8> = "Fresh-Pass-1".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let outcome = secure.modify(&dn, &[(2, "unicodePwd", &[&unquoted])]).await;
    assert_ne!(outcome.code, 0, "quotes are part of the format");
    let outcome = secure.modify(&dn, &[(2, "unicodePwd", &[&quoted("x")])]).await;
    assert_ne!(outcome.code, 0, "too short");
}

#[tokio::test]
async fn people_change_their_own_password() {
    let world = World::ad().await;
    let (dn, password) = world.person("asmith").await;
    let mut client = world.connect_tls().await;
    assert_eq!(client.bind(&dn, &password).await.code, 0);
    let wrong = client
        .modify(
            &dn,
            &[(1, "unicodePwd", &[&quoted("Wrong-1")]), (0, "unicodePwd", &[&quoted("Changed-Pass-2")])],
        )
        .await;
    assert_ne!(wrong.code, 0, "{wrong:?}");
    let right = client
        .modify(
            &dn,
            &[(1, "unicodePwd", &[&quoted(&password)]), (0, "unicodePwd", &[&quoted("Changed-Pass-2")])],
        )
        .await;
    assert_eq!(right.code, 0, "{right:?}");
    assert_eq!(world.connect().await.bind(&dn, "Changed-Pass-2").await.code, 0);
    let foreign = client.modify(&world.dn_of("svc-causeway").await, &[(2, "title", &[b"x"])]).await;
    assert_eq!(foreign.code, 50, "ordinary people may not write: {foreign:?}");
}

#[tokio::test]
async fn the_password_modify_operation_works_on_openldap() {
    let world = World::of("openldap").await;
    let (dn, password) = world.person("asmith").await;
    let mut client = world.connect_tls().await;
    assert_eq!(client.bind(&dn, &password).await.code, 0);
    let request = |old: &str, new: Option<&str>| {
        let mut fields = vec![ctx(1, PL::P(old.as_bytes().to_vec()))];
        fields.extend(new.map(|new| ctx(2, PL::P(new.as_bytes().to_vec()))));
        encode(sequence(fields))
    };
    const OID: &str = "1.3.6.1.4.1.4203.1.11.1";
    let wrong = client.extended(OID, Some(&request("Wrong-1", Some("Changed-Pass-2")))).await;
    assert_ne!(wrong.code, 0, "{wrong:?}");
    let right = client.extended(OID, Some(&request(&password, Some("Changed-Pass-2")))).await;
    assert_eq!(right.code, 0, "{right:?}");
    assert_eq!(world.connect().await.bind(&dn, "Changed-Pass-2").await.code, 0);
    let generated = client.extended(OID, Some(&request("Changed-Pass-2", None))).await;
    assert_eq!(generated.code, 0, "{generated:?}");
    let fields =
        crate::client::children(crate::client::parse(generated.value.as_deref().expect("a password")));
    let password = crate::client::text(fields[0].clone());
    assert_eq!(world.connect().await.bind(&dn, &password).await.code, 0, "the generated password works");
    assert_eq!(client.extended(OID, Some(b"\x30\x05garb")).await.code, 2, "garbage is a protocol error");
    assert_eq!(world.mock.journal().count(|entry| entry.to_string().contains("Changed-Pass")), 0);
}

#[tokio::test]
async fn writes_are_refused_for_reasons() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let nowhere = client.add(&format!("CN=X,OU=Nowhere,{}", world.base), &[("objectClass", &["user"])]).await;
    assert_eq!(nowhere.code, 32, "{nowhere:?}");
    let (alice, _) = world.person("asmith").await;
    let parent = alice.split_once(',').expect("a parent").1.to_owned();
    let leafless = client.delete(&parent).await;
    assert_eq!(leafless.code, 66, "{leafless:?}");
    let gone = format!("CN=Nobody,{}", world.base);
    let group =
        client.search(&Search::new(&world.base, SUBTREE, "(cn=All Staff)")).await.entries.remove(0).dn;
    let member = client.modify(&group, &[(0, "member", &[gone.as_bytes()])]).await;
    assert_ne!(member.code, 0, "members must exist: {member:?}");
    let (dn, _) = world.person("asmith").await;
    let twice = client.modify(&group, &[(0, "member", &[dn.as_bytes()])]).await;
    assert!([20, 68].contains(&twice.code), "a member already: {twice:?}");
    let anonymous = world.connect().await.delete(&dn).await;
    assert_ne!(anonymous.code, 0);
}

#[tokio::test]
async fn permissive_modify_and_tree_delete_do_what_they_say() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let group =
        client.search(&Search::new(&world.base, SUBTREE, "(cn=All Staff)")).await.entries.remove(0).dn;
    let (dn, _) = world.person("asmith").await;
    let permissive = request_control("1.2.840.113556.1.4.1413", true, None);
    let operation = crate::client::modify_operation(&group, &[(0, "member", &[dn.as_bytes()])]);
    let outcome = client.call(operation, vec![permissive]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let ou = format!("OU=Short Lived,{}", world.base);
    assert_eq!(client.add(&ou, &[("objectClass", &["organizationalUnit"])]).await.code, 0);
    let child = format!("OU=Inner,{ou}");
    assert_eq!(client.add(&child, &[("objectClass", &["organizationalUnit"])]).await.code, 0);
    assert_eq!(client.delete(&ou).await.code, 66);
    let tree = request_control("1.2.840.113556.1.4.805", true, None);
    let operation = crate::client::app(10, PL::P(ou.as_bytes().to_vec()));
    let outcome = client.call(operation, vec![tree]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(client.search(&Search::new(&child, BASE, "(objectClass=*)")).await.done.code, 32);
}

#[tokio::test]
async fn ldif_files_extend_the_world() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("extra.ldif");
    let text = "dn: OU=Imported,DC=acme,DC=example\nobjectClass: organizationalUnit\n\n\
                dn: CN=Ida Import,OU=Imported,DC=acme,DC=example\nobjectClass: user\nsAMAccountName: iimport\nsn: Import\n";
    std::fs::write(&path, text).unwrap();
    let world = World::start(Config { people_from: vec![path.clone()], ..Config::default() }).await;
    assert!(world.dn_of("iimport").await.contains("OU=Imported"));
    std::fs::write(&path, "dn: CN=X,OU=Nowhere,DC=acme,DC=example\nobjectClass: user\nsAMAccountName: x\n")
        .unwrap();
    let error =
        causeway_mock_ldap::MockLdap::start(Config { people_from: vec![path], ..Config::default() }).await;
    let error = error.err().expect("an entry without a parent is refused");
    assert!(error.to_string().contains("extra.ldif"), "{error}");
}
