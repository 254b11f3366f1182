//! `$batch`: several `InvokeCommand` requests in one.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value as Json, json};

use super::{Outcome, invoke, refuse, respond};
use crate::limits::{BATCH_REQUESTS_MAX, REST_PAGE_MAX};
use crate::server::Shared;

pub(super) async fn answer(shared: &Arc<Shared>, body: &Json, base: &str) -> Outcome {
    let Some(requests) = body["requests"].as_array() else {
        return Ok(refuse(StatusCode::BAD_REQUEST, "BadRequest", "requests is missing."));
    };
    if requests.len() > BATCH_REQUESTS_MAX {
        let why = format!("A batch has at most {BATCH_REQUESTS_MAX} requests.");
        return Ok(refuse(StatusCode::BAD_REQUEST, "BadRequest", &why));
    }
    let mut responses = Vec::with_capacity(requests.len());
    for request in requests {
        let url = request["url"].as_str().unwrap_or_default();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let known = request["method"].as_str() == Some("POST")
            && path.trim_end_matches('/').ends_with("InvokeCommand");
        let (status, body, retry_after_secs) = if known {
            invoke::invoke(shared, &request["body"], query, REST_PAGE_MAX, base).await?
        } else {
            let why = "Only POST of InvokeCommand can be part of a batch.";
            (StatusCode::NOT_FOUND, json!({ "error": { "code": "NotFound", "message": why } }), None)
        };
        let mut headers = json!({ "Content-Type": "application/json; charset=utf-8" });
        if let Some(secs) = retry_after_secs {
            headers["Retry-After"] = Json::String(secs.to_string());
        }
        responses.push(
            json!({ "id": request["id"], "status": status.as_u16(), "headers": headers, "body": body }),
        );
    }
    Ok(respond(StatusCode::OK, &json!({ "responses": responses })))
}
