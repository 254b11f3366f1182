//! The ways out: for every destination an ordered list of routes, from agent.toml, the environment, a PAC script, WPAD
//! or the system; and a memory of proxies that fail.

pub mod bypass;
pub mod environment;
pub mod failing;
pub mod pac;
pub mod settings;
pub mod system;
pub mod watch;
pub mod wpad;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

use self::bypass::Bypass;
use self::environment::Environment;
use self::pac::Pac;
use self::system::System;
use super::connect_proxy::ProxyAuth;
use super::tls::Trust;
use super::{Side, Target};
use crate::limits::SYSTEM_PROXY_WITHIN;

/// One way to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Straight.
    Direct,
    /// By CONNECT through a proxy.
    Proxy(ProxyServer),
}

/// A proxy that takes CONNECT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyServer {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether we speak TLS to the proxy itself, around the CONNECT.
    pub tls: bool,
}

/// What a way is wanted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// `https` or `http`, lower case.
    pub scheme: &'static str,
    /// Name or address, lower case, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The answer for one destination, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order to try them. Empty only when the source names nothing we can use.
    pub routes: Vec<Route>,
    /// Where the answer comes from, such as `agent.toml` or `environment variable https_proxy`.
    pub source: String,
    /// The rule that decided, such as `bypass .corp.example`.
    pub rule: String,
    /// More for the doctor: a script's trace, entries that were skipped.
    pub notes: Vec<String>,
    /// Whether a person should look: a script that fails or is not there, a variable that is ignored.
    pub troubled: bool,
}

/// Everything that decides about ways out; replaced as a whole when settings change.
pub struct Ways {
    source: Source,
    access: Access,
}

/// Who we are to proxies, and whom we trust there.
#[derive(Clone)]
pub struct Access {
    /// User name, password, and how they may be shown.
    pub auth: ProxyAuth,
    /// Who may sign the certificate of a proxy spoken to by TLS.
    pub trust: Trust,
}

enum Source {
    None,
    Manual { server: ProxyServer, bypass: Bypass },
    Environment(Box<Environment>),
    Pac(Arc<Pac>),
    System(System),
}

/// A proxy's address that cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct BadAddress(pub &'static str);

impl Ways {
    /// Straight to everything.
    pub fn none() -> Self {
        Self { source: Source::None, access: Access::default() }
    }

    /// One proxy for everything but what `bypass` names.
    pub fn manual(server: ProxyServer, bypass: Bypass, access: Access) -> Self {
        Self { source: Source::Manual { server, bypass }, access }
    }

    /// What the environment says.
    pub fn environment(environment: Environment, access: Access) -> Self {
        Self { source: Source::Environment(Box::new(environment)), access }
    }

    /// What a PAC script says.
    pub fn pac(pac: Pac, access: Access) -> Self {
        Self { source: Source::Pac(Arc::new(pac)), access }
    }

    /// What the system's settings say.
    pub fn system(system: System, access: Access) -> Self {
        Self { source: Source::System(system), access }
    }

    /// Who we are to proxies.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The routes to a destination.
    pub async fn find(&self, to: &Destination) -> Plan {
        self.answer(to, false).await
    }

    /// The routes to a destination, worked out anew, with everything a script did in the notes.
    pub async fn explain(&self, to: &Destination) -> Plan {
        self.answer(to, true).await
    }

    /// What was learnt from the old network is stale.
    pub fn network_changed(&self) {
        if let Source::Pac(pac) = &self.source {
            pac.network_changed();
        }
    }

    async fn answer(&self, to: &Destination, traced: bool) -> Plan {
        match &self.source {
            Source::None => Plan::new(Route::Direct, "agent.toml", "mode none"),
            Source::Manual { server, bypass } => match bypass.matching(to) {
                Some(item) => Plan::new(Route::Direct, "agent.toml", format!("bypass {item}")),
                None => Plan::new(Route::Proxy(server.clone()), "agent.toml", "proxy.url"),
            },
            Source::Environment(environment) => environment.find(to),
            Source::Pac(pac) => pac.find(to, traced).await,
            Source::System(system) => {
                let (system, to) = (system.clone(), to.clone());
                let asked = tokio::task::spawn_blocking(move || system.find(&to));
                match tokio::time::timeout(SYSTEM_PROXY_WITHIN, asked).await {
                    Ok(Ok(plan)) => plan,
                    Ok(Err(_)) | Err(_) => {
                        Plan::new(Route::Direct, "system", "its settings did not come in time")
                    }
                }
            }
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self { auth: ProxyAuth::default(), trust: Trust::System }
    }
}

impl Plan {
    fn new(route: Route, source: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            routes: vec![route],
            source: source.into(),
            rule: rule.into(),
            notes: Vec::new(),
            troubled: false,
        }
    }
}

