//! `run`: the agent in the foreground, as a service manager starts it.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{DataDir, say};
use crate::{Agent, AgentConfig, RunningAgent, logging, platform};

/// Arguments of `run`.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    data_dir: DataDir,
}

impl Run {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let config = AgentConfig::load(&self.data_dir.data_dir)?;
        logging::to_stderr(&config.settings.settings.log, &config.data_dir)?;
        let instance = config.identity.instance.clone();
        let cloud = config.settings.settings.cloud.url.clone();
        let agent = Agent::start(config).await?;
        tracing::info!(instance, cloud, version = env!("CARGO_PKG_VERSION"), "Agent started");
        platform::tell_ready();
        let mut stop = std::pin::pin!(stop_signal());
        let ready = serde_json::json!({ "ready": true, "instance": instance, "cloud": cloud });
        tokio::select! {
            () = online(&agent) => {
                // Whoever reads it may have gone, and the agent works on for the others.
                let _ = say::line(ready);
            }
            stopped = &mut stop => {
                stopped?;
                agent.stop().await;
                return Ok(ExitCode::SUCCESS);
            }
        }
        stop.await?;
        tracing::info!("Agent stops");
        agent.stop().await;
        Ok(ExitCode::SUCCESS)
    }
}

async fn online(agent: &RunningAgent) {
    if agent.channel().wait_online().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        pressed = tokio::signal::ctrl_c() => pressed.context("listen for Ctrl-C"),
    }
}

#[cfg(not(unix))]
async fn stop_signal() -> anyhow::Result<()> {
    tokio::signal::ctrl_c().await.context("listen for Ctrl-C")
}
