//! Certificates through cloud, agent and mock-ca beside a SCEP client that asks mock-ca itself; and the long lives of many
//! devices, which are scenarios too long for the tests.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causeway_protocol::Secret;
use causeway_protocol::certificate::KeyKind;
use causeway_protocol::pkix::{CsrDraft, Digest, Key, Name, pem};
use causeway_scenarios::http::Client;
use causeway_scenarios::progress::Progress;
use causeway_scenarios::report::ScenarioReport;
use causeway_scenarios::run::{Stage as Theatre, play};
use causeway_scenarios::spec;
use causeway_scenarios::world::AgentProgram;
use futures_util::future::BoxFuture;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::Options;
use crate::process::{Program, beside};
use crate::scep_issue::{self, Wire};
use crate::stage::{Stage, api};
use crate::table::{Table, percentile};

/// Certificates of one round, one after the other.
const REQUESTS: usize = 200;

/// What profile and authority are called.
const PROFILE: &str = "identity";
const AUTHORITY: &str = "default";

/// Longest wait for one certificate.
const WAIT_MS: u64 = 20_000;

pub(crate) fn relay(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure_relay(options))
}

/// 10,000 devices renew by one-time passwords of NDES.
pub(crate) fn renewals(_: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(live("certificate_renewals"))
}

/// 1,000 devices live through 400 days.
pub(crate) fn years(_: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(live("certificate_years"))
}

async fn measure_relay(options: &Options) -> Result<Table> {
    let requests = (REQUESTS / options.shrink.max(1)).max(10);
    let mock = Program::start("mock-ca", &["--personality", "rfc8894"]).await?;
    let mut stage = Stage::start("").await?;
    let _ca_file = give_agent(&mut stage, &mock).await?;
    let direct = scep_issue::Client::look(&mock).await?;
    let (mut ours, mut theirs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..options.rounds {
        let alone = ask_directly(&direct, &mock, round, requests).await?;
        let relayed = ask_the_cloud(&stage, round, requests).await?;
        for (n, percent) in [50.0, 99.0].into_iter().enumerate() {
            theirs[n].push(percentile(&alone, percent));
            ours[n].push(percentile(&relayed, percent));
        }
    }
    let mut table = Table::default();
    let goals = [("median", "3 ms more"), ("p99", "15 ms more")];
    for ((ours, theirs), (what, goal)) in ours.into_iter().zip(theirs).zip(goals) {
        let more: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours - theirs).collect();
        let peer = "a SCEP client at mock-ca itself";
        table.against(
            format!("CSR handed in to certificate there: {what}"),
            "ms",
            ours,
            (peer, theirs),
            goal,
        );
        table.alone(format!("what the way through cloud and agent adds: {what}"), "ms", more, goal);
    }
    table.alone(
        "five writes to this disk, one after the other: median",
        "ms",
        vec![disk_wait_ms()? * 5.0],
        "-",
    );
    table.note(format!(
        "{requests} certificates a round, one after the other; both sides make and open the SCEP messages."
    ));
    table.note(
        "Five writes go to the disk on the way, some beside other work: the order in the cloud, its acceptance and its ticket in the \
         agent, its end in the agent and in the cloud.",
    );
    Ok(table)
}

