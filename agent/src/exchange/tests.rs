//! Sessions against the mock: sign-in, sealing, failover, redirects, limits, and what a hostile server sends.

mod kerberos;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use causeway_mock_exchange::config::ChannelBinding;
use causeway_mock_exchange::{Config, MockExchange};
use causeway_mock_kit::fault::{Fault, Rule};
use causeway_protocol::Secret;
use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::remote::OnPremises;
use super::{Backend, Exchange, ExchangeError, Organisation, Session, Urgency, doctor};
use crate::checks::Verdict;
use crate::clock::Clock;
use crate::directory::Net;
use crate::modules::ModuleSettings;
use crate::modules::testing::LoopbackDial;
use crate::random::RandomSource;
use crate::secrets::SecretStore;

/// One cmdlet on a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Phones of a mock.
const PHONES: usize = 25;

async fn mock(change: impl FnOnce(&mut Config)) -> MockExchange {
    let mut config = Config::default();
    config.common.users = 20;
    config.partnerships = Some(PHONES);
    change(&mut config);
    MockExchange::start(config).await.unwrap()
}

/// `[exchange.default]` and what belongs to it.
struct Site {
    exchange: Value,
    secrets: SecretStore,
    folder: TempDir,
}

impl Site {
    /// These front ends of mocks, in this order.
    fn new(servers: &[(&MockExchange, &str)], auth: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let pems = servers.iter().map(|(mock, _)| std::fs::read_to_string(mock.ca().pem_path()).unwrap());
        std::fs::write(&ca_file, pems.collect::<String>()).unwrap();
        let urls: Vec<String> = servers.iter().map(|(mock, front)| mock.url(front).to_owned()).collect();
        let login = servers[0].0.service_account();
        let exchange = json!({
            "servers": urls, "accounts": [{ "user": login.user }], "auth": auth, "ca_file": ca_file,
        });
        let secret = Secret::new(login.password);
        let secrets = SecretStore::new([("exchange.default".to_owned(), secret)]);
        Self { exchange, secrets, folder }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.exchange[key] = value;
        self
    }

    fn password(mut self, password: &str) -> Self {
        self.secrets = SecretStore::new([("exchange.default".to_owned(), Secret::new(password))]);
        self
    }

    fn settings(&self) -> ModuleSettings {
        ModuleSettings {
            exchanges: BTreeMap::from([("default".to_owned(), self.exchange.clone())]),
            secrets: self.secrets.clone(),
            ..ModuleSettings::default()
        }
    }

    fn organisation(&self) -> Organisation {
        Organisation::new("default", &self.settings()).unwrap()
    }
}

fn net() -> Net {
    Net { dial: Arc::new(LoopbackDial::default()), clock: Clock::system() }
}

async fn open(organisation: &Organisation) -> Result<Box<dyn Session>, ExchangeError> {
    timeout(WITHIN, organisation.open(net(), Urgency::Background)).await.expect("a session in time")
}

async fn run(session: &mut dyn Session, cmdlet: Cmdlet) -> Result<(Vec<Object>, Completed), ExchangeError> {
    let (objects, mut taken) = mpsc::channel(2);
    let take = async {
        let mut all = Vec::new();
        while let Some(object) = taken.recv().await {
            all.push(object);
        }
        all
    };
    let both = async { tokio::join!(session.run(&cmdlet, objects), take) };
    let (completed, all) = timeout(WITHIN, both).await.expect("a cmdlet in time");
    Ok((all, completed?))
}

fn devices() -> Cmdlet {
    Cmdlet::new("Get-MobileDevice").with("ResultSize", "Unlimited")
}

fn ids(objects: &[Object]) -> BTreeSet<String> {
    objects.iter().map(|object| object.text("Guid").expect("a Guid").into_owned()).collect()
}

