//! Errors of the admin API as problem documents (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why an admin request was refused; the text goes to the caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The request does not make sense; `pointer` says where (JSON pointer or parameter), or is empty.
    #[error("{detail}")]
    Invalid {
        /// Where.
        pointer: String,
        /// What is wrong there.
        detail: String,
    },
    /// No such thing.
    #[error("{detail}")]
    NotFound {
        /// What was looked for.
        detail: String,
    },
    /// The request contradicts the state of the world, such as a name that exists already.
    #[error("{detail}")]
    Conflict {
        /// What it contradicts.
        detail: String,
    },
    /// The body is larger than any this API takes.
    #[error("{detail}")]
    TooLarge {
        /// The limit.
        detail: String,
    },
    /// The mock does not offer this.
    #[error("{detail}")]
    NotOffered {
        /// What, and what to use instead.
        detail: String,
    },
    /// The mock failed; not the caller's fault.
    #[error("{detail}")]
    Failed {
        /// What it was doing.
        detail: String,
    },
}

impl AdminError {
    /// [`AdminError::Invalid`] at a place.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid { pointer: pointer.into(), detail: detail.into() }
    }

    /// [`AdminError::NotFound`].
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::NotFound { detail: detail.into() }
    }

    /// [`AdminError::Conflict`].
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::Conflict { detail: detail.into() }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotOffered { .. } => StatusCode::NOT_IMPLEMENTED,
            Self::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A problem document (RFC 9457 section 3). Its type is `about:blank`: the status says which kind it is.
#[derive(Serialize, ToSchema, Debug)]
pub struct Problem {
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// Where in the request, when that is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pointer: String,
}

impl Problem {
    /// A response with this problem.
    pub fn response(status: StatusCode, pointer: &str, detail: &str) -> Response {
        let problem = Self {
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.to_owned(),
            pointer: pointer.to_owned(),
        };
        let body = serde_json::to_vec(&problem).expect("strings and a number always encode");
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let pointer = match &self {
            Self::Invalid { pointer, .. } => pointer.as_str(),
            _ => "",
        };
        Problem::response(self.status(), pointer, &self.to_string())
    }
}
