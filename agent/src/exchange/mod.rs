//! Exchange servers: sessions that run cmdlets, over PowerShell remoting or Exchange Online's REST. Shared by modules;
//! knows nothing of them.

pub mod auth;
pub mod cookies;
pub mod http;
pub mod limits;
pub mod settings;

use std::time::Duration;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::directory::Net;

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
