//! Exchange 2007, Exchange Online, and the doctor before any of them.

use super::*;

#[tokio::test]
async fn exchange_2007_has_its_cmdlets_in_a_snap_in() {
    let mock = mock(|config| config.personality = "exchange2007".to_owned()).await;
    let site = Site::new(&[(&mock, "powershell_http")], &["ntlm"]).with("snap_in", json!(true));
    let mut session = open(&site.organisation()).await.unwrap();
    let (mailboxes, completed) = run(&mut *session, Cmdlet::new("Get-CASMailbox")).await.unwrap();
    assert!(completed.failure.is_none() && !mailboxes.is_empty(), "{completed:?}");
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
