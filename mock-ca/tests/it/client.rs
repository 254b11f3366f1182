//! HTTP as plain as it gets, and a device that speaks SCEP.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::rand::SecureRandom as _;
use bytes::Bytes;
use causeway_mock_ca::core::Issued;
use causeway_mock_ca::{Config, MockCa};
use causeway_mock_kit::Clock;
use causeway_protocol::Secret;
use causeway_protocol::certificate::KeyKind;
use causeway_protocol::cms::SignerKey;
use causeway_protocol::pkix::{AlternativeName, Certificate, CsrDraft, Digest, Key, Name, self_signed};
use causeway_protocol::scep::{
    Answer, CaCertificates, Caps, CertRep, RequestWriter, ScepError, ScepRandom, Suite, TransactionId,
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// 2026-11-01 12:00 UTC.
pub(crate) const START_MS: i64 = 1_793_534_400_000;

/// A mock on a clock that stands still.
pub(crate) async fn start(personality: &str, change: impl FnOnce(&mut Config)) -> (MockCa, Clock) {
    let mut config = Config::of(personality);
    config.common.users = 20;
    change(&mut config);
    let clock = Clock::stepped(START_MS);
    (MockCa::start_with_clock(config, clock.clone()).await.unwrap(), clock)
}

/// An HTTP answer.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Response {
    pub(crate) fn content_type(&self) -> &str {
        self.headers.get("content-type").map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// One connection to a server.
pub(crate) struct Line(hyper::client::conn::http1::SendRequest<Full<Bytes>>);

impl Line {
    /// To `http://host:port/...`.
    pub(crate) async fn to(url: &str) -> Self {
        let address = url.strip_prefix("http://").expect("plain HTTP").split('/').next().unwrap();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// `None` when the server closes instead of answering.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Option<Response> {
        let (_, rest) = url.split_once("://").unwrap();
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        let host = rest.split('/').next().unwrap_or_default();
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.0.send_request(request.body(Full::new(body.into())).unwrap()).await.ok()?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Response { status: head.status, headers: head.headers, body })
    }
}

pub(crate) async fn get(url: &str) -> Response {
    Line::to(url).await.send(Method::GET, url, &[], Bytes::new()).await.expect("an answer")
}

pub(crate) async fn post(url: &str, body: impl Into<Bytes>) -> Response {
    let headers = [("content-type", "application/x-pki-message")];
    Line::to(url).await.send(Method::POST, url, &headers, body).await.expect("an answer")
}

/// A call of the admin API that must go well.
pub(crate) async fn admin(mock: &MockCa, method: Method, path: &str, body: Value) -> Value {
    let url = format!("{}{path}", mock.url("admin"));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers = [("content-type", "application/json")];
    let answer = Line::to(&url).await.send(method, &url, &headers, body).await.expect("an answer");
    assert!(answer.status.is_success(), "{path}: {} {:?}", answer.status, answer.body);
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

/// RSA keys take a while to make, so devices of these tests share a few.
static KEYS: LazyLock<Vec<Arc<Key>>> =
    LazyLock::new(|| (0..2).map(|_| Arc::new(Key::generate(KeyKind::Rsa2048).unwrap())).collect());

/// A device with a key and a certificate that it signs its messages with.
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) key: Arc<Key>,
    pub(crate) certificate: Certificate,
    pub(crate) transaction: TransactionId,
}

pub(crate) fn random() -> ScepRandom {
    let mut bytes = [0; 64];
    aws_lc_rs::rand::SystemRandom::new().fill(&mut bytes).unwrap();
    ScepRandom::new(bytes)
}

impl Device {
    /// One with a transaction of its own; `key` is 0 or 1.
    pub(crate) fn new(name: &str, key: usize) -> Self {
        let key = Arc::clone(&KEYS[key]);
        let subject = Name::parse(&format!("CN={name}")).unwrap().to_der();
        let own = self_signed(&key, subject, &[7; 16], START_MS, START_MS + 86_400_000).unwrap();
        let certificate = Certificate::read(&own).unwrap();
        Self { name: name.to_owned(), key, certificate, transaction: TransactionId::new(name) }
    }

