//! What every area works with, read once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use causeway_protocol::config::DesiredConfig;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::directories::{self, Found};
use super::installation;
use crate::agent::StartError;
use crate::chain::Chain;
use crate::checks::CheckResult;
use crate::clock::Clock;
use crate::config::{FileError, SettingsFile};
use crate::dial::Dialer;
use crate::health;
use crate::identity::{Identity, IdentityError};
use crate::link::Detached;
use crate::modules::{FACTORIES, ModuleContext, ModuleSettings};
use crate::orchestrator::{module_settings, read_desired};
use crate::platform::PlatformSealer;
use crate::random::RandomSource;
use crate::secrets::{SecretStore, SecretsError};
use crate::status::StatusCell;
use crate::storage::memory::MemoryStorage;
use crate::wake::Wake;

/// The data directory as read, and the world as it is reached from here.
pub(in crate::cli) struct Bench {
    pub(super) data_dir: PathBuf,
    /// Only this module, or all.
    pub(super) only: Option<String>,
    pub(super) settings: Result<SettingsFile, FileError>,
    pub(super) secrets: Result<SecretStore, SecretsError>,
    pub(super) identity: Result<Identity, IdentityError>,
    pub(super) desired: BTreeMap<String, DesiredConfig>,
    pub(super) dial: Result<Arc<Dialer>, StartError>,
    pub(super) random: RandomSource,
    pub(super) clock: Clock,
    /// Whether an agent runs with this data directory. Asked for before the doctor opens the state file itself.
    pub(super) runs: bool,
    /// Another address to try, for the network's area.
    pub(super) url: Option<String>,
    directories: OnceCell<Found>,
}

impl Bench {
    /// What is on disk.
    pub(super) fn new(data_dir: &Path, only: Option<&str>) -> Self {
        let settings = SettingsFile::load(data_dir);
        Self::of(data_dir, settings, SecretStore::load(data_dir, &PlatformSealer), only)
    }

    /// What might come to be on disk.
    pub(super) fn of(
        data_dir: &Path,
        settings: Result<SettingsFile, FileError>,
        secrets: Result<SecretStore, SecretsError>,
        only: Option<&str>,
    ) -> Self {
        let (random, clock) = (RandomSource::system(), Clock::system());
        let none = SecretStore::default();
        // Broken settings are reported as such; for the rest, the defaults have to do.
        let usable = settings.as_ref().cloned().unwrap_or_default();
        let dial = crate::dialer(&usable, secrets.as_ref().unwrap_or(&none), &random);
        Self {
            data_dir: data_dir.to_owned(),
            only: only.map(str::to_owned),
            settings,
            secrets,
            identity: Identity::load(data_dir, &PlatformSealer),
            desired: read_desired(data_dir),
            dial,
            random,
            clock,
            runs: health::read_file(data_dir)
                .is_ok_and(|status| health::runs(data_dir, &status, clock.now_ms())),
            url: None,
            directories: OnceCell::new(),
        }
    }

    /// What was found about the directories; whoever asks first tries them.
    pub(super) async fn directories(&self) -> &Found {
        self.directories.get_or_init(|| directories::examine(self)).await
    }

    /// The settings, where they can be used at all.
    pub(super) fn file(&self) -> Option<&SettingsFile> {
        self.settings.as_ref().ok()
    }

    /// The secrets; none where they cannot be read.
    pub(super) fn secrets(&self) -> SecretStore {
        self.secrets.as_ref().cloned().unwrap_or_default()
    }

    /// The result for settings that cannot be read.
    pub(super) fn broken_settings(&self) -> Option<CheckResult> {
        let error = self.settings.as_ref().err()?;
        let remedy = installation::remedy_if_denied(error, &self.data_dir);
        Some(CheckResult::fail(&installation::SETTINGS, Chain(error).to_string(), remedy))
    }

    /// Kinds of modules to look at: those that are switched on or have local settings, or the only one asked for.
    pub(super) fn kinds(&self) -> Vec<&'static str> {
        let local = |kind: &str| self.file().is_some_and(|file| file.settings.modules.contains_key(kind));
        let on = |kind: &str| self.desired.get(kind).is_some_and(|config| config.enabled);
        FACTORIES
            .iter()
            .map(|factory| factory.kind())
            .filter(|kind| match &self.only {
                Some(only) => only == kind,
                None => on(kind) || local(kind),
            })
            .collect()
    }

    /// What a module would be told.
    pub(super) fn module_settings(&self, kind: &str) -> Option<ModuleSettings> {
        let unconfigured = || DesiredConfig {
            module: kind.to_owned(),
            revision: 0,
            enabled: true,
            settings: serde_json::Value::Null,
        };
        let config = self.desired.get(kind).cloned().unwrap_or_else(unconfigured);
        Some(module_settings(&config, &self.file()?.settings, &self.secrets(), &self.data_dir))
    }

    /// A module's surroundings: real sockets, nothing remembered, no cloud.
    pub(super) fn context(&self, dial: &Arc<Dialer>) -> ModuleContext {
        ModuleContext {
            dial: dial.clone(),
            storage: Arc::new(MemoryStorage::new()),
            cloud: Arc::new(Detached::default()),
            clock: self.clock,
            stop: CancellationToken::new(),
            status: StatusCell::default(),
            random: self.random.clone(),
            wake: Wake::default(),
        }
    }
}
