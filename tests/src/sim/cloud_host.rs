//! The cloud's process in a simulation: the production cloud without its sockets, and the users of its API.

use std::sync::Arc;

use causeway_mock_cloud::config::Config;
use causeway_mock_cloud::store::{Disk, Store, StoreError};
use causeway_mock_cloud::{Cloud, Engine, EngineParts, Ids, dispatch};
use causeway_mock_kit::{Clock, KitContext};
use causeway_protocol::Secret;
use causeway_protocol::auth::AuthRequest;
use turmoil::net::TcpListener;

use super::gate::SimGate;
use super::modules::{AUTH, COLLECTOR, SYSTEM};
use super::net::{CLOUD, Closer, PORT, SimStream};
use super::papers::{AGENTS_MAX, instance, papers};
use super::world::{CANARY, Order, Process, TENANT, World, lock};

/// Milliseconds a lease lives: short, so that a run sees several.
const LEASE_TTL_MS: u64 = 9_000;

/// A cloud with one tenant, its agents enrolled and its modules configured.
///
/// # Errors
/// When SQLite refuses.
pub(super) fn disk(epoch_ms: i64) -> Result<Disk, StoreError> {
    let disk = Disk::in_memory()?;
    disk.look(|db| {
        db.execute("INSERT INTO tenants (id, name, created_ms) VALUES (?1, 'Acme', ?2)", (TENANT, epoch_ms))?;
        for n in 0..AGENTS_MAX {
            db.execute(
                "INSERT INTO agents (tenant, instance, host, enrolled_ms, certificate_serial) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                (TENANT, instance(n), format!("agent-{n}"), epoch_ms, papers().serial(n)),
            )?;
        }
        for module in [SYSTEM, COLLECTOR, AUTH] {
            db.execute(
                "INSERT INTO configs (tenant, module, revision, enabled, settings, changed_ms) \
                 VALUES (?1, ?2, 1, 1, '{}', ?3)",
                (TENANT, module, epoch_ms),
            )?;
        }
        Ok(())
    })?;
    Ok(disk)
}

/// Lives until it is killed.
pub(super) async fn live(world: Arc<World>) -> turmoil::Result {
    let process = {
        let mut state = lock(&world.cloud.state);
        state.process = Arc::new(Process::new(state.process.number + 1));
        state.started_at_ms = world.now_ms();
        state.process.clone()
    };
    let _closer = Closer(process.clone());
    world.note(CLOUD, format_args!("starts, process {}", process.number));
    let skew_ms = world.cloud.skew_ms.load(std::sync::atomic::Ordering::Relaxed);
    let now_ms = world.epoch_ms + i64::try_from(world.now_ms())? + skew_ms;
    let ids = Ids::seeded(world.derived(CLOUD, process.number));
    let gate = SimGate { world: world.clone(), process: process.clone() };
    let mut config = Config::default();
    config.leases.ttl_ms = LEASE_TTL_MS;
    config.uploads.mass_delete_percent = 100;
    let parts = EngineParts {
        store: Store::inline(world.cloud.disk.clone(), Arc::new(gate), ids.clone()),
        pki: papers().pki(),
        kit: KitContext::new("mock-cloud", Clock::automatic_from(now_ms)),
        config,
        ids,
    };
    let engine = Engine::start(parts).await?;
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    lock(&world.cloud.state).cloud = Some(engine.cloud().clone());
    tokio::spawn(take_orders(world.clone(), process.clone(), engine.cloud().clone()));
    loop {
        let (stream, from) = listener.accept().await?;
        process.alive().await;
        tokio::spawn(engine.serve(SimStream::new(stream, process.clone()), from));
    }
}

/// The API's users, without the API: what they order is submitted as the API does it.
async fn take_orders(world: Arc<World>, process: Arc<Process>, cloud: Arc<Cloud>) {
    loop {
        let ordered = world.cloud.ordered.notified();
        process.alive().await;
        let next = lock(&world.cloud.orders).pop_front();
        let Some(order) = next else {
            ordered.await;
            continue;
        };
        tokio::spawn(serve(world.clone(), cloud.clone(), order));
    }
}

async fn serve(world: Arc<World>, cloud: Arc<Cloud>, order: Order) {
    match order {
        Order::Action { n, new } => match dispatch::submit(&cloud, TENANT, new).await {
            Ok(id) => {
                world.note("api", format_args!("action {n} is {id}"));
                let earlier = lock(&world.system).ids.insert(n, id.clone());
                if earlier.as_ref().is_some_and(|earlier| *earlier != id) {
                    world.violated(format!("order {n} became two actions, {earlier:?} and {id}"));
                }
            }
            Err(error) => world.violated(format!("order {n} is refused: {error}")),
        },
        Order::Authenticate { n } => {
            let password = Secret::new(format!("{CANARY}{}-{n}", world.seed));
            let request = AuthRequest { username: format!("user-{n}"), password };
            let verdict = dispatch::authenticate(&cloud, TENANT, request).await;
            world.note("api", format_args!("verdict {n}: {}", verdict.reply.outcome.as_str()));
            lock(&world.stats).did(verdict.reply.outcome.as_str());
        }
        Order::Config { module, version } => {
            let settings = serde_json::json!({ "version": version });
            let now_ms = cloud.now_ms();
            match cloud.store.put_config(TENANT, module, true, settings, "api", now_ms).await {
                Ok(revision) => world.note("api", format_args!("{module} has revision {revision}")),
                Err(error) => world.violated(format!("a config is not stored: {error}")),
            }
            dispatch::push_config(&cloud, TENANT, module).await;
        }
    }
}
