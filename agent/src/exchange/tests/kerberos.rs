//! Tickets of the mock's KDC: sealing, channel binding, clocks, and what is refused.

use super::*;

/// A mock by a name, which tickets need, and the accounts' KDC.
fn by_name(mock: &MockExchange, front: &str, auth: &str) -> Site {
    let url = mock.url(front).replace("127.0.0.1", "localhost");
    Site::new(&[(mock, front)], &[auth])
        .with("servers", json!([url]))
        .with("kerberos_realm", json!("ACME.EXAMPLE"))
        .with("kerberos_kdcs", json!([mock.address("kdc")]))
}

#[tokio::test]
async fn kerberos_seals_over_plain_http() {
    let mock = mock(|_| {}).await;
    let _space = mock.faults().guard(word("boundary_space", json!({})).on_operation("receive"));
    for auth in ["kerberos", "negotiate"] {
        whole(&mock, &by_name(&mock, "powershell_http", auth)).await;
    }
    // Some servers call it by its own name.
    let rule = word("kerberos_header", json!({})).on_operation("authenticate");
    let word = mock.faults().guard(rule);
    whole(&mock, &by_name(&mock, "powershell_http", "kerberos")).await;
    assert!(word.hits() > 0);
    let tickets = mock.journal().count(|entry| entry.front == "kdc" && entry.outcome == "ticket");
    assert_eq!(tickets, 6, "one for tickets and one for the server, each time");
}

#[tokio::test]
async fn a_redirected_session_shows_its_ticket_there() {
    let mock = mock(|_| {}).await;
    let to = mock.url("powershell").replace("127.0.0.1", "localhost");
    let site = by_name(&mock, "powershell_http", "kerberos");
    let both = json!([site.exchange["servers"][0], to]);
    let elsewhere = |installed: &str| {
        Rule::new(Fault::status("302", installed)).on_operation("create").on_front("powershell_http")
    };
    let guard = mock.faults().guard(elsewhere(&to));
    whole(&mock, &site.with("servers", both)).await;
    assert_eq!(guard.hits(), 1);
    assert!(mock.journal().count(|entry| entry.front == "powershell" && entry.operation == "create") > 0);
}

#[tokio::test]
async fn kerberos_is_bound_to_the_channel() {
    let mock = mock(|config| config.powershell.channel_binding = ChannelBinding::Require).await;
    whole(&mock, &by_name(&mock, "powershell", "kerberos")).await;
}

#[tokio::test]
async fn a_wrong_clock_is_called_one() {
    let mock = mock(|_| {}).await;
    let rule = word("clock_skew", json!({ "secs": 301 })).on_operation("authenticate");
    let skew = mock.faults().guard(rule);
    for front in ["powershell", "powershell_http"] {
        let error = open(&by_name(&mock, front, "kerberos").organisation()).await.err().unwrap();
        assert!(error.to_string().contains("KRB_AP_ERR_SKEW"), "{front}: {error}");
    }
    drop(skew);
    whole(&mock, &by_name(&mock, "powershell_http", "kerberos")).await;
    assert_eq!(mock.world().bad_passwords(&mock.service_account().user), 0);
}

#[tokio::test]
async fn a_kdc_judges_a_password_once() {
    let mock = mock(|_| {}).await;
    let site = by_name(&mock, "powershell_http", "kerberos").password("wrong");
    let organisation = site.organisation();
    for _ in 0..2 {
        let error = open(&organisation).await.err().unwrap();
        assert!(matches!(error, ExchangeError::Credentials { .. }), "{error:?}");
    }
    assert_eq!(mock.world().bad_passwords(&mock.service_account().user), 1);
}

#[tokio::test]
async fn a_server_without_the_name_is_told_by_the_kdc() {
    let mock = mock(|config| config.kerberos.hosts.clear()).await;
    let error = open(&by_name(&mock, "powershell_http", "kerberos").organisation()).await.err().unwrap();
    assert!(error.to_string().contains("does not know the service HTTP/localhost"), "{error}");
}

#[tokio::test]
async fn a_sealed_answer_that_was_changed_is_not_read() {
    let mock = mock(|_| {}).await;
    for auth in ["ntlm", "kerberos"] {
        let site = match auth {
            "ntlm" => Site::new(&[(&mock, "powershell_http")], &[auth]),
            _ => by_name(&mock, "powershell_http", auth),
        };
        let organisation = site.organisation();
        let mut session = open(&organisation).await.unwrap();
        let changed = mock.faults().guard(Rule::new(malformed("wrong_signature")).on_operation("receive"));
        let error = run(&mut *session, devices()).await.unwrap_err();
        let refused = matches!(error, ExchangeError::Protocol { .. } | ExchangeError::Unreachable { .. });
        assert!(refused && !error.session_lives() && changed.hits() > 0, "{auth}: {error:?}");
        drop((changed, session));
        let mut session = open(&organisation).await.unwrap();
        assert_eq!(
            run(&mut *session, devices()).await.unwrap().0.len(),
            PHONES,
            "{auth}: the next one works"
        );
    }
}
