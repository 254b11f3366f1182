//! The cloud from outside: everything over its real ports.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as loudly as the tests themselves")]
#![allow(clippy::result_large_err, reason = "a stanza error is what a refused iq gives")]
#![allow(clippy::large_futures, reason = "a test's stack is large enough for a whole login")]

mod admission;
mod api_contract;
mod api_directory;
mod api_durable;
mod certificates;
mod channel_hostile;
mod channel_login;
mod channel_stream;
mod channel_websocket;
mod devices;
mod dispatch_actions;
mod dispatch_requests;
mod ingest_uploads;
mod portal_pages;
mod support;
