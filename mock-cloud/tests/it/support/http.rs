//! A plain HTTP/1.1 client for API and portal.

use bytes::Bytes;
use causeway_protocol::channel::ALPN_HTTP1;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::wire::dial;
use super::{PATIENCE, World};

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The body when the call worked.
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        self.json()
    }

    /// A header.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are text"))
    }

    /// Checks that this is a problem document with this code (RFC 9457), and gives it.
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header(header::CONTENT_TYPE), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["type"], format!("urn:causeway:problem:{code}"));
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        problem
    }
}

/// Talks to the API with the administrator's token.
pub(crate) struct Api<'a>(pub(crate) &'a World);

impl Api<'_> {
    /// A path below `/api/v1`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// A path below the world's tenant.
    pub(crate) async fn of_tenant(&self, path: &str) -> Value {
        self.get(&format!("/tenants/{}{path}", self.0.tenant)).await.ok()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body.to_string())).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body.to_string())).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<String>) -> Answer {
        let token = format!("Bearer {}", self.0.mock.token());
        self.send(method, path, body.unwrap_or_default(), &[("authorization", &token)]).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
        headers: &[(&str, &str)],
    ) -> Answer {
        let tls = dial(self.0, None, &[ALPN_HTTP1]).await.unwrap();
        let (mut send, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        exchange(&mut send, method, &format!("/api/v1{path}"), body, headers).await
    }

    /// Opens a stream of events and returns its body as it comes.
    pub(crate) async fn events(&self, path: &str, headers: &[(&str, &str)]) -> Feed {
        let tls = dial(self.0, None, &[ALPN_HTTP1]).await.unwrap();
        let (mut send, connection) = http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let token = format!("Bearer {}", self.0.mock.token());
        let mut request =
            Request::get(format!("/api/v1{path}")).header("host", "cloud").header("authorization", token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = send.send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Feed { body: response.into_body(), text: String::new(), _send: send }
    }
}

/// Server-sent events as they come.
pub(crate) struct Feed {
    body: Incoming,
    text: String,
    _send: SendRequest<Full<Bytes>>,
}

impl Feed {
    /// The `data` of the next event.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let data = block.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
                self.text = rest.to_owned();
                if let Some(data) = data {
                    return serde_json::from_str(&data).unwrap();
                }
                continue;
            }
            let frame =
                tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event comes in time");
            let frame = frame.expect("the feed goes on").expect("the link holds");
            self.text.push_str(std::str::from_utf8(&frame.into_data().expect("data")).unwrap());
        }
    }
}

impl Feed {
    /// Waits until the other side ends it.
    pub(crate) async fn ended(mut self) {
        let rest = async { while self.body.frame().await.is_some_and(|frame| frame.is_ok()) {} };
        tokio::time::timeout(PATIENCE, rest).await.expect("the feed ends in time");
    }
}

/// A browser without scripts, on the portal's loopback port.
pub(crate) struct Browser {
    address: String,
    cookie: String,
}

impl Browser {
    /// Nobody is signed in.
    pub(crate) fn new(world: &World) -> Self {
        let address = world.mock.url("portal").trim_start_matches("http://").to_owned();
        Self { address, cookie: String::new() }
    }

    /// Signs in as the first administrator.
    pub(crate) async fn signed_in(world: &World) -> Self {
        let mut browser = Self::new(world);
        let admin = world.mock.admin();
        let answer =
            browser.post("/sign-in", &[("user", &admin.user), ("password", admin.password.expose())]).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "/"), "{}", answer.text);
        let cookie = answer.header("set-cookie");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
        browser.cookie = cookie.split(';').next().unwrap().to_owned();
        browser
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, String::new(), &[]).await
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send(Method::POST, path, encode(form), &[("content-type", "application/x-www-form-urlencoded")])
            .await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
        headers: &[(&str, &str)],
    ) -> Answer {
        let tcp = TcpStream::connect(&self.address).await.unwrap();
        let (mut send, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        let mut headers = headers.to_vec();
        headers.push(("cookie", &self.cookie));
        exchange(&mut send, method, path, body, &headers).await
    }

    /// Opens a stream of events, as the script of a page does.
    pub(crate) async fn stream(&self, path: &str) -> Feed {
        let tcp = TcpStream::connect(&self.address).await.unwrap();
        let (mut send, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "cloud").header("cookie", &self.cookie);
        let response = send.send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Feed { body: response.into_body(), text: String::new(), _send: send }
    }

    /// The token in a page's forms.
    pub(crate) fn csrf(page: &Answer) -> String {
        let (_, rest) = page.text.split_once("name=\"csrf\" value=\"").expect("the page has a form");
        rest.split('"').next().unwrap().to_owned()
    }
}

fn encode(form: &[(&str, &str)]) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let pair =
        |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    form.iter().map(pair).collect::<Vec<_>>().join("&")
}

async fn exchange(
    send: &mut SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    body: String,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", "cloud");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::from(body)).unwrap();
    let response =
        tokio::time::timeout(PATIENCE, send.send_request(request)).await.expect("an answer in time").unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}
