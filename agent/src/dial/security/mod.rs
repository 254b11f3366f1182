//! The seam to whoever speaks NTLM and Kerberos: the `sspi` crate (`rust_sspi.rs`) or Windows itself. For proxies and
//! for servers that are spoken to by HTTP.

pub(crate) mod challenge;
#[cfg(not(windows))]
mod kdc;
mod krb_error;
#[cfg(not(windows))]
mod rust_sspi;

use std::sync::Arc;

use causeway_protocol::Secret;
use futures_util::future::BoxFuture;
use thiserror::Error;

use super::Dial;

/// Who somebody is to a peer.
#[derive(Clone)]
pub struct Credentials {
    /// User name: `svc`, `ACME\svc`, `svc@acme.example`.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// Who signs in, and by which of a package's ways.
#[derive(Clone, Copy, Default)]
pub struct Login<'a> {
    /// User name and password. Without: the account the process runs under, where that is possible.
    pub credentials: Option<&'a Credentials>,
    /// Realm of the user. Default: from the user name.
    pub kerberos_realm: Option<&'a str>,
    /// KDCs of that realm as `host` or `host:port`. Default: from DNS.
    pub kerberos_kdcs: &'a [String],
    /// Whether NTLM may be used inside Negotiate when Kerberos is not possible.
    pub negotiate_ntlm: bool,
}

/// The service that is signed in to.
#[derive(Clone, Copy)]
pub struct Service<'a> {
    /// Class of its principal name, usually `HTTP`.
    pub class: &'a str,
    /// Its host.
    pub host: &'a str,
    /// Whether messages are going to be sealed by the context.
    pub seal: bool,
    /// What binds the context to the TLS connection it travels in (RFC 5056): `tls-server-end-point:` and a hash
    /// (RFC 5929 §4).
    pub binding: Option<&'a [u8]>,
}

/// The system's own contexts. `inside` reaches KDCs, where Windows does not do that by itself; it must not lead through a
/// proxy.
pub fn system_contexts(inside: Arc<dyn Dial>) -> Box<dyn SecurityContexts> {
    #[cfg(not(windows))]
    return Box::new(rust_sspi::RustSspi::new(inside));
    #[cfg(windows)]
    {
        drop(inside);
        Box::new(crate::platform::SystemContexts)
    }
}

/// A scheme that takes several messages on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// NTLM alone (MS-NTHT).
    Ntlm,
    /// SPNEGO (RFC 4559, RFC 4178) with Kerberos, and with NTLM where that is allowed.
    Negotiate,
    /// Kerberos alone, without SPNEGO around it: what servers want that offer `Kerberos` in place of `Negotiate`.
    Kerberos,
}

/// Makes the client's side of security contexts.
pub trait SecurityContexts: Send + Sync + 'static {
    /// Begins a context with a service.
    ///
    /// # Errors
    /// [`SecurityError::NotPossible`] when it cannot work here at all.
    fn begin(
        &self,
        package: Package,
        service: &Service<'_>,
        login: &Login<'_>,
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

    /// Whether our side needs no further message of the peer.
    fn is_complete(&self) -> bool;

    /// Seals a message (GSS_WrapEx, MS-NLMP 3.4.6). Only when complete; messages must arrive in the order they were
    /// sealed in.
    ///
    /// # Errors
    /// When the context was not begun for it.
    fn seal(&mut self, message: &[u8]) -> Result<Sealed, SecurityError>;

    /// Opens what the peer has sealed.
    ///
    /// # Errors
    /// When it was changed on the way, or is out of turn.
    fn unseal(&mut self, sealed: Sealed) -> Result<Vec<u8>, SecurityError>;
}

/// A message nobody else can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Signature of NTLM, wrap header of Kerberos.
    pub token: Vec<u8>,
    /// The sealed bytes.
    pub body: Vec<u8>,
}

/// Why there is no message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// It cannot work with this peer, these settings or now; another scheme may.
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
pub(crate) enum Proof {
    /// Nothing yet.
    None,
    /// That we know the password, or not (NTLM's third message).
    Password,
    /// That the directory knows us (a Kerberos ticket).
    Ticket,
}

/// What a service says about a ticket it does not accept: the code of the KRB-ERROR (RFC 4120 §7.5.9) in its message,
/// which may be wrapped in SPNEGO (RFC 4121 §4.1).
pub(crate) fn ticket_error(token: &[u8]) -> Option<u32> {
    /// `TOK_ID` of an error, and the tag of what follows.
    const START: [u8; 3] = [3, 0, 0x7e];
    let starts = token.windows(START.len()).enumerate().filter(|(_, window)| *window == START);
    starts.filter_map(|(at, _)| krb_error::code(&token[at + 2..])).next()
}

impl Proof {
    /// NTLM messages carry their signature and number wherever they are wrapped (MS-NLMP 2.2.1).
    pub(crate) fn of(token: &[u8]) -> Self {
        const SIGNATURE: &[u8] = b"NTLMSSP\0";
        let found = token.windows(SIGNATURE.len()).position(|window| window == SIGNATURE);
        match found.map(|at| token.get(at + SIGNATURE.len())) {
            None => Self::Ticket,
            Some(Some(3)) => Self::Password,
            Some(_) => Self::None,
        }
    }
}
