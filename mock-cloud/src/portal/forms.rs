//! What pages take: what cannot be read is answered with a page, as everything else is.

use axum::RequestExt as _;
use axum::extract::{self, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::shell::PortalError;
use crate::limits::API_BODY_MAX_BYTES;

/// The fields of a form.
pub(super) struct Form<T>(pub(super) T);

impl<T: DeserializeOwned + 'static, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = PortalError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, PortalError> {
        match request.extract::<axum::Form<T>, _>().await {
            Ok(axum::Form(fields)) => Ok(Self(fields)),
            Err(rejection) => Err(misread(rejection.status(), &rejection.body_text())),
        }
    }
}

/// The fields behind the question mark.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = PortalError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, PortalError> {
        match extract::Query::try_from_uri(&parts.uri) {
            Ok(extract::Query(fields)) => Ok(Self(fields)),
            Err(rejection) => Err(misread(rejection.status(), &rejection.body_text())),
        }
    }
}

/// The framework's words begin with what it did; people want to know which field it was.
fn misread(status: StatusCode, text: &str) -> PortalError {
    let detail = match (status, text.split_once(": ")) {
        (StatusCode::PAYLOAD_TOO_LARGE, _) => {
            format!("That is larger than {} KiB.", API_BODY_MAX_BYTES / 1_024)
        }
        (StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY, Some((_, what))) => {
            format!("A field was left empty or does not fit: {what}. Go back and correct it.")
        }
        _ => "That is no form of this portal.".to_owned(),
    };
    PortalError::Refused { status: status.as_u16(), detail }
}
