//! Agents as real processes, so that killing one is killing one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// How long an agent may take from its start to its ready line.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How long a command of the agent's own may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(30);

/// How long an agent may take to end when asked.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Lines of the agent's log shown when it fails.
const LOG_LINES_SHOWN: usize = 6;

/// The program that is the agent, with the arguments that make it so.
#[derive(Clone, Debug)]
pub struct AgentProgram {
    program: PathBuf,
    first_arguments: Vec<String>,
}

impl AgentProgram {
    /// This very program, as `causeway agent ...`.
    ///
    /// # Errors
    /// When the operating system does not tell which program runs.
    pub fn this_program() -> Result<Self> {
        let program = std::env::current_exe().context("find this program's file")?;
        Ok(Self { program, first_arguments: vec!["agent".to_owned()] })
    }

    /// A `causeway-agent` somewhere else.
    pub fn at(program: PathBuf) -> Self {
        Self { program, first_arguments: Vec::new() }
    }

    /// This program, started by another one (`ip netns exec NAME`) that becomes it.
    pub fn started_by(self, program: &str, arguments: &[&str]) -> Self {
        let own = self.program.to_string_lossy().into_owned();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let first_arguments = arguments.chain([own]).chain(self.first_arguments).collect();
        Self { program: PathBuf::from(program), first_arguments }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.first_arguments).args(arguments).kill_on_drop(true);
        command
    }
}

/// One enrolled agent, running or not.
pub struct Agent {
    program: AgentProgram,
    data_dir: PathBuf,
    child: Option<Child>,
}

impl Agent {
    /// An agent that keeps its things in `data_dir`.
    pub fn new(program: &AgentProgram, data_dir: PathBuf) -> Self {
        Self { program: program.clone(), data_dir, child: None }
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Runs one command of the agent to its end, with `input` on its standard input.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub async fn command(&self, arguments: &[&str], input: Option<&str>) -> Result<()> {
        let what = arguments.first().copied().unwrap_or_default();
        let mut child = self
            .program
            .command(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.program.program.display()))?;
        let mut stdin = child.stdin.take().context("the command has no standard input")?;
        stdin.write_all(input.unwrap_or_default().as_bytes()).await.context("write its standard input")?;
        drop(stdin);
        let output = tokio::time::timeout(COMMAND_WITHIN, child.wait_with_output())
            .await
            .with_context(|| format!("agent {what}: not done in {} s", COMMAND_WITHIN.as_secs()))??;
        if !output.status.success() {
            bail!("agent {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Describes a system to it (`directory`, `exchange`): a table of settings, and a secret that goes with them.
    ///
    /// # Errors
    /// When the agent does not accept them, with what it says.
    pub async fn configure(&self, table: &str, settings: &Value, (key, secret): (&str, &str)) -> Result<()> {
        let assignments = assignments(settings)?;
        let mut arguments = vec!["configure", table, "--secret-from-stdin", key];
        arguments.extend(assignments.iter().flat_map(|assignment| ["--set", assignment]));
        self.command(&arguments, Some(secret)).await
    }

    /// As [`Agent::configure`], for a system that needs no secret.
    ///
    /// # Errors
    /// When the agent does not accept the settings, with what it says.
    pub async fn set(&self, table: &str, settings: &Value) -> Result<()> {
        let assignments = assignments(settings)?;
        let mut arguments = vec!["configure", table];
        arguments.extend(assignments.iter().flat_map(|assignment| ["--set", assignment]));
        self.command(&arguments, None).await
    }

    /// Describes the directory to it.
    ///
    /// # Errors
    /// As [`Agent::configure`].
    pub async fn configure_directory(&self, settings: &Value, password: &str) -> Result<()> {
        self.configure("directory", settings, ("password", password)).await
    }

    /// Starts it and waits until it says that it is online.
    ///
    /// # Errors
    /// When it ends instead, or says nothing in time; with the last lines of its log.
    pub async fn start(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("it runs already");
        }
        let log =
            OpenOptions::new().create(true).append(true).open(self.log_path()).context("open its log")?;
        let mut child = self
            .program
            .command(&["run"])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.program.program.display()))?;
        let stdout = child.stdout.take().context("the agent has no standard output")?;
        let mut line = String::new();
        let read = tokio::time::timeout(READY_WITHIN, BufReader::new(stdout).read_line(&mut line)).await;
        self.child = Some(child);
        match read {
            Ok(Ok(length)) if length > 0 => Ok(()),
            Ok(Ok(_)) => bail!("it ended instead of coming online: {}", self.last_log_lines()),
            Ok(Err(error)) => Err(error).context("read its ready line"),
            Err(_) => bail!("it is not online after {} s: {}", READY_WITHIN.as_secs(), self.last_log_lines()),
        }
    }

    /// Ends it at once, as the loss of its machine would.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill().await.context("kill it")
    }

    /// Asks it to end and waits.
    ///
    /// # Errors
    /// When it does not run, or does not end in time.
    pub async fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        let pid = child.id().context("it has ended already")?;
        terminate(pid).await?;
        let ended = tokio::time::timeout(STOP_WITHIN, child.wait()).await;
        ended.with_context(|| format!("it has not ended {} s after SIGTERM", STOP_WITHIN.as_secs()))??;
        Ok(())
    }

    /// Overwrites the beginning of its state file.
    ///
    /// # Errors
    /// When there is none.
    pub fn corrupt_state(&self) -> Result<String> {
        let path = self.data_dir.join(causeway_agent::storage::redb::FILE_NAME);
        let mut file =
            OpenOptions::new().write(true).open(&path).with_context(|| path.display().to_string())?;
        file.write_all(&[0x5a; 8192])?;
        Ok(format!("{} begins with 8 KiB of rubbish now", path.display()))
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    fn last_log_lines(&self) -> String {
        let text = File::open(self.log_path()).and_then(std::io::read_to_string).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

/// Settings as `--set` takes them.
fn assignments(settings: &Value) -> Result<Vec<String>> {
    let settings = settings.as_object().context("the settings are no table")?;
    settings.iter().map(|(key, value)| Ok(format!("{key}={}", toml_value(value)?))).collect()
}

/// A value as TOML spells it.
fn toml_value(value: &Value) -> Result<String> {
    let value: toml::Value = serde_json::from_value(value.clone()).context("no such value in TOML")?;
    Ok(value.to_string())
}

/// SIGTERM by way of the `kill` program: `unsafe` is forbidden here, and a crate for one call is not worth it.
async fn terminate(pid: u32) -> Result<()> {
    let status = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await.context("run kill")?;
    if !status.success() {
        bail!("kill -TERM {pid} failed");
    }
    Ok(())
}
