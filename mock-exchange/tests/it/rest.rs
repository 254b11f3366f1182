//! Exchange Online's REST over raw HTTP: tokens, cmdlets, pages, batches, refusals.

use std::time::Duration;

use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causeway_mock_exchange::{Config, MockExchange};
use causeway_mock_kit::Clock;
use causeway_mock_kit::fault::{Fault, Rule};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::fixture::START_MS;

/// A mock with an application that has a key.
struct App {
    mock: MockExchange,
    key: Key,
    token: String,
}

/// A key and the thumbprints of its certificate.
struct Key {
    pair: RsaKeyPair,
    pem: String,
    sha1: String,
    sha256: String,
}

impl Key {
    fn new() -> Self {
        let pair =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let params = rcgen::CertificateParams::new(vec!["causeway-agent".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        let thumbprint = |algorithm| {
            URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(algorithm, certificate.der()).as_ref())
        };
        Self {
            pem: certificate.pem(),
            sha1: thumbprint(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY),
            sha256: thumbprint(&aws_lc_rs::digest::SHA256),
            pair: RsaKeyPair::from_pkcs8(&pair.serialize_der()).unwrap(),
        }
    }

    fn sign(&self, header: &Value, claims: &Value, padding: &'static dyn RsaEncoding) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = aws_lc_rs::rand::SystemRandom::new();
        self.pair.sign(padding, &random, signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An answer: status, head, document.
type Answer = (u16, String, Value);

async fn post(mock: &MockExchange, front: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    request(mock, front, "POST", path, headers, body).await.expect("an answer")
}

async fn request(
    mock: &MockExchange,
    front: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let address = mock.address(front);
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(mock.ca().client_config()).connect(name, tcp).await.unwrap();
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection closed without goodbye is what some of these tests are about.
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null)))
}

fn now_secs() -> i64 {
    Clock::automatic().now_ms() / 1_000
}

impl App {
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::of("online");
        config.common.users = 30;
        config.partnerships = Some(25);
        change(&mut config);
        let mock = MockExchange::start_with_clock(config, Clock::stepped(START_MS)).await.unwrap();
        let key = Key::new();
        mock.register_app_certificate(&key.pem).unwrap();
        let mut app = Self { mock, key, token: String::new() };
        let claims = app.claims();
        let (status, _, body) = app.ask_token(&app.rs256(&claims)).await;
        assert_eq!(status, 200, "{body}");
        app.token = body["access_token"].as_str().unwrap().to_owned();
        app
    }

    fn client_id(&self) -> String {
        self.mock.world().facts().client_id.clone()
    }

    fn claims(&self) -> Value {
        let now = now_secs();
        json!({
            "aud": self.mock.url("token"), "iss": self.client_id(), "sub": self.client_id(),
            "jti": uuid::Uuid::new_v4().to_string(), "nbf": now, "exp": now + 300,
        })
    }

    fn rs256(&self, claims: &Value) -> String {
        self.key.sign(
            &json!({ "alg": "RS256", "typ": "JWT", "x5t": self.key.sha1 }),
            claims,
            &RSA_PKCS1_SHA256,
        )
    }

    async fn ask_token(&self, assertion: &str) -> Answer {
        self.ask(&format!(
            "grant_type=client_credentials&client_id={}&scope=https%3A%2F%2Foutlook.office365.com%2F.default\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={assertion}",
            self.client_id()
        ))
        .await
    }

    async fn ask(&self, form: &str) -> Answer {
        let path = format!("/{}/oauth2/v2.0/token", self.mock.world().facts().tenant);
        post(&self.mock, "token", &path, &[("content-type", "application/x-www-form-urlencoded")], form).await
    }

    fn path(&self, rest: &str) -> String {
        format!("/adminapi/beta/{}/{rest}", self.mock.world().facts().tenant)
    }

    async fn post(&self, path: &str, prefer: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json; charset=utf-8"),
            ("prefer", prefer),
        ];
        post(&self.mock, "rest", path, &headers, &body.to_string()).await
    }

    async fn invoke(&self, name: &str, parameters: Value) -> Answer {
        self.post(&self.path("InvokeCommand"), "odata.maxpagesize=1000", &input(name, parameters)).await
    }
}

