//! The module, its SCEP back end and NDES's page, against mock-ca.

use causeway_mock_ca::MockCa;
use causeway_mock_ca::config::Config;
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::pkix::Certificate;

use super::*;
use crate::modules::Verdict;
use crate::secrets::SecretStore;

/// A module as it is built from agent.toml, before a mock.
pub(super) struct Against {
    pub(super) mock: MockCa,
    desired: Value,
    ca: Value,
    secrets: SecretStore,
    vault: Vault,
    storage: MemoryStorage,
    device: Key,
    pub(super) module: Arc<dyn Module>,
    pub(super) cx: ModuleContext,
}

impl Against {
    /// One-time challenges from NDES in this language.
    async fn ndes(language: &str) -> Self {
        let mut config = Config::default();
        config.ndes.language = language.to_owned();
        Self::with(config, json!({})).await
    }

    async fn with(config: Config, changes: Value) -> Self {
        Self::before(MockCa::start(config).await.unwrap(), changes).await
    }

    /// With these changes to `[ca.default]`.
    pub(super) async fn before(mock: MockCa, changes: Value) -> Self {
        let (user, password) = mock.service_account();
        let authority = mock.authority().await;
        let mut ca = json!({
            "urls": [mock.url("scep")],
            "challenge_urls": [mock.url("ndes_admin")],
            "user": user,
            "auth": ["ntlm"],
            "challenge": "ndes",
            "fingerprint": authority.hierarchy().current().authority.certificate.sha256(),
        });
        ca.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let secrets = SecretStore::new([
            ("ca.default.password".to_owned(), Secret::new(password)),
            ("ca.default.challenge".to_owned(), Secret::new("a static challenge")),
        ]);
        let mut desired = json!({ "profiles": [profile("vpn", "device"), profile("mail", "agent")] });
        desired["profiles"][1]["key"] = json!("rsa2048");
        desired["profiles"][0]["key"] = json!("rsa2048");
        let device = Key::generate(KeyKind::Rsa2048).unwrap();
        Self::over(mock, desired, ca, secrets, Vault::default(), MemoryStorage::new(), device)
    }

    fn over(
        mock: MockCa,
        desired: Value,
        ca: Value,
        secrets: SecretStore,
        vault: Vault,
        storage: MemoryStorage,
        device: Key,
    ) -> Self {
        let settings = ModuleSettings {
            desired: desired.clone(),
            authorities: BTreeMap::from([("default".to_owned(), ca.clone())]),
            secrets: secrets.clone(),
            vault: vault.clone(),
            ..ModuleSettings::default()
        };
        let module = Factory.build(&settings).unwrap_or_else(|error| panic!("{error}"));
        let cx = context(Arc::new(storage.clone()), Arc::new(MemoryCloud::default()));
        Self { mock, desired, ca, secrets, vault, storage, device, module, cx }
    }

    /// The same agent after its process died, before the same authority.
    fn restarted(self) -> Self {
        let storage = self.storage.crash();
        Self::over(self.mock, self.desired, self.ca, self.secrets, self.vault, storage, self.device)
    }

    pub(super) async fn issue(&self, order: &Value) -> Outcome {
        let action = Action {
            id: "a".to_owned(),
            module: MODULE.to_owned(),
            action: ISSUE.to_owned(),
            target: Value::Null,
            params: order.clone(),
            ttl_ms: 60_000,
            attempt: 1,
            fence: None,
        };
        self.module.act(self.cx.clone(), action).await
    }

    pub(super) async fn issued(&self, order: &Value) -> Issued {
        match self.issue(order).await {
            Outcome::Success(result) => serde_json::from_value(result).unwrap(),
            other => panic!("{other:?}\n{}", self.journal()),
        }
    }

    fn journal(&self) -> String {
        let entries = self.mock.journal().after(0);
        entries.iter().map(|entry| format!("{entry}\n")).collect()
    }

    pub(super) fn agent_order(&self, request: &str) -> Value {
        let mut order = order(request, "mail");
        order["device_key"] = json!(STANDARD.encode(self.device.public_key().spki()));
        order
    }

    pub(super) fn device_order(&self, request: &str, answer: &ChallengeAnswer) -> Value {
        let draft = CsrDraft {
            subject: Name::parse("/CN=asmith/emailAddress=asmith@acme.example").unwrap(),
            alternative_names: vec![AlternativeName::Upn("asmith@acme.example".into())],
            challenge: answer.challenge.as_deref().map(Secret::new),
            ..CsrDraft::default()
        };
        let mut order = order(request, "vpn");
        order["csr"] = json!(STANDARD.encode(draft.sign(&self.device, Digest::Sha256).unwrap()));
        if answer.seal.is_some() {
            seal(&mut order, answer);
        }
        order
    }

