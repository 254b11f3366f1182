//! A simulated day of the Exchange module before mock-exchange, with the agent's own client and its whole wire, on time
//! that is paused: is the account ever locked out, and is what the module says about the time it needs true?

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use causeway_agent::clock::Clock;
use causeway_agent::dial::{Dial, DialError, DialStream, Service, Target};
use causeway_agent::modules::{ModuleContext, ModuleFactory, ModuleSettings, exchange};
use causeway_agent::random::RandomSource;
use causeway_agent::secrets::SecretStore;
use causeway_agent::status::StatusCell;
use causeway_agent::storage::memory::MemoryStorage;
use causeway_agent::wake::Wake;
use causeway_mock_exchange::world::Charge;
use causeway_mock_exchange::{Config, MockExchange};
use causeway_protocol::Secret;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::memory_cloud::MemoryCloud;

/// The profile: what cmdlets use, and what an account may.
const PROFILE: &str = include_str!("../../mock-exchange/throttled.toml");

/// Phones whose statistics take a day of the profile's budget: some mailboxes have two, which are read together.
pub const PHONES: usize = 2_080;

/// How often somebody looks how long it will take.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// The longest day: one that takes twice as long as it should has failed.
const DAYS_MAX: u32 = 2;

/// What a day was like.
#[derive(Clone, Debug, Default)]
pub struct Day {
    /// Simulated hours until every phone's statistics were read.
    pub hours: f64,
    /// Cmdlets the servers ran.
    pub cmdlets: u64,
    /// How often the account was locked out.
    pub lockouts: u32,
    /// Estimates, as hours since the beginning and hours that were said to be left.
    pub estimates: Vec<(f64, f64)>,
}

impl Day {
    /// The worst estimate after the first tenth, as a share of the whole time. In the first tenth the servers are generous,
    /// and nobody can know yet that they will not stay so.
    pub fn worst_estimate(&self) -> f64 {
        let late = self.estimates.iter().filter(|(at, _)| *at > self.hours * 0.1);
        late.map(|(at, left)| (at + left - self.hours).abs() / self.hours).fold(0.0, f64::max)
    }
}

/// The module reads the statistics of so many phones of a throttled organisation.
///
/// # Errors
/// When the world does not stand, or the module does not come to an end.
pub fn of_module(phones: usize) -> Result<Day> {
    paused()?.block_on(async {
        let mock = organisation(phones).await?;
        let began = Instant::now();
        let (cloud, stop) = (MemoryCloud::default(), CancellationToken::new());
        let cx = context(&mock, &cloud, &stop);
        let module = exchange::Factory.build(&settings(&mock))?;
        let running = tokio::spawn(module.run(cx));
        let (mut day, mut seen) = (Day::default(), 0);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let fresh = mock.journal().after(seen);
            day.cmdlets += fresh.iter().filter(|entry| entry.operation == "command").count() as u64;
            seen = fresh.last().map_or(seen, |entry| entry.seq);
            let hours = began.elapsed().as_secs_f64() / 3_600.0;
            ensure!(hours < f64::from(DAYS_MAX) * 24.0, "{phones} phones take more than {hours:.0} h");
            let Some(progress) = cloud.last_progress() else { continue };
            if progress.phase == "done" && cloud.objects().len() > phones {
                day.hours = hours;
                break;
            }
            if let Some(secs) = progress.counts.get("eta_secs") {
                day.estimates.push((hours, *secs as f64 / 3_600.0));
            }
        }
        stop.cancel();
        running.await.context("the module's task")??;
        let login = mock.service_account().user;
        let budgets = mock.world().budgets();
        let mine =
            budgets.iter().find(|it| login.ends_with(&it.account)).context("the account used nothing")?;
        day.lockouts = mine.lockouts;
        Ok(day)
    })
}

/// What becomes of a client that asks for so many hours without a pause of its own: it waits only as long as it is made to.
///
/// # Errors
/// When the world does not stand.
pub fn of_hasty_client(hours: f64) -> Result<Day> {
    paused()?.block_on(async {
        let mock = organisation(1).await?;
        let world = mock.world();
        let login = mock.service_account();
        let account = world
            .sign_in(&login.user, &login.password)
            .map_err(|why| anyhow::anyhow!("the service account does not sign in: {why:?}"))?;
        let (began, mut day) = (Instant::now(), Day { hours, ..Day::default() });
        while began.elapsed().as_secs_f64() < hours * 3_600.0 {
            match world.charge(&account, false) {
                Charge::Granted { delay, .. } => {
                    day.cmdlets += 1;
                    tokio::time::sleep(delay + Duration::from_millis(20)).await;
                }
                Charge::LockedOut { for_ms } => {
                    tokio::time::sleep(Duration::from_millis(for_ms.unsigned_abs().max(1))).await;
                }
            }
        }
        day.lockouts = world.budgets().iter().map(|it| it.lockouts).sum();
        Ok(day)
    })
}

/// A runtime whose time passes only while nobody has anything to do.
fn paused() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().context("make a runtime")
}

async fn organisation(phones: usize) -> Result<Arc<MockExchange>> {
    let mut config: Config = toml::from_str(PROFILE).context("read throttled.toml")?;
    config.common.users = phones.max(20);
    config.partnerships = Some(phones);
    Ok(Arc::new(MockExchange::start(config).await?))
}

fn settings(mock: &MockExchange) -> ModuleSettings {
    let login = mock.service_account();
    let exchange = json!({
        "servers": [mock.url("powershell")], "accounts": [{ "user": login.user }], "auth": ["basic"],
        "ca_file": mock.ca().pem_path(),
    });
    ModuleSettings {
        // One listing at the start; the rest of the day is for what it leads to.
        desired: json!({ "delta_every_secs": 86_400 }),
        exchanges: BTreeMap::from([("default".to_owned(), exchange)]),
        secrets: SecretStore::new([("exchange.default".to_owned(), Secret::new(login.password))]),
        ..ModuleSettings::default()
    }
}

fn context(mock: &Arc<MockExchange>, cloud: &MemoryCloud, stop: &CancellationToken) -> ModuleContext {
    ModuleContext {
        dial: Arc::new(InMemory(Arc::clone(mock))),
        storage: Arc::new(MemoryStorage::new()),
        cloud: Arc::new(cloud.clone()),
        clock: Clock::simulated(mock.clock().now_ms()),
        stop: stop.clone(),
        status: StatusCell::default(),
        random: RandomSource::seeded(7),
        wake: Wake::default(),
    }
}

/// Connects to the organisation whatever is asked for.
struct InMemory(Arc<MockExchange>);

impl Dial for InMemory {
    fn connect(&self, _: Target) -> BoxFuture<'_, Result<DialStream, DialError>> {
        Box::pin(async { Ok(DialStream::other(self.0.connect_in_memory())) })
    }

    fn addresses(&self, _: &str) -> BoxFuture<'_, Result<Vec<IpAddr>, DialError>> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }

    fn services(&self, _: &str) -> BoxFuture<'_, Result<Vec<Service>, DialError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttled_day_locks_nobody_out_and_the_estimate_holds() {
        let day = of_module(PHONES).unwrap();
        assert!((24.0..26.0).contains(&day.hours), "{day:?}");
        assert_eq!(day.lockouts, 0, "{day:?}");
        assert!(day.estimates.len() > 100 && day.worst_estimate() <= 0.2, "{day:?}");
        let hasty = of_hasty_client(day.hours).unwrap();
        assert!(hasty.lockouts > 0, "the profile locks nobody out: {hasty:?}");
    }
}
