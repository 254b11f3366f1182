//! What may come over the wire, and what must not.

use super::*;

#[tokio::test]
async fn fragments_out_of_order_end_the_session() {
    let mock = mock(|config| config.powershell.fragment_max_bytes = 1_000).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let mut session = open(&site.organisation()).await.unwrap();
    let reversed = mock.faults().guard(Rule::new(malformed("fragments_reversed")).on_operation("receive"));
    let error = run(&mut *session, devices()).await.unwrap_err();
    assert!(!error.session_lives() && reversed.hits() > 0, "{error:?}");
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
async fn the_server_is_read_no_faster_than_objects_are_taken() {
    const MANY: usize = 400;
    let mock = mock(|config| config.partnerships = Some(MANY)).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let received =
        || mock.journal().count(|entry| entry.operation == "receive" && entry.subject == "Get-MobileDevice");
    let (slow, quick) = (site.organisation(), site.organisation());
    let (mut slow, mut quick) = (open(&slow).await.unwrap(), open(&quick).await.unwrap());
    let (objects, mut taken) = mpsc::channel(1);
    let listing = devices();
    let take = async {
        taken.recv().await.expect("a first object");
        // Whole sessions pass; who takes nothing gets nothing more.
        for _ in 0..3 {
            run(&mut *quick, Cmdlet::new("Get-ActiveSyncOrganizationSettings")).await.unwrap();
        }
        assert_eq!(received(), 1);
        let mut count = 1;
        while taken.recv().await.is_some() {
            count += 1;
        }
        count
    };
    let both = async { tokio::join!(slow.run(&listing, objects), take) };
    let (completed, count) = timeout(WITHIN, both).await.expect("a cmdlet in time");
    assert!(completed.unwrap().failure.is_none());
    assert_eq!(count, MANY);
    assert!(received() > 2, "several answers are needed: {}", received());
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
async fn empty_answers_without_end_come_to_an_end() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let mut organisation = site.organisation();
    organisation.settings.silence_max_secs = 1;
    let settings = organisation.settings.clone();
    let servers = OnPremises::new("default", settings, site.secrets.clone(), RandomSource::seeded(1));
    organisation.backend = Backend::OnPremises(servers);
    for empty in [Fault::status("timeout", ""), malformed("no_streams")] {
        let mut session = open(&organisation).await.unwrap();
        let guard = mock.faults().guard(Rule::new(empty.clone()).on_operation("receive"));
        let error = run(&mut *session, devices()).await.unwrap_err();
        assert!(
            matches!(&error, ExchangeError::Unreachable { detail } if detail.contains("silent")),
            "{error:?}"
        );
        assert!(guard.hits() < 40, "{} requests in two seconds: {empty:?}", guard.hits());
    }
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
        "no_end_fragment",
        "deep_clixml",
        "reference_bomb",
        "clixml_doctype",
        "html",
        "doctype",
    ] {
        rules.push((kind.to_owned(), Rule::new(Fault::Malformed { kind: kind.to_owned() })));
    }
    // A fault that names no reason of its own.
    rules.push(("without_detail".to_owned(), Rule::new(Fault::status("without_detail", "no more"))));
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
