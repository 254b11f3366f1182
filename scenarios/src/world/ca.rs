//! The company's certificate authority: mock-ca, the addresses agents reach it at, and the managed devices that get their
//! certificates from it through the cloud.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_ca::MockCa;
use causeway_mock_kit::cli::RunningMock;
use causeway_mock_kit::fault::Faults;
use causeway_protocol::pkix::{Certificate, pem};
use serde_json::{Value, json};

use super::system::{Servers, call, settings, url};
use crate::device::SimulatedDevice;
use crate::http::{self, Client};
use crate::spec::CaSpec;

/// The profile of a scenario.
pub const PROFILE: &str = "identity";

/// What agents' settings call the authority.
const AUTHORITY: &str = "default";

/// The largest CRL that is read: 10,000 entries are some 400 KB.
const CRL_MAX_BYTES: usize = 1 << 20;

/// How long fetching it may take.
const CRL_WITHIN: Duration = Duration::from_secs(5);

/// The authority of a world, and the devices of the story.
pub struct Ca {
    mock: MockCa,
    spec: CaSpec,
    admin: Client,
    servers: Servers,
    devices: BTreeMap<String, SimulatedDevice>,
}

impl Ca {
    /// Starts the authority of a scenario, for the people of the directory.
    ///
    /// # Errors
    /// When a setting is wrong or a port is taken.
    pub async fn start(spec: &CaSpec, users: usize, seed: u64) -> Result<Self> {
        let config: causeway_mock_ca::Config = settings(users, seed, &spec.personality, &spec.settings)?;
        let mock = MockCa::start(config).await.context("start mock-ca")?;
        let admin = Client::new(url(mock.urls(), "admin")?, None, None)?;
        let servers = Servers::start(url(mock.urls(), front_of(&spec.kind))?, &spec.servers).await?;
        Ok(Self { mock, spec: spec.clone(), admin, servers, devices: BTreeMap::new() })
    }

    /// The mock itself.
    pub fn mock(&self) -> &MockCa {
        &self.mock
    }

    /// The profile the cloud gets.
    pub fn profile(&self) -> Value {
        let mut profile = json!({
            "name": "Company identity", "authority": AUTHORITY, "key": "rsa2048",
            "subject": "/CN=%uname%", "alternative_names": ["email:%email%"], "missing_variable": "drop",
        });
        if let Some(table) = profile.as_object_mut() {
            table.extend(self.spec.profile.clone());
        }
        profile
    }

