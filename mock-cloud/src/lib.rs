//! mock-cloud: the management cloud in one process.
//!
//! The state is in [`store`] (SQLite) and [`state`]; agents reach it through `port`, `channel` and `ingest`, people
//! and programs through `api` and `portal`; `dispatch` carries work from the second to the first.

pub mod access;
pub mod admission;
pub mod api;
pub mod certificates;
pub mod channel;
pub mod config;
pub mod dispatch;
mod drain;
mod due;
pub mod enrollment;
pub mod events;
mod ids;
pub mod ingest;
pub mod limits;
pub mod mobile;
mod mock;
mod offload;
pub mod pki;
pub mod port;
pub mod portal;
pub mod state;
pub mod store;
mod unread;
mod world;

pub use config::Config;
pub use ids::Ids;
pub use mock::{Engine, EngineParts, MockCloud, StartError};
pub use state::Cloud;
