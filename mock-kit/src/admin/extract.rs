//! Bodies, paths and queries of the admin API: axum's own extractors, but what cannot be read is answered with a problem
//! document.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AdminError;

/// A JSON body, whatever its content type, or an answer in JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

/// Segments of the path, as `axum::extract::Path`.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

/// Parameters after the question mark, as `axum::extract::Query`.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, AdminError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => AdminError::TooLarge { detail: error.body_text() },
            _ => AdminError::invalid("", error.body_text()),
        })?;
        read(&bytes).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(found)) => Ok(Self(found)),
            Err(error) => Err(AdminError::invalid("path", error.body_text())),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(found)) => Ok(Self(found)),
            Err(error) => Err(AdminError::invalid("query", error.body_text())),
        }
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AdminError> {
    // serde takes a list for an object whose fields it names in order; nobody means that.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(AdminError::invalid("/", "a list is given where an object is expected"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        AdminError::invalid(place, error.to_string())
    })
}
