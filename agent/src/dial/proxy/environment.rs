//! Proxies by environment variables, as Unix programs have them: `https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`.
//! A service gets them from its unit's drop-in.

use std::collections::BTreeMap;

use causeway_protocol::Secret;

use super::bypass::{BareName, Bypass};
use super::{Destination, Plan, ProxyServer, Route};
use crate::dial::connect_proxy::Credentials;

/// What the variables say.
#[derive(Clone, Default)]
pub struct Environment {
    https: Option<Named>,
    http: Option<Named>,
    all: Option<Named>,
    bypass: Bypass,
    notes: Vec<String>,
}

#[derive(Clone)]
struct Named {
    variable: String,
    server: ProxyServer,
    credentials: Option<Credentials>,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::read(std::env::vars_os().filter_map(text))
    }

    /// Lower case wins. `HTTP_PROXY` in capitals is not read where `REQUEST_METHOD` is set: there a web client has
    /// chosen it by a `Proxy:` header (CVE-2016-5385 and its family).
    pub fn read(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let wanted = |name: &str| {
            let name = name.to_ascii_lowercase();
            matches!(
                name.as_str(),
                "https_proxy" | "http_proxy" | "all_proxy" | "no_proxy" | "request_method"
            )
        };
        let variables: BTreeMap<String, String> =
            variables.into_iter().filter(|(name, _)| wanted(name)).collect();
        let mut notes = Vec::new();
        let mut proxy = |lower: &str, upper: &str| {
            let (name, value) = variables.get_key_value(lower).or_else(|| variables.get_key_value(upper))?;
            let value = value.trim();
            if value.is_empty() {
                return None;
            }
            match Named::parse(name, value) {
                Ok(named) => Some(named),
                Err(problem) => {
                    notes.push(format!("{name} is ignored: its value {problem}"));
                    None
                }
            }
        };
        let cgi = variables.contains_key("REQUEST_METHOD");
        let https = proxy("https_proxy", "HTTPS_PROXY");
        let http = proxy("http_proxy", if cgi { "http_proxy" } else { "HTTP_PROXY" });
        let all = proxy("all_proxy", "ALL_PROXY");
        let no_proxy = variables.get("no_proxy").or_else(|| variables.get("NO_PROXY"));
        let items = no_proxy.map(|list| list.split([',', ' ', ';']).collect::<Vec<_>>()).unwrap_or_default();
        let (bypass, bad) = Bypass::parse_leniently(items, BareName::AndBelow);
        notes.extend(bad.iter().map(|error| format!("no_proxy: {error}")));
        Self { https, http, all, bypass, notes }
    }

    /// The routes to a destination. This machine itself is never reached through a proxy.
    pub fn find(&self, to: &Destination) -> Plan {
        let named = self.named(to);
        let mut plan = match (named, self.bypass.matching(to)) {
            (None, _) => Plan::new(Route::Direct, "environment", "no proxy variable is set"),
            (Some(_), _) if is_loopback(to) => Plan::new(Route::Direct, "environment", "this machine itself"),
            (Some(_), Some(item)) => {
                Plan::new(Route::Direct, "environment variable no_proxy", format!("item {item}"))
            }
            (Some(named), None) => {
                let source = format!("environment variable {}", named.variable);
                Plan::new(Route::Proxy(named.server.clone()), source, "no item of no_proxy covers it")
            }
        };
        plan.notes.clone_from(&self.notes);
        plan.troubled = !self.notes.is_empty();
        plan
    }

    /// User name and password out of the variable that decides about `https`.
    pub fn credentials(&self) -> Option<Credentials> {
        self.https.as_ref().or(self.all.as_ref())?.credentials.clone()
    }

    fn named(&self, to: &Destination) -> Option<&Named> {
        let own = if to.scheme == "https" { &self.https } else { &self.http };
        own.as_ref().or(self.all.as_ref())
    }
}

pub(super) fn is_loopback(to: &Destination) -> bool {
    to.host == "localhost" || to.address().is_some_and(|address| address.is_loopback())
}

