//! Directories over LDAP: connections, servers, pages, personalities. Shared by the modules; knows nothing of them.

pub(crate) mod ber;
pub mod connection;
pub mod controls;
pub mod discover;
pub mod dn;
pub mod doctor;
pub mod entry;
pub mod error;
pub mod filter;
pub mod guid;
pub mod limits;
pub mod message;
pub mod page;
pub mod personality;
pub mod range;
pub mod servers;
pub mod settings;

use std::sync::{Arc, Mutex, PoisonError};

use causeway_protocol::Secret;
use rustls::ClientConfig;
use tokio::time::Instant;

use self::connection::{Connection, Endpoint, Security};
use self::controls::DOMAIN_SCOPE;
use self::discover::RootDse;
use self::error::DirectoryError;
use self::message::Control;
use self::personality::Personality;
use self::servers::{Lent, Server, Standing};
use self::settings::DirectorySettings;
use crate::clock::Clock;
use crate::dial::tls::{self, TlsError, Trust};
use crate::dial::{Dial, DialError};
use crate::modules::{ConfigError, ModuleContext, ModuleSettings};
use crate::secrets::SecretStore;

/// What a directory needs of the world.
#[derive(Clone)]
pub struct Net {
    pub dial: Arc<dyn Dial>,
    pub clock: Clock,
}

impl From<&ModuleContext> for Net {
    fn from(cx: &ModuleContext) -> Self {
        Self { dial: cx.dial.clone(), clock: cx.clock }
    }
}

/// One company directory, served by one or more servers.
pub struct Directory {
    name: String,
    settings: DirectorySettings,
    secrets: SecretStore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    servers: Vec<Arc<Server>>,
    discovered: Option<Instant>,
    tls: Option<Arc<ClientConfig>>,
    personality: Option<Arc<Personality>>,
}

impl Directory {
    /// From the settings of a module that names it.
    ///
    /// # Errors
    /// Names the offending key.
    pub fn new(name: &str, settings: &ModuleSettings) -> Result<Self, ConfigError> {
        Ok(Self {
            name: name.to_owned(),
            settings: DirectorySettings::read(name, settings)?,
            secrets: settings.secrets.clone(),
            state: Mutex::new(State::default()),
        })
    }

    /// Its name in agent.toml.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The service account, for people.
    pub fn account(&self) -> &str {
        if self.settings.bind_dn.is_empty() { "nobody (anonymous)" } else { &self.settings.bind_dn }
    }

    /// Its definition.
    pub fn settings(&self) -> &DirectorySettings {
        &self.settings
    }

    /// The servers to try, best first: those that are well in the configured or discovered order, then the others as a
    /// last resort. A server whose rest is over is probed beside the caller.
    ///
    /// # Errors
    /// When DNS knows none.
    pub async fn candidates(self: &Arc<Self>, net: &Net) -> Result<Vec<Arc<Server>>, DirectoryError> {
        let servers = self.servers(net).await?;
        let now = net.clock.now();
        let (mut well, mut failing) = (Vec::new(), Vec::new());
        for server in servers {
            match server.standing(now) {
                Standing::Well => well.push(server),
                Standing::Probe => {
                    tokio::spawn(probe(self.clone(), net.clone(), server.clone()));
                    failing.push(server);
                }
                Standing::Failing => failing.push(server),
            }
        }
        well.append(&mut failing);
        well.truncate(limits::SERVERS_TRIED_MAX);
        Ok(well)
    }

    /// All servers, in the configured or discovered order.
    ///
    /// # Errors
    /// When DNS knows none and never did.
    pub async fn servers(&self, net: &Net) -> Result<Vec<Arc<Server>>, DirectoryError> {
        let now = net.clock.now();
        {
            let state = self.state();
            let fresh = match state.discovered {
                Some(at) => {
                    self.settings.domain.is_none()
                        || !self.settings.servers.is_empty()
                        || now.saturating_duration_since(at) < limits::DISCOVERY_TTL
                }
                None => false,
            };
            if fresh {
                return Ok(state.servers.clone());
            }
        }
        let endpoints = match self.endpoints(net).await {
            Ok(endpoints) => endpoints,
            Err(error) => {
                // Names known before are better than none while the name service is down.
                let known = self.state().servers.clone();
                return if known.is_empty() { Err(error) } else { Ok(known) };
            }
        };
        let mut state = self.state();
        let servers = endpoints
            .into_iter()
            .map(|endpoint| {
                let known = state.servers.iter().find(|known| *known.endpoint() == endpoint).cloned();
                known.unwrap_or_else(|| Arc::new(Server::new(endpoint)))
            })
            .collect::<Vec<_>>();
        state.servers.clone_from(&servers);
        state.discovered = Some(now);
        Ok(servers)
    }

    async fn endpoints(&self, net: &Net) -> Result<Vec<Endpoint>, DirectoryError> {
        if !self.settings.servers.is_empty() {
            return Ok(self.settings.endpoints());
        }
        let domain = self.settings.domain.clone().unwrap_or_default();
        let mut names = Vec::new();
        if let Some(site) = &self.settings.site {
            names.push(format!("_ldap._tcp.{site}._sites.dc._msdcs.{domain}"));
        }
        names.push(format!("_ldap._tcp.dc._msdcs.{domain}"));
        names.push(format!("_ldap._tcp.{domain}"));
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut last: Option<DialError> = None;
        for (n, name) in names.iter().enumerate() {
            match net.dial.services(name).await {
                Ok(services) => {
                    for service in services {
                        let endpoint = self.settings.discovered(service.host, service.port);
                        if !endpoints.contains(&endpoint) {
                            endpoints.push(endpoint);
                        }
                    }
                }
                Err(error) => last = Some(error),
            }
            // The site's servers come first, the domain's others behind them; the last name is for other products.
            if !endpoints.is_empty() && n + 2 >= names.len() {
                break;
            }
        }
        match (endpoints.is_empty(), last) {
            (false, _) => Ok(endpoints),
            (true, Some(source)) => Err(DirectoryError::Discovery { domain, source: source.into() }),
            (true, None) => Err(DirectoryError::NoServer { domain }),
        }
    }

