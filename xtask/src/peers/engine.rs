//! The container engine: used as found, else started here.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};

use super::is_root;
use crate::process;
use crate::session::Session;
use crate::wait::{self, Wait};

/// The daemon answers within a second or two; beside a compiler on two cores in a few more.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the daemon keeps its process id. A machine that was cut off leaves it behind, and the next start refuses.
const PID_FILE: &str = "/var/run/docker.pid";

pub(super) fn answers(session: &Session) -> bool {
    process::succeeds(session.command("docker").arg("info"))
}

pub(super) fn start(session: &Session) -> anyhow::Result<()> {
    if answers(session) {
        return Ok(());
    }
    if !is_root(session) {
        bail!(
            "the container engine does not answer; start it (`sudo systemctl start docker`) and allow yourself to use it"
        );
    }
    remove_stale_pid_file(Path::new(PID_FILE))?;
    let log_path = session.peers_dir()?.join("dockerd.log");
    let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
    let mut command = session.command("dockerd");
    command.stdin(Stdio::null()).stdout(log.try_clone().context("share the log")?).stderr(log);
    // It outlives this run.
    let mut daemon = process::own_group(&mut command).spawn().context("start dockerd")?;
    std::fs::write(own_pid_file(session)?, daemon.id().to_string())
        .context("note the daemon's process id")?;
    wait::until("dockerd", START_TIMEOUT, || {
        if answers(session) {
            return Ok(Wait::Done(()));
        }
        let log = std::fs::read_to_string(&log_path).unwrap_or_default();
        if let Some(status) = daemon.try_wait().context("look at dockerd")? {
            bail!("dockerd ended with {status}:\n{}", process::tail(&log, 15));
        }
        Ok(Wait::NotYet(process::tail(&log, 3)))
    })
}

/// Stops the daemon if it was started by [`start`].
pub(super) fn stop(session: &Session) -> anyhow::Result<()> {
    let path = own_pid_file(session)?;
    let Ok(id) = std::fs::read_to_string(&path) else { return Ok(()) };
    if runs(id.trim(), "dockerd") {
        process::quiet(session.command("kill").arg(id.trim()))?;
        wait::until("dockerd to stop", START_TIMEOUT, || {
            Ok(if runs(id.trim(), "dockerd") {
                Wait::NotYet("still there".to_owned())
            } else {
                Wait::Done(())
            })
        })?;
    }
    std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}

/// Whether the process lives and is the program it should be; ids are used again.
pub(super) fn runs(id: &str, program: &str) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{id}/cmdline")) else { return false };
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    Path::new(&*String::from_utf8_lossy(first)).file_name().is_some_and(|name| name == program)
}

fn own_pid_file(session: &Session) -> anyhow::Result<std::path::PathBuf> {
    Ok(session.peers_dir()?.join("dockerd.pid"))
}

fn remove_stale_pid_file(path: &Path) -> anyhow::Result<()> {
    let Ok(id) = std::fs::read_to_string(path) else { return Ok(()) };
    if runs(id.trim(), "dockerd") {
        bail!("dockerd runs as process {} but does not answer", id.trim());
    }
    println!("   {} names process {}, which is no dockerd: removed", path.display(), id.trim());
    std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_of_a_process_that_is_gone_is_removed() {
        let path = std::env::temp_dir().join(format!("causeway-stale-{}.pid", std::process::id()));
        // This process lives but is no dockerd: the id was used again.
        std::fs::write(&path, std::process::id().to_string()).unwrap();
        remove_stale_pid_file(&path).unwrap();
        assert!(!path.exists());
        remove_stale_pid_file(&path).unwrap();
    }
}
