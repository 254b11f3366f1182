//! Several servers, redirects, runspaces: where a session goes and when it ends.

use super::*;

#[tokio::test]
async fn a_session_keeps_to_the_server_that_its_cookie_names() {
    let mock = mock(|config| config.powershell.affinity_cookie = true).await;
    whole(&mock, &Site::new(&[(&mock, "powershell")], &["basic"])).await;
    whole(&mock, &Site::new(&[(&mock, "powershell_http")], &["ntlm"])).await;
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
    // Sealed or not, the second server is signed in to anew.
    for (front, auth) in [("powershell_http", "ntlm"), ("powershell", "negotiate"), ("powershell", "basic")] {
        let site = Site::new(&[(&one, front), (&two, front)], &[auth]);
        let to_two = Rule::new(Fault::status("302", two.url(front))).on_operation("create");
        let _guard = one.faults().guard(to_two);
        let mut session = open(&site.organisation()).await.unwrap();
        assert_eq!((one.shells(), two.shells()), (0, 1), "{front} {auth}");
        assert_eq!(run(&mut *session, devices()).await.unwrap().0.len(), PHONES, "{front} {auth}");
        session.close().await;
        shells(&two, 0).await;
    }
    let site = Site::new(&[(&one, "powershell"), (&two, "powershell")], &["basic"]);
    let to_two = Rule::new(Fault::status("302", two.url("powershell"))).on_operation("create");
    let _guard = one.faults().guard(to_two);
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
async fn behind_a_balancer_each_node_is_signed_in_to() {
    let (one, two) = (mock(|_| {}).await, mock(|_| {}).await);
    for (front, auth) in
        [("powershell_http", "ntlm"), ("powershell_http", "negotiate"), ("powershell", "basic")]
    {
        let node = |mock: &MockExchange| mock.address(front).parse().unwrap();
        let balancer = TcpProxy::start(node(&one)).await.unwrap();
        let url = one.url(front).replace(one.address(front), &balancer.address().to_string());
        let site = Site::new(&[(&one, front), (&two, front)], &[auth]).with("servers", json!([url]));
        let organisation = site.organisation();
        let mut session = open(&organisation).await.unwrap();
        assert_eq!(run(&mut *session, devices()).await.unwrap().0.len(), PHONES, "{front} {auth}");
        assert_eq!((one.shells(), two.shells()), (1, 0), "{front} {auth}");
        // From now on connections go to the other node, which knows neither the shell nor who asks.
        balancer.retarget(node(&two));
        assert!(balancer.cut() > 0);
        let phones = match run(&mut *session, devices()).await {
            Ok((phones, _)) => phones,
            // A cmdlet that was on its way may have run: whoever asked decides whether to ask again.
            Err(ExchangeError::Unreachable { .. }) => {
                session = open(&organisation).await.unwrap();
                run(&mut *session, devices()).await.unwrap().0
            }
            Err(error) => panic!("{front} {auth}: {error:?}"),
        };
        assert_eq!(phones.len(), PHONES, "{front} {auth}");
        assert_eq!(two.shells(), 1, "{front} {auth}");
        session.close().await;
        shells(&two, 0).await;
        one.reset().unwrap();
    }
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
async fn a_busy_front_end_says_when_to_come_back() {
    let mock = mock(|_| {}).await;
    let site = Site::new(&[(&mock, "powershell")], &["basic"]);
    let _busy = mock.faults().guard(Rule::new(Fault::status("503", "7")).on_operation("create"));
    let error = open(&site.organisation()).await.err().expect("it is busy");
    let told =
        matches!(&error, ExchangeError::Throttled { retry_after: Some(after), .. } if after.as_secs() == 7);
    assert!(told, "{error:?}");
}
