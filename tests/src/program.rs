//! Runs third-party programs: bounded in time, with their output kept.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::limits::SCRIPT_OUTPUT_MAX_BYTES;

/// Folders that an ordinary user's path often lacks.
const MORE_FOLDERS: &[&str] = &["/usr/sbin", "/sbin", "/usr/lib/ipsec/plugins"];

/// What a program did.
#[derive(Debug)]
pub struct ProgramRun {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

impl ProgramRun {
    /// # Panics
    /// When the program failed; the message shows what it printed.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(
            self.status.success(),
            "it ended with {} after {:?}\n-- stdout\n{}\n-- stderr\n{}",
            self.status,
            self.elapsed,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// Where a program is, or `None` after a counted skip that names the Debian package to install.
pub fn find(program: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(MORE_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        crate::skips::skip(program, &format!("it is not installed; `apt-get install {package}`"));
    }
    found
}

/// Runs `command` with `input` on its standard input, at most for `timeout`, then kills it.
///
/// # Errors
/// When it does not start, or runs longer; with what it printed.
pub async fn run(command: &mut Command, input: &str, timeout: Duration) -> anyhow::Result<ProgramRun> {
    let started = Instant::now();
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let stdout = tokio::spawn(drain(child.stdout.take().context("stdout is piped")?));
    let stderr = tokio::spawn(drain(child.stderr.take().context("stderr is piped")?));
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // A program that does not read closes its end; what it does then is what the caller looks at.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let waited = tokio::time::timeout(timeout, child.wait()).await;
    if waited.is_err() {
        child.kill().await.with_context(|| format!("kill {name}"))?;
    }
    let (stdout, stderr) = (stdout.await??, stderr.await??);
    let status = waited.with_context(|| {
        format!("{name} ran longer than {timeout:?}\n-- stdout\n{stdout}\n-- stderr\n{stderr}")
    })??;
    Ok(ProgramRun { status, stdout, stderr, elapsed: started.elapsed() })
}

/// Keeps the first part and reads the rest away, so that a chatty program never blocks on a full pipe.
async fn drain(mut from: impl AsyncRead + Unpin) -> std::io::Result<String> {
    let mut kept = Vec::new();
    (&mut from).take(SCRIPT_OUTPUT_MAX_BYTES).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}
