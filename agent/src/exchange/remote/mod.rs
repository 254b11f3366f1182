//! Servers of the company: which one, as whom, how many sessions at once, and how fast.

mod session;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::session::{OpenError, Remote};
use super::pacing::Pace;
use super::settings::ExchangeSettings;
use super::transport::{Common, Means, Transport, TransportError};
use super::{Exchange, ExchangeError, Session, Urgency, limits};
use crate::chain::Chain;
use crate::directory::Net;
use crate::random::RandomSource;
use crate::secrets::SecretStore;
use crate::web::auth::Accounts;
use crate::web::endpoint::Endpoint;
use crate::web::servers::{Server, Servers};

/// An organisation behind one or more servers.
pub struct OnPremises {
    shared: Arc<Shared>,
    /// Every session.
    sessions: Arc<Semaphore>,
    /// Those of scans, fewer, so that an action always finds room.
    background: Arc<Semaphore>,
}

/// What the sessions of one organisation share.
struct Shared {
    common: Arc<Common>,
    servers: Servers,
    random: RandomSource,
    /// The account's budget is one, whoever spends it.
    pace: Mutex<Pace>,
}

impl Shared {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have a session open.
struct Room {
    _all: OwnedSemaphorePermit,
    _background: Option<OwnedSemaphorePermit>,
}

impl OnPremises {
    /// From checked settings.
    pub(super) fn new(
        name: &str,
        settings: ExchangeSettings,
        secrets: SecretStore,
        random: RandomSource,
    ) -> Self {
        let sessions = settings.sessions_max;
        let servers = Servers::new(settings.endpoints());
        let common = Common { name: name.to_owned(), settings, accounts: Accounts::new(secrets) };
        let shared = Shared { common: Arc::new(common), servers, random, pace: Mutex::default() };
        Self {
            shared: Arc::new(shared),
            sessions: Arc::new(Semaphore::new(sessions)),
            background: Arc::new(Semaphore::new(sessions.saturating_sub(1).max(1))),
        }
    }

    /// A transport to one server as the first account; for the doctor.
    pub(super) fn transport(&self, net: &Net, endpoint: &Endpoint) -> Result<Transport, ExchangeError> {
        Ok(Transport::new(self.shared.common.clone(), self.means(net)?, endpoint.clone(), 0))
    }

    fn means(&self, net: &Net) -> Result<Means, ExchangeError> {
        Means::new(net.clone(), &self.shared.common.settings)
            .map_err(|error| ExchangeError::Unreachable { detail: Chain(&error).to_string() })
    }

    async fn room(&self, urgency: Urgency) -> Result<Room, ExchangeError> {
        let stopped = |_| ExchangeError::Stopped;
        let background = match urgency {
            Urgency::Background => Some(self.background.clone().acquire_owned().await.map_err(stopped)?),
            Urgency::Urgent => None,
        };
        let all = self.sessions.clone().acquire_owned().await.map_err(stopped)?;
        Ok(Room { _all: all, _background: background })
    }

    /// Accounts in their order, servers in theirs. The next account only when one is refused, the next server only when
    /// one does not work.
    async fn open_any(&self, net: &Net, room: Room) -> Result<Remote, ExchangeError> {
        let means = self.means(net)?;
        let mut told: Option<ExchangeError> = None;
        let mut room = Some(room);
        for account in 0..self.shared.common.settings.accounts.len() {
            for server in self.shared.servers.candidates(net.clock.now()) {
                let error = match self.open_at(&means, &server, account).await {
                    Ok(mut session) => {
                        server.succeeded();
                        session.keep(server, room.take());
                        return Ok(session);
                    }
                    Err(error) => error,
                };
                tracing::debug!(server = %server.endpoint(), error = %Chain(&error), "No session at this server");
                let (of_server, of_account) = (error.is_servers_fault(), error.is_about_account());
                if of_server {
                    server.failed(net.clock.now());
                }
                let error = ExchangeError::from(error);
                if told.as_ref().is_none_or(|told| weight(&error) > weight(told)) {
                    told = Some(error);
                }
                if of_account {
                    break;
                }
            }
        }
        Err(told.unwrap_or_else(|| ExchangeError::Unreachable { detail: "no server is configured".into() }))
    }

    /// A session at a server, or where it sends us on to.
    async fn open_at(&self, means: &Means, server: &Server, account: usize) -> Result<Remote, OpenError> {
        let mut endpoint = server.endpoint().clone();
        for _ in 0..=limits::REDIRECTS_MAX {
            let transport =
                Transport::new(self.shared.common.clone(), means.clone(), endpoint.clone(), account);
            let opened = Remote::open(self.shared.clone(), transport).await;
            let Err(OpenError::Transport(TransportError::Redirected { to, server })) = opened else {
                return opened;
            };
            let named = &self.shared.common.settings.redirect_hosts;
            match Endpoint::read(&to) {
                Ok(next) if self.shared.servers.may_lead(&endpoint, &next, named) => endpoint = next,
                _ => return Err(OpenError::Transport(TransportError::Redirected { server, to })),
            }
        }
        let server = server.endpoint().to_string();
        Err(OpenError::Transport(TransportError::Redirected { server, to: endpoint.url }))
    }
}

/// Which of several failures tells most.
fn weight(error: &ExchangeError) -> u8 {
    match error {
        ExchangeError::Credentials { .. } => 5,
        ExchangeError::Forbidden { .. } => 4,
        ExchangeError::Throttled { .. } => 3,
        ExchangeError::Protocol { .. } => 2,
        ExchangeError::Unreachable { .. } => 1,
        ExchangeError::Stopped => 0,
    }
}

impl Exchange for OnPremises {
    fn open(&self, net: Net, urgency: Urgency) -> BoxFuture<'_, Result<Box<dyn Session>, ExchangeError>> {
        Box::pin(async move {
            let room = self.room(urgency).await?;
            let session = self.open_any(&net, room).await?;
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}