    pub(super) async fn challenge(&self, request: &str) -> ChallengeAnswer {
        let ask = json!({ "request": request, "profile": "vpn", "version": 3, "variables": variables() });
        let request = Request {
            module: MODULE.to_owned(),
            request: CHALLENGE.to_owned(),
            ttl_ms: 4_000,
            body: Secret::new(ask.to_string()),
        };
        let answer = self.module.answer(self.cx.clone(), request).await;
        serde_json::from_value(answer.unwrap_or_else(|error| panic!("{error:?}\n{}", self.journal())))
            .unwrap()
    }

    pub(super) async fn count(&self) -> usize {
        self.mock.authority().await.issued_count()
    }

    pub(super) fn strike(&self, operation: &str, fault: Fault) {
        self.mock.faults().add(Rule::new(fault).on_operation(operation).times(1));
    }
}

pub(super) fn word(word: &str) -> Fault {
    Fault::Custom { word: word.to_owned(), args: Default::default() }
}

fn malformed(kind: &str) -> Fault {
    Fault::Malformed { kind: kind.to_owned() }
}

#[tokio::test]
async fn an_identity_by_one_time_challenge() {
    let against = Against::ndes("en").await;
    let issued = against.issued(&against.agent_order("a")).await;
    let certificate = Certificate::read(&STANDARD.decode(&issued.certificate).unwrap()).unwrap();
    assert_eq!(certificate.subject().to_string(), issued.subject);
    let names = certificate.extensions().alternative_names().unwrap();
    assert_eq!(names, [AlternativeName::Upn("asmith@acme.example".into())]);
    assert_eq!(issued.chain.len(), 2, "issuing authority and root");
    assert_eq!(against.count().await, 1);
    assert_eq!(against.issued(&against.agent_order("a")).await, issued);
    assert_eq!(against.count().await, 1);
}

#[tokio::test]
async fn a_devices_request_with_the_challenge_it_was_given_in_every_language() {
    for language in ["de", "ja", "pl", "zh"] {
        let against = Against::ndes(language).await;
        let answer = against.challenge("a").await;
        let length = answer.challenge.as_ref().unwrap().len();
        assert_eq!((length, answer.ttl_ms), (16, 57 * 60_000), "{language}");
        against.issued(&against.device_order("a", &answer)).await;
        assert_eq!(against.count().await, 1);
    }
}

#[tokio::test]
async fn a_static_challenge_and_an_authority_without_registration_authority() {
    let mut config = Config::of("rfc8894");
    config.challenge.fixed = Some("a static challenge".to_owned());
    let against = Against::with(config, json!({ "challenge": "static", "user": null })).await;
    against.issued(&against.agent_order("a")).await;
    let answer = against.challenge("b").await;
    assert_eq!(answer.challenge.as_deref(), Some("a static challenge"));
    against.issued(&against.device_order("b", &answer)).await;
    assert_eq!(against.count().await, 2);
}

#[tokio::test]
async fn an_old_server_only_by_the_legacy_switch() {
    let mut config = Config::of("legacy");
    config.challenge.required = false;
    let against = Against::with(config.clone(), json!({ "challenge": "none" })).await;
    let (result, _) = pending(against.issue(&against.agent_order("a")).await);
    assert!(result["detail"].as_str().unwrap().contains("legacy = true"), "{result}");
    let against = Against::with(config, json!({ "challenge": "none", "legacy": true })).await;
    against.issued(&against.agent_order("a")).await;
}

#[tokio::test]
async fn killed_between_the_authority_and_the_cloud() {
    let against = Against::ndes("en").await;
    let order = against.agent_order("a");
    against.strike("PKIOperation", word("lost_reply"));
    pending(against.issue(&order).await);
    assert_eq!(against.count().await, 1, "issued, and nobody heard");
    let against = against.restarted();
    let issued = against.issued(&order).await;
    assert_eq!(against.count().await, 1);
    assert_eq!(against.issued(&order).await, issued);
}

#[tokio::test]
async fn an_order_that_never_arrived_is_handed_in_anew() {
    let against = Against::ndes("en").await;
    let order = against.agent_order("a");
    against.strike("PKIOperation", Fault::Close {});
    pending(against.issue(&order).await);
    assert_eq!(against.count().await, 0);
    let against = against.restarted();
    against.issued(&order).await;
    assert_eq!(against.count().await, 1);
}

