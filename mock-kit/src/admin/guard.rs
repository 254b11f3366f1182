//! Who may call an admin API on loopback: programs of this machine, not the web pages its browser shows.
//!
//! Every page of the web may send requests to loopback, and with a name of its own that it lets point there (DNS
//! rebinding) it may read the answers too. Browsers say in `Origin` which page asks, and in `Host` by which name.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::Problem;

/// Whether a listener at this address is guarded. At another one, names of all kinds are legitimate: containers call each
/// other by name.
pub(super) fn is_needed(listener: IpAddr) -> bool {
    listener.to_canonical().is_loopback()
}

/// Refuses what comes from a foreign page, or under a name that is not this machine's.
pub(super) async fn refuse_pages(request: Request, next: Next) -> Response {
    match refusal(&request) {
        Some(detail) => Problem::response(StatusCode::FORBIDDEN, "", &detail),
        None => next.run(request).await,
    }
}

fn refusal(request: &axum::http::Request<Body>) -> Option<String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let target = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let hosts: Vec<String> =
        target.into_iter().chain(request.headers().get_all(header::HOST).iter().map(text)).collect();
    if let Some(host) = hosts.iter().find(|host| !is_this_machine(host)) {
        return Some(format!(
            "this API listens on loopback; call it by an address or as localhost, not as {host:?}"
        ));
    }
    let origin = request.headers().get(header::ORIGIN).map(text)?;
    let own = hosts.iter().any(|host| origin.eq_ignore_ascii_case(&format!("http://{host}")));
    (!own).then(|| format!("this API is not for pages of {origin:?}"))
}

/// Addresses cannot be made to point elsewhere; names other than these can (RFC 6761 section 6.3).
fn is_this_machine(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(headers: &[(&str, &str)]) -> bool {
        let mut request = axum::http::Request::post("/reset");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refusal(&request.body(Body::empty()).unwrap()).is_some()
    }

    #[test]
    fn listeners_on_loopback_are_guarded() {
        for (address, guarded) in [
            ("127.0.0.1", true),
            ("127.0.0.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("172.17.0.2", false),
        ] {
            assert_eq!(is_needed(address.parse().unwrap()), guarded, "{address}");
        }
    }

    #[test]
    fn programs_pass_and_foreign_pages_do_not() {
        for host in
            ["127.0.0.1:36101", "127.0.0.1", "[::1]:80", "192.0.2.7:80", "localhost:1", "x.LocalHost."]
        {
            assert!(!refused(&[("host", host)]), "{host}");
            assert!(!refused(&[("host", host), ("origin", &format!("http://{host}"))]), "{host}");
            for origin in ["https://evil.example", "null", "http://127.0.0.1:9", "http://localhost", ""] {
                assert!(refused(&[("host", host), ("origin", origin)]), "{host} {origin}");
            }
        }
        assert!(!refused(&[]), "no browser leaves the host out");
        for host in
            ["evil.example", "evil.example:36101", "localhost.evil.example", "127.0.0.1.evil.example", ""]
        {
            assert!(refused(&[("host", host)]), "{host}");
            assert!(refused(&[("host", host), ("origin", &format!("http://{host}"))]), "{host}");
        }
        assert!(refused(&[("host", "localhost"), ("host", "evil.example")]));
    }
}
