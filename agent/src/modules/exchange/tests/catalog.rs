//! Where mailboxes are, as a global catalog tells it.

use std::collections::BTreeSet;

use causeway_mock_ldap::MockLdap;
use causeway_protocol::Secret;

use super::site::{PHONES, Site};
use super::*;

/// Nobody listens there.
const DEAD: &str = "ldaps://127.0.0.1:1";

/// A directory of the company whose mailboxes [`Site`] has.
async fn catalog() -> MockLdap {
    let mut config = causeway_mock_ldap::Config::default();
    config.common.users = 20;
    config.exchange = true;
    MockLdap::start(config).await.unwrap()
}

async fn with_catalog(personality: &str, ldap: &MockLdap, servers: &Value, scope: &Value) -> Site {
    let directory = json!({
        "servers": servers, "bind_dn": ldap.service_account().dn, "base_dn": ldap.directory().base_dn(),
        "ca_file": ldap.ca().pem_path(),
    });
    let secret = Secret::new(ldap.service_account().password);
    let desired = json!({ "scope": scope, "directory": "default" });
    Site::start_with(personality, |_| {}, desired, Some((directory, secret))).await
}

fn ids(site: &Site) -> Vec<String> {
    site.records().into_keys().collect()
}

/// How often a cmdlet was run.
fn asked(site: &Site, cmdlet: &str) -> usize {
    site.mock.journal().count(|entry| entry.operation == "command" && entry.subject == cmdlet)
}

/// Which phones there are, whatever key they have: the keys of 2007 are made by the module.
fn phones(site: &Site) -> BTreeSet<(String, String)> {
    site.records().into_values().map(|it| (it.mailbox, it.device_id)).collect()
}

#[tokio::test]
async fn exchange_2007_is_asked_only_for_mailboxes_that_the_catalog_places_here() {
    let ldap = catalog().await;
    let whole = Site::start("exchange2007", |_| {}, json!({})).await;
    whole.sync().await;
    let servers = whole.mock.world().servers().to_vec();
    let databases = |server: &str| {
        let world = whole.mock.world();
        let mine = world.databases().iter().filter(|it| it.server == server).map(|it| it.name.clone());
        mine.collect::<Vec<_>>()
    };
    assert!(servers.len() > 1, "{servers:?}");
    // One that is down is passed over; with all of them down Exchange is asked.
    for (catalogs, tells) in [(json!([DEAD, ldap.url("gcs")]), true), (json!([DEAD]), false)] {
        let mut seen = BTreeSet::new();
        for server in &servers {
            let mut by_scope = Vec::new();
            for scope in [
                json!({ "name": server, "servers": [server] }),
                json!({ "name": server, "databases": databases(server) }),
            ] {
                let searches = || ldap.journal().count(|entry| entry.operation == "search");
                let before = searches();
                let site = with_catalog("exchange2007", &ldap, &catalogs, &scope).await;
                assert!(site.sync().await.complete, "{scope}\n{}", site.shown());
                assert_eq!(searches() > before, tells, "{scope}");
                let found = phones(&site);
                assert!(!found.is_empty() && found.len() < PHONES, "{scope}: {found:?}");
                // No mailbox of another part is opened.
                let mailboxes: BTreeSet<&String> = found.iter().map(|(mailbox, _)| mailbox).collect();
                assert_eq!(
                    asked(&site, STATISTICS_2007),
                    mailboxes.len() + PROBE,
                    "{scope}\n{}",
                    site.shown()
                );
                assert_eq!(asked(&site, "Get-Mailbox") > 0, !tells && scope.get("databases").is_some());
                by_scope.push(found);
            }
            assert_eq!(by_scope[0], by_scope[1], "a server and its databases");
            let before = seen.len();
            seen.extend(by_scope.remove(0));
            assert_eq!(seen.len() - before, by_scope[0].len(), "the parts do not overlap");
        }
        assert_eq!(seen, phones(&whole));
    }
}

/// Which generation it is is asked once, with this cmdlet too.
const PROBE: usize = 1;

/// The only cmdlet of 2007 that shows phones.
const STATISTICS_2007: &str = "Get-ActiveSyncDeviceStatistics";

#[tokio::test]
async fn the_global_catalog_knows_where_mailboxes_are() {
    let ldap = catalog().await;
    let cmdlets = |site: &Site| asked(site, "Get-Mailbox");
    let alive = json!([ldap.url("gcs")]);
    for scope in [
        json!({"name": "d", "databases": ["DB02", "db03"]}),
        json!({"name": "s", "servers": ["MAIL2.acme.example"]}),
    ] {
        let by_cmdlets = Site::start("exchange2019", |_| {}, json!({ "scope": scope })).await;
        by_cmdlets.sync().await;
        for (servers, is_asked) in [(&alive, false), (&json!([DEAD]), true)] {
            let site = with_catalog("exchange2019", &ldap, servers, &scope).await;
            assert!(site.sync().await.complete);
            assert_eq!(ids(&site), ids(&by_cmdlets), "{scope} {servers}");
            assert!(!ids(&site).is_empty() && ids(&site).len() < PHONES, "{scope}");
            let by_database = scope.get("databases").is_some();
            assert_eq!(cmdlets(&site) > 0, is_asked && by_database, "{scope} {servers}\n{}", site.shown());
        }
    }
}