/// Waits until the mock has so many shells.
async fn shells(mock: &MockExchange, wanted: usize) {
    let until = Instant::now() + WITHIN;
    while mock.shells() != wanted {
        assert!(Instant::now() < until, "{} shells, {wanted} wanted", mock.shells());
        sleep(Duration::from_millis(20)).await;
    }
}

fn word(word: &str, args: Value) -> Rule {
    Rule::new(Fault::Custom { word: word.to_owned(), args })
}

/// A whole session: objects, a cmdlet that is not there, the end.
async fn whole(mock: &MockExchange, site: &Site) {
    let mut session = open(&site.organisation()).await.unwrap();
    let (objects, completed) = run(&mut *session, devices()).await.unwrap();
    assert_eq!((objects.len(), ids(&objects).len()), (PHONES, PHONES));
    assert_eq!(completed, Completed::default());
    let (_, completed) = run(&mut *session, Cmdlet::new("Get-Nothing")).await.unwrap();
    assert_eq!(completed.failure.unwrap().reason, "CommandNotFoundException");
    session.close().await;
    assert_eq!(mock.shells(), 0);
}

#[tokio::test]
async fn basic_over_tls() {
    let mock = mock(|_| {}).await;
    whole(&mock, &Site::new(&[(&mock, "powershell")], &["kerberos", "basic"])).await;
}

#[tokio::test]
async fn ntlm_seals_over_plain_http() {
    let mock = mock(|_| {}).await;
    let _space = mock.faults().guard(word("boundary_space", json!({})).on_operation("receive"));
    for auth in ["ntlm", "negotiate"] {
        whole(&mock, &Site::new(&[(&mock, "powershell_http")], &[auth])).await;
    }
}

#[tokio::test]
async fn the_password_goes_over_plain_http_by_no_means() {
    let mock = mock(|config| {
        config.powershell.basic_over_http = true;
        (config.powershell.ntlm, config.powershell.negotiate) = (false, false);
    })
    .await;
    let site = Site::new(&[(&mock, "powershell_http")], &["negotiate", "basic"]);
    let error = open(&site.organisation()).await.err().expect("nothing is left");
    assert!(error.to_string().contains("everybody"), "{error}");
}

#[tokio::test]
async fn extended_protection_gets_its_channel_binding() {
    let mock = mock(|config| config.powershell.channel_binding = ChannelBinding::Require).await;
    for auth in ["ntlm", "negotiate"] {
        whole(&mock, &Site::new(&[(&mock, "powershell")], &[auth])).await;
    }
}

#[tokio::test]
async fn a_session_keeps_to_the_server_that_its_cookie_names() {
    let mock = mock(|config| config.powershell.affinity_cookie = true).await;
    whole(&mock, &Site::new(&[(&mock, "powershell")], &["basic"])).await;
    whole(&mock, &Site::new(&[(&mock, "powershell_http")], &["ntlm"])).await;
}

#[tokio::test]
async fn a_wrong_password_is_shown_once_in_all() {
    for (front, auth) in [("powershell", "basic"), ("powershell", "ntlm"), ("powershell_http", "negotiate")] {
        let (one, two) = (mock(|_| {}).await, mock(|_| {}).await);
        let site = Site::new(&[(&one, front), (&two, front)], &[auth, "ntlm", "basic"]).password("wrong");
        let organisation = site.organisation();
        // Two at once, then again, then a module that was built anew.
        let both = tokio::join!(open(&organisation), organisation.open(net(), Urgency::Urgent));
        let mut ends = vec![both.0.err(), both.1.err(), open(&organisation).await.err()];
        ends.push(open(&site.organisation()).await.err());
        for end in &ends {
            let refused =
                matches!(end, Some(ExchangeError::Credentials { detail }) if !detail.contains("wrong\""));
            assert!(refused, "{ends:?}");
        }
        let user = one.service_account().user;
        let shown = one.world().bad_passwords(&user) + two.world().bad_passwords(&user);
        assert_eq!(shown, 1, "{front} {auth}: {ends:?}");
        // Stored again, it is used without a restart.
        let right = Secret::new(one.service_account().password);
        site.secrets.renew(&SecretStore::new([("exchange.default".to_owned(), right)]));
        open(&organisation).await.unwrap().close().await;
    }
}

