//! psrpcore and pyspnego as a server of PowerShell remoting, and our client of Exchange against them: Basic over TLS, and
//! NTLM with sealed messages over plain HTTP.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_agent::clock::Clock;
use causeway_agent::dial::proxy::Ways;
use causeway_agent::dial::{Dialer, resolve::Names};
use causeway_agent::directory::Net;
use causeway_agent::exchange::{Exchange, ExchangeError, Organisation, Session, Urgency};
use causeway_agent::modules::ModuleSettings;
use causeway_agent::random::RandomSource;
use causeway_agent::secrets::SecretStore;
use causeway_protocol::Secret;
use causeway_protocol::clixml::{Object, Value};
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use causeway_tests::python;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::timeout;

const USER: &str = "ACME\\svc-causeway";
const PASSWORD: &str = "pa55 \u{fc} of the stranger";

/// One cmdlet, and the start of Python.
const WITHIN: Duration = Duration::from_secs(60);

/// The server, until dropped.
struct Stranger {
    url: String,
    lines: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
    _process: Child,
}

impl Stranger {
    /// `None` after a counted skip.
    async fn start(mode: &str) -> Result<Option<Self>> {
        let Some(python) = python::interpreter() else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])?.self_signed(&key)?;
        let [cert_file, key_file, users] =
            ["cert.pem", "key.pem", "users"].map(|name| folder.path().join(name));
        std::fs::write(&cert_file, certificate.pem())?;
        std::fs::write(&key_file, key.serialize_pem())?;
        std::fs::write(&users, format!("ACME:svc-causeway:{PASSWORD}"))?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/strangers/psrpcore_server.py");
        let mut process = tokio::process::Command::new(python)
            .arg("-u")
            .arg(script)
            .arg(mode)
            .args([cert_file, key_file])
            .envs([("CAUSEWAY_USER", USER), ("CAUSEWAY_PASSWORD", PASSWORD), ("PYTHONUTF8", "1")])
            .env("NTLM_USER_FILE", users)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("stdout is piped")?).lines();
        let first = timeout(WITHIN, lines.next_line()).await??.context("the server prints its URL")?;
        let ready: serde_json::Value = serde_json::from_str(&first).context(first)?;
        let url = ready["url"].as_str().context("a URL")?.to_owned();
        Ok(Some(Self { url, lines, folder, _process: process }))
    }

    fn organisation(&self, auth: &str, password: &str) -> Result<Organisation> {
        let exchange = json!({
            "servers": [self.url], "accounts": [{ "user": USER }], "auth": [auth],
            "ca_file": self.folder.path().join("cert.pem"),
        });
        Ok(Organisation::new(
            "default",
            &ModuleSettings {
                exchanges: BTreeMap::from([("default".to_owned(), exchange)]),
                secrets: SecretStore::new([("exchange.default".to_owned(), Secret::new(password))]),
                ..ModuleSettings::default()
            },
        )?)
    }

    /// What it saw until this.
    async fn saw(&mut self, last: &str) -> Result<Vec<String>> {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|line: &String| line != last) {
            let line =
                timeout(WITHIN, self.lines.next_line()).await.with_context(|| format!("{seen:?}"))??;
            let line: serde_json::Value = serde_json::from_str(&line.with_context(|| format!("{seen:?}"))?)?;
            seen.push(line["saw"].as_str().unwrap_or_default().to_owned());
        }
        Ok(seen)
    }
}

fn net() -> Result<Net> {
    let names = Names::new(&[], RandomSource::system())?;
    Ok(Net { dial: Arc::new(Dialer::new(names, Ways::none())), clock: Clock::system() })
}

async fn run(session: &mut dyn Session, cmdlet: Cmdlet) -> Result<(Vec<Object>, Completed)> {
    let (objects, mut taken) = mpsc::channel(4);
    let take = async {
        let mut all = Vec::new();
        while let Some(object) = taken.recv().await {
            all.push(object);
        }
        all
    };
    let (completed, all) =
        timeout(WITHIN, async { tokio::join!(session.run(&cmdlet, objects), take) }).await?;
    Ok((all, completed?))
}

#[tokio::test]
async fn basic_over_tls() -> Result<()> {
    let Some(mut stranger) = Stranger::start("basic").await? else { return Ok(()) };
    whole_session(&mut stranger, "basic").await
}

#[tokio::test]
async fn ntlm_seals_over_http() -> Result<()> {
    let Some(mut stranger) = Stranger::start("sealed").await? else { return Ok(()) };
    whole_session(&mut stranger, "negotiate").await?;
    let Some(mut stranger) = Stranger::start("sealed").await? else { return Ok(()) };
    whole_session(&mut stranger, "ntlm").await
}

