//! The mock from outside: front ends over real sockets, and what an administrator sees.

#![expect(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test] as tests; these modules are nothing else"
)]

mod activesync;
mod phones;
mod powershell;
