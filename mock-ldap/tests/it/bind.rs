//! Checklist 2: bind forms, versions, empty passwords, protection.

use causeway_mock_ldap::dit::EmptyPassword;
use causeway_mock_ldap::{Config, Policies};

use crate::client::{Client, Search};
use crate::world::{BASE, SUBTREE, World};

#[tokio::test]
async fn active_directory_takes_every_documented_name_form() {
    let world = World::ad().await;
    let (dn, password) = world.person("asmith").await;
    let mut admin = world.admin().await;
    let found = admin
        .search(&Search::new(&dn, BASE, "(objectClass=*)").attributes(&["objectGUID", "displayName", "canonicalName"]))
        .await;
    let entry = &found.entries[0];
    let guid = entry.all("objectGUID")[0].clone();
    let hex = |range: std::ops::Range<usize>| guid[range].iter().map(|b| format!("{b:02x}")).collect::<String>();
    let little = |range: std::ops::Range<usize>| guid[range].iter().rev().map(|b| format!("{b:02x}")).collect::<String>();
    let braces =
        format!("{{{}-{}-{}-{}-{}}}", little(0..4), little(4..6), little(6..8), hex(8..10), hex(10..16));
    let forms = [
        dn.clone(),
        world.upn("asmith"),
        "ACME\\asmith".to_owned(),
        entry.first("displayName").unwrap(),
        entry.first("canonicalName").unwrap(),
        braces,
    ];
    for form in forms {
        let outcome = world.connect().await.bind(&form, &password).await;
        assert_eq!(outcome.code, 0, "{form}: {outcome:?}");
        let wrong = world.connect().await.bind(&form, "Wrong-1").await;
        assert_eq!(wrong.code, 49, "{form}: {wrong:?}");
        world.connect().await.bind(&dn, &password).await;
    }
    let plain = world.connect().await.bind("asmith", &password).await;
    assert_eq!(plain.code, 49, "a bare login is not a documented name form: {plain:?}");
}

#[tokio::test]
async fn a_bare_down_level_name_is_a_syntax_error_on_openldap() {
    let world = World::of("openldap").await;
    let outcome = world.connect().await.bind("ACME\\asmith", "x").await;
    assert_eq!(outcome.code, 34, "{outcome:?}");
    let unknown = world.connect().await.bind(&format!("uid=nobody,ou=people,{}", world.base), "x").await;
    assert_eq!((unknown.code, unknown.text.as_str()), (49, ""), "OpenLDAP gives no text");
    let (dn, password) = world.person("asmith").await;
    assert_eq!(world.connect().await.bind(&dn, &password).await.code, 0);
}

#[tokio::test]
async fn version_2_is_refused_by_openldap_and_taken_by_active_directory() {
    let openldap = World::of("openldap").await;
    let outcome = openldap.connect().await.bind_bytes(2, b"", b"").await;
    assert_eq!(outcome.code, 2);
    assert!(outcome.text.contains("historical protocol version requested"), "{outcome:?}");
    let ad = World::ad().await;
    assert_eq!(ad.connect().await.bind_bytes(2, b"", b"").await.code, 0);
    assert_eq!(ad.connect().await.bind_bytes(4, b"", b"").await.code, 2);
}

#[tokio::test]
async fn empty_passwords_have_three_behaviours() {
    for (mode, code) in
        [(EmptyPassword::Reject, 49), (EmptyPassword::Anonymous, 0), (EmptyPassword::Unwilling, 53)]
    {
        let mut config = Config::default();
        config.policies.empty_password_bind = Some(mode);
        let world = World::start(config).await;
        let (dn, _) = world.person("asmith").await;
        let mut client = world.connect().await;
        let outcome = client.bind(&dn, "").await;
        assert_eq!(outcome.code, code, "{mode:?}: {outcome:?}");
        let read = client.search(&Search::new(&world.base, BASE, "(objectClass=*)")).await;
        assert_ne!(read.done.code, 0, "{mode:?}: an empty password must not make anybody known");
    }
}

#[tokio::test]
async fn a_failed_bind_leaves_the_connection_anonymous() {
    let world = World::ad().await;
    let mut client = world.admin().await;
    let search = Search::new(&world.base, BASE, "(objectClass=*)").attributes(&["1.1"]);
    assert_eq!(client.search(&search).await.done.code, 0);
    assert_eq!(client.bind("nobody@acme.example", "x").await.code, 49);
    assert_eq!(client.search(&search).await.done.code, 1, "anonymous again");
}

#[tokio::test]
async fn passwords_that_are_not_utf8_get_a_verdict() {
    let world = World::ad().await;
    let outcome = world.connect().await.bind_bytes(3, b"ACME\\asmith", &[0xff, 0xfe, 0x00, 0x80]).await;
    assert_eq!(outcome.code, 49);
    let name = world.connect().await.bind_bytes(3, &[0xc3, 0x28, 0xff], b"x").await;
    assert!([49, 34].contains(&name.code), "{name:?}");
}

