//! curl against the cloud's one port: certificate, HTTP/2 and HTTP/1.1 by ALPN, the API, its errors and its document.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_mock_cloud::{Config, MockCloud};
use causeway_tests::program;
use serde_json::Value;
use tokio::process::Command;

const WITHIN: Duration = Duration::from_secs(30);

/// What curl got.
struct Answer {
    status: u16,
    version: String,
    content_type: String,
    body: String,
}

#[tokio::test]
async fn the_api_speaks_both_versions_and_refuses_in_words() -> Result<()> {
    let Some(_) = program::find("curl", "curl") else { return Ok(()) };
    let cloud = MockCloud::start(Config::default()).await?;
    let token = format!("Authorization: Bearer {}", cloud.token());
    let json = "Content-Type: application/json";

    let document = curl(&cloud, &["--http2"], "/api/v1/openapi.json").await?;
    ensure!((document.status, &*document.version) == (200, "2"), "{} {}", document.status, document.version);
    let read: Value = serde_json::from_str(&document.body).context("the document is JSON")?;
    ensure!(read["openapi"].as_str().is_some_and(|version| version.starts_with('3')), "{}", read["openapi"]);

    let made =
        curl(&cloud, &["--http1.1", "-H", &token, "-H", json, "-d", r#"{"name":"Acme"}"#], "/api/v1/tenants")
            .await?;
    ensure!(made.status / 100 == 2 && made.version == "1.1", "{} {}", made.status, made.body);
    let tenant: Value = serde_json::from_str(&made.body)?;
    let tenant = tenant["id"].as_str().context("a tenant has an id")?;
    let users =
        curl(&cloud, &["--http2", "-H", &token], &format!("/api/v1/tenants/{tenant}/users?limit=5")).await?;
    let users: Value = serde_json::from_str(&users.body)?;
    ensure!(users["items"].as_array().is_some_and(Vec::is_empty) && users["next"].is_null(), "{users}");

    for (arguments, path, status) in [
        (vec!["-H", json], format!("/api/v1/tenants/{tenant}/users"), 401),
        (vec!["-H", "Authorization: Bearer wrong"], format!("/api/v1/tenants/{tenant}/users"), 401),
        (vec!["-H", &*token], "/api/v1/tenants/nobody/users".to_owned(), 404),
        (vec!["-H", &*token, "-H", json, "-d", "{"], "/api/v1/tenants".to_owned(), 400),
    ] {
        let answer = curl(&cloud, &arguments, &path).await?;
        ensure!(answer.status == status, "{path}: {} instead of {status}: {}", answer.status, answer.body);
        ensure!(
            answer.content_type.starts_with("application/problem+json"),
            "{path}: {}",
            answer.content_type
        );
        let problem: Value =
            serde_json::from_str(&answer.body).context("a problem document is JSON (RFC 9457)")?;
        ensure!(problem["status"] == status && problem["title"].is_string(), "{problem}");
    }
    Ok(())
}

#[tokio::test]
async fn old_tls_and_foreign_authorities_do_not_get_through() -> Result<()> {
    let Some(_) = program::find("curl", "curl") else { return Ok(()) };
    let cloud = MockCloud::start(Config::default()).await?;
    let url = format!("{}/api/v1/openapi.json", cloud.url("api").trim_end_matches('/'));
    for (arguments, code) in [
        // 35: the handshake failed; 60: the certificate is of nobody trusted.
        (vec!["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", "-k"], 35),
        (vec![], 60),
    ] {
        let mut command = Command::new("curl");
        command.args(["-sS", "--noproxy", "*"]).args(&arguments).arg(&url);
        let run = program::run(&mut command, "", WITHIN).await?;
        ensure!(run.status.code() == Some(code), "{arguments:?}: {run:?}");
    }
    Ok(())
}

async fn curl(cloud: &MockCloud, arguments: &[&str], path: &str) -> Result<Answer> {
    const FACTS: &str = "\n%{http_code} %{http_version} %{content_type}";
    let mut command = Command::new("curl");
    command.args(["-sS", "--noproxy", "*", "-w", FACTS, "--cacert"]).arg(cloud.ca_pem()).args(arguments);
    command.arg(format!("{}{path}", cloud.url("api").trim_end_matches('/')));
    let run = program::run(&mut command, "", WITHIN).await?.expect_success();
    let (body, facts) = run.stdout.rsplit_once('\n').context("curl printed its facts")?;
    let mut words = facts.splitn(3, ' ');
    let mut next = || words.next().unwrap_or_default().to_owned();
    let status = next().parse().context("a status")?;
    Ok(Answer { status, version: next(), content_type: next(), body: body.to_owned() })
}
