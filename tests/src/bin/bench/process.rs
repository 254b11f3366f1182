//! Programs under measurement: started from the folder this program is in, read from `/proc`, ended when dropped.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a program may take to its ready line.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Clock ticks per second of `/proc/<pid>/stat` on Linux for user space (`USER_HZ`).
const USER_HZ: f64 = 100.0;

/// A running program.
pub(crate) struct Program {
    child: Child,
    /// Its ready line.
    pub(crate) ready: Value,
    /// From its start to the ready line.
    pub(crate) ready_after: Duration,
}

/// The agent as it is delivered for Linux; this program lies in another profile's folder.
pub(crate) fn delivered_agent() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.with_file_name("../x86_64-unknown-linux-musl/dist/causeway-agent");
    if !path.exists() {
        bail!("{} is missing; `cargo xtask bench agent` and `cargo xtask dist` build it", path.display());
    }
    Ok(path)
}

/// What else has been packed by `cargo xtask dist`, if it has: name and size in bytes.
pub(crate) fn packages() -> Result<Vec<(String, u64)>> {
    let folder = std::env::current_exe()?.with_file_name("../packages");
    let Ok(files) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for file in files {
        let file = file?;
        found.push((file.file_name().to_string_lossy().into_owned(), file.metadata()?.len()));
    }
    found.sort();
    Ok(found)
}

/// The file of a program built beside this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing; build it with `cargo build --release --bins`", path.display());
    }
    Ok(path)
}

impl Program {
    /// Starts a program of ours and waits for its ready line.
    pub(crate) async fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(beside(name)?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        tokio::time::timeout(READY_WITHIN, BufReader::new(stdout).read_line(&mut line))
            .await
            .with_context(|| format!("{name} is not ready after {} s", READY_WITHIN.as_secs()))??;
        let ready_after = started.elapsed();
        let ready = serde_json::from_str(&line).with_context(|| format!("{name} said {line:?}"))?;
        Ok(Self { child, ready, ready_after })
    }

    /// A string of the ready line.
    pub(crate) fn text(&self, pointer: &str) -> Result<&str> {
        self.ready
            .pointer(pointer)
            .and_then(Value::as_str)
            .with_context(|| format!("the ready line has no {pointer}"))
    }

    /// Sends a signal by name and waits for the end.
    pub(crate) async fn signal(mut self, name: &str) -> Result<()> {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.pid()?.to_string()).status().await?;
        if !status.success() {
            bail!("kill -{name} failed");
        }
        tokio::time::timeout(READY_WITHIN, self.child.wait()).await.context("it does not end")??;
        Ok(())
    }

    /// Process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the program has ended")
    }
}

/// Resident memory now, in MiB.
pub(crate) fn rss_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmRSS:")
}

/// Highest resident memory so far, in MiB.
pub(crate) fn peak_rss_mib(pid: u32) -> Result<f64> {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read /proc")?;
    let line = status.lines().find(|line| line.starts_with(field)).context("no such field")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib / 1024.0)
}

/// Processor time used so far, user and system, in seconds.
pub(crate) fn cpu_secs(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc")?;
    let after_name = stat.rsplit_once(')').context("unexpected /proc format")?.1;
    // Counted from state, the third field of proc(5): utime is the 14th, stime the 15th.
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum();
    Ok(ticks / USER_HZ)
}
