//! Why bytes are no certificate, request, name or key, or not one that is taken.

use thiserror::Error;

/// Why something of X.509 is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PkixError {
    /// The bytes are no BER, or not the structure they should be.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is more of it than is read.
    #[error("{what} is beyond the limit of {limit}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A kind of key, signature or digest that is not known, or that is too old and not allowed.
    #[error("{what} {oid} is not accepted")]
    Algorithm {
        /// What it is for.
        what: &'static str,
        /// Its object identifier or name.
        oid: String,
    },
    /// A signature that does not verify.
    #[error("the signature of the {what} does not verify")]
    BadSignature {
        /// What was signed.
        what: &'static str,
    },
    /// A key that the provider refuses: too short, no point on its curve, damaged.
    #[error("the {what} is not usable")]
    BadKey {
        /// Which key.
        what: &'static str,
    },
    /// A text with a control character, NUL for one: other programs would read it differently.
    #[error("the {what} contains a control character")]
    ControlCharacter {
        /// Where.
        what: &'static str,
    },
    /// A value that its type does not allow.
    #[error("the value of {kind} is not allowed: {why}")]
    BadValue {
        /// Type of the attribute or alternative name.
        kind: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A name written in a way that cannot be read.
    #[error("the name cannot be read at character {at}: {why}")]
    BadName {
        /// Offset in bytes.
        at: usize,
        /// What is wrong.
        why: &'static str,
    },
}

impl PkixError {
    pub(crate) fn malformed(what: &'static str, why: &'static str) -> Self {
        Self::Malformed { what, why }
    }
}
