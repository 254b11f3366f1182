//! The company's mail system: mock-exchange, the addresses agents reach it at, and the phones that fetch mail from it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use causeway_mock_exchange::MockExchange;
use causeway_mock_exchange::world::AccessState;
use causeway_mock_kit::cli::RunningMock;
use causeway_mock_kit::fault::Faults;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::system::{Servers, call, settings, url};
use crate::http::Client;
use crate::spec::ExchangeSpec;

/// The mail system of a world.
pub struct Mail {
    mock: MockExchange,
    spec: ExchangeSpec,
    admin: Client,
    servers: Servers,
}

impl Mail {
    /// Starts the mail system of a scenario, with the people of the directory.
    ///
    /// # Errors
    /// When a setting is wrong or a port is taken.
    pub async fn start(spec: &ExchangeSpec, users: usize, seed: u64) -> Result<Self> {
        let config: causeway_mock_exchange::Config =
            settings(users, seed, &spec.personality, &spec.settings)?;
        let mock = MockExchange::start(config).await.context("start mock-exchange")?;
        let admin = Client::new(url(mock.urls(), "admin")?, None, None)?;
        let servers = Servers::start(url(mock.urls(), &spec.transport)?, &spec.servers).await?;
        Ok(Self { mock, spec: spec.clone(), admin, servers })
    }

    /// The mock itself.
    pub fn mock(&self) -> &MockExchange {
        &self.mock
    }

    /// What an administrator writes into an agent's `[exchange.default]`, and the secret that goes with it: name and value.
    ///
    /// # Errors
    /// When the mock does not say what is needed.
    pub fn agent_settings(&self, ca_file: &Path) -> Result<(Value, (&'static str, String))> {
        let front = url(self.mock.urls(), &self.spec.transport)?;
        let servers = self.servers.urls(front, &self.spec.servers)?;
        let (mut settings, secret) = match self.spec.transport.as_str() {
            "rest" => self.online(&servers, ca_file)?,
            _ => self.on_premises(&servers, ca_file)?,
        };
        if let Some(table) = settings.as_object_mut() {
            table.extend(self.spec.agent.clone());
        }
        Ok((settings, secret))
    }

    fn on_premises(&self, servers: &[String], ca_file: &Path) -> Result<(Value, (&'static str, String))> {
        let ready = self.mock.ready();
        let admin = ready.accounts.get("admin").context("mock-exchange names no account")?;
        let settings = json!({
            "servers": servers, "accounts": [{ "user": word(admin, "user")? }], "auth": self.spec.auth,
            "ca_file": ca_file,
        });
        Ok((settings, ("password", word(admin, "password")?)))
    }

    /// Registers a certificate of the agent's own with the application, as an administrator of the tenant does.
    fn online(&self, servers: &[String], ca_file: &Path) -> Result<(Value, (&'static str, String))> {
        let ready = self.mock.ready();
        let app = ready.accounts.get("app").context("mock-exchange names no application")?;
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).context("make the application's key")?;
        let certificate = CertificateParams::new(vec!["causeway".to_owned()])?.self_signed(&key)?;
        self.mock.register_app_certificate(&certificate.pem()).context("register the certificate")?;
        let certificate_file = ca_file.with_file_name("mail-app.pem");
        std::fs::write(&certificate_file, certificate.pem()).context("write the certificate")?;
        let settings = json!({
            "kind": "online", "tenant": word(app, "tenant")?, "client_id": word(app, "client_id")?,
            "certificate_file": certificate_file, "token_url": url(self.mock.urls(), "token")?,
            "rest_url": servers.first().context("a mail system has a server")?, "ca_file": ca_file,
        });
        Ok((settings, ("key", key.serialize_pem())))
    }

    /// Whether a server of the mail system has that name.
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

    /// Where faults of the mock, or of a server's connections, are installed.
    pub fn faults(&self, target: &str) -> Option<&Faults> {
        match target {
            "exchange" => Some(self.mock.faults()),
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

    /// Makes a phone that the story calls `name`, and lets it talk to the server.
    ///
    /// # Errors
    /// What the API says.
    pub async fn set_up_phone(&self, name: &str, phone: &Value) -> Result<Value> {
        let mut phone = phone.clone();
        let Some(fields) = phone.as_object_mut() else { bail!("a phone is described by a table") };
        fields.insert("id".to_owned(), name.into());
        Ok(self.call("POST", "/world/phones", &phone).await?["phone"].take())
    }

    /// Lets a phone do something: `sync`, `on`, `off`, `set-up-again`; shows it afterwards.
    ///
    /// # Errors
    /// What the API says.
    pub async fn let_phone(&self, name: &str, act: &str) -> Result<Value> {
        Ok(self.call("POST", &format!("/world/phones/{name}/{act}"), &Value::Null).await?["phone"].take())
    }

    /// What a phone knows.
    ///
    /// # Errors
    /// What the API says.
    pub async fn phone(&self, name: &str) -> Result<Value> {
        Ok(self.call("GET", &format!("/world/phones/{name}"), &Value::Null).await?["phone"].take())
    }

    /// The ActiveSync id of a phone of the story.
    ///
    /// # Errors
    /// What the API says.
    pub async fn device_id(&self, name: &str) -> Result<String> {
        let phone = self.phone(name).await?;
        Ok(phone["device_id"].as_str().context("the phone has no device id")?.to_owned())
    }

    /// Access state of every partnership by its stable id, as the cloud spells both.
    pub fn states(&self) -> BTreeMap<String, String> {
        self.mock.world().read(None, |reader| {
            (0..reader.device_slots())
                .filter_map(|slot| reader.device_at(slot))
                .map(|view| {
                    let state = match reader.decide(&view).state {
                        AccessState::Allowed => "allowed",
                        AccessState::Blocked => "blocked",
                        AccessState::Quarantined => "quarantined",
                        AccessState::DeviceDiscovery => "device_discovery",
                        AccessState::Unknown => "unknown",
                    };
                    (key_of(&view.device.guid), state.to_owned())
                })
                .collect()
        })
    }

    /// Stable id of the partnership of an ActiveSync id.
    pub fn key(&self, device_id: &str) -> Option<String> {
        self.mock.world().read(None, |reader| {
            let mut views = (0..reader.device_slots()).filter_map(|slot| reader.device_at(slot));
            views.find(|view| &*view.device.id == device_id).map(|view| key_of(&view.device.guid))
        })
    }

    /// Gives an account of the company another password.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn set_password(&self, user: &str, password: &str) -> Result<String> {
        if !self.mock.world().set_password(user, password) {
            bail!("the mail system knows no {user}");
        }
        Ok(String::new())
    }
}

fn word(account: &Value, key: &str) -> Result<String> {
    account[key].as_str().map(str::to_owned).with_context(|| format!("the account has no {key}"))
}

/// The directory keeps the first three parts of a GUID in the other byte order (MS-DTYP 2.3.4.2).
fn key_of(guid: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes_le(*guid).to_string()
}
