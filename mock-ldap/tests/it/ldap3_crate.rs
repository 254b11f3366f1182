//! The `ldap3` crate as a client: the agent's relatives must be at home here.

use ldap3::adapters::{Adapter, EntriesOnly, PagedResults};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, Mod, Scope, SearchEntry};
use std::collections::HashSet;

use crate::world::World;

async fn connect(world: &World, front: &str, start_tls: bool) -> Ldap {
    let settings =
        LdapConnSettings::new().set_config(world.mock.ca().client_config()).set_starttls(start_tls);
    let url = world.mock.url(front).replace("127.0.0.1", "localhost");
    let (connection, ldap) = LdapConnAsync::with_settings(settings, &url).await.expect("connects");
    ldap3::drive!(connection);
    ldap
}

async fn bound(world: &World, front: &str, start_tls: bool) -> Ldap {
    let mut ldap = connect(world, front, start_tls).await;
    let login = world.mock.service_account();
    let bind = ldap.simple_bind(&login.dn, &login.password).await.expect("an answer");
    bind.success().expect("the service account binds");
    ldap
}

#[tokio::test]
async fn it_searches_over_every_kind_of_connection() {
    let world = World::ad().await;
    for (front, start_tls) in
        [("ldap", false), ("ldap", true), ("ldaps", false), ("gc", false), ("gcs", false)]
    {
        let mut ldap = bound(&world, front, start_tls).await;
        let found = ldap.search(&world.base, Scope::Subtree, "(sAMAccountName=asmith)", vec!["mail"]).await;
        let (entries, _) = found.expect("an answer").success().expect("success");
        let entries: Vec<_> =
            entries.into_iter().filter(|entry| !entry.is_ref()).map(SearchEntry::construct).collect();
        assert_eq!(entries.len(), 1, "{front} {start_tls}");
        assert!(entries[0].attrs["mail"][0].contains('@'));
        ldap.unbind().await.expect("unbind");
    }
}

#[tokio::test]
async fn its_paging_adapter_reads_everything() {
    let mut config = causeway_mock_ldap::Config::default();
    config.common.users = 1500;
    let world = World::start(config).await;
    let mut ldap = bound(&world, "ldaps", false).await;
    let adapters: Vec<Box<dyn Adapter<_, _>>> =
        vec![Box::new(EntriesOnly::new()), Box::new(PagedResults::new(400))];
    let filter = "(sAMAccountType=805306368)";
    let mut stream =
        ldap.streaming_search_with(adapters, &world.base, Scope::Subtree, filter, vec!["cn"]).await.unwrap();
    let mut names = HashSet::new();
    while let Some(entry) = stream.next().await.expect("an entry") {
        names.insert(SearchEntry::construct(entry).dn);
    }
    stream.finish().await.success().expect("success");
    assert!(names.len() >= 1500, "{}", names.len());
}

#[tokio::test]
async fn it_writes_and_compares() {
    let world = World::of("openldap").await;
    let mut ldap = bound(&world, "ldaps", false).await;
    let (dn, _) = world.person("asmith").await;
    let change = Mod::Replace("title", HashSet::from(["Chief"]));
    ldap.modify(&dn, vec![change]).await.unwrap().success().expect("modify");
    assert!(ldap.compare(&dn, "title", "chief").await.unwrap().equal().expect("compare"));
    let who = ldap.extended(ldap3::exop::WhoAmI).await.unwrap().success().expect("who am I").0;
    let who: ldap3::exop::WhoAmIResp = who.parse();
    assert!(who.authzid.starts_with("dn:"), "{}", who.authzid);
    ldap.modifydn(&dn, "uid=alice", true, None).await.unwrap().success().expect("rename");
    let dn = dn.replacen("uid=asmith", "uid=alice", 1);
    ldap.delete(&dn).await.unwrap().success().expect("delete");
    assert_eq!(ldap.delete(&dn).await.unwrap().rc, 32);
}

#[tokio::test]
async fn it_sees_the_end_of_a_connection() {
    let world = World::ad().await;
    let mut ldap = bound(&world, "ldap", false).await;
    world.mock.reset().expect("reset");
    let gone = ldap.search("", Scope::Base, "(objectClass=*)", vec!["1.1"]).await;
    assert!(gone.is_err(), "{gone:?}");
}
