//! How the agent signs in: passwords, sealing, channel binding, several accounts.

use super::*;

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

/// NTLM's answer is made with the password alone: a server that looked it up by what fits would take anybody's.
#[tokio::test]
async fn the_password_of_somebody_else_opens_nothing() {
    const OTHERS: &str = "the second account's";
    let organisation = |config: &mut Config| {
        config.accounts.push(AccountConfig {
            login: "second".to_owned(),
            password: OTHERS.to_owned(),
            roles: vec!["Organization Management".to_owned()],
        });
    };
    for (front, auth) in [
        ("powershell", "basic"),
        ("powershell", "ntlm"),
        ("powershell_http", "ntlm"),
        ("powershell_http", "negotiate"),
    ] {
        let mock = mock(organisation).await;
        let servers = [(&mock, front)];
        let second = Site::new(&servers, &[auth])
            .with("accounts", json!([{ "user": "ACME\\second" }]))
            .password(OTHERS);
        whole(&mock, &second).await;
        let first = Site::new(&servers, &[auth]).password(OTHERS);
        let refused = open(&first.organisation()).await.err();
        assert!(matches!(refused, Some(ExchangeError::Credentials { .. })), "{front} {auth}: {refused:?}");
        let person =
            mock.world().company().people.iter().find(|person| person.is_active()).unwrap().password();
        let first = Site::new(&servers, &[auth]).password(&person);
        let refused = open(&first.organisation()).await.err();
        assert!(matches!(refused, Some(ExchangeError::Credentials { .. })), "{front} {auth}: {refused:?}");
        assert_eq!(mock.world().bad_passwords(&mock.service_account().user), 2, "{front} {auth}");
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