fn input(name: &str, parameters: Value) -> Value {
    json!({ "CmdletInput": { "CmdletName": name, "Parameters": parameters } })
}

fn error_code(answer: &Answer) -> Option<u64> {
    answer.2["error_codes"][0].as_u64()
}

#[tokio::test]
async fn a_token_is_given_for_a_signed_assertion_and_for_nothing_else() {
    let app = App::start(|config| config.rest.single_use_assertions = true).await;
    let ps256 = app.key.sign(
        &json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": app.key.sha256 }),
        &app.claims(),
        &RSA_PSS_SHA256,
    );
    assert_eq!(app.ask_token(&ps256).await.0, 200);
    let claims = app.claims();
    assert_eq!(app.ask_token(&app.rs256(&claims)).await.0, 200);
    assert_eq!(error_code(&app.ask_token(&app.rs256(&claims)).await), Some(700_030), "the same jti again");
    let with = |name: &str, value: Value| {
        let mut claims = app.claims();
        claims[name] = value;
        app.rs256(&claims)
    };
    let now = now_secs();
    let cases = [
        (with("aud", json!("https://elsewhere/token")), 700_023),
        (with("sub", json!("another")), 700_021),
        (with("exp", json!(now - 301)), 700_024),
        (with("exp", json!(now + 3_600)), 700_024),
        (with("nbf", json!(now + 600)), 700_024),
        (with("jti", json!("")), 50_027),
        (
            Key::new().sign(
                &json!({ "alg": "RS256", "x5t": app.key.sha1 }),
                &app.claims(),
                &RSA_PKCS1_SHA256,
            ),
            700_027,
        ),
        (app.key.sign(&json!({ "alg": "RS256", "x5t": "AAAA" }), &app.claims(), &RSA_PKCS1_SHA256), 700_027),
        (
            app.key.sign(&json!({ "alg": "none", "x5t": app.key.sha1 }), &app.claims(), &RSA_PKCS1_SHA256),
            700_027,
        ),
        ("a.b".to_owned(), 50_027),
        ("%21.%21.%21".to_owned(), 50_027),
    ];
    for (assertion, code) in cases {
        let answer = app.ask_token(&assertion).await;
        assert_eq!(error_code(&answer), Some(code), "{}", answer.2);
        assert!(answer.2["access_token"].is_null());
    }
    let secret = format!(
        "grant_type=client_credentials&client_id={}&scope=https%3A%2F%2Foutlook.office365.com%2F.default&client_secret=x",
        app.client_id()
    );
    assert_eq!(error_code(&app.ask(&secret).await), Some(7_000_215));
    assert_eq!(error_code(&app.ask("grant_type=password").await), Some(70_003));
    assert_eq!(error_code(&app.ask("grant_type=client_credentials&client_id=x").await), Some(700_016));
}

#[tokio::test]
async fn an_assertion_may_be_sent_again_unless_it_counts_once() {
    let app = App::start(|_| {}).await;
    let mut claims = app.claims();
    // As MSAL writes them: fractions of seconds, no nbf, and padding in the thumbprint.
    claims["exp"] = json!(now_secs() as f64 + 300.5);
    claims["iat"] = json!(now_secs() as f64 + 0.25);
    claims.as_object_mut().unwrap().remove("nbf");
    let assertion = app.key.sign(
        &json!({ "alg": "PS256", "x5t#S256": format!("{}=", app.key.sha256) }),
        &claims,
        &RSA_PSS_SHA256,
    );
    for _ in 0..2 {
        assert_eq!(app.ask_token(&assertion).await.0, 200);
    }
}

