//! Checklist 2: bind forms, versions, empty passwords, protection.

use std::sync::Arc;

use causeway_mock_ldap::dit::EmptyPassword;
use causeway_mock_ldap::{Config, Policies};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, OtherNameValue, SanType,
};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::client::{Client, Search};
use crate::world::{BASE, SUBTREE, World};

#[tokio::test]
async fn active_directory_takes_every_documented_name_form() {
    let world = World::ad().await;
    let (dn, password) = world.person("asmith").await;
    let mut admin = world.admin().await;
    let found = admin
        .search(&Search::new(&dn, BASE, "(objectClass=*)").attributes(&[
            "objectGUID",
            "displayName",
            "canonicalName",
        ]))
        .await;
    let entry = &found.entries[0];
    let guid = entry.all("objectGUID")[0].clone();
    let hex =
        |range: std::ops::Range<usize>| guid[range].iter().map(|b| format!("{b:02x}")).collect::<String>();
    let little = |range: std::ops::Range<usize>| {
        guid[range].iter().rev().map(|b| format!("{b:02x}")).collect::<String>()
    };
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
    for name in
        ["*", "asmith)(objectClass=*", "a\\b\\c", "x\0y", "\u{202e}htimsa", "\"'\\,+;<>#=", &"n".repeat(1000)]
    {
        let outcome = world.connect().await.bind(name, "x").await;
        assert_eq!(outcome.code, 49, "{name:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn required_signing_refuses_plain_binds_and_lets_tls_pass() {
    let mut config = Config::default();
    config.policies.require_signing = true;
    let world =
        World { mock: causeway_mock_ldap::MockLdap::start(config).await.unwrap(), base: String::new() };
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
    let world = World {
        mock: causeway_mock_ldap::MockLdap::start(Config::of("edirectory")).await.unwrap(),
        base: String::new(),
    };
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

/// TLS settings that present a certificate of the mock's authority with this subject (innermost part last) and UPN.
fn certificate(world: &World, subject: &[(DnType, &str)], upn: Option<&str>) -> Arc<ClientConfig> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    subject.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), *value));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let other = |upn: &str| {
        SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], OtherNameValue::Utf8String(upn.into())))
    };
    params.subject_alt_names.extend(upn.map(other));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, world.mock.ca().issuer()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ClientConfig::builder_with_provider(causeway_mock_kit::pki::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(world.mock.ca().roots())
        .with_client_auth_cert(vec![certificate.der().clone()], key);
    Arc::new(config.unwrap())
}

#[tokio::test]
async fn a_client_certificate_binds_the_entry_of_its_subject() {
    // One label, because rcgen keeps one DC per subject.
    let mut config = Config::of("openldap");
    config.common.domain = "acme".to_owned();
    let world = World::start(config).await;
    let (dn, _) = world.person("asmith").await;
    let oid = |last: u64| DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, last]);
    let parts: Vec<(DnType, &str)> = dn
        .split(',')
        .rev()
        .map(|rdn| match rdn.split_once('=').expect("an RDN") {
            ("dc", value) => (oid(25), value),
            ("ou", value) => (DnType::OrganizationalUnitName, value),
            ("uid", value) => (oid(1), value),
            (other, _) => panic!("{other} in {dn}"),
        })
        .collect();
    let mut client =
        Client::connect_tls(world.mock.address("ldaps"), certificate(&world, &parts, None)).await;
    let outcome = client.sasl("EXTERNAL", Some(b"")).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let who = client.extended("1.3.6.1.4.1.4203.1.11.3", None).await;
    let said = String::from_utf8_lossy(who.value.as_deref().unwrap_or_default()).to_lowercase();
    assert_eq!(said, format!("dn:{}", dn.to_lowercase()));
    let stranger = certificate(&world, &[(DnType::CommonName, "nobody")], None);
    let refused =
        Client::connect_tls(world.mock.address("ldaps"), stranger).await.sasl("EXTERNAL", None).await;
    assert_eq!(refused.code, 49, "{refused:?}");
}

#[tokio::test]
async fn active_directory_binds_the_owner_of_a_certificate_without_a_request() {
    let world = World::ad().await;
    let config = certificate(&world, &[(DnType::CommonName, "Alice")], Some(&world.upn("asmith")));
    let mut client = Client::connect_tls(world.mock.address("ldaps"), config.clone()).await;
    let who = client.extended("1.3.6.1.4.1.4203.1.11.3", None).await;
    assert_eq!(who.value.as_deref(), Some(&b"u:ACME\\asmith"[..]), "bound by the handshake alone");
    let mut upgraded = world.connect().await;
    upgraded.start_tls(config).await;
    let before = upgraded.extended("1.3.6.1.4.1.4203.1.11.3", None).await;
    assert_eq!(before.value.as_deref().unwrap_or_default(), b"", "StartTLS waits for EXTERNAL");
    assert_eq!(upgraded.sasl("EXTERNAL", None).await.code, 0);
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
    let search = Search::new("", SUBTREE, "(sAMAccountName=asmith)").attributes(&[
        "mail",
        "telephoneNumber",
        "objectGUID",
    ]);
    let found = client.search(&search).await;
    assert_eq!((found.done.code, found.entries.len()), (0, 1), "{:?}", found.done);
    assert!(found.references.is_empty(), "the Global Catalog has everything itself");
    let write = client.modify(&found.entries[0].dn, &[(2, "title", &[b"x"])]).await;
    assert_eq!(write.code, 53, "the Global Catalog is read-only: {write:?}");
    assert_eq!(world.admin_on("gcs").await.search(&search).await.entries.len(), 1);
}
