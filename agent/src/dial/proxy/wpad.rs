//! Web Proxy Auto-Discovery by DNS: `http://wpad.<suffix>/wpad.dat`, from this machine's domain upward. Only on request,
//! because whoever owns a name `wpad` somewhere above us would own our traffic (US-CERT TA16-144A). Hence: never a name
//! that the company may not own, and only private addresses unless the administrator has named the suffix.

use std::net::{IpAddr, Ipv6Addr};

use futures_util::future::BoxFuture;

use super::bypass::within;
use super::normal;
use super::pac::error::FetchError;
use super::pac::{Fetch, fetch};
use crate::dial::direct::Straight;
use crate::limits::WPAD_NAMES_MAX;

/// The port of the script's server; only tests need another one.
pub const PORT: u16 = 80;

/// Second labels under which registries sell names in many countries (`co.uk`, `com.au`, `or.jp`). There is no list of
/// public suffixes in the agent: it would be stale in every installation. This rule only decides how far up to ask, and
/// errs toward asking less: a two-letter top level and one of these, or any second label of up to two letters.
const REGISTRY_LABELS: [&str; 16] = [
    "ac", "co", "com", "edu", "gob", "gouv", "gov", "govt", "gv", "ltd", "mil", "ne", "net", "or", "org",
    "sch",
];

/// Finds scripts by the name `wpad`.
pub struct Wpad {
    /// Looks up and connects.
    pub straight: Straight,
    /// Where to begin: the machine's own suffixes, or the one an administrator has named.
    pub suffixes: Suffixes,
    /// See [`PORT`].
    pub port: u16,
}

/// Domains to ask in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suffixes {
    /// The administrator vouches for this one and for whatever address its `wpad` has.
    Configured(String),
    /// This machine's domains; each is walked upward, and only private addresses count.
    OfMachine(Vec<String>),
}

impl Wpad {
    fn url(&self, host: &str) -> String {
        match self.port {
            PORT => format!("http://{host}/wpad.dat"),
            port => format!("http://{host}:{port}/wpad.dat"),
        }
    }

    async fn discover(&self) -> Result<(String, String), FetchError> {
        let mut tried = Vec::new();
        for host in self.suffixes.hosts() {
            // With the root's dot: the resolver must not append the search list.
            let addresses = match self.straight.names().addresses(&format!("{host}.")).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    tried.push(format!("{host}: {}", crate::chain::Chain(&error)));
                    continue;
                }
            };
            let vouched = matches!(self.suffixes, Suffixes::Configured(_));
            let (allowed, foreign): (Vec<IpAddr>, Vec<IpAddr>) =
                addresses.into_iter().partition(|address| vouched || is_private(*address));
            if allowed.is_empty() {
                tried.push(format!(
                    "{host}: refused, because {} is a public address; set proxy.wpad_suffix if it is yours",
                    foreign.first().map(ToString::to_string).unwrap_or_default()
                ));
                continue;
            }
            let url = self.url(&host);
            match fetch::fetch_from(&url, &allowed, &self.straight).await {
                Ok(text) => return Ok((text, url)),
                Err(error) => tried.push(format!("{host}: {}", crate::chain::Chain(&error))),
            }
        }
        if tried.is_empty() {
            tried.push(
                "this machine has no domain with more than one label; set proxy.wpad_suffix".to_owned(),
            );
        }
        Err(FetchError::NoWpad { tried: tried.join("; ") })
    }
}

impl Fetch for Wpad {
    fn fetch(&self) -> BoxFuture<'_, Result<(String, String), FetchError>> {
        Box::pin(self.discover())
    }

    fn name(&self) -> String {
        "WPAD by DNS".to_owned()
    }
}

impl Suffixes {
    /// This machine's: the resolver's search list, and the domain in its own name.
    pub fn of_this_machine() -> Self {
        let settings = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut found = of_resolver_settings(&settings);
        if let Some((_, domain)) = crate::identity::host_name().split_once('.') {
            found.push(domain.to_owned());
        }
        // Windows tells a user's programs, not its services; there WinHTTP (mode system) asks DHCP and DNS itself.
        found.extend(std::env::var("USERDNSDOMAIN").ok());
        Self::OfMachine(found)
    }

