//! From desired config to running modules. A config with an older or equal revision is ignored, a bad one leaves the
//! previous running; what runs is kept on disk, so that a restart works without the cloud.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use causeway_protocol::action::{ErrorReport, codes};
use causeway_protocol::channel::payload::{Applied, Configure, Payload};
use causeway_protocol::health::{ModuleHealth, ModuleState};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use crate::chain::Chain;
use crate::channel::{Channel, stanza_error};
use crate::config::Settings;
use crate::limits::{MODULES_MAX, STORAGE_PAGE};
use crate::modules::{ConfigError, Module, ModuleContext, ModuleFactory, ModuleSettings};
use crate::secrets::{SecretStore, write_private};
use crate::status::StatusCell;
use crate::storage::{Batch, Scoped, Storage, StorageError, Table};
use crate::supervisor::{Supervised, Supervisor};
use crate::vault::Vault;
use crate::wake::Wake;

/// The modules that are configured. Cheap to clone.
#[derive(Clone)]
pub struct Modules(Arc<Inner>);

struct Inner {
    factories: Vec<&'static dyn ModuleFactory>,
    data_dir: PathBuf,
    settings: Settings,
    secrets: SecretStore,
    /// The agent's own part of the storage.
    own: Arc<dyn Storage>,
    /// All of it, to be cut up for the modules.
    whole: Arc<dyn Storage>,
    template: ModuleContext,
    stop: CancellationToken,
    running: Mutex<BTreeMap<String, Configured>>,
    /// One config is applied at a time.
    applying: tokio::sync::Mutex<()>,
    news: Mutex<BTreeMap<String, Applied>>,
    has_news: Notify,
}

struct Configured {
    revision: u64,
    config: Option<Configure>,
    module: Option<Arc<dyn Module>>,
    cx: ModuleContext,
    supervisor: Supervisor,
}

/// What modules are made of and work with.
pub struct ModulesParts {
    /// Kinds that exist.
    pub factories: Vec<&'static dyn ModuleFactory>,
    /// Where the agent keeps its files.
    pub data_dir: PathBuf,
    /// `agent.toml`.
    pub settings: Settings,
    /// Local secrets.
    pub secrets: SecretStore,
    /// The agent's own part of the storage.
    pub own: Arc<dyn Storage>,
    /// All of it.
    pub whole: Arc<dyn Storage>,
    /// What every module's context has in common; its storage and status are replaced for each.
    pub template: ModuleContext,
}

impl Modules {
    /// None configured yet.
    pub fn new(parts: ModulesParts) -> Self {
        let ModulesParts { factories, data_dir, settings, secrets, own, whole, template } = parts;
        Self(Arc::new(Inner {
            factories,
            data_dir,
            settings,
            secrets,
            own,
            whole,
            stop: template.stop.clone(),
            template,
            running: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
            news: Mutex::default(),
            has_news: Notify::new(),
        }))
    }

    /// Starts what ran when the last process ended.
    ///
    /// # Errors
    /// When the state file cannot be read.
    pub async fn restore(&self) -> Result<(), StorageError> {
        let _one = self.0.applying.lock().await;
        for (kind, bytes) in self.0.own.scan(Table::Config, Vec::new(), None, STORAGE_PAGE).await? {
            let kind = String::from_utf8_lossy(&kind).into_owned();
            let config: Configure = match serde_json::from_slice(&bytes) {
                Ok(config) => config,
                Err(error) => {
                    tracing::error!(kind, %error, "The stored config is unreadable; the cloud will send it again");
                    continue;
                }
            };
            match self.0.build(&config) {
                Ok(module) => self.0.run(&config, module),
                Err(error) => self.0.fail(&config.module, &error),
            }
        }
        Ok(())
    }

