//! The kit over real sockets. Time is tokio's paused time wherever a test is about time, so nothing here waits.

mod admin;
mod dns;
mod faults;
mod http;
mod listeners;
mod pki;
mod proxies;
