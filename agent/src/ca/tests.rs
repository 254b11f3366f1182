//! Back ends against the mock: issuing, waiting, answers that get lost, hostile ones, revocation.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use causeway_mock_ca::core::Decision;
use causeway_mock_ca::{Config, MockCa};
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_mock_kit::pki::LeafUse;
use causeway_mock_kit::proxy::TcpProxy;
use causeway_protocol::certificate::{KeyKind, RevocationReason};
use causeway_protocol::enrol::pem;
use causeway_protocol::pkix::{AlternativeName, Certificate, Csr, CsrDraft, Digest, Key, Name};
use causeway_protocol::{Chain, Secret};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{Answer, Authority, CaError, Keep, Order, Revocation, open};
use crate::clock::Clock;
use crate::directory::Net;
use crate::modules::ModuleSettings;
use crate::modules::testing::LoopbackDial;
use crate::secrets::SecretStore;
use crate::web::endpoint::Endpoint;

/// One request on a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);
const MPKI_DEVICE: &str = "2.16.840.1.113733.1.16.1.3.1.4.1.4001";

/// What is different about each kind.
struct Kind {
    name: &'static str,
    front: &'static str,
    template: &'static str,
    /// A template that wants approval, where requests can wait.
    approved: Option<&'static str>,
    /// The point after everything is done, where an answer can get lost.
    done: &'static str,
    /// Whether it can be asked for what got lost.
    remembers: bool,
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "certsrv",
        front: "certsrv",
        template: "MobileDevice",
        approved: Some("ApprovedDevice"),
        done: "requested",
        remembers: false,
    },
    Kind {
        name: "wstep",
        front: "wstep",
        template: "MobileDevice",
        approved: Some("ApprovedDevice"),
        done: "issued",
        remembers: false,
    },
    Kind {
        name: "mpki",
        front: "mpki",
        template: MPKI_DEVICE,
        approved: None,
        done: "enroll_done",
        remembers: true,
    },
    Kind {
        name: "entrust_gateway",
        front: "entrust_gateway",
        template: "mdmws-digital-signature-key-encipherment-clientauth",
        approved: Some("approved-device"),
        done: "enroll_done",
        remembers: true,
    },
    Kind {
        name: "entrust_digital_id",
        front: "entrust",
        template: "Mobile user",
        approved: Some("Approved user"),
        done: "create_done",
        remembers: true,
    },
];

struct Site {
    mock: MockCa,
    folder: TempDir,
}

/// Tickets in the order they were kept.
#[derive(Default)]
struct Kept(Mutex<Vec<Value>>);

impl Kept {
    fn last(&self) -> Value {
        self.0.lock().unwrap().last().cloned().expect("a ticket was kept")
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl Keep for Kept {
    fn keep(&self, ticket: Value) -> BoxFuture<'_, Result<(), CaError>> {
        self.0.lock().unwrap().push(ticket);
        Box::pin(async { Ok(()) })
    }
}

impl Site {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.common.users = 20;
        change(&mut config);
        let mock = MockCa::start(config).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let hierarchy = mock.authority().await.hierarchy();
        // The issuer besides the root: a search of Managed PKI brings certificates without their chain.
        let authorities = [&hierarchy.root, &hierarchy.current().authority];
        let authorities = authorities.map(|one| pem("CERTIFICATE", one.certificate.raw())).concat();
        let trusted = format!("{}{authorities}", std::fs::read_to_string(mock.tls_ca().pem_path()).unwrap());
        std::fs::write(folder.path().join("ca.pem"), trusted).unwrap();
        std::fs::write(folder.path().join("ra.pem"), &mock.ra().leaf().cert_pem).unwrap();
        Self { mock, folder }
    }

    fn authority(&self, kind: &Kind) -> Arc<dyn Authority> {
        self.changed(kind, json!({}))
    }

    /// With further or other settings.
    fn changed(&self, kind: &Kind, more: Value) -> Arc<dyn Authority> {
        let (user, password) = self.mock.service_account();
        let key = self.mock.ra().leaf().key_pem.clone();
        self.opened(kind, more, &user, &password, &key)
    }

