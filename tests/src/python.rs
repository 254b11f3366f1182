//! Runs a third-party client written in Python, from `tests/strangers/`, with the pinned packages that
//! `cargo xtask peers` installs into `target/peers/venv`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::program::{self, ProgramRun};

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
) -> anyhow::Result<Option<ProgramRun>> {
    let Some(python) = interpreter() else { return Ok(None) };
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("strangers").join(script);
    let mut command = tokio::process::Command::new(python);
    command.arg("-u").arg(&path).args(arguments).envs(environment.iter().copied());
    program::run(&mut command, "", timeout).await.with_context(|| path.display().to_string()).map(Some)
}
