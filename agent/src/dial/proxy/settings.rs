//! `[proxy]` of agent.toml.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bypass::{BareName, Bypass};
use super::environment::Environment;
use super::pac::fetch::Place;
use super::pac::{FixedPlace, Pac};
use super::system::System;
use super::wpad::{self, Suffixes, Wpad};
use super::{Access, ProxyServer, Ways};
use crate::dial::connect_proxy::{Credentials, ProxyAuth};
use crate::dial::direct::Straight;
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
    /// `http://`, `https://` or `file://` address of a PAC script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pac_url: Option<String>,
    /// A PAC script on this machine; relative to the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pac_file: Option<PathBuf>,
    /// For `auto`: the domain whose `wpad` host is asked. Naming it says that whatever address that host has is trusted.
    /// Default: this machine's domains, private addresses only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wpad_suffix: Option<String>,
    /// For `system` on Windows: whose Internet settings count, as a SID. Default: those of the service's own account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_sid: Option<String>,
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
    /// A PAC script, of `pac_url` or `pac_file`.
    Pac,
    /// A PAC script found by WPAD.
    Auto,
    /// The environment's variables.
    Environment,
    /// The system's settings; on Windows WinHTTP, policy and Internet settings.
    System,
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
            pac_url: None,
            pac_file: None,
            wpad_suffix: None,
            user_sid: None,
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
            None if self.pac_url.is_some() || self.pac_file.is_some() => Mode::Pac,
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
        if let Some(url) = &self.pac_url {
            Place::parse(url).map_err(|problem| Problem {
                key: "proxy.pac_url",
                problem: problem.to_string(),
                advice: "write it as http://pac.example/proxy.pac",
            })?;
        }
        let missing = match self.effective_mode() {
            Mode::Manual if self.url.is_none() => {
                Some(("manual needs url", "add url = \"http://proxy.example:3128\""))
            }
            Mode::Pac if self.pac_url.is_some() == self.pac_file.is_some() => {
                Some(("pac needs either pac_url or pac_file", "name the one script that counts"))
            }
            _ => None,
        };
        missing.map_or(Ok(()), |(problem, advice)| {
            Err(Problem { key: "proxy.mode", problem: problem.to_owned(), advice })
        })
    }

    /// The ways these settings describe.
    ///
    /// # Errors
    /// When they cannot work, or the password is missing.
    pub fn ways(&self, secrets: &SecretStore, data_dir: &Path, straight: &Straight) -> Result<Ways, Problem> {
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
            Mode::Pac => {
                let place = match (&self.pac_url, &self.pac_file) {
                    (Some(url), _) => Place::parse(url).expect("validated above"),
                    (None, file) => Place::File(data_dir.join(file.as_deref().unwrap_or(Path::new("")))),
                };
                let place = FixedPlace { place, straight: straight.clone(), trust: access.trust.clone() };
                Ways::pac(Pac::new(Box::new(place), straight.clone(), Some(data_dir)), access)
            }
            Mode::Auto => {
                let suffixes = match &self.wpad_suffix {
                    Some(suffix) => Suffixes::Configured(suffix.clone()),
                    None => Suffixes::of_this_machine(),
                };
                let wpad = Wpad { straight: straight.clone(), suffixes, port: wpad::PORT };
                Ways::pac(Pac::new(Box::new(wpad), straight.clone(), Some(data_dir)), access)
            }
            Mode::System => Ways::system(System::of_this_machine(self.user_sid.clone()), access),
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
            // Not its name: it may be the password itself.
            problem: "it names a secret that is not stored".to_owned(),
            advice: "give it with: causeway-agent configure proxy --secret-from-stdin password",
        })?;
        Ok(Some(Credentials { username: username.clone(), password }))
    }
}
