//! Foreign clients of the channel: slixmpp with a console account over SCRAM and with an agent's own certificate over
//! EXTERNAL, and the latter over WebSocket with another library.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use causeway_agent::cli::{self, Arguments};
use causeway_agent::identity;
use causeway_mock_cloud::{Config, MockCloud};
use causeway_scenarios::cloud_api::Tenant;
use causeway_scenarios::http::Client;
use causeway_tests::{python, tls};
use clap::Parser;

const WITHIN: Duration = Duration::from_secs(110);

const CONSOLE_PASSWORD: &str = "console of the strangers' test";

#[tokio::test]
async fn a_console_logs_in_looks_around_and_resumes() -> Result<()> {
    if python::interpreter().is_none() {
        return Ok(());
    }
    let (cloud, domain) = start().await?;
    let mut arguments = address(&cloud)?;
    arguments.push(domain);
    arguments.push(path(cloud.ca_pem())?);
    let environment = [("CAUSEWAY_PASSWORD", CONSOLE_PASSWORD)];
    if let Some(run) = python::run("slixmpp_channel.py", &arguments, &environment, WITHIN).await? {
        run.expect_success();
    }
    let refused = [("CAUSEWAY_PASSWORD", "wrong")];
    if let Some(run) = python::run("slixmpp_channel.py", &arguments, &refused, WITHIN).await? {
        anyhow::ensure!(run.stdout.contains("FAIL SCRAM login and bind"), "a wrong password: {run:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_agents_certificate_logs_in_by_external() -> Result<()> {
    if python::interpreter().is_none() {
        return Ok(());
    }
    external("slixmpp_external.py").await
}

/// slixmpp speaks no WebSocket, so another stranger does: the `websockets` library.
#[tokio::test]
async fn an_agents_certificate_logs_in_over_a_websocket() -> Result<()> {
    if python::interpreter().is_none() {
        return Ok(());
    }
    external("websocket_channel.py").await
}

/// Enrols an agent and lends its certificate to a script.
async fn external(script: &str) -> Result<()> {
    let (cloud, domain) = start().await?;
    let ca = path(cloud.ca_pem())?;
    let tls = tls::trusting_only(&std::fs::read_to_string(cloud.ca_pem())?)?;
    let http = Client::new(cloud.url("api"), Some(Arc::new(tls)), Some(cloud.token().to_owned()))?;
    let tenant = Tenant::create(http, "acme").await?;
    let key = tenant.enrollment_key().await?;
    let folder = tempfile::tempdir()?;
    let data_dir = folder.path().join("agent");
    let words =
        ["causeway-agent", "enroll", "--cloud", cloud.url("api"), "--key", &key, "--ca", &ca, "--data-dir"];
    let words = words.into_iter().map(str::to_owned).chain([path(&data_dir)?]);
    cli::execute(Arguments::parse_from(words)).await?;

    // What the agent keeps is what any other client would be given as two files.
    let kept: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data_dir.join(identity::FILE_NAME))?)?;
    let (certificate, private) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, kept["chain_pem"].as_str().context("a chain")?)?;
    std::fs::write(&private, kept["key_pem"].as_str().context("a key")?)?;
    let mut arguments = address(&cloud)?;
    let jid = kept["jid"].as_str().context("a JID")?.to_owned();
    arguments.extend([domain, ca, jid, path(&certificate)?, path(&private)?]);
    if let Some(run) = python::run(script, &arguments, &[], WITHIN).await? {
        run.expect_success();
    }
    Ok(())
}

async fn start() -> Result<(MockCloud, String)> {
    let mut config = Config::default();
    config.channel.console_password = Some(CONSOLE_PASSWORD.to_owned());
    let domain = config.domain.clone();
    Ok((MockCloud::start(config).await?, domain))
}

fn address(cloud: &MockCloud) -> Result<Vec<String>> {
    let authority = cloud.url("api").trim_start_matches("https://").trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').context("the API's URL has a port")?;
    Ok(vec![host.to_owned(), port.to_owned()])
}

fn path(path: &Path) -> Result<String> {
    Ok(path.to_str().context("the path is UTF-8")?.to_owned())
}
