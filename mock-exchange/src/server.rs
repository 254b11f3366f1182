//! The running mock: ports, organisation, and the tasks behind them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use causeway_mock_kit::cli::{ConfigError, Ready, RunningMock, Tasks, check_hosts};
use causeway_mock_kit::kerberos::KeytabError;
use causeway_mock_kit::listen::{self, BindError};
use causeway_mock_kit::ntlm::{channel_binding_hash, tls_server_end_point};
use causeway_mock_kit::pki::{LeafUse, PkiError, TestCa};
use causeway_mock_kit::world::{Company, PersonState};
use causeway_mock_kit::{Clock, Faults, Journal, KitContext};
use causeway_protocol::Secret;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::activesync;
use crate::config::{Config, FRONTS};
use crate::kerberos::{self, Kerberos};
use crate::limits::{
    DOMAIN_CONTROLLERS_MAX, IN_MEMORY_BUFFER_BYTES, PARTNERSHIPS_MAX, TLS_HANDSHAKE_TIMEOUT,
};
use crate::phone::Phones;
use crate::powershell::{self, Front, Shells};
use crate::profile::Profile;
use crate::rest::Rest;
use crate::world::Organisation;
use crate::{admin, rest};

/// Why the mock did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("read the settings")]
    Config(#[source] ConfigError),
    #[error("unknown personality {name:?}; known are {known}")]
    UnknownPersonality { name: String, known: String },
    #[error("{count} domain controllers asked for, between 1 and {DOMAIN_CONTROLLERS_MAX} are possible")]
    DomainControllerCount { count: usize },
    #[error("no mailbox server is configured; name at least one in servers")]
    NoServer,
    #[error("{count} partnerships asked for, at most {PARTNERSHIPS_MAX} are possible")]
    TooManyPartnerships { count: usize },
    #[error("listen")]
    Bind(#[source] BindError),
    #[error("find the address of a listening port")]
    Address(#[source] std::io::Error),
    #[error("make certificates")]
    Pki(#[source] PkiError),
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("read the keytab {}", path.display())]
    Keytab {
        path: PathBuf,
        #[source]
        source: KeytabError,
    },
    #[error("register the certificate of {}", path.display())]
    Certificate {
        path: PathBuf,
        #[source]
        source: rest::CertificateError,
    },
}

/// What the front ends and the admin API share.
pub struct Shared {
    pub(crate) cx: KitContext,
    organisation: ArcSwap<Organisation>,
    config: Mutex<Config>,
    kerberos: ArcSwap<Kerberos>,
    pub(crate) rest: Rest,
    /// Shells of remote PowerShell.
    pub(crate) shells: Shells,
    /// TLS of every front end that has it.
    pub(crate) tls: Arc<ServerConfig>,
    /// What clients must show with channel binding (RFC 5929 section 4).
    pub(crate) channel_binding: [u8; 16],
    /// Front end name to URL.
    pub(crate) urls: BTreeMap<String, String>,
}

impl Shared {
    /// The organisation as it is now; a reset puts another in its place.
    pub fn organisation(&self) -> Arc<Organisation> {
        self.organisation.load_full()
    }

    /// Who takes tickets, and who gives them.
    pub(crate) fn kerberos(&self) -> Arc<Kerberos> {
        self.kerberos.load_full()
    }

    pub(crate) fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts the organisation a configuration describes in place of the present one. An error leaves everything as it is.
    pub(crate) fn replace(&self, config: Config) -> Result<(), StartError> {
        let organisation = build(&config, self.cx.clock.clone())?;
        self.kerberos.store(Arc::new(tickets(&config)?));
        self.rest.forget();
        self.organisation.store(Arc::new(organisation));
        self.shells.restart(config.powershell.clone());
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Where the front ends listen: host and port of one of them.
    pub(crate) fn authority(&self, front: &str) -> Option<&str> {
        let (_, rest) = self.urls.get(front)?.split_once("://")?;
        rest.split('/').next()
    }
}

/// Names and password of an account.
#[derive(Clone)]
pub struct Login {
    /// `ACME\svc-causeway`
    pub user: String,
    pub upn: String,
    pub password: String,
}

/// A running organisation. Everything stops when it is dropped.
pub struct MockExchange {
    shared: Arc<Shared>,
    phones: Arc<Phones>,
    ca: TestCa,
    tasks: Tasks,
}

impl MockExchange {
    /// Generates the company and its organisation, binds all ports and serves them.
    ///
    /// # Errors
    /// [`StartError`] says which setting is at fault.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.common.check_ports(&FRONTS).map_err(StartError::Config)?;
        let cx = KitContext::from_common("mock-exchange", &config.common);
        Self::start_in(config, cx).await
    }

    /// As [`MockExchange::start`] on a clock of the caller's, for tests that move time themselves.
    ///
    /// # Errors
    /// [`StartError`] says which setting is at fault.
    pub async fn start_with_clock(config: Config, clock: Clock) -> Result<Self, StartError> {
        config.common.check_ports(&FRONTS).map_err(StartError::Config)?;
        Self::start_in(config, KitContext::new("mock-exchange", clock)).await
    }

    async fn start_in(config: Config, cx: KitContext) -> Result<Self, StartError> {
        let organisation = build(&config, cx.clock.clone())?;
        let mut listeners = BTreeMap::new();
        let mut urls = BTreeMap::new();
        for front in FRONTS {
            let listener = listen::bind(cx.service, front, config.common.listen, config.common.port(front))
                .await
                .map_err(StartError::Bind)?;
            let address = listener.local_addr().map_err(StartError::Address)?;
            urls.insert(front.to_owned(), url_of(front, &address.to_string(), &organisation.facts().tenant));
            listeners.insert(front, listener);
        }
        let ca = TestCa::new("Causeway mock-exchange CA").map_err(StartError::Pki)?;
        let names = tls_names(&config);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let leaf = ca.issue_leaf(&names, LeafUse::Server).map_err(StartError::Pki)?;
        let channel_binding = channel_binding_hash(&tls_server_end_point(&leaf.cert));
        let tls = ca.server_config_with(leaf, &[b"http/1.1"], None).map_err(StartError::Pki)?;
        let shared = Arc::new(Shared {
            cx: cx.clone(),
            organisation: ArcSwap::from_pointee(organisation),
            kerberos: ArcSwap::from_pointee(tickets(&config)?),
            rest: Rest::new(&config.rest)?,
            shells: Shells::new(config.powershell.clone()),
            config: Mutex::new(config),
            tls,
            channel_binding,
            urls,
        });
        let phones = Arc::new(phones(&shared, &ca));
        let tasks = serve(&shared, &phones, listeners);
        Ok(Self { shared, phones, ca, tasks: Tasks::new(tasks) })
    }

    /// Front end name to URL.
    pub fn urls(&self) -> &BTreeMap<String, String> {
        &self.shared.urls
    }

    /// The URL of one front end.
    ///
    /// # Panics
    /// When there is no such front end.
    pub fn url(&self, front: &str) -> &str {
        self.urls().get(front).unwrap_or_else(|| panic!("no front end {front:?} in {:?}", self.urls().keys()))
    }

    /// `host:port` of one front end.
    ///
    /// # Panics
    /// When there is no such front end.
    pub fn address(&self, front: &str) -> &str {
        self.shared.authority(front).unwrap_or_else(|| panic!("no front end {front:?}"))
    }

    /// The organisation as it is now.
    pub fn world(&self) -> Arc<Organisation> {
        self.shared.organisation()
    }

    /// What the front ends share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The simulated phones, which talk to the ActiveSync front end as any phone does.
    pub fn phones(&self) -> &Arc<Phones> {
        &self.phones
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.cx.faults
    }

    pub fn journal(&self) -> &Journal {
        &self.shared.cx.journal
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.cx.clock
    }

    /// A connection to `powershell` that needs no socket. With tokio's time paused nothing passes it by while bytes are on
    /// their way, as it would with a socket, whose bytes are the system's for a moment.
    pub fn connect_in_memory(&self) -> DuplexStream {
        let (theirs, ours) = tokio::io::duplex(IN_MEMORY_BUFFER_BYTES);
        let front = Front { name: "powershell", tls: Some(self.shared.channel_binding) };
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let serving = powershell_connection(Arc::clone(&self.shared), front, ours, nowhere);
        let stop = self.shared.cx.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(serving).await });
        theirs
    }

    /// The authority that signed the TLS certificates.
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// Shells of remote PowerShell that are open.
    pub fn shells(&self) -> usize {
        self.shared.shells.count(self.clock().now_ms())
    }

    /// Sign-in of the account an agent uses.
    pub fn service_account(&self) -> Login {
        let organisation = self.world();
        let login = organisation.service_login();
        Login {
            user: format!("{}\\{login}", organisation.facts().netbios),
            upn: organisation.company().upn(login),
            password: organisation.password_of(login).unwrap_or_default(),
        }
    }

    /// Registers a certificate (PEM) whose key the application may sign its assertions with.
    ///
    /// # Errors
    /// [`rest::CertificateError`] when it is none.
    pub fn register_app_certificate(&self, pem: &str) -> Result<String, rest::CertificateError> {
        self.shared.rest.register(pem)
    }

    /// Builds the organisation anew as it was at the start.
    ///
    /// # Errors
    /// [`StartError`] when the settings no longer make one.
    pub fn reset(&self) -> Result<(), StartError> {
        self.phones.clear();
        self.shared.replace(self.shared.config())
    }
}

