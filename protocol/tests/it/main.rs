//! The wire types from outside: everything that is written can be read, nothing that arrives can hurt, and what the
//! standards show is understood.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as loudly as the tests themselves")]

mod any;
mod certificates;
mod clixml;
mod hostile;
mod remote_session;
mod remoting;
mod round_trip;
mod standards;
