//! Why a message is not taken, and which answer that deserves.

use thiserror::Error;

use super::types::FailInfo;
use crate::cms::CmsError;
use crate::pkix::PkixError;

/// Why a SCEP message or answer is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ScepError {
    /// The bytes are no SCEP message at all: HTML, nothing, something else.
    #[error("this is no SCEP message")]
    NotScep(#[source] CmsError),
    /// A messageType that does not exist, or not in this direction. Nothing else of the message was looked at.
    #[error("messages of type {found} are not taken")]
    MessageType {
        /// What the message said.
        found: String,
    },
    /// An attribute that must be there is not, or cannot be read.
    #[error("the message has no usable {what}")]
    Attribute {
        /// Which attribute.
        what: &'static str,
    },
    /// A digest, cipher, or kind of key that is not known, or too old and not allowed.
    #[error("{what} {oid} is not accepted")]
    Algorithm {
        /// What it is for.
        what: &'static str,
        /// Its object identifier or name.
        oid: String,
    },
    /// The signature does not verify.
    #[error("the signature of the message does not verify")]
    BadSignature,
    /// The encrypted part cannot be opened or is not what it should be. One error for all, on purpose.
    #[error("the encrypted part of the message cannot be read")]
    Unreadable,
    /// The signing request in it is one nobody should get a certificate for.
    #[error("the signing request is not acceptable")]
    BadRequest(#[source] PkixError),
    /// The answer belongs to another transaction.
    #[error("the answer belongs to another transaction")]
    AnotherTransaction,
    /// The answer is none to the message sent last.
    #[error("the answer is none to the message sent last")]
    AnotherNonce,
    /// The answer is signed by somebody else than this authority.
    #[error("the answer is not signed by this authority")]
    AnotherSigner,
    /// The answer holds no certificate with the key asked for.
    #[error("the answer holds no certificate with the key of the request")]
    AnotherKey,
    /// The certificates of an authority are none, or do not belong together.
    #[error("these are no certificates of an authority: {why}")]
    NoAuthority {
        /// What is wrong.
        why: &'static str,
    },
    /// Our own key or certificate cannot do what it is to do.
    #[error("the message cannot be written")]
    Write(#[source] CmsError),
}

impl ScepError {
    /// The failInfo a server answers with (RFC 8894 section 3.2.1.4).
    pub fn fail_info(&self) -> FailInfo {
        match self {
            Self::Algorithm { .. } => FailInfo::BadAlg,
            Self::BadRequest(_) | Self::Attribute { .. } | Self::MessageType { .. } => FailInfo::BadRequest,
            _ => FailInfo::BadMessageCheck,
        }
    }

    /// Of a message's outer, readable part.
    pub(crate) fn outer(error: CmsError) -> Self {
        match error {
            CmsError::Algorithm { what, oid } => Self::Algorithm { what, oid },
            CmsError::BadSignature | CmsError::NotSigned => Self::BadSignature,
            other => Self::NotScep(other),
        }
    }

    /// Of its encrypted part.
    pub(crate) fn inner(error: CmsError) -> Self {
        match error {
            CmsError::Algorithm { what, oid } => Self::Algorithm { what, oid },
            _ => Self::Unreadable,
        }
    }
}
