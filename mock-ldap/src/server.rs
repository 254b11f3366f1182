//! The running mock: ports, world, and the tasks behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use causeway_mock_kit::cli::{ConfigError, Ready, RunningMock, Tasks, check_hosts};
use causeway_mock_kit::listen::{self, BindError};
use causeway_mock_kit::pki::{PkiError, TestCa};
use causeway_mock_kit::world::{Company, PersonState};
use causeway_mock_kit::{Clock, Faults, Journal, KitContext};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::{Config, Policies, PortKind, ServerNames, front_name, known_fronts};
use crate::dit::{Directory, DirectorySpec, Identity, ServiceLogin};
use crate::ldif::{self, LdifError};
use crate::limits::SERVERS_MAX;
use crate::personality::{Personality, Vendor};
use crate::session::{Front, Session, Shared, server_config};

/// Why the mock did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("read the settings")]
    Config(#[source] ConfigError),
    #[error("unknown personality {name:?}; known are {known}")]
    UnknownPersonality { name: String, known: String },
    #[error("{count} servers asked for, between 1 and {SERVERS_MAX} are possible")]
    ServerCount { count: usize },
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
    #[error("apply entries of {origin}")]
    Ldif {
        origin: String,
        #[source]
        source: Box<LdifError>,
    },
}

/// A running directory. Everything stops when it is dropped.
pub struct MockLdap {
    inner: Arc<Inner>,
    urls: BTreeMap<String, String>,
    ca: TestCa,
    tasks: Tasks,
}

/// What the admin API shares with the handle.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) world: Mutex<World>,
}

/// What the present directory was made from.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) people: Arc<Company>,
}

impl MockLdap {
    /// Generates the company, binds all ports and serves them.
    ///
    /// # Errors
    /// [`StartError`] says which setting is at fault.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.common.check_ports(&known_fronts()).map_err(StartError::Config)?;
        let cx = KitContext::from_common("mock-ldap", &config.common);
        let people = Arc::new(Company::generate(&config.common.company().map_err(StartError::Config)?));
        let directory = build(&config, &people, cx.clock.clone())?;
        let personality = directory.personality().clone();

        let listeners = bind_fronts(&config, &personality).await?;
        let mut names = ServerNames::default();
        for (front, listener) in &listeners {
            let address = listener.local_addr().map_err(StartError::Address)?;
            names.0.insert(front.name, address.to_string());
        }
        let admin_listener =
            listen::bind(cx.service, "admin", config.common.listen, config.common.port("admin"))
                .await
                .map_err(StartError::Bind)?;
        let admin_address = admin_listener.local_addr().map_err(StartError::Address)?;

        let ca = TestCa::new("Causeway mock-ldap CA").map_err(StartError::Pki)?;
        let (tls, channel_binding) = server_config(&ca, &tls_names(&config)).map_err(StartError::Pki)?;
        let mut urls = urls_of(&names);
        urls.insert("admin".to_owned(), format!("http://{admin_address}"));

        let shared = Arc::new(Shared {
            effective: ArcSwap::from_pointee(config.policies.over(&personality)),
            directory: ArcSwap::from(directory),
            generation: ArcSwap::from_pointee(CancellationToken::new()),
            tls,
            channel_binding,
            names,
            domain: people.domain.clone(),
            netbios: people.netbios.clone(),
            cx: cx.clone(),
        });
        let inner = Arc::new(Inner { shared, world: Mutex::new(World { config, people }) });
        let mut tasks = serve_fronts(&inner.shared, listeners);
        tasks.push(tokio::spawn(replicate(Arc::clone(&inner.shared))));
        let router = admin::router(cx.clone(), Arc::clone(&inner));
        tasks.push(tokio::spawn(causeway_mock_kit::admin::serve_admin(
            admin_listener,
            router,
            cx.stop.clone(),
        )));
        Ok(Self { inner, urls, ca, tasks: Tasks::new(tasks) })
    }

    /// Front end name to URL.
    pub fn urls(&self) -> &BTreeMap<String, String> {
        &self.urls
    }

    /// The URL of one front end.
    ///
    /// # Panics
    /// When the personality has no such front end.
    pub fn url(&self, front: &str) -> &str {
        self.urls.get(front).unwrap_or_else(|| panic!("no front end {front:?} in {:?}", self.urls.keys()))
    }

    /// `host:port` of one front end.
    ///
    /// # Panics
    /// When the personality has no such front end.
    pub fn address(&self, front: &str) -> &str {
        let url = self.url(front);
        url.split_once("://").map_or(url, |(_, address)| address)
    }

    /// The people the directory was generated from. Later changes are in [`MockLdap::directory`].
    pub fn world(&self) -> Arc<Company> {
        Arc::clone(&self.inner.world().people)
    }

    /// The directory as it is now.
    pub fn directory(&self) -> Arc<Directory> {
        self.inner.shared.directory.load_full()
    }

    pub fn faults(&self) -> &Faults {
        &self.inner.shared.cx.faults
    }

    pub fn journal(&self) -> &Journal {
        &self.inner.shared.cx.journal
    }

    pub fn clock(&self) -> &Clock {
        &self.inner.shared.cx.clock
    }

    /// The authority that signed the TLS certificates.
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// Sign-in of the service account.
    pub fn service_account(&self) -> ServiceLogin {
        self.directory().service_account()
    }

    /// Puts other policies in force, for open connections too.
    pub fn set_policies(&self, policies: Policies) {
        self.inner.set_policies(policies);
    }

    /// Builds the world anew as it was at the start; open connections are closed.
    ///
    /// # Errors
    /// [`StartError`] when an LDIF file is no longer what it was.
    pub fn reset(&self) -> Result<(), StartError> {
        self.inner.reset()
    }
}

