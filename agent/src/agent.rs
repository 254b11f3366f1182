//! The agent as a whole: everything put together, started and stopped. Several can live in one process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use causeway_protocol::channel::payload::{Action, Configure, Hello, Reply, Request, Welcome};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xmpp_parsers::stanza_error::StanzaError;

use crate::channel::causeway::CloudConversation;
use crate::channel::login::Credentials as Login;
use crate::channel::reconnect::{self, Parts};
use crate::channel::{Channel, Connect, Nudge, Orders};
use crate::clock::Clock;
use crate::cloud::{CloudConnector, CloudError};
use crate::config::{Endpoint, FileError, SettingsFile};
use crate::dial::Dial;
use crate::dial::Dialer;
use crate::dial::direct::Straight;
use crate::dial::proxy::Ways;
use crate::dial::proxy::settings::ProxySettings;
use crate::dial::proxy::watch::ProxyWatch;
use crate::dial::resolve::Names;
use crate::dial::tls::Trust;
use crate::dispatch::{Capacity, Dispatcher};
use crate::health::{Constants, Reporter, Status, damaged_notice};
use crate::identity::{Identity, IdentityError, machine};
use crate::leases::Leases;
use crate::limits::{DRAIN_WITHIN, STOP_WITHIN, WAY_LOOK_EVERY};
use crate::link::CloudLink;
use crate::modules::{FACTORIES, ModuleContext, ModuleFactory};
use crate::orchestrator::{Modules, ModulesParts, forget_desired};
use crate::random::RandomSource;
use crate::rotation::Rotation;
use crate::secrets::{Sealer, SecretStore, SecretsError};
use crate::status::StatusCell;
use crate::storage::redb::{OpenError, RedbStorage};
use crate::storage::watched::Watched;
use crate::storage::{Scoped, Storage, StorageError};
use crate::surroundings::Surroundings;
use crate::uplink::Uplink;
use crate::upload::Uploads;
use crate::wake::Wake;

/// Everything an agent is made of. Fields that are `None` are made in the usual way from the others.
pub struct AgentConfig {
    /// Where it keeps its files.
    pub data_dir: PathBuf,
    /// `agent.toml`.
    pub settings: SettingsFile,
    /// Who it is.
    pub identity: Identity,
    /// Local secrets.
    pub secrets: SecretStore,
    /// How files are sealed.
    pub sealer: Arc<dyn Sealer>,
    /// Kinds of modules it knows.
    pub factories: Vec<&'static dyn ModuleFactory>,
    /// Opens sockets.
    pub dial: Option<Arc<dyn Dial>>,
    /// Opens the channel's byte streams.
    pub connect: Option<Arc<dyn Connect>>,
    /// Keeps what must not be forgotten.
    pub storage: Option<Arc<dyn Storage>>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub random: RandomSource,
}

/// Why the agent does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// `agent.toml` is wrong.
    #[error(transparent)]
    Settings(FileError),
    /// Nobody has enrolled, or the identity is damaged.
    #[error(transparent)]
    Identity(IdentityError),
    /// The secrets cannot be used.
    #[error("load the local secrets")]
    Secrets {
        /// Why.
        #[source]
        source: SecretsError,
    },
    /// The state file cannot be opened.
    #[error(transparent)]
    State(OpenError),
    /// The state file cannot be read.
    #[error("read the state file")]
    Storage {
        /// Why.
        #[source]
        source: StorageError,
    },
    /// No name servers.
    #[error("set up name resolution")]
    Resolver {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Trust or certificate are unusable.
    #[error("set up the connection to the cloud")]
    Cloud {
        /// Why.
        #[source]
        source: CloudError,
    },
}