#[tokio::test]
async fn the_tenants_endpoints_are_told() {
    let app = App::start(|_| {}).await;
    let get = async |path: &str| request(&app.mock, "token", "GET", path, &[], "").await.unwrap();
    let (tenant, domain) = {
        let world = app.mock.world();
        (world.facts().tenant.clone(), world.facts().domain.clone())
    };
    for name in [&tenant, &domain] {
        let (status, _, body) = get(&format!("/{name}/v2.0/.well-known/openid-configuration")).await;
        assert_eq!((status, body["token_endpoint"].as_str()), (200, Some(app.mock.url("token"))), "{body}");
        let keys = body["jwks_uri"].as_str().unwrap().split_once(&tenant).unwrap().1.to_owned();
        assert_eq!(get(&format!("/{tenant}{keys}")).await.0, 200);
    }
    let (status, _, body) = get("/nobody.example/v2.0/.well-known/openid-configuration").await;
    assert_eq!((status, body["error"].as_str()), (400, Some("invalid_tenant")));
    assert_eq!(get(&format!("/{tenant}/v2.0/elsewhere")).await.0, 404);
    let instance = async |authority: &str| {
        let asked = format!("https%3A%2F%2F{authority}%2F{tenant}%2Foauth2%2Fv2.0%2Fauthorize");
        get(&format!("/common/discovery/instance?api-version=1.0&authorization_endpoint={asked}")).await
    };
    let (status, _, body) = instance("127.0.0.1").await;
    let found = body["tenant_discovery_endpoint"].as_str().unwrap_or_default().to_owned();
    assert_eq!(status, 200, "{body}");
    assert!(found.ends_with(&format!("/{tenant}/v2.0/.well-known/openid-configuration")), "{found}");
    let (status, _, body) = instance("login.elsewhere.example").await;
    assert_eq!((status, body["error"].as_str()), (400, Some("invalid_instance")));
}

#[tokio::test]
async fn a_token_for_another_service_opens_nothing_here() {
    let mut app = App::start(|_| {}).await;
    let form = |resource: &str| {
        format!(
            "grant_type=client_credentials&client_id={}&scope={resource}%2F.default\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={}",
            app.client_id(),
            app.rs256(&app.claims())
        )
    };
    let (status, _, body) = app.ask(&form("https%3A%2F%2Fgraph.microsoft.com")).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(error_code(&app.ask(&form("https%3A%2F%2Fnobody.example")).await), Some(500_011));
    app.token = body["access_token"].as_str().unwrap().to_owned();
    assert_eq!(app.invoke("Get-OrganizationConfig", json!({})).await.0, 401);
}

#[tokio::test]
async fn requests_without_a_good_token_are_turned_away() {
    let mut app = App::start(|_| {}).await;
    let good = app.token.clone();
    let get = || input("Get-OrganizationConfig", json!({}));
    for token in ["", "x.y.z", &good[..good.len() - 2]] {
        app.token = token.to_owned();
        let (status, head, _) = app.post(&app.path("InvokeCommand"), "", &get()).await;
        assert_eq!(status, 401);
        assert!(head.contains("www-authenticate: bearer"), "{head}");
    }
    app.token = good;
    assert_eq!(app.post(&app.path("InvokeCommand"), "", &get()).await.0, 200);
    assert_eq!(app.post("/adminapi/beta/another/InvokeCommand", "", &get()).await.0, 403);
    app.mock.clock().advance(Duration::from_secs(3_600));
    assert_eq!(app.post(&app.path("InvokeCommand"), "", &get()).await.0, 401, "expired");
}

#[tokio::test]
async fn objects_come_as_json_with_what_is_selected() {
    let app = App::start(|_| {}).await;
    let (status, _, body) = app.invoke("Get-MobileDevice", json!({ "ResultSize": 3 })).await;
    assert_eq!(status, 200, "{body}");
    let first = &body["value"][0];
    assert_eq!(body["value"].as_array().unwrap().len(), 3);
    assert!(first["DeviceAccessState"] == "Allowed" && first["FirstSyncTime"].is_string(), "{first}");
    assert_eq!(first["FirstSyncTime@data.type"], "System.DateTime");
    assert_eq!(first["ObjectClass@odata.type"], "#Collection(String)");
    assert!(
        body["@adminapi.warnings"][0].as_str().unwrap().contains("ResultSize"),
        "{}",
        body["@adminapi.warnings"]
    );
    let path = app.path("InvokeCommand?$select=DeviceId,guid");
    let (_, _, body) = app.post(&path, "", &input("Get-MobileDevice", json!({}))).await;
    let mut names: Vec<_> = body["value"][0].as_object().unwrap().keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["DeviceId", "Guid", "Guid@data.type"]);
}

