//! An agent with a certificate authority behind it, both made of a few lines: it answers whatever the cloud orders, the way
//! a test tells it to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::action::ErrorReport;
use causeway_protocol::certificate::{CertificateId, ChallengeAsk, IssueOrder, Issued, KeyKind};
use causeway_protocol::channel::payload::{self, Payload as _, Reply, Request};
use causeway_protocol::cms::EnvelopedData;
use causeway_protocol::pkix::{Accept, Key};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SerialNumber,
};
use rustls_pki_types::CertificateSigningRequestDer;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use xmpp_parsers::iq::Iq;

use super::World;
use super::agent::Agent;

/// What the authority does with the next order.
#[derive(Clone)]
pub(crate) enum Turn {
    /// Says how far it is, and goes on.
    Says(Value),
    /// Issues.
    Issues,
    /// Issues for another key than the one that was asked for.
    IssuesForAnotherKey,
    /// Fails with this code.
    Fails(&'static str),
    /// Never answers.
    Keeps,
}

/// What the scripted agent did.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Turns to take before issuing everything.
    pub(crate) turns: VecDeque<Turn>,
    /// Answer to the next challenges; the default is one of its own for each.
    pub(crate) no_challenge: Option<ErrorReport>,
    /// Every order for a certificate.
    pub(crate) orders: Vec<IssueOrder>,
    /// Every request for a challenge, and the challenge.
    pub(crate) challenges: Vec<(ChallengeAsk, String)>,
    /// Serial numbers issued, by request.
    pub(crate) issued: BTreeMap<String, Vec<String>>,
    /// Revocations: serial number and reason.
    pub(crate) revoked: Vec<(String, String)>,
    /// Orders it keeps, by action.
    pub(crate) kept: Vec<(String, IssueOrder)>,
    /// Whether revocations are possible.
    pub(crate) cannot_revoke: bool,
    /// Revocations that fail before one works.
    pub(crate) revocations_fail: usize,
    /// The password of its one person, if it has one.
    pub(crate) password: Option<String>,
}

/// The authority, and the agent in a task.
pub(crate) struct Authority {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    issuer: Arc<CertificateMaker>,
    task: JoinHandle<Agent>,
    stop: tokio_util::sync::CancellationToken,
}

/// Makes certificates.
pub(crate) struct CertificateMaker {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    days: i64,
    clock: causeway_mock_kit::Clock,
    /// Signing requests with a challenge come sealed to it.
    opener: Key,
}

impl CertificateMaker {
    fn new(world: &World, days: i64, own_days: i64) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.not_after = now(world) + time::Duration::days(own_days);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Acme Issuing CA");
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(params, key);
        let opener = Key::generate(KeyKind::P256).unwrap();
        Self { issuer, der, days, clock: world.cloud().kit.clock.clone(), opener }
    }

    /// Signs a request; the number names it.
    pub(crate) fn issue(&self, order: &IssueOrder, number: u64, other_key: bool) -> Issued {
        assert!(order.csr.is_none(), "the challenge in it rests in the open");
        let csr = match (&order.sealed_csr, other_key) {
            (Some(sealed), false) => {
                let envelope = STANDARD.decode(&sealed.envelope).unwrap();
                let envelope = EnvelopedData::read(&envelope, Accept::MODERN).unwrap();
                envelope.open(&self.opener, None).unwrap().to_vec()
            }
            _ => csr_of("someone", &KeyPair::generate().unwrap()),
        };
        let csr = CertificateSigningRequestDer::from(csr);
        let mut csr = CertificateSigningRequestParams::from_der(&csr).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(self.clock.now_ms() / 1_000).unwrap();
        csr.params.not_before = now - time::Duration::hours(1);
        csr.params.not_after = now + time::Duration::days(self.days);
        csr.params.serial_number = Some(SerialNumber::from(0x1000 + number));
        let der = csr.signed_by(&self.issuer).unwrap().der().to_vec();
        let hash = digest::digest(&digest::SHA256, &der);
        let user = order.variables.get("uname").cloned().unwrap_or_default();
        Issued {
            request: order.request.clone(),
            id: CertificateId {
                issuer: "CN=Acme Issuing CA".into(),
                serial: format!("{:x}", 0x1000 + number),
            },
            subject: format!("CN={user},O=Acme"),
            not_before_ms: csr.params.not_before.unix_timestamp() * 1_000,
            not_after_ms: csr.params.not_after.unix_timestamp() * 1_000,
            sha256: hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            certificate: STANDARD.encode(&der),
            chain: vec![STANDARD.encode(&self.der)],
            identity: order.device_key.as_ref().map(|_| STANDARD.encode(b"encrypted for the device")),
            timing_ms: [("submit".to_owned(), 12)].into(),
        }
    }
}

fn now(world: &World) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(world.cloud().kit.clock.now_ms() / 1_000).unwrap()
}

/// A signing request with a name, DER.
pub(crate) fn csr_of(name: &str, key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.serialize_request(key).unwrap().der().to_vec()
}

impl Authority {
    /// Brings an agent online whose authority issues certificates for so many days.
    pub(crate) async fn start(world: &World, days: i64) -> Self {
        Self::ending(world, days, 3_650).await
    }

    /// As [`Authority::start`]; the authority itself ends after so many days.
    pub(crate) async fn ending(world: &World, days: i64, own_days: i64) -> Self {
        let agent = Agent::online_with_certificates(world).await;
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let issuer = Arc::new(CertificateMaker::new(world, days, own_days));
        let stop = tokio_util::sync::CancellationToken::new();
        let task = tokio::spawn(serve(agent, Arc::clone(&ledger), Arc::clone(&issuer), stop.clone()));
        Self { ledger, issuer, task, stop }
    }

