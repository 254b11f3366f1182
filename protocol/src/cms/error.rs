//! Why a message is not taken.

use thiserror::Error;

use crate::pkix::PkixError;

/// Why a signed or encrypted message is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CmsError {
    /// The bytes are not the structure they should be, or are beyond a limit.
    #[error("the message cannot be read")]
    Malformed(#[source] PkixError),
    /// A message of another kind stands in its place.
    #[error("{what} holds content of type {found}")]
    AnotherContent {
        /// What was being read.
        what: &'static str,
        /// The object identifier found.
        found: String,
    },
    /// A digest, cipher, key transport or signature that is not known, or too old and not allowed.
    #[error("{what} {oid} is not accepted")]
    Algorithm {
        /// What it is for.
        what: &'static str,
        /// Its object identifier or name.
        oid: String,
    },
    /// There is no signer.
    #[error("the message is signed by nobody")]
    NotSigned,
    /// The signature or the digest of the content is not right.
    #[error("the signature of the message does not verify")]
    BadSignature,
    /// It cannot be decrypted with this key. Why, is told to nobody.
    #[error("the message cannot be decrypted")]
    Undecryptable,
    /// A key that cannot do what it is to do: encrypt to an unknown kind, or sign where that is not possible.
    #[error("the key cannot be used for {what}")]
    Key {
        /// What it was to do.
        what: &'static str,
    },
}

impl From<PkixError> for CmsError {
    fn from(error: PkixError) -> Self {
        match error {
            PkixError::Algorithm { what, oid } => Self::Algorithm { what, oid },
            PkixError::BadSignature { .. } => Self::BadSignature,
            other => Self::Malformed(other),
        }
    }
}
