//! Phones on Exchange: a full scan beside the time its cmdlets take, a delta beside the bytes of the full upload, and
//! actions during a scan beside actions without one.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_scenarios::http::Client;
use causeway_tests::throttled_day;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::Options;
use crate::process::{Program, beside, peak_rss_mib};
use crate::stage::Stage;
use crate::table::{Table, percentile};

/// Partnerships of the real thing.
const PHONES: usize = 100_000;
/// What every cmdlet takes.
const CMDLET: Duration = Duration::from_millis(20);
/// Cmdlets of a scan besides the statistics: organisation's settings, server, organisation, policies, mailboxes,
/// phones, and the one that tells the version.
const OTHER_CMDLETS: usize = 7;
/// Longest full scan.
const SCAN_WITHIN: Duration = Duration::from_secs(3 * 3_600);
/// Phones of a page of the API.
const PAGE: usize = 200;
/// Actions of each kind.
const ACTIONS: usize = 100;
/// Longest action.
const ACTION_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn scan(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure_scan(options))
}

pub(crate) fn delta(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure_delta(options))
}

pub(crate) fn actions(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure_actions(options))
}

/// A simulated day against the throttled profile, and what becomes of a client that does not slow down by itself.
pub(crate) fn throttled(_: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(async {
        let day = tokio::task::spawn_blocking(|| throttled_day::of_module(throttled_day::PHONES));
        let day = day.await.context("simulate the day")??;
        let hours = day.hours;
        let hasty = tokio::task::spawn_blocking(move || throttled_day::of_hasty_client(hours));
        let hasty = hasty.await.context("simulate the other day")??;
        let mut table = Table::default();
        let peer = "waits only as long as the servers make it wait";
        let (ours, theirs) = (vec![f64::from(day.lockouts)], (peer, vec![f64::from(hasty.lockouts)]));
        table.against(format!("lock-outs in {hours:.1} simulated hours"), "lock-outs", ours, theirs, "none");
        table.against(
            "cmdlets in that time",
            "cmdlets",
            vec![day.cmdlets as f64],
            (peer, vec![hasty.cmdlets as f64]),
            "-",
        );
        let worst = vec![day.worst_estimate() * 100.0];
        table.alone("worst estimate after the first tenth, of the whole time", "%", worst, "20 %");
        table.note(format!(
            "{} phones, mock-exchange/throttled.toml, the agent's own client, TLS in memory, time paused",
            throttled_day::PHONES
        ));
        Ok(table)
    })
}

/// An organisation, a cloud and an agent.
struct Site {
    admin: Client,
    stage: Stage,
    agent_pid: u32,
    _mock: Program,
}

impl Site {
    async fn start(phones: usize, cmdlet: Duration) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("exchange.toml");
        // Nobody is throttled here: the cmdlets' own time is what is measured.
        let throttling = "max_cmdlets = 1000000\nmax_destructive_cmdlets = 1000000\ncmdlet_cost_ms = 0\nobject_cost_us = 0\n";
        std::fs::write(&config, format!("partnerships = {phones}\n[throttling]\n{throttling}"))?;
        let users = phones.to_string();
        let mock = Program::start("mock-exchange", &["--config", text(&config)?, "--users", &users]).await?;
        let admin = Client::new(mock.text("/urls/admin")?, None, None)?;
        if !cmdlet.is_zero() {
            let ms = cmdlet.as_millis() as u64;
            let rule = json!({ "on": { "operation": "command" }, "fault": { "delay": { "ms": ms } } });
            admin.post("/faults", &rule).await?.ok()?;
        }
        let mut stage = Stage::start("").await?;
        let (ca, user) = (mock.text("/ca_pem")?, mock.text("/accounts/admin/user")?);
        let settings = [
            format!("servers=[\"{}\"]", mock.text("/urls/powershell")?),
            format!("accounts=[{{ user = '{user}' }}]"),
            "auth=[\"basic\"]".to_owned(),
            format!("ca_file=\"{ca}\""),
        ];
        let mut arguments = vec!["configure", "exchange", "--secret-from-stdin", "password"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let password = mock.text("/accounts/admin/password")?;
        let agent = stage.add_agent_with(&beside("causeway-agent")?, &[(&arguments, password)]).await?;
        let agent_pid = agent.pid().context("the agent has ended")?;
        Ok(Self { admin, stage, agent_pid, _mock: mock })
    }

    async fn collect(&self) -> Result<()> {
        let settings = json!({ "delta_every_secs": 86_400, "mass_actions": { "actions_max": 10_000 } });
        self.stage.tenant.configure("exchange", true, &settings).await?;
        Ok(())
    }

    /// Waits until the last statistics are in the cloud.
    async fn settled(&self) -> Result<Duration> {
        self.stage
            .wait("agents", SCAN_WITHIN, |list| {
                let agents = list["items"].as_array().into_iter().flatten();
                let modules = agents.flat_map(|agent| agent["modules"].as_array().into_iter().flatten());
                modules
                    .into_iter()
                    .any(|module| module["module"] == "exchange" && module["detail"] == "all phones are read")
            })
            .await
    }

    /// Bytes of all uploads so far.
    async fn uploaded(&self) -> Result<f64> {
        let uploads = self.items("uploads", usize::MAX).await?;
        Ok(uploads.iter().filter_map(|upload| upload["bytes"].as_f64()).sum())
    }

