//! Plays scenarios one after another and writes down what happened.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::progress::Progress;
use crate::report::{RunReport, ScenarioReport, StepReport};
use crate::spec::{Case, Step};
use crate::steps;
use crate::world::{AgentProgram, World};

/// How to play.
pub struct Stage {
    /// The program that is the agent.
    pub agent: AgentProgram,
    /// Overrides the seed of every scenario.
    pub seed: Option<u64>,
    /// Someone watches: say where to look before the first step, and rest after each so that it can be seen.
    pub audience: Option<Duration>,
}

/// Plays every case; a failed one does not keep the next from running.
pub async fn play_all(cases: &[Case], stage: &Stage, progress: &Progress) -> RunReport {
    let started_ms = unix_ms();
    let mut scenarios = Vec::with_capacity(cases.len());
    for case in cases {
        scenarios.push(play(case, stage, progress).await);
    }
    RunReport { started_ms, scenarios }
}

/// Plays one case in a world of its own, and takes the world down.
pub async fn play(case: &Case, stage: &Stage, progress: &Progress) -> ScenarioReport {
    let (report, world) = play_and_keep(case, stage, progress).await;
    if let Some(world) = world {
        world.stop().await;
    }
    report
}

/// Plays one case and leaves its world up, if it ever stood.
pub async fn play_and_keep(
    case: &Case,
    stage: &Stage,
    progress: &Progress,
) -> (ScenarioReport, Option<World>) {
    let mut spec = case.scenario.world.clone();
    spec.seed = stage.seed.unwrap_or(spec.seed);
    let mut report = ScenarioReport {
        id: case.id.clone(),
        name: case.scenario.name.clone(),
        covers: case.scenario.covers.clone(),
        seed: spec.seed,
        replay: format!("causeway run {} --seed {}", case.id, spec.seed),
        setup_ms: 0,
        steps: Vec::new(),
        steps_left: case.scenario.steps.len(),
        setup_error: None,
        events: Vec::new(),
    };
    progress.scenario(&case.scenario.name);
    progress.step("Setting up the world");
    let started = Instant::now();
    let world = Box::pin(World::start(&spec, &stage.agent)).await;
    report.setup_ms = elapsed_ms(started);
    let mut world = match world {
        Ok(world) => world,
        Err(error) => {
            report.setup_error = Some(format!("{error:#}"));
            progress.scenario_done(&report);
            return (report, None);
        }
    };
    if stage.audience.is_some() {
        progress.line(&format!("\n{}\n", world.sign_in()));
    }
    for step in &case.scenario.steps {
        if !play_step(step, &mut world, started, &mut report, progress).await {
            break;
        }
        if let Some(rest) = stage.audience {
            tokio::time::sleep(rest).await;
        }
    }
    report.events = world.events(started).await;
    progress.scenario_done(&report);
    (report, Some(world))
}

/// Plays one step and writes it down; false when it does not hold.
async fn play_step(
    step: &Step,
    world: &mut World,
    started: Instant,
    report: &mut ScenarioReport,
    progress: &Progress,
) -> bool {
    let say = step.say.clone().unwrap_or_else(|| steps::describe(&step.verb));
    progress.step(&say);
    let started_ms = elapsed_ms(started);
    let (detail, error) = match Box::pin(steps::perform(&step.verb, world)).await {
        Ok(detail) => (detail, None),
        Err(error) => (String::new(), Some(format!("{error:#}"))),
    };
    let holds = error.is_none();
    let verb = steps::name(&step.verb).to_owned();
    let elapsed_ms = elapsed_ms(started) - started_ms;
    let done = StepReport { say, verb, started_ms, elapsed_ms, detail, error };
    progress.step_done(&done);
    report.steps.push(done);
    report.steps_left -= 1;
    holds
}

fn elapsed_ms(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
