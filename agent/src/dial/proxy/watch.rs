//! Takes over another way out without a restart: when agent.toml or the secrets change on disk, `[proxy]` and the secrets
//! are read again. What else has changed there waits for the next start, as before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::settings::ProxySettings;
use crate::chain::Chain;
use crate::config::SettingsFile;
use crate::dial::Dialer;
use crate::limits::PROXY_WATCHED_EVERY;
use crate::secrets::{FILE_NAME as SECRETS_FILE, Sealer, SecretStore};

/// Watches a data directory.
pub struct ProxyWatch {
    dialer: Arc<Dialer>,
    data_dir: PathBuf,
    sealer: Arc<dyn Sealer>,
    seen: [Mark; 2],
    proxy: Option<ProxySettings>,
    secrets: SecretStore,
    /// What the rest of the agent holds; told of new texts, so that what asks for the newest gets them.
    shared: SecretStore,
}

/// What tells one version of a file from another. The length helps where the clock of the file system is coarse.
type Mark = Option<(SystemTime, u64)>;

impl ProxyWatch {
    /// `dialer` works by these settings and secrets now.
    pub fn new(
        dialer: Arc<Dialer>,
        settings: &SettingsFile,
        secrets: SecretStore,
        sealer: Arc<dyn Sealer>,
    ) -> Self {
        let data_dir = settings.path.parent().unwrap_or(Path::new("")).to_owned();
        // Not the marks of the files as they are now: they may have changed since they were read.
        let proxy = settings.settings.proxy.clone();
        Self { dialer, data_dir, sealer, seen: [None, None], proxy, shared: secrets.clone(), secrets }
    }

    /// Watches for ever.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(PROXY_WATCHED_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look();
        }
    }

    /// Looks once. Files that cannot be used leave the ways in force as they are, and are read again when they change.
    pub fn look(&mut self) {
        let marks =
            [mark(&self.data_dir.join(crate::config::FILE_NAME)), mark(&self.data_dir.join(SECRETS_FILE))];
        if marks == self.seen {
            return;
        }
        self.seen = marks;
        let settings = match SettingsFile::load(&self.data_dir) {
            Ok(settings) => settings,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "agent.toml has changed but cannot be used");
                return;
            }
        };
        let secrets = match SecretStore::load(&self.data_dir, &*self.sealer) {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "The secrets have changed but cannot be used");
                return;
            }
        };
        self.shared.renew(&secrets);
        if settings.settings.proxy == self.proxy && same(&secrets, &self.secrets) {
            return;
        }
        match crate::agent::ways(&settings, &secrets, self.dialer.straight()) {
            Ok(ways) => {
                self.dialer.set_ways(ways);
                (self.proxy, self.secrets) = (settings.settings.proxy, secrets);
                tracing::info!("The way out has changed; new connections use it");
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "[proxy] has changed but cannot be used"),
        }
    }
}

fn mark(path: &Path) -> Mark {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// Whether two stores hold the same secrets. Both are ours: no stranger can measure how long this takes.
fn same(a: &SecretStore, b: &SecretStore) -> bool {
    let equal = |name: &str| match (a.get(name), b.get(name)) {
        (Some(a), Some(b)) => a.expose() == b.expose(),
        _ => false,
    };
    a.names().eq(b.names()) && a.names().all(equal)
}