    /// What an administrator writes into an agent's `[ca.default]`, and the secrets that go with it: names and values.
    /// `folder` takes the files it names.
    ///
    /// # Errors
    /// When the mock does not say what is needed.
    pub async fn agent_settings(&self, folder: &Path) -> Result<(Value, Vec<(&'static str, String)>)> {
        let front = url(self.mock.urls(), front_of(&self.spec.kind))?;
        let urls = self.servers.urls(front, &self.spec.servers)?;
        let ca_file = folder.join("authority-ca.pem");
        let mut trusted =
            std::fs::read_to_string(self.mock.tls_ca().pem_path()).context("read the TLS CA")?;
        trusted += &pem::write("CERTIFICATE", &self.root().await?);
        std::fs::write(&ca_file, trusted).context("write the authority's CA file")?;
        let mut settings = json!({
            "kind": self.spec.kind, "urls": urls, "ca_file": ca_file, "challenge": self.spec.challenge,
            "auth": ["negotiate", "ntlm", "basic"], "poll_first_secs": 1, "poll_max_secs": 2,
        });
        let mut secrets = Vec::new();
        let ready = self.mock.ready();
        let word = |account: &str, key: &str| {
            let value = ready.accounts.get(account).and_then(|account| account[key].as_str());
            value.map(str::to_owned).with_context(|| format!("mock-ca names no {key} of {account}"))
        };
        if self.spec.challenge == "static" {
            secrets.push(("challenge", word("scep", "challenge")?));
        }
        if self.spec.challenge == "ndes" {
            let page = url(self.mock.urls(), "ndes_admin")?;
            settings["challenge_urls"] = json!([page]);
        }
        if self.spec.challenge == "ndes"
            || matches!(self.spec.kind.as_str(), "certsrv" | "wstep" | "entrust_digital_id")
        {
            settings["user"] = json!(word("admin", "user")?);
            secrets.push(("password", word("admin", "password")?));
        }
        if shows_certificate(&self.spec.kind) {
            let certificate_file = folder.join("authority-client.pem");
            std::fs::copy(word(&self.spec.kind, "certificate_file")?, &certificate_file)
                .context("copy our certificate")?;
            settings["certificate_file"] = json!(certificate_file);
            let key = std::fs::read_to_string(word(&self.spec.kind, "key_file")?).context("read our key")?;
            secrets.push(("key", key));
        }
        if let Some(table) = settings.as_object_mut() {
            table.extend(self.spec.agent.clone());
        }
        Ok((settings, secrets))
    }

    /// The root of the company's certificates, DER.
    ///
    /// # Errors
    /// What the API says.
    pub async fn root(&self) -> Result<Vec<u8>> {
        let authorities = self.call("GET", "/world/authorities", &Value::Null).await?;
        let root = authorities["root"].as_str().context("mock-ca shows no root")?;
        STANDARD.decode(root).context("the root is not base64")
    }

    /// Whether a server of the authority has that name.
    pub fn has_server(&self, name: &str) -> bool {
        self.servers.has(name)
    }

    /// Takes a server off the network, or brings it back.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn set_server_down(&mut self, name: &str, down: bool) -> Result<String> {
        self.servers.set_down(name, down)
    }

    /// The names of its servers.
    pub fn servers(&self) -> Vec<String> {
        self.servers.names()
    }

    /// Where faults of the mock, or of a server's connections, are installed.
    pub fn faults(&self, target: &str) -> Option<&Faults> {
        match target {
            "ca" => Some(self.mock.faults()),
            name => self.servers.faults(name),
        }
    }

    /// Calls the mock's admin API.
    ///
    /// # Errors
    /// What the API says.
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        call(&self.admin, method, path, body).await
    }

    /// The CRL a certificate names (RFC 5280 section 4.2.1.13), fetched as anybody would; DER. Each generation of the
    /// authority has its own, under one name of the issuer.
    ///
    /// # Errors
    /// When it names none, or none can be had.
    pub async fn crl_of(&self, certificate: &Certificate) -> Result<Vec<u8>> {
        let urls = certificate.extensions().crl_urls().context("read where the CRL is")?;
        let url = urls.first().context("it names no CRL")?;
        let crl = http::fetch(url, None, CRL_MAX_BYTES, CRL_WITHIN).await.context("fetch the CRL")?;
        Ok(crl.to_vec())
    }

    /// A device of the story joins it.
    pub fn put_device(&mut self, name: &str, device: SimulatedDevice) {
        self.devices.insert(name.to_owned(), device);
    }

    /// A device of the story.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn device(&mut self, name: &str) -> Result<&mut SimulatedDevice> {
        self.devices.get_mut(name).with_context(|| format!("no device is called {name}; enrol it first"))
    }

    /// A device of the story, to look at.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn look_at(&self, name: &str) -> Result<&SimulatedDevice> {
        self.devices.get(name).with_context(|| format!("no device is called {name}; enrol it first"))
    }
}

/// The mock's front end for a kind of `[ca.NAME]`.
fn front_of(kind: &str) -> &str {
    match kind {
        "wstep" => "xcep",
        "entrust_digital_id" => "entrust",
        same => same,
    }
}

/// Whether that kind is spoken with a certificate of ours.
fn shows_certificate(kind: &str) -> bool {
    matches!(kind, "mpki" | "entrust_gateway")
}