#[tokio::test]
async fn approval_by_hand() {
    let against = Against::ndes("en").await;
    let order = against.agent_order("a");
    against.strike("PKIOperation", word("pending"));
    let (result, _) = pending(against.issue(&order).await);
    assert_eq!(result["stage"], "awaiting_approval");
    let against = against.restarted();
    let (result, _) = pending(against.issue(&order).await);
    assert_eq!(result["stage"], "awaiting_approval");
    let authority = against.mock.authority().await;
    let waiting = authority.requests(10, |_| true);
    authority.approve(waiting[0].id).unwrap();
    against.issued(&order).await;
    assert_eq!(against.count().await, 1);
}

#[tokio::test]
async fn a_request_that_is_denied_by_hand_is_over() {
    let against = Against::ndes("en").await;
    let order = against.agent_order("a");
    against.strike("PKIOperation", word("pending"));
    pending(against.issue(&order).await);
    let authority = against.mock.authority().await;
    authority.deny(authority.requests(10, |_| true)[0].id).unwrap();
    assert_eq!(failure(against.issue(&order).await).code, "ca_refused");
}

#[tokio::test]
async fn the_cache_of_challenges_is_full_and_heals() {
    let against = Against::ndes("de").await;
    against.strike("challenge", word("cache_full"));
    let (result, wait) = pending(against.issue(&against.agent_order("a")).await);
    assert_eq!(result["code"], "ca_challenges_used_up", "{result}");
    assert!(wait < Duration::from_secs(30));
    against.issued(&against.agent_order("a")).await;
}

#[tokio::test]
async fn an_account_that_may_not_enrol_is_told_so() {
    let against = Against::ndes("fr").await;
    against.strike("challenge", word("no_permission"));
    let (result, _) = pending(against.issue(&against.agent_order("a")).await);
    assert_eq!(result["code"], "ca_forbidden", "{result}");
}

#[tokio::test]
async fn a_challenge_that_is_gone_is_replaced() {
    let against = Against::ndes("en").await;
    for fault in ["expired_challenge", "app_pool_restart"] {
        against.strike("PKIOperation", word(fault));
        against.issued(&against.agent_order(fault)).await;
    }
    assert_eq!(against.count().await, 2);
}

#[tokio::test]
async fn a_wrong_password_is_shown_once() {
    let mut against = Against::ndes("en").await;
    against.secrets = SecretStore::new([("ca.default.password".to_owned(), Secret::new("wrong"))]);
    let against = against.restarted();
    for _ in 0..3 {
        let (result, _) = pending(against.issue(&against.agent_order("a")).await);
        assert_eq!(result["code"], "ca_credentials", "{result}");
    }
    let refused = against.mock.journal().after(0);
    let refused =
        refused.iter().filter(|entry| entry.front == "ndes_admin" && entry.outcome.contains("refused"));
    assert!(refused.count() <= 1, "{}", against.journal());
}

/// Answers of issue 5 that are none: nothing is believed, nothing is issued twice, the next try works.
#[tokio::test]
async fn answers_that_are_none_of_scep() {
    let against = Against::ndes("en").await;
    let faults = [
        malformed("html"),
        malformed("empty"),
        malformed("half"),
        word("another_reply"),
        word("another_key"),
        Fault::status(500, ""),
        Fault::status(404, ""),
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        let shown = format!("{fault:?}");
        let order = against.agent_order(&format!("r{n}"));
        let before = against.count().await;
        against.strike("PKIOperation", fault);
        let (result, _) = pending(against.issue(&order).await);
        let code = result["code"].as_str().unwrap().to_owned();
        assert!(["ca_answer", "ca_busy"].contains(&code.as_str()), "{shown}: {result}");
        assert!(result["detail"].as_str().unwrap().contains("127.0.0.1"), "{result}");
        against.issued(&order).await;
        assert_eq!(against.count().await, before + 1, "{shown}");
    }
}

