//! `configure` without arguments: the wizard. Every answer is tried on the live system before it is kept; nothing is on
//! disk, and no enrolment key is spent, before the person has seen the summary and agreed.

mod authority;
mod cloud;
mod console;
mod directory;
mod exchange;
mod rest;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use causeway_protocol::Secret;

use self::console::{Console, Terminal, choose, confirm};
use super::draft::Draft;
use super::enroll::join;
use super::tables::KINDS;
use crate::channel::enrol::EnrolError;
use crate::checks::{CheckResult, Verdict};
use crate::identity::Identity;
use crate::platform::PlatformSealer;

/// What the person has decided so far.
struct Session<'a> {
    console: &'a mut dyn Console,
    draft: Draft,
    /// Authorities of the cloud to be copied beside the settings.
    authorities: Option<Vec<u8>>,
    /// Spent when everything is kept.
    key: Option<Secret>,
}

/// Steps of the wizard, in their order.
const STEPS: [&str; 7] =
    ["cloud and proxy", "directory", "Exchange", "certificates", "modules", "limits", "save and end"];

/// Asks everything the first time, and what to change later.
///
/// # Errors
/// When the person goes away; nothing is changed then.
pub(super) async fn run(data_dir: &Path) -> anyhow::Result<ExitCode> {
    crate::platform::create_private_dir(data_dir)
        .with_context(|| format!("create {}", data_dir.display()))?;
    console::restore_after_interrupt();
    let mut terminal = Terminal;
    let draft = Draft::load(data_dir)?;
    let mut session = Session { console: &mut terminal, draft, authorities: None, key: None };
    session.talk().await
}

impl Session<'_> {
    async fn talk(&mut self) -> anyhow::Result<ExitCode> {
        let enrolled = self.identity()?;
        self.console.say("Causeway agent: settings. An empty line takes the value in brackets; Ctrl-C ends without a change.\n");
        let settings = self.draft.settings()?.settings;
        if enrolled.is_some() && KINDS.iter().any(|kind| kind.names(&settings).next().is_some()) {
            return self.menu().await;
        }
        self.cloud().await?;
        self.directory().await?;
        self.exchange().await?;
        self.certificates().await?;
        self.modules()?;
        self.limits()?;
        self.finish().await
    }

    /// One thing after the other, until the person saves.
    async fn menu(&mut self) -> anyhow::Result<ExitCode> {
        loop {
            self.console.say("\nWhat would you like to change?");
            let options = STEPS.map(str::to_owned);
            match choose(self.console, "Number", &options, STEPS.len() - 1)? {
                0 => self.cloud().await?,
                1 => self.directory().await?,
                2 => self.exchange().await?,
                3 => self.certificates().await?,
                4 => self.modules()?,
                5 => self.limits()?,
                _ => return self.finish().await,
            }
        }
    }

    /// Who this agent is, if it has enrolled; a damaged identity is not overwritten unseen.
    fn identity(&self) -> anyhow::Result<Option<Identity>> {
        Ok(Identity::find(&self.draft.data_dir, &PlatformSealer)?)
    }

    /// Summary, consent, and everything at once.
    async fn finish(&mut self) -> anyhow::Result<ExitCode> {
        self.name_kept_authorities()?;
        let enrols = self.key.is_some();
        if !self.draft.is_changed() && !enrols && self.authorities.is_none() {
            self.console.say("\nNothing was changed.");
            return Ok(ExitCode::SUCCESS);
        }
        self.console.say("\nThis will change:");
        for line in self.draft.diff() {
            self.console.say(&format!("  {line}"));
        }
        if enrols {
            self.console.say("  this agent joins the cloud; the enrolment key is spent");
        }
        if !confirm(self.console, "Keep it?", true)? {
            self.console.say("Nothing was changed.");
            return Ok(ExitCode::FAILURE);
        }
        self.keep().await?;
        self.console.say("Kept. Start or restart the agent to use it: causeway-agent service start, or causeway-agent run.");
        Ok(ExitCode::SUCCESS)
    }

    async fn keep(&mut self) -> anyhow::Result<()> {
        if let Some(pem) = &self.authorities {
            let kept = self.draft.data_dir.join(super::enroll::CA_FILE);
            crate::secrets::write_private(&kept, pem).with_context(|| format!("write {}", kept.display()))?;
        }
        while let Some(key) = self.key.clone() {
            match join(&self.draft, key).await {
                Ok(identity) => {
                    self.console
                        .say(&format!("Enrolled as {} of tenant {}.", identity.instance, identity.tenant));
                    return Ok(());
                }
                Err(error) => {
                    self.console.say(&format!("  FAIL  {error:#}"));
                    if error.downcast_ref::<EnrolError>().is_none() {
                        // The disk, for example: another key would not help, and might be lost with it.
                        if !confirm(self.console, "Try it again with this key?", true)? {
                            return Err(error);
                        }
                        continue;
                    }
                    self.console.say(
                        "        remedy: make a new enrolment key in the cloud's portal, or correct the key",
                    );
                    self.key = Some(self.console.secret("Enrolment key (not shown): ")?);
                }
            }
        }
        self.draft.save()
    }

    /// Shows results; true when nothing failed.
    fn show(&mut self, results: &[CheckResult]) -> bool {
        for result in results {
            let word = match result.verdict() {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
                Verdict::Skipped => continue,
            };
            let of =
                if result.subject().is_empty() { String::new() } else { format!(" {}", result.subject()) };
            self.console.say(&format!("  {word}  {}{of}: {}", result.name(), result.detail()));
            if !result.remedy().is_empty() {
                self.console.say(&format!("        remedy: {}", result.remedy()));
            }
        }
        results.iter().all(|result| result.verdict() != Verdict::Fail)
    }
}