impl Drop for MockExchange {
    fn drop(&mut self) {
        self.phones.clear();
        self.shared.cx.stop.cancel();
    }
}

impl RunningMock for MockExchange {
    fn ready(&self) -> Ready {
        let mut ready = Ready::new("mock-exchange");
        ready.urls = self.urls().clone();
        ready.ca_pem = Some(self.ca.pem_path().to_owned());
        let organisation = self.world();
        let facts = organisation.facts();
        let company = organisation.company();
        let Login { user, upn, password } = self.service_account();
        let admin = json!({ "user": user, "upn": upn, "password": password });
        ready.accounts.insert("admin".to_owned(), admin);
        let app = json!({
            "tenant": facts.tenant,
            "client_id": facts.client_id,
            "register_certificate": format!("{}/world/app/certificates", self.url("admin")),
        });
        ready.accounts.insert("app".to_owned(), app);
        let states = [("user", PersonState::Active), ("disabled", PersonState::Disabled)];
        ready.add_people(company, &states);
        ready
    }

    async fn stop(self) {
        self.shared.cx.stop.cancel();
        self.tasks.ended().await;
    }
}

/// Makes the organisation a configuration describes.
fn build(config: &Config, clock: Clock) -> Result<Organisation, StartError> {
    let count = config.domain_controllers.len();
    if count == 0 || count > DOMAIN_CONTROLLERS_MAX {
        return Err(StartError::DomainControllerCount { count });
    }
    if config.servers.is_empty() {
        return Err(StartError::NoServer);
    }
    if let Some(count) = config.partnerships.filter(|count| *count > PARTNERSHIPS_MAX) {
        return Err(StartError::TooManyPartnerships { count });
    }
    let controllers = config.domain_controllers.iter().map(|controller| controller.name.as_str());
    check_hosts(controllers).map_err(StartError::Config)?;
    check_hosts(config.servers.iter().map(String::as_str)).map_err(StartError::Config)?;
    let profile = Profile::named(&config.personality).ok_or_else(|| StartError::UnknownPersonality {
        name: config.personality.clone(),
        known: Profile::names(),
    })?;
    let company = Arc::new(Company::generate(&config.common.company().map_err(StartError::Config)?));
    Ok(Organisation::build(config, profile, company, clock))
}

