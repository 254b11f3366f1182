//! The cloud from outside: everything over its real ports.

mod channel_login;
mod channel_stream;
mod dispatch_actions;
mod dispatch_requests;
mod ingest_uploads;
mod support;