impl AgentConfig {
    /// Reads a data directory.
    ///
    /// # Errors
    /// Names the file, and the place in it.
    pub fn load(data_dir: &Path) -> Result<Self, StartError> {
        let settings = SettingsFile::load(data_dir).map_err(StartError::Settings)?;
        let sealer = crate::platform::sealer();
        let identity = Identity::load(data_dir, &*sealer).map_err(StartError::Identity)?;
        let secrets =
            SecretStore::load(data_dir, &*sealer).map_err(|source| StartError::Secrets { source })?;
        Ok(Self {
            data_dir: data_dir.to_owned(),
            settings,
            identity,
            secrets,
            sealer,
            factories: FACTORIES.to_vec(),
            dial: None,
            connect: None,
            storage: None,
            clock: Clock::system(),
            random: RandomSource::system(),
        })
    }
}

/// The dialler `agent.toml` describes.
///
/// # Errors
/// When the proxy's settings are wrong or there are no name servers.
pub fn dialer(
    settings: &SettingsFile,
    secrets: &SecretStore,
    random: &RandomSource,
) -> Result<Arc<Dialer>, StartError> {
    let names = Names::new(&settings.settings.dns.servers, random.clone())
        .map_err(|source| StartError::Resolver { source: source.into() })?;
    let ways = ways(settings, secrets, &Straight::new(names.clone())).map_err(StartError::Settings)?;
    Ok(Arc::new(Dialer::new(names, ways)))
}

/// The ways out `agent.toml` describes.
///
/// # Errors
/// At the key that is wrong.
pub(crate) fn ways(
    settings: &SettingsFile,
    secrets: &SecretStore,
    straight: &Straight,
) -> Result<Ways, FileError> {
    let data_dir = settings.path.parent().unwrap_or(Path::new(""));
    let default = ProxySettings::default();
    let proxy = settings.settings.proxy.as_ref().unwrap_or(&default);
    proxy
        .ways(secrets, data_dir, straight)
        .map_err(|problem| settings.error_at(problem.key, problem.problem, problem.advice))
}

/// What `agent.toml` says about whom to trust.
pub fn trust(settings: &SettingsFile, data_dir: &Path) -> Trust {
    match &settings.settings.cloud.ca_file {
        Some(file) => Trust::File(data_dir.join(file)),
        None => Trust::System,
    }
}

/// Where the cloud is.
///
/// # Errors
/// When `agent.toml` does not say so.
pub fn endpoint(settings: &SettingsFile) -> Result<Endpoint, StartError> {
    Endpoint::parse(&settings.settings.cloud.url).map_err(|problem| {
        StartError::Settings(settings.error_at(
            "cloud.url",
            problem,
            "enrol, or write it as https://host:port",
        ))
    })
}

/// The agent.
pub struct Agent;