/// An agent that knows mock-ca, and a profile that uses it. The file is the authority's root.
async fn give_agent(stage: &mut Stage, mock: &Program) -> Result<NamedTempFile> {
    let admin = Client::new(mock.text("/urls/admin")?, None, None)?;
    let authorities = admin.get("/world/authorities").await?.ok()?;
    let root = STANDARD.decode(authorities["root"].as_str().context("mock-ca shows no root")?)?;
    let ca_file = NamedTempFile::new()?;
    std::fs::write(&ca_file, pem::write("CERTIFICATE", &root))?;
    let settings = [
        "kind=\"scep\"".to_owned(),
        "challenge=\"static\"".to_owned(),
        format!("urls=[\"{}\"]", mock.text("/urls/scep")?),
        format!("ca_file={:?}", ca_file.path()),
    ];
    let mut arguments = vec!["configure", "ca", "--secret-from-stdin", "challenge"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let challenge = mock.text("/accounts/scep/challenge")?;
    stage.add_agent_with(&beside("causeway-agent")?, &[(&arguments, challenge)]).await?;
    let profile = json!({
        "name": "Company identity", "authority": AUTHORITY, "key": "p256", "subject": "/CN=%uname%",
        "alternative_names": [], "missing_variable": "drop",
    });
    stage.tenant.put(&format!("certificate-profiles/{PROFILE}"), &profile).await?;
    stage.tenant.configure("certificates", true, &json!({})).await?;
    stage.module_ok("certificates").await?;
    Ok(ca_file)
}

/// How long each certificate took a SCEP client, in ms.
async fn ask_directly(
    client: &scep_issue::Client,
    mock: &Program,
    round: usize,
    requests: usize,
) -> Result<Vec<f64>> {
    let mut wire = Wire::to(mock.text("/urls/scep")?).await?;
    let mut took = Vec::with_capacity(requests);
    for number in 0..requests {
        let name = format!("direct-{round}-{number}");
        let csr = client.csr(&name)?;
        let began = Instant::now();
        let message = client.message(&csr, &name)?;
        client.check(&wire.post(&message).await?)?;
        took.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(took)
}

/// How long each certificate took a device, in ms, from its CSR to the certificate.
async fn ask_the_cloud(stage: &Stage, round: usize, requests: usize) -> Result<Vec<f64>> {
    let client = api(&stage.cloud)?;
    let mut took = Vec::with_capacity(requests);
    for number in 0..requests {
        let device = enrolled(stage, &client, &format!("relay-{round}-{number}")).await?;
        let begun = device.post("/api/v1/device/requests", &json!({ "profile": PROFILE })).await?.ok()?;
        let request = format!("/api/v1/device/requests/{}", begun["id"].as_str().context("no request")?);
        let told = device.post(&format!("{request}/challenge"), &json!({})).await?.ok()?;
        let draft = CsrDraft {
            subject: Name::parse(told["subject"].as_str().unwrap_or_default())?,
            challenge: told["challenge"].as_str().map(Secret::new),
            ..CsrDraft::default()
        };
        let csr = STANDARD.encode(draft.sign(&Key::generate(KeyKind::P256)?, Digest::Sha256)?);
        let began = Instant::now();
        device.post(&format!("{request}/csr"), &json!({ "csr": csr })).await?.ok()?;
        let seen = device.get(&format!("{request}?wait_ms={WAIT_MS}")).await?.ok()?;
        took.push(began.elapsed().as_secs_f64() * 1_000.0);
        ensure!(seen["stage"] == "issued", "the cloud shows {seen}");
    }
    Ok(took)
}

/// Median time, in ms, until the disk has a page more of a file.
fn disk_wait_ms() -> Result<f64> {
    let mut file = tempfile::tempfile()?;
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        file.write_all(&[7; 4_096])?;
        let began = Instant::now();
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(percentile(&took, 50.0))
}

/// A client that is a new device.
async fn enrolled(stage: &Stage, client: &Client, name: &str) -> Result<Client> {
    let body = json!({ "user": format!("{name}@acme.example"), "udid": name });
    let enrolled = stage.tenant.post("enrolled-devices", &body).await?;
    let id = enrolled["id"].as_str().context("the device has no id")?;
    let given = stage.tenant.post(&format!("enrolled-devices/{id}/token"), &json!({})).await?;
    Ok(client.with_token(given["token"].as_str().context("the device has no token")?.to_owned()))
}

/// Plays a scenario of `scenarios/long`, on a thread of its own: a scenario stays on the thread it began on.
async fn live(name: &'static str) -> Result<Table> {
    let runtime = tokio::runtime::Handle::current();
    let played = tokio::task::spawn_blocking(move || runtime.block_on(play_long(name))).await;
    let report = played.context("play the scenario")??;
    if let Some(why) = &report.setup_error {
        bail!("the world does not stand: {why}");
    }
    let mut table = Table::default();
    for step in &report.steps {
        if let Some(why) = &step.error {
            bail!("{}: {why}", step.say);
        }
        let took = Duration::from_millis(step.elapsed_ms).as_secs_f64();
        table.alone(&step.say, "s", vec![took], "-");
        table.note(&step.detail);
    }
    Ok(table)
}

async fn play_long(name: &str) -> Result<ScenarioReport> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../scenarios/long/{name}.toml"));
    let case = spec::find(path.to_str().context("the path is not UTF-8")?)?;
    let theatre = Theatre { agent: AgentProgram::at(beside("causeway-agent")?), seed: None, audience: None };
    Ok(play(&case, &theatre, &Progress::on_terminal()).await)
}
