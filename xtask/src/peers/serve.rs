//! The servers all tests share: started by the program `peers` of causeway-tests, which says why.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::engine;
use crate::process;
use crate::session::Session;
use crate::wait::{self, Wait};

/// One of each that tests share. The XMPP servers are for benchmarks, which start their own.
const SHARED: &[&str] = &["openldap", "ds389", "samba_dc", "squid"];

/// Longer than the program's own bound, so that its message is the one that is seen.
const START_TIMEOUT: Duration = Duration::from_secs(240);

/// Removing containers takes seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Label under which a container names the process that keeps it.
const HOLDER_LABEL: &str = "causeway.holder";

/// Running servers; removed on drop, and also when this process is killed.
pub(crate) struct Served {
    child: Child,
}

impl Served {
    /// `None` when servers started by `cargo xtask peers start` are up already: those are used.
    pub(crate) fn start(session: &Session) -> anyhow::Result<Option<Self>> {
        if detached(session)?.is_some() {
            println!("   servers: using those that are up");
            return Ok(None);
        }
        let child = spawn(session, "serve")?;
        Ok(Some(Self { child }))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // The end of its standard input tells the child to remove its containers and end.
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("xtask: wait for the servers to stop: {error}");
        }
    }
}

pub(super) fn start_detached(session: &Session) -> anyhow::Result<()> {
    if let Some(id) = detached(session)? {
        println!("   servers: up already, kept by process {id}");
        return Ok(());
    }
    let child = spawn(session, "stay")?;
    std::fs::write(pid_file(session)?, child.id().to_string())
        .context("note the process id of the servers")?;
    println!(
        "   servers: up, addresses in target/peers/addresses.json; `cargo xtask peers stop` removes them"
    );
    Ok(())
}

pub(super) fn stop_detached(session: &Session) -> anyhow::Result<()> {
    if let Some(id) = detached(session)? {
        process::quiet(session.command("kill").arg(&id))?;
        wait::until("the servers to stop", STOP_TIMEOUT, || {
            Ok(if engine::runs(&id, "peers") {
                Wait::NotYet(format!("process {id} is there"))
            } else {
                Wait::Done(())
            })
        })?;
        std::fs::remove_file(pid_file(session)?).context("forget the process id of the servers")?;
    }
    if engine::answers(session) { sweep(session) } else { Ok(()) }
}

/// The process that keeps servers after `peers start`, if it lives.
fn detached(session: &Session) -> anyhow::Result<Option<String>> {
    let Ok(id) = std::fs::read_to_string(pid_file(session)?) else { return Ok(None) };
    Ok(engine::runs(&id, "peers").then_some(id))
}

fn spawn(session: &Session, mode: &str) -> anyhow::Result<Child> {
    sweep(session)?;
    session.stream(&mut session.cargo(&["build", "--package", "causeway-tests", "--bin", "peers"]))?;
    let started = Instant::now();
    let peers_dir = session.peers_dir()?;
    let (addresses, log_path) = (peers_dir.join("addresses.json"), peers_dir.join("peers.log"));
    // Of a run that was killed; its servers are gone with the sweep.
    if addresses.exists() {
        std::fs::remove_file(&addresses).context("remove old addresses")?;
    }
    let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
    let mut command = Command::new(program(session)?);
    command
        .arg(mode)
        .arg(&addresses)
        .args(SHARED)
        .env("CAUSEWAY_PEERS_DIR", &peers_dir)
        .stdin(if mode == "stay" { Stdio::null() } else { Stdio::piped() })
        .stdout(log.try_clone().context("share the log")?)
        .stderr(log);
    let mut child = process::own_group(&mut command).spawn().context("start the peers program")?;
    wait::until("servers", START_TIMEOUT, || {
        if addresses.exists() {
            return Ok(Wait::Done(()));
        }
        let log = std::fs::read_to_string(&log_path).unwrap_or_default();
        if let Some(status) = child.try_wait().context("look at the peers program")? {
            bail!("the peers program ended with {status}:\n{}", process::tail(&log, 20));
        }
        Ok(Wait::NotYet(process::tail(&log, 3)))
    })?;
    println!("   servers: {} up in {:.1} s", SHARED.join(", "), started.elapsed().as_secs_f64());
    Ok(child)
}

/// Removes containers whose keeper was killed and could not do it.
fn sweep(session: &Session) -> anyhow::Result<()> {
    let format = format!("{{{{.ID}}}} {{{{.Label \"{HOLDER_LABEL}\"}}}}");
    let mut list = session.command("docker");
    list.args(["ps", "--all", "--filter", &format!("label={HOLDER_LABEL}"), "--format", &format]);
    for line in process::quiet(&mut list)?.lines() {
        let Some((container, holder)) = line.split_once(' ') else { continue };
        if !engine::runs(holder, "peers") {
            println!("   removing container {container}: its keeper, process {holder}, is gone");
            process::quiet(session.command("docker").args(["rm", "--force", "--volumes", container]))?;
        }
    }
    Ok(())
}

fn pid_file(session: &Session) -> anyhow::Result<PathBuf> {
    Ok(session.peers_dir()?.join("peers.pid"))
}

/// Where cargo put it: `CARGO_TARGET_DIR` or the repository's own target folder.
fn program(session: &Session) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program's own path")?;
    let beside = own.with_file_name("peers");
    if beside.exists() {
        return Ok(beside);
    }
    let usual = session.root.join("target/debug/peers");
    if usual.exists() { Ok(usual) } else { bail!("the program `peers` is not at {}", usual.display()) }
}