    /// Applies a desired config; returns when it is decided and, if it runs, on disk.
    pub fn configure(&self, config: Configure) -> BoxFuture<'static, Result<(), Box<StanzaError>>> {
        let this = self.clone();
        // A task of its own: a cut link must not leave a config half applied.
        let task = tokio::spawn(async move { this.apply(config).await });
        async move { task.await.unwrap_or_else(|_| Err(busy("the agent is stopping"))) }.boxed()
    }

    async fn apply(&self, config: Configure) -> Result<(), Box<StanzaError>> {
        let inner = &self.0;
        let _one = inner.applying.lock().await;
        let running = inner.revision(&config.module);
        if running >= config.revision {
            inner.tell(Applied { module: config.module, revision: config.revision, running, error: None });
            return Ok(());
        }
        if running == 0 && inner.running().len() >= MODULES_MAX {
            return Err(busy("too many modules are configured"));
        }
        let (module, revision) = (config.module.clone(), config.revision);
        let built = match inner.build(&config) {
            Ok(built) => built,
            Err(error) => {
                tracing::error!(kind = module, revision, error = error.detail, "A config is refused");
                if running == 0 {
                    inner.fail(&module, &error);
                }
                inner.tell(Applied { module, revision, running, error: Some(error) });
                return Ok(());
            }
        };
        let mut batch = Batch::new();
        let bytes = serde_json::to_vec(&config).expect("configs serialise to JSON");
        batch.put(Table::Config, module.as_bytes(), bytes);
        inner.own.commit(batch).await.map_err(|error| busy(&Chain(&error).to_string()))?;
        inner.run(&config, built);
        tracing::info!(kind = module, revision, enabled = config.enabled, "A config is applied");
        inner.tell(Applied { module, revision, running: revision, error: None });
        Ok(())
    }

    /// The module of a kind, ready to act.
    ///
    /// # Errors
    /// When there is none, it is switched off, or the customer forbids it.
    pub fn find(&self, kind: &str) -> Result<(Arc<dyn Module>, ModuleContext), ErrorReport> {
        let inner = &self.0;
        if inner.factory(kind).is_none() {
            return Err(unknown(format!("this agent has no module {kind}"), "update the agent"));
        }
        inner.permitted(kind)?;
        let running = inner.running();
        match running
            .get(kind)
            .and_then(|configured| configured.module.clone().map(|m| (m, configured.cx.clone())))
        {
            Some(found) => Ok(found),
            None => Err(unknown(
                format!("module {kind} is not configured on this agent"),
                "enable the module in the cloud's settings and complete its local settings",
            )),
        }
    }

    /// Kinds this build knows.
    pub fn kinds(&self) -> Vec<String> {
        self.0.factories.iter().map(|factory| factory.kind().to_owned()).collect()
    }

    /// Revisions that run.
    pub fn revisions(&self) -> BTreeMap<String, u64> {
        self.0.running().iter().map(|(kind, c)| (kind.clone(), c.revision)).collect()
    }

    /// How every configured module is.
    pub fn health(&self) -> Vec<ModuleHealth> {
        let running = self.0.running();
        running
            .iter()
            .map(|(kind, configured)| {
                let status = configured.cx.status.get();
                ModuleHealth {
                    module: kind.clone(),
                    state: status.state,
                    detail: status.detail,
                    revision: configured.revision,
                    restarts: configured.supervisor.restarts(),
                    figures: status.figures,
                }
            })
            .collect()
    }

    /// Tells the cloud what became of its configs, for as long as the agent runs.
    pub async fn tell_until_stopped(&self, channel: &Channel) {
        let inner = &self.0;
        loop {
            let news = inner.has_news.notified();
            if channel.wait_online().await.is_err() {
                return;
            }
            let next = inner.news().pop_first();
            let Some((kind, applied)) = next else {
                tokio::select! {
                    biased;
                    () = inner.stop.cancelled() => return,
                    () = news => continue,
                }
            };
            if let Err(error) = channel.ask(applied.to_element()).await {
                tracing::debug!(kind, %error, "News about a config wait");
                inner.news().entry(kind).or_insert(applied);
                inner.template.clock.sleep(crate::limits::OUTBOX_RETRY_AFTER).await;
            }
        }
    }

    /// Tries everything that waits again whenever somebody stores a secret, for as long as the agent runs.
    pub async fn wake_on_new_secrets(self) {
        let mut renewals = self.0.secrets.renewals();
        loop {
            renewals.next().await;
            self.0.running().values().for_each(|configured| configured.cx.wake.call());
        }
    }

    /// Ends every module; returns when they have ended.
    pub async fn stop(&self) {
        let supervisors: Vec<Supervisor> =
            self.0.running().values().map(|configured| configured.supervisor.clone()).collect();
        for supervisor in &supervisors {
            supervisor.replace(None);
        }
        for supervisor in supervisors {
            supervisor.ended().await;
        }
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Configured>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) -> MutexGuard<'_, BTreeMap<String, Applied>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, applied: Applied) {
        self.news().insert(applied.module.clone(), applied);
        self.has_news.notify_one();
    }

    fn factory(&self, kind: &str) -> Option<&'static dyn ModuleFactory> {
        self.factories.iter().copied().find(|factory| factory.kind() == kind)
    }

    fn revision(&self, kind: &str) -> u64 {
        self.running().get(kind).map_or(0, |configured| configured.revision)
    }

    fn permitted(&self, kind: &str) -> Result<(), ErrorReport> {
        if self.settings.limits.modules_forbidden.iter().any(|forbidden| forbidden == kind) {
            return Err(ErrorReport::new(
                codes::FORBIDDEN_LOCALLY,
                format!("agent.toml forbids module {kind}"),
                "ask the administrator of the agent's machine",
            ));
        }
        Ok(())
    }

    /// Makes the module, or none when it is switched off.
    fn build(&self, config: &Configure) -> Result<Option<Arc<dyn Module>>, ErrorReport> {
        let Some(factory) = self.factory(&config.module) else {
            return Err(unknown(format!("this agent has no module {}", config.module), "update the agent"));
        };
        if !config.enabled {
            return Ok(None);
        }
        self.permitted(&config.module)?;
        let settings = module_settings(config, &self.settings, &self.secrets, &self.data_dir);
        factory.build(&settings).map(Some).map_err(|error| bad_settings(&error))
    }

    fn run(&self, config: &Configure, module: Option<Arc<dyn Module>>) {
        let mut running = self.running();
        let configured = running.entry(config.module.clone()).or_insert_with(|| self.fresh(&config.module));
        configured.revision = config.revision;
        configured.config = Some(config.clone());
        configured.module.clone_from(&module);
        if module.is_none() {
            configured.cx.status.set(ModuleState::Idle, "switched off");
        }
        configured.supervisor.replace(module.map(|module| Supervised { module }));
        // What waits may have waited for these settings.
        configured.cx.wake.call();
        let desired: BTreeMap<&String, &Configure> =
            running.iter().filter_map(|(kind, c)| Some((kind, c.config.as_ref()?))).collect();
        let json = serde_json::to_vec_pretty(&desired).expect("configs serialise to JSON");
        if let Err(error) = write_private(&self.data_dir.join(DESIRED_FILE), &json) {
            tracing::warn!(%error, "The copy of the desired config could not be written");
        }
    }

    fn fail(&self, kind: &str, error: &ErrorReport) {
        let mut running = self.running();
        let configured = running.entry(kind.to_owned()).or_insert_with(|| self.fresh(kind));
        configured.cx.status.set(ModuleState::Failed, format!("{}; {}", error.detail, error.remedy));
    }

    fn fresh(&self, kind: &str) -> Configured {
        let cx = ModuleContext {
            storage: Arc::new(Scoped::new(self.whole.clone(), kind)),
            status: StatusCell::default(),
            wake: Wake::default(),
            ..self.template.clone()
        };
        let supervisor = Supervisor::start(kind.to_owned(), cx.clone());
        Configured { revision: 0, config: None, module: None, cx, supervisor }
    }
}

