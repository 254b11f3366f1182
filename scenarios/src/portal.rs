//! The portal as a person's browser uses it: signs in, reads a page, sends one of its forms.

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Someone signed in at the portal.
pub struct Browser {
    address: String,
    cookie: String,
}

struct Page {
    status: StatusCode,
    location: String,
    cookie: String,
    text: String,
}

impl Browser {
    /// Signs in at the portal's loopback address.
    ///
    /// # Errors
    /// When name or password are refused.
    pub async fn sign_in(portal: &str, user: &str, password: &str) -> Result<Self> {
        let address = portal.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let mut browser = Self { address, cookie: String::new() };
        let form = [("user", user), ("password", password)];
        let page = browser.send(Method::POST, "/sign-in", encode(&form)).await?;
        ensure!(page.status == StatusCode::SEE_OTHER, "the portal's sign-in answers {}", page.status);
        browser.cookie = page.cookie.split(';').next().unwrap_or_default().to_owned();
        Ok(browser)
    }

    /// Reads a page and sends one of its forms with the page's own token; returns where the portal leads then.
    ///
    /// # Errors
    /// When the page is not there, has no form, or the form is refused.
    pub async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Result<String> {
        self.press(path, path, fields).await
    }

    /// As [`Browser::submit`], for a form that leads elsewhere than to its own page.
    ///
    /// # Errors
    /// When the page is not there, has no form, or the form is refused.
    pub async fn press(&self, path: &str, action: &str, fields: &[(&str, &str)]) -> Result<String> {
        let page = self.send(Method::GET, path, String::new()).await?;
        ensure!(page.status == StatusCode::OK, "the portal answers {} to {path}", page.status);
        let (_, rest) = page.text.split_once("name=\"csrf\" value=\"").context("the page has no form")?;
        let csrf = rest.split('"').next().unwrap_or_default();
        let mut form = vec![("csrf", csrf)];
        form.extend_from_slice(fields);
        let page = self.send(Method::POST, action, encode(&form)).await?;
        ensure!(page.status == StatusCode::SEE_OTHER, "the portal refuses the form: {}", words(&page.text));
        Ok(page.location)
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Result<Page> {
        let stream = TcpStream::connect(&self.address).await.context("connect to the portal")?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // The end of the connection shows in the answer.
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::COOKIE, &self.cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await.context("ask the portal")?;
        let text = |name: header::HeaderName| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (location, cookie, status) =
            (text(header::LOCATION), text(header::SET_COOKIE), response.status());
        let bytes: Bytes = response.into_body().collect().await.context("read the portal's page")?.to_bytes();
        Ok(Page { status, location, cookie, text: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

/// What an error page says.
fn words(page: &str) -> String {
    let text = page.split_once("<main").map_or(page, |(_, main)| main);
    let mut shown = String::new();
    let mut inside = true;
    for c in text.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            c if !inside => shown.push(c),
            _ => {}
        }
    }
    shown.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

/// `application/x-www-form-urlencoded`, everything but letters and digits escaped.
fn encode(form: &[(&str, &str)]) -> String {
    let escaped = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
                other => out += &format!("%{other:02X}"),
            }
        }
        out
    };
    form.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(
            encode(&[("user", "o'brien & söhne"), ("x", "1")]),
            "user=o%27brien%20%26%20s%C3%B6hne&x=1"
        );
    }

    #[test]
    fn error_pages_are_reduced_to_their_words() {
        let page = "<html><main id=\"main\"><h1>That did not work</h1>\n<p>Choose a policy.</p></main>";
        assert_eq!(words(page), "That did not work Choose a policy.");
    }
}