#[tokio::test]
async fn hostile_names_are_only_names() {
    let world = World::ad().await;
    for name in ["*", "asmith)(objectClass=*", "a\\b\\c", "x\0y", "\u{202e}htimsa", "\"'\\,+;<>#=", &"n".repeat(1000)] {
        let outcome = world.connect().await.bind(name, "x").await;
        assert_eq!(outcome.code, 49, "{name:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn required_signing_refuses_plain_binds_and_lets_tls_pass() {
    let mut config = Config::default();
    config.policies.require_signing = true;
    let world = World { mock: causeway_mock_ldap::MockLdap::start(config).await.unwrap(), base: String::new() };
    let login = world.mock.service_account();
    let plain = world.connect().await.bind(&login.dn, &login.password).await;
    assert_eq!(plain.code, 8, "{plain:?}");
    assert!(plain.text.starts_with("00002028"), "{plain:?}");
    assert_eq!(world.connect_tls().await.bind(&login.dn, &login.password).await.code, 0);
    let mut upgraded = world.connect().await;
    assert_eq!(upgraded.start_tls(world.mock.ca().client_config()).await.code, 0);
    assert_eq!(upgraded.bind(&login.dn, &login.password).await.code, 0);
    world.mock.set_policies(Policies::default());
    assert_eq!(world.connect().await.bind(&login.dn, &login.password).await.code, 0, "policies change live");
}

#[tokio::test]
async fn edirectory_wants_confidentiality() {
    let world = World { mock: causeway_mock_ldap::MockLdap::start(Config::of("edirectory")).await.unwrap(), base: String::new() };
    let login = world.mock.service_account();
    assert_eq!(world.connect().await.bind(&login.dn, &login.password).await.code, 13);
    assert_eq!(world.connect_tls().await.bind(&login.dn, &login.password).await.code, 0);
}

#[tokio::test]
async fn unknown_mechanisms_are_named_unsupported() {
    let world = World::ad().await;
    assert_eq!(world.connect().await.sasl("CRAM-MD5", None).await.code, 7);
    let no_certificate = world.connect_tls().await.sasl("EXTERNAL", None).await;
    assert_ne!(no_certificate.code, 0, "EXTERNAL without a certificate");
}

#[tokio::test]
async fn a_client_certificate_binds_its_owner() {
    use causeway_mock_kit::pki::LeafUse;
    let world = World::of("openldap").await;
    let (dn, _) = world.person("asmith").await;
    let login = world.mock.world().person("asmith").unwrap().mail.to_string();
    let leaf = world.mock.ca().issue_leaf(&["asmith", &login], LeafUse::Client);
    let leaf = leaf.expect("a client certificate");
    let config = world.mock.ca().client_config_with(&leaf).expect("a client configuration");
    let mut client = Client::connect_tls(world.mock.address("ldaps"), config).await;
    let outcome = client.sasl("EXTERNAL", Some(b"")).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let who = client.extended("1.3.6.1.4.1.4203.1.11.3", None).await;
    let said = String::from_utf8_lossy(who.value.as_deref().unwrap_or_default()).to_lowercase();
    assert_eq!(said, format!("dn:{}", dn.to_lowercase()));
}

#[tokio::test]
async fn who_am_i_speaks_the_personality_s_language() {
    let ad = World::ad().await;
    let mut client = ad.connect().await;
    let (dn, password) = ad.person("asmith").await;
    client.bind(&dn, &password).await;
    let outcome = client.extended("1.3.6.1.4.1.4203.1.11.3", None).await;
    assert_eq!(outcome.value.as_deref(), Some(&b"u:ACME\\asmith"[..]), "{outcome:?}");
    let unknown = client.extended("1.2.3.4.5", None).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
}

#[tokio::test]
async fn the_global_catalog_binds_and_reads_the_forest() {
    let world = World::ad().await;
    let mut client = world.admin_on("gc").await;
    let search = Search::new("", SUBTREE, "(sAMAccountName=asmith)").attributes(&["mail", "telephoneNumber", "objectGUID"]);
    let found = client.search(&search).await;
    assert_eq!((found.done.code, found.entries.len()), (0, 1), "{:?}", found.done);
    assert!(found.references.is_empty(), "the Global Catalog has everything itself");
    let write = client.modify(&found.entries[0].dn, &[(2, "title", &[b"x"])]).await;
    assert_eq!(write.code, 53, "the Global Catalog is read-only: {write:?}");
    assert_eq!(world.admin_on("gcs").await.search(&search).await.entries.len(), 1);
}
