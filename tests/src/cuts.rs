//! Links that are cut at seeded moments while actions run: is anything lost, is anything done twice, and how long does
//! a session take to come back?

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use causeway_agent::cli::{self, Arguments};
use causeway_agent::modules::{
    CheckResult, ConfigError, Module, ModuleContext, ModuleError, ModuleFactory, ModuleSettings, Outcome,
};
use causeway_agent::random::RandomSource;
use causeway_agent::{Agent, AgentConfig, RunningAgent};
use causeway_mock_cloud::{Config, MockCloud};
use causeway_mock_kit::proxy::TcpProxy;
use causeway_protocol::action::{Action, ErrorReport};
use causeway_protocol::channel::payload::Request;
use causeway_protocol::health::ModuleState;
use causeway_scenarios::cloud_api::Tenant;
use causeway_scenarios::http::Client;
use clap::Parser;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::network::Network;
use crate::tls::trusting_only;

/// The module that records; the cloud knows its name, so that it can be configured.
const MODULE: &str = "user_auth";

/// The longest wait for a session, an action or a journal entry.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Links, each with an agent and a tenant of its own.
    pub links: usize,
    /// Cuts of each link. Every second one is followed by a time without any network.
    pub cuts: usize,
    /// The longest time from a session's return to the next cut, in milliseconds.
    pub gap_max_ms: u64,
    /// The longest time without a network, in milliseconds.
    pub outage_max_ms: u64,
    /// Pause between two orders to one agent, in milliseconds.
    pub order_every_ms: u64,
    /// Fixes every moment of a cut.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Milliseconds from the network's return to the session's, for cuts without an outage.
    pub after_cut_ms: Vec<f64>,
    /// The same, for cuts with one.
    pub after_outage_ms: Vec<f64>,
    /// Sessions that were resumed.
    pub resumed: usize,
    /// Sessions that had to begin anew.
    pub anew: usize,
    /// Actions ordered.
    pub ordered: usize,
    /// Actions that did not end with success.
    pub lost: Vec<String>,
    /// Actions that were carried out more than once.
    pub twice: Vec<String>,
}

/// Runs a plan over a cloud and agents of its own, all in this process, with state files and sockets.
///
/// # Errors
/// When a part does not start, or a session does not come back.
pub async fn run(plan: Plan) -> Result<Seen> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let cloud = Arc::new(MockCloud::start(Config::default()).await?);
    let mut links = tokio::task::JoinSet::new();
    for number in 0..plan.links {
        let (cloud, dir) = (Arc::clone(&cloud), folder.path().join(number.to_string()));
        links.spawn(async move { one_link(&cloud, &dir, plan, number as u64).await });
    }
    let mut all = Seen::default();
    while let Some(link) = links.join_next().await {
        let seen = link.context("a link's task")??;
        all.after_cut_ms.extend(seen.after_cut_ms);
        all.after_outage_ms.extend(seen.after_outage_ms);
        all.resumed += seen.resumed;
        all.anew += seen.anew;
        all.ordered += seen.ordered;
        all.lost.extend(seen.lost);
        all.twice.extend(seen.twice);
    }
    Ok(all)
}

async fn one_link(cloud: &MockCloud, dir: &Path, plan: Plan, number: u64) -> Result<Seen> {
    let link = TcpProxy::start(cloud.url("api").trim_start_matches("https://").parse()?).await?;
    let ca = std::fs::read_to_string(cloud.ca_pem())?;
    let token = cloud.token().to_owned();
    let http = Client::new(cloud.url("api"), Some(Arc::new(trusting_only(&ca)?)), Some(token))?;
    let tenant = Tenant::create(http, &format!("link {number}")).await?;
    tenant.configure(MODULE, true, &json!({})).await?;
    let recorder = Recorder::default();
    let network = Arc::new(Network::default());
    let agent = start_agent(cloud, &link, &tenant, dir, &recorder, &network).await?;
    let instance = agent.status().instance;
    let mut returns = Returns { cloud, instance: &instance, seen_to: 0 };
    returns.next().await?;
    recorder.running().await?;

    let done = Arc::new(AtomicBool::new(false));
    let orders = tokio::spawn(order_until(tenant.clone(), plan.order_every_ms, Arc::clone(&done)));
    let random = RandomSource::seeded(plan.seed.wrapping_add(number));
    let draw = |bound: u64| Duration::from_millis(random.next_u64() % bound.max(1));
    let mut seen = Seen::default();
    for cut in 0..plan.cuts {
        tokio::time::sleep(draw(plan.gap_max_ms)).await;
        let outage = (cut % 2 == 1).then(|| draw(plan.outage_max_ms));
        network.set_down(outage.is_some());
        link.cut();
        if let Some(outage) = outage {
            tokio::time::sleep(outage).await;
            network.set_down(false);
        }
        let back = Instant::now();
        let resumed = returns.next().await?;
        let took_ms = back.elapsed().as_secs_f64() * 1_000.0;
        if outage.is_some() { &mut seen.after_outage_ms } else { &mut seen.after_cut_ms }.push(took_ms);
        *if resumed { &mut seen.resumed } else { &mut seen.anew } += 1;
    }
    done.store(true, Ordering::SeqCst);
    let ids = orders.await.context("the orders' task")??;
    for id in &ids {
        let action = tenant.finished(id, PATIENCE).await?;
        if action["status"] != "success" {
            seen.lost.push(action.to_string());
        }
    }
    let counts = recorder.counts();
    seen.twice = counts.iter().filter(|(_, count)| **count > 1).map(|(id, _)| id.clone()).collect();
    seen.lost.extend(ids.iter().filter(|id| !counts.contains_key(*id)).cloned());
    seen.ordered = ids.len();
    ensure!(counts.len() == ids.len(), "{} actions were carried out, {} ordered", counts.len(), ids.len());
    agent.stop().await;
    Ok(seen)
}

