//! A running cloud: everything bound, started, and stopped together.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use causeway_mock_kit::admin;
use causeway_mock_kit::cli::{ConfigError, Ready, RunningMock};
use causeway_mock_kit::listen::{BindError, bind};
use causeway_mock_kit::{Faults, Journal, KitContext};
use serde_json::json;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::access::{Access, AccessError, AdminAccount};
use crate::admission::Admission;
use crate::config::Config;
use crate::events::Events;
use crate::ids::Ids;
use crate::limits::FEEDS_MAX;
use crate::pki::{CloudPki, PkiError};
use crate::portal::Pages;
use crate::state::Cloud;
use crate::store::{Store, StoreError};
use crate::world::CloudWorld;
use crate::{api, certificates, channel, dispatch, mobile, port};

/// The mock's name in the ready line and in errors.
const SERVICE: &str = "mock-cloud";

/// How long peers get to take the news that the cloud stops; the whole stop has a second.
const GOODBYE: Duration = Duration::from_millis(300);

/// Why the cloud does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is wrong.
    #[error("read settings")]
    Config(#[source] ConfigError),
    /// The data directory cannot be used.
    #[error("use data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another cloud uses the data directory.
    #[error("data directory {} is in use by another mock-cloud; stop that one or take another --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The store does not open.
    #[error("open the cloud's state")]
    Store(#[source] StoreError),
    /// The certificate authority does not open.
    #[error("open the cloud's certificate authority")]
    Pki(#[source] PkiError),
    /// The first credentials cannot be kept.
    #[error("establish the administrator's credentials")]
    Access(#[source] AccessError),
    /// A port cannot be bound.
    #[error("open a front end")]
    Bind(#[source] BindError),
}

/// A running cloud; stops when dropped.
pub struct MockCloud {
    cloud: Arc<Cloud>,
    urls: BTreeMap<String, String>,
    admin: AdminAccount,
    tasks: Vec<JoinHandle<()>>,
    /// Held as long as the cloud runs.
    _lock: File,
    /// Deleted with the cloud.
    _private_dir: Option<tempfile::TempDir>,
}

impl MockCloud {
    /// Starts a cloud; everything is bound when this returns.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let kit = KitContext::from_common(SERVICE, &config.common);
        Self::start_with(config, kit).await
    }

    /// Starts a cloud with a clock, faults and journal of the caller's.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_with(config: Config, kit: KitContext) -> Result<Self, StartError> {
        config.common.check_ports(&[port::NAME, "portal", "admin"]).map_err(StartError::Config)?;
        let (dir, private_dir) = data_dir(config.data_dir.as_deref())?;
        let lock = lock(&dir)?;
        let store = Store::open(&dir.join("cloud.sqlite")).map_err(StartError::Store)?;
        let admin =
            AdminAccount::establish(&dir, &config.portal_user, &store).await.map_err(StartError::Access)?;
        let host = config.common.listen;
        let mut listeners = Vec::new();
        for name in [port::NAME, "portal", "admin"] {
            // Only the public port has TLS; the other two carry passwords and faults and stay on this machine.
            let host =
                if name == port::NAME || host.is_loopback() { host } else { Ipv4Addr::LOCALHOST.into() };
            let bound = bind(SERVICE, name, host, config.common.port(name)).await;
            listeners.push(bound.map_err(StartError::Bind)?);
        }
        let mut names = vec![config.domain.clone()];
        names.extend(config.names.iter().cloned());
        if !host.is_unspecified() {
            names.push(host.to_string());
        }
        let pki = CloudPki::open(&dir.join("ca"), names).map_err(StartError::Pki)?;
        let parts = EngineParts { store, pki, kit, config, ids: Ids::random() };
        let cloud = parts.assemble(seed(&admin)).await?;
        let (urls, tasks) = serve(&cloud, listeners).await?;
        Ok(Self { cloud, urls, admin, tasks, _lock: lock, _private_dir: private_dir })
    }

    /// Front end name to URL: `api`, `portal`, `admin`.
    pub fn urls(&self) -> &BTreeMap<String, String> {
        &self.urls
    }

    /// One URL.
    ///
    /// # Panics
    /// When there is no such front end.
    pub fn url(&self, name: &str) -> &str {
        self.urls.get(name).unwrap_or_else(|| panic!("mock-cloud has no front end {name:?}"))
    }

    /// Bearer token of the API.
    pub fn token(&self) -> &str {
        self.admin.token.expose()
    }

    /// The first administrator.
    pub fn admin(&self) -> &AdminAccount {
        &self.admin
    }

    /// File with the authority that signed the public port's certificate.
    pub fn ca_pem(&self) -> &Path {
        self.cloud.pki.ca_path()
    }

    /// Failures to inject.
    pub fn faults(&self) -> &Faults {
        &self.cloud.kit.faults
    }

    /// What the cloud received.
    pub fn journal(&self) -> &Journal {
        &self.cloud.kit.journal
    }

    /// The state itself.
    pub fn cloud(&self) -> &Arc<Cloud> {
        &self.cloud
    }

    /// Says goodbye to the agents, then closes everything.
    pub async fn stop(mut self) {
        channel::shut_down(&self.cloud, GOODBYE).await;
        self.cloud.kit.stop.cancel();
        for task in std::mem::take(&mut self.tasks) {
            // A task that panicked has stopped as well.
            let _ = task.await;
        }
    }
}

impl Drop for MockCloud {
    fn drop(&mut self) {
        self.cloud.kit.stop.cancel();
    }
}

impl RunningMock for MockCloud {
    fn ready(&self) -> Ready {
        let mut ready = Ready::new(SERVICE);
        ready.urls.clone_from(&self.urls);
        ready.ca_pem = Some(self.ca_pem().to_owned());
        let account = json!({
            "token": self.admin.token.expose(),
            "user": self.admin.user,
            "password": self.admin.password.expose(),
        });
        ready.accounts.insert("admin".to_owned(), account);
        ready
    }

    async fn stop(self) {
        Self::stop(self).await;
    }
}

/// Serves all front ends.
async fn serve(
    cloud: &Arc<Cloud>,
    listeners: Vec<TcpListener>,
) -> Result<(BTreeMap<String, String>, Vec<JoinHandle<()>>), StartError> {
    let [public, plain, admin] =
        <[TcpListener; 3]>::try_from(listeners).expect("one listener per front end was bound");
    let url = |scheme: &str, listener: &TcpListener| {
        let address = listener.local_addr().expect("a bound listener has an address");
        format!("{scheme}://{address}")
    };
    let (api_url, plain_url) = (url("https", &public), url("http", &plain));
    let urls = BTreeMap::from([
        ("api".to_owned(), api_url.clone()),
        ("portal".to_owned(), plain_url),
        ("admin".to_owned(), url("http", &admin)),
    ]);
    cloud.public_url.set(api_url).expect("a cloud is served once");
    let pages = Pages::new(Arc::clone(cloud));
    let router = api::router(Arc::clone(cloud)).merge(pages.router(true));
    let stop = &cloud.kit.stop;
    let world = Arc::new(CloudWorld(Arc::clone(cloud)));
    let admin_router = admin::router(cloud.kit.clone(), world, crate::drain::routes(Arc::clone(cloud)));
    let mut tasks = vec![port::serve(Arc::clone(cloud), public, router).map_err(StartError::Pki)?];
    tasks.push(tokio::spawn(admin::serve(plain, pages.router(false), stop.clone())));
    tasks.push(tokio::spawn(admin::serve_admin(admin, admin_router, stop.clone())));
    tasks.push(tokio::spawn(Arc::clone(cloud).emit_verdicts()));
    dispatch::start(cloud);
    mobile::start(cloud);
    certificates::start(cloud);
    Ok((urls, tasks))
}

/// What a cloud is made of.
pub struct EngineParts {
    /// What survives a restart.
    pub store: Store,
    /// The certificate authority.
    pub pki: CloudPki,
    /// Faults, journal, clock and stop signal.
    pub kit: KitContext,
    /// Settings.
    pub config: Config,
    /// Names of streams, sessions and agents.
    pub ids: Ids,
}

impl EngineParts {
    async fn assemble(self, scram_seed: [u8; 16]) -> Result<Arc<Cloud>, StartError> {
        let Self { store, pki, kit, config, ids } = self;
        Ok(Arc::new(Cloud {
            events: Events::start(store.clone(), kit.clock.clone()),
            access: Access::load(&store).await.map_err(StartError::Store)?,
            pki,
            scram_seed,
            admission: Admission::new(&config.channel),
            store,
            kit,
            config,
            ids,
            actions_changed: Default::default(),
            verdicts: Default::default(),
            feeds: Arc::new(Semaphore::new(FEEDS_MAX)),
            public_url: Default::default(),
            sessions: Default::default(),
            dispatch: Default::default(),
            compliance: Default::default(),
            certificates: Default::default(),
            device_sign_ins: Default::default(),
        }))
    }
}

/// A cloud without sockets: whoever starts it brings the connections. [`MockCloud`] brings those of the operating
/// system, a simulation its own. It has the channel, dispatch and uploads; no API and no portal.
pub struct Engine {
    cloud: Arc<Cloud>,
    front: port::Front,
}

impl Engine {
    /// Starts what runs beside connections.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(parts: EngineParts) -> Result<Self, StartError> {
        let cloud = parts.assemble([0; 16]).await?;
        let front = port::Front::new(Arc::clone(&cloud), axum::Router::new()).map_err(StartError::Pki)?;
        tokio::spawn(Arc::clone(&cloud).emit_verdicts());
        dispatch::start(&cloud);
        mobile::start(&cloud);
        certificates::start(&cloud);
        Ok(Self { cloud, front })
    }

    /// The state itself.
    pub fn cloud(&self) -> &Arc<Cloud> {
        &self.cloud
    }

    /// Serves one connection to the public port, TLS and all, to its end.
    pub fn serve<S>(&self, stream: S, from: SocketAddr) -> impl Future<Output = ()> + Send + use<S>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        self.front.serve(stream, from)
    }
}

fn data_dir(wanted: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), StartError> {
    let failed = |path: &Path, source| StartError::DataDir { path: path.to_owned(), source };
    match wanted {
        Some(path) => {
            std::fs::create_dir_all(path).map_err(|source| failed(path, source))?;
            // The ready line names a file in it, and whoever reads that line may be somewhere else.
            let path = std::fs::canonicalize(path).map_err(|source| failed(path, source))?;
            Ok((path, None))
        }
        None => {
            let dir = tempfile::Builder::new()
                .prefix("mock-cloud-")
                .tempdir()
                .map_err(|source| failed(&std::env::temp_dir(), source))?;
            Ok((dir.path().to_owned(), Some(dir)))
        }
    }
}

/// Two clouds over one directory would each believe to be the only one.
fn lock(dir: &Path) -> Result<File, StartError> {
    let path = dir.join("lock");
    let failed = |source| StartError::DataDir { path: dir.to_owned(), source };
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// The same for every start over one data directory, and known to nobody else.
fn seed(account: &AdminAccount) -> [u8; 16] {
    let text = format!("scram-seed:{}", account.token.expose());
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let mut seed = [0; 16];
    seed.copy_from_slice(&hash.as_ref()[..16]);
    seed
}
