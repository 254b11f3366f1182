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

/// Prints an error and its sources as one line: `a: b: c`.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
