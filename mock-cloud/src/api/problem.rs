//! Errors of the API: problem documents of RFC 9457.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{self, ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::store::StoreError;

/// When trying again makes sense, when nothing better is known.
const RETRY_AFTER_SECS: u64 = 5;

/// An error as the caller sees it (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:causeway:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    #[schema(value_type = String)]
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// One of a bounded set of lower snake case words.
    #[schema(value_type = String)]
    pub code: &'static str,
    /// What is wrong, for people.
    pub detail: String,
    /// Where in the request, for example `settings.interval_secs` or `query.limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Seconds after which trying again makes sense; the header `Retry-After`.
    #[serde(skip)]
    pub retry_after_secs: Option<u32>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:causeway:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            path: None,
            retry_after_secs: None,
        }
    }

    /// 400: something in the request does not fit; `path` says what.
    pub fn invalid(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail) }
    }

    /// 401: no token, or a wrong one.
    pub fn unauthorized() -> Self {
        let detail = "send the API token as Authorization: Bearer <token>";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 404: no such thing in this tenant.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what} {id:?} here"))
    }

    /// 405: the path exists, the method does not.
    pub fn method_not_allowed() -> Self {
        let detail = "this path has no such method; see /api/v1/openapi.json";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    /// 409: it contradicts what is there.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 413: the body is larger than we read.
    pub fn too_large(limit_bytes: usize) -> Self {
        let detail = format!("the body is larger than {limit_bytes} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 503: too much of this at once.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::busy_for(detail, RETRY_AFTER_SECS)
    }

    /// 503, and when to come back.
    pub fn busy_for(detail: impl Into<String>, secs: u64) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        Self { retry_after_secs: Some(u32::try_from(secs).unwrap_or(u32::MAX)), ..problem }
    }

    /// 403: whoever calls may not have it.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// 502: an agent, or what stands behind it, says no.
    pub fn refused_behind(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "refused_behind", detail)
    }

    /// 500, with the particulars in the log only.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            chain = format!("{chain}: {inner}");
            source = inner.source();
        }
        tracing::error!(error = %chain, "API call failed");
        let detail = "the cloud could not do this; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("a problem is plain JSON");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

/// What every route may answer besides its own, for the OpenAPI document.
pub(crate) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        documented(&[
            ("400", "Something in the request does not fit; `path` says what"),
            ("401", "No token, or a wrong one"),
            ("404", "No such thing in this tenant"),
            ("500", "The cloud could not do it; its log says why"),
        ])
    }
}

/// For routes that depend on where something stands.
pub(crate) struct Conflicts;

impl IntoResponses for Conflicts {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        documented(&[("409", "It contradicts what is there; `code` says how")])
    }
}

/// For routes that are full at times, or ask somebody to try again later.
pub(crate) struct Busy;

impl IntoResponses for Busy {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        documented(&[("503", "Not now; `Retry-After` says when to try again")])
    }
}

/// For routes that ask an agent, or what stands behind it.
pub(crate) struct Behind;

impl IntoResponses for Behind {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        documented(&[
            ("502", "An agent, or what stands behind it, says no"),
            (
                "503",
                "An agent, or what stands behind it, cannot answer now; `Retry-After` says when to try again",
            ),
        ])
    }
}

/// For routes that take a body.
pub(super) fn too_large() -> (String, RefOr<openapi::Response>) {
    documented(&[("413", "The body is larger than 256 KiB")]).pop_first().expect("one is made of one")
}

fn documented(problems: &[(&str, &str)]) -> BTreeMap<String, RefOr<openapi::Response>> {
    let response = |(status, description): &(&str, &str)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response =
            ResponseBuilder::new().description(*description).content("application/problem+json", content);
        ((*status).to_owned(), response.build().into())
    };
    problems.iter().map(response).collect()
}
