//! The seam to whoever speaks NTLM and Kerberos: the `sspi` crate (`rust_sspi.rs`) or Windows itself.

use futures_util::future::BoxFuture;
use thiserror::Error;

use super::ProxyAuth;

/// A scheme that takes several messages on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// NTLM alone (MS-NTHT).
    Ntlm,
    /// SPNEGO (RFC 4559, RFC 4178) with Kerberos, and with NTLM where that is allowed.
    Negotiate,
}

/// Makes the client's side of security contexts.
pub trait SecurityContexts: Send + Sync + 'static {
    /// Begins a context with the service at `host`.
    ///
    /// # Errors
    /// [`SecurityError::NotPossible`] when it cannot work here at all.
    fn begin(
        &self,
        package: Package,
        host: &str,
        auth: &ProxyAuth,
    ) -> Result<Box<dyn SecurityContext>, SecurityError>;

    /// Whether contexts can be begun without credentials, as the account the process runs under.
    fn own_logon(&self) -> bool {
        false
    }
}

/// The client's side of one context.
pub trait SecurityContext: Send + Sync {
    /// Takes the peer's message (none at first) and gives the next one of ours.
    fn step<'a>(&'a mut self, token: Option<&'a [u8]>) -> BoxFuture<'a, Result<Vec<u8>, SecurityError>>;
}

/// Why there is no message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// It cannot work with this proxy, these settings or now; another scheme may.
    #[error("{why}")]
    NotPossible {
        /// For a person.
        why: String,
    },
    /// The directory has judged user name and password.
    #[error("{why}")]
    Credentials {
        /// For a person.
        why: String,
    },
    /// The peer's message is broken or comes out of turn.
    #[error("{why}")]
    BadToken {
        /// For a person.
        why: String,
    },
}

/// What a message of ours proves to who receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing yet.
    None,
    /// That we know the password, or not (NTLM's third message).
    Password,
    /// That the directory knows us (a Kerberos ticket).
    Ticket,
}

impl Proof {
    /// NTLM messages carry their signature and number wherever they are wrapped (MS-NLMP 2.2.1).
    pub(super) fn of(token: &[u8]) -> Self {
        const SIGNATURE: &[u8] = b"NTLMSSP\0";
        let found = token.windows(SIGNATURE.len()).position(|window| window == SIGNATURE);
        match found.map(|at| token.get(at + SIGNATURE.len())) {
            None => Self::Ticket,
            Some(Some(3)) => Self::Password,
            Some(_) => Self::None,
        }
    }
}
