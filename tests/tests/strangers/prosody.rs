//! The agent's channel core at Prosody.

use anyhow::{Result, ensure};
use causeway_tests::containers::Prosody;

use crate::foreign::{By, Foreign, everything_but_a_restart, wrong_password};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channel_core_lives_with_prosody() -> Result<()> {
    let Some(server) = Prosody::start().await? else { return Ok(()) };
    wrong_password(&server).await?;
    let mut foreign = Foreign::start(server, By::Password).await?;
    everything_but_a_restart(&foreign).await?;
    // Prosody cuts connections whose sessions it could resume, so that their counters survive its restart.
    let reason = foreign.restart(async |server| server.terminate().await).await?;
    ensure!(!reason.is_empty(), "the channel says why it is offline");
    foreign.talk().await?;
    foreign.stop().await
}