    async fn phones(&self, count: usize) -> Result<Vec<Value>> {
        self.items("devices", count).await
    }

    /// Pages of a list until there are so many.
    async fn items(&self, list: &str, count: usize) -> Result<Vec<Value>> {
        let (mut items, mut after) = (Vec::new(), String::new());
        while items.len() < count {
            let page = self.stage.tenant.get(&format!("{list}?limit={PAGE}{after}")).await?;
            items.extend(page["items"].as_array().into_iter().flatten().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        items.truncate(count);
        Ok(items)
    }
}

async fn measure_scan(options: &Options) -> Result<Table> {
    let phones = PHONES / options.shrink;
    let site = Site::start(phones, CMDLET).await?;
    let started = Instant::now();
    site.collect().await?;
    site.settled().await?;
    let took = started.elapsed().as_secs_f64();
    let rss = peak_rss_mib(site.agent_pid)?;
    let mailboxes: BTreeSet<String> = site
        .phones(phones)
        .await?
        .iter()
        .filter_map(|it| it["mailbox"].as_str().map(str::to_owned))
        .collect();
    let calls = mailboxes.len() + OTHER_CMDLETS;
    let floor = calls as f64 * CMDLET.as_secs_f64();
    let mut table = Table::default();
    let what = format!("full scan of {phones} partnerships in {} mailboxes", mailboxes.len());
    table.against(what, "s", vec![took], ("the cmdlets' own time", vec![floor]), "at most 1.3 x");
    table.alone("agent's peak RSS", "MiB", vec![rss], "at most 60");
    table.note(format!("{calls} cmdlets at {} ms, one after the other; one round", CMDLET.as_millis()));
    Ok(table)
}

async fn measure_delta(options: &Options) -> Result<Table> {
    let phones = PHONES / options.shrink;
    let site = Site::start(phones, Duration::ZERO).await?;
    site.collect().await?;
    site.settled().await?;
    let full = site.uploaded().await?;
    let mut deltas = Vec::new();
    let some = site.phones(phones / 100 * options.rounds).await?;
    for chunk in some.chunks((phones / 100).max(1)) {
        let before = site.uploaded().await?;
        for phone in chunk {
            let parameters = json!({
                "Identity": phone["mailbox"], "ActiveSyncBlockedDeviceIDs": [phone["device_id"]],
            });
            let order = json!({ "name": "Set-CASMailbox", "parameters": parameters });
            site.admin.post("/world/cmdlets", &order).await?.ok()?;
        }
        let id = site.stage.tenant.order("exchange", "sync_now", &Value::Null, &json!({})).await?;
        site.stage.tenant.finished(&id, SCAN_WITHIN).await?;
        let last = chunk.last().and_then(|phone| phone["device_id"].as_str()).context("no phone")?;
        site.stage
            .wait(&format!("devices?q={last}"), SCAN_WITHIN, |list| {
                list["items"].as_array().into_iter().flatten().any(|it| it["access_state"] == "blocked")
            })
            .await?;
        site.settled().await?;
        deltas.push((site.uploaded().await? - before) / 1024.0);
    }
    let full = vec![full / 1024.0; deltas.len()];
    let mut table = Table::default();
    let what = format!("delta after 1 % of {phones} partnerships changed");
    table.against(what, "KiB", deltas, ("full upload", full), "at most 0.02 x");
    table.note("compressed bytes of all uploads, as the cloud counts them; the full one holds a snapshot and its statistics");
    Ok(table)
}

async fn measure_actions(options: &Options) -> Result<Table> {
    let phones = (PHONES / options.shrink).max(4 * ACTIONS);
    let site = Site::start(phones, CMDLET).await?;
    site.collect().await?;
    site.stage
        .wait("devices?limit=1", SCAN_WITHIN, |list| !list["items"].as_array().is_none_or(Vec::is_empty))
        .await?;
    // The snapshot is in; statistics are being read from now on.
    let some = site.phones(2 * ACTIONS).await?;
    ensure!(some.len() == 2 * ACTIONS, "too few phones for the actions");
    let (during, after) = some.split_at(ACTIONS);
    eprintln!("acting while {phones} partnerships are scanned");
    let during = act(&site, during).await?;
    eprintln!("waiting for the end of the scan");
    site.settled().await?;
    eprintln!("acting without a scan");
    let idle = act(&site, after).await?;
    let mut table = Table::default();
    let p95 = |latencies: &[f64]| vec![percentile(latencies, 95.0)];
    let what = format!("p95 of block_device while {phones} partnerships are scanned");
    table.against(what, "ms", p95(&during), ("without a scan", p95(&idle)), "at most 2 x");
    table.note("four cmdlets an action at 20 ms each; one action after the other, from the order to Success");
    Ok(table)
}

async fn act(site: &Site, phones: &[Value]) -> Result<Vec<f64>> {
    let mut latencies = Vec::with_capacity(phones.len());
    for phone in phones {
        let target = json!({
            "key": phone["id"], "device_id": phone["device_id"], "mailbox": phone["mailbox"],
        });
        let started = Instant::now();
        let id = site.stage.tenant.order("exchange", "block_device", &target, &json!({})).await?;
        let action = site.stage.tenant.finished(&id, ACTION_WITHIN).await?;
        ensure!(action["status"] == "success", "{action}");
        latencies.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(latencies)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}