    fn opened(&self, kind: &Kind, more: Value, user: &str, password: &str, key: &str) -> Arc<dyn Authority> {
        let mut table = json!({
            "kind": kind.name, "urls": [self.mock.url(kind.front)], "user": user, "auth": ["negotiate"],
            "ca_file": self.folder.path().join("ca.pem"), "certificate_file": self.folder.path().join("ra.pem"),
            "authority_id": "acme-issuing",
        });
        for (name, value) in more.as_object().unwrap() {
            table[name] = value.clone();
        }
        let secrets = SecretStore::new([
            ("ca.default.password".to_owned(), Secret::new(password)),
            ("ca.default.key".to_owned(), Secret::new(key)),
        ]);
        let settings = ModuleSettings {
            authorities: BTreeMap::from([("default".to_owned(), table)]),
            secrets,
            ..ModuleSettings::default()
        };
        open("default", &settings).unwrap()
    }

    async fn issued(&self) -> usize {
        self.mock.authority().await.issued_count()
    }
}

fn net() -> Net {
    Net { dial: Arc::new(LoopbackDial::default()), clock: Clock::system() }
}

fn order(template: &str) -> Order {
    let subject = "CN=Ann Smith,OU=Mobile,O=Acme";
    let names = ["upn:asmith@acme.example", "email:asmith@acme.example"].map(str::to_owned).to_vec();
    let draft = CsrDraft {
        subject: Name::parse(subject).unwrap(),
        alternative_names: names.iter().map(|name| AlternativeName::parse(name).unwrap()).collect(),
        ..CsrDraft::default()
    };
    let key = Key::generate(KeyKind::P256).unwrap();
    let variables = [("email", "asmith@acme.example"), ("uname", "asmith")];
    Order {
        request: uuid::Uuid::new_v4().to_string(),
        csr: draft.sign(&key, Digest::Sha256).unwrap(),
        subject: subject.to_owned(),
        alternative_names: names,
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        template: Some(template.to_owned()),
        message_key: Arc::new(Key::generate(KeyKind::P256).unwrap()),
        at: None,
        renews: None,
    }
}

async fn submit(authority: &Arc<dyn Authority>, order: &Order, kept: &Kept) -> Result<Answer, CaError> {
    timeout(WITHIN, authority.submit(&net(), order, kept)).await.expect("an answer in time")
}

async fn poll(authority: &Arc<dyn Authority>, order: &Order, ticket: &Value) -> Result<Answer, CaError> {
    timeout(WITHIN, authority.poll(&net(), order, ticket)).await.expect("an answer in time")
}

fn issued(kind: &Kind, answer: Result<Answer, CaError>, order: &Order) -> Certificate {
    let Ok(Answer::Issued { certificate, chain }) = answer else { panic!("{}: {answer:?}", kind.name) };
    let certificate = Certificate::read(&certificate).unwrap();
    let csr = Csr::read(&order.csr).unwrap();
    assert!(certificate.public_key().same_as(csr.public_key()), "{}", kind.name);
    assert_eq!(chain.len(), 2, "{}: issuer and root", kind.name);
    certificate
}

/// Two front ends of one authority: whichever is there serves, and nothing is asked twice.
#[tokio::test]
async fn another_front_end_serves_while_one_is_away() {
    for kind in &KINDS {
        let site = Site::new().await;
        let url = site.mock.url(kind.front);
        let port = Endpoint::read(url).unwrap().port;
        let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Nobody listens on port 1: a connection through the proxy ends at once.
        let away = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let ways = [TcpProxy::start(there).await.unwrap(), TcpProxy::start(there).await.unwrap()];
        let urls = ways
            .each_ref()
            .map(|way| url.replace(&format!(":{port}"), &format!(":{}", way.address().port())));
        for (count, targets) in [[there, there], [away, there], [there, away]].into_iter().enumerate() {
            for (way, target) in ways.iter().zip(targets) {
                way.retarget(target);
                way.cut();
            }
            // Without a connection from before: a request on one that ends may have arrived, and is not given to another.
            let authority = site.changed(kind, json!({ "urls": urls }));
            let order = order(kind.template);
            issued(kind, submit(&authority, &order, &Kept::default()).await, &order);
            assert_eq!(site.issued().await, count + 1, "{}", kind.name);
        }
        ways.iter().for_each(|way| way.retarget(away));
        let authority = site.changed(kind, json!({ "urls": urls }));
        let nobody = submit(&authority, &order(kind.template), &Kept::default()).await;
        assert!(matches!(nobody, Err(CaError::Unreachable { sent: false, .. })), "{}: {nobody:?}", kind.name);
    }
}