/// An agent at work. Dropping it ends it without ceremony; [`RunningAgent::stop`] ends it properly.
pub struct RunningAgent {
    reporter: Reporter,
    channel: Channel,
    modules: Modules,
    stop: CancellationToken,
    modules_stop: CancellationToken,
    tasks: TaskTracker,
    state_thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    /// Starts everything; returns when the modules that ran before run again, online or not.
    ///
    /// # Errors
    /// When settings, state file or certificate cannot be used.
    pub async fn start(config: AgentConfig) -> Result<RunningAgent, StartError> {
        let AgentConfig { data_dir, settings, identity, secrets, sealer, factories, clock, random, .. } =
            config;
        let endpoint = endpoint(&settings)?;
        let mut watch = None;
        let dial = match config.dial {
            Some(dial) => dial,
            None => {
                let dialer = dialer(&settings, &secrets, &random)?;
                watch = Some(ProxyWatch::new(dialer.clone(), &settings, secrets.clone(), sealer.clone()));
                dialer as Arc<dyn Dial>
            }
        };
        let redirect_hosts = settings.settings.cloud.redirect_hosts.clone();
        let connector =
            CloudConnector::by(clock, dial.clone(), endpoint, trust(&settings, &data_dir), Some(&identity))
                .map(|connector| connector.remembering(&data_dir).allowing(redirect_hosts))
                .map(Arc::new)
                .map_err(|source| StartError::Cloud { source })?;
        let (whole, state_thread, set_aside) = match config.storage {
            Some(storage) => (storage, None, None),
            None => {
                let opened = RedbStorage::open_for(&data_dir, &machine(), &identity.enrolment())
                    .map_err(StartError::State)?;
                if opened.former.is_some() {
                    forget_desired(&data_dir);
                }
                (Arc::new(opened.storage) as Arc<dyn Storage>, Some(opened.thread), opened.set_aside)
            }
        };
        let (watched, storage_trouble) = Watched::new(whole);
        let whole: Arc<dyn Storage> = Arc::new(watched);
        let own: Arc<dyn Storage> = Arc::new(Scoped::new(whole.clone(), "agent"));

        let (channel, ends) = Channel::new();
        let (stop, modules_stop) = (CancellationToken::new(), CancellationToken::new());
        let (jumps, jumped) = watch::channel(0);
        let leases = Leases {
            channel: channel.clone(),
            clock,
            random: random.clone(),
            stop: modules_stop.clone(),
            jumps: jumped,
        };
        let uploads =
            Uploads::new(channel.clone(), connector.clone(), clock, random.clone(), modules_stop.clone());
        let uplink = Uplink::new(channel.clone(), leases, uploads);
        let roads = dial.clone();
        let outside = dial.clone();
        let template = ModuleContext {
            dial,
            storage: own.clone(),
            cloud: Arc::new(uplink.clone()),
            clock,
            stop: modules_stop.clone(),
            status: StatusCell::default(),
            random: random.clone(),
            wake: Wake::default(),
        };
        let limits = settings.settings.limits.clone();
        let cloud = settings.settings.cloud.url.clone();
        let host = settings.settings.cloud.shown_name();
        let modules = Modules::new(ModulesParts {
            factories,
            data_dir: data_dir.clone(),
            settings: settings.settings,
            secrets,
            own: own.clone(),
            whole,
            template,
        });
        let capacity = Capacity { actions: limits.actions_at_once, requests: limits.requests_at_once };
        let failed = |source| StartError::Storage { source };
        let dispatcher = Dispatcher::new(own, modules.clone(), clock, capacity, modules_stop.clone())
            .await
            .map_err(failed)?;
        modules.restore().await.map_err(failed)?;
        dispatcher.resume().await.map_err(failed)?;
        if let Some(kept_at) = set_aside {
            uplink.notice(damaged_notice(&kept_at));
        }

        let (welcome, welcomed) = watch::channel(None);
        let constants = Constants {
            instance: identity.instance.clone(),
            tenant: identity.tenant.clone(),
            cloud,
            started_ms: clock.now_ms(),
        };
        let orders = Arc::new(Desk {
            dispatcher: dispatcher.clone(),
            modules: modules.clone(),
            welcome,
            boot_id: random.uuid().to_string(),
            started_ms: constants.started_ms,
            capacity: limits.requests_at_once,
            host: host.clone(),
        });
        let reporter = Reporter {
            constants,
            channel: channel.clone(),
            dispatcher: dispatcher.clone(),
            modules: modules.clone(),
            uplink: uplink.clone(),
            storage_trouble,
            welcome: welcomed,
            clock,
            data_dir: data_dir.clone(),
            dial: outside,
            remembered: Arc::default(),
        };
        let connect = config.connect.unwrap_or_else(|| connector.clone() as Arc<dyn Connect>);
        let parts = Parts {
            connect,
            conversation: Arc::new(CloudConversation::new(orders)),
            jid: identity.jid.clone(),
            credentials: Login::Certificate(identity.jid.clone()),
            clock,
            random: random.clone(),
            stop: stop.clone(),
        };
        let (watched, roads_to_cloud) = (connector.clone(), connector.clone());
        let surroundings = Surroundings {
            clock,
            way_out: Arc::new(move || watched.way_out()),
            channel: channel.clone(),
            dial: roads,
            jumps,
        };
        let rotation =
            Rotation { data_dir, identity, host, sealer, channel: channel.clone(), connector, clock, random };
        let running = RunningAgent {
            reporter,
            channel,
            modules,
            stop,
            modules_stop,
            tasks: TaskTracker::new(),
            state_thread,
        };
        running.until_stopped(surroundings.run());
        running.until_stopped(running.modules.clone().wake_on_new_secrets());
        running.until_stopped(prefer_direct(roads_to_cloud, running.channel.clone(), clock));
        running.spawn_all(parts, ends, dispatcher, uplink, rotation, clock);
        if let Some(watch) = watch {
            running.until_stopped(watch.run());
        }
        Ok(running)
    }
}

