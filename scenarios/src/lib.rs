//! The scenario runner: worlds made of the real agent and the mocks, and stories told about them.

pub mod cloud_api;
pub mod demo;
pub mod device;
pub mod http;
pub mod portal;
pub mod progress;
pub mod report;
pub mod run;
pub mod spec;
mod steps;
pub mod world;

/// Keeps logs of the mocks out of the story: warnings and errors only, unless `RUST_LOG` says otherwise.
pub fn quiet_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    // A second call (tests) finds a subscriber in place, which is fine.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