/// Nobody is served worse while one front end is away, so a look is how somebody hears of it.
#[tokio::test]
async fn a_look_names_the_front_end_that_is_away() {
    let site = Site::new().await;
    let mut kinds: Vec<(&Kind, &str)> = KINDS.iter().map(|kind| (kind, kind.front)).collect();
    kinds.push((&KINDS[1], "xcep"));
    for (kind, front) in kinds {
        let url = site.mock.url(front);
        let port = Endpoint::read(url).unwrap().port;
        // Nobody listens on port 1.
        let away = url.replace(&format!(":{port}"), ":1");
        let look = async |urls: [&str; 2]| {
            let authority = site.changed(kind, json!({ "urls": urls }));
            timeout(WITHIN, authority.look(&net())).await.expect("a look in time")
        };
        let seen = look([&away, url]).await.unwrap();
        let troubles: Vec<bool> = seen.front_ends.iter().map(|(_, trouble)| trouble.is_some()).collect();
        assert_eq!(troubles, [true, false], "{front}: {seen:?}");
        assert!(seen.front_ends[0].0.ends_with(":1"), "{front}: {seen:?}");
        let nobody = look([&away, &away]).await;
        assert!(matches!(nobody, Err(CaError::Unreachable { .. })), "{front}: {nobody:?}");
    }
}

#[tokio::test]
async fn every_kind_issues_what_was_asked_for() {
    let site = Site::new().await;
    for (count, kind) in KINDS.iter().enumerate() {
        let (authority, order, kept) = (site.authority(kind), order(kind.template), Kept::default());
        let certificate = issued(kind, submit(&authority, &order, &kept).await, &order);
        assert_eq!(certificate.subject().to_string(), order.subject, "{}", kind.name);
        let names = certificate.extensions().alternative_names().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        for name in &order.alternative_names {
            assert!(names.contains(name), "{}: {names:?}", kind.name);
        }
        assert!(!kept.is_empty(), "{} is durable before it is sent", kind.name);
        assert_eq!(site.issued().await, count + 1, "{}", kind.name);
    }
}

#[tokio::test]
async fn a_look_shows_who_issues_and_uses_nothing_up() {
    let site = Site::new().await;
    let mut urls = vec![None; KINDS.len()];
    urls[1] = Some(site.mock.url("xcep").to_owned());
    for (kind, url) in KINDS.iter().zip(urls) {
        let authority = match &url {
            Some(url) => site.changed(kind, json!({ "urls": [url] })),
            None => site.authority(kind),
        };
        let seen = timeout(WITHIN, authority.look(&net())).await.expect("a look in time").unwrap();
        assert!(!seen.facts.is_empty(), "{}: {seen:?}", kind.name);
        if ["certsrv", "wstep", "entrust_gateway"].contains(&kind.name) {
            assert_eq!((seen.chain.len(), seen.ends.len()), (2, 2), "{}: {seen:?}", kind.name);
        }
        assert!(authority.challenge(&net()).await.unwrap().is_none());
    }
    assert_eq!(site.issued().await, 0);
}

