//! HTTP CONNECT (RFC 9110 §9.3.6) and what is said to a proxy that asks who we are: Negotiate, NTLM, Digest, Basic,
//! the strongest first.
//!
//! A wrong password must never be repeated, because a few repetitions lock the account in the directory. So a refusal
//! is final: no weaker scheme gets the same password, and for half an hour, or until the settings change, the same
//! credentials are not shown again ([`memory`]). While nobody knows yet whether they are right, connections take turns.

mod challenge;
mod digest;
mod error;
#[cfg(not(windows))]
mod kdc;
mod line;
mod memory;
#[cfg(not(windows))]
mod rust_sspi;
pub mod security;
mod talk;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use causeway_protocol::Secret;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub use self::error::ProxyError;
use self::memory::Memory;
use self::security::SecurityContexts;
use self::talk::Talk;
use super::proxy::ProxyServer;
use super::steps::Steps;
use super::{Dial, Target};
use crate::limits::PROXY_TUNNEL_WITHIN;

/// Who we are to the proxy.
#[derive(Clone)]
pub struct Credentials {
    /// User name: `svc`, `ACME\svc`, `svc@acme.example`.
    pub username: String,
    /// Password.
    pub password: Secret,
}

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

/// Names of what is offered, for a person.
fn offered(challenges: &[challenge::Challenge]) -> String {
    let mut names: Vec<String> = Vec::new();
    for challenge in challenges {
        let name: String = challenge.scheme.chars().take(20).collect();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
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
        #[cfg(not(windows))]
        let contexts = rust_sspi::RustSspi::new(inside);
        #[cfg(windows)]
        let contexts = {
            drop(inside);
            crate::platform::SystemContexts
        };
        Self::with_contexts(Box::new(contexts))
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