#[tokio::test]
async fn a_password_that_changes_in_the_middle_is_shown_once_more_at_most() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let mut session = open(&site.organisation()).await.unwrap();
    let user = mock.service_account().user;
    assert!(mock.world().set_password(&user, "another"));
    let error = run(&mut *session, devices()).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Credentials { .. }), "{error:?}");
    assert!(open(&site.organisation()).await.is_err());
    drop(session);
    assert_eq!(mock.world().bad_passwords(&user), 1);
}

#[tokio::test]
async fn the_second_account_is_for_when_the_first_is_refused() {
    let mock = mock(|_| {}).await;
    let login = mock.service_account();
    let mut site = Site::new(&[(&mock, "powershell")], &["basic"])
        .with("accounts", json!([{ "user": "ACME\\nobody" }, { "user": login.upn }]));
    site.secrets = SecretStore::new([
        ("exchange.default".to_owned(), Secret::new("x")),
        ("exchange.default.2".to_owned(), Secret::new(login.password)),
    ]);
    whole(&mock, &site).await;
}

#[tokio::test]
async fn fragments_out_of_order_end_the_session() {
    let mock = mock(|config| config.powershell.fragment_max_bytes = 1_000).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let mut session = open(&site.organisation()).await.unwrap();
    let reversed = mock.faults().guard(Rule::new(malformed("fragments_reversed")).on_operation("receive"));
    let error = run(&mut *session, devices()).await.unwrap_err();
    assert!(!error.session_lives() && reversed.hits() > 0, "{error:?}");
}

fn malformed(kind: &str) -> Fault {
    Fault::Malformed { kind: kind.to_owned() }
}

#[tokio::test]
async fn a_401_in_the_middle_is_answered_by_signing_in_again() {
    for (front, auth) in [("powershell", "ntlm"), ("powershell_http", "ntlm")] {
        let mock = mock(|_| {}).await;
        let site = Site::new(&[(&mock, front)], &[auth]);
        let mut session = open(&site.organisation()).await.unwrap();
        let rule = Rule::new(Fault::status("401", "")).on_operation("receive").times(1);
        let guard = mock.faults().guard(rule);
        let (objects, _) = run(&mut *session, devices()).await.unwrap();
        assert_eq!((objects.len(), guard.hits()), (PHONES, 1), "{front}");
    }
}

#[tokio::test]
async fn a_dead_server_is_left_for_the_next_one() {
    let (dead, alive) = (mock(|_| {}).await, mock(|_| {}).await);
    let site = Site::new(&[(&dead, "powershell"), (&alive, "powershell")], &["basic"]);
    drop(dead);
    let organisation = site.organisation();
    for _ in 0..2 {
        let session = open(&organisation).await.unwrap();
        assert_eq!(alive.shells(), 1);
        session.close().await;
    }
}

#[tokio::test]
async fn a_server_lost_in_the_middle_is_replaced_by_the_next() {
    let (one, two) = (mock(|_| {}).await, mock(|_| {}).await);
    let site = Site::new(&[(&one, "powershell_http"), (&two, "powershell_http")], &["ntlm"]);
    let organisation = site.organisation();
    let mut session = open(&organisation).await.unwrap();
    let _lost = one.faults().guard(word("lose_server", json!({ "objects": 5 })));
    let error = run(&mut *session, devices()).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unreachable { .. }) && !error.session_lives(), "{error:?}");
    let mut session = open(&organisation).await.unwrap();
    assert_eq!(two.shells(), 1, "the first one is left alone");
    assert_eq!(run(&mut *session, devices()).await.unwrap().0.len(), PHONES);
}

