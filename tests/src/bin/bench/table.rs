//! Figures of several rounds, ours beside the peer's: medians, spread and ratio.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One benchmark's figures.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// One figure of ours, with its peer's where there is one.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    ours: Vec<f64>,
    peer: Option<(String, Vec<f64>)>,
    goal: String,
}

impl Table {
    /// Adds a figure with its peer; round `n` of both sides was taken one after the other.
    pub(crate) fn against(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        ours: Vec<f64>,
        (peer, theirs): (impl Into<String>, Vec<f64>),
        goal: impl Into<String>,
    ) {
        self.rows.push(Row {
            what: what.into(),
            unit,
            ours,
            peer: Some((peer.into(), theirs)),
            goal: goal.into(),
        });
    }

    /// Adds a figure that has no peer.
    pub(crate) fn alone(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        ours: Vec<f64>,
        goal: impl Into<String>,
    ) {
        self.rows.push(Row { what: what.into(), unit, ours, peer: None, goal: goal.into() });
    }

    /// Adds a sentence: versions, limits of the measurement.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Writes `target/bench/<name>.json`.
    pub(crate) fn write(&self, name: &str) -> Result<()> {
        let folder = Path::new("target/bench");
        std::fs::create_dir_all(folder).context("make target/bench")?;
        let path = folder.join(format!("{name}.json"));
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("write {}", path.display()))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<52} {:>22} {:>34} {:>8}  goal",
            "", "ours: median (min-max)", "peer: median (min-max)", "ratio"
        )?;
        for row in &self.rows {
            let peer = row
                .peer
                .as_ref()
                .map_or("-".to_owned(), |(name, figures)| format!("{name} {}", spread(figures)));
            let ratio = match &row.peer {
                Some((_, theirs)) => format!("{:.2}", median(&ratios(&row.ours, theirs))),
                None => "-".to_owned(),
            };
            let what = format!("{} ({})", row.what, row.unit);
            writeln!(f, "  {what:<52} {:>22} {peer:>34} {ratio:>8}  {}", spread(&row.ours), row.goal)?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

/// Ratio of each pair of rounds; their median says more than the ratio of medians when the machine drifts.
fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

fn spread(figures: &[f64]) -> String {
    let (min, max) = figures.iter().fold((f64::MAX, f64::MIN), |(min, max), n| (min.min(*n), max.max(*n)));
    match figures.len() {
        0 => "-".to_owned(),
        1 => number(min),
        _ => format!("{} ({}-{})", number(median(figures)), number(min), number(max)),
    }
}

fn number(n: f64) -> String {
    match n.abs() {
        big if big >= 100.0 => format!("{n:.0}"),
        middle if middle >= 10.0 => format!("{n:.1}"),
        _ => format!("{n:.2}"),
    }
}

/// The middle figure; the mean of the two middle ones for an even number.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The figure that `percent` of all do not exceed.
pub(crate) fn percentile(figures: &[f64], percent: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * percent / 100.0).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
