//! A world: one cloud, one directory, some agents, and the links between them.

mod agent;
mod ca;
mod cloud;
mod compare;
mod directory;
mod mail;
mod system;
mod vocabulary;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use causeway_mock_cloud::MockCloud;
use causeway_mock_kit::cli::RunningMock;
use causeway_mock_kit::fault::{Faults, Rule};
use causeway_mock_kit::journal::Entry;
use causeway_mock_kit::proxy::{Middlebox, TcpProxy};
use serde_json::{Value, json};
use tempfile::TempDir;

use cloud::{authority, client_tls, cloud_settings, start_cloud};

pub use agent::{Agent, AgentProgram};
pub use ca::{Ca, PROFILE};
pub use directory::{Census, Directory, Person};
pub use mail::Mail;

use crate::cloud_api::Tenant;
use crate::http::Client;
use crate::portal::Browser;
use crate::report::EventMark;
use crate::spec::WorldSpec;

/// The collection of people that is leased.
const RESOURCE: &str = "user_visibility/default";

/// The collection of phones.
const MAIL_RESOURCE: &str = "exchange/default";

/// The front end of a link, as fault rules name it.
const LINK_FRONT: &str = "tcp";

/// Events kept for the report.
const EVENTS_MAX: usize = 500;

/// Everything a scenario runs in. Stops when dropped, but [`World::stop`] says when it has.
pub struct World {
    /// The directory.
    pub ldap: Directory,
    mail: Option<Mail>,
    ca: Option<Ca>,
    cloud: Option<MockCloud>,
    cloud_settings: toml::Table,
    cloud_url: String,
    tenant: Tenant,
    agents: BTreeMap<String, Member>,
    program: AgentProgram,
    last_killed: Option<String>,
    remembered: BTreeMap<String, Vec<String>>,
    journal_seen: BTreeMap<String, u64>,
    configured: BTreeMap<String, Value>,
    directory_settings: serde_json::Map<String, Value>,
    own_settings: BTreeMap<String, BTreeMap<String, Value>>,
    wrong_directory_ca: bool,
    /// Another address of the same cloud, once agents were sent to it.
    second_address: Option<TcpProxy>,
    folder: TempDir,
}

/// An agent, the instance id the cloud gave it, and the link it goes out by.
struct Member {
    agent: Agent,
    instance: String,
    link: TcpProxy,
}