#[tokio::test]
async fn a_session_goes_where_its_server_sends_it() {
    let (one, two) = (mock(|_| {}).await, mock(|_| {}).await);
    let site = Site::new(&[(&one, "powershell"), (&two, "powershell")], &["basic"]);
    let to_two = Rule::new(Fault::status("302", two.url("powershell"))).on_operation("create");
    let _guard = one.faults().guard(to_two);
    let mut session = open(&site.organisation()).await.unwrap();
    assert_eq!((one.shells(), two.shells()), (0, 1));
    assert_eq!(run(&mut *session, devices()).await.unwrap().0.len(), PHONES);
    session.close().await;
    // Round in circles.
    let to_one = Rule::new(Fault::status("302", one.url("powershell"))).on_operation("create");
    let _other = two.faults().guard(to_one);
    assert!(matches!(open(&site.organisation()).await.err(), Some(ExchangeError::Unreachable { .. })));
}

#[tokio::test]
async fn a_redirect_to_a_stranger_is_not_followed() {
    let (one, stranger) = (mock(|_| {}).await, mock(|_| {}).await);
    let site = Site::new(&[(&one, "powershell")], &["basic"]);
    // The same machine by another name, and without TLS.
    let elsewhere = stranger.url("powershell").replace("127.0.0.1", "localhost");
    for to in [elsewhere.as_str(), stranger.url("powershell_http")] {
        let _guard = one.faults().guard(Rule::new(Fault::status("302", to)).on_operation("create"));
        let error = open(&site.organisation()).await.err().expect("not followed");
        assert!(
            matches!(&error, ExchangeError::Unreachable { detail } if detail.contains("sends")),
            "{error:?}"
        );
    }
    assert!(stranger.journal().after(0).is_empty(), "nobody came");
}

#[tokio::test]
async fn no_runspace_left_means_come_back_later() {
    let mock = mock(|config| config.throttling.max_concurrency = 1).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let session = open(&site.organisation()).await.unwrap();
    let error = open(&site.organisation()).await.err().expect("one is allowed");
    assert!(matches!(&error, ExchangeError::Throttled { retry_after: Some(_), .. }), "{error:?}");
    session.close().await;
    open(&site.organisation()).await.unwrap().close().await;
}

#[tokio::test]
async fn a_session_that_nobody_closes_closes_itself() {
    let mock = mock(|_| {}).await;
    for front in ["powershell", "powershell_http"] {
        let site = Site::new(&[(&mock, front)], &["ntlm"]);
        drop(open(&site.organisation()).await.unwrap());
        shells(&mock, 0).await;
    }
}

#[tokio::test]
async fn an_action_does_not_wait_for_scans() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let organisation = site.organisation();
    let scan = open(&organisation).await.unwrap();
    let second = timeout(Duration::from_millis(300), organisation.open(net(), Urgency::Background)).await;
    assert!(second.is_err(), "a second scan waits for the first");
    let action = timeout(WITHIN, organisation.open(net(), Urgency::Urgent)).await.unwrap().unwrap();
    assert_eq!(mock.shells(), 2);
    tokio::join!(scan.close(), action.close());
}

#[tokio::test]
async fn nobody_to_take_objects_stops_the_pipeline_and_not_the_session() {
    let mock = mock(|config| config.partnerships = Some(2_000)).await;
    let site = Site::new(&[(&mock, "powershell_http")], &["ntlm"]);
    let mut session = open(&site.organisation()).await.unwrap();
    let (objects, mut some) = mpsc::channel(1);
    let cmdlet = devices();
    let leave = async {
        some.recv().await.expect("the first");
        drop(some);
    };
    let (stopped, ()) = tokio::join!(session.run(&cmdlet, objects), leave);
    assert!(matches!(stopped, Err(ExchangeError::Stopped)), "{stopped:?}");
    let few = Cmdlet::new("Get-MobileDevice").with("ResultSize", "3");
    assert_eq!(run(&mut *session, few).await.unwrap().0.len(), 3);
}

