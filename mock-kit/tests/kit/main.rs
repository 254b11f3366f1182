//! The kit over real sockets. Time is tokio's paused time wherever a test is about time, so nothing here waits.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, also in its helper functions, a failed unwrap is the failure"
)]

mod admin;
mod dns;
mod faults;
mod http;
mod listeners;
mod pki;
mod proxies;
