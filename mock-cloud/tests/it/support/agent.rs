//! An agent's half of the channel: enrolment, login, stream management, iqs.

use std::collections::VecDeque;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::channel::element::{Auth, Response};
use causeway_protocol::channel::payload::{self, Payload, Reply, Request};
use causeway_protocol::channel::{ALPN_XMPP, SaslElement, SmElement, StreamElement, ns};
use causeway_protocol::health::{HealthReport, Hello, ModuleHealth, ModuleState};
use futures_util::{SinkExt as _, StreamExt as _};
use minidom::Element;
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_xmpp::xmlstream::{StreamHeader, Timeouts, XmlStream, initiate_stream};
use xmpp_parsers::bind::{BindQuery, BindResponse};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::sasl::Failure;
use xmpp_parsers::sm;
use xmpp_parsers::stanza_error::StanzaError;
use xmpp_parsers::stream_error::StreamError;
use xmpp_parsers::stream_features::StreamFeatures;

use super::wire::{Credentials, dial};
use super::{PATIENCE, World};

type Io = BufReader<TlsStream<TcpStream>>;

/// A stream, before or after login.
pub(crate) struct Line {
    pub(crate) stream: XmlStream<Io, StreamElement>,
    pub(crate) features: StreamFeatures,
    /// Orders and other stanzas of the cloud that came while something else was waited for.
    inbox: VecDeque<Iq>,
    /// Stanzas of the cloud handled, for XEP-0198.
    pub(crate) handled: u32,
    /// What the cloud acknowledged last.
    pub(crate) acked: u32,
    pub(crate) counting: bool,
    next_id: u32,
}

/// The stream is over.
#[derive(Debug)]
pub(crate) enum Ended {
    Error(StreamError),
    Closed,
}

impl Ended {
    /// The stream error's condition.
    pub(crate) fn condition(&self) -> String {
        match self {
            Self::Error(error) => error.condition.to_string(),
            Self::Closed => "closed".to_owned(),
        }
    }
}

