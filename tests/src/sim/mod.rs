//! Deterministic simulation: the production agent and the production cloud on a simulated network, with simulated
//! time, seeded chance, and storage that crashes. One seed is one run; the same seed is the same run.
//!
//! [`run`] plays a seed: faults and work for a while ([`plan`]), then everything is mended and must come to rest. What
//! must hold is in [`invariants`]; what may happen to a process at a storage await is in [`storage`] and [`gate`].
//! Simulated are the network (turmoil), the disks, the clocks, and the systems behind the modules ([`modules`]);
//! everything else is the code that ships.

mod agent_host;
mod cloud_host;
mod gate;
mod invariants;
mod modules;
mod net;
mod papers;
mod plan;
pub mod regressions;
mod run;
mod stats;
mod storage;
mod world;

pub use run::{Outcome, run};
pub use stats::Stats;