#[tokio::test]
async fn an_answer_lost_on_the_way_is_asked_for_again() {
    let mock = mock(|config| config.powershell.fragment_max_bytes = 1_000).await;
    for (front, auth) in [("powershell", "basic"), ("powershell_http", "ntlm")] {
        let site = Site::new(&[(&mock, front)], &[auth]);
        let mut session = open(&site.organisation()).await.unwrap();
        let rule = word("drop_after_fragments", json!({ "fragments": 3 })).on_operation("receive").times(2);
        let guard = mock.faults().guard(rule);
        let (objects, _) = run(&mut *session, devices()).await.unwrap();
        assert_eq!((objects.len(), ids(&objects).len(), guard.hits()), (PHONES, PHONES, 2), "{front}");
    }
}

#[tokio::test]
async fn a_shell_that_is_gone_is_opened_again_before_a_cmdlet_and_not_within() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let organisation = site.organisation();
    let mut session = open(&organisation).await.unwrap();
    let gone = |operation| Rule::new(Fault::status("shell_not_found", "x")).on_operation(operation).times(1);
    let guard = mock.faults().guard(gone("command"));
    assert_eq!(run(&mut *session, devices()).await.unwrap().0.len(), PHONES);
    assert_eq!(guard.hits(), 1);
    let _guard = mock.faults().guard(gone("receive"));
    let error = run(&mut *session, devices()).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unreachable { .. }), "what it did is not known: {error:?}");
}

#[tokio::test]
async fn empty_answers_without_end_come_to_an_end() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let mut organisation = site.organisation();
    organisation.settings.silence_max_secs = 1;
    let settings = organisation.settings.clone();
    let servers = OnPremises::new("default", settings, site.secrets.clone(), RandomSource::seeded(1));
    organisation.backend = Backend::OnPremises(servers);
    let mut session = open(&organisation).await.unwrap();
    let endless = Rule::new(Fault::status("timeout", "")).on_operation("receive");
    let guard = mock.faults().guard(endless);
    let error = run(&mut *session, devices()).await.unwrap_err();
    assert!(
        matches!(&error, ExchangeError::Unreachable { detail } if detail.contains("silent")),
        "{error:?}"
    );
    assert!(guard.hits() < 40, "{} requests in two seconds", guard.hits());
}

#[tokio::test]
async fn what_no_server_may_send_ends_in_an_error() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell_http")], &["ntlm"]);
    let organisation = site.organisation();
    let mut rules: Vec<(String, Rule)> = Vec::new();
    for kind in [
        "missing_relates_to",
        "wrong_relates_to",
        "wrong_signature",
        "truncated",
        "bad_base64",
        "huge_fragment",
        "fragment_twice",
        "fragments_reversed",
        "deep_clixml",
        "reference_bomb",
        "clixml_doctype",
        "html",
        "doctype",
    ] {
        rules.push((kind.to_owned(), Rule::new(Fault::Malformed { kind: kind.to_owned() })));
    }
    for (name, rule) in rules {
        // Servers that misbehave are left alone for a while; here there is only one.
        let mut session = open(&organisation).await.unwrap();
        let guard = mock.faults().guard(rule.on_operation("receive"));
        let error = run(&mut *session, devices()).await.err();
        let error = error.unwrap_or_else(|| panic!("{name} passed, {} hits", guard.hits()));
        let wanted = matches!(error, ExchangeError::Protocol { .. } | ExchangeError::Unreachable { .. });
        assert!(wanted && guard.hits() > 0, "{name}: {error:?}");
        drop(guard);
        session.close().await;
    }
}

