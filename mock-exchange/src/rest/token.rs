//! The token endpoint: client credentials with a client assertion (RFC 6749 4.4, RFC 7523), and the tokens it gives.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::assertion::{self, Refused};
use super::{Outcome, Request, Rest, discovery, held, plain, respond};
use crate::server::Shared;
use crate::world::Facts;

/// What an application of Exchange Online asks for.
const EXCHANGE: &str = "https://outlook.office365.com";
/// What else the tenant has that an application may ask a token for. Exchange Online takes none of those.
const OTHERS: [&str; 1] = ["https://graph.microsoft.com"];
/// An application asks for all it has been granted and nothing else.
const ALL_GRANTED: &str = "/.default";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(super) fn new_key() -> hmac::Key {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's generator gives random bytes");
    hmac::Key::new(hmac::HMAC_SHA256, &bytes)
}

pub(super) async fn answer(shared: &Shared, request: &Request) -> Outcome {
    if request.method == Method::GET {
        return discovery::answer(shared, request).await;
    }
    let form = form(&request.body);
    let client_id = form.get("client_id").cloned().unwrap_or_default();
    if let Some(Err(outcome)) = super::fault(shared, "token", "token", &client_id).await {
        return outcome;
    }
    let (status, body) = decide(shared, request, &form, &client_id);
    let outcome =
        body["error_codes"][0].as_u64().map_or_else(|| "granted".to_owned(), |code| format!("AADSTS{code}"));
    shared.cx.journal.record("token", "token", &client_id, &outcome, Value::Null);
    Ok(respond(status, &body))
}

fn decide(
    shared: &Shared,
    request: &Request,
    form: &BTreeMap<String, String>,
    client_id: &str,
) -> (StatusCode, Value) {
    let organisation = shared.organisation();
    let facts = organisation.facts();
    let bad = |error: &str, code: u32, text: &str| (StatusCode::BAD_REQUEST, error_body(error, code, text));
    let value = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let mut parts = request.path.trim_start_matches('/').split('/');
    let tenant = parts.next().unwrap_or_default();
    if request.method != Method::POST || parts.collect::<Vec<_>>() != ["oauth2", "v2.0", "token"] {
        return (StatusCode::NOT_FOUND, error_body("invalid_request", 900_144, "There is no such endpoint."));
    }
    if !is_tenant(facts, tenant) {
        return bad("invalid_request", 90_002, &format!("Tenant '{tenant}' not found."));
    }
    if value("grant_type") != "client_credentials" {
        return bad("unsupported_grant_type", 70_003, "The app requested an unsupported grant type.");
    }
    if client_id != facts.client_id {
        let text = format!("Application with identifier '{client_id}' was not found in the directory.");
        return bad("unauthorized_client", 700_016, &text);
    }
    let Some(resource) = value("scope").strip_suffix(ALL_GRANTED) else {
        return bad("invalid_scope", 1_002_012, "The provided value for scope is not valid.");
    };
    let Some(resource) = [EXCHANGE].into_iter().chain(OTHERS).find(|known| *known == resource) else {
        let text = format!("The resource principal named {resource} was not found in the tenant.");
        return bad("invalid_resource", 500_011, &text);
    };
    let unauthorized =
        |code: u32, text: &str| (StatusCode::UNAUTHORIZED, error_body("invalid_client", code, text));
    if form.contains_key("client_secret") {
        return unauthorized(7_000_215, "Invalid client secret provided. This application has no secret.");
    }
    if value("client_assertion_type") != ASSERTION_TYPE || value("client_assertion").is_empty() {
        return unauthorized(
            7_000_218,
            "The request body must contain 'client_assertion' or 'client_secret'.",
        );
    }
    // An assertion is stamped by the application's own clock, so the mock's, which tests push about, does not judge it.
    let now_secs = OffsetDateTime::now_utc().unix_timestamp();
    let endpoint = shared.urls.get("token").map(String::as_str).unwrap_or_default();
    let audience = |aud: &str| aud == endpoint || same_endpoint(aud, &request.path, request.header("host"));
    match assertion::check(&shared.rest, value("client_assertion"), client_id, audience, now_secs) {
        Ok(()) => {}
        Err(refused) => {
            let (code, text) = refused.code();
            let status = if refused == Refused::Malformed {
                StatusCode::BAD_REQUEST
            } else {
                StatusCode::UNAUTHORIZED
            };
            return (status, error_body("invalid_client", code, text));
        }
    }
    let life = shared.rest.life_secs;
    let until_ms = shared.cx.clock.now_ms() + life * 1_000;
    let token = issue(&shared.rest, resource, &facts.tenant, client_id, until_ms);
    let body = json!({
        "token_type": "Bearer",
        "expires_in": life,
        "ext_expires_in": life,
        "access_token": token,
    });
    (StatusCode::OK, body)
}

