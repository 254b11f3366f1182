//! `[directory.<name>]` of agent.toml: where a directory is and who we are to it. Shared by every module that names it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connection::{Endpoint, Security};
use super::limits;
use super::personality::Personality;
use crate::modules::{ConfigError, ModuleSettings};

/// One directory.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DirectorySettings {
    /// `auto` (read from rootDSE), or a name of the personality table.
    pub personality: String,
    /// `ldaps://host:port` or `ldap://host:port`, tried in this order.
    pub servers: Vec<String>,
    /// Instead of `servers`: the domain whose servers DNS knows.
    pub domain: Option<String>,
    /// With `domain`: the site whose servers come first.
    pub site: Option<String>,
    /// The service account: DN, UPN or `DOMAIN\name`. Empty: anonymous.
    pub bind_dn: String,
    /// Name of the secret that holds its password. Default: `directory.<name>`.
    pub password: Option<String>,
    /// PEM file of the authorities that may sign the servers' certificates. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Upgrade `ldap://` connections with StartTLS before anything else. Default true.
    pub start_tls: bool,
    /// Allow connections without any protection. Default false.
    pub allow_plain: bool,
    /// Where searches start. Default: the rootDSE's default naming context.
    pub base_dn: Option<String>,
    /// Entries of a page asked for. Default 1000, 1 to 20000.
    pub page_size: u32,
    /// Fields of the personality to replace.
    pub overrides: BTreeMap<String, Value>,
}

impl Default for DirectorySettings {
    fn default() -> Self {
        Self {
            personality: "auto".to_owned(),
            servers: Vec::new(),
            domain: None,
            site: None,
            bind_dn: String::new(),
            password: None,
            ca_file: None,
            start_tls: true,
            allow_plain: false,
            base_dn: None,
            page_size: limits::PAGE_SIZE,
            overrides: BTreeMap::new(),
        }
    }
}

impl DirectorySettings {
    /// Reads and checks the definition of that name.
    ///
    /// # Errors
    /// Names the offending key.
    pub fn read(name: &str, settings: &ModuleSettings) -> Result<Self, ConfigError> {
        let path = format!("directory.{name}");
        let Some(value) = settings.directories.get(name) else {
            return Err(ConfigError::new(
                path.clone(),
                "no such directory is defined",
                format!("add a table [{path}] with servers, bind_dn and ca_file to agent.toml"),
            ));
        };
        let read: Self = ModuleSettings::read(&path, value)?;
        read.check(&path)?;
        Ok(read)
    }

    fn check(&self, path: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: String, advice: &str| {
            Err(ConfigError::new(format!("{path}.{key}"), problem, advice))
        };
        if self.servers.is_empty() && self.domain.is_none() {
            return wrong(
                "servers",
                "neither servers nor a domain is given".into(),
                "list servers, or name the domain",
            );
        }
        if self.domain.as_ref().is_some_and(|domain| domain.trim().is_empty()) {
            return wrong("domain", "it is empty".into(), "name the domain, or remove the key");
        }
        for (n, server) in self.servers.iter().enumerate() {
            if let Err(problem) = self.endpoint(server) {
                return wrong(&format!("servers[{n}]"), problem, "write ldaps://host:port");
            }
        }
        if !(1..=20_000).contains(&self.page_size) {
            return wrong("page_size", format!("{} is out of range", self.page_size), "choose 1 to 20000");
        }
        if self.personality != "auto" && Personality::named(&self.personality).is_none() {
            return wrong(
                "personality",
                format!("{} is unknown", self.personality),
                "use auto, active_directory, openldap, ds389, edirectory or domino",
            );
        }
        Personality::check_overrides(&self.overrides).map_err(|problem| {
            ConfigError::new(format!("{path}.overrides"), problem, "correct or remove the key")
        })
    }

