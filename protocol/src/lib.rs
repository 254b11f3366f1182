//! Wire types, codecs and the state machines both ends of the channel share.
//!
//! Nothing here opens a socket, reads a clock or draws a random number: bytes, instants and randomness come in as
//! arguments and effects go out as values. That is what lets one body of code run over TLS, over a simulated network
//! with thousands of seeds, and inside a fuzz target. `cargo xtask check` enforces it.

#![warn(missing_docs)]

pub mod action;
pub mod activesync;
pub mod auth;
pub mod certificate;
pub mod chain;
pub mod channel;
pub mod clixml;
pub mod cmdlet;
pub mod cms;
pub mod config;
pub mod enrol;
pub mod health;
pub mod limits;
pub mod mobile;
pub mod pkix;
pub mod psrp;
pub mod record;
pub mod scep;
pub mod secret;
pub mod upload;
pub mod wbxml;
pub mod wsman;
pub mod xml;

pub use chain::Chain;
pub use secret::Secret;
