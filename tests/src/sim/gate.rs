//! The cloud's disk in a simulation: its process can die before and after every job of its store.

use std::panic::Location;
use std::sync::Arc;

use causeway_mock_cloud::store::{Gate, Moment};
use futures_util::future::BoxFuture;

use super::net::CLOUD;
use super::storage::{Strike, strike};
use super::world::{Died, Process, World, lock};

/// Stands before the store of one process.
pub(super) struct SimGate {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
}

impl Gate for SimGate {
    fn pass(
        &self,
        asked_at: &'static Location<'static>,
        writes: bool,
        moment: Moment,
    ) -> BoxFuture<'static, ()> {
        let (world, process) = (self.world.clone(), self.process.clone());
        let file = asked_at.file().rsplit(['/', '\\']).next().unwrap_or_default();
        let kind = if writes { "write" } else { "read" };
        let when = match moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        let point = format!("cloud {kind} {file}:{} {when}", asked_at.line());
        Box::pin(async move {
            process.alive().await;
            if writes && moment == Moment::After {
                world.note(CLOUD, format_args!("wrote {file}:{}", asked_at.line()));
            }
            let struck = {
                let mut cloud = lock(&world.cloud.state);
                cloud.dirty |= writes && matches!(file, "actions.rs" | "dispatch.rs");
                strike(&world, &mut cloud.faults, &point)
            };
            match struck {
                Strike::Dies => {
                    process.die();
                    world.note(CLOUD, format_args!("dies at {point}"));
                    world.process_died(Died::Cloud);
                }
                Strike::Passes { slow_ms: 0 } => {}
                Strike::Passes { slow_ms } => {
                    tokio::time::sleep(std::time::Duration::from_millis(slow_ms)).await;
                }
            }
            process.alive().await;
        })
    }
}