impl Line {
    /// Connects and opens a stream to `to`.
    pub(crate) async fn open(world: &World, credentials: Option<&Credentials>, to: &str) -> Self {
        let tls = dial(world, credentials, &[ALPN_XMPP]).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(ALPN_XMPP));
        let header = StreamHeader { to: Some(to.to_owned().into()), ..StreamHeader::default() };
        let pending =
            initiate_stream(BufReader::new(tls), ns::CLIENT, header, Timeouts::tight()).await.unwrap();
        assert_eq!(
            pending.header().from.as_deref(),
            Some(to),
            "the cloud answers under the name it was called"
        );
        let (features, stream) = pending.recv_features().await.unwrap();
        Self { stream, features, inbox: VecDeque::new(), handled: 0, acked: 0, counting: false, next_id: 0 }
    }

    /// The next element; XEP-0198 requests are answered on the way.
    pub(crate) async fn next(&mut self) -> Result<StreamElement, Ended> {
        loop {
            let next =
                tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("the cloud says something");
            match next {
                Some(Ok(StreamElement::Error(error))) => return Err(Ended::Error(error.0)),
                Some(Ok(StreamElement::Sm(SmElement::Request(_)))) => {
                    let ack = StreamElement::Sm(SmElement::Ack(sm::A::new(self.handled)));
                    let _ = self.stream.send(&ack).await;
                }
                Some(Ok(StreamElement::Sm(SmElement::Ack(ack)))) => self.acked = ack.h,
                Some(Ok(element)) => {
                    if self.counting && element.is_stanza() {
                        self.handled += 1;
                    }
                    return Ok(element);
                }
                Some(Err(_)) | None => return Err(Ended::Closed),
            }
        }
    }

    pub(crate) async fn send(&mut self, element: StreamElement) {
        self.stream.send(&element).await.unwrap();
    }

    async fn sasl(&mut self, element: SaslElement) -> SaslElement {
        self.send(StreamElement::Sasl(element)).await;
        match self.next().await.unwrap() {
            StreamElement::Sasl(element) => element,
            other => panic!("expected SASL, got {other:?}"),
        }
    }

    /// SASL EXTERNAL with an empty identity.
    pub(crate) async fn external(mut self) -> Result<Self, Failure> {
        let auth = Auth { mechanism: "EXTERNAL".into(), body: "=".into() };
        match self.sasl(SaslElement::Auth(auth)).await {
            SaslElement::Success(_) => Ok(self.restart().await),
            SaslElement::Failure(failure) => Err(failure),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// SASL SCRAM-SHA-256, checking the server's proof too.
    pub(crate) async fn scram(mut self, name: &str, password: &str) -> Result<Self, Failure> {
        let bare = format!("n={name},r=fyko+d2lbbFgONRv9qkxdawL");
        let first = STANDARD.encode(format!("n,,{bare}"));
        let auth = Auth { mechanism: "SCRAM-SHA-256".into(), body: first };
        let server_first = match self.sasl(SaslElement::Auth(auth)).await {
            SaslElement::Challenge(challenge) => {
                String::from_utf8(STANDARD.decode(challenge.body).unwrap()).unwrap()
            }
            SaslElement::Failure(failure) => return Err(failure),
            other => panic!("unexpected {other:?}"),
        };
        let (client_final, server_final) = proofs(password, &bare, &server_first);
        let response = Response { body: STANDARD.encode(client_final) };
        match self.sasl(SaslElement::Response(response)).await {
            SaslElement::Success(success) => {
                assert_eq!(String::from_utf8(STANDARD.decode(success.body).unwrap()).unwrap(), server_final);
                Ok(self.restart().await)
            }
            SaslElement::Failure(failure) => Err(failure),
            other => panic!("unexpected {other:?}"),
        }
    }

    async fn restart(self) -> Self {
        let header = StreamHeader { to: Some("cloud.causeway.test".into()), ..StreamHeader::default() };
        let pending = self.stream.initiate_reset().send_header(header).await.unwrap();
        let (features, stream) = pending.recv_features().await.unwrap();
        Self { stream, features, inbox: VecDeque::new(), handled: 0, acked: 0, counting: false, next_id: 0 }
    }

    /// Binds the resource; returns the full JID.
    pub(crate) async fn bind(&mut self, resource: &str) -> String {
        let query = BindQuery::new(Some(resource.to_owned()));
        let answer = self.ask_set(query.into()).await.expect("bind is answered").expect("with a JID");
        BindResponse::try_from(answer).unwrap().jid.to_string()
    }

    /// Switches stream management on; returns the session's id.
    pub(crate) async fn enable(&mut self) -> String {
        self.send(StreamElement::Sm(SmElement::Enable(sm::Enable::new().with_resume()))).await;
        match self.next().await.unwrap() {
            StreamElement::Sm(SmElement::Enabled(enabled)) => {
                assert!(enabled.resume);
                self.counting = true;
                self.handled = 0;
                enabled.id.unwrap().0
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Sends a set and waits for its answer.
    pub(crate) async fn ask_set(&mut self, payload: Element) -> Result<Option<Element>, StanzaError> {
        self.try_ask(payload, true).await.unwrap_or_else(|ended| panic!("the stream ended: {ended:?}"))
    }

    /// Sends a get and waits for its answer.
    pub(crate) async fn ask_get(&mut self, payload: Element) -> Result<Option<Element>, StanzaError> {
        self.try_ask(payload, false).await.unwrap_or_else(|ended| panic!("the stream ended: {ended:?}"))
    }

    /// As the two above, for streams that may end.
    pub(crate) async fn try_ask(
        &mut self,
        payload: Element,
        set: bool,
    ) -> Result<Result<Option<Element>, StanzaError>, Ended> {
        self.next_id += 1;
        let id = format!("t{}", self.next_id);
        let iq = match set {
            true => Iq::Set { from: None, to: None, id: id.clone(), payload },
            false => Iq::Get { from: None, to: None, id: id.clone(), payload },
        };
        self.send(StreamElement::Iq(iq)).await;
        loop {
            match self.next().await? {
                StreamElement::Iq(Iq::Result { id: got, payload, .. }) if got == id => {
                    return Ok(Ok(payload));
                }
                StreamElement::Iq(Iq::Error { id: got, error, .. }) if got == id => return Ok(Err(error)),
                StreamElement::Iq(iq @ (Iq::Set { .. } | Iq::Get { .. })) => self.inbox.push_back(iq),
                other => panic!("unexpected {other:?} while waiting for {id}"),
            }
        }
    }

    /// Asks how many of our stanzas the cloud has handled. Stanzas that come meanwhile are kept.
    pub(crate) async fn ack(&mut self) -> u32 {
        self.send(StreamElement::Sm(SmElement::Request(sm::R))).await;
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("an acknowledgement");
            match next {
                Some(Ok(StreamElement::Sm(SmElement::Ack(ack)))) => return ack.h,
                Some(Ok(StreamElement::Sm(SmElement::Request(_)))) => {}
                Some(Ok(StreamElement::Iq(iq @ (Iq::Set { .. } | Iq::Get { .. })))) => {
                    self.handled += u32::from(self.counting);
                    self.inbox.push_back(iq);
                }
                other => panic!("unexpected {other:?} while waiting for an acknowledgement"),
            }
        }
    }

    /// The next get or set of the cloud.
    pub(crate) async fn next_order(&mut self) -> Iq {
        if let Some(iq) = self.inbox.pop_front() {
            return iq;
        }
        match self.next().await.unwrap_or_else(|ended| panic!("the stream ended: {ended:?}")) {
            StreamElement::Iq(iq @ (Iq::Set { .. } | Iq::Get { .. })) => iq,
            other => panic!("unexpected {other:?} while waiting for an order"),
        }
    }

    /// Answers an order.
    pub(crate) async fn answer(&mut self, id: &str, payload: Option<Element>) {
        let iq = Iq::Result { from: None, to: None, id: id.to_owned(), payload };
        self.send(StreamElement::Iq(iq)).await;
    }

    /// Waits for the end of the stream.
    pub(crate) async fn end(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.next().await {
                return ended;
            }
        }
    }
}

/// Client's final message and the server's expected one (RFC 5802 §3), from the password.
fn proofs(password: &str, bare: &str, server_first: &str) -> (String, String) {
    let field = |name: &str| server_first.split(',').find_map(|it| it.strip_prefix(name)).unwrap();
    let salt = STANDARD.decode(field("s=")).unwrap();
    let rounds = std::num::NonZeroU32::new(field("i=").parse().unwrap()).unwrap();
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &mut salted);
    let mac =
        |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec();
    let client_key = mac(&salted, b"Client Key");
    let without_proof = format!("c=biws,r={}", field("r="));
    let transcript = format!("{bare},{server_first},{without_proof}");
    let signature = mac(digest::digest(&digest::SHA256, &client_key).as_ref(), transcript.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, sig)| key ^ sig).collect();
    let verdict = mac(&mac(&salted, b"Server Key"), transcript.as_bytes());
    (format!("{without_proof},p={}", STANDARD.encode(proof)), format!("v={}", STANDARD.encode(verdict)))
}

