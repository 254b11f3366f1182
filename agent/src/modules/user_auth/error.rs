//! Errors of user_auth.

use causeway_protocol::action::{ErrorReport, codes};
use thiserror::Error;

use crate::modules::Retry;

/// Why a request was not looked at. A password that could not be checked is no error but the outcome `unavailable`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The module answers one request only.
    #[error("user_auth has no request {request}")]
    UnknownRequest {
        /// What was asked.
        request: String,
    },
    /// The module has no actions.
    #[error("user_auth has no action {action}")]
    UnknownAction {
        /// What was ordered.
        action: String,
    },
    /// The body does not fit. Says where, never what: it may hold a password.
    #[error("the body of the request does not fit (line {line}, column {column})")]
    Malformed {
        /// Line in the JSON.
        line: usize,
        /// Column in the JSON.
        column: usize,
    },
    /// Name or password is longer than any directory takes.
    #[error("{field} has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Which field.
        field: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl AuthError {
    /// Code, retry class and remedy of every code.
    pub const TABLE: &[(&str, Retry, &str)] = &[
        (codes::UNKNOWN_ACTION, Retry::Permanent, "ask for authenticate"),
        (codes::BAD_PARAMETERS, Retry::Permanent, "send username and password as text within their limits"),
    ];

    /// As the cloud sees it.
    pub fn report(&self) -> ErrorReport {
        let row = match self {
            Self::UnknownRequest { .. } | Self::UnknownAction { .. } => &Self::TABLE[0],
            Self::Malformed { .. } | Self::TooLong { .. } => &Self::TABLE[1],
        };
        ErrorReport::new(row.0, self.to_string(), row.2)
    }
}