    pub(crate) fn csr(&self, challenge: Option<&str>) -> Vec<u8> {
        self.csr_with(challenge, &[])
    }

    pub(crate) fn csr_with(&self, challenge: Option<&str>, names: &[&str]) -> Vec<u8> {
        let draft = CsrDraft {
            subject: Name::parse(&format!("CN={}", self.name)).unwrap(),
            alternative_names: names.iter().map(|name| AlternativeName::parse(name).unwrap()).collect(),
            challenge: challenge.map(Secret::new),
            ..CsrDraft::default()
        };
        draft.sign(&self.key, Digest::Sha256).unwrap()
    }

    pub(crate) fn writer<'a>(&'a self, suite: Suite, authority: &'a CaCertificates) -> RequestWriter<'a> {
        RequestWriter {
            suite,
            recipient: authority.recipient().unwrap(),
            signer: SignerKey { certificate: &self.certificate, key: &self.key },
            transaction: &self.transaction,
        }
    }

    /// Sends a PKCSReq by POST and reads the answer.
    pub(crate) async fn enrol(&self, server: &Server, csr: &[u8]) -> Result<Answer, ScepError> {
        let message =
            self.writer(server.suite, &server.authority).certificate(csr, false, &random()).unwrap();
        self.read(server, &post(&server.url, message).await)
    }

    /// Polls with the transaction.
    pub(crate) async fn poll(&self, server: &Server) -> Result<Answer, ScepError> {
        let issuer = server.authority.ca().subject_raw();
        let subject = Name::parse(&format!("CN={}", self.name)).unwrap().to_der();
        let message = self.writer(server.suite, &server.authority).poll(issuer, &subject, &random()).unwrap();
        self.read(server, &post(&server.url, message).await)
    }

    pub(crate) fn read(&self, server: &Server, answer: &Response) -> Result<Answer, ScepError> {
        let reply = CertRep::read(&answer.body)?;
        assert_eq!(answer.content_type(), "application/x-pki-message");
        assert_eq!(reply.header().transaction, self.transaction);
        reply.open(&server.authority, &self.key, &self.certificate, server.suite.accept)
    }
}

/// What a device finds out before it asks.
pub(crate) struct Server {
    pub(crate) suite: Suite,
    pub(crate) authority: CaCertificates,
    /// URL of PKIOperation.
    pub(crate) url: String,
    pub(crate) challenge: String,
}

impl Server {
    pub(crate) async fn look(mock: &MockCa) -> Self {
        let url = mock.url("scep");
        let caps = get(&format!("{url}?operation=GetCACaps")).await;
        let certificates = get(&format!("{url}?operation=GetCACert")).await;
        Self {
            suite: Caps::parse(&caps.body).negotiate(),
            authority: CaCertificates::read(&certificates.body).unwrap(),
            url: format!("{url}?operation=PKIOperation"),
            challenge: mock.world().challenges.config().fixed.clone().unwrap(),
        }
    }
}

/// The first certificate of a successful answer.
pub(crate) fn issued(answer: Result<Answer, ScepError>) -> Certificate {
    match answer {
        Ok(Answer::Success(bag)) => bag.certificates.into_iter().next().expect("a certificate"),
        other => panic!("not issued: {other:?}"),
    }
}

/// The failInfo of a refusal, by its name.
pub(crate) fn refused(answer: Result<Answer, ScepError>) -> &'static str {
    match answer {
        Ok(Answer::Failure { fail: Some(fail), text: None }) => fail.name(),
        other => panic!("not refused: {other:?}"),
    }
}

/// What is in the books, by subject.
pub(crate) async fn books(mock: &MockCa) -> HashMap<String, Arc<Issued>> {
    let issued = mock.authority().await.certificates(1_000, |_| true);
    issued.into_iter().map(|issued| (issued.subject.clone(), issued)).collect()
}