#[tokio::test]
async fn pages_are_asked_for_with_the_same_body() {
    let app = App::start(|_| {}).await;
    let body = input("Get-MobileDevice", json!({ "ResultSize": "Unlimited" }));
    let mut path = app.path("InvokeCommand");
    let (mut ids, mut sizes, mut links) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let (status, _, page) = app.post(&path, "odata.maxpagesize=10", &body).await;
        assert_eq!(status, 200, "{page}");
        let values = page["value"].as_array().unwrap();
        sizes.push(values.len());
        ids.extend(values.iter().map(|object| object["DeviceId"].as_str().unwrap().to_owned()));
        let Some(next) = page["@odata.nextLink"].as_str() else { break };
        path = next.split_once(app.mock.address("rest")).unwrap().1.to_owned();
        links.push(path.clone());
        let other = input("Get-MobileDevice", json!({}));
        assert_eq!(app.post(&path, "odata.maxpagesize=10", &other).await.0, 400, "another body");
    }
    ids.sort();
    ids.dedup();
    assert_eq!((sizes, ids.len()), (vec![10, 10, 5], 25));
    let again = app.post(links.last().unwrap(), "odata.maxpagesize=10", &body).await;
    assert_eq!(again.2["value"].as_array().unwrap().len(), 5, "the last page can be asked for again");
    assert_eq!(app.post(&links[0], "odata.maxpagesize=10", &body).await.0, 400, "an earlier one cannot");
}

