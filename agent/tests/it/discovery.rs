//! Directory servers found by service records (MS-ADTS 6.3.2.3), with the agent's own resolver and dialler.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use causeway_agent::clock::Clock;
use causeway_agent::dial::Dialer;
use causeway_agent::dial::proxy::Ways;
use causeway_agent::dial::resolve::Names;
use causeway_agent::directory::limits::DISCOVERY_TTL;
use causeway_agent::directory::{Directory, Net};
use causeway_agent::modules::ModuleSettings;
use causeway_agent::random::RandomSource;
use causeway_agent::secrets::SecretStore;
use causeway_mock_kit::dns::{DnsServer, Srv};
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_mock_ldap::{Config, MockLdap};
use causeway_protocol::Secret;
use serde_json::json;

const ALL: &str = "_ldap._tcp.dc._msdcs.acme.example";
const SITE: &str = "_ldap._tcp.hq._sites.dc._msdcs.acme.example";

/// Two domain controllers whose addresses only the name service knows.
struct World {
    ldap: MockLdap,
    dns: DnsServer,
    net: Net,
}

impl World {
    async fn start() -> Self {
        let ldap = MockLdap::start(Config::default().with_servers(2)).await.unwrap();
        let dns = DnsServer::start("acme.example").await.unwrap();
        for host in ["dc1.acme.example", "dc2.acme.example"] {
            dns.set_a(host, &[Ipv4Addr::LOCALHOST]).unwrap();
        }
        let random = RandomSource::seeded(3);
        let names = Names::new(&[dns.address()], random.clone()).unwrap();
        let net = Net { dial: Arc::new(Dialer::new(names, Ways::none())), clock: Clock::system() };
        Self { ldap, dns, net }
    }

    fn record(&self, server: u16, priority: u16) -> Srv {
        // Records speak of the plain port, which the agent secures by StartTLS.
        let front = if server == 1 { "ldap".to_owned() } else { format!("ldap_dc{server}") };
        let port = self.ldap.urls()[&front].rsplit(':').next().unwrap().parse().unwrap();
        Srv { priority, weight: 100, port, target: format!("dc{server}.acme.example") }
    }

    fn directory(&self, site: Option<&str>) -> Arc<Directory> {
        let account = self.ldap.service_account();
        let mut table = json!({
            "domain": "acme.example",
            "bind_dn": account.dn,
            "ca_file": self.ldap.ca().pem_path(),
        });
        if let Some(site) = site {
            table["site"] = json!(site);
        }
        let settings = ModuleSettings {
            directories: BTreeMap::from([("default".to_owned(), table)]),
            secrets: SecretStore::new([("directory.default".to_owned(), Secret::new(account.password))]),
            ..ModuleSettings::default()
        };
        Arc::new(Directory::new("default", &settings).unwrap())
    }

    async fn hosts(&self, directory: &Arc<Directory>) -> Vec<String> {
        let servers = directory.candidates(&self.net).await.unwrap();
        servers.iter().map(|server| server.endpoint().host.clone()).collect()
    }
}

#[tokio::test]
async fn servers_come_in_the_order_of_their_priorities_and_can_be_bound_to() {
    let world = World::start().await;
    world.dns.set_srv(ALL, &[world.record(1, 20), world.record(2, 10)]).unwrap();
    let directory = world.directory(None);
    assert_eq!(world.hosts(&directory).await, ["dc2.acme.example", "dc1.acme.example"]);
    for server in directory.candidates(&world.net).await.unwrap() {
        directory.searcher(&world.net, &server).await.unwrap();
    }
}

#[tokio::test]
async fn the_sites_servers_come_before_the_domains() {
    let world = World::start().await;
    world.dns.set_srv(ALL, &[world.record(1, 0), world.record(2, 0)]).unwrap();
    world.dns.set_srv(SITE, &[world.record(2, 50)]).unwrap();
    let directory = world.directory(Some("hq"));
    assert_eq!(world.hosts(&directory).await, ["dc2.acme.example", "dc1.acme.example"]);
}

#[tokio::test]
async fn servers_known_before_outlive_the_name_service() {
    let world = World::start().await;
    world.dns.set_srv(ALL, &[world.record(1, 0)]).unwrap();
    let directory = world.directory(None);
    assert_eq!(world.hosts(&directory).await, ["dc1.acme.example"]);
    world.dns.faults().add(Rule::new(Fault::status(2, "server failure")));
    let refused = |world: &World| {
        let entries = world.dns.journal().after(0);
        entries.iter().any(|entry| entry.operation == "SRV" && entry.outcome != "NoError")
    };
    // The resolver keeps an answer for a second, so the first questions may not get as far as the server.
    for _ in 0..200 {
        tokio::time::pause();
        tokio::time::advance(DISCOVERY_TTL * 2).await;
        tokio::time::resume();
        assert_eq!(world.hosts(&directory).await, ["dc1.acme.example"]);
        if refused(&world) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the name server was never asked again: {:?}", world.dns.journal().after(0));
}

#[tokio::test]
async fn a_domain_nobody_serves_is_named() {
    let world = World::start().await;
    let error = world.directory(None).candidates(&world.net).await.map(|_| ()).unwrap_err();
    let text = causeway_agent::chain::Chain(&error).to_string();
    assert!(text.contains("acme.example"), "{text}");
}