/// Puts together what a module is told. Files that directories, Exchange organisations and authorities name are
/// looked for beside `agent.toml`.
pub fn module_settings(
    config: &Configure,
    settings: &Settings,
    secrets: &SecretStore,
    data_dir: &Path,
) -> ModuleSettings {
    ModuleSettings {
        desired: config.settings.clone(),
        local: settings.modules.get(&config.module).cloned().unwrap_or_default(),
        directories: beside(data_dir, &settings.directory),
        exchanges: beside(data_dir, &settings.exchange),
        authorities: beside(data_dir, &settings.ca),
        limits: settings.limits.clone(),
        secrets: secrets.clone(),
        vault: Vault::at(data_dir),
    }
}

fn beside(data_dir: &Path, tables: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let mut tables = tables.clone();
    for table in tables.values_mut() {
        for key in ["ca_file", "certificate_file"] {
            if let Some(Value::String(file)) = table.get_mut(key) {
                *file = data_dir.join(&*file).to_string_lossy().into_owned();
            }
        }
    }
    tables
}

/// A copy of the desired config for `check` and `show-config`, which must not wait for the state file's lock.
pub const DESIRED_FILE: &str = "desired.json";

/// Reads that copy; nothing when there is none.
pub fn read_desired(data_dir: &Path) -> BTreeMap<String, Configure> {
    std::fs::read(data_dir.join(DESIRED_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Removes that copy: it is of another enrolment.
pub(crate) fn forget_desired(data_dir: &Path) {
    let path = data_dir.join(DESIRED_FILE);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "The copy of the former desired config could not be removed");
    }
}

fn bad_settings(error: &ConfigError) -> ErrorReport {
    ErrorReport::new("bad_settings", error.to_string(), error.advice.clone())
}

fn unknown(detail: String, remedy: &str) -> ErrorReport {
    ErrorReport::new(codes::UNKNOWN_MODULE, detail, remedy)
}

fn busy(text: &str) -> Box<StanzaError> {
    stanza_error(ErrorType::Wait, DefinedCondition::ResourceConstraint, text)
}
