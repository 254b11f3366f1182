use std::time::Duration;

use causeway_mock_kit::fault::{Fault, Rule};
use causeway_mock_kit::world::PersonState;
use causeway_mock_ldap::Config;
use causeway_mock_ldap::dit::{Identity, WriteOp};
use causeway_protocol::auth::AuthOutcome as O;
use serde_json::json;

use super::*;
use crate::modules::testing::World;
use crate::modules::{Verdict, check_with_directories};

/// A module at work against a mock.
struct Bench {
    world: World,
    module: Arc<UserAuth>,
    cx: ModuleContext,
}

impl Bench {
    async fn start(config: Config) -> Self {
        Self::with(config, json!({})).await
    }

    async fn with(config: Config, desired: Value) -> Self {
        let world = World::start(config).await;
        let module = Arc::new(UserAuth::new(&world.settings(desired)).unwrap());
        let cx = world.context();
        Self { world, module, cx }
    }

    async fn ask(&self, username: &str, password: &str) -> AuthReply {
        let request = AuthRequest { username: username.to_owned(), password: Secret::new(password) };
        self.module.authenticate(&self.cx, request, Duration::from_secs(4)).await
    }

    async fn outcome(&self, username: &str, password: &str) -> O {
        let reply = self.ask(username, password).await;
        if reply.outcome == O::Unavailable {
            eprintln!("{:?}\n{}", reply.detail, self.world.shown_journal());
        }
        reply.outcome
    }

    /// Login, password and DN of someone in that state.
    fn person(&self, state: PersonState) -> (String, String, String) {
        let company = self.world.ldap.world();
        let person = company.first_in_state(state).unwrap();
        (person.login.to_string(), person.password(), self.dn_of(&person.login))
    }

    fn dn_of(&self, login: &str) -> String {
        let directory = self.world.ldap.directory();
        let replica = &directory.servers()[0];
        let attribute = match directory.personality().name.as_str() {
            "active_directory" => "sAMAccountName",
            "edirectory" => "cn",
            _ => "uid",
        };
        (0..200_000)
            .map(causeway_mock_ldap::dit::EntryId)
            .take_while(|id| id.0 < replica.entry_count() as u32 + 1_000)
            .find(|id| replica.values(*id, attribute).iter().any(|value| value == login.as_bytes()))
            .and_then(|id| replica.dn_of(id))
            .unwrap_or_else(|| panic!("no {attribute}={login}"))
    }

    fn binds(&self, dn: &str) -> usize {
        self.world.binds_of(dn).len()
    }
}

#[tokio::test]
async fn every_form_of_a_name_signs_in() {
    let bench = Bench::start(Config::default()).await;
    let (login, password, dn) = bench.person(PersonState::Active);
    let company = bench.world.ldap.world();
    let mail = company.person(&login).unwrap().mail.to_string();
    for name in [
        login.clone(),
        login.to_uppercase(),
        mail,
        company.upn(&login),
        format!("{}\\{login}", company.netbios),
    ] {
        let reply = bench.ask(&name, &password).await;
        assert_eq!(reply.outcome, O::Ok, "{name}: {:?}\n{}", reply.detail, bench.world.shown_journal());
        let user = reply.user.unwrap();
        assert_eq!((user.login, user.dn), (login.clone(), dn.clone()));
        assert_eq!(user.id.len(), 36);
    }
    assert_eq!(bench.outcome(&dn, &password).await, O::BadCredentials, "a DN is not accepted unless allowed");
    assert_eq!(bench.outcome(&format!("OTHER\\{login}"), &password).await, O::BadCredentials);
}

#[tokio::test]
async fn a_dn_signs_in_where_that_is_allowed() {
    let bench = Bench::with(Config::default(), json!({"accept_dn": true})).await;
    let (_, password, dn) = bench.person(PersonState::Active);
    assert_eq!(bench.outcome(&dn, &password).await, O::Ok);
}

#[tokio::test]
async fn every_personality_tells_right_from_wrong() {
    for personality in ["active_directory", "openldap", "ds389", "oracle", "edirectory", "domino"] {
        let bench = Bench::start(Config::of(personality)).await;
        let (login, password, _) = bench.person(PersonState::Active);
        let reply = bench.ask(&login, &password).await;
        assert_eq!(
            reply.outcome,
            O::Ok,
            "{personality} {login}: {:?}\n{}",
            reply.detail,
            bench.world.shown_journal()
        );
        assert!(!reply.user.unwrap().id.is_empty(), "{personality}");
        assert_eq!(bench.outcome(&login, "wrong").await, O::BadCredentials, "{personality}");
        assert_eq!(bench.outcome("nobody-of-that-name", "wrong").await, O::BadCredentials, "{personality}");
    }
}

