//! The Causeway agent: it stands behind the firewall, keeps one outbound connection to the management cloud, and does
//! through it what its modules can.

pub mod chain;
pub mod channel;
pub mod clock;
pub mod config;
pub mod dial;
pub mod identity;
pub mod directory;
pub mod limits;
pub mod link;
pub mod modules;
pub mod random;
pub mod secrets;
pub mod status;
pub mod storage;
