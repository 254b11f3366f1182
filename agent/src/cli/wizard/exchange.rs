//! Exchange: where it is, who we are to it, and what it shows us.

use std::path::{Path, PathBuf};

use super::Session;
use super::console::{ask, choose, confirm};
use super::directory::of;
use crate::checks::{CheckResult, Verdict};
use crate::cli::check::trial_of_module;
use crate::cli::enroll::from_file;
use crate::directory::Net;
use crate::exchange::settings::{ExchangeSettings, Kind};
use crate::exchange::{Organisation, doctor};
use crate::modules::{ConfigError, ModuleSettings, exchange};
use crate::random::RandomSource;

/// The table, and the name of the secret that holds the first account's password.
const TABLE: &str = "exchange.default";

/// The same with the key of an application.
const KEY: &str = "exchange.default.key";

/// Stands for the account while only servers are tried, which nobody is told.
const NOT_YET: &str = "nobody";

impl Session<'_> {
    /// Asks until the servers answer, the account may sign in, and phones can be read; or the person goes on without.
    pub(super) async fn exchange(&mut self) -> anyhow::Result<()> {
        self.console.say("\nExchange");
        let before = self.draft.settings()?.settings.exchange.contains_key("default");
        if !confirm(self.console, "  Are there phones on Exchange to look after?", before)? {
            return Ok(());
        }
        let current = self.current_exchange()?;
        let options = ["the company's own servers".to_owned(), "Exchange Online".to_owned()];
        self.console.say("  Who serves the mailboxes?");
        let chosen = choose(self.console, "  Number", &options, usize::from(current.kind == Kind::Online))?;
        if chosen == 1 {
            self.draft.set(TABLE, "kind", "online")?;
            return self.online().await;
        }
        self.draft.unset(TABLE, "kind")?;
        loop {
            self.ask_exchange_servers()?;
            if self.try_exchange_servers().await? || !confirm(self.console, "  Correct it?", true)? {
                break;
            }
        }
        loop {
            self.ask_exchange_account()?;
            if self.try_exchange().await? || !confirm(self.console, "  Correct it?", true)? {
                return Ok(());
            }
        }
    }

    /// The same for an application registered with the tenant.
    async fn online(&mut self) -> anyhow::Result<()> {
        loop {
            self.ask_application()?;
            if self.try_exchange().await? || !confirm(self.console, "  Correct it?", true)? {
                return Ok(());
            }
        }
    }

    /// As far as it is written; what is missing has its default.
    fn current_exchange(&self) -> anyhow::Result<ExchangeSettings> {
        let settings = self.draft.settings()?.settings;
        let table = settings.exchange.get("default").cloned().unwrap_or_default();
        Ok(serde_json::from_value(table).unwrap_or_default())
    }

    fn ask_exchange_servers(&mut self) -> anyhow::Result<()> {
        loop {
            let before = self.draft.clone();
            let current = self.current_exchange()?;
            let question = "  Servers (https://host/PowerShell/, several by comma)";
            let typed = ask(self.console, question, &current.servers.join(", "))?;
            let servers: Vec<toml::Value> =
                typed.split(',').map(|server| server.trim().to_owned().into()).collect();
            self.draft.set(TABLE, "servers", servers)?;
            self.ask_authority(TABLE, current.ca_file.as_ref())?;
            if confirm(self.console, "  Is it Exchange 2007?", current.snap_in)? {
                self.draft.set(TABLE, "snap_in", true)?;
            } else {
                self.draft.unset(TABLE, "snap_in")?;
            }
            match self.without_account() {
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.say_wrong(&error);
                    self.draft = before;
                }
            }
        }
    }

    pub(super) fn say_wrong(&mut self, error: &ConfigError) {
        self.console.say(&format!("  {}: {}; {}", error.path, error.problem, error.advice));
    }

    /// The organisation with an account in it, whoever that is.
    fn without_account(&self) -> Result<Organisation, ConfigError> {
        let mut told = self.exchange_told()?;
        if let Some(table) = told.exchanges.get_mut("default")
            && table.get("accounts").is_none()
        {
            table["accounts"] = serde_json::json!([{ "user": NOT_YET }]);
        }
        Organisation::new("default", &told)
    }

    fn exchange_told(&self) -> Result<ModuleSettings, ConfigError> {
        let settings = self.draft.settings().map_err(|error| {
            ConfigError::new("agent.toml", crate::chain::Chain(&error).to_string(), "correct it")
        })?;
        Ok(of(&settings.settings, self))
    }

    async fn try_exchange_servers(&mut self) -> anyhow::Result<bool> {
        self.console.say("  Trying the servers ...");
        let organisation = self.without_account()?;
        let settings = self.draft.settings()?;
        let dial = crate::dialer(&settings, &self.draft.secrets, &RandomSource::system())?;
        let net = Net { dial, clock: crate::clock::Clock::system() };
        let results = doctor::reach(&organisation, &net).await;
        Ok(self.show(&results))
    }

    fn ask_exchange_account(&mut self) -> anyhow::Result<()> {
        let before = self.draft.clone();
        loop {
            let current = self.current_exchange()?;
            let known = current.accounts.first().map(|account| account.user.clone()).unwrap_or_default();
            let account = ask(self.console, "  Account (DOMAIN\\user or user@domain)", &known)?;
            let mut accounts: Vec<toml::Value> = Vec::new();
            for (n, kept) in current.accounts.iter().enumerate() {
                let mut one = toml::Table::new();
                one.insert("user".into(), if n == 0 { account.clone() } else { kept.user.clone() }.into());
                if let Some(password) = &kept.password {
                    one.insert("password".into(), password.clone().into());
                }
                accounts.push(one.into());
            }
            if accounts.is_empty() {
                accounts.push(toml::Table::from_iter([("user".to_owned(), account.into())]).into());
            }
            self.draft.set(TABLE, "accounts", accounts)?;
            let name = self.current_exchange()?.password_name("default", 0);
            let sealed = self.draft.secrets.get(&name).is_some_and(|secret| !secret.is_empty());
            let prompt = if sealed {
                "  Its password (not shown; empty: the one that is sealed): "
            } else {
                "  Its password (not shown): "
            };
            let password = self.console.secret(prompt)?;
            if !password.is_empty() {
                self.draft.set_secret(&name, password);
            }
            match self.exchange_told().and_then(|told| Organisation::new("default", &told)) {
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.say_wrong(&error);
                    self.draft = before.clone();
                }
            }
        }
    }

    fn ask_application(&mut self) -> anyhow::Result<()> {
        let before = self.draft.clone();
        loop {
            let current = self.current_exchange()?;
            let tenant = ask(self.console, "  Tenant (its GUID, or acme.onmicrosoft.com)", &current.tenant)?;
            self.draft.set(TABLE, "tenant", tenant)?;
            let client_id = ask(self.console, "  Application (client) id", &current.client_id)?;
            self.draft.set(TABLE, "client_id", client_id)?;
            let file = current.certificate_file.as_ref().map(|file| file.display().to_string());
            let certificate = self.ask_file("  PEM file of its certificate", &file.unwrap_or_default())?;
            self.draft.set(TABLE, "certificate_file", certificate.to_string_lossy().into_owned())?;
            self.ask_key(KEY)?;
            self.ask_national_cloud(&current)?;
            match self.exchange_told().and_then(|told| Organisation::new("default", &told)) {
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.say_wrong(&error);
                    self.draft = before.clone();
                }
            }
        }
    }

    /// A key has many lines, so it is read from its file, and sealed.
    pub(super) fn ask_key(&mut self, name: &str) -> anyhow::Result<()> {
        let sealed = self.draft.secrets.get(name).is_some_and(|secret| !secret.is_empty());
        let question = if sealed {
            "  PEM file of its key, to be sealed here (empty: the one that is sealed)"
        } else {
            "  PEM file of its key, to be sealed here"
        };
        loop {
            let typed = ask(self.console, question, "")?;
            if typed.is_empty() && sealed {
                return Ok(());
            }
            match from_file(Path::new(&typed)) {
                Ok(pem) => {
                    self.draft.set_secret(name, pem);
                    return Ok(());
                }
                Err(error) => self.console.say(&format!("  {error:#}")),
            }
        }
    }

    pub(super) fn ask_file(&mut self, question: &str, default: &str) -> anyhow::Result<PathBuf> {
        loop {
            let typed = ask(self.console, question, default)?;
            match std::fs::canonicalize(self.draft.data_dir.join(&typed)) {
                Ok(full) if full.is_file() => return Ok(full),
                Ok(_) => self.console.say(&format!("  {typed} is no file")),
                Err(error) => self.console.say(&format!("  {typed}: {error}")),
            }
        }
    }

    fn ask_national_cloud(&mut self, current: &ExchangeSettings) -> anyhow::Result<()> {
        let elsewhere = current.token_url.is_some();
        if !confirm(self.console, "  Is it a national cloud, with addresses of its own?", elsewhere)? {
            self.draft.unset(TABLE, "token_url")?;
            return self.draft.unset(TABLE, "rest_url");
        }
        let token_url = ask(self.console, "  Address for tokens", &current.token_url())?;
        self.draft.set(TABLE, "token_url", token_url)?;
        let rest_url = ask(self.console, "  Address of the administration API", &current.rest_url)?;
        self.draft.set(TABLE, "rest_url", rest_url)?;
        self.ask_authority(TABLE, current.ca_file.as_ref())
    }

    /// Signs in once and reads one of everything, as the module will.
    async fn try_exchange(&mut self) -> anyhow::Result<bool> {
        self.console.say("  Signing in and reading ...");
        let settings = self.draft.settings()?;
        let report =
            trial_of_module(&self.draft.data_dir, &settings, &self.draft.secrets, exchange::MODULE).await;
        let about_it = |result: &&CheckResult| {
            result.verdict() != Verdict::Ok || doctor::SIGN_IN.name == result.name() || !is_known(result)
        };
        let results: Vec<_> = report
            .results()
            .filter(|result| result.name().starts_with("exchange."))
            .filter(about_it)
            .cloned()
            .collect();
        let well = self.show(&results);
        let signed_in = results
            .iter()
            .any(|result| result.check() == &doctor::SIGN_IN && result.verdict() == Verdict::Ok);
        Ok(well && signed_in)
    }
}

/// Whether it was shown when the servers were tried.
fn is_known(result: &CheckResult) -> bool {
    doctor::CHECKS.iter().any(|check| check.name == result.name())
}
