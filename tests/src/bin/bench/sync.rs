//! Full sync of a large directory, beside `ldapsearch` reading the same attributes into a file; then deltas.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_mock_kit::world::{Company, CompanySpec};
use causeway_tests::containers::{OpenLdap, Running, Seed};
use causeway_tests::ldif;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::process::Command;

use crate::Options;
use crate::process::{beside, cpu_secs, delivered_agent, peak_rss_mib};
use crate::stage::{DirectoryAt, Stage};
use crate::table::Table;

/// People of the real thing; the generated company has 5,000 teams of 20 at this size, and some larger groups.
const PEOPLE: usize = 100_000;
const BASE: &str = "dc=acme,dc=example";
/// Settings of a cloud that acknowledges and keeps nothing.
const TO_A_SINK: &str = "[uploads]\nacknowledge_only = true\n";
/// Longest full sync.
const SYNC_WITHIN: Duration = Duration::from_secs(600);
/// What the agent asks an OpenLDAP for, so that ldapsearch carries the same.
const ATTRIBUTES: [&str; 14] = [
    "objectClass",
    "entryUUID",
    "uid",
    "cn",
    "displayName",
    "givenName",
    "sn",
    "mail",
    "pwdAccountLockedTime",
    "ou",
    "description",
    "member",
    "uniqueMember",
    "memberUid",
];

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let people = PEOPLE / options.shrink;
    let company = Company::generate(&CompanySpec { users: people, ..CompanySpec::default() });
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("company.ldif");
    ldif::write_company(&company, BASE, &mut std::io::BufWriter::new(std::fs::File::create(&file)?))?;
    let slapd = OpenLdap::start(Seed::BulkFile(file)).await?.context("the OpenLDAP container is needed")?;
    let directory = DirectoryAt {
        servers: vec![slapd.url("ldaps")],
        bind_dn: slapd.login.clone(),
        password: slapd.password.clone(),
        ca_pem: slapd.ca_pem.clone(),
    };
    let mut peer = Vec::new();
    let (mut to_sink, mut to_store) = (Vec::new(), Vec::new());
    let (mut rss, mut agent_cpu, mut cloud_cpu) = (Vec::new(), Vec::new(), Vec::new());
    let ours = beside("causeway-agent")?;
    let delivered = delivered_agent().ok();
    let (mut delivered_wall, mut delivered_rss) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        peer.push(ldapsearch(&slapd, folder.path()).await?);
        to_sink.push(full_sync(&ours, &directory, TO_A_SINK, people).await?.wall);
        if let Some(delivered) = &delivered {
            let sync = full_sync(delivered, &directory, TO_A_SINK, people).await?;
            delivered_wall.push(sync.wall);
            delivered_rss.push(sync.agent_rss_mib);
        }
        let sync = full_sync(&ours, &directory, "", people).await?;
        to_store.push(sync.wall);
        rss.push(sync.agent_rss_mib);
        agent_cpu.push(sync.agent_cpu_secs);
        cloud_cpu.push(sync.cloud_cpu_secs);
    }
    let groups = company.groups.len();
    let mut table = Table::default();
    let what = format!("full sync of {people} people, {groups} groups");
    let name = "ldapsearch -E pr=1000/noprompt";
    table.against(format!("{what}: agent to a sink"), "s", to_sink, (name, peer.clone()), "at most 1.3 x");
    if delivered.is_some() {
        let what = format!("{what}: the delivered agent to a sink");
        table.against(what, "s", delivered_wall, (name, peer.clone()), "at most 1.3 x");
        table.alone("the delivered agent's peak RSS", "MiB", delivered_rss, "at most 60");
    } else {
        table.note("no delivered agent to measure: `cargo xtask dist --only linux` builds it");
    }
    table.against(format!("{what}: into the store"), "s", to_store, (name, peer), "at most 2.5 x");
    table.alone("agent's processor time", "s", agent_cpu, "-");
    table.alone("cloud's processor time", "s", cloud_cpu, "-");
    table.alone("agent's peak RSS", "MiB", rss, "at most 60");
    table.note(format!("directory: {}, over LDAPS on a published loopback port for both sides", slapd.image));
    Ok(table)
}

struct FullSync {
    wall: f64,
    agent_rss_mib: f64,
    agent_cpu_secs: f64,
    cloud_cpu_secs: f64,
}

async fn full_sync(
    agent: &Path,
    directory: &DirectoryAt,
    cloud_settings: &str,
    people: usize,
) -> Result<FullSync> {
    let mut stage = Stage::start(cloud_settings).await?;
    let pid = stage.add_agent_of(agent, directory).await?.pid().context("the agent has ended")?;
    let cloud_pid = stage.cloud.pid()?;
    let (agent_before, cloud_before) = (cpu_secs(pid)?, cpu_secs(cloud_pid)?);
    let started = Instant::now();
    stage.tenant.configure("user_visibility", true, &json!({})).await?;
    let committed = |list: &serde_json::Value| {
        list["items"].as_array().into_iter().flatten().any(|upload| upload["state"] == "committed")
    };
    stage.wait("uploads", SYNC_WITHIN, committed).await?;
    let wall = started.elapsed().as_secs_f64();
    if cloud_settings != TO_A_SINK {
        let sources = stage.tenant.get("sources").await?;
        let total = sources["items"][0]["counts"]["users"].as_u64().unwrap_or(0);
        ensure!(total as usize >= people, "only {total} people arrived");
    }
    Ok(FullSync {
        wall,
        agent_rss_mib: peak_rss_mib(pid)?,
        agent_cpu_secs: cpu_secs(pid)? - agent_before,
        cloud_cpu_secs: cpu_secs(cloud_pid)? - cloud_before,
    })
}

/// Wall time of ldapsearch reading everything into a file.
async fn ldapsearch(slapd: &Running, folder: &Path) -> Result<f64> {
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, &slapd.ca_pem)?;
    let out = std::fs::File::create(folder.join("ldapsearch.ldif"))?;
    let started = Instant::now();
    let status = Command::new("ldapsearch")
        .args([
            "-x",
            "-LLL",
            "-H",
            &slapd.url("ldaps"),
            "-D",
            &slapd.login,
            "-w",
            &slapd.password,
            "-b",
            BASE,
        ])
        .args(["-E", "pr=1000/noprompt", "(objectClass=*)"])
        .args(ATTRIBUTES)
        .env("LDAPTLS_CACERT", &ca)
        .stdout(Stdio::from(out))
        .status()
        .await
        .context("run ldapsearch")?;
    ensure!(status.success(), "ldapsearch ended with {status}");
    Ok(started.elapsed().as_secs_f64())
}
