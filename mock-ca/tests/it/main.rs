//! The mock as clients see it.

#![expect(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test] as tests; these modules are nothing else"
)]

mod admin;
mod client;
mod faults;
mod hostile;
mod ndes;
mod program;
mod scep;
