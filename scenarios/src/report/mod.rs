//! What a run leaves behind: `report.json` for programs, `junit.xml` for CI, `report.html` for people.

mod html;
mod junit;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

/// One run of some scenarios.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// Unix milliseconds of the start.
    pub started_ms: i64,
    /// The scenarios, in the order they ran.
    pub scenarios: Vec<ScenarioReport>,
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioReport {
    /// Short name.
    pub id: String,
    /// What it proves.
    pub name: String,
    /// Requirement tags.
    pub covers: Vec<String>,
    /// The seed it ran with.
    pub seed: u64,
    /// The command that plays it again exactly.
    pub replay: String,
    /// Time until the world stood.
    pub setup_ms: u64,
    /// Steps that ran, in order; the last one is the failed one if any failed.
    pub steps: Vec<StepReport>,
    /// Steps that did not run because an earlier one failed.
    pub steps_left: usize,
    /// Why the world could not be set up, if so.
    pub setup_error: Option<String>,
    /// What happened in the cloud meanwhile: (milliseconds since the start, kind, what).
    pub events: Vec<EventMark>,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// What it did, for people.
    pub say: String,
    /// Its verb.
    pub verb: String,
    /// Milliseconds since the start of the scenario.
    pub started_ms: u64,
    /// How long it took.
    pub elapsed_ms: u64,
    /// What was seen.
    pub detail: String,
    /// Why it failed, if so.
    pub error: Option<String>,
}

/// Something the cloud reported while the scenario ran.
#[derive(Clone, Debug, Serialize)]
pub struct EventMark {
    /// Milliseconds since the start of the scenario.
    pub at_ms: u64,
    /// Event kind.
    pub kind: String,
    /// For people.
    pub text: String,
}

impl ScenarioReport {
    /// Whether every step held.
    pub fn passed(&self) -> bool {
        self.setup_error.is_none()
            && self.steps_left == 0
            && self.steps.iter().all(|step| step.error.is_none())
    }

    /// From the start of the set-up to the end of the last step.
    pub fn elapsed(&self) -> Duration {
        let end = self.steps.last().map_or(self.setup_ms, |step| step.started_ms + step.elapsed_ms);
        Duration::from_millis(end)
    }

    /// Why it failed, in one line.
    pub fn failure(&self) -> Option<String> {
        if let Some(error) = &self.setup_error {
            return Some(format!("set-up: {error}"));
        }
        let step = self.steps.iter().find(|step| step.error.is_some())?;
        Some(format!("{}: {}", step.say, step.error.as_deref().unwrap_or_default()))
    }
}

impl RunReport {
    /// Whether every scenario passed.
    pub fn passed(&self) -> bool {
        self.scenarios.iter().all(ScenarioReport::passed)
    }

    /// Writes the three files into `folder`, which is made if needed.
    ///
    /// # Errors
    /// When a file cannot be written; names it.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| ReportError { path: folder.to_owned(), source: source.into() })?;
        let put = |name: &str, content: Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>| {
            let path = folder.join(name);
            content
                .and_then(|bytes| std::fs::write(&path, bytes).map_err(Into::into))
                .map_err(|source| ReportError { path, source })
        };
        put("report.json", serde_json::to_vec_pretty(self).map_err(Into::into))?;
        put("junit.xml", junit::render(self))?;
        put("report.html", html::render(self))
    }
}

/// A report file could not be written.
#[derive(Debug, Error)]
#[error("write report {}; choose a writable folder with --report", path.display())]
pub struct ReportError {
    path: PathBuf,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(say: &str, error: Option<&str>) -> StepReport {
        StepReport {
            say: say.into(),
            verb: "expect".into(),
            started_ms: 100,
            elapsed_ms: 50,
            detail: "3 agents".into(),
            error: error.map(Into::into),
        }
    }

    fn scenario(steps: Vec<StepReport>) -> ScenarioReport {
        ScenarioReport {
            id: "x".into(),
            name: "names with <angles> & \"quotes\" survive".into(),
            covers: vec!["user_auth".into()],
            seed: 7,
            replay: "causeway run x --seed 7".into(),
            setup_ms: 90,
            steps,
            steps_left: 0,
            setup_error: None,
            events: vec![EventMark { at_ms: 120, kind: "agent.online".into(), text: "agent <1>".into() }],
        }
    }

    #[test]
    fn the_three_files_tell_the_same_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunReport {
            started_ms: 0,
            scenarios: vec![scenario(vec![step("a", None)]), scenario(vec![step("b", Some("no <way>"))])],
        };
        assert!(!run.passed());
        run.write(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let junit = read("junit.xml");
        assert!(junit.contains("tests=\"2\"") && junit.contains("failures=\"1\""), "{junit}");
        let html = read("report.html");
        assert!(html.contains("no &#60;way&#62;") || html.contains("no &lt;way&gt;"), "unescaped or missing");
        assert!(!html.contains("<angles>"));
        let json: serde_json::Value = serde_json::from_str(&read("report.json")).unwrap();
        assert_eq!(json["scenarios"][1]["steps"][0]["error"], "no <way>");
    }

    #[test]
    fn an_unwritable_folder_is_named_with_the_remedy() {
        let run = RunReport { started_ms: 0, scenarios: vec![] };
        let error = run.write(Path::new("/proc/none/such")).unwrap_err();
        assert!(error.to_string().contains("/proc/none/such") && error.to_string().contains("--report"));
    }
}