    /// A connection to this server for searches, bound as the service account.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn searcher(&self, net: &Net, server: &Arc<Server>) -> Result<Lent, DirectoryError> {
        let (kept, slot) = server.searches.enter(net.clock.now()).await;
        let connection = match kept {
            Some(connection) => connection,
            None => self.note(net, server, self.open_bound(net, server).await)?,
        };
        Ok(Lent::new(connection, server.clone(), slot))
    }

    /// A connection to this server for one password check, not bound to anyone in particular.
    ///
    /// # Errors
    /// When there is none to be had.
    pub async fn binder(&self, net: &Net, server: &Arc<Server>) -> Result<Lent, DirectoryError> {
        let (kept, slot) = server.binds.enter(net.clock.now()).await;
        let connection = match kept {
            Some(connection) => connection,
            None => self.note(net, server, self.open(net, server).await)?,
        };
        Ok(Lent::new(connection, server.clone(), slot))
    }

    /// Remembers what an operation says about its server's health.
    pub fn note<T>(
        &self,
        net: &Net,
        server: &Arc<Server>,
        result: Result<T, DirectoryError>,
    ) -> Result<T, DirectoryError> {
        if let Err(error) = &result
            && error.is_servers_fault()
        {
            tracing::debug!(server = %server.name(), error = %crate::chain::Chain(error), "directory server failed");
            server.failed(net.clock.now());
        }
        result
    }

    async fn open(&self, net: &Net, server: &Arc<Server>) -> Result<Connection, DirectoryError> {
        let config = match server.endpoint().security {
            Security::Plain => None,
            _ => Some(self.tls_config().map_err(|source| DirectoryError::Tls {
                server: server.name().to_string(),
                source: source.into(),
            })?),
        };
        let started = net.clock.now();
        let connection = Connection::open(&*net.dial, server.endpoint(), config.as_ref()).await?;
        server.succeeded(net.clock.now().saturating_duration_since(started));
        Ok(connection)
    }

    async fn open_bound(&self, net: &Net, server: &Arc<Server>) -> Result<Connection, DirectoryError> {
        let password = self.service_password()?;
        let mut connection = self.open(net, server).await?;
        if let Some(password) = password {
            let bound = connection
                .bind(&self.settings.bind_dn, password.expose().as_bytes(), &[], limits::BIND_WITHIN)
                .await
                .map_err(|failure| failure.error)?;
            connection.success(bound, "bind of the service account")?;
        }
        Ok(connection)
    }

    fn service_password(&self) -> Result<Option<Secret>, DirectoryError> {
        if self.settings.bind_dn.is_empty() {
            return Ok(None);
        }
        let name = self.settings.password_name(&self.name);
        match self.secrets.get(&name) {
            // An empty password would turn the bind into an anonymous one (RFC 4513 5.1.2).
            Some(secret) if !secret.is_empty() => Ok(Some(secret.clone())),
            _ => Err(DirectoryError::NoSecret { missing: self.settings.shown_password_name(&self.name) }),
        }
    }

    fn tls_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut state = self.state();
        if let Some(config) = &state.tls {
            return Ok(config.clone());
        }
        let trust = self.settings.ca_file.clone().map_or(Trust::System, Trust::File);
        let config = tls::client_config(&trust, None, &[])?;
        state.tls = Some(config.clone());
        Ok(config)
    }

    /// The personality: configured, or recognised once by the rootDSE.
    pub fn personality(&self, root: &RootDse) -> Arc<Personality> {
        let mut state = self.state();
        if let Some(known) = &state.personality {
            return known.clone();
        }
        let name = match self.settings.personality.as_str() {
            "auto" => Personality::detect(root),
            name => name,
        };
        let read = Personality::with(name, &self.settings.overrides)
            .expect("name and overrides are checked at build");
        let read = Arc::new(read);
        state.personality = Some(read.clone());
        read
    }

    /// The personality, if it has been recognised.
    pub fn known_personality(&self) -> Option<Arc<Personality>> {
        self.state().personality.clone()
    }

    /// Where searches start.
    pub fn base(&self, root: &RootDse) -> String {
        self.settings.base_dn.clone().unwrap_or_else(|| root.base())
    }

    /// Controls for every search: no continuation references where the server can leave them out.
    pub fn search_controls(root: &RootDse) -> Vec<Control> {
        if root.supports(DOMAIN_SCOPE) { vec![Control::bare(DOMAIN_SCOPE, false)] } else { Vec::new() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries a server whose rest is over. Reads its rootDSE; never binds with a user's password.
async fn probe(directory: Arc<Directory>, net: Net, server: Arc<Server>) {
    let probed = async {
        let mut connection = directory.open(&net, &server).await?;
        let root = RootDse::read(&mut connection).await?;
        connection.close().await;
        Ok::<_, DirectoryError>(root)
    };
    match probed.await {
        Ok(root) if root.synchronized => {}
        Ok(_) | Err(_) => server.failed(net.clock.now()),
    }
}