#[tokio::test]
async fn hashtables_change_lists_and_errors_say_what_is_wrong() {
    let app = App::start(|_| {}).await;
    let add = json!({ "@odata.type": "#Exchange.GenericHashTable", "add": "ABC" });
    let set = json!({ "Identity": "asmith", "ActiveSyncAllowedDeviceIDs": add });
    let (status, _, body) = app.invoke("Set-CASMailbox", set).await;
    assert_eq!((status, &body["value"]), (200, &json!([])), "{body}");
    let (_, _, body) = app.invoke("Get-CASMailbox", json!({ "Identity": "asmith" })).await;
    assert_eq!(body["value"][0]["ActiveSyncAllowedDeviceIDs"], json!(["ABC"]));
    let untyped = json!({ "Identity": "asmith", "ActiveSyncAllowedDeviceIDs": { "add": "X" } });
    assert_eq!(app.invoke("Set-CASMailbox", untyped).await.0, 400);
    let (status, _, body) = app.invoke("Get-CASMailbox", json!({ "Identity": "nobody" })).await;
    assert_eq!((status, body["error"]["code"].as_str()), (404, Some("NotFound")));
    let detail = body["error"]["details"][0]["message"].as_str().unwrap();
    assert!(
        detail.starts_with("Ex")
            && detail.contains("|Microsoft.Exchange.Configuration.Tasks.ManagementObjectNotFoundException|"),
        "{detail}"
    );
    let (status, _, body) = app.invoke("Get-ActiveSyncDevice", json!({})).await;
    assert_eq!(status, 403, "{body}");
    let (status, _, body) = app.invoke("Get-MobileDevice", json!({ "DomainController": "dc1" })).await;
    assert_eq!(status, 400, "{body}");
    for wrong in [
        json!({}),
        json!({ "CmdletInput": {} }),
        json!({ "CmdletInput": { "CmdletName": "Get-Mailbox", "Parameters": 1 } }),
    ] {
        assert_eq!(app.post(&app.path("InvokeCommand"), "", &wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(app.post(&app.path("Mailbox"), "", &json!({})).await.0, 404);
    let bearer = format!("Bearer {}", app.token);
    let get =
        request(&app.mock, "rest", "GET", &app.path("InvokeCommand"), &[("authorization", &bearer)], "")
            .await
            .unwrap();
    assert_eq!(get.0, 405);
}

#[tokio::test]
async fn what_the_shell_would_ask_is_confirmed_here() {
    let app = App::start(|_| {}).await;
    let (_, _, body) = app.invoke("Get-MobileDevice", json!({ "ResultSize": 1 })).await;
    let guid = body["value"][0]["Guid"].clone();
    assert_eq!(app.invoke("Remove-MobileDevice", json!({ "Identity": guid })).await.0, 200);
    assert_eq!(app.invoke("Get-MobileDevice", json!({ "Identity": guid })).await.0, 404);
}

#[tokio::test]
async fn a_batch_answers_each_of_its_requests() {
    let app = App::start(|_| {}).await;
    let item = |id: u32, name: &str, parameters: Value| json!({ "id": id, "method": "POST", "url": "/InvokeCommand", "body": input(name, parameters) });
    let requests = json!({ "requests": [
        item(1, "Get-Mailbox", json!({ "Identity": "asmith" })),
        item(2, "Get-Mailbox", json!({ "Identity": "nobody" })),
        { "id": 3, "method": "GET", "url": "/Mailbox" },
    ]});
    let (status, _, body) = app.post(&app.path("$batch"), "", &requests).await;
    assert_eq!(status, 200);
    let statuses: Vec<_> = body["responses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| (answer["id"].as_u64().unwrap(), answer["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(statuses, [(1, 200), (2, 404), (3, 404)]);
    assert_eq!(body["responses"][0]["body"]["value"][0]["Alias"], "asmith");
    let many = json!({ "requests": vec![item(1, "Get-Mailbox", json!({})); 21] });
    assert_eq!(app.post(&app.path("$batch"), "", &many).await.0, 400);
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_back() {
    let app = App::start(|config| config.throttling.rest_requests_per_minute = 2).await;
    let ask = || app.invoke("Get-OrganizationConfig", json!({}));
    assert_eq!((ask().await.0, ask().await.0), (200, 200));
    let (status, head, body) = ask().await;
    assert_eq!(status, 429, "{body}");
    assert!(head.contains("retry-after: 60"), "{head}");
    app.mock.clock().advance(Duration::from_secs(60));
    assert_eq!(ask().await.0, 200);
}

#[tokio::test]
async fn faults_are_obeyed() {
    let app = App::start(|_| {}).await;
    let ask = || app.invoke("Get-Mailbox", json!({ "Identity": "asmith" }));
    let on = |fault: Fault| {
        app.mock.faults().guard(Rule::new(fault).on_front("rest").on_operation("Get-Mailbox").times(1))
    };
    let busy = on(Fault::status(503, "17"));
    let (status, head, _) = ask().await;
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: 17"), "{head}");
    drop(busy);
    let half = on(Fault::Malformed { kind: "truncated".to_owned() });
    assert_eq!(ask().await.2, Value::Null);
    drop(half);
    let close = on(Fault::Close {});
    let bearer = format!("Bearer {}", app.token);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = input("Get-Mailbox", json!({})).to_string();
    assert!(request(&app.mock, "rest", "POST", &app.path("InvokeCommand"), &headers, &body).await.is_none());
    drop(close);
    assert_eq!(ask().await.0, 200);
    let _token = app.mock.faults().guard(Rule::new(Fault::status(503, "1")).on_front("token"));
    assert_eq!(app.ask_token(&app.rs256(&app.claims())).await.0, 503);
}

#[tokio::test]
async fn only_certificates_with_an_rsa_key_can_be_registered() {
    let app = App::start(|_| {}).await;
    let again = app.mock.register_app_certificate(&app.key.pem).unwrap();
    assert_eq!(again.len(), 40);
    for wrong in
        ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", app.mock.ca().ca_pem()]
    {
        assert!(app.mock.register_app_certificate(wrong).is_err(), "{wrong:?}");
    }
}
