//! Whom this machine asks for names, and the names it knows itself: resolv.conf(5) and hosts(5), or what Windows says.

use std::net::{IpAddr, SocketAddr};

use crate::limits::{DNS_HOSTS_MAX, DNS_SEARCH_MAX, DNS_SERVERS_MAX};

/// The port of DNS.
const PORT: u16 = 53;

/// What the system is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// In the order to ask them.
    pub(crate) servers: Vec<SocketAddr>,
    /// Domains in which a short name is looked for.
    pub(crate) search: Vec<String>,
    /// Dots that make a name a long one; `None` for the usual 1.
    pub(crate) dots: Option<usize>,
}

/// The file `hosts`, as far as anything in it can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts(Vec<(String, IpAddr)>);

impl Hosts {
    pub(super) fn parse(text: &str) -> Self {
        let mut hosts = Vec::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
            hosts.extend(words.map(|name| (name.trim_end_matches('.').to_owned(), address)));
            if hosts.len() > DNS_HOSTS_MAX {
                break;
            }
        }
        hosts.truncate(DNS_HOSTS_MAX);
        Self(hosts)
    }

    pub(super) fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let named = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(host));
        named.map(|(_, address)| *address).collect()
    }
}

impl Settings {
    /// From name servers and domains as a system lists them.
    pub(crate) fn new(servers: impl IntoIterator<Item = IpAddr>, search: Vec<String>) -> Self {
        let mut settings = Self { search, ..Self::default() };
        for server in servers {
            let server = SocketAddr::new(server, PORT);
            if settings.servers.len() < DNS_SERVERS_MAX && !settings.servers.contains(&server) {
                settings.servers.push(server);
            }
        }
        settings.search.retain(|domain| !domain.is_empty());
        settings.search.truncate(DNS_SEARCH_MAX);
        settings
    }

    /// resolv.conf(5). What it does not know it passes over, as every reader of that file does.
    #[cfg(any(not(windows), test))]
    pub(crate) fn parse(text: &str) -> Self {
        let (mut servers, mut search, mut dots) = (Vec::new(), Vec::new(), None);
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_ascii_whitespace();
            match words.next() {
                // An address of the link (`fe80::1%eth0`) needs its interface and cannot be used.
                Some("nameserver") => {
                    servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                // The last one counts.
                Some("search" | "domain") => {
                    search = words.map(|domain| domain.trim_matches('.').to_owned()).collect();
                }
                Some("options") => {
                    dots = words
                        .filter_map(|word| word.strip_prefix("ndots:")?.parse().ok())
                        .next_back()
                        .or(dots);
                }
                _ => {}
            }
        }
        Self { dots, ..Self::new(servers, search) }
    }

    /// The names to ask for, in order, when somebody says `host`.
    pub(super) fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(whole) = host.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|domain| format!("{host}.{domain}")).collect();
        let dots = host.bytes().filter(|c| *c == b'.').count();
        names.insert(if dots >= self.dots.unwrap_or(1) { 0 } else { names.len() }, host.to_owned());
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_resolvers_read_it() {
        let text = "# comment\nnameserver 10.0.0.1 # main\nnameserver fe80::1%eth0\nnameserver ::1\nsearch old\n\
                    domain corp.example.  sub.corp.example\noptions rotate ndots:2\nnameserver 10.0.0.1\nsortlist x\n";
        let settings = Settings::parse(text);
        assert_eq!(settings.servers, ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(settings.search, ["corp.example", "sub.corp.example"]);
        assert_eq!(settings.dots, Some(2));
        assert_eq!(Settings::parse(""), Settings::default());
    }

    #[test]
    fn short_names_are_looked_for_in_the_domains_first() {
        let settings = Settings::new([], vec!["corp.example".into(), String::new()]);
        assert_eq!(settings.candidates("dc1"), ["dc1.corp.example", "dc1"]);
        assert_eq!(settings.candidates("dc1.corp"), ["dc1.corp", "dc1.corp.corp.example"]);
        assert_eq!(settings.candidates("dc1.corp."), ["dc1.corp"]);
    }

    #[test]
    fn hosts_may_have_several_names_and_addresses() {
        let hosts = Hosts::parse(
            "127.0.0.1 localhost loop # x\n::1\tLOCALHOST\nnonsense a\n10.0.0.9 dc1.corp.example.",
        );
        let local: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(hosts.addresses("localhost"), local);
        assert_eq!(hosts.addresses("DC1.corp.example").len(), 1);
        assert!(hosts.addresses("x").is_empty());
    }
}