#[tokio::test]
async fn the_authority_must_be_the_one_that_is_meant() {
    let against = Against::with(Config::default(), json!({ "fingerprint": "00".repeat(32) })).await;
    let (result, _) = pending(against.issue(&against.agent_order("a")).await);
    assert_eq!(result["code"], "ca_answer");
    assert!(result["detail"].as_str().unwrap().contains("fingerprint"), "{result}");
    let pages = against.mock.journal().after(0).into_iter().filter(|entry| entry.front == "ndes_admin");
    assert_eq!(pages.count(), 0, "no challenge is asked for and no password shown");
    for operation in ["GetCACert", "GetCACaps"] {
        let against = Against::ndes("en").await;
        against.strike(operation, malformed("html"));
        let (result, _) = pending(against.issue(&against.agent_order("a")).await);
        assert!(["ca_answer", "ca_settings"].contains(&result["code"].as_str().unwrap()), "{result}");
    }
}

#[tokio::test]
async fn the_doctor_sees_all_of_it_and_takes_no_challenge() {
    let against = Against::ndes("en").await;
    for _ in 0..6 {
        let found = against.module.check(against.cx.clone()).await;
        assert!(found.iter().all(|result| result.verdict() == Verdict::Ok), "{found:?}");
        let shown = format!("{found:?}");
        for fact in ["TripleDes", "Sha256", "POST", "NTLM", "MSCEP-RA"] {
            assert!(shown.contains(fact), "{fact} in {shown}");
        }
    }
    let handed_out = against.mock.journal().after(0);
    assert!(handed_out.iter().all(|entry| entry.outcome != "challenge"), "{}", against.journal());
    // As many as we hold at once are still there.
    for n in 0..4 {
        against.challenge(&format!("r{n}")).await;
    }
}

#[tokio::test]
async fn a_registration_authority_that_has_ended_is_named() {
    let mut config = Config::default();
    config.authority.ra_days = 10;
    let against = Against::with(config, json!({})).await;
    let found = against.module.check(against.cx.clone()).await;
    assert!(found.iter().any(|result| result.verdict() == Verdict::Warn), "{found:?}");
    against.issued(&against.agent_order("a")).await;
    let authority = against.mock.authority().await;
    authority.renew_ra(730);
    // What was known of it is an hour old at most, and is asked for again when it does not work.
    let order = against.agent_order("b");
    if let Outcome::Pending { result, .. } = against.issue(&order).await {
        assert_eq!(result["code"], "ca_answer", "{result}");
        against.issued(&order).await;
    }
    assert_eq!(against.count().await, 2);
}

#[tokio::test]
async fn revocation_is_honest() {
    let against = Against::ndes("en").await;
    let issued = against.issued(&against.agent_order("a")).await;
    let action = Action {
        id: "b".to_owned(),
        module: MODULE.to_owned(),
        action: REVOKE.to_owned(),
        target: Value::Null,
        params: json!({ "authority": "default", "id": issued.id, "reason": "cessation_of_operation" }),
        ttl_ms: 60_000,
        attempt: 1,
        fence: None,
    };
    let Outcome::Success(result) = against.module.act(against.cx.clone(), action).await else { panic!() };
    assert_eq!(result["revoked"], false);
    let note = result["note"].as_str().unwrap();
    assert!(note.contains(&format!("certutil -revoke {} 5", issued.id.serial)), "{note}");
}

/// A day apart, in both directions: what the agent asks for does not depend on its clock, and the difference is said.
#[tokio::test]
async fn clocks_that_are_a_day_apart() {
    const DAY_MS: i64 = 24 * 3_600_000;
    let system_ms = Clock::system().now_ms();
    for (ahead_ms, way) in [(DAY_MS, "behind ours"), (-DAY_MS, "ahead of ours")] {
        let mut against = Against::ndes("en").await;
        against.cx.clock = Clock::simulated(system_ms + ahead_ms);
        let issued = against.issued(&against.agent_order("a")).await;
        if ahead_ms < 0 {
            assert!(issued.not_before_ms > against.cx.clock.now_ms(), "by our clock it is not valid yet");
        }
        let answer = against.challenge("b").await;
        against.issued(&against.device_order("b", &answer)).await;
        assert_eq!(against.count().await, 2);
        let found = against.module.check(against.cx.clone()).await;
        let clock = found.iter().find(|result| result.name() == "certificates.clock").unwrap();
        assert_eq!(clock.verdict(), Verdict::Fail, "{found:?}");
        let detail = clock.detail();
        assert!(detail.ends_with(way) && (detail.contains(" 23 h") || detail.contains(" 24 h")), "{detail}");
        // An authority that does look at the time says so, and the answer says how far apart the clocks are.
        against.strike("PKIOperation", word("bad_time"));
        let report = failure(against.issue(&against.agent_order("c")).await);
        assert!(report.code == "ca_refused" && report.detail.contains(way), "{report:?}");
    }
}