    /// The listed servers.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.servers.iter().filter_map(|server| self.endpoint(server).ok()).collect()
    }

    /// A server that DNS named. Its records speak of the plain port even where TLS is wanted.
    pub fn discovered(&self, host: String, port: u16) -> Endpoint {
        match (self.start_tls, port) {
            (true, _) => Endpoint { host, port, security: Security::StartTls },
            (false, 389) => Endpoint { host, port: 636, security: Security::Tls },
            (false, _) => Endpoint { host, port, security: Security::Tls },
        }
    }

    fn endpoint(&self, text: &str) -> Result<Endpoint, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("{text} lacks ldap:// or ldaps://"))?;
        let rest = rest.trim_end_matches('/');
        if rest.contains('@') {
            return Err("the address must not hold credentials".to_owned());
        }
        let (security, default_port) = match scheme {
            "ldaps" => (Security::Tls, 636),
            "ldap" if self.start_tls => (Security::StartTls, 389),
            "ldap" if self.allow_plain => (Security::Plain, 389),
            "ldap" => {
                return Err(format!("{text} would send passwords in the clear; set start_tls or use ldaps"));
            }
            other => return Err(format!("{other}:// is neither ldap:// nor ldaps://")),
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| format!("{text} lacks a bracket"))?;
                (host, after.strip_prefix(':'))
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| format!("{port} is no port number"))?,
            None => default_port,
        };
        if host.is_empty() || host.contains('/') {
            return Err(format!("{text} names no host"));
        }
        Ok(Endpoint { host: host.to_owned(), port, security })
    }

    /// Name of the secret with the service account's password.
    pub fn password_name(&self, directory: &str) -> String {
        self.password.clone().unwrap_or_else(|| format!("directory.{directory}"))
    }

    /// The same for people, while there is no such secret. The name a person wrote is not repeated then: it may be the
    /// password itself.
    pub fn shown_password_name(&self, directory: &str) -> String {
        match &self.password {
            Some(_) => format!("the secret that directory.{directory}.password names"),
            None => format!("the secret directory.{directory}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<DirectorySettings, ConfigError> {
        let settings = ModuleSettings {
            directories: BTreeMap::from([("default".to_owned(), value)]),
            ..ModuleSettings::default()
        };
        DirectorySettings::read("default", &settings)
    }

    #[test]
    fn plain_text_must_be_asked_for() {
        let error = read(json!({"servers": ["ldap://dc1"], "start_tls": false})).unwrap_err();
        assert_eq!(error.path, "directory.default.servers[0]");
        let plain =
            read(json!({"servers": ["ldap://dc1"], "start_tls": false, "allow_plain": true})).unwrap();
        assert_eq!(plain.endpoints()[0].security, Security::Plain);
    }

    #[test]
    fn endpoints_have_default_ports_and_know_ipv6() {
        let read = read(json!({"servers": ["ldaps://dc1", "ldap://[::1]:1389"]})).unwrap();
        let shown: Vec<_> = read.endpoints().iter().map(|e| (e.to_string(), e.security)).collect();
        assert_eq!(
            shown,
            [("dc1:636".to_owned(), Security::Tls), ("[::1]:1389".to_owned(), Security::StartTls)]
        );
    }

    #[test]
    fn an_empty_domain_is_none() {
        assert_eq!(read(json!({"domain": " "})).unwrap_err().path, "directory.default.domain");
    }

    #[test]
    fn a_password_in_the_wrong_place_is_not_repeated() {
        for wrong in [
            json!({"servers": ["ldaps://svc:canary@dc1"]}),
            json!({"servers": ["ldaps://dc1"], "page_size": "canary"}),
            json!({"servers": ["ldaps://dc1"], "start_tls": "canary"}),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(!format!("{error} {}", error.advice).contains("canary"), "{error}");
        }
        let named = read(json!({"servers": ["ldaps://dc1"], "password": "canary"})).unwrap();
        assert_eq!(named.shown_password_name("a"), "the secret that directory.a.password names");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = read(json!({"servers": ["ldaps://dc1"], "bind_password": "x"})).unwrap_err();
        assert!(error.path.starts_with("directory.default"), "{error}");
        assert!(error.problem.contains("bind_password"), "{error}");
    }

    #[test]
    fn an_override_of_nothing_is_named() {
        let error =
            read(json!({"servers": ["ldaps://dc1"], "overrides": {"user_fliter": "(x=y)"}})).unwrap_err();
        assert_eq!(error.path, "directory.default.overrides");
    }
}
