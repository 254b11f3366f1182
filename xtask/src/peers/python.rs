//! The Python environment of the third-party clients: pinned packages in `target/peers/venv`.

use std::path::PathBuf;

use anyhow::Context;

use super::packages;
use crate::process;
use crate::session::Session;

/// Whether what is installed is what `tests/requirements.txt` says.
pub(super) fn ready(session: &Session) -> anyhow::Result<bool> {
    let wanted = requirements(session)?;
    Ok(std::fs::read_to_string(stamp(session)?).is_ok_and(|installed| installed == wanted))
}

pub(super) fn install(session: &Session) -> anyhow::Result<()> {
    if ready(session)? {
        return Ok(());
    }
    let venv = session.peers_dir()?.join("venv");
    let advice = || {
        format!(
            "needs Python 3.11 or newer; missing packages: {:?}",
            packages::missing(session, packages::For::Tests)
        )
    };
    process::quiet(session.command("python3").args(["-m", "venv", "--clear"]).arg(&venv))
        .with_context(advice)?;
    let python = venv.join("bin/python");
    let mut command = session.command(python.to_str().context("the repository's path is not UTF-8")?);
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--requirement",
        "tests/requirements.txt",
    ]);
    process::quiet(&mut command).with_context(advice)?;
    std::fs::write(stamp(session)?, requirements(session)?).context("note what is installed")
}

fn requirements(session: &Session) -> anyhow::Result<String> {
    std::fs::read_to_string(session.root.join("tests/requirements.txt"))
        .context("read tests/requirements.txt")
}

/// A copy of the requirements that were installed; written last.
fn stamp(session: &Session) -> anyhow::Result<PathBuf> {
    Ok(session.peers_dir()?.join("venv/installed.txt"))
}