/// Whether a path names the tenant, by its id or by its domain.
pub(super) fn is_tenant(facts: &Facts, name: &str) -> bool {
    name.eq_ignore_ascii_case(&facts.tenant) || name.eq_ignore_ascii_case(&facts.domain)
}

/// The endpoint under the name the client reached it by, behind a proxy for example.
fn same_endpoint(aud: &str, path: &str, host: Option<&str>) -> bool {
    host.is_some_and(|host| aud == format!("https://{host}{path}"))
}

pub(super) fn error_body(error: &str, code: u32, text: &str) -> Value {
    json!({
        "error": error,
        "error_description": format!("AADSTS{code}: {text}"),
        "error_codes": [code],
        "trace_id": uuid::Uuid::new_v4().to_string(),
        "correlation_id": uuid::Uuid::new_v4().to_string(),
    })
}

/// The last value of every field of `application/x-www-form-urlencoded`.
fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
    };
    text.split('&')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// A signed token; shaped like those of the service, and like them of no meaning to who holds it.
fn issue(rest: &Rest, resource: &str, tenant: &str, client_id: &str, until_ms: i64) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({ "typ": "JWT", "alg": "HS256" }));
    let claims = json!({
        "aud": resource,
        "tid": tenant,
        "appid": client_id,
        "roles": if resource == EXCHANGE { vec!["Exchange.ManageAsApp"] } else { Vec::new() },
        "exp": until_ms.div_euclid(1_000),
        "uti": uuid::Uuid::new_v4().to_string(),
    });
    let signed = format!("{header}.{}", part(&claims));
    let tag = hmac::sign(&held(&rest.key), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Whose a token is. `None` when it is expired, for another service, or not ours.
pub(super) fn bearer(rest: &Rest, authorization: Option<&str>, now_ms: i64) -> Option<String> {
    let (scheme, token) = authorization?.split_once(' ')?;
    let (signed, tag) = token.trim().rsplit_once('.')?;
    let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
    if !scheme.eq_ignore_ascii_case("bearer")
        || hmac::verify(&held(&rest.key), signed.as_bytes(), &tag).is_err()
    {
        return None;
    }
    let (_, claims) = signed.split_once('.')?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let until_ms = claims["exp"].as_i64()?.saturating_mul(1_000);
    (until_ms > now_ms && claims["aud"] == EXCHANGE)
        .then(|| claims["appid"].as_str().map(str::to_owned))
        .flatten()
}

/// The answer to a request without a token that counts.
pub(super) fn unauthorized() -> http::Response<http_body_util::Full<bytes::Bytes>> {
    let mut response = plain(StatusCode::UNAUTHORIZED);
    let challenge = "Bearer client_id=\"00000002-0000-0ff1-ce00-000000000000\", trusted_issuers=\"*\", \
                     token_types=\"app_asserted_user_v1 service_asserted_app_v1\", error=\"invalid_token\"";
    response
        .headers_mut()
        .insert(http::header::WWW_AUTHENTICATE, http::header::HeaderValue::from_static(challenge));
    response
}
