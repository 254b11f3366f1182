//! Runs a third-party client written in Python, from `tests/strangers/`, with the pinned packages that
//! `cargo xtask peers` installs into `target/peers/venv`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::SCRIPT_OUTPUT_MAX_BYTES;

/// What a script did.
#[derive(Debug)]
pub struct ScriptRun {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
}

impl ScriptRun {
    /// # Panics
    /// When the script failed; the message shows what it printed.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(
            self.status.success(),
            "script ended with {} after {:?}\n-- stdout\n{}\n-- stderr\n{}",
            self.status,
            self.elapsed,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// The interpreter with the pinned packages, or `None` after a counted skip.
pub fn interpreter() -> Option<PathBuf> {
    let python = crate::containers::peers_dir().join("venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    crate::skips::skip("python clients", "target/peers/venv is missing; run `cargo xtask peers start`");
    None
}

/// Runs `tests/strangers/<script>` with `arguments`, at most for `timeout`, then kills it.
///
/// `None` when the interpreter is missing (a counted skip). Secrets go into `environment`, not into arguments, which
/// every user of the machine can read.
pub async fn run<A: AsRef<OsStr>>(
    script: &str,
    arguments: &[A],
    environment: &[(&str, &str)],
    timeout: Duration,
) -> anyhow::Result<Option<ScriptRun>> {
    let Some(python) = interpreter() else { return Ok(None) };
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("strangers").join(script);
    let started = Instant::now();
    let mut child = tokio::process::Command::new(python)
        .arg("-u")
        .arg(&path)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", path.display()))?;
    let stdout = tokio::spawn(drain(child.stdout.take().context("stdout is piped")?));
    let stderr = tokio::spawn(drain(child.stderr.take().context("stderr is piped")?));
    let waited = tokio::time::timeout(timeout, child.wait()).await;
    if waited.is_err() {
        child.kill().await.with_context(|| format!("kill {script}"))?;
    }
    let (stdout, stderr) = (stdout.await??, stderr.await??);
    let status = waited.with_context(|| {
        format!("{script} ran longer than {timeout:?}\n-- stdout\n{stdout}\n-- stderr\n{stderr}")
    })??;
    Ok(Some(ScriptRun { status, stdout, stderr, elapsed: started.elapsed() }))
}

/// Keeps the first part and reads the rest away, so that a chatty script never blocks on a full pipe.
async fn drain(mut from: impl AsyncRead + Unpin) -> std::io::Result<String> {
    let mut kept = Vec::new();
    (&mut from).take(SCRIPT_OUTPUT_MAX_BYTES).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}