/// An enrolled agent.
#[derive(Clone)]
pub(crate) struct Enrolled {
    pub(crate) credentials: Credentials,
    pub(crate) instance: String,
    pub(crate) jid: String,
}

/// A key pair and a request for it.
pub(crate) fn request() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    (key.serialize_pem(), params.serialize_request(&key).unwrap().pem().unwrap())
}

/// Enrols a new agent with a fresh key.
pub(crate) async fn enroll(world: &World) -> Enrolled {
    let (name, secret) = world.key().await;
    enroll_with(world, &name, &secret).await
}

/// Enrols with a given key.
pub(crate) async fn enroll_with(world: &World, name: &str, secret: &str) -> Enrolled {
    let mut line = Line::open(world, None, "cloud.causeway.test").await.scram(name, secret).await.unwrap();
    let (key_pem, csr_pem) = request();
    let ask = payload::CertificateRequest { csr_pem, host: "srv1".into() };
    let answer = line.ask_set(ask.to_element()).await.unwrap().unwrap();
    let certificate = payload::Certificate::from_element(&answer).unwrap();
    assert_eq!(certificate.tenant, world.tenant);
    let credentials = Credentials { chain_pem: certificate.chain_pem, key_pem };
    Enrolled { credentials, instance: certificate.instance, jid: certificate.jid }
}

/// An agent online.
pub(crate) struct Agent {
    pub(crate) line: Line,
    pub(crate) enrolled: Enrolled,
    pub(crate) sm_id: String,
    pub(crate) welcome: payload::Welcome,
}

/// What an agent with both modules says of itself.
pub(crate) fn hello(boot_id: &str) -> Hello {
    Hello {
        version: "0.1.0".into(),
        os: "linux x86_64".into(),
        host: "srv1".into(),
        boot_id: boot_id.into(),
        modules: vec!["user_auth".into(), "user_visibility".into()],
        capacity: 64,
        ..Hello::default()
    }
}

/// Health in which these modules run well.
pub(crate) fn health(modules: &[&str]) -> HealthReport {
    let module = |kind: &&str| ModuleHealth {
        module: (*kind).to_owned(),
        state: ModuleState::Ok,
        detail: "works".into(),
        revision: 1,
        restarts: 0,
        figures: Default::default(),
    };
    HealthReport { modules: modules.iter().map(module).collect(), ..HealthReport::default() }
}

