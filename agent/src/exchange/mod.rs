//! Exchange servers: sessions that run cmdlets, over PowerShell remoting or Exchange Online's REST. Shared by modules;
//! knows nothing of them.

pub mod cookies;
pub mod doctor;
pub mod limits;
pub mod online;
pub mod pacing;
pub mod remote;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod transport;

use std::time::Duration;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::mpsc;

use self::online::Online;
use self::remote::OnPremises;
use self::settings::{ExchangeSettings, Kind};
use crate::directory::Net;
use crate::modules::{ConfigError, ModuleSettings};
use crate::random::RandomSource;
use crate::secrets::SecretStore;

/// The organisation that a module's settings name: `[exchange.<name>]` of agent.toml.
pub struct Organisation {
    name: String,
    settings: ExchangeSettings,
    secrets: SecretStore,
    backend: Backend,
}

/// What carries the cmdlets.
enum Backend {
    OnPremises(OnPremises),
    Online(Online),
}

impl Organisation {
    /// Checks the settings of that name. Opens nothing.
    ///
    /// # Errors
    /// Names the offending key.
    pub fn new(name: &str, settings: &ModuleSettings) -> Result<Self, ConfigError> {
        Self::with_random(name, settings, RandomSource::system())
    }

    /// The same with ids of this source.
    ///
    /// # Errors
    /// Names the offending key.
    pub fn with_random(
        name: &str,
        settings: &ModuleSettings,
        random: RandomSource,
    ) -> Result<Self, ConfigError> {
        let read = ExchangeSettings::read(name, settings)?;
        let secrets = settings.secrets.clone();
        let backend = match read.kind {
            Kind::OnPremises => {
                Backend::OnPremises(OnPremises::new(name, read.clone(), secrets.clone(), random))
            }
            Kind::Online => {
                let online = Online::new(name, read.clone(), secrets.clone(), random);
                Backend::Online(online.map_err(|problem| {
                    ConfigError::new(format!("exchange.{name}.rest_url"), problem, "write https://host/path")
                })?)
            }
        };
        Ok(Self { name: name.to_owned(), settings: read, secrets, backend })
    }

    /// Its name in agent.toml.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its definition.
    pub fn settings(&self) -> &ExchangeSettings {
        &self.settings
    }

    fn secrets(&self) -> &SecretStore {
        &self.secrets
    }
}

impl Exchange for Organisation {
    fn open(&self, net: Net, urgency: Urgency) -> BoxFuture<'_, Result<Box<dyn Session>, ExchangeError>> {
        match &self.backend {
            Backend::OnPremises(servers) => servers.open(net, urgency),
            Backend::Online(tenant) => tenant.open(net, urgency),
        }
    }
}

/// One Exchange organisation, whatever carries its cmdlets.
pub trait Exchange: Send + Sync + 'static {
    /// Opens a session. Servers, accounts and ways to log in are tried in order; what a server said about the
    /// credentials is not repeated against the next one.
    fn open(&self, net: Net, urgency: Urgency) -> BoxFuture<'_, Result<Box<dyn Session>, ExchangeError>>;
}

/// What a session is for: servers allow few at once, and an order must not wait for a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Scans.
    Background,
    /// Actions.
    Urgent,
}

/// A session that runs one cmdlet at a time.
pub trait Session: Send {
    /// Runs a cmdlet. Objects go into `objects` as they arrive and the server is read no faster than they are taken;
    /// when the receiver is dropped the pipeline is stopped. After an error the session is over unless
    /// [`ExchangeError::session_lives`].
    fn run<'a>(
        &'a mut self,
        cmdlet: &'a Cmdlet,
        objects: mpsc::Sender<Object>,
    ) -> BoxFuture<'a, Result<Completed, ExchangeError>>;

    /// What is known of the other side.
    fn server(&self) -> ServerFacts;

    /// Ends it properly, so that the server does not count it against us.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// What is known of the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Host name, for people and logs.
    pub host: String,
    /// Whether it is Exchange Online.
    pub online: bool,
}

/// Why a cmdlet did not run to its end. The class decides what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// No server can be reached or none works; another time may help.
    #[error("{detail}")]
    Unreachable {
        /// Naming server and reason.
        detail: String,
    },
    /// The server wants less of us.
    #[error("{detail}")]
    Throttled {
        /// In the server's words.
        detail: String,
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
    },
    /// The account is refused.
    #[error("{detail}")]
    Credentials {
        /// Naming account and server.
        detail: String,
    },
    /// The account may not do this.
    #[error("{detail}")]
    Forbidden {
        /// Naming what is missing.
        detail: String,
    },
    /// The server said something that is not its protocol.
    #[error("{detail}")]
    Protocol {
        /// Naming what.
        detail: String,
    },
    /// The agent stops, or the receiver of the objects went away.
    #[error("stopped")]
    Stopped,
}

impl ExchangeError {
    /// Whether the session may be used again.
    pub fn session_lives(&self) -> bool {
        matches!(self, Self::Stopped)
    }
}