#[tokio::test]
async fn states_behind_a_right_password_are_told_apart() {
    let bench = Bench::start(Config::default()).await;
    for (state, outcome) in [
        (PersonState::Disabled, O::Disabled),
        (PersonState::Expired, O::AccountExpired),
        (PersonState::PasswordExpired, O::PasswordExpired),
        (PersonState::MustChange, O::MustChange),
        (PersonState::HoursDenied, O::Restricted),
    ] {
        let (login, password, _) = bench.person(state);
        let reply = bench.ask(&login, &password).await;
        assert_eq!(reply.outcome, outcome, "{state:?}: {:?}", reply.detail);
        assert!(reply.user.is_some(), "whoever knew the password may know whose it is");
        let wrong = bench.ask(&login, "wrong").await;
        assert_eq!(wrong.outcome, O::BadCredentials, "a wrong password hides {state:?}");
        assert!(wrong.user.is_none());
    }
}

#[tokio::test]
async fn a_locked_account_is_called_locked() {
    let bench = Bench::with(Config::default(), json!({"failures_max": 100})).await;
    let (login, password, _) = bench.person(PersonState::Active);
    for n in 0..5 {
        assert_eq!(bench.outcome(&login, &format!("wrong {n}")).await, O::BadCredentials);
    }
    assert_eq!(bench.outcome(&login, &password).await, O::Locked);
}

#[tokio::test]
async fn an_empty_password_never_reaches_a_wire() {
    let mut config = Config::default();
    config.policies.empty_password_bind = Some(causeway_mock_ldap::dit::EmptyPassword::Anonymous);
    let bench = Bench::start(config).await;
    let (login, _, dn) = bench.person(PersonState::Active);
    assert_eq!(bench.outcome(&login, "").await, O::BadCredentials);
    assert_eq!(bench.outcome("", "x").await, O::BadCredentials);
    assert_eq!(bench.binds(&dn), 0);
    assert_eq!(bench.module.binds(), 0);
}

#[tokio::test]
async fn hostile_names_are_nobody() {
    let bench = Bench::start(Config::default()).await;
    let long = "x".repeat(1_000);
    for name in [
        "*",
        "asmith)(objectClass=*",
        "a\\smith*",
        "o'brien \"quoted\"",
        "nul\0byte",
        "\u{202e}htimsa",
        "(|(a=b))",
        "\\",
        "@",
        long.as_str(),
        "<GUID=00>",
    ] {
        assert_eq!(bench.outcome(name, "password").await, O::BadCredentials, "{name:?}");
    }
    assert_eq!(bench.module.binds(), 0, "nobody was found, so nobody was bound");
}

#[tokio::test]
async fn hard_names_of_real_people_sign_in() {
    let bench = Bench::start(Config::default()).await;
    let company = bench.world.ldap.world();
    for person in company.people.iter().filter(|p| p.is_active()).take(60) {
        let reply = bench.ask(&person.mail, &person.password()).await;
        assert_eq!(reply.outcome, O::Ok, "{}: {:?}", person.display_name, reply.detail);
    }
}

#[tokio::test]
async fn identical_attempts_at_once_share_one_bind() {
    let bench = Arc::new(Bench::start(Config::default()).await);
    let (login, password, dn) = bench.person(PersonState::Active);
    let slow = Rule::new(Fault::Delay { ms: 300 }).on_operation("bind");
    let _slow = bench.world.ldap.faults().guard(slow);
    let asks: Vec<_> = (0..20)
        .map(|_| {
            let (bench, login, password) = (bench.clone(), login.clone(), password.clone());
            tokio::spawn(async move { bench.outcome(&login, &password).await })
        })
        .collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap(), O::Ok);
    }
    assert_eq!(bench.binds(&dn), 1, "{}", bench.world.shown_journal());
}

#[tokio::test]
async fn a_phone_with_an_old_password_is_heard_once() {
    let bench = Bench::start(Config::default()).await;
    let (login, password, dn) = bench.person(PersonState::Active);
    let mail = bench.world.ldap.world().person(&login).unwrap().mail.to_string();
    for _ in 0..10 {
        assert_eq!(bench.outcome(&login, "the old one").await, O::BadCredentials);
        assert_eq!(bench.outcome(&mail, "the old one").await, O::BadCredentials);
    }
    assert_eq!(bench.binds(&dn), 1, "{}", bench.world.shown_journal());
    assert_eq!(bench.outcome(&login, &password).await, O::Ok, "its owner is not locked out");
}

