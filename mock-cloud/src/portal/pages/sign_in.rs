//! Signing in and out.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use causeway_protocol::Secret;
use serde::Deserialize;

use super::super::Portal;
use super::super::forms::{Form, Query};
use super::super::shell::{PageResult, PortalError, Visitor, cookie, cookie_name};
use super::TokenOnly;
use crate::limits::{NAME_MAX_BYTES, PORTAL_SESSION_MAX};
use causeway_protocol::limits::PASSWORD_MAX_BYTES;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    user: &'a str,
    next: &'a str,
    error: &'a str,
}

/// Where to go afterwards.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct NextQuery {
    next: String,
}

/// What was typed. No `Debug`.
#[derive(Deserialize)]
pub(in super::super) struct SignInForm {
    user: String,
    password: Secret,
    #[serde(default)]
    next: String,
}

pub(in super::super) async fn show(Query(query): Query<NextQuery>) -> PageResult {
    render(StatusCode::OK, "", &query.next, "")
}

pub(in super::super) async fn sign_in(
    State(portal): State<Portal>,
    uri: Uri,
    headers: HeaderMap,
    Form(form): Form<SignInForm>,
) -> PageResult {
    // There is no session yet and so no token: another site must not sign someone in to an account of its choice.
    if foreign_origin(&uri, &headers) {
        return Err(PortalError::ForeignForm);
    }
    if form.user.len() > NAME_MAX_BYTES || form.password.expose().len() > PASSWORD_MAX_BYTES {
        return render(StatusCode::BAD_REQUEST, "", &form.next, "That is too long to be right.");
    }
    if let Some(wait) = portal.limits.must_wait(&form.user) {
        let text = format!("Too many failed attempts. Try again in {} seconds.", wait.as_secs() + 1);
        return render(StatusCode::TOO_MANY_REQUESTS, &form.user, &form.next, &text);
    }
    if !portal.cloud.store.check_portal_user(&form.user, form.password).await? {
        portal.limits.failed(&form.user);
        return render(StatusCode::UNAUTHORIZED, &form.user, &form.next, "Wrong user name or password.");
    }
    let value = portal.sign_ins.begin(&form.user).map_err(|error| {
        tracing::error!(%error, "Cannot begin a portal session");
        PortalError::Refused { status: 500, detail: "The cloud cannot sign anyone in now.".to_owned() }
    })?;
    Ok(with_cookie(&portal, &value, PORTAL_SESSION_MAX.as_secs(), local(&form.next)))
}

pub(in super::super) async fn sign_out(
    State(portal): State<Portal>,
    visitor: Visitor,
    headers: HeaderMap,
    Form(form): Form<TokenOnly>,
) -> PageResult {
    visitor.check(&form.csrf)?;
    if let Some(value) = cookie(&headers, &portal) {
        portal.sign_ins.end(&value);
    }
    Ok(with_cookie(&portal, "", 0, "/sign-in"))
}

fn with_cookie(portal: &Portal, value: &str, max_age_secs: u64, to: &str) -> Response {
    let secure = if portal.secure { "; Secure" } else { "" };
    let text = format!(
        "{}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age_secs}{secure}",
        cookie_name(portal)
    );
    let mut response = Redirect::to(to).into_response();
    let value = HeaderValue::from_str(&text).expect("a cookie of URL-safe letters is a header value");
    response.headers_mut().insert(header::SET_COOKIE, value);
    response
}

/// Only paths of this portal: `//host` and `/\host` would lead elsewhere.
fn local(next: &str) -> &str {
    let mut bytes = next.bytes();
    let ours = bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\'));
    if ours && !next.chars().any(char::is_control) { next } else { "/" }
}

/// Whether a page of another site sends this. Programs name no origin.
fn foreign_origin(uri: &Uri, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(origin) = text(header::ORIGIN) else { return false };
    // HTTP/2 names the host in `:authority` (RFC 9113 section 8.3.1).
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(header::HOST));
    origin.split_once("://").is_none_or(|(_, origin)| Some(origin) != host)
}

fn render(status: StatusCode, user: &str, next: &str, error: &str) -> PageResult {
    let page = SignInPage { user, next, error }.render().map_err(PortalError::Render)?;
    Ok((status, Html(page)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_is_known_by_its_origin_over_every_http() {
        let foreign = |uri: &str, host: Option<&str>, origin: Option<&str>| {
            let named = [(header::HOST, host), (header::ORIGIN, origin)];
            let named = named.into_iter().filter_map(|(name, value)| Some((name, value?.parse().unwrap())));
            foreign_origin(&uri.parse().unwrap(), &named.collect())
        };
        let (h1, h2) = (("/sign-in", Some("cloud:8443")), ("https://cloud:8443/sign-in", None));
        for (uri, host) in [h1, h2] {
            assert!(!foreign(uri, host, None), "a program");
            assert!(!foreign(uri, host, Some("https://cloud:8443")));
            for origin in ["https://evil.example", "https://cloud", "null", ""] {
                assert!(foreign(uri, host, Some(origin)), "{origin:?}");
            }
        }
        assert!(foreign("/sign-in", None, Some("https://evil.example")), "without any host");
    }

    #[test]
    fn nobody_is_led_elsewhere_after_signing_in() {
        assert_eq!(local("/t/acme/people?q=x"), "/t/acme/people?q=x");
        for foreign in
            ["", "//evil.example", "/\\evil.example", "https://evil.example", "t/acme", "/a\r\nSet-Cookie: x"]
        {
            assert_eq!(local(foreign), "/", "{foreign:?}");
        }
    }
}
