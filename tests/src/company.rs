//! A whole small company in one process: directory, cloud, and agents with both modules, enrolled the way an
//! administrator does it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_agent::cli::{self, Arguments};
use causeway_agent::secrets::{FileModeSealer, SecretStore};
use causeway_agent::{Agent, AgentConfig, RunningAgent, config};
use causeway_mock_cloud::{Config as CloudConfig, MockCloud};
use causeway_mock_exchange::config::DefaultAccess;
use causeway_mock_exchange::{Config as MailConfig, MockExchange};
use causeway_mock_kit::cli::RunningMock as _;
use causeway_mock_ldap::{Config as LdapConfig, MockLdap};
use causeway_protocol::Secret;
use causeway_scenarios::cloud_api::Tenant;
use causeway_scenarios::http::Client;
use clap::Parser;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tls;

/// How long an agent may take to come online, and a first sync to end, on a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);

/// The company. Everything stops when it is dropped.
pub struct Company {
    pub ldap: MockLdap,
    /// The mail system, if it has one.
    pub mail: Option<MockExchange>,
    pub cloud: MockCloud,
    pub tenant: Tenant,
    /// Where cloud and agents keep their files.
    pub folder: TempDir,
    agents: BTreeMap<String, RunningAgent>,
}

impl Company {
    /// Directory (Active Directory) and cloud with a tenant and both modules switched on; no agent yet.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(people: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("causeway-company-").tempdir()?;
        let mut config = LdapConfig::of("active_directory");
        config.common.users = people;
        let ldap = MockLdap::start(config).await.context("start mock-ldap")?;
        let config = CloudConfig { data_dir: Some(folder.path().join("cloud")), ..CloudConfig::default() };
        let cloud = MockCloud::start(config).await.context("start mock-cloud")?;
        let tls = tls::trusting_only(&std::fs::read_to_string(cloud.ca_pem())?)?;
        let http = Client::new(cloud.url("api"), Some(Arc::new(tls)), Some(cloud.token().to_owned()))?;
        let tenant = Tenant::create(http, "Acme").await?;
        for module in ["user_auth", "user_visibility"] {
            tenant.configure(module, true, &json!({})).await?;
        }
        Ok(Self { ldap, mail: None, cloud, tenant, folder, agents: BTreeMap::new() })
    }

    /// The same with a mail system that holds new phones; `phones` are there already.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn with_mail(people: usize, phones: usize) -> Result<Self> {
        let mut company = Self::start(people).await?;
        let mut config = MailConfig::of("exchange2019");
        config.common.users = people;
        config.partnerships = Some(phones);
        config.default_access = DefaultAccess::Quarantine;
        company.mail = Some(MockExchange::start(config).await.context("start mock-exchange")?);
        company.tenant.configure("exchange", true, &json!({})).await?;
        Ok(company)
    }

    /// Calls the mail system's admin API.
    ///
    /// # Errors
    /// What the API says.
    pub async fn mail_admin(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mail = self.mail.as_ref().context("the company has no mail system")?;
        let http = Client::new(mail.url("admin"), None, None)?;
        let body = Some(body).filter(|body| !body.is_null());
        http.call(method.parse()?, path, body).await?.ok()
    }

    /// Enrols an agent with a new key and tells it about the directory; gives its data directory.
    ///
    /// # Errors
    /// What the agent's own command says.
    pub async fn enrol(&self, name: &str) -> Result<PathBuf> {
        let key = self.tenant.enrollment_key().await?;
        let data_dir = self.folder.path().join(name);
        self.enrol_with(&key, &data_dir).await?;
        Ok(data_dir)
    }

    /// The same with a given key and data directory.
    ///
    /// # Errors
    /// What the agent's own command says.
    pub async fn enrol_with(&self, key: &str, data_dir: &Path) -> Result<()> {
        let ca = self.cloud.ca_pem().to_str().context("the CA's path is UTF-8")?;
        let dir = data_dir.to_str().context("the folder's path is UTF-8")?;
        let base = ["causeway-agent", "enroll", "--cloud", self.cloud.url("api"), "--key", key];
        let words = base.into_iter().chain(["--ca", ca, "--data-dir", dir]);
        cli::execute(Arguments::parse_from(words)).await?;
        let account = self.ldap.service_account();
        let ca_file = data_dir.join("directory-ca.pem");
        std::fs::write(&ca_file, self.ldap.ca().ca_pem())?;
        let directory =
            json!({ "servers": [self.ldap.url("ldaps")], "bind_dn": account.dn, "ca_file": ca_file });
        let mut table = BTreeMap::from([("directory", BTreeMap::from([("default", directory)]))]);
        let mut secrets = SecretStore::load(data_dir, &FileModeSealer)?
            .with("directory.default", Secret::new(account.password));
        if let Some(mail) = &self.mail {
            let ready = mail.ready();
            let admin = ready.accounts.get("admin").context("mock-exchange names no account")?;
            let word = |key: &str| admin[key].as_str().unwrap_or_default().to_owned();
            let ca_file = data_dir.join("mail-ca.pem");
            std::fs::copy(ready.ca_pem.as_ref().context("mock-exchange has no CA")?, &ca_file)?;
            let exchange = json!({
                "servers": [mail.url("powershell")], "accounts": [{ "user": word("user") }],
                "auth": ["negotiate", "basic"], "ca_file": ca_file,
            });
            table.insert("exchange", BTreeMap::from([("default", exchange)]));
            secrets = secrets.with("exchange.default", Secret::new(word("password")));
        }
        let path = data_dir.join(config::FILE_NAME);
        let text = std::fs::read_to_string(&path).context("read agent.toml")?;
        std::fs::write(&path, format!("{text}\n{}", toml::to_string(&table)?))?;
        secrets.save(data_dir, &FileModeSealer)?;
        Ok(())
    }

    /// Enrols and starts an agent, and waits until it is online.
    ///
    /// # Errors
    /// When it does not come online in time; with its last status.
    pub async fn add_agent(&mut self, name: &str) -> Result<()> {
        let data_dir = self.enrol(name).await?;
        self.start_agent(name, &data_dir).await
    }

    /// Starts an enrolled agent and waits until it is online.
    ///
    /// # Errors
    /// When it does not come online in time; with its last status.
    pub async fn start_agent(&mut self, name: &str, data_dir: &Path) -> Result<()> {
        let agent = Agent::start(AgentConfig::load(data_dir)?).await?;
        ensure!(agent.wait_online(WITHIN).await, "{name} is not online: {:?}", agent.status());
        let instance = agent.status().instance.clone();
        self.agents.insert(name.to_owned(), agent);
        self.modules_work(&instance).await
    }

    /// Waits until the cloud knows that all modules of an agent run.
    async fn modules_work(&self, instance: &str) -> Result<()> {
        let started = Instant::now();
        let wanted = 2 + usize::from(self.mail.is_some());
        loop {
            let agents = self.tenant.all("agents").await?;
            let agent = agents.iter().find(|agent| agent["id"] == instance);
            let running = |module: &Value| module["state"] == "ok" || module["state"] == "idle";
            let modules = agent.and_then(|agent| agent["modules"].as_array());
            if modules.is_some_and(|modules| modules.len() == wanted && modules.iter().all(running)) {
                return Ok(());
            }
            ensure!(started.elapsed() < WITHIN, "after {WITHIN:?} the cloud sees {agent:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A running agent.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn agent(&self, name: &str) -> &RunningAgent {
        &self.agents[name]
    }

    /// Stops an agent and waits for its end.
    pub async fn stop_agent(&mut self, name: &str) {
        if let Some(agent) = self.agents.remove(name) {
            agent.stop().await;
        }
    }

    /// Orders a sync of people and waits for its end; gives the finished action.
    ///
    /// # Errors
    /// When it is not over in time.
    pub async fn sync(&self) -> Result<Value> {
        self.sync_of("user_visibility").await
    }

    /// The same for any module that collects.
    ///
    /// # Errors
    /// When it is not over in time.
    pub async fn sync_of(&self, module: &str) -> Result<Value> {
        let id = self.tenant.order(module, "sync_now", &json!({}), &json!({})).await?;
        self.tenant.finished(&id, WITHIN).await
    }
}
