//! Destinations that take no proxy. One grammar for agent.toml, `no_proxy` and Windows' ProxyOverride, because each
//! reader of `no_proxy` understands another part of it: `*`, `.dom`, `dom`, globs, `host:port`, addresses, CIDR and
//! `<local>`, without regard to case.

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use super::{Destination, normal};
use crate::limits::BYPASS_ITEMS_MAX;

/// A list of exceptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bypass(Vec<Item>);

/// What a bare `dom` covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareName {
    /// The name and everything below it, as curl, Go and most Unix programs read `no_proxy`.
    AndBelow,
    /// The name alone, as Windows reads ProxyOverride.
    Alone,
}

/// An item nobody can mean.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadItem {
    /// Not a name, an address or a network.
    #[error("{item:?} is neither a name nor an address nor a network")]
    Unreadable {
        /// The item, shortened.
        item: String,
    },
    /// There are too many.
    #[error("more than {BYPASS_ITEMS_MAX} items")]
    TooMany,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    text: String,
    scheme: Option<String>,
    port: Option<u16>,
    pattern: Pattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Everything,
    /// `<local>`: names without a dot.
    Local,
    Exact(String),
    /// The name and what is below it.
    Suffix(String),
    Glob(String),
    Network {
        address: IpAddr,
        prefix: u8,
    },
}

impl Bypass {
    /// Nothing is excepted.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Reads items; blank ones are skipped.
    ///
    /// # Errors
    /// Names the first item that cannot be read.
    pub fn parse<'a>(items: impl IntoIterator<Item = &'a str>, bare: BareName) -> Result<Self, BadItem> {
        let items = items.into_iter().map(str::trim).filter(|item| !item.is_empty());
        let read: Vec<Item> =
            items.take(BYPASS_ITEMS_MAX + 1).map(|item| Item::parse(item, bare)).collect::<Result<_, _>>()?;
        if read.len() > BYPASS_ITEMS_MAX { Err(BadItem::TooMany) } else { Ok(Self(read)) }
    }

    /// Reads what can be read and names the rest: an administrator's slip in `no_proxy` must not take the agent down.
    pub fn parse_leniently<'a>(
        items: impl IntoIterator<Item = &'a str>,
        bare: BareName,
    ) -> (Self, Vec<BadItem>) {
        let (mut read, mut bad) = (Vec::new(), Vec::new());
        for item in items.into_iter().map(str::trim).filter(|item| !item.is_empty()).take(BYPASS_ITEMS_MAX) {
            match Item::parse(item, bare) {
                Ok(item) => read.push(item),
                Err(error) => bad.push(error),
            }
        }
        (Self(read), bad)
    }

    /// The first item that covers the destination, as it was written.
    pub fn matching(&self, to: &Destination) -> Option<&str> {
        self.0.iter().find(|item| item.covers(to)).map(|item| item.text.as_str())
    }
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<&str> = self.0.iter().map(|item| item.text.as_str()).collect();
        f.write_str(&items.join(", "))
    }
}

impl Item {
    fn parse(text: &str, bare: BareName) -> Result<Self, BadItem> {
        let unreadable = || BadItem::Unreadable { item: super::super::steps::shortened(text) };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest.trim_end_matches('/')),
            None => (None, text),
        };
        let item = |pattern, port| Ok(Self { text: text.to_owned(), scheme: scheme.clone(), port, pattern });
        if rest == "*" {
            return item(Pattern::Everything, None);
        }
        if rest.eq_ignore_ascii_case("<local>") {
            return item(Pattern::Local, None);
        }
        if let Some((address, prefix)) = rest.split_once('/') {
            let network = network(address, prefix).ok_or_else(unreadable)?;
            return item(network, None);
        }
        let (host, port) = split_port(rest).ok_or_else(unreadable)?;
        let host = normal(host);
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '*' | '?');
        if host.is_empty() || !host.chars().all(plain) {
            return Err(unreadable());
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            let prefix = if address.is_ipv4() { 32 } else { 128 };
            return item(Pattern::Network { address, prefix }, port);
        }
        if host.contains(':') {
            return Err(unreadable());
        }
        let below = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
        let pattern = match below {
            Some("") => return Err(unreadable()),
            // `*.dom` covers `dom` itself here as it does in browsers' reading of `.dom`.
            Some(below) if !below.contains(['*', '?']) => Pattern::Suffix(below.to_owned()),
            _ if host.contains(['*', '?']) => Pattern::Glob(host),
            _ if bare == BareName::Alone => Pattern::Exact(host),
            _ => Pattern::Suffix(host),
        };
        item(pattern, port)
    }

    fn covers(&self, to: &Destination) -> bool {
        if self.scheme.as_ref().is_some_and(|scheme| scheme != to.scheme)
            || self.port.is_some_and(|port| port != to.port)
        {
            return false;
        }
        match &self.pattern {
            Pattern::Everything => true,
            Pattern::Local => !to.host.contains(['.', ':']),
            Pattern::Exact(name) => to.host == *name,
            Pattern::Suffix(name) => {
                to.address().is_none()
                    && to
                        .host
                        .strip_suffix(name.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Pattern::Glob(glob) => glob_matches(to.host.as_bytes(), glob.as_bytes()),
            Pattern::Network { address, prefix } => {
                to.address().is_some_and(|at| within(at, *address, *prefix))
            }
        }
    }
}

/// `host:port`, `[v6]:port`, or without a port; a bare IPv6 address is a host.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(v6) = text.strip_prefix('[') {
        let (host, rest) = v6.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => Some((host, Some(port.parse().ok()?))),
        _ => Some((text, None)),
    }
}

