//! The agent's channel core at ejabberd: another dialect of stream management, and SASL EXTERNAL.

use anyhow::{Result, ensure};
use causeway_tests::containers::Ejabberd;

use crate::foreign::{By, Foreign, everything_but_a_restart, wrong_password};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channel_core_lives_with_ejabberd() -> Result<()> {
    let Some(server) = Ejabberd::start().await? else { return Ok(()) };
    wrong_password(&server).await?;
    let foreign = Foreign::start(server, By::Password).await?;
    everything_but_a_restart(&foreign).await?;
    foreign.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_opens_ejabberd_too() -> Result<()> {
    let Some(server) = Ejabberd::start().await? else { return Ok(()) };
    let mut foreign = Foreign::start(server, By::Certificate).await?;
    everything_but_a_restart(&foreign).await?;
    // ejabberd says goodbye.
    let reason = foreign.restart(async |server| server.exec(&["ejabberdctl", "stop"]).await).await?;
    ensure!(reason.contains("system-shutdown"), "offline because of: {reason}");
    foreign.talk().await?;
    foreign.stop().await
}
