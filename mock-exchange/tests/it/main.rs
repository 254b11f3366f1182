//! The mock from outside: its world, its cmdlets, front ends over real sockets, and what an administrator sees.

#![expect(
    clippy::unwrap_used,
    reason = "clippy only knows functions marked #[test] as tests; these modules are nothing else"
)]

mod access;
mod activesync;
mod admin;
mod cmdlets;
mod fixture;
mod limits;
mod partnerships;
mod phones;
mod powershell;
mod program;
mod replication;
mod rest;
mod versions;