impl World {
    /// Builds a world: directory, cloud, tenant, module settings, agents enrolled and started.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(spec: &WorldSpec, program: &AgentProgram) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("causeway-").tempdir().context("make a folder for the world")?;
        let ldap = Directory::start(&spec.ldap, spec.users, spec.seed).await?;
        let mail = match &spec.exchange {
            Some(exchange) => Some(Mail::start(exchange, spec.users, spec.seed).await?),
            None => None,
        };
        let ca = match &spec.ca {
            Some(ca) => Some(Ca::start(ca, spec.users, spec.seed).await?),
            None => None,
        };
        let cloud_settings = cloud_settings(spec, &folder)?;
        let (cloud, cloud_settings) = start_cloud(cloud_settings).await?;
        let cloud_url = cloud.urls()["api"].clone();
        let http = Client::new(&cloud_url, Some(client_tls(&cloud)?), Some(cloud.token().to_owned()))?;
        let tenant = Tenant::create(http, "Acme").await?;
        let mut world = Self {
            ldap,
            mail,
            ca,
            cloud: Some(cloud),
            cloud_settings,
            cloud_url,
            tenant,
            agents: BTreeMap::new(),
            program: program.clone(),
            last_killed: None,
            remembered: BTreeMap::new(),
            journal_seen: BTreeMap::new(),
            configured: BTreeMap::new(),
            directory_settings: spec.directory.clone(),
            own_settings: spec.own.clone(),
            wrong_directory_ca: spec.wrong_directory_ca,
            second_address: None,
            folder,
        };
        let mail_module = world.mail.is_some().then_some("exchange");
        for module in ["user_auth", "user_visibility"].into_iter().chain(mail_module) {
            let settings = spec.modules.get(module).cloned().unwrap_or_else(|| json!({}));
            world.configure(module, true, &settings).await?;
        }
        if let Some(ca) = &world.ca {
            world.tenant.put(&format!("certificate-profiles/{PROFILE}"), &ca.profile()).await?;
        }
        for number in 1..=spec.agents {
            world.start_agent(&format!("agent{number}")).await?;
        }
        Ok(world)
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        for member in self.agents.values_mut() {
            if member.agent.is_running() {
                // What does not end when asked is killed when dropped.
                let _ = member.agent.stop().await;
            }
        }
        if let Some(cloud) = self.cloud.take() {
            cloud.stop().await;
        }
    }

    /// The tenant, through the cloud's API.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Where to sign in, for people.
    pub fn sign_in(&self) -> String {
        let Some(cloud) = &self.cloud else { return String::new() };
        let ready = cloud.ready();
        let portal = ready.urls.get("portal").map_or(self.cloud_url.as_str(), String::as_str);
        let admin = ready.accounts.get("admin").unwrap_or(&Value::Null);
        let word = |key: &str| admin[key].as_str().unwrap_or("-").to_owned();
        let lines = [
            ("portal", format!("{portal}  (the same over TLS: {})", self.cloud_url)),
            ("user", word("user")),
            ("password", word("password")),
            ("API", format!("{}/api/v1/openapi.json", self.cloud_url)),
            ("token", word("token")),
        ];
        lines.map(|(name, value)| format!("  {name:<9} {value}")).join("\n")
    }

    /// Someone who signs in; see [`Directory::person`].
    ///
    /// # Errors
    /// When nobody fits.
    pub fn person(&self, user: &str) -> Result<Person> {
        self.ldap.person(user)
    }

    /// Starts an agent, enrolling it first if it is new. `killed` is the one killed last.
    ///
    /// # Errors
    /// When it does not come online.
    pub async fn start_agent(&mut self, name: &str) -> Result<String> {
        let name = match name {
            "killed" => self.last_killed.clone().context("no agent was killed")?,
            name => name.to_owned(),
        };
        if !self.agents.contains_key(&name) {
            let member = self.enroll(&name).await.with_context(|| format!("enrol {name}"))?;
            self.agents.insert(name.clone(), member);
        }
        let member = self.agents.get_mut(&name).context("just put there")?;
        member.agent.start().await.with_context(|| format!("start {name}"))?;
        Ok(format!("{name} is online"))
    }

    async fn enroll(&self, name: &str) -> Result<Member> {
        let cloud = self.cloud.as_ref().context("the cloud is away")?;
        let link = TcpProxy::start(authority(&self.cloud_url)?.parse()?).await.context("start the link")?;
        let url = format!("https://{}", link.address());
        let agent = Agent::new(&self.program, self.folder.path().join(name));
        let key = self.tenant.enrollment_key().await?;
        let ca = cloud.ca_pem().to_owned();
        let ca = ca.to_str().context("the CA file's path is not UTF-8")?;
        let before = self.instances().await?;
        agent.command(&["enroll", "--cloud", &url, "--key", &key, "--ca", ca, "--name", name], None).await?;
        self.write_directory_settings(&agent).await?;
        self.write_mail_settings(&agent).await?;
        self.write_ca_settings(&agent).await?;
        for (kind, settings) in self.own_settings.get(name).into_iter().flatten() {
            agent.set(&format!("modules.{kind}"), settings).await?;
        }
        let after = self.instances().await?;
        let new = after.into_iter().find(|instance| !before.contains(instance));
        Ok(Member { agent, instance: new.context("the cloud does not list the enrolled agent")?, link })
    }

    async fn instances(&self) -> Result<Vec<String>> {
        let agents = self.tenant.all("agents").await?;
        Ok(agents.iter().filter_map(|agent| agent["id"].as_str().map(str::to_owned)).collect())
    }

    /// Tells an agent about the directory, the way an administrator does.
    async fn write_directory_settings(&self, agent: &Agent) -> Result<()> {
        let (dn, password) = self.ldap.service_account();
        let ca_file = agent.data_dir().join("directory-ca.pem");
        let ca = match self.wrong_directory_ca {
            true => self.cloud.as_ref().map(|cloud| cloud.ca_pem().to_owned()),
            false => self.ldap.mock().ready().ca_pem,
        };
        std::fs::copy(ca.context("no CA file")?, &ca_file).context("copy the directory's CA")?;
        let mut settings = json!({ "servers": self.ldap.agent_urls()?, "bind_dn": dn, "ca_file": ca_file });
        if let Some(table) = settings.as_object_mut() {
            table.extend(self.directory_settings.clone());
        }
        agent.configure_directory(&settings, &password).await
    }

    /// Tells an agent about the mail system, if there is one.
    async fn write_mail_settings(&self, agent: &Agent) -> Result<()> {
        let Some(mail) = &self.mail else { return Ok(()) };
        let ca_file = agent.data_dir().join("mail-ca.pem");
        let ca = mail.mock().ready().ca_pem;
        std::fs::copy(ca.context("no CA file")?, &ca_file).context("copy the mail system's CA")?;
        let (settings, (key, secret)) = mail.agent_settings(&ca_file)?;
        agent.configure("exchange", &settings, (key, &secret)).await
    }

    /// Tells an agent about the certificate authority, if there is one.
    async fn write_ca_settings(&self, agent: &Agent) -> Result<()> {
        let Some(ca) = &self.ca else { return Ok(()) };
        let (settings, secrets) = ca.agent_settings(agent.data_dir()).await?;
        let nothing = json!({});
        let mut settings = &settings;
        for (key, secret) in &secrets {
            agent.configure("ca", settings, (key, secret)).await?;
            settings = &nothing;
        }
        if secrets.is_empty() { agent.set("ca", settings).await } else { Ok(()) }
    }

    /// The certificate authority.
    ///
    /// # Errors
    /// When the scenario has none.
    pub fn ca(&self) -> Result<&Ca> {
        self.ca.as_ref().context("this world has no certificate authority; add [world.ca]")
    }

    /// The certificate authority, to change it.
    ///
    /// # Errors
    /// When the scenario has none.
    pub fn ca_mut(&mut self) -> Result<&mut Ca> {
        self.ca.as_mut().context("this world has no certificate authority; add [world.ca]")
    }

    /// A client of the cloud's public port, for devices.
    ///
    /// # Errors
    /// When the cloud is away.
    pub fn client(&self) -> Result<Client> {
        let cloud = self.cloud.as_ref().context("the cloud is away")?;
        Client::new(&self.cloud_url, Some(client_tls(cloud)?), None)
    }

    /// Types a secret into an agent's configuration, as an administrator does while it runs.
    ///
    /// # Errors
    /// When the agent does not take it, with what it says.
    pub async fn store_secret(&mut self, name: &str, table: &str, value: &str) -> Result<String> {
        let name = self.agent_name(name).await?;
        let agent = &self.member(&name)?.agent;
        agent.configure(table, &json!({}), ("password", value)).await?;
        Ok(format!("{name} has it"))
    }

    /// The mail system.
    ///
    /// # Errors
    /// When the scenario has none.
    pub fn mail(&self) -> Result<&Mail> {
        self.mail.as_ref().context("this world has no mail system; add [world.exchange]")
    }

    /// Someone signed in at the portal.
    ///
    /// # Errors
    /// When the cloud is away.
    pub async fn browser(&self) -> Result<Browser> {
        let cloud = self.cloud.as_ref().context("the cloud is away")?;
        let portal = cloud.urls().get("portal").context("the cloud has no portal")?.clone();
        let admin = cloud.admin();
        Browser::sign_in(&portal, &admin.user, admin.password.expose()).await
    }

    /// Takes a server of the directory or the mail system off the network, or brings it back.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn set_server_down(&mut self, server: &str, down: bool) -> Result<String> {
        if let Some(mail) = self.mail.as_mut().filter(|mail| mail.has_server(server)) {
            return mail.set_server_down(server, down);
        }
        match &mut self.ca {
            Some(ca) if ca.has_server(server) => ca.set_server_down(server, down),
            _ => self.ldap.set_server_down(server, down),
        }
    }

    /// Kills an agent.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_agent(&mut self, name: &str) -> Result<String> {
        let name = self.agent_name(name).await?;
        self.member(&name)?.agent.kill().await.with_context(|| format!("kill {name}"))?;
        self.last_killed = Some(name.clone());
        Ok(format!("{name} is gone"))
    }

    /// Stops an agent in good order.
    ///
    /// # Errors
    /// When it does not run or does not end.
    pub async fn stop_agent(&mut self, name: &str) -> Result<String> {
        let name = self.agent_name(name).await?;
        self.member(&name)?.agent.stop().await.with_context(|| format!("stop {name}"))?;
        Ok(format!("{name} has ended"))
    }

    /// Ruins an agent's state file.
    ///
    /// # Errors
    /// When it has none.
    pub async fn corrupt_state(&mut self, name: &str) -> Result<String> {
        let name = self.agent_name(name).await?;
        self.member(&name)?.agent.corrupt_state()
    }

    /// Cuts an agent's link, and keeps it cut for a while.
    ///
    /// # Errors
    /// When there is no such agent.
    pub async fn cut_link(&mut self, name: &str, for_how_long: Duration) -> Result<String> {
        let name = self.agent_name(name).await?;
        let link = &self.member(&name)?.link;
        if for_how_long.is_zero() {
            link.cut();
            return Ok(format!("{name} must connect again"));
        }
        let down = link.faults().set_down(LINK_FRONT);
        tokio::time::sleep(for_how_long).await;
        link.faults().remove(down);
        Ok(format!("{name} was alone for {} ms", for_how_long.as_millis()))
    }

    /// Puts something on an agent's path, for new connections, and cuts the ones there are.
    ///
    /// # Errors
    /// When there is no such agent.
    pub async fn set_middlebox(&mut self, name: &str, middlebox: Option<Middlebox>) -> Result<String> {
        let name = self.agent_name(name).await?;
        let link = &self.member(&name)?.link;
        link.set_middlebox(middlebox);
        Ok(format!("{} connections were cut", link.cut()))
    }

    /// Sends every agent to a second address of the cloud. Returns how many were told.
    ///
    /// # Errors
    /// When the cloud is away or the address cannot be made.
    pub async fn drain(&mut self, over: Duration) -> Result<usize> {
        if self.second_address.is_none() {
            let second = TcpProxy::start(authority(&self.cloud_url)?.parse()?).await;
            self.second_address = Some(second.context("open the second address")?);
        }
        let to = self.second_address.as_ref().context("just put there")?.address().to_string();
        let cloud = self.cloud.as_ref().context("the cloud is away")?;
        Ok(causeway_mock_cloud::channel::drain(cloud.cloud(), &to, over))
    }

    /// Connections to the second address.
    pub fn at_second_address(&self) -> usize {
        self.second_address.as_ref().map_or(0, TcpProxy::connections)
    }

    /// Certificates the cloud has renewed since its start.
    ///
    /// # Errors
    /// When the cloud is away.
    pub fn renewals(&self) -> Result<usize> {
        let cloud = self.cloud.as_ref().context("the cloud is away")?;
        Ok(cloud.journal().count(|entry| entry.operation == "renew" && entry.outcome == "signed"))
    }

    /// What an agent says about its channel, in the status it keeps for people.
    ///
    /// # Errors
    /// When there is no such agent, or it has no status.
    pub async fn agent_says(&mut self, name: &str) -> Result<String> {
        let name = self.agent_name(name).await?;
        let data_dir = self.member(&name)?.agent.data_dir();
        Ok(causeway_agent::health::read_file(data_dir).context("read its status")?.channel)
    }

    /// Stops the cloud, waits, and starts it again on the same data and port.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart_cloud(&mut self, down: Duration) -> Result<String> {
        let cloud = self.cloud.take().context("the cloud is away already")?;
        cloud.stop().await;
        tokio::time::sleep(down).await;
        let (cloud, settings) = start_cloud(self.cloud_settings.clone()).await?;
        let http = Client::new(&self.cloud_url, Some(client_tls(&cloud)?), Some(cloud.token().to_owned()))?;
        self.tenant = self.tenant.through(http);
        self.cloud_settings = settings;
        self.cloud = Some(cloud);
        self.journal_seen.remove("cloud");
        Ok(format!("it was away for {} ms", down.as_millis()))
    }

    /// Installs a fault rule.
    ///
    /// # Errors
    /// When the rule is malformed.
    pub fn add_fault(&self, target: &str, rule: &Value) -> Result<String> {
        let rule: Rule = serde_json::from_value(rule.clone()).context("read the fault rule")?;
        self.faults(target)?.add(rule);
        Ok(String::new())
    }

    /// Removes every fault rule.
    ///
    /// # Errors
    /// When there is no such mock.
    pub fn clear_faults(&self, target: &str) -> Result<String> {
        self.faults(target)?.clear();
        Ok(String::new())
    }

    fn faults(&self, target: &str) -> Result<&Faults> {
        match target {
            "ldap" => Ok(self.ldap.mock().faults()),
            "cloud" => Ok(self.cloud.as_ref().context("the cloud is away")?.faults()),
            other => {
                let found = self.mail.as_ref().and_then(|mail| mail.faults(other));
                let found = found.or_else(|| self.ca.as_ref().and_then(|ca| ca.faults(other)));
                found.with_context(|| {
                    format!("no mock is called {other:?}; there are ldap, cloud, exchange, ca")
                })
            }
        }
    }

    /// Moves a mock's clock.
    ///
    /// # Errors
    /// When there is no such mock.
    pub fn advance_clock(&self, target: &str, by: Duration) -> Result<String> {
        match target {
            "ldap" => self.ldap.mock().clock().advance(by),
            "cloud" => self.cloud.as_ref().context("the cloud is away")?.cloud().kit.clock.advance(by),
            "exchange" => self.mail()?.mock().clock().advance(by),
            "ca" => self.ca()?.mock().clock().advance(by),
            other => bail!("no mock is called {other:?}; there are ldap, cloud, exchange and ca"),
        }
        Ok(String::new())
    }

    /// Sets a module's desired config; settings are merged over what was set before.
    ///
    /// # Errors
    /// What the API says.
    pub async fn configure(&mut self, module: &str, enabled: bool, settings: &Value) -> Result<String> {
        let all = self.configured.entry(module.to_owned()).or_insert_with(|| json!({}));
        if let (Some(all), Some(new)) = (all.as_object_mut(), settings.as_object()) {
            all.extend(new.clone());
        }
        let revision = self.tenant.configure(module, enabled, all).await?;
        Ok(format!("revision {revision}"))
    }

    /// Remembers action ids under a name.
    pub fn remember_actions(&mut self, name: &str, ids: &[String]) {
        self.remembered.entry(name.to_owned()).or_default().extend_from_slice(ids);
    }

    /// The action ids remembered under a name.
    ///
    /// # Errors
    /// When there are none.
    pub fn remembered_actions(&self, name: &str) -> Result<&[String]> {
        self.remembered
            .get(name)
            .map(Vec::as_slice)
            .with_context(|| format!("no actions are remembered as {name:?}"))
    }

    /// The agent that collects people now.
    ///
    /// # Errors
    /// What the API says.
    pub async fn lease_holder(&self) -> Result<Option<String>> {
        self.holder_of(RESOURCE).await
    }

    async fn holder_of(&self, resource: &str) -> Result<Option<String>> {
        let leases = self.tenant.all("leases").await?;
        let Some(lease) = leases.iter().find(|lease| lease["resource"] == *resource) else { return Ok(None) };
        let holder = self.agents.iter().find(|(_, member)| lease["holder"] == *member.instance);
        Ok(holder.map(|(name, _)| name.clone()))
    }

    /// What a mock received since this was last asked.
    ///
    /// # Errors
    /// When there is no such mock.
    pub fn journal_since_last_look(&mut self, target: &str) -> Result<Vec<Entry>> {
        let journal = match target {
            "ldap" => self.ldap.mock().journal(),
            "cloud" => self.cloud.as_ref().context("the cloud is away")?.journal(),
            "exchange" => self.mail.as_ref().context("this world has no mail system")?.mock().journal(),
            "ca" => self.ca.as_ref().context("this world has no certificate authority")?.mock().journal(),
            other => bail!("no mock is called {other:?}; there are ldap, cloud, exchange and ca"),
        };
        let seen = self.journal_seen.entry(target.to_owned()).or_default();
        let entries = journal.after(*seen);
        *seen = journal.last_seq();
        Ok(entries)
    }

    /// What the cloud reported since `started`, for the report; empty when it cannot be asked.
    pub async fn events(&self, started: Instant) -> Vec<EventMark> {
        let Some(cloud) = &self.cloud else { return Vec::new() };
        let start_ms = cloud.cloud().kit.clock.now_ms() - started.elapsed().as_millis() as i64;
        let events =
            cloud.cloud().store.events_after(self.tenant.id(), 0, EVENTS_MAX).await.unwrap_or_default();
        let mark = |event: causeway_mock_cloud::store::Event| EventMark {
            at_ms: u64::try_from(event.at_ms - start_ms).unwrap_or(0),
            kind: event.kind,
            text: event.body.to_string(),
        };
        events.into_iter().map(mark).collect()
    }

    /// Resolves `lease_holder`, `other`, `mail_holder` and `mail_other`.
    async fn agent_name(&self, name: &str) -> Result<String> {
        match name {
            "lease_holder" => self.lease_holder().await?.context("nobody holds the lease"),
            "other" => {
                let holder = self.lease_holder().await?.context("nobody holds the lease")?;
                self.agents.keys().find(|name| **name != holder).cloned().context("there is no other agent")
            }
            "mail_holder" => {
                self.holder_of(MAIL_RESOURCE).await?.context("nobody holds the lease of the phones")
            }
            "mail_other" => {
                let holder =
                    self.holder_of(MAIL_RESOURCE).await?.context("nobody holds the lease of the phones")?;
                self.agents.keys().find(|name| **name != holder).cloned().context("there is no other agent")
            }
            name => Ok(name.to_owned()),
        }
    }

    fn member(&mut self, name: &str) -> Result<&mut Member> {
        let names: Vec<String> = self.agents.keys().cloned().collect();
        self.agents.get_mut(name).with_context(|| format!("no agent is called {name}; there are {names:?}"))
    }
}