#[tokio::test]
async fn a_wrong_password_is_shown_once() -> Result<()> {
    let Some(mut stranger) = Stranger::start("sealed").await? else { return Ok(()) };
    let organisation = stranger.organisation("ntlm", "wrong")?;
    for _ in 0..3 {
        let opened = organisation.open(net()?, Urgency::Background).await;
        let refused = matches!(opened, Err(ExchangeError::Credentials { .. }));
        ensure!(refused, "{:?}", opened.err());
    }
    // A session with the right one shows that nothing else was tried in between.
    let organisation = stranger.organisation("ntlm", PASSWORD)?;
    organisation.open(net()?, Urgency::Background).await?.close().await;
    let seen = stranger.saw("DeleteResponse").await?;
    ensure!(seen.iter().filter(|line| line.starts_with("refused")).count() == 1, "{seen:?}");
    Ok(())
}

async fn whole_session(stranger: &mut Stranger, auth: &str) -> Result<()> {
    let organisation = stranger.organisation(auth, PASSWORD)?;
    let mut session = organisation.open(net()?, Urgency::Background).await?;

    // Some hundred kilobytes: many fragments, more than one Receive's worth of back pressure.
    let cmdlet = Cmdlet::new("Get-MobileDevice").with("ResultSize", Value::I32(500));
    let (devices, completed) = run(&mut *session, cmdlet).await?;
    ensure!(completed == Completed::default(), "{completed:?}");
    ensure!(devices.len() == 500);
    ensure!(devices[7].text("DeviceId").as_deref() == Some("Appl\u{a7}000007"), "{:?}", devices[7]);
    ensure!(devices[7].text("FriendlyName").as_deref() == Some("_x000A_ & <b>"), "{:?}", devices[7]);
    ensure!(devices[7].get("IsManaged").and_then(Value::as_bool) == Some(false), "{:?}", devices[7]);

    let added = Value::hashtable(vec![("Add".into(), "Appl1".into())]);
    let cmdlet = Cmdlet::new("Set-CASMailbox")
        .with("Identity", "bob")
        .with("ActiveSyncAllowedDeviceIDs", added)
        .with("Confirm", false);
    let (outputs, completed) = run(&mut *session, cmdlet).await?;
    let error = completed.errors.first().context("an error record")?;
    ensure!(error.reason == "PartialException" && error.target == "bob", "{error:?}");
    ensure!(error.failure_category() == Some("PartialException"), "{error:?}");
    ensure!(completed.warnings == ["Nothing has changed."] && completed.failure.is_none(), "{completed:?}");
    ensure!(outputs.len() == 1, "{outputs:?}");

    let (_, completed) = run(&mut *session, Cmdlet::new("Get-Nothing")).await?;
    ensure!(
        completed.failure.as_ref().is_some_and(|f| f.reason == "CommandNotFoundException"),
        "{completed:?}"
    );

    // What a cmdlet asks is refused, as PowerShell without a person refuses it, and the session goes on.
    let (_, completed) = run(&mut *session, Cmdlet::new("Clear-MobileDevice")).await?;
    let failure = completed.failure.as_ref().context("nobody has answered")?;
    ensure!(failure.fully_qualified_id == "RemoteHostExecutionException", "{failure:?}");
    ensure!(failure.message.contains("NonInteractive"), "{failure:?}");
    ensure!(completed.warnings == ["This cannot be undone."], "{completed:?}");

    // Nobody takes the objects.
    let (objects, nobody) = mpsc::channel(1);
    drop(nobody);
    let many = Cmdlet::new("Get-MobileDevice").with("ResultSize", Value::I32(50));
    let stopped = session.run(&many, objects).await;
    ensure!(matches!(stopped, Err(ExchangeError::Stopped)), "{stopped:?}");
    let (devices, _) = run(&mut *session, Cmdlet::new("Get-MobileDevice")).await?;
    ensure!(devices.len() == 3, "the session lives");

    session.close().await;
    let seen = stranger.saw("DeleteResponse").await?;
    let count = |what: &str| seen.iter().filter(|line| *line == what).count();
    ensure!(count("host response RemoteHostExecutionException") == 1 && count("stream pr") == 1, "{seen:?}");
    let commands = count("CommandResponse");
    ensure!(commands == 6 && count("signal terminate") + count("signal Terminate") == commands, "{seen:?}");
    Ok(())
}
