//! What a person sees on the terminal while a scenario runs: one line a step, with its time, on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::{ScenarioReport, StepReport};

/// Live output. On a terminal the running step has a spinner; elsewhere every line is printed when it is known.
pub struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    /// Shows everything on stderr; a spinner only where someone can see it move.
    pub fn on_terminal() -> Self {
        use std::io::IsTerminal;
        Self { spinner: std::io::stderr().is_terminal().then(ProgressBar::new_spinner).inspect(prepare) }
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Self { spinner: Some(ProgressBar::hidden()) }
    }

    /// A scenario begins.
    pub fn scenario(&self, name: &str) {
        self.line(&format!("\n{name}"));
    }

    /// A step begins.
    pub fn step(&self, say: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(say.to_owned());
        }
    }

    /// A step has ended.
    pub fn step_done(&self, step: &StepReport) {
        let mark = if step.error.is_none() { "ok  " } else { "FAIL" };
        let mut line = format!("  {mark} {:>7}  {}", spell(step.elapsed_ms), step.say);
        if !step.detail.is_empty() {
            line.push_str(&format!("  ({})", step.detail));
        }
        if let Some(error) = &step.error {
            line.push_str(&format!("\n                {error}"));
        }
        self.line(&line);
    }

    /// A scenario has ended.
    pub fn scenario_done(&self, scenario: &ScenarioReport) {
        if let Some(error) = &scenario.setup_error {
            self.line(&format!("  FAIL          the world did not stand: {error}"));
        }
        if !scenario.passed() {
            self.line(&format!("  play it again: {}", scenario.replay));
        }
    }

    /// A line of its own.
    pub fn line(&self, text: &str) {
        match &self.spinner {
            Some(spinner) if spinner.is_hidden() => {}
            Some(spinner) => spinner.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn prepare(spinner: &ProgressBar) {
    spinner.set_style(
        ProgressStyle::with_template("  {spinner} {elapsed:>10}  {msg}").expect("the template is valid"),
    );
    spinner.enable_steady_tick(Duration::from_millis(100));
}

fn spell(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1_000.0) }
}