/// Leaves a WebSocket once the direct way works again.
async fn prefer_direct(connector: Arc<CloudConnector>, channel: Channel, clock: Clock) {
    loop {
        clock.sleep(WAY_LOOK_EVERY).await;
        if *channel.online().borrow() && connector.better_way_works().await {
            channel.nudge(Nudge::Redial("the direct way to the cloud works again".to_owned()));
        }
    }
}

impl RunningAgent {
    fn spawn_all(
        &self,
        parts: Parts,
        ends: crate::channel::Ends,
        dispatcher: Dispatcher,
        uplink: Uplink,
        rotation: Rotation,
        clock: Clock,
    ) {
        let (channel, stop) = (self.channel.clone(), self.stop.clone());
        self.tasks.spawn(reconnect::run(parts, ends));
        let (outbox, drained) = (dispatcher.outbox().clone(), stop.clone());
        self.tasks.spawn(async move { outbox.drain(channel, clock, drained).await });
        self.tasks.spawn(async move { dispatcher.prune_until_stopped().await });
        let (modules, channel) = (self.modules.clone(), self.channel.clone());
        self.until_stopped(async move { modules.tell_until_stopped(&channel).await });
        let told = stop.clone();
        self.tasks.spawn(async move { uplink.tell_until_stopped(clock, told).await });
        self.until_stopped(self.reporter.clone().run());
        self.until_stopped(rotation.run());
        self.tasks.close();
    }

    fn until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// How everything is now.
    pub fn status(&self) -> Status {
        self.reporter.status()
    }

    /// Reports that the cloud does not have.
    pub fn outbox_waiting(&self) -> u64 {
        self.reporter.dispatcher.outbox().waiting()
    }

    /// The channel, to watch it.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Waits until a session is up. False when `within` passes first.
    pub async fn wait_online(&self, within: Duration) -> bool {
        matches!(timeout(within, self.channel.wait_online()).await, Ok(Ok(())))
    }

    /// Ends the modules, then the session, then the state file.
    pub async fn stop(mut self) {
        let _ = timeout(DRAIN_WITHIN * 2, self.modules.stop()).await;
        self.modules_stop.cancel();
        self.stop.cancel();
        let _ = timeout(STOP_WITHIN, self.tasks.wait()).await;
        self.reporter.ended();
        if let Some(thread) = self.state_thread.take() {
            drop(self);
            // The thread ends when the last handle is gone, which a hanging module may keep.
            let joined = tokio::task::spawn_blocking(move || thread.join());
            let _ = timeout(STOP_WITHIN, joined).await;
        }
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        self.modules_stop.cancel();
        self.stop.cancel();
    }
}

/// Takes the cloud's orders.
struct Desk {
    dispatcher: Dispatcher,
    modules: Modules,
    welcome: watch::Sender<Option<Welcome>>,
    boot_id: String,
    started_ms: i64,
    capacity: u32,
    host: String,
}

impl Orders for Desk {
    fn hello(&self) -> Hello {
        Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            started_ms: self.started_ms,
            modules: self.modules.kinds(),
            revisions: self.modules.revisions(),
            capacity: self.capacity,
            outbox: self.dispatcher.outbox().waiting(),
        }
    }

    fn welcomed(&self, welcome: Welcome) {
        self.welcome.send_replace(Some(welcome));
    }

    fn accept(&self, action: Action) -> BoxFuture<'static, Result<(), Box<StanzaError>>> {
        self.dispatcher.accept(action)
    }

    fn configure(&self, config: Configure) -> BoxFuture<'static, Result<(), Box<StanzaError>>> {
        self.modules.configure(config)
    }

    fn answer(&self, request: Request) -> BoxFuture<'static, Reply> {
        self.dispatcher.answer(request)
    }
}
