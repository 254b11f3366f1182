//! The company's certificate authority: mock-ca, the addresses agents reach it at, and the managed devices that get their
//! certificates from it through the cloud.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_ca::MockCa;
use causeway_mock_kit::cli::RunningMock;
use causeway_mock_kit::fault::{FaultId, Faults};
use causeway_mock_kit::proxy::TcpProxy;
use causeway_protocol::pkix::{Certificate, pem};
use hyper::Method;
use serde_json::{Value, json};

use crate::device::SimulatedDevice;
use crate::http::Client;
use crate::spec::CaSpec;

/// The front end of a link, as fault rules name it.
const LINK_FRONT: &str = "tcp";

/// The profile of a scenario.
pub const PROFILE: &str = "identity";

/// What agents' settings call the authority.
const AUTHORITY: &str = "default";

/// The authority of a world, and the devices of the story.
pub struct Ca {
    mock: MockCa,
    spec: CaSpec,
    admin: Client,
    /// What stands before the front end agents use, by the names of the story.
    links: BTreeMap<String, TcpProxy>,
    down: BTreeMap<String, FaultId>,
    devices: BTreeMap<String, SimulatedDevice>,
}

impl Ca {
    /// Starts the authority of a scenario, for the people of the directory.
    ///
    /// # Errors
    /// When a setting is wrong or a port is taken.
    pub async fn start(spec: &CaSpec, users: usize, seed: u64) -> Result<Self> {
        let mut settings: toml::Table = toml::toml! { [common] };
        let common = settings["common"].as_table_mut().context("common is a table")?;
        common.insert("users".into(), i64::try_from(users)?.into());
        common.insert("seed".into(), i64::try_from(seed)?.into());
        settings.insert("personality".into(), spec.personality.clone().into());
        super::cloud::merge(&mut settings, &spec.settings);
        let config: causeway_mock_ca::Config = settings.try_into().context("settings of mock-ca")?;
        let mock = MockCa::start(config).await.context("start mock-ca")?;
        let admin = Client::new(url(&mock, "admin")?, None, None)?;
        let mut links = BTreeMap::new();
        let target = super::cloud::authority(url(&mock, front_of(&spec.kind))?)?.parse()?;
        for name in &spec.servers {
            let link = TcpProxy::start(target).await.context("start the link to the authority")?;
            links.insert(name.clone(), link);
        }
        Ok(Self { mock, spec: spec.clone(), admin, links, down: BTreeMap::new(), devices: BTreeMap::new() })
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
        let front = url(&self.mock, front_of(&self.spec.kind))?;
        let (scheme, rest) = front.split_once("://").context("the front end's URL has no scheme")?;
        let path = rest.split_once('/').map_or(String::new(), |(_, path)| format!("/{path}"));
        let server = |name: &String| {
            let link = self.links.get(name).context("every server has a link")?;
            Ok(format!("{scheme}://{}{path}", link.address()))
        };
        let urls = self.spec.servers.iter().map(server).collect::<Result<Vec<String>>>()?;
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
            let page = url(&self.mock, "ndes_admin")?;
            settings["challenge_urls"] = json!([page]);
        }
        if self.spec.challenge == "ndes" || matches!(self.spec.kind.as_str(), "certsrv" | "wstep") {
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
        self.links.contains_key(name)
    }

    /// Takes a server off the network, or brings it back.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn set_server_down(&mut self, name: &str, down: bool) -> Result<String> {
        let link =
            self.links.get(name).with_context(|| format!("no server of the authority is called {name}"))?;
        if let Some(rule) = self.down.remove(name) {
            link.faults().remove(rule);
        }
        if down {
            self.down.insert(name.to_owned(), link.faults().set_down(LINK_FRONT));
            return Ok(format!("{} connections were cut", link.cut()));
        }
        Ok(String::new())
    }

    /// The names of its servers.
    pub fn servers(&self) -> Vec<String> {
        self.links.keys().cloned().collect()
    }

    /// Where faults of the mock, or of a server's connections, are installed.
    pub fn faults(&self, target: &str) -> Option<&Faults> {
        match target {
            "ca" => Some(self.mock.faults()),
            name => self.links.get(name).map(TcpProxy::faults),
        }
    }

    /// Calls the mock's admin API.
    ///
    /// # Errors
    /// What the API says.
    pub async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let method: Method = method.parse().with_context(|| format!("{method:?} is no method"))?;
        let body = Some(body).filter(|body| !body.is_null());
        self.admin.call(method, path, body).await?.ok()
    }

    /// The CRL a certificate names (RFC 5280 section 4.2.1.13), DER. Each generation of the authority has its own, under
    /// one name of the issuer.
    ///
    /// # Errors
    /// When it names none, or one that does not exist.
    pub async fn crl_of(&self, certificate: &Certificate) -> Result<Vec<u8>> {
        let urls = certificate.extensions().crl_urls().context("read where the CRL is")?;
        let file = urls.first().and_then(|url| url.rsplit('/').next()).context("it names no CRL")?;
        let generation =
            file.trim_end_matches(".crl").parse().with_context(|| format!("{file:?} is no CRL"))?;
        let authority = self.mock.authority().await;
        authority.crl(generation).with_context(|| format!("no CRL of generation {generation}"))
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

fn url<'a>(mock: &'a MockCa, front: &str) -> Result<&'a str> {
    let urls = mock.urls();
    urls.get(front).map(String::as_str).with_context(|| format!("mock-ca has no front end {front}"))
}
