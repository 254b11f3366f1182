//! A certificate authority for tests and demos: one issuing core behind SCEP and NDES, AD CS web enrolment, XCEP and
//! WSTEP, Symantec's and DigiCert's MPKI, and Entrust.
//!
//! `core` is pure state with its rules; the front ends speak protocols and decide nothing. [`MockCa::start`] gives a
//! running authority with its ports; dropping it stops everything.

// Doors answer refusals themselves; a response is large, and made once per request.
#![allow(clippy::result_large_err)]

pub mod accounts;
pub mod admin;
mod bag;
pub mod certsrv;
pub mod config;
pub mod core;
pub mod door;
pub mod entrust;
pub mod limits;
pub mod mpki;
pub mod ndes;
pub mod profile;
mod publish;
pub mod ra;
pub mod scep;
pub mod serve;
mod server;
pub mod xcep;

pub use config::Config;
pub use server::{MockCa, Shared, StartError, World};
