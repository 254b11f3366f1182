//! A directory server for tests and demos: one generated company behind the personalities of the directories in use.
//!
//! [`MockLdap::start`] gives a running server with its ports; dropping it stops everything.

pub mod admin;
pub mod ber;
pub mod config;
pub mod controls;
pub mod dit;
pub mod dn;
pub mod filter;
pub mod ldif;
pub mod limits;
pub mod message;
pub mod personality;
pub mod result;
mod sasl;
mod server;
mod session;

pub use config::{ChannelBinding, Config, Policies, Replication, ServerConfig};
pub use server::{MockLdap, StartError};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