impl Destination {
    /// Everything the agent says to the outside is TLS, so `https` it is.
    pub fn of(target: &Target) -> Self {
        Self { scheme: "https", host: normal(&target.host), port: target.port }
    }

    /// Reads `https://host[:port]/...` or `http://...`; what follows the port is dropped.
    pub fn parse(url: &str) -> Result<Self, BadAddress> {
        let (scheme, port, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", 443, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", 80, rest),
            Some(_) => return Err(BadAddress("begins with neither https:// nor http://")),
            None => ("https", 443, url),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, at)| at);
        let (host, port) = host_and_port(authority, port)?;
        Ok(Self { scheme, host: normal(&host), port })
    }

    /// The address a PAC script sees: path and default port stripped, as browsers do for privacy.
    pub fn url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.scheme, self.port) {
            ("https", 443) | ("http", 80) => format!("{}://{host}/", self.scheme),
            (scheme, port) => format!("{scheme}://{host}:{port}/"),
        }
    }

    /// The host as an address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl ProxyServer {
    /// Reads `http://host:port`, `https://host:port` or `host:port`. Default ports: 3128, with TLS 443.
    pub fn parse(url: &str) -> Result<Self, BadAddress> {
        let (tls, default_port, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, 3128, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, 443, rest),
            Some(_) => return Err(BadAddress("only proxies spoken to as http:// or https:// are supported")),
            None => (false, 3128, url),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(BadAddress("must not hold credentials"));
        }
        if rest.contains(['/', '?', '#', ' ']) {
            return Err(BadAddress("must end after the port"));
        }
        let (host, port) = host_and_port(rest, default_port)?;
        Ok(Self { host: normal(&host), port, tls })
    }

    /// Where to connect: the proxy itself is always reached straight.
    pub fn target(&self) -> Target {
        Target { host: self.host.clone(), port: self.port, side: Side::Inside }
    }
}

impl fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.target())
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Proxy(server) => write!(f, "proxy {server}"),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: Vec<String> = self.routes.iter().map(ToString::to_string).collect();
        let routes = if routes.is_empty() { "no usable way".to_owned() } else { routes.join(", then ") };
        write!(f, "{routes} (by {}: {})", self.source, self.rule)
    }
}

/// Lower case, without the root's dot and an address's zone: what rules are compared with.
fn normal(host: &str) -> String {
    let host = host.strip_suffix('.').filter(|rest| !rest.is_empty()).unwrap_or(host);
    host.to_ascii_lowercase()
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port`; a bare IPv6 address is a host.
fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), BadAddress> {
    let (host, port) = if let Some(v6) = text.strip_prefix('[') {
        let (host, rest) = v6.split_once(']').ok_or(BadAddress("lacks the closing bracket"))?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or(BadAddress("must end after the port"))?),
        };
        (host, port)
    } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
        (text, None)
    } else {
        match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() || host.len() > 253 || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(BadAddress("names no host"));
    }
    let port = match port {
        None => default_port,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port > 0).ok_or(BadAddress("has an unusable port"))?
        }
        Some(_) => return Err(BadAddress("has an unusable port")),
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_from_addresses() {
        let at = |url| ProxyServer::parse(url).map(|server| server.to_string());
        assert_eq!(at("proxy.example"), Ok("http://proxy.example:3128".to_owned()));
        assert_eq!(at("http://Proxy.Example:8080/"), Ok("http://proxy.example:8080".to_owned()));
        assert_eq!(at("https://proxy.example"), Ok("https://proxy.example:443".to_owned()));
        assert_eq!(at("https://[2001:db8::1]:3129"), Ok("https://[2001:db8::1]:3129".to_owned()));
        for bad in [
            "",
            "http://",
            "socks5://p:1",
            "http://u:p@p:1",
            "http://p:0",
            "p:99999",
            "p:+1",
            "p:1/x",
            "[::1",
            "[::1]1",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scripts_see_neither_path_nor_default_port() {
        let url = |text| Destination::parse(text).map(|to| to.url());
        assert_eq!(url("https://Host.Example:443/secret?x"), Ok("https://host.example/".to_owned()));
        assert_eq!(url("https://host.example.:8443"), Ok("https://host.example:8443/".to_owned()));
        assert_eq!(url("http://user:pw@host/"), Ok("http://host/".to_owned()));
        assert_eq!(url("https://[2001:DB8::1]/"), Ok("https://[2001:db8::1]/".to_owned()));
        assert!(url("ftp://host/").is_err());
    }
}
