//! Cookies of one session with one host (RFC 6265): front ends keep a session at one server by them.

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};

use super::limits;

/// What the server wants to be told again.
#[derive(Default)]
pub struct Cookies(Vec<Cookie>);

struct Cookie {
    name: String,
    value: String,
    path: String,
    secure: bool,
}

impl Cookies {
    /// Takes over what an answer sets and removes.
    pub fn note(&mut self, headers: &HeaderMap) {
        for value in headers.get_all(SET_COOKIE) {
            if let Ok(text) = value.to_str() {
                self.set(text);
            }
        }
    }

    /// The field for a request to this path.
    pub fn header(&self, path: &str, tls: bool) -> Option<(http::HeaderName, HeaderValue)> {
        let fits = |cookie: &&Cookie| {
            let path = path.split('?').next().unwrap_or_default();
            let below =
                path.get(..cookie.path.len()).is_some_and(|head| head.eq_ignore_ascii_case(&cookie.path));
            (tls || !cookie.secure) && below
        };
        let pairs: Vec<String> =
            self.0.iter().filter(fits).map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        if pairs.is_empty() {
            return None;
        }
        let mut value = HeaderValue::from_str(&pairs.join("; ")).ok()?;
        value.set_sensitive(true);
        Some((COOKIE, value))
    }

    fn set(&mut self, text: &str) {
        let mut parts = text.split(';');
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || name.len() + value.len() > limits::COOKIE_MAX_BYTES {
            return;
        }
        let mut cookie = Cookie { name: name.into(), value: value.into(), path: "/".into(), secure: false };
        let mut gone = false;
        for attribute in parts {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match key.as_str() {
                "path" if value.starts_with('/') => cookie.path = value.to_owned(),
                "secure" => cookie.secure = true,
                "max-age" => gone = value.parse::<i64>().is_ok_and(|seconds| seconds <= 0),
                // Servers remove cookies by a date long past; other dates lie after the end of a session.
                "expires" => gone |= value.contains("1970") || value.contains("1601"),
                _ => {}
            }
        }
        self.0.retain(|known| known.name != cookie.name || known.path != cookie.path);
        if !gone && self.0.len() < limits::COOKIES_MAX {
            self.0.push(cookie);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(lines: &[&str]) -> Cookies {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SET_COOKIE, HeaderValue::from_str(line).unwrap());
        }
        let mut cookies = Cookies::default();
        cookies.note(&headers);
        cookies
    }

    fn shown(cookies: &Cookies, path: &str, tls: bool) -> String {
        cookies.header(path, tls).map_or(String::new(), |(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn affinity_is_returned_where_it_belongs() {
        let some = cookies(&[
            "X-BackEndCookie=S-1-5; expires=Tue, 08-Dec-2026 10:00:00 GMT; path=/PowerShell; secure; HttpOnly",
            "ClientId=ABC; path=/",
            "nonsense",
            "=",
        ]);
        assert_eq!(shown(&some, "/powershell/?a=b", true), "X-BackEndCookie=S-1-5; ClientId=ABC");
        assert_eq!(shown(&some, "/powershell/", false), "ClientId=ABC");
        assert_eq!(shown(&some, "/other", true), "ClientId=ABC");
    }

    #[test]
    fn cookies_are_replaced_removed_and_bounded() {
        let some = cookies(&["a=1", "a=2", "b=1", "b=; Max-Age=0"]);
        assert_eq!(shown(&some, "/", true), "a=2");
        let many: Vec<String> = (0..100).map(|n| format!("c{n}=1")).collect();
        let many = cookies(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(shown(&many, "/", true).matches('=').count(), limits::COOKIES_MAX);
        let long = format!("a={}", "x".repeat(limits::COOKIE_MAX_BYTES));
        assert_eq!(shown(&cookies(&[&long]), "/", true), "");
    }
}
