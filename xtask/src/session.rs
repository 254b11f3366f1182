//! What a run of `xtask` carries from step to step.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::peers::Served;
use crate::process::{self, Counts};

pub(crate) struct Session {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Tests so far.
    pub(crate) counts: Counts,
    /// What could not be tested here, with reasons, beside what the tests themselves report.
    pub(crate) skips: Vec<String>,
    /// Servers shared by the tests; removed when the run ends.
    pub(crate) served: Option<Served>,
}

impl Session {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the repository")?;
        Ok(Self { root: root.to_owned(), counts: Counts::default(), skips: Vec::new(), served: None })
    }

    /// Whether a missing peer is a failure, as in CI.
    pub(crate) fn peers_required(&self) -> bool {
        std::env::var("CAUSEWAY_REQUIRE_PEERS").is_ok_and(|value| value == "1")
    }

    /// Records something that cannot be done on this machine, aloud.
    pub(crate) fn skip(&mut self, what: &str, reason: &str) {
        println!("   SKIPPED {what}: {reason}");
        self.skips.push(format!("{what}: {reason}"));
    }

    /// Files of this run: timings, counted skips.
    pub(crate) fn own_dir(&self) -> anyhow::Result<PathBuf> {
        folder(self.root.join("target/xtask"))
    }

    /// What peers need: image tags, addresses, the Python environment, logs. The tests look here too.
    pub(crate) fn peers_dir(&self) -> anyhow::Result<PathBuf> {
        folder(self.root.join("target/peers"))
    }

    /// The file in which tests count what they could not test.
    pub(crate) fn skip_log(&self) -> anyhow::Result<PathBuf> {
        Ok(self.own_dir()?.join("skips.log"))
    }

    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        command.args(arguments);
        command
    }

    /// A program run in the repository.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// Runs a command that must succeed.
    pub(crate) fn stream(&self, command: &mut Command) -> anyhow::Result<()> {
        let (succeeded, _) = process::stream(command)?;
        if succeeded { Ok(()) } else { bail!("`{}` failed", process::shown(command)) }
    }

    /// Runs a test runner; its tests count whether it succeeds or not.
    pub(crate) fn run_tests(&mut self, command: &mut Command) -> anyhow::Result<()> {
        command.env("CAUSEWAY_SKIP_LOG", self.skip_log()?).env("CAUSEWAY_PEERS_DIR", self.peers_dir()?);
        let (succeeded, counts) = process::stream(command)?;
        self.counts += counts;
        if succeeded { Ok(()) } else { bail!("`{}` failed", process::shown(command)) }
    }
}

fn folder(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    Ok(path)
}
