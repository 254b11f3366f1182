//! `[exchange.<name>]` of agent.toml: where an Exchange organisation is and who we are to it. Shared by every module that
//! names it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::limits;
use crate::modules::{ConfigError, ModuleSettings};
use crate::web::auth::Auth;
use crate::web::endpoint::Endpoint;

/// One Exchange organisation.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExchangeSettings {
    /// Whether it is served by the company's own servers or by Exchange Online. Default `on_premises`.
    pub kind: Kind,
    /// On premises: URLs of the PowerShell virtual directory, tried in this order; path and query go out as they are
    /// written. `http://` only together with a way to sign in that seals messages.
    pub servers: Vec<String>,
    /// Accounts, tried in this order; the next one only when one is refused.
    pub accounts: Vec<Account>,
    /// Ways to sign in, the first one that the server offers. Default `["kerberos", "negotiate", "basic"]`; `ntlm` is the
    /// fourth that exists.
    pub auth: Vec<Auth>,
    /// Class of the servers' service principal names. Default `HTTP`, which is what IIS has.
    pub spn_class: String,
    /// Kerberos realm of the accounts. Default: from the user name.
    pub kerberos_realm: Option<String>,
    /// KDCs of that realm as `host` or `host:port`. Default: from DNS.
    pub kerberos_kdcs: Vec<String>,
    /// PEM file of the authorities that may sign the servers' certificates. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// Hosts besides those of `servers` that a server may send us on to. Default: none.
    pub redirect_hosts: Vec<String>,
    /// Exchange 2007, which has no virtual directory for PowerShell: plain remoting to the server, and its cmdlets by
    /// `Add-PSSnapin`. Default false.
    pub snap_in: bool,
    /// Sessions open at once, 1 to 3. Default 2: one for scans, one for actions.
    pub sessions_max: usize,
    /// How long a cmdlet may be silent before it counts as hanging, 60 to 3600. Default 900, the limit Exchange Online has.
    pub silence_max_secs: u64,
    /// Exchange Online: the tenant, as its GUID or its initial domain.
    pub tenant: String,
    /// Exchange Online: the application that is registered for this agent.
    pub client_id: String,
    /// Exchange Online: PEM file with the application's certificate. Its key is the secret `exchange.<name>.key`.
    pub certificate_file: Option<PathBuf>,
    /// Exchange Online: how the application's assertion is signed. Default `rs256`.
    pub assertion: Assertion,
    /// Exchange Online: where tokens come from. Default: Microsoft's public cloud; national clouds have others.
    pub token_url: Option<String>,
    /// Exchange Online: the administration API, without the tenant. Default: Microsoft's public cloud.
    pub rest_url: String,
    /// Exchange Online: what tokens are for. Default `https://outlook.office365.com/.default`.
    pub scope: String,
}

/// Who serves the organisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// PowerShell remoting to the company's servers.
    #[default]
    OnPremises,
    /// The administration API of Exchange Online.
    Online,
}

/// An account that may run cmdlets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// `ACME\svc-causeway` or `svc-causeway@acme.example`.
    pub user: String,
    /// Name of the secret that holds its password. Default: `exchange.<name>` for the first account,
    /// `exchange.<name>.2` for the second, and so on.
    #[serde(default)]
    pub password: Option<String>,
}

/// How an assertion is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Assertion {
    /// RSASSA-PKCS1-v1_5 with SHA-256; the certificate is named by its SHA-1 (`x5t`).
    #[default]
    Rs256,
    /// RSASSA-PSS with SHA-256; the certificate is named by its SHA-256 (`x5t#S256`).
    Ps256,
}

impl Default for ExchangeSettings {
    fn default() -> Self {
        Self {
            kind: Kind::OnPremises,
            servers: Vec::new(),
            accounts: Vec::new(),
            auth: vec![Auth::Kerberos, Auth::Negotiate, Auth::Basic],
            spn_class: "HTTP".to_owned(),
            kerberos_realm: None,
            kerberos_kdcs: Vec::new(),
            ca_file: None,
            redirect_hosts: Vec::new(),
            snap_in: false,
            sessions_max: limits::SESSIONS_MAX,
            silence_max_secs: limits::SILENCE_MAX.as_secs(),
            tenant: String::new(),
            client_id: String::new(),
            certificate_file: None,
            assertion: Assertion::Rs256,
            token_url: None,
            rest_url: "https://outlook.office365.com/adminapi/beta".to_owned(),
            scope: "https://outlook.office365.com/.default".to_owned(),
        }
    }
}

impl ExchangeSettings {
    /// Reads and checks the definition of that name.
    ///
    /// # Errors
    /// Names the offending key.
    pub fn read(name: &str, settings: &ModuleSettings) -> Result<Self, ConfigError> {
        let path = format!("exchange.{name}");
        let Some(value) = settings.exchanges.get(name) else {
            return Err(ConfigError::new(
                path.clone(),
                "no such Exchange organisation is defined",
                format!("add a table [{path}] with servers and accounts to agent.toml"),
            ));
        };
        let read: Self = ModuleSettings::read(&path, value)?;
        match read.kind {
            Kind::OnPremises => read.check_on_premises(&path)?,
            Kind::Online => read.check_online(&path)?,
        }
        read.check_numbers(&path)?;
        Ok(read)
    }

