//! The real agent and the real mock-cloud in one process, with a link between them that can be cut.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as loudly as the tests themselves")]
#![allow(clippy::result_large_err, reason = "a stanza error is what a refused iq gives")]
#![allow(clippy::large_futures, reason = "a test's stack is large enough for a whole session")]

mod canary;
mod canary_certificates;
mod channel;
mod doctor;
mod files;
mod links;
mod simulation;
mod support;
mod uploads;
mod wine;