/// Kerberos as a configuration describes it.
fn tickets(config: &Config) -> Result<Kerberos, StartError> {
    Kerberos::new(&config.kerberos, &config.common.domain, &tls_names(config))
}

/// Serves each front end on its listener.
fn serve(
    shared: &Arc<Shared>,
    phones: &Arc<Phones>,
    mut listeners: BTreeMap<&'static str, TcpListener>,
) -> Vec<JoinHandle<()>> {
    let mut tasks = activesync::serve(shared, &mut listeners);
    if let Some(listener) = listeners.remove("admin") {
        let router = admin::router(shared.cx.clone(), Arc::clone(shared), Arc::clone(phones));
        let stop = shared.cx.stop.clone();
        tasks.push(tokio::spawn(causeway_mock_kit::admin::serve_admin(listener, router, stop)));
    }
    if let Some(listener) = listeners.remove(kerberos::FRONT) {
        tasks.push(kerberos::serve(shared, listener));
    }
    for front in ["rest", "token"] {
        let Some(listener) = listeners.remove(front) else { continue };
        let shared = Arc::clone(shared);
        tasks.push(listen::serve(listener, front, shared.cx.clone(), move |stream, _peer| {
            rest::serve(Arc::clone(&shared), front, stream)
        }));
    }
    for name in ["powershell", "powershell_http"] {
        let Some(listener) = listeners.remove(name) else { continue };
        let tls = (name == "powershell").then_some(shared.channel_binding);
        let shared = Arc::clone(shared);
        tasks.push(listen::serve(listener, name, shared.cx.clone(), move |stream, peer| {
            powershell_connection(Arc::clone(&shared), Front { name, tls }, stream, peer)
        }));
    }
    tasks
}

