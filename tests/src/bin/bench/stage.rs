//! The whole path for a benchmark: a cloud and an agent as processes of their own, and a directory given from outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use causeway_scenarios::cloud_api::Tenant;
use causeway_scenarios::http::Client;
use causeway_scenarios::world::{Agent, AgentProgram};
use causeway_tests::tls;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Program, beside};

/// Pause between two looks at the cloud.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A directory, as an administrator would describe it to the agent.
pub(crate) struct DirectoryAt {
    /// `ldaps://host:port` or `ldap://host:port`.
    pub(crate) servers: Vec<String>,
    /// Service account.
    pub(crate) bind_dn: String,
    /// Its password.
    pub(crate) password: String,
    /// PEM of the authority that signed the servers' certificates.
    pub(crate) ca_pem: String,
}

/// Cloud and agents.
pub(crate) struct Stage {
    /// The cloud's process.
    pub(crate) cloud: Program,
    /// Its tenant.
    pub(crate) tenant: Tenant,
    agents: Vec<Agent>,
    folder: TempDir,
}

impl Stage {
    /// Starts a cloud with further settings in TOML, and a tenant in it.
    pub(crate) async fn start(cloud_settings: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("cloud.toml");
        std::fs::write(&config, cloud_settings)?;
        let cloud = Program::start("mock-cloud", &["--config", path(&config)?]).await?;
        let http = api(&cloud)?;
        let tenant = Tenant::create(http, "Bench").await?;
        Ok(Self { cloud, tenant, agents: Vec::new(), folder })
    }

    /// Enrols and starts an agent that uses this directory.
    pub(crate) async fn add_agent(&mut self, directory: &DirectoryAt) -> Result<&mut Agent> {
        self.add_agent_of(&beside("causeway-agent")?, directory).await
    }

    /// Enrols and starts an agent after these commands, each with what it reads from its standard input.
    pub(crate) async fn add_agent_with(
        &mut self,
        program: &Path,
        commands: &[(&[&str], &str)],
    ) -> Result<&mut Agent> {
        let (mut agent, _) = self.enrolled(program).await?;
        for (arguments, input) in commands {
            agent.command(arguments, Some(input)).await?;
        }
        agent.start().await?;
        self.agents.push(agent);
        self.agents.last_mut().context("just put there")
    }

    async fn enrolled(&self, program: &Path) -> Result<(Agent, PathBuf)> {
        let name = format!("agent{}", self.agents.len() + 1);
        let data_dir = self.folder.path().join(&name);
        let program = AgentProgram::at(program.to_owned());
        let agent = Agent::new(&program, data_dir.clone());
        let key = self.tenant.enrollment_key().await?;
        let (url, ca) = (self.cloud.text("/urls/api")?, self.cloud.text("/ca_pem")?);
        agent.command(&["enroll", "--cloud", url, "--key", &key, "--ca", ca], None).await?;
        Ok((agent, data_dir))
    }

    /// The same with another build of the agent.
    pub(crate) async fn add_agent_of(
        &mut self,
        program: &Path,
        directory: &DirectoryAt,
    ) -> Result<&mut Agent> {
        let (mut agent, data_dir) = self.enrolled(program).await?;
        let ca_file = data_dir.join("directory-ca.pem");
        std::fs::write(&ca_file, &directory.ca_pem)?;
        let settings =
            json!({ "servers": directory.servers, "bind_dn": directory.bind_dn, "ca_file": ca_file });
        agent.configure_directory(&settings, &directory.password).await?;
        agent.start().await?;
        self.agents.push(agent);
        self.agents.last_mut().context("just put there")
    }

    /// The agents, in the order they were added.
    pub(crate) fn agents(&mut self) -> &mut [Agent] {
        &mut self.agents
    }

    /// Waits until `fits` says of `GET below-the-tenant` that it is as wanted; returns how long that took.
    pub(crate) async fn wait(
        &self,
        rest: &str,
        within: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let seen = self.tenant.get(rest).await?;
            if fits(&seen) {
                return Ok(started.elapsed());
            }
            if started.elapsed() > within {
                bail!("GET {rest} is not as wanted after {} s: {seen}", within.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a module of every agent reports `ok`.
    pub(crate) async fn module_ok(&self, module: &str) -> Result<()> {
        let agents = self.agents.len();
        self.wait("agents", Duration::from_secs(60), |list| {
            let items = list["items"].as_array().into_iter().flatten();
            let ok = |agent: &&Value| {
                let mut modules = agent["modules"].as_array().into_iter().flatten();
                modules.any(|m| m["module"] == *module && m["state"] == "ok")
            };
            items.filter(ok).count() == agents
        })
        .await?;
        Ok(())
    }
}

/// A client of a cloud's API.
pub(crate) fn api(cloud: &Program) -> Result<Client> {
    let ca = std::fs::read_to_string(cloud.text("/ca_pem")?)?;
    let token = cloud.text("/accounts/admin/token")?.to_owned();
    Client::new(cloud.text("/urls/api")?, Some(Arc::new(tls::trusting_only(&ca)?)), Some(token))
}

/// A mock-ldap process as a directory for agents.
pub(crate) fn directory_of(mock: &Program) -> Result<DirectoryAt> {
    let servers = mock.ready["urls"].as_object().into_iter().flatten();
    let servers = servers.filter(|(name, _)| name.starts_with("ldaps")).filter_map(|(_, url)| url.as_str());
    Ok(DirectoryAt {
        servers: servers.map(str::to_owned).collect(),
        bind_dn: mock.text("/accounts/admin/dn")?.to_owned(),
        password: mock.text("/accounts/admin/password")?.to_owned(),
        ca_pem: std::fs::read_to_string(mock.text("/ca_pem")?)?,
    })
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}
