//! `[proxy]` of agent.toml.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bypass::{BareName, Bypass};
use super::environment::Environment;
use super::{Access, ProxyServer, Ways};
use crate::dial::connect_proxy::{Credentials, ProxyAuth};
use crate::dial::tls::Trust;
use crate::secrets::SecretStore;

/// `[proxy]`: the way out. Without this table the environment's variables decide, and without those we go straight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxySettings {
    /// Where the way out comes from. Default: `manual` with `url`, `pac` with `pac_url` or `pac_file`, else `environment`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// `http://host:port` of a proxy that takes CONNECT, or `https://host:port` of one that wants TLS first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Destinations that take no proxy: `*`, `dom`, `.dom`, globs, `host:port`, addresses, CIDR, `<local>`. For `manual`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bypass: Vec<String>,
    /// PEM file with the authorities that may sign the certificate of an `https://` proxy or PAC server; relative to the
    /// data directory. Default: the system's store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// User name, where the proxy asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Name of the secret that holds the password. Default `proxy_password`.
    pub password_secret: String,
    /// Whether Basic may be used, which shows the password to the proxy and, over `http://`, to everybody on the way.
    /// Default: only to an `https://` proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_basic: Option<bool>,
    /// Kerberos realm of the user, for Negotiate. Default: from a user name written as `user@REALM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kerberos_realm: Option<String>,
    /// KDCs of that realm as `host` or `host:port`. Default: the SRV records `_kerberos._tcp` of the realm.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kerberos_kdcs: Vec<String>,
    /// Whether NTLM may be used inside Negotiate when Kerberos is not possible. Default: no.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub negotiate_ntlm: bool,
}

/// Where the way out comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Straight to everything.
    None,
    /// The proxy of `url`.
    Manual,
    /// The environment's variables.
    Environment,
}

/// A key of `[proxy]` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Such as `proxy.url`.
    pub key: &'static str,
    /// What is wrong; never repeats a value that may hold credentials.
    pub problem: String,
    /// What to do.
    pub advice: &'static str,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            mode: None,
            url: None,
            bypass: Vec::new(),
            ca_file: None,
            username: None,
            password_secret: "proxy_password".to_owned(),
            allow_basic: None,
            kerberos_realm: None,
            kerberos_kdcs: Vec::new(),
            negotiate_ntlm: false,
        }
    }
}

impl ProxySettings {
    /// The mode in force.
    pub fn effective_mode(&self) -> Mode {
        match self.mode {
            Some(mode) => mode,
            None if self.url.is_some() => Mode::Manual,
            None => Mode::Environment,
        }
    }

    /// Finds what cannot work.
    ///
    /// # Errors
    /// The first problem.
    pub fn validate(&self) -> Result<(), Problem> {
        if let Some(url) = &self.url {
            ProxyServer::parse(url).map_err(|problem| Problem {
                key: "proxy.url",
                problem: problem.to_string(),
                advice: "write it as http://proxy.example:3128",
            })?;
        }
        Bypass::parse(self.bypass.iter().map(String::as_str), BareName::AndBelow).map_err(|problem| {
            Problem {
                key: "proxy.bypass",
                problem: problem.to_string(),
                advice: "write names, .domains, addresses, networks such as 10.0.0.0/8, or <local>",
            }
        })?;
        if self.effective_mode() == Mode::Manual && self.url.is_none() {
            return Err(Problem {
                key: "proxy.mode",
                problem: "manual needs url".to_owned(),
                advice: "add url = \"http://proxy.example:3128\"",
            });
        }
        Ok(())
    }

    /// The ways these settings describe.
    ///
    /// # Errors
    /// When they cannot work, or the password is missing.
    pub fn ways(&self, secrets: &SecretStore, data_dir: &Path) -> Result<Ways, Problem> {
        self.validate()?;
        let auth = ProxyAuth {
            credentials: self.credentials(secrets)?,
            allow_basic: self.allow_basic,
            kerberos_realm: self.kerberos_realm.clone(),
            kerberos_kdcs: self.kerberos_kdcs.clone(),
            negotiate_ntlm: self.negotiate_ntlm,
        };
        let mut access = Access { auth, trust: self.trust(data_dir) };
        Ok(match self.effective_mode() {
            Mode::None => Ways::none(),
            Mode::Manual => {
                let server = ProxyServer::parse(self.url.as_deref().unwrap_or_default());
                let server = server.expect("validated above");
                let bypass = Bypass::parse(self.bypass.iter().map(String::as_str), BareName::AndBelow);
                Ways::manual(server, bypass.expect("validated above"), access)
            }
            Mode::Environment => {
                let environment = Environment::of_process();
                if let (None, Some(found)) = (&access.auth.credentials, environment.credentials()) {
                    access.auth.credentials = Some(found);
                    // An address with a password in it is how Basic is written; nobody has to allow it twice.
                    access.auth.allow_basic.get_or_insert(true);
                }
                Ways::environment(environment, access)
            }
        })
    }

    fn trust(&self, data_dir: &Path) -> Trust {
        self.ca_file.as_ref().map_or(Trust::System, |file| Trust::File(data_dir.join(file)))
    }

    fn credentials(&self, secrets: &SecretStore) -> Result<Option<Credentials>, Problem> {
        let Some(username) = &self.username else { return Ok(None) };
        let password = secrets.get(&self.password_secret).cloned().ok_or_else(|| Problem {
            key: "proxy.password_secret",
            problem: format!("there is no secret {}", self.password_secret),
            advice: "give it with: causeway-agent configure proxy --secret-from-stdin password",
        })?;
        Ok(Some(Credentials { username: username.clone(), password }))
    }
}