impl Named {
    fn parse(variable: &str, value: &str) -> Result<Self, super::BadAddress> {
        let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (credentials, at) = match rest.rsplit_once('@') {
            Some((user, at)) => (Some(credentials(user)), at),
            None => (None, rest),
        };
        // curl's default for a proxy without a port is 1080, but nobody runs CONNECT there.
        let server = ProxyServer::parse(&format!("{scheme}://{at}"))?;
        Ok(Self { variable: variable.to_owned(), server, credentials })
    }
}

/// User name and password as an address holds them, `user:password`.
pub(crate) fn credentials(user: &str) -> Credentials {
    let (username, password) = user.split_once(':').unwrap_or((user, ""));
    Credentials { username: unescaped(username), password: Secret::new(unescaped(password)) }
}

/// Percent-decoding (RFC 3986 2.1); what is no escape stays.
pub(crate) fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let pair = more.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::read(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn way(variables: &[(&str, &str)], url: &str) -> String {
        environment(variables).find(&Destination::parse(url).unwrap()).to_string()
    }

    #[test]
    fn lower_case_wins_and_all_proxy_is_the_last_resort() {
        let both =
            [("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:2"), ("all_proxy", "all:3")];
        assert!(
            way(&both, "https://c").starts_with("proxy http://lower:2 (by environment variable https_proxy")
        );
        assert!(way(&both, "http://c").starts_with("proxy http://all:3"), "{}", way(&both, "http://c"));
        assert!(way(&[("HTTPS_PROXY", "upper:1")], "https://c").starts_with("proxy http://upper:1"));
        assert!(way(&[], "https://c").starts_with("direct"));
        assert!(way(&[("https_proxy", "")], "https://c").starts_with("direct"));
    }

    #[test]
    fn a_web_server_s_http_proxy_is_not_believed() {
        let cgi = [("HTTP_PROXY", "http://evil:1"), ("REQUEST_METHOD", "GET")];
        assert!(way(&cgi, "http://c").starts_with("direct"));
        assert!(way(&cgi[..1], "http://c").starts_with("proxy http://evil:1"));
        let lower = [("http_proxy", "http://ours:1"), ("REQUEST_METHOD", "GET")];
        assert!(way(&lower, "http://c").starts_with("proxy http://ours:1"));
    }

    #[test]
    fn no_proxy_and_this_machine_are_excepted() {
        let set = [("https_proxy", "p:1"), ("no_proxy", "localhost, .corp.example;10.0.0.0/8 ,10.0.0.0/77")];
        assert!(way(&set, "https://a.corp.example").contains("no_proxy: item .corp.example"));
        assert!(way(&set, "https://10.1.2.3").starts_with("direct"));
        assert!(way(&set, "https://cloud.example").starts_with("proxy"));
        assert!(way(&set, "https://127.0.0.1:8443").starts_with("direct"));
        let plan = environment(&set).find(&Destination::parse("https://c").unwrap());
        assert!(plan.notes.iter().any(|note| note.contains("10.0.0.0/77")), "{:?}", plan.notes);
    }

    #[test]
    fn credentials_are_taken_out_of_the_address() {
        let set = environment(&[("https_proxy", "http://ACME%5Csvc:can%40ary@proxy.example:8080/")]);
        let credentials = set.credentials().unwrap();
        assert_eq!((credentials.username.as_str(), credentials.password.expose()), ("ACME\\svc", "can@ary"));
        let plan = set.find(&Destination::parse("https://c").unwrap()).to_string();
        assert!(plan.contains("http://proxy.example:8080") && !plan.contains("ary"), "{plan}");
        let socks = environment(&[("all_proxy", "socks5://u:canary@s:1080")]);
        let plan = socks.find(&Destination::parse("https://c").unwrap());
        assert!(
            plan.notes[0].starts_with("all_proxy is ignored") && !plan.notes[0].contains("canary"),
            "{plan:?}"
        );
    }
}