#[tokio::test]
async fn guessing_stops_before_the_domain_locks() {
    let bench = Bench::start(Config::default()).await;
    let (login, password, dn) = bench.person(PersonState::Active);
    for n in 0..20 {
        let _ = bench.outcome(&login, &format!("guess {n}")).await;
    }
    assert_eq!(bench.binds(&dn), 4, "one below the threshold of 5\n{}", bench.world.shown_journal());
    let reply = bench.ask(&login, "guess 99").await;
    assert_eq!(reply.outcome, O::Locked);
    // The directory itself has not locked the account.
    let fresh = Arc::new(UserAuth::new(&bench.world.settings(json!({}))).unwrap());
    let request = AuthRequest { username: login, password: Secret::new(password) };
    let reply = fresh.authenticate(&bench.cx, request, Duration::from_secs(4)).await;
    assert_eq!(reply.outcome, O::Ok, "{:?}", reply.detail);
}

#[tokio::test]
async fn a_dead_server_costs_nothing_but_a_moment() {
    let bench = Bench::start(Config::default().with_servers(2)).await;
    let (login, password, dn) = bench.person(PersonState::Active);
    for front in ["ldap", "ldaps"] {
        bench.world.ldap.faults().set_down(front);
    }
    assert_eq!(bench.outcome(&login, &password).await, O::Ok);
    let binds = bench.world.binds_of(&dn);
    assert_eq!(binds, [("ldaps_dc2".to_owned(), "success".to_owned())], "{}", bench.world.shown_journal());
}

#[tokio::test]
async fn a_busy_server_hands_the_attempt_on() {
    for code in ["busy", "unavailable"] {
        let bench = Bench::start(Config::default().with_servers(2)).await;
        let (login, password, dn) = bench.person(PersonState::Active);
        let subject = dn.clone();
        let rule = Rule::new(Fault::status(code, "later"))
            .on_front("ldaps")
            .on_operation("bind")
            .on_subject(&subject);
        let _busy = bench.world.ldap.faults().guard(rule);
        let reply = bench.ask(&login, &password).await;
        assert_eq!(reply.outcome, O::Ok, "{code}: {:?}\n{}", reply.detail, bench.world.shown_journal());
        let fronts: Vec<String> = bench.world.binds_of(&dn).into_iter().map(|(front, _)| front).collect();
        assert_eq!(fronts, ["ldaps", "ldaps_dc2"]);
    }
}

#[tokio::test]
async fn a_cut_during_the_bind_is_no_verdict_and_no_second_bind() {
    let faults = [
        Fault::Close {},
        Fault::Malformed { kind: "wrong_message_id".into() },
        Fault::Malformed { kind: "truncated_ber".into() },
        Fault::Malformed { kind: "oversized_ber".into() },
        Fault::Malformed { kind: "indefinite_length".into() },
        Fault::Malformed { kind: "nesting_bomb".into() },
        Fault::Malformed { kind: "garbage".into() },
        Fault::Custom { word: "referral_loop".into(), args: Value::Null },
    ];
    for fault in faults {
        let bench = Bench::start(Config::default().with_servers(2)).await;
        let (login, password, dn) = bench.person(PersonState::Active);
        let shown = format!("{fault:?}");
        let _cut = bench.world.ldap.faults().guard(Rule::new(fault).on_operation("bind").on_subject(&dn));
        let started = std::time::Instant::now();
        let reply = bench.ask(&login, &password).await;
        assert_eq!(reply.outcome, O::Unavailable, "{shown}");
        assert!(reply.detail.is_some(), "{shown}");
        assert!(started.elapsed() < Duration::from_secs(4), "{shown}");
        assert!(bench.module.binds() == 1, "{shown}: {}", bench.world.shown_journal());
    }
}

#[tokio::test]
async fn a_verdict_is_taken_to_no_other_server() {
    for state in [
        PersonState::Active,
        PersonState::Disabled,
        PersonState::Expired,
        PersonState::MustChange,
        PersonState::HoursDenied,
    ] {
        let bench = Bench::start(Config::default().with_servers(2)).await;
        let (login, right, dn) = bench.person(state);
        let password = if state == PersonState::Active { "wrong" } else { &right };
        let outcome = bench.outcome(&login, password).await;
        assert!(!matches!(outcome, O::Ok | O::Unavailable), "{state:?}: {outcome:?}");
        assert_eq!(bench.binds(&dn), 1, "{state:?}: {}", bench.world.shown_journal());
    }
}