    /// The hosts to ask for, in order.
    fn hosts(&self) -> Vec<String> {
        let domains: Vec<String> = match self {
            Self::Configured(suffix) => vec![trimmed(suffix)],
            Self::OfMachine(suffixes) => suffixes.iter().flat_map(|suffix| walk(suffix)).collect(),
        };
        let mut hosts: Vec<String> = Vec::new();
        for domain in domains {
            let host = format!("wpad.{domain}");
            if !hosts.contains(&host) && hosts.len() < WPAD_NAMES_MAX {
                hosts.push(host);
            }
        }
        hosts
    }
}

/// `domain` and `search` of resolv.conf(5); the last line of either kind counts.
fn of_resolver_settings(text: &str) -> Vec<String> {
    let line = text.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain")).then(|| words.map(str::to_owned).collect())
    });
    line.unwrap_or_default()
}

fn trimmed(suffix: &str) -> String {
    normal(suffix.trim_start_matches('.'))
}

/// The suffix itself and its parents, ending before the registrable domain; the suffix itself is asked even when it is
/// that domain, because the machine says it belongs there. Never a single label, never a registry.
fn walk(suffix: &str) -> Vec<String> {
    let suffix = trimmed(suffix);
    let labels: Vec<&str> = suffix.split('.').collect();
    if labels.iter().any(|label| label.is_empty()) {
        return Vec::new();
    }
    let registrable = if is_registry(&labels) { 3 } else { 2 };
    (0..labels.len())
        .take_while(|skip| {
            let left = labels.len() - skip;
            left > registrable || (*skip == 0 && left == registrable)
        })
        .map(|skip| labels[skip..].join("."))
        .collect()
}

/// Whether the last two labels look like a registry's.
fn is_registry(labels: &[&str]) -> bool {
    match labels {
        [.., second, top] => top.len() == 2 && (second.len() <= 2 || REGISTRY_LABELS.contains(second)),
        _ => false,
    }
}

/// Addresses that cannot be a stranger's: private (RFC 1918), shared (RFC 6598), link-local, loopback, unique local.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(four) => {
            four.is_private()
                || four.is_loopback()
                || four.is_link_local()
                || within(address.to_canonical(), IpAddr::from([100, 64, 0, 0]), 10)
        }
        IpAddr::V6(six) => six == Ipv6Addr::LOCALHOST || six.is_unique_local() || six.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_ends_before_the_registrable_domain() {
        for (suffix, expected) in [
            ("berlin.corp.acme.com", vec!["berlin.corp.acme.com", "corp.acme.com"]),
            ("corp.acme.com", vec!["corp.acme.com"]),
            ("Acme.Example.", vec!["acme.example"]),
            ("com", vec![]),
            ("local", vec![]),
            ("", vec![]),
            ("a..b", vec![]),
            ("co.uk", vec![]),
            ("acme.co.uk", vec!["acme.co.uk"]),
            ("ad.acme.co.uk", vec!["ad.acme.co.uk"]),
            ("x.ad.acme.com.au", vec!["x.ad.acme.com.au", "ad.acme.com.au"]),
            ("x.acme.de", vec!["x.acme.de"]),
        ] {
            assert_eq!(walk(suffix), expected, "{suffix}");
        }
    }

    #[test]
    fn only_addresses_no_stranger_can_have() {
        for (address, private) in [
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("100.64.0.1", true),
            ("169.254.1.1", true),
            ("127.0.0.1", true),
            ("203.0.113.5", false),
            ("fd00::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
            ("::ffff:8.8.8.8", false),
        ] {
            assert_eq!(is_private(address.parse().unwrap()), private, "{address}");
        }
    }

    #[test]
    fn the_machine_s_suffixes_come_from_its_resolver() {
        let text = "# made by hand\ndomain old.example\nsearch corp.acme.example acme.example\nnameserver 10.0.0.1\n";
        assert_eq!(of_resolver_settings(text), ["corp.acme.example", "acme.example"]);
        assert!(of_resolver_settings("nameserver 10.0.0.1\n").is_empty());
        let hosts = Suffixes::OfMachine(vec!["b.corp.acme.com".into(), "corp.acme.com".into()]).hosts();
        assert_eq!(hosts, ["wpad.b.corp.acme.com", "wpad.corp.acme.com"]);
        assert_eq!(Suffixes::Configured(".lan".into()).hosts(), ["wpad.lan"]);
    }
}
