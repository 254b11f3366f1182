//! The agent as a whole, against a cloud in memory and against real files, sockets and processes.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as loudly as the tests themselves")]
#![allow(clippy::result_large_err, reason = "a stanza error is what a refused iq gives")]
#![allow(clippy::large_futures, reason = "a test's stack is large enough for a whole session")]

mod actions;
mod check_network;
mod config;
mod discovery;
mod hostile_login;
mod hostile_session;
mod process;
mod proxy;
mod proxy_auth;
mod session;
mod storage;
mod support;
mod ways_out;
