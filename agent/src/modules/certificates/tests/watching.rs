//! The watch over authorities, and the doctor.

use super::*;
use crate::modules::Verdict;
use causeway_protocol::health::{ModuleState, Severity};

const DAY_MS: i64 = 24 * 3_600_000;

#[tokio::test]
async fn ends_of_certificates_are_told_in_time_and_taken_back() {
    let bench = Bench::new();
    let ra =
        |days: i64| vec![("the registration authority CN=ra".to_owned(), NOW_MS + days * DAY_MS + 3_600_000)];
    for (days, severity, resolved) in
        [(29, Severity::Warning, false), (-3, Severity::Critical, false), (700, Severity::Info, true)]
    {
        bench.fake.state().ends = ra(days);
        assert_eq!(watch::look(&bench.module.relay, &bench.cx).await, !resolved);
        let notice = bench.cloud.notices().into_iter().rfind(|notice| notice.code == watch::ENDS).unwrap();
        assert_eq!((notice.severity, notice.resolved), (severity, resolved), "{notice:?}");
        assert!(notice.subject.contains("default") && notice.subject.contains("CN=ra"));
        let found = bench.module.check(bench.cx.clone()).await;
        let check = found.iter().find(|result| result.name() == "certificates.ends").unwrap();
        let expected = match days {
            ..0 => Verdict::Fail,
            0..30 => Verdict::Warn,
            _ => Verdict::Ok,
        };
        assert_eq!(check.verdict(), expected, "{check:?}");
    }
    assert_eq!(bench.cx.status.get().state, ModuleState::Ok);
}

#[tokio::test]
async fn an_authority_that_does_not_answer_is_told() {
    let bench = Bench::new();
    bench.fake.state().down = true;
    assert!(watch::look(&bench.module.relay, &bench.cx).await);
    assert_eq!(bench.cx.status.get().state, ModuleState::Degraded);
    let told = || bench.cloud.notices().into_iter().rfind(|notice| notice.code == watch::UNWELL).unwrap();
    assert!(!told().resolved && !told().remedy.is_empty());
    let found = bench.module.check(bench.cx.clone()).await;
    assert!(found.iter().any(|result| result.verdict() == Verdict::Fail && result.subject() == "default"));
    bench.fake.state().down = false;
    assert!(!watch::look(&bench.module.relay, &bench.cx).await);
    assert!(told().resolved);
}

#[tokio::test]
async fn a_front_end_is_missed_before_the_last_one_fails() {
    let bench = Bench::new();
    let with = |trouble: Option<&str>| {
        vec![("ndes1:443".to_owned(), trouble.map(str::to_owned)), ("ndes2:443".to_owned(), None)]
    };
    for (trouble, verdict) in
        [(None, Verdict::Ok), (Some("it cannot be reached"), Verdict::Warn), (None, Verdict::Ok)]
    {
        bench.fake.state().front_ends = with(trouble);
        assert_eq!(watch::look(&bench.module.relay, &bench.cx).await, trouble.is_some());
        let notices = bench.cloud.notices();
        let of = |host| {
            notices.iter().rfind(|it| it.code == watch::FRONT_END && it.subject.ends_with(host)).unwrap()
        };
        assert_eq!(of("ndes1:443").resolved, trouble.is_none());
        assert!(of("ndes2:443").resolved);
        let found = bench.module.check(bench.cx.clone()).await;
        let check = found.iter().find(|result| result.name() == "certificates.front_ends").unwrap();
        assert_eq!(check.verdict(), verdict, "{check:?}");
        assert_eq!(check.detail().contains("1 of 2"), trouble.is_some(), "{check:?}");
    }
}

#[tokio::test]
async fn the_doctor_uses_up_nothing() {
    let bench = Bench::new();
    bench.fake.state().wants_challenge = true;
    for _ in 0..3 {
        bench.module.check(bench.cx.clone()).await;
        watch::look(&bench.module.relay, &bench.cx).await;
    }
    assert_eq!(bench.fake.state().handed_out, 0);
}

#[tokio::test]
async fn what_profiles_lack_is_named() {
    let mut other = profile("other", "agent");
    other["authority"] = json!("elsewhere");
    let bench = Bench::with(json!({ "profiles": [other] }));
    let found = bench.module.check(bench.cx.clone()).await;
    assert_eq!((found[0].verdict(), found[0].detail()), (Verdict::Fail, "not defined: elsewhere"));
    let mut strong = profile("strong", "agent");
    strong["alternative_names"] = json!(["sid:%sid%"]);
    let bench = Bench::with(json!({ "profiles": [strong] }));
    let found = bench.module.check(bench.cx.clone()).await;
    assert_eq!(found[0].verdict(), Verdict::Warn, "{found:?}");
}
