//! What OpenAPI documents have in common.

use serde_json::Value;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use axum::http::StatusCode;

/// Says of every response without words of its own what its status says; OpenAPI wants a description of each.
pub fn describe_responses(document: &mut OpenApi) {
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(Response { description, .. }) = response
                && description.is_empty()
            {
                let phrase = StatusCode::from_bytes(status.as_bytes());
                let phrase = phrase.ok().and_then(|status| status.canonical_reason());
                phrase.unwrap_or("Another answer").clone_into(description);
            }
        }
    }
}

/// The responses of an OpenAPI document that lack a description, such as `get /health 200`; for tests.
pub fn undescribed(document: &Value) -> Vec<String> {
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for (path, item) in fields(&document["paths"]) {
        for (method, operation) in fields(&item) {
            for (status, response) in fields(&operation["responses"]) {
                let described = response["description"].as_str().is_some_and(|words| !words.is_empty());
                if !described && response["$ref"].is_null() {
                    found.push(format!("{method} {path} {status}"));
                }
            }
        }
    }
    found
}

/// Every operation may be refused, always with a problem document.
pub(super) fn add_refusals(document: &mut OpenApi) {
    let problem = Ref::from_schema_name("Problem");
    let refused = ResponseBuilder::new()
        .description("Refused; the problem says why")
        .content("application/problem+json", Content::new(Some(problem)))
        .build();
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        operation.responses.responses.entry("default".to_owned()).or_insert_with(|| refused.clone().into());
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.options,
        &mut item.head,
        &mut item.patch,
        &mut item.trace,
    ];
    all.into_iter().flatten()
}