impl Drop for MockLdap {
    fn drop(&mut self) {
        self.inner.shared.cx.stop.cancel();
    }
}

impl RunningMock for MockLdap {
    fn ready(&self) -> Ready {
        let mut ready = Ready::new("mock-ldap");
        ready.urls = self.urls.clone();
        ready.ca_pem = Some(self.ca.pem_path().to_owned());
        let directory = self.directory();
        let login = directory.service_account();
        ready.accounts.insert(
            "admin".to_owned(),
            json!({ "dn": login.dn, "upn": login.upn, "user": login.user, "password": login.password }),
        );
        let people = self.world();
        let states = [
            ("user", PersonState::Active),
            ("disabled", PersonState::Disabled),
            ("expired", PersonState::Expired),
            ("must_change", PersonState::MustChange),
            ("restricted", PersonState::HoursDenied),
        ];
        ready.add_people(&people, &states);
        ready
    }

    async fn stop(self) {
        self.inner.shared.cx.stop.cancel();
        self.tasks.ended().await;
    }
}

impl Inner {
    pub(crate) fn world(&self) -> World {
        self.world.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_policies(&self, policies: Policies) {
        let directory = self.shared.directory.load();
        self.shared.effective.store(Arc::new(policies.over(directory.personality())));
        self.world.lock().unwrap_or_else(PoisonError::into_inner).config.policies = policies;
    }

    pub(crate) fn reset(&self) -> Result<(), StartError> {
        let world = self.world();
        self.replace(world, None)
    }

    /// Puts another world, with the entries of `ldif`, in place of the present one and closes the connections to the
    /// old one. The ports stay those bound at the start. An error leaves everything as it is.
    pub(crate) fn replace(&self, world: World, ldif: Option<&str>) -> Result<(), StartError> {
        let directory = build(&world.config, &world.people, self.shared.cx.clock.clone())?;
        if let Some(text) = ldif {
            let origin = "the given LDIF".to_owned();
            apply_ldif(&directory, text)
                .map_err(|source| StartError::Ldif { origin, source: Box::new(source) })?;
        }
        self.shared.effective.store(Arc::new(world.config.policies.over(directory.personality())));
        self.shared.directory.store(directory);
        *self.world.lock().unwrap_or_else(PoisonError::into_inner) = world;
        let old = self.shared.generation.swap(Arc::new(CancellationToken::new()));
        old.cancel();
        Ok(())
    }
}

impl Shared {
    /// The service account's DN, which size limits spare.
    pub(crate) fn service_dn(&self) -> String {
        self.directory.load().service_account().dn
    }
}

/// Makes the directory a configuration describes.
fn build(config: &Config, people: &Company, clock: Clock) -> Result<Arc<Directory>, StartError> {
    if config.servers.is_empty() || config.servers.len() > SERVERS_MAX {
        return Err(StartError::ServerCount { count: config.servers.len() });
    }
    check_hosts(config.servers.iter().map(|server| server.name.as_str())).map_err(StartError::Config)?;
    let mut personality = Personality::named(&config.personality).ok_or_else(|| {
        let known = Vendor::ALL.map(|vendor| Personality::of(vendor).name).join(", ");
        StartError::UnknownPersonality { name: config.personality.clone(), known }
    })?;
    if let Some(allowed) = config.policies.anonymous_search {
        personality.anonymous_search = allowed;
    }
    let mut accounts = config.accounts.clone();
    accounts.empty_password = config.policies.empty_password_bind.or(accounts.empty_password);
    let spec = DirectorySpec {
        personality,
        servers: config.servers.iter().map(Into::into).collect(),
        accounts,
        seed: config.common.seed,
        exchange: config.exchange,
    };
    let directory = Arc::new(Directory::build(&spec, people, clock));
    for path in &config.people_from {
        let text = std::fs::read_to_string(path)
            .map_err(|source| StartError::Read { path: path.clone(), source })?;
        let origin = path.display().to_string();
        apply_ldif(&directory, &text)
            .map_err(|source| StartError::Ldif { origin, source: Box::new(source) })?;
    }
    Ok(directory)
}

/// Applies LDIF records to the first server, with the rights of the manager. Returns how many.
pub(crate) fn apply_ldif(directory: &Directory, text: &str) -> Result<usize, LdifError> {
    let records = ldif::parse(text)?;
    let count = records.len();
    let manager = Identity::Manager { dn: "cn=import".to_owned() };
    let Some(server) = directory.servers().first() else { return Ok(0) };
    for record in records {
        server
            .write(record.op, &manager, true)
            .map_err(|source| LdifError::Refused { line: record.line, source: Box::new(source) })?;
    }
    directory.replicate_due();
    Ok(count)
}

async fn bind_fronts(
    config: &Config,
    personality: &Personality,
) -> Result<Vec<(Front, TcpListener)>, StartError> {
    let mut fronts = Vec::new();
    for (at, server) in config.servers.iter().enumerate() {
        for port in PortKind::ALL {
            if port.is_global_catalog() && !personality.supports_global_catalog {
                continue;
            }
            let name = front_name(at, port);
            let listener = listen::bind("mock-ldap", name, config.common.listen, config.common.port(name))
                .await
                .map_err(StartError::Bind)?;
            let view = if port.is_global_catalog() {
                crate::dit::View::GlobalCatalog
            } else {
                crate::dit::View::Domain
            };
            fronts.push((Front { name, server: server.name.clone(), tls: port.is_tls(), view }, listener));
        }
    }
    Ok(fronts)
}

fn serve_fronts(shared: &Arc<Shared>, listeners: Vec<(Front, TcpListener)>) -> Vec<JoinHandle<()>> {
    let serve_one = |(front, listener): (Front, TcpListener)| {
        let front = Arc::new(front);
        let shared = Arc::clone(shared);
        listen::serve(listener, front.name, shared.cx.clone(), move |stream, _peer| {
            let session = Session::new(Arc::clone(&shared), Arc::clone(&front), stream);
            async move {
                if let Some(session) = session {
                    session.run().await;
                }
            }
        })
    };
    listeners.into_iter().map(serve_one).collect()
}

/// Delivers changes between servers when they are due, until the mock stops.
async fn replicate(shared: Arc<Shared>) {
    while !shared.cx.stop.is_cancelled() {
        let generation = shared.generation.load_full();
        let directory = shared.directory.load_full();
        let mut changes: Vec<_> = directory.servers().iter().map(|server| server.subscribe()).collect();
        loop {
            let due = directory.replicate_due();
            let next = async {
                match due {
                    Some(at_ms) => shared.cx.clock.sleep_until_ms(at_ms).await,
                    None => std::future::pending().await,
                }
            };
            let written = futures_util::future::select_all(
                changes.iter_mut().map(|receiver| Box::pin(receiver.changed())),
            );
            tokio::select! {
                () = shared.cx.stop.cancelled() => return,
                () = generation.cancelled() => break,
                () = next => {}
                _ = written => {}
            }
        }
    }
}

fn urls_of(names: &ServerNames) -> BTreeMap<String, String> {
    let scheme =
        |name: &str| if name.starts_with("ldaps") || name.starts_with("gcs") { "ldaps" } else { "ldap" };
    names
        .0
        .iter()
        .map(|(name, address)| ((*name).to_owned(), format!("{}://{address}", scheme(name))))
        .collect()
}

/// Host names in the TLS certificate: each server's full name, and the address listened on.
fn tls_names(config: &Config) -> Vec<String> {
    let domain = &config.common.domain;
    let mut names: Vec<String> =
        config.servers.iter().map(|server| format!("{}.{domain}", server.name)).collect();
    let listen: IpAddr = config.common.listen;
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    names
}