#[tokio::test]
async fn what_waits_for_approval_is_asked_for_until_it_is_decided() {
    let site = Site::new().await;
    for kind in &KINDS {
        let Some(template) = kind.approved else { continue };
        for approve in [true, false] {
            let (authority, order, kept) = (site.authority(kind), order(template), Kept::default());
            let answer = submit(&authority, &order, &kept).await;
            let Ok(Answer::Pending { ticket, .. }) = answer else { panic!("{}: {answer:?}", kind.name) };
            // Another instance of the agent: everything it needs is in the ticket.
            let authority = site.authority(kind);
            let again = poll(&authority, &order, &ticket).await;
            assert!(matches!(again, Ok(Answer::Pending { .. })), "{}: {again:?}", kind.name);
            let core = site.mock.authority().await;
            let waiting = core.requests(1, |request| request.front == kind.front);
            assert!(matches!(core.decision(waiting[0].id), Some(Decision::Pending(_))));
            if approve {
                core.approve(waiting[0].id).unwrap();
                issued(kind, poll(&authority, &order, &ticket).await, &order);
            } else {
                core.deny(waiting[0].id).unwrap();
                let refused = poll(&authority, &order, &ticket).await;
                assert!(matches!(refused, Err(CaError::Refused { .. })), "{}: {refused:?}", kind.name);
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_got_lost_leads_to_no_second_certificate() {
    for kind in &KINDS {
        let site = Site::new().await;
        let (authority, order, kept) = (site.authority(kind), order(kind.template), Kept::default());
        site.mock
            .faults()
            .add(Rule::new(Fault::Close {}).on_front(kind.front).on_operation(kind.done).times(1));
        let lost = submit(&authority, &order, &kept).await.unwrap_err();
        assert!(matches!(lost, CaError::Unreachable { sent: true, .. }), "{}: {lost:?}", kind.name);
        let after = poll(&site.authority(kind), &order, &kept.last()).await;
        if kind.remembers {
            issued(kind, after, &order);
        } else {
            assert!(matches!(after, Err(CaError::Unclear { .. })), "{}: {after:?}", kind.name);
        }
        assert_eq!(site.issued().await, 1, "{}", kind.name);
    }
}

#[tokio::test]
async fn what_was_refused_or_not_sent_may_be_handed_in_again() {
    let site = Site::new().await;
    for kind in &KINDS[..2] {
        let (authority, order, kept) = (site.authority(kind), order("NoSuchTemplate"), Kept::default());
        match submit(&authority, &order, &kept).await.unwrap_err() {
            CaError::Refused { code, .. } => assert_eq!(code, "0x80094800", "{}", kind.name),
            other => panic!("{}: {other:?}", kind.name),
        }
        assert!(matches!(poll(&authority, &order, &kept.last()).await, Ok(Answer::Unknown)), "{}", kind.name);
        let (order, kept) = (super::tests::order(kind.template), Kept::default());
        let busy = Rule::new(Fault::status(503, "")).on_front(kind.front).times(1);
        site.mock.faults().add(busy);
        let refused = submit(&authority, &order, &kept).await.unwrap_err();
        assert!(matches!(refused, CaError::Busy { .. }), "{}: {refused:?}", kind.name);
        assert!(matches!(poll(&authority, &order, &kept.last()).await, Ok(Answer::Unknown)), "{}", kind.name);
        issued(kind, submit(&authority, &order, &kept).await, &order);
        site.mock.faults().set_down(kind.front);
        // Without a connection of before, on which it could not know what was read.
        let authority = site.authority(kind);
        let (order, kept) = (super::tests::order(kind.template), Kept::default());
        let unreachable = submit(&authority, &order, &kept).await.unwrap_err();
        assert!(unreachable.was_not_sent(), "{}: {unreachable:?}", kind.name);
        assert!(matches!(poll(&authority, &order, &kept.last()).await, Ok(Answer::Unknown)), "{}", kind.name);
    }
    assert_eq!(site.issued().await, 2);
}

#[tokio::test]
async fn a_search_that_finds_nothing_counts_only_when_the_service_has_had_time() {
    let site = Site::new().await;
    let kind = &KINDS[2];
    let (authority, order) = (site.authority(kind), order(kind.template));
    let sent = |at_ms: i64| json!({ "url": site.mock.url("mpki"), "sent": true, "at_ms": at_ms });
    let now_ms = Clock::system().now_ms();
    let early = poll(&authority, &order, &sent(now_ms)).await;
    assert!(matches!(early, Err(CaError::Busy { retry_after: Some(_), .. })), "{early:?}");
    let late = poll(&authority, &order, &sent(now_ms - 600_000)).await;
    assert!(matches!(late, Ok(Answer::Unknown)), "{late:?}");
}

#[tokio::test]
async fn answers_that_are_none_name_the_host_and_hold_no_secret() {
    let site = Site::new().await;
    for kind in &KINDS {
        let operation = match kind.name {
            "certsrv" => "certificate",
            "entrust_digital_id" => "create",
            "wstep" => "wstep",
            _ => "enroll",
        };
        for (word, also) in
            [("html", true), ("empty", true), ("another_key", true), ("half", kind.front != "entrust")]
        {
            if !also {
                continue;
            }
            let rule = Rule::new(Fault::Malformed { kind: word.to_owned() });
            let _guard = site.mock.faults().guard(rule.on_front(kind.front).on_operation(operation));
            let (authority, order, kept) = (site.authority(kind), order(kind.template), Kept::default());
            let error = submit(&authority, &order, &kept).await.unwrap_err();
            let text = Chain(&error).to_string();
            assert!(matches!(error, CaError::Answer { .. }), "{} {word}: {error:?}", kind.name);
            assert!(text.contains("127.0.0.1:"), "{} {word}: {text}", kind.name);
            let (_, password) = site.mock.service_account();
            assert!(!text.contains(&password) && !format!("{error:?}").contains(&password), "{text}");
        }
    }
}

#[tokio::test]
async fn another_authority_than_the_meant_one_is_not_accepted() {
    let site = Site::new().await;
    let core = site.mock.authority().await;
    let right = core.hierarchy().current().authority.certificate.sha256();
    for kind in &KINDS {
        let order = order(kind.template);
        let wrong = site.changed(kind, json!({ "fingerprint": "ab".repeat(32) }));
        let error = submit(&wrong, &order, &Kept::default()).await.unwrap_err();
        assert!(matches!(&error, CaError::Answer { detail, .. } if detail.contains(&right)), "{error:?}");
        let order = super::tests::order(kind.template);
        let authority = site.changed(kind, json!({ "fingerprint": right }));
        issued(kind, submit(&authority, &order, &Kept::default()).await, &order);
    }
}

#[tokio::test]
async fn revocation_is_read_back_or_said_to_be_impossible() {
    let site = Site::new().await;
    let core = site.mock.authority().await;
    let reason = RevocationReason::KeyCompromise;
    for (kind, more, done) in [
        (&KINDS[0], json!({}), false),
        (&KINDS[1], json!({}), false),
        (&KINDS[2], json!({}), true),
        (&KINDS[2], json!({ "revocation": "none" }), false),
        (&KINDS[3], json!({}), true),
        (&KINDS[3], json!({ "gateway_revoke": "put" }), true),
        (&KINDS[4], json!({}), true),
    ] {
        let (authority, order) = (site.changed(kind, more.clone()), order(kind.template));
        let certificate = issued(kind, submit(&authority, &order, &Kept::default()).await, &order);
        for _ in 0..2 {
            let revoked =
                timeout(WITHIN, authority.revoke(&net(), &certificate.id(), reason)).await.unwrap().unwrap();
            match revoked {
                Revocation::Done => assert!(done, "{} {more}", kind.name),
                Revocation::Impossible(text) => {
                    assert!(!done && !text.is_empty(), "{} {more}: {text}", kind.name)
                }
            }
        }
        let serial = causeway_mock_ca::core::Serial::from_hex(&certificate.serial()).unwrap();
        assert_eq!(core.revocation(&serial).is_some(), done, "{} {more}", kind.name);
    }
    let id = causeway_protocol::certificate::CertificateId { issuer: "CN=x".into(), serial: "0a".into() };
    let by_hand = site.authority(&KINDS[0]).revoke(&net(), &id, reason).await.unwrap();
    let text = format!("{by_hand:?}");
    assert!(text.contains("certutil -revoke 0a 1"), "{text}");
}

#[tokio::test]
async fn a_gateway_that_only_takes_another_way_of_revoking_is_told_apart() {
    let site =
        Site::with(|config| config.entrust.revoke_by = vec![causeway_mock_ca::entrust::RevokeBy::Put]).await;
    let kind = &KINDS[3];
    let (authority, order) = (site.authority(kind), order(kind.template));
    let certificate = issued(kind, submit(&authority, &order, &Kept::default()).await, &order);
    let refused = authority.revoke(&net(), &certificate.id(), RevocationReason::Superseded).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test]
async fn every_way_to_sign_in_works_and_a_wrong_password_is_shown_once() {
    let site = Site::new().await;
    let wstep = site.mock.url("wstep").to_owned();
    let by = |word: &str| wstep.replace("UsernamePassword", word);
    let (certsrv, digital) = (&KINDS[0], &KINDS[4]);
    for (kind, more) in [
        (certsrv, json!({ "auth": ["ntlm"] })),
        (certsrv, json!({ "auth": ["basic"] })),
        (&KINDS[1], json!({ "urls": [by("Kerberos")] })),
        (&KINDS[1], json!({ "urls": [by("Certificate")] })),
        (&KINDS[1], json!({ "urls": [site.mock.url("xcep")] })),
    ] {
        let (authority, order) = (site.changed(kind, more), order(kind.template));
        issued(kind, submit(&authority, &order, &Kept::default()).await, &order);
    }
    let (user, _) = site.mock.service_account();
    let key = site.mock.ra().leaf().key_pem.clone();
    for kind in [certsrv, &KINDS[1], digital] {
        site.mock.journal().clear();
        let more = if kind.name == "certsrv" { json!({ "auth": ["basic"] }) } else { json!({}) };
        let authority = site.opened(kind, more, &user, "canary-of-the-password", &key);
        for _ in 0..2 {
            let error = submit(&authority, &order(kind.template), &Kept::default()).await.unwrap_err();
            assert!(matches!(error, CaError::Credentials { .. }), "{}: {error:?}", kind.name);
            let text = format!("{} {error:?}", Chain(&error));
            assert!(!text.contains("canary-of-the-password"), "{text}");
        }
        let shown = site.mock.journal().count(|entry| entry.operation == "sign_in");
        assert_eq!(shown, 1, "{}", kind.name);
    }
}

#[tokio::test]
async fn the_policy_service_says_no_before_anything_is_sent() {
    let site = Site::new().await;
    let kind = &KINDS[1];
    let authority = site.changed(kind, json!({ "urls": [site.mock.url("xcep")] }));
    let kept = Kept::default();
    let error = submit(&authority, &order("NoSuchTemplate"), &kept).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CaError::Refused { .. }) && text.contains("MobileDevice"), "{text}");
    assert!(kept.is_empty());
    assert_eq!(site.mock.journal().count(|entry| entry.front == "wstep"), 0);
}

#[tokio::test]
async fn seats_profiles_and_the_registration_authority_have_their_own_refusals() {
    let site = Site::with(|config| config.mpki.seats_max = 1).await;
    let kind = &KINDS[2];
    let authority = site.authority(kind);
    let first = order(kind.template);
    issued(kind, submit(&authority, &first, &Kept::default()).await, &first);
    let mut second = order(kind.template);
    second.variables.insert("email".into(), "bjones@acme.example".into());
    let code = |error: CaError| match error {
        CaError::Refused { code, .. } => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(submit(&authority, &second, &Kept::default()).await.unwrap_err()), "SEAT_LIMIT_EXCEEDED");
    let unknown = order("2.16.840.1.1");
    assert_eq!(code(submit(&authority, &unknown, &Kept::default()).await.unwrap_err()), "unknown_profile");
    let ended = site.mock.ra().issue("ra.causeway.example", LeafUse::ExpiredClient).unwrap();
    std::fs::write(site.folder.path().join("ra.pem"), &ended.cert_pem).unwrap();
    let (user, password) = site.mock.service_account();
    let expired = site.opened(kind, json!({}), &user, &password, &ended.key_pem);
    let error = submit(&expired, &order(kind.template), &Kept::default()).await.unwrap_err();
    assert_eq!(code(error), "RA_CERTIFICATE_EXPIRED");
    let mut nobody = order(kind.template);
    nobody.variables.clear();
    let error = submit(&authority, &nobody, &Kept::default()).await.unwrap_err();
    assert!(matches!(&error, CaError::Settings { detail } if detail.contains("%email%")), "{error:?}");
}
