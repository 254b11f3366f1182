//! What a client of the identity platform asks before it asks for a token: where the tenant's endpoints are (OpenID Connect
//! Discovery 1.0), and whether a host belongs to the platform at all.
//!
//! Served beside the token endpoint, as `login.microsoftonline.com` does.

use http::StatusCode;
use serde_json::{Value, json};

use super::token::{error_body, is_tenant};
use super::{Outcome, Request, query_value, respond};
use crate::server::Shared;

const CONFIGURATION: &str = "v2.0/.well-known/openid-configuration";
const KEYS: &str = "discovery/v2.0/keys";
const INSTANCE: &str = "common/discovery/instance";

pub(super) async fn answer(shared: &Shared, request: &Request) -> Outcome {
    let path = request.path.trim_start_matches('/');
    if let Some(Err(outcome)) = super::fault(shared, "token", "discovery", path).await {
        return outcome;
    }
    let (status, body) = decide(shared, request, path);
    shared.cx.journal.record("token", "discovery", path, status.as_str(), Value::Null);
    Ok(respond(status, &body))
}

fn decide(shared: &Shared, request: &Request, path: &str) -> (StatusCode, Value) {
    let host = request.header("host").or_else(|| shared.authority("token")).unwrap_or_default();
    if path.eq_ignore_ascii_case(INSTANCE) {
        return instance(host, &query_value(&request.query, "authorization_endpoint").unwrap_or_default());
    }
    let (tenant, resource) = path.split_once('/').unwrap_or((path, ""));
    let organisation = shared.organisation();
    let facts = organisation.facts();
    if ![CONFIGURATION, KEYS].contains(&resource) {
        return (StatusCode::NOT_FOUND, error_body("invalid_request", 900_144, "There is no such endpoint."));
    }
    if !is_tenant(facts, tenant) {
        let text = format!("Tenant '{tenant}' not found.");
        return (StatusCode::BAD_REQUEST, error_body("invalid_tenant", 90_002, &text));
    }
    if resource == KEYS {
        // Access tokens are read by the service they are for, which here is the same program.
        return (StatusCode::OK, json!({ "keys": [] }));
    }
    // Whatever the tenant was called by, its endpoints have its id.
    let base = format!("https://{host}/{}", facts.tenant);
    let body = json!({
        "issuer": format!("{base}/v2.0"),
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "jwks_uri": format!("{base}/{KEYS}"),
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "response_types_supported": ["code"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "tenant_region_scope": "EU",
    });
    (StatusCode::OK, body)
}

/// Whether an authority is one of the platform's: here the host that is asked, by whatever name.
fn instance(host: &str, asked: &str) -> (StatusCode, Value) {
    let rest = asked.strip_prefix("https://").unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let name = |authority: &str| authority.rsplit_once(':').map_or(authority, |(name, _)| name).to_owned();
    let tenant = path.split('/').next().unwrap_or_default();
    if name(authority) != name(host) || tenant.is_empty() {
        let text = "AADSTS50049: Unknown or invalid instance.";
        return (StatusCode::BAD_REQUEST, json!({ "error": "invalid_instance", "error_description": text }));
    }
    let body = json!({
        "tenant_discovery_endpoint": format!("https://{host}/{tenant}/{CONFIGURATION}"),
        "api-version": "1.1",
        "metadata": [{ "preferred_network": host, "preferred_cache": host, "aliases": [host] }],
    });
    (StatusCode::OK, body)
}
