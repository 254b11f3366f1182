//! Why a request is refused.

use super::challenge::ChallengeError;

/// The reason. Front ends put it into their protocol's words; the text is for administrators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    #[error("the request is larger than any client's")]
    TooLarge,
    #[error("the request cannot be read")]
    Unreadable,
    #[error("the request is not signed with its own key")]
    BadSignature,
    #[error("the key has {bits} bits, at least {least} are needed")]
    KeyTooSmall { bits: u32, least: u32 },
    #[error("the kind of key is not supported")]
    KeyKind,
    #[error("the requested name is empty, too long or has control characters")]
    BadName,
    #[error("the name {name:?} may not be requested")]
    NameRefused { name: String },
    #[error("a certificate of a person needs their security identifier")]
    NoSid,
    #[error("the security identifier belongs to somebody else")]
    AnothersSid,
    #[error("there is no template {name:?}")]
    UnknownTemplate { name: String },
    #[error("{0}")]
    Challenge(ChallengeError),
    #[error("the account may not enrol")]
    NotAllowed,
    #[error("the certificate to renew is unknown, revoked or expired")]
    NotRenewable,
    #[error("the renewed certificate would have another subject")]
    SubjectChanged,
    #[error("it is too early to renew")]
    TooEarly,
    #[error("the transaction is another request's")]
    AnothersTransaction,
    #[error("an administrator refused the request")]
    ByOfficer,
    #[error("the books are full")]
    BooksFull,
}

impl Denial {
    /// The HRESULT Active Directory Certificate Services gives for it (names of winerror.h in the comments).
    pub fn hresult(&self) -> u32 {
        match self {
            // CRYPT_E_ASN1_BADTAG
            Self::TooLarge | Self::Unreadable => 0x8009_310b,
            // NTE_BAD_SIGNATURE
            Self::BadSignature => 0x8009_0006,
            // CERTSRV_E_KEY_LENGTH
            Self::KeyTooSmall { .. } | Self::KeyKind => 0x8009_4811,
            // CERTSRV_E_BAD_REQUESTSUBJECT
            Self::BadName | Self::NameRefused { .. } | Self::NoSid | Self::AnothersSid => 0x8009_4001,
            // CERTSRV_E_UNSUPPORTED_CERT_TYPE
            Self::UnknownTemplate { .. } => 0x8009_4800,
            // CERTSRV_E_TEMPLATE_DENIED
            Self::Challenge(_) | Self::NotAllowed => 0x8009_4012,
            // CERTSRV_E_BAD_RENEWAL_SUBJECT
            Self::NotRenewable | Self::SubjectChanged | Self::TooEarly => 0x8009_4806,
            // CERTSRV_E_BAD_REQUESTSTATUS
            Self::AnothersTransaction => 0x8009_4003,
            // CERTSRV_E_ADMIN_DENIED_REQUEST
            Self::ByOfficer => 0x8009_4014,
            // CERTSRV_E_SERVER_SUSPENDED
            Self::BooksFull => 0x8009_4006,
        }
    }
}