/// Every reason for a no has a code of its own, or leads to another try where one can help.
#[tokio::test]
async fn each_reason_for_a_no_is_told_apart() {
    let against = Against::ndes("en").await;
    for (reason, code, said) in [
        ("bad_alg", "ca_refused", "badAlg"),
        ("no_reason", "ca_refused", "it gives no reason"),
        ("bad_message_check", "ca_answer", "badMessageCheck"),
    ] {
        against.strike("PKIOperation", word(reason));
        let (seen, detail) = match against.issue(&against.agent_order(reason)).await {
            Outcome::Failure(report) => (report.code, report.detail),
            // One that another try may help is tried again.
            Outcome::Pending { result, .. } => {
                assert_eq!((reason, &result["stage"]), ("bad_message_check", &json!("retrying")));
                let word = |name: &str| result[name].as_str().unwrap().to_owned();
                (word("code"), word("detail"))
            }
            Outcome::Success(result) => panic!("{reason}: {result}"),
        };
        assert!(seen == code && detail.contains(said), "{reason}: {seen} {detail}");
    }
    // A registration authority that cannot read the message may be new: its certificates are fetched again.
    let fetched = || against.journal().matches("GetCACert").count();
    let before = fetched();
    against.issued(&against.agent_order("after")).await;
    assert!(fetched() > before, "{}", against.journal());
}

/// The next authority is announced by the present one; agent.toml says whether it is the right one.
#[tokio::test]
async fn an_authority_takes_over_that_was_announced() {
    let mut config = Config::of("rfc8894");
    config.challenge.required = false;
    config.authority.authority_days = 200;
    let mut against = Against::with(config, json!({ "challenge": "none", "user": null })).await;
    let verdict = async |against: &Against| {
        let found = against.module.check(against.cx.clone()).await;
        let about = found.iter().find(|result| result.name() == "certificates.successor");
        about.map(|result| (result.verdict(), result.detail().to_owned()))
    };
    assert_eq!(verdict(&against).await, None, "nothing is announced");
    let authority = against.mock.authority().await;
    let at_ms = authority.now_ms() + 30 * 24 * 3_600_000;
    let making = authority.clone();
    let next = tokio::task::spawn_blocking(move || making.prepare_rollover(at_ms)).await.unwrap();
    let next = next.authority.certificate.sha256();
    let (verdict_before, detail) = verdict(&against).await.unwrap();
    assert!(verdict_before == Verdict::Warn && detail.contains(&next), "{detail}");
    // Whoever writes it down is not surprised ...
    let unprepared = against.ca.clone();
    against.ca["next_fingerprint"] = json!(next);
    let mut against = against.restarted();
    assert_eq!(verdict(&against).await.unwrap().0, Verdict::Ok);
    against.issued(&against.agent_order("a")).await;
    assert!(authority.roll_over());
    // What was known of it is an hour old at most, and is asked for again when it does not work.
    let order = against.agent_order("b");
    if let Outcome::Pending { result, .. } = against.issue(&order).await {
        assert_eq!(result["code"], "ca_answer", "{result}");
    }
    let issued = against.issued(&order).await;
    assert_eq!(against.count().await, 2);
    let chain = Certificate::read(&STANDARD.decode(&issued.chain[0]).unwrap()).unwrap();
    assert_eq!(chain.sha256(), next);
    // ... and to whoever does not, it is another authority.
    against.ca = unprepared;
    let against = against.restarted();
    let (result, _) = pending(against.issue(&against.agent_order("c")).await);
    assert!(result["detail"].as_str().unwrap().contains("fingerprint"), "{result}");
}

/// An announcement by somebody else is none.
#[tokio::test]
async fn a_successor_is_believed_from_the_present_authority_only() {
    let mut config = Config::of("rfc8894");
    config.challenge.required = false;
    config.authority.authority_days = 200;
    let against = Against::with(config, json!({ "challenge": "none", "user": null })).await;
    for fault in [malformed("html"), malformed("empty"), Fault::status(500, "")] {
        against.strike("GetNextCACert", fault.clone());
        let found = against.module.check(against.cx.clone()).await;
        let shown = format!("{found:?}");
        assert!(shown.contains("not believed"), "{fault:?}: {shown}");
        assert!(!shown.contains("certificates.successor"), "{shown}");
        assert!(found.iter().all(|result| result.verdict() != Verdict::Fail), "{shown}");
    }
}
