//! The server's half of Kerberos 5 (RFC 4120, RFC 4121), without sockets: tokens in, tokens out.
//!
//! [`Service`] opens what a client shows and gives a [`Session`], which unseals and seals. [`Kdc`] is a key distribution
//! centre that is just large enough to give clients of a mock their tickets; a service with the keytab of a real one
//! takes that one's tickets. AES with SHA-1 is spoken (RFC 3962); older types are refused, as current servers do.

mod acceptor;
mod crypto;
mod kdc;
mod keytab;
mod message;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use acceptor::is_kerberos;
pub use acceptor::{Accepted, Service};
pub use crypto::{Enctype, Key};
pub use kdc::{Accounts, Kdc, NoTicket, Principal, Reply, serve_kdc};
pub use keytab::{Keytab, KeytabError};
pub use session::{Session, TOKEN_BYTES};

/// 1.2.840.113554.1.2.2 (RFC 4121 4.1).
pub const OID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x12, 0x01, 0x02, 0x02];
/// The same as Windows 2000 wrote it by mistake and everybody has offered since (MS-SPNG 2.2.1): 1.2.840.48018.1.2.2.
pub const OID_OF_WINDOWS: &[u8] = &[0x2a, 0x86, 0x48, 0x82, 0xf7, 0x12, 0x01, 0x02, 0x02];

/// What is wrong with a token, or with its sender.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KerberosError {
    /// The token is larger than any client sends.
    #[error("kerberos token of {size_bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// Something is not as RFC 4120 writes it.
    #[error("kerberos token is malformed at {at}")]
    Malformed {
        /// The element, as RFC 4120 names it.
        at: &'static str,
    },
    /// The client is told why it is not accepted.
    #[error("{why}")]
    Refused {
        /// For logs and journals.
        why: &'static str,
        /// A KRB-ERROR in its frame (RFC 4121 4.1), to be sent.
        reply: Vec<u8>,
    },
    /// A sealed message does not open, or comes out of order.
    #[error("message {sequence} does not open")]
    WrongSeal {
        /// Number of the message that was due.
        sequence: u64,
    },
}

impl From<crate::der::DerError> for KerberosError {
    fn from(error: crate::der::DerError) -> Self {
        Self::Malformed { at: error.at }
    }
}