fn network(address: &str, prefix: &str) -> Option<Pattern> {
    let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= most).then_some(Pattern::Network { address, prefix })
}

/// Whether an address lies in a network. An IPv4 address written as IPv6 (`::ffff:10.0.0.1`) is an IPv4 address.
pub(super) fn within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    fn same(a: u128, b: u128, bits: u32, prefix: u8) -> bool {
        let drop = bits - u32::from(prefix).min(bits);
        drop >= bits || (a >> drop) == (b >> drop)
    }
    match (address.to_canonical(), network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32, prefix),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128, prefix),
        _ => false,
    }
}

/// `*` any run, `?` one character, everything else itself; both ends anchored. Linear space, no recursion: the glob comes
/// from scripts too.
pub(super) fn glob_matches(text: &[u8], glob: &[u8]) -> bool {
    let (mut t, mut g) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g + 1, t));
                g += 1;
            }
            Some(b'?') => {
                t += 1;
                g += 1;
            }
            Some(byte) if *byte == text[t] => {
                t += 1;
                g += 1;
            }
            _ => match &mut retry {
                Some((after, at)) => {
                    *at += 1;
                    (g, t) = (*after, *at);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(item: &str, url: &str) -> bool {
        let to = Destination::parse(url).unwrap();
        Bypass::parse([item], BareName::AndBelow).unwrap().matching(&to).is_some()
    }

    #[test]
    fn every_form_of_the_grammar() {
        for (item, url, expected) in [
            ("*", "https://anything.example", true),
            (".corp.example", "https://a.corp.example", true),
            (".corp.example", "https://corp.example", true),
            (".corp.example", "https://badcorp.example", false),
            ("corp.example", "https://corp.example", true),
            ("Corp.Example", "https://A.CORP.example.", true),
            ("corp.example", "https://badcorp.example", false),
            ("*.corp.example", "https://a.b.corp.example", true),
            ("intra*", "https://intranet", true),
            ("intra*", "https://www.intra", false),
            ("10.1.*", "https://10.1.2.3", true),
            ("host:8443", "https://host:8443", true),
            ("host:8443", "https://host", false),
            ("[2001:db8::1]:443", "https://[2001:db8::1]", true),
            ("192.0.2.7", "https://192.0.2.7", true),
            ("192.0.2.7", "https://192.0.2.70", false),
            ("10.0.0.0/8", "https://10.200.0.1", true),
            ("10.0.0.0/8", "https://11.0.0.1", false),
            ("10.0.0.0/8", "https://[::ffff:10.1.1.1]", true),
            ("10.0.0.0/8", "https://10.example", false),
            ("0.0.0.0/0", "https://203.0.113.9", true),
            ("2001:db8::/32", "https://[2001:db8:1::1]", true),
            ("2001:db8::/32", "https://[2001:db9::1]", false),
            ("<local>", "https://intranet", true),
            ("<LOCAL>", "https://intranet.corp", false),
            ("<local>", "https://[::1]", false),
            ("http://corp.example", "https://corp.example", false),
            ("https://corp.example/", "https://corp.example", true),
        ] {
            assert_eq!(covers(item, url), expected, "{item} for {url}");
        }
    }

    #[test]
    fn windows_takes_a_bare_name_for_itself_alone() {
        let bypass = Bypass::parse(["corp.example", "*.corp.example"], BareName::Alone).unwrap();
        let item = |url| bypass.matching(&Destination::parse(url).unwrap()).map(str::to_owned);
        assert_eq!(item("https://corp.example").as_deref(), Some("corp.example"));
        assert_eq!(item("https://a.corp.example").as_deref(), Some("*.corp.example"));
    }

    #[test]
    fn nonsense_is_named() {
        for bad in ["10.0.0.0/33", "a/b", "[::1", "h:port", "a b", "::zz", "."] {
            let error = Bypass::parse([bad], BareName::AndBelow).unwrap_err();
            assert!(error.to_string().contains("neither"), "{bad}: {error}");
        }
        let (read, bad) = Bypass::parse_leniently(["good.example", "10.0.0.0/99"], BareName::AndBelow);
        assert_eq!((read.to_string().as_str(), bad.len()), ("good.example", 1));
        let many = vec!["a"; BYPASS_ITEMS_MAX + 1];
        assert_eq!(Bypass::parse(many, BareName::AndBelow), Err(BadItem::TooMany));
    }

    #[test]
    fn a_glob_of_many_stars_is_quick() {
        let text = "a".repeat(2_000);
        let glob = "a*".repeat(500) + "b";
        assert!(!glob_matches(text.as_bytes(), glob.as_bytes()));
        assert!(glob_matches(b"", b"**"));
        assert!(!glob_matches(b"", b"?"));
        assert!(glob_matches(b"www.example.com", b"*.example.???"));
        assert!(!glob_matches(b"wwwXexample.com", b"www.example.com"));
    }
}