async fn powershell_connection<S>(shared: Arc<Shared>, front: Front, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if front.tls.is_none() {
        return powershell::serve(shared, front, stream, peer).await;
    }
    let handshake = TlsAcceptor::from(Arc::clone(&shared.tls)).accept(stream);
    match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => powershell::serve(shared, front, stream, peer).await,
        Ok(Err(error)) => tracing::debug!(front = front.name, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(front = front.name, "TLS handshake took too long"),
    }
}

/// The simulated phones of this mock: they trust its certificates and know its people's passwords.
fn phones(shared: &Arc<Shared>, ca: &TestCa) -> Phones {
    let organisation = shared.organisation();
    let known = Arc::clone(shared);
    let passwords = Arc::new(move |user: &str| known.organisation().password_of(user).map(Secret::new));
    let url = shared.urls.get("activesync").map_or("", String::as_str);
    Phones::new(url, ca.client_config(), shared.cx.clock.clone(), organisation.company(), passwords)
}

fn url_of(front: &str, address: &str, tenant: &str) -> String {
    match front {
        "powershell" => format!("https://{address}/powershell"),
        "powershell_http" => format!("http://{address}/powershell"),
        kerberos::FRONT => format!("tcp://{address}"),
        "rest" => format!("https://{address}/adminapi/beta"),
        "token" => format!("https://{address}/{tenant}/oauth2/v2.0/token"),
        "activesync" => format!("https://{address}/Microsoft-Server-ActiveSync"),
        "autodiscover" => format!("https://{address}/autodiscover/autodiscover.xml"),
        _ => format!("http://{address}"),
    }
}

/// Host names in the TLS certificate: each server's full name, those clients look for, those of Kerberos, and the address
/// listened on.
fn tls_names(config: &Config) -> Vec<String> {
    let domain = &config.common.domain;
    let hosts = config.servers.iter().map(String::as_str).chain(["mail", "autodiscover"]);
    let mut names: Vec<String> = hosts.map(|host| format!("{host}.{domain}")).collect();
    names.extend(config.kerberos.hosts.iter().cloned());
    if !config.common.listen.is_unspecified() {
        names.push(config.common.listen.to_string());
    }
    names
}
