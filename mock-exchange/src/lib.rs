//! An Exchange organisation for tests and demos: one world of mailboxes, phones and policies behind PowerShell
//! remoting, Exchange Online's admin REST, ActiveSync and autodiscover.
//!
//! `world` is pure state with its rules; `cmdlets` is what administrators can do with it; the front ends speak protocols
//! and decide nothing. [`MockExchange::start`] gives a running organisation with its ports; dropping it stops everything.

pub mod activesync;
pub mod admin;
pub mod cmdlets;
pub mod config;
mod kerberos;
pub mod limits;
pub mod phone;
pub mod powershell;
pub mod profile;
pub mod rest;
mod server;
pub mod world;

pub use config::Config;
pub use server::{Login, MockExchange, Shared, StartError};