/// Orders an action now and then; returns their ids.
async fn order_until(tenant: Tenant, every_ms: u64, done: Arc<AtomicBool>) -> Result<Vec<String>> {
    let mut tick = tokio::time::interval(Duration::from_millis(every_ms.max(1)));
    let mut ids = Vec::new();
    while !done.load(Ordering::SeqCst) {
        tick.tick().await;
        ids.push(tenant.order(MODULE, "record", &json!(null), &json!(ids.len())).await?);
    }
    Ok(ids)
}

async fn start_agent(
    cloud: &MockCloud,
    link: &TcpProxy,
    tenant: &Tenant,
    dir: &Path,
    recorder: &Recorder,
    network: &Arc<Network>,
) -> Result<RunningAgent> {
    let key = tenant.enrollment_key().await?;
    let (url, ca) = (format!("https://{}", link.address()), cloud.ca_pem().to_string_lossy().into_owned());
    let dir_text = dir.to_string_lossy().into_owned();
    let words = ["causeway-agent", "enroll", "--cloud", &url, "--key", &key, "--ca", &ca];
    let words = words.into_iter().chain(["--data-dir", dir_text.as_str()]);
    cli::execute(Arguments::parse_from(words)).await?;
    let mut config = AgentConfig::load(dir)?;
    config.factories = vec![recorder.factory()];
    config.dial = Some(Arc::clone(network) as _);
    Ok(Agent::start(config).await?)
}

/// An agent's sessions as the cloud's journal shows them.
struct Returns<'a> {
    cloud: &'a MockCloud,
    instance: &'a str,
    seen_to: u64,
}

impl Returns<'_> {
    /// Waits for the next session; whether it is an old one resumed.
    async fn next(&mut self) -> Result<bool> {
        let mine = |entry: &causeway_mock_kit::journal::Entry| {
            entry.operation == "online" && entry.subject == self.instance
        };
        let entry = self.cloud.journal().wait(self.seen_to, PATIENCE, mine).await?;
        self.seen_to = entry.seq;
        Ok(entry.outcome == "resumed")
    }
}

/// A module that remembers what it was told to do.
#[derive(Clone, Default)]
struct Recorder(Arc<Shared>);

#[derive(Default)]
struct Shared {
    acted: Mutex<BTreeMap<String, usize>>,
    running: watch::Sender<bool>,
}

impl Recorder {
    fn factory(&self) -> &'static dyn ModuleFactory {
        // The agent wants factories that live as long as the program; one per link is little.
        Box::leak(Box::new(Factory(self.clone())))
    }

    /// Waits until the module runs.
    async fn running(&self) -> Result<()> {
        let mut running = self.0.running.subscribe();
        tokio::time::timeout(PATIENCE, running.wait_for(|running| *running))
            .await
            .context("the module does not start")??;
        Ok(())
    }

    fn counts(&self) -> BTreeMap<String, usize> {
        self.0.acted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Factory(Recorder);

impl ModuleFactory for Factory {
    fn kind(&self) -> &'static str {
        MODULE
    }

    fn example(&self) -> Value {
        json!({})
    }

    fn build(&self, _: &ModuleSettings) -> Result<Arc<dyn Module>, ConfigError> {
        Ok(Arc::new(self.0.clone()))
    }
}

impl Module for Recorder {
    fn run(self: Arc<Self>, cx: ModuleContext) -> BoxFuture<'static, Result<(), ModuleError>> {
        Box::pin(async move {
            cx.status.set(ModuleState::Ok, "records");
            self.0.running.send_replace(true);
            cx.stop.cancelled().await;
            Ok(())
        })
    }

    fn act(&self, _: ModuleContext, action: Action) -> BoxFuture<'_, Outcome> {
        let mut acted = self.0.acted.lock().unwrap_or_else(PoisonError::into_inner);
        *acted.entry(action.id).or_default() += 1;
        drop(acted);
        Box::pin(async move { Outcome::Success(action.params) })
    }

    fn answer(&self, _: ModuleContext, _: Request) -> BoxFuture<'_, Result<Value, ErrorReport>> {
        Box::pin(async { Ok(Value::Null) })
    }

    fn check(&self, _: ModuleContext) -> BoxFuture<'_, Vec<CheckResult>> {
        Box::pin(async { Vec::new() })
    }
}
