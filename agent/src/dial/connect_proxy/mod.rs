//! HTTP CONNECT (RFC 9110 §9.3.6) and what is said to a proxy that asks who we are: Negotiate, NTLM, Digest, Basic,
//! the strongest first.
//!
//! A wrong password must never be repeated, because a few repetitions lock the account in the directory. So a refusal
//! is final: no weaker scheme gets the same password, and for half an hour, or until the settings change, the same
//! credentials are not shown again ([`memory`]). While nobody knows yet whether they are right, connections take turns.

mod digest;
mod error;
mod line;
mod memory;
mod talk;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub use self::error::ProxyError;
use self::memory::Memory;
use self::talk::Talk;
use super::proxy::ProxyServer;
use super::security::challenge::offered;
use super::security::{self, Login, SecurityContexts};
use super::steps::Steps;
use super::{Dial, Target};

pub use super::security::Credentials;
use crate::limits::PROXY_TUNNEL_WITHIN;

/// What may be said to proxies.
#[derive(Clone, Default)]
pub struct ProxyAuth {
    /// User name and password.
    pub credentials: Option<Credentials>,
    /// Whether Basic may be used, which shows the password to the proxy and, without TLS, to everybody on the way.
    /// Default: to proxies spoken to by TLS.
    pub allow_basic: Option<bool>,
    /// Realm of the user. Default: from the user name.
    pub kerberos_realm: Option<String>,
    /// KDCs of that realm as `host` or `host:port`. Default: from DNS.
    pub kerberos_kdcs: Vec<String>,
    /// Whether NTLM may be used inside Negotiate when Kerberos is not possible.
    pub negotiate_ntlm: bool,
}

impl ProxyAuth {
    fn login(&self) -> Login<'_> {
        Login {
            credentials: self.credentials.as_ref(),
            kerberos_realm: self.kerberos_realm.as_deref(),
            kerberos_kdcs: &self.kerberos_kdcs,
            negotiate_ntlm: self.negotiate_ntlm,
        }
    }
}

/// The schemes, the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// RFC 7617: the password as it is.
    Basic,
    /// RFC 7616: a hash of the password and a nonce.
    Digest,
    /// MS-NTHT: challenge and response, bound to the connection.
    Ntlm,
    /// RFC 4559: Kerberos, bound to the connection.
    Negotiate,
}

impl Scheme {
    const STRONGEST_FIRST: [Self; 4] = [Self::Negotiate, Self::Ntlm, Self::Digest, Self::Basic];

    const fn name(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::Digest => "Digest",
            Self::Ntlm => "NTLM",
            Self::Negotiate => "Negotiate",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Opens tunnels and remembers what was learnt on the way. One for all connections of the agent.
pub struct Authenticator {
    memory: Memory,
    contexts: Box<dyn SecurityContexts>,
    /// Held while credentials are shown that nobody has accepted yet.
    proving: tokio::sync::Mutex<()>,
}

impl Authenticator {
    /// `inside` reaches KDCs, where Windows does not do that by itself; it must not lead through a proxy.
    pub fn new(inside: Arc<dyn Dial>) -> Self {
        Self::with_contexts(security::system_contexts(inside))
    }

    /// NTLM and Negotiate by somebody else.
    pub fn with_contexts(contexts: Box<dyn SecurityContexts>) -> Self {
        Self { memory: Memory::new(), contexts, proving: tokio::sync::Mutex::default() }
    }

    /// Forgets refusals and nonces: the settings have changed.
    pub fn forget(&self) {
        self.memory.forget_all();
    }

    /// Asks a proxy for a tunnel to `target`, over as many connections of `open` as its schemes take.
    ///
    /// # Errors
    /// Those of `open`, and [`ProxyError`].
    pub async fn tunnel<S, E, F, O>(
        &self,
        proxy: &ProxyServer,
        target: &Target,
        auth: &ProxyAuth,
        steps: &Steps,
        open: O,
    ) -> Result<(S, Bytes), E>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        E: From<ProxyError>,
        F: Future<Output = Result<S, E>> + Send,
        O: Fn() -> F + Sync,
    {
        let talk = Talk::new(self, proxy, target, auth, steps);
        let outcome = timeout(PROXY_TUNNEL_WITHIN, talk.run(open)).await;
        outcome.unwrap_or_else(|_| Err(ProxyError::TimedOut.into()))
    }
}