    /// The configured servers.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.servers.iter().filter_map(|url| Endpoint::read(url).ok()).collect()
    }

    /// The secret with the password of the n-th account, counted from 0.
    pub fn password_name(&self, exchange: &str, n: usize) -> String {
        match self.accounts.get(n).and_then(|account| account.password.clone()) {
            Some(name) => name,
            None if n == 0 => format!("exchange.{exchange}"),
            None => format!("exchange.{exchange}.{}", n + 1),
        }
    }

    /// The same for people, while there is no such secret. The name a person wrote is not repeated then: it may be the
    /// password itself.
    fn shown_password_name(&self, exchange: &str, n: usize) -> String {
        match self.accounts.get(n).and_then(|account| account.password.as_ref()) {
            Some(_) => format!("the one that exchange.{exchange}.accounts[{n}].password names"),
            None => self.password_name(exchange, n),
        }
    }

    /// What it needs and does not have, for people.
    pub fn missing_secrets(&self, exchange: &str, there: impl Fn(&str) -> bool) -> Vec<String> {
        match self.kind {
            Kind::OnPremises => (0..self.accounts.len())
                .filter(|n| !there(&self.password_name(exchange, *n)))
                .map(|n| self.shown_password_name(exchange, n))
                .collect(),
            Kind::Online => Some(self.key_name(exchange)).filter(|name| !there(name)).into_iter().collect(),
        }
    }

    /// The secret with the key of the application's certificate.
    pub fn key_name(&self, exchange: &str) -> String {
        format!("exchange.{exchange}.key")
    }

    /// Every secret it needs.
    pub fn secret_names(&self, exchange: &str) -> BTreeSet<String> {
        match self.kind {
            Kind::OnPremises => (0..self.accounts.len()).map(|n| self.password_name(exchange, n)).collect(),
            Kind::Online => BTreeSet::from([self.key_name(exchange)]),
        }
    }

    /// Where tokens come from.
    pub fn token_url(&self) -> String {
        let public = || format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", self.tenant);
        self.token_url.clone().unwrap_or_else(public)
    }

    fn check_on_premises(&self, path: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: String, advice: &str| {
            Err(ConfigError::new(format!("{path}.{key}"), problem, advice))
        };
        if self.servers.is_empty() {
            return wrong(
                "servers",
                "no server is given".into(),
                "list URLs such as https://mail1.acme.example/PowerShell/",
            );
        }
        if self.servers.len() > limits::SERVERS_MAX {
            let problem = format!("{} servers are given", self.servers.len());
            return wrong("servers", problem, "list the nearest 16 at most");
        }
        if self.auth.is_empty() {
            return wrong("auth", "no way to sign in is given".into(), "remove the key for the default");
        }
        for (n, url) in self.servers.iter().enumerate() {
            let key = format!("servers[{n}]");
            match Endpoint::read(url) {
                Err(problem) => return wrong(&key, problem, "write https://host/PowerShell/"),
                Ok(endpoint) if !endpoint.tls && self.auth == [Auth::Basic] => {
                    let problem = format!("{url} would send the password in the clear");
                    return wrong(&key, problem, "use https://, or add kerberos or negotiate to auth");
                }
                Ok(_) => {}
            }
        }
        if self.accounts.is_empty() {
            return wrong(
                "accounts",
                "no account is given".into(),
                r#"write accounts = [{ user = 'ACME\svc-causeway' }] and store its password"#,
            );
        }
        if let Some(n) = self.accounts.iter().position(|account| account.user.trim().is_empty()) {
            return wrong(&format!("accounts[{n}].user"), "it is empty".into(), "name the account");
        }
        if self.accounts.len() > limits::ACCOUNTS_MAX {
            let problem = format!("{} accounts are given", self.accounts.len());
            return wrong("accounts", problem, "list 8 at most");
        }
        if self.spn_class.is_empty() || self.spn_class.contains('/') {
            let problem = format!("{} is no class of service", self.spn_class);
            return wrong(
                "spn_class",
                problem,
                "write HTTP, or what the servers' principal names begin with",
            );
        }
        Ok(())
    }

    fn check_online(&self, path: &str) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: String, advice: &str| {
            Err(ConfigError::new(format!("{path}.{key}"), problem, advice))
        };
        let word = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
        };
        if !word(&self.tenant) {
            let problem = format!("{:?} is no tenant", self.tenant);
            return wrong("tenant", problem, "write the tenant's GUID, or acme.onmicrosoft.com");
        }
        if !word(&self.client_id) {
            let problem = format!("{:?} is no application", self.client_id);
            return wrong(
                "client_id",
                problem,
                "write the GUID of the application registered for this agent",
            );
        }
        if self.certificate_file.is_none() {
            let advice = "name the PEM file with the application's certificate";
            return wrong("certificate_file", "no certificate is given".into(), advice);
        }
        for (key, url) in [("token_url", self.token_url()), ("rest_url", self.rest_url.clone())] {
            match Endpoint::read(&url) {
                Err(problem) => return wrong(key, problem, "write https://host/path"),
                // The mock's REST front end on loopback is the one exception.
                Ok(endpoint) if !endpoint.tls && !endpoint.is_loopback() => {
                    return wrong(key, format!("{url} would show tokens to everybody"), "use https://");
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn check_numbers(&self, path: &str) -> Result<(), ConfigError> {
        let out = |key: &str, value: u64, low: u64, high: u64| {
            let problem = format!("{value} is out of range");
            Err(ConfigError::new(format!("{path}.{key}"), problem, format!("choose {low} to {high}")))
        };
        if !(1..=3).contains(&self.sessions_max) {
            return out("sessions_max", self.sessions_max as u64, 1, 3);
        }
        if !(60..=3600).contains(&self.silence_max_secs) {
            return out("silence_max_secs", self.silence_max_secs, 60, 3600);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<ExchangeSettings, ConfigError> {
        let exchanges = BTreeMap::from([("default".to_owned(), value)]);
        ExchangeSettings::read("default", &ModuleSettings { exchanges, ..ModuleSettings::default() })
    }

    #[test]
    fn path_and_query_stay_as_they_are_written() {
        let url = "https://Mail1.acme.example/PowerShell/?serializationLevel=Full;ExchClientVer=15.1.2507.6";
        let read = read(json!({ "servers": [url], "accounts": [{ "user": "ACME\\svc" }] })).unwrap();
        let endpoint = &read.endpoints()[0];
        assert_eq!(endpoint.url, url);
        assert_eq!(endpoint.path, "/PowerShell/?serializationLevel=Full;ExchClientVer=15.1.2507.6");
        assert_eq!((endpoint.port, endpoint.to_string().as_str()), (443, "Mail1.acme.example"));
        let v6 = Endpoint::read("http://[::1]:8080/powershell").unwrap();
        assert_eq!((v6.host.as_str(), v6.to_string().as_str()), ("::1", "[::1]:8080"));
        assert!(Endpoint::read("https://user:canary@host/").is_err());
    }

    #[test]
    fn basic_alone_is_not_for_http() {
        let servers = json!(["http://mail1/PowerShell/"]);
        let accounts = json!([{ "user": "svc@acme.example" }]);
        let error = read(json!({ "servers": servers, "accounts": accounts, "auth": ["basic"] })).unwrap_err();
        assert_eq!(error.path, "exchange.default.servers[0]");
        read(json!({ "servers": servers, "accounts": accounts })).unwrap();
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        for (value, path) in [
            (json!({}), "exchange.default.servers"),
            (json!({ "servers": ["https://a/"] }), "exchange.default.accounts"),
            (json!({ "servers": ["a"], "accounts": [{ "user": "x" }] }), "exchange.default.servers[0]"),
            (json!({ "kind": "online" }), "exchange.default.tenant"),
            (json!({ "kind": "cloud" }), "exchange.default.kind"),
            (
                json!({ "servers": ["https://a/"], "accounts": [{ "user": "x" }], "sessions_max": 9 }),
                "exchange.default.sessions_max",
            ),
        ] {
            let error = read(value).unwrap_err();
            assert_eq!(error.path, path, "{error}");
            assert!(!error.advice.is_empty());
        }
        let error = read(json!({ "server": [] })).unwrap_err();
        assert!(error.problem.contains("server"), "{error}");
    }

    #[test]
    fn every_account_has_its_secret() {
        let accounts = json!([{ "user": "a" }, { "user": "b" }, { "user": "c", "password": "other" }]);
        let read = read(json!({ "servers": ["https://a/"], "accounts": accounts })).unwrap();
        let names: Vec<String> = (0..3).map(|n| read.password_name("default", n)).collect();
        assert_eq!(names, ["exchange.default", "exchange.default.2", "other"]);
        assert_eq!(read.secret_names("default").len(), 3);
        let missing = read.missing_secrets("default", |name| name == "exchange.default");
        let named = "the one that exchange.default.accounts[2].password names";
        assert_eq!(missing, ["exchange.default.2", named]);
    }

    #[test]
    fn online_needs_an_application() {
        let mut value = json!({
            "kind": "online", "tenant": "acme.onmicrosoft.com",
            "client_id": "5f2b", "certificate_file": "app.pem",
        });
        let online = read(value.clone()).unwrap();
        assert_eq!(
            online.token_url(),
            "https://login.microsoftonline.com/acme.onmicrosoft.com/oauth2/v2.0/token"
        );
        value["rest_url"] = json!("http://outlook.office365.com/");
        assert_eq!(read(value).unwrap_err().path, "exchange.default.rest_url");
    }
}
