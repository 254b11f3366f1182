//! The Causeway agent: it stands behind the firewall, keeps one outbound connection to the management cloud, and does
//! through it what its modules can.
//!
//! [`Agent::start`] puts everything together; nothing is global, so several agents can live in one process.

pub(crate) mod agent;
pub mod ca;
pub mod channel;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod dial;
pub mod directory;
pub mod dispatch;
pub mod exchange;
mod glimpse;
pub mod health;
pub mod identity;
mod leases;
pub mod limits;
pub mod link;
pub mod logging;
pub mod modules;
pub mod orchestrator;
pub mod platform;
pub mod random;
mod rotation;
pub mod secrets;
pub mod status;
pub mod storage;
pub mod supervisor;
mod surroundings;
mod uplink;
mod upload;
pub mod vault;
pub mod wake;
pub mod way;
pub mod web;

pub use causeway_protocol::chain;

pub use agent::{Agent, AgentConfig, RunningAgent, StartError, dialer, endpoint, trust};