#[tokio::test]
async fn a_pool_that_breaks_fails_its_cmdlet_and_then_the_session() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let organisation = site.organisation();
    let mut session = open(&organisation).await.unwrap();
    {
        let _breaks = mock.faults().guard(word("broken_pool", json!({})).on_operation("receive"));
        let (_, completed) = run(&mut *session, devices()).await.unwrap();
        assert!(completed.failure.is_some(), "{completed:?}");
    }
    let error = run(&mut *session, devices()).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Unreachable { .. }), "{error:?}");
    let mut session = open(&organisation).await.unwrap();
    assert_eq!(run(&mut *session, devices()).await.unwrap().0.len(), PHONES);
}

#[tokio::test]
async fn a_compressed_answer_is_refused_with_its_remedy() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let mut session = open(&site.organisation()).await.unwrap();
    let guard = mock.faults().guard(word("gzip", json!({})).on_operation("receive"));
    let error = run(&mut *session, devices()).await.unwrap_err();
    assert!(
        matches!(&error, ExchangeError::Protocol { detail } if detail.contains("compression")),
        "{error:?}"
    );
    assert_eq!(guard.hits(), 1, "asked once");
}

#[tokio::test]
async fn odd_pieces_byte_order_marks_and_partial_success_pass() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let organisation = site.organisation();
    let mut session = open(&organisation).await.unwrap();
    for rule in [
        word("split_fragments", json!({ "bytes": 1_000 })).on_operation("receive"),
        word("byte_order_mark", json!({ "on": true })),
        word("byte_order_mark", json!({ "on": false })),
    ] {
        let _guard = mock.faults().guard(rule);
        assert_eq!(run(&mut *session, devices()).await.unwrap().0.len(), PHONES);
    }
    let _guard = mock.faults().guard(word("partial_success", json!({})));
    let (objects, completed) = run(&mut *session, devices()).await.unwrap();
    assert_eq!((objects.len(), completed.errors.len(), completed.failure), (PHONES, 1, None));
    assert_eq!(completed.errors[0].reason, "ADTransientException");
}

#[tokio::test]
async fn a_cmdlet_that_asks_somebody_fails_and_the_session_goes_on() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let mut session = open(&site.organisation()).await.unwrap();
    for method in ["ReadLine", "PromptForCredential1"] {
        let _asks = mock.faults().guard(word("host_call", json!({ "method": method })));
        let (_, completed) = run(&mut *session, devices()).await.unwrap();
        let failure = completed.failure.unwrap();
        assert_eq!(
            (failure.reason.as_str(), failure.target.as_str()),
            ("PSInvalidOperationException", method)
        );
    }
    for (method, warnings) in [("WriteLine2", vec![]), ("WriteWarningLine", vec!["beware".to_owned()])] {
        let shows = json!({ "method": method, "text": "beware" });
        let _shows = mock.faults().guard(word("host_call", shows));
        let (objects, completed) = run(&mut *session, devices()).await.unwrap();
        assert_eq!((objects.len(), completed.failure, completed.warnings), (PHONES, None, warnings));
    }
    assert_eq!(run(&mut *session, devices()).await.unwrap().0.len(), PHONES);
}

#[tokio::test]
async fn a_busy_front_end_says_when_to_come_back() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let _busy = mock.faults().guard(Rule::new(Fault::status("503", "7")).on_operation("create"));
    let error = open(&site.organisation()).await.err().expect("it is busy");
    let told =
        matches!(&error, ExchangeError::Throttled { retry_after: Some(after), .. } if after.as_secs() == 7);
    assert!(told, "{error:?}");
}

#[tokio::test]
async fn exchange_2007_has_its_cmdlets_in_a_snap_in() {
    let mock = mock(|config| config.personality = "exchange2007".to_owned()).await;
    let site = Site::new(&[(&mock, "powershell_http")], &["ntlm"]).with("snap_in", json!(true));
    let mut session = open(&site.organisation()).await.unwrap();
    let (mailboxes, completed) = run(&mut *session, Cmdlet::new("Get-CASMailbox")).await.unwrap();
    assert!(completed.failure.is_none() && !mailboxes.is_empty(), "{completed:?}");
}

