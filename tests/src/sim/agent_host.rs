//! The agent's process in a simulation: the production agent, put together from simulated parts.

use std::sync::Arc;

use causeway_agent::clock::Clock;
use causeway_agent::config::{FILE_NAME, SettingsFile};
use causeway_agent::random::RandomSource;
use causeway_agent::secrets::{FileModeSealer, SecretStore};
use causeway_agent::{Agent, AgentConfig};

use super::modules::{AUTH, COLLECTOR, FACTORIES, SYSTEM};
use super::net::{Closer, PORT, SimDial};
use super::papers::{DOMAIN, papers};
use super::storage::SimStorage;
use super::world::{Process, World};

/// Lives until it is killed.
pub(super) async fn live(world: Arc<World>, seat: usize) -> turmoil::Result {
    let host = world.seats[seat].host;
    let (process, disk) = {
        let mut state = world.seat(seat);
        state.process = Arc::new(Process::new(state.process.number + 1));
        (state.process.clone(), state.disk.clone())
    };
    let _closer = Closer(process.clone());
    world.note(host, format_args!("starts, process {}", process.number));
    let elapsed_ms = i64::try_from(world.now_ms())?;
    let data_dir = papers().data_dir(seat);
    let mut settings = format!("[cloud]\nurl = \"https://{DOMAIN}:{PORT}\"\nca_file = \"ca.pem\"\n");
    for kind in [SYSTEM, COLLECTOR, AUTH] {
        settings += &format!("[modules.{kind}]\nseat = {seat}\n");
    }
    let storage = SimStorage { inner: disk, world: world.clone(), seat, process: process.clone() };
    let dial = SimDial { world: world.clone(), seat, process: process.clone() };
    let config = AgentConfig {
        settings: SettingsFile::parse(data_dir.join(FILE_NAME), settings)?,
        data_dir,
        identity: papers().identity(world.seats[seat].identity),
        secrets: SecretStore::default(),
        sealer: Arc::new(FileModeSealer),
        factories: FACTORIES.to_vec(),
        dial: Some(Arc::new(dial)),
        connect: None,
        storage: Some(Arc::new(storage)),
        clock: Clock::skewed(world.epoch_ms + elapsed_ms, world.seats[seat].skew_ms),
        random: RandomSource::seeded(world.derived(host, process.number)),
    };
    let running = Box::pin(Agent::start(config)).await?;
    world.seat(seat).running = Some(Arc::new(running));
    std::future::pending().await
}