#[tokio::test]
async fn texts_that_are_no_utf_8_change_no_verdict() {
    let bench = Bench::start(Config::default()).await;
    let (login, password, dn) = bench.person(PersonState::Active);
    let odd = || Rule::new(Fault::Malformed { kind: "non_utf8".into() });
    let bind = bench.world.ldap.faults().guard(odd().on_operation("bind").on_subject(&dn));
    assert_eq!(bench.outcome(&login, &password).await, O::Ok, "the code counts, not the words");
    drop(bind);
    let base = bench.world.ldap.directory().base_dn().to_owned();
    let _search = bench.world.ldap.faults().guard(odd().on_operation("search").on_subject(&base));
    let (other, password, dn) = bench.person(PersonState::Disabled);
    assert_ne!(bench.outcome(&other, &password).await, O::Ok);
    assert_eq!(bench.binds(&dn), 0, "what was found is nobody: {}", bench.world.shown_journal());
}

#[tokio::test]
async fn a_silent_server_is_answered_in_time() {
    let bench = Bench::start(Config::default().with_servers(2)).await;
    let (login, password, dn) = bench.person(PersonState::Active);
    assert_eq!(bench.outcome(&login, "warm up").await, O::BadCredentials);
    let stalled = Rule::new(Fault::Stall {}).on_operation("bind").on_subject(&dn);
    let _stalled = bench.world.ldap.faults().guard(stalled);
    let request = AuthRequest { username: login, password: Secret::new(password) };
    let started = std::time::Instant::now();
    let reply = bench.module.authenticate(&bench.cx, request, Duration::from_secs(1)).await;
    assert_eq!(reply.outcome, O::Unavailable);
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    assert_eq!(bench.module.binds(), 2, "the one before, and one");
}

#[tokio::test]
async fn a_silent_search_goes_to_the_next_server() {
    let bench = Bench::start(Config::default().with_servers(2)).await;
    let (login, password, _) = bench.person(PersonState::Active);
    let rule = Rule::new(Fault::Stall {}).on_front("ldaps").on_operation("search");
    let _stalled = bench.world.ldap.faults().guard(rule);
    assert_eq!(bench.outcome(&login, &password).await, O::Ok);
}

#[tokio::test]
async fn a_name_that_moved_is_found_again() {
    let bench = Bench::start(Config::default()).await;
    let (login, password, dn) = bench.person(PersonState::Active);
    assert_eq!(bench.outcome(&login, &password).await, O::Ok);
    let op = WriteOp::ModifyDn {
        dn: dn.clone().into_bytes(),
        new_rdn: b"CN=Alice Renamed".to_vec(),
        delete_old: true,
        new_superior: None,
    };
    let manager = Identity::Manager { dn: "cn=test".into() };
    bench.world.ldap.directory().servers()[0].write(op, &manager, true).unwrap();
    let reply = bench.ask(&login, &password).await;
    assert_eq!(reply.outcome, O::Ok, "{:?}\n{}", reply.detail, bench.world.shown_journal());
    assert!(reply.user.unwrap().dn.starts_with("CN=Alice Renamed,"));
}

#[tokio::test]
async fn direct_binds_need_no_service_account() {
    let world = World::start(Config::default()).await;
    let domain = world.ldap.world().domain.clone();
    let mut directory = world.directory();
    directory.as_object_mut().unwrap().remove("bind_dn");
    let desired = json!({"lookup": {"direct": {"template": format!("{{login}}@{domain}")}}});
    let settings = world.settings_with(desired, directory);
    let module = Arc::new(UserAuth::new(&settings).unwrap());
    let bench = Bench { cx: world.context(), module, world };
    let (login, password, _) = bench.person(PersonState::Active);
    let reply = bench.ask(&login, &password).await;
    assert_eq!(reply.outcome, O::Ok, "{:?}\n{}", reply.detail, bench.world.shown_journal());
    assert_eq!(reply.user.map(|user| user.login), Some(login.clone()));
    assert_eq!(bench.outcome(&login, "wrong").await, O::BadCredentials);
}