fn verdicts(results: &[crate::checks::CheckResult]) -> BTreeMap<&'static str, Verdict> {
    results.iter().map(|result| (result.name(), result.verdict())).collect()
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_and_shows_no_password_twice() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let needed = ["Get-MobileDevice", "Set-CASMailbox", "Clear-MobileDevice"];
    let well = doctor::run(&site.organisation(), &net(), &needed).await;
    assert!(well.iter().all(|result| result.verdict() == Verdict::Ok), "{well:?}");
    assert_eq!(mock.shells(), 0);
    let missing = doctor::run(&site.organisation(), &net(), &["Get-Nothing", "Get-MobileDevice"]).await;
    assert_eq!(verdicts(&missing)["exchange.cmdlets"], Verdict::Warn, "{missing:?}");

    let untrusted = Site::new(&[(&mock, "powershell")], &["basic"]).with("ca_file", Value::Null);
    let results = doctor::run(&untrusted.organisation(), &net(), &needed).await;
    assert_eq!(verdicts(&results)["exchange.tls"], Verdict::Fail, "{results:?}");

    let wrong = Site::new(&[(&mock, "powershell")], &["basic"]).password("wrong");
    for _ in 0..2 {
        let results = doctor::run(&wrong.organisation(), &net(), &needed).await;
        assert!(results.iter().any(|result| result.verdict() == Verdict::Fail), "{results:?}");
    }
    assert_eq!(mock.world().bad_passwords(&mock.service_account().user), 1);

    let mut none = Site::new(&[(&mock, "powershell")], &["basic"]);
    none.secrets = SecretStore::default();
    let results = doctor::run(&none.organisation(), &net(), &needed).await;
    assert_eq!(verdicts(&results)["exchange.secret"], Verdict::Fail, "{results:?}");

    let unsealed = Site::new(&[(&mock, "powershell_http")], &["kerberos"]);
    let mock_only_ntlm = doctor::run(&unsealed.organisation(), &net(), &needed).await;
    assert_eq!(verdicts(&mock_only_ntlm)["exchange.sign_in"], Verdict::Fail, "{mock_only_ntlm:?}");

    drop(mock);
    let dead = doctor::run(&site.organisation(), &net(), &needed).await;
    assert_eq!(verdicts(&dead)["exchange.tcp"], Verdict::Fail, "{dead:?}");
}

/// The mock's REST front end with an application whose certificate is registered there.
fn online(mock: &MockExchange) -> Site {
    let mut site = Site::new(&[(mock, "powershell")], &["basic"]);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["app".into()]).unwrap().self_signed(&key).unwrap();
    mock.register_app_certificate(&certificate.pem()).unwrap();
    let file = site.folder.path().join("app.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let world = mock.world();
    site.exchange = json!({
        "kind": "online", "tenant": world.facts().tenant, "client_id": world.facts().client_id,
        "certificate_file": file, "ca_file": site.exchange["ca_file"],
        "token_url": mock.url("token"), "rest_url": mock.url("rest"),
    });
    let key = Secret::new(key.serialize_pem());
    site.secrets = SecretStore::new([("exchange.default.key".to_owned(), key)]);
    site
}

#[tokio::test]
async fn exchange_online_gives_the_same_phones_by_rest() {
    let mock = mock(|config| config.personality = "online".to_owned()).await;
    for assertion in ["rs256", "ps256"] {
        let site = online(&mock).with("assertion", json!(assertion));
        let mut session = open(&site.organisation()).await.unwrap();
        let (objects, completed) = run(&mut *session, devices()).await.unwrap();
        assert_eq!((objects.len(), ids(&objects).len()), (PHONES, PHONES), "{completed:?}");
        let (_, completed) = run(&mut *session, Cmdlet::new("Get-Nothing")).await.unwrap();
        assert!(completed.failure.unwrap().reason.contains("CommandNotFound"));
        assert!(doctor::exists(&mut *session, "Set-CASMailbox").await.unwrap());
    }
}