impl Agent {
    /// Enrols and comes online with both modules running.
    pub(crate) async fn online(world: &World) -> Self {
        let enrolled = enroll(world).await;
        Self::connect(world, enrolled, "boot-1").await
    }

    /// Logs in, binds, enables stream management, says hello and reports health.
    pub(crate) async fn connect(world: &World, enrolled: Enrolled, boot_id: &str) -> Self {
        let mut agent = Self::greet(world, enrolled, boot_id).await;
        let report = health(&["user_auth", "user_visibility"]);
        assert_eq!(agent.line.ask_set(report.to_element()).await, Ok(None));
        agent
    }

    /// Enrols and comes online with the module that gets certificates, besides the others.
    pub(crate) async fn online_with_certificates(world: &World) -> Self {
        let enrolled = enroll(world).await;
        let mut hello = hello("boot-1");
        hello.modules.push("certificates".into());
        let mut agent = Self::greet_as(world, enrolled, hello).await;
        let report = health(&["user_auth", "user_visibility", "certificates"]);
        assert_eq!(agent.line.ask_set(report.to_element()).await, Ok(None));
        agent
    }

    /// As [`Agent::connect`] without a health report.
    pub(crate) async fn greet(world: &World, enrolled: Enrolled, boot_id: &str) -> Self {
        Self::greet_as(world, enrolled, hello(boot_id)).await
    }

    /// As [`Agent::greet`], with its own first words.
    pub(crate) async fn greet_as(world: &World, enrolled: Enrolled, hello: Hello) -> Self {
        let line = Line::open(world, Some(&enrolled.credentials), "cloud.causeway.test").await;
        let mut line = line.external().await.unwrap();
        assert_eq!(line.bind("agent").await, format!("{}/agent", enrolled.jid));
        let sm_id = line.enable().await;
        let answer = line.ask_set(hello.to_element()).await.unwrap().unwrap();
        let welcome = payload::Welcome::from_element(&answer).unwrap();
        Self { line, enrolled, sm_id, welcome }
    }

    /// The next action, accepted or not yet.
    pub(crate) async fn next_action(&mut self) -> (String, payload::Action) {
        loop {
            let iq = self.line.next_order().await;
            let id = iq.id().to_owned();
            match iq {
                Iq::Set { payload, .. } if payload::Action::names(&payload) => {
                    return (id, payload::Action::from_element(&payload).unwrap());
                }
                Iq::Set { payload, .. } if payload::Configure::names(&payload) => {
                    self.line.answer(&id, None).await
                }
                Iq::Get { payload, .. } if payload.is("ping", ns::PING) => self.line.answer(&id, None).await,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next action, accepted.
    pub(crate) async fn accept(&mut self) -> payload::Action {
        let (id, action) = self.next_action().await;
        self.line.answer(&id, None).await;
        action
    }

    /// Reports on an action.
    pub(crate) async fn report(&mut self, report: payload::Report) -> Result<Option<Element>, StanzaError> {
        self.line.ask_set(report.to_element()).await
    }

    /// The next request.
    pub(crate) async fn next_request(&mut self) -> (String, Request) {
        let iq = self.line.next_order().await;
        let id = iq.id().to_owned();
        match iq {
            Iq::Set { payload, .. } => (id, Request::from_element(&payload).unwrap()),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Answers a request.
    pub(crate) async fn reply(&mut self, id: &str, answer: Value) {
        let reply = Reply::Answer(answer).to_element();
        self.line.answer(id, Some(reply)).await;
    }

    /// Asks for, keeps or returns a lease.
    pub(crate) async fn lease(&mut self, op: payload::LeaseOp, fence: Option<u64>) -> payload::LeaseGrant {
        self.lease_of(SOURCE, op, fence).await
    }

    /// The same for a resource.
    pub(crate) async fn lease_of(
        &mut self,
        resource: &str,
        op: payload::LeaseOp,
        fence: Option<u64>,
    ) -> payload::LeaseGrant {
        let lease = payload::Lease { resource: resource.into(), op, fence };
        let answer = self.line.ask_set(lease.to_element()).await.unwrap().unwrap();
        payload::LeaseGrant::from_element(&answer).unwrap()
    }
}

/// The source tests collect.
pub(crate) const SOURCE: &str = "user_visibility/default";