#[tokio::test]
async fn start_tls_protects_the_plain_port() {
    let world = World::start(Config::of("openldap")).await;
    let mut directory = world.directory();
    directory["servers"] = json!([world.ldap.url("ldap")]);
    let module = Arc::new(UserAuth::new(&world.settings_with(json!({}), directory)).unwrap());
    let bench = Bench { cx: world.context(), module, world };
    let (login, password, _) = bench.person(PersonState::Active);
    assert_eq!(bench.outcome(&login, &password).await, O::Ok);
}

#[tokio::test]
async fn a_server_signed_by_someone_else_is_refused_with_the_signers_name() {
    let world = World::start(Config::default()).await;
    let other = World::start(Config::default()).await;
    let mut directory = world.directory();
    directory["ca_file"] = json!(other.ldap.ca().pem_path());
    let module = Arc::new(UserAuth::new(&world.settings_with(json!({}), directory)).unwrap());
    let bench = Bench { cx: world.context(), module, world };
    let (login, password, _) = bench.person(PersonState::Active);
    let reply = bench.ask(&login, &password).await;
    assert_eq!(reply.outcome, O::Unavailable);
    let detail = reply.detail.unwrap();
    assert!(detail.contains("no authority we trust has signed it"), "{detail}");
    let checks = check_with_directories(&*bench.module, bench.cx.clone()).await;
    let failed: Vec<_> = checks.iter().filter(|check| check.verdict() == Verdict::Fail).collect();
    assert!(failed.iter().any(|check| check.name() == "directory.tls"), "{checks:?}");
    assert!(failed.iter().all(|check| !check.remedy().is_empty()), "{checks:?}");
}

#[tokio::test]
async fn the_doctor_is_content_with_a_healthy_directory() {
    let bench = Bench::start(Config::default().with_servers(2)).await;
    let checks = check_with_directories(&*bench.module, bench.cx.clone()).await;
    assert!(checks.iter().all(|check| check.verdict() == Verdict::Ok), "{checks:#?}");
    let connected = checks.iter().find(|check| check.name() == "directory.tls").unwrap();
    assert!(connected.detail().contains("signed by CN=Causeway mock-ldap CA"), "{}", connected.detail());
}

#[tokio::test]
async fn a_wrong_service_password_is_named_by_the_doctor() {
    let world = World::start(Config::default()).await;
    let mut settings = world.settings(json!({}));
    settings.secrets = settings.secrets.with("directory.default", Secret::new("wrong"));
    let module = UserAuth::new(&settings).unwrap();
    let checks = check_with_directories(&module, world.context()).await;
    let bind = checks.iter().find(|check| check.name() == "directory.bind").unwrap();
    assert_eq!(bind.verdict(), Verdict::Fail);
    assert!(bind.remedy().contains("service account"), "{bind:?}");
}

#[tokio::test]
async fn a_request_is_answered_in_the_words_of_the_api() {
    let bench = Bench::start(Config::default()).await;
    let (login, password, _) = bench.person(PersonState::Active);
    let body = causeway_protocol::auth::encode_request(&AuthRequest {
        username: login,
        password: Secret::new(password),
    });
    let request = Request { module: MODULE.into(), request: REQUEST.into(), ttl_ms: 4_000, body };
    let answer = bench.module.answer(bench.cx.clone(), request).await.unwrap();
    assert_eq!(answer["outcome"], "ok");
    let broken = Request {
        module: MODULE.into(),
        request: REQUEST.into(),
        ttl_ms: 4_000,
        body: Secret::new(r#"{"username":"a","password":"canary-7f3a","extra":1}"#),
    };
    let error = bench.module.answer(bench.cx.clone(), broken).await.unwrap_err();
    assert_eq!(error.code, "bad_parameters");
    assert!(!format!("{error:?}").contains("canary"), "an error must not repeat the body");
}

#[tokio::test]
async fn run_reports_health_and_ends_when_told() {
    let bench = Bench::start(Config::default().with_servers(2)).await;
    bench.world.ldap.faults().set_down("ldaps_dc2");
    let mut status = bench.cx.status.subscribe();
    let running = tokio::spawn(bench.module.clone().run(bench.cx.clone()));
    let seen =
        tokio::time::timeout(Duration::from_secs(5), status.wait_for(|s| s.state == ModuleState::Ok)).await;
    assert!(seen.is_ok(), "{:?}", bench.cx.status.get());
    bench.cx.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), running).await;
    assert!(ended.is_ok_and(|ended| ended.unwrap().is_ok()));
}
