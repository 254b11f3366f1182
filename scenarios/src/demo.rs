//! `causeway demo`: a living company in a browser within seconds, and a story that breaks things and heals them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::progress::Progress;
use crate::run::{Stage, play_and_keep};
use crate::spec;
use crate::world::{AgentProgram, World};

/// Rest after each step when someone watches.
const REST: Duration = Duration::from_millis(1_500);

/// The story, as data: an ordinary scenario.
const STORY: &str = "demo";

/// What `causeway demo` was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Address of the portal.
    pub listen: SocketAddr,
    /// People in the company.
    pub users: usize,
    /// Seed of the company.
    pub seed: u64,
    /// Play the story and end.
    pub once: bool,
}

/// Boots the sandbox, plays the story and stays up, or ends with `once`.
///
/// # Errors
/// When the world does not stand or, with `once`, a step of the story does not hold.
pub async fn demo(options: Options) -> Result<()> {
    let mut case = spec::find(STORY)?;
    case.scenario.world.users = options.users;
    case.scenario.world.seed = options.seed;
    case.scenario.world.listen = Some(options.listen);
    let audience = (!options.once).then_some(REST);
    let stage = Stage { agent: AgentProgram::this_program()?, seed: None, audience };
    let progress = Progress::on_terminal();
    let (report, world) = play_and_keep(&case, &stage, &progress).await;
    drop(progress);
    let held = report.steps.iter().filter(|step| step.error.is_none()).count();
    println!("{held} of {} steps held in {:.1} s", case.scenario.steps.len(), report.elapsed().as_secs_f64());
    if let Some(failure) = report.failure()
        && (options.once || world.is_none())
    {
        bail!("{failure}");
    }
    let Some(world) = world else { bail!("the sandbox did not stand") };
    if options.once {
        world.stop().await;
        return Ok(());
    }
    stay_up(world).await
}

/// Shows where to look and waits for Ctrl-C.
///
/// # Errors
/// When the signal cannot be waited for.
pub async fn stay_up(world: World) -> Result<()> {
    println!("\n{}", world.sign_in());
    println!("The sandbox stays up; Ctrl-C ends it.");
    tokio::signal::ctrl_c().await?;
    world.stop().await;
    Ok(())
}
