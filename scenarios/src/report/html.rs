//! `report.html`: one page without external parts, a timeline a person would rather look at than read.

use askama::Template;

use super::{RunReport, ScenarioReport};

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    started: String,
    passed: usize,
    failed: usize,
    scenarios: Vec<Row<'a>>,
}

struct Row<'a> {
    scenario: &'a ScenarioReport,
    passed: bool,
    elapsed: String,
    bars: Vec<Bar<'a>>,
    marks: Vec<Mark<'a>>,
    ticks: Vec<(String, String)>,
}

struct Bar<'a> {
    number: usize,
    say: &'a str,
    detail: &'a str,
    error: Option<&'a str>,
    left_percent: String,
    width_percent: String,
    elapsed: String,
    verb: &'a str,
}

struct Mark<'a> {
    left_percent: String,
    kind: &'a str,
    text: &'a str,
    at: String,
}

pub(super) fn render(run: &RunReport) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let passed = run.scenarios.iter().filter(|scenario| scenario.passed()).count();
    let started = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(run.started_ms) * 1_000_000)?
        .format(&time::format_description::well_known::Rfc3339)?;
    let page = Page {
        started,
        passed,
        failed: run.scenarios.len() - passed,
        scenarios: run.scenarios.iter().map(row).collect(),
    };
    Ok(page.render()?.into_bytes())
}

fn row(scenario: &ScenarioReport) -> Row<'_> {
    let total_ms = (scenario.elapsed().as_millis() as f64).max(1.0);
    let percent = |ms: u64| format!("{:.2}", ms as f64 / total_ms * 100.0);
    let bars = scenario.steps.iter().enumerate().map(|(index, step)| Bar {
        number: index + 1,
        say: &step.say,
        detail: &step.detail,
        error: step.error.as_deref(),
        left_percent: percent(step.started_ms),
        width_percent: percent(step.elapsed_ms),
        elapsed: spell(step.elapsed_ms),
        verb: &step.verb,
    });
    let marks = scenario.events.iter().filter(|event| event.at_ms as f64 <= total_ms).map(|event| Mark {
        left_percent: percent(event.at_ms),
        kind: &event.kind,
        text: &event.text,
        at: spell(event.at_ms),
    });
    Row {
        scenario,
        passed: scenario.passed(),
        elapsed: spell(total_ms as u64),
        bars: bars.collect(),
        marks: marks.collect(),
        ticks: (0..=4)
            .map(|n| (format!("{}", n * 25), spell((total_ms * f64::from(n) / 4.0) as u64)))
            .collect(),
    }
}

fn spell(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1_000.0) }
}
