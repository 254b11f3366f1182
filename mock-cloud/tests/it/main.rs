//! The cloud from outside: everything over its real ports.

mod api_contract;
mod api_directory;
mod api_durable;
mod channel_login;
mod channel_stream;
mod dispatch_actions;
mod dispatch_requests;
mod ingest_uploads;
mod portal_pages;
mod support;