    /// Says what happens to the next orders.
    pub(crate) fn will(&self, turns: impl IntoIterator<Item = Turn>) {
        self.ledger.lock().unwrap().turns.extend(turns);
    }

    /// The agent as it is now; it answers no more.
    pub(crate) async fn stop(self) -> (Agent, Arc<CertificateMaker>, Arc<Mutex<Ledger>>) {
        self.stop.cancel();
        (self.task.await.unwrap(), self.issuer, self.ledger)
    }
}

async fn serve(
    mut agent: Agent,
    ledger: Arc<Mutex<Ledger>>,
    issuer: Arc<CertificateMaker>,
    stop: tokio_util::sync::CancellationToken,
) -> Agent {
    let mut number = 0;
    loop {
        let iq = tokio::select! {
            biased;
            () = stop.cancelled() => return agent,
            iq = agent.line.next_order() => iq,
        };
        let id = iq.id().to_owned();
        match iq {
            Iq::Set { payload, .. } if payload::Action::names(&payload) => {
                let action = payload::Action::from_element(&payload).unwrap();
                agent.line.answer(&id, None).await;
                carry_out(&mut agent, &ledger, &issuer, &action, &mut number).await;
            }
            Iq::Set { payload, .. } if Request::names(&payload) => {
                let request = Request::from_element(&payload).unwrap();
                let reply = answer(&ledger, &issuer, &request);
                agent.line.answer(&id, Some(reply.to_element())).await;
            }
            _ => agent.line.answer(&id, None).await,
        }
    }
}

fn answer(ledger: &Mutex<Ledger>, issuer: &CertificateMaker, request: &Request) -> Reply {
    let mut ledger = ledger.lock().unwrap();
    let body: Value = serde_json::from_str(request.body.expose()).unwrap();
    if request.request == "authenticate" {
        let right = ledger.password.as_deref() == body["password"].as_str();
        if !right {
            return Reply::Answer(json!({ "outcome": "bad_credentials" }));
        }
        // Whatever of their names was typed, it is this person.
        let person =
            json!({ "id": "person-1", "login": "asmith", "dn": "CN=Alice Smith,DC=acme,DC=example" });
        return Reply::Answer(json!({ "outcome": "ok", "user": person }));
    }
    assert_eq!((request.module.as_str(), request.request.as_str()), ("certificates", "challenge"));
    if let Some(error) = ledger.no_challenge.clone() {
        return Reply::Error(error);
    }
    let ask: ChallengeAsk = serde_json::from_value(body).unwrap();
    let number = ledger.challenges.len();
    let challenge = format!("challenge-{number}-canary");
    let subject = format!("CN={}", ask.variables.get("uname").cloned().unwrap_or_default());
    ledger.challenges.push((ask, challenge.clone()));
    Reply::Answer(json!({
        "challenge": challenge, "ttl_ms": 3_600_000, "subject": subject, "alternative_names": ["upn:a@acme.example"],
        "seal": { "key": STANDARD.encode(issuer.opener.public_key().spki()), "proof": format!("proof {number}") },
    }))
}

async fn carry_out(
    agent: &mut Agent,
    ledger: &Mutex<Ledger>,
    issuer: &CertificateMaker,
    action: &payload::Action,
    number: &mut u64,
) {
    if action.action == "revoke_certificate" {
        let report = {
            let mut ledger = ledger.lock().unwrap();
            let word = |path: &str| action.params.pointer(path).unwrap().as_str().unwrap().to_owned();
            ledger.revoked.push((word("/id/serial"), word("/reason")));
            let revoked = !ledger.cannot_revoke;
            let note = if revoked { "" } else { "this authority cannot be told; use certutil -revoke" };
            let result = json!({ "id": action.params["id"], "revoked": revoked, "note": note });
            match ledger.revocations_fail.checked_sub(1) {
                Some(left) => {
                    ledger.revocations_fail = left;
                    let error = ErrorReport::new("ca_forbidden", "the account may not revoke", "Let it");
                    payload::Report::failure(&action.id, error)
                }
                None => payload::Report::success(&action.id, result),
            }
        };
        agent.report(report).await.unwrap();
        return;
    }
    assert_eq!(action.action, "issue_certificate");
    let order: IssueOrder = serde_json::from_value(action.params.clone()).unwrap();
    ledger.lock().unwrap().orders.push(order.clone());
    loop {
        let turn = ledger.lock().unwrap().turns.pop_front().unwrap_or(Turn::Issues);
        let report = match turn {
            Turn::Says(stage) => {
                agent.report(payload::Report::pending(&action.id, Some(stage), None)).await.unwrap();
                continue;
            }
            Turn::Keeps => {
                ledger.lock().unwrap().kept.push((action.id.clone(), order));
                return;
            }
            Turn::Fails(code) => {
                let error = ErrorReport::new(code, "the authority does not want to", "Ask it why");
                payload::Report::failure(&action.id, error)
            }
            Turn::Issues | Turn::IssuesForAnotherKey => {
                *number += 1;
                let issued = issuer.issue(&order, *number, matches!(turn, Turn::IssuesForAnotherKey));
                let mut ledger = ledger.lock().unwrap();
                ledger.issued.entry(order.request.clone()).or_default().push(issued.id.serial.clone());
                payload::Report::success(&action.id, json!(issued))
            }
        };
        agent.report(report).await.unwrap();
        return;
    }
}
